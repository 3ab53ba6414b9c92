//! What the agent does with applications that take time to stop: actions that run for a while, hang or fail, and a managed process that
//! it has its guardian start and stop, and that may end by itself.

use super::*;
use crate::guardian::{Answer, Request};
use crate::input::Process;

/// Before a process that ended too often is started once more, in nanoseconds; the agent's own longest pause is three times that.
const LONG_PAUSE: u64 = 10_000 * MS;
/// A start that was refused is asked for again after this.
const REFUSED: u64 = 100 * MS;

/// What the agent did last to an application.
pub(in crate::sim) struct Doing {
    number: u64,
    epoch: Epoch,
    action: Action,
    result: Result<(), String>,
    /// The action has ended; a process that it started may run.
    ended: bool,
    /// A command of it runs.
    command: bool,
    /// The agent waits for its guardian's word that the process has ended.
    waits: bool,
    /// What becomes of the process that ended is settled (`process_ends`).
    settled: bool,
}

impl Machine {
    /// Whether it is a command alone that stops this application.
    pub(super) fn stopped_by_command(&self, role: &RoleName) -> bool {
        self.settings(role).is_some_and(|role| role.process.is_none())
    }

    /// When the guardian runs the fence of what is lent now.
    pub(super) fn fence_time(&self, role: &RoleName) -> Option<Mono> {
        let lead = self.settings(role)?.lead(self.config.cluster.window);
        Some(self.slot(role).lent()? - lead.fence)
    }

    /// Whether a promote command runs, which may start the application.
    pub(super) fn promotes_now(&self, role: &RoleName) -> bool {
        let doing = self.doing.get(role);
        doing.is_some_and(|doing| doing.action == Action::Promote && doing.command && !doing.ended)
    }
}

impl World {
    /// The agent begins to start or to stop an application.
    pub(super) fn act_on_application(&mut self, n: usize, role: &RoleName, epoch: Epoch, action: Action) {
        self.with_invariants(|invariants, world| invariants.ran(world, n, role, action));
        let Some(settings) = self.nodes[n].settings(role).cloned() else {
            return;
        };
        if action == Action::Demote {
            self.cancel_promotion(n, role);
        }
        self.count += 1;
        let doing = Doing {
            number: self.count,
            epoch,
            action,
            result: Ok(()),
            ended: false,
            command: false,
            waits: false,
            settled: false,
        };
        self.nodes[n].doing.insert(role.clone(), doing);
        match action {
            Action::Promote => {
                let rings = self.nodes[n].slot(role).promoted(epoch);
                self.ring(n, rings);
                if settings.process.is_some() {
                    self.ask_for_process(n, role, epoch);
                } else {
                    self.nodes[n].apps.insert(role.clone(), App::Acting(epoch));
                    self.run_promote(n, role, &settings);
                }
            }
            Action::Demote => {
                let rings = self.nodes[n].slot(role).stopping(true);
                self.ring(n, rings);
                if let App::Acting(since) | App::Loose(since) = self.nodes[n].app(role) {
                    self.nodes[n].apps.insert(role.clone(), App::Stopping(since));
                }
                if settings.process.is_some() {
                    self.stop_process(n, role, &settings);
                } else {
                    self.run_demote(n, role, &settings);
                }
            }
            Action::Tell => {} // as for any other application (`told`)
        }
    }

    fn ask_for_process(&mut self, n: usize, role: &RoleName, epoch: Epoch) {
        self.nodes[n].unheard.insert(role.clone());
        let slot = self.nodes[n].place(role);
        let request = Request::Start {
            slot,
            epoch,
            command: vec!["app".into()],
            env: Vec::new(),
            warm: false,
        };
        self.ask_guardian(n, request);
    }

    /// The promote command.
    fn run_promote(&mut self, n: usize, role: &RoleName, settings: &Role) {
        let (took, result) = match self.nodes[n].promotes {
            Way::Well => (self.action.as_nanos() as u64, Ok(())),
            Way::Slowly => {
                let limit = settings
                    .promote
                    .as_ref()
                    .map_or(self.action, |promote| promote.timeout);
                (limit.as_nanos() as u64, Err("it took too long".into()))
            }
            Way::Badly => (self.dice.up_to_ms(50), Err("it failed".into())),
        };
        self.ends_after(n, role, took, result);
    }

    /// The demote command: it may fail.
    fn run_demote(&mut self, n: usize, role: &RoleName, settings: &Role) {
        let command = settings.demote.as_ref().map(|demote| demote.timeout);
        let most = command.unwrap_or_default();
        let took = match self.nodes[n].demotes {
            Way::Slowly => most.as_nanos() as u64,
            Way::Well | Way::Badly => self.dice.up_to(most),
        };
        let result = match (self.nodes[n].demotes, command) {
            (Way::Badly, Some(_)) => Err("it failed".into()),
            _ => Ok(()),
        };
        self.ends_after(n, role, took, result);
    }

    fn ends_after(&mut self, n: usize, role: &RoleName, took: u64, result: Result<(), String>) {
        let Some(doing) = self.nodes[n].doing.get_mut(role) else {
            return;
        };
        (doing.result, doing.command) = (result, true);
        let number = doing.number;
        self.at(took, What::Done(n, role.clone(), number));
    }

    /// The process of a role is stopped: by the guardian, or without it.
    fn stop_process(&mut self, n: usize, role: &RoleName, settings: &Role) {
        let slot = self.nodes[n].place(role);
        if let Some(doing) = self.nodes[n].doing.get_mut(role) {
            doing.waits = true;
        }
        let grace = settings
            .process
            .as_ref()
            .map_or(Duration::ZERO, |process| process.stop_timeout);
        self.ask_guardian(
            n,
            Request::Stop {
                slot,
                signal: 15,
                grace,
            },
        );
        let machine = &self.nodes[n];
        if machine.under_standstill || !machine.above.lives() {
            self.stop_without_guardian(n);
        }
    }

    /// The guardian is dead, or stands still: what the agent waits for, it sees to itself.
    pub(super) fn stop_without_guardian(&mut self, n: usize) {
        for role in self.roles() {
            let machine = &self.nodes[n];
            let waits = machine
                .doing
                .get(&role)
                .filter(|doing| doing.waits && !doing.ended);
            let Some(number) = waits.map(|doing| doing.number) else {
                continue;
            };
            let place = machine.place(&role);
            if machine.unheard.contains(&role) {
                // It may come when the guardian goes on; its keeper ends it with the guardian or the lease (`agent/src/process.rs`).
                if let Some(doing) = self.nodes[n].doing.get_mut(&role) {
                    doing.result = Err("the guardian has not said whether it was started".into());
                }
                self.at(MS, What::Done(n, role, number));
            } else if machine.runs.contains_key(&place) {
                self.run_killed(n, place);
            } else {
                self.at(MS, What::Done(n, role, number));
            }
        }
    }

    /// Nothing is left of an application: an agent without a guardian sees it by itself.
    pub(super) fn gone_without_guardian(&mut self, n: usize, role: &RoleName) {
        let machine = &self.nodes[n];
        if (machine.under_standstill || !machine.above.lives())
            && let Some(doing) = machine.doing.get(role)
            && doing.waits
            && !doing.ended
        {
            let number = doing.number;
            self.at(MS, What::Done(n, role.clone(), number));
        }
    }

    /// A demote cancels a promotion that runs.
    fn cancel_promotion(&mut self, n: usize, role: &RoleName) {
        let machine = &self.nodes[n];
        if let Some(doing) = machine.doing.get(role)
            && doing.action == Action::Promote
            && !doing.ended
        {
            let cancelled = Input::ActionDone {
                role: role.clone(),
                epoch: doing.epoch,
                action: Action::Promote,
                result: Err("cancelled by a demote".into()),
            };
            machine.slot(role).promotion_over();
            self.to(n, MS / 10, cancelled);
        }
    }

    /// The guardian kills a promote action that runs, for it must not undo what follows.
    pub(super) fn promotion_killed(&mut self, n: usize, place: usize) {
        let Some(role) = self.nodes[n].role_at(place) else {
            return;
        };
        if self.nodes[n].settings(&role).is_some() {
            self.with_invariants(|invariants, world| invariants.fenced(world, n, &role));
        }
        if self.nodes[n].promotes_now(&role)
            && let Some(doing) = self.nodes[n].doing.get_mut(&role)
        {
            doing.result = Err("was killed by signal 9 (SIGKILL)".into());
            doing.command = false;
            let number = doing.number;
            self.at(MS / 10, What::Done(n, role, number));
        }
    }

    pub(super) fn action_ends(&mut self, n: usize, role: &RoleName, number: u64) {
        let machine = &mut self.nodes[n];
        let Some(doing) = machine.doing.get_mut(role) else {
            return;
        };
        if doing.number != number || doing.ended {
            return;
        }
        (doing.ended, doing.waits) = (true, false);
        let (epoch, action, mut result) = (doing.epoch, doing.action, doing.result.clone());
        match action {
            Action::Promote => machine.slot(role).promotion_over(),
            Action::Demote => {
                // A fence that succeeded since has stopped what the demote could not.
                if result.is_err() && machine.slot(role).is_fenced() {
                    result = Ok(());
                }
                let rings = result.is_err() && machine.slot(role).stopping(false);
                self.ring(n, rings);
                self.demote_ended(n, role, &result);
            }
            Action::Tell => {}
        }
        let done = Input::ActionDone {
            role: role.clone(),
            epoch,
            action,
            result,
        };
        self.arrive(n, done);
    }

    fn demote_ended(&mut self, n: usize, role: &RoleName, result: &Result<(), String>) {
        if !self.nodes[n].stopped_by_command(role) {
            return; // it is gone when its processes are
        }
        // Without an action "done" stops nothing.
        let stops = self.nodes[n]
            .settings(role)
            .is_some_and(|role| role.demote.is_some());
        match (self.nodes[n].app(role), result) {
            (App::Stopping(since), Ok(())) if !stops => self.stop_failed(n, role, since),
            (_, Ok(())) => self.has_stopped(n, role),
            (App::Stopping(since), Err(_)) => self.stop_failed(n, role, since),
            _ => {}
        }
    }

    /// An application acts no more.
    pub(super) fn has_stopped(&mut self, n: usize, role: &RoleName) {
        if let App::Acting(since) | App::Stopping(since) | App::Loose(since) = self.nodes[n].app(role) {
            self.with_invariants(|invariants, world| invariants.stopped(world, n, role, since));
            let now = self.now;
            self.nodes[n].passive(role, now);
        }
    }

    /// The agent's attempt to stop it failed, or was cut short by the agent's death. It is the guardian's turn; if that comes too
    /// late, nothing is left.
    pub(super) fn stop_failed(&mut self, n: usize, role: &RoleName, since: Epoch) {
        self.nodes[n].apps.insert(role.clone(), App::Loose(since));
        let harder = self.nodes[n]
            .settings(role)
            .is_some_and(|role| role.fence.is_some());
        let now = self.clock(n);
        let late = self.nodes[n].fence_time(role).is_some_and(|at| now >= at);
        if !harder && late {
            self.nodes[n].at_wits_end.insert(role.clone());
        }
    }

    /// The agent is dead, and its actions with it; what it had started may act on.
    pub(super) fn actions_die(&mut self, n: usize) {
        self.nodes[n].doing.clear();
        for role in self.nodes[n].apps.keys().cloned().collect::<Vec<_>>() {
            let now = self.now;
            match self.nodes[n].app(&role) {
                _ if self.nodes[n].settings(&role).is_none() => self.nodes[n].passive(&role, now),
                App::Acting(since) => {
                    self.nodes[n].apps.insert(role, App::Loose(since));
                }
                App::Stopping(since) if self.nodes[n].stopped_by_command(&role) => {
                    self.stop_failed(n, &role, since);
                }
                App::Stopping(since) => {
                    self.nodes[n].apps.insert(role, App::Loose(since));
                }
                App::Passive | App::Loose(_) => {}
            }
        }
    }

    /// The guardian says something to its agent.
    pub(super) fn answered(&mut self, n: usize, answer: Answer) {
        if self.nodes[n].frozen {
            return self.nodes[n].answers.push(answer);
        }
        if self.nodes[n].core.is_none() {
            return;
        }
        let Some(role) = self.nodes[n].role_at(answer.slot()) else {
            return;
        };
        match answer {
            Answer::Started { epoch, result, .. } => {
                self.nodes[n].unheard.remove(&role);
                self.process_started(n, &role, epoch, result);
            }
            Answer::Ended { took, .. } => {
                self.slow_kill(n, &role, took);
                self.process_ended(n, &role);
            }
            Answer::Fenced { .. } => self.arrive(n, Input::Fenced(role)),
            Answer::Stuck { processes, .. } => self.arrive(n, Input::Stuck { role, processes }),
        }
    }

    fn slow_kill(&mut self, n: usize, role: &RoleName, took: Option<Duration>) {
        let machine = &self.nodes[n];
        let window = machine.config.cluster.window;
        let allowed = machine.settings(role).map(|role| role.lead(window).kill);
        if let (Some(took), Some(allowed)) = (took, allowed)
            && took > allowed
        {
            let role = role.clone();
            self.arrive(n, Input::SlowKill { role, took, allowed });
        }
    }

    fn process_started(&mut self, n: usize, role: &RoleName, epoch: Epoch, result: Result<u32, String>) {
        let Some(settings) = self.nodes[n].settings(role).cloned() else {
            return;
        };
        let doing = self.nodes[n].doing.get_mut(role);
        let Some(doing) = doing.filter(|doing| doing.action == Action::Promote && doing.epoch == epoch)
        else {
            return; // a demote came first, and stops it
        };
        let number = doing.number;
        match (result, doing.ended) {
            (Ok(_), false) => self.run_promote(n, role, &settings),
            (Ok(_), true) => {
                self.say(n, || format!("the process of {role} runs again"));
                self.tell_of_process(n, role, epoch, Process::Up, MS);
            }
            (Err(why), false) => {
                doing.result = Err(why);
                self.at(0, What::Done(n, role.clone(), number));
            }
            (Err(_), true) => self.at(REFUSED, What::Again(n, role.clone(), number)),
        }
    }

    fn process_ended(&mut self, n: usize, role: &RoleName) {
        let Some(doing) = self.nodes[n].doing.get_mut(role) else {
            return;
        };
        let (number, epoch) = (doing.number, doing.epoch);
        if doing.action == Action::Demote {
            if doing.waits && !doing.ended {
                self.at(0, What::Done(n, role.clone(), number));
            }
        } else if !std::mem::take(&mut doing.settled) {
            // The guardian killed it, or it was killed when the promotion had just begun.
            let why = Process::Restarting("was killed by signal 9 (SIGKILL)".into());
            self.tell_of_process(n, role, epoch, why, MS);
            self.at(REFUSED, What::Again(n, role.clone(), number));
        }
    }

    /// The managed process of a promoted role ends by itself. The agent hears of it `late`, as of one that `failed` too often or as
    /// of one that is started again, which it is after `up`, unless that is zero.
    pub fn process_ends(&mut self, n: usize, role: &RoleName, failed: bool, up: u64, late: u64) {
        let machine = &mut self.nodes[n];
        let managed = machine.settings(role).is_some_and(|role| role.process.is_some());
        let (app, is_up) = (machine.app(role), machine.up);
        let promoted = machine
            .doing
            .get_mut(role)
            .filter(|doing| doing.action == Action::Promote && doing.ended && doing.result.is_ok() && is_up);
        let (true, App::Acting(_), Some(doing)) = (managed, app, promoted) else {
            return;
        };
        doing.settled = true;
        let (number, epoch) = (doing.number, doing.epoch);
        self.say(n, || format!("the process of {role} ends"));
        let place = self.nodes[n].place(role);
        self.leader_ends(n, place, None);
        let why = "exited with status 1".to_owned();
        let process = if failed {
            Process::Failed(why)
        } else {
            Process::Restarting(why)
        };
        self.tell_of_process(n, role, epoch, process, late);
        // However often it ended, the agent starts it again while it holds the role: nobody else may be fit.
        let up = if up > 0 { up } else { LONG_PAUSE };
        self.at(late + up, What::Again(n, role.clone(), number));
    }

    fn tell_of_process(&mut self, n: usize, role: &RoleName, epoch: Epoch, process: Process, delay: u64) {
        let input = Input::Process {
            role: role.clone(),
            epoch,
            process,
        };
        self.to(n, delay, input);
    }

    /// The agent starts a process again that ended, if it still may.
    pub(super) fn process_again(&mut self, n: usize, role: &RoleName, number: u64) {
        let machine = &self.nodes[n];
        let doing = machine.doing.get(role);
        let Some(doing) = doing.filter(|doing| doing.number == number && machine.up) else {
            return;
        };
        let epoch = doing.epoch;
        if machine.frozen {
            // Nobody asks for it: once more later.
            return self.at(REFUSED, What::Again(n, role.clone(), number));
        }
        self.ask_for_process(n, role, epoch);
    }
}
