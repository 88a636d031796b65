//! A bucket of tokens: so many at once, so many over time.

use std::time::Duration;
use tokio::time::Instant;

/// Refills one token each `every`, up to `most`.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct Bucket {
    tokens: u32,
    most: u32,
    every: Duration,
    refilled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(in crate::network) fn full(most: u32, every: Duration, now: Instant) -> Self {
        Self { tokens: most, most, every, refilled: now }
    }

    /// Whether a token is left.
    pub(in crate::network) fn has_token(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens > 0
    }

    /// Takes a token, if one is left.
    pub(in crate::network) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let had = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        had
    }

    fn refill(&mut self, now: Instant) {
        let periods = now.saturating_duration_since(self.refilled).as_nanos() / self.every.as_nanos().max(1);
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods > 0 {
            self.tokens = self.tokens.saturating_add(periods).min(self.most);
            self.refilled = if self.tokens == self.most { now } else { self.refilled + self.every * periods };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(3, Duration::from_secs(2), start);
        let taken = |bucket: &mut Bucket, at| (0..10).filter(|_| bucket.take(start + Duration::from_secs(at))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 1), 0);
        assert_eq!(taken(&mut bucket, 5), 2);
        assert_eq!(taken(&mut bucket, 6), 1, "the half period was not lost");
        assert_eq!(taken(&mut bucket, 100), 3);
    }
}
