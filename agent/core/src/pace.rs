//! Whether the log here keeps up: by time, for on a quiet cluster a number of entries says nothing.

use baton_shared::clock::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// An entry that others have applied for longer than this, and this node has not, is late.
const LATE: Duration = Duration::from_secs(1);
/// What was heard is noted no more often than this.
const STEP: Duration = Duration::from_millis(100);

/// How far others were heard to be, and when.
#[derive(Default)]
pub(crate) struct Pace {
    /// Index and when it was first heard of, both ascending; what is applied here is forgotten. Of those that are late the newest alone is
    /// kept, so there are a dozen at most.
    heard: VecDeque<(u64, Mono)>,
    /// This run was once as far as everybody it heard.
    began: bool,
}

impl Pace {
    /// Others have applied up to `newest`, this node up to `applied`. `knows`: by now it would have heard of the others.
    pub fn turn(&mut self, newest: u64, applied: u64, knows: bool, now: Mono) {
        self.began |= knows && applied >= newest;
        self.heard.retain(|(index, _)| *index > applied);
        let news = self
            .heard
            .back()
            .is_none_or(|(index, at)| newest > *index && now.since(*at) >= STEP);
        if newest > applied && news {
            self.heard.push_back((newest, now));
        }
        while self.heard.get(1).is_some_and(|(_, at)| now.since(*at) > LATE) {
            self.heard.pop_front();
        }
    }

    /// What is not so far yet, if something is not.
    pub fn lacks(&self, now: Mono) -> Option<&'static str> {
        let late = self.heard.front().is_some_and(|(_, at)| now.since(*at) > LATE);
        match (self.began, late) {
            (false, _) => Some("catching up with the log"),
            (true, true) => Some("the log here is more than a second behind"),
            (true, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono((100_000 + ms) * 1_000_000)
    }

    #[test]
    fn one_entry_that_is_a_second_late_is_too_much_and_a_hundred_on_their_way_are_not() {
        let mut pace = Pace::default();
        pace.turn(7, 7, true, at(0));
        assert_eq!(pace.lacks(at(0)), None);
        pace.turn(8, 7, true, at(100));
        assert_eq!(pace.lacks(at(1_100)), None);
        assert!(
            pace.lacks(at(1_101)).is_some(),
            "a quiet cluster, one entry behind"
        );
        pace.turn(8, 8, true, at(1_200));
        for ms in (1_200..20_000).step_by(50) {
            pace.turn(ms + 200, ms, true, at(ms));
            assert_eq!(pace.lacks(at(ms)), None, "200 ms behind a busy one, always");
        }
    }

    #[test]
    fn what_others_had_before_it_started_is_caught_up_with_at_first() {
        let mut pace = Pace::default();
        pace.turn(0, 3, false, at(0));
        assert!(pace.lacks(at(0)).is_some(), "it has heard nobody");
        pace.turn(9, 3, true, at(100));
        assert!(pace.lacks(at(100)).is_some());
        pace.turn(9, 9, true, at(200));
        assert_eq!(pace.lacks(at(200)), None);
    }

    #[test]
    fn a_log_that_stands_still_is_remembered_within_bounds() {
        let mut pace = Pace::default();
        pace.turn(1, 1, true, at(0));
        for ms in 0..100_000 {
            pace.turn(ms + 2, 1, true, at(ms));
        }
        assert!(pace.heard.len() < 14, "{}", pace.heard.len());
        assert!(pace.lacks(at(100_000)).is_some());
    }
}
