//! What is wrong on purpose: faults that farms have had, planted where the simulation touches the program, to see that the
//! checks notice.

use node::coordinator::ledger::simulated::Bend;
use protocol::farm::Farm;
use protocol::farm::command::{Command, Expiry, JobState};
use protocol::report::{Outcome, Report};
use protocol::request::{Request, Subscription};
use protocol::wire::{Answer, Offer};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing is wrong.
    None,
    /// Most volunteers agree on the same lie.
    Collusion,
    /// A crash takes entries that were answered.
    ForgetfulDisk,
    /// A crash of the keeper takes the artifacts that it said it holds.
    ForgetfulShelf,
    /// The coordinator hears that a mail was not taken when it was.
    DeafMailer,
    /// A mail counts as sent before it is.
    HastyMailer,
    /// Who asks for what is being built already is not told by mail.
    LostSubscription,
    /// A lost volunteer keeps its lease.
    ImmortalLease,
    /// The keeper counts as holder before it holds anything.
    HastyVerdict,
    /// What comes from a peer is not compared with its digest.
    BlindReceiver,
    /// Volunteers do not hear that nobody wants a build any more.
    UnheardCancel,
    /// One lease is given to two volunteers.
    DoubleGrant,
    /// A request that is cancelled stays in the queue.
    DeafQueue,
}

impl Flaw {
    /// What the fault makes of commands on their way into the log.
    pub(crate) fn bend(self) -> Option<Bend> {
        match self {
            Self::HastyMailer => Some(|_, command| match command {
                Command::NoticeAttempt { notice } => vec![Command::NoticeSent { notice }],
                other => vec![other],
            }),
            Self::LostSubscription => Some(|farm, command| vec![unsubscribed(farm, command)]),
            Self::ImmortalLease => Some(|_, command| match command {
                Command::Expire(Expiry::VolunteerLost(_)) => vec![],
                other => vec![other],
            }),
            Self::HastyVerdict => Some(|farm, command| match held_too_soon(farm, &command) {
                Some(held) => vec![command, held],
                None => vec![command],
            }),
            Self::DeafQueue => Some(|_, command| match command {
                Command::Cancel { .. } => vec![],
                other => vec![other],
            }),
            _ => None,
        }
    }

    /// What the fault makes of an answer on its way; `last` remembers the last offer.
    pub(crate) fn distort(self, answer: Answer, last: &mut Option<Offer>) -> Answer {
        match (self, answer) {
            (Self::UnheardCancel, Answer::Revoked(_)) => Answer::Revoked(Vec::new()),
            (Self::DoubleGrant, Answer::Offer(Some(offer))) => {
                *last = Some((*offer).clone());
                Answer::Offer(Some(offer))
            }
            (Self::DoubleGrant, Answer::Offer(None)) => Answer::Offer(last.take().map(Box::new)),
            (_, answer) => answer,
        }
    }
}

fn unsubscribed(farm: &Farm, command: Command) -> Command {
    let Command::Submit { request, mut subscriptions, source } = command else { return command };
    let running = request.payload_unchecked::<Request>().ok().and_then(|said| {
        let job = farm.job(farm.job_of(&said.spec.key())?)?;
        (job.state == JobState::Running).then_some(())
    });
    if running.is_some() {
        let silent = |one: Subscription| Subscription { address: None, ..one };
        subscriptions = subscriptions.into_iter().map(silent).collect();
    }
    Command::Submit { request, subscriptions, source }
}

fn held_too_soon(farm: &Farm, command: &Command) -> Option<Command> {
    let Command::Report { report, .. } = command else { return None };
    let said = report.payload_unchecked::<Report>().ok()?;
    let Outcome::Built { manifest, .. } = said.outcome else { return None };
    let (charter, _) = farm.charter()?;
    let holder = *charter.coordinators.first()?;
    Some(Command::Held { build_key: said.build_key, manifest, holder })
}
