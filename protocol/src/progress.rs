//! How an attempt goes, as far as its volunteer can tell cheaply: carried by heartbeats, soft, and never part of the farm.
//!
//! Nobody can prove from outside that a build gets nearer to its end. What can be told is whether anything moves: a phase
//! that changes, bytes that arrive, output that grows, processor time that is used. A compiler that says nothing uses the
//! processor; a build that waits for something that never comes does none of it. [`Progress`] is compared and never summed:
//! any difference is a sign of progress, and the same again is none.

use crate::id::LeaseId;
use crate::time::Span;
use serde::{Deserialize, Serialize};

/// What an attempt is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Recipe and source are fetched and unpacked.
    #[default]
    Fetching,
    /// Steps or the smoke test run.
    Building,
    /// Outputs are taken into the store.
    Collecting,
    /// It has ended, and the report waits to be heard.
    Reporting,
}

/// What an attempt has come to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Bytes of the source that have arrived.
    pub fetched_bytes: u64,
    /// Bytes that the build has written to its log, kept or not.
    pub log_bytes: u64,
    /// Processor time of all its processes, when it last was enough to count as work.
    pub cpu: Span,
}

/// A lease that a volunteer holds, and how its attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// The lease.
    pub lease: LeaseId,
    /// What has come of it.
    pub progress: Progress,
}

/// How an attempt moves, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Motion {
    /// What it does.
    pub phase: Phase,
    /// For how long there has been no sign of progress, in whole minutes; `None` below one.
    pub still_for: Option<Span>,
}
