//! One role on this node: the transition table, and what each state does (DESIGN §5 holder's rules, §7).
//!
//! ```text
//! Standby -> Claiming -> Promoting <-> Active
//!    ^          |            |           |
//!    +----------+            v           v
//!    +-------------------- Demoting <----+
//! ```

use crate::claim::stagger;
use crate::cluster::{Cluster, Queue};
use crate::input::Action;
use crate::lease::Lease;
use crate::output::{GuardChange, Level, Output};
use crate::promise::{Bench, Claimed, Verdict, Voter};
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeId, NodeName, RoleName};
use baton_shared::succession::{Claim, Floor, Place, Refused};
use baton_shared::view::{Event, RoleState};
use std::collections::BTreeMap;
use std::time::Duration;

/// Released epochs that heartbeats repeat.
const RELEASED_KEPT: usize = 4;
/// Characters of a farewell that heartbeats carry.
const FAREWELL_LENGTH: usize = 160;
/// A demote that failed is tried again after this.
const DEMOTE_RETRY: Duration = Duration::from_secs(1);
/// A promoted application that never became healthy gives way to a fit node after this.
const HEALTH_GRACE: Duration = Duration::from_secs(30);
/// A node whose promotion failed stays out of line for this long at first, and twice as long each further time.
const BACK_OFF: Duration = Duration::from_secs(2);
const MAX_BACK_OFF: Duration = Duration::from_secs(300);

/// Why and when a takeover happened, stage by stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub cause: String,
    pub from: Option<NodeName>,
    pub stages: Vec<(&'static str, Mono)>,
}

/// One role on this node.
pub(crate) struct RoleCore {
    pub name: RoleName,
    pub voter: Voter,
    pub lease: Lease,
    pub state: RoleState,
    /// Why it is in that state.
    pub reason: String,
    pub healthy: bool,
    pub health_reason: String,
    pub story: Story,
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
    was_active: bool,
    /// A demote was asked for; or failed and is due again.
    demoting: bool,
    demote_again: Option<Mono>,
    unwilling_until: Mono,
    failures: u32,
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
}

impl RoleCore {
    pub fn new(name: RoleName, floor: Floor, healthy: bool) -> RoleCore {
        RoleCore {
            name,
            voter: Voter::new(floor),
            lease: Lease::default(),
            state: RoleState::Standby,
            reason: "just started".into(),
            healthy,
            health_reason: if healthy {
                "no check configured".into()
            } else {
                "not checked yet".into()
            },
            story: Story::default(),
            released: Vec::new(),
            farewell: None,
            refused: BTreeMap::new(),
            ready_since: None,
            tried: Mono::ZERO,
            claiming_since: Mono::ZERO,
            paused_until: None,
            promoted: None,
            was_active: false,
            demoting: false,
            demote_again: None,
            unwilling_until: Mono::ZERO,
            failures: 0,
            guard: None,
            to_record: None,
            record_proposed: None,
            confirms: Vec::new(),
            next_confirms: Vec::new(),
            urgent: false,
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

    /// What the faces may say: active only with a lease, promoted, and healthy (H3).
    fn right(&self, now: Mono) -> Option<(Epoch, Mono)> {
        self.lease.held(now).filter(|_| self.state == RoleState::Active)
    }

    pub fn serving(&self, now: Mono) -> Option<Epoch> {
        self.right(now).map(|(epoch, _)| epoch)
    }

    /// Judges a claim of anybody, this node included, and remembers the answer.
    pub fn judge(&mut self, claim: Claimed, c: &Cluster, q: &mut Queue, now: Mono) {
        let verdict = self.voter.claim(claim, &bench(c, &self.name), now);
        self.answer(claim, verdict, c, q, now);
    }

    /// A floor is on disk.
    pub fn flushed(&mut self, floor: Floor, c: &Cluster, q: &mut Queue, now: Mono) {
        if let Some((claim, verdict)) = self.voter.flushed(floor, &bench(c, &self.name), now) {
            self.answer(claim, verdict, c, q, now);
            if let Some(name) = c.name_of(claim.owner.node)
                && name != *c.me()
            {
                q.urgent.insert(name);
            }
        }
    }

    fn answer(&mut self, claim: Claimed, verdict: Verdict, c: &Cluster, q: &mut Queue, now: Mono) {
        let mine = claim.owner == c.owner();
        match verdict {
            Verdict::Flush(floor) => {
                if !q.flushing(&self.name, floor) {
                    q.flush_floor(&self.name, floor);
                }
            }
            Verdict::Granted if mine => {
                if let Some(sent) = c.sent_at(claim.seq) {
                    self.lease
                        .granted(c.id, claim.epoch, claim.electorate, claim.seq, sent);
                }
            }
            Verdict::Granted => {
                if let Some(name) = c.name_of(claim.owner.node) {
                    self.refused.remove(&name);
                }
            }
            Verdict::Refused(why) if mine => self.lease.refused(c.id, claim.epoch, claim.seq, &why, now),
            Verdict::Refused(why) => {
                if let baton_shared::succession::Refusal::Promised { .. } = why {
                    self.write_ahead(claim.epoch, claim.owner, q);
                }
                if let Some(name) = c.name_of(claim.owner.node) {
                    let refused = Refused {
                        boot: claim.owner.boot,
                        epoch: claim.epoch,
                        seq: claim.seq,
                        why,
                    };
                    self.refused.insert(name, (refused, now));
                }
            }
        }
    }

    /// V3: the floor of a successor goes to the disk while the older promise runs, so that no flush is in its path.
    pub fn write_ahead(&mut self, epoch: Epoch, owner: baton_shared::id::Owner, q: &mut Queue) {
        if let Some(floor) = self.voter.write_ahead(epoch, owner)
            && !q.flushing(&self.name, floor)
        {
            q.flush_floor(&self.name, floor);
        }
    }

    /// Changes state; an impossible transition is a bug.
    fn enter(&mut self, state: RoleState, reason: String, q: &mut Queue) {
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

    /// H1: begins to claim a place that committed succession gave to this node and boot.
    pub fn step_forward(&mut self, place: Place, story: Story, c: &Cluster, q: &mut Queue, now: Mono) {
        assert_eq!(
            place.owner,
            c.owner(),
            "H1: only this node's and boot's own epochs are claimed"
        );
        q.log(
            Level::Info,
            format!(
                "role {}: claiming epoch {}: {}",
                self.name, place.epoch, story.cause
            ),
        );
        self.enter(RoleState::Claiming, story.cause.clone(), q);
        self.story = story;
        self.story.stages.push(("claimed", now));
        self.lease.claim(place.epoch, c.electorate.id);
        (self.tried, self.claiming_since) = (now, now);
        (self.paused_until, self.ready_since) = (None, None);
        (self.promoted, self.was_active, self.demoting, self.demote_again) = (None, false, false, None);
        self.claim_now(q);
    }

    /// The claim goes out at once, and asks for an answer at once.
    pub fn claim_now(&mut self, q: &mut Queue) {
        self.urgent = true;
        q.urgent_all = true;
    }

    /// One turn: everything that follows from the clock and from what is known, without new input.
    pub fn turn(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        if let Some(epoch) = self.lease.claimed() {
            // V5: after a change of electorate the same epoch is claimed under the new one.
            self.lease.claim(epoch, c.electorate.id);
        }
        self.lease.count(&c.electorate, &c.timing);
        match self.state {
            RoleState::Standby => {}
            RoleState::Claiming => self.turn_claiming(c, q, now),
            RoleState::Promoting | RoleState::Active => self.turn_holding(c, q, now),
            RoleState::Demoting => self.turn_demoting(c, q, now),
        }
        self.turn_guard(q, now);
        self.turn_confirms(c, q, now);
    }

    fn turn_claiming(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        if let Some((epoch, _)) = self.lease.held(now)
            && Some(epoch) == self.lease.claimed()
        {
            // Won while it paused, by a grant that came late: voters do not judge a claim that says it waits.
            (self.urgent, self.paused_until) = (false, None);
            self.story.stages.push(("granted", now));
            self.enter(RoleState::Promoting, "the lease is won".into(), q);
            q.urgent_all = true;
            let (from, cause) = (self.story.from.clone(), self.story.cause.clone());
            q.push(Output::Run {
                role: self.name.clone(),
                epoch,
                action: Action::Promote,
                from,
                cause,
            });
            return;
        }
        if let Some(why) = self.unfit(c, now) {
            return self.give_up(&why, c, q, now);
        }
        // H6: a window to win it, and a promise in its way to wait for; whatever comes in its way again is no accident.
        if now.since(self.claiming_since) >= c.timing.window + c.timing.promise {
            return self.give_up("it was not won in time", c, q, now);
        }
        if let Some(until) = self.paused_until {
            let reached = |_| true;
            let sooner = self
                .lease
                .winnable_at(&c.electorate, reached, now)
                .is_some_and(|at| at <= now);
            // Never faster than answers come: each try asks every voter for an answer at once.
            let answered = now.since(self.tried) >= stagger(c);
            if now < until && !(sooner && answered) {
                return;
            }
            self.paused_until = None;
            self.tried = now;
            self.lease.retry();
            self.claim_now(q);
            return;
        }
        let reached =
            |voter: NodeId| voter == c.id || c.peer(voter).is_some_and(|p| c.alive(p.owner(), now).is_some());
        match self.lease.winnable_at(&c.electorate, reached, now) {
            None => self.give_up(
                "a majority of voters refused: a greater epoch is theirs",
                c,
                q,
                now,
            ),
            Some(at) if at > now => self.paused_until = Some(at),
            Some(_) if now.since(self.tried) >= c.timing.window => {
                self.give_up("no majority of voters answered within the window", c, q, now);
            }
            Some(_) => {}
        }
    }

    /// H6: a claim that was not won is released; nothing was started for it.
    fn give_up(&mut self, why: &str, c: &Cluster, q: &mut Queue, now: Mono) {
        q.log(Level::Info, format!("role {}: claim given up: {why}", self.name));
        self.release(c, q, now);
        self.enter(RoleState::Standby, format!("claim given up: {why}"), q);
    }

    fn turn_holding(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let Some((epoch, _)) = self.lease.held(now) else {
            // H6: no more claims at this epoch.
            self.lease.unclaim();
            return self.demote(
                "the lease ended: no majority of voters answered in time".into(),
                c,
                q,
            );
        };
        if self.lease.winnable_at(&c.electorate, |_| true, now).is_none() {
            // H5.
            return self.demote("a majority of voters has granted a greater epoch".into(), c, q);
        }
        if c.leaving {
            return self.demote("this node is stopping".into(), c, q);
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
        let other_fit = || {
            let line = c.line(&self.name);
            line.is_some_and(|l| {
                l.places
                    .iter()
                    .any(|p| p.epoch > epoch && c.fit(p.owner, &self.name, now))
            })
        };
        if c.drained(c.me()) && other_fit() {
            return self.demote("an operator drained this node".into(), c, q);
        }
        let grace_over = self.was_active || self.promoted.is_some_and(|at| now.since(at) > HEALTH_GRACE);
        if !self.healthy && grace_over && other_fit() {
            return self.demote(
                format!("the application is not healthy: {}", self.health_reason),
                c,
                q,
            );
        }
        match (self.state, self.promoted.is_some() && self.healthy) {
            (RoleState::Promoting, true) => self.activate(epoch, c, q, now),
            (RoleState::Active, false) => {
                let why = format!(
                    "the application is not healthy ({}), and no other node is fit",
                    self.health_reason
                );
                q.log(Level::Warn, format!("role {}: {why}", self.name));
                self.enter(RoleState::Promoting, why, q);
                q.urgent_all = true;
            }
            _ => {}
        }
        self.move_up(epoch, c, q);
    }

    fn activate(&mut self, epoch: Epoch, c: &Cluster, q: &mut Queue, now: Mono) {
        self.enter(
            RoleState::Active,
            "holds the lease, promoted and healthy".into(),
            q,
        );
        q.urgent_all = true;
        if self.was_active {
            return;
        }
        self.was_active = true;
        self.failures = 0;
        self.story.stages.push(("serving", now));
        q.log(
            Level::Info,
            format!(
                "role {}: ACTIVE at epoch {epoch}: {}",
                self.name, self.story.cause
            ),
        );
        let place = Place {
            epoch,
            owner: c.owner(),
        };
        self.to_record = Some((self.event(c, epoch), place));
        self.record_proposed = None;
    }

    fn event(&self, c: &Cluster, epoch: Epoch) -> Event {
        let first = self
            .story
            .stages
            .iter()
            .map(|(_, at)| *at)
            .min()
            .unwrap_or_default();
        let micros = |at: Mono| u64::try_from(at.since(first).as_micros()).unwrap_or(u64::MAX);
        Event {
            number: 0,
            wall_ms: c.wall_ms,
            what: "takeover".into(),
            role: Some(self.name.clone()),
            node: Some(c.me().clone()),
            from: self.story.from.clone(),
            epoch: Some(epoch),
            cause: self.story.cause.clone(),
            stages: self
                .story
                .stages
                .iter()
                .map(|(stage, at)| ((*stage).to_owned(), micros(*at)))
                .collect(),
        }
    }

    /// The coordinator gave this holder a greater epoch: the next place in line is its own (DESIGN §5).
    fn move_up(&mut self, held: Epoch, c: &Cluster, q: &mut Queue) {
        let Some(line) = c.line(&self.name) else { return };
        let next = line
            .places
            .iter()
            .find(|p| p.epoch > held.max(self.lease.highest()));
        if let Some(place) = next
            && line.places.first() == Some(place)
            && place.owner == c.owner()
            && self.lease.claimed() == Some(held)
        {
            q.log(
                Level::Info,
                format!(
                    "role {}: moving up from epoch {held} to {}",
                    self.name, place.epoch
                ),
            );
            self.lease.claim(place.epoch, c.electorate.id);
            self.claim_now(q);
        }
    }

    /// Begins to stop the application. The lease is kept, where it can be, until that is done (H4).
    fn demote(&mut self, why: String, c: &Cluster, q: &mut Queue) {
        let epoch = self.lease.highest();
        q.log(
            Level::Info,
            format!("role {}: stepping down from epoch {epoch}: {why}", self.name),
        );
        self.enter(RoleState::Demoting, why, q);
        self.urgent = false;
        q.push(Output::Guard {
            role: self.name.clone(),
            change: GuardChange::Shut,
        });
        self.guard = None;
        self.to_record = None;
        q.urgent_all = true;
        self.run_demote(c, q);
    }

    fn run_demote(&mut self, c: &Cluster, q: &mut Queue) {
        self.demoting = true;
        self.demote_again = None;
        let (role, epoch, cause) = (self.name.clone(), self.lease.highest(), self.reason.clone());
        q.push(Output::Run {
            role,
            epoch,
            action: Action::Demote,
            from: Some(c.me().clone()),
            cause,
        });
    }

    fn turn_demoting(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        if self.lease.held(now).is_none() {
            self.lease.unclaim();
        }
        if self.demote_again.is_some_and(|at| now >= at) {
            self.run_demote(c, q);
        }
    }

    /// An action has ended.
    pub fn action_done(
        &mut self,
        epoch: Epoch,
        action: Action,
        result: Result<(), String>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) {
        let current = epoch <= self.lease.highest();
        match (action, self.state, result) {
            (Action::Promote, RoleState::Promoting, Ok(())) if current => {
                self.promoted = Some(now);
                self.story.stages.push(("promoted", now));
                if !self.healthy {
                    self.reason = format!(
                        "promoted, and waiting for the application: {}",
                        self.health_reason
                    );
                }
                q.dirty = true;
            }
            (Action::Promote, RoleState::Promoting, Err(why)) if current => {
                q.log(
                    Level::Error,
                    format!("role {}: promotion failed: {why}", self.name),
                );
                self.back_off(now);
                self.demote(format!("promotion failed: {why}"), c, q);
            }
            (Action::Demote, RoleState::Demoting, Ok(())) if self.demoting => {
                self.demoting = false;
                let why = self.reason.clone();
                self.farewell = Some((why.chars().take(FAREWELL_LENGTH).collect(), now));
                self.release(c, q, now);
                self.enter(RoleState::Standby, format!("stepped down: {why}"), q);
            }
            (Action::Demote, RoleState::Demoting, Err(why)) if self.demoting => {
                q.log(
                    Level::Error,
                    format!("role {}: the demote action failed and is tried again; the role is not released before it succeeds, others take over when the lease has ended: {why}", self.name),
                );
                self.demoting = false;
                self.demote_again = Some(now + DEMOTE_RETRY);
                // H4, H6: not released, and not renewed either.
                self.lease.unclaim();
            }
            _ => {}
        }
    }

    /// H3, H4: the guard is closed for good, then the epoch is given up; the heartbeats that say so leave after this.
    fn release(&mut self, c: &Cluster, q: &mut Queue, _now: Mono) {
        let epochs = [
            self.lease.held(Mono::ZERO).map(|(epoch, _)| epoch),
            self.lease.claimed(),
            Some(self.lease.highest()),
        ];
        for epoch in epochs.into_iter().flatten().filter(|e| *e > Epoch(0)) {
            q.push(Output::Guard {
                role: self.name.clone(),
                change: GuardChange::Close(epoch),
            });
            if !self.released.contains(&epoch) {
                self.released.push(epoch);
            }
            self.voter.released(epoch, c.owner());
        }
        if self.released.len() > RELEASED_KEPT {
            self.released.drain(..self.released.len() - RELEASED_KEPT);
        }
        self.guard = None;
        self.lease.drop_lease();
        (self.promoted, self.was_active, self.urgent, self.paused_until) = (None, false, false, None);
        self.to_record = None;
        q.urgent_all = true;
    }

    fn back_off(&mut self, now: Mono) {
        let pause = BACK_OFF
            .saturating_mul(1 << self.failures.min(16))
            .min(MAX_BACK_OFF);
        self.unwilling_until = now + pause;
        self.failures += 1;
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

    /// `confirm` mode: a 200 needs a majority of grants to claims sent after the request came (S1).
    fn turn_confirms(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        if self.confirms.is_empty() {
            return;
        }
        let epoch = self
            .serving(now)
            .filter(|epoch| self.lease.claimed() == Some(*epoch));
        let lease = &self.lease;
        self.confirms.retain(|(id, since)| match epoch {
            Some(_) if !lease.confirmed_since(*since, &c.electorate) => true,
            epoch => {
                q.push(Output::Confirmed { id: *id, epoch });
                false
            }
        });
        if !self.confirms.is_empty() {
            return;
        }
        if self.state == RoleState::Active {
            self.urgent = false;
        }
        // One round at a time: however many ask, the network sees no more than one claim per round trip.
        let next = std::mem::take(&mut self.next_confirms);
        self.confirm(next, c, q, now);
    }

    /// Asks a majority whether this node still leads, for these faces; what was sent before does not count.
    pub fn confirm(&mut self, ids: Vec<u64>, c: &Cluster, q: &mut Queue, now: Mono) {
        if self.serving(now).is_none() {
            ids.into_iter()
                .for_each(|id| q.push(Output::Confirmed { id, epoch: None }));
        } else if !self.confirms.is_empty() {
            self.next_confirms.extend(ids);
        } else if !ids.is_empty() {
            self.confirms = ids.into_iter().map(|id| (id, c.seq + 1)).collect();
            self.claim_now(q);
        }
    }

    /// When this role needs the clock next.
    pub fn next_wake(&self, c: &Cluster, now: Mono) -> Mono {
        let lease_end = self
            .lease
            .held(now)
            .filter(|_| self.holds())
            .map(|(_, until)| until);
        let claiming = self.state == RoleState::Claiming;
        let give_up = claiming.then(|| self.claiming_since + c.timing.window + c.timing.promise);
        // While it pauses, the window of the last try is no reason to wake: the loop would spin until the pause ends.
        let try_over = (claiming && self.paused_until.is_none()).then(|| self.tried + c.timing.window);
        [lease_end, give_up, try_over, self.paused_until, self.demote_again]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Mono::MAX)
    }

    /// A voter's grant in a heartbeat (H2).
    pub fn on_grant(&mut self, voter: NodeId, grant: &baton_shared::succession::Grant, c: &Cluster) {
        if grant.owner == c.owner()
            && let Some(sent) = c.sent_at(grant.seq)
        {
            self.lease
                .granted(voter, grant.epoch, grant.electorate, grant.seq, sent);
        }
    }
}

/// What claims are judged by.
fn bench<'a>(c: &'a Cluster, role: &RoleName) -> Bench<'a> {
    Bench {
        me: c.id,
        electorate: &c.electorate,
        adopted: c.adopted_here(),
        log_floor: c.state.floor(role),
        awake: c.awake,
        kept_window: c.kept_window,
        dead: &c.dead,
        timing: &c.timing,
    }
}
