//! The shell of each node's guardian, as the agent's is in `agent/src/guardian/`: it hands the real machine what happens, and does what
//! that says. It may be stopped and go on, or be killed, and so may its agent, alone or with it.

use super::*;
use crate::guardian::fate::SIGKILL;
use crate::guardian::{Fate, Fence, FencePlan, Guardian, Instructions, LeasePage, Recipient, RoleSlot};
use baton_shared::config::OnFailure;

/// Between agent and guardian, and from a process to whoever waits for its end.
const HOP: u64 = MS / 20;
/// The agent reads the guardian's beat so often.
const EYE: Duration = Duration::from_millis(50);
/// Once everything is released, an agent whose guardian stands still says so for this long, and ends.
const LAST_WORDS: u64 = 150 * MS;

/// What is above the agent.
#[derive(Default)]
pub(in crate::sim) struct Above {
    /// `None`: it is dead.
    guardian: Option<Box<Guardian>>,
    pub page: Arc<LeasePage>,
    /// Which guardian of this machine it is.
    pub(super) which: u64,
    /// It stands still, since then.
    pub still: Option<u64>,
    /// It is dead, since then, and its machine is not.
    pub dead: Option<u64>,
    inbox: VecDeque<guardian::Input>,
    to_do: VecDeque<guardian::Output>,
    turning: bool,
    /// It is planned to look at its clock then.
    look: Option<u64>,
    /// It waits until somebody reads what it said.
    waits_until: u64,
    /// It would start an agent now.
    ready: bool,
    /// The fences that run, and whether they will succeed.
    fences: BTreeMap<usize, (u64, bool)>,
    spins: u64,
}

impl Above {
    /// A machine that has none.
    pub(super) fn none(which: u64) -> Above {
        Above {
            which,
            ..Above::default()
        }
    }

    /// A guardian that lives, though it may stand still.
    pub fn lives(&self) -> bool {
        self.guardian.is_some()
    }

    /// Whether nobody is there who could act.
    pub fn helpless(&self) -> bool {
        self.guardian.is_none() || self.still.is_some()
    }
}

impl Machine {
    /// The place of a role.
    pub(super) fn place(&self, role: &RoleName) -> usize {
        let at = self.config.roles.keys().position(|known| known == role);
        at.expect("roles stay as they are")
    }

    pub(super) fn role_at(&self, place: usize) -> Option<RoleName> {
        self.config.roles.keys().nth(place).cloned()
    }

    pub(super) fn slot(&self, role: &RoleName) -> &RoleSlot {
        self.above.page.slot(self.place(role)).expect("few roles")
    }

    /// What the agent tells its guardian, as `agent/src/child.rs` does.
    fn instructions(&self) -> Instructions {
        let window = self.config.cluster.window;
        let plan = |(name, role): (&RoleName, &Role)| {
            let lead = role.lead(window);
            let command = |(command, limit): (&[String], Duration)| Fence::Command {
                command: command.to_vec(),
                limit,
            };
            let stops = role.fence.as_ref().or(role.demote.as_ref());
            let process = role.process.as_ref();
            FencePlan {
                role: name.clone(),
                fence_lead: lead.fence,
                kill_lead: lead.kill,
                fence: role.last_resort().map(command),
                harder: role.fence.is_some(),
                unproven: role.stops() && process.is_none() && role.last_resort().is_none(),
                stop: process.map_or((15, Duration::ZERO), |process| {
                    (process.stop_signal, process.stop_timeout)
                }),
                env: Vec::new(),
                release: stops.is_some_and(|action| action.on_failure == OnFailure::Release)
                    || (process.is_some() && role.fence.is_none()),
            }
        };
        let others = self.config.nodes.keys().filter(|name| **name != self.name);
        let recipient = |name: &NodeName| Recipient {
            name: name.clone(),
            key: [0; 32],
            places: Vec::new(),
        };
        Instructions {
            cluster: self.cluster,
            owner: self.owner(),
            window,
            recipients: others.map(recipient).collect(),
            roles: self.config.roles.iter().map(plan).collect(),
            restart: true,
            stop: Duration::from_secs(10),
            secrets: Vec::new(),
        }
    }
}

impl World {
    /// A machine without a guardian gets one.
    pub(super) fn guard(&mut self, n: usize) {
        let which = self.nodes[n].above.which + 1;
        self.nodes[n].above = Above {
            guardian: Some(Box::default()),
            which,
            ..Above::default()
        };
        self.tell_guardian(n, guardian::Input::Look);
    }

    /// Whether it would start an agent now.
    pub(super) fn may_boot(&mut self, n: usize) -> bool {
        self.can_act(n) && std::mem::take(&mut self.nodes[n].above.ready)
    }

    /// An agent has begun: it tells its guardian what to do, and keeps an eye on it.
    pub(super) fn agent_begins(&mut self, n: usize, unfinished: &BTreeSet<RoleName>) {
        let machine = &mut self.nodes[n];
        for role in machine.config.roles.keys() {
            machine.slot(role).begin(unfinished.contains(role));
        }
        let window = machine.config.cluster.window;
        machine.eye = guardian::Watch::new(guardian::watch::limit(window), EYE);
        let boot = machine.boot;
        self.tell_guardian(n, guardian::Input::AgentStarted);
        self.instruct(n);
        self.at(EYE.as_nanos() as u64, What::Eye(n, boot));
    }

    /// What is to be done has changed.
    pub(super) fn instruct(&mut self, n: usize) {
        let instructions = Box::new(self.nodes[n].instructions());
        self.ask_guardian(n, guardian::Request::Instructions(instructions));
    }

    pub(super) fn ask_guardian(&mut self, n: usize, request: guardian::Request) {
        let which = self.nodes[n].above.which;
        self.at(HOP, What::Guardian(n, which, guardian::Input::Request(request)));
    }

    /// The page has changed, and the guardian does not know.
    pub(super) fn ring(&mut self, n: usize, rings: bool) {
        if rings {
            let which = self.nodes[n].above.which;
            self.at(HOP, What::Guardian(n, which, guardian::Input::Look));
        }
    }

    /// The agent says until when its application may act.
    pub(super) fn lent(&mut self, n: usize, role: &RoleName, until: Option<Mono>) {
        let rings = self.nodes[n].slot(role).lend(until);
        self.ring(n, rings);
        if self.nodes[n].stopped_by_command(role) && !self.nodes[n].minded.contains(role) {
            self.mind(n, role);
        }
    }

    /// A fence needs a guardian at its time: where none can act then, nothing is left that could stop the application in time.
    pub(super) fn mind(&mut self, n: usize, role: &RoleName) {
        let machine = &mut self.nodes[n];
        machine.minded.remove(role);
        let Some(fence) = machine.fence_time(role) else {
            return;
        };
        let at = machine.true_time(fence);
        if at > self.now {
            machine.minded.insert(role.clone());
            let delay = at - self.now;
            return self.at(delay, What::Mind(n, role.clone()));
        }
        if machine.above.helpless() && machine.app(role) != App::Passive {
            machine.at_wits_end.insert(role.clone());
        }
    }

    /// Neither agent nor guardian can stop what a command would have to.
    pub(super) fn nobody_there(&mut self, n: usize) {
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        if !machine.above.helpless() {
            return;
        }
        for role in machine.apps.keys().cloned().collect::<Vec<_>>() {
            let late = machine.fence_time(&role).is_some_and(|at| now >= at);
            let nobody = !machine.up || machine.frozen;
            if machine.stopped_by_command(&role) && machine.app(&role) != App::Passive && (late || nobody) {
                machine.at_wits_end.insert(role);
            }
        }
    }

    fn can_act(&self, n: usize) -> bool {
        let machine = &self.nodes[n];
        let above = &machine.above;
        above.lives() && above.still.is_none() && !machine.paused && self.now >= above.waits_until
    }

    pub(super) fn tell_guardian(&mut self, n: usize, input: guardian::Input) {
        self.nodes[n].above.inbox.push_back(input);
        self.guardian_turns(n);
    }

    /// It takes what waits, and does what follows, if it can.
    fn guardian_turns(&mut self, n: usize) {
        if std::mem::replace(&mut self.nodes[n].above.turning, true) {
            return;
        }
        while self.can_act(n) {
            let now = self.clock(n);
            let above = &mut self.nodes[n].above;
            if let Some(output) = above.to_do.pop_front() {
                self.guardian_does(n, output);
                continue;
            }
            let (Some(guardian), Some(input)) = (&mut above.guardian, above.inbox.pop_front()) else {
                break;
            };
            guardian.handle(input, &above.page, now);
            above.to_do.extend(std::iter::from_fn(|| guardian.poll_output()));
        }
        self.nodes[n].above.turning = false;
        self.plan_look(n);
    }

    fn plan_look(&mut self, n: usize) {
        if !self.can_act(n) {
            return;
        }
        let machine = &self.nodes[n];
        let Some(guardian) = &machine.above.guardian else {
            return;
        };
        let wake = guardian.next_wake(&machine.above.page, machine.clock(self.now));
        let due = machine.true_time(wake);
        let (which, planned) = (machine.above.which, machine.above.look);
        let above = &mut self.nodes[n].above;
        above.spins = if due <= self.now { above.spins + 1 } else { 0 };
        if above.spins > 50 {
            let text = format!("the guardian of {} asks for looks that it does not use", name(n));
            return self.fail("bounded", text);
        }
        let wake = due.max(self.now + MS / 50);
        if planned.is_none_or(|at| at < self.now || at > wake) {
            above.look = Some(wake);
            self.at(wake - self.now, What::Look(n, which));
        }
    }

    pub(super) fn guardian_looks(&mut self, n: usize, which: u64) {
        if self.nodes[n].above.which == which {
            self.nodes[n].above.look = None;
            if self.can_act(n) {
                self.tell_guardian(n, guardian::Input::Look);
            }
        }
    }

    /// All plans are made anew: the clock runs otherwise, or again.
    pub(super) fn clock_changed(&mut self, n: usize) {
        self.nodes[n].above.look = None;
        self.guardian_turns(n);
        self.keepers_look(n);
        for role in std::mem::take(&mut self.nodes[n].minded) {
            self.mind(n, &role);
        }
    }

    fn guardian_does(&mut self, n: usize, output: guardian::Output) {
        use guardian::{Input, Output};
        let which = self.nodes[n].above.which;
        match output {
            Output::StartAgent => {
                self.nodes[n].above.ready = true;
                // An agent whose file does not name its node refuses to start.
                if std::mem::take(&mut self.nodes[n].start_after) && self.configured(n) {
                    self.start(n);
                }
            }
            Output::SignalAgent(signal) => {
                if signal == SIGKILL {
                    self.kill(n, true);
                }
            }
            Output::StartApplication { place, .. } => {
                let result = Ok(self.run_begins(n, place));
                self.at(HOP, What::Guardian(n, which, Input::Started { place, result }));
            }
            Output::SignalApplication { place, signal, .. } => self.run_signalled(n, place, signal),
            Output::KillApplication { place } => self.run_killed(n, place),
            Output::KillPromotion { place } => self.promotion_killed(n, place),
            Output::RunFence { place, fence, .. } => self.fence_begins(n, place, fence.limit()),
            Output::KillFence { place } => {
                let machine = &mut self.nodes[n];
                if machine.above.fences.remove(&place).is_some() {
                    if let Some(role) = machine.role_at(place) {
                        machine.at_wits_end.insert(role);
                    }
                    let fate = Fate::Killed(SIGKILL);
                    self.at(MS, What::Guardian(n, which, Input::FenceEnded { place, fate }));
                }
            }
            Output::KillRemains => {
                let took = self.dice.up_to_ms(2);
                self.at(took, What::Guardian(n, which, Input::Cleared(Ok(()))));
            }
            Output::Announce { why } => self.announced(n, &why),
            Output::AnnounceAgain => self.notice(n),
            Output::Answer(answer) => {
                let boot = self.nodes[n].boot;
                self.at(HOP, What::Answer(n, boot, answer));
            }
            Output::Say(text) => self.guardian_says(n, &text),
            Output::Exit(_) => self.guardian_dies(n),
        }
    }

    fn guardian_says(&mut self, n: usize, text: &str) {
        self.say(n, || format!("guardian: {text}"));
        let waits = is(Rule::SpeaksBeforeKilling) || is(Rule::WaitsForWrite);
        let machine = &mut self.nodes[n];
        if waits && machine.log_stuck_until > self.now {
            machine.above.waits_until = machine.log_stuck_until;
            let (delay, which) = (machine.log_stuck_until - self.now, machine.above.which);
            self.at(delay, What::Look(n, which));
        }
    }

    fn fence_begins(&mut self, n: usize, place: usize, limit: Duration) {
        let way = self.nodes[n].fences;
        // By a clock that is fast it would be late else.
        let limit = limit / 100 * 98;
        let took = match way {
            Way::Slowly => limit.as_nanos() as u64,
            Way::Well | Way::Badly => self.dice.up_to(limit),
        };
        self.say(n, || format!("the guardian fences role {place}"));
        self.count += 1;
        let number = self.count;
        let fence = (number, way != Way::Badly);
        self.nodes[n].above.fences.insert(place, fence);
        self.at(took, What::Fenced(n, place, number));
    }

    pub(super) fn fence_ends(&mut self, n: usize, place: usize, number: u64) {
        let machine = &mut self.nodes[n];
        let running = machine.above.fences.get(&place).copied();
        let Some((_, well)) = running.filter(|(running, _)| *running == number) else {
            return;
        };
        machine.above.fences.remove(&place);
        let Some(role) = machine.role_at(place) else {
            return;
        };
        let by_command = machine.stopped_by_command(&role);
        if well && by_command && !machine.promotes_now(&role) {
            self.has_stopped(n, &role);
        } else if !well && by_command && machine.app(&role) != App::Passive {
            machine.at_wits_end.insert(role.clone());
        }
        let words = if well { "has succeeded" } else { "has failed" };
        self.say(n, || format!("the fence of {role} {words}"));
        let fate = Fate::Exited(if well { 0 } else { 1 });
        self.tell_guardian(n, guardian::Input::FenceEnded { place, fate });
    }

    /// It says that its agent is dead.
    fn announced(&mut self, n: usize, why: &str) {
        let above = &self.nodes[n].above;
        let owner = above
            .guardian
            .as_ref()
            .and_then(|guardian| Some(guardian.instructions()?.owner));
        let Some(owner) = owner else { return };
        self.say(n, || format!("its death is announced: {why}"));
        self.nodes[n].announces = Some((owner, why.to_owned()));
        self.with_invariants(|invariants, world| invariants.died(world, n, owner));
        self.notice(n);
    }

    /// A death notice on every network: late, lost, and more than once.
    fn notice(&mut self, n: usize) {
        let Some((owner, why)) = self.nodes[n].announces.clone() else {
            return;
        };
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            for network in 0..self.config.networks.len() {
                if !self.lost(n, other, network) {
                    let delay = self.delay();
                    let why = why.clone();
                    self.to(other, delay, Input::Dead { owner, why });
                }
            }
        }
    }

    /// It stands still for so long: nothing reaches it, and its keepers go on. An agent that stands still with it, goes on with it.
    pub fn stop_guardian(&mut self, n: usize, pause: Duration) {
        let now = self.now;
        let above = &mut self.nodes[n].above;
        if above.lives() && above.still.is_none() {
            above.still = Some(now);
            let which = above.which;
            self.say(n, || "the guardian stands still".into());
            self.nobody_there(n);
            self.at(pause.as_nanos() as u64, What::GoesOn(n, which));
        }
    }

    /// Guardian and agent are killed at once: only the keepers are left.
    pub fn both_die(&mut self, n: usize) {
        let was_up = self.nodes[n].up;
        self.guardian_dies(n);
        if was_up {
            self.kill(n, true);
        }
    }

    /// It goes on.
    pub fn continue_guardian(&mut self, n: usize) {
        let above = &mut self.nodes[n].above;
        if above.still.take().is_some() {
            above.look = None;
            self.say(n, || "the guardian goes on".into());
            self.tell_guardian(n, guardian::Input::Look);
        }
    }

    /// It is dead. Its fences die with it, its keepers see it, and its agent is about to.
    pub fn guardian_dies(&mut self, n: usize) {
        let (now, machine) = (self.now, &mut self.nodes[n]);
        if machine.above.guardian.take().is_none() {
            return;
        }
        (machine.above.still, machine.above.dead, machine.above.ready) = (None, Some(now), false);
        machine.above.inbox.clear();
        machine.above.to_do.clear();
        machine.above.fences.clear();
        let boot = machine.boot;
        self.say(n, || "the guardian is dead".into());
        self.nobody_there(n);
        self.keepers_look(n);
        self.at(MS, What::LineEnds(n, boot));
    }

    /// The agent sees that its guardian is gone: it stops in order, and ends.
    pub(super) fn line_ends(&mut self, n: usize) {
        let machine = &mut self.nodes[n];
        if machine.core.is_none() {
            return;
        }
        machine.quits = true;
        if machine.frozen {
            return; // it hears of it later
        }
        machine.leaving = true;
        self.fitness(n);
        self.give(n, Input::Stop { broken: None });
        self.stop_without_guardian(n);
    }

    /// The agent looks whether its guardian beats.
    pub(super) fn eye(&mut self, n: usize) {
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        if machine.core.is_none() {
            return;
        }
        let boot = machine.boot;
        self.at(EYE.as_nanos() as u64, What::Eye(n, boot));
        let machine = &mut self.nodes[n];
        if machine.frozen || machine.paused || !machine.above.lives() {
            return;
        }
        let stands_still = machine.eye.look(machine.above.page.beat(), now);
        if stands_still != machine.under_standstill {
            machine.under_standstill = stands_still;
            let words = if stands_still {
                "does not beat"
            } else {
                "beats again"
            };
            self.say(n, || format!("its guardian {words}"));
            self.give(n, Input::Guardian { stands_still });
            if stands_still {
                self.stop_without_guardian(n);
            }
        }
        self.end_under_standstill(n);
    }

    /// Everything is released, and the guardian stands still: both end, and a service manager may start them anew. A process 1 cannot be
    /// killed from within: there the agent stays, out of line, until its guardian goes on.
    fn end_under_standstill(&mut self, n: usize) {
        let machine = &self.nodes[n];
        let released = machine.released(self.now);
        if machine.under_standstill && released && n.is_multiple_of(2) {
            let boot = machine.boot;
            self.at(LAST_WORDS, What::GivesUp(n, boot));
        }
    }

    pub(super) fn gives_up(&mut self, n: usize) {
        let machine = &self.nodes[n];
        if machine.under_standstill && machine.released(self.now) && !machine.frozen {
            self.guardian_dies(n);
            self.agent_exits(n);
        }
    }
}
