//! The node's clock: read from the wall once, monotonic from then on.
//!
//! Whatever happens to the system's clock while a node runs, its stamps advance steadily. Over a paused runtime it stands
//! still until the runtime's time is advanced, which is what the simulation needs.

use protocol::time::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Tells the time. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    at_start: Arc<Mutex<Timestamp>>,
    wall: Wall,
}

/// What the system's clock is.
#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    /// It showed this at the start, and nobody sets it.
    Set(Timestamp),
}

impl Clock {
    /// A clock set by the system's.
    #[must_use]
    pub fn system() -> Self {
        Self { wall: Wall::System, ..Self::set_to(wall_now()) }
    }

    /// A clock that shows `now` now.
    #[must_use]
    pub fn set_to(now: Timestamp) -> Self {
        Self { started: Instant::now(), at_start: Arc::new(Mutex::new(now)), wall: Wall::Set(now) }
    }

    /// What the system's clock would have shown when this one was started, as far as it is to be believed now: somebody may
    /// have set it right meanwhile.
    #[must_use]
    pub fn wall_at_start(&self) -> Timestamp {
        match self.wall {
            Wall::System => Timestamp::EPOCH + wall_now().since(Timestamp::EPOCH).saturating_sub(self.elapsed()),
            Wall::Set(at_start) => at_start,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        *self.at_start() + self.elapsed()
    }

    /// What the system's clock shows: for words to peers, who compare it with theirs.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.wall_at_start() + self.elapsed()
    }

    /// How long this clock has run, whatever it shows.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sets what it would have shown when it was started: for a coordinator that doubts the system's clock.
    pub fn correct(&self, at_start: Timestamp) {
        *self.at_start() = at_start;
    }

    fn at_start(&self) -> std::sync::MutexGuard<'_, Timestamp> {
        // A timestamp is whole at any time.
        self.at_start.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the system's clock shows.
fn wall_now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_advances_with_the_runtime() {
        let clock = Clock::set_to(Timestamp::from_millis(1_000));
        assert_eq!(clock.now(), Timestamp::from_millis(1_000));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1_250));
        clock.correct(Timestamp::from_millis(0));
        assert_eq!(clock.now(), Timestamp::from_millis(250));
    }
}
