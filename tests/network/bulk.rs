//! 64 MiB that the farm built, from peers that have copies of it: two who serve, one who lies, one who is gone half-way.

use crate::guest::Guest;
use crate::neighbours::{Made, Neighbours, Transport};
use node::artifact::transfer::{Progress, Providers, Sink, fetch_artifact, fetch_manifest};
use node::artifact::{Checking, ChunkSource, Reading, Store};
use node::client::find::{Found, Search};
use node::client::member::Member;
use node::home::Home;
use node::network::{Keep, Network};
use protocol::digest::Digest;
use protocol::id::PeerKey;
use protocol::report::Verdict;
use protocol::ticket::{Contact, Ticket};
use protocol::tree::Manifest;
use protocol::wire::{Answer, Refusal};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

const BYTES: u64 = 64 << 20;
/// What the one that is killed has read for others by then; a provider's fair share would be about a third.
const KILLED_AFTER: u64 = 8 << 20;

/// A program that writes 64 MiB which no compression would make smaller.
const RECIPE: &str = r#"
recipe = 1
name = "bulky"
description = "64 MiB of noise"
requires = ["os=linux", "tool.cc"]
reproducible = true

[[file]]
path = "noise.c"
text = '''
#include <stdint.h>
#include <stdio.h>

int main(void) {
    uint64_t state = 42;
    for (long n = 0; n < (64L << 20) / 8; n++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for (int byte = 0; byte < 8; byte++)
            putchar((int)(state >> (8 * byte) & 255));
    }
    return fflush(stdout) != 0;
}
'''

[[step]]
run = ["cc", "-O2", "-o", "noise", "noise.c"]

[[step]]
run = ["sh", "-c", "./noise > noise.bin"]

[[output]]
path = "noise.bin"

[smoke]
run = ["test", "-s", "noise.bin"]

[limits]
time_s = 120
memory_mib = 256
disk_mib = 512
"#;

/// The same bytes, made here.
fn noise() -> Vec<u8> {
    let mut state: u64 = 42;
    let words = (0..BYTES / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// An honest provider at the end of a line of 40 MiB/s, so that shares tell of the sharing and not of who gets the processor.
struct Paced {
    store: Store,
    line: Mutex<()>,
}

impl ChunkSource for Paced {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let read = self.store.read(digest)?;
        let bytes = read.as_ref().map_or(0, Vec::len) as u32;
        let _line = self.line.lock().unwrap();
        std::thread::sleep(Duration::from_secs(1) * bytes / (40 << 20));
        Ok(read)
    }

    fn reading(&self) -> Reading {
        Reading::Blocks
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

/// A provider that gives one flipped bit in every chunk; the manifest it gives is true.
struct Liar(Store, Digest);

impl ChunkSource for Liar {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let mut read = self.0.read(digest)?;
        if *digest != self.1
            && let Some(byte) = read.as_mut().and_then(|bytes| bytes.last_mut())
        {
            *byte ^= 1;
        }
        Ok(read)
    }

    fn reading(&self) -> Reading {
        Reading::Immediate
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

/// A provider that is killed while it reads for others.
struct Doomed {
    store: Store,
    read_bytes: Arc<AtomicU64>,
    enough: Arc<Notify>,
}

impl ChunkSource for Doomed {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let read = self.store.read(digest)?;
        let bytes = read.as_ref().map_or(0, Vec::len) as u64;
        if self.read_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= KILLED_AFTER {
            self.enough.notify_one();
            // It dies with this read under way.
            std::thread::sleep(Duration::from_secs(5));
        }
        Ok(read)
    }

    fn reading(&self) -> Reading {
        Reading::Blocks
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

#[test]
fn two_providers_share_64_mib_while_one_lies_and_one_is_killed() {
    shares(Transport::Both);
}

#[test]
fn the_same_on_tcp_alone() {
    shares(Transport::Tcp);
}

#[test]
fn the_same_on_quic_alone() {
    shares(Transport::Quic);
}

fn shares(transport: Transport) {
    let mut neighbours = Neighbours::settle(transport);
    let made = build(&neighbours);
    let ticket = neighbours.complete();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fetch_from_all(&mut neighbours, &made, &ticket));
    // A blocked read of the killed provider may still sleep.
    runtime.shutdown_background();
}

fn build(neighbours: &Neighbours) -> Made {
    let home = neighbours.farm.home("first");
    let recipe = neighbours.recipe("bulky", RECIPE);
    let founding = neighbours.founding.to_string();
    let ran = neighbours.transport.run(&home, &["request", &recipe, "--json", "--farm", &founding, "--output", "out"]);
    let json = ran.ended_with(0).json();
    assert_eq!((json["outcome"].as_str(), json["files"][0]["size"].as_u64()), (Some("built"), Some(BYTES)));
    Made::of(&json)
}

async fn fetch_from_all(neighbours: &mut Neighbours, made: &Made, ticket: &Ticket) {
    let home = Home::open(neighbours.farm.home("requester").path()).unwrap();
    let member = Member::join(&home, Some(ticket), neighbours.transport.inside()).await.unwrap();
    let Search::Found(found) = member.session.find(made.key).await else { panic!("not found") };
    let makers = [ticket.coordinators[0].clone(), contact_of(ticket, made)];
    meet(member.network(), &makers).await;
    let (store, manifest) = copy(member.network(), &found.verified.verdict, &makers).await;

    let refuse = |_: &_| Answer::Refused(Refusal::NotACoordinator);
    let lying = Liar(store.clone(), found.verified.verdict.manifest.0);
    let liar = Guest::join(71, neighbours.transport, ticket, refuse, lying).await;
    let (read_bytes, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let dying = Doomed { store: store.clone(), read_bytes: read_bytes.clone(), enough: enough.clone() };
    let paced = || Paced { store: store.clone(), line: Mutex::default() };
    let honest = [
        Guest::join(73, neighbours.transport, ticket, refuse, paced()).await,
        Guest::join(74, neighbours.transport, ticket, refuse, paced()).await,
    ];
    let doomed = Guest::join(72, neighbours.transport, ticket, refuse, dying).await;
    let killing = tokio::spawn({
        let network = doomed.network.clone();
        async move {
            enough.notified().await;
            network.shut_down().await;
        }
    });

    // Whoever built or kept it is gone: it comes from peers that fetched it, or not at all.
    assert!(neighbours.coordinator.stop().success() && neighbours.builder.stop().success());
    let mut holders = vec![liar.contact().await, doomed.contact().await];
    for guest in &honest {
        holders.push(guest.contact().await);
    }
    meet(member.network(), &holders).await;
    let found = Found { holders, ..*found };
    let (progress, _) = watch::channel(Progress::default());
    let folder = neighbours.farm.folder().join("delivered");
    let began = Instant::now();
    let delivery = member.session.deliver(&found, Sink::Folder(folder.clone()), progress).await.unwrap();
    let took = began.elapsed();

    assert_eq!(delivery.manifest, manifest);
    assert!(std::fs::read(folder.join("noise.bin")).unwrap() == noise(), "other bytes than were built");
    let served_mib = |key: PeerKey| delivery.sources.served.get(&key).copied().unwrap_or(0) >> 20;
    let shares = honest.each_ref().map(|guest| served_mib(guest.network.local()));
    let of_doomed = served_mib(doomed.network.local());
    eprintln!(
        "{:?}: {took:?}: {shares:?} MiB from the two, {of_doomed} MiB from the one that was killed",
        neighbours.transport
    );
    assert_eq!(delivery.sources.liars, [liar.network.local()]);
    assert_eq!(delivery.sources.served.values().sum::<u64>(), BYTES);
    assert!(shares.iter().all(|mib| *mib >= 16), "each at least a quarter: {shares:?} MiB");
    assert!(read_bytes.load(Ordering::Relaxed) >= KILLED_AFTER && of_doomed <= KILLED_AFTER >> 20);
    killing.await.unwrap();
    member.leave().await;
}

fn contact_of(ticket: &Ticket, made: &Made) -> Contact {
    ticket.peers.iter().find(|contact| contact.key == made.volunteer).unwrap().clone()
}

/// Connects to everybody and opens a stream to each, so that what follows measures sharing and not who is dialled first.
async fn meet(network: &Network, contacts: &[Contact]) {
    for contact in contacts {
        network.connect(contact.clone(), Keep::Once, Duration::from_secs(20)).await.unwrap();
        drop(network.open_bulk(contact.key).await.unwrap());
    }
}

/// The artifact as a holder has it.
async fn copy(network: &Network, verdict: &Verdict, from: &[Contact]) -> (Store, Manifest) {
    let peers: Vec<PeerKey> = from.iter().map(|contact| contact.key).collect();
    let mut providers = Providers::from(peers.clone());
    let manifest = fetch_manifest(network, verdict.manifest, &mut providers).await.unwrap();
    let store = Store::in_memory();
    let sink = Sink::Store(store.clone());
    fetch_artifact(network, &manifest, peers, sink, watch::channel(Progress::default()).0).await.unwrap();
    (store, manifest)
}
