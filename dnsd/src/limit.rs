//! The limit of responses per network of clients: a token bucket for each, in a table that does not grow.
//!
//! Questions with forged addresses turn a name server into a flood for whom the addresses belong to; the limit bounds
//! what any one network is sent. Lock-free, without allocation, and pure: `now` is an argument.

use baton_shared::clock::Mono;
use baton_shared::config::RateLimit;
use baton_shared::prefix::Prefix;
use siphasher::sip::SipHasher13;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Places of the table: 128 KiB. So many networks at once are each limited on their own account.
const PLACES: usize = 1 << 14;
/// Places where one network may be: neighbours in one cache line.
const WAYS: usize = 4;

/// Time is counted in units of 64 ns, in 46 bits: fine enough for a million responses per second. It wraps after 52
/// days, which does no harm, for nothing later than a second ahead is ever in the table.
const UNIT_SHIFT: u32 = 6;
const TIME_BITS: u32 = 46;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const SECOND: u64 = 1_000_000_000 >> UNIT_SHIFT;
/// Behind the time: the responses above the limit since the last one that was sent (slip is at most 10).
const OVER_SHIFT: u32 = TIME_BITS;
const OVER_MASK: u64 = 0xf;
/// And bits of the network's hash.
const TAG_SHIFT: u32 = OVER_SHIFT + 4;

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent.
    Send,
    /// It is sent without its records, and says so (TC).
    Slip,
    /// It is not sent.
    Drop,
}

/// Limits of all networks.
pub(crate) struct Limiter {
    /// By groups of [`WAYS`]. A bucket is kept as the time at which it will be full again (GCRA); 0 was never used.
    places: Box<[AtomicU64]>,
    hash: SipHasher13,
    /// Between two responses, in units.
    interval: u64,
    /// What an empty bucket needs to be full: as many responses as are allowed in a second.
    full: u64,
    slip: u64,
    exempt: Vec<Prefix>,
}

/// A bucket, taken apart.
#[derive(Clone, Copy)]
struct Bucket {
    /// Time until it is full again.
    debt: u64,
    over: u64,
    tag: u64,
}

impl Bucket {
    fn read(word: u64, now: u64, full: u64) -> Bucket {
        let ahead = (word & TIME_MASK).wrapping_sub(now) & TIME_MASK;
        Bucket {
            // Further ahead than any debt: a time in the past.
            debt: if ahead <= full { ahead } else { 0 },
            over: word >> OVER_SHIFT & OVER_MASK,
            tag: word >> TAG_SHIFT,
        }
    }

    fn word(self, now: u64) -> u64 {
        (now + self.debt) & TIME_MASK | self.over << OVER_SHIFT | self.tag << TAG_SHIFT
    }
}

impl Limiter {
    /// A limiter with all buckets full. `seed` is random, so that nobody can choose networks that share a place.
    pub fn new(config: &RateLimit, seed: &[u8; 16]) -> Limiter {
        let rate = u64::from(config.per_second.max(1));
        let interval = SECOND.div_ceil(rate);
        Limiter {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hash: SipHasher13::new_with_key(seed),
            interval,
            full: interval * rate,
            slip: u64::from(config.slip).min(OVER_MASK),
            exempt: config.exempt.clone(),
        }
    }

    /// Judges a response to `ip` at `now`. A bucket holds one second's responses.
    pub fn judge(&self, ip: IpAddr, now: Mono) -> Verdict {
        if self.exempt.iter().any(|prefix| prefix.contains(ip)) {
            return Verdict::Send;
        }
        let now = now.0 >> UNIT_SHIFT & TIME_MASK;
        let hash = self.network(ip);
        let tag = hash >> TAG_SHIFT;
        let group = hash as usize % (PLACES / WAYS) * WAYS;
        let Some(group) = self.places.get(group..group + WAYS) else {
            return Verdict::Send;
        };
        // Once more only if another thread was first, of which there are few.
        loop {
            let (place, word, bucket) = choose(group, tag, now, self.full);
            let (next, verdict) = self.take(bucket);
            let changed = place.compare_exchange_weak(word, next.word(now), Relaxed, Relaxed);
            if changed.is_ok() {
                return verdict;
            }
        }
    }

    fn take(&self, bucket: Bucket) -> (Bucket, Verdict) {
        let debt = bucket.debt + self.interval;
        if debt <= self.full {
            return (
                Bucket {
                    debt,
                    over: 0,
                    ..bucket
                },
                Verdict::Send,
            );
        }
        let over = bucket.over + 1;
        if over == self.slip {
            return (Bucket { over: 0, ..bucket }, Verdict::Slip);
        }
        let over = over.min(OVER_MASK);
        (Bucket { over, ..bucket }, Verdict::Drop)
    }

    /// Hash of the network that an address is limited with: IPv4 /24, IPv6 /56.
    fn network(&self, ip: IpAddr) -> u64 {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.hash.hash(&ip.octets()[..3]),
            IpAddr::V6(ip) => self.hash.hash(&ip.octets()[..7]),
        }
    }
}

/// The place of the network with `tag`: its own, else the one that has least to remember. So a flood of many networks
/// drives out each other, and not the one that is far above its limit.
fn choose(group: &[AtomicU64], tag: u64, now: u64, full: u64) -> (&AtomicU64, u64, Bucket) {
    let mut least: Option<(&AtomicU64, u64, Bucket)> = None;
    for place in group {
        let word = place.load(Relaxed);
        let bucket = Bucket::read(word, now, full);
        if bucket.tag == tag && word != 0 {
            return (place, word, bucket);
        }
        if least.is_none_or(|(_, _, least)| bucket.debt < least.debt) {
            least = Some((place, word, bucket));
        }
    }
    let (place, word, _) = least.expect("a group has WAYS places");
    let new = Bucket {
        debt: 0,
        over: 0,
        tag,
    };
    (place, word, new)
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limiter(per_second: u32, slip: u32) -> Limiter {
        let config = RateLimit {
            per_second,
            slip,
            exempt: vec!["10.9.0.0/16".parse().unwrap()],
        };
        Limiter::new(&config, &[7; 16])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(ms: u64) -> Mono {
        Mono(1_000_000_000_000) + Duration::from_millis(ms)
    }

    fn sent(limiter: &Limiter, from: &str, now: Mono, asked: usize) -> usize {
        (0..asked)
            .filter(|_| limiter.judge(ip(from), now) == Verdict::Send)
            .count()
    }

    #[test]
    fn network_gets_one_seconds_responses_at_once_and_then_its_rate() {
        let limiter = limiter(100, 2);
        assert_eq!(sent(&limiter, "192.0.2.1", at(0), 1_000), 100);
        assert_eq!(sent(&limiter, "192.0.2.200", at(0), 10), 0, "of the same /24");
        assert_eq!(sent(&limiter, "192.0.3.1", at(0), 10), 10, "of another");
        assert_eq!(sent(&limiter, "192.0.2.1", at(100), 1_000), 10);
        assert_eq!(sent(&limiter, "192.0.2.1", at(10_000), 1_000), 100);
        assert_eq!(sent(&limiter, "2001:db8:0:100::1", at(0), 1_000), 100);
        assert_eq!(
            sent(&limiter, "2001:db8:0:1ff::1", at(0), 10),
            0,
            "of the same /56"
        );
        assert_eq!(sent(&limiter, "2001:db8:0:200::1", at(0), 10), 10, "of another");
        assert_eq!(sent(&limiter, "10.9.8.7", at(0), 1_000), 1_000, "exempt");
    }

    #[test]
    fn rates_from_one_to_a_million_are_kept_within_three_per_cent() {
        for rate in [1, 7, 1_000, 300_000, 1_000_000] {
            let limiter = limiter(rate, 0);
            let all = usize::try_from(rate).unwrap();
            let sent = sent(&limiter, "192.0.2.1", at(0), all + all / 10 + 5);
            assert_eq!(sent, all, "{rate}");
            let half = self::sent(&limiter, "192.0.2.1", at(500), 2 * all);
            assert!((all * 48 / 100..=all / 2).contains(&half), "{half} of {rate}");
        }
    }

    #[test]
    fn every_so_many_above_the_limit_slip() {
        for (slip, slipped) in [(0, 0), (1, 60), (2, 30), (3, 20), (10, 6)] {
            let limiter = limiter(1, slip);
            assert_eq!(limiter.judge(ip("192.0.2.1"), at(0)), Verdict::Send);
            let verdicts: Vec<Verdict> = (0..60).map(|_| limiter.judge(ip("192.0.2.1"), at(0))).collect();
            let count = |of| verdicts.iter().filter(|verdict| **verdict == of).count();
            assert_eq!(
                (count(Verdict::Send), count(Verdict::Slip)),
                (0, slipped),
                "{slip}"
            );
            assert_eq!(count(Verdict::Drop), 60 - slipped, "{slip}");
        }
    }

    #[test]
    fn flood_from_many_networks_does_not_free_the_one_above_its_limit() {
        let limiter = limiter(10, 0);
        assert_eq!(sent(&limiter, "192.0.2.1", at(0), 100), 10);
        for n in 0..200_000u32 {
            let other = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x2000_0000 | n << 8));
            limiter.judge(other, at(0));
        }
        assert_eq!(sent(&limiter, "192.0.2.1", at(0), 100), 0);
    }

    #[test]
    fn time_that_wraps_or_stands_back_does_no_harm() {
        let wrap = 1u64 << (TIME_BITS + UNIT_SHIFT);
        let limiter = limiter(100, 0);
        assert_eq!(sent(&limiter, "192.0.2.1", Mono(wrap - 1), 1_000), 100);
        assert_eq!(sent(&limiter, "192.0.2.1", Mono(wrap + 99_000_000), 1_000), 9);
        // Two threads' clock readings may come in either order.
        assert_eq!(sent(&limiter, "192.0.2.1", Mono(wrap + 98_000_000), 1_000), 0);
    }

    #[test]
    fn threads_share_one_limit() {
        let limiter = limiter(10_000, 0);
        let sent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| sent(&limiter, "192.0.2.1", at(0), 20_000)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((9_700..=10_000).contains(&sent), "{sent}");
    }
}
