//! Everything that the core asks for. Drained in order: a guard is closed before the release that follows it leaves (H3).

use crate::input::Action;
use crate::state::Command;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, Kind, NodeId, NodeName, RoleName};
use baton_shared::succession::{Electorate, Floor};
use baton_shared::view::View;
use baton_shared::wire::Heartbeat;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a heartbeat. Its clock was read before; the driver only seals and sends. May be lost.
    Send {
        /// On which network.
        network: usize,
        /// To whom.
        to: NodeName,
        /// Under which sequence number; used once per network and recipient.
        seq: u64,
        /// What it says.
        heartbeat: Box<Heartbeat>,
    },
    /// Put this on disk in place of what was there, then answer [`Input::Persisted`](crate::Input::Persisted).
    /// Later ones replace earlier ones; an answer to the later answers the earlier.
    Persist {
        /// Grows.
        token: u64,
        /// What.
        durable: Durable,
    },
    /// Change a role's guard.
    Guard {
        /// Which.
        role: RoleName,
        /// How.
        change: GuardChange,
    },
    /// Until when this node's application may act for a role, whatever happens to this process: for its guardian. Said before the
    /// promotion, at each renewal, and (`None`) once the application has stopped.
    Lent {
        /// Which.
        role: RoleName,
        /// Until then.
        until: Option<Mono>,
    },
    /// Run an action, after those asked for before. A demote cancels a promote that still runs.
    Run {
        /// For which role.
        role: RoleName,
        /// At which epoch.
        epoch: Epoch,
        /// Which.
        action: Action,
        /// Who was active before, as far as known.
        from: Option<NodeName>,
        /// Why, in a sentence.
        cause: String,
    },
    /// Propose a command (through the leader, wherever it is).
    Propose {
        /// For [`Input::Proposed`](crate::Input::Proposed).
        token: u64,
        /// The command.
        command: Command,
    },
    /// Change the consensus engine's own membership (on the leader). Idempotent; no answer: its progress is seen in
    /// [`Coordinator`](crate::input::Coordinator), and it is asked for again while it is not done.
    Engine(EngineChange),
    /// All voters are fresh and this node asks: initialise the cluster with these nodes. Repeated until it is done.
    Bootstrap {
        /// Its nodes.
        members: BTreeMap<NodeId, (NodeName, Kind)>,
    },
    /// Publish a new view.
    Publish(Box<View>),
    /// A line for the operator's log.
    Log {
        /// How loud.
        level: Level,
        /// The line.
        text: String,
    },
    /// Answer to an operator.
    Answer {
        /// Of the request.
        id: u64,
        /// In a sentence.
        result: Result<String, String>,
    },
    /// Answer to a face.
    Confirmed {
        /// Of the request.
        id: u64,
        /// The confirmed epoch, or none.
        epoch: Option<Epoch>,
    },
    /// Whether this node's engine may lead, and stand for election. Repeated: one that is lost is made good by the next.
    Lead(bool),
    /// A later run of this node's consensus id is heard: this one lets go, and ends ([`Output::Stopped`]). Whatever runs here next must
    /// be a new node (V7); that is to be remembered at once.
    Superseded,
    /// Everything is released and said; the process may end.
    Stopped,
}

/// What a voter must not forget (V3, V5).
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Durable {
    /// Greatest epoch granted, or written ahead, per role.
    pub floors: BTreeMap<RoleName, Floor>,
    /// The electorate adopted.
    pub electorate: Electorate,
    /// The window of the promises made since: after a start, they may still run for so long (V4).
    pub window: Duration,
}

/// How a guard changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardChange {
    /// The faces may say "active" until then.
    Open {
        /// At this epoch.
        epoch: Epoch,
        /// Until when.
        until: Mono,
    },
    /// Not for now.
    Shut,
    /// Never again at this epoch or below.
    Close(Epoch),
}

/// A change of the engine's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChange {
    /// Begin to replicate to a node.
    AddLearner {
        /// Its id.
        id: NodeId,
        /// Its name, by which its addresses are found.
        name: NodeName,
    },
    /// Make exactly these the voters, keep `learners`, and drop everyone else.
    SetMembers {
        /// Voters.
        voters: BTreeSet<NodeId>,
        /// Learners.
        learners: BTreeSet<NodeId>,
    },
}

/// Loudness of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Normal changes of state.
    Info,
    /// Something an operator should look at.
    Warn,
    /// Something an operator must look at.
    Error,
}
