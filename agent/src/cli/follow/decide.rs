//! What `baton follow` does, decided in one place: what is known and what runs, at an instant, make what to do.
//!
//! No clock, no process, no socket: `now` is an argument, and orders come out. While no active node is known the command
//! stays as it is until the connect timeout: a failover lasts a second, and an agent that restarts is back soon.

use baton_shared::clock::Mono;
use baton_shared::config::show_duration;
use baton_shared::id::{Epoch, NodeName, RoleName};
use std::net::IpAddr;
use std::time::Duration;

/// The active node, as an agent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    /// The cluster's name.
    pub cluster: String,
    /// And its id: epochs of two clusters say nothing about each other.
    pub cluster_id: String,
    /// The role that is followed.
    pub role: RoleName,
    /// Which node.
    pub node: NodeName,
    /// At which epoch.
    pub epoch: Epoch,
    /// What it serves at. Never empty; the first is used.
    pub addresses: Vec<IpAddr>,
}

impl Active {
    /// Whether a command that was told `self` need not be told `now`. An address that is still among several is good: a
    /// resolver may give them in another order each time.
    fn good(&self, now: &Active) -> bool {
        (&self.cluster_id, &self.node, self.epoch) == (&now.cluster_id, &now.node, now.epoch)
            && self
                .addresses
                .first()
                .is_some_and(|ip| now.addresses.contains(ip))
    }

    /// Whether nothing but its epoch has changed, now that `now` is known: it stays active, at a greater one.
    fn stays(&self, now: &Active) -> bool {
        let moved_up = Active {
            epoch: now.epoch,
            ..self.clone()
        };
        self.epoch < now.epoch && moved_up.good(now)
    }

    /// Whether `self` is of the past, to somebody who has followed `newest`.
    fn older(&self, newest: &Active) -> bool {
        self.cluster_id == newest.cluster_id && self.epoch < newest.epoch
    }

    fn sentence(&self) -> String {
        let address = self.addresses.first().map(IpAddr::to_string).unwrap_or_default();
        format!("{} is active at epoch {} ({address})", self.node, self.epoch)
    }
}

/// What was learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// This node is active.
    Active(Active),
    /// No active node is known, and why.
    Missing(String),
}

/// What happens when no active node is known for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OnTimeout {
    /// Stop the command, say why, and exit with status 1
    Exit,
    /// Go on waiting; a running command goes on as it is
    Stay,
    /// Go on waiting; a running command is stopped until a node is active
    Stop,
    /// Run the command without an active node, once; a running command is restarted or signalled, by --on-change
    Exec,
}

/// What happens to a running command when another node is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnChange {
    /// It is stopped and started again.
    Restart,
    /// It gets this signal.
    Signal(i32),
    /// Nothing.
    Nothing,
}

/// How to follow.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// So long may no active node be known.
    pub timeout: Duration,
    /// And then.
    pub on_timeout: OnTimeout,
    /// When the active node changes.
    pub on_change: OnChange,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Something was learned.
    Heard(Word),
    /// We got this signal.
    Told(i32),
    /// The command has ended, with this status; after [`Order::Stop`], all that it started.
    Ended(u8),
    /// Time has passed.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Tell the operator.
    Say(String),
    /// Start the command, with the active node in its environment, if there is one.
    Start(Option<Active>),
    /// Send the command a signal.
    Signal(i32),
    /// Stop the command, for sure; [`Input::Ended`] follows.
    Stop,
    /// End, with this status.
    Exit(u8),
}

/// The command.
#[derive(Debug)]
enum Run {
    Idle,
    /// It runs, and was told this; but for the epoch of a node that stays active, which is the newest.
    Running(Option<Active>),
    Stopping,
}

/// The state of one `baton follow`.
#[derive(Debug)]
pub(super) struct Follower {
    policy: Policy,
    known: Option<Active>,
    /// With the greatest epoch of all that were known: a node that lags behind is not followed back.
    newest: Option<Active>,
    /// Since when none is known.
    missing: Option<Mono>,
    why: String,
    /// The operator was told that none is.
    said: bool,
    /// None was known for the whole timeout.
    late: bool,
    run: Run,
    /// We were told to end, and so was the command.
    ending: bool,
    /// The timeout has ended us.
    failing: bool,
    orders: Vec<Order>,
}

impl Follower {
    /// Nothing is known, nothing runs.
    pub(super) fn new(policy: Policy, now: Mono) -> Follower {
        Follower {
            policy,
            known: None,
            newest: None,
            missing: Some(now),
            why: "no agent has answered so far".into(),
            said: false,
            late: false,
            run: Run::Idle,
            ending: false,
            failing: false,
            orders: Vec::new(),
        }
    }

    /// When to look again, if nothing comes before.
    pub(super) fn wake(&self) -> Option<Mono> {
        let missing = self.missing.filter(|_| !self.late && !self.ending)?;
        Some(missing + self.policy.timeout)
    }

    /// Takes in what happened, and says what to do.
    pub(super) fn handle(&mut self, input: Input, now: Mono) -> Vec<Order> {
        match input {
            Input::Heard(Word::Active(active)) => self.active(active, now),
            Input::Heard(Word::Missing(why)) => self.missing(why, now),
            Input::Told(signal) => self.told(signal),
            Input::Ended(status) => self.ended(status),
            Input::Tick => {}
        }
        self.turn(now);
        std::mem::take(&mut self.orders)
    }

    fn say(&mut self, text: String) {
        self.orders.push(Order::Say(text));
    }

    fn active(&mut self, active: Active, now: Mono) {
        if let Some(newest) = self.newest.as_ref().filter(|newest| active.older(newest)) {
            let why = format!(
                "the agent that answers says {} at epoch {}, which is over: {} followed at {}",
                active.node, active.epoch, newest.node, newest.epoch
            );
            return self.missing(why, now);
        }
        // Its connections stand, and so does the command. After a gap it may have been started anew.
        if self.known.as_ref().is_some_and(|known| known.stays(&active))
            && let Run::Running(Some(told)) = &mut self.run
            && told.stays(&active)
        {
            told.epoch = active.epoch;
            self.say(format!(
                "{}, and stays so: the command goes on",
                active.sentence()
            ));
        }
        let told = match &self.run {
            Run::Running(told) => told.as_ref(),
            Run::Idle | Run::Stopping => None,
        };
        if self.said && told.is_some_and(|told| told.good(&active)) {
            self.say(format!("{} again", active.sentence()));
        }
        (self.missing, self.said, self.late) = (None, false, false);
        self.newest = Some(active.clone());
        self.known = Some(active);
    }

    fn missing(&mut self, why: String, now: Mono) {
        self.known = None;
        self.why = why;
        self.missing.get_or_insert(now);
        if !std::mem::replace(&mut self.said, true) && !self.ending {
            let timeout = show_duration(self.policy.timeout);
            let wait = match &self.run {
                Run::Running(_) => "the command goes on",
                Run::Idle | Run::Stopping => "waiting",
            };
            self.say(format!(
                "no active node: {}; {wait} for up to {timeout}",
                self.why
            ));
        }
    }

    fn told(&mut self, signal: i32) {
        let ends = matches!(signal, libc::SIGTERM | libc::SIGINT);
        match self.run {
            Run::Running(_) | Run::Stopping => {
                self.ending |= ends;
                self.orders.push(Order::Signal(signal));
            }
            Run::Idle if ends || matches!(signal, libc::SIGHUP | libc::SIGQUIT) => {
                self.ending = true;
                self.orders.push(Order::Exit(by_signal(signal)));
            }
            Run::Idle => {}
        }
    }

    fn ended(&mut self, status: u8) {
        let stopped = matches!(self.run, Run::Stopping);
        self.run = Run::Idle;
        if !stopped || self.ending {
            self.ending = true;
            self.orders.push(Order::Exit(status));
        } else if self.failing {
            self.ending = true;
            self.orders.push(Order::Exit(1));
        }
    }

    /// Makes what runs follow what is known.
    fn turn(&mut self, now: Mono) {
        if self.ending || self.failing {
            return;
        }
        match self.known.clone() {
            Some(active) => self.follow(Some(active)),
            None => {
                if self.wake().is_some_and(|wake| now >= wake) {
                    self.late = true;
                    self.too_long();
                }
                if self.late && self.policy.on_timeout == OnTimeout::Exec {
                    self.follow(None);
                }
            }
        }
    }

    /// No active node was known for the whole timeout.
    fn too_long(&mut self) {
        let timeout = show_duration(self.policy.timeout);
        let mut text = format!("no active node for {timeout}: {}", self.why);
        let running = matches!(self.run, Run::Running(_));
        match self.policy.on_timeout {
            OnTimeout::Exit => {
                self.failing = true;
                self.say(text);
                match self.run {
                    Run::Idle => self.ended(1),
                    Run::Running(_) => self.stop(),
                    Run::Stopping => {}
                }
            }
            OnTimeout::Stop if running => {
                self.say(text + "; the command is stopped until one is");
                self.stop();
            }
            OnTimeout::Stop | OnTimeout::Stay => {
                text.push_str(if running {
                    "; the command goes on"
                } else {
                    "; still waiting"
                });
                self.say(text);
            }
            OnTimeout::Exec => self.say(text + "; the command is told that there is none"),
        }
    }

    fn stop(&mut self) {
        self.run = Run::Stopping;
        self.orders.push(Order::Stop);
    }

    /// Has the command know of `now`.
    fn follow(&mut self, now: Option<Active>) {
        let sentence = match &now {
            Some(active) => active.sentence(),
            None => "nobody is active".into(),
        };
        match &mut self.run {
            Run::Stopping => {}
            Run::Idle => {
                self.say(format!("{sentence}: starting the command"));
                self.orders.push(Order::Start(now.clone()));
                self.run = Run::Running(now);
            }
            Run::Running(told) => {
                let good = match (&*told, &now) {
                    (Some(told), Some(now)) => told.good(now),
                    (told, now) => told.is_none() && now.is_none(),
                };
                if good {
                    return;
                }
                *told = now;
                match self.policy.on_change {
                    OnChange::Restart => {
                        self.say(format!("{sentence}: restarting the command"));
                        self.stop();
                    }
                    OnChange::Signal(signal) => {
                        self.say(format!("{sentence}: signalling the command"));
                        self.orders.push(Order::Signal(signal));
                    }
                    OnChange::Nothing => self.say(format!("{sentence}: the command is left alone")),
                }
            }
        }
    }
}

/// The status of a command that a signal has ended, as shells have it.
pub(super) fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
