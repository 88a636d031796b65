//! Leases given and ended without a report: grant, refuse, hand back, undelivered, lost, stuck, overdue.
//!
//! Handing back and not being delivered cost a job nothing. A lost volunteer and a reported infrastructure cause are tried
//! elsewhere; after [`RETRY_AFTER`] the same volunteer may be asked again, so that a farm of few recovers by itself; the
//! third distinct volunteer lost, or the fifth cause, ends the job.

use crate::farm::command::{Event, Expiry, Granted, LeaseEnd, Rejection, Reply};
use crate::farm::explain::Ended;
use crate::farm::job::{Effort, Grounds, Job, PastLease, Trail};
use crate::farm::lease::{Bounds, Lease};
use crate::farm::{Farm, Turn};
use crate::id::{CapabilityId, JobId, LeaseId, PeerKey};
use crate::report::{Fingerprint, MAX_REASON_BYTES};
use crate::time::Span;

/// How many distinct volunteers may be lost before a job ends.
pub const MAX_VOLUNTEERS_LOST: usize = 3;
/// How many infrastructure causes may be reported before a job ends; losing a volunteer once more is such a cause.
pub const MAX_CAUSES: u32 = 5;
/// How long a volunteer that had trouble is not asked again for the job.
pub const RETRY_AFTER: Span = Span::from_secs(60);

/// Who claims, and what it is able to do.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) volunteer: PeerKey,
    pub(super) capability: CapabilityId,
    pub(super) fingerprint: Fingerprint,
    pub(super) nonce: u64,
    pub(super) bounds: Bounds,
}

/// What went wrong outside the recipe.
#[derive(Debug)]
pub(super) enum Cause {
    VolunteerLost,
    Reported(String),
}

impl Farm {
    pub(super) fn grant(&mut self, turn: &mut Turn, job: JobId, claim: Claim) -> Result<Reply, Rejection> {
        let Claim { volunteer, capability, fingerprint, nonce, bounds } = claim;
        if let Some(lease) = self.leases.of(volunteer).find(|lease| lease.nonce == nonce) {
            let granted = Granted { lease: lease.id, job: lease.job, offered_until: lease.offered_until() };
            return Ok(Reply::Granted(granted));
        }
        let found = self.jobs.get(job).ok_or(Rejection::UnknownJob)?;
        if found.effort != Effort::Queued {
            return Err(Rejection::NotGrantable);
        }
        if found.excludes(&volunteer, || capability) {
            return Err(Rejection::Excluded);
        }
        if found.required_fingerprint().is_some_and(|required| *required != fingerprint) {
            return Err(Rejection::OtherFingerprint);
        }
        let (class, tag) = (found.class, found.tag);
        let id = LeaseId(turn.index);
        self.unshelve(job);
        self.accounts.granted(class, tag);
        self.jobs.set_effort(job, Effort::Leased(id));
        let lease = Lease { id, job, volunteer, capability, fingerprint, nonce, granted_at: turn.now, bounds };
        let granted = Granted { lease: id, job, offered_until: lease.offered_until() };
        self.leases.insert(lease);
        turn.events.push(Event::Granted { lease: id, job, volunteer });
        Ok(Reply::Granted(granted))
    }

    pub(super) fn refuse(
        &mut self,
        turn: &mut Turn,
        lease: LeaseId,
        volunteer: PeerKey,
        reason: &str,
    ) -> Result<(), Rejection> {
        if reason.len() > MAX_REASON_BYTES {
            return Err(Rejection::OutOfBounds);
        }
        let Lease { job, capability, .. } = *self.lease_of(lease, volunteer)?;
        self.end_lease(turn, lease, LeaseEnd::Refused);
        if let Some(job) = self.jobs.get_mut(job) {
            job.history().exclude(volunteer, Grounds::Refused(capability));
        }
        self.settle(turn, job);
        Ok(())
    }

    pub(super) fn hand_back(&mut self, turn: &mut Turn, lease: LeaseId, volunteer: PeerKey) -> Result<(), Rejection> {
        let job = self.lease_of(lease, volunteer)?.job;
        self.end_lease(turn, lease, LeaseEnd::HandedBack);
        self.renew_doubt(turn, job);
        self.settle(turn, job);
        Ok(())
    }

    pub(super) fn expire_undelivered(&mut self, turn: &mut Turn, lease: LeaseId) -> Result<(), Rejection> {
        let found = self.leases.get(lease).ok_or(Rejection::UnknownLease)?;
        if turn.now < found.offered_until() {
            return Err(Rejection::NotDue);
        }
        let job = found.job;
        self.end_lease(turn, lease, LeaseEnd::Undelivered);
        self.settle(turn, job);
        Ok(())
    }

    pub(super) fn expire_volunteer(&mut self, turn: &mut Turn, lease: LeaseId) -> Result<(), Rejection> {
        let Lease { job, volunteer, .. } = *self.leases.get(lease).ok_or(Rejection::UnknownLease)?;
        self.end_lease(turn, lease, LeaseEnd::VolunteerLost);
        self.renew_doubt(turn, job);
        self.trouble(turn, job, volunteer, Cause::VolunteerLost);
        Ok(())
    }

    /// Its volunteer is alive, so nobody is lost; that nothing moves is a cause like any that it could have reported.
    pub(super) fn expire_stuck(&mut self, turn: &mut Turn, lease: LeaseId) -> Result<(), Rejection> {
        self.expire_attempt(turn, lease, "a volunteer was alive, and its attempt showed no sign of progress")
    }

    pub(super) fn expire_overdue(&mut self, turn: &mut Turn, lease: LeaseId) -> Result<(), Rejection> {
        let until = self.leases.get(lease).ok_or(Rejection::UnknownLease)?.until();
        if turn.now < until {
            return Err(Rejection::NotDue);
        }
        self.expire_attempt(
            turn,
            lease,
            "an attempt took longer than its recipe allows, with time to fetch and to report",
        )
    }

    fn expire_attempt(&mut self, turn: &mut Turn, lease: LeaseId, reason: &str) -> Result<(), Rejection> {
        let Lease { job, volunteer, .. } = *self.leases.get(lease).ok_or(Rejection::UnknownLease)?;
        self.end_lease(turn, lease, LeaseEnd::OutOfTime);
        self.renew_doubt(turn, job);
        self.trouble(turn, job, volunteer, Cause::Reported(reason.to_owned()));
        Ok(())
    }

    /// Volunteers that had trouble with the job may be asked again.
    pub(super) fn expire_exclusion(&mut self, turn: &mut Turn, id: JobId) -> Result<(), Rejection> {
        let job = self.jobs.get(id).ok_or(Rejection::UnknownJob)?;
        let retry_at = job.history.as_ref().and_then(|history| history.retry_at);
        let Some(at) = retry_at.filter(|at| turn.now >= *at) else { return Err(Rejection::NotDue) };
        let (queued, build_key) = (job.effort == Effort::Queued, job.build_key);
        self.deadlines.remove(&(at, Expiry::Exclusion(id)));
        self.rearrange(id, |job| {
            let history = job.history();
            history.retry_at = None;
            history.exclusions.retain(|exclusion| exclusion.grounds != Grounds::Trouble);
        });
        if queued {
            turn.events.push(Event::Queued { job: id, build_key });
        }
        Ok(())
    }

    /// Something outside the recipe went wrong at this volunteer: tried elsewhere, or the end. The lease has ended before.
    pub(super) fn trouble(&mut self, turn: &mut Turn, id: JobId, volunteer: PeerKey, cause: Cause) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let history = job.history();
        history.exclude(volunteer, Grounds::Trouble);
        match &cause {
            Cause::VolunteerLost if !history.lost.contains(&volunteer) => history.lost.push(volunteer),
            Cause::VolunteerLost | Cause::Reported(_) => history.causes += 1,
        }
        let hopeless = history.lost.len() >= MAX_VOLUNTEERS_LOST || history.causes >= MAX_CAUSES;
        let retry_at = turn.now + RETRY_AFTER.duration();
        if let Some(before) = history.retry_at.replace(retry_at) {
            self.deadlines.remove(&(before, Expiry::Exclusion(id)));
        }
        self.deadlines.insert((retry_at, Expiry::Exclusion(id)));
        if hopeless {
            let reason = match cause {
                Cause::VolunteerLost => "volunteers were lost while they attempted it".to_owned(),
                Cause::Reported(reason) => reason,
            };
            self.fail(turn, id, &Ended::Infrastructure { reason });
        } else {
            self.settle(turn, id);
        }
    }

    /// An active lease of this volunteer.
    pub(super) fn lease_of(&self, lease: LeaseId, volunteer: PeerKey) -> Result<&Lease, Rejection> {
        let found = self.leases.get(lease).ok_or(Rejection::UnknownLease)?;
        if found.volunteer == volunteer { Ok(found) } else { Err(Rejection::NotYours) }
    }

    /// Takes the lease away. The job is left idle: whoever calls settles it.
    pub(super) fn end_lease(&mut self, turn: &mut Turn, id: LeaseId, end: LeaseEnd) {
        let Some(lease) = self.leases.remove(id) else { return };
        let Lease { job, volunteer, granted_at, .. } = lease;
        turn.events.push(Event::LeaseEnded { lease: id, job, volunteer, end });
        self.jobs.set_effort(job, Effort::Idle);
        let Some(found) = self.jobs.get_mut(job) else { return };
        let history = found.history();
        history.remember_lease(PastLease { id, volunteer, granted_at });
        match end {
            // It never started, so it is no attempt.
            LeaseEnd::Undelivered | LeaseEnd::Refused => {}
            LeaseEnd::Reported
            | LeaseEnd::HandedBack
            | LeaseEnd::VolunteerLost
            | LeaseEnd::OutOfTime
            | LeaseEnd::Revoked => {
                history.trail.add_attempt(&lease);
            }
        }
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
}
