//! `node logs`.

use super::{Place, failure};
use crate::args::LogsArgs;
use crate::exit::{Exit, Failure};
use crate::sentences;
use crate::verb::logs::Logs;
use node::client::order::OrderError;
use node::client::session::Session;
use protocol::id::RequestId;
use protocol::wire::{LogState, RequestRef};
use std::time::Duration;

/// How long one look waits for more.
const WAIT: Duration = Duration::from_secs(50);
/// How often, and how soon again, somebody who follows asks while no coordinator answers.
const UNHEARD: u32 = 60;
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(place: &Place, args: &LogsArgs) -> Result<Exit, Failure> {
    let member = place.join().await?;
    let wrong = |error| failure::of_order(&error);
    let (request, _) = member.session.look(args.request.request()).await.map_err(wrong)?;
    let mut shown = Logs::new(request);
    let (mut unheard, mut said) = (0, None);
    let wait = if args.follow { WAIT } else { Duration::ZERO };
    loop {
        let log = tokio::select! {
            biased;
            () = place.stop.cancelled() => break,
            log = member.session.log(request, shown.position(), wait) => log,
        };
        let log = match log {
            Ok(log) => log,
            // A coordinator that is started again goes on where it was.
            Err(OrderError::NoCoordinator(_)) if args.follow && unheard < UNHEARD => {
                unheard += 1;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(wrong(error)),
        };
        unheard = 0;
        shown.take(&place.output, &log)?;
        let part = log.part;
        if part.state != LogState::Complete && part.bytes.is_empty() {
            said = say_stillness(place, &member.session, request, said).await;
        }
        match part.state {
            LogState::Complete => break,
            LogState::Growing | LogState::NotStarted if !args.follow && part.bytes.is_empty() => break,
            LogState::Growing | LogState::NotStarted => {}
        }
        // A request may end without any attempt: then there is nothing to follow.
        if args.follow && part.state == LogState::NotStarted && ended(&member.session, request).await {
            break;
        }
    }
    member.leave().await;
    let done = shown.finish(&place.output)?;
    Ok(if place.stop.is_cancelled() { Exit::Interrupted } else { done })
}

/// Says that nothing moves, once a minute at most; `said` is what was said last.
async fn say_stillness(place: &Place, session: &Session, request: RequestId, said: Option<String>) -> Option<String> {
    let (_, view) = session.look(RequestRef::Id(request)).await.ok()?;
    let still = sentences::no_progress(view.motion?)?;
    if said.as_ref() != Some(&still) {
        place.output.say(&still);
    }
    Some(still)
}

async fn ended(session: &Session, request: RequestId) -> bool {
    session.look(RequestRef::Id(request)).await.is_ok_and(|(_, view)| view.ended_at.is_some() && view.log.is_none())
}
