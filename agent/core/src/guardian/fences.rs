//! Fences, and the dead man's handle: the lease of a role is about to end, and its application may still act.

use super::fate::Fate;
use super::machine::{Agent, Guardian, Output, VANISH};
use super::page::{LeasePage, RoleSlot};
use super::request::{Answer, FencePlan};
use baton_shared::clock::Mono;

/// One that runs.
#[derive(Debug)]
pub(super) struct Fencing {
    /// Promotions when it began, if none was under way.
    pub since: Option<u64>,
    /// It is killed then; and given up some time later, if that does not end it.
    until: Mono,
    killed: bool,
}

/// A role whose time has come.
struct Due {
    place: usize,
    until: Mono,
    stopping: bool,
}

impl Guardian {
    /// Runs the fence of a role.
    pub(super) fn begin_fence(&mut self, place: usize, cause: &str, page: &LeasePage, now: Mono) {
        let (Some(plan), Some(slot)) = (self.plan(place), page.slot(place)) else {
            return;
        };
        let Some(fence) = plan.fence.clone() else { return };
        let mut env = plan.env.clone();
        env.push(("BATON_EPOCH".into(), slot.epoch().to_string()));
        env.push(("BATON_CAUSE".into(), cause.into()));
        let fencing = Fencing {
            since: slot.quiet(),
            until: now + fence.limit(),
            killed: false,
        };
        self.fencing.insert(place, fencing);
        self.push(Output::RunFence { place, fence, env });
    }

    /// The agent hears of a fence when it has ended, not when it begins: what it promoted meanwhile was stopped too.
    pub(super) fn fence_ended(&mut self, place: usize, since: Option<u64>, fate: &Fate, page: &LeasePage) {
        let well = matches!(fate, Fate::Exited(0));
        // A process that runs was killed by nobody, or started since.
        if let (true, Some(since), false) = (well, since, self.applications.contains_key(&place))
            && let Some(slot) = page.slot(place)
        {
            slot.fence_done(since);
        }
        if !well {
            let role = self.called(place);
            self.say(format!("role {role}: the fence command {}", fate.words()));
        }
        match &mut self.agent {
            Agent::Dead(burial) => {
                burial.ended.insert(place, well);
            }
            _ => self.tell_fenced(place),
        }
    }

    fn tell_fenced(&mut self, place: usize) {
        if !broken!(FenceUntold) {
            self.answer(Answer::Fenced { slot: place });
        }
    }

    pub(super) fn kill_late_fences(&mut self, page: &LeasePage, now: Mono) {
        let late = |fencing: &Fencing| now >= fencing.until;
        let late: Vec<usize> = self
            .fencing
            .iter()
            .filter(|(_, fencing)| late(fencing))
            .map(|(place, _)| *place)
            .collect();
        for place in late {
            let Some(fencing) = self.fencing.get_mut(&place) else {
                continue;
            };
            fencing.until = now + VANISH;
            if std::mem::replace(&mut fencing.killed, true) {
                self.fencing.remove(&place);
                self.fence_ended(place, None, &Fate::Stuck, page);
            } else {
                self.push(Output::KillFence { place });
            }
        }
    }

    pub(super) fn fences_due(&self) -> Mono {
        let due = self.fencing.values().map(|fencing| fencing.until);
        due.min().unwrap_or(Mono::MAX)
    }

    /// When the time of a role comes, if there is anything to do then that was not done for this lease.
    fn moment(&self, place: usize, plan: &FencePlan, slot: &RoleSlot) -> Option<(Mono, Due)> {
        let until = slot.binds()?;
        let stopping = slot.is_stopping();
        let due = Due {
            place,
            until,
            stopping,
        };
        let running = self.applications.get(&place).is_some_and(|one| !one.killed);
        // Where nothing acts but faces, they end with the lease by themselves.
        let acts = running || plan.fence.is_some() || plan.unproven;
        // What the agent is stopping, and nothing here stops harder, is the agent's.
        let useful = acts && (!stopping || running || (plan.fences(stopping) && plan.fence.is_some()));
        let new = self.fenced.get(&place) != Some(&until);
        (useful && new).then(|| (until - plan.lead(stopping), due))
    }

    pub(super) fn dead_man_due(&self, page: &LeasePage) -> Mono {
        let moments = self
            .plans(page)
            .filter_map(|(place, plan, slot)| self.moment(place, plan, slot));
        let due = moments.map(|(at, _)| at).min();
        due.filter(|_| !broken!(NoDeadMan)).unwrap_or(Mono::MAX)
    }

    /// Whose time has come is killed and fenced, without the agent.
    pub(super) fn dead_man(&mut self, page: &LeasePage, now: Mono) {
        if broken!(NoDeadMan) {
            return;
        }
        let moments = self
            .plans(page)
            .filter_map(|(place, plan, slot)| self.moment(place, plan, slot));
        let due: Vec<Due> = moments.filter(|(at, _)| now >= *at).map(|(_, due)| due).collect();
        for due in due {
            self.step_in(&due, page, now);
        }
    }

    fn step_in(&mut self, due: &Due, page: &LeasePage, now: Mono) {
        let Due {
            place,
            until,
            stopping,
        } = *due;
        self.fenced.insert(place, until);
        let killed = self.kill_application(place);
        let cause = match stopping {
            true => "the lease is about to end, and the agent has not stopped the application yet",
            false => "the agent stands still",
        };
        if !stopping {
            // A promotion under way must not undo what follows.
            self.push(Output::KillPromotion { place });
        }
        let fences = self
            .plan(place)
            .is_some_and(|plan| plan.fence.is_some() && plan.fences(stopping));
        if !fences {
            self.tell_fenced(place);
        } else if !self.fencing.contains_key(&place) {
            self.begin_fence(place, cause, page, now);
        }
        let role = self.called(place);
        self.say(format!(
            "role {role}: the lease is about to end and the agent {}; the application is {}",
            if stopping {
                "has not stopped the application yet"
            } else {
                "stands still"
            },
            if killed { "killed" } else { "stopped without it" },
        ));
    }
}
