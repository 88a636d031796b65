//! What reports and holders amount to: who is answered, what goes on, what ends.
//!
//! [`Farm::settle`] makes a job do what its demands and reports call for, and is called after everything that changes
//! either. A job is attempted exactly while some demand is not met, and keeps exactly while some demand is met and not
//! answered yet.

use crate::farm::asked::{End, Fate};
use crate::farm::attempt::Cause;
use crate::farm::command::{Event, Expiry, LeaseEnd, Rejection, Witnesses};
use crate::farm::explain::{Confirmed, Ended, HowBuilt, PolicyEnd};
use crate::farm::holding::{Build, KEEPING_FOR, Keeping, MAX_HOLDERS};
use crate::farm::job::{Counted, Doubt, Effort, Grounds, Job, PastLease, Trail, Wanted};
use crate::farm::quorum::{self, Answer, Standard, Sworn};
use crate::farm::{Farm, RememberedError, Turn, account::class_at, job_dates};
use crate::id::{BuildKey, JobId, LeaseId, ManifestId, PeerKey, ReportId, RequestId};
use crate::report::{Holding, MAX_REASON_BYTES, MAX_REPORTS, Outcome, Report};
use crate::signed::Signed;
use crate::time::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How long a confirmed build error is remembered.
pub const ERROR_REMEMBERED_FOR: Span = Span::from_secs(3_600);
/// How long another volunteer has to take an attempt that confirms a build error.
pub const CONFIRM_WITHIN: Span = Span::from_secs(60);

/// What the demands on a job amount to.
struct Assessment {
    answers: BTreeMap<Standard, Answer>,
    /// The artifact that the most reports agree on, among those that meet some demand.
    met: Option<ManifestId>,
    /// What the next attempt has to be, while some demand is not met.
    wanted: Option<Wanted>,
}

impl Farm {
    pub(super) fn expire(&mut self, turn: &mut Turn, expiry: Expiry) -> Result<(), Rejection> {
        match expiry {
            Expiry::Undelivered(lease) => self.expire_undelivered(turn, lease),
            Expiry::VolunteerLost(lease) => self.expire_volunteer(turn, lease),
            Expiry::Request(request) => self.expire_request(turn, request),
            Expiry::Source(job) => self.expire_source(turn, job),
            Expiry::Confirmation(job) => self.expire_doubt(turn, job),
            Expiry::Keeping(job) => self.expire_keeping(turn, job),
            Expiry::Exclusion(job) => self.expire_exclusion(turn, job),
        }
    }

    pub(super) fn report(&mut self, turn: &mut Turn, signed: Signed, witnesses: Witnesses) -> Result<(), Rejection> {
        if signed.farm != self.in_force()?.farm {
            return Err(Rejection::Damaged("made for another farm".to_owned()));
        }
        let report: Report = signed.payload_unchecked().map_err(|error| Rejection::Damaged(error.to_string()))?;
        let reason = match &report.outcome {
            Outcome::BuildError { reason } | Outcome::Infrastructure { reason } => reason.as_str(),
            Outcome::Built { .. } | Outcome::Limit { .. } => "",
        };
        if reason.len() > MAX_REASON_BYTES || report.log_tail.len() > MAX_REASON_BYTES {
            return Err(Rejection::OutOfBounds);
        }
        let id = ReportId(signed.id());
        if self.has_report(&report.build_key, id) {
            return Ok(());
        }
        let job = self.jobs.by_key(&report.build_key).ok_or(Rejection::ReportDoesNotCount)?;
        let active = self.leases.get(report.lease).filter(|lease| lease.job == job);
        if active.is_some_and(|lease| lease.volunteer != signed.key) {
            return Err(Rejection::NotYours);
        }
        match (&report.outcome, active.map(|lease| lease.granted_at)) {
            (Outcome::Built { .. }, Some(started_at)) => {
                self.end_lease(turn, report.lease, LeaseEnd::Reported);
                self.built(turn, job, signed, report, started_at);
            }
            (Outcome::Built { .. }, None) => {
                let past = self.past_lease(job, report.lease, signed.key).ok_or(Rejection::ReportDoesNotCount)?;
                self.built(turn, job, signed, report, past.granted_at);
            }
            (_, Some(_)) => self.failed(turn, job, signed.key, report, witnesses),
            (_, None) => return Err(Rejection::ReportDoesNotCount),
        }
        Ok(())
    }

    fn past_lease(&self, job: JobId, lease: LeaseId, volunteer: PeerKey) -> Option<PastLease> {
        let past = &self.jobs.get(job)?.history.as_ref()?.past;
        past.iter().find(|past| past.id == lease && past.volunteer == volunteer).copied()
    }

    /// Whether this very report was counted already: a volunteer says it again when it missed the answer.
    fn has_report(&self, key: &BuildKey, id: ReportId) -> bool {
        let of_build = self.builds.get(key).is_some_and(|build| build.reports.iter().any(|known| known.sworn.id == id));
        let job = self.jobs.by_key(key).and_then(|job| self.jobs.get(job));
        of_build || job.is_some_and(|job| job.reports().iter().any(|known| known.sworn.id == id))
    }

    /// A volunteer has built it; its lease has ended.
    fn built(&mut self, turn: &mut Turn, id: JobId, signed: Signed, report: Report, started_at: Timestamp) {
        let Outcome::Built { manifest, size_bytes, smoke, reproducibility } = report.outcome else { return };
        let (report_id, volunteer) = (ReportId(signed.id()), signed.key);
        let Report { lease, fingerprint, log, log_tail, .. } = report;
        let sworn = Sworn { id: report_id, lease, volunteer, manifest, smoke, reproducibility, fingerprint };
        let log_tail: Box<str> = log_tail.into();
        self.drop_doubt(id);
        self.rearrange(id, |job| {
            let history = job.history();
            history.trail.log = log;
            history.trail.log_tail.clone_from(&log_tail);
            if history.reports.len() == MAX_REPORTS {
                history.reports.remove(0);
            }
            history.reports.push(Counted { sworn, size_bytes, started_at, log, log_tail, signed });
        });
        self.settle(turn, id);
    }

    /// An active lease ended with anything but an artifact.
    fn failed(&mut self, turn: &mut Turn, id: JobId, volunteer: PeerKey, report: Report, witnesses: Witnesses) {
        self.end_lease(turn, report.lease, LeaseEnd::Reported);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let others_built_it = !job.reports().is_empty();
        let history = job.history();
        history.trail.log = report.log;
        history.trail.log_tail = report.log_tail.into();
        match report.outcome {
            Outcome::Built { .. } => {}
            Outcome::Infrastructure { reason } => {
                self.renew_doubt(turn, id);
                self.trouble(turn, id, volunteer, Cause::Reported(reason));
            }
            // It can be built: one machine's failure is no answer.
            Outcome::BuildError { .. } | Outcome::Limit { .. } if others_built_it => {
                history.exclude(volunteer, Grounds::BuildError);
                history.failures += 1;
                self.settle(turn, id);
            }
            Outcome::Limit { limit } => self.fail(turn, id, &Ended::Policy(PolicyEnd::Limit(limit))),
            Outcome::BuildError { reason } => self.build_error(turn, id, volunteer, reason, witnesses),
        }
    }

    fn build_error(&mut self, turn: &mut Turn, id: JobId, volunteer: PeerKey, reason: String, witnesses: Witnesses) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let build_key = job.build_key;
        let history = job.history();
        history.exclude(volunteer, Grounds::BuildError);
        let doubted = history.doubt.as_ref().is_some_and(|doubt| doubt.volunteer != volunteer);
        if doubted {
            let trail = history.trail.clone();
            self.errors.insert(build_key, RememberedError { reason: reason.clone(), at: turn.now, trail });
            self.fail(turn, id, &Ended::BuildError { reason, confirmed: Confirmed::Yes });
            return;
        }
        match witnesses {
            Witnesses::Nobody => self.fail(turn, id, &Ended::BuildError { reason, confirmed: Confirmed::No }),
            Witnesses::Alive => {
                let until = turn.now + CONFIRM_WITHIN.duration();
                history.doubt = Some(Doubt { volunteer, reason, until });
                self.deadlines.insert((until, Expiry::Confirmation(id)));
                self.settle(turn, id);
            }
        }
    }

    fn expire_doubt(&mut self, turn: &mut Turn, id: JobId) -> Result<(), Rejection> {
        let job = self.jobs.get(id).ok_or(Rejection::UnknownJob)?;
        let doubt = job.doubt().filter(|doubt| turn.now >= doubt.until).ok_or(Rejection::NotDue)?;
        if matches!(job.effort, Effort::Leased(_)) {
            return Err(Rejection::NotDue);
        }
        let reason = doubt.reason.clone();
        self.fail(turn, id, &Ended::BuildError { reason, confirmed: Confirmed::No });
        Ok(())
    }

    fn drop_doubt(&mut self, id: JobId) {
        if let Some(doubt) = self.jobs.get_mut(id).and_then(|job| job.history.as_mut()?.doubt.take()) {
            self.deadlines.remove(&(doubt.until, Expiry::Confirmation(id)));
        }
    }

    /// A confirming attempt ended without an answer: somebody else has as long again.
    pub(super) fn renew_doubt(&mut self, turn: &Turn, id: JobId) {
        if let Some(doubt) = self.jobs.get_mut(id).and_then(|job| job.history.as_mut()?.doubt.as_mut()) {
            self.deadlines.remove(&(doubt.until, Expiry::Confirmation(id)));
            doubt.until = turn.now + CONFIRM_WITHIN.duration();
            self.deadlines.insert((doubt.until, Expiry::Confirmation(id)));
        }
    }

    pub(super) fn held(
        &mut self,
        turn: &mut Turn,
        build_key: BuildKey,
        manifest: ManifestId,
        holder: PeerKey,
    ) -> Result<(), Rejection> {
        let of_build = self.builds.get_mut(&build_key).filter(|build| build.manifest == manifest);
        let known = of_build.is_some();
        if let Some(build) = of_build.filter(|build| build.holders.len() < MAX_HOLDERS) {
            build.holders.insert(holder);
        }
        let job = self.jobs.by_key(&build_key);
        let keeping = job.and_then(|id| {
            let history = self.jobs.get_mut(id)?.history.as_mut()?;
            history.keeping.as_mut().filter(|keeping| keeping.manifest == manifest)
        });
        match (job, keeping) {
            (Some(job), Some(keeping)) => {
                keeping.holders.insert(holder);
                self.decide_if_held(turn, job);
                Ok(())
            }
            _ if known => Ok(()),
            _ => Err(Rejection::UnknownBuild),
        }
    }

    pub(super) fn lost(&mut self, turn: &mut Turn, build_key: BuildKey, holder: PeerKey) -> Result<(), Rejection> {
        let job = self.jobs.by_key(&build_key);
        let keeping = job.and_then(|id| self.jobs.get_mut(id)?.history.as_mut()?.keeping.as_mut());
        let was_known = keeping.is_some() || self.builds.get(&build_key).is_some();
        let gone_while_keeping = keeping.and_then(|keeping| {
            let removed = keeping.holders.remove(&holder);
            (removed && keeping.holders.is_empty()).then_some(keeping.manifest)
        });
        let unbuilt = self.builds.get_mut(&build_key).is_some_and(|build| {
            build.holders.remove(&holder);
            build.holders.is_empty()
        });
        if unbuilt && let Some(build) = self.builds.remove(&build_key) {
            turn.events.push(Event::Unbuilt { build_key });
            if let Some(job) = job.filter(|_| gone_while_keeping != Some(build.manifest)) {
                self.forget_reports(job, build.manifest);
                self.settle(turn, job);
            }
        }
        if let (Some(job), Some(manifest)) = (job, gone_while_keeping) {
            self.stop_keeping(job);
            self.forget_reports(job, manifest);
            self.trouble(turn, job, holder, Cause::VolunteerLost);
        }
        if was_known { Ok(()) } else { Err(Rejection::UnknownBuild) }
    }

    /// Nobody holds this artifact, so reports of it answer nothing.
    fn forget_reports(&mut self, job: JobId, manifest: ManifestId) {
        let keeps_it = self.jobs.get(job).and_then(Job::keeping).is_some_and(|keeping| keeping.manifest == manifest);
        if !keeps_it {
            self.rearrange(job, |job| {
                if let Some(history) = &mut job.history {
                    history.reports.retain(|report| report.sworn.manifest != manifest);
                }
            });
        }
    }

    fn stop_keeping(&mut self, id: JobId) -> Option<Keeping> {
        let keeping = self.jobs.get_mut(id)?.history.as_mut()?.keeping.take()?;
        self.deadlines.remove(&(keeping.until, Expiry::Keeping(id)));
        Some(keeping)
    }

    fn expire_keeping(&mut self, turn: &mut Turn, id: JobId) -> Result<(), Rejection> {
        let job = self.jobs.get(id).ok_or(Rejection::UnknownJob)?;
        job.keeping().filter(|keeping| turn.now >= keeping.until).ok_or(Rejection::NotDue)?;
        self.decide(turn, id, Holding::SingleHolder);
        Ok(())
    }

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

    fn assess(&self, job: &Job) -> Assessment {
        let mut answers = BTreeMap::new();
        for id in job.requests.iter() {
            let Some(asked) = self.requests.get(id) else { continue };
            answers.entry(asked.standard).or_insert_with_key(|standard| {
                quorum::verdict(job.reports().iter().map(|report| &report.sworn), *standard)
            });
        }
        let mut met: Option<(u8, ManifestId)> = None;
        let mut wanted: Option<Wanted> = None;
        for (standard, answer) in &answers {
            match answer {
                Answer::Agreed(agreed) if met.is_none_or(|(most, _)| agreed.agreed > most) => {
                    met = Some((agreed.agreed, agreed.manifest));
                }
                Answer::Agreed(_) => {}
                Answer::Short { fingerprint } => {
                    let fingerprint = match wanted.take() {
                        // The least particular demand decides, so that nobody waits for another's environment.
                        Some(Wanted { fingerprint: None, .. }) => None,
                        _ => fingerprint.clone(),
                    };
                    // Standards come in order, so the last one has the latest start.
                    let after = answers
                        .iter()
                        .filter(|(_, answer)| matches!(answer, Answer::Short { .. }))
                        .map(|(standard, _)| standard.after)
                        .max()
                        .unwrap_or(standard.after);
                    wanted = Some(Wanted { after, fingerprint });
                }
            }
        }
        Assessment { answers, met: met.map(|(_, manifest)| manifest), wanted }
    }

    fn answered_by<'a>(
        &self,
        job: &'a Job,
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

    fn keep(&mut self, turn: &mut Turn, id: JobId, manifest: ManifestId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let build_key = job.build_key;
        let builders = job.reports().iter().filter(|report| report.sworn.manifest == manifest);
        let mut holders: BTreeSet<_> = builders.map(|report| report.sworn.volunteer).collect();
        let Some(builder) = job.reports().iter().rev().find(|report| report.sworn.manifest == manifest) else { return };
        let builder = builder.sworn.volunteer;
        if let Some(build) = self.builds.get(&build_key).filter(|build| build.manifest == manifest) {
            // Who built it long ago may hold it no more; who holds it is known.
            let new = job.reports().iter().filter(|report| !build.by.contains(&report.sworn.id));
            let new = new.filter(|report| report.sworn.manifest == manifest).map(|report| report.sworn.volunteer);
            holders = build.holders.iter().copied().chain(new).collect();
        }
        let until = turn.now + KEEPING_FOR.duration();
        job.history().keeping = Some(Keeping { manifest, holders, until });
        self.deadlines.insert((until, Expiry::Keeping(id)));
        turn.events.push(Event::Keeping { job: id, build_key, manifest, builder });
        self.decide_if_held(turn, id);
    }

    /// Two holders are enough; so is one that keeps by its office.
    fn decide_if_held(&mut self, turn: &mut Turn, id: JobId) {
        let Some(keeping) = self.jobs.get(id).and_then(Job::keeping) else { return };
        let charter = self.in_force.as_ref().map(|in_force| &in_force.charter);
        let keeper = keeping.holders.iter().any(|holder| charter.is_some_and(|charter| charter.is_coordinator(holder)));
        if keeping.holders.len() >= 2 {
            self.decide(turn, id, Holding::Kept);
        } else if keeper {
            self.decide(turn, id, Holding::SingleHolder);
        }
    }

    /// The artifact that the job keeps is the farm's answer.
    fn decide(&mut self, turn: &mut Turn, id: JobId, holding: Holding) {
        let Some(keeping) = self.stop_keeping(id) else { return };
        let Some(job) = self.jobs.get(id) else { return };
        let Keeping { manifest, holders, .. } = keeping;
        let build_key = job.build_key;
        let Some(agreed) = quorum::behind(job.reports().iter().map(|report| &report.sworn), manifest) else { return };
        let Some(of) = job.reports().iter().find(|report| report.sworn.manifest == manifest) else { return };
        let trail = Trail {
            attempts: self.trail_of(job).attempts,
            started_at: Some(of.started_at),
            volunteer: Some(of.sworn.volunteer),
            log: of.log,
            log_tail: of.log_tail.clone(),
        };
        let Some(recipe) = self.recipe_of(job) else { return };
        let build = Build {
            manifest,
            size_bytes: of.size_bytes,
            recipe,
            reports: job.reports().to_vec(),
            by: agreed.by,
            agreed: agreed.agreed,
            holding,
            holders,
            decided_at: turn.now,
            trail: trail.clone(),
        };
        let answers = self.assess(job).answers;
        let met = self.answered_by(
            job,
            &answers,
            |answer| matches!(answer, Answer::Agreed(agreed) if agreed.manifest == manifest),
        );
        self.builds.insert(build_key, build);
        self.errors.remove(&build_key);
        turn.events.push(Event::Decided { build_key, manifest, holding });
        let ended = Ended::Built { manifest, how: HowBuilt::Built, holding };
        self.end_requests(turn, id, &met, &ended, Some(&trail));
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

    /// What attempts have left behind so far, the one that runs included.
    pub(super) fn trail_of(&self, job: &Job) -> Trail {
        let mut trail = job.history.as_ref().map(|history| history.trail.clone()).unwrap_or_default();
        if let Effort::Leased(lease) = job.effort
            && let Some(lease) = self.leases.get(lease)
        {
            trail.add_attempt(lease);
        }
        trail
    }

    fn recipe_of(&self, job: &Job) -> Option<crate::request::Name> {
        let farm = self.in_force.as_ref()?.farm;
        let oldest = self.requests.get(job.requests.first()?)?;
        oldest.request(farm).ok().map(|request| request.recipe)
    }

    /// Changes a job that may be queued, and puts it where it belongs afterwards.
    pub(super) fn rearrange(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        let queued = self.unshelve(id);
        if let Some(job) = self.jobs.get_mut(id) {
            change(job);
        }
        self.refit(id);
        if queued {
            self.shelve(id);
        }
    }

    /// Class and standing follow from living requests. A job that changes its class is ranked anew.
    fn refit(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let class = job.highest_class();
        if class != job.class {
            (job.class, job.tag) = (class, 0);
        }
        let lot = job.lot;
        let Some(owner) = job.requests.first().and_then(|oldest| self.requests.get(oldest)) else { return };
        let standing = self.standing(&owner.requester);
        if self.queue.recipe(lot).1 != standing {
            let beside = self.queue.join_beside(lot, standing);
            self.queue.leave(lot);
            if let Some(job) = self.jobs.get_mut(id) {
                job.lot = beside;
            }
        }
    }

    /// Puts a queued job into the queue, with a rank if it has none yet.
    pub(super) fn shelve(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Some(owner) = job.requests.first().and_then(|oldest| self.requests.get(oldest)) else { return };
        let tag = (job.tag > 0).then_some(job.tag);
        job.tag = self.accounts.queued(owner.requester, job.class, tag);
        self.queue.insert(job.lot, job.rank(id), job.fit());
    }

    /// Takes a job out of the queue; whether it was there.
    pub(super) fn unshelve(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(id).filter(|job| job.effort == Effort::Queued) else { return false };
        let Some(owner) = job.requests.first().and_then(|oldest| self.requests.get(oldest)) else { return false };
        self.accounts.unqueued(&owner.requester, job.class);
        self.queue.remove(job.lot, job.rank(id));
        true
    }
}
