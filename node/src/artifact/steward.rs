//! Looking after a store as its owner wishes: in a daemon, or in a home where none runs.
//!
//! A daemon answers nobody but its owner: the wish comes in an envelope signed with the daemon's own key, and names the caller
//! ([`protocol::owner`]). What would take long is done in pieces that end well within the time of a parked call.

use super::index::Completeness;
use super::need::Needed;
use super::store::{KeptBuild, Pinned, Store, StoreError};
use super::upkeep::{EVERYTHING, Sweep, Upkeep};
use protocol::id::{FarmId, PeerKey};
use protocol::owner::{OwnersWord, Pruned, ReadAgain, Rest, Staying, StoreAnswer, StoreWish, StoredBuild, Wholeness};
use protocol::signed::Signed;
use protocol::wire::{Answer, Refusal, fitting};
use std::time::Duration;

/// For how long one call reads blobs.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Artifacts that go with one call: the farm is told of each.
const PRUNED_AT_ONCE: usize = 64;

/// Looks after one store.
#[derive(Clone, Debug)]
pub struct Steward {
    store: Store,
    /// Of the daemon that runs here.
    upkeep: Option<Upkeep>,
}

/// A steward that listens, and to whom.
#[derive(Clone, Debug)]
pub struct Owned {
    /// Does what is wished.
    pub steward: Steward,
    /// The daemon: what its owner says is signed with its key.
    pub daemon: PeerKey,
    /// Its farm.
    pub farm: FarmId,
}

impl Owned {
    /// Answers a wish that came over the connection of `caller`.
    pub async fn answer(&self, caller: PeerKey, word: &Signed) -> Answer {
        let wish = match word.open::<OwnersWord>(self.farm) {
            Ok(word_said) if word.key == self.daemon && word_said.caller == caller => word_said.wish,
            Ok(_) | Err(_) => return Answer::Refused(Refusal::NotAllowed),
        };
        match self.steward.fulfil(wish).await {
            Ok(answer) => Answer::Store(Box::new(answer)),
            Err(error) => Answer::Refused(Refusal::Failed(error.to_string())),
        }
    }
}

impl Steward {
    /// Looks after the store of a running daemon, which `upkeep` keeps within its bounds.
    #[must_use]
    pub fn of_daemon(upkeep: Upkeep) -> Self {
        Self { store: upkeep.store.clone(), upkeep: Some(upkeep) }
    }

    /// Looks after a store while no daemon runs: there is nobody who could tell the farm.
    #[must_use]
    pub fn alone(store: Store) -> Self {
        Self { store, upkeep: None }
    }

    /// Does what is wished, or a piece of it.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn fulfil(&self, wish: StoreWish) -> Result<StoreAnswer, StoreError> {
        match wish {
            StoreWish::List { skip } => self.list(skip).await,
            StoreWish::Verify { after } => {
                let (scrub, next) = self.store.verify_some(after, READ_WITHIN).await?;
                let damaged = self.store.places(scrub.damaged).await?;
                Ok(StoreAnswer::Read(ReadAgain { bytes: scrub.bytes, damaged, next }))
            }
            StoreWish::Prune => self.prune().await.map(StoreAnswer::Pruned),
            StoreWish::Pin { named } => self.mark(&named, Pinned::Yes).await,
            StoreWish::Unpin { named } => self.mark(&named, Pinned::No).await,
        }
    }

    async fn list(&self, skip: u64) -> Result<StoreAnswer, StoreError> {
        let builds = self.store.builds().await?;
        let needed = match &self.upkeep {
            Some(upkeep) => self.store.needed_with(upkeep.ties.needed().await),
            None => Needed::default(),
        };
        let total = builds.len() as u64;
        let rest = builds.into_iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        Ok(StoreAnswer::Listed { builds: fitting(rest.map(|build| stored(build, &needed))), total })
    }

    async fn prune(&self) -> Result<Pruned, StoreError> {
        let Some(upkeep) = &self.upkeep else {
            let plan = self.store.plan_eviction(EVERYTHING, Needed::default()).await?;
            let evicted = self.store.evict(plan, Needed::default()).await?;
            let artifacts = evicted.manifests.len() as u64;
            return Ok(Pruned { artifacts, freed_bytes: evicted.freed_bytes, ..Pruned::default() });
        };
        let room = upkeep.make_room(EVERYTHING, Sweep::Due, PRUNED_AT_ONCE).await?;
        // Where nothing went there is no use in going on.
        let goes_on = room.beyond > 0 && !room.evicted.manifests.is_empty() && room.unheard == 0;
        Ok(Pruned {
            artifacts: room.evicted.manifests.len() as u64,
            freed_bytes: room.evicted.freed_bytes,
            unheard: if room.unheard == 0 { 0 } else { room.unheard + room.beyond as u64 },
            rest: if goes_on { Rest::Some } else { Rest::Nothing },
        })
    }

    async fn mark(&self, named: &str, pinned: Pinned) -> Result<StoreAnswer, StoreError> {
        let is_named = |build: &KeptBuild| {
            build.build_key.to_string().starts_with(named) || build.manifest.to_string().starts_with(named)
        };
        let mut manifests: Vec<_> =
            self.store.builds().await?.iter().filter(|build| is_named(build)).map(|build| build.manifest).collect();
        manifests.sort_unstable();
        manifests.dedup();
        let [manifest] = manifests[..] else { return Ok(StoreAnswer::Named(manifests.len() as u64)) };
        match pinned {
            Pinned::Yes => self.store.pin(manifest.0).await?,
            Pinned::No => self.store.unpin(manifest.0).await?,
        }
        Ok(StoreAnswer::Marked(manifest))
    }
}

fn stored(build: KeptBuild, needed: &Needed) -> StoredBuild {
    let staying = match build.pinned {
        Pinned::Yes => Staying::Pinned,
        Pinned::No if needed.has_tree(&build.manifest) => Staying::Needed,
        Pinned::No => Staying::Evictable,
    };
    let wholeness = match build.completeness {
        Completeness::Complete => Wholeness::Whole,
        Completeness::Partial => Wholeness::Partial,
    };
    let KeptBuild { build_key, manifest, recipe, size_bytes, .. } = build;
    StoredBuild { build_key, manifest, recipe, size_bytes, staying, wholeness }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::artifact::store::tests::{artifact, blob, judged};
    use protocol::digest::Digest;
    use protocol::owner::{Damage, Part, Place};
    use protocol::signed::SecretKey;

    async fn kept(store: &Store, nr: u8) -> StoredBuild {
        let manifest = artifact(store, blob(nr, 400)).await;
        let (key, word) = judged(nr, &manifest, None);
        store.keep_judged(key, word, "lua".to_owned()).await.unwrap();
        StoredBuild {
            build_key: key,
            manifest: manifest.id(),
            recipe: "lua".to_owned(),
            size_bytes: 400,
            staying: Staying::Evictable,
            wholeness: Wholeness::Whole,
        }
    }

    #[tokio::test]
    async fn only_the_owner_is_listened_to_and_nobody_who_repeats_him() {
        let store = Store::in_memory();
        let [daemon, farm_key] = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]));
        let farm = FarmId::of(&farm_key.public());
        let owned = Owned { steward: Steward::alone(store), daemon: daemon.public(), farm };
        let [caller, stranger] = [3, 4].map(|key| PeerKey::from_bytes([key; 32]));
        let word = OwnersWord { caller, wish: StoreWish::List { skip: 0 } };
        let signed = Signed::new(&word, farm, &daemon);
        let listed = Answer::Store(Box::new(StoreAnswer::Listed { builds: vec![], total: 0 }));
        assert_eq!(owned.answer(caller, &signed).await, listed);

        let refused = Answer::Refused(Refusal::NotAllowed);
        assert_eq!(owned.answer(stranger, &signed).await, refused, "said by another");
        let other_key = Signed::new(&word, farm, &farm_key);
        assert_eq!(owned.answer(caller, &other_key).await, refused, "signed by another");
        let other_farm = Signed::new(&word, FarmId::of(&daemon.public()), &daemon);
        assert_eq!(owned.answer(caller, &other_farm).await, refused, "said to another farm");
        let changed =
            Signed { payload: Signed::new(&OwnersWord { caller: stranger, ..word }, farm, &daemon).payload, ..signed };
        assert_eq!(owned.answer(stranger, &changed).await, refused, "changed on the way");
    }

    #[tokio::test]
    async fn builds_are_listed_marked_and_pruned() {
        let store = Store::in_memory();
        let steward = Steward::alone(store.clone());
        let (one, two) = (kept(&store, 1).await, kept(&store, 2).await);
        let StoreAnswer::Listed { builds, total: 2 } = steward.fulfil(StoreWish::List { skip: 0 }).await.unwrap()
        else {
            panic!("a list")
        };
        assert!(builds.contains(&one) && builds.contains(&two), "{builds:?}");
        let rest = steward.fulfil(StoreWish::List { skip: 1 }).await.unwrap();
        assert_eq!(rest, StoreAnswer::Listed { builds: builds[1..].to_vec(), total: 2 });

        let pin = |named: String| steward.fulfil(StoreWish::Pin { named });
        assert_eq!(pin(one.build_key.to_string()).await.unwrap(), StoreAnswer::Marked(one.manifest));
        assert_eq!(pin("0123456789".to_owned()).await.unwrap(), StoreAnswer::Named(0));
        assert_eq!(pin(String::new()).await.unwrap(), StoreAnswer::Named(2));
        let StoreAnswer::Pruned(pruned) = steward.fulfil(StoreWish::Prune).await.unwrap() else { panic!("pruned") };
        assert_eq!((pruned.artifacts, pruned.rest), (1, Rest::Nothing));
        let named = one.manifest.to_string()[..8].to_owned();
        assert_eq!(steward.fulfil(StoreWish::Unpin { named }).await.unwrap(), StoreAnswer::Marked(one.manifest));
        let left = steward.fulfil(StoreWish::List { skip: 0 }).await.unwrap();
        assert_eq!(left, StoreAnswer::Listed { builds: vec![one], total: 1 });
    }

    #[tokio::test]
    async fn a_damaged_piece_is_told_with_the_build_and_the_file_it_belongs_to() {
        let store = Store::in_memory();
        let steward = Steward::alone(store.clone());
        let build = kept(&store, 1).await;
        let digest = Digest::of(&blob(1, 400));
        store.damage(&digest);
        let verify = || steward.fulfil(StoreWish::Verify { after: None });
        let StoreAnswer::Read(read) = verify().await.unwrap() else { panic!("read") };
        let place = Place {
            manifest: build.manifest,
            build_key: Some(build.build_key),
            recipe: Some("lua".to_owned()),
            part: Part::File("bin".to_owned()),
        };
        assert_eq!(read.damaged, [Damage { digest, places: vec![place] }]);
        let listed = steward.fulfil(StoreWish::List { skip: 0 }).await.unwrap();
        let damaged = StoredBuild { wholeness: Wholeness::Partial, ..build };
        assert_eq!(listed, StoreAnswer::Listed { builds: vec![damaged], total: 1 });
        let StoreAnswer::Read(again) = verify().await.unwrap() else { panic!("read") };
        assert_eq!((again.damaged, again.next), (vec![], None));
    }
}
