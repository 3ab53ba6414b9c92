//! A node at work: it takes what waits in its inbox, hands it to its core, and does what that says.

use super::*;

impl World {
    pub(super) fn to(&mut self, n: usize, delay: u64, input: Input) {
        let boot = self.nodes[n].boot;
        self.at(delay, What::To(n, boot, input));
    }

    /// Hands an input over when the node has time for it.
    pub(super) fn arrive(&mut self, n: usize, input: Input) {
        if let Input::ActionDone { role, epoch, .. } = &input
            && self.nodes[n].settings(role).is_none()
            && self.nodes[n].app(role) == App::Stopping(*epoch)
        {
            self.nodes[n].passive(role, self.now);
        }
        if self.nodes[n].frozen {
            return self.give(n, input);
        }
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        machine.inbox.push_back(input);
        if machine.inbox.len() == 1 {
            machine.read = now;
            self.ready(n);
        }
    }

    /// Takes the next input that waits, and is busy with it.
    pub(super) fn ready(&mut self, n: usize) {
        loop {
            let (busy, boot) = (self.nodes[n].busy_until, self.nodes[n].boot);
            if busy > self.now {
                return self.at(busy - self.now, What::Ready(n, boot));
            }
            let Some(input) = self.nodes[n].inbox.pop_front() else {
                return;
            };
            let slow = self.nodes[n].slow;
            if slow > Duration::ZERO {
                self.nodes[n].busy_until = self.now + self.dice.up_to(slow);
                self.nodes[n].behind_until = self.now + 1000 * MS;
            }
            self.give(n, input);
            if self.nodes[n].inbox.is_empty() {
                return;
            }
        }
    }

    pub(super) fn give(&mut self, n: usize, input: Input) {
        if self.violation.is_some() {
            return;
        }
        if let Input::Learned { state, applied } = &input {
            let known = &mut self.nodes[n].applied;
            if known.as_ref().is_some_and(|(_, index)| index > applied) {
                return; // logs only grow
            }
            *known = Some((state.clone(), *applied));
        }
        let mut now = self.clock(n);
        let machine = &mut self.nodes[n];
        if machine.frozen {
            if !matches!(input, Input::Tick) {
                machine.buffered.push(input);
            }
            return;
        }
        let Some(mut core) = machine.core.take() else {
            return;
        };
        if is(Rule::ClockBeforeReceive) && matches!(input, Input::Heartbeat { .. }) {
            now = machine.read;
        }
        if let Input::Heartbeat {
            header, heartbeat, ..
        } = &input
            && let Some(invariants) = &mut self.invariants
        {
            invariants.heard(machine, header, heartbeat, self.now);
        }
        core.handle(input, now, self.now / MS);
        self.nodes[n].core = Some(core);
        self.with_invariants(|invariants, world| invariants.handled(world, n));
        while let Some(output) = self.nodes[n].core.as_mut().and_then(|core| core.poll_output()) {
            self.act(n, output);
        }
        self.with_invariants(|invariants, world| invariants.acted(world, n));
        self.check();
        self.wake(n);
    }

    /// Sees to it that the node is woken when its core wants to be.
    pub(super) fn wake(&mut self, n: usize) {
        let machine = &mut self.nodes[n];
        let Some(core) = &machine.core else { return };
        let due = machine.true_time(core.next_wake());
        // A core that wants to be woken at once, again and again, would spin.
        machine.spins = if due <= self.now { machine.spins + 1 } else { 0 };
        if machine.spins >= 20 {
            let state = core.view(machine.clock(self.now)).roles[0].state;
            let text = format!(
                "{} asks for a tick that it does not use ({state:?})",
                machine.name
            );
            return self.fail("bounded", text);
        }
        let wake = due.max(self.now + MS / 20);
        if machine.tick.is_none_or(|at| at <= self.now || at > wake) {
            machine.tick = Some(wake);
            self.to(n, wake - self.now, Input::Tick);
        }
    }

    pub(super) fn act(&mut self, n: usize, output: Output) {
        match output {
            Output::Send {
                network,
                to,
                seq,
                heartbeat,
            } => self.send(n, network, &to, seq, heartbeat),
            Output::Persist { token, durable } => {
                self.nodes[n].to_write = Some((token, durable));
                self.write(n);
            }
            Output::Guard { role, change } => {
                let Some(guard) = self.nodes[n].guards.get(&role) else {
                    return;
                };
                match change {
                    GuardChange::Open { epoch, until } => guard.open(epoch, until),
                    GuardChange::Shut => guard.shut(),
                    GuardChange::Close(epoch) => guard.close(epoch),
                }
                self.with_invariants(|invariants, world| invariants.guard(world, n, &role, change));
                self.check();
            }
            Output::Run {
                role, epoch, action, ..
            } => self.run_action(n, role, epoch, action),
            Output::Lent { role, until } => self.lent(n, &role, until),
            Output::Propose { token, command } => self.propose(n, token, &command),
            Output::Engine(change) => self.engine(n, change),
            Output::Bootstrap { members } => {
                let nodes = members
                    .iter()
                    .map(|(id, (name, kind))| (*id, name.clone(), *kind))
                    .collect();
                self.log.commit(&Command::Init {
                    cluster: ClusterId(77),
                    nodes,
                });
                if self.log.voters.is_empty() {
                    self.log.voters = members
                        .iter()
                        .filter(|(_, (_, kind))| kind.votes())
                        .map(|(id, _)| *id)
                        .collect();
                }
                self.replicate();
                self.elect_later();
            }
            Output::Publish(view) => self.nodes[n].view = Some(*view),
            Output::Log { text, .. } => self.say(n, || text),
            Output::Answer { id, result } => self.answers.push((id, result)),
            Output::Confirmed { id, epoch } => {
                let Some(at) = self.confirms.iter().position(|(asked, ..)| *asked == id) else {
                    return;
                };
                let (_, _, role, before) = self.confirms.swap_remove(at);
                self.with_invariants(|invariants, _| invariants.confirmed(n, &role, before, epoch));
            }
            Output::Lead(may) => {
                if std::mem::replace(&mut self.nodes[n].may_lead, may) != may {
                    self.elect_later();
                }
            }
            Output::Superseded => self.nodes[n].superseded = true,
            Output::Stopped => {
                self.nodes[n].stopped = true;
                if self.nodes[n].quits {
                    self.agent_exits(n);
                } else if self.nodes[n].superseded {
                    self.comes_back_anew(n);
                }
            }
        }
    }

    pub(super) fn run_action(&mut self, n: usize, role: RoleName, epoch: Epoch, action: Action) {
        let check = self.config.roles.get(&role).and_then(|role| role.check.as_ref());
        let checked = self.nodes[n].first_check && check.is_some_and(|check| !check.standby);
        if action == Action::Promote && checked {
            // The first check of this tenure.
            let health = Input::Health {
                role: role.clone(),
                health: self.nodes[n].healthy[&role].into(),
                reason: "as the simulator says".into(),
            };
            self.to(n, MS, health);
        }
        if action == Action::Promote {
            self.nodes[n].told.insert(role.clone(), epoch);
        }
        if action != Action::Tell && self.nodes[n].settings(&role).is_some() {
            return self.act_on_application(n, &role, epoch, action);
        }
        let app = match action {
            Action::Promote => App::Acting(epoch),
            Action::Demote => App::Stopping(epoch),
            Action::Tell => {
                let (took, boot) = (self.action.as_nanos() as u64, self.nodes[n].boot);
                return self.at(took, What::Told(n, boot, role, epoch));
            }
        };
        self.nodes[n].apps.insert(role.clone(), app);
        let result = Ok(());
        let done = Input::ActionDone {
            role,
            epoch,
            action,
            result,
        };
        self.to(n, self.action.as_nanos() as u64, done);
    }

    /// What tells the application of an epoch has ended. It is not begun, or is cancelled, where the application is being stopped.
    pub(super) fn told(&mut self, n: usize, role: RoleName, epoch: Epoch) {
        let machine = &mut self.nodes[n];
        let newer = machine.told.get(&role).is_none_or(|told| *told < epoch);
        let result = match (machine.app(&role), machine.promotes) {
            (App::Acting(_), Way::Well) if newer => {
                machine.told.insert(role.clone(), epoch);
                Ok(())
            }
            (App::Acting(_), _) if newer => Err("it failed".into()),
            _ => Err("cancelled by a demote".into()),
        };
        let done = Input::ActionDone {
            role,
            epoch,
            action: Action::Tell,
            result,
        };
        self.arrive(n, done);
    }

    /// The flush thread takes the newest that waits, one at a time.
    pub(super) fn write(&mut self, n: usize) {
        if self.nodes[n].writing.is_none()
            && let Some(next) = self.nodes[n].to_write.take()
        {
            self.nodes[n].writing = Some(next);
            if self.nodes[n].hung {
                return;
            }
            let delay = self.flush.as_nanos() as u64 + self.dice.up_to(self.flush_late);
            let boot = self.nodes[n].boot;
            self.at(delay, What::Flushed(n, boot));
        }
    }

    pub(super) fn flushed(&mut self, n: usize) {
        if self.nodes[n].hung {
            return;
        }
        if let Some((token, durable)) = self.nodes[n].writing.take() {
            self.nodes[n].disk = durable;
            self.write(n);
            self.arrive(n, Input::Persisted { token });
            self.write_a_little(n);
        }
    }
}
