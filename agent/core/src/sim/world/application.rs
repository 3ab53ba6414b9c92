//! Applications that take time to stop: actions that run for a while, hang or fail, and a managed process that ends by itself.

use super::*;
use crate::input::Process;

/// Before a process that ended too often is started once more, in nanoseconds; the agent's own longest pause is three times that.
const LONG_PAUSE: u64 = 10_000 * MS;

/// What the agent did last to an application.
pub(in crate::sim) struct Doing {
    number: u64,
    epoch: Epoch,
    action: Action,
    result: Result<(), String>,
    /// The action has ended; a process that it started may run.
    ended: bool,
}

impl World {
    /// The agent begins to start or to stop an application.
    pub(super) fn act_on_application(&mut self, n: usize, role: &RoleName, epoch: Epoch, action: Action) {
        self.with_invariants(|invariants, world| invariants.ran(world, n, role, action));
        let Some(settings) = self.nodes[n].settings(role).cloned() else {
            return;
        };
        let (took, result) = match action {
            Action::Promote => self.promote(n, role, epoch, &settings),
            Action::Demote => self.demote(n, role, &settings),
        };
        self.count += 1;
        let doing = Doing {
            number: self.count,
            epoch,
            action,
            result,
            ended: false,
        };
        let number = doing.number;
        self.nodes[n].doing.insert(role.clone(), doing);
        self.at(took, What::Done(n, role.clone(), number));
        self.parent_looks(n, role, false);
    }

    /// How long a promotion takes, and how it ends.
    fn promote(
        &mut self,
        n: usize,
        role: &RoleName,
        epoch: Epoch,
        settings: &Role,
    ) -> (u64, Result<(), String>) {
        if settings.process.is_some() && self.lease_is_over(n, role) {
            return (0, Err("the lease is over".into()));
        }
        let machine = &mut self.nodes[n];
        machine.apps.insert(role.clone(), App::Acting(epoch));
        match machine.promotes {
            Way::Well => (self.action.as_nanos() as u64, Ok(())),
            Way::Slowly => {
                let limit = settings
                    .promote
                    .as_ref()
                    .map_or(self.action, |promote| promote.timeout);
                (limit.as_nanos() as u64, Err("it took too long".into()))
            }
            Way::Badly => (self.dice.up_to_ms(50), Err("it failed".into())),
        }
    }

    /// How long it takes to stop, and whether that succeeds: a command may fail, a process is killed in the end.
    fn demote(&mut self, n: usize, role: &RoleName, settings: &Role) -> (u64, Result<(), String>) {
        if let Some(doing) = self.nodes[n].doing.get(role)
            && doing.action == Action::Promote
            && !doing.ended
        {
            let cancelled = Input::ActionDone {
                role: role.clone(),
                epoch: doing.epoch,
                action: Action::Promote,
                result: Err("cancelled by a demote".into()),
            };
            self.to(n, MS / 10, cancelled);
        }
        let machine = &mut self.nodes[n];
        let app = machine.app(role);
        if let App::Acting(since) | App::Loose(since) = app {
            machine.apps.insert(role.clone(), App::Stopping(since));
        }
        let command = settings.demote.as_ref().map(|demote| demote.timeout);
        let runs = settings.process.as_ref().filter(|_| app != App::Passive);
        let most = command.unwrap_or_default() + runs.map_or(Duration::ZERO, |process| process.stop_timeout);
        let took = match machine.demotes {
            Way::Slowly => most.as_nanos() as u64,
            Way::Well | Way::Badly => self.dice.up_to(most),
        };
        match (self.nodes[n].demotes, command) {
            (Way::Badly, Some(_)) => (took, Err("it failed".into())),
            _ => (took, Ok(())),
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
        doing.ended = true;
        let (epoch, action, result) = (doing.epoch, doing.action, doing.result.clone());
        if action == Action::Demote {
            // With neither an action nor a process, "done" stops nothing.
            let stops = |role: &Role| role.demote.is_some() || role.process.is_some();
            let stops = machine.settings(role).is_some_and(stops);
            match (machine.app(role), &result) {
                (App::Stopping(since), Ok(())) if !stops => self.stop_failed(n, role, since),
                (_, Ok(())) => self.has_stopped(n, role),
                (App::Stopping(since), Err(_)) => self.stop_failed(n, role, since),
                _ => {}
            }
        }
        let done = Input::ActionDone {
            role: role.clone(),
            epoch,
            action,
            result,
        };
        self.arrive(n, done);
    }

    /// An application acts no more, because its agent or its parent has stopped it.
    pub(super) fn has_stopped(&mut self, n: usize, role: &RoleName) {
        if let App::Acting(since) | App::Stopping(since) | App::Loose(since) = self.nodes[n].app(role) {
            self.with_invariants(|invariants, world| invariants.stopped(world, n, role, since));
            let now = self.now;
            self.nodes[n].passive(role, now);
        }
    }

    /// The agent's attempt to stop it failed, or was cut short by the agent's death. It is the parent's turn; if that comes too
    /// late, nothing is left.
    pub(super) fn stop_failed(&mut self, n: usize, role: &RoleName, since: Epoch) {
        self.nodes[n].apps.insert(role.clone(), App::Loose(since));
        let harder = |role: &Role| role.fence.is_some() || role.process.is_some();
        if self.nodes[n].settings(role).is_some_and(|role| !harder(role)) && self.parents_turn(n, role) {
            self.nodes[n].at_wits_end.insert(role.clone());
        }
        self.parent_looks(n, role, false);
    }

    /// The managed process of a promoted role ends by itself. The agent hears of it `late`, as of one that `failed` too often or as
    /// of one that is started again, which it is after `up`, unless that is zero.
    pub fn process_ends(&mut self, n: usize, role: &RoleName, failed: bool, up: u64, late: u64) {
        let now = self.now;
        let machine = &mut self.nodes[n];
        let managed = machine.settings(role).is_some_and(|role| role.process.is_some());
        let promoted = machine.doing.get(role).filter(|doing| {
            doing.action == Action::Promote && doing.ended && doing.result.is_ok() && machine.up
        });
        let (true, App::Acting(_), Some(doing)) = (managed, machine.app(role), promoted) else {
            return;
        };
        let (number, epoch) = (doing.number, doing.epoch);
        machine.passive(role, now);
        self.say(n, || format!("the process of {role} ends"));
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
        let machine = &mut self.nodes[n];
        let doing = machine.doing.get(role).filter(|doing| doing.number == number);
        let (Some(doing), true, App::Passive) = (doing, machine.up, machine.app(role)) else {
            return;
        };
        let epoch = doing.epoch;
        if machine.frozen || self.lease_is_over(n, role) {
            // Nobody asks for it, or the parent refuses: once more later.
            return self.at(100 * MS, What::Again(n, role.clone(), number));
        }
        self.nodes[n].apps.insert(role.clone(), App::Acting(epoch));
        self.say(n, || format!("the process of {role} runs again"));
        self.tell_of_process(n, role, epoch, Process::Up, MS);
        self.parent_looks(n, role, false);
        self.check();
    }

    /// The parent has stopped an application under the hands of a living agent.
    pub(super) fn stopped_by_parent(&mut self, n: usize, role: &RoleName) {
        self.has_stopped(n, role);
        self.say(n, || format!("the parent has stopped the application of {role}"));
        // A demote of a process that is gone needs no more waiting for; a command runs to its end.
        let machine = &self.nodes[n];
        if let Some(doing) = machine.doing.get(role)
            && doing.action == Action::Demote
            && machine.settings(role).is_some_and(|role| role.process.is_some())
        {
            let number = doing.number;
            self.at(MS, What::Done(n, role.clone(), number));
        }
    }
}
