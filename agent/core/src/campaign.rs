//! Claiming: from stepping forward to the lease, or to giving the claim up (DESIGN §5, H1, H5, H6).

use crate::claim::stagger;
use crate::cluster::{Cluster, Queue};
use crate::input::Health;
use crate::lease::Never;
use crate::output::Level;
use crate::raise::Told;
use crate::role::RoleCore;
use crate::story::Story;
use baton_shared::clock::Mono;
use baton_shared::config::show_duration;
use baton_shared::history::stage;
use baton_shared::id::NodeId;
use baton_shared::succession::Place;
use baton_shared::view::RoleState;
use std::time::Duration;

/// A claim that was refused for a reason that stays is made again no sooner than so long after, or than W after.
const FUTILE: Duration = Duration::from_secs(1);
/// And that is said again after this.
const SAID_AGAIN: Duration = Duration::from_secs(600);

/// Why a claim cannot be won, or a lease renewed, by what voters said.
pub(crate) fn refusal(never: Option<Never>, c: &Cluster) -> String {
    match never {
        Some(Never::Window(theirs)) => format!(
            "voters refused because [cluster] window is \"{}\" there and \"{}\" here",
            show_duration(theirs),
            show_duration(c.timing.window)
        ),
        Some(Never::Dead) => "voters refused: they have proof that this process has ended".into(),
        Some(Never::NoVoter) => "too few of the nodes that are asked are voters by now".into(),
        Some(Never::Greater) => "a majority of voters refused: a greater epoch is theirs".into(),
        None => "too few voters are heard for a majority".into(),
    }
}

impl RoleCore {
    /// H1: begins to claim a place that committed succession gave to this node and boot.
    pub(crate) fn step_forward(&mut self, place: Place, story: Story, c: &Cluster, q: &mut Queue, now: Mono) {
        assert_eq!(
            place.owner,
            c.owner(),
            "H1: only this node's and boot's own epochs are claimed"
        );
        if self.futile.is_none() {
            let text = format!(
                "role {}: claiming epoch {}: {}",
                self.name, place.epoch, story.cause
            );
            q.log(Level::Info, text);
        }
        self.enter(RoleState::Claiming, story.cause.clone(), q);
        self.story = story;
        self.story.reach(stage::CLAIMED, now);
        self.lease.claim(place.epoch, c.electorate.id);
        (self.tried, self.claiming_since) = (now, now);
        (self.paused_until, self.ready_since) = (None, None);
        (self.promoted, self.was_active, self.demoting, self.again) = (None, false, false, None);
        self.down = None;
        self.claim_now(q);
    }

    /// The claim goes out at once, and asks for an answer at once.
    pub(crate) fn claim_now(&mut self, q: &mut Queue) {
        self.urgent = true;
        q.urgent_all = true;
    }

    pub(crate) fn turn_claiming(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        // A lease that is won so late that the application would have to stop again at once is claimed on, until it lasts.
        let lead = self.lead(c);
        let lasts = |until: Mono| lead.is_zero() || now + lead + c.timing.interval < until;
        if let Some((epoch, until)) = self.lease.held(now)
            && Some(epoch) == self.lease.claimed()
            && lasts(until)
        {
            self.futile = None;
            // Won while it paused, by a grant that came late: voters do not judge a claim that says it waits.
            (self.urgent, self.paused_until) = (false, None);
            self.story.reach(stage::GRANTED, now);
            self.story.reach(stage::PROMOTING, now);
            self.enter(RoleState::Promoting, "the lease is won".into(), q);
            q.urgent_all = true;
            self.turn_lent(q);
            if c.checked_only_while_active(&self.name) {
                // What was seen in a tenure before says nothing of this one.
                self.health = Health::Untried;
                self.health_reason = "not checked since it was promoted".into();
            }
            self.promoting = epoch;
            self.told = Told::promoted(epoch);
            self.run_promote(q);
            return;
        }
        if let Some(why) = self.unfit(c, now) {
            return self.give_up(&why, c, q);
        }
        // H6: a window to win it, and a promise in its way to wait for; whatever comes in its way again is no accident.
        if now.since(self.claiming_since) >= c.timing.window + c.timing.promise {
            return self.give_up("it was not won in time", c, q);
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
            self.story.reach(stage::FREE, now);
            self.lease.retry();
            self.claim_now(q);
            return;
        }
        let reached =
            |voter: NodeId| voter == c.id || c.peer(voter).is_some_and(|p| c.alive(p.owner(), now).is_some());
        match self.lease.winnable_at(&c.electorate, reached, now) {
            None => self.refused_for_good(c, q, now),
            Some(at) if at > now => self.paused_until = Some(at),
            Some(_) if now.since(self.tried) >= c.timing.window => {
                self.give_up("no majority of voters answered within the window", c, q);
            }
            Some(_) if self.lease.may_be_free(now) => self.retry_soon(c, now),
            Some(_) => {}
        }
    }

    /// A voter that refused is free by now.
    pub(crate) fn unblocked(&mut self, voter: NodeId, c: &Cluster, now: Mono) {
        let was_blocked = self.lease.unblocked(voter);
        if was_blocked && self.state == RoleState::Claiming && self.paused_until.is_none() {
            self.retry_soon(c, now);
        }
    }

    /// No majority will grant it. Where the reason is one that stays, what comes of the next claims is not said anew each time.
    fn refused_for_good(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let why = refusal(self.lease.never(), c);
        if !matches!(self.lease.never(), Some(Never::Window(_))) {
            self.futile = None;
            return self.give_up(&why, c, q);
        }
        let said = self.futile.map(|(said, _)| said);
        let again = said.is_none_or(|said| now.since(said) >= SAID_AGAIN);
        self.futile = Some((said.filter(|_| !again).unwrap_or(now), now));
        if again {
            q.log(
                Level::Warn,
                format!("role {}: claims are given up: {why}", self.name),
            );
        }
        self.release(c, q);
        self.enter(RoleState::Standby, format!("claim given up: {why}"), q);
    }

    /// Why its claims are refused, if for a reason that stays.
    pub(crate) fn refused(&self, c: &Cluster) -> Option<String> {
        let why = self.lease.never().filter(|why| matches!(why, Never::Window(_)));
        self.futile.and(why).map(|_| refusal(why, c))
    }

    /// Until when it need not claim, since the last claim was refused for a reason that stays.
    pub(crate) fn futile_until(&self, c: &Cluster, now: Mono) -> Option<Mono> {
        let (_, refused) = self.futile?;
        Some(refused + c.timing.window.max(FUTILE)).filter(|until| now < *until)
    }

    /// Whoever refused is asked again as soon as it can have answered the last try, not at the next heartbeat.
    fn retry_soon(&mut self, c: &Cluster, now: Mono) {
        self.paused_until = Some((self.tried + stagger(c)).max(now));
    }

    /// H6: a claim that was not won is released; nothing was started for it.
    fn give_up(&mut self, why: &str, c: &Cluster, q: &mut Queue) {
        q.log(Level::Info, format!("role {}: claim given up: {why}", self.name));
        self.release(c, q);
        self.enter(RoleState::Standby, format!("claim given up: {why}"), q);
    }
}
