//! Reproducible random numbers: a run depends only on its seed.

use std::time::Duration;

/// xorshift64*. The supervisor uses a different generator, so that the two are not correlated.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d | 1);
        for _ in 0..8 {
            chance.next();
        }
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0…limit−1.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit.max(1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    pub(crate) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        let position = self.below(choices.len() as u64) as usize;
        choices[position].clone()
    }

    /// A duration up to `limit`; the extremes and short durations are frequent.
    pub(crate) fn up_to(&mut self, limit: Duration) -> Duration {
        let nanoseconds = limit.as_nanos() as u64;
        match self.below(8) {
            0 => Duration::ZERO,
            1 => limit,
            2 | 3 => Duration::from_nanos(self.below(nanoseconds / 100 + 1)),
            _ => Duration::from_nanos(self.below(nanoseconds + 1)),
        }
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_nanos(from * 1_000_000 + self.below((to - from).max(1) * 1_000_000))
    }
}
