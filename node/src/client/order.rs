//! Submitting, watching, cancelling and reading the log of a request.

use super::session::Session;
use super::wish::{Accepted, SignedWish};
use crate::chance::{Backoff, Chance};
use crate::coordinators::NoCoordinator;
use protocol::farm::command::{JobState, Rejection};
use protocol::farm::explain::RequestView;
use protocol::id::RequestId;
use protocol::request::Cancellation;
use protocol::signed::Signed;
use protocol::time::Span;
use protocol::wire::{Answer, CLAIM_WAIT, Control, LogPosition, Park, RequestLog, RequestRef, view_mark};
use std::time::Duration;

/// How long watching goes on while no coordinator answers.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Why the farm did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No coordinator answered.
    #[error(transparent)]
    NoCoordinator(#[from] NoCoordinator),
    /// The law says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The farm knows no such request.
    #[error("the farm knows no such request")]
    Unknown,
    /// A peer answered something that is no answer to the call.
    #[error("a peer gave no sensible answer")]
    Nonsense,
}

impl Session {
    /// Hands a request to the farm. Repeating it is not an error.
    ///
    /// # Errors
    ///
    /// [`OrderError`].
    pub async fn submit(&self, wish: &SignedWish) -> Result<Accepted, OrderError> {
        let call = Control::Submit { request: wish.request.signed.clone(), subscriptions: wish.subscriptions.clone() };
        match self.coordinators.call(call).await?.1 {
            Answer::Submitted { request, submitted, .. } => Ok(Accepted { request, submitted }),
            Answer::Rejected(rejection) => Err(rejection.into()),
            _ => Err(OrderError::Nonsense),
        }
    }

    /// Waits until the farm holds the source of a request, or the request has ended. The caller serves the source meanwhile.
    ///
    /// # Errors
    ///
    /// [`OrderError`].
    pub async fn until_source_held(&self, request: RequestId, chance: &Chance) -> Result<RequestView, OrderError> {
        self.until(request, chance, |view| view.ended_at.is_some() || view.state != Some(JobState::AwaitingSource))
            .await
    }

    /// Watches a request until `done`, telling every change to `done` as it is seen.
    ///
    /// # Errors
    ///
    /// [`OrderError`] when the request is unknown, or no coordinator answered for a minute.
    pub async fn until(
        &self,
        request: RequestId,
        chance: &Chance,
        mut done: impl FnMut(&RequestView) -> bool,
    ) -> Result<RequestView, OrderError> {
        let mut mark = 0;
        let mut silent_since: Option<tokio::time::Instant> = None;
        let mut backoff = Backoff::new(chance.clone(), Duration::from_millis(250), Duration::from_secs(5));
        loop {
            let watch = Park::Watch { request, mark, wait: Span::from(chance.around(CLAIM_WAIT)) };
            match self.coordinators.park(watch).await {
                Ok((_, Answer::Request(Some((_, view))))) => {
                    silent_since = None;
                    backoff.reset();
                    mark = view_mark(&view);
                    if done(&view) {
                        return Ok(*view);
                    }
                }
                Ok((_, Answer::Request(None))) => return Err(OrderError::Unknown),
                Ok(_) => return Err(OrderError::Nonsense),
                Err(error) => {
                    let since = *silent_since.get_or_insert_with(tokio::time::Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(error.into());
                    }
                    tokio::time::sleep(backoff.step()).await;
                }
            }
        }
    }

    /// One request as it stands.
    ///
    /// # Errors
    ///
    /// [`OrderError`].
    pub async fn look(&self, named: RequestRef) -> Result<(RequestId, RequestView), OrderError> {
        match self.coordinators.call(Control::Request(named)).await?.1 {
            Answer::Request(Some((id, view))) => Ok((id, *view)),
            Answer::Request(None) => Err(OrderError::Unknown),
            _ => Err(OrderError::Nonsense),
        }
    }

    /// Takes a request back.
    ///
    /// # Errors
    ///
    /// [`OrderError`].
    pub async fn cancel(&self, request: RequestId) -> Result<(), OrderError> {
        let cancellation = Cancellation { request, issued_at: self.clock.now() };
        let signed = Signed::new(&cancellation, self.farm, &self.secret);
        match self.coordinators.call(Control::Cancel(signed)).await?.1 {
            Answer::Done => Ok(()),
            Answer::Rejected(rejection) => Err(rejection.into()),
            _ => Err(OrderError::Nonsense),
        }
    }

    /// The log of a request from where it was read, waiting up to `wait` for more.
    ///
    /// # Errors
    ///
    /// [`OrderError`].
    pub async fn log(&self, request: RequestId, from: LogPosition, wait: Duration) -> Result<RequestLog, OrderError> {
        let answer = if wait.is_zero() {
            self.coordinators.call(Control::Log { request, from }).await?.1
        } else {
            self.coordinators.park(Park::FollowLog { request, from, wait: wait.into() }).await?.1
        };
        match answer {
            Answer::RequestLog(Some(log)) => Ok(log),
            Answer::RequestLog(None) => Err(OrderError::Unknown),
            _ => Err(OrderError::Nonsense),
        }
    }
}
