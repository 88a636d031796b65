//! Commands through a replica of one coordinator, each committed, synced and applied before it is answered.
//!
//! `alone` proposes one after the other: the latency. `together` keeps 32 proposals in flight: what grouping them into log
//! entries gains. Syncs per command are printed at the end of each.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use node::clock::Clock;
use node::coordinator::replica::{Beginning, CarryError, Law, Replica, ReplicaConfig, Seat};
use node::coordinator::wal::WalConfig;
use node::database::Database;
use protocol::farm::command::LawVersion;
use protocol::time::Timestamp;
use tokio::runtime::Runtime;

const TOGETHER: u64 = 32;
/// About the size of a submitted request.
const COMMAND_BYTES: usize = 600;

/// Counts commands; nothing but the replica is measured.
#[derive(Debug, Default)]
struct Count(u64);

impl Law for Count {
    const NEWEST: LawVersion = LawVersion(1);
    type Command = String;
    type Reply = u64;
    type Event = u64;

    fn apply(&mut self, _index: u64, _now: Timestamp, _command: String) -> (u64, Vec<u64>) {
        self.0 += 1;
        (self.0, vec![self.0])
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.try_into().map_err(|_| "not eight bytes".to_owned())?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

fn config(folder: &Path) -> ReplicaConfig {
    let database = Database::temporary().unwrap();
    ReplicaConfig {
        folder: folder.to_owned(),
        records: database.records("replica"),
        id: 1,
        seat: Seat { peer_id: "bench".into() },
        beginning: Beginning::Alone,
        clock: Clock::system(),
        carry: Arc::new(|_, _, _, _| Box::pin(async { Err(CarryError::Timeout) })),
        events_kept: 1024,
        wal: WalConfig::default(),
    }
}

/// Time for `commands` commands from `proposers` proposers.
async fn propose(replica: &Replica<Count>, proposers: u64, commands: u64) -> Duration {
    let command = "x".repeat(COMMAND_BYTES);
    let begun = Instant::now();
    let proposing = (0..proposers).map(|proposer| {
        let (replica, command) = (replica.clone(), command.clone());
        let own = commands / proposers + u64::from(proposer < commands % proposers);
        tokio::spawn(async move {
            for _ in 0..own {
                replica.propose(&command).await.unwrap();
            }
        })
    });
    for proposed in futures::future::join_all(proposing).await {
        proposed.unwrap();
    }
    begun.elapsed()
}

fn replica(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("replica");
    group.throughput(Throughput::Elements(1));
    for (name, proposers) in [("alone", 1), ("together", TOGETHER)] {
        let home = tempfile::tempdir().unwrap();
        let replica = runtime.block_on(Replica::<Count>::open(config(home.path()))).unwrap();
        let syncs = replica.syncs();
        let before = syncs.count();
        group.bench_function(name, |b| {
            b.iter_custom(|commands| runtime.block_on(propose(&replica, proposers, commands)));
        });
        let commands = replica.last_index();
        let waited = syncs.count() - before;
        eprintln!("{name}: {commands} commands, {waited} syncs, {:.3} a command", waited as f64 / commands as f64);
        runtime.block_on(replica.close()).unwrap();
    }
    group.bench_function("open and lead", |b| {
        b.iter_custom(|times| (0..times).map(|_| open_and_lead(&runtime)).sum());
    });
    group.finish();
}

/// Time until a new group of one takes proposals.
fn open_and_lead(runtime: &Runtime) -> Duration {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    let begun = Instant::now();
    let replica = runtime.block_on(Replica::<Count>::open(config)).unwrap();
    let elapsed = begun.elapsed();
    runtime.block_on(replica.close()).unwrap();
    elapsed
}

criterion_group!(benches, replica);
criterion_main!(benches);
