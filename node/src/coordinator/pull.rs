//! Bytes that a coordinator takes over: sources from requesters, artifacts and logs from volunteers.
//!
//! Everything is pulled over the connection that the other side dialled, so nobody needs to be reachable. A source makes its
//! job grantable ([`Command::SourceHeld`]); an artifact makes this coordinator its keeper ([`Command::Held`]). A pull that
//! fails changes nothing: the farm's own deadlines decide what becomes of the job.

use super::ledger::Ledger;
use super::replica::Told;
use crate::artifact::Store;
use crate::artifact::gather;
use crate::artifact::transfer::{Fault, TransferError};
use crate::catalogue;
use crate::chance::{Backoff, Chance};
use crate::clock::Clock;
use crate::network::Network;
use protocol::digest::Digest;
use protocol::farm::command::{Command, Event};
use protocol::id::{BuildKey, JobId, ManifestId, PeerKey};
use protocol::request::{BuildSpec, Source};
use protocol::ticket::Contact;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long after a start of this coordinator whoever was connected to it may take to come back.
const COME_BACK: Duration = Duration::from_secs(60);
/// Sources pulled at a time, and other things; further ones wait. A source comes as fast as its requester's uplink lets it,
/// and no verdict on what is built already may wait for that.
const SOURCES: usize = 8;
const OTHERS: usize = 8;
/// How often, and at first how soon again, a log is tried.
const LOG_TRIES: usize = 5;
const LOG_AGAIN: Duration = Duration::from_millis(250);
/// How long after a verdict this coordinator goes on trying to keep a copy.
const KEPT_LATE: Duration = Duration::from_secs(3_600);
/// Chunks named at most when a requester is told what is missing.
const NAMED_CHUNKS: usize = 1_024;

/// Starts pulls. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Pulls {
    ledger: Ledger,
    network: Network,
    store: Store,
    clock: Clock,
    chance: Chance,
    kept: mpsc::Sender<BuildKey>,
    source_turns: Arc<Semaphore>,
    other_turns: Arc<Semaphore>,
    under_way: Arc<Mutex<BTreeSet<Pull>>>,
    tracker: TaskTracker,
    stop: CancellationToken,
    since: tokio::time::Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pull {
    Source(JobId, PeerKey),
    Artifact(BuildKey, ManifestId),
    Log(Digest),
    Probe(BuildKey),
}

impl Pulls {
    /// No pulls yet; all of them end when `stop` is cancelled. Each artifact that is kept here is told to `kept`.
    #[must_use]
    pub fn new(
        (ledger, network, store): (Ledger, Network, Store),
        (clock, chance): (Clock, Chance),
        kept: mpsc::Sender<BuildKey>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            ledger,
            network,
            store,
            clock,
            chance,
            kept,
            since: tokio::time::Instant::now(),
            source_turns: Arc::new(Semaphore::new(SOURCES)),
            other_turns: Arc::new(Semaphore::new(OTHERS)),
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
                        if let Event::Keeping { build_key, manifest, .. } = happened.event {
                            self.keep(build_key, manifest);
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

    /// Starts what an event would have started: artifacts that wait for a keeper, and those decided lately without one.
    fn keep_what_waits(&self) {
        let waiting = self.ledger.read(|farm| {
            let keeping = farm.keeping().map(|(_, key, keeping)| (key, keeping.manifest));
            let lately = farm.builds().map(|build| build.verdict);
            let lately = lately.take_while(|verdict| self.clock.now().since(verdict.decided_at) <= KEPT_LATE);
            keeping.chain(lately.map(|verdict| (verdict.build_key, verdict.manifest))).collect::<Vec<_>>()
        });
        for (build_key, manifest) in waiting {
            self.keep(build_key, manifest);
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
            if let Err(error) = in_turn(&pulls.source_turns, pulls.take_source(&spec, from)).await {
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

    /// Becomes a keeper of what volunteers have built. It goes on when the farm has decided without it: the builders may be
    /// out of everybody's reach but this coordinator's.
    fn keep(&self, build_key: BuildKey, manifest: ManifestId) {
        let pulls = self.clone();
        self.start(Pull::Artifact(build_key, manifest), async move {
            let mut backoff = Backoff::new(pulls.chance.clone(), Duration::from_millis(500), Duration::from_secs(60));
            while let Some(holders) = pulls.holders_to_ask(build_key, manifest) {
                let pulled = gather::tree_into_store(&pulls.network, &pulls.store, manifest, holders);
                match in_turn(&pulls.other_turns, pulled).await {
                    Ok(_) => {
                        let held = Command::Held { build_key, manifest, holder: pulls.network.local() };
                        match pulls.ledger.propose(held).await {
                            Ok(_) => {
                                // A closed channel means that the node is ending.
                                let _ending = pulls.kept.send(build_key).await;
                                return;
                            }
                            Err(error) => {
                                tracing::warn!(key = %build_key.short(), %error, "the artifact is kept, but not noted")
                            }
                        }
                    }
                    Err(error) => {
                        tracing::warn!(key = %build_key.short(), %error, "the artifact could not be kept");
                        pulls.strike_off(build_key, &error).await;
                    }
                }
                tokio::time::sleep(backoff.step()).await;
            }
        });
    }

    /// Notes who answered that it has not got the artifact, or gave something else for it. Whoever reported what it does not
    /// hold is no holder: another volunteer is asked now, not when somebody finds that the verdict names nothing.
    async fn strike_off(&self, build_key: BuildKey, error: &TransferError) {
        let TransferError::Failed(faults) = error else { return };
        for (holder, _) in faults.iter().filter(|(_, fault)| *fault == Fault::Absent || fault.is_lie()) {
            if let Err(error) = self.ledger.propose(Command::Lost { build_key, holder: *holder }).await {
                tracing::debug!(key = %build_key.short(), %error, "a copy that never was is not noted");
            }
        }
    }

    /// Who holds an artifact that this coordinator still has to keep; `None` when it need not any more.
    fn holders_to_ask(&self, build_key: BuildKey, manifest: ManifestId) -> Option<Vec<PeerKey>> {
        let (local, now) = (self.network.local(), self.clock.now());
        self.ledger.read(|farm| {
            let keeping = farm.job_of(&build_key).and_then(|job| farm.job(job)?.keeping);
            if let Some(keeping) = keeping.filter(|keeping| keeping.manifest == manifest) {
                return Some(keeping.holders.iter().copied().collect());
            }
            let finished = farm.finished(&build_key).filter(|finished| finished.verdict.manifest == manifest)?;
            let recent = now.since(finished.verdict.decided_at) <= KEPT_LATE;
            (recent && !finished.holders.contains(&local)).then(|| finished.holders.iter().copied().collect())
        })
    }

    /// Takes over the log of an attempt, for people who ask when the volunteer is gone.
    pub fn keep_log(&self, log: Digest, from: PeerKey) {
        let pulls = self.clone();
        self.start(Pull::Log(log), async move {
            // The volunteer may be a moment away from having it on its shelf.
            let mut backoff = Backoff::new(pulls.chance.clone(), LOG_AGAIN, LOG_AGAIN * 8);
            for _ in 0..LOG_TRIES {
                match in_turn(&pulls.other_turns, pulls.take_log(log, from)).await {
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
        // Anybody may ask; what is not built takes no place among those that wait.
        if self.ledger.read(|farm| farm.finished(&build_key).is_none()) {
            return probed;
        }
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
                in_turn(&self.other_turns, gather::small_blob(&self.network, manifest.0, vec![holder])).await.map(drop)
            } else {
                in_turn(&self.other_turns, gather::tree_into_store(&self.network, &self.store, manifest, vec![holder]))
                    .await
                    .map(drop)
            };
            match has_it {
                Ok(()) => own = true,
                Err(error) if error.is_for_now() => {
                    tracing::info!(holder = %holder.short(), %error, "a holder has no time now");
                }
                Err(error) if self.may_come_back(holder).await => {
                    tracing::info!(holder = %holder.short(), %error, "a holder is not back yet");
                }
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

    /// Whether a holder is away only because this coordinator has just started: the last good copy must not be written off for
    /// that.
    async fn may_come_back(&self, holder: PeerKey) -> bool {
        let is_here = |peers: Vec<Contact>| peers.iter().any(|peer| peer.key == holder);
        self.since.elapsed() < COME_BACK && !self.network.peers().await.is_ok_and(is_here)
    }

    /// Runs one pull, unless the same one is under way.
    fn start(&self, pull: Pull, work: impl Future<Output = ()> + Send + 'static) {
        if !self.locked().insert(pull) {
            return;
        }
        let pulls = self.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = pulls.stop.cancelled() => {}
                () = work => {}
            }
            pulls.locked().remove(&pull);
        });
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeSet<Pull>> {
        // Insert and remove leave the set whole.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves bytes when it is their turn.
async fn in_turn<T>(turns: &Semaphore, moving: impl Future<Output = T>) -> T {
    // The semaphore is never closed; were it, there would be nothing to limit.
    let _turn = turns.acquire().await;
    moving.await
}

/// What must be fetched before a job with this source can be granted, apart from chunks.
fn source_manifest(source: &Source) -> Option<ManifestId> {
    match source {
        Source::Tree(manifest) => Some(*manifest),
        Source::Inline | Source::Archive { .. } | Source::Git { .. } => None,
    }
}
