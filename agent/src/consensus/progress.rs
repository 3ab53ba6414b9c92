//! How far the writes to the data directory are: which is the oldest under way, and how many were completed. Whether that is a disk that
//! hangs is the core's to decide.

use baton_core::fitness::Writes;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The account of them. The control loop reads it without waiting for anybody.
#[derive(Debug, Default)]
pub struct Progress {
    /// The numbers of those under way, and the last number given.
    under_way: Mutex<(BTreeSet<u64>, u64)>,
    completed: AtomicU64,
    /// The lowest of the numbers; 0 if nothing is under way.
    oldest: AtomicU64,
}

/// A write that is under way, until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    progress: Arc<Progress>,
    number: u64,
}

impl Progress {
    /// A write begins.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        let mut guard = self.under_way();
        let (numbers, last) = &mut *guard;
        *last += 1;
        let number = *last;
        numbers.insert(number);
        self.note(numbers);
        drop(guard);
        UnderWay {
            progress: self.clone(),
            number,
        }
    }

    /// How far they are.
    pub fn read(&self) -> Writes {
        let oldest = self.oldest.load(Relaxed);
        Writes {
            completed: self.completed.load(Relaxed),
            oldest: (oldest > 0).then_some(oldest),
        }
    }

    fn under_way(&self) -> MutexGuard<'_, (BTreeSet<u64>, u64)> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, numbers: &BTreeSet<u64>) {
        self.oldest
            .store(numbers.first().copied().unwrap_or_default(), Relaxed);
    }
}

impl UnderWay {
    /// It is on disk.
    pub fn completed(self) {
        self.progress.completed.fetch_add(1, Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut guard = self.progress.under_way();
        guard.0.remove(&self.number);
        self.progress.note(&guard.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_told_until_it_is_over_and_only_what_is_on_disk_counts() {
        let progress = Arc::<Progress>::default();
        let told = || {
            let writes = progress.read();
            (writes.completed, writes.oldest)
        };
        assert_eq!(told(), (0, None));
        let (hangs, fails) = (progress.begin(), progress.begin());
        progress.begin().completed();
        assert_eq!(told(), (1, Some(1)));
        drop(fails);
        hangs.completed();
        assert_eq!(told(), (2, None));
        let last = progress.begin();
        assert_eq!(told(), (2, Some(4)), "each has a number of its own");
        drop(last);
        assert_eq!(told(), (2, None));
    }
}
