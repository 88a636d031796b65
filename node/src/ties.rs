//! What ties the store of this node to its farm: what the coordinator's queue needs, and how the farm hears of a loss.
//!
//! A coordinator that evicts its own copy tells itself by the same call as anybody else, so that one path applies the loss.

use crate::artifact::need::Needed;
use crate::artifact::upkeep::{Heard, Ties};
use crate::coordinator::door::Door;
use crate::coordinators::Coordinators;
use futures::future::{BoxFuture, FutureExt as _};
use protocol::id::{BuildKey, ManifestId};
use protocol::wire::{Answer, Control};

/// The roles of a node, as far as its store is concerned.
#[derive(Clone, Debug)]
pub(crate) struct FarmTies {
    /// The coordinator's door, if this node is one.
    pub(crate) door: Option<Door>,
    /// Who leads.
    pub(crate) coordinators: Coordinators,
}

impl Ties for FarmTies {
    fn needed(&self) -> BoxFuture<'_, Needed> {
        async move {
            match &self.door {
                Some(door) => door.needed().await,
                None => Needed::default(),
            }
        }
        .boxed()
    }

    fn lose(&self, key: BuildKey) -> BoxFuture<'_, Heard> {
        async move {
            match self.coordinators.call(Control::Evicted { build_key: key }).await {
                // A rejection says that the farm knew of no such build.
                Ok((_, Answer::Done | Answer::Rejected(_))) => Heard::Yes,
                Ok((peer, answer)) => {
                    tracing::warn!(?peer, ?answer, "no answer to an eviction");
                    Heard::No
                }
                Err(error) => {
                    tracing::info!(%error, key = %key.short(), "a build is not evicted while nobody hears of it");
                    Heard::No
                }
            }
        }
        .boxed()
    }

    fn hold(&self, key: BuildKey, manifest: ManifestId) -> BoxFuture<'_, Heard> {
        async move {
            match self.coordinators.call(Control::Holding { build_key: key, manifest }).await {
                // A rejection says that the farm answers with something else by now, or not at all.
                Ok((_, Answer::Done | Answer::Rejected(_))) => Heard::Yes,
                Ok(_) | Err(_) => Heard::No,
            }
        }
        .boxed()
    }
}
