//! `node store`: what this home holds. It opens the store itself, so it needs the home for itself.

use super::{Place, failure};
use crate::args::StoreVerb;
use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use crate::verb;

pub(super) async fn run(place: &Place<'_>, verb: StoreVerb) -> Result<Exit, Failure> {
    let (_lock, store) = node::node::open_store(&place.home).await.map_err(failure::of_start)?;
    let wrong = |error: node::artifact::StoreError| {
        Failure::new(Exit::Infrastructure, Said::with_next(error.to_string(), "look at the disk's health and free space"))
    };
    match verb {
        StoreVerb::List => {
            let builds = store.builds().await.map_err(wrong)?;
            let stored: Vec<verb::store::Stored> = builds.iter().map(verb::store::Stored::from).collect();
            verb::store::list(place.output, &stored)
        }
        StoreVerb::Verify => {
            let scrub = store.verify().await.map_err(wrong)?;
            verb::store::verified(place.output, scrub.bytes, &scrub.damaged)
        }
        StoreVerb::Prune { .. } | StoreVerb::Pin { .. } => Err(Failure::new(Exit::Usage, Said::new("not yet"))),
    }
}
