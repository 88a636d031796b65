//! What one coordinator carries: durable submissions over the network, and a long queue kept in memory and started with.
//!
//! `submissions`: 32 clients, each a peer with a connection of its own and one submission on its way, against a coordinator in
//! this process, so that its waits for the disk can be counted. Every submission is signed, crosses loopback, is checked,
//! stamped, committed, synced and applied before it is answered. No limit is lifted.
//!
//! `queue`: 100,000 requests are submitted by the same clients to the real program, which is started again then.
//!
//! `past`: the real program starts in a home with that queue and 10,000 finished builds, just after a snapshot and with the
//! longest log that may be without one.
//!
//! Reach is what the figures are compared with; nothing here fails because a machine is slow.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod load;
mod past;
mod process;

use load::{Client, Load};
use past::Past;
use process::Daemon;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const CLIENTS: u8 = 32;
const WARM_UP: u64 = 2_000;
const SUBMISSIONS: u64 = 20_000;
const QUEUED: u64 = 100_000;
const FINISHED: u64 = 10_000;
/// How long a start's work behind the scenes may go on before memory is looked at.
const SETTLE: Duration = Duration::from_secs(10);

fn main() {
    // `cargo test --benches` only wants to know that this starts.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if wanted("submissions") {
        runtime.block_on(submissions());
    }
    if wanted("queue") {
        queue(&runtime);
    }
    if wanted("past") {
        past(&runtime);
    }
}

/// Whether a part was asked for; all are when none is named.
fn wanted(part: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|word| !word.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|name| part.contains(&name))
}

async fn submissions() {
    let folder = tempfile::tempdir().unwrap();
    let node = Arc::new(load::coordinator(folder.path()).await);
    let clients = Client::connect_all(&node.ticket(), CLIENTS).await;
    let counted = node.clone();
    let syncs = move || counted.sync_rounds();
    let (clients, _) = Load::run(clients, 0..WARM_UP, syncs.clone()).await;
    let before = syncs();
    let (clients, load) = Load::run(clients, WARM_UP..WARM_UP + SUBMISSIONS, syncs.clone()).await;
    let waits = syncs() - before;
    println!("durable submissions, {CLIENTS} clients, each with one on its way");
    println!("  rate                {:7.0}/s     reach 2000", load.per_second());
    println!("  to a sync           {:7.1}       reach 8", load.submissions as f64 / waits as f64);
    println!("  answered unsynced   {:7}       reach 0", load.unsynced);
    println!("  latency             median {:.1?}, 99 of 100 within {:.1?}", load.percentile(50), load.percentile(99));
    leave(clients).await;
    drop(syncs);
    Arc::into_inner(node).unwrap().end().await;
}

fn queue(runtime: &Runtime) {
    println!("a queue of {QUEUED} jobs in the real program");
    let folder = tempfile::tempdir().unwrap();
    let live = Daemon::start(folder.path());
    println!("  first start, nothing queued      {}", live.memory());
    let load = runtime.block_on(async {
        let (clients, load) = Load::run(Client::connect_all(&live.ticket, CLIENTS).await, 0..QUEUED, || 0).await;
        leave(clients).await;
        load
    });
    println!("  submitted at {:.0}/s, then         {}, reach 300 MiB", load.per_second(), live.memory());
    live.end();
    restart(runtime, folder.path(), "  the same, started again          ");
}

fn past(runtime: &Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let first = Daemon::start(folder.path());
    let (farm, issued_at) = (first.ticket.farm, load::now());
    first.end();
    let all = FINISHED..FINISHED + QUEUED;
    runtime.block_on(async {
        let past = Past::open(folder.path(), farm, issued_at).await;
        past.finish(0..FINISHED).await;
        past.queue(all.clone()).await;
        let older = past.snapshots();
        past.repeat(all.clone(), |past| past.snapshots() != older).await;
        past.close().await;
    });
    println!("{QUEUED} queued jobs and {FINISHED} finished builds");
    restart(runtime, folder.path(), "  just after a snapshot             ");
    runtime.block_on(async {
        let past = Past::open(folder.path(), farm, issued_at).await;
        let enough = past.snapshot_bytes() / 100 * 97;
        let snapshots = past.snapshots();
        past.repeat(all, |past| past.bytes() >= enough).await;
        assert_eq!(past.snapshots(), snapshots, "the log is the longest that there may be");
        past.close().await;
    });
    restart(runtime, folder.path(), "  with the longest log              ");
}

/// Starts what is in this home and says how long it took, and what memory it took.
fn restart(runtime: &Runtime, home: &std::path::Path, what: &str) {
    let daemon = Daemon::start(home);
    let begun = Instant::now();
    let answered = runtime.block_on(async {
        let client = Client::connect(&daemon.ticket, 0).await;
        assert_eq!(client.queued().await, QUEUED);
        client.leave().await;
        begun.elapsed()
    });
    std::thread::sleep(SETTLE);
    println!("{what}{:.2?} to serving, reach 5 s; first answer {answered:.2?} later", daemon.started_in);
    println!("                                   {}, reach 300 MiB", daemon.memory());
    daemon.end();
}

async fn leave(clients: Vec<Client>) {
    for client in clients {
        client.leave().await;
    }
}
