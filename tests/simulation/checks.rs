//! What must hold whatever happens: looked at after every entry of the farm's log, at every start of the coordinator, at every
//! delivery, and at the end.
//!
//! A shadow of the farm applies every durable entry once more by itself, so that the law's own invariants are checked after
//! each, and so that the farm in the coordinator's memory can be compared with what its log says.

use crate::hours::CLOCK_AHEAD;
use crate::log::Log;
use crate::tell;
use crate::workshop::honest;
use futures::FutureExt as _;
use node::artifact::Store;
use protocol::digest::Digest;
use protocol::farm::command::{Command, Entry, Event};
use protocol::farm::explain::Ended;
use protocol::farm::invariants;
use protocol::farm::notice::Notice;
use protocol::farm::{Farm, REMEMBERED_AFTER_EXPIRY};
use protocol::id::{BuildKey, LeaseId, ManifestId, NoticeId, PeerKey, RequestId};
use protocol::report::{Outcome, Report};
use protocol::request::{Address, Demand, Request, Subscription};
use protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long after a lease has ended its volunteer may still work on it, and how long after a volunteer is gone it may still have
/// one, when nothing is in the way.
pub(crate) const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// The checks of one run. Clones are the same.
#[derive(Clone)]
pub(crate) struct Checks {
    state: Arc<Mutex<State>>,
    log: Log,
}

#[derive(Default)]
struct State {
    shadow: Farm,
    absorbed: usize,
    broken: Vec<String>,
    /// What the coordinator holds.
    keeper: Option<(PeerKey, Store)>,
    /// Whose lease each is or was.
    granted: BTreeMap<LeaseId, PeerKey>,
    over: BTreeMap<LeaseId, Instant>,
    /// Leases that are worked on, by volunteer.
    attempts: BTreeSet<(PeerKey, LeaseId)>,
    /// Requests whose requester was told that the farm holds them, with the addresses that are to be written to.
    acknowledged: BTreeMap<RequestId, Acknowledged>,
    cancelled: BTreeSet<RequestId>,
    /// From when the farm may forget a request that has ended.
    forgotten_from: BTreeMap<RequestId, Timestamp>,
    ended: BTreeMap<RequestId, Ended>,
    /// Artifacts that somebody reported and no honest build is.
    lies: BTreeSet<ManifestId>,
    verdicts: BTreeMap<BuildKey, ManifestId>,
    addressed: BTreeSet<NoticeId>,
    mails: BTreeMap<NoticeId, u32>,
    /// Copies that a crash between the mail server's word and its note excuses.
    excused: BTreeMap<NoticeId, u32>,
    tally: Tally,
}

struct Acknowledged {
    addresses: BTreeSet<Address>,
    demand: Demand,
}

/// How much happened, so that a run in which nothing did is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub entries: usize,
    pub acknowledged: usize,
    pub built: usize,
    pub ended_otherwise: usize,
    pub mails: usize,
    pub delivered: usize,
    pub lies: usize,
    pub crashes: usize,
    pub torn: usize,
    pub clock_refusals: usize,
    pub idlers: usize,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

impl Checks {
    /// Nothing seen yet.
    pub(crate) fn new(log: Log) -> Self {
        Self { state: Arc::default(), log }
    }

    /// Something does not hold.
    pub(crate) fn breach(&self, what: String) {
        self.log.broken(&what);
        self.locked().broken.push(what);
    }

    /// The coordinator starts over this store.
    pub(crate) fn kept_in(&self, keeper: PeerKey, store: Store) {
        self.locked().keeper = Some((keeper, store));
    }

    /// Counts something that happened.
    pub(crate) fn count(&self, what: fn(&mut Tally) -> &mut usize) {
        *what(&mut self.locked().tally) += 1;
    }

    /// What did not hold.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.locked().broken.clone()
    }

    /// How many entries were looked at.
    pub(crate) fn absorbed(&self) -> usize {
        self.locked().absorbed
    }

    /// Looks at entries that have become durable.
    pub(crate) fn absorb(&self, entries: Vec<Entry>) {
        for entry in entries {
            let found = self.locked().absorb(&self.log, entry);
            found.into_iter().for_each(|what| self.breach(what));
        }
    }

    /// The coordinator has crashed, and this is what its next start finds.
    pub(crate) fn reopened(&self, entries: &[Entry]) {
        let absorbed = self.absorbed();
        self.locked().tally.crashes += 1;
        if let Some(new) = entries.get(absorbed..) {
            self.absorb(new.to_vec());
        } else {
            let mut farm = Farm::default();
            entries.iter().for_each(|entry| drop(farm.apply(entry.clone())));
            let mut state = self.locked();
            state.shadow = farm;
            state.absorbed = entries.len();
        }
        let mut state = self.locked();
        let between: Vec<_> =
            state.shadow.pending_notices().filter(|notice| notice.attempts > 0).map(|n| n.id).collect();
        for notice in between {
            *state.excused.entry(notice).or_default() += 1;
        }
        drop(state);
        self.nobody_is_lost();
        self.what_is_kept_is_there();
    }

    /// What the keeper is noted to hold outlives its crashes.
    fn what_is_kept_is_there(&self) {
        let state = self.locked();
        let Some((keeper, store)) = state.keeper.clone() else { return };
        let kept = state.shadow.builds().filter(|build| build.holders.contains(&keeper));
        let lost = kept.map(|build| build.verdict).filter(|verdict| !is_whole(&store, verdict.manifest));
        let lost: Vec<_> = lost.map(|verdict| (verdict.build_key, verdict.manifest)).collect();
        drop(state);
        for (key, manifest) in lost {
            let names = self.log.say(|say| (say.manifest(manifest), say.key(key)));
            self.breach(format!("{}, built for {}, is gone from the keeper", names.0, names.1));
        }
    }

    /// The farm in the coordinator's memory is the one that its log describes.
    pub(crate) fn compare(&self, farm: &Farm) {
        if farm.applied() == self.locked().shadow.applied() && farm.snapshot() != self.locked().shadow.snapshot() {
            self.breach("the farm differs from what its log says".to_owned());
        }
    }

    /// A requester was told that the farm holds his request.
    pub(crate) fn acknowledge(&self, request: RequestId, addresses: impl IntoIterator<Item = Address>, demand: Demand) {
        self.log.note("farm", |say| format!("holds {}, as its requester was told", say.request(request)));
        let mut state = self.locked();
        let known = state.acknowledged.entry(request).or_insert(Acknowledged { addresses: BTreeSet::new(), demand });
        known.addresses.extend(addresses);
    }

    /// A requester was told that his request is cancelled.
    pub(crate) fn cancelled(&self, request: RequestId) {
        self.log.note("farm", |say| format!("has ended {}, as its requester was told", say.request(request)));
        self.locked().cancelled.insert(request);
    }

    /// The mail server took a mail.
    pub(crate) fn mailed(&self, notice: NoticeId) {
        self.log.note("mail", |say| format!("{} is taken by the server", say.notice(notice)));
        let mut state = self.locked();
        let copies = state.mails.entry(notice).or_default();
        *copies += 1;
        let copies = *copies;
        let excused = state.excused.get(&notice).copied().unwrap_or_default();
        let addressed = state.addressed.contains(&notice);
        drop(state);
        if copies > 1 + excused {
            let notice = self.log.say(|say| say.notice(notice));
            self.breach(format!(
                "{notice} was mailed {copies} times; {excused} crashes came between, so {} was the most",
                1 + excused
            ));
        }
        if !addressed {
            let notice = self.log.say(|say| say.notice(notice));
            self.breach(format!("{notice} was mailed, and nobody asked for it"));
        }
    }

    /// A requester has fetched a build whose verdict he checked.
    pub(crate) fn delivered(&self, key: BuildKey, manifest: ManifestId, demand: Demand) {
        self.log.note("farm", |say| format!("{} is delivered as {}", say.key(key), say.manifest(manifest)));
        let mut state = self.locked();
        state.tally.delivered += 1;
        let judged = state.lies.contains(&manifest) || manifest == honest(key);
        drop(state);
        if !judged {
            let key = self.log.say(|say| say.key(key));
            self.breach(format!("{key} was delivered as what nobody built"));
        }
        if demand.agree.get() > 1 && manifest != honest(key) {
            let key = self.log.say(|say| say.key(key));
            self.breach(format!("agreement on {key} was demanded, and a lie delivered"));
        }
    }

    /// A volunteer takes a lease up.
    pub(crate) fn begins(&self, volunteer: PeerKey, lease: LeaseId) {
        let mut state = self.locked();
        state.attempts.insert((volunteer, lease));
        let owner = state.granted.get(&lease).copied().filter(|owner| *owner != volunteer);
        drop(state);
        if let Some(owner) = owner {
            let what = |who: &PeerKey| self.log.say(|say| say.node(who));
            let (lease, works, owns) = (self.log.say(|say| say.lease(lease)), what(&volunteer), what(&owner));
            self.breach(format!("{works} works on {lease}, which is {owns}'s"));
        }
    }

    /// A volunteer works on it no more.
    pub(crate) fn ends(&self, volunteer: PeerKey, lease: LeaseId) {
        self.locked().attempts.remove(&(volunteer, lease));
    }

    /// Nothing has been in the way of these volunteers for [`NOTICED_WITHIN`]: none works on what has ended since.
    pub(crate) fn nobody_works_in_vain(&self, connected: &[PeerKey]) {
        let state = self.locked();
        let in_vain = state.attempts.iter().filter(|(volunteer, lease)| {
            let over = state.over.get(lease).is_some_and(|since| since.elapsed() > NOTICED_WITHIN);
            over && connected.contains(volunteer)
        });
        let in_vain: Vec<_> = in_vain.copied().collect();
        drop(state);
        for (volunteer, lease) in in_vain {
            let names = self.log.say(|say| (say.node(&volunteer), say.lease(lease)));
            self.breach(format!("{} still works on {}, which has ended {NOTICED_WITHIN:?} ago", names.0, names.1));
        }
    }

    /// These volunteers have been gone for [`NOTICED_WITHIN`] under the coordinator's eyes: none has a lease any more.
    pub(crate) fn the_lost_hold_nothing(&self, gone: &[PeerKey]) {
        let state = self.locked();
        let leases = gone.iter().flat_map(|volunteer| state.shadow.leases_of(*volunteer));
        let kept: Vec<_> = leases.map(|lease| (lease.volunteer, lease.id)).collect();
        drop(state);
        for (volunteer, lease) in kept {
            let names = self.log.say(|say| (say.node(&volunteer), say.lease(lease)));
            self.breach(format!("{} has been gone for {NOTICED_WITHIN:?} and still has {}", names.0, names.1));
        }
    }

    /// Builds that are finished now.
    pub(crate) fn finished(&self) -> Vec<(BuildKey, ManifestId)> {
        self.locked().shadow.builds().map(|build| (build.verdict.build_key, build.verdict.manifest)).collect()
    }

    /// What has not come to its end yet, of what was acknowledged.
    pub(crate) fn unended(&self) -> Vec<String> {
        let state = self.locked();
        let mut waiting: Vec<String> = Vec::new();
        for request in state.acknowledged.keys() {
            match state.shadow.view(*request, &[]) {
                Some(view) if view.ended_at.is_some() => {}
                Some(view) => {
                    let name = self.log.say(|say| say.request(*request));
                    waiting.push(format!("{name} {:?} {:?}", view.state, view.explanation));
                }
                None if state.may_be_forgotten(request) => {}
                None => waiting.push(format!("{} is not known", self.log.say(|say| say.request(*request)))),
            }
        }
        let counts = state.shadow.counts();
        if counts.queued + counts.running + counts.notices_pending > 0 {
            waiting.push(format!("{counts:?}"));
        }
        waiting
    }

    /// What holds when everything has come to its end; a run that was given up because something broke is only counted.
    pub(crate) fn at_the_end(&self) -> Tally {
        if self.broken().is_empty() {
            self.nobody_is_lost();
            self.everybody_is_answered();
        }
        let state = self.locked();
        Tally {
            entries: state.absorbed,
            acknowledged: state.acknowledged.len(),
            built: state.ended.values().filter(|ended| matches!(ended, Ended::Built { .. })).count(),
            ended_otherwise: state.ended.values().filter(|ended| !matches!(ended, Ended::Built { .. })).count(),
            mails: state.mails.len(),
            lies: state.lies.len(),
            ..state.tally
        }
    }

    fn everybody_is_answered(&self) {
        let state = self.locked();
        let mut found = Vec::new();
        for (request, acknowledged) in &state.acknowledged {
            for address in &acknowledged.addresses {
                let notice = Notice::id(*request, address);
                if !state.mails.contains_key(&notice) {
                    let names = self.log.say(|say| (say.request(*request), say.notice(notice)));
                    found
                        .push(format!("{address} asked to be written to about {} ({}), and was not", names.0, names.1));
                }
            }
            if acknowledged.demand.agree.get() > 1
                && let Some(Ended::Built { manifest, .. }) = state.ended.get(request)
                && state.lies.contains(manifest)
            {
                let request = self.log.say(|say| say.request(*request));
                found.push(format!("{request} demanded agreement and was answered with a lie"));
            }
        }
        for request in &state.cancelled {
            if !state.ended.contains_key(request) {
                let request = self.log.say(|say| say.request(*request));
                found.push(format!("{request} was cancelled, and has no end"));
            }
        }
        drop(state);
        found.into_iter().for_each(|what| self.breach(what));
    }

    fn nobody_is_lost(&self) {
        let state = self.locked();
        let known = |request: &RequestId| state.shadow.view(*request, &[]).is_some() || state.may_be_forgotten(request);
        let mut found: Vec<_> = state
            .acknowledged
            .keys()
            .filter(|request| !known(request))
            .map(|request| {
                let request = self.log.say(|say| say.request(*request));
                format!("{request} was acknowledged, and the farm does not know it")
            })
            .collect();
        let open = |request: &RequestId| state.shadow.view(*request, &[]).is_some_and(|view| view.ended_at.is_none());
        for request in state.ended.keys().filter(|request| open(request)) {
            let request = self.log.say(|say| say.request(*request));
            found.push(format!("{request} had ended, and waits again"));
        }
        for request in state.cancelled.iter().filter(|request| open(request)) {
            let request = self.log.say(|say| say.request(*request));
            found.push(format!("{request} was cancelled, and still waits"));
        }
        drop(state);
        found.into_iter().for_each(|what| self.breach(what));
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a request has ended, and nobody can repeat it any more.
    fn may_be_forgotten(&self, request: &RequestId) -> bool {
        let over = self.forgotten_from.get(request).is_some_and(|from| self.shadow.last_stamp() >= *from);
        over && self.ended.contains_key(request)
    }

    fn absorb(&mut self, log: &Log, entry: Entry) -> Vec<String> {
        let mut found = Vec::new();
        let index = entry.index;
        log.note("ledger", |say| format!("{index}: {}", tell::command(say, &entry.command)));
        log.mark("ledger", || Digest::of(&protocol::codec::encode(&entry)).short());
        self.learn(&entry.command, log);
        found.extend(self.too_soon(&entry).map(|what| format!("entry {index}: {what}")));
        found.extend(self.out_of_time(&entry, log).map(|what| format!("entry {index}: {what}")));
        let before = self.shadow.clone();
        let applied = self.shadow.apply(entry);
        self.absorbed += 1;
        if let Err(rejection) = &applied.reply {
            log.note("ledger", |_| format!("{index}: rejected, {rejection}"));
        }
        let invariants = invariants::check_all(&self.shadow).and(invariants::check_step(&before, &self.shadow));
        found.extend(invariants.err().map(|broken| format!("entry {index}: {broken}")));
        let mut decided = BTreeMap::new();
        for event in applied.events {
            log.note("ledger", |say| format!("{index}: {}", tell::event(say, &event)));
            if let Event::Decided { build_key, manifest, .. } = &event {
                decided.insert(*build_key, *manifest);
            }
            found.extend(self.hear(event, log).map(|what| format!("entry {index}: {what}")));
        }
        for (key, manifest) in decided {
            let judged = self.shadow.finished(&key).map(|finished| finished.verdict.manifest);
            if judged != Some(manifest) {
                let key = log.say(|say| say.key(key));
                found.push(format!("entry {index}: {key} was decided as {manifest:?} and is {judged:?}"));
            }
        }
        found
    }

    /// The keeper is noted as a holder when it holds every byte, and not before.
    fn too_soon(&self, entry: &Entry) -> Option<String> {
        let Command::Held { manifest, holder, .. } = entry.command else { return None };
        let (_, store) = self.keeper.as_ref().filter(|(keeper, _)| *keeper == holder)?;
        (!is_whole(store, manifest)).then(|| "the keeper is noted as a holder of what it does not hold".to_owned())
    }

    /// What the farm accepts was not made in the future, by its own clock.
    fn out_of_time(&self, entry: &Entry, log: &Log) -> Option<String> {
        let Command::Submit { request: signed, .. } = &entry.command else { return None };
        let id = RequestId(signed.id());
        let request: Request = signed.payload_unchecked().ok().filter(|_| self.shadow.request(&id).is_none())?;
        let early = request.issued_at > entry.now + CLOCK_AHEAD;
        early.then(|| format!("{} was made after it came", log.say(|say| say.request(id))))
    }

    fn learn(&mut self, command: &Command, log: &Log) {
        match command {
            Command::Submit { request, subscriptions, .. } => {
                let id = RequestId(request.id());
                if let Ok(said) = request.payload_unchecked::<Request>() {
                    let from = said.expires_at() + REMEMBERED_AFTER_EXPIRY.duration();
                    self.forgotten_from.insert(id, from);
                }
                let addresses = subscriptions.iter().filter_map(|Subscription { address, .. }| address.as_ref());
                for notice in addresses.map(|address| Notice::id(id, address)) {
                    log.note("mail", |say| {
                        let names = (say.request(id), say.notice(notice));
                        say.link(&names.0, &names.1);
                        format!("{} will be about {}", names.1, names.0)
                    });
                    self.addressed.insert(notice);
                }
            }
            Command::Report { report, .. } => {
                let Ok(said) = report.payload_unchecked::<Report>() else { return };
                if let Outcome::Built { manifest, .. } = said.outcome
                    && manifest != honest(said.build_key)
                {
                    self.lies.insert(manifest);
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, event: Event, log: &Log) -> Option<String> {
        match event {
            Event::Ended { request, ended } => {
                let second = self.ended.insert(request, ended.clone());
                if let Some(first) = second {
                    let request = log.say(|say| say.request(request));
                    return Some(format!("{request} ended twice: {first:?}, {ended:?}"));
                }
                None
            }
            Event::Decided { build_key, manifest, .. } => {
                let before = self.verdicts.insert(build_key, manifest);
                let changed = before.filter(|before| *before != manifest);
                changed.filter(|before| !self.lies.contains(before) && !self.lies.contains(&manifest)).map(|before| {
                    let names = log.say(|say| (say.key(build_key), say.manifest(before), say.manifest(manifest)));
                    format!("{} has two verdicts: {} and {}", names.0, names.1, names.2)
                })
            }
            Event::Granted { lease, volunteer, .. } => {
                self.granted.insert(lease, volunteer);
                None
            }
            Event::LeaseEnded { lease, .. } => {
                self.over.insert(lease, Instant::now());
                None
            }
            Event::Unbuilt { build_key } => {
                self.verdicts.remove(&build_key);
                None
            }
            _ => None,
        }
    }
}

fn is_whole(store: &Store, manifest: ManifestId) -> bool {
    let whole = store.whole(manifest).now_or_never().expect("a store in memory does not wait");
    whole.is_ok_and(|whole| whole.is_some())
}
