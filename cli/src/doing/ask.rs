//! Verbs that ask one thing and show the answer.

use super::{Place, failure};
use crate::args::Hex;
use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use crate::verb;
use node::client::member::Member;
use node::client::order::OrderError;
use protocol::farm::explain::RequestView;
use protocol::id::{PeerKey, RequestId};
use protocol::wire::{Answer, Control, HeardRequest};

/// Peers that are asked for what they have heard.
const PEERS_ASKED: usize = 16;

pub(super) async fn farm(place: &Place) -> Result<Exit, Failure> {
    match leader(place, Control::Farm).await? {
        Answer::Farm(view) => verb::status::show_farm(&place.output, &view),
        _ => Err(nonsense()),
    }
}

pub(super) async fn request(place: &Place, named: &Hex) -> Result<Exit, Failure> {
    let member = place.join().await?;
    let told = told_of(&member, named).await;
    member.leave().await;
    match told? {
        Told::Known(request, view) => verb::status::show_request(&place.output, request, &view),
        Told::PassedOn(peer, request, view) => verb::status::show_passed_on(&place.output, peer, request, &view),
        Told::Heard(peer, heard) => verb::status::show_hearsay(&place.output, peer, &heard),
    }
}

/// What was told of a request, and by whom.
enum Told {
    /// By a coordinator.
    Known(RequestId, Box<RequestView>),
    /// By another peer, which had asked a coordinator.
    PassedOn(PeerKey, RequestId, Box<RequestView>),
    /// By a peer that reaches no coordinator either.
    Heard(PeerKey, Box<HeardRequest>),
}

/// Asks a coordinator if one answers, otherwise every peer that is here: what comes from a coordinator counts before what was
/// only heard.
async fn told_of(member: &Member, named: &Hex) -> Result<Told, Failure> {
    let none = match member.session.look(named.request()).await {
        Ok((request, view)) => return Ok(Told::Known(request, Box::new(view))),
        Err(OrderError::NoCoordinator(none)) => none,
        Err(error) => return Err(failure::of_order(&error)),
    };
    let (network, call) = (member.network(), Control::Request(named.request()));
    let peers = network.peers().await.unwrap_or_default();
    let asking = peers.iter().take(PEERS_ASKED).map(|peer| network.call(peer.key, call.clone()));
    let answers = futures::future::join_all(asking).await;
    let mut heard: Option<(PeerKey, Box<HeardRequest>)> = None;
    for (peer, answer) in peers.iter().zip(answers) {
        match answer {
            Ok(Answer::Request(Some((request, view)))) => return Ok(Told::PassedOn(peer.key, request, view)),
            Ok(Answer::Heard(Some(word))) if heard.as_ref().is_none_or(|(_, known)| known.state < word.state) => {
                heard = Some((peer.key, word));
            }
            _ => {}
        }
    }
    heard.map(|(peer, word)| Told::Heard(peer, word)).ok_or_else(|| failure::of_no_coordinator(&none))
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
