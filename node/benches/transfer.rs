//! How fast an artifact travels over `bulk/1` on plain TCP of the loopback: what the artifact room itself costs, without the
//! encryption that the network room adds.
//!
//! The store of the providers is in memory; the sink is a store in memory, one on a disk (durable at the end), or a folder.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use node::artifact::Store;
use node::artifact::transfer::{Permission, Sink, fetch_artifact, serve};
use node::database::Database;
use node::network::{Caller, Command, IncomingBulk, Network};
use protocol::id::PeerKey;
use protocol::tree::{Entry, Manifest, Mode, Node, TreePath};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

const ARTIFACT_BYTES: u64 = 256 << 20;
const SMALL_FILES: usize = 10_000;

/// Bytes of which no two chunks are equal.
struct Counting(u64);

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for word in buffer.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
        Ok(buffer.len())
    }
}

async fn holder(files: usize, bytes: u64) -> (Store, Manifest) {
    let store = Store::in_memory();
    let batch = store.batch();
    let mut entries = Vec::new();
    for nr in 0..files {
        let file = batch.file(Counting(nr as u64).take(bytes)).await.unwrap();
        let path = TreePath::try_from(format!("{}/{nr}", nr % 100)).unwrap();
        entries.push(Entry { path, node: Node::File { mode: Mode::Plain, size: file.size, chunks: file.chunks } });
    }
    let manifest = Manifest::new(entries).unwrap();
    batch.commit_artifact(&manifest).await.unwrap();
    (store, manifest)
}

/// A network whose peers all serve `store`, each over a TCP connection of its own for every stream.
async fn network(store: Store) -> Network {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let us = PeerKey::from_bytes([0; 32]);
    let (bulk, incoming) = mpsc::channel(64);
    tokio::spawn(serve(incoming, Arc::new(store), Arc::new(|_, _: &_| Permission::Granted)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let incoming = IncomingBulk { caller: Caller { peer: us }, stream: Box::new(stream) };
            bulk.send(incoming).await.unwrap();
        }
    });
    let (network, mut commands, _) = Network::channel(us);
    tokio::spawn(async move {
        while let Some(Command::OpenBulk { reply, .. }) = commands.recv().await {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            reply.send(Ok(Box::new(stream))).unwrap();
        }
    });
    network
}

fn transfer(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for (shape, files, bytes) in [("one file", 1, ARTIFACT_BYTES), ("small files", SMALL_FILES, 1_000)] {
        let (store, manifest) = runtime.block_on(holder(files, bytes));
        let network = runtime.block_on(network(store));
        let mut group = criterion.benchmark_group(format!("transfer of {shape}"));
        group.sample_size(10).measurement_time(Duration::from_secs(10));
        group.throughput(Throughput::Bytes(manifest.total_bytes()));
        for providers in [1u8, 2] {
            let fetch = |sink: Sink| {
                let peers: Vec<_> = (1..=providers).map(|nr| PeerKey::from_bytes([nr; 32])).collect();
                runtime.block_on(fetch_artifact(&network, &manifest, peers, sink, watch::Sender::default())).unwrap()
            };
            group.bench_function(BenchmarkId::new("into memory", providers), |bencher| {
                bencher.iter_batched(|| Sink::Store(Store::in_memory()), fetch, BatchSize::PerIteration);
            });
            group.bench_function(BenchmarkId::new("into a folder", providers), |bencher| {
                let fresh = || tempfile::tempdir().unwrap();
                bencher.iter_batched_ref(
                    fresh,
                    |dir| fetch(Sink::Folder(dir.path().join("out"))),
                    BatchSize::PerIteration,
                );
            });
            group.bench_function(BenchmarkId::new("into a store on a disk", providers), |bencher| {
                let fresh = || {
                    let dir = tempfile::tempdir().unwrap();
                    let db = Database::open(&dir.path().join("db"), 4 << 20).unwrap();
                    let store = runtime.block_on(Store::open(&dir.path().join("store"), &db)).unwrap();
                    (dir, store)
                };
                bencher.iter_batched_ref(
                    fresh,
                    |(_, store)| fetch(Sink::Store(store.clone())),
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, transfer);
criterion_main!(benches);
