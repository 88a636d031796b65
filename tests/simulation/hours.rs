//! The time of the farm, as nobody in it can see it: whether a request was refused rightly for what its requester's clock shows.

use node::client::order::OrderError;
use node::clock::Clock;
use node::network::CallError;
use protocol::farm::command::Rejection;
use protocol::time::{Span, Timestamp};
use protocol::wire::Refusal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How far ahead of the coordinator's a requester's clock may be.
pub(crate) const CLOCK_AHEAD: Duration = Duration::from_secs(300);

/// Why a request was refused for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was made in the coordinator's future.
    Ahead,
    /// It had expired when it came.
    Stale,
}

impl Refused {
    /// What the farm's answer says about the clock.
    pub(crate) fn of(error: &OrderError) -> Option<Self> {
        match error {
            OrderError::Rejected(Rejection::Stale) => Some(Self::Stale),
            OrderError::NoCoordinator(none) => none.tried.iter().find_map(|(_, error)| match error {
                CallError::Refused { refusal: Refusal::ClockAhead, .. } => Some(Self::Ahead),
                _ => None,
            }),
            _ => None,
        }
    }
}

/// The coordinator's clock, while it is up. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct FarmTime {
    started: Instant,
    clock: Arc<Mutex<Option<Clock>>>,
}

/// When something was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    at: Instant,
    /// What the requester's clock showed.
    issued: Timestamp,
    /// What the coordinator's clock would have shown when the run began.
    shift: Option<Timestamp>,
}

impl FarmTime {
    /// Nobody coordinates yet.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), clock: Arc::default() }
    }

    /// The coordinator starts with this clock, or stops.
    pub(crate) fn set(&self, clock: Option<Clock>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = clock;
    }

    /// Somebody with this clock is about to ask.
    pub(crate) fn look(&self, own: &Clock) -> Asked {
        Asked { at: Instant::now(), issued: own.now(), shift: self.shift() }
    }

    /// How far this clock is behind the coordinator's.
    pub(crate) fn behind(&self, own: &Clock) -> Duration {
        self.now().map(|now| now.since(own.now())).unwrap_or_default()
    }

    /// Whether what was asked then may have been refused like that.
    pub(crate) fn justifies(&self, refused: Refused, asked: &Asked, ttl: Span) -> Result<(), String> {
        let Some(now) = self.now().filter(|_| asked.shift == self.shift()) else {
            // The coordinator's clock has been set meanwhile: it may have been right at the time.
            return Ok(());
        };
        let took = asked.at.elapsed();
        let is_right = match refused {
            Refused::Ahead => asked.issued + took * 2 > now + CLOCK_AHEAD,
            Refused::Stale => asked.issued + ttl.duration() <= now,
        };
        let (issued, now) = (asked.issued.as_millis(), now.as_millis());
        let off_ms = i128::from(issued) - i128::from(now);
        is_right.then_some(()).ok_or_else(|| format!("was refused as {refused:?}, though his clock is {off_ms} ms off"))
    }

    fn now(&self) -> Option<Timestamp> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Clock::now)
    }

    fn shift(&self) -> Option<Timestamp> {
        Some(self.now()? - self.started.elapsed())
    }
}
