//! `node logs`.

use super::{Place, failure};
use crate::args::LogsArgs;
use crate::exit::{Exit, Failure};
use crate::verb::logs::Logs;
use node::client::order::OrderError;
use protocol::wire::LogState;
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
    let mut unheard = 0;
    let wait = if args.follow { WAIT } else { Duration::ZERO };
    loop {
        let part = tokio::select! {
            biased;
            () = place.stop.cancelled() => break,
            part = member.session.log(request, shown.offset(), wait) => part,
        };
        let part = match part {
            Ok(part) => part,
            // A coordinator that is started again goes on where it was.
            Err(OrderError::NoCoordinator(_)) if args.follow && unheard < UNHEARD => {
                unheard += 1;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(wrong(error)),
        };
        unheard = 0;
        let nothing = part.bytes.is_empty();
        shown.take(&place.output, &part)?;
        let over = match part.state {
            LogState::Complete => true,
            LogState::Growing | LogState::NotStarted => !args.follow && nothing,
        };
        if over {
            break;
        }
        if args.follow && nothing && ended(&member.session, request).await {
            break;
        }
    }
    member.leave().await;
    let done = shown.finish(&place.output)?;
    Ok(if place.stop.is_cancelled() { Exit::Interrupted } else { done })
}

/// A request may end without any attempt: then there is nothing to follow.
async fn ended(session: &node::client::session::Session, request: protocol::id::RequestId) -> bool {
    let named = protocol::wire::RequestRef::Id(request);
    session.look(named).await.is_ok_and(|(_, view)| view.ended_at.is_some() && view.log.is_none())
}
