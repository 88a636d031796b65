//! The one door to the law: propose a command, get the farm's answer once it is durable.
//!
//! In the program the ledger is the Raft replica over its write-ahead log. In simulation it is one that stands on the same log
//! by itself and can lose its power ([`simulated`]). Both apply the same [`Farm`] and tell the same events.

pub mod simulated;

use super::replica::{Events, ProposeError, Replica};
use protocol::farm::Farm;
use protocol::farm::command::{Command, Event, Rejection, Reply};
use simulated::Simulated;

/// Events that a reader may fall behind before it is told to start over.
pub const EVENTS_KEPT: usize = 4_096;

/// A handle on the farm's log and state. Clones share it.
#[derive(Clone, Debug)]
pub enum Ledger {
    /// Committed by the group of coordinators, durable on disk.
    Replicated(Replica<Farm>),
    /// For simulation.
    Simulated(Simulated),
}

/// Why a command changed nothing, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The law says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be made durable here.
    #[error(transparent)]
    NotCommitted(#[from] ProposeError),
}

impl Ledger {
    /// Proposes a command; when this answers with a reply, the command is committed, applied and durable.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        match self {
            Self::Replicated(replica) => Ok(replica.propose(&command).await??),
            Self::Simulated(simulated) => simulated.propose(command).await,
        }
    }

    /// Looks at the state. Keep it short: nothing is applied meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Farm) -> T) -> T {
        match self {
            Self::Replicated(replica) => replica.read(look),
            Self::Simulated(simulated) => simulated.read(look),
        }
    }

    /// The events from now on. Subscribe first, then look at the state, and nothing is missed.
    #[must_use]
    pub fn events(&self) -> Events<Event> {
        match self {
            Self::Replicated(replica) => replica.events(),
            Self::Simulated(simulated) => simulated.events(),
        }
    }

    /// Whether this coordinator leads, so that grants, deadlines and mail are its part.
    #[must_use]
    pub fn leads(&self) -> bool {
        match self {
            Self::Replicated(replica) => replica.leads(),
            Self::Simulated(_) => true,
        }
    }
}
