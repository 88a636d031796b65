//! How a request stands in a farm: as a member of one, or as a farm of one.

use super::alone::{self, Begun, Lent, OTHERS_LOOK};
use super::interruption::{Alone, interrupted};
use super::{Place, failure};
use crate::exit::{Exit, Failure};
use crate::sentences;
use node::artifact::upload::Uploads;
use node::client::get::Patience;
use node::client::member::Member;
use node::client::session::{JoinError, Session};
use node::home::HomeError;
use node::node::Node;
use protocol::id::RequestId;
use std::time::{Duration, Instant};

/// How long an interrupted command may take to take its requests back.
const TAKE_BACK_WITHIN: Duration = Duration::from_secs(2);
/// How long another farm of one in this home may take to begin or to end.
const OTHERS_WITHIN: Duration = Duration::from_secs(30);

/// A command's place in a farm.
pub(super) struct Footing {
    stands: Stands,
}

enum Stands {
    Member(Member),
    Alone { node: Box<Node>, session: Session },
}

impl Footing {
    /// Joins the farm that is known, or becomes one that fetches sources by `fetch`.
    pub(super) async fn find(place: &Place, patience: Patience, lent: &Lent) -> Result<Self, Failure> {
        let until = Instant::now() + OTHERS_WITHIN;
        let detach_needs_a_farm = || Failure::new(Exit::Unreachable, sentences::detach_needs_a_farm());
        let node = loop {
            match join_or_none(place, until).await {
                Ok(member)
                    if patience == Patience::Detach
                        && place.is_farm_of_one().map_err(|error| failure::of_home(&error))? =>
                {
                    // It leaves with its last client: what was left with it would wait for nobody.
                    member.leave().await;
                    return Err(detach_needs_a_farm());
                }
                Ok(member) => {
                    if !lent.tools.is_empty() {
                        place
                            .output
                            .say("`--tool` counts where this command is the farm: in this one volunteers offer theirs");
                    }
                    return Ok(Self { stands: Stands::Member(member) });
                }
                Err(JoinError::NoFarm) if patience == Patience::Detach => return Err(detach_needs_a_farm()),
                Err(JoinError::NoFarm) => match alone::start(place, lent.clone()).await? {
                    Begun::Farm(node) => break node,
                    Begun::ByAnother if Instant::now() < until => {}
                    Begun::ByAnother => return Err(failure::of_home(&HomeError::InUse(place.home.path().to_owned()))),
                },
                Err(_) if place.stop.is_cancelled() => return Err(interrupted(Alone::No, &[])),
                Err(error) => return Err(failure::of_join(&error)),
            }
        };
        let session = node.session().map_err(|error| failure::of_join(&error))?;
        Ok(Self { stands: Stands::Alone { node, session } })
    }

    /// The connection to the farm.
    pub(super) fn session(&self) -> &Session {
        match &self.stands {
            Stands::Member(member) => &member.session,
            Stands::Alone { session, .. } => session,
        }
    }

    /// Where sources are served from while the farm takes them over.
    pub(super) fn uploads(&self) -> &Uploads {
        match &self.stands {
            Stands::Member(member) => &member.uploads,
            Stands::Alone { node, .. } => node.uploads(),
        }
    }

    /// Whether this command is the farm.
    pub(super) fn alone(&self) -> Alone {
        match self.stands {
            Stands::Member(_) => Alone::No,
            Stands::Alone { .. } => Alone::Yes,
        }
    }

    /// What an interruption leaves of these requests: in a farm they live on; a farm of one takes them back, because left in
    /// the queue they would be built first when another command comes to this home.
    pub(super) async fn interrupt(&self, requests: &[RequestId]) -> Failure {
        if let Stands::Alone { session, .. } = &self.stands {
            let until = tokio::time::Instant::now() + TAKE_BACK_WITHIN;
            for request in requests {
                match tokio::time::timeout_at(until, session.cancel(*request)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "the request was not taken back"),
                    Err(_) => tracing::debug!("the request was not taken back in time"),
                }
            }
        }
        interrupted(self.alone(), requests)
    }

    /// Leaves the farm, or ends it.
    pub(super) async fn leave(self, place: &Place) {
        match self.stands {
            Stands::Member(member) => member.leave().await,
            Stands::Alone { node, .. } => alone::end(place, *node).await,
        }
    }
}

/// Joins the farm; [`JoinError::NoFarm`] when none is known and nobody is about to be one in this home.
async fn join_or_none(place: &Place, until: Instant) -> Result<Member, JoinError> {
    loop {
        let error = match place.try_join().await {
            Ok(member) => return Ok(member),
            Err(error) => error,
        };
        let in_use = || matches!(place.home.lock(), Err(HomeError::InUse(_)));
        let passing = match &error {
            // A farm of one begins: it says where it serves as soon as it does.
            JoinError::NoFarm => in_use(),
            // A farm of one ended while it was being called.
            JoinError::Unreachable { .. } if place.is_farm_of_one()? => place.home.daemon()?.is_none() || !in_use(),
            _ => false,
        };
        if !passing || place.stop.is_cancelled() || Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(OTHERS_LOOK).await;
    }
}
