//! A volunteer on duty: it claims, attempts, reports, and says that it is alive.
//!
//! ```text
//!        ┌────────── claim (parked) ◄────────────┐
//!        ▼                                       │
//!   offer ─► heartbeat ─► attempt ─► report ─► accepted ─► verdict ─► provide
//!                            │          │ no coordinator: try again with back-off
//!              revoked, stop ┴─► forget │
//! ```
//!
//! One loop a slot. Everything here is dialled out, so a home router is no obstacle. A volunteer that loses its coordinator
//! keeps building and reports when one is back; one that is told to shut down stops its builds and hands the leases back.
//! It never builds a request whose envelope it did not check itself.

use super::build_log::BuildLog;
use super::running::Running;
use super::verdicts::Verdicts;
use super::vitals::Vitals;
use super::workshop::{Made, Order, Space, Stopped, Workshop};
use crate::artifact::Store;
use crate::artifact::need::{Need, Needed};
use crate::chance::{Backoff, Chance};
use crate::clock::Clock;
use crate::coordinators::Coordinators;
use crate::network::{Network, News};
use protocol::digest::Digest;
use protocol::farm::explain::Presence;
use protocol::id::{FarmId, LeaseId};
use protocol::platform::Capability;
use protocol::progress::Phase;
use protocol::report::{MAX_REASON_BYTES, Outcome, Report};
use protocol::request::CheckedRequest;
use protocol::signed::{SecretKey, Signed};
use protocol::time::Span;
use protocol::wire::{Answer, CLAIM_WAIT, Control, Offer, Park, VolunteerView};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often a volunteer with leases says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// An empty answer to a claim that comes sooner says that the claim was not parked at all.
const PARKED_AT_LEAST: Duration = Duration::from_secs(5);
/// How long handing back may take when shutting down.
const HAND_BACK: Duration = Duration::from_secs(5);
/// How often a volunteer whose disk is full looks whether there is room.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(2);
/// How much of a log is kept.
pub const LOG_BYTES: u64 = 16 << 20;
/// The last bytes of the log that go into a report.
const TAIL_BYTES: usize = MAX_REASON_BYTES;

/// Everything a volunteer stands on.
#[derive(Clone, Debug)]
pub struct Volunteer {
    /// The network.
    pub network: Network,
    /// Where artifacts are kept.
    pub store: Store,
    /// Who leads.
    pub coordinators: Coordinators,
    /// What builds.
    pub workshop: Arc<dyn Workshop>,
    /// The farm.
    pub farm: FarmId,
    /// Signs reports.
    pub secret: SecretKey,
    /// What this volunteer can do.
    pub capability: Capability,
    /// The leases held.
    pub running: Running,
    /// Time.
    pub clock: Clock,
    /// Nonces and jitter.
    pub chance: Chance,
}

/// Rung when a lease was taken up, so that the coordinator hears of it at once.
#[derive(Clone, Debug, Default)]
struct Bell(Arc<Notify>);

impl Volunteer {
    /// This volunteer as others see it.
    #[must_use]
    pub fn view(&self) -> VolunteerView {
        let busy = u16::try_from(self.running.leases().len()).unwrap_or(u16::MAX);
        VolunteerView {
            volunteer: self.secret.public(),
            capability: self.capability.clone(),
            presence: if busy < self.capability.slots { Presence::Free } else { Presence::Busy },
            busy,
            heard: Span::default(),
        }
    }

    /// Serves until `stop` is cancelled, then hands its leases back.
    pub async fn run(self, mut news: broadcast::Receiver<News>, stop: CancellationToken) {
        let bell = Bell::default();
        let work = Arc::new(Notify::new());
        let mut slots = JoinSet::new();
        for slot in 0..self.capability.slots {
            slots.spawn(self.clone().serve_slot(slot, bell.clone(), work.clone(), stop.clone()));
        }
        let beating = tokio::spawn(self.clone().beat(bell, stop.clone()));
        let catching_up = tokio::spawn(self.verdicts().catch_up());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                heard = news.recv() => match heard {
                    Ok(News::Request { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => work.notify_waiters(),
                    Ok(News::Capability { .. }) => {}
                    Err(broadcast::error::RecvError::Closed) => stop.cancelled().await,
                },
            }
        }
        while slots.join_next().await.is_some() {}
        catching_up.abort();
        beating.abort();
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts {
            network: self.network.clone(),
            store: self.store.clone(),
            coordinators: self.coordinators.clone(),
            farm: self.farm,
            chance: self.chance.clone(),
        }
    }

    /// Answers what a coordinator asks of a volunteer: the log of a lease. `None` for every other call.
    pub async fn answer(&self, lease: LeaseId, offset: u64, wait: Duration) -> Answer {
        Answer::Log(self.running.log(lease, offset, wait).await)
    }

    async fn serve_slot(self, slot: u16, bell: Bell, work: Arc<Notify>, stop: CancellationToken) {
        let mut backoff = Backoff::new(self.chance.clone(), Duration::from_millis(250), Duration::from_secs(30));
        let mut nonce = self.chance.number();
        while !stop.is_cancelled() {
            self.wait_for_space(slot, &stop).await;
            let claim = Park::Claim {
                nonce,
                capability: self.capability.clone(),
                leases: self.running.leases(),
                wait: Span::from(self.chance.around(CLAIM_WAIT)),
            };
            let claimed_at = tokio::time::Instant::now();
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = self.coordinators.park(claim) => answer,
            };
            match answer {
                Ok((_, Answer::Offer(Some(offer)))) => {
                    backoff.reset();
                    nonce = self.chance.number();
                    self.take(*offer, slot, &bell, &stop).await;
                    continue;
                }
                Ok((_, Answer::Offer(None))) => {
                    nonce = self.chance.number();
                    if claimed_at.elapsed() >= PARKED_AT_LEAST {
                        backoff.reset();
                        continue;
                    }
                    tracing::debug!(slot, "a claim was not parked");
                }
                // An answer may have been lost on the way: the same nonce gets the same lease.
                Ok((peer, answer)) => tracing::warn!(slot, ?peer, ?answer, "no answer to a claim"),
                Err(error) => tracing::info!(slot, %error, tried = ?error.tried, "a claim waits for a coordinator"),
            }
            let pause = backoff.step();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = work.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Claims nothing while an attempt would only fail for want of space.
    async fn wait_for_space(&self, slot: u16, stop: &CancellationToken) {
        let mut is_told = false;
        while self.workshop.space() == Space::DiskFull && !stop.is_cancelled() {
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(slot, "the disk below the work folder is full: no build is begun until there is room");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_FOR_SPACE) => {}
            }
        }
    }

    /// From offer to accepted report.
    async fn take(&self, offer: Offer, slot: u16, bell: &Bell, stop: &CancellationToken) {
        let lease = offer.lease;
        let request = match CheckedRequest::open(offer.request, self.farm) {
            Ok(request) => request,
            Err(error) => return self.refuse(lease, format!("the request is not valid: {error}")).await,
        };
        if let Err(reason) = self.workshop.accept(&request) {
            return self.refuse(lease, reason).await;
        }
        let unwanted = stop.child_token();
        let log = BuildLog::new(LOG_BYTES);
        let vitals = Vitals::default();
        let order =
            Order { lease, slot, request: request.clone(), log: log.clone(), vitals: vitals.clone(), stop: unwanted };
        let Some(hold) = self.running.hold(&order) else { return };
        let need = self.store.need(Needed::by(&request.request.spec));
        bell.0.notify_one();
        tracing::info!(%lease, recipe = %request.request.recipe, key = %request.build_key.short(), "attempting");
        let made = self.workshop.attempt(order).await;
        log.finish();
        vitals.enter(Phase::Reporting);
        match made {
            Ok(made) => {
                self.report(lease, &request, made, &log, stop).await;
            }
            Err(Stopped) if stop.is_cancelled() => self.hand_back(lease).await,
            Err(Stopped) => tracing::info!(%lease, "stopped: nobody wants it any more"),
        }
        drop((need, hold));
    }

    async fn refuse(&self, lease: LeaseId, reason: String) {
        tracing::warn!(%lease, reason, "refusing");
        let mut reason = reason;
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        // If this is not heard the offer lapses, which has the same end a little later.
        if let Err(error) = self.coordinators.call(Control::Refuse { lease, reason }).await {
            tracing::debug!(%lease, %error, "the refusal was not heard");
        }
    }

    async fn hand_back(&self, lease: LeaseId) {
        let call = self.coordinators.call(Control::HandBack { lease });
        match tokio::time::timeout(HAND_BACK, call).await {
            Ok(Ok(_)) => tracing::info!(%lease, "handed back"),
            Ok(Err(_)) | Err(_) => tracing::warn!(%lease, "could not be handed back: the coordinator will notice"),
        }
    }

    /// Reports until a coordinator has heard it, however long that takes, or this volunteer is told to stop.
    async fn report(
        &self,
        lease: LeaseId,
        request: &CheckedRequest,
        made: Made,
        log: &BuildLog,
        stop: &CancellationToken,
    ) {
        let bytes = log.to_bytes();
        let need = match &made.outcome {
            Outcome::Built { manifest, .. } => Some(self.store.need(Needed::tree(*manifest))),
            _ => None,
        };
        // The report need not wait for the disk on the log's behalf: a log that is lost in a crash is missed by nobody's build.
        let kept = self.store.put(vec![bytes.clone().into()]);
        let told = self.tell(lease, request, self.sworn(lease, request, made, &bytes), need, stop);
        let (kept, ()) = tokio::join!(kept, told);
        if let Err(error) = kept {
            tracing::warn!(%lease, %error, "the log cannot be kept");
        }
    }

    /// `need` keeps what was built, until the farm has judged it.
    async fn tell(
        &self,
        lease: LeaseId,
        request: &CheckedRequest,
        report: Report,
        need: Option<Need>,
        stop: &CancellationToken,
    ) {
        let report = Signed::new(&report, self.farm, &self.secret);
        let mut backoff = Backoff::new(self.chance.clone(), Duration::from_millis(500), Duration::from_secs(60));
        loop {
            match self.coordinators.call(Control::Report(report.clone())).await {
                Ok((_, Answer::Done)) => {
                    if let Some(need) = need {
                        tokio::spawn(self.verdicts().follow(request.clone(), need, stop.clone()));
                    }
                    return;
                }
                Ok((_, Answer::Rejected(rejection))) => {
                    tracing::info!(%lease, %rejection, "the report was not taken");
                    return;
                }
                Ok((peer, answer)) => tracing::warn!(%lease, ?peer, ?answer, "no answer to a report"),
                Err(error) if error.is_a_no() => {
                    tracing::warn!(%lease, tried = ?error.tried, "the report was refused");
                    return;
                }
                Err(error) => tracing::info!(%lease, %error, "the report waits for a coordinator"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.step()) => {}
            }
        }
    }

    fn sworn(&self, lease: LeaseId, request: &CheckedRequest, made: Made, log: &[u8]) -> Report {
        let mut outcome = made.outcome;
        if let Outcome::BuildError { reason } | Outcome::Infrastructure { reason } = &mut outcome {
            reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        }
        Report {
            lease,
            build_key: request.build_key,
            outcome,
            fingerprint: made.fingerprint,
            fetched: made.fetched.into(),
            built: made.built.into(),
            log: Some(Digest::of(log)),
            log_tail: tail(log),
        }
    }

    /// Says that this volunteer is alive and which leases it holds, and stops those that are no more.
    async fn beat(self, bell: Bell, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = bell.0.notified() => {}
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            let pulses = self.running.pulses();
            if pulses.is_empty() {
                continue;
            }
            match self.coordinators.call(Control::Heartbeat { pulses }).await {
                Ok((_, Answer::Revoked(revoked))) => revoked.into_iter().for_each(|lease| self.running.stop(lease)),
                Ok((peer, answer)) => tracing::warn!(?peer, ?answer, "no answer to a heartbeat"),
                Err(error) => tracing::debug!(%error, "no coordinator hears the heartbeat"),
            }
            if stop.is_cancelled() && self.running.leases().is_empty() {
                return;
            }
        }
    }
}

/// The last whole lines of a log that fit, as text.
fn tail(log: &[u8]) -> String {
    let cut = &log[log.len().saturating_sub(TAIL_BYTES)..];
    let text = String::from_utf8_lossy(cut);
    let whole =
        if cut.len() < log.len() { text.split_once('\n').map_or(text.as_ref(), |(_, rest)| rest) } else { &text };
    let mut tail = whole.to_owned();
    // Replacement characters may have made it longer than the bytes were.
    while tail.len() > TAIL_BYTES {
        let at = tail.ceil_char_boundary(tail.len() - TAIL_BYTES);
        tail.drain(..at);
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_whole_lines_within_its_bound() {
        assert_eq!(tail(b"one\ntwo\n"), "one\ntwo\n");
        let long: Vec<u8> = (0..1_000).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
        let cut = tail(&long);
        assert!(cut.len() <= TAIL_BYTES && cut.starts_with("line ") && cut.ends_with("line 999\n"), "{cut}");
        assert!(tail(&[0xff; 5_000]).len() <= TAIL_BYTES);
    }
}
