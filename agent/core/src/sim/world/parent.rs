//! The parent process of each node: the dead man's handle. It knows until when the application may act, reads its machine's clock, and
//! goes on while the agent is frozen, slow or dead; only a machine that is paused with its clock stops it too.

use super::*;

/// A fence that failed is tried again after this, so often in all: then the death is not announced.
const AGAIN: u64 = 1000 * MS;
const TRIES: u32 = 3;

/// What it knows of one role.
#[derive(Default)]
pub(in crate::sim) struct Watched {
    /// Until when the application may act.
    until: Option<Mono>,
    /// The end for which it has fenced.
    fenced: Option<Mono>,
    /// The fence that runs, and whether it will succeed.
    fence: Option<(u64, bool)>,
    tries: u32,
    /// It failed, and is tried again soon.
    waits: bool,
    /// When it will look at its clock, in true time.
    looks: Option<u64>,
}

impl Watched {
    fn busy(&self) -> bool {
        self.fence.is_some() || self.waits
    }
}

impl World {
    /// The agent says until when.
    pub(super) fn lent(&mut self, n: usize, role: &RoleName, until: Option<Mono>) {
        let machine = &mut self.nodes[n];
        if machine.settings(role).is_some() {
            machine.watched.entry(role.clone()).or_default().until = until;
            self.parent_looks(n, role, false);
        }
    }

    /// When the parent fences, and when it kills, by the node's clock.
    fn moments(&self, n: usize, role: &RoleName) -> Option<(Mono, Mono, Mono)> {
        let machine = &self.nodes[n];
        let until = machine.watched.get(role)?.until?;
        let lead = machine.settings(role)?.lead(machine.config.cluster.window);
        let before = |lead: Duration| Mono(until.0.saturating_sub(lead.as_nanos() as u64));
        Some((before(lead.fence), before(lead.kill), until))
    }

    /// Whether the last part of the lease has begun in which the parent acts.
    pub(super) fn parents_turn(&self, n: usize, role: &RoleName) -> bool {
        self.moments(n, role)
            .is_some_and(|(fence, ..)| self.clock(n) >= fence)
    }

    /// Whether it is too late to start a process.
    pub(super) fn lease_is_over(&self, n: usize, role: &RoleName) -> bool {
        self.moments(n, role)
            .is_none_or(|(_, kill, _)| self.clock(n) >= kill)
    }

    /// The parent looks whether it is time, and sees to it that it looks again.
    pub(super) fn parent_looks(&mut self, n: usize, role: &RoleName, woken: bool) {
        if woken && let Some(watched) = self.nodes[n].watched.get_mut(role) {
            watched.looks = None;
        }
        let machine = &self.nodes[n];
        let (Some((fence, kill, until)), Some(settings)) = (self.moments(n, role), machine.settings(role))
        else {
            return;
        };
        if machine.paused || !machine.up || (is(Rule::NoDeadMan) && machine.frozen) {
            return;
        }
        let (now, settings) = (self.clock(n), settings.clone());
        let watched = &machine.watched[role];
        let fences = match machine.app(role) {
            App::Passive => false,
            App::Acting(_) | App::Loose(_) => true,
            // A demote that runs is left alone, unless there is something harder: it may outlast the lease.
            App::Stopping(_) => settings.fence.is_some() && !is(Rule::FenceWaits),
        };
        if now >= fence && fences && watched.fenced != Some(until) && watched.fence.is_none() {
            self.with_invariants(|invariants, world| invariants.fenced(world, n, role));
            self.fence(n, role, &settings);
            if let Some(watched) = self.nodes[n].watched.get_mut(role) {
                watched.fenced = Some(until);
            }
        }
        if now >= kill && settings.process.is_some() && self.nodes[n].app(role) != App::Passive {
            self.tell_agent(n, role);
            self.stopped_by_parent(n, role);
        }
        let next = [fence, kill].into_iter().find(|at| *at > now);
        let Some(next) = next.map(|at| self.nodes[n].true_time(at).max(self.now)) else {
            return;
        };
        let planned = self.nodes[n].watched[role].looks;
        if planned.is_none_or(|at| at < self.now || at > next) {
            self.nodes[n].watched.entry(role.clone()).or_default().looks = Some(next);
            self.at(next - self.now, What::Parent(n, role.clone()));
        }
    }

    /// An agent that lives on hears that its parent stepped in: when the fence has ended, not when it begins. What it had promoted
    /// meanwhile, the fence has stopped too.
    fn tell_agent(&mut self, n: usize, role: &RoleName) {
        if !is(Rule::FenceUntold) {
            self.to(n, MS, Input::Fenced(role.clone()));
        }
    }

    /// All plans are made anew: the clock runs otherwise, or again.
    pub(super) fn parents_clock_changed(&mut self, n: usize) {
        for role in self.nodes[n].watched.keys().cloned().collect::<Vec<_>>() {
            self.parent_looks(n, &role, true);
        }
    }

    /// Runs the last resort, if there is one.
    fn fence(&mut self, n: usize, role: &RoleName, settings: &Role) {
        let Some((_, limit)) = settings.last_resort() else {
            return;
        };
        let way = self.nodes[n].fences;
        let took = match way {
            Way::Slowly => limit.as_nanos() as u64,
            Way::Well | Way::Badly => self.dice.up_to(limit),
        };
        self.say(n, || format!("the parent fences {role}"));
        self.count += 1;
        let number = self.count;
        self.nodes[n].watched.entry(role.clone()).or_default().fence = Some((number, way != Way::Badly));
        self.at(took, What::Fenced(n, role.clone(), number));
    }

    pub(super) fn fence_ends(&mut self, n: usize, role: &RoleName, number: u64) {
        let machine = &mut self.nodes[n];
        let Some(watched) = machine.watched.get_mut(role) else {
            return;
        };
        let Some((_, success)) = watched.fence.take_if(|(running, _)| *running == number) else {
            return;
        };
        let burying = machine.burying;
        match (success, burying) {
            (true, true) => {
                watched.until = None;
                self.has_stopped(n, role);
            }
            (true, false) => {
                if machine.app(role) != App::Passive {
                    self.stopped_by_parent(n, role);
                }
            }
            (false, _) => {
                watched.tries += 1;
                let killed = machine.settings(role).is_some_and(|role| role.process.is_some());
                if !killed && machine.app(role) != App::Passive {
                    machine.at_wits_end.insert(role.clone());
                }
                self.say(n, || format!("the fence of {role} fails"));
            }
        }
        if !burying {
            self.tell_agent(n, role);
        }
        if burying {
            if !success && self.nodes[n].watched[role].tries < TRIES {
                let boot = self.nodes[n].boot;
                self.nodes[n].watched.entry(role.clone()).or_default().waits = true;
                self.at(AGAIN, What::Bury(n, boot));
            }
            self.bury(n);
        }
    }

    /// The agent is dead: its process goes with it, and what a command started is fenced.
    pub(super) fn agent_died(&mut self, n: usize) {
        let now = self.now;
        let machine = &mut self.nodes[n];
        machine.doing.clear();
        machine.burying = true;
        for role in machine.apps.keys().cloned().collect::<Vec<_>>() {
            let machine = &mut self.nodes[n];
            if let Some(watched) = machine.watched.get_mut(&role) {
                (watched.tries, watched.waits) = (0, false);
            }
            match (machine.app(&role), machine.settings(&role)) {
                (_, None) => machine.passive(&role, now),
                (_, Some(settings)) if settings.process.is_some() => {
                    if settings.last_resort().is_none() {
                        machine.watched.remove(&role);
                    }
                    self.has_stopped(n, &role);
                }
                (App::Acting(since), _) => {
                    machine.apps.insert(role, App::Loose(since));
                }
                (App::Stopping(since), _) => self.stop_failed(n, &role, since),
                _ => {}
            }
        }
        if is(Rule::NoticeBeforeFence) {
            let owner = self.nodes[n].owner();
            self.notice(n, owner);
        }
        self.bury(n);
    }

    /// Tries once more to fence those for which it failed.
    pub(super) fn bury_again(&mut self, n: usize) {
        for watched in self.nodes[n].watched.values_mut() {
            watched.waits = false;
        }
        self.bury(n);
    }

    /// Fences every role at once, for their leases end together; then tells everybody. A fence that runs already is waited for.
    fn bury(&mut self, n: usize) {
        if !self.nodes[n].burying {
            return;
        }
        for role in self.left_over(n) {
            let (machine, watched) = (&self.nodes[n], &self.nodes[n].watched[&role]);
            let in_turn = is(Rule::FencesInTurn) && machine.watched.values().any(Watched::busy);
            if let Some(settings) = machine.settings(&role).cloned()
                && !watched.busy()
                && watched.tries < TRIES
                && !in_turn
            {
                self.fence(n, &role, &settings);
            }
        }
        if self.nodes[n].watched.values().any(Watched::busy) {
            return;
        }
        if !self.left_over(n).is_empty() {
            self.say(n, || "its death is not announced".into());
        } else if !is(Rule::NoticeBeforeFence) {
            let owner = self.nodes[n].owner();
            self.notice(n, owner);
        }
        self.buried(n);
    }

    /// The parent is through, and starts the agent again if that was asked for meanwhile.
    fn buried(&mut self, n: usize) {
        let machine = &mut self.nodes[n];
        machine.burying = false;
        if std::mem::take(&mut machine.start_after) {
            self.start(n);
        }
    }

    /// Roles of which the parent cannot say that their application has stopped.
    pub fn left_over(&self, n: usize) -> BTreeSet<RoleName> {
        let watched = self.nodes[n].watched.iter();
        watched
            .filter(|(_, watched)| watched.until.is_some())
            .map(|(role, _)| role.clone())
            .collect()
    }
}
