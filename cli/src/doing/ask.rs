//! Verbs that ask one thing and show the answer.

use super::{Place, failure};
use crate::args::Hex;
use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use crate::verb;
use node::client::member::Member;
use protocol::wire::{Answer, Control};

pub(super) async fn farm(place: &Place) -> Result<Exit, Failure> {
    match leader(place, Control::Farm).await? {
        Answer::Farm(view) => verb::status::show_farm(&place.output, &view),
        _ => Err(nonsense()),
    }
}

pub(super) async fn request(place: &Place, named: &Hex) -> Result<Exit, Failure> {
    let member = place.join().await?;
    let found = member.session.look(named.request()).await.map_err(|error| failure::of_order(&error));
    member.leave().await;
    let (request, view) = found?;
    verb::status::show_request(&place.output, request, &view)
}

pub(super) async fn cancel(place: &Place, named: &Hex) -> Result<Exit, Failure> {
    let member = place.join().await?;
    let cancelled = async {
        let (request, _) = member.session.look(named.request()).await?;
        member.session.cancel(request).await?;
        Ok(request)
    };
    let cancelled = cancelled.await;
    member.leave().await;
    verb::cancel::show(&place.output, cancelled.map_err(|error| failure::of_order(&error))?)
}

pub(super) async fn builds(place: &Place) -> Result<Exit, Failure> {
    match leader(place, Control::Builds).await? {
        Answer::Builds(rows) => verb::builds::show(&place.output, &rows),
        _ => Err(nonsense()),
    }
}

/// Any peer knows volunteers: coordinators see them, others hear of them.
pub(super) async fn volunteers(place: &Place) -> Result<Exit, Failure> {
    match anyone(place, Control::Volunteers).await? {
        Answer::Volunteers(views) => verb::volunteers::show(&place.output, &views),
        _ => Err(nonsense()),
    }
}

pub(super) async fn ticket(place: &Place) -> Result<Exit, Failure> {
    match anyone(place, Control::Ticket).await? {
        Answer::Ticket(ticket) => verb::farm::show(&place.output, &ticket),
        _ => Err(nonsense()),
    }
}

async fn leader(place: &Place, call: Control) -> Result<Answer, Failure> {
    let member = place.join().await?;
    let answer = member.session.coordinators.call(call).await;
    member.leave().await;
    answer.map(|(_, answer)| answer).map_err(|none| failure::of_no_coordinator(&none))
}

/// Asks a coordinator if one answers, otherwise any peer that does.
async fn anyone(place: &Place, call: Control) -> Result<Answer, Failure> {
    let member = place.join().await?;
    let answer = ask_anyone(&member, call).await;
    member.leave().await;
    answer
}

async fn ask_anyone(member: &Member, call: Control) -> Result<Answer, Failure> {
    let none = match member.session.coordinators.call(call.clone()).await {
        Ok((_, answer)) => return Ok(answer),
        Err(none) => none,
    };
    for peer in member.network().peers().await.unwrap_or_default() {
        if let Ok(answer) = member.network().call(peer.key, call.clone()).await {
            return Ok(answer);
        }
    }
    Err(failure::of_no_coordinator(&none))
}

fn nonsense() -> Failure {
    let said =
        Said::with_next("a peer gave no sensible answer", "compare the versions: `node --version` here and there");
    Failure::new(Exit::Infrastructure, said)
}
