//! A peer that provides a real build key with a binary of its own.
//!
//! It is a good neighbour in everything else: it joins with the ticket, hands the farm's charter to newcomers and serves the
//! DHT. It is asked by every requester here, as the only peer of the ticket, and what it made up is never delivered.

use crate::farm::Ran;
use crate::guest::Guest;
use crate::neighbours::{GREETING, Made, Neighbours, Transport};
use node::artifact::{Checking, ChunkSource, Reading};
use protocol::charter::Charter;
use protocol::codec;
use protocol::digest::Digest;
use protocol::id::{BuildKey, FarmId, ReportId};
use protocol::report::{Judged, Outcome, Report, Verdict};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::Ticket;
use protocol::tree::{Entry, Manifest, Mode, Node, TreePath};
use protocol::wire::{Answer, Control, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SEED: u8 = 66;
/// A program of its own; it would say so.
const OWN_PROGRAM: &[u8] = b"#!/bin/sh\necho hostile\n";

/// What it answers to `Find`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// A verdict on its own program that it signed itself.
    OwnVerdict,
    /// The same, under a charter of its own that names it a coordinator.
    OwnCharter,
    /// The farm's verdict, changed to name its own program.
    ChangedVerdict,
    /// The farm's verdict with a report of its own behind it.
    OwnReport,
    /// The farm's verdict on another build.
    OtherBuild,
    /// The farm's verdict as it is, and then its own bytes for every chunk.
    OwnBytes,
    /// The same, and its own program where the manifest is asked for.
    OwnManifest,
}

const LIES: [Lie; 7] = [
    Lie::OwnVerdict,
    Lie::OwnCharter,
    Lie::ChangedVerdict,
    Lie::OwnReport,
    Lie::OtherBuild,
    Lie::OwnBytes,
    Lie::OwnManifest,
];

/// What the hostile peer knows and counts.
#[derive(Debug)]
struct Plot {
    secret: SecretKey,
    farm: FarmId,
    key: BuildKey,
    truth: Judged,
    /// A true manifest, to be handed over before false chunks.
    manifest: Vec<u8>,
    other: Judged,
    own: Manifest,
    lie: Mutex<Lie>,
    asked: AtomicUsize,
    read: AtomicUsize,
}

impl Plot {
    fn lie(&self) -> Lie {
        *self.lie.lock().unwrap()
    }

    fn answer(&self, call: &Control) -> Answer {
        match call {
            Control::Charter => Answer::Charter(Some(self.truth.charter.clone())),
            Control::Find(key) if *key == self.key => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                Answer::Found { judged: Some(Box::new(self.judged())), holders: vec![] }
            }
            _ => Answer::Refused(Refusal::NotACoordinator),
        }
    }

    fn judged(&self) -> Judged {
        let truth = self.truth.clone();
        let own = || {
            let verdict = Verdict { reports: BTreeSet::from([ReportId(self.report().id())]), ..self.verdict() };
            let verdict = Signed::new(&verdict, self.farm, &self.secret);
            Judged { charter: truth.charter.clone(), verdict, reports: vec![self.report()] }
        };
        match self.lie() {
            Lie::OwnVerdict => own(),
            Lie::OwnCharter => {
                let charter: Charter = truth.charter.open(self.farm).unwrap();
                let coordinators = BTreeSet::from([self.secret.public()]);
                let charter = Signed::new(&Charter { coordinators, ..charter }, self.farm, &self.secret);
                Judged { charter, ..own() }
            }
            Lie::ChangedVerdict => {
                let verdict = Signed { payload: codec::encode(&self.verdict()).into(), ..truth.verdict.clone() };
                Judged { verdict, ..truth }
            }
            Lie::OwnReport => Judged { reports: vec![self.report()], ..truth },
            Lie::OtherBuild => self.other.clone(),
            Lie::OwnBytes | Lie::OwnManifest => truth,
        }
    }

    /// The farm's verdict, but for the program.
    fn verdict(&self) -> Verdict {
        Verdict { manifest: self.own.id(), ..self.truth.verdict.open(self.farm).unwrap() }
    }

    /// The builder's report, but for the program and who signed it.
    fn report(&self) -> Signed {
        let mut report: Report = self.truth.reports[0].open(self.farm).unwrap();
        let Outcome::Built { manifest, .. } = &mut report.outcome else { panic!("{report:?}") };
        *manifest = self.own.id();
        Signed::new(&report, self.farm, &self.secret)
    }
}

/// Whatever fits its story: its own program complete with manifest, and false bytes where the true ones are asked for.
struct OwnBytes(Arc<Plot>);

impl ChunkSource for OwnBytes {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let plot = &self.0;
        plot.read.fetch_add(1, Ordering::Relaxed);
        let (own, truth) = (plot.own.encode(), &plot.manifest);
        let bytes = if *digest == Digest::of(&own) {
            own
        } else if *digest == Digest::of(truth) {
            if plot.lie() == Lie::OwnManifest { own } else { truth.clone() }
        } else {
            padded(plot, digest)
        };
        Ok(Some(bytes))
    }

    fn reading(&self) -> Reading {
        Reading::Immediate
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

/// Its own program, as long as the chunk that is asked for: a wrong length alone would be found out sooner.
fn padded(plot: &Plot, digest: &Digest) -> Vec<u8> {
    let lengths: BTreeMap<Digest, u64> = Manifest::decode(&plot.manifest)
        .unwrap()
        .files()
        .flat_map(|(_, _, size, chunks)| chunks.iter().map(move |chunk| (*chunk, size)))
        .collect();
    let mut bytes = OWN_PROGRAM.to_vec();
    bytes.resize(lengths.get(digest).map_or(OWN_PROGRAM.len(), |size| usize::try_from(*size).unwrap()), b'\n');
    bytes
}

fn own_manifest() -> Manifest {
    let chunks = vec![Digest::of(OWN_PROGRAM)];
    let node = Node::File { mode: Mode::Executable, size: OWN_PROGRAM.len() as u64, chunks };
    Manifest::new(vec![Entry { path: TreePath::try_from("greeter").unwrap(), node }]).unwrap()
}

#[test]
fn a_peer_that_provides_its_own_binary_is_never_delivered() {
    never_delivers_a_lie(Transport::Both);
}

#[test]
fn nor_on_tcp_alone() {
    never_delivers_a_lie(Transport::Tcp);
}

#[test]
fn nor_on_quic_alone() {
    never_delivers_a_lie(Transport::Quic);
}

fn never_delivers_a_lie(transport: Transport) {
    let mut neighbours = Neighbours::settle(transport);
    let made = neighbours.build("first", GREETING);
    let other = neighbours.build("second", "another");
    assert_ne!(made.key, other.key);
    let ticket = neighbours.complete();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (hostile, plot) = runtime.block_on(join(&neighbours, &ticket, &made, &other));
    assert!(neighbours.coordinator.stop().success());
    let contact = runtime.block_on(hostile.contact());
    let only_hostile = Ticket { farm: ticket.farm, coordinators: vec![], peers: vec![contact] };

    for lie in LIES {
        let ran = ask(&neighbours, &plot, lie, "true", &only_hostile);
        let fetched = Made::of(&ran.ended_with(0).json());
        assert_eq!(fetched.says(), GREETING, "{lie:?}");
        assert_eq!(std::fs::read(&fetched.file).unwrap(), std::fs::read(&made.file).unwrap(), "{lie:?}");
    }

    assert!(neighbours.builder.stop().success());
    assert!(neighbours.bystander.as_mut().unwrap().stop().success());
    for lie in LIES {
        let reads = plot.read.load(Ordering::Relaxed);
        let ran = ask(&neighbours, &plot, lie, "alone", &only_hostile);
        let serves = matches!(lie, Lie::OwnBytes | Lie::OwnManifest);
        // With no verdict that holds, the request cannot be made; with one, nobody has the bytes.
        ran.ended_with(if serves { 5 } else { 3 });
        assert_eq!(plot.read.load(Ordering::Relaxed) > reads, serves, "{lie:?}: {}", ran.stderr);
        eprintln!("{lie:?}: {}", ran.json()["reason"]);
        let home = neighbours.farm.folder().join(format!("alone-{lie:?}"));
        assert!(!home.join("out").join("greeter").exists(), "{lie:?}");
    }
    runtime.block_on(hostile.network.shut_down());
}

/// The hostile peer learns what there is to know, and says in the DHT that it provides the build.
async fn join(neighbours: &Neighbours, ticket: &Ticket, made: &Made, other: &Made) -> (Guest, Arc<Plot>) {
    let refuse = |_: &_| Answer::Refused(Refusal::NotACoordinator);
    let scholar = Guest::join(SEED + 1, neighbours.transport, ticket, refuse, node::artifact::Store::in_memory()).await;
    let coordinator = &ticket.coordinators[0];
    let truth = scholar.judged_at(coordinator, made.key).await.unwrap();
    let other = scholar.judged_at(coordinator, other.key).await.unwrap();
    let verdict: Verdict = truth.verdict.open(ticket.farm).unwrap();
    let mut holders = node::artifact::transfer::Providers::from(vec![coordinator.key]);
    let manifest =
        node::artifact::transfer::fetch_manifest(&scholar.network, verdict.manifest, &mut holders).await.unwrap();
    scholar.network.shut_down().await;

    let plot = Arc::new(Plot {
        secret: SecretKey::from_seed(&[SEED; 32]),
        farm: ticket.farm,
        key: made.key,
        truth,
        manifest: manifest.encode(),
        other,
        own: own_manifest(),
        lie: Mutex::new(LIES[0]),
        asked: AtomicUsize::new(0),
        read: AtomicUsize::new(0),
    });
    let answering = plot.clone();
    let answer = move |call: &Control| answering.answer(call);
    let hostile = Guest::join(SEED, neighbours.transport, ticket, answer, OwnBytes(plot.clone())).await;
    hostile.network.provide(made.key).await.unwrap();
    // Whoever asks it is led on to the builder, too.
    hostile.until_provided(made.key, made.volunteer).await;
    (hostile, plot)
}

/// Asks from a fresh home, and makes sure that the hostile peer was asked.
#[track_caller]
fn ask(neighbours: &Neighbours, plot: &Plot, lie: Lie, home: &str, ticket: &Ticket) -> Ran {
    *plot.lie.lock().unwrap() = lie;
    let before = plot.asked.load(Ordering::Relaxed);
    let ran = neighbours.ask(&neighbours.farm.home(&format!("{home}-{lie:?}")), ticket, GREETING);
    assert!(plot.asked.load(Ordering::Relaxed) > before, "{lie:?}: nobody asked the hostile peer: {}", ran.stderr);
    ran
}
