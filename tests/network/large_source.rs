//! A large source: handed over chunk by chunk, never a chunk that the farm has, in little memory.
//!
//! `BARNRAISE_SOURCE_MIB=500` makes it as large as that instead of 50.

use crate::deadline::wait_for;
use crate::farm::{Farm, Process};
use crate::left_out;
use crate::neighbours::ticket_in;
use crate::wire::{Host, Wire};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Bytes of a file of the source.
const FILE_BYTES: usize = 100 << 10;
/// Files of a folder.
const FOLDER_FILES: usize = 100;
/// How much more than a changed file may be sent for it.
const MORE_BYTES: u64 = 1 << 20;
/// The most memory of anybody.
const MEMORY_KIB: u64 = 150 << 10;
/// How long a build of the largest may take.
const LONG: Duration = Duration::from_secs(600);

/// Adds up the sizes of all files.
const RECIPE: &str = r#"
recipe = 1
name = "weigh"
description = "Adds up the sizes of the files of its source"
requires = ["os=linux", "tool.cc"]
reproducible = true
[source]
hint = "a folder"
[[file]]
path = "weigh.c"
text = '''
#define _XOPEN_SOURCE 700
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
static long long bytes;
static int add(const char *path, const struct stat *status, int kind, struct FTW *at) {
    (void)path, (void)at;
    if (kind == FTW_F) bytes += status->st_size;
    return 0;
}
int main(void) {
    return nftw("source", add, 16, FTW_PHYS) || printf("%lld\n", bytes) < 0;
}
'''
[[step]]
run = ["cc", "-o", "weigh", "weigh.c"]
[[step]]
run = ["sh", "-c", "./weigh > weight"]
[[output]]
path = "weight"
[limits]
disk_mib = 2048
"#;

/// Bytes that no other file has.
fn content(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    (0..FILE_BYTES / 8).flat_map(|_| next()).collect()
}

fn peak_memory_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Lets a command run to its end; what it answered, and the most memory it had.
fn ended(mut process: Process) -> (Value, u64) {
    let mut most = 0;
    wait_for("the end of a request", LONG, || {
        most = most.max(peak_memory_kib(process.pid()).unwrap_or(0));
        process.ended()
    });
    (process.end(LONG).ended_with(0).json(), most)
}

#[test]
fn a_changed_file_costs_itself_and_little_memory() {
    let wire = match Wire::lay("source") {
        Ok(wire) => wire,
        Err(because) => return left_out("a large source", &because),
    };
    let size_mib: usize = std::env::var("BARNRAISE_SOURCE_MIB").map_or(50, |text| text.parse().unwrap());
    let farm = Farm::new();
    let source = farm.folder().join("tree");
    let files = (size_mib << 20) / FILE_BYTES;
    let path = |nr: usize| source.join(format!("source/{:03}/file-{nr:06}.bin", nr / FOLDER_FILES));
    for nr in 0..files {
        fs::create_dir_all(path(nr).parent().unwrap()).unwrap();
        fs::write(path(nr), content(nr as u64)).unwrap();
    }
    let recipe = farm.folder().join("weigh.toml");
    fs::write(&recipe, RECIPE).unwrap();

    let words = ["--json", "--coordinator", "--farm-name", "large", "--no-mdns"];
    let mut coordinator = wire.start(Host::Barn, &farm.home("coordinator"), &words);
    let ticket = ticket_in(&coordinator.line("a ticket", |line| line.contains("ticket"))).to_string();
    let words = ["--json", "--volunteer", "--accept", "any", "--no-mdns", "--farm", &ticket];
    let mut volunteer = wire.start(Host::Barn, &farm.home("volunteer"), &words);
    volunteer.line("a volunteer that serves", |line| line.contains("ticket"));

    let me = farm.home("me");
    let ask = |output: &str| {
        let words =
            ["request", text(&recipe), "--source", text(&source), "--json", "--farm", &ticket, "--output", output];
        let before = wire.sent_bytes(Host::House);
        let (object, memory_kib) = ended(wire.start(Host::House, &me, &words));
        assert_eq!(object["outcome"], "built", "{object}");
        let weight = fs::read_to_string(me.path().join(output).join("weight")).unwrap();
        assert_eq!(weight.trim(), (files * FILE_BYTES).to_string());
        (wire.sent_bytes(Host::House) - before, memory_kib, object["elapsed_ms"].as_u64().unwrap())
    };
    let (whole_bytes, first_kib, first_ms) = ask("first");
    let total = (files * FILE_BYTES) as u64;
    assert!(whole_bytes > total, "{whole_bytes} bytes went over the wire for {total}");
    fs::write(path(files / 2), content(u64::MAX)).unwrap();
    let (changed_bytes, second_kib, second_ms) = ask("second");
    let [coordinator_kib, volunteer_kib] =
        [&coordinator, &volunteer].map(|daemon| peak_memory_kib(daemon.pid()).unwrap());
    eprintln!(
        "{files} files, {total} bytes: sent {whole_bytes} bytes in {first_ms} ms, after one changed file of {FILE_BYTES} bytes \
         {changed_bytes} bytes in {second_ms} ms; at most {} KiB at the requester, {coordinator_kib} at the coordinator, \
         {volunteer_kib} at the volunteer",
        first_kib.max(second_kib)
    );
    assert!(changed_bytes <= FILE_BYTES as u64 + MORE_BYTES, "{changed_bytes} bytes were sent for one changed file");
    for (who, kib) in
        [("requester", first_kib.max(second_kib)), ("coordinator", coordinator_kib), ("volunteer", volunteer_kib)]
    {
        assert!(kib > 0 && kib < MEMORY_KIB, "the {who} had {kib} KiB");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
