//! Making room, in two steps.
//!
//! [`Store::plan_eviction`] chooses what must go and touches nothing; the caller withdraws the provider records of
//! [`Plan::build_keys`] and tells the farm that they are lost; only then does [`Store::evict`] delete anything, and it spares
//! what was used or pinned in between.
//!
//! The least recently used artifacts go first, sources and builds alike; what is pinned never goes. A chunk that a remaining
//! artifact shares stays. Blobs that belong to nothing (chunks of an upload that never ended, logs of no verdict) go once
//! nobody has asked about them for a while.

use super::store::{Store, StoreError};
use protocol::digest::Digest;
use protocol::id::{BuildKey, ManifestId};
use protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How large a store may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes of all blobs together; eviction stops as soon as no more are left.
    pub max_bytes: u64,
    /// How long a blob that belongs to nothing is kept after it was put or last asked about.
    pub loose_for: Duration,
}

/// What must go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Artifacts, least recently used first.
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
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Artifacts that went.
    pub manifests: Vec<ManifestId>,
    /// Builds that were planned but used or pinned meanwhile: still here, to be provided again.
    pub spared: Vec<BuildKey>,
}

/// What keeps blobs here: for each artifact the blobs it needs.
struct Needs(BTreeMap<ManifestId, Vec<Digest>>);

impl Store {
    /// Chooses what must go to meet `policy`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn plan_eviction(&self, policy: Policy) -> Result<Plan, StoreError> {
        self.run(move |inner| {
            let lens: BTreeMap<_, _> = inner.listed()?.into_iter().map(|blob| (blob.digest, blob.len)).collect();
            let stored_bytes: u64 = lens.values().sum();
            let mut plan = Plan {
                artifacts: Vec::new(),
                stored_bytes,
                remaining_bytes: stored_bytes,
                made_at: inner.now(),
                loose_before: inner.now() - policy.loose_for,
            };
            if stored_bytes <= policy.max_bytes {
                return Ok(plan);
            }
            let needs = Needs::read(inner)?;
            let mut users: BTreeMap<Digest, u32> = BTreeMap::new();
            needs.0.values().flatten().for_each(|digest| *users.entry(*digest).or_default() += 1);

            let pins = inner.pins()?;
            let mut candidates = inner.index.artifacts()?;
            candidates.retain(|(id, _)| !pins.contains(&id.0));
            candidates.sort_by_key(|(id, record)| (record.last_used, *id));
            let builds = inner.index.builds()?;
            for (manifest, record) in candidates {
                if plan.remaining_bytes <= policy.max_bytes {
                    break;
                }
                for digest in needs.0.get(&manifest).into_iter().flatten() {
                    let Some(count) = users.get_mut(digest) else { continue };
                    *count -= 1;
                    if *count == 0 && !pins.contains(digest) {
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
    pub async fn evict(&self, plan: Plan) -> Result<Evicted, StoreError> {
        self.run(move |inner| {
            let before = Needs::read(inner)?;
            let mut evicted = Evicted::default();
            let mut candidates = BTreeSet::new();
            {
                let _records = inner.records();
                let pins = inner.pins()?;
                for doomed in &plan.artifacts {
                    let record = inner.index.artifact(&doomed.manifest)?;
                    let used = record.is_none_or(|record| record.last_used > doomed.last_used);
                    if used || pins.contains(&doomed.manifest.0) {
                        evicted.spared.extend(&doomed.build_keys);
                        continue;
                    }
                    for key in &doomed.build_keys {
                        inner.forget_judged(key)?;
                    }
                    inner.index.remove_artifact(&doomed.manifest)?;
                    evicted.manifests.push(doomed.manifest);
                    candidates.extend(before.0.get(&doomed.manifest).into_iter().flatten().copied());
                }
            }
            let mut needed: BTreeSet<Digest> = Needs::read(inner)?.0.into_values().flatten().collect();
            needed.extend(inner.pins()?);
            for blob in inner.listed()? {
                // What was put or asked about since the plan may be part of something that is only being added.
                let idle = blob.touched <= plan.made_at && candidates.contains(&blob.digest);
                let goes = idle || blob.touched < plan.loose_before;
                if goes && !needed.contains(&blob.digest) {
                    evicted.freed_bytes += inner.remove_blob(&blob.digest)?;
                }
            }
            inner.sweep_aside()?;
            Ok(evicted)
        })
        .await
    }
}

impl Needs {
    /// Of every artifact in the index: its manifest, its chunks, and the logs of the builds it answers.
    fn read(inner: &super::store::Inner) -> Result<Self, StoreError> {
        let mut needs = BTreeMap::new();
        for (id, _) in inner.index.artifacts()? {
            let chunks = inner.chunks_of(id)?;
            needs.insert(id, std::iter::once(id.0).chain(chunks).collect::<BTreeSet<_>>());
        }
        for (_, build) in inner.index.builds()? {
            needs.entry(build.manifest).or_default().extend(build.logs);
        }
        Ok(Self(needs.into_iter().map(|(id, digests)| (id, digests.into_iter().collect())).collect()))
    }
}
