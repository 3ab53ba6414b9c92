//! Everything that can happen to the core.

use crate::fitness::Writes;
use crate::peer::Arrival;
use crate::state::{Outcome, State};
use baton_shared::config::Config;
use baton_shared::id::{ClusterId, Epoch, NetworkName, NodeId, NodeName, Owner, RoleName};
use baton_shared::seal::Header;
use baton_shared::view::StreamState;
use baton_shared::wire::Heartbeat;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One thing that happened. The driver reads the clock *after* it learned of it, and passes that as `now` (V2).
#[derive(Clone, Debug)]
pub enum Input {
    /// A datagram that carried the cluster's seal.
    Heartbeat {
        /// Where it came in.
        arrival: Arrival,
        /// What the seal vouches for.
        header: Header,
        /// What it says.
        heartbeat: Box<Heartbeat>,
    },
    /// A datagram that cannot be read. Nothing about it is certain: where it came from may be forged, too.
    Unread {
        /// The node at whose address it seems to come from; `None`: no node's.
        from: Option<NodeName>,
        /// Where it came in.
        arrival: Arrival,
        /// What is wrong with it.
        why: Unread,
    },
    /// The log here was applied further.
    Learned {
        /// The replicated state.
        state: Arc<State>,
        /// Index of the last entry applied.
        applied: u64,
    },
    /// This node now belongs to a cluster (durably): it said yes to an initialiser, or was let in.
    Cluster(ClusterId),
    /// The consensus engine's view of itself changed.
    Coordinator(Coordinator),
    /// A check's verdict changed.
    Health {
        /// For which role.
        role: RoleName,
        /// The verdict.
        health: Health,
        /// Why.
        reason: String,
    },
    /// The programs that a role needs were looked at.
    Programs {
        /// Which role.
        role: RoleName,
        /// Which of them cannot be run, and what to do; `None`: all can.
        lack: Option<String>,
    },
    /// An action has ended. Without a configured action the driver answers `Ok` at once.
    ActionDone {
        /// For which role.
        role: RoleName,
        /// At which epoch it was started.
        epoch: Epoch,
        /// Which.
        action: Action,
        /// How it ended.
        result: Result<(), String>,
    },
    /// The managed process of a promoted role ended by itself, or runs again.
    Process {
        /// For which role.
        role: RoleName,
        /// At which epoch it was promoted.
        epoch: Epoch,
        /// What became of it.
        process: Process,
    },
    /// The guardian stopped this role's application, because this process stood still.
    Fenced(RoleName),
    /// How this node is placed on each network, in the configuration's order; said whenever some of it changes.
    Sides(Vec<Side>),
    /// The guardian of this node stands still, or goes on: without it nobody would stop the application if this process stood still, too.
    Guardian {
        /// It does not beat.
        stands_still: bool,
    },
    /// These were killed, and do not go away: the application has not stopped.
    Stuck {
        /// Whose.
        role: RoleName,
        /// Which processes, and what they wait for, in words.
        processes: String,
    },
    /// An application took so long to vanish after it was killed.
    SlowKill {
        /// Whose.
        role: RoleName,
        /// How long.
        took: Duration,
        /// How long it may, within the lease.
        allowed: Duration,
    },
    /// [`Output::Persist`](crate::Output::Persist) of this token is on disk.
    Persisted {
        /// Its token.
        token: u64,
    },
    /// Writes to this node's storage have begun, or were completed.
    Writes(Writes),
    /// A proposal was answered; an error may mean "not known".
    Proposed {
        /// The token of [`Output::Propose`](crate::Output::Propose).
        token: u64,
        /// What applying did, or why it could not be proposed.
        result: Result<Outcome, String>,
    },
    /// What a copy of the DNS zone would show here now (`baton_shared::copy`); `None` while that is not known.
    Copy(Option<u64>),
    /// An operator asks for something; answered by [`Output::Answer`](crate::Output::Answer) with the same id.
    Ask {
        /// To tell answers apart.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// A face asks for confirmation (`confirm` mode); answered by [`Output::Confirmed`](crate::Output::Confirmed).
    Confirm {
        /// To tell answers apart.
        id: u64,
        /// For which role.
        role: RoleName,
    },
    /// This boot is proven dead, and its application with it: its guardian fenced and said so (V6, DESIGN §7).
    Dead {
        /// Whose.
        owner: Owner,
        /// How its agent ended.
        why: String,
    },
    /// A peer says, over a stream, that it has heard a later run of this node's consensus id (V7).
    Superseded,
    /// What tries of consensus streams found by now.
    Streams(Tries),
    /// The configuration was read again.
    Configured(Arc<Config>),
    /// Stop in order: demote, release, leave; [`Output::Stopped`](crate::Output::Stopped) ends it.
    Stop {
        /// What broke, for people, if that is why.
        broken: Option<String>,
    },
    /// Time passed.
    Tick,
}

/// What tries of consensus streams found, by peer and network; those that were not tried yet are left out.
pub type Tries = BTreeMap<(NodeName, NetworkName), Tried>;

/// What the last tries of consensus streams to one peer on one network found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What.
    pub state: StreamState,
    /// The same in words, with the address; empty while streams pass.
    pub why: String,
}

/// What a node knows of its own side of one network. `None`: it cannot know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Side {
    /// Its interface there has a carrier, and its address.
    pub carrier: Option<bool>,
    /// The configured gateway answers it: `true` within W/4, `false` not for W/2.
    pub gateway: Option<bool>,
}

/// Why a datagram cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unread {
    /// Its seal does not open: another key or cluster name, meant for another node, or altered on the way.
    Key,
    /// It is of another version of this program.
    Version,
    /// This program sends no such thing.
    Noise,
}

/// What the consensus engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Coordinator {
    /// Its term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// The engine's voters (both sets, while they change).
    pub voters: BTreeSet<NodeId>,
    /// The engine's learners.
    pub learners: BTreeSet<NodeId>,
    /// The engine's membership is committed and not joint.
    pub settled: bool,
    /// On the leader: how far each node's log matches.
    pub matched: BTreeMap<NodeId, u64>,
    /// Index of the last entry in the log here.
    pub last_log: u64,
}

/// What became of a managed process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// It runs (again).
    Up,
    /// It ended, and is started again here.
    Restarting(String),
    /// It ended so often that another node should take over, if one can; meanwhile it is started again here.
    Failed(String),
}

/// What the application is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Make the application active.
    Promote,
    /// Make it passive.
    Demote,
    /// Let it know that it is active at a greater epoch than it was told before. It acts on meanwhile, by the epoch that it knows.
    Tell,
}

/// What an operator may ask of any node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make another node active.
    Switchover {
        /// For which role.
        role: RoleName,
        /// Which node; `None`: the best standby.
        to: Option<NodeName>,
    },
    /// Take a node out of line, or put it back.
    Drain {
        /// Which.
        node: NodeName,
        /// Out or back.
        drained: bool,
    },
    /// Take a node out of line; answered when other nodes are active for the roles that it held, or when they cannot be.
    Vacate {
        /// Which.
        node: NodeName,
        /// Wait even while no other node is fit.
        patient: bool,
        /// At most so long.
        limit: Duration,
    },
    /// Suspend automatic takeovers, or resume them.
    Pause(bool),
    /// Start the cluster without these voters.
    Bootstrap {
        /// Which are not waited for.
        without: BTreeSet<NodeName>,
    },
}

/// What is known of the application's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its check is good, or it has none.
    Healthy,
    /// It is checked only while it is active, and was not since: fit to be put in line, but not to be called active.
    Untried,
    /// Its check is bad, or has not ended yet.
    Unhealthy,
}

impl Health {
    /// Whether nothing speaks against taking the role over.
    pub fn is_fit(self) -> bool {
        self != Health::Unhealthy
    }
}

impl From<bool> for Health {
    /// A check's verdict.
    fn from(healthy: bool) -> Health {
        if healthy {
            Health::Healthy
        } else {
            Health::Unhealthy
        }
    }
}
