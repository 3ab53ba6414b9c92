//! One peer on one network: is it heard, does it hear us, how far away is it, how much gets lost.
//!
//! Like a telephone line: "I hear you" says nothing about the other direction until the other side repeats what we said.

use baton_shared::clock::Mono;
use baton_shared::timing::Timing;
use baton_shared::view::LinkState;
use std::time::Duration;

/// Heartbeats over which loss is counted.
const LOSS_WINDOW: u32 = 64;
/// So many of them lost make a link on which silence says less.
const LOSSY: u32 = 4;

/// State of one link, for one boot of the peer.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Up to here sequences were seen before this link was made anew.
    before: u64,
    /// Sequences seen: the greatest, and a bit for each of the 128 up to it.
    greatest: u64,
    seen: u128,
    /// When a datagram last came in, and when the first did.
    heard: Option<Mono>,
    first_heard: Mono,
    /// When we sent the newest datagram that the peer repeated to us on this network.
    proven: Option<Mono>,
    rtt: Option<Duration>,
    jitter: Duration,
    /// The peer's count of heartbeats to us: the newest, and a bit for each of the 64 up to it that arrived.
    count: u64,
    arrived: u64,
}

impl Link {
    /// A link to a run that was heard before, up to this sequence.
    pub fn after(seq: u64) -> Link {
        Link {
            before: seq,
            ..Link::default()
        }
    }

    /// Takes a sequence number in; false if it was seen before or is too old to tell (a replay).
    pub fn accept(&mut self, seq: u64) -> bool {
        if seq <= self.before {
            return false;
        }
        if seq > self.greatest {
            let ahead = seq - self.greatest;
            self.seen = if ahead < 128 { self.seen << ahead | 1 } else { 1 };
            self.greatest = seq;
            return true;
        }
        let behind = self.greatest - seq;
        if behind >= 128 || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }

    /// A datagram, the peer's `count`th to us, came in at `now`.
    pub fn heard(&mut self, count: u64, now: Mono) {
        if self.heard.is_none() {
            self.first_heard = now;
        }
        self.heard = Some(now);
        if count > self.count {
            let ahead = count - self.count;
            self.arrived = if self.count == 0 {
                u64::MAX
            } else if ahead < 64 {
                self.arrived << ahead | 1
            } else {
                1
            };
            self.count = count;
        } else if self.count - count < 64 {
            self.arrived |= 1 << (self.count - count);
        }
    }

    /// The peer repeated a datagram that we sent at `sent`, after holding it for `held`.
    pub fn echoed(&mut self, sent: Mono, held: Duration, now: Mono) {
        if self.proven.is_some_and(|proven| sent <= proven) {
            return;
        }
        self.proven = Some(sent);
        let sample = now.since(sent).saturating_sub(held);
        // RFC 6298 §2, with its gains of 1/8 and 1/4.
        match self.rtt {
            None => {
                self.rtt = Some(sample);
                self.jitter = sample / 2;
            }
            Some(rtt) => {
                self.jitter = (self.jitter * 3 + rtt.abs_diff(sample)) / 4;
                self.rtt = Some((rtt * 7 + sample) / 8);
            }
        }
    }

    /// This node slept for `slept`: the silence was its own.
    pub fn forgive(&mut self, slept: Duration, now: Mono) {
        self.heard = self.heard.map(|heard| (heard + slept).min(now));
    }

    /// Whether datagrams come in.
    pub fn comes_in(&self, timing: &Timing, now: Mono) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) <= timing.silent)
    }

    /// Whether a datagram came in lately.
    pub fn lately(&self, timing: &Timing, now: Mono) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) <= timing.lately)
    }

    /// From when on the peer, which was first heard anywhere at `first`, is missed here if nothing more comes in. A network that loses a
    /// third of all loses five in a row now and then, but not ten.
    pub fn missed_at(&self, first: Mono, timing: &Timing) -> Mono {
        let lossy = self.count > 0 && LOSS_WINDOW - self.arrived.count_ones() >= LOSSY;
        let patience = if lossy { timing.window } else { timing.missed };
        self.heard.unwrap_or(first) + patience
    }

    /// The link's state at `now`.
    pub fn state(&self, timing: &Timing, now: Mono) -> LinkState {
        let Some(heard) = self.heard else {
            return LinkState::Down;
        };
        let silent = now.since(heard);
        if silent > timing.silent {
            return LinkState::Down;
        }
        match self.proven {
            Some(proven) if now.since(proven) <= timing.fresh => {}
            // It may simply not have had the time to answer.
            None if now.since(self.first_heard) <= timing.fresh => return LinkState::Late,
            _ => return LinkState::OneWay,
        }
        if silent > timing.late {
            LinkState::Late
        } else {
            LinkState::Up
        }
    }

    /// When a datagram last came in.
    pub fn last_heard(&self) -> Option<Mono> {
        self.heard
    }

    /// Greatest sequence seen.
    pub fn greatest(&self) -> u64 {
        self.greatest
    }

    /// Smoothed round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Its smoothed deviation.
    pub fn jitter(&self) -> Duration {
        self.jitter
    }

    /// Share of the peer's last 64 heartbeats that did not arrive here.
    pub fn loss(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            f64::from(LOSS_WINDOW - self.arrived.count_ones()) / f64::from(LOSS_WINDOW)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn timing() -> Timing {
        Timing::new(Duration::from_secs(1))
    }

    #[test]
    fn replays_are_refused_and_reordering_is_not() {
        let mut link = Link::default();
        assert!(link.accept(10) && link.accept(12) && link.accept(11));
        assert!(!link.accept(10) && !link.accept(11) && !link.accept(12));
        assert!(link.accept(500));
        assert!(!link.accept(12), "too old to tell");
        assert!(link.accept(500 - 127));
    }

    #[test]
    fn up_needs_both_directions() {
        let (mut link, t) = (Link::default(), timing());
        assert_eq!(link.state(&t, Mono(0)), LinkState::Down);
        link.heard(1, Mono(100 * MS));
        assert_eq!(link.state(&t, Mono(100 * MS)), LinkState::Late);
        link.echoed(Mono(50 * MS), Duration::from_millis(49), Mono(100 * MS));
        assert_eq!(link.state(&t, Mono(100 * MS)), LinkState::Up);
        assert_eq!(link.rtt(), Some(Duration::from_millis(1)));
        for n in 2..12 {
            link.heard(n, Mono(n * 100 * MS));
        }
        assert_eq!(
            link.state(&t, Mono(1100 * MS)),
            LinkState::OneWay,
            "it no longer hears us"
        );
        assert_eq!(link.state(&t, Mono(1800 * MS)), LinkState::Down);
    }

    #[test]
    fn own_sleep_is_not_held_against_the_peer() {
        let (mut link, t) = (Link::default(), timing());
        link.heard(1, Mono(0));
        link.forgive(Duration::from_secs(9), Mono(9_000 * MS));
        assert!(link.comes_in(&t, Mono(9_100 * MS)));
    }

    #[test]
    fn silence_is_believed_after_half_a_window_and_on_a_link_that_loses_much_after_a_whole_one() {
        let (mut link, t) = (Link::default(), timing());
        assert_eq!(
            link.missed_at(Mono(7 * MS), &t),
            Mono(512 * MS),
            "never heard there"
        );
        for n in 1..=100 {
            link.heard(n, Mono(n * 100 * MS));
        }
        assert_eq!(link.missed_at(Mono(0), &t), Mono(10_505 * MS));
        assert!(link.lately(&t, Mono(10_250 * MS)) && !link.lately(&t, Mono(10_251 * MS)));
        link.heard(105, Mono(10_500 * MS));
        assert_eq!(link.missed_at(Mono(0), &t), Mono(11_500 * MS), "four were lost");
    }

    #[test]
    fn loss_is_counted_over_the_last_heartbeats() {
        let mut link = Link::default();
        for n in 1..=200 {
            if n % 4 != 0 {
                link.heard(n, Mono(n));
            }
        }
        assert!((link.loss() - 0.25).abs() < 0.02, "{}", link.loss());
    }
}
