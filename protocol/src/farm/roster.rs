//! Who is here, as the leader sees it: parked claims and sightings. Soft state, pure, and never part of the farm.
//!
//! Volunteers of equal capability stand together, so that finding out who could take a new job costs the number of distinct
//! capabilities, not of volunteers. Everything is bounded; the oldest sighting makes room.

use crate::farm::Farm;
use crate::farm::command::Witnesses;
use crate::farm::explain::{Presence, Sighting};
use crate::farm::liveness::SILENCE;
use crate::id::{CapabilityId, JobId, PeerKey};
use crate::platform::Capability;
use crate::time::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most volunteers that are remembered.
pub const MAX_VOLUNTEERS: usize = 20_000;
/// The most claims that one volunteer may park.
pub const MAX_CLAIMS: usize = 64;
/// How long somebody who fell silent is remembered, to say that he is gone.
pub const REMEMBERED_FOR: Span = Span::from_secs(600);

/// A claim that waits for work.
#[derive(Clone, Debug)]
pub struct ParkedClaim {
    /// Who claims.
    pub volunteer: PeerKey,
    /// Which of its claims.
    pub nonce: u64,
    /// What it can do.
    pub capability: Arc<Capability>,
    /// The digest of that.
    pub capability_id: CapabilityId,
}

/// Why a claim is not parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParkError {
    /// This volunteer has parked too many.
    #[error("at most {MAX_CLAIMS} claims of one volunteer are parked")]
    TooManyClaims,
    /// Keys, texts or their number are out of bounds.
    #[error("the capability is out of bounds")]
    OutOfBounds,
}

#[derive(Clone, Debug)]
struct Seen {
    capability: CapabilityId,
    heard: Timestamp,
    parked: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug)]
struct Kind {
    capability: Arc<Capability>,
    /// Volunteers seen with it.
    seen: BTreeSet<PeerKey>,
    /// Parked claims by the order of parking.
    parked: BTreeMap<u64, (PeerKey, u64)>,
}

/// Volunteers seen lately, and their parked claims.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    volunteers: BTreeMap<PeerKey, Seen>,
    kinds: BTreeMap<CapabilityId, Kind>,
    by_age: BTreeSet<(Timestamp, PeerKey)>,
    next: u64,
}

impl Roster {
    /// A volunteer was heard and can do this: by `Hello` or claim.
    ///
    /// # Errors
    ///
    /// [`ParkError::OutOfBounds`] when the capability is.
    pub fn see(&mut self, volunteer: PeerKey, capability: &Capability, now: Timestamp) -> Result<(), ParkError> {
        if !capability.is_within_limits() {
            return Err(ParkError::OutOfBounds);
        }
        let id = capability.id();
        if self.volunteers.get(&volunteer).is_some_and(|seen| seen.capability != id) {
            self.forget(volunteer);
        }
        if self.volunteers.len() >= MAX_VOLUNTEERS
            && !self.volunteers.contains_key(&volunteer)
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            self.forget(oldest);
        }
        let kind = self.kinds.entry(id).or_insert_with(|| Kind {
            capability: Arc::new(capability.clone()),
            seen: BTreeSet::new(),
            parked: BTreeMap::new(),
        });
        kind.seen.insert(volunteer);
        self.volunteers.entry(volunteer).or_insert(Seen { capability: id, heard: now, parked: BTreeMap::new() });
        self.heard(volunteer, now);
        Ok(())
    }

    /// A volunteer that was seen before is alive: by heartbeat.
    pub fn heard(&mut self, volunteer: PeerKey, now: Timestamp) {
        if let Some(seen) = self.volunteers.get_mut(&volunteer) {
            self.by_age.remove(&(seen.heard, volunteer));
            seen.heard = seen.heard.max(now);
            self.by_age.insert((seen.heard, volunteer));
        }
    }

    /// Parks a claim. Parking the same one again keeps its place.
    ///
    /// # Errors
    ///
    /// [`ParkError`] when the capability or the number of claims is out of bounds.
    pub fn park(
        &mut self,
        volunteer: PeerKey,
        nonce: u64,
        capability: &Capability,
        now: Timestamp,
    ) -> Result<(), ParkError> {
        self.see(volunteer, capability, now)?;
        let Some(seen) = self.volunteers.get_mut(&volunteer) else { return Ok(()) };
        if seen.parked.len() >= MAX_CLAIMS && !seen.parked.contains_key(&nonce) {
            return Err(ParkError::TooManyClaims);
        }
        let next = &mut self.next;
        let place = *seen.parked.entry(nonce).or_insert_with(|| {
            *next += 1;
            *next
        });
        if let Some(kind) = self.kinds.get_mut(&seen.capability) {
            kind.parked.insert(place, (volunteer, nonce));
        }
        Ok(())
    }

    /// A parked claim was answered or given up; whether it was there.
    pub fn withdraw(&mut self, volunteer: PeerKey, nonce: u64) -> bool {
        let Some(seen) = self.volunteers.get_mut(&volunteer) else { return false };
        let Some(place) = seen.parked.remove(&nonce) else { return false };
        if let Some(kind) = self.kinds.get_mut(&seen.capability) {
            kind.parked.remove(&place);
        }
        true
    }

    /// The connection to a volunteer closed: its claims are gone, its sighting stays for a while.
    pub fn closed(&mut self, volunteer: PeerKey, now: Timestamp) {
        let nonces: Vec<_> =
            self.volunteers.get(&volunteer).map_or_else(Vec::new, |seen| seen.parked.keys().copied().collect());
        for nonce in nonces {
            self.withdraw(volunteer, nonce);
        }
        if let Some(seen) = self.volunteers.get_mut(&volunteer) {
            // As if it had been silent for long: gone, not busy.
            self.by_age.remove(&(seen.heard, volunteer));
            seen.heard = seen.heard.min(now - SILENCE.duration());
            self.by_age.insert((seen.heard, volunteer));
        }
    }

    fn forget(&mut self, volunteer: PeerKey) {
        let Some(seen) = self.volunteers.remove(&volunteer) else { return };
        self.by_age.remove(&(seen.heard, volunteer));
        if let Some(kind) = self.kinds.get_mut(&seen.capability) {
            kind.seen.remove(&volunteer);
            for place in seen.parked.values() {
                kind.parked.remove(place);
            }
            if kind.seen.is_empty() {
                self.kinds.remove(&seen.capability);
            }
        }
    }

    /// Forgets whoever has been silent for long and has nothing parked.
    pub fn prune(&mut self, now: Timestamp) {
        let silent: Vec<_> = self
            .by_age
            .iter()
            .take_while(|(heard, _)| now.since(*heard) > REMEMBERED_FOR.duration())
            .map(|(_, volunteer)| *volunteer)
            .collect();
        for volunteer in silent {
            if self.volunteers.get(&volunteer).is_some_and(|seen| seen.parked.is_empty()) {
                self.forget(volunteer);
            }
        }
    }

    /// The claim that has been parked longest among those that could take this job now.
    #[must_use]
    pub fn wake(&self, farm: &Farm, job: JobId) -> Option<ParkedClaim> {
        let view = farm.job(job)?;
        let mut best: Option<(u64, ParkedClaim)> = None;
        for (id, kind) in &self.kinds {
            let older = |place: &u64| best.as_ref().is_none_or(|(best, _)| place < best);
            let capable = kind.parked.keys().next().is_some_and(older)
                && view.requirement.met_by(&kind.capability)
                && kind.capability.accepts.admits(&view.recipe, view.standing);
            if !capable {
                continue;
            }
            let claim = kind
                .parked
                .iter()
                .take_while(|(place, _)| older(place))
                .find(|(_, (volunteer, _))| farm.may_attempt(volunteer, &kind.capability, job));
            if let Some((place, (volunteer, nonce))) = claim {
                let capability = Arc::clone(&kind.capability);
                best = Some((
                    *place,
                    ParkedClaim { volunteer: *volunteer, nonce: *nonce, capability, capability_id: *id },
                ));
            }
        }
        best.map(|(_, claim)| claim)
    }

    /// A parked claim.
    #[must_use]
    pub fn claim(&self, volunteer: PeerKey, nonce: u64) -> Option<ParkedClaim> {
        let seen = self.volunteers.get(&volunteer).filter(|seen| seen.parked.contains_key(&nonce))?;
        let kind = self.kinds.get(&seen.capability)?;
        Some(ParkedClaim { volunteer, nonce, capability: Arc::clone(&kind.capability), capability_id: seen.capability })
    }

    /// Whether somebody alive, other than `except`, could attempt this job.
    #[must_use]
    pub fn witnesses(&self, farm: &Farm, job: JobId, except: &PeerKey, now: Timestamp) -> Witnesses {
        let alive = |volunteer: &&PeerKey| {
            *volunteer != except && self.presence(volunteer, now).is_some_and(|presence| presence != Presence::Gone)
        };
        let found = self.kinds.values().any(|kind| {
            kind.seen.iter().filter(alive).any(|volunteer| farm.may_attempt(volunteer, &kind.capability, job))
        });
        if found { Witnesses::Alive } else { Witnesses::Nobody }
    }

    /// Whether a volunteer could start now; `None` when it was not seen lately.
    #[must_use]
    pub fn presence(&self, volunteer: &PeerKey, now: Timestamp) -> Option<Presence> {
        let seen = self.volunteers.get(volunteer)?;
        Some(if !seen.parked.is_empty() {
            Presence::Free
        } else if now.since(seen.heard) < SILENCE.duration() {
            Presence::Busy
        } else {
            Presence::Gone
        })
    }

    /// When a volunteer was heard last.
    #[must_use]
    pub fn last_heard(&self, volunteer: &PeerKey) -> Option<Timestamp> {
        self.volunteers.get(volunteer).map(|seen| seen.heard)
    }

    /// Every volunteer seen lately, for [`Farm::explain`].
    #[must_use]
    pub fn sightings(&self, now: Timestamp) -> Vec<Sighting> {
        let sighting = |(volunteer, seen): (&PeerKey, &Seen)| {
            let capability = Capability::clone(&self.kinds.get(&seen.capability)?.capability);
            Some(Sighting { volunteer: *volunteer, capability, presence: self.presence(volunteer, now)? })
        };
        self.volunteers.iter().filter_map(sighting).collect()
    }

    /// How many volunteers are alive.
    #[must_use]
    pub fn alive(&self, now: Timestamp) -> usize {
        let alive =
            |volunteer: &&PeerKey| self.presence(volunteer, now).is_some_and(|presence| presence != Presence::Gone);
        self.volunteers.keys().filter(alive).count()
    }
}
