//! Puts a volunteer together: a sandbox that was tried, tools that were run, limits that the owner set.

use super::announce::Announcer;
use super::builder::Builder;
use super::duty::Volunteer;
use super::fetch::FetchRules;
use super::machine::{self, KNOWN_TOOLS, OfferedTool};
use super::running::Running;
use super::{
    BuildLog, BuildUser, Confinement, EnclosureError, Limits, Outcome, Sandbox, Setup, Step, Surroundings, Tool,
    ToolError, Unavailable,
};
use super::{Workspace, WorkspaceError, sweep};
use crate::artifact::Store;
use crate::catalogue;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::{Accept, VolunteerConfig};
use crate::coordinators::Coordinators;
use crate::home::{Home, HomeError};
use crate::network::Network;
use protocol::id::FarmId;
use protocol::platform::Acceptance;
use protocol::signed::SecretKey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a tool may take to tell its version.
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// Memory of a tool that tells its version: a Java machine reserves much.
const TELL_MEMORY_BYTES: u64 = 1 << 30;

/// Everything of the node that a volunteer stands on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The network.
    pub network: Network,
    /// Where artifacts are kept.
    pub store: Store,
    /// Who leads.
    pub coordinators: Coordinators,
    /// The farm.
    pub farm: FarmId,
    /// Signs reports.
    pub secret: SecretKey,
    /// Time.
    pub clock: Clock,
    /// Nonces and jitter.
    pub chance: Chance,
}

/// Why this machine does not volunteer.
#[derive(Debug, thiserror::Error)]
pub enum StaffError {
    /// There is no working sandbox.
    #[error(transparent)]
    Sandbox(#[from] Unavailable),
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// What an earlier run left cannot be cleared away.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A tool that the owner offers cannot be offered.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Running a tool in the sandbox failed.
    #[error("a tool cannot be run in the sandbox: {0}")]
    Enclosure(#[from] EnclosureError),
    /// The program is ending.
    #[error("the node is ending")]
    Ending,
}

/// Looks at this machine and makes a volunteer of it.
///
/// # Errors
///
/// [`StaffError`].
pub async fn hire(home: &Home, config: VolunteerConfig, ground: Ground) -> Result<Volunteer, StaffError> {
    let work = home.folder("work")?;
    let (limits, probing) = (config.limits.clone(), work.clone());
    let looking = tokio::task::spawn_blocking(move || -> Result<_, StaffError> {
        let left = sweep(&probing)?;
        if left > 0 {
            tracing::info!(left, "builds of an earlier run were cleared away");
        }
        let sandbox = Sandbox::probe(&probing)?;
        Ok((sandbox, machine::share(&limits, &probing), machine::system_facts()))
    });
    let (sandbox, share, mut facts) = looking.await.map_err(|_| StaffError::Ending)??;
    let offered: Vec<Tool> =
        config.tools.iter().map(|OfferedTool { name, prefix }| Tool::new(name, prefix)).collect::<Result<_, _>>()?;
    let told = ask_tools(&sandbox, &work, &offered, &config.tools).await?;
    let mut tools = BTreeMap::new();
    for (name, printed) in told {
        if name == LIBC {
            if let Some(fact) = machine::libc_fact(&printed) {
                facts.insert("libc".to_owned(), fact);
            }
        } else {
            tools.insert(name, machine::tool_fact(&printed));
        }
    }
    let accepts = match config.accept {
        Accept::Catalogue => Acceptance::Catalogue(catalogue::ids()),
        Accept::Members => Acceptance::Members(catalogue::ids()),
        Accept::Any => Acceptance::Any,
    };
    let tier = sandbox.tier();
    let capability = machine::capability(facts, tools, share, tier, accepts, config.limits.slots);
    let Ground { network, store, coordinators, farm, secret, clock, chance } = ground;
    let builder = Builder {
        sandbox,
        store: store.clone(),
        network: network.clone(),
        coordinators: coordinators.clone(),
        tools: offered,
        share,
        capability: capability.clone(),
        work,
        fetch: FetchRules { folder: home.folder("fetch")?, ..config.fetch },
    };
    Ok(Volunteer {
        network,
        store,
        coordinators,
        workshop: Arc::new(builder),
        farm,
        secret,
        capability,
        running: Running::default(),
        clock,
        chance,
    })
}

/// What whispers for a volunteer.
#[must_use]
pub fn announcer(volunteer: &Volunteer) -> Announcer {
    Announcer {
        network: volunteer.network.clone(),
        farm: volunteer.farm,
        secret: volunteer.secret.clone(),
        capability: volunteer.capability.clone(),
        running: volunteer.running.clone(),
        clock: volunteer.clock.clone(),
        chance: volunteer.chance.clone(),
    }
}

/// The name under which the C library answers.
const LIBC: &str = "libc";

/// Runs every tool that is there once inside the sandbox; what does not run is not announced.
async fn ask_tools(
    sandbox: &Sandbox,
    work: &Path,
    offered: &[Tool],
    names: &[OfferedTool],
) -> Result<Vec<(String, String)>, StaffError> {
    let mut questions: Vec<(String, Vec<String>)> = Vec::new();
    if Path::new("/usr/bin/ldd").exists() {
        questions.push((LIBC.to_owned(), vec!["ldd".to_owned(), "--version".to_owned()]));
    }
    for tool in KNOWN_TOOLS {
        if Path::new("/usr/bin").join(tool.name).exists() && !names.iter().any(|offered| offered.name == tool.name) {
            let argv = std::iter::once(tool.name).chain(tool.arguments.iter().copied()).map(str::to_owned).collect();
            questions.push((tool.name.to_owned(), argv));
        }
    }
    for tool in names {
        let arguments = KNOWN_TOOLS
            .iter()
            .find(|known| known.name == tool.name)
            .map_or(&["--version"][..], |known| known.arguments);
        let argv = std::iter::once(tool.name.as_str()).chain(arguments.iter().copied()).map(str::to_owned).collect();
        questions.push((tool.name.clone(), argv));
    }
    let (left, right) = questions.split_at(questions.len() / 2);
    let (mut one, two) = tokio::try_join!(
        ask(sandbox, work.to_owned(), "look-0", 0, offered, left),
        ask(sandbox, work.to_owned(), "look-1", 1, offered, right),
    )?;
    one.extend(two);
    Ok(one)
}

async fn ask(
    sandbox: &Sandbox,
    work: PathBuf,
    name: &'static str,
    slot: u16,
    offered: &[Tool],
    questions: &[(String, Vec<String>)],
) -> Result<Vec<(String, String)>, StaffError> {
    let limits = Limits {
        wall: TELL_WITHIN * u32::try_from(questions.len().max(1)).unwrap_or(u32::MAX),
        memory_bytes: TELL_MEMORY_BYTES,
        processes: 256,
        log_bytes: 1 << 20,
        disk_bytes: 16 << 20,
        cores: 1,
    };
    let log = BuildLog::new(limits.log_bytes);
    let (preparing, tools, said) = (sandbox.clone(), offered.to_vec(), log.clone());
    let enclosing = tokio::task::spawn_blocking(move || -> Result<_, StaffError> {
        let workspace = Workspace::create(&work, name, BuildUser::for_slot(slot))?;
        workspace.hand_over()?;
        Ok(preparing.enclose(Setup {
            workspace,
            tools,
            limits,
            environment: BTreeMap::new(),
            surroundings: Surroundings::USUAL,
            log: said,
        })?)
    });
    let mut enclosure = enclosing.await.map_err(|_| StaffError::Ending)??;
    let mut told = Vec::new();
    let never = CancellationToken::new();
    for (tool, argv) in questions {
        let before = log.written();
        let step = Step { argv: argv.clone(), environment: BTreeMap::new() };
        let end = enclosure.run(&step, &never).await;
        let printed = String::from_utf8_lossy(&log.read(before).bytes).into_owned();
        match end.outcome {
            Outcome::Exited(0) => told.push((tool.clone(), printed)),
            outcome => tracing::info!(tool, ?outcome, "does not run in the sandbox: not announced"),
        }
    }
    enclosure.close().await?;
    Ok(told)
}

impl Sandbox {
    /// `hardened` with control groups and a build user of its own, `standard` with control groups, `basic` without.
    #[must_use]
    pub fn tier(&self) -> &'static str {
        match self.confinement() {
            Confinement::ControlGroups(_) if BuildUser::for_slot(0) != BuildUser::for_slot(1) => "hardened",
            Confinement::ControlGroups(_) => "standard",
            Confinement::Polling(_) => "basic",
        }
    }
}
