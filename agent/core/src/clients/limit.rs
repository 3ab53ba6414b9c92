//! How often a role may be handed over because its holder is cut off from clients: a network that comes and goes must not carry the
//! role along with it. Kept by every node, and said in heartbeats, so that it outlives the holder; no wall clock has part in it.

use baton_shared::clock::Mono;
use std::time::Duration;

/// Between a first such handover and a second. After each further one it is twice as long, up to the other.
const PAUSE: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// How often it doubles at most, and more.
const MAX_COUNT: u32 = 16;

/// What is remembered of such handovers of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    /// How many followed each other, 0 if none is remembered; and until when that is.
    count: u32,
    until: Mono,
}

/// The pause after so many in a row.
fn pause(count: u32) -> Duration {
    let doubled = PAUSE.saturating_mul(1 << count.clamp(1, MAX_COUNT).saturating_sub(1));
    doubled.min(MAX_PAUSE)
}

impl Limit {
    /// Whether another handover may follow now.
    pub fn allows(&self, now: Mono) -> bool {
        broken!(HandoverStorm) || self.count == 0 || self.until.since(now) <= pause(self.count)
    }

    /// There is one now.
    pub fn note(&mut self, now: Mono) {
        self.count = match self.until > now {
            true => (self.count + 1).min(MAX_COUNT),
            false => 1,
        };
        self.until = now + pause(self.count) * 2;
    }

    /// What heartbeats say: how many in a row, and for how much longer that is remembered.
    pub fn said(&self, now: Mono) -> Option<(u32, Duration)> {
        (self.count > 0 && self.until > now).then(|| (self.count, self.until.since(now)))
    }

    /// Somebody says so. Word of it takes time, and must not be renewed by being said to and fro: only a later handover is news, or one
    /// of which nothing is known here and that is not as good as forgotten.
    pub fn heard(&mut self, count: u32, left: Duration, window: Duration, now: Mono) {
        let count = count.clamp(1, MAX_COUNT);
        let until = now + left.min(pause(count) * 2);
        // When each began, plus the same on both sides.
        let began = |count: u32, until: Mono| until + (MAX_PAUSE - pause(count)) * 2;
        let (theirs, mine) = (began(count, until), began(self.count, self.until));
        let under_way = window * 2;
        let news = match self.said(now) {
            None => left > under_way,
            Some(_) => theirs > mine + under_way || (count > self.count && theirs + under_way >= mine),
        };
        if news {
            (self.count, self.until) = (count, until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono(0) + SECOND * u32::try_from(seconds).unwrap()
    }

    #[test]
    fn one_in_a_minute_then_in_two_up_to_an_hour_and_forgotten_after_as_long_again() {
        let mut limit = Limit::default();
        let mut now = 10_000;
        assert!(limit.allows(at(now)));
        for wait in [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600] {
            limit.note(at(now));
            assert!(
                !limit.allows(at(now)) && !limit.allows(at(now + wait - 1)),
                "{wait}"
            );
            now += wait;
            assert!(limit.allows(at(now)), "{wait}");
        }
        limit.note(at(now));
        assert!(limit.said(at(now + 7199)).is_some());
        assert_eq!(limit.said(at(now + 7200)), None);
        limit.note(at(now + 7200));
        assert!(limit.allows(at(now + 7260)), "the first again");
    }

    #[test]
    fn told_to_another_it_outlives_the_holder_and_is_not_renewed_by_talk() {
        let (mut one, mut other) = (Limit::default(), Limit::default());
        one.note(at(1000));
        let mut now = at(1000);
        // Each datagram is late: if that counted, they would keep each other waiting for ever.
        let late = Duration::from_millis(300);
        while one.said(now).is_some() || other.said(now).is_some() {
            now = now + late;
            if let Some((count, left)) = one.said(now) {
                other.heard(count, left, SECOND, now + late);
            }
            if let Some((count, left)) = other.said(now) {
                one.heard(count, left, SECOND, now + late);
            }
            assert_eq!(other.allows(now), one.allows(now) && other.allows(now));
            assert!(now < at(1125), "{one:?} {other:?}");
        }
        // And a later one is news.
        one.note(at(2000));
        other.note(at(2200));
        one.note(at(2200));
        let (count, left) = one.said(at(2200)).unwrap();
        other.heard(count, left, SECOND, at(2200));
        assert_eq!((count, other.count), (1, 1), "the one of 2000 was forgotten");
        one.note(at(2261));
        let (count, left) = one.said(at(2262)).unwrap();
        other.heard(count, left, SECOND, at(2262));
        assert!(!other.allows(at(2380)) && other.allows(at(2383)));
    }

    #[test]
    fn nonsense_is_bounded() {
        let mut limit = Limit::default();
        limit.heard(u32::MAX, Duration::MAX, SECOND, at(5));
        assert!(limit.allows(at(5 + 3600)));
        limit.heard(0, Duration::ZERO, SECOND, Mono::MAX);
        assert_eq!(limit.said(Mono::MAX), None);
    }
}
