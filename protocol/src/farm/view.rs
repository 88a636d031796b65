//! What a farm shows: to its leader, to `status`, to whoever fetches. Nothing here changes anything.

use crate::charter::Charter;
use crate::digest::Digest;
use crate::farm::Farm;
use crate::farm::asked::Fate;
use crate::farm::command::{Expiry, JobState, LawVersion};
use crate::farm::explain::{Ended, RequestView, Sightings};
use crate::farm::holding::{Finished, Keeping};
use crate::farm::job::{Effort, Trail};
use crate::farm::lease::Lease;
use crate::farm::notice::{Failure, Notice};
use crate::id::{BuildKey, FarmId, JobId, LeaseId, PeerKey, RecipeId, RequestId};
use crate::platform::{Requirement, Standing};
use crate::report::Fingerprint;
use crate::signed::Signed;
use crate::time::Timestamp;
use crate::wire::QueueRow;
use serde::{Deserialize, Serialize};

/// How much is in a farm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmCounts {
    /// Jobs that wait for a volunteer or a source.
    pub queued: u64,
    /// Jobs with a lease, and those that only wait for a second holder.
    pub running: u64,
    /// Judged builds.
    pub finished: u64,
    /// Notices that wait to be sent.
    pub notices_pending: u64,
}

/// A living job, for the leader.
#[derive(Clone, Debug)]
pub struct JobView<'a> {
    /// Its name.
    pub id: JobId,
    /// What is built.
    pub build_key: BuildKey,
    /// What it does.
    pub state: JobState,
    /// Its oldest living request.
    pub request: RequestId,
    /// That request in its envelope: what a volunteer is offered.
    pub signed: Signed,
    /// What a volunteer must have.
    pub requirement: &'a Requirement,
    /// The recipe.
    pub recipe: RecipeId,
    /// The standing of the oldest request's requester.
    pub standing: Standing,
    /// The environment that the next attempt must have, if it matters.
    pub fingerprint: Option<&'a Fingerprint>,
    /// The active lease.
    pub lease: Option<&'a Lease>,
    /// The artifact that waits for a second holder.
    pub keeping: Option<&'a Keeping>,
    /// How many requests hang on it.
    pub requests: usize,
}

/// What a prefix of a request id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// No request.
    None,
    /// This one.
    One(RequestId),
    /// More than one: these are the first two.
    Ambiguous(RequestId, RequestId),
}

impl Farm {
    /// The law's version in force.
    #[must_use]
    pub const fn law(&self) -> LawVersion {
        self.law
    }

    /// The index of the last entry that changed something.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.applied
    }

    /// The latest stamp seen; time in this farm never goes behind it.
    #[must_use]
    pub const fn last_stamp(&self) -> Timestamp {
        self.now
    }

    /// The farm's id, once it is founded.
    #[must_use]
    pub fn id(&self) -> Option<FarmId> {
        self.in_force.as_ref().map(|in_force| in_force.farm)
    }

    /// The charter in force, with its envelope.
    #[must_use]
    pub fn charter(&self) -> Option<(&Charter, &Signed)> {
        self.in_force.as_ref().map(|in_force| (&in_force.charter, &in_force.signed))
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> FarmCounts {
        let queued = self.queue.len() + self.jobs.awaiting_source();
        FarmCounts {
            queued,
            running: self.jobs.len() - queued,
            finished: self.builds.len(),
            notices_pending: self.notices.pending_count(),
        }
    }

    /// Deadlines that have passed at `now`, earliest first. Whether leases are alive is not among them: that is soft state.
    pub fn expired(&self, now: Timestamp) -> impl Iterator<Item = Expiry> {
        let passed = self.deadlines.iter().take_while(move |(at, _)| *at <= now);
        passed.map(|(_, expiry)| *expiry).filter(|expiry| match expiry {
            // A confirming attempt that runs is waited for.
            Expiry::Confirmation(job) => {
                self.jobs.get(*job).is_some_and(|job| !matches!(job.effort, Effort::Leased(_)))
            }
            _ => true,
        })
    }

    /// The earliest deadline of all.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Notices to be sent, those that are due first in front; see [`Notice::not_before`].
    pub fn pending_notices(&self) -> impl Iterator<Item = &Notice> {
        self.notices.pending()
    }

    /// Notices that could not be sent, newest first.
    pub fn failed_notices(&self) -> impl Iterator<Item = &Failure> {
        self.notices.failures()
    }

    /// A living job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<JobView<'_>> {
        let job = self.jobs.get(id)?;
        let request = *job.requests.first()?;
        let (recipe, standing) = self.queue.recipe(job.lot);
        Some(JobView {
            id,
            build_key: job.build_key,
            state: job.state(),
            request,
            signed: self.request(&request)?,
            requirement: self.queue.requirement(job.lot),
            recipe,
            standing,
            fingerprint: job.required_fingerprint(),
            lease: match job.effort {
                Effort::Leased(lease) => self.leases.get(lease),
                Effort::AwaitingSource(_) | Effort::Queued | Effort::Idle => None,
            },
            keeping: job.keeping(),
            requests: job.requests.len(),
        })
    }

    /// Living jobs after `after`, in the order of their ids: for whoever reads all of them a page at a time.
    pub fn jobs_after(&self, after: Option<JobId>) -> impl Iterator<Item = JobView<'_>> {
        self.jobs.ids_after(after).filter_map(|id| self.job(id))
    }

    /// The living job for a build key.
    #[must_use]
    pub fn job_of(&self, key: &BuildKey) -> Option<JobId> {
        self.jobs.by_key(key)
    }

    /// Jobs that keep: each wants a second holder.
    pub fn keeping(&self) -> impl Iterator<Item = (JobId, BuildKey, &Keeping)> {
        // Deadlines know them, so that nobody walks the whole queue for the few.
        let jobs = self.deadlines.iter().filter_map(|(_, expiry)| match expiry {
            Expiry::Keeping(job) => Some(*job),
            _ => None,
        });
        jobs.filter_map(|id| self.jobs.get(id).and_then(|job| Some((id, job.build_key, job.keeping()?))))
    }

    /// An active lease.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(id)
    }

    /// Every active lease.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter()
    }

    /// The active leases of a volunteer.
    pub fn leases_of(&self, volunteer: PeerKey) -> impl Iterator<Item = &Lease> {
        self.leases.of(volunteer)
    }

    /// The farm's answer for a build key.
    #[must_use]
    pub fn finished(&self, key: &BuildKey) -> Option<Finished<'_>> {
        self.builds.finished(key)
    }

    /// Finished builds, newest first.
    pub fn builds(&self) -> impl Iterator<Item = Finished<'_>> {
        self.builds.newest()
    }

    /// A request in its envelope.
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<Signed> {
        Some(self.requests.get(id)?.signed(self.id()?))
    }

    /// The request whose id begins with these hexadecimal digits.
    #[must_use]
    pub fn resolve(&self, prefix: &str) -> Resolved {
        let fill = |digit: &str| format!("{prefix}{}", digit.repeat(64_usize.saturating_sub(prefix.len())));
        let (Ok(from), Ok(to)) = (fill("0").parse::<Digest>(), fill("f").parse::<Digest>()) else {
            return Resolved::None;
        };
        let mut found = self.requests.range(RequestId(from)..=RequestId(to)).map(|(id, _)| *id);
        match (found.next(), found.next()) {
            (None, _) => Resolved::None,
            (Some(id), None) => Resolved::One(id),
            (Some(first), Some(second)) => Resolved::Ambiguous(first, second),
        }
    }

    /// A request as `status` shows it; `seen` is what the leader sees of volunteers. What depends on the moment of asking, how
    /// an attempt moves and when the request will be built, is the leader's to add.
    #[must_use]
    pub fn view(&self, id: RequestId, seen: &Sightings) -> Option<RequestView> {
        let asked = self.requests.get(&id)?;
        let recipe = asked.request(self.id()?).map(|request| request.recipe.to_string()).unwrap_or_default();
        let (build_key, job, trail, ended_at, environment) = match &asked.fate {
            Fate::Ended(end) => {
                let is_built = matches!(end.ended, Ended::Built { .. });
                let build = is_built.then(|| self.builds.finished(&end.build_key)).flatten();
                let environment = build.and_then(|build| build.fingerprint);
                (end.build_key, None, end.trail.clone(), Some(end.at), environment)
            }
            Fate::Waiting(id) => {
                let job = self.jobs.get(*id)?;
                let environment = match job.effort {
                    Effort::Leased(lease) => self.leases.get(lease).map(|lease| &lease.fingerprint),
                    Effort::AwaitingSource(_) | Effort::Queued | Effort::Idle => None,
                };
                (job.build_key, Some(*id), self.trail_of(job), None, environment)
            }
        };
        let state = job.and_then(|job| self.jobs.get(job)).map(crate::farm::job::Job::state);
        let Trail { attempts, started_at, volunteer, log, .. } = trail;
        Some(RequestView {
            build_key,
            recipe,
            submitted_at: asked.submitted_at,
            job,
            state,
            attempts,
            started_at,
            ended_at,
            volunteer,
            environment: environment.cloned(),
            log,
            explanation: self.explain(id, seen),
            motion: None,
            estimate: None,
        })
    }

    /// The first rows of what goes on, `limit` at most: what is built now, then the queue in order, then what waits for its
    /// source.
    #[must_use]
    pub fn queue_rows(&self, limit: usize, seen: &Sightings) -> Vec<QueueRow> {
        let running = self.leases.iter().map(|lease| lease.job);
        let keeping = self
            .keeping()
            .map(|(job, ..)| job)
            .filter(|job| self.jobs.get(*job).is_some_and(|job| job.effort == Effort::Idle));
        let queued = self.queue.in_order().map(|rank| rank.job);
        let awaiting = self.deadlines.iter().filter_map(|(_, expiry)| match expiry {
            Expiry::Source(job) => Some(*job),
            _ => None,
        });
        let rows = running.chain(keeping).chain(queued).chain(awaiting);
        rows.filter_map(|job| self.queue_row(job, seen)).take(limit).collect()
    }

    fn queue_row(&self, job: JobId, seen: &Sightings) -> Option<QueueRow> {
        let job = self.jobs.get(job)?;
        let request = *job.requests.first()?;
        let view = self.view(request, seen)?;
        Some(QueueRow { request, recipe: view.recipe.clone(), priority: job.class, view })
    }
}
