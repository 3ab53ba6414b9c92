//! Everything that follows from the one knob, the window W (DESIGN §1, §5).

use std::time::Duration;

/// Shortest window accepted: heartbeats are at least 3 ms apart and ten of them make a window.
pub const MIN_WINDOW: Duration = Duration::from_millis(30);
/// Longest window accepted.
pub const MAX_WINDOW: Duration = Duration::from_secs(600);
/// Heartbeats are never closer together than this (DESIGN §4).
pub const MIN_INTERVAL: Duration = Duration::from_millis(3);

/// The durations derived from the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// W: how long a silent node keeps its rights.
    pub window: Duration,
    /// W/10: between two heartbeats.
    pub interval: Duration,
    /// 0.99 W, rounded down: from the sending of a granted claim to the end of the lease (H2).
    pub lease: Duration,
    /// 1.01 W, rounded up: from the receipt of a claim to the end of the promise (V2), and the wait after start (V4).
    pub promise: Duration,
    /// 1.02 W, rounded up: between adoption of a joint electorate and the commit of the new one (V5).
    pub change: Duration,
    /// W/2: a report or an echo older than this is no evidence (V1, stepping forward).
    pub fresh: Duration,
    /// A link silent for longer is late.
    pub late: Duration,
    /// A link silent for longer is down, and its peer missed if it was the last.
    pub silent: Duration,
    /// W/4: on a network by which clients come, whoever was heard there within this is heard there now.
    pub lately: Duration,
    /// W/2, and a little so that the heartbeat that is due just then counts: whoever was silent there for longer is missed there.
    pub missed: Duration,
}

impl Timing {
    /// Derives everything from the window.
    pub fn new(window: Duration) -> Timing {
        let w = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX / 200);
        let interval = (window / 10).max(MIN_INTERVAL);
        Timing {
            window,
            interval,
            lease: Duration::from_nanos(w / 100 * 99),
            promise: Duration::from_nanos(w.div_ceil(100) * 101),
            change: Duration::from_nanos(w.div_ceil(100) * 102),
            fresh: window / 2,
            late: interval * 5 / 2,
            silent: interval * 4,
            lately: window / 4,
            missed: window / 2 + window / 200,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_round_to_the_safe_side() {
        for nanos in [30_000_001u64, 1_000_000_000, 999_999_999, 77_777_777_777] {
            let t = Timing::new(Duration::from_nanos(nanos));
            assert!(t.lease.as_nanos() * 100 <= u128::from(nanos) * 99);
            assert!(t.promise.as_nanos() * 100 >= u128::from(nanos) * 101);
            assert!(t.change.as_nanos() * 100 >= u128::from(nanos) * 102);
            // A network that is dead for all must look so before anybody is missed on it, with a heartbeat's age to spare.
            assert!(t.lately + t.interval < t.silent && t.silent < t.missed);
        }
    }
}
