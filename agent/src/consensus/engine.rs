//! openraft: its types, its settings, how it reaches its peers, and its membership.
//!
//! Timers are ordinary and unhurried: nothing urgent waits for an election, and no safety leans on them (DESIGN §5, §6).

use super::dial::Dial;
use super::rpc::{Answer, Body};
use baton_core::input::Coordinator;
use baton_core::output::EngineChange;
use baton_core::{Command, Outcome, State};
use baton_shared::id::{NodeId, NodeName};
use openraft::error::{
    ClientWriteError, InstallSnapshotError, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{ChangeMembers, RaftMetrics, RaftNetwork, RaftNetworkFactory, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

openraft::declare_raft_types!(
    /// The engine's types.
    pub(super) Types:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Peer,
        AsyncRuntime = Runtime,
);

/// The same, with random numbers that a simulation can repeat.
#[cfg(test)]
use crate::simulation::runtime::Runtime;
#[cfg(not(test))]
use openraft::TokioRuntime as Runtime;

/// The engine.
pub(super) type Engine = openraft::Raft<Types>;
/// What the engine says of itself.
pub(super) type Metrics = RaftMetrics<u64, Peer>;

/// A node as the engine's membership keeps it: by its name its addresses are found.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Peer {
    /// `None` only in the engine's own default.
    pub(super) name: Option<NodeName>,
}

impl From<&NodeName> for Peer {
    fn from(name: &NodeName) -> Peer {
        Peer {
            name: Some(name.clone()),
        }
    }
}

/// After a peer could not be reached on any network.
const RETRY: Duration = Duration::from_millis(250);
/// One piece of a snapshot; a second of a slow network.
const PIECE: u64 = 256 * 1024;

/// The engine's settings.
pub(super) fn settings(cluster: &str) -> Result<Arc<openraft::Config>, String> {
    let settings = openraft::Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: 250,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        install_snapshot_timeout: 5000,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(512),
        max_in_snapshot_log_to_keep: 128,
        purge_batch_size: 64,
        replication_lag_threshold: 1024,
        snapshot_max_chunk_size: PIECE,
        ..Default::default()
    };
    settings
        .validate()
        .map(Arc::new)
        .map_err(|error| error.to_string())
}

/// Makes a client per peer.
pub(super) struct Network(pub(super) Dial);

/// One peer.
pub(super) struct Client {
    dial: Dial,
    to: NodeId,
    peer: Peer,
}

type Fault<E = RaftError<u64>> = RPCError<u64, Peer, E>;

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Client {
        Client {
            dial: self.0.clone(),
            to: NodeId(target),
            peer: peer.clone(),
        }
    }
}

impl Client {
    async fn ask<E: std::error::Error>(&self, body: Body, limit: Duration) -> Result<Answer, Fault<E>> {
        let Some(name) = &self.peer.name else {
            return Err(unreachable_peer("it has no name"));
        };
        match self.dial.ask(name, self.to, body, limit).await {
            Ok(Answer::Failed(why)) => Err(NetworkError::new(&std::io::Error::other(why)).into()),
            Ok(answer) => Ok(answer),
            Err(why) => Err(unreachable_peer(&why)),
        }
    }
}

fn unreachable_peer<E: std::error::Error>(why: &str) -> Fault<E> {
    Unreachable::new(&std::io::Error::other(why)).into()
}

fn odd<E: std::error::Error>(answer: &Answer) -> Fault<E> {
    unreachable_peer(&answer.why())
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Fault> {
        let entries = rpc.entries.len() as u64;
        let body = Body::Append(rpc);
        if entries > 1 && self.dial.is_too_long(&body) {
            return Err(PayloadTooLarge::new_entries_hint(entries / 2).into());
        }
        match self.ask(body, option.hard_ttl()).await? {
            Answer::Append(answer) => Ok(answer),
            other => Err(odd(&other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Fault<RaftError<u64, InstallSnapshotError>>> {
        match self.ask(Body::Snapshot(rpc), option.hard_ttl()).await? {
            Answer::Snapshot(Ok(answer)) => Ok(answer),
            Answer::Snapshot(Err(mismatch)) => {
                let source = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RemoteError::new(self.to.0, source).into())
            }
            other => Err(odd(&other)),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, Fault> {
        match self.ask(Body::Vote(rpc), option.hard_ttl()).await? {
            Answer::Vote(answer) => Ok(answer),
            other => Err(odd(&other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

/// The engine's metrics in the core's words.
pub(super) fn coordinator(metrics: &Metrics) -> Coordinator {
    let members = &metrics.membership_config;
    let membership = members.membership();
    let committed = members.log_id().is_some() && metrics.last_applied >= *members.log_id();
    let mut coordinator = Coordinator {
        term: metrics.current_term,
        leader: metrics.current_leader.map(NodeId),
        voters: membership.voter_ids().map(NodeId).collect(),
        learners: membership.learner_ids().map(NodeId).collect(),
        settled: committed && membership.get_joint_config().len() == 1,
        last_log: metrics.last_log_index.unwrap_or(0),
        ..Coordinator::default()
    };
    if let Some(replication) = &metrics.replication {
        let matched =
            |(id, log): (&u64, &Option<openraft::LogId<u64>>)| (NodeId(*id), log.map_or(0, |log| log.index));
        coordinator.matched = replication.iter().map(matched).collect();
        coordinator
            .matched
            .insert(NodeId(metrics.id), coordinator.last_log);
    }
    coordinator
}

/// Makes one change of the membership; does nothing where it is made already.
pub(super) async fn change(raft: &Engine, change: EngineChange, state: &State) -> Result<(), String> {
    match change {
        EngineChange::AddLearner { id, name } => {
            let members = raft.metrics().borrow().membership_config.clone();
            let peer = Peer::from(&name);
            let changed = match members.membership().get_node(&id.0) {
                Some(known) if *known == peer => return Ok(()),
                Some(_) => {
                    let renamed = ChangeMembers::SetNodes([(id.0, peer)].into());
                    raft.change_membership(renamed, true).await
                }
                None => raft.add_learner(id.0, peer, false).await,
            };
            changed.map(drop).map_err(says)
        }
        EngineChange::SetMembers { voters, learners } => set_members(raft, &voters, &learners, state).await,
    }
}

async fn set_members(
    raft: &Engine,
    voters: &BTreeSet<NodeId>,
    learners: &BTreeSet<NodeId>,
    state: &State,
) -> Result<(), String> {
    let voters: BTreeSet<u64> = voters.iter().map(|id| id.0).collect();
    if voters.is_empty() {
        return Err("a cluster needs a voter".into());
    }
    let members = raft.metrics().borrow().membership_config.clone();
    let known: BTreeSet<u64> = members.membership().nodes().map(|(id, _)| *id).collect();
    let keep: BTreeSet<u64> = voters
        .iter()
        .copied()
        .chain(learners.iter().map(|id| id.0))
        .collect();
    for id in keep.difference(&known) {
        let name = state
            .name_of(NodeId(*id))
            .ok_or_else(|| format!("node {} is not known yet", NodeId(*id)))?;
        raft.add_learner(*id, Peer::from(name), false)
            .await
            .map_err(says)?;
    }
    let sets = members.membership().get_joint_config();
    if sets.len() != 1 || sets[0] != voters {
        // `retain`: a voter that goes becomes a learner; whoever is not wanted at all is dropped below.
        raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true)
            .await
            .map_err(says)?;
    }
    let members = raft.metrics().borrow().membership_config.clone();
    let mut gone: BTreeSet<u64> = members.membership().nodes().map(|(id, _)| *id).collect();
    gone.extend(&known);
    gone.retain(|id| !keep.contains(id));
    if !gone.is_empty() {
        raft.change_membership(ChangeMembers::RemoveNodes(gone), true)
            .await
            .map_err(says)?;
    }
    Ok(())
}

fn says(error: RaftError<u64, ClientWriteError<u64, Peer>>) -> String {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            "this node is not the coordinator".into()
        }
        other => format!("the membership could not be changed: {other}"),
    }
}
