//! One attempt inside the sandbox: its work folder, its limits, its log, its steps one after another.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::build_log::BuildLog;
use super::cgroup::Group;
use super::hierarchy::Absent;
use super::limits::Limits;
use super::outcome::{Outcome, SandboxFailure, StepEnd, Usage};
use super::process::{Order, supervise};
use super::sandbox::{Confinement, Sandbox, Scene, Step, check_environment};
use super::surroundings::Surroundings;
use super::tool::{self, Alias, Tool};
use super::vitals::Vitals;
use super::workspace::{Workspace, WorkspaceError};
use protocol::report::Limit;

/// What an attempt is given.
#[derive(Debug)]
pub struct Setup {
    /// With the source in it, handed over to the build user.
    pub workspace: Workspace,
    /// First in `PATH`, in this order.
    pub tools: Vec<Tool>,
    /// Before those.
    pub aliases: Vec<Alias>,
    /// For all steps together.
    pub limits: Limits,
    /// Of every step, `SOURCE_DATE_EPOCH` among them.
    pub environment: BTreeMap<String, String>,
    /// What steps see of place and time.
    pub surroundings: Surroundings,
    /// Where the output of every step goes. Whoever made it says when it is finished.
    pub log: BuildLog,
    /// What steps show of themselves.
    pub vitals: Vitals,
}

/// Why an attempt could not be set up or cleared away.
#[derive(Debug, thiserror::Error)]
pub enum EnclosureError {
    /// The control group.
    #[error("control group: {0}")]
    Group(#[from] Absent),
    /// The work folder.
    #[error("work folder: {0}")]
    Workspace(#[from] WorkspaceError),
    /// The environment, or processes that are not proven dead.
    #[error(transparent)]
    Sandbox(#[from] SandboxFailure),
    /// A descriptor could not be had.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An attempt: steps run in it one at a time.
#[derive(Debug)]
pub struct Enclosure {
    shared: Arc<Shared>,
    log: BuildLog,
    spent: Duration,
    state: State,
}

#[derive(Debug)]
struct Shared {
    sandbox: Sandbox,
    setup: Setup,
    group: Option<Arc<Group>>,
}

#[derive(Debug)]
enum State {
    /// No process of the attempt lives.
    Quiet,
    /// A step runs, or was abandoned and is being killed.
    Running(oneshot::Receiver<StepEnd>),
    /// A step's processes are not proven dead.
    Unsettled,
}

impl Sandbox {
    /// Prepares an attempt.
    ///
    /// # Errors
    /// [`EnclosureError`]; the work folder is then left for the next sweep.
    pub fn enclose(&self, setup: Setup) -> Result<Enclosure, EnclosureError> {
        check_environment(&setup.environment)?;
        let setup = Setup { tools: tool::distinct(setup.tools), ..setup };
        let group = match self.confinement() {
            Confinement::ControlGroups(hierarchy) => {
                let group = Group::create(hierarchy, setup.workspace.name(), &setup.limits)?;
                setup.workspace.note_groups(group.folders())?;
                Some(Arc::new(group))
            }
            Confinement::Polling(_) => None,
        };
        let log = setup.log.clone();
        let shared = Arc::new(Shared { sandbox: self.clone(), setup, group });
        Ok(Enclosure { shared, log, spent: Duration::ZERO, state: State::Quiet })
    }
}

impl Enclosure {
    /// The log, which may be read while steps run.
    #[must_use]
    pub fn log(&self) -> &BuildLog {
        &self.log
    }

    /// The work folder, to collect from once [`Self::run`] has returned.
    #[must_use]
    pub fn workspace(&self) -> &Workspace {
        &self.shared.setup.workspace
    }

    /// Whether every process of the attempt is proven dead.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        matches!(self.state, State::Quiet)
    }

    /// What is left of the time of all steps together.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.shared.setup.limits.wall.saturating_sub(self.spent)
    }

    /// Runs one step until every process of it is dead. Dropped before its end, it is cancelled, and the next call waits for that.
    pub async fn run(&mut self, step: &Step, cancel: &CancellationToken) -> StepEnd {
        self.run_within(self.left(), step, cancel).await
    }

    /// The same for at most this long, and never longer than is left.
    pub async fn run_within(&mut self, wall: Duration, step: &Step, cancel: &CancellationToken) -> StepEnd {
        self.settle().await;
        if cancel.is_cancelled() {
            return StepEnd { outcome: Outcome::Cancelled, usage: Usage::default() };
        }
        // Whatever is quick enough could end before its time is looked at.
        if wall.is_zero() {
            return StepEnd { outcome: Outcome::Limit(Limit::Deadline), usage: Usage::default() };
        }
        let abort = match self.start(step, wall) {
            Ok(abort) => abort,
            Err(failure) => return refused(failure),
        };
        let State::Running(end) = &mut self.state else {
            return refused(SandboxFailure::Unsettled);
        };
        let end = tokio::select! {
            biased;
            end = &mut *end => end.ok(),
            () = cancel.cancelled() => {
                abort.now();
                end.await.ok()
            }
        };
        self.ended(end)
    }

    /// Waits for the end of a step whose [`Self::run`] was dropped.
    pub async fn settle(&mut self) {
        if let State::Running(end) = &mut self.state {
            let end = end.await.ok();
            self.ended(end);
        }
    }

    /// Removes control group and work folder.
    ///
    /// # Errors
    /// [`EnclosureError`]; what stays is removed by the next sweep.
    pub async fn close(mut self) -> Result<(), EnclosureError> {
        self.settle().await;
        if !self.is_quiet() {
            return Err(SandboxFailure::Unsettled.into());
        }
        let shared = self.shared;
        tokio::task::spawn_blocking(move || {
            let Some(Shared { setup, group, .. }) = Arc::into_inner(shared) else {
                return Err(SandboxFailure::Unsettled.into());
            };
            let removed = group.and_then(Arc::into_inner).map_or(Ok(()), Group::remove);
            setup.workspace.remove()?;
            Ok(removed?)
        })
        .await
        .map_err(|error| EnclosureError::Io(io::Error::other(error)))?
    }

    fn start(&mut self, step: &Step, wall: Duration) -> Result<Abort, SandboxFailure> {
        if !self.is_quiet() {
            return Err(SandboxFailure::Unsettled);
        }
        step.check()?;
        let abort = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?);
        let order = self.shared.order(&self.log, wall.min(self.left()), &abort)?;
        let (tell, end) = oneshot::channel();
        let (shared, step) = (Arc::clone(&self.shared), step.clone());
        std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            let end = shared.supervise(order, &step);
            // Before the word is out, so that whoever hears it is alone with the work folder.
            drop(shared);
            // Nobody may be left to hear it.
            let _ = tell.send(end);
        })?;
        self.state = State::Running(end);
        Ok(Abort(abort))
    }

    fn ended(&mut self, end: Option<StepEnd>) -> StepEnd {
        // Without an end its thread has panicked, and nobody knows what lives.
        let end = end.unwrap_or_else(|| refused(SandboxFailure::Survivors));
        self.spent += end.usage.wall;
        self.state = match end.outcome {
            Outcome::SandboxFailed(SandboxFailure::Survivors | SandboxFailure::Watching(_)) => State::Unsettled,
            _ => State::Quiet,
        };
        end
    }
}

impl Shared {
    fn order(&self, log: &BuildLog, wall: Duration, cancel: &Arc<OwnedFd>) -> io::Result<Order> {
        let Setup { workspace, limits, vitals, .. } = &self.setup;
        Ok(Order {
            log: log.clone(),
            vitals: vitals.clone(),
            limits: *limits,
            wall,
            group: self.group.clone(),
            folders: vec![workspace.build().try_clone()?, workspace.home().try_clone()?],
            cancel: Arc::clone(cancel),
        })
    }

    fn supervise(&self, order: Order, step: &Step) -> StepEnd {
        let Setup { workspace, tools, aliases, limits, environment, surroundings, log: _, vitals: _ } = &self.setup;
        let scene =
            Scene { workspace, tools, aliases, limits, environment, surroundings, group: self.group.as_deref() };
        supervise(order, || self.sandbox.start(&scene, step))
    }
}

/// Cancels the step when dropped or told to; does nothing once it has ended.
struct Abort(Arc<OwnedFd>);

impl Abort {
    fn now(&self) {
        // Refused only when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        self.now();
    }
}

fn refused(failure: SandboxFailure) -> StepEnd {
    StepEnd { outcome: Outcome::SandboxFailed(failure), usage: Usage::default() }
}

/// Runs one step in a work folder made for it and removed again, without a runtime. For trying the sandbox.
pub(super) fn try_once(sandbox: &Sandbox, setup: Setup, step: &Step) -> Result<(StepEnd, BuildLog), EnclosureError> {
    let enclosure = sandbox.enclose(setup)?;
    let never = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?);
    let order = enclosure.shared.order(&enclosure.log, enclosure.left(), &never)?;
    let end = enclosure.shared.supervise(order, step);
    let Enclosure { shared, log, .. } = enclosure;
    if let Some(Shared { setup, group, .. }) = Arc::into_inner(shared) {
        group.and_then(Arc::into_inner).map_or(Ok(()), Group::remove)?;
        setup.workspace.remove()?;
    }
    Ok((end, log))
}
