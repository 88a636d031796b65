//! Who holds what was built, and what the farm answers for it.
//!
//! A built report starts *keeping*: the artifact waits for a second holder, at most [`KEEPING_FOR`]. Then the answer is
//! final, and is marked when there is one holder only. A build lives as long as somebody holds it.

use crate::farm::job::{Counted, Trail};
use crate::id::{BuildKey, ManifestId, PeerKey, ReportId};
use crate::report::{Holding, Verdict};
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
