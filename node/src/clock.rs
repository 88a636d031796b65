//! The node's clock: read from the wall once, monotonic from then on.
//!
//! Whatever happens to the system's clock while a node runs, its stamps advance steadily. Over a paused runtime it stands
//! still until the runtime's time is advanced, which is what the simulation needs.

use protocol::time::Timestamp;
use std::time::SystemTime;
use tokio::time::Instant;

/// Tells the time.
#[derive(Clone, Debug)]
pub struct Clock {
    wall_at_start: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock set by the system's.
    #[must_use]
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::set_to(Timestamp::EPOCH + since_epoch)
    }

    /// A clock that shows `now` now.
    #[must_use]
    pub fn set_to(now: Timestamp) -> Self {
        Self { wall_at_start: now, started: Instant::now() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.wall_at_start + self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_advances_with_the_runtime() {
        let clock = Clock::set_to(Timestamp::from_millis(1_000));
        assert_eq!(clock.now(), Timestamp::from_millis(1_000));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1_250));
    }
}
