//! A job: the farm's single effort for a build key, on which every request for that key hangs.
//!
//! ```text
//!                 SourceHeld           Grant
//! AwaitingSource ───────────► Queued ─────────► Leased ──┐ Report(built) meets every demand
//!                              ▲  ▲               │      ▼
//!                              │  └───────────────┘     Idle (waits for a second holder)
//!                              │   refused, handed back,  │
//!                              │   lost, not enough       │ a new demand, or the artifact was lost
//!                              └──────────────────────────┘
//! ```
//!
//! Beside its effort a job may be *keeping*: an artifact that meets some demand waits for a second holder. Both go on at the
//! same time when other demands on the same key are not met yet. A job ends with its last request.

use crate::digest::Digest;
use crate::farm::account::{CLASSES, class_at};
use crate::farm::command::JobState;
use crate::farm::holding::Keeping;
use crate::farm::lease::Lease;
use crate::farm::queue::{Fit, LotId, Rank};
use crate::farm::quorum::Sworn;
use crate::id::{BuildKey, CapabilityId, JobId, LeaseId, PeerKey, RequestId};
use crate::report::Fingerprint;
use crate::request::Priority;
use crate::signed::Signed;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The most ended leases that a living job remembers, so that their late reports count.
pub const MAX_PAST_LEASES: usize = 32;
/// The most volunteers that a job excludes; the oldest exclusion makes room.
pub const MAX_EXCLUSIONS: usize = 64;

/// What a job does about being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Effort {
    /// Recipe or source are on their way, at the latest until then.
    AwaitingSource(Timestamp),
    /// Waits for a volunteer.
    Queued,
    /// A volunteer attempts it.
    Leased(LeaseId),
    /// Every demand is met by the reports at hand.
    Idle,
}

/// What attempts left behind, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trail {
    pub(super) attempts: u32,
    pub(super) started_at: Option<Timestamp>,
    pub(super) volunteer: Option<PeerKey>,
    pub(super) log: Option<Digest>,
    pub(super) log_tail: Box<str>,
}

impl Trail {
    /// One more attempt was begun, under this lease.
    pub(super) fn add_attempt(&mut self, lease: &Lease) {
        *self = Self {
            attempts: self.attempts.saturating_add(1),
            started_at: Some(lease.granted_at),
            volunteer: Some(lease.volunteer),
            log: None,
            log_tail: Box::default(),
        };
    }
}

/// Why a volunteer is not to attempt a job again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Grounds {
    /// It refused, being able to do this; asked again when that changes.
    Refused(CapabilityId),
    /// Trouble of its own or of the network; asked again after a while.
    Trouble,
    /// The recipe failed there.
    BuildError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exclusion {
    pub(super) volunteer: PeerKey,
    pub(super) grounds: Grounds,
}

/// A build error that nobody has confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doubt {
    pub(super) volunteer: PeerKey,
    pub(super) reason: String,
    /// When it is believed without confirmation, unless a confirming attempt runs.
    pub(super) until: Timestamp,
}

/// A report that counts, in its envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) sworn: Sworn,
    pub(super) size_bytes: u64,
    pub(super) started_at: Timestamp,
    pub(super) log: Option<Digest>,
    pub(super) log_tail: Box<str>,
    pub(super) signed: Signed,
}

/// A lease that has ended; a built report from it still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PastLease {
    pub(super) id: LeaseId,
    pub(super) volunteer: PeerKey,
    pub(super) granted_at: Timestamp,
}

/// What the next attempt has to be, so that it brings an unmet demand nearer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Reports from leases up to this one do not count for the demand that is hardest to meet.
    pub(super) after: Option<LeaseId>,
    pub(super) fingerprint: Option<Fingerprint>,
}

/// What only a job that was attempted has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct History {
    pub(super) trail: Trail,
    pub(super) past: Vec<PastLease>,
    pub(super) reports: Vec<Counted>,
    pub(super) exclusions: Vec<Exclusion>,
    /// Volunteers that were lost while they attempted it.
    pub(super) lost: Vec<PeerKey>,
    /// Infrastructure causes, apart from the first loss of each volunteer.
    pub(super) causes: u32,
    /// When volunteers that had trouble may be asked again.
    pub(super) retry_at: Option<Timestamp>,
    /// Attempts that failed although others had built it.
    pub(super) failures: u32,
    pub(super) doubt: Option<Doubt>,
    pub(super) keeping: Option<Keeping>,
    pub(super) wanted: Wanted,
}

/// The living requests of a job, oldest first. Nearly every job has one, which is kept without a heap of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Wishers {
    One(RequestId),
    Many(Vec<RequestId>),
}

impl Wishers {
    fn as_slice(&self) -> &[RequestId] {
        match self {
            Self::One(request) => std::slice::from_ref(request),
            Self::Many(requests) => requests,
        }
    }

    pub(super) fn first(&self) -> Option<&RequestId> {
        self.as_slice().first()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RequestId> {
        self.as_slice().iter()
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    pub(super) fn push(&mut self, request: RequestId) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, request]),
            Self::Many(requests) => requests.push(request),
        }
    }

    pub(super) fn retain(&mut self, stays: impl Fn(&RequestId) -> bool) {
        match self {
            Self::One(request) if stays(request) => {}
            Self::One(_) => *self = Self::Many(Vec::new()),
            Self::Many(requests) => requests.retain(stays),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) build_key: BuildKey,
    pub(super) lot: LotId,
    pub(super) class: Priority,
    pub(super) tag: u64,
    pub(super) effort: Effort,
    pub(super) requests: Wishers,
    pub(super) by_class: [u32; CLASSES],
    pub(super) history: Option<Box<History>>,
}

impl Job {
    pub(super) fn state(&self) -> JobState {
        match self.effort {
            Effort::AwaitingSource(_) => JobState::AwaitingSource,
            Effort::Leased(_) => JobState::Running,
            Effort::Queued => JobState::Queued,
            Effort::Idle => JobState::Keeping,
        }
    }

    pub(super) const fn rank(&self, id: JobId) -> Rank {
        Rank { class: self.class, tag: self.tag, job: id }
    }

    /// The most urgent class among living requests.
    pub(super) fn highest_class(&self) -> Priority {
        let classes = [Priority::Urgent, Priority::Normal, Priority::Batch];
        classes.into_iter().find(|class| self.by_class[class_at(*class)] > 0).unwrap_or(self.class)
    }

    pub(super) fn history(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }

    pub(super) fn keeping(&self) -> Option<&Keeping> {
        self.history.as_ref()?.keeping.as_ref()
    }

    pub(super) fn doubt(&self) -> Option<&Doubt> {
        self.history.as_ref()?.doubt.as_ref()
    }

    pub(super) fn reports(&self) -> &[Counted] {
        self.history.as_ref().map_or(&[], |history| &history.reports)
    }

    pub(super) fn required_fingerprint(&self) -> Option<&Fingerprint> {
        self.history.as_ref()?.wanted.fingerprint.as_ref()
    }

    /// Whether this volunteer is not to attempt the job, now that it is able to do `capability`.
    pub(super) fn excludes(&self, volunteer: &PeerKey, capability: impl Fn() -> CapabilityId) -> bool {
        let Some(history) = &self.history else { return false };
        let excluded =
            history.exclusions.iter().filter(|exclusion| exclusion.volunteer == *volunteer).any(|exclusion| {
                match exclusion.grounds {
                    Grounds::Refused(then) => then == capability(),
                    Grounds::Trouble | Grounds::BuildError => true,
                }
            });
        excluded || history.counted().any(|report| report.sworn.volunteer == *volunteer)
    }

    pub(super) fn fit(&self) -> Fit {
        match &self.history {
            Some(history)
                if !history.exclusions.is_empty()
                    || history.wanted.fingerprint.is_some()
                    || history.counted().next().is_some() =>
            {
                Fit::Picky
            }
            _ => Fit::Plain,
        }
    }
}

impl History {
    /// Reports that count for every unmet demand.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Counted> {
        self.reports.iter().filter(|report| Some(report.sworn.lease) > self.wanted.after)
    }

    pub(super) fn exclude(&mut self, volunteer: PeerKey, grounds: Grounds) {
        self.exclusions.retain(|exclusion| exclusion.volunteer != volunteer);
        if self.exclusions.len() == MAX_EXCLUSIONS {
            self.exclusions.remove(0);
        }
        self.exclusions.push(Exclusion { volunteer, grounds });
    }

    pub(super) fn remember_lease(&mut self, lease: PastLease) {
        if self.past.len() == MAX_PAST_LEASES {
            self.past.remove(0);
        }
        self.past.push(lease);
    }
}

/// Living jobs, by id and by build key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Jobs {
    jobs: BTreeMap<JobId, Box<Job>>,
    #[serde(skip)]
    by_key: BTreeMap<BuildKey, JobId>,
    #[serde(skip)]
    awaiting_source: u64,
}

impl Jobs {
    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(&id).map(Box::as_mut)
    }

    pub(super) fn by_key(&self, key: &BuildKey) -> Option<JobId> {
        self.by_key.get(key).copied()
    }

    /// Living jobs after `after`, in the order of their ids.
    pub(super) fn ids_after(&self, after: Option<JobId>) -> impl Iterator<Item = JobId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.jobs.range((from, Bound::Unbounded)).map(|(id, _)| *id)
    }

    pub(super) fn insert(&mut self, id: JobId, job: Job) {
        self.by_key.insert(job.build_key, id);
        self.count_source(&job, 1);
        self.jobs.insert(id, Box::new(job));
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Box<Job>> {
        let job = self.jobs.remove(&id)?;
        self.by_key.remove(&job.build_key);
        self.count_source(&job, -1);
        Some(job)
    }

    pub(super) fn set_effort(&mut self, id: JobId, effort: Effort) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let before = matches!(job.effort, Effort::AwaitingSource(_));
            job.effort = effort;
            let after = matches!(effort, Effort::AwaitingSource(_));
            self.awaiting_source = self.awaiting_source + u64::from(after) - u64::from(before);
        }
    }

    fn count_source(&mut self, job: &Job, change: i64) {
        if matches!(job.effort, Effort::AwaitingSource(_)) {
            self.awaiting_source = self.awaiting_source.saturating_add_signed(change);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (*id, job.as_ref()))
    }

    pub(super) fn len(&self) -> u64 {
        self.jobs.len() as u64
    }

    pub(super) const fn awaiting_source(&self) -> u64 {
        self.awaiting_source
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&BuildKey, JobId)> {
        self.by_key.iter().map(|(key, id)| (key, *id))
    }

    pub(super) fn reindex(&mut self) {
        self.by_key = self.jobs.iter().map(|(id, job)| (job.build_key, *id)).collect();
        self.awaiting_source =
            self.jobs.values().filter(|job| matches!(job.effort, Effort::AwaitingSource(_))).count() as u64;
    }
}
