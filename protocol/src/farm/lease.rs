//! Leases: bounded rights to attempt a job, at most one of them per job at a time.
//!
//! Whether a lease was taken up and whether its volunteer is alive is soft state, see [`crate::farm::liveness`]; the law
//! only hears when a deadline passed.

use crate::id::{CapabilityId, JobId, LeaseId, PeerKey};
use crate::recipe::{Limits, MAX_TIME};
use crate::report::Fingerprint;
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long a lease is offered before its first heartbeat.
pub const OFFERED_FOR: Span = Span::from_secs(3);

/// Beside the time of its steps, what an attempt may take to fetch, unpack, collect, try and report.
pub const BESIDE_STEPS: Span = Span::from_secs(2 * 3_600);

/// How long an attempt may take. The leader reads it from the recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Everything, from the grant to the report.
    pub whole: Span,
    /// What its steps may take without a sign of progress.
    pub quiet: Span,
}

impl Bounds {
    /// What a build within these limits takes at most.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        Self { whole: Span::from(limits.time.duration() + BESIDE_STEPS.duration()), quiet: limits.quiet }
    }

    /// What any build may take, for a recipe that cannot be read.
    #[must_use]
    pub fn widest() -> Self {
        Self::of(&Limits { time: MAX_TIME, quiet: MAX_TIME, ..Limits::default() })
    }
}

/// A right to attempt a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// The job.
    pub job: JobId,
    /// Who has it.
    pub volunteer: PeerKey,
    /// What the volunteer was able to do then.
    pub capability: CapabilityId,
    /// The environment it builds in.
    pub fingerprint: Fingerprint,
    /// The claim it answered.
    pub nonce: u64,
    /// When.
    pub granted_at: Timestamp,
    /// How long it may take.
    pub bounds: Bounds,
}

impl Lease {
    /// Until when it may be taken up.
    #[must_use]
    pub fn offered_until(&self) -> Timestamp {
        self.granted_at + OFFERED_FOR.duration()
    }

    /// When it ends, however alive its volunteer seems.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.granted_at + self.bounds.whole.duration()
    }
}

/// Active leases, by id and by volunteer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    #[serde(skip)]
    by_volunteer: BTreeSet<(PeerKey, LeaseId)>,
}

impl Leases {
    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(super) fn insert(&mut self, lease: Lease) {
        self.by_volunteer.insert((lease.volunteer, lease.id));
        self.leases.insert(lease.id, lease);
    }

    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.by_volunteer.remove(&(lease.volunteer, id));
        Some(lease)
    }

    pub(super) fn of(&self, volunteer: PeerKey) -> impl Iterator<Item = &Lease> {
        let all = (volunteer, LeaseId(0))..=(volunteer, LeaseId(u64::MAX));
        self.by_volunteer.range(all).filter_map(|(_, id)| self.leases.get(id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    pub(super) fn reindex(&mut self) {
        self.by_volunteer = self.leases.values().map(|lease| (lease.volunteer, lease.id)).collect();
    }

    /// For the invariants.
    pub(super) fn index_agrees(&self) -> bool {
        self.by_volunteer == self.leases.values().map(|lease| (lease.volunteer, lease.id)).collect()
    }
}
