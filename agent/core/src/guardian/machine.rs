//! What the guardian decides: the agent is started and watched, signals are passed on, requests are carried out. Its other parts are
//! [`super::applications`], [`super::fences`] and [`super::burial`].
//!
//! Deeds come first: of one turn every kill and every fence is done before anything is said, to whomever.

use super::applications::Application;
use super::burial::{Burial, Farewell};
use super::fate::{CONFIGURATION, ENVIRONMENT, Fate};
use super::fate::{SIGABRT, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use super::fences::Fencing;
use super::page::{LeasePage, RoleSlot, SLOTS};
use super::request::{Answer, Fence, FencePlan, Instructions, Request};
use super::watch;
use baton_shared::clock::Mono;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long killed processes may take to vanish before it is said aloud (stuck in the kernel).
pub(super) const VANISH: Duration = Duration::from_secs(2);
/// A death notice is repeated so many times, so far apart at the least.
const NOTICES: u32 = 30;
const SHORTEST_PAUSE: Duration = Duration::from_millis(3);
/// An agent that dies again is started after this, twice as long each time, until one has lived for a while.
const RESTART: Duration = Duration::from_millis(100);
const LONGEST_RESTART: Duration = Duration::from_secs(10);
const LIVED: Duration = Duration::from_secs(60);

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

/// What is to be done, the most urgent first.
#[derive(Debug, Default)]
struct Queue([VecDeque<Output>; 4]);

impl Queue {
    fn push(&mut self, output: Output) {
        let rank = match &output {
            Output::Say(_) if broken!(SpeaksBeforeKilling) => 0,
            Output::Announce { .. } | Output::AnnounceAgain | Output::Answer(_) => 2,
            Output::Say(_) | Output::Exit(_) => 3,
            _ => 1,
        };
        self.0[rank].push_back(output);
    }

    fn pop(&mut self) -> Option<Output> {
        self.0.iter_mut().find_map(VecDeque::pop_front)
    }
}

/// What becomes of the agent.
#[derive(Debug)]
pub(super) enum Agent {
    /// It is started then.
    Waits(Mono),
    Starting,
    Runs,
    /// It died: what it left is stopped, and the others are told.
    Dead(Box<Burial>),
    /// It ended in order: what still runs has been asked to end, and is given this long.
    Closing(Mono),
    /// This process ends.
    Leaving(Farewell),
    Over,
}

/// A death that is being announced.
#[derive(Debug)]
struct Announcement {
    pause: Duration,
    at: Mono,
    left: u32,
}

/// The guardian.
#[derive(Debug)]
pub struct Guardian {
    pub(super) agent: Agent,
    pub(super) instructions: Option<Box<Instructions>>,
    pub(super) applications: BTreeMap<usize, Application>,
    pub(super) fencing: BTreeMap<usize, Fencing>,
    /// The lease's end for which a slot was fenced.
    pub(super) fenced: BTreeMap<usize, Mono>,
    announcement: Option<Announcement>,
    started: Mono,
    pause: Duration,
    /// Some agent of this guardian got so far that it gave instructions; and whether the last one is to be started again.
    ran: bool,
    restart: bool,
    /// The present agent is not listened to.
    deaf: bool,
    /// It was asked to end.
    pub(super) ending: bool,
    /// An agent that has not ended by then is killed.
    kill_agent_at: Option<Mono>,
    queue: Queue,
}

impl Default for Guardian {
    fn default() -> Guardian {
        Guardian::new()
    }
}

impl Guardian {
    /// One that has no agent yet, and starts one at once.
    pub fn new() -> Guardian {
        Guardian {
            agent: Agent::Waits(Mono::ZERO),
            instructions: None,
            applications: BTreeMap::new(),
            fencing: BTreeMap::new(),
            fenced: BTreeMap::new(),
            announcement: None,
            started: Mono::ZERO,
            pause: RESTART,
            ran: false,
            restart: true,
            deaf: false,
            ending: false,
            kill_agent_at: None,
            queue: Queue::default(),
        }
    }

    /// Takes in what was learned before the clock was read at `now`.
    pub fn handle(&mut self, input: Input, page: &LeasePage, now: Mono) {
        page.turned(now);
        self.take(input, page, now);
        self.turn(page, now);
    }

    /// The next thing to do; `None` when all is said.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.queue.pop()
    }

    /// When [`Input::Look`] is due at the latest.
    pub fn next_wake(&self, page: &LeasePage, now: Mono) -> Mono {
        if matches!(self.agent, Agent::Over) {
            return Mono::MAX;
        }
        // Who does not beat is taken to stand still; without instructions the window is not known.
        let window = self
            .instructions
            .as_ref()
            .map_or(Duration::ZERO, |all| all.window);
        let mut wake = now + watch::interval(window);
        wake = wake.min(self.applications_due()).min(self.fences_due());
        if let Some(announcement) = &self.announcement {
            wake = wake.min(announcement.at);
        }
        wake = wake.min(match &self.agent {
            Agent::Waits(at) | Agent::Closing(at) => *at,
            Agent::Runs => self
                .dead_man_due(page)
                .min(self.kill_agent_at.unwrap_or(Mono::MAX)),
            Agent::Dead(burial) => self.burial_due(burial),
            Agent::Leaving(farewell) => farewell.at,
            Agent::Starting | Agent::Over => Mono::MAX,
        });
        wake.max(now)
    }

    /// What the agent said is to be done; of a dead one until the next is started.
    pub fn instructions(&self) -> Option<&Instructions> {
        self.instructions.as_deref()
    }

    pub(super) fn push(&mut self, output: Output) {
        self.queue.push(output);
    }

    pub(super) fn say(&mut self, text: String) {
        self.push(Output::Say(text));
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        if matches!(self.agent, Agent::Runs) && !self.deaf {
            self.push(Output::Answer(answer));
        }
    }

    pub(super) fn plan(&self, place: usize) -> Option<&FencePlan> {
        self.instructions.as_ref()?.roles.get(place)
    }

    /// The role at this place, for people.
    pub(super) fn called(&self, place: usize) -> String {
        self.plan(place)
            .map_or_else(|| format!("number {place}"), |plan| plan.role.to_string())
    }

    /// Every role that the agent has named, and its slot.
    pub(super) fn plans<'a>(
        &'a self,
        page: &'a LeasePage,
    ) -> impl Iterator<Item = (usize, &'a FencePlan, &'a RoleSlot)> {
        let plans = self
            .instructions
            .iter()
            .flat_map(|all| all.roles.iter().enumerate());
        plans.filter_map(|(place, plan)| Some((place, plan, page.slot(place)?)))
    }

    fn take(&mut self, input: Input, page: &LeasePage, now: Mono) {
        match input {
            Input::Look => {}
            Input::AgentStarted => {
                if matches!(self.agent, Agent::Starting) {
                    (self.agent, self.started) = (Agent::Runs, now);
                }
            }
            Input::AgentNotStarted(why) => {
                self.say(format!("cannot start the agent: {why}; trying again"));
                self.start_later(now);
            }
            Input::AgentEnded(fate) => self.agent_ended(&fate, page, now),
            Input::Request(request) => self.request(request, page, now),
            Input::Deaf(why) => {
                self.say(format!(
                    "the agent is not understood ({why}); it is not listened to any more"
                ));
                self.deaf = true;
            }
            Input::Signal(signal) => self.signal(signal, now),
            Input::Started { place, result } => self.application_started(place, result),
            Input::LeaderEnded { place, how } => self.leader_ended(place, &how),
            Input::Empty { place, took } => self.empty(place, took),
            Input::Stuck { place, processes } => self.stuck(place, processes),
            Input::FenceEnded { place, fate } => {
                if let Some(fencing) = self.fencing.remove(&place) {
                    self.fence_ended(place, fencing.since, &fate, page);
                }
            }
            Input::Cleared(result) => {
                if let Agent::Dead(burial) = &mut self.agent {
                    burial.remains = Some(result);
                }
            }
        }
    }

    /// What follows from the clock and the page.
    fn turn(&mut self, page: &LeasePage, now: Mono) {
        self.kill_late_applications(now);
        self.kill_late_fences(page, now);
        match &self.agent {
            Agent::Waits(at) if self.ending || now >= *at => self.start(now),
            Agent::Runs => {
                if self.kill_agent_at.is_some_and(|at| now >= at) {
                    self.kill_agent_at = None;
                    self.push(Output::SignalAgent(SIGKILL));
                    self.say("the agent was asked to end and does not: it is killed".into());
                }
                self.dead_man(page, now);
            }
            Agent::Dead(_) => self.turn_burial(page, now),
            Agent::Closing(until) if self.applications.is_empty() || now >= *until => self.leave(0, now),
            Agent::Leaving(_) => self.turn_farewell(now),
            Agent::Over => return,
            _ => {}
        }
        self.turn_announcement(now);
    }

    fn start(&mut self, now: Mono) {
        if self.ending {
            return self.leave(ENVIRONMENT, now);
        }
        self.agent = Agent::Starting;
        self.instructions = None; // they were another boot's
        (self.deaf, self.kill_agent_at) = (false, None);
        self.push(Output::StartAgent);
    }

    pub(super) fn start_later(&mut self, now: Mono) {
        if now.since(self.started) > LIVED && self.started > Mono::ZERO {
            self.pause = RESTART;
        }
        self.agent = Agent::Waits(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RESTART);
    }

    /// Signals are the agent's business; what it does not live to hear ends this process.
    fn signal(&mut self, signal: i32, now: Mono) {
        if matches!(signal, SIGUSR1 | SIGUSR2) {
            return; // they mean nothing here, and would end the agent
        }
        let ends = matches!(signal, SIGTERM | SIGINT | SIGQUIT | SIGABRT);
        if matches!(self.agent, Agent::Runs) {
            // A service manager whose watchdog ran out: the agent hangs, and would not hear it.
            let signal = if signal == SIGABRT { SIGKILL } else { signal };
            self.push(Output::SignalAgent(signal));
        }
        if ends {
            // An agent that dies of it, or after it, is not started again; one that hangs is killed.
            self.ending = true;
            let limit = self.instructions.as_ref().map_or(VANISH, |all| all.stop);
            self.kill_agent_at.get_or_insert(now + limit);
        }
    }

    fn request(&mut self, request: Request, page: &LeasePage, now: Mono) {
        if !matches!(self.agent, Agent::Runs) || self.deaf {
            return;
        }
        match request {
            Request::Instructions(instructions) => {
                (self.ran, self.restart) = (true, instructions.restart);
                self.instructions = Some(instructions);
            }
            Request::Start {
                slot,
                epoch,
                command,
                env,
                warm,
            } => {
                let idle = warm && epoch.0 == 0;
                if let Some(result) = self.start_application(slot, epoch, warm, idle, page, now) {
                    self.answer(Answer::Started { slot, epoch, result });
                } else {
                    self.push(Output::StartApplication {
                        place: slot,
                        command,
                        env,
                    });
                }
            }
            Request::Stop { slot, signal, grace } => self.stop_application(slot, signal, now + grace),
            Request::Signal { slot, signal } => {
                if self.applications.contains_key(&slot) {
                    self.push(Output::SignalApplication {
                        place: slot,
                        signal,
                        whole: false,
                    });
                }
            }
        }
    }

    fn agent_ended(&mut self, fate: &Fate, page: &LeasePage, now: Mono) {
        if !matches!(self.agent, Agent::Runs) {
            return;
        }
        self.kill_agent_at = None;
        if matches!(fate, Fate::Exited(0)) {
            return self.close(now);
        }
        let left_over = (0..SLOTS).any(|place| page.left_over(place));
        // Told to stop before the agent could hear of it: nothing was begun.
        let unheard = self.ending
            && self.instructions.is_none()
            && matches!(fate, Fate::Killed(SIGTERM | SIGINT))
            && !left_over;
        let status = if unheard { 0 } else { fate.status() };
        // An exit before it did anything has said why itself.
        let early = self.instructions.is_none() && (self.ending || matches!(fate, Fate::Exited(_)));
        self.bury(fate, status, self.again(fate), early, page, now);
    }

    /// Whether another agent may do better. An agent exits with a failure of its own accord either before it gives instructions, when
    /// something is in its way, or after it has stopped in order because something broke: then it wants this node to end, and a service
    /// manager may know better. What is in the way of the very first start is there to stay (a port, a directory). At a restart it
    /// may be passing: the port that the dead one had was taken in the gap. An error in the configuration is none of that.
    fn again(&self, fate: &Fate) -> bool {
        let passing = match fate {
            Fate::Killed(_) => true,
            Fate::Exited(status) => self.ran && self.instructions.is_none() && *status != CONFIGURATION,
            Fate::Stuck | Fate::NotStarted(_) => false,
        };
        passing && self.restart
    }

    /// Begins to tell the others that this boot is gone.
    pub(super) fn announce(&mut self, why: String, now: Mono) {
        let Some(instructions) = &self.instructions else {
            return;
        };
        let pause = (instructions.window / 10).max(SHORTEST_PAUSE);
        self.announcement = Some(Announcement {
            pause,
            at: now + pause,
            left: NOTICES - 1,
        });
        self.push(Output::Announce { why });
    }

    fn turn_announcement(&mut self, now: Mono) {
        if let Some(announcement) = &mut self.announcement
            && now >= announcement.at
        {
            announcement.at = now + announcement.pause;
            announcement.left -= 1;
            if announcement.left == 0 {
                self.announcement = None;
            }
            self.push(Output::AnnounceAgain);
        }
    }

    /// Whether some death is still being told.
    pub(super) fn announces(&self) -> bool {
        self.announcement.is_some()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
