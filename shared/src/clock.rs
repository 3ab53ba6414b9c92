//! The one clock that leases and promises are measured on: CLOCK_BOOTTIME, which also counts suspended time.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant of this machine's monotonic clock, in nanoseconds since it booted. It means nothing elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// Before every other instant.
    pub const ZERO: Mono = Mono(0);
    /// After every other instant.
    pub const MAX: Mono = Mono(u64::MAX);

    /// Reads CLOCK_BOOTTIME. Banned in `baton-core` (clippy.toml): there, `now` is an argument.
    pub fn now() -> Mono {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Mono(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, d: Duration) -> Mono {
        Mono(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 / 1_000 % 1_000_000)
    }
}

/// Wall clock, Unix milliseconds: for people and for warnings of skew, never for a lease.
pub fn wall_ms() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (t.tv_sec.max(0) as u64) * 1_000 + t.tv_nsec as u64 / 1_000_000
}
