//! Where calls come in: each is checked, becomes a command or a look at the farm, and is answered.
//!
//! The caller is who the connection says it is. A request, subscription or cancellation counts by the key that signed it,
//! whoever brings it: a command connects under a key of its own, and nobody gains by repeating what somebody else signed. Of
//! reports only coordinators may bring another's; a lease is touched by its own volunteer only. Addresses reach no answer.

use super::desk::{DeskBell, Seen, Word};
use super::judge::judged;
use super::ledger::{Ledger, LedgerError};
use super::logs::{Logs, Outlook, Standing};
use super::needs;
use super::pull::Pulls;
use crate::artifact::need::Needed;
use crate::clock::Clock;
use crate::hearsay::Hearsay;
use crate::network::{Caller, Network};
use protocol::farm::command::{Command, Possession, Reply, Submitted, Witnesses};
use protocol::farm::explain::{Presence, RequestView, Sighting};
use protocol::farm::holding::Finished;
use protocol::farm::{Farm, Resolved};
use protocol::id::{BuildKey, FarmId, LeaseId, ManifestId, PeerKey, RequestId};
use protocol::platform::Capability;
use protocol::progress::Pulse;
use protocol::report::{Outcome, Report};
use protocol::request::{Cancellation, CheckedRequest, MAX_ADDRESSES, Request, Subscription};
use protocol::signed::{SecretKey, Signed};
use protocol::time::Span;
use protocol::wire::{
    Answer, BuildRow, CLAIM_WAIT, Control, FarmView, LogPart, LogPosition, LogState, Park, QueueRow, Refusal,
    RequestLog, RequestRef, VolunteerView, fitting, view_mark,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// How far a requester's clock may be ahead.
const CLOCK_AHEAD: Duration = Duration::from_secs(300);
/// How long whoever misses an artifact waits until it is known who has it.
const PROBED_WITHIN: Duration = Duration::from_secs(5);
/// Mails that could not be sent, in one answer.
const MAILS_SHOWN: usize = 20;
/// Rows of the queue in one answer.
const QUEUE_ROWS: usize = 100;
/// How often a watched request is looked at again although nothing was told: explanations depend on soft state too.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Answers calls for a coordinator. Clones share everything.
#[derive(Clone, Debug)]
pub struct Door {
    pub(super) ledger: Ledger,
    pub(super) network: Network,
    pub(super) farm: FarmId,
    pub(super) secret: SecretKey,
    pub(super) clock: Clock,
    pub(super) desk: DeskBell,
    pub(super) seen: watch::Receiver<Arc<Seen>>,
    /// Rung at every event of the farm. Whoever waits is woken in the order of asking, so that simulated runs repeat.
    pub(super) moved: Arc<Notify>,
    pub(super) pulls: Pulls,
    pub(super) logs: Logs,
    pub(super) hearsay: Hearsay,
}

impl Door {
    /// Answers a call over `control/1`; `None` for calls that are not a coordinator's part.
    pub async fn control(&self, caller: Caller, call: Control) -> Option<Answer> {
        Some(match call {
            Control::Submit { request, subscriptions } => self.submit(caller, request, &subscriptions).await,
            Control::Cancel(cancellation) => self.cancel(&cancellation).await,
            Control::Find(key) => self.find(key).await,
            Control::Request(named) => self.request(&named),
            Control::Farm => Answer::Farm(Box::new(self.farm_view())),
            Control::Volunteers => Answer::Volunteers(self.volunteers()),
            Control::Builds => Answer::Builds(self.builds()),
            Control::Log { request, from } => self.log(request, from, Duration::ZERO).await,
            Control::Heartbeat { pulses } => self.heartbeat(caller, pulses).await,
            Control::Refuse { lease, reason } => {
                self.command(Command::Refuse { lease, volunteer: caller.peer, reason }).await
            }
            Control::HandBack { lease } => self.command(Command::HandBack { lease, volunteer: caller.peer }).await,
            Control::Report(report) => self.report(caller, report).await,
            Control::Missing { build_key } => {
                // Whoever tells will ask next, and should get the new answer if it does not take long.
                let _late = tokio::time::timeout(PROBED_WITHIN, self.pulls.probe(build_key)).await;
                Answer::Done
            }
            Control::Evicted { build_key } => self.command(Command::Lost { build_key, holder: caller.peer }).await,
            Control::Holding { build_key, manifest } => self.holding(caller, build_key, manifest).await,
            Control::Hello(_) | Control::Charter | Control::Ticket | Control::ReadLog { .. } => return None,
        })
    }

    /// Answers a call over `park/1`; `None` for calls that are not a coordinator's part.
    pub async fn park(&self, caller: Caller, call: Park) -> Option<Answer> {
        Some(match call {
            Park::Claim { nonce, capability, leases, wait } => {
                self.claim(caller, nonce, capability, leases, wait).await
            }
            Park::Watch { request, mark, wait } => self.watch(request, mark, wait).await,
            Park::FollowLog { request, from, wait } => self.log(request, from, bounded(wait)).await,
            Park::FollowLease { .. } | Park::Owner(_) => return None,
        })
    }

    /// What a volunteer may fetch for the leases it holds at the moment: their recipes and the sources handed over for them.
    #[must_use]
    pub fn granted_to(&self, volunteer: PeerKey) -> Needed {
        let requests: Vec<Signed> = self.ledger.read(|farm| {
            let jobs = farm.leases_of(volunteer).filter_map(|lease| farm.job(lease.job));
            jobs.map(|job| job.signed.clone()).collect()
        });
        // The farm took them in, so each was opened and checked before.
        let specs = requests.iter().filter_map(|signed| Some(signed.payload_unchecked::<Request>().ok()?.spec));
        let mut needed = Needed::default();
        needed.extend(specs.map(|spec| Needed::by(&spec)));
        needed
    }

    /// What living jobs need of this coordinator's store.
    pub async fn needed(&self) -> Needed {
        needs::needed(&self.ledger).await
    }

    /// Volunteers that wait for work.
    #[must_use]
    pub fn volunteers_free(&self) -> usize {
        self.seen.borrow().sightings.iter().filter(|sighting| sighting.presence == Presence::Free).count()
    }

    /// Mails that wait to be sent.
    #[must_use]
    pub fn mails_waiting(&self) -> u64 {
        self.ledger.read(|farm| farm.counts().notices_pending)
    }

    async fn submit(&self, caller: Caller, request: Signed, subscriptions: &[Signed]) -> Answer {
        let checked = match CheckedRequest::open(request, self.farm) {
            Ok(checked) => checked,
            Err(error) => return invalid(error),
        };
        if checked.request.issued_at > self.clock.now() + CLOCK_AHEAD {
            return Answer::Refused(Refusal::ClockAhead);
        }
        if !checked.request.spec.requirement.is_within_limits() {
            return invalid("the requirement is out of bounds");
        }
        let subscriptions = match self.open_subscriptions(&checked, subscriptions) {
            Ok(subscriptions) => subscriptions,
            Err(reason) => return invalid(reason),
        };
        let missing = match self.pulls.missing(&checked.request.spec).await {
            Ok(missing) => missing,
            Err(error) => return Answer::Refused(Refusal::Failed(error.to_string())),
        };
        let source = if missing.is_empty() { Possession::Held } else { Possession::Awaited };
        let command = Command::Submit { request: checked.signed.clone(), subscriptions, source };
        match self.ledger.propose(command).await {
            Ok(Reply::Submitted(submitted)) => {
                let awaited = match submitted {
                    Submitted::Attached { job, .. } if !missing.is_empty() => {
                        self.pulls.hand_over(job, checked.request.spec.clone(), caller.peer);
                        missing
                    }
                    _ => Vec::new(),
                };
                Answer::Submitted { request: checked.id, submitted, missing: awaited }
            }
            Ok(_) => Answer::Refused(Refusal::Failed("the farm answered something else".to_owned())),
            Err(error) => refused(error),
        }
    }

    fn open_subscriptions(&self, checked: &CheckedRequest, signed: &[Signed]) -> Result<Vec<Subscription>, String> {
        if signed.is_empty() || signed.len() > MAX_ADDRESSES {
            return Err(format!("a request has 1 to {MAX_ADDRESSES} subscriptions"));
        }
        signed
            .iter()
            .map(|signed| {
                let subscription: Subscription = signed.open(self.farm).map_err(|error| error.to_string())?;
                if signed.key == checked.requester && subscription.request == checked.id {
                    Ok(subscription)
                } else {
                    Err("a subscription is for another request or by another key".to_owned())
                }
            })
            .collect()
    }

    async fn cancel(&self, signed: &Signed) -> Answer {
        let cancellation: Cancellation = match signed.open(self.farm) {
            Ok(cancellation) => cancellation,
            Err(error) => return invalid(error),
        };
        self.command(Command::Cancel { request: cancellation.request, by: signed.key }).await
    }

    /// A volunteer brings its own reports, a coordinator anybody's.
    fn may_bring(&self, caller: Caller, author: &PeerKey) -> bool {
        caller.peer == *author
            || self.ledger.read(|farm| farm.charter().is_some_and(|(charter, _)| charter.is_coordinator(&caller.peer)))
    }

    async fn find(&self, key: BuildKey) -> Answer {
        let (judged, holders) = self.ledger.read(|farm| {
            let holders = farm.finished(&key).map(|finished| finished.holders.clone()).unwrap_or_default();
            (judged(farm, self.farm, &self.secret, key), holders)
        });
        let addresses = self.network.peers().await.unwrap_or_default();
        let own = self.network.addresses().await.unwrap_or_default();
        let holders = holders
            .into_iter()
            .map(|key| {
                let known = addresses.iter().find(|contact| contact.key == key);
                let addresses = if key == self.network.local() {
                    own.clone()
                } else {
                    known.map(|contact| contact.addresses.clone()).unwrap_or_default()
                };
                protocol::ticket::Contact { key, addresses }
            })
            .collect();
        Answer::Found { judged: judged.map(Box::new), holders }
    }

    fn request(&self, named: &RequestRef) -> Answer {
        let id = match named {
            RequestRef::Id(id) => Some(*id),
            RequestRef::Prefix(prefix) if (8..=64).contains(&prefix.len()) => {
                match self.ledger.read(|farm| farm.resolve(prefix)) {
                    Resolved::One(id) => Some(id),
                    Resolved::None => None,
                    Resolved::Ambiguous(first, second) => {
                        return invalid(format!(
                            "`{prefix}` names more than one request, among them {first} and {second}"
                        ));
                    }
                }
            }
            RequestRef::Prefix(_) => return invalid("a request is named by 8 to 64 hexadecimal digits"),
        };
        Answer::Request(id.and_then(|id| self.view(id).map(|view| (id, Box::new(view)))))
    }

    fn view(&self, id: RequestId) -> Option<RequestView> {
        let seen = self.sightings();
        self.ledger.read(|farm| {
            let estimate = farm.estimate(id, &seen, self.clock.now());
            Some(RequestView { estimate, ..self.with_motion(farm, farm.view(id, &seen)?) })
        })
    }

    /// How the attempt that runs moves belongs to no farm: the desk sees it.
    fn with_motion(&self, farm: &Farm, view: RequestView) -> RequestView {
        let lease = view.job.and_then(|job| farm.job(job)?.lease.map(|lease| lease.id));
        RequestView { motion: lease.and_then(|lease| self.seen.borrow().motions.get(&lease).copied()), ..view }
    }

    /// What this coordinator sees itself, and what gossip says of volunteers that it does not.
    fn sightings(&self) -> Vec<Sighting> {
        let mut seen = self.seen.borrow().sightings.clone();
        for hearsay in self.hearsay.sightings() {
            if !seen.iter().any(|sighting| sighting.volunteer == hearsay.volunteer) {
                seen.push(hearsay);
            }
        }
        seen
    }

    fn farm_view(&self) -> FarmView {
        let seen = self.sightings();
        let volunteers = seen.iter().filter(|sighting| sighting.presence != Presence::Gone).count() as u64;
        self.ledger.read(|farm| {
            let counts = farm.counts();
            FarmView {
                queued: counts.queued,
                running: counts.running,
                finished: counts.finished,
                volunteers,
                mails_waiting: counts.notices_pending,
                mails_failed: farm.failed_notices().take(MAILS_SHOWN).map(|failure| failure.reason.clone()).collect(),
                queue: farm
                    .queue_rows(QUEUE_ROWS, &seen)
                    .into_iter()
                    .map(|row| QueueRow { view: self.with_motion(farm, row.view), ..row })
                    .collect(),
            }
        })
    }

    fn volunteers(&self) -> Vec<VolunteerView> {
        let seen = self.seen.borrow().sightings.clone();
        let mut views: Vec<_> = self.ledger.read(|farm| {
            let view = |sighting: &Sighting| VolunteerView {
                volunteer: sighting.volunteer,
                capability: sighting.capability.clone(),
                presence: sighting.presence,
                busy: u16::try_from(farm.leases_of(sighting.volunteer).count()).unwrap_or(u16::MAX),
                heard: Span::default(),
            };
            seen.iter().map(view).collect()
        });
        for hearsay in self.hearsay.volunteers() {
            if !views.iter().any(|view| view.volunteer == hearsay.volunteer) {
                views.push(hearsay);
            }
        }
        fitting(views)
    }

    fn builds(&self) -> Vec<BuildRow> {
        let row = |finished: Finished<'_>| BuildRow {
            build_key: finished.verdict.build_key,
            recipe: finished.recipe.to_string(),
            manifest: finished.verdict.manifest,
            size_bytes: finished.size_bytes,
            holders: u32::try_from(finished.holders.len()).unwrap_or(u32::MAX),
            environment: finished.fingerprint.cloned().unwrap_or_default(),
            decided_at: finished.verdict.decided_at,
        };
        self.ledger.read(|farm| fitting(farm.builds().map(row)))
    }

    async fn heartbeat(&self, caller: Caller, pulses: Vec<Pulse>) -> Answer {
        let (reply, revoked) = oneshot::channel();
        self.desk.say(Word::Heartbeat { volunteer: caller.peer, pulses, reply }).await;
        revoked.await.map_or(Answer::Refused(Refusal::ShuttingDown), Answer::Revoked)
    }

    async fn report(&self, caller: Caller, signed: Signed) -> Answer {
        let report: Report = match signed.open(self.farm) {
            Ok(report) => report,
            Err(error) => return invalid(error),
        };
        if !self.may_bring(caller, &signed.key) {
            return Answer::Refused(Refusal::NotAllowed);
        }
        let witnesses = match report.outcome {
            Outcome::BuildError { .. } => self.witnesses(report.lease, signed.key).await,
            Outcome::Built { .. } | Outcome::Infrastructure { .. } | Outcome::Limit { .. } => Witnesses::Nobody,
        };
        let reporter = signed.key;
        let answer = self.command(Command::Report { report: signed, witnesses }).await;
        // Only of a report that counts: the disk here is not for everybody who can sign.
        if let (Answer::Done, Some(log)) = (&answer, report.log) {
            self.pulls.keep_log(log, reporter);
        }
        answer
    }

    /// Believes volunteers that are here, and nobody else, that they hold what the farm answers for: one that does not is found
    /// out by whoever fetches from it.
    async fn holding(&self, caller: Caller, build_key: BuildKey, manifest: ManifestId) -> Answer {
        let is_here = self.seen.borrow().sightings.iter().any(|sighting| sighting.volunteer == caller.peer);
        if !is_here && caller.peer != self.network.local() {
            return Answer::Refused(Refusal::NotAllowed);
        }
        self.command(Command::Held { build_key, manifest, holder: caller.peer }).await
    }

    /// Whether another volunteer that could attempt the job of a lease is here.
    async fn witnesses(&self, lease: LeaseId, reporter: PeerKey) -> Witnesses {
        let (reply, witnesses) = oneshot::channel();
        self.desk.say(Word::Witnesses { lease, except: reporter, reply }).await;
        // A closed desk knows nobody, and the report will be refused by a ledger that has stopped.
        witnesses.await.unwrap_or(Witnesses::Nobody)
    }

    async fn claim(
        &self,
        caller: Caller,
        nonce: u64,
        capability: Capability,
        leases: Vec<LeaseId>,
        wait: Span,
    ) -> Answer {
        if !capability.is_within_limits() {
            return invalid("the capability is out of bounds");
        }
        let (reply, offer) = oneshot::channel();
        let claim = Word::Claim { volunteer: caller.peer, nonce, capability: Box::new(capability), leases, reply };
        if !self.desk.say(claim).await {
            return Answer::Refused(Refusal::ShuttingDown);
        }
        match tokio::time::timeout(bounded(wait), offer).await {
            Ok(Ok(offer)) => Answer::Offer(Some(Box::new(offer))),
            // Replaced by a newer claim of the same nonce, or the connection closed.
            Ok(Err(_)) => Answer::Offer(None),
            Err(_) => {
                self.desk.say(Word::Withdraw { volunteer: caller.peer, nonce }).await;
                Answer::Offer(None)
            }
        }
    }

    async fn watch(&self, request: RequestId, mark: u64, wait: Span) -> Answer {
        let until = tokio::time::Instant::now() + bounded(wait);
        loop {
            // Asked for before the look, so that nothing is missed between the two.
            let moved = self.moved.notified();
            let view = self.view(request);
            let news = view.as_ref().is_none_or(|view| view_mark(view) != mark || view.ended_at.is_some());
            if news || tokio::time::Instant::now() >= until {
                return Answer::Request(view.map(|view| (request, Box::new(view))));
            }
            let again = until.min(tokio::time::Instant::now() + LOOK_AGAIN);
            // Told or out of time: look once more, the loop ends by itself.
            let _told = tokio::time::timeout_at(again, moved).await;
        }
    }

    async fn log(&self, request: RequestId, from: LogPosition, wait: Duration) -> Answer {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let moved = self.moved.notified();
            let Some(standing) = self.ledger.read(|farm| Standing::of(farm, request)) else {
                return Answer::RequestLog(None);
            };
            let attempt = standing.attempt;
            let offset = if attempt == from.attempt { from.offset } else { 0 };
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let part = self.logs.read(standing.place, offset, left).await;
            let part = part.unwrap_or(LogPart { offset, bytes: Vec::new(), state: LogState::NotStarted });
            let exhausted = part.bytes.is_empty() && part.state != LogState::Growing;
            let answer = |part| Answer::RequestLog(Some(RequestLog { attempt, part }));
            match (standing.outlook, part.state) {
                (Outlook::Ended, LogState::Complete) => return answer(part),
                // Read to its end, and what follows is an end or another attempt.
                _ if exhausted && !left.is_zero() => {}
                (Outlook::Open, LogState::Complete) => return answer(LogPart { state: LogState::Growing, ..part }),
                _ => return answer(part),
            }
            // Told or out of time: look once more, the loop ends by itself.
            let again = until.min(tokio::time::Instant::now() + LOOK_AGAIN);
            let _told = tokio::time::timeout_at(again, moved).await;
        }
    }

    async fn command(&self, command: Command) -> Answer {
        match self.ledger.propose(command).await {
            Ok(_) => Answer::Done,
            Err(error) => refused(error),
        }
    }
}

fn bounded(wait: Span) -> Duration {
    wait.duration().min(CLAIM_WAIT.mul_f64(1.2))
}

fn invalid(reason: impl ToString) -> Answer {
    Answer::Refused(Refusal::Invalid(reason.to_string()))
}

fn refused(error: LedgerError) -> Answer {
    match error {
        LedgerError::Rejected(rejection) => Answer::Rejected(rejection),
        LedgerError::NotCommitted(error) => match error {
            super::replica::ProposeError::NotLeader { .. } => Answer::Refused(Refusal::NotTheLeader),
            super::replica::ProposeError::Stopped => Answer::Refused(Refusal::ShuttingDown),
            error @ (super::replica::ProposeError::TooLarge { .. } | super::replica::ProposeError::Codec(_)) => {
                Answer::Refused(Refusal::Invalid(error.to_string()))
            }
        },
    }
}
