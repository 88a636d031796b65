//! `node status`: the queue and the farm at a glance, or one request with its reason for waiting.

use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::sentences;
use crate::shape::{self, QueueShape, RequestStatusShape, StatusShape};
use protocol::farm::explain::{Explanation, RequestView};
use protocol::id::{PeerKey, RequestId};
use protocol::wire::{FarmView, HeardRequest};

/// The most mails that could not be sent which are shown as text.
const SHOWN_MAILS: usize = 5;

/// Shows the farm.
pub(crate) fn show_farm(output: &Output, view: &FarmView) -> Result<Exit, Failure> {
    output.answer(&farm_text(view))?;
    output.object(&StatusShape::from(view))?;
    Ok(Exit::Done)
}

/// Shows one request.
pub(crate) fn show_request(output: &Output, request: RequestId, view: &RequestView) -> Result<Exit, Failure> {
    output.answer(&request_text(request, view))?;
    if let Explanation::Ended(ended) = &view.explanation
        && let Some(next) = sentences::ended(ended, request).next
    {
        output.say(&next);
    }
    output.object(&RequestStatusShape::of(request, view))?;
    Ok(Exit::Done)
}

/// Shows one request as a peer that is no coordinator has passed it on.
pub(crate) fn show_passed_on(
    output: &Output,
    peer: PeerKey,
    request: RequestId,
    view: &RequestView,
) -> Result<Exit, Failure> {
    output.say(&sentences::passed_on(peer));
    output.answer(&request_text(request, view))?;
    let shape = RequestStatusShape::of(request, view);
    output.object(&RequestStatusShape { outlook: shape.outlook.told_by(peer), ..shape })?;
    Ok(Exit::Done)
}

/// Shows what a peer that is no coordinator has heard of a request.
pub(crate) fn show_hearsay(output: &Output, peer: PeerKey, heard: &HeardRequest) -> Result<Exit, Failure> {
    let shape = shape::heard(peer, heard);
    output.say(&sentences::hearsay(peer, heard));
    let lines = [
        format!("request    {}", heard.request),
        format!("build key  {}", heard.build_key),
        format!("state      {}, by hearsay", shape.state.unwrap_or_default()),
        format!("because    {}", sentences::heard(heard)),
    ];
    output.answer(&lines.join("\n"))?;
    output.object(&shape)?;
    Ok(Exit::Done)
}

fn farm_text(view: &FarmView) -> String {
    let mut lines = vec![format!(
        "{} queued, {} running, {} finished, {} volunteers",
        view.queued, view.running, view.finished, view.volunteers
    )];
    if view.mails_waiting > 0 {
        lines.push(format!("{} mails wait to be sent", view.mails_waiting));
    }
    lines.extend(view.mails_failed.iter().take(SHOWN_MAILS).map(|reason| format!("mail not sent: {reason}")));
    if !view.queue.is_empty() {
        let mut table = Table::new(&["REQUEST", "RECIPE", "PRIORITY", "STATE", "BECAUSE"]);
        for row in &view.queue {
            let shape = QueueShape::from(row);
            let because = shape.waiting_because.unwrap_or_default();
            table.row([row.request.short(), shape.recipe, shape.priority.into(), shape.state.into(), because]);
        }
        lines.push(String::new());
        lines.push(table.text());
    }
    lines.join("\n")
}

fn request_text(request: RequestId, view: &RequestView) -> String {
    let mut lines = vec![
        format!("request    {request}"),
        format!("recipe     {}", view.recipe),
        format!("build key  {}", view.build_key),
        format!("submitted  {}", sentences::moment(view.submitted_at)),
        format!("state      {}", shape::state(view)),
        format!("because    {}", sentences::standing(view, request)),
        format!("attempts   {}", view.attempts),
    ];
    if let Some(estimate) = view.estimate {
        lines.push(format!("built      {}", sentences::estimate(estimate)));
    }
    if let Some(volunteer) = view.volunteer {
        lines.push(format!("volunteer  {volunteer}"));
    }
    if let Some(environment) = &view.environment {
        lines.push(format!("made on    {environment}"));
    }
    if let Some((from, to)) = view.started_at.zip(view.ended_at) {
        lines.push(format!("took       {}", sentences::span(to.since(from))));
    }
    lines.join("\n")
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
