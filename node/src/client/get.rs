//! The whole way of a request: found or built, then fetched.

use super::deliver::Delivery;
use super::find::{Found, Search};
use super::order::{OrderError, PATIENCE};
use super::session::Session;
use super::wish::{SignedWish, Wish, WishError};
use crate::artifact::import::Imported;
use crate::artifact::transfer::{Progress, Sink, TransferError};
use crate::artifact::upload::{Blobs, Both, Uploads};
use crate::catalogue;
use crate::chance::Chance;
use protocol::farm::explain::{Ended, Explanation, HowBuilt, RequestView};
use protocol::id::{BuildKey, ManifestId, PeerKey, RequestId};
use protocol::report::Verdict;
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long the farm is given to take the source over before it is offered again.
const OFFER_AGAIN: Duration = Duration::from_secs(10);

/// How long the farm is given to find out whether a holder that is away comes back, or the build is to be made anew; and how
/// often it is asked meanwhile.
const HOLDERS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What happens on the way, for whoever shows it.
#[derive(Clone, Debug)]
pub enum Stage {
    /// The request is signed.
    Signed {
        /// What is asked for.
        build_key: BuildKey,
    },
    /// The farm holds the request.
    Submitted {
        /// The request.
        request: RequestId,
    },
    /// The request as the farm sees it now.
    Seen {
        /// The request.
        request: RequestId,
        /// How it stands.
        view: Box<RequestView>,
    },
    /// Files are coming.
    Fetching(Progress),
}

/// How a request went.
#[derive(Debug)]
pub enum Got {
    /// The files are here.
    Delivered(Box<Delivered>),
    /// The farm holds request and source; nobody waits here.
    Detached {
        /// The request.
        request: RequestId,
        /// What is asked for.
        build_key: BuildKey,
    },
    /// It ended otherwise.
    Ended {
        /// The request.
        request: RequestId,
        /// How it stood at the end.
        view: Box<RequestView>,
        /// How it ended.
        ended: Ended,
    },
}

/// Files on disk, and where they come from.
#[derive(Debug)]
pub struct Delivered {
    /// The request; `None` when the build was found without asking for it.
    pub request: Option<RequestId>,
    /// What was asked for.
    pub build_key: BuildKey,
    /// Whether it was built for this request.
    pub how: HowBuilt,
    /// The artifact.
    pub manifest: ManifestId,
    /// Who built it.
    pub volunteer: Option<PeerKey>,
    /// The folder that holds the files.
    pub folder: PathBuf,
    /// Files and providers.
    pub delivery: Delivery,
    /// How the request stood at the end; `None` when the build was found without asking for it.
    pub view: Option<RequestView>,
}

/// Why nothing was delivered although nothing ended.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The wish is no request.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// The farm did not do what was asked.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// There is a verdict, but nobody was found who has the files.
    #[error("it is built, but cannot be fetched: {0}")]
    Transfer(#[from] TransferError),
    /// It was built, and the verdict cannot be found any more.
    #[error("it is built, but its verdict cannot be found")]
    NoVerdict,
}

impl GetError {
    /// Whether it failed because whoever has the build could not be found just now.
    const fn is_loss(&self) -> bool {
        match self {
            Self::Transfer(error) => error.is_loss(),
            Self::NoVerdict => true,
            Self::Wish(_) | Self::Order(_) => false,
        }
    }
}

/// What the farm answered, before anything is fetched.
#[derive(Debug)]
pub enum Answered {
    /// There is a verdict.
    Build(Box<Build>),
    /// There is nothing to fetch.
    Otherwise(Got),
}

/// A judged build that is wanted here.
#[derive(Debug)]
pub struct Build {
    /// The verdict, and who may have the artifact.
    pub found: Found,
    /// The request; `None` when the build was found without asking for it.
    pub request: Option<RequestId>,
    /// How the request stood at the end; `None` when the build was found without asking for it.
    pub view: Option<RequestView>,
    /// Whether it was built for this request.
    pub how: HowBuilt,
}

impl Answered {
    fn build(found: Found, request: Option<RequestId>, view: Option<RequestView>, how: HowBuilt) -> Self {
        Self::Build(Box::new(Build { found, request, view, how }))
    }
}

/// Whether to wait for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Wait, and fetch.
    Wait,
    /// Return when the farm holds request and source.
    Detach,
}

/// Everything a request needs.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The connection to the farm.
    pub session: &'a Session,
    /// Where the source is served from while the farm takes it over.
    pub uploads: &'a Uploads,
    /// What somebody wants.
    pub wish: &'a Wish,
    /// The source that he gave.
    pub source: Option<Arc<Imported>>,
    /// Whether to wait.
    pub patience: Patience,
    /// Where the files go; `None` for the usual place.
    pub folder: Option<PathBuf>,
}

impl Errand<'_> {
    /// Runs the errand to its end, telling `shown` what happens. Whoever is to be mailed is mailed about the first request that
    /// the farm holds, and not again if that has to be asked for once more.
    ///
    /// # Errors
    ///
    /// [`GetError`].
    pub async fn run(self, chance: &Chance, shown: &mut impl FnMut(Stage)) -> Result<Got, GetError> {
        let is_held = Cell::new(false);
        let shown = &mut |stage| {
            is_held.set(is_held.get() || matches!(stage, Stage::Submitted { .. }));
            shown(stage);
        };
        let mut answered = self.ask(chance, shown).await;
        let mut first_loss = None;
        loop {
            let got = match answered {
                Ok(Answered::Build(build)) => self.fetch(*build, shown).await,
                Ok(Answered::Otherwise(got)) => Ok(got),
                Err(error) => Err(error),
            };
            let lost = match got {
                Err(error) if error.is_loss() => error,
                done => return done,
            };
            match first_loss {
                None => first_loss = Some(Instant::now()),
                Some(since) if since.elapsed() < HOLDERS_WITHIN => tokio::time::sleep(LOOK_AGAIN).await,
                Some(_) => return Err(lost),
            }
            // The farm was told; it builds anew what nobody has.
            tracing::warn!(error = %lost, "what was found cannot be fetched: asking the farm for it");
            let wish = match is_held.get() {
                true => self.wish.unmailed().sign(self.session, chance)?,
                false => self.wish.sign(self.session, chance)?,
            };
            answered = match self.order(&wish, chance, shown).await {
                Err(GetError::Order(OrderError::NoCoordinator(_))) => return Err(lost),
                answered => answered,
            };
        }
    }

    /// Finds the build or has it built; fetches nothing.
    ///
    /// # Errors
    ///
    /// [`GetError`].
    pub async fn ask(&self, chance: &Chance, shown: &mut impl FnMut(Stage)) -> Result<Answered, GetError> {
        let wish = self.wish.sign(self.session, chance)?;
        let build_key = wish.request.build_key;
        shown(Stage::Signed { build_key });
        if self.patience == Patience::Wait
            && self.wish.can_be_found()
            && let Search::Found(found) = self.session.find(build_key).await
        {
            return Ok(Answered::build(*found, None, None, HowBuilt::Cached));
        }
        self.order(&wish, chance, shown).await
    }

    /// Hands the wish to the farm, and waits for the end where that is wanted.
    async fn order(
        &self,
        wish: &SignedWish,
        chance: &Chance,
        shown: &mut impl FnMut(Stage),
    ) -> Result<Answered, GetError> {
        let build_key = wish.request.build_key;
        let request = self.submit(wish, chance, shown).await?;
        if self.patience == Patience::Detach {
            return Ok(Answered::Otherwise(Got::Detached { request, build_key }));
        }
        let view = self
            .session
            .until(request, chance, |view| {
                shown(Stage::Seen { request, view: Box::new(view.clone()) });
                view.ended_at.is_some()
            })
            .await?;
        let Explanation::Ended(ended) = view.explanation.clone() else { return Err(OrderError::Nonsense.into()) };
        let Ended::Built { how, manifest, .. } = ended else {
            return Ok(Answered::Otherwise(Got::Ended { request, view: Box::new(view), ended }));
        };
        // A peer may hold an older verdict that does not meet the demand; a later one that does is as good as what was told.
        let will_do = |verdict: &Verdict| {
            let later = Some(verdict.decided_at) >= view.ended_at && verdict.agreed >= self.wish.demand.agree.get();
            verdict.manifest == manifest || later
        };
        match self.session.find_such(build_key, will_do).await {
            Search::Found(found) => Ok(Answered::build(*found, Some(request), Some(view), how)),
            Search::NotBuilt | Search::NobodyKnows => {
                self.session.miss(build_key).await;
                Err(GetError::NoVerdict)
            }
        }
    }

    /// Hands over request and source; returns when the farm holds both.
    async fn submit(
        &self,
        wish: &SignedWish,
        chance: &Chance,
        shown: &mut impl FnMut(Stage),
    ) -> Result<RequestId, GetError> {
        let recipe = &self.wish.recipe;
        let mut blobs = Vec::new();
        if catalogue::by_id(&recipe.id()).is_none() {
            blobs.push(recipe.encode());
        }
        let upload = match &self.source {
            Some(source) => {
                blobs.push(source.manifest.encode());
                self.uploads.serve(Arc::new(Both(Blobs::new(blobs), source.clone())))
            }
            None => self.uploads.serve(Arc::new(Blobs::new(blobs))),
        };
        let accepted = self.session.submit(wish).await?;
        let request = accepted.request;
        shown(Stage::Submitted { request });
        let mut answered = Instant::now();
        loop {
            match tokio::time::timeout(OFFER_AGAIN, self.session.until_source_held(request, chance)).await {
                Ok(held) => {
                    held?;
                    break;
                }
                // A pull that failed, or a coordinator that has started again, needs to be told that the source is here.
                Err(_) => match self.session.submit(wish).await {
                    Ok(_) => answered = Instant::now(),
                    Err(OrderError::NoCoordinator(_)) if answered.elapsed() <= PATIENCE => {}
                    Err(error) => return Err(error.into()),
                },
            }
        }
        drop(upload);
        Ok(request)
    }

    async fn fetch(&self, build: Build, shown: &mut impl FnMut(Stage)) -> Result<Got, GetError> {
        let Build { found, request, view, how } = build;
        let verdict = &found.verified.verdict;
        let folder = self
            .folder
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("{}-{}", self.wish.recipe.name(), verdict.build_key.short())));
        let (progress, mut watching) = watch::channel(Progress::default());
        let fetching = self.session.deliver(&found, Sink::Folder(folder.clone()), progress);
        let mut fetching = Box::pin(fetching);
        let delivery = loop {
            tokio::select! {
                biased;
                delivery = &mut fetching => break delivery?,
                changed = watching.changed() => match changed {
                    Ok(()) => shown(Stage::Fetching(*watching.borrow_and_update())),
                    Err(_) => break (&mut fetching).await?,
                },
            }
        };
        drop(fetching);
        Ok(Got::Delivered(Box::new(Delivered {
            request,
            build_key: verdict.build_key,
            how,
            manifest: verdict.manifest,
            volunteer: found.verified.reports.first().map(|(volunteer, _)| *volunteer),
            folder,
            delivery,
            view,
        })))
    }
}
