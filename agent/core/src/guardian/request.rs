//! What agent and guardian say to each other.

use baton_shared::id::{ClusterId, Epoch, NodeName, Owner, RoleName};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// What to do if the agent dies or stands still.
    Instructions(Box<Instructions>),
    /// Start the application of a role, unless it runs.
    Start {
        /// The role's place.
        slot: usize,
        /// For the answer.
        epoch: Epoch,
        /// Program and arguments.
        command: Vec<String>,
        /// Added to the environment.
        env: Vec<(String, String)>,
        /// It runs whether its node is active or not.
        warm: bool,
    },
    /// Stop it: this signal, and after `grace` all of it is killed; sooner if the lease ends. Answered by [`Answer::Ended`], also when
    /// it does not run.
    Stop {
        /// The role's place.
        slot: usize,
        /// The first signal.
        signal: i32,
        /// Until SIGKILL.
        grace: Duration,
    },
    /// Send its first process a signal.
    Signal {
        /// The role's place.
        slot: usize,
        /// Which.
        signal: i32,
    },
}

/// What the guardian tells the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A start was tried; the process id, or why not.
    Started {
        /// The role's place.
        slot: usize,
        /// Of the request.
        epoch: Epoch,
        /// What came of it.
        result: Result<u32, String>,
    },
    /// The application ended, and nothing of it is left.
    Ended {
        /// The role's place.
        slot: usize,
        /// How, in words.
        how: String,
        /// From the first SIGKILL until all of it was gone, if it was killed.
        took: Option<Duration>,
    },
    /// The agent stood still for so long that the application was stopped without it.
    Fenced {
        /// The role's place.
        slot: usize,
    },
    /// What was killed, and does not go away.
    Stuck {
        /// The role's place.
        slot: usize,
        /// Which processes, and what they wait for, in words.
        processes: String,
    },
}

impl Answer {
    /// The place of the role that it is about.
    pub fn slot(&self) -> usize {
        match self {
            Answer::Started { slot, .. }
            | Answer::Ended { slot, .. }
            | Answer::Fenced { slot }
            | Answer::Stuck { slot, .. } => *slot,
        }
    }
}

/// What to do if the agent dies or stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instructions {
    /// The cluster.
    pub cluster: ClusterId,
    /// This run of this node.
    pub owner: Owner,
    /// The cluster's window.
    pub window: Duration,
    /// Who is told.
    pub recipients: Vec<Recipient>,
    /// What is stopped.
    pub roles: Vec<FencePlan>,
    /// Start the agent again.
    pub restart: bool,
    /// A stop in order takes no longer.
    pub stop: Duration,
    /// Names of environment variables that no child gets.
    pub secrets: Vec<String>,
}

/// One node that is told of the agent's death.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Its name.
    pub name: NodeName,
    /// The key of its notices.
    pub key: [u8; 32],
    /// The network's place, this node's address on it, and where the other one is.
    pub places: Vec<(u8, IpAddr, SocketAddr)>,
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recipient({}, {:?})", self.name, self.places)
    }
}

/// The last resort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fence {
    /// A command.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// It is killed after this.
        limit: Duration,
    },
}

impl Fence {
    /// How long it may take.
    pub fn limit(&self) -> Duration {
        match self {
            Fence::Command { limit, .. } => *limit,
        }
    }
}

/// How the application of one role is stopped for sure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencePlan {
    /// The role.
    pub role: RoleName,
    /// So long before the end of the lease the fence is run.
    pub fence_lead: Duration,
    /// So long before it everything is killed.
    pub kill_lead: Duration,
    /// The last resort.
    pub fence: Option<Fence>,
    /// It is something else than the agent's own demote: to be run also while the agent is at that.
    pub harder: bool,
    /// There is something to stop, and no way to do so from here.
    pub unproven: bool,
    /// How a process of its own is asked to end, and how long it may take.
    pub stop: (i32, Duration),
    /// For its environment.
    pub env: Vec<(String, String)>,
    /// If it fails for good, the death is announced all the same.
    pub release: bool,
}

impl FencePlan {
    /// Whether the fence is to be run, while the agent is stopping the application or is not.
    pub fn fences(&self, stopping: bool) -> bool {
        !stopping || (self.harder && !broken!(FenceWaits))
    }

    /// How long before the end of the lease the guardian steps in, while the agent is stopping the application or is not.
    pub fn lead(&self, stopping: bool) -> Duration {
        if self.fences(stopping) {
            self.fence_lead
        } else {
            self.kill_lead
        }
    }
}
