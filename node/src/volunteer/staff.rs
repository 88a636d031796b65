//! Puts a volunteer together: a sandbox that was tried, tools that were run, limits that the owner set.

use super::announce::Announcer;
use super::builder::Builder;
use super::duty::Volunteer;
use super::machine::{self, OfferedTool};
use super::running::Running;
use super::survey::{self, SurveyError};
use super::{BuildUser, Confinement, Sandbox, Tool, Unavailable};
use super::{WorkspaceError, sweep};
use crate::artifact::Store;
use crate::catalogue;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::{Accept, VolunteerConfig};
use crate::coordinators::Coordinators;
use crate::home::{Home, HomeError};
use crate::network::Network;
use crate::source::{FetchRules, git};
use protocol::id::FarmId;
use protocol::platform::{Acceptance, Value};
use protocol::signed::SecretKey;
use std::sync::Arc;

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
    /// What the machine has cannot be looked at.
    #[error(transparent)]
    Survey(#[from] SurveyError),
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
    let offered: Vec<Tool> = config
        .tools
        .iter()
        .map(|OfferedTool { name, prefix }| Tool::new(name, prefix))
        .collect::<Result<_, _>>()
        .map_err(SurveyError::Tool)?;
    let found = survey::survey(&sandbox, &work, &offered).await?;
    facts.extend(found.libc.map(|libc| ("libc".to_owned(), libc)));
    if let Some(version) = git::usable_version().await {
        facts.insert("fetch".to_owned(), Value::Map([("git".to_owned(), Value::Version(version))].into()));
    }
    let accepts = match config.accept {
        Accept::Catalogue => Acceptance::Catalogue(catalogue::ids()),
        Accept::Members => Acceptance::Members(catalogue::ids()),
        Accept::Any => Acceptance::Any,
    };
    let tier = sandbox.tier();
    let capability = machine::capability(facts, found.tools, found.headers, share, tier, accepts, config.limits.slots);
    let Ground { network, store, coordinators, farm, secret, clock, chance } = ground;
    let builder = Builder {
        sandbox,
        store: store.clone(),
        network: network.clone(),
        coordinators: coordinators.clone(),
        tools: offered,
        aliases: found.aliases,
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
