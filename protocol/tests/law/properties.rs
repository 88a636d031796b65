//! Any commands in any order: every invariant after each (the kit sees to it), the same farm from the same entries, and in
//! the end nobody who waits is forgotten.

use crate::kit::*;
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::farm::Farm;
use protocol::farm::command::{Command, Entry, Expiry, JobState, Permanence, Possession, Reply, Submitted, Witnesses};
use protocol::farm::explain::Explanation;
use protocol::id::{JobId, LeaseId};
use protocol::platform::{Acceptance, Capability, Value};
use protocol::report::{Limit, Outcome};
use protocol::request::{Freshness, Priority};
use protocol::signed::Signed;
use protocol::time::Span;

#[derive(Clone, Debug)]
enum Act {
    Submit {
        by: u8,
        option: i64,
        nonce: u8,
        agree: u8,
        fresh: bool,
        urgent: bool,
        mail: u8,
        awaited: bool,
        brief: bool,
    },
    Cancel(Index),
    SourceHeld(Index),
    Claim(u8),
    Grant(Index, u8),
    Refuse(Index),
    HandBack(Index),
    Report {
        lease: Index,
        outcome: u8,
        artifact: u8,
        alone: bool,
    },
    ReportOf {
        ask: Index,
        lease: Index,
        volunteer: u8,
    },
    Held {
        ask: Index,
        artifact: u8,
        holder: u8,
    },
    Lost {
        ask: Index,
        holder: u8,
    },
    ExpireDue,
    Expire {
        kind: u8,
        at: Index,
    },
    Notice {
        kind: u8,
        at: Index,
    },
    Prune,
    Wait(u64),
    Amend(bool),
    Again(Index),
}

fn act() -> impl Strategy<Value = Act> {
    let submit = (1..4u8, 0..3i64, 0..3u8, 1..4u8, any::<(bool, bool, bool, bool)>(), 0..8u8).prop_map(
        |(by, option, nonce, agree, (fresh, urgent, awaited, brief), mail)| Act::Submit {
            by,
            option,
            nonce,
            agree,
            fresh,
            urgent,
            mail,
            awaited,
            brief,
        },
    );
    let report = (any::<Index>(), 0..6u8, 0..2u8, any::<bool>())
        .prop_map(|(lease, outcome, artifact, alone)| Act::Report { lease, outcome, artifact, alone });
    prop_oneof![
        6 => submit,
        1 => any::<Index>().prop_map(Act::Cancel),
        1 => any::<Index>().prop_map(Act::SourceHeld),
        6 => (10..16u8).prop_map(Act::Claim),
        1 => (any::<Index>(), 10..16u8).prop_map(|(job, by)| Act::Grant(job, by)),
        1 => any::<Index>().prop_map(Act::Refuse),
        1 => any::<Index>().prop_map(Act::HandBack),
        6 => report,
        1 => (any::<Index>(), any::<Index>(), 10..16u8).prop_map(|(ask, lease, volunteer)| Act::ReportOf { ask, lease, volunteer }),
        3 => (any::<Index>(), 0..2u8, 10..18u8).prop_map(|(ask, artifact, holder)| Act::Held { ask, artifact, holder }),
        2 => (any::<Index>(), 10..18u8).prop_map(|(ask, holder)| Act::Lost { ask, holder }),
        3 => Just(Act::ExpireDue),
        2 => (0..7u8, any::<Index>()).prop_map(|(kind, at)| Act::Expire { kind, at }),
        2 => (0..4u8, any::<Index>()).prop_map(|(kind, at)| Act::Notice { kind, at }),
        1 => Just(Act::Prune),
        3 => prop_oneof![1..70u64, 600..4_000u64].prop_map(Act::Wait),
        1 => any::<bool>().prop_map(Act::Amend),
        1 => any::<Index>().prop_map(Act::Again),
    ]
}

struct Play {
    kit: Kit,
    asks: Vec<Ask>,
    jobs: Vec<JobId>,
    leases: Vec<(LeaseId, u8, Ask)>,
}

fn pick<'a, T>(from: &'a [T], at: &Index) -> Option<&'a T> {
    (!from.is_empty()).then(|| at.get(from))
}

fn outcome(kind: u8, artifact: u8) -> Outcome {
    match kind {
        0..=2 => built(["lua", "other"][usize::from(artifact)]),
        3 => build_error(),
        4 => infrastructure(),
        _ => Outcome::Limit { limit: Limit::Memory },
    }
}

/// What a volunteer of these tests can do and accepts; those that work off can do everything.
fn able(volunteer: u8) -> Capability {
    let cores = if volunteer.is_multiple_of(2) || volunteer >= 30 { 8 } else { 2 };
    let only = |name| [recipe(name)].into();
    let accepts = match volunteer {
        10 | 11 => Acceptance::Catalogue(only("lua")),
        12 => Acceptance::Members(only("zstd")),
        _ => Acceptance::Any,
    };
    Capability { accepts, ..machine(&[("cores", Value::Number(cores))]) }
}

impl Play {
    fn new() -> Self {
        Self { kit: Kit::new(), asks: Vec::new(), jobs: Vec::new(), leases: Vec::new() }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit { by, option, nonce, agree, fresh, urgent, mail, awaited, brief } => {
                let names = ["a", "b", "c"];
                let mail = names.into_iter().enumerate().filter(|(at, _)| mail >> at & 1 == 1).map(|(_, name)| name);
                let ask = Ask {
                    mail: mail.collect(),
                    agree,
                    freshness: if fresh { Freshness::Fresh } else { Freshness::Any },
                    priority: if urgent { Priority::Urgent } else { Priority::Normal },
                    source: if awaited { Possession::Awaited } else { Possession::Held },
                    ttl: Span::from_secs(if brief { 900 } else { 7 * 86_400 }),
                    issued_at: if brief { self.kit.now } else { START },
                    ..Ask::by(if by == 3 { MEMBER } else { by }).option(option).nonce(nonce)
                };
                let ask = match option {
                    0 => ask,
                    1 => ask.requires(&["os=linux", "cores>=4"]),
                    _ => ask.recipe("zstd"),
                };
                if let Ok(Reply::Submitted(Submitted::Attached { job, .. })) = self.kit.apply(ask.command()).reply {
                    self.jobs.push(job);
                }
                self.asks.push(ask);
            }
            Act::Cancel(at) => {
                let Some(ask) = pick(&self.asks, &at).cloned() else { return };
                self.kit.apply(Command::Cancel { request: ask.id(), by: key(ask.by) });
            }
            Act::SourceHeld(at) => {
                let Some(job) = pick(&self.jobs, &at).copied() else { return };
                self.kit.apply(Command::SourceHeld { job });
            }
            Act::Claim(volunteer) => {
                let candidate = self.kit.farm.candidate(&key(volunteer), &able(volunteer));
                assert_eq!(candidate, self.first_in_queue(volunteer), "the queue is only a faster way to look");
                let Some(job) = candidate else { return };
                assert!(self.grant(job, volunteer), "a candidate is grantable");
            }
            Act::Grant(at, volunteer) => {
                let Some(job) = pick(&self.jobs, &at).copied() else { return };
                self.grant(job, volunteer);
            }
            Act::Refuse(at) => {
                let Some((lease, volunteer, _)) = pick(&self.leases, &at).cloned() else { return };
                let reason = "no".to_owned();
                self.kit.apply(Command::Refuse { lease, volunteer: key(volunteer), reason });
            }
            Act::HandBack(at) => {
                let Some((lease, volunteer, _)) = pick(&self.leases, &at).cloned() else { return };
                self.kit.apply(Command::HandBack { lease, volunteer: key(volunteer) });
            }
            Act::Report { lease, outcome: kind, artifact, alone } => {
                let Some((lease, volunteer, ask)) = pick(&self.leases, &lease).cloned() else { return };
                let report = self.kit.report(&ask, lease, volunteer, outcome(kind, artifact));
                let witnesses = if alone { Witnesses::Nobody } else { Witnesses::Alive };
                self.kit.apply(Command::Report { report, witnesses });
            }
            Act::ReportOf { ask, lease, volunteer } => {
                let Some((lease, ..)) = pick(&self.leases, &lease).cloned() else { return };
                let Some(ask) = pick(&self.asks, &ask).cloned() else { return };
                self.kit.reports(&ask, lease, volunteer, built("forged"));
            }
            Act::Held { ask, artifact, holder } => {
                let Some(ask) = pick(&self.asks, &ask).cloned() else { return };
                let name = ["lua", "other"][usize::from(artifact)];
                self.kit.apply(self.kit.held(&ask, name, if holder == 17 { COORDINATOR } else { holder }));
            }
            Act::Lost { ask, holder } => {
                let Some(ask) = pick(&self.asks, &ask).cloned() else { return };
                self.kit.apply(self.kit.lost(&ask, if holder == 17 { COORDINATOR } else { holder }));
            }
            Act::ExpireDue => {
                for expiry in self.kit.due() {
                    // What is due may have been settled by the one before it.
                    self.kit.expire(expiry);
                }
            }
            Act::Expire { kind, at } => self.expire(kind, &at),
            Act::Notice { kind, at } => self.notice(kind, &at),
            Act::Prune => {
                self.kit.ok(Command::Prune);
            }
            Act::Wait(secs) => self.kit.wait(secs),
            Act::Amend(member) => {
                let (charter, signed) = self.kit.farm.charter().unwrap();
                let mut next = charter.clone();
                next.version += 1;
                next.predecessor = Some(signed.id());
                next.members = if member { [key(1), key(MEMBER)].into() } else { [key(2)].into() };
                let charter = Signed::new(&next, self.kit.farm.id().unwrap(), &secret(FARM));
                self.kit.ok(Command::Amend { charter });
            }
            Act::Again(at) => {
                let Some(entry) = pick(&self.kit.log, &at).cloned() else { return };
                self.kit.apply(entry.command);
            }
        }
    }

    fn grant(&mut self, job: JobId, volunteer: u8) -> bool {
        let Some(view) = self.kit.farm.job(job) else { return false };
        let build_key = view.build_key;
        let Some(ask) = self.asks.iter().find(|ask| ask.build_key() == build_key).cloned() else { return false };
        let grant = Command::Grant {
            job,
            volunteer: key(volunteer),
            capability: able(volunteer).id(),
            fingerprint: fingerprint(),
            nonce: self.kit.index + 1,
            bounds: bounds(),
        };
        match self.kit.apply(grant).reply {
            Ok(Reply::Granted(granted)) => {
                self.leases.push((granted.lease, volunteer, ask));
                true
            }
            _ => false,
        }
    }

    /// The first queued job that this volunteer may attempt, found by looking at all of them.
    fn first_in_queue(&self, volunteer: u8) -> Option<JobId> {
        let rows = self.kit.farm.queue_rows(usize::MAX, &[]);
        let queued = rows.iter().filter(|row| row.view.state == Some(JobState::Queued));
        let queued = queued.filter_map(|row| row.view.job);
        let mut queued = queued.filter(|job| self.kit.farm.may_attempt(&key(volunteer), &able(volunteer), *job));
        queued.next()
    }

    fn expire(&mut self, kind: u8, at: &Index) {
        let job = pick(&self.jobs, at).copied();
        let lease = pick(&self.leases, at).map(|(lease, ..)| *lease);
        let expiry = match kind {
            0 => lease.map(Expiry::Undelivered),
            1 => lease.map(Expiry::VolunteerLost),
            2 => pick(&self.asks, at).map(|ask| Expiry::Request(ask.id())),
            3 => job.map(Expiry::Source),
            4 => job.map(Expiry::Confirmation),
            5 => job.map(Expiry::Keeping),
            _ => job.map(Expiry::Exclusion),
        };
        if let Some(expiry) = expiry {
            self.kit.expire(expiry);
        }
    }

    fn notice(&mut self, kind: u8, at: &Index) {
        let pending: Vec<_> = self.kit.farm.pending_notices().map(|notice| notice.id).collect();
        let Some(notice) = pick(&pending, at).copied() else { return };
        let failed = |permanence| Command::NoticeFailed { notice, permanence, reason: "no".to_owned() };
        self.kit.ok(match kind {
            0 => Command::NoticeAttempt { notice },
            1 => Command::NoticeSent { notice },
            2 => failed(Permanence::Transient),
            _ => failed(Permanence::Permanent),
        });
    }

    /// Honest volunteers, one after another, until nothing is left to do.
    fn work_off(&mut self) {
        for volunteer in 30..130 {
            let counts = self.kit.farm.counts();
            if counts.queued + counts.running == 0 {
                return;
            }
            let leases: Vec<_> = self.kit.farm.leases().map(|lease| lease.id).collect();
            for lease in leases {
                self.kit.ok(Command::Expire(Expiry::VolunteerLost(lease)));
            }
            let awaiting =
                |job: &&JobId| self.kit.farm.job(**job).is_some_and(|job| job.state == JobState::AwaitingSource);
            let awaiting: Vec<_> = self.jobs.iter().filter(awaiting).copied().collect();
            for job in awaiting {
                self.kit.ok(Command::SourceHeld { job });
            }
            while let Some(job) = self.kit.farm.candidate(&key(volunteer), &able(volunteer)) {
                assert!(self.grant(job, volunteer));
                let (lease, _, ask) = self.leases.last().cloned().unwrap();
                assert!(self.kit.reports(&ask, lease, volunteer, built("lua")).reply.is_ok());
            }
            self.kit.wait(60);
            for expiry in self.kit.due() {
                self.kit.expire(expiry);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nobody_is_forgotten(acts in prop::collection::vec(act(), 1..80), cut in any::<Index>()) {
        let mut play = Play::new();
        for act in acts {
            play.act(act);
        }
        let log = play.kit.log.clone();
        let replay = |farm: &mut Farm, entries: &[Entry]| for entry in entries { farm.apply(entry.clone()); };

        let mut again = Farm::new();
        replay(&mut again, &log);
        prop_assert_eq!(again.snapshot(), play.kit.farm.snapshot(), "the same entries give the same farm");

        let cut = cut.index(log.len() + 1);
        let mut early = Farm::new();
        replay(&mut early, &log[..cut]);
        let mut restored = Farm::restore(&early.snapshot()[..]).unwrap();
        prop_assert_eq!(restored.snapshot(), early.snapshot(), "a snapshot is the whole farm");
        replay(&mut restored, &log[cut..]);
        prop_assert_eq!(restored.snapshot(), play.kit.farm.snapshot(), "and goes on like it");

        play.work_off();
        for ask in &play.asks {
            let explanation = play.kit.farm.explain(ask.id(), &[]);
            prop_assert!(
                matches!(explanation, Explanation::Ended(_) | Explanation::Unknown),
                "{:?} still waits: {:?}", ask.id(), explanation
            );
        }
        let counts = play.kit.farm.counts();
        prop_assert_eq!((counts.queued, counts.running), (0, 0));
    }
}

#[test]
fn a_damaged_or_foreign_snapshot_is_refused() {
    use protocol::farm::SnapshotError;
    let snapshot = Kit::new().farm.snapshot();
    assert!(Farm::restore(&snapshot[..]).is_ok());
    assert!(matches!(Farm::restore(&snapshot[..snapshot.len() - 1]), Err(SnapshotError::Damaged(_))));
    let mut newer = snapshot;
    newer[1] = 2;
    assert_eq!(Farm::restore(&newer[..]).unwrap_err(), SnapshotError::Version(Some(2)));
    assert_eq!(Farm::restore(&b""[..]).unwrap_err(), SnapshotError::Version(None));
}
