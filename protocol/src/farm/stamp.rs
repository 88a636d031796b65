//! The leader's stamps: monotonic within a run, and careful with a wall clock that makes no sense.
//!
//! A wall clock behind the last stamp, or more than [`MAX_AHEAD`] ahead of it, is not believed at the start: until it agrees
//! with a connected peer's within [`AGREES_WITHIN`], or the operator says so, stamps go on from the last one, so that a wrong
//! date cannot end every request and is not written into the farm for good. Deadlines are acted on all the same: time that
//! goes on by the monotonic clock brings none of them early, and without them a lost volunteer would keep its lease for ever.
//! A clock that was behind stays so when it is believed: stamps go on from the last one rather than stand still until it has
//! caught up.

use crate::time::{Span, Timestamp};
use std::time::Duration;

/// How far a wall clock may be ahead of the last stamp at the start.
pub const MAX_AHEAD: Span = Span::from_secs(86_400);
/// How near a peer's clock must be to count as agreement.
pub const AGREES_WITHIN: Span = Span::from_secs(300);

/// Whether stamps follow the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It makes sense.
    Trusted,
    /// It does not, and nobody has vouched for it yet: stamps go on from the last one.
    Doubted,
}

/// Gives stamps.
#[derive(Clone, Debug)]
pub struct Stamper {
    /// The wall clock at the start of the run.
    wall: Timestamp,
    /// What a stamp is at the start of the run.
    base: Timestamp,
    last: Timestamp,
    clock: Clock,
}

impl Stamper {
    /// At the start of a run: the farm's last stamp, and the wall clock now.
    #[must_use]
    pub fn start(last: Timestamp, wall: Timestamp) -> Self {
        let new_farm = last == Timestamp::EPOCH;
        let sane = wall >= last && wall.since(last) <= MAX_AHEAD.duration();
        if new_farm || sane {
            Self { wall, base: wall, last, clock: Clock::Trusted }
        } else {
            Self { wall, base: last, last, clock: Clock::Doubted }
        }
    }

    /// The next stamp, `elapsed` after the start by the monotonic clock. Never before an earlier one.
    pub fn stamp(&mut self, elapsed: Duration) -> Timestamp {
        self.last = self.last.max(self.base + elapsed);
        self.last
    }

    /// Another leader's stamp was applied.
    pub fn observe(&mut self, stamp: Timestamp) {
        self.last = self.last.max(stamp);
    }

    /// The wall clock was read again; `wall` is what it would have been at the start of the run. It may have been set right.
    pub fn read_again(&mut self, wall: Timestamp) {
        self.wall = wall;
    }

    /// A peer told its clock, `elapsed` after the start.
    pub fn heard(&mut self, peer: Timestamp, elapsed: Duration) {
        let wall = self.wall + elapsed;
        if wall.since(peer) <= AGREES_WITHIN.duration() && peer.since(wall) <= AGREES_WITHIN.duration() {
            self.trust();
        }
    }

    /// The operator says that the wall clock is right.
    pub fn trust(&mut self) {
        self.base = self.base.max(self.wall);
        self.clock = Clock::Trusted;
    }

    /// What a stamp is at the start of the run, by what is known of the wall clock now.
    #[must_use]
    pub const fn at_start(&self) -> Timestamp {
        self.base
    }

    /// Whether stamps follow the wall clock.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }
}
