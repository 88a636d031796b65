//! Commands through a replica of one coordinator, each committed, synced and applied before it is answered.
//!
//! `alone` proposes one after the other: the latency. `together` keeps 32 proposals in flight: what grouping them into log
//! entries gains. Syncs per command are printed at the end of each. `beside bare writes` compares the same with a bare
//! write-ahead log that syncs as many commands at a time, in turns, so that both see the same disk.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use node::clock::Clock;
use node::coordinator::replica::{Beginning, CarryError, Law, Replica, ReplicaConfig, Seat};
use node::coordinator::wal::{Wal, WalConfig};
use node::database::Database;
use protocol::farm::command::LawVersion;
use protocol::time::Timestamp;
use tokio::runtime::Runtime;

const TOGETHER: u64 = 32;
/// About the size of a submitted request.
const COMMAND_BYTES: usize = 600;
/// Turns of each side, and commands in each turn.
const TURNS: usize = 21;
const IN_A_TURN: u64 = 32 * 200;

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

    fn snapshot(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }

    fn restore(snapshot: &mut dyn BufRead) -> Result<Self, String> {
        let mut bytes = [0; 8];
        snapshot.read_exact(&mut bytes).map_err(|error| error.to_string())?;
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

/// Prepared commands through the replica, and the same bytes in the same batches through a bare log.
fn beside_bare_writes(_: &mut Criterion) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only wants to know that this starts.
    let asked_for = words.iter().all(|word| word.starts_with('-') || "replica".contains(word.as_str()));
    if !asked_for || words.iter().any(|word| word == "--test") {
        return;
    }
    let runtime = Runtime::new().unwrap();
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let replica = runtime.block_on(Replica::<Count>::open(config(homes[0].path()))).unwrap();
    let (wal, _) = Wal::open(homes[1].path(), &WalConfig::default()).unwrap();
    let syncs = replica.syncs();
    let (mut ratios, mut rates, mut next, mut waits) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..TURNS {
        let before = syncs.count();
        let through = runtime.block_on(propose(&replica, TOGETHER, IN_A_TURN)).as_secs_f64();
        let batches = syncs.count() - before;
        waits += batches;
        let bare = runtime.block_on(write_bare(&wal, &mut next, batches)).as_secs_f64();
        ratios.push(bare / through);
        rates.push(IN_A_TURN as f64 / through);
    }
    runtime.block_on(replica.close()).unwrap();
    for figures in [&mut ratios, &mut rates] {
        figures.sort_unstable_by(f64::total_cmp);
    }
    let (ratio, rate) = (ratios[TURNS / 2], rates[TURNS / 2]);
    let to_a_sync = (IN_A_TURN * TURNS as u64) as f64 / waits as f64;
    let spread = (ratios[0] * 100.0, ratios[TURNS - 1] * 100.0);
    eprintln!("prepared commands, {TOGETHER} together: {rate:.0}/s, {to_a_sync:.1} to a sync");
    eprintln!(
        "beside bare writes of as many: {:.0} % of them, reach 50 % (median of {TURNS} turns, {:.0} to {:.0} %)",
        ratio * 100.0,
        spread.0,
        spread.1
    );
}

/// Time for a turn's commands, written in so many batches, each when the one before is synced.
async fn write_bare(wal: &Wal, next: &mut u64, batches: u64) -> Duration {
    let bytes = IN_A_TURN as usize * COMMAND_BYTES / batches as usize;
    let begun = Instant::now();
    for _ in 0..batches {
        let (done, synced) = tokio::sync::oneshot::channel();
        let tell = move |result| done.send(result).unwrap();
        wal.append(vec![(*next, vec![b'x'; bytes].into())], tell).await.unwrap();
        synced.await.unwrap().unwrap();
        *next += 1;
    }
    begun.elapsed()
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

criterion_group!(benches, replica, beside_bare_writes);
criterion_main!(benches);
