//! The agent's eye on its guardian: one that stands still (stopped, swapped out, stuck in the kernel) keeps no lease's end.

use baton_shared::clock::Mono;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);

/// A guardian that has not beaten for so long stands still.
pub fn limit(window: Duration) -> Duration {
    (window / 4).max(SHORTEST)
}

/// It beats at least so often.
pub fn interval(window: Duration) -> Duration {
    limit(window) / 3
}

/// What was seen of the beat.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    limit: Duration,
    /// Between two looks.
    pace: Duration,
    beat: u64,
    /// Without a new beat, while this process looked.
    silent: Duration,
    looked: Option<Mono>,
}

impl Watch {
    /// For a cluster with this window, by one who looks so often.
    pub const fn new(limit: Duration, pace: Duration) -> Watch {
        Watch {
            limit,
            pace,
            beat: 0,
            silent: Duration::ZERO,
            looked: None,
        }
    }

    /// True: it stands still. That is no new beat for the limit, less what the watcher itself slept: who was stopped with it, or does not
    /// get to run, has no reason to complain.
    pub fn look(&mut self, beat: u64, now: Mono) -> bool {
        let before = self.looked.replace(now).unwrap_or(now);
        if beat != self.beat {
            (self.beat, self.silent) = (beat, Duration::ZERO);
        } else {
            self.silent += now.since(before).min(self.pace * 2);
        }
        self.silent >= self.limit && !broken!(StillnessUnnoticed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn watch() -> Watch {
        Watch::new(limit(Duration::from_secs(1)), Duration::from_millis(25))
    }

    #[test]
    fn one_that_does_not_beat_for_a_quarter_of_the_window_stands_still() {
        let mut watch = watch();
        let first = (0..100).map(|n| n * 25).find(|ms| watch.look(7, Mono(ms * MS)));
        assert_eq!(first, Some(250));
        assert!(!watch.look(8, Mono(3000 * MS)), "it goes on");
    }

    #[test]
    fn what_the_watcher_slept_is_not_held_against_it() {
        let mut watch = watch();
        assert!(!watch.look(7, Mono(0)));
        assert!(!watch.look(7, Mono(60_000 * MS)), "both slept for a minute");
        assert!(!watch.look(7, Mono(60_025 * MS)));
        assert!(!watch.look(8, Mono(60_050 * MS)));
    }

    #[test]
    fn a_short_window_does_not_make_it_impatient() {
        assert_eq!(limit(Duration::from_millis(50)), Duration::from_millis(100));
        assert_eq!(limit(Duration::from_secs(2)), Duration::from_millis(500));
    }
}
