//! `node store`: what this home holds. It opens the store itself, so it needs the home for itself.

use super::{Place, failure};
use crate::args::StoreVerb;
use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use crate::verb;
use crate::verb::store::{Keeping, Stored};
use node::artifact::need::Needed;
use node::artifact::store::{KeptBuild, Pinned};
use node::artifact::upkeep::EVERYTHING;

pub(super) async fn run(place: &Place, verb: StoreVerb) -> Result<Exit, Failure> {
    let (_lock, store) = node::node::open_store(&place.home).await.map_err(failure::of_start)?;
    let wrong = |error: node::artifact::StoreError| {
        Failure::new(
            Exit::Infrastructure,
            Said::with_next(error.to_string(), "look at the disk's health and free space"),
        )
    };
    match verb {
        StoreVerb::List => {
            let builds = store.builds().await.map_err(wrong)?;
            let stored: Vec<Stored> = builds.iter().map(stored).collect();
            verb::store::list(&place.output, &stored)
        }
        StoreVerb::Verify => {
            let scrub = store.verify().await.map_err(wrong)?;
            verb::store::verified(&place.output, scrub.bytes, &scrub.damaged)
        }
        StoreVerb::Prune => {
            let plan = store.plan_eviction(EVERYTHING, Needed::default()).await.map_err(wrong)?;
            let evicted = store.evict(plan, Needed::default()).await.map_err(wrong)?;
            verb::store::pruned(&place.output, evicted.manifests.len() as u64, evicted.freed_bytes)
        }
        StoreVerb::Pin { what } => {
            let builds = store.builds().await.map_err(wrong)?;
            let named = |build: &&KeptBuild| {
                build.build_key.to_string().starts_with(what.as_str())
                    || build.manifest.to_string().starts_with(what.as_str())
            };
            let Some(build) = builds.iter().find(named) else {
                let said = Said::with_next("no build of this name is stored here", "`node store list` shows what is");
                return Err(Failure::new(Exit::Usage, said));
            };
            store.pin(build.manifest.0).await.map_err(wrong)?;
            verb::store::pinned(&place.output, build.manifest)
        }
    }
}

fn stored(build: &KeptBuild) -> Stored {
    Stored {
        manifest: build.manifest,
        size_bytes: build.size_bytes,
        keeping: match build.pinned {
            Pinned::Yes => Keeping::Pinned,
            Pinned::No => Keeping::Evictable,
        },
    }
}
