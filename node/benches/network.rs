//! The network on loopback: starting it, meeting a peer, calling it, and moving bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use node::network::config::{Mdns, Transports};
use node::network::{Inbox, Keep, Network, NetworkConfig, start};
use protocol::digest::Digest;
use protocol::id::{FarmId, PeerKey};
use protocol::signed::SecretKey;
use protocol::ticket::Contact;
use protocol::time::Timestamp;
use protocol::wire::{Answer, Control, Hello, PROTOCOL_VERSION};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

const BYTES: usize = 64 << 20;
const BUFFER: usize = 256 << 10;
const SOON: Duration = Duration::from_secs(10);

fn config(seed: u8, transports: Transports, listen: &[&str]) -> NetworkConfig {
    let hello = Hello {
        program: "bench".to_owned(),
        protocol: PROTOCOL_VERSION,
        charter: None,
        clock: Timestamp::EPOCH,
        capability: None,
        addresses: vec![],
    };
    let secret = SecretKey::from_seed(&[seed; 32]);
    NetworkConfig {
        listen: listen.iter().map(ToString::to_string).collect(),
        mdns: Mdns::Off,
        transports,
        ..NetworkConfig::daemon(secret, FarmId(Digest::of(b"bench")), hello)
    }
}

/// A daemon that answers calls and fills every stream with [`BYTES`] bytes.
async fn daemon(transports: Transports) -> (Network, Contact) {
    let listen = match transports {
        Transports::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    let (network, Inbox { mut control, mut bulk, .. }) = start(config(1, transports, &[listen])).unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = control.recv().await {
            // A bench that has ended waits for no answer.
            let _unheard = incoming.reply.send(Answer::Done);
        }
    });
    tokio::spawn(async move {
        while let Some(mut incoming) = bulk.recv().await {
            tokio::spawn(async move {
                let buffer = vec![7; BUFFER];
                for _ in 0..BYTES / BUFFER {
                    incoming.stream.write_all(&buffer).await.unwrap();
                }
                incoming.stream.shutdown().await.unwrap();
            });
        }
    });
    let contact = Contact { key: network.local(), addresses: network.addresses().await.unwrap() };
    (network, contact)
}

async fn read_all(network: &Network, from: PeerKey) {
    let mut stream = network.open_bulk(from).await.unwrap();
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert_eq!(total, BYTES);
}

fn loopback(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for transports in [Transports::Tcp, Transports::Quic] {
        let mut group = criterion.benchmark_group("network");
        let name = |what: &str| BenchmarkId::new(what, format!("{transports:?}"));
        let (_daemon, contact) = runtime.block_on(daemon(transports));
        let key = contact.key;

        group.bench_function(name("start, connect, Hello and leave"), |bencher| {
            bencher.time(&runtime, || async {
                let (network, _inbox) = start(config(2, transports, &[])).unwrap();
                network.connect(contact.clone(), Keep::Once, SOON).await.unwrap();
                network.shut_down().await;
            });
        });

        let (network, _inbox) = runtime.block_on(async { start(config(3, transports, &[])).unwrap() });
        runtime.block_on(network.connect(contact.clone(), Keep::Once, SOON)).unwrap();
        group.bench_function(name("call"), |bencher| {
            bencher.time(&runtime, || async {
                network.call(key, Control::Farm).await.unwrap();
            });
        });
        group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(10);
        group.bench_function(name("bulk"), |bencher| bencher.time(&runtime, || read_all(&network, key)));
        group.finish();
    }
}

/// Times a future on a runtime of several threads, which criterion without its own executors cannot.
trait OnRuntime {
    fn time<F: Future<Output = ()>>(&mut self, runtime: &Runtime, make: impl Fn() -> F);
}

impl OnRuntime for criterion::Bencher<'_> {
    fn time<F: Future<Output = ()>>(&mut self, runtime: &Runtime, make: impl Fn() -> F) {
        self.iter_custom(|times| {
            runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..times {
                    make().await;
                }
                began.elapsed()
            })
        });
    }
}

criterion_group!(benches, loopback);
criterion_main!(benches);
