//! One simulated machine: a clock, a disk, an application for each role, and a process that may be up.

use super::*;

/// What an application does for one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum App {
    /// Nothing.
    Passive,
    /// It acts, or is about to, at this epoch.
    Acting(Epoch),
    /// It is being stopped, and may still act.
    Stopping(Epoch),
}

/// One machine.
pub(in crate::sim) struct Machine {
    pub name: NodeName,
    pub id: NodeId,
    pub boot: u64,
    pub up: bool,
    pub core: Option<Box<Core>>,
    pub frozen: bool,
    pub config: Arc<Config>,
    pub guards: BTreeMap<RoleName, Guard>,
    pub apps: BTreeMap<RoleName, App>,
    /// When, in true time, its application of a role last stopped acting.
    pub stopped_acting: BTreeMap<RoleName, u64>,
    pub disk: Durable,
    pub view: Option<View>,
    pub cluster: ClusterId,
    pub healthy: BTreeMap<RoleName, bool>,
    /// Since when, in true time, it must not be put in line for a role; `None` while it may be.
    pub unfit_since: BTreeMap<RoleName, u64>,
    pub stopped: bool,
    pub leaving: bool,
    /// The log's news does not reach it, nor do its proposals reach the leader.
    pub log_cut: bool,
    /// A node takes up to so long over one input.
    pub slow: Duration,
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
        if before.is_some_and(|app| app != App::Passive) {
            self.stopped_acting.insert(role.clone(), now);
        }
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
