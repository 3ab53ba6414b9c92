//! The guard: the one place that every face asks, at the moment it answers, whether this node may act (H3).
//!
//! One writer (the control loop), any number of readers, no lock: a reader sees the epoch and the instant of the same
//! write, or tries again. It holds no flag that says "active": only an instant, compared with the clock by the reader.

use crate::clock::Mono;
use crate::id::Epoch;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The right to act for one role: an epoch, and the instant at which it ends.
#[derive(Debug, Default)]
pub struct Guard {
    /// Odd while a write is under way.
    version: AtomicU64,
    epoch: AtomicU64,
    until: AtomicU64,
    /// Greatest epoch closed for good.
    closed: AtomicU64,
}

impl Guard {
    /// Lets the faces say "active" at `epoch` until `until`. An epoch closed for good stays closed.
    pub fn open(&self, epoch: Epoch, until: Mono) {
        if epoch.0 > self.closed.load(SeqCst) {
            self.write(epoch, until);
        }
    }

    /// Nobody says "active" any more; the same epoch may be opened again.
    pub fn shut(&self) {
        self.write(Epoch(self.epoch.load(SeqCst)), Mono::ZERO);
    }

    /// Shuts, and closes `epoch` and all before it for good. Done before a release leaves.
    pub fn close(&self, epoch: Epoch) {
        self.closed.fetch_max(epoch.0, SeqCst);
        self.shut();
    }

    /// The epoch at which this node may act at `now`, if it may.
    pub fn active(&self, now: Mono) -> Option<Epoch> {
        let (epoch, until) = self.read();
        (now < until).then_some(epoch)
    }

    /// The epoch and end of the right to act, whether over or not.
    pub fn read(&self) -> (Epoch, Mono) {
        loop {
            let before = self.version.load(SeqCst);
            let pair = (Epoch(self.epoch.load(SeqCst)), Mono(self.until.load(SeqCst)));
            if before.is_multiple_of(2) && self.version.load(SeqCst) == before {
                return pair;
            }
            std::hint::spin_loop();
        }
    }

    fn write(&self, epoch: Epoch, until: Mono) {
        self.version.fetch_add(1, SeqCst);
        self.epoch.store(epoch.0, SeqCst);
        self.until.store(until.0, SeqCst);
        self.version.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_with_the_clock_and_stays_closed() {
        let guard = Guard::default();
        assert_eq!(guard.active(Mono(0)), None);
        guard.open(Epoch(7), Mono(100));
        assert_eq!(guard.active(Mono(99)), Some(Epoch(7)));
        assert_eq!(guard.active(Mono(100)), None);
        guard.shut();
        assert_eq!(guard.active(Mono(1)), None);
        guard.open(Epoch(7), Mono(200));
        assert_eq!(guard.active(Mono(150)), Some(Epoch(7)));
        guard.close(Epoch(7));
        guard.open(Epoch(7), Mono(300));
        assert_eq!(guard.active(Mono(150)), None);
        guard.open(Epoch(8), Mono(300));
        assert_eq!(guard.active(Mono(150)), Some(Epoch(8)));
    }

    #[test]
    fn readers_never_see_half_a_write() {
        let guard = Guard::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..200_000u64 {
                    guard.open(Epoch(n), Mono(n * 10));
                }
            });
            for _ in 0..200_000 {
                let (epoch, until) = guard.read();
                assert_eq!(until.0, epoch.0 * 10);
            }
        });
    }
}
