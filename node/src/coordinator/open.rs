//! Opening the ledger of a coordinator: the replica over its log, joined to the network.

use super::ledger::{EVENTS_KEPT, Ledger, LedgerError};
use super::replica::{Beginning, CarryError, OpenError, Replica, ReplicaConfig, Seat};
use super::wal::WalConfig;
use crate::clock::Clock;
use crate::database::Database;
use crate::home::{Home, HomeError};
use crate::network::{CallError, IncomingRaft, Network};
use futures::FutureExt as _;
use protocol::charter::{Charter, CharterError};
use protocol::digest::Digest;
use protocol::farm::Farm;
use protocol::farm::command::Command;
use protocol::id::{FarmId, PeerKey};
use protocol::signed::Signed;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Why a coordinator's ledger is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenLedgerError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The log cannot be opened.
    #[error("the farm's log cannot be opened: {0}")]
    Log(#[from] OpenError),
    /// The charter is not the farm's.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// The charter names other coordinators.
    #[error("the charter does not name this node as a coordinator")]
    NotACoordinator,
    /// The farm began in this home, and its log is empty or gone.
    #[error("the farm's log in {} is gone or empty, and this farm had begun", .0.display())]
    Lost(PathBuf),
    /// The farm's first entry was not taken.
    #[error("the farm cannot be founded: {0}")]
    Founding(#[from] LedgerError),
}

/// Opens the replica in this home and founds the farm in it, if it is new. The charter that is in force comes with it: the log
/// knows it where `charter`, what the home remembers, is lost or older.
///
/// # Errors
///
/// [`OpenLedgerError`].
pub async fn open(
    home: &Home,
    database: &Database,
    network: &Network,
    clock: &Clock,
    (farm, charter): (FarmId, Option<&Signed>),
) -> Result<(Replica<Farm>, Signed), OpenLedgerError> {
    let local = network.local();
    let remembered = charter.map(|signed| Charter::open(signed, farm)).transpose()?;
    if remembered.as_ref().is_some_and(|charter| !charter.is_coordinator(&local)) {
        return Err(OpenLedgerError::NotACoordinator);
    }
    let is_first = remembered.as_ref().is_none_or(|charter| charter.coordinators.first() == Some(&local));
    let carrying = network.clone();
    let folder = home.folder("raft")?;
    let config = ReplicaConfig {
        folder: folder.clone(),
        records: database.records("raft"),
        id: raft_id(&local),
        seat: Seat { peer_id: local.to_string() },
        beginning: if is_first { Beginning::Alone } else { Beginning::Invited },
        clock: clock.clone(),
        carry: Arc::new(move |_, seat: Seat, bytes, within| carry(carrying.clone(), seat, bytes, within).boxed()),
        events_kept: EVENTS_KEPT,
        wal: WalConfig::default(),
    };
    let replica = Replica::open(config).await?;
    let ledger = Ledger::Replicated(replica.clone());
    let known = ledger.read(|farm| farm.charter().map(|(in_force, _)| in_force.version));
    match (known, charter.zip(remembered)) {
        // Never a silent empty start: requests that were acknowledged would be forgotten.
        (None, _) if home.has_begun(farm)? => return Err(OpenLedgerError::Lost(folder)),
        (None, None) => return Err(OpenLedgerError::Lost(folder)),
        (None, Some((signed, _))) => {
            ledger.propose(Command::Found { charter: signed.clone() }).await?;
        }
        // Amended in this home while the farm was not running.
        (Some(in_force), Some((signed, charter))) if in_force < charter.version => {
            ledger.propose(Command::Amend { charter: signed.clone() }).await?;
        }
        (Some(_), _) => {}
    }
    let in_force = ledger.read(|farm| farm.charter().map(|(charter, signed)| (charter.clone(), signed.clone())));
    let Some((charter, signed)) = in_force else { return Err(OpenLedgerError::Lost(folder)) };
    if !charter.is_coordinator(&local) {
        return Err(OpenLedgerError::NotACoordinator);
    }
    home.remember_begun(farm)?;
    Ok((replica, signed))
}

async fn carry(
    network: Network,
    seat: Seat,
    bytes: Vec<u8>,
    within: std::time::Duration,
) -> Result<Vec<u8>, CarryError> {
    // A key prints as a digest does.
    let peer: Digest = seat.peer_id.parse().map_err(|_| CarryError::Unreachable(seat.peer_id.clone()))?;
    let peer = PeerKey::from_bytes(*peer.as_bytes());
    match tokio::time::timeout(within, network.raft(peer, bytes)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(CallError::Timeout(_))) | Err(_) => Err(CarryError::Timeout),
        Ok(Err(error @ CallError::Unreachable { .. })) => Err(CarryError::Unreachable(error.to_string())),
        Ok(Err(error)) => Err(CarryError::Broken(error.to_string())),
    }
}

/// A coordinator's number in its group: the first eight bytes of its key.
fn raft_id(key: &PeerKey) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// Answers what other coordinators of the group say, until `stop` is cancelled.
pub async fn answer(mut raft: mpsc::Receiver<IncomingRaft>, replica: Replica<Farm>, stop: CancellationToken) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            incoming = raft.recv() => incoming,
        };
        let Some(IncomingRaft { bytes, reply, .. }) = incoming else { return };
        let replica = replica.clone();
        tokio::spawn(async move {
            match replica.answer(&bytes).await {
                // The caller may have given up meanwhile.
                Ok(answer) => drop(reply.send(answer)),
                Err(error) => tracing::debug!(%error, "a call of another coordinator was not answered"),
            }
        });
    }
}
