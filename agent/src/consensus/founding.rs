//! How a cluster starts (DESIGN §6, "Start"): the initialiser collects a yes from every voter, initialises the engine,
//! and whoever leads writes the first entry from its own recorded yes, so that it does not matter if the initialiser
//! dies in between.

use super::Consensus;
use super::engine::{Engine, Peer};
use super::machine::Learned;
use super::pledge::{Members, Pledge};
use super::rpc::{Answer, Body};
use super::store::Store;
use baton_core::Command;
use baton_shared::id::{ClusterId, NodeId};
use openraft::error::{InitializeError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A yes is one flush.
const ASK: Duration = Duration::from_secs(3);
/// From the initialisation to the first entry: an election or two.
const FIRST_ENTRY: Duration = Duration::from_secs(10);
/// Between two looks whether the first entry is due here.
const LOOK: Duration = Duration::from_millis(200);

/// Starts a cluster of `members`, or helps the start along.
pub(super) async fn found(consensus: &Consensus, members: Members) -> Result<(), String> {
    if consensus.learned.borrow().0.cluster != ClusterId(0) {
        return Ok(());
    }
    let initialised = consensus.raft.is_initialized().await;
    if !initialised.map_err(|error| format!("the consensus engine stopped: {error}"))? {
        let pledge = ask_all(consensus, members).await?;
        initialise(&consensus.raft, &pledge).await?;
    }
    let mut learned = consensus.learned.clone();
    let started = learned.wait_for(|(state, _)| state.cluster != ClusterId(0));
    match timeout(FIRST_ENTRY, started).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err("the cluster is initialised, and waits for a majority of its voters".into()),
    }
}

pub(super) async fn ask_all(consensus: &Consensus, members: Members) -> Result<Pledge, String> {
    let store = consensus.store.clone();
    let me = store.identity().node;
    // Recorded before anyone is asked: a retry after a crash asks for the same cluster.
    let pledge = store
        .found(members)
        .map_err(|no| format!("this node cannot start the cluster: {no}"))?;
    consensus.cluster.send_replace(pledge.cluster);
    for voter in pledge.voters() {
        if voter == me {
            continue;
        }
        let (name, _) = &pledge.members[&voter];
        let body = Body::Pledge(pledge.clone());
        match consensus.dial.ask(name, voter, body, ASK).await? {
            Answer::Pledged => {}
            other => {
                return Err(format!(
                    "{name} does not let this node start the cluster: {}",
                    other.why()
                ));
            }
        }
    }
    Ok(pledge)
}

pub(super) async fn initialise(raft: &Engine, pledge: &Pledge) -> Result<(), String> {
    let voters: BTreeMap<u64, Peer> = pledge
        .voters()
        .iter()
        .map(|id| (id.0, Peer::from(&pledge.members[id].0)))
        .collect();
    match raft.initialize(voters).await {
        // "Not allowed": it has entries already.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(format!("the consensus engine could not be initialised: {error}")),
    }
}

/// Writes the first entry whenever this node leads a cluster that has none. Ends when there is one.
pub(super) async fn complete(raft: Engine, store: Arc<Store>, mut learned: watch::Receiver<Learned>) {
    loop {
        if learned.borrow_and_update().0.cluster != ClusterId(0) {
            return;
        }
        if let Some(pledge) = due(&raft, &store) {
            let nodes = pledge.members.iter();
            let init = Command::Init {
                cluster: pledge.cluster,
                nodes: nodes
                    .map(|(id, (name, kind))| (*id, name.clone(), *kind))
                    .collect(),
            };
            if let Ok(Err(error)) = timeout(FIRST_ENTRY, raft.client_write(init)).await {
                tracing::debug!("the first entry was not written: {error}");
            }
        }
        sleep(LOOK).await;
    }
}

/// The yes from which this node would write the first entry, if it leads the voters that it names.
fn due(raft: &Engine, store: &Store) -> Option<Pledge> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow();
    if metrics.current_leader != Some(metrics.id) {
        return None;
    }
    let voters: BTreeSet<NodeId> = metrics.membership_config.voter_ids().map(NodeId).collect();
    store.pledge().filter(|pledge| pledge.voters() == voters)
}
