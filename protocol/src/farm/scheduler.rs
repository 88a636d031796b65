//! Which job a claim should get.
//!
//! The order is the queue's; what a claimant may have is decided here: never a job that it refused, failed or reported
//! already, and a confirming attempt only in the environment of the first report.

use crate::farm::Farm;
use crate::id::{CapabilityId, JobId, PeerKey};
use crate::platform::Capability;
use crate::report::Fingerprint;
use std::cell::OnceCell;

/// Somebody who asks for work.
pub(super) trait Claimant {
    fn capability(&self) -> &Capability;
    /// Whether a picky job may go to this claimant.
    fn may_have(&self, job: JobId) -> bool;
}

struct Asker<'a> {
    farm: &'a Farm,
    volunteer: &'a PeerKey,
    capability: &'a Capability,
    /// Digesting a capability costs more than most claims: only picky jobs that somebody refused need it.
    id: OnceCell<CapabilityId>,
}

impl Claimant for Asker<'_> {
    fn capability(&self) -> &Capability {
        self.capability
    }

    fn may_have(&self, job: JobId) -> bool {
        let Some(job) = self.farm.jobs.get(job) else { return false };
        let environment = || Fingerprint::of(self.capability, self.farm.queue.requirement(job.lot));
        !job.excludes(self.volunteer, || *self.id.get_or_init(|| self.capability.id()))
            && job.required_fingerprint().is_none_or(|required| *required == environment())
    }
}

impl Farm {
    /// The job that this volunteer should get now: the first in the queue that its capability meets.
    ///
    /// Costs the number of distinct requirements at worst, whatever the length of the queue.
    #[must_use]
    pub fn candidate(&self, volunteer: &PeerKey, capability: &Capability) -> Option<JobId> {
        self.queue.candidate(&Asker { farm: self, volunteer, capability, id: OnceCell::new() })
    }

    /// Whether this volunteer may attempt this job now.
    #[must_use]
    pub fn may_attempt(&self, volunteer: &PeerKey, capability: &Capability, job: JobId) -> bool {
        let Some(found) = self.jobs.get(job) else { return false };
        let (recipe, standing) = self.queue.recipe(found.lot);
        self.queue.requirement(found.lot).met_by(capability)
            && capability.accepts.admits(&recipe, standing)
            && Asker { farm: self, volunteer, capability, id: OnceCell::new() }.may_have(job)
    }
}
