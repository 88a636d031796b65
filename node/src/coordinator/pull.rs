//! Bytes that a coordinator takes over: sources from requesters, artifacts and logs from volunteers.
//!
//! Everything is pulled over the connection that the other side dialled, so nobody needs to be reachable. A source makes its
//! job grantable ([`Command::SourceHeld`]); an artifact makes this coordinator its keeper ([`Command::Held`]). A pull that
//! fails changes nothing: the farm's own deadlines decide what becomes of the job.

use super::door::source_manifest;
use super::ledger::Ledger;
use super::replica::Told;
use crate::artifact::Store;
use crate::artifact::gather;
use crate::artifact::transfer::TransferError;
use crate::catalogue;
use crate::chance::{Backoff, Chance};
use crate::network::Network;
use protocol::digest::Digest;
use protocol::farm::command::{Command, Event};
use protocol::farm::holding::Keeping;
use protocol::id::{BuildKey, JobId, ManifestId, PeerKey};
use protocol::request::BuildSpec;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pulls at a time; further ones wait.
const PULLS: usize = 8;
/// How often, and at first how soon again, a log is tried.
const LOG_TRIES: usize = 5;
const LOG_AGAIN: Duration = Duration::from_millis(250);
/// Chunks named at most when a requester is told what is missing.
const NAMED_CHUNKS: usize = 1_024;

/// Starts pulls. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Pulls {
    ledger: Ledger,
    network: Network,
    store: Store,
    chance: Chance,
    turns: Arc<Semaphore>,
    under_way: Arc<Mutex<BTreeSet<Pull>>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pull {
    Source(JobId, PeerKey),
    Artifact(JobId),
    Log(Digest),
    Probe(BuildKey),
}

impl Pulls {
    /// No pulls yet; all of them end when `stop` is cancelled.
    #[must_use]
    pub fn new(ledger: Ledger, network: Network, store: Store, chance: Chance, stop: CancellationToken) -> Self {
        Self {
            ledger,
            network,
            store,
            chance,
            turns: Arc::new(Semaphore::new(PULLS)),
            under_way: Arc::default(),
            tracker: TaskTracker::new(),
            stop,
        }
    }

    /// Follows the farm and keeps what volunteers have built, until stopped.
    pub async fn run(self) {
        let mut events = self.ledger.events();
        self.keep_what_waits();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                told = events.next() => match told {
                    Some(Told::Event(happened)) => {
                        if let Event::Keeping { job, build_key, manifest, builder } = happened.event {
                            self.keep(job, build_key, manifest, builder);
                        }
                    }
                    Some(Told::StartOver) => self.keep_what_waits(),
                    None => break,
                },
            }
        }
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn keep_what_waits(&self) {
        let keeping = self.ledger.read(|farm| {
            let first = |(job, key, keeping): (JobId, BuildKey, &Keeping)| {
                Some((job, key, keeping.manifest, *keeping.holders.first()?))
            };
            farm.keeping().filter_map(first).collect::<Vec<_>>()
        });
        for (job, build_key, manifest, builder) in keeping {
            self.keep(job, build_key, manifest, builder);
        }
    }

    /// What the farm lacks of recipe and source: digests of blobs, so many at most as an answer names.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn missing(&self, spec: &BuildSpec) -> Result<Vec<Digest>, crate::artifact::StoreError> {
        let mut wanted = Vec::new();
        if catalogue::by_id(&spec.recipe).is_none() {
            wanted.push(spec.recipe.0);
        }
        if let Some(id) = source_manifest(&spec.source) {
            match self.store.manifest(id).await? {
                Some(manifest) => wanted.extend(manifest.files().flat_map(|(.., chunks)| chunks.iter().copied())),
                None => wanted.push(id.0),
            }
        }
        let mut missing = self.store.missing(wanted).await?;
        missing.truncate(NAMED_CHUNKS);
        Ok(missing)
    }

    /// Takes over recipe and source of a job from whoever submitted it.
    pub fn hand_over(&self, job: JobId, spec: BuildSpec, from: PeerKey) {
        let pulls = self.clone();
        self.start(Pull::Source(job, from), async move {
            if let Err(error) = pulls.take_source(&spec, from).await {
                tracing::warn!(%job, from = %from.short(), %error, "the source could not be taken over");
                return;
            }
            match pulls.ledger.propose(Command::SourceHeld { job }).await {
                Ok(_) => tracing::info!(%job, "the source is here"),
                Err(error) => tracing::debug!(%job, %error, "the source is here, but not needed any more"),
            }
        });
    }

    async fn take_source(&self, spec: &BuildSpec, from: PeerKey) -> Result<(), TransferError> {
        if catalogue::by_id(&spec.recipe).is_none() && self.store.get(&spec.recipe.0).await?.is_none() {
            let recipe = gather::small_blob(&self.network, spec.recipe.0, vec![from]).await?;
            self.store.put(vec![recipe]).await?;
        }
        if let Some(manifest) = source_manifest(&spec.source) {
            gather::tree_into_store(&self.network, &self.store, manifest, vec![from]).await?;
        }
        Ok(())
    }

    /// Becomes a keeper of what a volunteer has built; tries until the farm has decided without it.
    fn keep(&self, job: JobId, build_key: BuildKey, manifest: ManifestId, builder: PeerKey) {
        let pulls = self.clone();
        self.start(Pull::Artifact(job), async move {
            let mut backoff = Backoff::new(pulls.chance.clone(), Duration::from_millis(500), Duration::from_secs(10));
            while pulls.ledger.read(|farm| farm.job(job).is_some_and(|job| job.keeping.is_some())) {
                match gather::tree_into_store(&pulls.network, &pulls.store, manifest, vec![builder]).await {
                    Ok(_) => {
                        let held = Command::Held { build_key, manifest, holder: pulls.network.local() };
                        match pulls.ledger.propose(held).await {
                            Ok(_) => return,
                            Err(error) => tracing::warn!(%job, %error, "the artifact is kept, but not noted"),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%job, builder = %builder.short(), %error, "the artifact could not be kept")
                    }
                }
                tokio::time::sleep(backoff.step()).await;
            }
        });
    }

    /// Takes over the log of an attempt, for people who ask when the volunteer is gone.
    pub fn keep_log(&self, log: Digest, from: PeerKey) {
        let pulls = self.clone();
        self.start(Pull::Log(log), async move {
            // The volunteer may be a moment away from having it on its shelf.
            let mut backoff = Backoff::new(pulls.chance.clone(), LOG_AGAIN, LOG_AGAIN * 8);
            for _ in 0..LOG_TRIES {
                match pulls.take_log(log, from).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(log = %log.short(), %error, "the log could not be taken over"),
                }
                tokio::time::sleep(backoff.step()).await;
            }
            tracing::info!(log = %log.short(), "the log stays with its volunteer only");
        });
    }

    async fn take_log(&self, log: Digest, from: PeerKey) -> Result<(), TransferError> {
        let bytes = gather::small_blob(&self.network, log, vec![from]).await?;
        self.store.put(vec![bytes]).await?;
        Ok(())
    }

    /// Finds out who still has the artifact of a build, mends this coordinator's own copy from theirs, and notes who has not.
    /// The answer comes when that is done, or at once where it is under way already.
    pub fn probe(&self, build_key: BuildKey) -> oneshot::Receiver<()> {
        let (done, probed) = oneshot::channel();
        let pulls = self.clone();
        self.start(Pull::Probe(build_key), async move {
            let found = pulls.ledger.read(|farm| {
                farm.finished(&build_key).map(|finished| (finished.verdict.manifest, finished.holders.clone()))
            });
            let Some((manifest, holders)) = found else { return };
            for holder in pulls.lost(manifest, holders.into_iter().collect()).await {
                if let Err(error) = pulls.ledger.propose(Command::Lost { build_key, holder }).await {
                    tracing::debug!(key = %build_key.short(), %error, "a lost copy was not noted");
                }
            }
            // Whoever asked may have gone.
            let _gone = done.send(());
        });
        probed
    }

    /// Those of the holders that have not got the artifact. One whose manifest alone is here is as lost as one without.
    async fn lost(&self, manifest: ManifestId, holders: Vec<PeerKey>) -> Vec<PeerKey> {
        let local = self.network.local();
        let mut own = match self.store.whole(manifest).await {
            Ok(whole) => whole.is_some(),
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read");
                return Vec::new();
            }
        };
        let mut lost = Vec::new();
        for holder in holders.iter().copied().filter(|holder| *holder != local) {
            let has_it = if own {
                gather::small_blob(&self.network, manifest.0, vec![holder]).await.map(drop)
            } else {
                gather::tree_into_store(&self.network, &self.store, manifest, vec![holder]).await.map(drop)
            };
            match has_it {
                Ok(()) => own = true,
                Err(error) => {
                    tracing::info!(holder = %holder.short(), %error, "a copy is lost");
                    lost.push(holder);
                }
            }
        }
        if !own && holders.contains(&local) {
            lost.push(local);
        }
        lost
    }

    /// Runs one pull at its turn, unless the same one is under way.
    fn start(&self, pull: Pull, work: impl Future<Output = ()> + Send + 'static) {
        if !self.locked().insert(pull) {
            return;
        }
        let pulls = self.clone();
        self.tracker.spawn(async move {
            let in_turn = async {
                // The semaphore is never closed; were it, there would be nothing to limit.
                let _turn = pulls.turns.acquire().await;
                work.await;
            };
            tokio::select! {
                biased;
                () = pulls.stop.cancelled() => {}
                () = in_turn => {}
            }
            pulls.locked().remove(&pull);
        });
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeSet<Pull>> {
        // Insert and remove leave the set whole.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
