//! The keeper: a tiny process between guardian and application, and the parent of everything below it that lost its own. It sees the
//! lease page. It needs nobody: when its guardian is gone, or the lease is about to end, it kills all of it.
//!
//! It runs after a bare clone(2), in a process that may not allocate: nothing here does.

use super::page::RoleSlot;
use baton_shared::clock::Mono;
use std::time::Duration;

/// Between two sweeps, at first; twice as long each time.
const LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// What becomes of the rest when the first process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is killed: an application without its first process is none.
    Killed,
    /// It stays: an action may start a daemon.
    Stays,
}

/// What it sees at an instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// The role, if the page has one for this.
    pub slot: Option<&'a RoleSlot>,
    /// The guardian is gone.
    pub parent_gone: bool,
    /// It was told to.
    pub told_to_kill: bool,
    /// The first process has ended.
    pub leader_ended: bool,
    /// Nothing below it lives.
    pub empty: bool,
}

/// What it does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Kill everything that is there, once.
    pub kill: bool,
    /// It may exit: nothing is left to keep.
    pub done: bool,
    /// Look again then, at the latest; `None`: when something happens.
    pub wake: Option<Mono>,
}

/// Its state.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    lead: Duration,
    rest: Rest,
    killing_since: Option<Mono>,
    /// The next sweep, and how long after it the one after that.
    sweep: Mono,
    pause: Duration,
}

impl Keeper {
    /// It kills so long before the lease ends.
    pub const fn new(lead: Duration, rest: Rest) -> Keeper {
        Keeper {
            lead,
            rest,
            killing_since: None,
            sweep: Mono::ZERO,
            pause: LOOK,
        }
    }

    /// Since when it kills; it never stops to.
    pub fn killing_since(&self) -> Option<Mono> {
        self.killing_since
    }

    /// Nobody wakes it when something is lent. A lease lasts for at least twice its lead (`config::stop`), so it is seen in time by one
    /// who looks that often.
    fn patience(&self) -> Duration {
        if self.lead.is_zero() {
            LONGEST_LOOK
        } else {
            self.lead
        }
    }

    /// Looks, and decides.
    pub fn turn(&mut self, seen: Seen<'_>, now: Mono) -> Turn {
        let lease = seen.slot.and_then(RoleSlot::binds).map(|until| until - self.lead);
        let lease = lease.filter(|_| !broken!(KeeperIgnoresPage));
        let over = lease.is_some_and(|at| now >= at)
            || (seen.parent_gone && !broken!(KeeperOutlivesGuardian))
            || seen.told_to_kill
            || (seen.leader_ended && self.rest == Rest::Killed);
        if over && self.killing_since.is_none() {
            (self.killing_since, self.sweep) = (Some(now), now);
        }
        if seen.empty && (seen.leader_ended || self.killing_since.is_some()) {
            return Turn {
                kill: false,
                done: true,
                wake: None,
            };
        }
        if self.killing_since.is_none() {
            return Turn {
                kill: false,
                done: false,
                // What it left may end without a word: a cgroup can be the last to know.
                wake: (seen.slot.map(|_| lease.unwrap_or(now + self.patience())))
                    .or(seen.leader_ended.then(|| now + LONGEST_LOOK)),
            };
        }
        let kill = now >= self.sweep;
        if kill {
            self.sweep = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_LOOK);
        }
        Turn {
            kill,
            done: false,
            wake: Some(self.sweep),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const LEAD: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> Mono {
        Mono(ms * MS)
    }

    fn lent(until: u64) -> RoleSlot {
        let slot = RoleSlot::default();
        let _ = slot.lend(Some(at(until)));
        slot
    }

    #[test]
    fn it_waits_for_the_lead_of_the_lease_and_for_nothing_else() {
        let mut keeper = Keeper::new(LEAD, Rest::Killed);
        let slot = lent(1000);
        let seen = Seen {
            slot: Some(&slot),
            ..Seen::default()
        };
        let waits = keeper.turn(seen, at(949));
        assert_eq!((waits.kill, waits.wake), (false, Some(at(950))));
        let _ = slot.lend(Some(at(2000)));
        assert!(!keeper.turn(seen, at(950)).kill, "it was renewed");
        assert!(keeper.turn(seen, at(1950)).kill);
        let _ = slot.lend(Some(at(9000)));
        assert!(keeper.turn(seen, at(1951)).kill, "once killing, always killing");
        assert_eq!(keeper.killing_since(), Some(at(1950)));
    }

    #[test]
    fn it_looks_often_enough_to_see_a_lease_that_begins_while_it_waits() {
        let mut keeper = Keeper::new(LEAD, Rest::Killed);
        let slot = RoleSlot::default();
        let seen = Seen {
            slot: Some(&slot),
            ..Seen::default()
        };
        assert_eq!(keeper.turn(seen, at(1000)).wake, Some(at(1050)));
        let _ = slot.lend(Some(at(2000)));
        assert_eq!(keeper.turn(seen, at(1050)).wake, Some(at(1950)));
        let nothing_lent = Seen::default();
        assert_eq!(keeper.turn(nothing_lent, at(1060)).wake, None);
    }

    #[test]
    fn it_sweeps_again_and_again_but_not_all_the_time_until_nothing_is_left() {
        let mut keeper = Keeper::new(LEAD, Rest::Stays);
        let mut seen = Seen {
            told_to_kill: true,
            ..Seen::default()
        };
        let mut sweeps = Vec::new();
        for ms in 0..300 {
            let turn = keeper.turn(seen, at(ms));
            assert!(!turn.done);
            if turn.kill {
                sweeps.push(ms);
            }
        }
        assert_eq!(sweeps, [0, 1, 3, 7, 15, 31, 63, 113, 163, 213, 263]);
        seen.empty = true;
        let turn = keeper.turn(seen, at(300));
        assert!(turn.done && !turn.kill && turn.wake.is_none());
    }

    #[test]
    fn the_end_of_the_guardian_or_of_the_first_process_is_the_end_of_all_of_it() {
        let cases = [
            (Rest::Stays, true, false, true),
            (Rest::Killed, true, false, true),
            (Rest::Killed, false, true, true),
            (Rest::Stays, false, true, false),
            (Rest::Killed, false, false, false),
        ];
        for (rest, parent_gone, leader_ended, kills) in cases {
            let mut keeper = Keeper::new(LEAD, rest);
            let seen = Seen {
                parent_gone,
                leader_ended,
                ..Seen::default()
            };
            let case = (rest, parent_gone, leader_ended);
            assert_eq!(keeper.turn(seen, at(1)).kill, kills, "{case:?}");
        }
    }

    #[test]
    fn one_whose_first_process_ended_and_left_nothing_is_done() {
        for rest in [Rest::Killed, Rest::Stays] {
            let seen = Seen {
                leader_ended: true,
                empty: true,
                ..Seen::default()
            };
            assert!(Keeper::new(LEAD, rest).turn(seen, at(1)).done);
        }
        let fresh = Seen {
            empty: true,
            ..Seen::default()
        };
        let turn = Keeper::new(LEAD, Rest::Killed).turn(fresh, at(1));
        assert!(!turn.done, "the first process is not there yet");
    }
}
