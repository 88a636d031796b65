//! What must hold whatever happens: looked at after every entry of the farm's log, at every start of the coordinator, at every
//! delivery, and at the end.
//!
//! A shadow of the farm applies every durable entry once more by itself, so that the law's own invariants are checked after
//! each, and so that the farm in the coordinator's memory can be compared with what its log says.

use crate::log::Log;
use crate::workshop::honest;
use protocol::digest::Digest;
use protocol::farm::Farm;
use protocol::farm::command::{Command, Entry, Event};
use protocol::farm::explain::Ended;
use protocol::farm::invariants;
use protocol::farm::notice::Notice;
use protocol::id::{BuildKey, ManifestId, NoticeId, RequestId};
use protocol::report::Outcome;
use protocol::report::Report;
use protocol::request::{Address, Demand, Subscription};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Requests whose requester was told that the farm holds them, with the addresses that are to be written to.
    acknowledged: BTreeMap<RequestId, Acknowledged>,
    cancelled: BTreeSet<RequestId>,
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
}

impl Checks {
    /// Nothing seen yet.
    pub(crate) fn new(log: Log) -> Self {
        Self { state: Arc::default(), log }
    }

    /// Something does not hold.
    pub(crate) fn breach(&self, what: String) {
        self.log.note("BROKEN", &what);
        self.locked().broken.push(what);
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

    /// The coordinator has crashed, and this is what its next start will find.
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
    }

    /// The farm in the coordinator's memory is the one that its log describes.
    pub(crate) fn compare(&self, farm: &Farm) {
        if farm.applied() == self.locked().shadow.applied() && farm.snapshot() != self.locked().shadow.snapshot() {
            self.breach("the farm differs from what its log says".to_owned());
        }
    }

    /// A requester was told that the farm holds his request.
    pub(crate) fn acknowledge(&self, request: RequestId, addresses: impl IntoIterator<Item = Address>, demand: Demand) {
        self.log.note("requester", format!("{} acknowledged", request.short()));
        let mut state = self.locked();
        let known = state.acknowledged.entry(request).or_insert(Acknowledged { addresses: BTreeSet::new(), demand });
        known.addresses.extend(addresses);
    }

    /// A requester was told that his request is cancelled.
    pub(crate) fn cancelled(&self, request: RequestId) {
        self.log.note("requester", format!("{} cancelled", request.short()));
        self.locked().cancelled.insert(request);
    }

    /// The mail server took a mail.
    pub(crate) fn mailed(&self, notice: NoticeId) {
        self.log.note("mail", notice.short());
        let mut state = self.locked();
        let copies = state.mails.entry(notice).or_default();
        *copies += 1;
        let copies = *copies;
        let excused = state.excused.get(&notice).copied().unwrap_or_default();
        let addressed = state.addressed.contains(&notice);
        drop(state);
        if copies > 1 + excused {
            self.breach(format!("{} was mailed {copies} times, {excused} crashes came between", notice.short()));
        }
        if !addressed {
            self.breach(format!("{} was mailed, and nobody asked for it", notice.short()));
        }
    }

    /// A requester has fetched a build whose verdict he checked.
    pub(crate) fn delivered(&self, key: BuildKey, manifest: ManifestId, demand: Demand) {
        self.log.note("requester", format!("{} delivered as {}", key.short(), manifest.short()));
        let mut state = self.locked();
        state.tally.delivered += 1;
        let judged = state.lies.contains(&manifest) || manifest == honest(key);
        drop(state);
        if !judged {
            self.breach(format!("{} was delivered as what nobody built", key.short()));
        }
        if demand.agree.get() > 1 && manifest != honest(key) {
            self.breach(format!("agreement on {} was demanded, and a lie delivered", key.short()));
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
                Some(view) => waiting.push(format!("{} {:?} {:?}", request.short(), view.state, view.explanation)),
                None => waiting.push(format!("{} is not known", request.short())),
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
                    found.push(format!("{} asked to be written to about {}, and was not", address, request.short()));
                }
            }
            if acknowledged.demand.agree.get() > 1
                && let Some(Ended::Built { manifest, .. }) = state.ended.get(request)
                && state.lies.contains(manifest)
            {
                found.push(format!("{} demanded agreement and was answered with a lie", request.short()));
            }
        }
        for request in &state.cancelled {
            if !state.ended.contains_key(request) {
                found.push(format!("{} was cancelled, and has no end", request.short()));
            }
        }
        drop(state);
        found.into_iter().for_each(|what| self.breach(what));
    }

    fn nobody_is_lost(&self) {
        let state = self.locked();
        let known = |request: &RequestId| state.shadow.view(*request, &[]).is_some();
        let mut found: Vec<_> = state
            .acknowledged
            .keys()
            .filter(|request| !known(request))
            .map(|request| format!("{} was acknowledged, and the farm does not know it", request.short()))
            .collect();
        for request in state.ended.keys().chain(&state.cancelled) {
            let open = state.shadow.view(*request, &[]).is_some_and(|view| view.ended_at.is_none());
            if open {
                found.push(format!("{} had ended, and waits again", request.short()));
            }
        }
        drop(state);
        found.into_iter().for_each(|what| self.breach(what));
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn absorb(&mut self, log: &Log, entry: Entry) -> Vec<String> {
        let mut found = Vec::new();
        let index = entry.index;
        log.note(
            "ledger",
            format!("{index} {} {}", word(&entry.command), Digest::of(&protocol::codec::encode(&entry)).short()),
        );
        self.learn(&entry.command);
        let before = self.shadow.clone();
        let applied = self.shadow.apply(entry);
        self.absorbed += 1;
        if let Err(rejection) = &applied.reply {
            log.note("ledger", format!("{index} rejected: {rejection}"));
        }
        let invariants = invariants::check_all(&self.shadow).and(invariants::check_step(&before, &self.shadow));
        found.extend(invariants.err().map(|broken| format!("entry {index}: {broken}")));
        let mut decided = BTreeMap::new();
        for event in applied.events {
            log.note("ledger", format!("{index} {event:?}"));
            if let Event::Decided { build_key, manifest, .. } = &event {
                decided.insert(*build_key, *manifest);
            }
            found.extend(self.hear(event).map(|what| format!("entry {index}: {what}")));
        }
        for (key, manifest) in decided {
            let judged = self.shadow.finished(&key).map(|finished| finished.verdict.manifest);
            if judged != Some(manifest) {
                found.push(format!("entry {index}: {} was decided as {manifest:?} and is {judged:?}", key.short()));
            }
        }
        found
    }

    fn learn(&mut self, command: &Command) {
        match command {
            Command::Submit { request, subscriptions, .. } => {
                let id = RequestId(request.id());
                let addresses = subscriptions.iter().filter_map(|Subscription { address, .. }| address.as_ref());
                self.addressed.extend(addresses.map(|address| Notice::id(id, address)));
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

    fn hear(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Ended { request, ended } => {
                let second = self.ended.insert(request, ended.clone());
                if let Some(first) = second {
                    return Some(format!("{} ended twice: {first:?}, {ended:?}", request.short()));
                }
                None
            }
            Event::Decided { build_key, manifest, .. } => {
                let before = self.verdicts.insert(build_key, manifest);
                let changed = before.filter(|before| *before != manifest);
                changed.filter(|before| !self.lies.contains(before) && !self.lies.contains(&manifest)).map(|before| {
                    format!("{} has two verdicts: {} and {}", build_key.short(), before.short(), manifest.short())
                })
            }
            Event::Unbuilt { build_key } => {
                self.verdicts.remove(&build_key);
                None
            }
            _ => None,
        }
    }
}

fn word(command: &Command) -> String {
    let text = format!("{command:?}");
    match command {
        Command::Expire(expiry) => format!("Expire {expiry:?}"),
        _ => text.chars().take_while(char::is_ascii_alphanumeric).collect(),
    }
}
