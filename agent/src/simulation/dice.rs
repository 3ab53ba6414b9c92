//! Every random draw of a life, from its seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A stream of random numbers (xorshift64*). Clones draw from the same stream.
#[derive(Clone, Debug)]
pub(super) struct Dice(Arc<Mutex<u64>>);

impl Dice {
    /// The stream of `seed`; `what` sets streams of one seed apart.
    pub(super) fn new(seed: u64, what: &str) -> Dice {
        let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x9E37_79B9_7F4A_7C15;
        for byte in what.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        let dice = Dice(Arc::new(Mutex::new(state | 1)));
        for _ in 0..8 {
            dice.roll(2); // the first draws of neighbouring seeds are alike
        }
        dice
    }

    /// From 0 to `n - 1`; 0 if `n` is 0.
    pub(super) fn roll(&self, n: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        let drawn = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16;
        drawn.checked_rem(n).unwrap_or(0)
    }

    /// True once in `n`.
    pub(super) fn one_in(&self, n: u64) -> bool {
        self.roll(n) == 0
    }

    /// True in so many of a thousand.
    pub(super) fn per_mille(&self, share: u64) -> bool {
        self.roll(1000) < share
    }

    /// Less than `limit`, to the microsecond.
    pub(super) fn up_to(&self, limit: Duration) -> Duration {
        Duration::from_micros(self.roll(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)))
    }
}
