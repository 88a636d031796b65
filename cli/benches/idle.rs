//! What an idle volunteer costs its machine: memory, processor and traffic, in a farm of ten real processes.
//!
//! The volunteer that is measured is alone on one of two hosts (network namespaces with a wire between them), so that every
//! byte of its traffic crosses the wire and is counted with its headers, whatever the protocol. The other nine (a
//! coordinator and eight volunteers) are on the other host.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../../tests/integration/deadline.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod deadline;
#[path = "../../tests/integration/farm.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod farm;
#[path = "../../tests/network/wire.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod wire;

use deadline::wait_for;
use farm::{Farm, Process};
use std::fs;
use std::time::{Duration, Instant};
use wire::{Host, Wire};

/// Volunteers beside the one that is measured.
const OTHERS: usize = 8;
/// How long it is measured: longer than a parked claim, and than the pause between two of anything but the hourly.
const MEASURED: Duration = Duration::from_secs(120);
/// How long everybody may take to have started and found the others.
const STARTED: Duration = Duration::from_secs(120);
/// The unit in which Linux tells of processor time, on every machine.
const TICKS_PER_SECOND: u64 = 100;
/// Traffic that counts as quiet, while waiting for it.
const QUIET_BYTES_PER_SECOND: u64 = 4 << 10;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only wants to know that this starts.
    let asked_for = words.iter().all(|word| word.starts_with('-') || "idle".contains(word.as_str()));
    if !asked_for || words.iter().any(|word| word == "--test") {
        return;
    }
    match Wire::lay("idle") {
        Ok(wire) => measure(&wire),
        Err(because) => eprintln!("left out: the traffic of an idle volunteer: {because}"),
    }
}

fn measure(wire: &Wire) {
    let farm = Farm::new();
    let words = ["--json", "--coordinator", "--farm-name", "idle"];
    let mut coordinator = wire.start(Host::Barn, &farm.home("coordinator"), &words);
    let line = coordinator.line("a ticket", |line| line.contains("ticket"));
    let shown: serde_json::Value = serde_json::from_str(&line).unwrap();
    let ticket = shown["ticket"].as_str().unwrap();

    let join = |host, name: &str| {
        let mut volunteer = wire.start(host, &farm.home(name), &["--json", "--volunteer", "--farm", ticket]);
        volunteer.line("a volunteer that serves", |line| line.contains("ticket"));
        volunteer
    };
    let _others: Vec<Process> = (0..OTHERS).map(|nr| join(Host::Barn, &format!("other-{nr}"))).collect();
    let volunteer = join(Host::House, "measured");

    let began = Instant::now();
    let window = Duration::from_secs(10);
    let mut before = Reading::take(wire, &volunteer);
    wait_for("a quiet wire", STARTED, || {
        std::thread::sleep(window);
        let now = Reading::take(wire, &volunteer);
        let quiet = now.wire_bytes - before.wire_bytes < QUIET_BYTES_PER_SECOND * window.as_secs();
        before = now;
        quiet.then_some(())
    });
    println!("an idle volunteer in a farm of ten, quiet {:.0?} after it began to serve", began.elapsed());

    let first = Reading::take(wire, &volunteer);
    std::thread::sleep(MEASURED);
    let last = Reading::take(wire, &volunteer);
    let seconds = MEASURED.as_secs_f64();
    let rate = (last.wire_bytes - first.wire_bytes) as f64 / seconds;
    let share = (last.processor - first.processor).as_secs_f64() / seconds * 100.0;
    println!("  resident: {:.1} MiB (reach: at most 40 MiB)", last.resident_kib as f64 / 1024.0);
    println!("    of these of its own, not of the program's file: {:.1} MiB", last.own_kib as f64 / 1024.0);
    println!("  processor: {share:.2} % of one core (reach: less than 0.5 %)");
    println!("  on the wire, both directions, all headers: {rate:.0} B/s (reach: at most 1,000 B/s)");
    println!("  threads: {}", last.threads);
}

/// What the system says of the volunteer so far.
#[derive(Clone, Copy, Debug)]
struct Reading {
    resident_kib: u64,
    own_kib: u64,
    threads: u64,
    processor: Duration,
    wire_bytes: u64,
}

impl Reading {
    fn take(wire: &Wire, volunteer: &Process) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", volunteer.pid())).unwrap();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap()
        };
        let stat = fs::read_to_string(format!("/proc/{}/stat", volunteer.pid())).unwrap();
        // What follows the name in parentheses; time in user and in system mode are the 14th and 15th of all.
        let after: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = after[11].parse::<u64>().unwrap() + after[12].parse::<u64>().unwrap();
        Self {
            resident_kib: number("VmRSS:"),
            own_kib: number("RssAnon:"),
            threads: number("Threads:"),
            processor: Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND),
            wire_bytes: wire.sent_bytes(Host::Barn) + wire.sent_bytes(Host::House),
        }
    }
}
