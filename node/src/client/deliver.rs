//! A judged build's files, verified, into a folder or a store.

use super::find::Found;
use super::session::Session;
use crate::artifact::transfer::{Progress, Providers, Sink, Sources, TransferError, fetch_artifact, fetch_manifest};
use crate::network::{Keep, Network};
use futures::StreamExt as _;
use protocol::id::{BuildKey, ManifestId, PeerKey};
use protocol::ticket::Contact;
use protocol::tree::Manifest;
use protocol::wire::Control;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long connecting to a holder may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Providers named by the DHT that are dialled at the same time.
const REACHED_AT_ONCE: usize = 16;

/// What was put on disk.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Every file with its mode, size and digests.
    pub manifest: Manifest,
    /// Who gave what.
    pub sources: Sources,
}

impl Session {
    /// Fetches a judged build into `sink`. When nobody who was asked has it any more, the farm is told.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    pub async fn deliver(
        &self,
        found: &Found,
        sink: Sink,
        progress: watch::Sender<Progress>,
    ) -> Result<Delivery, TransferError> {
        let key = found.verified.verdict.build_key;
        let builders = found.verified.reports.iter().map(|(volunteer, _)| *volunteer);
        let named = builders.map(|key| Contact { key, addresses: Vec::new() });
        let contacts = found.holders.iter().cloned().chain(named).collect();
        let result = self.fetch(found.verified.verdict.manifest, contacts, Some(key), sink, progress).await;
        if result.as_ref().is_err_and(TransferError::is_loss) {
            self.miss(key).await;
        }
        result
    }

    /// Tells the farm that nobody who was asked has a build that it says is finished.
    pub(super) async fn miss(&self, build_key: BuildKey) {
        // If no coordinator hears it, the next requester will tell.
        let _told = self.coordinators.call(Control::Missing { build_key }).await;
    }

    /// Fetches an artifact by its manifest, from the contacts and from whoever the DHT names for `key`.
    ///
    /// # Errors
    ///
    /// [`TransferError`].
    pub async fn fetch(
        &self,
        manifest: ManifestId,
        contacts: Vec<Contact>,
        key: Option<BuildKey>,
        sink: Sink,
        progress: watch::Sender<Progress>,
    ) -> Result<Delivery, TransferError> {
        let (arrived, arriving) = mpsc::channel(64);
        // Ends with this fetch, however it ends.
        let _gathering = AbortOnDropHandle::new(tokio::spawn(gather(self.network.clone(), contacts, key, arrived)));
        let mut providers = Providers::new(Vec::new(), arriving);
        let manifest = fetch_manifest(&self.network, manifest, &mut providers).await?;
        let sources = fetch_artifact(&self.network, &manifest, providers, sink, progress).await?;
        Ok(Delivery { manifest, sources })
    }
}

/// Connects to everybody who may have it, and names each as soon as it is reached.
async fn gather(network: Network, contacts: Vec<Contact>, key: Option<BuildKey>, arrived: mpsc::Sender<PeerKey>) {
    let reach = |contact: Contact| {
        let (network, arrived) = (network.clone(), arrived.clone());
        async move {
            let peer = contact.key;
            // A peer that is connected already answers at once; one without addresses may be known to the DHT.
            if network.connect(contact, Keep::Once, CONNECT_WITHIN).await.is_ok() {
                // The fetch may be over.
                let _over = arrived.send(peer).await;
            }
        }
    };
    let known = futures::future::join_all(contacts.into_iter().map(&reach));
    let searching = async {
        let Some(key) = key else { return };
        let Ok(found) = network.find_providers(key).await else { return };
        let found = futures::stream::unfold(found, async |mut found| Some((found.recv().await?, found)));
        // Side by side: records may name many who are gone.
        found.for_each_concurrent(REACHED_AT_ONCE, |peer| reach(Contact { key: peer, addresses: Vec::new() })).await;
    };
    futures::future::join(known, searching).await;
}
