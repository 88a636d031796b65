//! What volunteers report, and what it does to a job.
//!
//! An artifact is accepted from any lease of a living job, a failure from the active one only. A build error is final once a
//! second volunteer saw one too, or nobody else is there to try; somebody else's artifact always outweighs it.

use crate::farm::attempt::Cause;
use crate::farm::command::{Expiry, LeaseEnd, Rejection, Witnesses};
use crate::farm::explain::{Confirmed, Ended, PolicyEnd};
use crate::farm::job::{Counted, Doubt, Effort, Grounds, PastLease};
use crate::farm::quorum::Sworn;
use crate::farm::{Farm, RememberedError, Turn};
use crate::id::{BuildKey, JobId, LeaseId, PeerKey, ReportId};
use crate::report::{MAX_REASON_BYTES, MAX_REPORTS, Outcome, Report};
use crate::signed::Signed;
use crate::time::{Span, Timestamp};

/// How long a confirmed build error is remembered.
pub const ERROR_REMEMBERED_FOR: Span = Span::from_secs(3_600);
/// How long another volunteer has to take an attempt that confirms a build error.
pub const CONFIRM_WITHIN: Span = Span::from_secs(60);

impl Farm {
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
                if let Some(lot) = self.jobs.get(job).map(|job| job.lot) {
                    let (recipe, _) = self.queue.recipe(lot);
                    self.durations.note(recipe, turn.now.since(started_at), turn.now);
                }
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

    /// Whether this very report was counted already: a volunteer says it again when it missed the answer.
    fn has_report(&self, key: &BuildKey, id: ReportId) -> bool {
        let of_build = self.builds.get(key).is_some_and(|build| build.reports.iter().any(|known| known.sworn.id == id));
        let job = self.jobs.by_key(key).and_then(|job| self.jobs.get(job));
        of_build || job.is_some_and(|job| job.reports().iter().any(|known| known.sworn.id == id))
    }

    fn past_lease(&self, job: JobId, lease: LeaseId, volunteer: PeerKey) -> Option<PastLease> {
        let past = &self.jobs.get(job)?.history.as_ref()?.past;
        past.iter().find(|past| past.id == lease && past.volunteer == volunteer).copied()
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

    pub(super) fn expire_doubt(&mut self, turn: &mut Turn, id: JobId) -> Result<(), Rejection> {
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
}
