//! One artifact from many providers.
//!
//! Everything happens in the caller's task: dropping the future ends every stream. The plan and the meters are shared by the
//! providers of one fetch under locks that are never held across a wait.

use super::blob::failed;
use super::frame::Ask;
use super::plan::{Load, PieceNr, Plan, Want};
use super::provider::{Answer, Answers, Due, Providers, Stream, ask_for, read_answer, write_asks};
use super::sink::{Finish, Opened, Sink, SinkError, wants};
use super::{Fault, MAX_ACTIVE, PATIENCE, Progress, Sources, TransferError};
use crate::network::Network;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use protocol::digest::Digest;
use protocol::id::PeerKey;
use protocol::tree::Manifest;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::bytes::Bytes;

/// How many requests one provider owes at a time.
const WINDOW: usize = 3;
/// How many streams a lone provider is read by. Each has a window of its own; one alone leaves a fast provider waiting whenever
/// this end waits for a processor. Several providers need one each.
const STREAMS: usize = 4;
/// How many pieces of one fetch are in memory at a time: one that is read on every stream, and some that are verified and
/// written meanwhile. A lone provider needs several of those, or it waits for the disk and the disk for it in turn.
const ROOM: usize = MAX_ACTIVE + 2 * STREAMS;
/// How often the speed of providers is compared.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// A provider this many times slower than the best is left.
const FAR_SLOWER: u64 = 16;
/// How often a fetch starts over because chunks that were here were evicted meanwhile.
const ROUNDS: usize = 3;

/// Fetches what `sink` lacks of the artifact from any of `providers`, and makes the whole appear there at the end.
///
/// While the channel of `providers` is open the fetch waits for more of them when it has none, at most [`PATIENCE`].
/// `progress` is told after every piece.
///
/// # Errors
///
/// [`TransferError`]. What was fetched stays with the sink, and the next fetch goes on from there.
pub async fn fetch_artifact(
    network: &Network,
    manifest: &Manifest,
    providers: impl Into<Providers>,
    sink: Sink,
    progress: watch::Sender<Progress>,
) -> Result<Sources, TransferError> {
    let mut providers = providers.into();
    let mut sources = Sources::default();
    let all = wants(manifest)?;
    for round in 0..ROUNDS {
        let (opened, missing) = Opened::open(&sink, manifest, all.clone()).await?;
        let total_bytes: u64 = all.iter().map(|want| u64::from(want.len)).sum();
        let plan = Plan::new(missing);
        let reused_bytes = total_bytes - plan.remaining_bytes();
        if round == 0 {
            sources.reused_bytes = reused_bytes;
        }
        progress.send_replace(Progress { total_bytes, done_bytes: reused_bytes, reused_bytes, providers: 0 });
        let fetch = Fetch {
            network,
            sink: &opened,
            plan: Mutex::new(plan),
            served: Mutex::new(std::mem::take(&mut sources.served)),
            room: Semaphore::new(ROOM),
            changed: Notify::new(),
            progress: &progress,
        };
        let fetched = fetch.run(&mut providers, &mut sources.liars).await;
        sources.served = fetch.served.into_inner().unwrap_or_else(PoisonError::into_inner);
        fetched?;
        if opened.finish(manifest).await? == Finish::Complete {
            return Ok(sources);
        }
        providers.rewind(None);
    }
    Err(TransferError::Evicted)
}

/// What the providers of one fetch share.
struct Fetch<'a> {
    network: &'a Network,
    sink: &'a Opened,
    plan: Mutex<Plan>,
    served: Mutex<BTreeMap<PeerKey, u64>>,
    /// Room in memory for pieces.
    room: Semaphore,
    /// Woken when pieces are done or wait again.
    changed: Notify,
    progress: &'a watch::Sender<Progress>,
}

/// Why a provider stopped.
enum Stop {
    Fault(Fault),
    Sink(SinkError),
}

impl Stop {
    /// Whether trying again would not help.
    const fn is_grave(&self) -> bool {
        match self {
            Self::Fault(fault) => fault.is_lie(),
            Self::Sink(_) => true,
        }
    }
}

impl<F: Into<Fault>> From<F> for Stop {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

/// Which stream of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    First,
    /// One that is left when another provider comes.
    Further,
}

/// A piece that a provider owes; dropped when it is answered, or never will be.
struct Owed<'a> {
    fetch: &'a Fetch<'a>,
    peer: PeerKey,
    nr: PieceNr,
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.fetch.plan().answered(self.peer, self.nr);
        self.fetch.changed.notify_waiters();
    }
}

/// A piece on its way: what was asked.
struct Asked<'a> {
    owed: Owed<'a>,
    wants: Vec<Want>,
}

/// A piece that came: what of it did, and what did not.
struct Came<'a> {
    owed: Owed<'a>,
    chunks: Vec<(Digest, Bytes)>,
    fault: Option<Fault>,
}

impl Came<'_> {
    /// Whether nothing more can come on the stream.
    fn is_last(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| *fault != Fault::Absent)
    }
}

/// A provider at work, as the fetch sees it.
struct Active {
    /// Dropped to make it leave.
    _stay: oneshot::Sender<()>,
    /// When it was first asked, or will be.
    since: Instant,
    /// What it had served when speeds were last compared.
    before: u64,
}

type Running<'a> = FuturesUnordered<BoxFuture<'a, (PeerKey, Result<(), Stop>)>>;

impl Fetch<'_> {
    async fn run(&self, providers: &mut Providers, liars: &mut Vec<PeerKey>) -> Result<(), TransferError> {
        let mut running: Running<'_> = FuturesUnordered::new();
        let mut active: BTreeMap<PeerKey, Active> = BTreeMap::new();
        let mut failures: BTreeMap<PeerKey, (u32, u64)> = BTreeMap::new();
        let mut faults: BTreeMap<PeerKey, Fault> = BTreeMap::new();
        let mut set_aside: Vec<PeerKey> = Vec::new();
        let mut more = true;
        let mut alone_since = Instant::now();
        let mut compare = interval_at(Instant::now() + COMPARE_EVERY, COMPARE_EVERY);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = self.changed.notified();
            if self.plan().is_done() {
                return Ok(());
            }
            let idle = running.is_empty();
            if idle && !more {
                // The slow are better than nobody.
                let Some(peer) = set_aside.pop() else { return Err(failed(faults)) };
                self.start(peer, Duration::ZERO, &running, &mut active);
                continue;
            }
            tokio::select! {
                biased;
                Some((peer, stopped)) = running.next(), if !idle => {
                    active.remove(&peer);
                    let Err(stop) = stopped else { continue };
                    let fault = match stop {
                        Stop::Fault(fault) => fault,
                        Stop::Sink(error) => return Err(error.into()),
                    };
                    tracing::debug!(?peer, %fault, "a provider is left");
                    if let Some(after) = self.retry_after(peer, &fault, &mut failures) {
                        self.start(peer, after, &running, &mut active);
                    } else if fault == Fault::Slow {
                        set_aside.push(peer);
                    } else if fault.is_lie() {
                        providers.ban(peer);
                        liars.push(peer);
                    }
                    faults.insert(peer, fault);
                }
                peer = providers.next(), if more && running.len() < MAX_ACTIVE => match peer {
                    Some(peer) if active.contains_key(&peer) => {}
                    Some(peer) => self.start(peer, Duration::ZERO, &running, &mut active),
                    None => more = false,
                },
                _ = compare.tick() => self.leave_the_slow(providers, &mut active),
                () = changed => {}
                () = sleep_until(alone_since + PATIENCE), if idle => more = false,
            }
            if !running.is_empty() {
                alone_since = Instant::now();
            }
            self.progress
                .send_if_modified(|progress| std::mem::replace(&mut progress.providers, active.len()) != active.len());
        }
    }

    fn start<'a>(
        &'a self,
        peer: PeerKey,
        after: Duration,
        running: &Running<'a>,
        active: &mut BTreeMap<PeerKey, Active>,
    ) {
        let (stay, leave) = oneshot::channel();
        active.insert(peer, Active { _stay: stay, since: Instant::now() + after, before: self.served_by(peer) });
        running.push(Box::pin(async move {
            sleep(after).await;
            tokio::select! {
                biased;
                _ = leave => (peer, Err(Stop::Fault(Fault::Slow))),
                done = self.work(peer) => (peer, done),
            }
        }));
    }

    /// How long to wait before the provider is tried again; `None` to give it up. Having served anything since the last
    /// failure clears its record.
    fn retry_after(
        &self,
        peer: PeerKey,
        fault: &Fault,
        failures: &mut BTreeMap<PeerKey, (u32, u64)>,
    ) -> Option<Duration> {
        let served = self.served_by(peer);
        let (count, served_before) = failures.entry(peer).or_insert((0, served));
        if served > *served_before {
            *count = 0;
        }
        *served_before = served;
        *count += 1;
        fault.retry_after(*count)
    }

    /// Leaves providers that are far slower than the best of those at work since the last comparison. A lone one stays.
    fn leave_the_slow(&self, providers: &mut Providers, active: &mut BTreeMap<PeerKey, Active>) {
        let now = Instant::now();
        let mut speeds = Vec::new();
        for (peer, active) in active.iter_mut() {
            let served = self.served_by(*peer);
            let bytes = served - active.before;
            active.before = served;
            if now.duration_since(active.since) >= COMPARE_EVERY {
                speeds.push((*peer, bytes));
            }
        }
        let best = speeds.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let crowded = active.len() >= MAX_ACTIVE && providers.is_waiting();
        for (peer, bytes) in speeds {
            // With nothing waiting, whoever is idle doubles what the slow owe: leaving them gains nothing.
            if bytes.saturating_mul(FAR_SLOWER) < best && (crowded || self.plan().has_waiting()) {
                active.remove(&peer);
            }
        }
    }

    /// One provider from its first request to the end of the plan, or of its usefulness.
    async fn work(&self, peer: PeerKey) -> Result<(), Stop> {
        tokio::select! {
            biased;
            done = self.work_on_stream(peer, Which::First) => done,
            Err(stop) = self.work_on_more_streams(peer) => Err(stop),
        }
    }

    /// Further streams, while the provider is alone, has brought something and more waits to be asked for. Unless it lied or
    /// the sink failed they end without harm, as when the provider grants no more.
    async fn work_on_more_streams(&self, peer: PeerKey) -> Result<(), Stop> {
        let before = self.served_by(peer);
        let mut granted = true;
        while granted {
            let changed = self.changed.notified();
            if self.served_by(peer) == before || !self.plan().has_waiting() || !self.is_served_by_one() {
                changed.await;
                continue;
            }
            let mut streams: FuturesUnordered<_> =
                (1..STREAMS).map(|_| self.work_on_stream(peer, Which::Further)).collect();
            while let Some(done) = streams.next().await {
                match done {
                    Err(Stop::Fault(fault)) if !fault.is_lie() => {
                        tracing::debug!(?peer, %fault, "a further stream has ended");
                        granted = false;
                    }
                    done => done?,
                }
            }
        }
        Ok(())
    }

    fn is_served_by_one(&self) -> bool {
        self.progress.borrow().providers == 1
    }

    async fn work_on_stream(&self, peer: PeerKey, which: Which) -> Result<(), Stop> {
        let stream = Stream::open(self.network, peer).await?;
        let (asks, to_write) = mpsc::channel(WINDOW);
        let writing = write_asks(stream.asks, to_write);
        let reading = self.read_pieces(peer, which, stream.answers, asks);
        tokio::pin!(writing, reading);
        tokio::select! {
            biased;
            done = &mut reading => done,
            // A stream that takes no more requests may still hold answers, or the word why it ended.
            _ = &mut writing => reading.await,
        }
    }

    async fn read_pieces(
        &self,
        peer: PeerKey,
        which: Which,
        mut answers: Answers,
        asks: mpsc::Sender<Ask>,
    ) -> Result<(), Stop> {
        let mut asked: VecDeque<Asked<'_>> = VecDeque::new();
        let mut keeping = FuturesUnordered::new();
        loop {
            let changed = self.changed.notified();
            let is_wanted = which == Which::First || self.is_served_by_one();
            while asked.len() < WINDOW && is_wanted {
                let load = if asked.is_empty() && keeping.is_empty() { Load::Idle } else { Load::Busy };
                let Some((nr, wants)) = self.plan().take(peer, load) else { break };
                let owed = Owed { fetch: self, peer, nr };
                // There is room for every request that is not answered: whoever leaves none answers what it has not read.
                if asks.try_send(ask_for(&wants)).is_err() {
                    settled(&mut keeping).await?;
                    return Err(Fault::Broken("it takes no more requests".to_owned()).into());
                }
                asked.push_back(Asked { owed, wants });
            }
            if let Some(next) = asked.pop_front() {
                // Never closed.
                let Ok(place) = during(self.room.acquire(), &mut keeping).await? else { return Ok(()) };
                let came = during(read_piece(&mut answers, next), &mut keeping).await?;
                let is_last = came.is_last();
                keeping.push(self.keep(peer, came, place));
                if is_last {
                    settled(&mut keeping).await?;
                }
            } else if let Some(kept) = keeping.next().await {
                kept?;
            } else if self.plan().is_done() || !is_wanted {
                return Ok(());
            } else if !self.plan().is_open_to(peer) {
                return Err(Fault::Absent.into());
            } else {
                changed.await;
            }
        }
    }

    /// Verifies and writes what came of a piece, and counts it. Whoever sent anything that does not fit has lied.
    async fn keep(&self, peer: PeerKey, came: Came<'_>, _place: SemaphorePermit<'_>) -> Result<(), Stop> {
        let Came { owed, chunks, fault } = came;
        let sent: Vec<Digest> = chunks.iter().map(|(digest, _)| *digest).collect();
        let fitting =
            if chunks.is_empty() { Vec::new() } else { self.sink.accept(chunks).await.map_err(Stop::Sink)? };
        let bytes = {
            let mut plan = self.plan();
            let bytes = plan.arrived(owed.nr, &fitting);
            if fault == Some(Fault::Absent) {
                plan.lacks(peer, owed.nr);
            }
            bytes
        };
        if bytes > 0 {
            *self.served().entry(peer).or_default() += bytes;
            self.progress.send_modify(|progress| progress.done_bytes += bytes);
        }
        drop(owed);
        if let Some(lie) = sent.iter().find(|digest| !fitting.contains(digest)) {
            return Err(Fault::Lied(*lie).into());
        }
        match fault {
            Some(Fault::Absent) | None => Ok(()),
            Some(fault) => Err(fault.into()),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<PeerKey, u64>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served_by(&self, peer: PeerKey) -> u64 {
        self.served().get(&peer).copied().unwrap_or(0)
    }
}

/// What is waited for, while pieces are kept; whatever ends one of these ends the waiting.
async fn during<T, K: Future<Output = Result<(), Stop>>>(
    waiting: impl Future<Output = T>,
    keeping: &mut FuturesUnordered<K>,
) -> Result<T, Stop> {
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            biased;
            Some(kept) = keeping.next(), if !keeping.is_empty() => kept?,
            came = &mut waiting => return Ok(came),
        }
    }
}

/// Waits until everything that came is kept. A lie, or a sink that fails, says more than that the stream ended.
async fn settled<K: Future<Output = Result<(), Stop>>>(keeping: &mut FuturesUnordered<K>) -> Result<(), Stop> {
    let mut ended: Result<(), Stop> = Ok(());
    while let Some(kept) = keeping.next().await {
        let is_told = matches!(&ended, Err(stop) if stop.is_grave());
        if kept.is_err() && !is_told {
            ended = kept;
        }
    }
    ended
}

/// Reads the answers to one request. A fault ends it, and what came before still counts; an absent chunk does not.
async fn read_piece<'a>(answers: &mut Answers, asked: Asked<'a>) -> Came<'a> {
    let mut came = Came { owed: asked.owed, chunks: Vec::with_capacity(asked.wants.len()), fault: None };
    for (at, want) in asked.wants.iter().enumerate() {
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        match read_answer(answers, at, Due::Exactly(want.len)).await {
            Ok(Answer::Bytes(bytes)) => came.chunks.push((want.digest, bytes)),
            Ok(Answer::Absent) => came.fault = Some(Fault::Absent),
            Err(fault) => {
                came.fault = Some(fault);
                break;
            }
        }
    }
    came
}
