//! The upkeep of a store as long as a daemon runs: room is made, and damage is mended.
//!
//! ```text
//!           grown, damaged, or seldom                      nobody has it
//!  watch ──────────► look ─► partial builds ─► fetch again ──────────────► part, forget
//!                     │
//!                     └───► too large, too old ─► plan ─► withdraw, tell the farm ─► evict
//!  scrub, every week: every blob is read, slowly
//! ```
//!
//! What is judged goes only after its provider record is withdrawn and the farm has heard that it is lost; while nobody
//! hears, it stays. Looking costs a walk through the folders of the store, so it is done when enough was put since the last
//! time. What the farm needs of this store, and how it is told, is the part of whoever starts this ([`Ties`]).

use super::eviction::{Evicted, Policy};
use super::gather;
use super::index::Completeness;
use super::need::Needed;
use super::store::{KeptBuild, Store, StoreError};
use crate::chance::Chance;
use crate::network::Network;
use futures::future::BoxFuture;
use protocol::id::{BuildKey, ManifestId, PeerKey};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is asked whether there is a reason to look.
const WATCH: Duration = Duration::from_secs(5);
/// How often the store is looked at without one.
const SELDOM: Duration = Duration::from_secs(600);
/// How soon a look is repeated when something remained to be done.
const AGAIN: Duration = Duration::from_secs(20);
/// A look is worth its price when the store may have grown by this part of its limit.
const GROWN_PART: u64 = 16;
/// How often loose blobs are swept away although nothing else had to go.
const SWEEP: Duration = Duration::from_secs(3_600);
/// How often every blob is read again, and how long after the start that is done first.
const SCRUB: Duration = Duration::from_secs(7 * 24 * 3_600);
const FIRST_SCRUB: Duration = Duration::from_secs(12 * 3_600);
/// Between two stretches of blobs of a scrub.
const SCRUB_PAUSE: Duration = Duration::from_millis(500);
/// How long providers of a damaged build are looked for, and how many are asked.
const PROVIDERS_WITHIN: Duration = Duration::from_secs(10);
const PROVIDERS_ASKED: usize = 8;
/// How long whatever no verdict stands behind is kept.
const UNJUDGED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// How long blobs that belong to nothing are spared while the store is too large; no upload lies still for so long.
const LOOSE_WHEN_FULL_FOR: Duration = Duration::from_secs(3_600);
/// How long an artifact is spared by size after its last use.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Everything that is not pinned, not needed and not being fetched.
pub const EVERYTHING: Policy = Policy {
    max_bytes: 0,
    down_to_bytes: 0,
    idle_for: Duration::ZERO,
    unjudged_for: UNJUDGED_FOR,
    loose_for: LOOSE_WHEN_FULL_FOR,
    loose_when_full_for: LOOSE_WHEN_FULL_FOR,
};

/// The policy of a daemon whose store may have `max_bytes`: room is made down to seven eighths.
#[must_use]
pub const fn policy(max_bytes: u64) -> Policy {
    Policy {
        max_bytes,
        down_to_bytes: max_bytes - max_bytes / 8,
        idle_for: IDLE_FOR,
        unjudged_for: UNJUDGED_FOR,
        loose_for: UNJUDGED_FOR,
        loose_when_full_for: LOOSE_WHEN_FULL_FOR,
    }
}

/// Whether the farm has heard something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A coordinator has.
    Yes,
    /// None could be reached.
    No,
}

/// What ties a store to the farm.
pub trait Ties: Debug + Send + Sync {
    /// What the farm still needs from here: sources of waiting jobs, artifacts that are being kept.
    fn needed(&self) -> BoxFuture<'_, Needed>;

    /// Tells the farm that this peer holds the build no more.
    fn lose(&self, key: BuildKey) -> BoxFuture<'_, Heard>;

    /// Tells the farm that this peer holds the build after all.
    fn hold(&self, key: BuildKey, manifest: ManifestId) -> BoxFuture<'_, Heard>;
}

/// Keeps a store within its bounds and whole.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// The store.
    pub store: Store,
    /// Where provider records are withdrawn and damaged artifacts fetched again.
    pub network: Network,
    /// What ties the store to the farm.
    pub ties: Arc<dyn Ties>,
    /// Jitter.
    pub chance: Chance,
    /// Bytes that the store may have.
    pub max_bytes: u64,
}

/// What making room has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What went.
    pub evicted: Evicted,
    /// Bytes above the policy that had to stay, because somebody works with them.
    pub excess_bytes: u64,
    /// Builds among the spared that stay because nobody heard that they would go.
    pub unheard: u64,
    /// Artifacts that have to go too, beyond as many as were to go at once.
    pub beyond: usize,
}

/// Whether a look has done everything it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Done,
    /// Something is to be tried again soon.
    Unfinished,
}

impl Upkeep {
    /// Serves until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.scrub_now_and_then() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let (mut put, mut damages, mut swept) = (0, 0, None);
        let mut next_look = Instant::now();
        loop {
            tokio::time::sleep(WATCH).await;
            let grown = self.store.put_bytes() - put >= self.max_bytes / GROWN_PART;
            let is_damaged = self.store.damages() > damages;
            let now = Instant::now();
            if !grown && !is_damaged && now < next_look {
                continue;
            }
            (put, damages) = (self.store.put_bytes(), self.store.damages());
            let sweep = swept.is_none_or(|at: Instant| at.elapsed() >= SWEEP);
            let look = match self.look(if sweep { Sweep::Due } else { Sweep::NotYet }).await {
                Ok(look) => look,
                Err(error) => {
                    tracing::warn!(%error, "the store cannot be looked after");
                    Look::Unfinished
                }
            };
            if sweep {
                swept = Some(now);
            }
            next_look = Instant::now() + self.chance.around(if look == Look::Done { SELDOM } else { AGAIN });
        }
    }

    async fn look(&self, sweep: Sweep) -> Result<Look, StoreError> {
        let mut look = Look::Done;
        for build in self.store.builds().await?.iter().filter(|build| build.completeness == Completeness::Partial) {
            if self.mend(build).await? == Look::Unfinished {
                look = Look::Unfinished;
            }
        }
        let Room { evicted, excess_bytes, .. } = self.make_room(policy(self.max_bytes), sweep, usize::MAX).await?;
        if !evicted.manifests.is_empty() {
            tracing::info!(artifacts = evicted.manifests.len(), bytes = evicted.freed_bytes, "room was made");
        }
        Ok(if evicted.spared.is_empty() && excess_bytes == 0 { look } else { Look::Unfinished })
    }

    /// Removes what must go, after the farm has heard of it, at most `at_once` artifacts.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn make_room(&self, policy: Policy, sweep: Sweep, at_once: usize) -> Result<Room, StoreError> {
        let mut plan = self.store.plan_eviction(policy, Needed::default()).await?;
        if plan.manifests().next().is_none() && sweep == Sweep::NotYet {
            return Ok(Room { excess_bytes: plan.excess_bytes(policy), ..Room::default() });
        }
        // Asking the farm may mean reading a long queue, so it is asked only when something would go.
        plan = self.store.plan_eviction(policy, self.ties.needed().await).await?;
        let excess_bytes = plan.excess_bytes(policy);
        let beyond = plan.cut_to(at_once);
        let (mut parted, mut unheard) = (BTreeSet::new(), BTreeSet::new());
        for key in plan.build_keys().collect::<Vec<_>>() {
            // While nobody hears of one, nobody hears of the next either.
            let is_heard = unheard.is_empty() && {
                parted.insert(key);
                self.part(key).await == Heard::Yes
            };
            if !is_heard {
                unheard.insert(key);
            }
        }
        plan.spare(&unheard);
        let needed = self.ties.needed().await;
        let mut evicted = self.store.evict(plan, needed).await?;
        let unheard_count = unheard.len() as u64;
        evicted.spared.extend(unheard);
        for key in evicted.spared.iter().filter(|key| parted.contains(key)) {
            // A closed network means that the node is ending.
            let _closed = self.network.provide(*key).await;
            self.take_back(*key).await?;
        }
        Ok(Room { evicted, excess_bytes, unheard: unheard_count, beyond })
    }

    /// Tells the farm that a build has stayed although it was to go.
    async fn take_back(&self, key: BuildKey) -> Result<(), StoreError> {
        if let Some(build) = self.store.builds().await?.into_iter().find(|build| build.build_key == key)
            && self.ties.hold(key, build.manifest).await == Heard::No
        {
            tracing::info!(key = %key.short(), "the farm does not know that a build has stayed; the DHT does");
        }
        Ok(())
    }

    /// Withdraws the provider record and tells the farm.
    async fn part(&self, key: BuildKey) -> Heard {
        // A closed network means that the node is ending; then nobody hears the rest either.
        let _closed = self.network.withdraw(key).await;
        self.ties.lose(key).await
    }

    /// Fetches again what is missing of a judged build, or parts with it.
    async fn mend(&self, build: &KeptBuild) -> Result<Look, StoreError> {
        let providers = self.providers(build.build_key).await;
        match gather::tree_into_store(&self.network, &self.store, build.manifest, providers).await {
            Ok(_) => {
                tracing::info!(key = %build.build_key.short(), "a damaged artifact was fetched again");
                let _closed = self.network.provide(build.build_key).await;
                return Ok(Look::Done);
            }
            Err(error) => tracing::warn!(key = %build.build_key.short(), %error, "a damaged artifact is lost here"),
        }
        match self.part(build.build_key).await {
            Heard::Yes => self.store.forget_judged(build.build_key).await.map(|()| Look::Done),
            Heard::No => Ok(Look::Unfinished),
        }
    }

    async fn providers(&self, key: BuildKey) -> Vec<PeerKey> {
        let local = self.network.local();
        let mut found = Vec::new();
        let Ok(mut told) = self.network.find_providers(key).await else { return found };
        let listening = async {
            while let Some(peer) = told.recv().await {
                if peer != local && !found.contains(&peer) {
                    found.push(peer);
                }
                if found.len() == PROVIDERS_ASKED {
                    break;
                }
            }
        };
        // Who has turned up by then is enough.
        let _late = tokio::time::timeout(PROVIDERS_WITHIN, listening).await;
        found
    }

    async fn scrub_now_and_then(&self) {
        let mut pause = FIRST_SCRUB;
        loop {
            tokio::time::sleep(self.chance.around(pause)).await;
            pause = SCRUB;
            match self.store.verify_slowly(SCRUB_PAUSE).await {
                // What it has put aside counts as damage, which the watch sees.
                Ok(scrub) => {
                    tracing::info!(blobs = scrub.blobs, damaged = scrub.damaged.len(), "the store was read again")
                }
                Err(error) => tracing::warn!(%error, "the store could not be read again"),
            }
        }
    }
}

/// Whether blobs that belong to nothing are looked for although no artifact has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// They are.
    Due,
    /// Only together with something else.
    NotYet,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::artifact::store::tests::{artifact, blob, judged};
    use crate::network::Command;
    use futures::FutureExt as _;
    use protocol::digest::Digest;
    use std::sync::Mutex;
    use tokio::sync::mpsc;

    /// A farm that hears or does not, and sees what has happened before it is told.
    #[derive(Debug)]
    struct Farm {
        store: Store,
        heard: Heard,
        needed: Needed,
        commands: Mutex<mpsc::Receiver<Command>>,
        told: Mutex<Vec<BuildKey>>,
        held: Mutex<Vec<BuildKey>>,
        /// What its owner pins in the moment in which the farm is told.
        pinned_then: Mutex<Option<Digest>>,
    }

    impl Farm {
        /// What the network was told to provide and to withdraw since the last time.
        fn records(&self) -> Vec<(&'static str, BuildKey)> {
            let mut commands = self.commands.lock().unwrap();
            std::iter::from_fn(|| commands.try_recv().ok())
                .filter_map(|command| match command {
                    Command::Provide(key) => Some(("provide", key)),
                    Command::Withdraw(key) => Some(("withdraw", key)),
                    _ => None,
                })
                .collect()
        }
    }

    impl Ties for Farm {
        fn needed(&self) -> BoxFuture<'_, Needed> {
            std::future::ready(self.needed.clone()).boxed()
        }

        fn lose(&self, key: BuildKey) -> BoxFuture<'_, Heard> {
            async move {
                assert_eq!(self.records(), [("withdraw", key)], "the record is withdrawn before the farm hears");
                assert!(self.store.judged(key).await.unwrap().is_some(), "nothing is gone before the farm has heard");
                self.told.lock().unwrap().push(key);
                let pinned = self.pinned_then.lock().unwrap().take();
                if let Some(digest) = pinned {
                    self.store.pin(digest).await.unwrap();
                }
                self.heard
            }
            .boxed()
        }

        fn hold(&self, key: BuildKey, _: ManifestId) -> BoxFuture<'_, Heard> {
            self.held.lock().unwrap().push(key);
            std::future::ready(self.heard).boxed()
        }
    }

    fn upkeep(heard: Heard, needed: Needed, store: Store) -> (Upkeep, Arc<Farm>) {
        let (network, commands, _changes) = Network::channel(PeerKey::from_bytes([1; 32]));
        let farm = Arc::new(Farm {
            store: store.clone(),
            heard,
            needed,
            commands: Mutex::new(commands),
            told: Mutex::default(),
            held: Mutex::default(),
            pinned_then: Mutex::default(),
        });
        let ties = farm.clone();
        (Upkeep { store, network, ties, chance: Chance::seeded(1), max_bytes: 1_000 }, farm)
    }

    async fn kept(store: &Store, nr: u8) -> (BuildKey, protocol::id::ManifestId) {
        let manifest = artifact(store, blob(nr, 400)).await;
        let (key, word) = judged(nr, &manifest, None);
        store.keep_judged(key, word, "r".to_owned()).await.unwrap();
        (key, manifest.id())
    }

    #[tokio::test(start_paused = true)]
    async fn the_farm_hears_before_anything_judged_goes() {
        let store = Store::in_memory();
        let (first, _) = kept(&store, 1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (second, queued) = kept(&store, 2).await;
        let (upkeep, farm) = upkeep(Heard::Yes, Needed::tree(queued), store.clone());
        let room = upkeep.make_room(EVERYTHING, Sweep::NotYet, usize::MAX).await.unwrap();
        assert_eq!(*farm.told.lock().unwrap(), [first]);
        assert!(room.excess_bytes >= 400, "what the queue needs had to stay");
        assert!(store.judged(first).await.unwrap().is_none());
        assert!(store.judged(second).await.unwrap().is_some() && store.has_artifact(queued).await.unwrap());
        assert_eq!(farm.records(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_judged_stays_while_nobody_hears_and_the_rest_goes() {
        let store = Store::in_memory();
        let (key, manifest) = kept(&store, 1).await;
        let unjudged = artifact(&store, blob(2, 400)).await.id();
        let (upkeep, farm) = upkeep(Heard::No, Needed::default(), store.clone());
        let room = upkeep.make_room(EVERYTHING, Sweep::NotYet, usize::MAX).await.unwrap();
        assert_eq!((room.evicted.manifests, room.evicted.spared), (vec![unjudged], vec![key]));
        assert!(store.has_artifact(manifest).await.unwrap() && store.judged(key).await.unwrap().is_some());
        assert_eq!(farm.records(), [("provide", key)], "it is found again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_farm_hears_of_what_has_stayed_although_it_was_to_go() {
        let store = Store::in_memory();
        let (key, manifest) = kept(&store, 1).await;
        let (upkeep, farm) = upkeep(Heard::Yes, Needed::default(), store.clone());
        *farm.pinned_then.lock().unwrap() = Some(manifest.0);
        let room = upkeep.make_room(EVERYTHING, Sweep::NotYet, usize::MAX).await.unwrap();
        assert_eq!((room.evicted.spared, room.unheard), (vec![key], 0));
        assert_eq!((&*farm.told.lock().unwrap(), &*farm.held.lock().unwrap()), (&vec![key], &vec![key]));
        assert_eq!(farm.records(), [("provide", key)]);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_by_pieces_and_nobody_is_asked_twice_while_nobody_hears() {
        let store = Store::in_memory();
        for nr in 1..=5 {
            kept(&store, nr).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (one, _) = upkeep(Heard::Yes, Needed::default(), store.clone());
        let room = one.make_room(EVERYTHING, Sweep::NotYet, 2).await.unwrap();
        assert_eq!((room.evicted.manifests.len(), room.beyond), (2, 3));
        let (alone, farm) = upkeep(Heard::No, Needed::default(), store.clone());
        let room = alone.make_room(EVERYTHING, Sweep::NotYet, 2).await.unwrap();
        assert_eq!((room.evicted.manifests.len(), room.unheard, farm.told.lock().unwrap().len()), (0, 2, 1));
        assert_eq!(store.builds().await.unwrap().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_build_that_nobody_else_has_is_given_up() {
        let store = Store::in_memory();
        let (key, manifest) = kept(&store, 1).await;
        store.damage(&Digest::of(&blob(1, 400)));
        assert!(store.whole(manifest).await.unwrap().is_none());
        let (upkeep, farm) = upkeep(Heard::Yes, Needed::default(), store.clone());
        assert_eq!(upkeep.look(Sweep::NotYet).await.unwrap(), Look::Done);
        assert_eq!(*farm.told.lock().unwrap(), [key]);
        assert!(store.builds().await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_within_its_bounds_is_left_alone() {
        let store = Store::in_memory();
        let (_, manifest) = kept(&store, 1).await;
        let (upkeep, farm) = upkeep(Heard::Yes, Needed::default(), store.clone());
        assert_eq!(upkeep.look(Sweep::Due).await.unwrap(), Look::Done);
        assert!(farm.told.lock().unwrap().is_empty() && store.has_artifact(manifest).await.unwrap());
    }
}
