//! Chance as a value: drawn from the operating system in the program, from a seed in simulation.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A source of chance that clones share. Good for nonces and jitter; secrets are drawn elsewhere.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// Chance that nobody can foresee.
    #[must_use]
    pub fn from_os() -> Self {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        Self(Arc::new(Mutex::new(StdRng::from_seed(seed))))
    }

    /// The same chance for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Any number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.locked().next_u64()
    }

    /// Any sixteen bytes.
    #[must_use]
    pub fn nonce(&self) -> [u8; 16] {
        let mut nonce = [0; 16];
        self.locked().fill_bytes(&mut nonce);
        nonce
    }

    /// `duration`, give or take up to a fifth, so that many nodes do not act in step.
    #[must_use]
    pub fn around(&self, duration: Duration) -> Duration {
        duration.mul_f64(self.locked().random_range(0.8..1.2))
    }

    /// A number below `bound`; zero when `bound` is.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.locked().random_range(0..bound) }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, StdRng> {
        // Any state of the generator is a good one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waiting times that grow from try to try: doubling from `first` to `most`, each give or take a fifth.
#[derive(Clone, Debug)]
pub struct Backoff {
    chance: Chance,
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Waiting times from `first` to `most`.
    #[must_use]
    pub fn new(chance: Chance, first: Duration, most: Duration) -> Self {
        Self { chance, first, most, next: first }
    }

    /// How long to wait before the next try.
    pub fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        self.chance.around(step)
    }

    /// Begins again after success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run() {
        let (one, two) = (Chance::seeded(7), Chance::seeded(7));
        assert_eq!((one.number(), one.nonce(), one.below(9)), (two.number(), two.nonce(), two.below(9)));
        assert_eq!(one.below(0), 0);
    }

    #[test]
    fn waiting_grows_to_its_bound() {
        let mut backoff = Backoff::new(Chance::seeded(1), Duration::from_secs(1), Duration::from_secs(4));
        for whole in [1, 2, 4, 4] {
            let step = backoff.step().as_secs_f64();
            assert!((f64::from(whole) * 0.8..=f64::from(whole) * 1.2).contains(&step), "{step} about {whole}");
        }
        backoff.reset();
        assert!(backoff.step() < Duration::from_millis(1_300));
    }
}
