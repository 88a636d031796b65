//! What peers say to one another directly.
//!
//! Two protocols of request and response, both canonical CBOR: `control/1` for calls that are answered at once, `park/1` for
//! calls that may wait for something to happen. Limits: [`MAX_CONTROL_BYTES`] a message, [`CONTROL_TIMEOUT`] for a control
//! call, [`PARK_TIMEOUT`] for a parked one. Bytes of artifacts never travel here; they have `bulk/1`.
//!
//! The connection says who calls: its peer id is authenticated, and a handler sees it as [`PeerKey`].

use crate::codec;
use crate::digest::Digest;
use crate::farm::command::{Rejection, Submitted};
use crate::farm::explain::{Presence, RequestView};
use crate::id::{BuildKey, JobId, LeaseId, ManifestId, PeerKey, RequestId};
use crate::owner::StoreAnswer;
use crate::platform::Capability;
use crate::progress::Pulse;
use crate::report::{Fingerprint, Judged};
use crate::request::Priority;
use crate::signed::Signed;
use crate::ticket::Ticket;
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The largest control or park message.
pub const MAX_CONTROL_BYTES: usize = 256 << 10;
/// How long a control call may take in all.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a parked call may wait in all; longer than [`CLAIM_WAIT`] with its spread.
pub const PARK_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a parked call waits before it is answered with nothing; each caller varies it by a fifth.
pub const CLAIM_WAIT: Duration = Duration::from_secs(50);
/// The most bytes of log in one answer.
pub const MAX_LOG_BYTES: usize = 64 << 10;
/// The most rows of a list in one answer.
pub const MAX_ROWS: usize = 500;
/// Room for what is around the rows of an answer.
const ROW_FRAME_BYTES: usize = 1 << 10;
/// The version of this protocol family.
pub const PROTOCOL_VERSION: u16 = 1;

/// The first of `rows` that fit into one answer.
pub fn fitting<R: Serialize>(rows: impl IntoIterator<Item = R>) -> Vec<R> {
    let mut room = MAX_CONTROL_BYTES - ROW_FRAME_BYTES;
    let fits = |row: &R| {
        let left = room.checked_sub(codec::encode(row).len());
        room = left.unwrap_or_default();
        left.is_some()
    };
    rows.into_iter().take(MAX_ROWS).take_while(fits).collect()
}

/// The first exchange on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the program, for people.
    pub program: String,
    /// Must be equal on both sides.
    pub protocol: u16,
    /// Version and envelope digest of the charter in force, as far as known.
    pub charter: Option<(u64, Digest)>,
    /// The caller's clock.
    pub clock: Timestamp,
    /// What it can do, when it is a volunteer.
    pub capability: Option<Capability>,
    /// Where it listens, best first; empty for a command. At most [`crate::ticket::MAX_ADDRESSES`].
    pub addresses: Vec<String>,
}

/// A call that is answered at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// The first exchange.
    Hello(Hello),
    /// The charter in force, in its envelope.
    Charter,
    /// The farm's ticket, as this peer would write it now.
    Ticket,
    /// A request with its subscriptions, each in its envelope.
    Submit {
        /// The request.
        request: Signed,
        /// Its subscriptions.
        subscriptions: Vec<Signed>,
    },
    /// Nobody wants it any more, in its envelope.
    Cancel(Signed),
    /// Is this build known here, and who holds it?
    Find(BuildKey),
    /// One request.
    Request(RequestRef),
    /// The queue and the farm at a glance.
    Farm,
    /// The volunteers known here.
    Volunteers,
    /// Finished builds, newest first, [`MAX_ROWS`] at most.
    Builds,
    /// A stretch of a request's log from here, as far as it is there.
    Log {
        /// The request.
        request: RequestId,
        /// What was read already.
        from: LogPosition,
    },
    /// A volunteer is alive and runs these leases, all of them.
    Heartbeat {
        /// Every lease held, and how its attempt goes.
        pulses: Vec<Pulse>,
    },
    /// A volunteer will not attempt it.
    Refuse {
        /// The lease.
        lease: LeaseId,
        /// Why, for people.
        reason: String,
    },
    /// A volunteer gives it back.
    HandBack {
        /// The lease.
        lease: LeaseId,
    },
    /// A volunteer's report in its envelope.
    Report(Signed),
    /// To a volunteer: a stretch of the log of a running lease.
    ReadLog {
        /// The lease.
        lease: LeaseId,
        /// Bytes already read.
        offset: u64,
    },
    /// Nobody that was asked still holds this build.
    Missing {
        /// The build.
        build_key: BuildKey,
    },
    /// A peer holds a judged build no more.
    Evicted {
        /// The build.
        build_key: BuildKey,
    },
    /// A volunteer holds a judged build after all that it had given up.
    Holding {
        /// The build.
        build_key: BuildKey,
        /// The artifact.
        manifest: ManifestId,
    },
}

/// How a request is named on the command line: in full or by at least eight leading digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestRef {
    /// In full.
    Id(RequestId),
    /// Lower-case hexadecimal digits, 8 to 64.
    Prefix(String),
}

/// A call that may wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Park {
    /// A volunteer with a free slot wants work.
    Claim {
        /// Distinguishes claims; the same nonce gets the same lease.
        nonce: u64,
        /// What it can do now.
        capability: Capability,
        /// Leases it runs already.
        leases: Vec<LeaseId>,
        /// How long to wait before answering with nothing.
        wait: Span,
    },
    /// Tell when the request is no longer as the caller saw it.
    Watch {
        /// The request.
        request: RequestId,
        /// The view the caller has, by [`view_mark`]; zero for none.
        mark: u64,
        /// How long to wait.
        wait: Span,
    },
    /// Tell when the log is longer than this, or complete.
    FollowLog {
        /// The request.
        request: RequestId,
        /// What was read already.
        from: LogPosition,
        /// How long to wait.
        wait: Span,
    },
    /// To a volunteer: the same for a running lease.
    FollowLease {
        /// The lease.
        lease: LeaseId,
        /// Bytes already read.
        offset: u64,
        /// How long to wait.
        wait: Span,
    },
    /// To any daemon: a wish of its owner, a [`crate::owner::OwnersWord`] in its envelope. It may take a while.
    Owner(Signed),
}

/// A number that changes when the view does.
#[must_use]
pub fn view_mark(view: &RequestView) -> u64 {
    let digest = Digest::of(&crate::codec::encode(view));
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_be_bytes(first) | 1
}

/// What a volunteer needs to attempt a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The lease.
    pub lease: LeaseId,
    /// The job.
    pub job: JobId,
    /// Take it up by heartbeat within this time.
    pub take_up_within: Span,
    /// The requester's word on what is to be built.
    pub request: Signed,
}

/// A volunteer as a peer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolunteerView {
    /// The volunteer.
    pub volunteer: PeerKey,
    /// What it says it can do.
    pub capability: Capability,
    /// Whether it could start now.
    pub presence: Presence,
    /// Slots in use.
    pub busy: u16,
    /// How long ago it was heard.
    pub heard: Span,
}

/// What a peer that is no coordinator knows of a request. It proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardRequest {
    /// The request.
    pub request: RequestId,
    /// The build.
    pub build_key: BuildKey,
    /// What it is said to do.
    pub state: HeardState,
    /// How long ago that was heard.
    pub heard: Span,
    /// Volunteers that are heard of with a free slot. Whether they could build it is not known here.
    pub free: u32,
    /// Volunteers that are heard of without one.
    pub busy: u32,
}

/// What a request is said to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HeardState {
    /// It waited for a volunteer.
    Waiting,
    /// The peer that answers builds it.
    Building,
    /// There is a verdict on its build.
    Judged,
}

/// The farm at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmView {
    /// Jobs that wait for a volunteer or a source.
    pub queued: u64,
    /// Jobs with a lease, and those that wait for a second holder.
    pub running: u64,
    /// Judged builds.
    pub finished: u64,
    /// Volunteers heard lately.
    pub volunteers: u64,
    /// Mails that wait to be sent.
    pub mails_waiting: u64,
    /// Mails that could not be sent for good, with the reason, newest first.
    pub mails_failed: Vec<String>,
    /// The first rows of the queue, in order.
    pub queue: Vec<QueueRow>,
}

/// One row of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Oldest living request of the job.
    pub request: RequestId,
    /// Recipe, for people.
    pub recipe: String,
    /// How urgent.
    pub priority: Priority,
    /// What it does.
    pub view: RequestView,
}

/// A finished build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRow {
    /// The build.
    pub build_key: BuildKey,
    /// Recipe, for people.
    pub recipe: String,
    /// The artifact.
    pub manifest: ManifestId,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Peers known to hold it.
    pub holders: u32,
    /// The environment it was built in.
    pub environment: Fingerprint,
    /// The farm's time.
    pub decided_at: Timestamp,
}

/// How far somebody has read the log of a request. Each attempt has a log of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// The attempt, counted from 1; 0 before anything was read.
    pub attempt: u32,
    /// Bytes of its log.
    pub offset: u64,
}

/// A stretch of the log of a request's latest attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLog {
    /// The attempt, counted from 1; 0 before the first.
    pub attempt: u32,
    /// From where it was asked for, or from the beginning if that was in the log of another attempt. Complete only when no
    /// other attempt will follow.
    pub part: LogPart,
}

/// A stretch of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPart {
    /// Where these bytes begin; later than asked when the log was cut in the middle.
    pub offset: u64,
    /// The bytes, as the build wrote them: escape before showing.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Whether more may come.
    pub state: LogState,
}

/// Whether a log may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogState {
    /// Nothing has started yet.
    NotStarted,
    /// It may grow.
    Growing,
    /// It is complete with these bytes.
    Complete,
}

/// The answer to a control or parked call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Hello`.
    Hello(Hello),
    /// To `Charter`; `None` where no charter is known.
    Charter(Option<Signed>),
    /// To `Ticket`.
    Ticket(Box<Ticket>),
    /// To `Submit`.
    Submitted {
        /// The request as the farm knows it.
        request: RequestId,
        /// What it met.
        submitted: Submitted,
        /// Blobs (recipe, manifest, chunks) that the farm lacks and now pulls from the caller over this connection.
        missing: Vec<Digest>,
    },
    /// To `Find`.
    Found {
        /// The verdict with its chain, if known here.
        judged: Option<Box<Judged>>,
        /// Peers said to hold the artifact, with addresses.
        holders: Vec<crate::ticket::Contact>,
    },
    /// To `Request` and `Watch`; `None` where it is not known.
    Request(Option<(RequestId, Box<RequestView>)>),
    /// To `Request`, from a peer that is no coordinator and reaches none; `None` where it has heard nothing.
    Heard(Option<Box<HeardRequest>>),
    /// To `Farm`.
    Farm(Box<FarmView>),
    /// To `Volunteers`.
    Volunteers(Vec<VolunteerView>),
    /// To `Builds`.
    Builds(Vec<BuildRow>),
    /// To `Log` and `FollowLog`; `None` where there is no such request.
    RequestLog(Option<RequestLog>),
    /// To `ReadLog` and `FollowLease`; `None` where there is no such log.
    Log(Option<LogPart>),
    /// To `Heartbeat`: leases that are no more; stop them.
    Revoked(Vec<LeaseId>),
    /// To `Claim`; `None` when nothing came up in time.
    Offer(Option<Box<Offer>>),
    /// To `Owner`.
    Store(Box<StoreAnswer>),
    /// Done.
    Done,
    /// The law says no.
    Rejected(Rejection),
    /// The peer says no.
    Refused(Refusal),
}

/// Why a peer does not answer a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It is no coordinator; these are, as far as it knows.
    #[error("not a coordinator")]
    NotACoordinator,
    /// It is a coordinator but not the leader now.
    #[error("not the leader now")]
    NotTheLeader,
    /// It speaks another version of the protocol.
    #[error("speaks protocol version {0}")]
    Version(u16),
    /// It belongs to another farm.
    #[error("belongs to another farm")]
    OtherFarm,
    /// The call is not valid.
    #[error("the call is not valid: {0}")]
    Invalid(String),
    /// The caller may not ask for this.
    #[error("not allowed")]
    NotAllowed,
    /// Too much is asked at the same time.
    #[error("busy")]
    Busy,
    /// Something of its own failed.
    #[error("failed: {0}")]
    Failed(String),
    /// It is shutting down.
    #[error("shutting down")]
    ShuttingDown,
    /// What the caller signed is from the future, by the coordinator's clock.
    #[error("the caller's clock is ahead")]
    ClockAhead,
}
