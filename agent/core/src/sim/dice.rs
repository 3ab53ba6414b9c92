//! Random numbers that are the same in every run.

use std::time::Duration;

/// xorshift64: good enough to choose faults, and nothing to depend on.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// A stream for a seed. Neighbouring seeds begin alike, so the first draws are thrown away.
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1);
        for _ in 0..8 {
            dice.roll(2);
        }
        dice
    }

    /// From 0 to `n` − 1.
    pub fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, share: u64) -> bool {
        self.roll(100) < share
    }

    /// Up to so many milliseconds, in nanoseconds.
    pub fn up_to_ms(&mut self, ms: u64) -> u64 {
        self.roll(ms * super::MS)
    }

    /// Up to `d`.
    pub fn up_to(&mut self, d: Duration) -> u64 {
        self.roll(d.as_nanos() as u64 + 1)
    }

    /// One of them, if there is one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.roll(from.len() as u64) as usize).copied()
    }
}
