//! One role on this node: the transition table, and what each state does (DESIGN §5 holder's rules, §7).
//!
//! ```text
//! Standby -> Claiming -> Promoting <-> Active
//!    ^          |            |           |
//!    +----------+            v           v
//!    +-------------------- Demoting <----+
//! ```

use crate::campaign::refusal;
use crate::claim::stagger;
use crate::clients::Limit;
use crate::cluster::{Cluster, Queue};
use crate::input::Health;
use crate::lease::{Lease, Never};
use crate::outage::{Failure, Outage};
use crate::output::{GuardChange, Level, Output};
use crate::promise::Voter;
use crate::raise::Told;
use crate::story::{Story, Watch};
use baton_shared::clock::Mono;
use baton_shared::history::{stage, tell, what};
use baton_shared::id::{Epoch, NodeName, RoleName};
use baton_shared::succession::{Claim, Floor, Place, Refused};
use baton_shared::view::{BROKE, Event, RoleState};
use std::collections::BTreeMap;
use std::time::Duration;

/// A promoted application that never became healthy gives way to a fit node after this.
const HEALTH_GRACE: Duration = Duration::from_secs(30);

/// Why a holder that was active is not, and keeps the role: of several reasons the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Its process ended, and is started again here.
    ended: Option<String>,
    /// Its check fails (after that), and nobody else is fit.
    sick: Option<String>,
    /// Or nobody else takes over, for takeovers are paused.
    frozen: bool,
}

/// One role on this node.
pub(crate) struct RoleCore {
    pub name: RoleName,
    pub voter: Voter,
    pub lease: Lease,
    pub state: RoleState,
    /// Why it is in that state.
    pub reason: String,
    pub health: Health,
    pub health_reason: String,
    pub story: Story,
    pub watch: Watch,
    /// Released by this boot, newest last.
    pub released: Vec<Epoch>,
    /// Why it last stepped down, and when.
    pub farewell: Option<(String, Mono)>,
    /// Refusals that heartbeats repeat to their claimants.
    pub refused: BTreeMap<NodeName, (Refused, Mono)>,
    /// Since when it could step forward.
    pub ready_since: Option<Mono>,
    /// When the present claim was (again) made, and until when it pauses.
    pub tried: Mono,
    /// When it was first made.
    pub claiming_since: Mono,
    pub paused_until: Option<Mono>,
    /// The promote action succeeded; and when.
    pub promoted: Option<Mono>,
    /// It was active at the present epoch.
    pub was_active: bool,
    /// The epoch at which it was promoted; later ones may have followed without a promotion.
    pub promoting: Epoch,
    /// The epoch that the application knows.
    pub told: Told,
    /// A demote was asked for.
    pub demoting: bool,
    /// A promote or demote that failed is due again then; and how often it failed.
    pub again: Option<Mono>,
    pub tries: u32,
    /// The managed process ended; true: so often that another node should take over.
    pub down: Option<(String, bool)>,
    /// Why it is not active any more although it keeps the role: the newest reason.
    pub gap: Option<Gap>,
    /// Since when nobody is active, and what failed here last.
    pub outage: Outage,
    pub failed: Option<Failure>,
    /// Until when the guardian lets the application act.
    pub lent: Option<Mono>,
    /// What was killed, and does not go away.
    pub stuck: Option<String>,
    /// The alarm of a kill that took too long.
    pub slow_kill: Option<String>,
    /// Claims are refused for a reason that stays: when that was said, and when the last was refused.
    pub futile: Option<(Mono, Mono)>,
    /// Which program cannot be run: without it this node is not to be put in line.
    pub lacks: Option<String>,
    pub unwilling_until: Mono,
    pub failures: u32,
    pub guard: Option<(Epoch, Mono)>,
    /// The takeover to be recorded, until the log has it; when it was last proposed.
    pub to_record: Option<(Event, Place)>,
    pub record_proposed: Option<Mono>,
    /// Faces that wait for a confirmation, and the first sequence that counts for each.
    pub confirms: Vec<(u64, u64)>,
    /// Faces that came while a round was under way: the next one is theirs.
    pub next_confirms: Vec<u64>,
    /// The next claims are to be answered at once.
    pub urgent: bool,
    /// How often it was handed over because its holder was cut off from clients.
    pub limit: Limit,
}

impl RoleCore {
    pub fn new(name: RoleName, floor: Floor, healthy: bool) -> RoleCore {
        RoleCore {
            name,
            voter: Voter::new(floor),
            lease: Lease::default(),
            state: RoleState::Standby,
            reason: "just started".into(),
            health: healthy.into(),
            health_reason: if healthy {
                "no check configured".into()
            } else {
                "not checked yet".into()
            },
            story: Story::default(),
            watch: Watch::default(),
            released: Vec::new(),
            farewell: None,
            refused: BTreeMap::new(),
            ready_since: None,
            tried: Mono::ZERO,
            claiming_since: Mono::ZERO,
            paused_until: None,
            promoted: None,
            was_active: false,
            promoting: Epoch(0),
            told: Told::default(),
            demoting: false,
            again: None,
            tries: 0,
            down: None,
            gap: None,
            outage: Outage::default(),
            failed: None,
            lent: None,
            stuck: None,
            slow_kill: None,
            futile: None,
            lacks: None,
            unwilling_until: Mono::ZERO,
            failures: 0,
            guard: None,
            to_record: None,
            record_proposed: None,
            confirms: Vec::new(),
            next_confirms: Vec::new(),
            urgent: false,
            limit: Limit::default(),
        }
    }

    /// The epoch at which this node holds a lease at `now`, if it does.
    pub fn holding(&self, now: Mono) -> Option<Epoch> {
        self.lease
            .held(now)
            .map(|(epoch, _)| epoch)
            .filter(|_| self.holds())
    }

    /// Whether the state is one that acts on a lease.
    pub fn holds(&self) -> bool {
        matches!(
            self.state,
            RoleState::Promoting | RoleState::Active | RoleState::Demoting
        )
    }

    /// Whether this node may be put in line at `now`.
    pub fn willing(&self, now: Mono) -> bool {
        now >= self.unwilling_until
    }

    /// The programs of this role can be run, or one cannot. Who holds the role keeps it: it acts already.
    pub fn programs(&mut self, lacks: Option<String>, q: &mut Queue) {
        if self.lacks == lacks {
            return;
        }
        match &lacks {
            Some(lack) => q.log(
                Level::Error,
                format!("role {}: this node cannot take it over: {lack}", self.name),
            ),
            None => q.log(
                Level::Info,
                format!("role {}: all its programs can be run", self.name),
            ),
        }
        self.lacks = lacks;
        (q.urgent_all, q.dirty) = (true, true);
    }

    /// When it may be put in line again, if a failed promotion keeps it out.
    pub fn willing_at(&self) -> Option<Mono> {
        (self.unwilling_until > Mono::ZERO).then_some(self.unwilling_until)
    }

    /// The claim that heartbeats carry.
    pub fn claim(&self, c: &Cluster) -> Option<Claim> {
        let epoch = self.lease.claimed()?;
        let waiting = self.paused_until.is_some();
        Some(Claim {
            epoch,
            electorate: c.electorate.id,
            window: c.timing.window,
            urgent: self.urgent && !waiting,
            waiting,
        })
    }

    /// What the faces may say: active only with a lease, promoted, and healthy (H3), and at no epoch of which the application was not told.
    fn right(&self, now: Mono) -> Option<(Epoch, Mono)> {
        let (held, until) = self.lease.held(now).filter(|_| self.state == RoleState::Active)?;
        let shown = if broken!(ShownBeforeTold) {
            held
        } else {
            self.told.epoch
        };
        Some((shown, until))
    }

    pub fn serving(&self, now: Mono) -> Option<Epoch> {
        self.right(now).map(|(epoch, _)| epoch)
    }

    /// Changes state; an impossible transition is a bug.
    pub fn enter(&mut self, state: RoleState, reason: String, q: &mut Queue) {
        use RoleState::{Active, Claiming, Demoting, Promoting, Standby};
        let possible = matches!(
            (self.state, state),
            (Standby, Claiming)
                | (Claiming, Standby | Promoting)
                | (Promoting, Active | Demoting)
                | (Active, Promoting | Demoting)
                | (Demoting, Standby)
        );
        debug_assert!(possible, "{:?} to {state:?}", self.state);
        self.state = state;
        self.reason = reason;
        q.dirty = true;
    }

    /// One turn: everything that follows from the clock and from what is known, without new input.
    pub fn turn(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        if let Some(epoch) = self.lease.claimed() {
            // V5: after a change of electorate the same epoch is claimed under the new one.
            self.lease.claim(epoch, c.electorate.id);
        }
        self.lease.count(&c.electorate, &c.timing, now);
        self.note_active(c, now);
        match self.state {
            RoleState::Standby => {}
            RoleState::Claiming => self.turn_claiming(c, q, now),
            RoleState::Promoting | RoleState::Active => self.turn_holding(c, q, now),
            RoleState::Demoting => self.turn_demoting(c, q, now),
        }
        self.turn_guard(q, now);
        self.turn_lent(q);
        self.turn_confirms(c, q, now);
    }

    /// How long before the end of its lease this application must begin to stop (H4, DESIGN §7).
    pub(crate) fn lead(&self, c: &Cluster) -> Duration {
        if broken!(StopsAtLeaseEnd) {
            return Duration::ZERO;
        }
        let role = c.config.roles.get(&self.name);
        role.map_or(Duration::ZERO, |role| role.lead(c.timing.window).demote)
    }

    fn turn_holding(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let Some((epoch, until)) = self.lease.held(now) else {
            broken!(LostLeaseClaimed => { return; });
            // H6: no more claims at this epoch.
            self.lease.unclaim();
            return self.demote(
                "the lease ended: no majority of voters answered in time".into(),
                c,
                q,
            );
        };
        let lead = self.lead(c);
        if lead > Duration::ZERO && now + lead >= until {
            return self.demote(
                "no majority of voters answered in time: the lease is running out, and the application must have stopped by then".into(),
                c,
                q,
            );
        }
        if self.lease.winnable_at(&c.electorate, |_| true, now).is_none() {
            // H5.
            let why = match self.lease.never() {
                Some(Never::Greater) | None => {
                    "a majority of the voters has promised the role to another node".into()
                }
                never => refusal(never, c),
            };
            return self.demote(why, c, q);
        }
        if c.guardian_stands_still {
            return self.demote("the guardian of this node stands still".into(), c, q);
        }
        if c.superseded {
            return self.demote("a later process has this node's consensus id".into(), c, q);
        }
        if c.leaving {
            let why = c.broken.as_ref().map(|why| format!("{BROKE}{why}"));
            return self.demote(why.unwrap_or_else(|| "it is being stopped".into()), c, q);
        }
        if let Some(line) = c.line(&self.name)
            && line.handover.is_some_and(|at| at >= epoch)
            && line
                .places
                .iter()
                .any(|p| p.epoch > epoch && p.owner != c.owner() && c.fit(p.owner, &self.name, now))
        {
            return self.demote(line.cause.clone(), c, q);
        }
        // Unless its floor is written whoever came next might not be granted: then an active node stays active.
        if c.fitness.yields(now)
            && !c.state.paused
            && self
                .heir(epoch, c.owner(), c, now)
                .is_some_and(|heir| self.is_written(heir, c, now) || broken!(StepsDownUnwritten))
        {
            return self.demote("its disk does not answer".into(), c, q);
        }
        // Paused, nobody would take over: what is stays as it is, as if nobody were fit.
        let frozen = c.state.paused;
        let other_fit = || {
            let line = c.line(&self.name).filter(|_| !frozen);
            line.is_some_and(|l| {
                l.places
                    .iter()
                    .any(|p| p.epoch > epoch && c.fit(p.owner, &self.name, now))
            })
        };
        if c.drained(c.me()) && other_fit() {
            return self.demote("an operator drained it".into(), c, q);
        }
        if let Some((why, true)) = &self.down
            && other_fit()
        {
            let why = format!("the application ended: {why}");
            if !self.was_active {
                self.fails(why.clone(), c, q, now);
            }
            self.back_off(now);
            return self.demote(why, c, q);
        }
        let grace_over = self.was_active || self.promoted.is_some_and(|at| now.since(at) > HEALTH_GRACE);
        let healthy = self.health == Health::Healthy;
        if !healthy && grace_over && other_fit() {
            if !self.was_active {
                let why = format!("promoted, and not healthy: {}", self.health_reason);
                self.fails(why, c, q, now);
            }
            if c.checked_only_while_active(&self.name) {
                self.back_off(now); // nothing else will say that it must not come back at once
            }
            return self.demote(
                format!("the application is not healthy: {}", self.health_reason),
                c,
                q,
            );
        }
        if let Some(why) = self.cut_off(epoch, c, now) {
            self.limit.note(now);
            return self.demote(why, c, q);
        }
        if self.state == RoleState::Promoting && self.again.is_some_and(|at| now >= at) {
            self.run_promote(q);
        }
        let runs = self.down.is_none();
        match (self.state, self.promoted.is_some() && healthy && runs) {
            (RoleState::Promoting, true) => self.activate(self.told.epoch, c, q, now),
            (RoleState::Active, false) => {
                let alone = match frozen {
                    true => "takeovers are paused",
                    false => "no other node is fit",
                };
                let why = match &self.down {
                    Some((why, false)) => format!("the application ended, and is started again here: {why}"),
                    Some((why, true)) => format!("the application ended ({why}), and {alone}"),
                    None => format!(
                        "the application is not healthy ({}), and {alone}",
                        self.health_reason
                    ),
                };
                q.log(Level::Warn, format!("role {}: {why}", self.name));
                q.tell(self.own_event(what::LOST, why.clone(), c));
                self.enter(RoleState::Promoting, why, q);
                q.urgent_all = true;
            }
            _ => {}
        }
        if self.state == RoleState::Promoting && self.was_active {
            self.note_gap(frozen);
        }
        self.move_up(epoch, c, q, now);
        self.tell(epoch, c, q, now);
    }

    fn activate(&mut self, epoch: Epoch, c: &Cluster, q: &mut Queue, now: Mono) {
        self.enter(
            RoleState::Active,
            "holds the lease, promoted and healthy".into(),
            q,
        );
        q.urgent_all = true;
        if self.was_active {
            if let Some((gap, since)) = self.gap.take().zip(self.outage.last()) {
                q.tell(self.back(since, &gap, c, epoch, now));
            }
            self.failed = None;
            return;
        }
        self.was_active = true;
        self.failures = 0;
        self.story.reach(stage::SERVING, now);
        let event = self.event(c, epoch);
        self.failed = None;
        let told = tell(&event);
        q.log(
            Level::Info,
            format!(
                "role {}: ACTIVE at epoch {epoch}: {} {}",
                self.name, told.what, told.times
            ),
        );
        let place = Place {
            epoch,
            owner: c.owner(),
        };
        self.to_record = Some((event, place));
        self.record_proposed = None;
    }

    /// Keeps in mind why it is not active.
    fn note_gap(&mut self, frozen: bool) {
        let gap = self.gap.get_or_insert_default();
        gap.frozen = frozen;
        match &self.down {
            Some((why, _)) if gap.ended.as_ref() != Some(why) => {
                (gap.ended, gap.sick) = (Some(why.clone()), None);
            }
            None if self.health == Health::Unhealthy && gap.sick.as_ref() != Some(&self.health_reason) => {
                gap.sick = Some(self.health_reason.clone());
            }
            _ => {}
        }
    }

    /// Nobody took over, and yet nobody was active for a while: its process runs again here, or its check is good again.
    fn back(&self, since: Mono, gap: &Gap, c: &Cluster, epoch: Epoch, now: Mono) -> Event {
        let lasted = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
        let me = c.me();
        let alone = match gap.frozen {
            true => "takeovers were paused",
            false => "no other node was fit",
        };
        Event {
            number: 0,
            wall_ms: c.wall_ms,
            what: what::TAKEOVER.into(),
            role: Some(self.name.clone()),
            node: Some(me.clone()),
            from: Some(me.clone()),
            epoch: Some(epoch),
            cause: match (&gap.ended, &gap.sick) {
                (Some(why), None) => format!("the application ended and was started again there: {why}"),
                (Some(why), Some(sick)) => format!(
                    "the application ended and was started again there: {why}; after that it was not healthy: {sick}"
                ),
                (None, Some(sick)) => {
                    format!("the application was not healthy, and {alone}: {sick}")
                }
                (None, None) => "the application was not ready".into(),
            },
            stages: vec![
                (stage::STEPPED_DOWN.into(), 0),
                (stage::HEALTHY.into(), lasted),
                (stage::SERVING.into(), lasted),
            ],
        }
    }

    fn event(&self, c: &Cluster, epoch: Epoch) -> Event {
        let mut stages = self.story.stages.clone();
        self.since_active(&mut stages, c);
        stages.sort_by_key(|(_, at)| *at);
        let first = stages.first().map(|(_, at)| *at).unwrap_or_default();
        let micros = |at: Mono| u64::try_from(at.since(first).as_micros()).unwrap_or(u64::MAX);
        Event {
            number: 0,
            wall_ms: c.wall_ms,
            what: what::TAKEOVER.into(),
            role: Some(self.name.clone()),
            node: Some(c.me().clone()),
            from: self.story.from.clone(),
            epoch: Some(epoch),
            cause: self.story.with_attempts(&self.attempts(c)),
            stages: stages
                .iter()
                .map(|(stage, at)| ((*stage).to_owned(), micros(*at)))
                .collect(),
        }
    }

    fn turn_guard(&mut self, q: &mut Queue, now: Mono) {
        let right = self.right(now);
        if right == self.guard {
            return;
        }
        let change = match right {
            Some((epoch, until)) => GuardChange::Open { epoch, until },
            None => GuardChange::Shut,
        };
        q.push(Output::Guard {
            role: self.name.clone(),
            change,
        });
        if right.is_some() != self.guard.is_some() || right.map(|r| r.0) != self.guard.map(|g| g.0) {
            q.dirty = true;
        }
        self.guard = right;
    }

    /// The guardian learns until when the application may act, before it is promoted and at each renewal. A lease that ended is said
    /// no more: the end that was said before stands until the application has stopped.
    pub(crate) fn turn_lent(&mut self, q: &mut Queue) {
        let end = self.lease.held(Mono::ZERO).map(|(_, until)| until);
        let lent = end.or(self.lent).filter(|_| self.holds());
        if lent != self.lent {
            self.lent = lent;
            q.push(Output::Lent {
                role: self.name.clone(),
                until: lent,
            });
        }
    }

    /// When this role needs the clock next.
    pub fn next_wake(&self, c: &Cluster, now: Mono) -> Mono {
        let lease_end = self
            .lease
            .held(now)
            .filter(|_| self.holds())
            .map(|(_, until)| match self.state {
                RoleState::Demoting => until,
                _ => Mono(
                    until
                        .0
                        .saturating_sub(u64::try_from(self.lead(c).as_nanos()).unwrap_or(u64::MAX)),
                ),
            });
        let claiming = self.state == RoleState::Claiming;
        let give_up = claiming.then(|| self.claiming_since + c.timing.window + c.timing.promise);
        // While it pauses, the window of the last try is no reason to wake: the loop would spin until the pause ends.
        let try_over = (claiming && self.paused_until.is_none()).then(|| self.tried + c.timing.window);
        // A promise in its way may have ended sooner; the next try waits for answers to the last.
        let again = self
            .paused_until
            .map(|_| self.tried + stagger(c))
            .filter(|at| *at > now);
        let tell = self.told.due().filter(|_| self.state == RoleState::Active);
        [
            lease_end,
            give_up,
            try_over,
            again,
            self.paused_until,
            self.again,
            tell,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(Mono::MAX)
    }
}
