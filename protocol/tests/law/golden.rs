//! The bytes of every word that crosses a border or is stored: they change only on purpose.
//!
//! `golden.txt` holds a name and hexadecimal bytes a line. After a change on purpose, run this test with `GOLDEN=write` and
//! raise the protocol's version; for `farm.snapshot` that of snapshots, [`protocol::farm::SNAPSHOT_VERSION`].

use crate::kit::*;
use protocol::charter::{Charter, Policy};
use protocol::codec;
use protocol::digest::Digest;
use protocol::farm::command::{
    Command, Entry, Expiry, JobState, LawVersion, Permanence, Possession, Rejection, Submitted, Witnesses,
};
use protocol::farm::durations::Estimate;
use protocol::farm::explain::{Confirmed, Ended, Explanation, HowBuilt, PolicyEnd, Presence, RequestView, Unmet};
use protocol::gossip::{CapabilityNews, Leaving, RequestNews};
use protocol::id::{FarmId, JobId, LeaseId, ReportId};
use protocol::owner::{
    Damage, OwnersWord, Part, Place, Pruned, ReadAgain, Rest, Staying, StoreAnswer, StoreWish, StoredBuild, Wholeness,
};
use protocol::platform::{Acceptance, Capability, Constraint, Value};
use protocol::progress::{Motion, Phase, Progress, Pulse};
use protocol::report::{Holding, Judged, Limit, Outcome, Report, Reproducibility, Smoke, Verdict};
use protocol::request::{Address, Cancellation, Demand, OptionValue, Priority, Source, Subscription};
use protocol::signed::{Kind, Payload, Signed};
use protocol::ticket::{Contact, Ticket};
use protocol::time::Span;
use protocol::tree::{Entry as TreeEntry, LinkTarget, Manifest, Mode, Node, TreePath};
use protocol::wire::{
    Answer, BuildRow, Control, FarmView, HeardRequest, HeardState, Hello, LogPart, LogPosition, LogState,
    MAX_CONTROL_BYTES, MAX_ROWS, Offer, Park, QueueRow, Refusal, RequestLog, RequestRef, VolunteerView, fitting,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::num::NonZeroU8;

/// Where the fixture stands in the repository.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/law/golden.txt");

/// Reads the bytes of a word as a peer's would be read, and gives back how it is written.
pub(crate) type Reread = fn(&[u8]) -> Option<Vec<u8>>;

/// Every word, by name.
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) bytes: BTreeMap<String, Vec<u8>>,
    pub(crate) rereads: BTreeMap<String, Reread>,
}

impl Words {
    pub(crate) fn all() -> Self {
        let mut words = Self::default();
        payloads(&mut words);
        signed_words(&mut words);
        calls(&mut words);
        commands(&mut words);
        tree(&mut words);
        owners_words(&mut words);
        words.bytes.insert("farm.snapshot".to_owned(), eventful().farm.snapshot());
        words
    }

    /// One word: its bytes decode to it again.
    fn add<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, word: &T) {
        let bytes = codec::encode(word);
        assert_eq!(codec::decode::<T>(&bytes, usize::MAX).as_ref(), Ok(word), "{name}");
        assert!(self.bytes.insert(name.to_owned(), bytes).is_none(), "{name} stands twice");
        let reread: Reread = |bytes| codec::decode::<T>(bytes, usize::MAX).ok().map(|word| codec::encode(&word));
        self.rereads.insert(name.to_owned(), reread);
    }

    fn variants<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, words: &[T]) {
        for (at, word) in words.iter().enumerate() {
            self.add(&format!("{name}.{at:02}"), word);
        }
    }

    fn payload<T: Payload + PartialEq + Debug>(&mut self, name: &str, word: &T) {
        self.add(name, word);
        assert!(self.bytes[name].len() <= T::MAX_BYTES, "{name}");
    }
}

fn digest() -> Digest {
    Digest::of(b"golden")
}

fn farm() -> FarmId {
    FarmId::of(&key(FARM))
}

fn ask() -> Ask {
    Ask::by(1).requires(&["os=linux", "tool.cc>=12.2", "cores>=4"]).mail(&["me"])
}

fn capability() -> Capability {
    machine(&[
        ("cores", Value::Number(4)),
        ("header", Value::Map([("zlib".to_owned(), Value::Flag(true))].into())),
        ("sets", Value::List(["avx".to_owned()].into())),
        ("tool", Value::Map([("cc".to_owned(), Value::Version("12.2".parse().unwrap()))].into())),
    ])
}

fn report(outcome: Outcome) -> Report {
    Report {
        lease: LeaseId(7),
        build_key: ask().build_key(),
        outcome,
        fingerprint: fingerprint(),
        fetched: Span::from_millis(5),
        built: Span::from_millis(300),
        log: Some(digest()),
        log_tail: "done".to_owned(),
    }
}

fn verdict() -> Verdict {
    Verdict {
        build_key: ask().build_key(),
        manifest: artifact("lua"),
        reports: BTreeSet::from([ReportId(digest())]),
        agreed: 1,
        holding: Holding::Kept,
        decided_at: START,
    }
}

fn view() -> RequestView {
    RequestView {
        build_key: ask().build_key(),
        recipe: "lua".to_owned(),
        submitted_at: START,
        job: Some(JobId(2)),
        state: Some(JobState::Running),
        attempts: 1,
        started_at: Some(START),
        ended_at: None,
        volunteer: Some(key(10)),
        environment: Some(fingerprint()),
        log: None,
        explanation: Explanation::AwaitingSource,
        motion: Some(Motion { phase: Phase::Building, still_for: Some(Span::from_secs(240)) }),
        estimate: Some(Estimate::Within { soonest: Span::from_secs(60), latest: Span::from_secs(300), builds: 8 }),
    }
}

fn pulse() -> Pulse {
    let progress = Progress { phase: Phase::Building, fetched_bytes: 1, log_bytes: 2, cpu: Span::from_secs(3) };
    Pulse { lease: LeaseId(7), progress }
}

fn signed() -> Signed {
    ask().signed()
}

fn contact() -> Contact {
    Contact { key: key(1), addresses: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()] }
}

fn payloads(words: &mut Words) {
    words.payload("payload.charter", &Kit::charter(Policy::default()));
    words.payload("payload.request", &ask().request());
    words.payload(
        "payload.subscription",
        &Subscription { request: ask().id(), address: Some(address("me")), demand: Demand::default() },
    );
    words.payload("payload.cancellation", &Cancellation { request: ask().id(), issued_at: START });
    let reason = || "no".to_owned();
    let unclaimed = Outcome::Built {
        manifest: artifact("lua"),
        size_bytes: 1,
        smoke: Smoke::None,
        reproducibility: Reproducibility::NotClaimed,
    };
    let limits = [
        Limit::Deadline,
        Limit::Memory,
        Limit::Processes,
        Limit::Disk,
        Limit::Log,
        Limit::Quiet,
        Limit::Step(NonZeroU8::MIN),
    ];
    let outcomes = [
        built("lua"),
        unclaimed,
        Outcome::BuildError { reason: reason() },
        Outcome::Infrastructure { reason: reason() },
    ];
    let limits = limits.into_iter().map(|limit| Outcome::Limit { limit });
    for (at, outcome) in outcomes.into_iter().chain(limits).enumerate() {
        words.payload(&format!("payload.report.{at:02}"), &report(outcome));
    }
    words.payload("payload.verdict", &verdict());
    let news = CapabilityNews {
        capability: capability(),
        busy: 1,
        issued_at: START,
        ttl: Span::from_secs(1_200),
        leaving: Leaving::No,
    };
    words.payload("payload.capability-news", &news);
    let waiting = RequestNews::Waiting {
        request: ask().id(),
        build_key: ask().build_key(),
        requirement: requirement(&["os=linux"]).id(),
        origin: key(1),
        issued_at: START,
        ttl: Span::from_secs(60),
    };
    words.payload("payload.request-news.00", &waiting);
    let decided = RequestNews::Decided { build_key: ask().build_key(), issued_at: START };
    words.payload("payload.request-news.01", &decided);
    words.variants(
        "source",
        &[
            Source::Inline,
            Source::Tree(artifact("source")),
            Source::Archive { digest: digest(), size: 9, url: "https://example.org/a.tar.gz".to_owned() },
            Source::Git {
                url: "https://example.org/a.git".parse().unwrap(),
                commit: "0123456789".repeat(4).parse().unwrap(),
            },
        ],
    );
    words.variants(
        "option",
        &[
            OptionValue::Bool(true),
            OptionValue::Integer(-3),
            OptionValue::Text("x".to_owned()),
            OptionValue::List(vec!["x".to_owned(), "y".to_owned()]),
        ],
    );
    words.variants("priority", &[Priority::Urgent, Priority::Normal, Priority::Batch]);
    words.variants(
        "acceptance",
        &[Acceptance::Catalogue([recipe("lua")].into()), Acceptance::Members(BTreeSet::new()), Acceptance::Any],
    );
    words.variants(
        "constraint",
        &[Constraint::Present, Constraint::Is(Value::Flag(true)), Constraint::AtLeast(Value::Number(1))],
    );
}

fn signed_words(words: &mut Words) {
    let secret = secret(1);
    words.add("signed.charter", &Signed::new(&Kit::charter(Policy::default()), farm(), &secret));
    words.add("signed.request", &signed());
    words.add("signed.report", &Signed::new(&report(built("lua")), farm(), &secret));
    words.add("signed.verdict", &Signed::new(&verdict(), farm(), &secret));
    let judged = Judged { charter: signed(), verdict: signed(), reports: vec![signed()] };
    words.add("judged", &judged);
    let ticket = Ticket { farm: farm(), coordinators: vec![contact()], peers: vec![] };
    words.bytes.insert("ticket.text".to_owned(), ticket.to_string().into_bytes());
    let reread: Reread =
        |bytes| Some(std::str::from_utf8(bytes).ok()?.parse::<Ticket>().ok()?.to_string().into_bytes());
    words.rereads.insert("ticket.text".to_owned(), reread);
    words.bytes.insert("id.request".to_owned(), ask().id().0.as_bytes().to_vec());
    words.bytes.insert("id.build-key".to_owned(), ask().build_key().0.as_bytes().to_vec());
    words.bytes.insert("id.capability".to_owned(), capability().id().0.as_bytes().to_vec());
    words.bytes.insert("id.requirement".to_owned(), ask().request().spec.requirement.id().0.as_bytes().to_vec());
    words.bytes.insert("id.notice".to_owned(), notice(&ask(), "me").0.as_bytes().to_vec());
}

fn calls(words: &mut Words) {
    let hello = Hello {
        program: "0.1.0".to_owned(),
        protocol: 1,
        charter: Some((1, digest())),
        clock: START,
        capability: Some(capability()),
        addresses: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
    };
    let (lease, request, offset, build_key) = (LeaseId(7), ask().id(), 9, ask().build_key());
    words.variants(
        "control",
        &[
            Control::Hello(hello.clone()),
            Control::Charter,
            Control::Submit { request: signed(), subscriptions: vec![signed()] },
            Control::Cancel(signed()),
            Control::Find(build_key),
            Control::Request(RequestRef::Id(request)),
            Control::Request(RequestRef::Prefix("0123abcd".to_owned())),
            Control::Farm,
            Control::Volunteers,
            Control::Builds,
            Control::Log { request, from: LogPosition { attempt: 1, offset } },
            Control::Heartbeat { pulses: vec![pulse()] },
            Control::Refuse { lease, reason: "no".to_owned() },
            Control::HandBack { lease },
            Control::Report(signed()),
            Control::ReadLog { lease, offset },
            Control::Missing { build_key },
            Control::Evicted { build_key },
        ],
    );
    let wait = Span::from_secs(50);
    words.variants(
        "park",
        &[
            Park::Claim { nonce: 1, capability: capability(), leases: vec![lease], wait },
            Park::Watch { request, mark: 3, wait },
            Park::FollowLog { request, from: LogPosition { attempt: 2, offset }, wait },
            Park::FollowLease { lease, offset, wait },
            Park::Owner(signed()),
        ],
    );
    answers(words, hello);
}

fn answers(words: &mut Words, hello: Hello) {
    let row = QueueRow { request: ask().id(), recipe: "lua".to_owned(), priority: Priority::Normal, view: view() };
    let farm_view = FarmView {
        queued: 1,
        running: 2,
        finished: 3,
        volunteers: 4,
        mails_waiting: 5,
        mails_failed: vec!["550 no such user".to_owned()],
        queue: vec![row],
    };
    let volunteer = VolunteerView {
        volunteer: key(10),
        capability: capability(),
        presence: Presence::Busy,
        busy: 1,
        heard: Span::from_secs(2),
    };
    let build = BuildRow {
        build_key: ask().build_key(),
        recipe: "lua".to_owned(),
        manifest: artifact("lua"),
        size_bytes: 7,
        holders: 2,
        environment: fingerprint(),
        decided_at: START,
    };
    let part = |state| LogPart { offset: 0, bytes: b"cc\n".to_vec(), state };
    let log = |state| Answer::Log(Some(part(state)));
    let judged = Judged { charter: signed(), verdict: signed(), reports: vec![signed()] };
    let offer = Offer { lease: LeaseId(7), job: JobId(2), take_up_within: Span::from_secs(3), request: signed() };
    let heard = HeardRequest {
        request: ask().id(),
        build_key: ask().build_key(),
        state: HeardState::Waiting,
        heard: Span::from_secs(5),
        free: 1,
        busy: 2,
    };
    words.variants(
        "answer",
        &[
            Answer::Hello(hello),
            Answer::Charter(Some(signed())),
            Answer::Submitted {
                request: ask().id(),
                submitted: Submitted::Attached { job: JobId(2), state: JobState::AwaitingSource },
                missing: vec![digest()],
            },
            Answer::Found { judged: Some(Box::new(judged)), holders: vec![contact()] },
            Answer::Request(Some((ask().id(), Box::new(view())))),
            Answer::Heard(Some(Box::new(heard))),
            Answer::Farm(Box::new(farm_view)),
            Answer::Volunteers(vec![volunteer]),
            Answer::Builds(vec![build]),
            Answer::RequestLog(Some(RequestLog { attempt: 2, part: part(LogState::Growing) })),
            log(LogState::NotStarted),
            log(LogState::Growing),
            log(LogState::Complete),
            Answer::Revoked(vec![LeaseId(7)]),
            Answer::Offer(Some(Box::new(offer))),
            Answer::Done,
            Answer::Rejected(Rejection::TooMany),
            Answer::Refused(Refusal::NotACoordinator),
            Answer::Store(Box::new(StoreAnswer::Marked(artifact("lua")))),
        ],
    );
    words.variants(
        "refusal",
        &[
            Refusal::NotACoordinator,
            Refusal::NotTheLeader,
            Refusal::Version(2),
            Refusal::OtherFarm,
            Refusal::Invalid("x".to_owned()),
            Refusal::NotAllowed,
            Refusal::Busy,
            Refusal::ClockAhead,
            Refusal::Failed("x".to_owned()),
            Refusal::ShuttingDown,
        ],
    );
    words.variants("submitted", &[Submitted::Finished, Submitted::RememberedError, Submitted::Ended]);
    ends(words);
}

fn ends(words: &mut Words) {
    let reason = || "cc exited with 1".to_owned();
    words.variants(
        "ended",
        &[
            ended_built("lua", Holding::Kept),
            Ended::Built { manifest: artifact("lua"), how: HowBuilt::Cached, holding: Holding::SingleHolder },
            Ended::BuildError { reason: reason(), confirmed: Confirmed::Yes },
            Ended::BuildError { reason: reason(), confirmed: Confirmed::No },
            Ended::Infrastructure { reason: reason() },
            Ended::Policy(PolicyEnd::Limit(Limit::Disk)),
            Ended::Policy(PolicyEnd::Cancelled),
            Ended::Policy(PolicyEnd::Expired),
            Ended::Policy(PolicyEnd::SourceNeverArrived),
            Ended::Policy(PolicyEnd::NoAgreement),
        ],
    );
    let unmet = Unmet { key: "tool.python2".to_owned(), constraint: Constraint::Present, met_by: 0 };
    words.variants(
        "explanation",
        &[
            Explanation::Unknown,
            Explanation::Ended(Ended::Policy(PolicyEnd::Expired)),
            Explanation::AwaitingSource,
            Explanation::Running { volunteer: key(10), since: START },
            Explanation::Keeping,
            Explanation::Unmet { volunteers: 7, platform: "linux/x86_64".to_owned(), unmet: vec![unmet] },
            Explanation::Waiting { busy: 1, free: 2, gone: 3, excluded: 4, ahead: 5, confirming: Some(fingerprint()) },
        ],
    );
}

fn commands(words: &mut Words) {
    let (job, lease, volunteer, notice) = (JobId(2), LeaseId(7), key(10), notice(&ask(), "me"));
    let (build_key, manifest) = (ask().build_key(), artifact("lua"));
    let reason = || "no".to_owned();
    let failed = |permanence| Command::NoticeFailed { notice, permanence, reason: reason() };
    let report = |witnesses| Command::Report { report: signed(), witnesses };
    let commands = vec![
        Command::Found { charter: signed() },
        ask().command(),
        ask().awaited().command(),
        Command::Cancel { request: ask().id(), by: key(1) },
        Command::SourceHeld { job },
        Command::Grant {
            job,
            volunteer,
            capability: plain().id(),
            fingerprint: fingerprint(),
            nonce: 4,
            bounds: bounds(),
        },
        Command::Refuse { lease, volunteer, reason: reason() },
        Command::HandBack { lease, volunteer },
        report(Witnesses::Alive),
        report(Witnesses::Nobody),
        Command::Held { build_key, manifest, holder: volunteer },
        Command::Lost { build_key, holder: volunteer },
        Command::Expire(Expiry::Undelivered(lease)),
        Command::Expire(Expiry::VolunteerLost(lease)),
        Command::Expire(Expiry::Stuck(lease)),
        Command::Expire(Expiry::Overdue(lease)),
        Command::Expire(Expiry::Request(ask().id())),
        Command::Expire(Expiry::Source(job)),
        Command::Expire(Expiry::Confirmation(job)),
        Command::Expire(Expiry::Keeping(job)),
        Command::Expire(Expiry::Exclusion(job)),
        Command::NoticeAttempt { notice },
        Command::NoticeSent { notice },
        failed(Permanence::Transient),
        failed(Permanence::Permanent),
        Command::Amend { charter: signed() },
        Command::Prune,
        Command::RaiseLaw { version: LawVersion(2) },
    ];
    let entries: Vec<_> =
        commands.into_iter().zip(1..).map(|(command, index)| Entry { index, now: START, command }).collect();
    words.variants("entry", &entries);
    assert_eq!(Possession::Held, ask().source);
}

fn tree(words: &mut Words) {
    let path = |text: &str| TreePath::try_from(text.to_owned()).unwrap();
    let target = LinkTarget::new(&path("bin/link"), "tool").unwrap();
    let entries = vec![
        TreeEntry { path: path("bin/link"), node: Node::Link { target } },
        TreeEntry {
            path: path("bin/tool"),
            node: Node::File { mode: Mode::Executable, size: 6, chunks: vec![digest()] },
        },
        TreeEntry { path: path("empty"), node: Node::Folder },
        TreeEntry { path: path("readme"), node: Node::File { mode: Mode::Plain, size: 0, chunks: vec![] } },
    ];
    let manifest = Manifest::new(entries).unwrap();
    words.bytes.insert("manifest".to_owned(), manifest.encode());
    words.rereads.insert("manifest".to_owned(), |bytes| Manifest::decode(bytes).ok().map(|manifest| manifest.encode()));
}

fn owners_words(words: &mut Words) {
    let named = || "0123abcd".to_owned();
    let wishes = [
        StoreWish::List { skip: 1 },
        StoreWish::Verify { after: Some(digest()) },
        StoreWish::Prune,
        StoreWish::Pin { named: named() },
        StoreWish::Unpin { named: named() },
    ];
    for (at, wish) in wishes.into_iter().enumerate() {
        words.payload(&format!("payload.owner.{at:02}"), &OwnersWord { caller: key(2), wish });
    }
    let build = |staying, wholeness| StoredBuild {
        build_key: ask().build_key(),
        manifest: artifact("lua"),
        recipe: "lua".to_owned(),
        size_bytes: 7,
        staying,
        wholeness,
    };
    let place = |part| Place {
        manifest: artifact("lua"),
        build_key: Some(ask().build_key()),
        recipe: Some("lua".to_owned()),
        part,
    };
    let places = vec![place(Part::File("bin/lua".to_owned())), place(Part::Manifest), place(Part::Log)];
    let damaged = vec![Damage { digest: digest(), places }];
    let pruned = |rest| StoreAnswer::Pruned(Pruned { artifacts: 1, freed_bytes: 2, unheard: 3, rest });
    words.variants(
        "store",
        &[
            StoreAnswer::Listed {
                builds: vec![
                    build(Staying::Pinned, Wholeness::Whole),
                    build(Staying::Needed, Wholeness::Partial),
                    build(Staying::Evictable, Wholeness::Whole),
                ],
                total: 4,
            },
            StoreAnswer::Read(ReadAgain { bytes: 9, damaged, next: Some(digest()) }),
            pruned(Rest::Some),
            pruned(Rest::Nothing),
            StoreAnswer::Marked(artifact("lua")),
            StoreAnswer::Named(2),
        ],
    );
}

/// A farm in which everything has happened that leaves something behind.
fn eventful() -> Kit {
    let mut kit = Kit::new();
    let lua = |option| Ask::by(1).option(option).mail(&["me"]);
    let finished = lua(0);
    let job = kit.submit(&finished);
    kit.build(&finished, job, 10, "lua");
    let put_off = notice(&finished, "me");
    kit.ok(Command::NoticeAttempt { notice: put_off });
    kit.ok(Command::NoticeFailed {
        notice: put_off,
        permanence: Permanence::Transient,
        reason: "451 later".to_owned(),
    });

    let wrong = lua(1);
    let job = kit.submit(&wrong);
    for volunteer in [10, 11] {
        let lease = kit.grant(job, volunteer);
        kit.reports(&wrong, lease, volunteer, build_error());
    }
    let refused = notice(&wrong, "me");
    kit.ok(Command::NoticeAttempt { notice: refused });
    kit.ok(Command::NoticeFailed { notice: refused, permanence: Permanence::Permanent, reason: "550 no".to_owned() });
    let doubtful = lua(2);
    let job = kit.submit(&doubtful);
    let lease = kit.grant(job, 10);
    kit.reports(&doubtful, lease, 10, build_error());

    let twice = lua(3).agree(2);
    let job = kit.submit(&twice);
    let lease = kit.grant(job, 10);
    kit.reports(&twice, lease, 10, built("lua"));

    let unkept = lua(4);
    let job = kit.submit(&unkept);
    let lease = kit.grant(job, 10);
    kit.reports(&unkept, lease, 10, built("lua"));

    let handed_on = lua(5);
    let job = kit.submit(&handed_on);
    let lease = kit.grant(job, 10);
    kit.reports(&handed_on, lease, 10, infrastructure());
    let lease = kit.grant(job, 11);
    kit.ok(Command::Refuse { lease, volunteer: key(11), reason: "no".to_owned() });
    kit.grant(job, 12);

    let cancelled = lua(6);
    kit.submit(&cancelled);
    kit.ok(Command::Cancel { request: cancelled.id(), by: key(1) });
    kit.submit(&lua(7).awaited());
    kit.submit(&lua(8).requires(&["os=linux", "tool.frobnicator"]).priority(Priority::Batch));
    kit.submit(&Ask { by: 2, ..lua(8) });
    kit
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_every_word_are_as_they_were() {
    let words = Words::all();
    let now: String = words.bytes.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(FIXTURE, &now).unwrap();
    }
    let then = std::fs::read_to_string(FIXTURE).unwrap();
    let changed: Vec<_> = now.lines().filter(|line| !then.lines().any(|known| known == *line)).collect();
    let gone: Vec<_> = then.lines().filter(|line| !now.lines().any(|known| known == *line)).collect();
    assert!(changed.is_empty() && gone.is_empty(), "changed or new: {changed:#?}\ngone: {gone:#?}");
}

#[test]
fn the_signed_message_is_as_it_is_written_down() {
    let charter = Kit::charter(Policy::default());
    let envelopes = [
        (1, Signed::new(&charter, farm(), &secret(1))),
        (2, signed()),
        (
            3,
            Signed::new(
                &Subscription { request: ask().id(), address: None, demand: Demand::default() },
                farm(),
                &secret(1),
            ),
        ),
        (4, Signed::new(&Cancellation { request: ask().id(), issued_at: START }, farm(), &secret(1))),
        (5, Signed::new(&report(built("lua")), farm(), &secret(1))),
        (6, Signed::new(&verdict(), farm(), &secret(1))),
        (8, Signed::new(&RequestNews::Decided { build_key: ask().build_key(), issued_at: START }, farm(), &secret(1))),
    ];
    let kinds = [
        Kind::Charter,
        Kind::Request,
        Kind::Subscription,
        Kind::Cancellation,
        Kind::Report,
        Kind::Verdict,
        Kind::RequestNews,
    ];
    assert_eq!(envelopes.iter().map(|(_, signed)| signed.kind).collect::<Vec<_>>(), kinds);
    for (kind, signed) in envelopes {
        let mut message = b"barnraise/1".to_vec();
        message.push(kind);
        message.extend_from_slice(farm().0.as_bytes());
        message.extend_from_slice(&(signed.payload.len() as u64).to_be_bytes());
        message.extend_from_slice(&signed.payload);
        let bytes = codec::encode(&signed.signature);
        let signature = ed25519_dalek::Signature::from_slice(&bytes[2..]).unwrap();
        let verifier = ed25519_dalek::VerifyingKey::from_bytes(signed.key.as_bytes()).unwrap();
        verifier.verify_strict(&message, &signature).unwrap();
        let id = [&[kind], farm().0.as_bytes().as_slice(), &signed.payload].concat();
        assert_eq!(signed.id(), Digest::of(&id), "ids digest kind, farm and payload");
    }
}

#[test]
fn the_largest_words_fit_their_limits() {
    let address: Address =
        format!("{}@{}", "x".repeat(64), ["y".repeat(63), "z".repeat(63)].join(".")).parse().unwrap();
    let subscription = Subscription { request: ask().id(), address: Some(address), demand: Demand::default() };
    assert!(codec::encode(&subscription).len() <= Subscription::MAX_BYTES);
    let names =
        |from: u8, count: usize| (0..count).map(|at| key(from.wrapping_add(u8::try_from(at).unwrap()))).collect();
    let charter = Charter {
        coordinators: names(0, protocol::charter::MAX_COORDINATORS),
        members: names(100, protocol::charter::MAX_MEMBERS),
        ..Kit::charter(Policy::default())
    };
    assert!(codec::encode(&charter).len() <= Charter::MAX_BYTES);
    let verdict = Verdict { reports: (0..16u8).map(|at| ReportId(Digest::of(&[at]))).collect(), ..verdict() };
    assert!(codec::encode(&verdict).len() <= Verdict::MAX_BYTES);
}

#[test]
fn rows_are_as_many_as_an_answer_holds() {
    let long = "x".repeat(1_000);
    let rows = fitting((0..1_000).map(|_| long.clone()));
    let answer = protocol::codec::encode(&rows).len();
    assert!((MAX_CONTROL_BYTES - 2_100..MAX_CONTROL_BYTES).contains(&answer), "{answer} bytes");
    assert_eq!(fitting(0..1_000_u32).len(), MAX_ROWS);
}
