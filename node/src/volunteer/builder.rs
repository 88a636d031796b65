//! The workshop that builds: source, sandbox, outputs, smoke test.
//!
//! ```text
//! recipe ─► admit ─► source from peers or its origin ─► fresh folder ─► steps ─► collect ─► smoke test ─► store
//! ```
//!
//! The network is used for the first part only, by our own code; the steps run without one. Success is the declared outputs
//! and the smoke test, never an exit status alone. A failure is the recipe's own (*build error*), a limit, or *infrastructure*;
//! which one it is, is decided where it happens and never guessed from a text.

use super::machine::Share;
use super::workshop::{Made, Order, Space, Stopped, Workshop};
use super::{
    Alias, BuildLog, BuildUser, CollectError, CollectLimits, Enclosure, EnclosureError, FileKind, Limits, NotAPattern,
    Outcome as StepOutcome, OutputPattern, Sandbox, Setup, Step, Surroundings, Tool, Usage, Vitals, Workspace, floor,
};
use crate::artifact::checkout::{CheckoutError, checkout};
use crate::artifact::gather;
use crate::artifact::transfer::TransferError;
use crate::artifact::{Batch, ChunkSource, Store, StoreError};
use crate::catalogue;
use crate::coordinators::Coordinators;
use crate::network::Network;
use crate::source::FetchRules;
use futures::future::{BoxFuture, FutureExt as _};
use protocol::digest::Digest;
use protocol::platform::{Capability, Standing};
use protocol::progress::Phase;
use protocol::recipe::{self, Output, Plan, Recipe, SmokeTest};
use protocol::report::{Fingerprint, Limit, Outcome, Smoke};
use protocol::request::CheckedRequest;
use protocol::time::Timestamp;
use protocol::tree::{Entry, Manifest, Mode, Node, TreePath};
use protocol::wire::Control;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Processes of one build, for each core it may use, and some.
const PROCESSES: u32 = 1_024;
/// How soon again a source is tried that no coordinator was there to give.
const LED_AGAIN: Duration = Duration::from_secs(2);
/// What a smoke test may take.
const SMOKE_WALL: Duration = Duration::from_secs(120);

/// Builds in the sandbox of this machine.
#[derive(Clone, Debug)]
pub struct Builder {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Where artifacts are kept.
    pub store: Store,
    /// For sources.
    pub network: Network,
    /// Who has uploaded sources and recipes.
    pub coordinators: Coordinators,
    /// What the owner offers from outside `/usr`.
    pub tools: Vec<Tool>,
    /// Programs of the system that have other names than their tools.
    pub aliases: Vec<Alias>,
    /// What one build may use.
    pub share: Share,
    /// What this volunteer said it can do.
    pub capability: Capability,
    /// Below which attempts get their folders.
    pub work: PathBuf,
    /// Where sources may be fetched from.
    pub fetch: FetchRules,
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Stopped,
    BuildError(String),
    Infrastructure(String),
    Limit(Limit),
}

impl Workshop for Builder {
    fn accept(&self, request: &CheckedRequest) -> Result<(), String> {
        let spec = &request.request.spec;
        if !self.capability.accepts.admits(&spec.recipe, Standing::Guest)
            && !self.capability.accepts.admits(&spec.recipe, Standing::Member)
        {
            return Err("the owner of this volunteer accepts catalogue recipes only".to_owned());
        }
        match spec.requirement.unmet_by(&self.capability).next() {
            Some((key, _)) => Err(format!("`{key}` is not what this volunteer has")),
            None => Ok(()),
        }
    }

    fn space(&self) -> Space {
        if floor::is_reached_at(&self.work) { Space::DiskFull } else { Space::Enough }
    }

    fn attempt(&self, order: Order) -> BoxFuture<'_, Result<Made, Stopped>> {
        async move {
            let started = Instant::now();
            let mut times = Times::default();
            let outcome = match self.build(&order, &mut times, started).await {
                Ok(outcome) => outcome,
                Err(Failure::Stopped) => return Err(Stopped),
                Err(Failure::BuildError(reason)) => Outcome::BuildError { reason },
                Err(Failure::Infrastructure(reason)) => Outcome::Infrastructure { reason },
                Err(Failure::Limit(limit)) => Outcome::Limit { limit },
            };
            let fingerprint = Fingerprint::of(&self.capability, &order.request.request.spec.requirement);
            Ok(Made { outcome, fingerprint, fetched: times.fetched, built: times.built })
        }
        .boxed()
    }
}

#[derive(Debug, Default)]
struct Times {
    fetched: Duration,
    built: Duration,
}

impl Builder {
    async fn build(&self, order: &Order, times: &mut Times, started: Instant) -> Result<Outcome, Failure> {
        let spec = &order.request.request.spec;
        let (recipe, source) = tokio::select! {
            biased;
            () = order.stop.cancelled() => return Err(Failure::Stopped),
            fetched = self.fetch_while_led(order) => fetched?,
        };
        let effort = &order.request.request.effort;
        let surroundings = Surroundings::of(spec.conditions);
        let ground = surroundings.ground(self.share.cores);
        let plan = recipe.plan(spec, effort, ground).map_err(|error| Failure::BuildError(error.to_string()))?;
        let (name, limits) = (order.lease.to_string(), self.limits(&plan));
        let room =
            Room { name, slot: order.slot, limits, surroundings, log: order.log.clone(), vitals: order.vitals.clone() };
        let mut enclosure = self.enclose(room, &source, plan.source_date_epoch).await?;
        times.fetched = started.elapsed();
        let building = Instant::now();
        order.vitals.enter(Phase::Building);
        let mut used = Used::default();
        let ran = run_steps(&mut enclosure, order, &plan.steps, &mut used).await;
        times.built = building.elapsed();
        used.tell(order, times.built);
        if let Err(failure) = ran {
            clear(enclosure);
            return Err(failure);
        }
        order.vitals.enter(Phase::Collecting);
        let (manifest, batch) = self.collect(enclosure, plan.outputs).await?;
        let size_bytes = manifest.total_bytes();
        let id = match batch.commit_artifact(&manifest).await {
            Ok(_) => manifest.id(),
            Err(error) => return Err(store_failed(&error)),
        };
        let smoke = match plan.smoke {
            Some(test) => {
                let tree = Tree { manifest, chunks: Arc::new(self.store.clone()) };
                self.smoke(order, &tree, test, plan.source_date_epoch).await?;
                Smoke::Passed
            }
            None => Smoke::None,
        };
        Ok(Outcome::Built { manifest: id, size_bytes, smoke, reproducibility: recipe.reproducibility() })
    }

    /// Everything the steps start from. A source that cannot be had because no coordinator is there is waited for: losing the
    /// coordinator is nobody's failure.
    async fn fetch_while_led(&self, order: &Order) -> Result<(Recipe, Tree), Failure> {
        loop {
            let failure = match self.fetch_all(order).await {
                Err(failure @ Failure::Infrastructure(_)) => failure,
                done => return done,
            };
            if self.coordinators.call(Control::Charter).await.is_ok() {
                return Err(failure);
            }
            tracing::info!(lease = %order.lease, "no coordinator is there to give the source: waiting for one");
            tokio::time::sleep(LED_AGAIN).await;
        }
    }

    /// Everything the steps start from, here and verified.
    async fn fetch_all(&self, order: &Order) -> Result<(Recipe, Tree), Failure> {
        let spec = &order.request.request.spec;
        let providers = self.coordinators.in_order();
        let recipe = match catalogue::by_id(&spec.recipe) {
            Some(recipe) => recipe.clone(),
            None => {
                let blob = match self.store.get(&spec.recipe.0).await.map_err(|error| store_failed(&error))? {
                    Some(blob) => blob,
                    None => {
                        gather::small_blob(&self.network, spec.recipe.0, providers.clone()).await.map_err(unfetched)?
                    }
                };
                Recipe::decode(&blob).map_err(|error| Failure::BuildError(error.to_string()))?
            }
        };
        recipe.admit(spec, &order.request.request.effort).map_err(|error| Failure::BuildError(error.to_string()))?;
        let source = self.supply(order, providers).await?;
        let manifest = recipe.over(&source.manifest).map_err(|error| Failure::BuildError(error.to_string()))?;
        let chunks = Arc::new(Layered { recipe: recipe.clone(), below: source.chunks });
        Ok((recipe, Tree { manifest, chunks }))
    }

    /// A fresh folder with the tree in it, shut in.
    async fn enclose(&self, room: Room, tree: &Tree, source_date_epoch: u64) -> Result<Enclosure, Failure> {
        let Room { name, slot, limits, surroundings, log, vitals } = room;
        let work = self.work.clone();
        let workspace = blocking(move || Workspace::create(&work, &name, BuildUser::for_slot(slot))).await?;
        let modified = Timestamp::from_millis(source_date_epoch * 1_000) + surroundings.files_later;
        if let Err(error) = checkout(tree.chunks.clone(), &tree.manifest, &workspace.build_path(), modified).await {
            if let Err(Failure::Infrastructure(error)) = blocking(move || workspace.remove()).await {
                tracing::warn!(error, "a work folder cannot be cleared");
            }
            return Err(Failure::Infrastructure(match error {
                CheckoutError::Write { error, .. } if error.kind() == io::ErrorKind::StorageFull => {
                    "the volunteer's disk is full".to_owned()
                }
                error => format!("the source cannot be laid out: {error}"),
            }));
        }
        let sandbox = self.sandbox.clone();
        let jobs = surroundings.ground(self.share.cores).jobs;
        let setup = Setup {
            workspace,
            tools: self.tools.clone(),
            aliases: self.aliases.clone(),
            limits,
            environment: BTreeMap::from([
                ("SOURCE_DATE_EPOCH".to_owned(), source_date_epoch.to_string()),
                ("BUILD_CORES".to_owned(), jobs.to_string()),
            ]),
            surroundings,
            log,
            vitals,
        };
        blocking(move || {
            setup.workspace.hand_over()?;
            sandbox.enclose(setup)
        })
        .await
    }

    fn limits(&self, plan: &Plan) -> Limits {
        let asked = plan.limits;
        Limits {
            wall: asked.time.duration(),
            memory_bytes: self.share.memory_mib.min(asked.memory_mib.max(1)) << 20,
            processes: PROCESSES,
            log_bytes: super::duty::LOG_BYTES,
            disk_bytes: self.share.disk_mib.min(asked.disk_mib.max(1)) << 20,
            cores: u32::try_from(self.share.cores).unwrap_or(u32::MAX),
            quiet: asked.quiet.duration(),
        }
    }

    /// Takes the declared outputs into the store, not yet committed, and clears the attempt away.
    async fn collect(&self, enclosure: Enclosure, outputs: Vec<Output>) -> Result<(Manifest, Batch), Failure> {
        let pattern = |output: &Output| Ok(output.path.as_str().parse::<OutputPattern>()?.with(output.presence));
        let patterns = match outputs.iter().map(pattern).collect::<Result<Vec<_>, NotAPattern>>() {
            Ok(patterns) => patterns,
            Err(error) => {
                clear(enclosure);
                return Err(Failure::BuildError(error.to_string()));
            }
        };
        let batch = self.store.batch();
        let taking = tokio::task::spawn_blocking(move || {
            let taken = take_outputs(&enclosure, &patterns, &outputs, batch);
            (enclosure, taken)
        });
        let (enclosure, taken) = taking.await.map_err(|_| ending())?;
        clear(enclosure);
        let (batch, entries) = taken?;
        let manifest =
            Manifest::new(entries).map_err(|error| Failure::BuildError(format!("the outputs are no tree: {error}")))?;
        Ok((manifest, batch))
    }

    async fn smoke(
        &self,
        order: &Order,
        artifact: &Tree,
        test: SmokeTest,
        source_date_epoch: u64,
    ) -> Result<(), Failure> {
        order.log.append(b"smoke test\n");
        let limits = Limits {
            wall: SMOKE_WALL,
            memory_bytes: self.share.memory_mib << 20,
            processes: PROCESSES,
            log_bytes: 1 << 20,
            disk_bytes: self.share.disk_mib << 20,
            cores: 1,
            quiet: SMOKE_WALL,
        };
        let said = BuildLog::new(limits.log_bytes);
        let name = format!("{}-smoke", order.lease);
        let surroundings = Surroundings::of(order.request.request.spec.conditions);
        let room =
            Room { name, slot: order.slot, limits, surroundings, log: said.clone(), vitals: order.vitals.clone() };
        let mut enclosure = self.enclose(room, artifact, source_date_epoch).await?;
        let step = Step { argv: test.argv.clone(), environment: BTreeMap::new() };
        order.vitals.enter(Phase::Building);
        let end = enclosure.run(&step, &order.stop).await;
        let said = said.to_bytes();
        order.log.append(&said);
        clear(enclosure);
        judge_step(end.outcome, &format!("the smoke test `{}`", test.argv.join(" ")))?;
        match &test.expect {
            Some(expected) if !String::from_utf8_lossy(&said).contains(expected.as_str()) => {
                Err(Failure::BuildError(format!("the smoke test did not print `{expected}`")))
            }
            _ => Ok(()),
        }
    }
}

/// Where steps run.
struct Room {
    name: String,
    slot: u16,
    limits: Limits,
    surroundings: Surroundings,
    log: BuildLog,
    vitals: Vitals,
}

/// A tree and where its chunks are.
pub(super) struct Tree {
    pub(super) manifest: Manifest,
    pub(super) chunks: Arc<dyn ChunkSource>,
}

/// The recipe's own files before those of the source.
struct Layered {
    recipe: Recipe,
    below: Arc<dyn ChunkSource>,
}

impl ChunkSource for Layered {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        match self.recipe.chunk(digest) {
            Some(content) => Ok(Some(content.to_vec())),
            None => self.below.read(digest),
        }
    }
}

/// Takes every declared output into the batch. Blocks.
fn take_outputs(
    enclosure: &Enclosure,
    patterns: &[OutputPattern],
    rules: &[Output],
    batch: Batch,
) -> Result<(Batch, Vec<Entry>), Failure> {
    let runtime = tokio::runtime::Handle::current();
    let mut entries = Vec::new();
    let mut failure = None;
    let collected = enclosure.collect(patterns, &CollectLimits::default(), |collected, file| {
        let path = TreePath::try_from(collected.path.as_str()).map_err(io::Error::other)?;
        let placed = rules.iter().find_map(|output| output.place(&path)).unwrap_or(path);
        let mode = match collected.kind {
            FileKind::Plain => Mode::Plain,
            FileKind::Executable => Mode::Executable,
        };
        match runtime.block_on(batch.file(file.try_clone()?)) {
            Ok(content) => {
                let node = Node::File { mode, size: content.size, chunks: content.chunks };
                entries.push(Entry { path: placed, node });
                Ok(())
            }
            Err(error) => {
                failure = Some(store_failed(&error));
                Err(io::Error::other("the store failed"))
            }
        }
    });
    match (failure, collected) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(uncollected(&error)),
        (None, Ok(())) => Ok((batch, entries)),
    }
}

/// What the steps of an attempt used, as far as it is counted.
#[derive(Debug, Default)]
struct Used {
    cpu: Option<Duration>,
    peak_memory_bytes: Option<u64>,
}

impl Used {
    fn add(&mut self, usage: Usage) {
        self.cpu = usage.cpu.map(|cpu| self.cpu.unwrap_or_default() + cpu).or(self.cpu);
        self.peak_memory_bytes = self.peak_memory_bytes.max(usage.peak_memory_bytes);
    }

    /// For the owner, in the volunteer's own log.
    fn tell(&self, order: &Order, wall: Duration) {
        let cpu_ms = self.cpu.map(|cpu| cpu.as_millis());
        let peak_mib = self.peak_memory_bytes.map(|bytes| bytes >> 20);
        tracing::info!(lease = %order.lease, wall_ms = wall.as_millis(), cpu_ms, peak_mib, "the steps have ended");
    }
}

async fn run_steps(
    enclosure: &mut Enclosure,
    order: &Order,
    steps: &[recipe::Step],
    used: &mut Used,
) -> Result<(), Failure> {
    for (number, step) in (1_u8..).map_while(NonZeroU8::new).zip(steps) {
        let shown = step.argv.join(" ");
        order.log.append(format!("$ {shown}\n").as_bytes());
        let left = enclosure.left();
        let own = step.time.map(|time| time.duration()).filter(|own| *own < left);
        let step = Step { argv: step.argv.clone(), environment: step.env.clone() };
        let end = enclosure.run_within(own.unwrap_or(left), &step, &order.stop).await;
        used.add(end.usage);
        if let (StepOutcome::Limit(Limit::Deadline), Some(_)) = (&end.outcome, own) {
            return Err(Failure::Limit(Limit::Step(number)));
        }
        judge_step(end.outcome, &format!("step {number} of {}, `{}`,", steps.len(), abbreviated(&shown)))?;
    }
    Ok(())
}

/// The first words of a command, for a sentence.
fn abbreviated(command: &str) -> String {
    const SHOWN: usize = 60;
    match command.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command.to_owned(),
    }
}

fn judge_step(outcome: StepOutcome, what: &str) -> Result<(), Failure> {
    match outcome {
        StepOutcome::Exited(0) => Ok(()),
        StepOutcome::Exited(status) => Err(Failure::BuildError(format!("{what} ended with status {status}"))),
        StepOutcome::Signalled(signal) => Err(Failure::BuildError(format!("{what} was killed by signal {signal}"))),
        StepOutcome::Limit(limit) => Err(Failure::Limit(limit)),
        StepOutcome::Cancelled => Err(Failure::Stopped),
        StepOutcome::SandboxFailed(failure) => Err(Failure::Infrastructure(format!("the sandbox failed: {failure}"))),
    }
}

/// Clears an attempt away; the report need not wait for it, and what stays is swept at the next start.
fn clear(enclosure: Enclosure) {
    tokio::spawn(async move {
        if let Err(error) = enclosure.close().await {
            tracing::warn!(%error, "a work folder cannot be cleared");
        }
    });
}

fn ending() -> Failure {
    Failure::Infrastructure("the volunteer is ending".to_owned())
}

pub(super) fn unfetched(error: TransferError) -> Failure {
    Failure::Infrastructure(format!("the source cannot be had from its holders: {error}"))
}

pub(super) fn store_failed(error: &StoreError) -> Failure {
    Failure::Infrastructure(format!("the volunteer's store failed: {error}"))
}

fn uncollected(error: &CollectError) -> Failure {
    match error {
        CollectError::Io { .. } | CollectError::Visitor(_) => Failure::Infrastructure(error.to_string()),
        error => Failure::BuildError(error.to_string()),
    }
}

async fn blocking<T: Send + 'static, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    E: Into<EnclosureError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Failure::Infrastructure(error.into().to_string())),
        Err(_) => Err(ending()),
    }
}
