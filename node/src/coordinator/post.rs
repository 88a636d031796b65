//! Hands the farm's notices to the mailer, and the mailer's commands to the ledger.

use super::ledger::Ledger;
use super::mailer::letter::{Occasion, Sender};
use super::mailer::{Law, Mailer, Waiting};
use super::replica::Told;
use crate::clock::Clock;
use crate::signpost::leads_here;
use protocol::farm::command::Event;
use protocol::farm::notice::Notice;
use protocol::request::Request;
use protocol::ticket::Ticket;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Sends the farm's mail until `stop` is cancelled. `ticket` is the farm's ticket as it is at the moment, if
/// others than this machine can use it.
pub async fn run(
    mailer: Mailer,
    ledger: Ledger,
    clock: Clock,
    ticket: watch::Receiver<Ticket>,
    stop: CancellationToken,
) {
    let wake = Arc::new(Notify::new());
    let waking = tokio::spawn(wake_on_notices(ledger.clone(), wake.clone()));
    let law = Law {
        pending: {
            let ledger = ledger.clone();
            move |now, most| {
                // Mail is the leader's part.
                if ledger.leads() { ledger.read(|farm| waiting(farm, now, most)) } else { Waiting::default() }
            }
        },
        propose: {
            let ledger = ledger.clone();
            move |command| {
                let ledger = ledger.clone();
                async move { ledger.propose(command).await }
            }
        },
        now: move || clock.now(),
        sender: {
            let ledger = ledger.clone();
            move || sender(&ledger, &ticket)
        },
    };
    mailer.run(law, &wake, stop.cancelled_owned()).await;
    waking.abort();
}

async fn wake_on_notices(ledger: Ledger, wake: Arc<Notify>) {
    let mut events = ledger.events();
    while let Some(told) = events.next().await {
        match told {
            Told::Event(happened) if !matches!(happened.event, Event::Notice { .. }) => {}
            Told::Event(_) | Told::StartOver => wake.notify_one(),
        }
    }
}

fn sender(ledger: &Ledger, ticket: &watch::Receiver<Ticket>) -> Sender {
    let farm = ledger.read(|farm| farm.charter().map(|(charter, _)| charter.name.clone()));
    let ticket = Some(ticket.borrow().clone()).filter(leads_here).map(|ticket| ticket.to_string());
    match farm {
        Some(farm) => Sender { farm, ticket },
        None => unreachable!("a farm that was never founded has no notices"),
    }
}

fn waiting(farm: &protocol::farm::Farm, now: protocol::time::Timestamp, most: usize) -> Waiting {
    let mut due = Vec::new();
    for notice in farm.pending_notices() {
        if notice.not_before > now {
            return Waiting { due, next_at: Some(notice.not_before) };
        }
        if due.len() >= most {
            return Waiting { due, next_at: Some(now) };
        }
        due.push(occasion(farm, notice));
    }
    Waiting { due, next_at: None }
}

fn occasion(farm: &protocol::farm::Farm, notice: &Notice) -> Occasion {
    let source = farm
        .request(&notice.request)
        .and_then(|signed| signed.payload_unchecked::<Request>().ok())
        .map(|request| request.spec.source);
    let fingerprint =
        farm.finished(&notice.build_key).and_then(|finished| finished.fingerprint.cloned()).unwrap_or_default();
    Occasion {
        notice: notice.id,
        address: notice.address.clone(),
        request: notice.request,
        build_key: notice.build_key,
        recipe: notice.recipe.clone(),
        options: notice.options.clone(),
        source,
        ended: notice.ended.clone(),
        submitted_at: notice.submitted_at,
        started_at: notice.started_at,
        ended_at: notice.ended_at,
        volunteer: notice.volunteer,
        fingerprint,
        log: notice.log,
        log_tail: notice.log_tail.clone(),
    }
}
