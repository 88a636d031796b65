//! A thousand nodes in one process over pipes: how soon an announcement reaches 999 of them, and what a node costs.
//!
//! It takes minutes and gigabytes. `BARNRAISE_CROWD` asks for another number of nodes.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../../tests/network/crowd.rs"]
mod crowd;

use crowd::Crowd;
use std::time::{Duration, Instant};

/// Announcements that are measured, each by another node.
const ANNOUNCEMENTS: usize = 9;
/// How long the network may take to grow together, and an announcement to spread.
const SETTLED: Duration = Duration::from_secs(240);
const SPREAD: Duration = Duration::from_secs(30);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only wants to know that this starts.
    let asked_for = words.iter().all(|word| word.starts_with('-') || "crowd".contains(word.as_str()));
    if !asked_for || words.iter().any(|word| word == "--test") {
        return;
    }
    let count = std::env::var("BARNRAISE_CROWD").map_or(1_000, |text| text.parse().unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(measure(count));
}

async fn measure(count: usize) {
    let resident_before = resident_bytes();
    let began = Instant::now();
    let mut crowd = Crowd::gather(count).await;
    println!("{count} nodes in one process, joined after {:.1?}", began.elapsed());
    let first = crowd.announce(0, SETTLED).await;
    assert_eq!(first.hearers, count - 1, "not everybody heard while the network grew together: {first:?}");
    until_quiet().await;
    let (least, most) = crowd.acquaintances().await;
    println!("  grown together after {:.1?}: {least} to {most} peers each", began.elapsed());

    let mut spreads = Vec::new();
    for nr in 0..ANNOUNCEMENTS {
        let spread = crowd.announce(1 + nr * (count - 1) / ANNOUNCEMENTS, SPREAD).await;
        println!("  announcement {nr}: {spread:?}");
        spreads.push(spread);
    }
    let slowest = spreads.iter().map(|spread| spread.reached).max_by_key(|reached| reached.unwrap_or(Duration::MAX));
    let mut carried: Vec<u64> = spreads.iter().map(|spread| spread.carried_bytes).collect();
    carried.sort_unstable();
    match slowest.flatten() {
        Some(slowest) => {
            println!("  the slowest of {ANNOUNCEMENTS} reached 99.9 % in {slowest:.2?} (reach: at most 3 s)")
        }
        None => println!("  an announcement did not reach 99.9 % within {SPREAD:?} (reach: at most 3 s)"),
    }
    println!("  bytes carried for each, per node: {}", carried[ANNOUNCEMENTS / 2] / count as u64);
    println!("  resident per node: {} KiB", (resident_bytes() - resident_before) / count as u64 / 1024);
}

/// Waits until the pipes carry little more than heartbeats for a while.
async fn until_quiet() {
    let deadline = Instant::now() + SETTLED;
    let mut before = node::network::memory::carried_bytes();
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = node::network::memory::carried_bytes();
        println!("  {} KiB/s, {} MiB resident", (now - before) / 5 / 1024, resident_bytes() >> 20);
        if now - before < 16 << 20 {
            return;
        }
        before = now;
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
