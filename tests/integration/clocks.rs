//! Machines whose clocks are an hour off: everything works, and whoever can do something about it is told by how much.
//!
//! Another clock is given to a real process by libfaketime; monotonic time goes on as it is.

use crate::barn::{Barn, Gate, Person, gated_recipe};
use crate::deadline::BUILD;
use crate::farm::Process;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, where this machine has it.
fn faketime(what: &str) -> Option<PathBuf> {
    let found = crate::clock::library();
    if found.is_none() {
        crate::left_out(what, "libfaketime is not installed");
    }
    found
}

/// Starts a command whose clock shows another time: `+1h`, `-1h`.
fn start_at(library: &Path, offset: &str, mut command: Command) -> Process {
    command.env("LD_PRELOAD", library).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Process::start(&mut command)
}

#[test]
fn a_request_from_a_wrong_clock_is_taken_and_its_person_told() {
    let Some(library) = faketime("a request from a wrong clock") else { return };
    let barn = Barn::found(&[]);
    for (name, offset, words) in [("early", "-1h", "1 h behind"), ("late", "+1h", "1 h ahead of")] {
        let me = barn.person(name);
        // Half an hour of life has passed already, or has not begun, by the clock of who asks.
        let asked = me.command(&[
            "request",
            "hello",
            "--detach",
            "--expires",
            "30m",
            "--json",
            "-o",
            &format!("greeting={name}"),
        ]);
        let ran = start_at(&library, offset, asked).end(BUILD);
        let told = format!(
            "this machine's clock is {words} the coordinator's: one of the two is wrong, and requests are dated by the coordinator's"
        );
        assert!(ran.ended_with(0).stderr.contains(&told), "{}", ran.stderr);
        // Somebody whose clock is right sees the same request, and no word of clocks.
        let you = barn.person(&format!("{name}-neighbour"));
        let seen = you.runs(&["status", ran.json()["request"].as_str().unwrap(), "--json"]);
        assert_eq!(seen.ended_with(0).json()["state"], "queued");
        assert!(!seen.stderr.contains("clock"), "{}", seen.stderr);
    }
}

#[test]
fn a_volunteer_with_a_wrong_clock_builds_and_its_owner_is_told() {
    let Some(library) = faketime("a volunteer with a wrong clock") else { return };
    if !crate::can_build("a volunteer with a wrong clock") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    gate.open();
    let file = gated_recipe(&barn.farm);
    let words = ["--accept", "any", "--tool", &gate.offer()];
    let (_home, command) = barn.volunteer_command("late", &words);
    let mut late = start_at(&library, "+1h", command);
    late.says("this machine's clock is 1 h ahead of that of peer", BUILD);
    let me = barn.person("me");
    let built = me.asks(&["request", &file, "--output", "made"], 0);
    assert_eq!(built["outcome"], "built");
    // Times are the farm's, whoever built it.
    assert!(built["built_ms"].as_u64().unwrap() < 600_000 && built["queued_ms"].as_u64().unwrap() < 600_000, "{built}");
    // With a third clock it can be told whose is wrong, and its owner is told as well.
    let _right = barn.volunteer("right", &[]);
    barn.coordinator.says("is 1 h ahead of this machine's and that of 1 other", BUILD);
    late.says("this machine's clock is 1 h ahead of those of 2 peers, which agree with one another: set it", BUILD);
    assert!(late.stop().success());
}

#[test]
fn a_coordinator_with_a_wrong_clock_serves_and_everybody_is_told() {
    let Some(library) = faketime("a coordinator with a wrong clock") else { return };
    if !crate::can_build("a coordinator with a wrong clock") {
        return;
    }
    let barn = Barn::found_at(|command| {
        command.env("LD_PRELOAD", &library).env("FAKETIME", "-1h").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    gate.open();
    let file = gated_recipe(&barn.farm);
    let mut volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    volunteer.process.says("this machine's clock is 1 h ahead of that of peer", BUILD);
    let me: Person = barn.person("me");
    let ran = me.runs(&["request", &file, "--json", "--output", "made"]);
    assert_eq!(ran.ended_with(0).json()["outcome"], "built");
    assert!(ran.stderr.contains("this machine's clock is 1 h ahead of the coordinator's"), "{}", ran.stderr);
}
