//! Why is it waiting, and how did it end: in values that `cli` turns into sentences.

use crate::farm::command::JobState;
use crate::id::{BuildKey, JobId, ManifestId, PeerKey};
use crate::platform::{Capability, Constraint};
use crate::report::{Fingerprint, Holding, Limit};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// There is a verdict.
    Built {
        /// The artifact.
        manifest: ManifestId,
        /// Whether it was built for this request or had been before.
        how: HowBuilt,
        /// How many hold it.
        holding: Holding,
    },
    /// The recipe's own failure.
    BuildError {
        /// What failed.
        reason: String,
        /// Whether a second volunteer saw it too.
        confirmed: Confirmed,
    },
    /// The farm's failure: tried elsewhere without success.
    Infrastructure {
        /// The last cause.
        reason: String,
    },
    /// A rule ended it.
    Policy(PolicyEnd),
}

/// Whether work was done for this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HowBuilt {
    /// A volunteer attempted it while this request waited.
    Built,
    /// It was there already.
    Cached,
}

/// Whether a second volunteer saw the same kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Confirmed {
    /// Two volunteers failed alike.
    Yes,
    /// Nobody else was there to try.
    No,
}

/// Which rule ended a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyEnd {
    /// A limit of the recipe or of the volunteer's owner was reached.
    Limit(Limit),
    /// The requester cancelled.
    Cancelled,
    /// It waited until its expiry.
    Expired,
    /// The source never arrived.
    SourceNeverArrived,
    /// The reports never agreed as often as demanded.
    NoAgreement,
}

/// What a leader, or any peer that listens to gossip, sees of one volunteer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The volunteer.
    pub volunteer: PeerKey,
    /// What it says it can do.
    pub capability: Capability,
    /// Whether it has a free slot.
    pub presence: Presence,
}

/// Whether a volunteer could start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Presence {
    /// Waits for work.
    Free,
    /// Every slot builds.
    Busy,
    /// Fell silent a short while ago.
    Gone,
}

/// Every volunteer that is or was lately seen.
pub type Sightings = [Sighting];

/// Why a request waits, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Explanation {
    /// No such request is known.
    Unknown,
    /// It has ended.
    Ended(Ended),
    /// Recipe or source are on their way.
    AwaitingSource,
    /// A volunteer builds it.
    Running {
        /// The volunteer.
        volunteer: PeerKey,
        /// Since when.
        since: Timestamp,
    },
    /// Built; a second copy is made.
    Keeping,
    /// No volunteer that was seen meets the requirement.
    Unmet {
        /// Volunteers seen on the platform asked for, or at all where none is asked for.
        volunteers: u32,
        /// The platform counted, such as `linux/x86_64`; empty when none is asked for.
        platform: String,
        /// Each constraint that not all of them meet, and how many do, fewest first.
        unmet: Vec<Unmet>,
    },
    /// Volunteers could do it, but none is free.
    Waiting {
        /// Capable volunteers whose slots are all in use.
        busy: u32,
        /// Capable volunteers that are free and about to be asked.
        free: u32,
        /// Capable volunteers that fell silent.
        gone: u32,
        /// Capable volunteers that refused or tried already.
        excluded: u32,
        /// Jobs that come first, counted up to a bound.
        ahead: u32,
        /// Where a confirming attempt is awaited: the environment it needs.
        confirming: Option<Fingerprint>,
    },
}

/// One constraint that is short of volunteers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// The fact's key.
    pub key: String,
    /// What is asked of it.
    pub constraint: Constraint,
    /// How many of the counted volunteers meet it.
    pub met_by: u32,
}

/// A request as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestView {
    /// The build.
    pub build_key: BuildKey,
    /// Recipe, for people.
    pub recipe: String,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// The job, while there is one.
    pub job: Option<JobId>,
    /// What the job does, while there is one.
    pub state: Option<JobState>,
    /// Leases that were taken up for the job, or for the build that ended it.
    pub attempts: u32,
    /// When the current or last attempt started and ended.
    pub started_at: Option<Timestamp>,
    /// When the request ended.
    pub ended_at: Option<Timestamp>,
    /// Who builds or built it.
    pub volunteer: Option<PeerKey>,
    /// The log of the last attempt, once reported.
    pub log: Option<crate::digest::Digest>,
    /// Why it waits, or how it ended.
    pub explanation: Explanation,
}
