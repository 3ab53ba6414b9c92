//! One simulated machine: a clock, a disk, an application for each role, and a process that may be up.

use super::*;
use baton_shared::view::RoleState;
use serde::{Deserialize, Serialize};

/// What an application does for one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum App {
    /// Nothing.
    Passive,
    /// It acts, or is about to, at this epoch.
    Acting(Epoch),
    /// It is being stopped, and may still act.
    Stopping(Epoch),
    /// It should have stopped, and acts: an attempt to stop it failed, or its agent died.
    Loose(Epoch),
}

/// How the actions of a node go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sim) enum Way {
    /// In some part of the time that they may take.
    #[default]
    Well,
    /// In all of it: a stop is done at the last moment, a promotion hangs until it is given up or cancelled.
    Slowly,
    /// They fail.
    Badly,
}

/// One machine.
pub(in crate::sim) struct Machine {
    pub name: NodeName,
    pub id: NodeId,
    pub boot: u64,
    /// The lowest boot it ever had, but for the first ones.
    pub(super) lowest: u64,
    /// Its run has heard of a later one of its id, and ends.
    pub(super) superseded: bool,
    /// Another machine has a copy of its disk: its id, and its vote, may be lost to that.
    pub cloned: bool,
    pub up: bool,
    pub core: Option<Box<Core>>,
    pub frozen: bool,
    pub config: Arc<Config>,
    pub guards: BTreeMap<RoleName, Guard>,
    pub apps: BTreeMap<RoleName, App>,
    /// The epoch of which its application of a role was told last.
    pub told: BTreeMap<RoleName, Epoch>,
    /// When, in true time, its application of a role last stopped acting.
    pub stopped_acting: BTreeMap<RoleName, u64>,
    pub disk: Durable,
    /// Its disk completes nothing; and what its core was told of writes.
    pub hung: bool,
    pub(super) writes: Writes,
    pub(super) probing: bool,
    pub view: Option<View>,
    pub cluster: ClusterId,
    pub healthy: BTreeMap<RoleName, bool>,
    /// Where only the active node is checked: the first check after a promotion ends.
    pub first_check: bool,
    /// Since when, in true time, it must not be put in line for a role; `None` while it may be.
    pub unfit_since: BTreeMap<RoleName, u64>,
    pub stopped: bool,
    pub leaving: bool,
    /// The log's news does not reach it, nor do its proposals reach the leader.
    pub log_cut: bool,
    /// Its engine may lead.
    pub(super) may_lead: bool,
    /// A node takes up to so long over one input.
    pub slow: Duration,
    /// How promotions, demotions and fences go, where there are any.
    pub promotes: Way,
    pub demotes: Way,
    pub fences: Way,
    /// Its clock stands still, and everything on it.
    pub(super) paused: bool,
    /// What the agent does to an application now.
    pub(super) doing: BTreeMap<RoleName, Doing>,
    /// Its guardian.
    pub above: Above,
    /// Managed applications, by the places of their roles: each process of them.
    pub runs: BTreeMap<usize, Run>,
    /// Roles for which the guardian was asked to start a process, and has not said what came of that.
    pub(super) unheard: BTreeSet<RoleName>,
    /// Roles for which the time of a fence is awaited.
    pub(super) minded: BTreeSet<RoleName>,
    /// Roles whose last resort failed: nothing is left that could have stopped their application in time.
    pub at_wits_end: BTreeSet<RoleName>,
    /// An agent is started as soon as that may be.
    pub(super) start_after: bool,
    /// What its guardian said while the agent was frozen.
    pub(super) answers: Vec<guardian::Answer>,
    /// The agent's eye on its guardian, and what it last saw.
    pub(super) eye: guardian::Watch,
    pub(super) under_standstill: bool,
    /// The agent ends when it has released everything: its guardian is gone.
    pub(super) quits: bool,
    /// The death that its guardian tells.
    pub(super) announces: Option<(Owner, String)>,
    /// One process of the next application that is killed outlasts the kill by so much.
    pub lingers: Duration,
    /// Nobody reads the operator's log until then, in true time.
    pub log_stuck_until: u64,
    pub(super) buffered: Vec<Input>,
    /// Its clock showed the second at the instant of true time in the first, and runs so many millionths faster.
    pub(super) clock: (u64, u64),
    pub drift_ppm: i64,
    /// What the flush thread writes now, and what it writes next: as in the agent, the newest replaces what waits.
    pub(super) writing: Option<(u64, Durable)>,
    pub(super) to_write: Option<(u64, Durable)>,
    /// The log's state as applied here: on disk, so that a restarted node begins with it.
    pub applied: Option<(Arc<State>, u64)>,
    /// What it has not handled yet, and the instant of true time before which it handles nothing.
    pub(super) inbox: VecDeque<Input>,
    pub(super) busy_until: u64,
    /// Until then, in true time, it may be behind with its news: it was frozen, or is slow.
    pub behind_until: u64,
    /// The clock as its loop last read it before it received.
    pub(super) read: Mono,
    /// How often in a row it asked to be woken at once.
    pub(super) spins: u64,
    /// In which tenth of a second it sent how many datagrams.
    pub(super) sent: (u64, u64),
    pub(super) tick: Option<u64>,
}

impl Machine {
    /// Its application of a role acts no more.
    pub(super) fn passive(&mut self, role: &RoleName, now: u64) {
        let before = self.apps.insert(role.clone(), App::Passive);
        self.at_wits_end.remove(role);
        if before.is_some_and(|app| app != App::Passive) {
            self.stopped_acting.insert(role.clone(), now);
        }
    }

    /// Processes that live of its managed application of a role, wherever they are.
    pub fn living(&self, role: &RoleName) -> usize {
        let place = self.config.roles.keys().position(|known| known == role);
        place
            .and_then(|place| self.runs.get(&place))
            .map_or(0, Run::living)
    }

    /// Whether all its roles are released.
    pub(super) fn released(&self, now: u64) -> bool {
        let Some(core) = &self.core else { return true };
        let view = core.view(self.clock(now));
        view.roles.iter().all(|role| role.state == RoleState::Standby)
    }

    /// What its application of a role does.
    pub fn app(&self, role: &RoleName) -> App {
        self.apps.get(role).copied().unwrap_or(App::Passive)
    }

    /// How its application of a role is started and stopped, if stopping it takes time.
    pub fn settings(&self, role: &RoleName) -> Option<&Role> {
        self.config.roles.get(role).filter(|role| role.stops())
    }

    /// This run of it.
    pub fn owner(&self) -> Owner {
        Owner {
            node: self.id,
            boot: Boot(self.boot),
        }
    }

    /// Its clock at an instant of true time.
    pub fn clock(&self, now: u64) -> Mono {
        let (at, shown) = self.clock;
        let passed = now as i64 - at as i64;
        Mono((shown as i64 + passed + passed * self.drift_ppm / 1_000_000) as u64)
    }

    /// The first instant of true time at which its clock shows `at`; far away for what is more than hours ahead.
    pub fn true_time(&self, at: Mono) -> u64 {
        let (then, shown) = self.clock;
        let passed = (i128::from(at.0) - i128::from(shown)).clamp(-FAR, FAR) as i64;
        let rate = 1_000_000 + self.drift_ppm;
        let true_passed = (passed * 1_000_000 + rate - 1).div_euclid(rate);
        (then as i64 + true_passed).max(0) as u64
    }

    /// What its face answers when asked whether it is active.
    pub fn active(&self, role: &RoleName, now: u64) -> Option<Epoch> {
        let guard = self.guards.get(role).filter(|_| self.up)?;
        if is(Rule::CachedFlag) {
            let (epoch, until) = guard.read();
            return (until > Mono::ZERO).then_some(epoch);
        }
        guard.active(self.clock(now))
    }
}
