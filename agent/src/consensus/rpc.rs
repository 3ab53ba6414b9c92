//! What sidecars say to each other over streams. Written and read with postcard inside a frame of
//! [`channel`](super::channel).

use super::engine::{Peer, Types};
use super::pledge::Pledge;
use baton_core::{Command, Outcome};
use baton_shared::id::{Boot, ClusterId, NodeId, NodeName};
use openraft::error::SnapshotMismatch;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod fuzz;

/// Why the question of a run is refused that is superseded by a later one of its consensus id (V7).
pub(super) const LATER_BOOT: &str = "a later boot of the sender was heard";

/// A question, and between whom (V7).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// The sender's cluster; 0 while it is fresh.
    pub(super) cluster: ClusterId,
    /// The sender.
    pub(super) from: NodeId,
    /// Its run.
    pub(super) boot: Boot,
    /// For whom it is. Only [`Body::Hello`] and [`Body::Echo`] are answered by anyone else.
    pub(super) to: NodeId,
    /// What is asked.
    pub(super) body: Body,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Body {
    /// Who are you?
    Hello,
    /// The engine's.
    Append(AppendEntriesRequest<Types>),
    /// The engine's.
    Vote(VoteRequest<u64>),
    /// The engine's.
    Snapshot(InstallSnapshotRequest<Types>),
    /// Put this into the log, if you lead.
    Propose(Try),
    /// Say yes to this initialiser.
    Pledge(Pledge),
    /// Read your configuration again.
    Reload,
    /// Repeat this: does it pass?
    Echo(Vec<u8>),
}

/// One try to put a command into the log.
///
/// A try that a broken network held back may arrive long after it was given up, when another made the change and later
/// changes followed. It must not be made then: it names the leader's term, and a leader of that term remembers which tries
/// were followed by others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Try {
    /// Of the leader that is asked.
    pub(super) term: u64,
    /// The same for every try to make one change, and for nothing else of this run of the sender. Grows.
    pub(super) change: u64,
    /// Of this try. Grows.
    pub(super) number: u64,
    /// The change.
    pub(super) command: Command,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Who answers.
    Hello(NodeName, NodeId),
    /// The engine's.
    Append(AppendEntriesResponse<u64>),
    /// The engine's.
    Vote(VoteResponse<u64>),
    /// The engine's.
    Snapshot(Result<InstallSnapshotResponse<u64>, SnapshotMismatch>),
    /// It was applied.
    Proposed(Outcome),
    /// Ask the leader, if one is known.
    NotLeader(Option<Peer>),
    /// Yes, and recorded.
    Pledged,
    /// What came of it.
    Reloaded(String),
    /// The question was for another id; this is mine.
    NotMe(NodeId),
    /// The sender is of another cluster than mine.
    OtherCluster(ClusterId),
    /// No, and why; nothing was changed.
    Refused(String),
    /// It went wrong, and may or may not have been done.
    Failed(String),
    /// What was to be repeated.
    Echo(Vec<u8>),
}

impl Answer {
    /// Why it is not the answer that was hoped for.
    pub(super) fn why(&self) -> String {
        match self {
            Answer::NotMe(id) => format!("another node is there, {id}"),
            Answer::OtherCluster(ClusterId(0)) => "it belongs to no cluster yet".into(),
            Answer::OtherCluster(cluster) => format!("it belongs to cluster {cluster}"),
            Answer::Refused(why) | Answer::Failed(why) => why.clone(),
            _ => "it answered something else".into(),
        }
    }
}
