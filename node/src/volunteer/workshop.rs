//! What turns an accepted request into bytes and an outcome. The program has one that builds in the sandbox; the simulation
//! has one that pretends.

use super::build_log::BuildLog;
use super::vitals::Vitals;
use futures::future::BoxFuture;
use protocol::id::LeaseId;
use protocol::report::{Fingerprint, Outcome};
use protocol::request::CheckedRequest;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What is to be attempted.
#[derive(Clone, Debug)]
pub struct Order {
    /// The lease; also the name of the work folder.
    pub lease: LeaseId,
    /// Which of the volunteer's slots it runs in, from 0.
    pub slot: u16,
    /// The requester's word on what is to be built, its signature checked.
    pub request: CheckedRequest,
    /// Where the output of the build goes, line by line as it comes.
    pub log: BuildLog,
    /// Told how it goes.
    pub vitals: Vitals,
    /// Cancelled when nobody wants the result any more.
    pub stop: CancellationToken,
}

/// What came of an attempt that was not stopped.
#[derive(Clone, Debug)]
pub struct Made {
    /// How it ended. When built, the artifact is in the store.
    pub outcome: Outcome,
    /// The environment it ran in.
    pub fingerprint: Fingerprint,
    /// Time to get and unpack the source.
    pub fetched: Duration,
    /// Time of the steps.
    pub built: Duration,
}

/// The attempt was stopped from outside; there is nothing to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Whether this machine has room for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// It has.
    Enough,
    /// Its disk is full; whatever a build wrote would be cut off.
    DiskFull,
}

/// Attempts builds.
pub trait Workshop: Send + Sync + std::fmt::Debug {
    /// Whether this volunteer will attempt the request; if not, why, for people.
    ///
    /// # Errors
    ///
    /// The reason for refusing.
    fn accept(&self, request: &CheckedRequest) -> Result<(), String>;

    /// Whether there is room for any attempt now.
    fn space(&self) -> Space {
        Space::Enough
    }

    /// Attempts it. When this returns no process of the build is alive.
    fn attempt(&self, order: Order) -> BoxFuture<'_, Result<Made, Stopped>>;
}
