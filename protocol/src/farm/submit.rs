//! Asking, asking again, and not wanting it any more.
//!
//! A submission meets, in this order: a finished build, a job that runs or waits, a build error remembered for an hour,
//! nothing. Whatever it meets, every address that came with it is told in the end: that is the promise the ancestor broke.

use crate::farm::account::{CLASSES, class_at};
use crate::farm::asked::{Asked, End, Fate, Wish};
use crate::farm::command::{Event, Expiry, Possession, Rejection, Reply, Submitted};
use crate::farm::explain::{Confirmed, Ended, HowBuilt, PolicyEnd};
use crate::farm::job::{Effort, History, Job, Trail, Wishers};
use crate::farm::notice::Notice;
use crate::farm::report::ERROR_REMEMBERED_FOR;
use crate::farm::{Farm, Turn};
use crate::id::{BuildKey, JobId, PeerKey, RequestId, RequirementId};
use crate::request::{Address, MAX_TTL, Request, Subscription};
use crate::signed::Signed;
use crate::time::{Span, Timestamp};
use std::collections::BTreeSet;

/// How long a source may take to arrive, from the last submission that promised it.
pub const SOURCE_WITHIN: Span = Span::from_secs(600);

impl Farm {
    pub(super) fn submit(
        &mut self,
        turn: &mut Turn,
        signed: Signed,
        subscriptions: &[Subscription],
        source: Possession,
    ) -> Result<Reply, Rejection> {
        let in_force = self.in_force()?;
        if signed.farm != in_force.farm {
            return Err(Rejection::Damaged("made for another farm".to_owned()));
        }
        let waiting_cap = in_force.charter.policy.waiting_per_requester;
        let request: Request = signed.payload_unchecked().map_err(|error| Rejection::Damaged(error.to_string()))?;
        let id = RequestId(signed.id());
        let wish = Wish::of(id, subscriptions, turn.index)?;
        if self.requests.contains_key(&id) {
            return self.ask_again(turn, id, signed.key, &wish, source).map(Reply::Submitted);
        }
        check(&request, turn.now)?;
        let build_key = request.spec.key();
        let job = self.jobs.by_key(&build_key);
        if let Some((submitted, ended, trail)) = self.known_answer(&build_key, &wish, job, turn.now) {
            let end = End { ended, at: turn.now, build_key, trail };
            let asked = Asked::new(signed, &request, wish, turn.now, Fate::Ended(Box::new(end)));
            self.record_end(turn, id, asked);
            return Ok(Reply::Submitted(submitted));
        }
        let requirement = request.spec.requirement.id();
        if !self.accounts.has_room(&signed.key, self.queue.need(&requirement), waiting_cap) {
            return Err(Rejection::TooMany);
        }
        let job = match job {
            Some(job) => {
                self.attach(id, Asked::new(signed, &request, wish, turn.now, Fate::Waiting(job)), job);
                self.source_of(turn, job, source);
                self.consider(turn, job, id);
                job
            }
            None => {
                let job = self.new_job(turn, id, &signed.key, &request, (build_key, requirement), source);
                let asked = Asked::new(signed, &request, wish, turn.now, Fate::Waiting(job));
                self.open(id, asked, job);
                self.settle(turn, job);
                job
            }
        };
        let state = self.jobs.get(job).map(Job::state).ok_or(Rejection::UnknownJob)?;
        Ok(Reply::Submitted(Submitted::Attached { job, state }))
    }

    /// The same request again: its subscriptions are added, nothing is lost.
    fn ask_again(
        &mut self,
        turn: &mut Turn,
        id: RequestId,
        by: PeerKey,
        wish: &Wish,
        source: Possession,
    ) -> Result<Submitted, Rejection> {
        let asked = self.requests.get_mut(&id).ok_or(Rejection::UnknownRequest)?;
        // An id does not name its signer: who copies another's request does not become its owner.
        if asked.requester != by {
            return Err(Rejection::NotYours);
        }
        let new = wish.new_addresses(&asked.addresses)?;
        asked.add_addresses(&new);
        match asked.fate {
            Fate::Ended(_) => {
                self.notify(turn, id, &new);
                Ok(Submitted::Ended)
            }
            Fate::Waiting(job) => {
                let stronger = asked.standard.strengthened(wish.standard);
                let is_stronger = stronger != asked.standard;
                asked.standard = stronger;
                self.source_of(turn, job, source);
                if is_stronger {
                    self.settle(turn, job);
                }
                let state = self.jobs.get(job).map(Job::state).ok_or(Rejection::UnknownJob)?;
                Ok(Submitted::Attached { job, state })
            }
        }
    }

    /// What the farm can answer without a job.
    fn known_answer(
        &self,
        key: &BuildKey,
        wish: &Wish,
        job: Option<JobId>,
        now: Timestamp,
    ) -> Option<(Submitted, Ended, Trail)> {
        if wish.standard.after.is_some() {
            return None;
        }
        if let Some(build) = self.builds.get(key).filter(|build| build.agreed >= wish.standard.agree.get()) {
            let ended = Ended::Built { manifest: build.manifest, how: HowBuilt::Cached, holding: build.holding };
            return Some((Submitted::Finished, ended, build.trail.clone()));
        }
        let error = self.errors.get(key).filter(|error| now.since(error.at) < ERROR_REMEMBERED_FOR.duration())?;
        if job.is_some() {
            return None;
        }
        let ended = Ended::BuildError { reason: error.reason.clone(), confirmed: Confirmed::Yes };
        Some((Submitted::RememberedError, ended, error.trail.clone()))
    }

    fn new_job(
        &mut self,
        turn: &Turn,
        first: RequestId,
        requester: &PeerKey,
        request: &Request,
        (build_key, requirement): (BuildKey, RequirementId),
        source: Possession,
    ) -> JobId {
        let standing = self.standing(requester);
        let spec = &request.spec;
        let lot = self.queue.join(spec.requirement.clone(), requirement, spec.recipe, standing);
        // Reports behind a finished build that was not enough still count.
        let reports = self.builds.get(&build_key).map(|build| build.reports.clone());
        let history = reports.map(|reports| Box::new(History { reports, ..History::default() }));
        let id = JobId(turn.index);
        let effort = match source {
            Possession::Held => Effort::Idle,
            Possession::Awaited => {
                let until = turn.now + SOURCE_WITHIN.duration();
                self.deadlines.insert((until, Expiry::Source(id)));
                Effort::AwaitingSource(until)
            }
        };
        let mut by_class = [0; CLASSES];
        by_class[class_at(request.priority)] = 1;
        let job = Job {
            build_key,
            lot,
            class: request.priority,
            tag: 0,
            effort,
            requests: Wishers::One(first),
            by_class,
            history,
        };
        self.jobs.insert(id, job);
        id
    }

    pub(super) fn standing(&self, requester: &PeerKey) -> crate::platform::Standing {
        let charter = self.in_force.as_ref().map(|in_force| &in_force.charter);
        charter.map_or(crate::platform::Standing::Guest, |charter| charter.standing(requester))
    }

    /// Puts a new request on a job that lives already.
    fn attach(&mut self, id: RequestId, asked: Asked, job: JobId) {
        let class = class_at(asked.priority);
        self.open(id, asked, job);
        self.rearrange(job, |job| {
            job.requests.push(id);
            job.by_class[class] += 1;
        });
    }

    /// Remembers a request that waits for this job.
    fn open(&mut self, id: RequestId, asked: Asked, job: JobId) {
        let Some(found) = self.jobs.get(job) else { return };
        self.accounts.open(asked.requester, self.queue.lot_need(found.lot));
        self.deadlines.insert((asked.expires_at, Expiry::Request(id)));
        self.requests.insert(id, Box::new(asked));
    }

    /// What a submission says about the source.
    fn source_of(&mut self, turn: &mut Turn, id: JobId, source: Possession) {
        let Some(Effort::AwaitingSource(until)) = self.jobs.get(id).map(|job| job.effort) else { return };
        self.deadlines.remove(&(until, Expiry::Source(id)));
        match source {
            Possession::Held => {
                self.jobs.set_effort(id, Effort::Idle);
                self.settle(turn, id);
            }
            Possession::Awaited => {
                let until = turn.now + SOURCE_WITHIN.duration();
                self.deadlines.insert((until, Expiry::Source(id)));
                self.jobs.set_effort(id, Effort::AwaitingSource(until));
            }
        }
    }

    pub(super) fn source_held(&mut self, turn: &mut Turn, job: JobId) -> Result<(), Rejection> {
        self.jobs.get(job).ok_or(Rejection::UnknownJob)?;
        self.source_of(turn, job, Possession::Held);
        Ok(())
    }

    pub(super) fn cancel(&mut self, turn: &mut Turn, id: RequestId, by: PeerKey) -> Result<(), Rejection> {
        let asked = self.requests.get(&id).ok_or(Rejection::UnknownRequest)?;
        if asked.requester != by {
            return Err(Rejection::NotYours);
        }
        if let Fate::Waiting(job) = asked.fate {
            self.end_requests(turn, job, &BTreeSet::from([id]), &Ended::Policy(PolicyEnd::Cancelled), None);
        }
        Ok(())
    }

    pub(super) fn expire_request(&mut self, turn: &mut Turn, id: RequestId) -> Result<(), Rejection> {
        let asked = self.requests.get(&id).ok_or(Rejection::UnknownRequest)?;
        let Fate::Waiting(job) = asked.fate else { return Err(Rejection::NotDue) };
        if turn.now < asked.expires_at {
            return Err(Rejection::NotDue);
        }
        self.end_requests(turn, job, &BTreeSet::from([id]), &Ended::Policy(PolicyEnd::Expired), None);
        Ok(())
    }

    pub(super) fn expire_source(&mut self, turn: &mut Turn, id: JobId) -> Result<(), Rejection> {
        let job = self.jobs.get(id).ok_or(Rejection::UnknownJob)?;
        match job.effort {
            Effort::AwaitingSource(until) if turn.now >= until => {}
            _ => return Err(Rejection::NotDue),
        }
        let all = job.requests.iter().copied().collect();
        self.end_requests(turn, id, &all, &Ended::Policy(PolicyEnd::SourceNeverArrived), None);
        Ok(())
    }

    /// Remembers a request that has ended, and tells everybody who waits for it.
    pub(super) fn record_end(&mut self, turn: &mut Turn, id: RequestId, asked: Asked) {
        if let Fate::Ended(end) = &asked.fate {
            turn.events.push(Event::Ended { request: id, ended: end.ended.clone() });
        }
        self.ended.insert((asked.forgotten_at(), id));
        let addresses = asked.addresses.clone();
        self.requests.insert(id, Box::new(asked));
        self.notify(turn, id, &addresses);
    }

    /// Makes a notice for each of these addresses of an ended request.
    fn notify(&mut self, turn: &mut Turn, id: RequestId, addresses: &[Address]) {
        let Some(in_force) = &self.in_force else { return };
        let Some(asked) = self.requests.get(&id).filter(|_| !addresses.is_empty()) else { return };
        let Fate::Ended(end) = &asked.fate else { return };
        // The payload was decoded when it came in.
        let Ok(request) = asked.request(in_force.farm) else { return };
        for address in addresses {
            let notice = Notice {
                id: Notice::id(id, address),
                request: id,
                address: address.clone(),
                requester: asked.requester,
                recipe: request.recipe.clone(),
                options: request
                    .spec
                    .options
                    .iter()
                    .chain(&request.effort)
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
                build_key: end.build_key,
                ended: end.ended.clone(),
                submitted_at: asked.submitted_at,
                started_at: end.trail.started_at,
                ended_at: end.at,
                volunteer: end.trail.volunteer,
                log: end.trail.log,
                log_tail: end.trail.log_tail.clone().into(),
                attempts: 0,
                not_before: turn.now,
            };
            let event = Event::Notice { notice: notice.id };
            if self.notices.add(notice, &in_force.charter.policy, turn.now) {
                turn.events.push(event);
            }
        }
    }
}

/// Whether a new request is within bounds and in time.
fn check(request: &Request, now: Timestamp) -> Result<(), Rejection> {
    if !request.spec.requirement.is_within_limits() {
        return Err(Rejection::OutOfBounds);
    }
    let too_long = request.ttl > MAX_TTL || request.issued_at > now + MAX_TTL.duration();
    if too_long || request.expires_at() <= now { Err(Rejection::Stale) } else { Ok(()) }
}
