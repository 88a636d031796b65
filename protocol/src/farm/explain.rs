//! Why is it waiting, and how did it end: in values that `cli` turns into sentences.

use crate::farm::Farm;
use crate::farm::asked::{Asked, Fate};
use crate::farm::command::JobState;
use crate::farm::durations::Estimate;
use crate::farm::job::{Effort, Job};
use crate::farm::quorum::{self, Answer};
use crate::id::{BuildKey, JobId, ManifestId, PeerKey, RequestId};
use crate::platform::{Capability, Constraint, Value};
use crate::progress::Motion;
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

/// The key under which [`Explanation::Unmet`] counts owners that accept the recipe.
pub const ACCEPTS: &str = "accepts";
/// How many jobs ahead are counted at most.
pub const MAX_AHEAD: u32 = 1_000;

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
    /// The environment of the attempt that runs, or of the one that built it.
    pub environment: Option<Fingerprint>,
    /// The log of the last attempt, once reported.
    pub log: Option<crate::digest::Digest>,
    /// Why it waits, or how it ended.
    pub explanation: Explanation,
    /// How the attempt that runs moves, where its volunteer has told.
    pub motion: Option<Motion>,
    /// When it will be built, where that is a question.
    pub estimate: Option<Estimate>,
}

impl Farm {
    /// Why a request waits, or how it ended, given what is seen of volunteers.
    #[must_use]
    pub fn explain(&self, request: RequestId, seen: &Sightings) -> Explanation {
        let Some(asked) = self.requests.get(&request) else { return Explanation::Unknown };
        let (id, job) = match &asked.fate {
            Fate::Ended(end) => return Explanation::Ended(end.ended.clone()),
            Fate::Waiting(id) => match self.jobs.get(*id) {
                Some(job) => (*id, job),
                None => return Explanation::Unknown,
            },
        };
        if waits_for_a_holder(asked, job) {
            return Explanation::Keeping;
        }
        match job.effort {
            Effort::AwaitingSource(_) => Explanation::AwaitingSource,
            Effort::Idle => Explanation::Keeping,
            Effort::Leased(lease) => match self.leases.get(lease) {
                Some(lease) => Explanation::Running { volunteer: lease.volunteer, since: lease.granted_at },
                None => Explanation::Unknown,
            },
            Effort::Queued => self.explain_queued(id, job, seen),
        }
    }

    fn explain_queued(&self, id: JobId, job: &Job, seen: &Sightings) -> Explanation {
        let requirement = self.queue.requirement(job.lot);
        let (recipe, standing) = self.queue.recipe(job.lot);
        let (mut busy, mut free, mut gone, mut excluded) = (0, 0, 0, 0);
        for sighting in seen {
            let Sighting { volunteer, capability, presence } = sighting;
            if !requirement.met_by(capability) || !capability.accepts.admits(&recipe, standing) {
                continue;
            }
            let environment = || Fingerprint::of(capability, requirement);
            let barred = job.excludes(volunteer, || capability.id())
                || job.required_fingerprint().is_some_and(|required| *required != environment());
            *match presence {
                _ if barred => &mut excluded,
                Presence::Busy => &mut busy,
                Presence::Free => &mut free,
                Presence::Gone => &mut gone,
            } += 1;
        }
        if busy + free + gone + excluded == 0 {
            return self.explain_unmet(job, seen);
        }
        let ahead = self.queue.ahead(job.rank(id), MAX_AHEAD);
        Explanation::Waiting { busy, free, gone, excluded, ahead, confirming: job.required_fingerprint().cloned() }
    }

    fn explain_unmet(&self, job: &Job, seen: &Sightings) -> Explanation {
        let requirement = self.queue.requirement(job.lot);
        let (recipe, standing) = self.queue.recipe(job.lot);
        let asked = |key| match requirement.iter().find(|(known, _)| *known == key) {
            Some((_, Constraint::Is(Value::Text(text)))) => Some(text.as_str()),
            _ => None,
        };
        let (os, arch) = (asked("os"), asked("arch"));
        let platform = match (os, arch) {
            (None, None) => String::new(),
            (os, arch) => format!("{}/{}", os.unwrap_or("?"), arch.unwrap_or("?")),
        };
        let on_platform = |capability: &Capability| {
            let is = |key, wanted: Option<&str>| {
                wanted.is_none_or(|wanted| matches!(capability.fact(key), Some(Value::Text(text)) if text == wanted))
            };
            is("os", os) && is("arch", arch)
        };
        let pool: Vec<_> = seen.iter().map(|sighting| &sighting.capability).filter(|c| on_platform(c)).collect();
        let count = |meets: &dyn Fn(&Capability) -> bool| {
            u32::try_from(pool.iter().filter(|capability| meets(capability)).count()).unwrap_or(u32::MAX)
        };
        let volunteers = count(&|_| true);
        let mut unmet: Vec<_> = requirement
            .iter()
            .map(|(key, constraint)| Unmet {
                key: key.to_owned(),
                constraint: constraint.clone(),
                met_by: count(&|capability| constraint.met_by(capability.fact(key))),
            })
            .collect();
        let met_by = count(&|capability| capability.accepts.admits(&recipe, standing));
        unmet.push(Unmet { key: ACCEPTS.to_owned(), constraint: Constraint::Present, met_by });
        unmet.retain(|unmet| unmet.met_by < volunteers);
        unmet.sort_by_key(|unmet| unmet.met_by);
        Explanation::Unmet { volunteers, platform, unmet }
    }
}

/// Whether this request's demand is met already, and only a second holder is awaited.
fn waits_for_a_holder(asked: &Asked, job: &Job) -> bool {
    job.keeping().is_some_and(|keeping| {
        let answer = quorum::verdict(job.reports().iter().map(|report| &report.sworn), asked.standard);
        matches!(answer, Answer::Agreed(agreed) if agreed.manifest == keeping.manifest)
    })
}
