//! What the guardian decides.

use super::fate::Fate;
use super::page::LeasePage;
use super::request::{Answer, Fence, Instructions, Request};
use baton_shared::clock::Mono;
use std::time::Duration;

/// One thing that the guardian learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed, or the page has changed.
    Look,
    /// Answers [`Output::StartAgent`].
    AgentStarted,
    /// Answers [`Output::StartAgent`]: why not.
    AgentNotStarted(String),
    /// The agent has ended, and was reaped.
    AgentEnded(Fate),
    /// The agent asks.
    Request(Request),
    /// The agent is not understood: it is not listened to any more. Why.
    Deaf(String),
    /// A signal, but SIGCHLD.
    Signal(i32),
    /// Answers [`Output::StartApplication`]: the id of its first process, or why not.
    Started {
        /// The role's place.
        place: usize,
        /// What came of it.
        result: Result<u32, String>,
    },
    /// The first process of an application ended; its keeper kills the rest.
    LeaderEnded {
        /// The role's place.
        place: usize,
        /// How.
        how: Fate,
    },
    /// Nothing of an application is left.
    Empty {
        /// The role's place.
        place: usize,
        /// From the first SIGKILL, if it was killed.
        took: Option<Duration>,
    },
    /// These do not go away; said once per kill.
    Stuck {
        /// The role's place.
        place: usize,
        /// Which, and what they wait for, in words.
        processes: String,
    },
    /// Answers [`Output::RunFence`], also when it could not start.
    FenceEnded {
        /// The role's place.
        place: usize,
        /// How.
        fate: Fate,
    },
    /// Answers [`Output::KillRemains`]: all is gone, or what is not.
    Cleared(Result<(), String>),
}

/// One thing to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Fork the agent.
    StartAgent,
    /// Send it a signal.
    SignalAgent(i32),
    /// Start an application below a keeper.
    StartApplication {
        /// The role's place.
        place: usize,
        /// Program and arguments.
        command: Vec<String>,
        /// Added to the environment.
        env: Vec<(String, String)>,
    },
    /// Send an application a signal.
    SignalApplication {
        /// The role's place.
        place: usize,
        /// Which.
        signal: i32,
        /// To the process group of its first process, not to that process alone.
        whole: bool,
    },
    /// Kill all of it, again and again until it is [`Input::Empty`]; also if it is only being started.
    KillApplication {
        /// The role's place.
        place: usize,
    },
    /// Kill the promote action that runs ([`RoleSlot::promotion`](super::RoleSlot::promotion)), with all below it.
    KillPromotion {
        /// The role's place.
        place: usize,
    },
    /// Run a fence. One that was given up before at this place is answered no more.
    RunFence {
        /// The role's place.
        place: usize,
        /// Which.
        fence: Fence,
        /// Its environment.
        env: Vec<(String, String)>,
    },
    /// It has had its time.
    KillFence {
        /// The role's place.
        place: usize,
    },
    /// Kill everything that the dead agent had started, but applications and fences. A [`Input::Cleared`] from now on speaks of this.
    KillRemains,
    /// Prepare death notices from the instructions, and send them.
    Announce {
        /// How the agent ended.
        why: String,
    },
    /// Send them again.
    AnnounceAgain,
    /// To the agent; never waits.
    Answer(Answer),
    /// For the operator's log; never waits.
    Say(String),
    /// The end.
    Exit(u8),
}

/// The guardian.
#[derive(Debug, Default)]
pub struct Guardian {
    instructions: Option<Box<Instructions>>,
}

impl Guardian {
    /// One that has no agent yet.
    pub fn new() -> Guardian {
        Guardian::default()
    }

    /// Takes in what was learned before the clock was read at `now`.
    pub fn handle(&mut self, _input: Input, _page: &LeasePage, _now: Mono) {}

    /// The next thing to do; `None` when all is said.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When [`Input::Look`] is due at the latest.
    pub fn next_wake(&self, _page: &LeasePage, now: Mono) -> Mono {
        now
    }

    /// What the agent said is to be done; of a dead one until the next is started.
    pub fn instructions(&self) -> Option<&Instructions> {
        self.instructions.as_deref()
    }
}
