//! A small farm to try the law on. Every command is followed by every invariant, and a rejection must leave the snapshot
//! byte for byte as it was.

use protocol::charter::{Charter, Policy};
use protocol::digest::Digest;
use protocol::farm::Farm;
use protocol::farm::command::{
    Applied, Command, Entry, Event, Expiry, Granted, LeaseEnd, Possession, Rejection, Reply, Submitted, Witnesses,
};
use protocol::farm::explain::{Ended, Presence, Sighting};
use protocol::farm::invariants;
use protocol::farm::lease::Bounds;
use protocol::farm::notice::Notice;
use protocol::id::{BuildKey, FarmId, JobId, LeaseId, ManifestId, NoticeId, PeerKey, RecipeId, RequestId};
use protocol::platform::{Acceptance, Capability, Require, Requirement, Value};
use protocol::report::{Fingerprint, Holding, Outcome, Report, Reproducibility, Smoke};
use protocol::request::{
    Address, BuildSpec, Conditions, Demand, Freshness, OptionValue, Priority, Request, Source, Subscription,
};
use protocol::signed::{SecretKey, Signed};
use protocol::time::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;

/// When the farm of a test is founded.
pub const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// Seeds of keys with an office.
pub const FARM: u8 = 200;
pub const COORDINATOR: u8 = 201;
pub const MEMBER: u8 = 202;

pub fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn key(seed: u8) -> PeerKey {
    secret(seed).public()
}

pub fn address(name: &str) -> Address {
    format!("{name}@example.org").parse().unwrap()
}

/// What an attempt of a test may take: an hour in all, a minute without a sign of progress.
pub fn bounds() -> Bounds {
    Bounds { whole: Span::from_secs(3_600), quiet: Span::from_secs(60) }
}

pub fn artifact(name: &str) -> ManifestId {
    ManifestId(Digest::of(name.as_bytes()))
}

pub fn recipe(name: &str) -> RecipeId {
    RecipeId(Digest::of(name.as_bytes()))
}

pub fn requirement(requires: &[&str]) -> Requirement {
    let mut requirement = Requirement::none();
    for text in requires {
        let Require { key, constraint } = text.parse().unwrap();
        requirement.add(key, constraint);
    }
    requirement
}

/// What one person asks for.
#[derive(Clone)]
pub struct Ask {
    pub by: u8,
    pub recipe: &'static str,
    pub option: i64,
    pub requires: Vec<&'static str>,
    pub priority: Priority,
    pub nonce: u8,
    pub issued_at: Timestamp,
    pub ttl: Span,
    pub mail: Vec<&'static str>,
    pub agree: u8,
    pub freshness: Freshness,
    pub source: Possession,
}

impl Ask {
    pub fn by(by: u8) -> Self {
        Self {
            by,
            recipe: "lua",
            option: 0,
            requires: vec!["os=linux"],
            priority: Priority::Normal,
            nonce: 0,
            issued_at: START,
            ttl: Span::from_secs(7 * 86_400),
            mail: Vec::new(),
            agree: 1,
            freshness: Freshness::Any,
            source: Possession::Held,
        }
    }

    pub fn option(self, option: i64) -> Self {
        Self { option, ..self }
    }

    pub fn nonce(self, nonce: u8) -> Self {
        Self { nonce, ..self }
    }

    pub fn mail(self, mail: &[&'static str]) -> Self {
        Self { mail: mail.to_vec(), ..self }
    }

    pub fn agree(self, agree: u8) -> Self {
        Self { agree, ..self }
    }

    pub fn fresh(self) -> Self {
        Self { freshness: Freshness::Fresh, ..self }
    }

    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    pub fn requires(self, requires: &[&'static str]) -> Self {
        Self { requires: requires.to_vec(), ..self }
    }

    pub fn recipe(self, recipe: &'static str) -> Self {
        Self { recipe, ..self }
    }

    pub fn awaited(self) -> Self {
        Self { source: Possession::Awaited, ..self }
    }

    pub fn request(&self) -> Request {
        Request {
            recipe: self.recipe.parse().unwrap(),
            spec: BuildSpec {
                recipe: recipe(self.recipe),
                source: Source::Inline,
                options: BTreeMap::from([("opt".parse().unwrap(), OptionValue::Integer(self.option))]),
                requirement: requirement(&self.requires),
                conditions: Conditions::Usual,
            },
            effort: BTreeMap::new(),
            priority: self.priority,
            nonce: {
                let mut nonce = [self.nonce; 16];
                nonce[0] = self.by;
                nonce
            },
            issued_at: self.issued_at,
            ttl: self.ttl,
        }
    }

    pub fn signed(&self) -> Signed {
        Signed::new(&self.request(), FarmId::of(&key(FARM)), &secret(self.by))
    }

    pub fn id(&self) -> RequestId {
        RequestId(self.signed().id())
    }

    pub fn build_key(&self) -> BuildKey {
        self.request().spec.key()
    }

    pub fn command(&self) -> Command {
        let id = self.id();
        let demand = Demand { agree: NonZeroU8::new(self.agree).unwrap(), freshness: self.freshness };
        let to = |address| Subscription { request: id, address, demand };
        let mut subscriptions: Vec<_> = self.mail.iter().map(|name| to(Some(address(name)))).collect();
        if subscriptions.is_empty() {
            subscriptions.push(to(None));
        }
        Command::Submit { request: self.signed(), subscriptions, source: self.source }
    }
}

/// A machine with these facts.
pub fn machine(facts: &[(&str, Value)]) -> Capability {
    let mut known = BTreeMap::from([
        ("os".to_owned(), Value::Text("linux".to_owned())),
        ("arch".to_owned(), Value::Text("x86_64".to_owned())),
        ("libc".to_owned(), Value::Text("glibc-2.36".to_owned())),
    ]);
    known.extend(facts.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Capability { facts: known, accepts: Acceptance::Any, slots: 1 }
}

pub fn plain() -> Capability {
    machine(&[])
}

pub fn fingerprint() -> Fingerprint {
    Fingerprint::of(&plain(), &requirement(&["os=linux"]))
}

pub fn sighting(volunteer: u8, capability: Capability, presence: Presence) -> Sighting {
    Sighting { volunteer: key(volunteer), capability, presence }
}

pub fn built(name: &str) -> Outcome {
    Outcome::Built {
        manifest: artifact(name),
        size_bytes: 7,
        smoke: Smoke::Passed,
        reproducibility: Reproducibility::Claimed,
    }
}

pub fn build_error() -> Outcome {
    Outcome::BuildError { reason: "cc exited with 1".to_owned() }
}

pub fn infrastructure() -> Outcome {
    Outcome::Infrastructure { reason: "no sandbox".to_owned() }
}

pub fn ended_built(name: &str, holding: Holding) -> Ended {
    Ended::Built { manifest: artifact(name), how: protocol::farm::explain::HowBuilt::Built, holding }
}

pub fn done(events: Vec<Event>) -> Applied {
    Applied { reply: Ok(Reply::Done), events }
}

pub fn rejected(rejection: Rejection) -> Applied {
    Applied { reply: Err(rejection), events: Vec::new() }
}

pub fn queued(job: u64, ask: &Ask) -> Event {
    Event::Queued { job: JobId(job), build_key: ask.build_key() }
}

pub fn notice(ask: &Ask, name: &str) -> NoticeId {
    Notice::id(ask.id(), &address(name))
}

pub struct Kit {
    pub farm: Farm,
    pub now: Timestamp,
    pub index: u64,
    pub log: Vec<Entry>,
}

impl Kit {
    /// A founded farm: index 1 is taken.
    pub fn new() -> Self {
        Self::with_policy(Policy::default())
    }

    pub fn with_policy(policy: Policy) -> Self {
        let mut kit = Self { farm: Farm::new(), now: START, index: 0, log: Vec::new() };
        let charter = Self::charter(policy);
        let signed = Signed::new(&charter, FarmId::of(&key(FARM)), &secret(FARM));
        let applied = kit.apply(Command::Found { charter: signed });
        assert_eq!(applied, done(vec![Event::Amended { version: 1 }]));
        kit
    }

    pub fn charter(policy: Policy) -> Charter {
        Charter {
            name: "test".parse().unwrap(),
            version: 1,
            predecessor: None,
            coordinators: BTreeSet::from([key(COORDINATOR)]),
            members: BTreeSet::from([key(MEMBER)]),
            policy,
        }
    }

    pub fn wait(&mut self, secs: u64) {
        self.now = self.now + Span::from_secs(secs).duration();
    }

    pub fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        let entry = Entry { index: self.index, now: self.now, command };
        let before = self.farm.clone();
        let applied = self.farm.apply(entry.clone());
        invariants::check_all(&self.farm).unwrap_or_else(|broken| panic!("{broken}\nafter {entry:?}"));
        invariants::check_step(&before, &self.farm).unwrap_or_else(|broken| panic!("{broken}\nafter {entry:?}"));
        if applied.reply.is_err() {
            assert!(applied.events.is_empty(), "a rejection tells nobody: {entry:?}");
            assert_eq!(self.farm.snapshot(), before.snapshot(), "a rejection changes nothing: {entry:?}");
        }
        self.log.push(entry);
        applied
    }

    /// Applies what must not be rejected.
    pub fn ok(&mut self, command: Command) -> Vec<Event> {
        let applied = self.apply(command.clone());
        assert!(applied.reply.is_ok(), "{:?} to {command:?}", applied.reply);
        applied.events
    }

    /// Submits; the job that now carries it.
    pub fn submit(&mut self, ask: &Ask) -> JobId {
        match self.apply(ask.command()).reply {
            Ok(Reply::Submitted(Submitted::Attached { job, .. })) => job,
            other => panic!("not attached: {other:?}"),
        }
    }

    pub fn grant_command(&self, job: JobId, volunteer: u8) -> Command {
        Command::Grant {
            job,
            volunteer: key(volunteer),
            capability: plain().id(),
            fingerprint: fingerprint(),
            nonce: self.index + 1,
            bounds: bounds(),
        }
    }

    pub fn grant(&mut self, job: JobId, volunteer: u8) -> LeaseId {
        match self.apply(self.grant_command(job, volunteer)).reply {
            Ok(Reply::Granted(Granted { lease, .. })) => lease,
            other => panic!("not granted: {other:?}"),
        }
    }

    pub fn report(&self, ask: &Ask, lease: LeaseId, volunteer: u8, outcome: Outcome) -> Signed {
        let report = Report {
            lease,
            build_key: ask.build_key(),
            outcome,
            fingerprint: fingerprint(),
            fetched: Span::from_millis(1),
            built: Span::from_millis(2),
            log: Some(Digest::of(b"log")),
            log_tail: "the last lines".to_owned(),
        };
        Signed::new(&report, FarmId::of(&key(FARM)), &secret(volunteer))
    }

    pub fn reports(&mut self, ask: &Ask, lease: LeaseId, volunteer: u8, outcome: Outcome) -> Applied {
        let report = self.report(ask, lease, volunteer, outcome);
        self.apply(Command::Report { report, witnesses: Witnesses::Alive })
    }

    /// A volunteer takes the job and builds this; the keeper stores it.
    pub fn build(&mut self, ask: &Ask, job: JobId, volunteer: u8, name: &str) {
        let lease = self.grant(job, volunteer);
        assert!(self.reports(ask, lease, volunteer, built(name)).reply.is_ok());
        self.ok(self.held(ask, name, COORDINATOR));
    }

    pub fn held(&self, ask: &Ask, name: &str, holder: u8) -> Command {
        Command::Held { build_key: ask.build_key(), manifest: artifact(name), holder: key(holder) }
    }

    pub fn lost(&self, ask: &Ask, holder: u8) -> Command {
        Command::Lost { build_key: ask.build_key(), holder: key(holder) }
    }

    pub fn expire(&mut self, expiry: Expiry) -> Applied {
        self.apply(Command::Expire(expiry))
    }

    pub fn due(&self) -> Vec<Expiry> {
        self.farm.expired(self.now).collect()
    }

    pub fn candidate(&self, volunteer: u8) -> Option<JobId> {
        self.farm.candidate(&key(volunteer), &plain())
    }

    pub fn ended(&self, ask: &Ask) -> Option<Ended> {
        match self.farm.explain(ask.id(), &[]) {
            protocol::farm::explain::Explanation::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    pub fn attempts(&self, ask: &Ask) -> u32 {
        self.farm.view(ask.id(), &[]).unwrap().attempts
    }
}

pub fn lease_ended(lease: LeaseId, job: JobId, volunteer: u8, end: LeaseEnd) -> Event {
    Event::LeaseEnded { lease, job, volunteer: key(volunteer), end }
}

pub fn request_ended(ask: &Ask, ended: Ended) -> Event {
    Event::Ended { request: ask.id(), ended }
}
