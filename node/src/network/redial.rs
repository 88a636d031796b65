//! When to try again: back-off with jitter.

use std::time::Duration;
use tokio::time::Instant;

/// The first pause after a connection was lost or not had.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause: a coordinator that comes back gives its volunteers 15 s to be heard.
const LONGEST: Duration = Duration::from_secs(8);
/// A connection that lasted this long was a good one: the back-off starts anew.
const GOOD: Duration = Duration::from_secs(10);

/// The redialling of one peer that is to be kept connected.
#[derive(Debug, Default)]
pub(super) struct Redial {
    failures: u32,
    next: Option<Instant>,
}

impl Redial {
    /// An attempt failed, or a connection that lasted `lasted` was lost.
    pub(super) fn lost(&mut self, now: Instant, lasted: Duration) {
        if lasted >= GOOD {
            self.failures = 0;
        }
        self.next = Some(now + spread(pause(self.failures)));
        self.failures = self.failures.saturating_add(1);
    }

    /// Nothing is under way any more though nothing was reported: try again soon.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.next.get_or_insert(now + LONGEST);
    }

    /// Whether it is time for an attempt; if so, the next one waits for this one's outcome.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = None;
        }
        due
    }
}

fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST)
}

/// The duration, a fifth longer or shorter: peers that were lost together do not come back together.
pub(super) fn spread(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.8..=1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses: Vec<_> = (0..8).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
        assert_eq!(pause(u32::MAX), LONGEST);
    }

    /// However long a peer was away: it is dialled within seconds of its return, and was not stormed meanwhile.
    #[test]
    fn hours_of_failure_change_nothing() {
        let (mut redial, start) = (Redial::default(), Instant::now());
        let (mut now, mut attempts) = (start, 0);
        redial.lost(now, GOOD);
        while now - start < Duration::from_secs(24 * 3_600) {
            let before = now;
            while !redial.is_due(now) {
                now += Duration::from_millis(100);
            }
            assert!(now - before <= LONGEST.mul_f64(1.2) + Duration::from_millis(100), "{:?}", now - before);
            attempts += 1;
            redial.lost(now, Duration::ZERO);
        }
        assert!((9_000..=13_600).contains(&attempts), "{attempts} attempts in a day");
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_connection_starts_the_back_off_anew() {
        let mut redial = Redial::default();
        assert!(!redial.is_due(Instant::now()), "nothing was lost yet");
        for _ in 0..6 {
            redial.lost(Instant::now(), Duration::ZERO);
        }
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!redial.is_due(Instant::now()), "six failures: at least 6.4 s");
        redial.lost(Instant::now(), GOOD);
        tokio::time::advance(Duration::from_millis(301)).await;
        assert!(redial.is_due(Instant::now()));
        assert!(!redial.is_due(Instant::now()), "one attempt at a time");
    }
}
