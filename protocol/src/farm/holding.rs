//! Who holds what was built, and what the farm answers for it.
//!
//! A built report starts *keeping*: the artifact waits for a second holder, at most [`KEEPING_FOR`]. Then the answer is
//! final, and is marked when there is one holder only. A build lives as long as somebody holds it.

use crate::farm::attempt::Cause;
use crate::farm::command::{Event, Expiry, Rejection};
use crate::farm::explain::{Ended, HowBuilt};
use crate::farm::job::{Counted, Job, Trail};
use crate::farm::quorum::{self, Answer};
use crate::farm::{Farm, Turn};
use crate::id::{BuildKey, JobId, ManifestId, PeerKey, ReportId};
use crate::report::{Fingerprint, Holding, Verdict};
use crate::request::Name;
use crate::signed::Signed;
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long an artifact waits for a second holder.
pub const KEEPING_FOR: Span = Span::from_secs(60);
/// The most holders of one build that the law remembers; the DHT knows more.
pub const MAX_HOLDERS: usize = 64;

/// An artifact that waits for a second holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeping {
    /// The artifact.
    pub manifest: ManifestId,
    /// Who is known to hold it.
    pub holders: BTreeSet<PeerKey>,
    /// When it is answered with one holder.
    pub until: Timestamp,
}

/// A finished build, as the law answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished<'a> {
    /// The answer, to be signed by a coordinator.
    pub verdict: Verdict,
    /// The reports behind it, in the order of their ids.
    pub reports: Vec<&'a Signed>,
    /// The environment that the first of them swears to.
    pub fingerprint: Option<&'a Fingerprint>,
    /// Peers known to hold it.
    pub holders: &'a BTreeSet<PeerKey>,
    /// Recipe, for people.
    pub recipe: &'a Name,
    /// Bytes of its files.
    pub size_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Build {
    pub(super) manifest: ManifestId,
    pub(super) size_bytes: u64,
    pub(super) recipe: Name,
    /// Reports behind the answer and others about the same key, oldest first: a later demand for more builds on them.
    pub(super) reports: Vec<Counted>,
    pub(super) by: BTreeSet<ReportId>,
    pub(super) agreed: u8,
    pub(super) holding: Holding,
    pub(super) holders: BTreeSet<PeerKey>,
    pub(super) decided_at: Timestamp,
    pub(super) trail: Trail,
}

impl Build {
    fn finished(&self, build_key: BuildKey) -> Finished<'_> {
        let mut reports: Vec<_> = self.reports.iter().filter(|report| self.by.contains(&report.sworn.id)).collect();
        reports.sort_by_key(|report| report.sworn.id);
        Finished {
            verdict: Verdict {
                build_key,
                manifest: self.manifest,
                reports: self.by.clone(),
                agreed: self.agreed,
                holding: self.holding,
                decided_at: self.decided_at,
            },
            fingerprint: reports.first().map(|report| &report.sworn.fingerprint),
            reports: reports.into_iter().map(|report| &report.signed).collect(),
            holders: &self.holders,
            recipe: &self.recipe,
            size_bytes: self.size_bytes,
        }
    }
}

/// Finished builds, by key and by age.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Builds {
    builds: BTreeMap<BuildKey, Build>,
    #[serde(skip)]
    by_age: BTreeSet<(Timestamp, BuildKey)>,
}

impl Builds {
    pub(super) fn get(&self, key: &BuildKey) -> Option<&Build> {
        self.builds.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &BuildKey) -> Option<&mut Build> {
        self.builds.get_mut(key)
    }

    pub(super) fn finished(&self, key: &BuildKey) -> Option<Finished<'_>> {
        self.builds.get(key).map(|build| build.finished(*key))
    }

    pub(super) fn insert(&mut self, key: BuildKey, build: Build) {
        self.remove(&key);
        self.by_age.insert((build.decided_at, key));
        self.builds.insert(key, build);
    }

    pub(super) fn remove(&mut self, key: &BuildKey) -> Option<Build> {
        let build = self.builds.remove(key)?;
        self.by_age.remove(&(build.decided_at, *key));
        Some(build)
    }

    pub(super) fn newest(&self) -> impl Iterator<Item = Finished<'_>> {
        self.by_age.iter().rev().filter_map(|(_, key)| self.finished(key))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&BuildKey, &Build)> {
        self.builds.iter()
    }

    pub(super) fn len(&self) -> u64 {
        self.builds.len() as u64
    }

    pub(super) fn reindex(&mut self) {
        self.by_age = self.builds.iter().map(|(key, build)| (build.decided_at, *key)).collect();
    }

    /// For the invariants.
    pub(super) fn index_agrees(&self) -> bool {
        self.by_age == self.builds.iter().map(|(key, build)| (build.decided_at, *key)).collect()
    }
}

impl Farm {
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

    pub(super) fn stop_keeping(&mut self, id: JobId) -> Option<Keeping> {
        let keeping = self.jobs.get_mut(id)?.history.as_mut()?.keeping.take()?;
        self.deadlines.remove(&(keeping.until, Expiry::Keeping(id)));
        Some(keeping)
    }

    pub(super) fn expire_keeping(&mut self, turn: &mut Turn, id: JobId) -> Result<(), Rejection> {
        let job = self.jobs.get(id).ok_or(Rejection::UnknownJob)?;
        job.keeping().filter(|keeping| turn.now >= keeping.until).ok_or(Rejection::NotDue)?;
        self.decide(turn, id, Holding::SingleHolder);
        Ok(())
    }

    pub(super) fn keep(&mut self, turn: &mut Turn, id: JobId, manifest: ManifestId) {
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

    fn recipe_of(&self, job: &Job) -> Option<crate::request::Name> {
        let farm = self.in_force.as_ref()?.farm;
        let oldest = self.requests.get(job.requests.first()?)?;
        oldest.request(farm).ok().map(|request| request.recipe)
    }
}
