//! True time, which only the world knows, and each node's clock, which is a little off.

use crate::control::ground::Clock;
use baton_shared::clock::Mono;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The wall clock at the beginning of every life, Unix milliseconds.
const WALL: u64 = 1_700_000_000_000;
const MILLION: u64 = 1_000_000;

/// One node's clock: true time at a rate of its own, from an instant of its own.
#[derive(Clone, Debug)]
pub(super) struct SimClock(Arc<Pace>);

#[derive(Debug)]
struct Pace {
    /// Nanoseconds of this clock in a million nanoseconds of true time.
    rate: u64,
    /// What it shows at true time 0, in nanoseconds. Another after the machine lost power.
    offset: AtomicU64,
}

impl SimClock {
    /// A clock that is `drift` millionths fast, and shows `offset` at true time 0.
    pub(super) fn new(drift: i64, offset: Duration) -> SimClock {
        let clock = SimClock(Arc::new(Pace {
            rate: MILLION.saturating_add_signed(drift),
            offset: AtomicU64::new(0),
        }));
        clock.set(offset);
        clock
    }

    /// The machine was started again: its clock begins elsewhere.
    pub(super) fn set(&self, offset: Duration) {
        self.0.offset.store(nanos(offset), Relaxed);
    }

    /// What it shows at the true time `at`.
    pub(super) fn at(&self, at: Duration) -> Mono {
        let run = u128::from(nanos(at)) * u128::from(self.0.rate) / u128::from(MILLION);
        Mono(self.0.offset.load(Relaxed) + u64::try_from(run).unwrap_or(u64::MAX))
    }

    /// How much true time `span` of this clock takes, rounded up.
    pub(super) fn truly(&self, span: Duration) -> Duration {
        let truly = (u128::from(nanos(span)) * u128::from(MILLION)).div_ceil(u128::from(self.0.rate));
        Duration::from_nanos(u64::try_from(truly).unwrap_or(u64::MAX))
    }
}

/// Read on the node itself.
impl Clock for SimClock {
    fn now(&self) -> Mono {
        self.at(now())
    }

    fn wall_ms(&self) -> u64 {
        wall_ms()
    }
}

/// The wall clock of every node, Unix milliseconds, on a simulated host.
pub(super) fn wall_ms() -> u64 {
    WALL + u64::try_from(now().as_millis()).unwrap_or(u64::MAX)
}

/// True time, on a simulated host.
pub(super) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
