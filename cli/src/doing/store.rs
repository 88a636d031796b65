//! `node store`: what this home holds. A daemon that runs in it is asked; where none runs, the store is opened here.

use super::{Place, failure, transports};
use crate::args::StoreVerb;
use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use crate::verb;
use node::artifact::StoreError;
use node::artifact::steward::Steward;
use node::client::owner::Owner;
use node::home::{HomeError, HomeLock};
use node::node::StartError;
use protocol::owner::{Pruned, Rest, StoreAnswer, StoreWish};

/// Who looks after the store.
enum Keeper {
    /// The daemon that runs here.
    Daemon(Box<Owner>),
    /// This command, for as long as it has the lock.
    Here { steward: Steward, _lock: HomeLock },
}

pub(super) async fn run(place: &Place, verb: StoreVerb) -> Result<Exit, Failure> {
    let keeper = match node::node::open_store(&place.home).await {
        Ok((lock, store)) => Keeper::Here { steward: Steward::alone(store), _lock: lock },
        Err(StartError::Home(HomeError::InUse(_))) => {
            let owner = Owner::of(&place.home, transports()).await;
            Keeper::Daemon(Box::new(owner.map_err(|error| failure::of_owner(&error))?))
        }
        Err(error) => return Err(failure::of_start(error)),
    };
    let done = match verb {
        StoreVerb::List => list(place, &keeper).await,
        StoreVerb::Verify => verify(place, &keeper).await,
        StoreVerb::Prune => prune(place, &keeper).await,
        StoreVerb::Pin { what } => {
            let marked = mark(&keeper, StoreWish::Pin { named: what.as_str().to_owned() }).await;
            marked.and_then(|manifest| verb::store::pinned(&place.output, manifest))
        }
        StoreVerb::Unpin { what } => {
            let marked = mark(&keeper, StoreWish::Unpin { named: what.as_str().to_owned() }).await;
            marked.and_then(|manifest| verb::store::unpinned(&place.output, manifest))
        }
    };
    if let Keeper::Daemon(owner) = keeper {
        owner.leave().await;
    }
    done
}

impl Keeper {
    async fn fulfil(&self, wish: StoreWish) -> Result<StoreAnswer, Failure> {
        match self {
            Self::Daemon(owner) => owner.wishes(wish).await.map_err(|error| failure::of_owner(&error)),
            Self::Here { steward, .. } => steward.fulfil(wish).await.map_err(|error| broken(&error)),
        }
    }

    fn mending(&self) -> verb::store::Mending {
        match self {
            Self::Daemon(_) => verb::store::Mending::Now,
            Self::Here { .. } => verb::store::Mending::AtStart,
        }
    }
}

fn broken(error: &StoreError) -> Failure {
    let said = Said::with_next(error.to_string(), "look at the disk's health and free space");
    Failure::new(Exit::Infrastructure, said)
}

fn unexpected() -> Failure {
    failure::of_owner(&node::client::owner::OwnerError::Unexpected)
}

async fn list(place: &Place, keeper: &Keeper) -> Result<Exit, Failure> {
    let mut all = Vec::new();
    loop {
        let StoreAnswer::Listed { builds, total } = keeper.fulfil(StoreWish::List { skip: all.len() as u64 }).await?
        else {
            return Err(unexpected());
        };
        let is_last = builds.is_empty();
        all.extend(builds);
        if is_last || all.len() as u64 >= total {
            return verb::store::list(&place.output, &all);
        }
    }
}

async fn verify(place: &Place, keeper: &Keeper) -> Result<Exit, Failure> {
    let (mut bytes, mut damaged, mut after) = (0, Vec::new(), None);
    loop {
        let StoreAnswer::Read(read) = keeper.fulfil(StoreWish::Verify { after }).await? else {
            return Err(unexpected());
        };
        bytes += read.bytes;
        damaged.extend(read.damaged);
        after = read.next;
        if after.is_none() {
            return verb::store::verified(&place.output, bytes, &damaged, keeper.mending());
        }
    }
}

async fn prune(place: &Place, keeper: &Keeper) -> Result<Exit, Failure> {
    let mut all = Pruned::default();
    loop {
        let StoreAnswer::Pruned(pruned) = keeper.fulfil(StoreWish::Prune).await? else { return Err(unexpected()) };
        all.artifacts += pruned.artifacts;
        all.freed_bytes += pruned.freed_bytes;
        all.unheard = pruned.unheard;
        if pruned.rest == Rest::Nothing {
            return verb::store::pruned(&place.output, all);
        }
    }
}

async fn mark(keeper: &Keeper, wish: StoreWish) -> Result<protocol::id::ManifestId, Failure> {
    let no = |what: String, next: &str| Err(Failure::new(Exit::Usage, Said::with_next(what, next)));
    match keeper.fulfil(wish).await? {
        StoreAnswer::Marked(manifest) => Ok(manifest),
        StoreAnswer::Named(0) => {
            no("no build of this name is stored here".to_owned(), "`node store list` shows what is")
        }
        StoreAnswer::Named(count) => no(format!("{count} builds are named so"), "write more of its digits"),
        _ => Err(unexpected()),
    }
}
