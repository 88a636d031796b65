//! What can be said to the law, and what it answers.
//!
//! A [`Command`] states what somebody did or what a deadline did; [`Reply`] is for whoever proposed it, [`Event`]s are for
//! everybody else. Facts that the law cannot know because they are soft (who is alive, which bytes are held) come as
//! arguments of the command, so that the same entries give the same farm on every coordinator. Signatures are checked by
//! whoever proposes; the law reads the payloads and checks who may do what.

use crate::farm::explain::Ended;
use crate::farm::lease::Bounds;
use crate::id::{BuildKey, CapabilityId, JobId, LeaseId, ManifestId, NoticeId, PeerKey, RequestId};
use crate::report::Holding;
use crate::request::Subscription;
use crate::signed::Signed;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The largest encoding of a command. Larger things are blobs named by digest.
pub const MAX_COMMAND_BYTES: usize = 16 << 10;

/// The law's version: rules change behind it, and it rises only by [`Command::RaiseLaw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LawVersion(pub u16);

impl LawVersion {
    /// The newest law that this program can apply.
    pub const NEWEST: Self = Self(1);
}

/// One line of the farm's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its position, rising; names jobs and leases.
    pub index: u64,
    /// The leader's stamp.
    pub now: Timestamp,
    /// What is said.
    pub command: Command,
}

/// Whether the farm holds recipe and source of a new job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Possession {
    /// All of it: the job can be granted.
    Held,
    /// Not yet: the job waits for [`Command::SourceHeld`].
    Awaited,
}

/// Whether, as the leader sees it, another volunteer that could attempt the job is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Witnesses {
    /// At least one.
    Alive,
    /// None.
    Nobody,
}

/// A deadline that passed, as the leader's clock or liveness saw it. The law checks what it can check again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Expiry {
    /// The lease was never taken up.
    Undelivered(LeaseId),
    /// The volunteer that held it fell silent.
    VolunteerLost(LeaseId),
    /// The volunteer that holds it is heard, and the attempt shows no sign of progress.
    Stuck(LeaseId),
    /// The attempt has taken as long as it may.
    Overdue(LeaseId),
    /// The request reached its own expiry.
    Request(RequestId),
    /// The source did not arrive in time.
    Source(JobId),
    /// No other volunteer confirmed a build error in time.
    Confirmation(JobId),
    /// No keeper stored the artifact in time.
    Keeping(JobId),
    /// Volunteers that had trouble with the job may be asked again.
    Exclusion(JobId),
}

/// How long-lived a failure to send mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permanence {
    /// Try again later (SMTP 4xx, no connection).
    Transient,
    /// Never try again (SMTP 5xx).
    Permanent,
}

/// Everything that changes a farm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry: the charter in its envelope.
    Found {
        /// Signed by the farm key.
        charter: Signed,
    },
    /// Somebody asks, or asks again, perhaps for more addresses to be told.
    Submit {
        /// The request in its envelope.
        request: Signed,
        /// Who is to be told; each names this request and was signed by the same key.
        subscriptions: Vec<Subscription>,
        /// Whether the farm holds what the job needs.
        source: Possession,
    },
    /// The requester does not want it any more.
    Cancel {
        /// The request.
        request: RequestId,
        /// Who signed the cancellation.
        by: PeerKey,
    },
    /// Recipe and source of a job are all here.
    SourceHeld {
        /// The job.
        job: JobId,
    },
    /// A volunteer gets a job.
    Grant {
        /// The job.
        job: JobId,
        /// The volunteer.
        volunteer: PeerKey,
        /// What it said it can do; remembered with a refusal.
        capability: CapabilityId,
        /// The environment it would build in.
        fingerprint: crate::report::Fingerprint,
        /// The claim that is answered; the same nonce gets the same lease.
        nonce: u64,
        /// How long the attempt may take.
        bounds: Bounds,
    },
    /// A volunteer will not attempt what it was granted.
    Refuse {
        /// The lease.
        lease: LeaseId,
        /// Who refuses.
        volunteer: PeerKey,
        /// Why, for people.
        reason: String,
    },
    /// A volunteer gives a lease back: it shuts down.
    HandBack {
        /// The lease.
        lease: LeaseId,
        /// Who.
        volunteer: PeerKey,
    },
    /// A volunteer reports.
    Report {
        /// The report in its envelope.
        report: Signed,
        /// Whether another capable volunteer is alive; asked only when the report is a build error.
        witnesses: Witnesses,
    },
    /// A peer holds all of an artifact.
    Held {
        /// The build.
        build_key: BuildKey,
        /// The artifact.
        manifest: ManifestId,
        /// The peer.
        holder: PeerKey,
    },
    /// A peer holds it no more.
    Lost {
        /// The build.
        build_key: BuildKey,
        /// The peer.
        holder: PeerKey,
    },
    /// A deadline passed.
    Expire(Expiry),
    /// A notice is about to be sent.
    NoticeAttempt {
        /// The notice.
        notice: NoticeId,
    },
    /// A notice was sent.
    NoticeSent {
        /// The notice.
        notice: NoticeId,
    },
    /// A notice could not be sent.
    NoticeFailed {
        /// The notice.
        notice: NoticeId,
        /// Whether to try again.
        permanence: Permanence,
        /// What the mail server said, for people.
        reason: String,
    },
    /// A new charter.
    Amend {
        /// Signed by the farm key.
        charter: Signed,
    },
    /// Forget what nobody can ask for any more.
    Prune,
    /// Later entries are applied under a newer law.
    RaiseLaw {
        /// The newer version.
        version: LawVersion,
    },
}

/// What a submission met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submitted {
    /// A finished build that meets the demand.
    Finished,
    /// A confirmed build error, remembered for an hour.
    RememberedError,
    /// A job, new or old, that now carries the request.
    Attached {
        /// The job.
        job: JobId,
        /// What the job does.
        state: JobState,
    },
    /// The request was heard before and has ended.
    Ended,
}

/// What a job does. The picture stands in `farm/job.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobState {
    /// Waits for its source.
    AwaitingSource,
    /// Waits for a volunteer.
    Queued,
    /// A volunteer has a lease.
    Running,
    /// Built; waits for a second holder.
    Keeping,
}

/// A granted lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The lease.
    pub lease: LeaseId,
    /// The job.
    pub job: JobId,
    /// Until when the volunteer may take it up; after the first heartbeat liveness decides.
    pub offered_until: Timestamp,
}

/// The law's answer to whoever proposed the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, or it was so already.
    Done,
    /// The answer to a submission.
    Submitted(Submitted),
    /// The answer to a grant.
    Granted(Granted),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The entry's index is not after that of the last entry that changed something.
    #[error("this entry was applied before")]
    OutOfOrder,
    /// The farm is not founded yet, or is founded already.
    #[error("the farm is not in the state for this")]
    Founding,
    /// The request is not known.
    #[error("no such request")]
    UnknownRequest,
    /// The job is not known (any more).
    #[error("no such job")]
    UnknownJob,
    /// The lease is not known (any more).
    #[error("no such lease")]
    UnknownLease,
    /// The notice is not known (any more).
    #[error("no such notice")]
    UnknownNotice,
    /// The build is not known.
    #[error("no such build")]
    UnknownBuild,
    /// Another key made the request or holds the lease.
    #[error("this is somebody else's")]
    NotYours,
    /// The job is not to be granted now.
    #[error("the job is not to be granted now")]
    NotGrantable,
    /// This volunteer refused, failed or reported the job already.
    #[error("this volunteer is not to attempt the job again")]
    Excluded,
    /// Only this fingerprint can confirm the first report.
    #[error("a confirming attempt needs the environment of the first")]
    OtherFingerprint,
    /// The request is past its expiry, lives too long, or is older than the farm remembers.
    #[error("the request has expired or lives too long")]
    Stale,
    /// The requester has too many requests waiting, or asks for too many distinct requirements.
    #[error("too many requests of one requester are waiting")]
    TooMany,
    /// The demand, the addresses or the texts are out of bounds.
    #[error("the request is out of bounds")]
    OutOfBounds,
    /// The deadline has not passed, or what it was for has happened.
    #[error("not due")]
    NotDue,
    /// The report names another build than its lease, or comes too late to count.
    #[error("the report does not count")]
    ReportDoesNotCount,
    /// The payload is damaged.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The charter does not follow the one in force.
    #[error("the charter does not follow the one in force")]
    Charter,
    /// The law's version is older than the one in force or newer than this program knows.
    #[error("the law's version cannot be {0:?}")]
    Law(LawVersion),
}

/// What changed, for everybody who watches. Ordered by index of the entry and position in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A job can be granted (again).
    Queued {
        /// The job.
        job: JobId,
        /// Its build.
        build_key: BuildKey,
    },
    /// A lease was granted.
    Granted {
        /// The lease.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// The volunteer.
        volunteer: PeerKey,
    },
    /// A lease is no more; when `Revoked`, the volunteer is to stop.
    LeaseEnded {
        /// The lease.
        lease: LeaseId,
        /// The job.
        job: JobId,
        /// The volunteer.
        volunteer: PeerKey,
        /// Why.
        end: LeaseEnd,
    },
    /// A volunteer has built it; a keeper is to fetch it.
    Keeping {
        /// The job.
        job: JobId,
        /// The build.
        build_key: BuildKey,
        /// The artifact.
        manifest: ManifestId,
        /// Who holds it.
        builder: PeerKey,
    },
    /// The farm has an answer.
    Decided {
        /// The build.
        build_key: BuildKey,
        /// The artifact.
        manifest: ManifestId,
        /// How many hold it.
        holding: Holding,
    },
    /// A request has ended.
    Ended {
        /// The request.
        request: RequestId,
        /// How.
        ended: Ended,
    },
    /// Somebody is to be told.
    Notice {
        /// The notice.
        notice: NoticeId,
    },
    /// No peer holds the artifact any more: the build is as if it had never been.
    Unbuilt {
        /// The build.
        build_key: BuildKey,
    },
    /// A new charter is in force.
    Amended {
        /// Its version.
        version: u64,
    },
}

/// Why a lease is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LeaseEnd {
    /// The volunteer reported.
    Reported,
    /// The volunteer refused.
    Refused,
    /// The volunteer handed it back.
    HandedBack,
    /// It was never taken up.
    Undelivered,
    /// The volunteer fell silent.
    VolunteerLost,
    /// The attempt showed no sign of progress, or took longer than it may: the volunteer is to stop.
    OutOfTime,
    /// Nobody wants the job any more, or it was decided meanwhile: the volunteer is to stop.
    Revoked,
}

/// What applying an entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For whoever proposed it.
    pub reply: Result<Reply, Rejection>,
    /// For everybody else, in order.
    pub events: Vec<Event>,
}
