//! What reports and holders amount to: who is answered, what goes on, what ends.
//!
//! [`Farm::settle`] makes a job do what its demands and reports call for, and is called after everything that changes
//! either. A job is attempted exactly while some demand is not met, and keeps exactly while some demand is met and not
//! answered yet.

use crate::farm::account::class_at;
use crate::farm::asked::{End, Fate};
use crate::farm::command::{Event, Expiry, LeaseEnd};
use crate::farm::explain::{Ended, PolicyEnd};
use crate::farm::job::{Effort, Job, Trail, Wanted};
use crate::farm::quorum::{self, Answer, Standard};
use crate::farm::{Farm, Turn, job_dates};
use crate::id::{JobId, ManifestId, RequestId};
use crate::report::MAX_REPORTS;
use std::collections::{BTreeMap, BTreeSet};

/// What the demands on a job amount to.
pub(super) struct Assessment {
    pub(super) answers: BTreeMap<Standard, Answer>,
    /// The artifact that the most reports agree on, among those that meet some demand.
    met: Option<ManifestId>,
    /// What the next attempt has to be, while some demand is not met.
    wanted: Option<Wanted>,
}

impl Farm {
    /// One request more hangs on a job that may have reports already.
    pub(super) fn consider(&mut self, turn: &mut Turn, id: JobId, request: RequestId) {
        let Some(job) = self.jobs.get(id).filter(|job| !job.reports().is_empty()) else { return };
        let Some(asked) = self.requests.get(&request) else { return };
        match quorum::verdict(job.reports().iter().map(|report| &report.sworn), asked.standard) {
            // Others wait for the same artifact: nothing changes for the job.
            Answer::Agreed(agreed) if job.keeping().is_some_and(|keeping| keeping.manifest == agreed.manifest) => {}
            _ => self.settle(turn, id),
        }
    }

    /// What its reports amount to for each distinct demand.
    pub(super) fn assess(&self, job: &Job) -> Assessment {
        let mut answers = BTreeMap::new();
        for id in job.requests.iter() {
            let Some(asked) = self.requests.get(id) else { continue };
            answers.entry(asked.standard).or_insert_with_key(|standard| {
                quorum::verdict(job.reports().iter().map(|report| &report.sworn), *standard)
            });
        }
        let short = |answer: &Answer| matches!(answer, Answer::Short { .. });
        let after = answers.iter().filter(|(_, answer)| short(answer)).map(|(standard, _)| standard.after).max();
        let mut met: Option<(u8, ManifestId)> = None;
        let mut wanted: Option<Wanted> = None;
        for answer in answers.values() {
            match (answer, &wanted) {
                (Answer::Agreed(agreed), _) if met.is_none_or(|(most, _)| agreed.agreed > most) => {
                    met = Some((agreed.agreed, agreed.manifest));
                }
                // The least particular demand decides, so that nobody waits for another's environment.
                (Answer::Agreed(_), _) | (Answer::Short { .. }, Some(Wanted { fingerprint: None, .. })) => {}
                (Answer::Short { fingerprint }, _) => {
                    wanted = Some(Wanted { after: after.flatten(), fingerprint: fingerprint.clone() });
                }
            }
        }
        Assessment { answers, met: met.map(|(_, manifest)| manifest), wanted }
    }

    /// The living requests of a job whose demand has such an answer.
    pub(super) fn answered_by(
        &self,
        job: &Job,
        answers: &BTreeMap<Standard, Answer>,
        of: impl Fn(&Answer) -> bool,
    ) -> BTreeSet<RequestId> {
        let chosen =
            |id: &&RequestId| self.requests.get(*id).and_then(|asked| answers.get(&asked.standard)).is_some_and(&of);
        job.requests.iter().filter(chosen).copied().collect()
    }

    /// Makes the job do what its demands and reports call for.
    pub(super) fn settle(&mut self, turn: &mut Turn, id: JobId) {
        let Some(job) = self.jobs.get(id) else { return };
        if matches!(job.effort, Effort::AwaitingSource(_)) {
            return;
        }
        if job.reports().is_empty() {
            return self.want(turn, id, Some(Wanted::default()));
        }
        let Assessment { answers, met, wanted } = self.assess(job);
        let tries = wanted.as_ref().map_or(0, |wanted| {
            let counted = job.reports().iter().filter(|report| Some(report.sworn.lease) > wanted.after).count();
            counted + job.history.as_ref().map_or(0, |history| history.failures as usize)
        });
        if tries >= MAX_REPORTS {
            let unmet = self.answered_by(job, &answers, |answer| matches!(answer, Answer::Short { .. }));
            return self.end_requests(turn, id, &unmet, &Ended::Policy(PolicyEnd::NoAgreement), None);
        }
        // Later reports may have outvoted what is kept: then it is no answer to anybody any more.
        let kept = job.keeping().map(|keeping| keeping.manifest);
        let stands = kept.is_some_and(|kept| {
            answers.values().any(|answer| matches!(answer, Answer::Agreed(agreed) if agreed.manifest == kept))
        });
        self.want(turn, id, wanted);
        if kept.is_some() && !stands {
            self.stop_keeping(id);
        }
        if let Some(manifest) = met.filter(|_| !stands) {
            self.keep(turn, id, manifest);
        }
    }

    /// Starts, changes or stops the effort.
    fn want(&mut self, turn: &mut Turn, id: JobId, wanted: Option<Wanted>) {
        let Some(job) = self.jobs.get(id) else { return };
        match (job.effort, wanted) {
            (Effort::AwaitingSource(_), _) | (Effort::Idle, None) => {}
            (Effort::Leased(lease), None) => self.end_lease(turn, lease, LeaseEnd::Revoked),
            (Effort::Queued, None) => {
                self.unshelve(id);
                self.jobs.set_effort(id, Effort::Idle);
            }
            (Effort::Leased(_), Some(wanted)) => self.set_wanted(id, wanted),
            (Effort::Queued, Some(wanted)) => {
                self.unshelve(id);
                self.set_wanted(id, wanted);
                self.shelve(id);
            }
            (Effort::Idle, Some(wanted)) => {
                let build_key = job.build_key;
                self.set_wanted(id, wanted);
                self.jobs.set_effort(id, Effort::Queued);
                self.shelve(id);
                turn.events.push(Event::Queued { job: id, build_key });
            }
        }
    }

    fn set_wanted(&mut self, id: JobId, wanted: Wanted) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        if job.history.is_some() || wanted != Wanted::default() {
            job.history().wanted = wanted;
        }
    }

    /// Nothing more is tried for demands that are not met.
    pub(super) fn fail(&mut self, turn: &mut Turn, id: JobId, ended: &Ended) {
        let Some(job) = self.jobs.get(id) else { return };
        let unmet = if job.reports().is_empty() {
            job.requests.iter().copied().collect()
        } else {
            let answers = self.assess(job).answers;
            self.answered_by(job, &answers, |answer| matches!(answer, Answer::Short { .. }))
        };
        self.end_requests(turn, id, &unmet, ended, None);
    }

    /// Ends these requests of a job, and the job with its last one.
    pub(super) fn end_requests(
        &mut self,
        turn: &mut Turn,
        id: JobId,
        ids: &BTreeSet<RequestId>,
        ended: &Ended,
        trail: Option<&Trail>,
    ) {
        let Some(job) = self.jobs.get(id) else { return };
        let trail = trail.cloned().unwrap_or_else(|| self.trail_of(job));
        let (build_key, need) = (job.build_key, self.queue.lot_need(job.lot));
        // Taken out of the queue first: what it is charged to may end here.
        let queued = self.unshelve(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let leaving: Vec<_> = job.requests.iter().filter(|request| ids.contains(request)).copied().collect();
        job.requests.retain(|request| !ids.contains(request));
        for request in leaving {
            let Some(mut asked) = self.requests.remove(&request) else { continue };
            if let Some(job) = self.jobs.get_mut(id) {
                job.by_class[class_at(asked.priority)] -= 1;
            }
            self.accounts.close(&asked.requester, need);
            self.deadlines.remove(&(asked.expires_at, Expiry::Request(request)));
            let end = End { ended: ended.clone(), at: turn.now, build_key, trail: trail.clone() };
            asked.fate = Fate::Ended(Box::new(end));
            self.record_end(turn, request, *asked);
        }
        if self.jobs.get(id).is_some_and(|job| job.requests.is_empty()) {
            self.disband(turn, id);
            return;
        }
        self.refit(id);
        if queued {
            self.shelve(id);
        }
        self.settle(turn, id);
    }

    /// Ends a job that nobody wants any more. It is not in the queue.
    fn disband(&mut self, turn: &mut Turn, id: JobId) {
        if let Some(Effort::Leased(lease)) = self.jobs.get(id).map(|job| job.effort) {
            self.end_lease(turn, lease, LeaseEnd::Revoked);
        }
        let Some(job) = self.jobs.remove(id) else { return };
        for date in job_dates(id, &job) {
            self.deadlines.remove(&date);
        }
        self.queue.leave(job.lot);
    }
}
