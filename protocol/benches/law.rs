//! How fast the law is, and how much memory it takes: one core, no disk, no network.
//!
//! Times are processor time of the one thread, so that neighbours on a shared machine do not count.
//! `cargo bench -p protocol` prints, for a farm with 1,000,000 queued jobs of 200 distinct requirements and 10,000
//! volunteers: submissions and claims (candidate and grant) per second, what a claim costs there against a farm with 10,000
//! jobs, and the resident memory per queued job, allocator and indices included. Whether signatures hold is the proposer's
//! part and not measured here, so all requests carry one signature.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use protocol::charter::{Charter, Policy};
use protocol::digest::Digest;
use protocol::farm::Farm;
use protocol::farm::command::{Command, Entry, Possession};
use protocol::farm::lease::Bounds;
use protocol::id::{CapabilityId, FarmId, PeerKey, RecipeId, RequestId};
use protocol::platform::{Acceptance, Capability, Constraint, Requirement, Value};
use protocol::recipe::Limits;
use protocol::report::Fingerprint;
use protocol::request::{BuildSpec, Conditions, Demand, OptionValue, Priority, Request, Source, Subscription};
use protocol::signed::{SecretKey, Signed};
use protocol::time::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const JOBS: u32 = 1_000_000;
const FEW_JOBS: u32 = 10_000;
const REQUIREMENTS: u32 = 200;
const VOLUNTEERS: u32 = 10_000;
const REQUESTERS: u32 = 5_000;
const CLAIMS: u32 = 100_000;
const BATCH: u32 = 10_000;
const BLOCK: u32 = 500;
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn digest(of: &str, at: u32) -> Digest {
    Digest::of(format!("{of} {at}").as_bytes())
}

fn peer(of: &str, at: u32) -> PeerKey {
    PeerKey::from_bytes(*digest(of, at).as_bytes())
}

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

fn arch(at: u32) -> Value {
    text(if at.is_multiple_of(2) { "x86_64" } else { "aarch64" })
}

/// Two platforms, twenty tools, five sizes.
fn requirement(at: u32) -> Requirement {
    let mut requirement = Requirement::none();
    requirement.add("os", Constraint::Is(text("linux")));
    requirement.add("arch", Constraint::Is(arch(at)));
    requirement.add(format!("tool.t{}", at / 2 % 20), Constraint::Present);
    requirement.add("cores", Constraint::AtLeast(Value::Number(u64::from(at / 40 % 5))));
    requirement
}

/// Every volunteer has a quarter of the tools; half of them build the catalogue only, half of them anything.
fn capability(at: u32) -> Capability {
    let version = || Value::Version("12.2.0".parse().unwrap());
    let tools = (0..20).filter(|tool| (tool + at / 2).is_multiple_of(4)).map(|tool| (format!("t{tool}"), version()));
    let facts = [
        ("os", text("linux")),
        ("arch", arch(at)),
        ("libc", text("glibc-2.36")),
        ("distribution", text("debian-12")),
        ("cores", Value::Number(u64::from(at / 8 % 8))),
        ("memory_mib", Value::Number(4_096)),
        ("tool", Value::Map(tools.collect())),
    ];
    let accepts = if at.is_multiple_of(3) {
        Acceptance::Any
    } else {
        Acceptance::Catalogue((0..4).map(|at| RecipeId(digest("recipe", at))).collect())
    };
    Capability { facts: facts.into_iter().map(|(key, fact)| (key.to_owned(), fact)).collect(), accepts, slots: 2 }
}

struct Bench {
    farm: Farm,
    index: u64,
    template: Signed,
    requirements: Vec<Requirement>,
}

impl Bench {
    fn new() -> Self {
        let secret = SecretKey::from_seed(&[1; 32]);
        let id = FarmId::of(&secret.public());
        let charter = Charter {
            name: "bench".parse().unwrap(),
            version: 1,
            predecessor: None,
            coordinators: BTreeSet::from([secret.public()]),
            members: BTreeSet::new(),
            policy: Policy::default(),
        };
        let template = Signed::new(&charter, id, &secret);
        let requirements = (0..REQUIREMENTS).map(requirement).collect();
        let mut bench = Self { farm: Farm::new(), index: 0, template: template.clone(), requirements };
        bench.apply(Command::Found { charter: template });
        bench
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let applied = self.farm.apply(Entry { index: self.index, now: START, command });
        assert!(applied.reply.is_ok(), "{applied:?}");
    }

    fn submission(&self, at: u32) -> Command {
        let requester = at % REQUESTERS;
        // Ten requirements a requester, and a recipe of four.
        let requirement = (requester * 7 + at / REQUESTERS % 10 * 20) % REQUIREMENTS;
        let request = Request {
            recipe: "lua".parse().unwrap(),
            spec: BuildSpec {
                recipe: RecipeId(digest("recipe", requirement % 4)),
                source: Source::Tree(protocol::id::ManifestId(digest("source", at))),
                options: BTreeMap::from([("opt".parse().unwrap(), OptionValue::Integer(i64::from(at % 4)))]),
                requirement: self.requirements[requirement as usize].clone(),
                conditions: Conditions::Usual,
            },
            effort: BTreeMap::new(),
            priority: Priority::Normal,
            nonce: digest("nonce", at).as_bytes()[..16].try_into().unwrap(),
            issued_at: START,
            ttl: Span::from_secs(7 * 86_400),
        };
        let key = peer("requester", requester);
        let payload = protocol::codec::encode(&request).into_boxed_slice();
        let signed = Signed { kind: protocol::signed::Kind::Request, payload, key, ..self.template.clone() };
        // Every second one is to be told by mail.
        let address = at.is_multiple_of(2).then(|| format!("person{requester}@example.org").parse().unwrap());
        let subscription = Subscription { request: RequestId(signed.id()), address, demand: Demand::default() };
        Command::Submit { request: signed, subscriptions: vec![subscription], source: Possession::Held }
    }

    /// Submits `jobs` requests; the time it took, and the time of the last tenth.
    fn fill(&mut self, jobs: u32) -> (Duration, Duration) {
        let (mut all, mut last_tenth) = (Duration::ZERO, Duration::ZERO);
        for from in (0..jobs).step_by(BATCH.min(jobs) as usize) {
            let batch: Vec<_> = (from..from + BATCH.min(jobs)).map(|at| self.submission(at)).collect();
            let start = worked();
            for command in batch {
                self.apply(command);
            }
            let took = worked() - start;
            all += took;
            if from >= jobs - jobs / 10 {
                last_tenth += took;
            }
        }
        assert_eq!(self.farm.counts().queued, u64::from(jobs));
        (all, last_tenth)
    }

    /// Claims by volunteers in turn, each a candidate and a grant; what each block of them cost.
    fn claim(&mut self, claims: u32, volunteers: &[Volunteer]) -> Claims {
        let (mut blocks, mut served) = (Vec::new(), 0);
        for from in (0..claims).step_by(BLOCK as usize) {
            let prepared: Vec<_> = (from..from + BLOCK)
                .map(|at| {
                    let volunteer = &volunteers[(at % VOLUNTEERS) as usize];
                    (at, volunteer, Fingerprint::of(&volunteer.capability, &self.requirements[0]))
                })
                .collect();
            let start = worked();
            for (at, volunteer, fingerprint) in prepared {
                let Some(job) = self.farm.candidate(&volunteer.key, &volunteer.capability) else { continue };
                let Volunteer { key: volunteer, id: capability, .. } = *volunteer;
                self.apply(Command::Grant {
                    job,
                    volunteer,
                    capability,
                    fingerprint,
                    nonce: u64::from(at),
                    bounds: Bounds::of(&Limits::default()),
                });
                served += 1;
            }
            blocks.push((worked() - start) / BLOCK);
        }
        Claims { served, blocks }
    }
}

struct Volunteer {
    key: PeerKey,
    capability: Capability,
    id: CapabilityId,
}

struct Claims {
    served: u32,
    /// What one claim cost, block by block.
    blocks: Vec<Duration>,
}

impl Claims {
    fn mean(&self) -> Duration {
        self.blocks.iter().sum::<Duration>() / u32::try_from(self.blocks.len()).unwrap()
    }

    fn median(&self) -> Duration {
        let mut blocks = self.blocks.clone();
        blocks.sort_unstable();
        blocks[blocks.len() / 2]
    }
}

/// Processor time of this thread so far.
fn worked() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

/// Resident memory of this process in bytes, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

fn per_second(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}

fn main() {
    if !std::env::args().skip(1).all(|word| word.starts_with('-') || "law".contains(word.as_str())) {
        return;
    }
    let volunteers: Vec<_> = (0..VOLUNTEERS)
        .map(|at| {
            let capability = capability(at);
            Volunteer { key: peer("volunteer", at), id: capability.id(), capability }
        })
        .collect();
    let kinds: BTreeSet<_> = volunteers.iter().map(|volunteer| volunteer.id).collect();

    let mut few = Bench::new();
    few.fill(FEW_JOBS);
    let few_claims = few.claim(FEW_JOBS / 2, &volunteers);
    drop(few);

    let mut many = Bench::new();
    let before = resident_bytes();
    let (all, last_tenth) = many.fill(JOBS);
    let after = resident_bytes();
    let start = worked();
    let snapshot = many.farm.snapshot();
    let written = worked() - start;
    let start = worked();
    let restored = Farm::restore(&snapshot[..]).unwrap();
    let read = worked() - start;
    assert_eq!(restored.counts(), many.farm.counts());
    drop(restored);
    let claims = many.claim(CLAIMS, &volunteers);
    let first = Claims { served: 0, blocks: claims.blocks[..few_claims.blocks.len()].to_vec() };

    println!("{JOBS} jobs, {REQUIREMENTS} requirements, {VOLUNTEERS} volunteers of {} capabilities", kinds.len());
    println!(
        "submit            {:>9.0}/s   last tenth {:>9.0}/s",
        per_second(JOBS, all),
        per_second(JOBS / 10, last_tenth)
    );
    println!("claim             {:>9.0}/s   {} of {CLAIMS} served", 1.0 / claims.mean().as_secs_f64(), claims.served);
    println!("  at {JOBS:>9}    mean {:?}, median {:?}", first.mean(), first.median());
    println!("  at {FEW_JOBS:>9}    mean {:?}, median {:?}", few_claims.mean(), few_claims.median());
    println!("  ratio           {:.2}", first.median().as_secs_f64() / few_claims.median().as_secs_f64());
    println!("snapshot          {} bytes, written in {written:.1?}, read in {read:.1?}", snapshot.len());
    match (before, after) {
        (Some(before), Some(after)) => {
            println!("memory            {} bytes per queued job", after.saturating_sub(before) / u64::from(JOBS));
        }
        _ => println!("memory            not measured: this system does not tell"),
    }
}
