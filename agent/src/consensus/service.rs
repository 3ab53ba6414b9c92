//! What this node answers to its peers. Every question passes [`Service::answer`], which looks at whom it is for before
//! the engine sees it (V7).

use super::engine::{Engine, Peer};
use super::pledge::Pledge;
use super::rpc::{Answer, Body, LATER_BOOT, Request, Try};
use super::store::Store;
use super::streams::Streams;
use crate::handle::Counters;
use baton_core::{Command, Outcome};
use baton_shared::id::{Boot, ClusterId, NodeId};
use openraft::error::{ClientWriteError, InstallSnapshotError, RaftError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

/// Senders that are remembered, far more than a cluster has; then all are forgotten.
const MAX_SENDERS: usize = 1024;
/// Changes of one sender that are remembered, with room for all that it has under way.
const MAX_CHANGES: usize = 1024;
/// Reading a configuration takes longer than this only if something is wrong.
const RELOAD: Duration = Duration::from_secs(5);
/// Bytes that are repeated at most: more than the longest packet of any network.
const MAX_ECHO: usize = 64 << 10;
/// Between two reports of nodes of other clusters.
const REPORT: Duration = Duration::from_secs(60);

/// This node, as its peers see it.
pub(super) struct Service {
    pub(super) raft: Engine,
    pub(super) store: Arc<Store>,
    pub(super) streams: Arc<Streams>,
    pub(super) counters: Arc<Counters>,
    pub(super) cluster: watch::Sender<ClusterId>,
    pub(super) reload: mpsc::Sender<oneshot::Sender<Result<String, String>>>,
    /// What is remembered of each sender.
    pub(super) senders: Mutex<BTreeMap<NodeId, Sender>>,
    /// When another cluster's node was last reported.
    pub(super) warned: Mutex<Option<Instant>>,
}

/// A sender, as far as what it sent may come late.
pub(super) struct Sender {
    /// The newest that was heard.
    boot: Boot,
    /// Its latest changes, each with the number of its last try.
    changes: BTreeMap<u64, u64>,
    /// Changes before this are forgotten.
    forgotten: u64,
}

impl Sender {
    fn new(boot: Boot) -> Sender {
        Sender {
            boot,
            changes: BTreeMap::new(),
            forgotten: 0,
        }
    }

    /// Whether a try comes so late that another may have followed it.
    fn is_late(&mut self, one: &Try) -> bool {
        if one.change < self.forgotten {
            return true;
        }
        let last = self.changes.entry(one.change).or_insert(one.number);
        let late = one.number < *last;
        *last = one.number.max(*last);
        if self.changes.len() > MAX_CHANGES
            && let Some((oldest, _)) = self.changes.pop_first()
        {
            self.forgotten = oldest + 1;
        }
        late
    }
}

impl Service {
    /// The key of streams.
    pub(super) fn key(&self) -> [u8; 32] {
        let config = self.streams.config();
        config.cluster.key.derive("stream", config.cluster.name.as_str())
    }

    /// Answers one question.
    pub(super) async fn answer(&self, request: Request) -> Answer {
        let me = self.store.identity();
        match request.body {
            Body::Hello => return Answer::Hello(self.streams.config().me.clone(), me.node),
            Body::Echo(mut text) => {
                text.truncate(MAX_ECHO);
                return Answer::Echo(text);
            }
            _ => {}
        }
        if request.to != me.node {
            Counters::add(&self.counters.bad_streams);
            return Answer::NotMe(me.node);
        }
        if request.from == me.node {
            return Answer::Refused("it has the sender's consensus id; was a data directory copied?".into());
        }
        if self.is_old(request.from, request.boot) {
            return Answer::Refused(LATER_BOOT.into());
        }
        if let Body::Pledge(pledge) = request.body {
            return self.pledge(request.from, pledge);
        }
        if let Some(refusal) = self.outsider(&request, me.cluster) {
            return refusal;
        }
        let leads = matches!(request.body, Body::Append(_) | Body::Vote(_) | Body::Snapshot(_));
        if leads && self.removed(request.from) {
            return Answer::Refused("the sender was taken out of this node's configuration".into());
        }
        match request.body {
            Body::Append(append) => match self.raft.append_entries(append).await {
                Ok(answer) => Answer::Append(answer),
                Err(error) => Answer::Failed(error.to_string()),
            },
            Body::Vote(vote) => match self.raft.vote(vote).await {
                Ok(answer) => Answer::Vote(answer),
                Err(error) => Answer::Failed(error.to_string()),
            },
            Body::Snapshot(piece) => match self.raft.install_snapshot(piece).await {
                Ok(answer) => Answer::Snapshot(Ok(answer)),
                Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                    Answer::Snapshot(Err(mismatch))
                }
                Err(error) => Answer::Failed(error.to_string()),
            },
            Body::Propose(one) if !self.leads(one.term) => Answer::NotLeader(None),
            Body::Propose(one) if self.is_late(request.from, request.boot, &one) => {
                Answer::Refused("it was asked again since".into())
            }
            Body::Propose(one) => match propose_here(&self.raft, one.command).await {
                Proposal::Done(outcome) => Answer::Proposed(outcome),
                Proposal::Leader(leader) => Answer::NotLeader(leader),
                Proposal::Failed(why) => Answer::Failed(why),
            },
            Body::Reload => self.reload().await,
            Body::Hello | Body::Echo(_) | Body::Pledge(_) => Answer::Refused("answered before".into()),
        }
    }

    /// Whether the sender was taken out of the configuration. It may lead the log until then; from then on the others elect
    /// somebody who lets it go.
    fn removed(&self, from: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let peer = metrics.membership_config.membership().get_node(&from.0);
        let name = peer.and_then(|peer| peer.name.as_ref());
        name.is_some_and(|name| !self.streams.config().nodes.contains_key(name))
    }

    /// Remembers the sender's newest boot. Two runs of one node must not both be heard.
    fn is_old(&self, from: NodeId, boot: Boot) -> bool {
        let mut senders = self.senders.lock().unwrap_or_else(|e| e.into_inner());
        if senders.len() >= MAX_SENDERS && !senders.contains_key(&from) {
            senders.clear();
        }
        let sender = senders.entry(from).or_insert_with(|| Sender::new(boot));
        if boot > sender.boot {
            *sender = Sender::new(boot);
        }
        boot < sender.boot
    }

    /// Whether this node leads in that very term.
    fn leads(&self, term: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.current_leader == Some(metrics.id) && metrics.current_term == term
    }

    /// Whether a try was followed by another, or may have been. Those of other terms never come here.
    fn is_late(&self, from: NodeId, boot: Boot, one: &Try) -> bool {
        let mut senders = self.senders.lock().unwrap_or_else(|e| e.into_inner());
        let sender = senders.entry(from).or_insert_with(|| Sender::new(boot));
        boot < sender.boot || sender.is_late(one)
    }

    /// Why the sender's cluster has nothing to say here. A fresh node is let in by the engine's own messages alone, and
    /// that is on disk before the engine sees them.
    fn outsider(&self, request: &Request, mine: ClusterId) -> Option<Answer> {
        let theirs = request.cluster;
        let fresh = ClusterId(0);
        if mine == theirs && mine != fresh {
            return None;
        }
        match &request.body {
            Body::Reload if mine == fresh || theirs == fresh => None,
            Body::Append(_) | Body::Vote(_) | Body::Snapshot(_) if mine == fresh && theirs != fresh => {
                match self.store.join(theirs) {
                    Ok(true) => {
                        tracing::info!("this node was let into cluster {theirs}");
                        self.cluster.send_replace(theirs);
                        None
                    }
                    Ok(false) => Some(Answer::OtherCluster(self.store.identity().cluster)),
                    Err(why) => Some(Answer::Failed(why)),
                }
            }
            _ => {
                Counters::add(&self.counters.bad_streams);
                if theirs != fresh && mine != fresh {
                    self.report(request, mine);
                }
                Some(Answer::OtherCluster(mine))
            }
        }
    }

    /// Tells the operator of a node of another cluster, once a minute at most.
    fn report(&self, request: &Request, mine: ClusterId) {
        let mut warned = self.warned.lock().unwrap_or_else(|e| e.into_inner());
        if warned.is_none_or(|at| at.elapsed() > REPORT) {
            *warned = Some(Instant::now());
            tracing::warn!(
                "node {} of cluster {} was refused: this node belongs to cluster {mine}; do two clusters share a key?",
                request.from,
                request.cluster
            );
        }
    }

    fn pledge(&self, from: NodeId, pledge: Pledge) -> Answer {
        if pledge.initialiser != from {
            return Answer::Refused("only the initialiser may ask".into());
        }
        let cluster = pledge.cluster;
        // A flush on this thread, once in the life of a cluster.
        match self.store.promise(pledge) {
            Ok(()) => {
                self.cluster.send_replace(cluster);
                Answer::Pledged
            }
            Err(no) => Answer::Refused(no.to_string()),
        }
    }

    async fn reload(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        if self.reload.try_send(answer).is_err() {
            return Answer::Refused("it is busy".into());
        }
        match timeout(RELOAD, answered).await {
            Ok(Ok(Ok(text))) => Answer::Reloaded(text),
            Ok(Ok(Err(why))) => Answer::Refused(why),
            Ok(Err(_)) | Err(_) => Answer::Failed("it did not finish reading its configuration".into()),
        }
    }
}

/// What came of a proposal to the engine here.
pub(super) enum Proposal {
    /// Applied.
    Done(Outcome),
    /// This node does not lead; that one does, if one is known.
    Leader(Option<Peer>),
    /// Not known.
    Failed(String),
}

/// Proposes to the engine here. May wait for as long as there is no majority: bound it.
pub(super) async fn propose_here(raft: &Engine, command: Command) -> Proposal {
    match raft.client_write(command).await {
        Ok(written) => Proposal::Done(written.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Proposal::Leader(to.leader_node),
        Err(error) => Proposal::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(change: u64, number: u64) -> Try {
        Try {
            term: 1,
            change,
            number,
            command: Command::Pause(true),
        }
    }

    #[test]
    fn a_try_that_another_followed_comes_too_late() {
        let mut sender = Sender::new(Boot(1));
        assert!(!sender.is_late(&one(1, 2)), "the first");
        assert!(
            !sender.is_late(&one(3, 6)),
            "the second try of another, the first is held back"
        );
        assert!(sender.is_late(&one(3, 4)));
        assert!(!sender.is_late(&one(1, 7)));
        assert!(sender.is_late(&one(1, 2)));
    }

    #[test]
    fn what_is_forgotten_is_late_and_memory_has_a_bound() {
        let mut sender = Sender::new(Boot(1));
        let changes = MAX_CHANGES as u64 + 10;
        for change in 0..changes {
            assert!(!sender.is_late(&one(change, change + 1)));
        }
        assert_eq!(sender.changes.len(), MAX_CHANGES);
        assert!(sender.is_late(&one(9, changes * 2)));
        assert!(!sender.is_late(&one(10, changes * 2)));
    }
}
