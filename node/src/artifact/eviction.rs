//! Making room, in two steps.
//!
//! [`Store::plan_eviction`] chooses what must go and touches nothing; the caller withdraws the provider records of
//! [`Plan::build_keys`] and tells the farm that they are lost; only then does [`Store::evict`] delete anything, and it spares
//! what was used, pinned or needed in between.
//!
//! What no verdict stands behind goes by age: artifacts that failed their smoke test or were never judged, fetched sources,
//! and blobs that belong to nothing (recipes, archives, logs of no verdict, chunks of an upload that never ended). By size the
//! least recently used artifacts go, sources and builds alike. Never does anything go that is pinned, that is [`Needed`], or
//! that a peer is fetching. A chunk that a remaining artifact shares stays.

use super::need::Needed;
use super::store::{Inner, Store, StoreError};
use protocol::digest::Digest;
use protocol::id::{BuildKey, ManifestId};
use protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A peer that has got a piece of an artifact this lately is taken to want the rest of it.
const SERVED_LATELY: Duration = Duration::from_secs(30);

/// How large a store may be, and how old what nobody asked to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes of all blobs together; room is made when there are more.
    pub max_bytes: u64,
    /// Bytes that may remain then; fewer than [`Policy::max_bytes`], so that room is made seldom.
    pub down_to_bytes: u64,
    /// How long an artifact is spared by size after it was last used: whoever made it may be about to report it.
    pub idle_for: Duration,
    /// How long an artifact without a verdict is kept after it was last used.
    pub unjudged_for: Duration,
    /// How long a blob that belongs to nothing is kept after it was put or last asked about.
    pub loose_for: Duration,
    /// The same while the store is too large: logs of builds that fail must not fill it.
    pub loose_when_full_for: Duration,
}

/// What must go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Artifacts: what is too old first, then the least recently used.
    artifacts: Vec<Doomed>,
    /// Bytes of all blobs when the plan was made.
    pub stored_bytes: u64,
    /// Bytes that remain when it is carried out.
    pub remaining_bytes: u64,
    made_at: Timestamp,
    loose_before: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Doomed {
    manifest: ManifestId,
    last_used: Timestamp,
    build_keys: Vec<BuildKey>,
}

impl Plan {
    /// The judged builds that will not be here any more: withdraw each and say that it is lost before [`Store::evict`].
    pub fn build_keys(&self) -> impl Iterator<Item = BuildKey> {
        self.artifacts.iter().flat_map(|doomed| doomed.build_keys.iter().copied())
    }

    /// The artifacts that will go.
    pub fn manifests(&self) -> impl Iterator<Item = ManifestId> {
        self.artifacts.iter().map(|doomed| doomed.manifest)
    }

    /// Bytes that remain above `policy`, because what they belong to is in use.
    #[must_use]
    pub fn excess_bytes(&self, policy: Policy) -> u64 {
        self.remaining_bytes.saturating_sub(policy.max_bytes)
    }

    /// Leaves the first `most` artifacts in the plan; how many it takes out.
    pub fn cut_to(&mut self, most: usize) -> usize {
        let beyond = self.artifacts.len().saturating_sub(most);
        self.artifacts.truncate(most);
        beyond
    }

    /// Takes the artifacts of these builds out of the plan.
    pub fn spare(&mut self, builds: &BTreeSet<BuildKey>) {
        self.artifacts.retain(|doomed| doomed.build_keys.iter().all(|key| !builds.contains(key)));
    }
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Artifacts that went.
    pub manifests: Vec<ManifestId>,
    /// Builds that were planned but used, pinned or needed meanwhile: still here, to be provided again.
    pub spared: Vec<BuildKey>,
    /// Blobs that went.
    pub(super) blobs: Vec<Digest>,
}

/// What artifacts consist of: of each the manifest, the chunks, and the logs of the builds it answers.
struct Parts(BTreeMap<ManifestId, Vec<Digest>>);

/// What may not go.
struct Kept {
    trees: BTreeSet<ManifestId>,
    blobs: BTreeSet<Digest>,
    served: BTreeSet<Digest>,
}

impl Kept {
    fn read(inner: &Inner, needed: &Needed) -> Result<Self, StoreError> {
        let pins = inner.pins()?;
        let mut trees: BTreeSet<_> = pins.iter().copied().map(ManifestId).chain(needed.trees.iter().copied()).collect();
        for source in &needed.sources {
            trees.extend(inner.index.source(source)?);
        }
        let blobs = pins.into_iter().chain(needed.blobs.iter().copied()).collect();
        Ok(Self { trees, blobs, served: inner.served_since(inner.now() - SERVED_LATELY) })
    }

    fn includes(&self, manifest: &ManifestId, parts: &Parts) -> bool {
        self.trees.contains(manifest) || parts.of(manifest).any(|part| self.served.contains(part))
    }
}

impl Store {
    /// Chooses what must go to meet `policy`; `needed` stays, beside what was [stated](Store::need) here.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn plan_eviction(&self, policy: Policy, needed: Needed) -> Result<Plan, StoreError> {
        let needed = self.needs().with(needed);
        self.run(move |inner| {
            let now = inner.now();
            let listed = inner.listed()?;
            let stored_bytes: u64 = listed.iter().map(|blob| blob.len).sum();
            let is_full = stored_bytes > policy.max_bytes;
            let loose_for = if is_full { policy.loose_when_full_for } else { policy.loose_for };
            let mut plan = Plan {
                artifacts: Vec::new(),
                stored_bytes,
                remaining_bytes: stored_bytes,
                made_at: now,
                loose_before: now - loose_for,
            };
            let builds = inner.index.builds()?;
            let judged: BTreeSet<ManifestId> = builds.iter().map(|(_, build)| build.manifest).collect();
            let mut candidates = inner.index.artifacts()?;
            let unjudged_before = now - policy.unjudged_for;
            let is_stale = |id: &ManifestId, last_used| last_used < unjudged_before && !judged.contains(id);
            if !is_full && !candidates.iter().any(|(id, record)| is_stale(id, record.last_used)) {
                return Ok(plan);
            }
            let parts = Parts::read(inner)?;
            let mut users: BTreeMap<Digest, u32> = BTreeMap::new();
            parts.0.values().flatten().for_each(|digest| *users.entry(*digest).or_default() += 1);
            let kept = Kept::read(inner, &needed)?;
            let loose = listed.iter().filter(|blob| blob.touched < plan.loose_before);
            let loose = loose.filter(|blob| !users.contains_key(&blob.digest) && !kept.blobs.contains(&blob.digest));
            plan.remaining_bytes -= loose.map(|blob| blob.len).sum::<u64>();

            let lens: BTreeMap<_, _> = listed.iter().map(|blob| (blob.digest, blob.len)).collect();
            candidates.retain(|(id, _)| !kept.includes(id, &parts));
            candidates.sort_by_key(|(id, record)| (!is_stale(id, record.last_used), record.last_used, *id));
            let idle_before = now - policy.idle_for;
            for (manifest, record) in candidates {
                let must_go = is_full && plan.remaining_bytes > policy.down_to_bytes && record.last_used <= idle_before;
                if !must_go && !is_stale(&manifest, record.last_used) {
                    break;
                }
                for digest in parts.of(&manifest) {
                    let Some(count) = users.get_mut(digest) else { continue };
                    *count -= 1;
                    if *count == 0 && !kept.blobs.contains(digest) {
                        plan.remaining_bytes -= lens.get(digest).copied().unwrap_or(0);
                    }
                }
                let build_keys =
                    builds.iter().filter(|(_, build)| build.manifest == manifest).map(|(key, _)| *key).collect();
                plan.artifacts.push(Doomed { manifest, last_used: record.last_used, build_keys });
            }
            Ok(plan)
        })
        .await
    }

    /// Carries a plan out, and sweeps away blobs that belong to nothing and that nobody has asked about for
    /// [`Policy::loose_for`].
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what is not deleted then is found by the next sweep.
    pub async fn evict(&self, plan: Plan, needed: Needed) -> Result<Evicted, StoreError> {
        let needed = self.needs().with(needed);
        let evicted = self.run(move |inner| carry_out(inner, &plan, &needed)).await?;
        self.published().forget(&evicted.blobs);
        Ok(evicted)
    }
}

fn carry_out(inner: &Inner, plan: &Plan, needed: &Needed) -> Result<Evicted, StoreError> {
    let before = Parts::read(inner)?;
    let kept = Kept::read(inner, needed)?;
    let mut evicted = Evicted::default();
    let mut candidates = BTreeSet::new();
    {
        let _records = inner.records();
        let pins = inner.pins()?;
        for doomed in &plan.artifacts {
            let record = inner.index.artifact(&doomed.manifest)?;
            let used = record.is_none_or(|record| record.last_used > doomed.last_used);
            if used || pins.contains(&doomed.manifest.0) || kept.includes(&doomed.manifest, &before) {
                evicted.spared.extend(&doomed.build_keys);
                continue;
            }
            for key in &doomed.build_keys {
                inner.forget_judged(key)?;
            }
            inner.index.remove_artifact(&doomed.manifest)?;
            evicted.manifests.push(doomed.manifest);
            candidates.extend(before.of(&doomed.manifest).copied());
        }
        if !evicted.manifests.is_empty() {
            inner.index.forget_sources(&evicted.manifests.iter().copied().collect())?;
        }
    }
    let mut staying: BTreeSet<Digest> = Parts::read(inner)?.0.into_values().flatten().collect();
    staying.extend(inner.pins()?);
    staying.extend(kept.blobs);
    for blob in inner.listed()? {
        // What was put or asked about since the plan may be part of something that is only being added.
        let idle = blob.touched <= plan.made_at && candidates.contains(&blob.digest);
        let goes = idle || blob.touched < plan.loose_before;
        if goes && !staying.contains(&blob.digest) {
            evicted.freed_bytes += inner.remove_blob(&blob.digest)?;
            evicted.blobs.push(blob.digest);
        }
    }
    inner.sweep_aside()?;
    Ok(evicted)
}

impl Parts {
    fn read(inner: &Inner) -> Result<Self, StoreError> {
        let mut parts = BTreeMap::new();
        for (id, _) in inner.index.artifacts()? {
            let chunks = inner.chunks_of(id)?;
            parts.insert(id, std::iter::once(id.0).chain(chunks).collect::<BTreeSet<_>>());
        }
        for (_, build) in inner.index.builds()? {
            parts.entry(build.manifest).or_default().extend(build.logs);
        }
        Ok(Self(parts.into_iter().map(|(id, digests)| (id, digests.into_iter().collect())).collect()))
    }

    fn of(&self, manifest: &ManifestId) -> impl Iterator<Item = &Digest> {
        self.0.get(manifest).into_iter().flatten()
    }
}
