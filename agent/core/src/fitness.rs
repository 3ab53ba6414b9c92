//! Whether this node's own disk answers. A node that cannot write is not fit to be in line; but fitness changes no electorate, no majority,
//! and no grant.
//!
//! The shell says which writes are under way and how many were completed; what that means, and since when, is decided here.

use baton_shared::clock::Mono;
use baton_shared::config::show_duration;
use std::time::Duration;

/// The shell writes something small when nothing else was written for so long.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// A write that takes longer than this, or than 2 W, makes a node unfit.
const PATIENCE: Duration = Duration::from_secs(3);
/// A node is fit again when writes have been completed for so long.
const RECOVERY: Duration = Duration::from_secs(10);
/// A holder gives way so long after it became unfit. By then every disk that hung at the same instant is known to: those of all nodes may
/// be one storage system. It is the longest until a probe (a second more than [`PROBE_EVERY`]), and a second for the word of it.
const YIELD: Duration = Duration::from_secs(7);

/// How far the writes to this node's storage are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// How many were completed.
    pub completed: u64,
    /// The number of the oldest that is under way, or that failed and is tried again.
    pub oldest: Option<u64>,
}

/// What is known of the disk.
pub(crate) struct Fitness {
    /// What people call it; `None`: this node keeps nothing on disk, and is always fit.
    disk: Option<String>,
    writes: Writes,
    /// When it was last heard that a write was completed.
    completed: Option<Mono>,
    /// Since when the oldest is known to be under way.
    pending: Option<Mono>,
    /// The oldest flush that the core itself waits for, and since when.
    flush: Option<(u64, Mono)>,
    /// Since when it is unfit.
    unfit: Option<Mono>,
    /// While unfit: the first of the writes that were completed without a stall.
    good: Option<Mono>,
}

impl Fitness {
    pub fn new(disk: Option<String>) -> Fitness {
        Fitness {
            disk,
            writes: Writes::default(),
            completed: None,
            pending: None,
            flush: None,
            unfit: None,
            good: None,
        }
    }

    /// The shell says how far the writes are.
    pub fn told(&mut self, writes: Writes, now: Mono) {
        if writes.completed != self.writes.completed {
            self.completed = Some(now);
            if self.unfit.is_some() {
                self.good.get_or_insert(now);
            }
        }
        if writes.oldest != self.writes.oldest {
            self.pending = writes.oldest.map(|_| now);
        }
        self.writes = writes;
    }

    /// This node finds that it slept: that time is not the disk's fault.
    pub fn forgive(&mut self, slept: Duration) {
        let flush = self.flush.as_mut().map(|(_, since)| since);
        for since in self.pending.as_mut().into_iter().chain(flush) {
            *since = *since + slept;
        }
    }

    /// Judges the disk. `flush` is the oldest flush that the core waits for. True if fitness has changed.
    pub fn turn(&mut self, flush: Option<u64>, window: Duration, now: Mono) -> bool {
        self.flush = flush.map(|token| match self.flush {
            Some((known, since)) if known == token => (token, since),
            _ => (token, now),
        });
        let before = self.unfit.is_some();
        if self.stalled(now) >= limit(window) {
            self.unfit.get_or_insert(now);
            self.good = None;
        } else if let (Some(first), Some(last)) = (self.good, self.completed)
            && last.since(first) >= RECOVERY
        {
            (self.unfit, self.good) = (None, None);
        }
        self.unfit.is_some() != before
    }

    /// For how long the oldest write has been waited for.
    fn stalled(&self, now: Mono) -> Duration {
        let flush = self.flush.map(|(_, since)| since);
        let since = self.pending.into_iter().chain(flush).min();
        let since = since.filter(|_| self.disk.is_some());
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Whether this node may be put in line, as far as its disk is concerned.
    pub fn is_fit(&self) -> bool {
        self.unfit.is_none()
    }

    /// Whether a holder should give way: writes have stood still for long enough. Of a disk that has answered since, it only remains to be
    /// seen whether it goes on so.
    pub fn yields(&self, now: Mono) -> bool {
        self.good.is_none() && self.unfit.is_some_and(|since| now.since(since) >= YIELD)
    }

    /// What to tell people while the disk does not answer.
    pub fn alarm(&self) -> String {
        let disk = self.disk.as_deref().unwrap_or("the data directory");
        format!(
            "the disk does not answer: writes to {disk} hang or fail. This node is out of line and grants nothing new until they have \
             been for {}; see the kernel's log (`dmesg`), and mend or replace that disk",
            show_duration(RECOVERY)
        )
    }

    /// What the disk keeps this node from being ready for, if it does.
    pub fn lacks(&self, window: Duration, now: Mono) -> Option<String> {
        let disk = self.disk.as_deref()?;
        let recent = |at: Mono| now.since(at) <= PROBE_EVERY + limit(window);
        match self.completed {
            _ if self.unfit.is_some() => Some(format!("the disk does not answer: {disk}")),
            None => Some(format!("nothing was written since the start to {disk}")),
            Some(at) if recent(at) => None,
            Some(at) => {
                let silent = Duration::from_secs(now.since(at).as_secs());
                Some(format!(
                    "nothing was written for {} to {disk}",
                    show_duration(silent)
                ))
            }
        }
    }
}

/// How long a write may take.
fn limit(window: Duration) -> Duration {
    PATIENCE.max(window * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Mono {
        Mono((100_000 + ms) * 1_000_000)
    }

    fn writes(completed: u64, oldest: Option<u64>) -> Writes {
        Writes { completed, oldest }
    }

    fn on_disk() -> Fitness {
        Fitness::new(Some("/var/lib/baton/a".into()))
    }

    #[test]
    fn a_write_that_takes_three_seconds_makes_it_unfit_and_ten_good_ones_fit_again() {
        let mut disk = on_disk();
        disk.told(writes(1, None), at(0));
        assert!(
            !disk.turn(None, W, at(60_000)) && disk.is_fit(),
            "nothing is pending"
        );
        disk.told(writes(1, Some(2)), at(60_000));
        assert!(!disk.turn(None, W, at(62_999)) && disk.is_fit());
        assert!(disk.turn(None, W, at(63_000)) && !disk.is_fit());
        assert!(!disk.turn(None, W, at(64_000)), "said once");
        assert!(!disk.yields(at(69_999)) && disk.yields(at(70_000)));
        disk.told(writes(2, None), at(70_000));
        assert!(!disk.turn(None, W, at(70_000)) && !disk.is_fit() && !disk.yields(at(80_000)));
        disk.told(writes(3, None), at(75_000));
        assert!(!disk.turn(None, W, at(81_000)), "time alone is no good write");
        disk.told(writes(4, None), at(81_000));
        assert!(disk.turn(None, W, at(81_000)) && disk.is_fit());
    }

    #[test]
    fn another_stall_begins_the_good_ones_anew() {
        let mut disk = on_disk();
        disk.told(writes(0, Some(1)), at(0));
        disk.turn(None, W, at(3_000));
        disk.told(writes(1, Some(2)), at(4_000));
        disk.turn(None, W, at(7_000));
        disk.told(writes(2, None), at(8_000));
        disk.told(writes(3, None), at(17_999));
        assert!(!disk.turn(None, W, at(17_999)));
        disk.told(writes(4, None), at(18_000));
        assert!(disk.turn(None, W, at(18_000)) && disk.is_fit());
    }

    #[test]
    fn the_limit_grows_with_the_window_and_others_that_are_completed_do_not_hide_one_that_is_not() {
        let mut disk = on_disk();
        disk.told(writes(1, Some(2)), at(0));
        disk.told(writes(9, Some(2)), at(5_999));
        assert!(!disk.turn(None, W * 3, at(5_999)));
        assert!(disk.turn(None, W * 3, at(6_000)));
    }

    #[test]
    fn a_flush_of_the_cores_own_counts_like_any_write_and_each_anew() {
        let mut disk = on_disk();
        disk.turn(Some(1), W, at(0));
        assert!(!disk.turn(Some(2), W, at(2_999)), "the first was done");
        assert!(!disk.turn(Some(2), W, at(5_998)));
        assert!(disk.turn(Some(2), W, at(5_999)));
    }

    #[test]
    fn a_node_that_slept_does_not_hold_it_against_its_disk() {
        let mut disk = on_disk();
        disk.told(writes(0, Some(1)), at(0));
        disk.forgive(Duration::from_secs(60));
        assert!(!disk.turn(None, W, at(60_000)));
        assert!(disk.turn(None, W, at(63_000)), "but what comes after it");
    }

    #[test]
    fn without_storage_a_node_is_always_fit() {
        let mut nothing = Fitness::new(None);
        nothing.told(writes(0, Some(1)), at(0));
        assert!(!nothing.turn(Some(1), W, at(60_000)) && nothing.is_fit());
        assert_eq!(nothing.lacks(W, at(60_000)), None);
    }

    #[test]
    fn ready_needs_a_write_of_the_last_seconds() {
        let mut disk = on_disk();
        let lacks = |disk: &Fitness, ms| disk.lacks(W, at(ms)).unwrap_or_default();
        assert!(lacks(&disk, 0).contains("since the start"));
        disk.told(writes(1, None), at(0));
        assert_eq!(lacks(&disk, 8_000), "");
        assert!(lacks(&disk, 9_500).contains("for 9s") && lacks(&disk, 9_500).contains("/var/lib/baton/a"));
        disk.told(writes(1, Some(2)), at(9_500));
        disk.turn(None, W, at(12_500));
        assert!(lacks(&disk, 12_500).contains("does not answer"));
    }
}
