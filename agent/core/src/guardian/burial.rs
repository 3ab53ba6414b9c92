//! The agent is dead: all that it left is stopped for sure, then the others are told, and then comes what comes next (H4, V6).

use super::fate::Fate;
use super::machine::{Agent, Guardian, Output, VANISH};
use super::page::{LeasePage, RoleSlot, SLOTS};
use baton_shared::clock::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// A fence that failed is run again after this, so many times in all.
const FENCE_AGAIN: Duration = Duration::from_secs(1);
const FENCE_TRIES: u32 = 3;
/// What the dead agent left is given so long, at least, before the fences begin all the same.
const CLEAR: Duration = Duration::from_millis(20);
/// The last death notices before this process ends, so far apart.
const LAST_NOTICES: u32 = 5;
const LAST_PAUSE: Duration = Duration::from_millis(4);

/// The fence of one role after the agent's death.
#[derive(Debug)]
struct Try {
    tries: u32,
    /// Not before.
    at: Mono,
}

/// What is known of a death.
#[derive(Debug)]
pub(super) struct Burial {
    why: String,
    /// With which this process exits, unless another agent is started.
    status: u8,
    again: bool,
    /// Warm applications of a node that held no role.
    kept: Vec<usize>,
    /// Roles whose application may act.
    held: Vec<usize>,
    /// What else the agent had started is gone, or not.
    pub remains: Option<Result<(), String>>,
    /// Then the fences begin, whatever is left; and then what is left is given up.
    fences_at: Mono,
    limit: Mono,
    /// The fences have begun; true: all that might undo them was gone by then.
    begun: Option<bool>,
    fences: BTreeMap<usize, Try>,
    /// How those that ended since the death have ended.
    pub ended: BTreeMap<usize, bool>,
    /// The roles of which it is proven that their application acts no more, but for its processes.
    proven: Vec<usize>,
}

/// The end of this process.
#[derive(Debug)]
pub(super) struct Farewell {
    status: u8,
    /// Until then what was killed may vanish; then the next notice is due.
    pub at: Mono,
    notices: u32,
}

impl Guardian {
    /// Begins.
    pub(super) fn bury(
        &mut self,
        fate: &Fate,
        status: u8,
        again: bool,
        early: bool,
        page: &LeasePage,
        now: Mono,
    ) {
        let why = format!("its agent {}", fate.words());
        self.forget_who_asked();
        let held: Vec<usize> = (0..SLOTS).filter(|place| page.left_over(*place)).collect();
        let none_held = held.is_empty() && !self.ending;
        let kept = self.places_of(|one| one.warm && none_held && !one.killed);
        for place in self.places_of(|_| true) {
            if !kept.contains(&place) {
                self.kill_application(place);
            }
        }
        self.push(Output::KillRemains);
        // A process that does not die must not hold up the fences until the lease is over.
        let lent = |place: usize| page.slot(place).and_then(RoleSlot::lent);
        let leads = held
            .iter()
            .filter_map(|place| Some(lent(*place)? - self.plan(*place)?.fence_lead));
        let limit = now + VANISH;
        let fences_at = limit.min(leads.min().unwrap_or(Mono::MAX).max(now + CLEAR));
        let fence = |place: &usize| {
            (
                *place,
                Try {
                    tries: 0,
                    at: Mono::ZERO,
                },
            )
        };
        let fences = held.iter().filter(|place| self.plan(**place).is_some());
        let burial = Burial {
            fences: fences.map(fence).collect(),
            why: why.clone(),
            status,
            again,
            kept,
            held,
            remains: None,
            fences_at,
            limit,
            begun: None,
            ended: BTreeMap::new(),
            proven: Vec::new(),
        };
        self.agent = Agent::Dead(Box::new(burial));
        if broken!(NoticeBeforeFence) {
            self.announce(why.clone(), now);
        }
        if !early {
            self.say(format!("{why}; its application is stopped"));
        }
    }

    pub(super) fn burial_due(&self, burial: &Burial) -> Mono {
        if burial.begun.is_none() {
            return burial.fences_at;
        }
        if burial.fences.is_empty() {
            return burial.limit;
        }
        let waits = burial
            .fences
            .iter()
            .filter(|(place, _)| !self.fencing.contains_key(*place));
        let tries = waits.map(|(_, fence)| fence.at).filter(|at| *at > Mono::ZERO);
        tries.min().unwrap_or(Mono::MAX)
    }

    pub(super) fn turn_burial(&mut self, page: &LeasePage, now: Mono) {
        let Agent::Dead(mut burial) = std::mem::replace(&mut self.agent, Agent::Over) else {
            return;
        };
        let over = self.goes_on(&mut burial, page, now);
        if over {
            self.conclude(*burial, page, now);
        } else {
            self.agent = Agent::Dead(burial);
        }
    }

    fn gone(&self, burial: &Burial) -> bool {
        self.applications.keys().all(|place| burial.kept.contains(place))
    }

    /// True: nothing more can be done.
    fn goes_on(&mut self, burial: &mut Burial, page: &LeasePage, now: Mono) -> bool {
        let cleared = matches!(burial.remains, Some(Ok(())));
        let (gone, failed) = (self.gone(burial), matches!(burial.remains, Some(Err(_))));
        if burial.begun.is_none() {
            let waits = !cleared || !gone;
            if waits && !failed && now < burial.fences_at {
                return false;
            }
            burial.begun = Some(cleared);
        }
        // All at once: the lease of the last must not end while the first is tried again.
        let at_once = if broken!(FencesInTurn) { 1 } else { SLOTS };
        let places: Vec<usize> = burial.fences.keys().copied().take(at_once).collect();
        for place in places {
            let well = self.turn_fence(burial, place, page, now);
            if let Some(well) = well {
                burial.fences.remove(&place);
                if well {
                    burial.proven.push(place);
                }
            }
        }
        burial.fences.is_empty() && ((cleared && gone) || failed || now >= burial.limit)
    }

    /// Runs the fence of a role until it succeeds, a few times at most. `None`: not yet.
    fn turn_fence(&mut self, burial: &mut Burial, place: usize, page: &LeasePage, now: Mono) -> Option<bool> {
        let plan = self.plan(place)?;
        let (unproven, release) = (plan.unproven, plan.release);
        if plan.fence.is_none() {
            if unproven {
                let role = self.called(place);
                self.say(format!(
                    "role {role}: nothing here can stop the application without the agent, so nobody is told; add actions.fence"
                ));
            }
            return Some(!unproven);
        }
        let ended = burial.ended.remove(&place);
        let fence = burial.fences.get_mut(&place)?;
        if ended.is_none() && !self.fencing.contains_key(&place) && now >= fence.at {
            let why = burial.why.clone();
            self.begin_fence(place, &why, page, now);
        }
        match ended? {
            // What might undo it was still there when it began.
            true => Some(burial.begun == Some(true)),
            false if fence.tries + 1 < FENCE_TRIES => {
                fence.tries += 1;
                fence.at = now + FENCE_AGAIN;
                None
            }
            false if release => Some(burial.begun == Some(true)),
            false => {
                let role = self.called(place);
                self.say(format!(
                    "role {role}: the application could not be fenced, so nobody is told: others take over when the lease has ended"
                ));
                Some(false)
            }
        }
    }

    /// Tells the others if all of it is gone, and sees to what comes next.
    fn conclude(&mut self, burial: Burial, page: &LeasePage, now: Mono) {
        let cleared = matches!(burial.remains, Some(Ok(())));
        let gone = self.gone(&burial);
        let mut all = cleared && gone;
        for place in burial.held {
            let Some(slot) = page.slot(place) else { continue };
            if cleared && burial.proven.contains(&place) && !self.applications.contains_key(&place) {
                slot.buried();
                continue;
            }
            // The next agent's to stop: it demotes first.
            all = false;
            slot.left_behind();
        }
        if all && !broken!(NoticeBeforeFence) {
            self.announce(burial.why, now);
        }
        let left = match burial.remains {
            Some(Err(left)) => Some(left),
            None => Some("what the agent had started".to_owned()),
            Some(Ok(())) if !gone => Some("the application".to_owned()),
            Some(Ok(())) => None,
        };
        if let Some(left) = left {
            self.say(format!(
                "killed, and still there: {left}; nobody is told that the application has stopped"
            ));
        }
        if burial.again && !self.ending {
            self.start_later(now);
        } else {
            self.leave(burial.status, now);
        }
    }

    /// Before the end of this process nobody is left, and a death is told a few more times, quickly.
    pub(super) fn leave(&mut self, status: u8, now: Mono) {
        for place in self.places_of(|_| true) {
            self.kill_application(place);
        }
        self.agent = Agent::Leaving(Farewell {
            status,
            at: now + VANISH,
            notices: LAST_NOTICES,
        });
        self.turn_farewell(now);
    }

    pub(super) fn turn_farewell(&mut self, now: Mono) {
        let announces = self.announces();
        let gone = self.applications.is_empty();
        let Agent::Leaving(farewell) = &mut self.agent else {
            return;
        };
        let first = farewell.notices == LAST_NOTICES;
        if now < farewell.at && !(first && gone) {
            return;
        }
        if announces && farewell.notices > 0 {
            farewell.notices -= 1;
            farewell.at = now + LAST_PAUSE;
            self.push(Output::AnnounceAgain);
            return;
        }
        let status = farewell.status;
        self.agent = Agent::Over;
        self.push(Output::Exit(status));
    }
}
