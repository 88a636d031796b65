//! A job's place in the queue: what it follows from, and that it is taken out before anything of that changes.

use crate::farm::Farm;
use crate::farm::job::{Effort, Job};
use crate::id::JobId;

impl Farm {
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
    pub(super) fn refit(&mut self, id: JobId) {
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
