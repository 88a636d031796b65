//! A volunteer that is gone is noticed by a timer, and so is a build that does nothing: silence alone is no sign of either.

use crate::barn::{Barn, Gate, gated_recipe, processes_with, recipe};
use crate::deadline::{BUILD, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Fifteen seconds of silence, the tick of a timer, and room for a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(25);

#[test]
fn a_volunteer_that_falls_silent_is_noticed_though_nobody_asks() {
    if !crate::can_build("a volunteer that falls silent") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    let me = barn.person("me");
    let request = me.leaves(&[&file]);
    gate.is_reached();
    // Its connections stay open, and nobody says a word to the coordinator until it has noticed by itself.
    volunteer.process.signal(Signal::STOP);
    let stopped = Instant::now();
    barn.coordinator.says("VolunteerLost", NOTICED_WITHIN);
    eprintln!("noticed {:?} after it fell silent", stopped.elapsed());
    let status = me.status(&request);
    assert_eq!((&status["state"], &status["attempts"]), (&"queued".into(), &1.into()), "{status}");
    // It wakes up, is told that its lease is no more, and ends the build.
    volunteer.process.signal(Signal::CONT);
    wait_for("the end of the build", BUILD, || (processes_with(&gate.program()) == 0).then_some(()));
    gate.open();
}

#[test]
fn a_volunteer_whose_connection_breaks_has_five_seconds_to_come_back() {
    if !crate::can_build("a volunteer that dies") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let me = barn.person("me");
    // What dies behind TCP is heard of at once; QUIC takes ten seconds to miss a peer, and then silence is noticed as soon.
    let over_tcp: Vec<_> = barn.addresses(&me).into_iter().filter(|address| address.contains("/tcp/")).collect();
    barn.cut_power();
    barn.start_again(&over_tcp);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let mut volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    me.leaves(&[&file]);
    gate.is_reached();
    volunteer.process.kill();
    let killed = Instant::now();
    barn.coordinator.says("VolunteerLost", NOTICED_WITHIN);
    let noticed = killed.elapsed();
    assert!(noticed < Duration::from_secs(12), "silence would have been noticed as soon: {noticed:?}");
    eprintln!("noticed {noticed:?} after it died");
}

#[test]
fn a_build_that_hangs_is_ended_and_one_that_works_in_silence_is_not() {
    if !crate::can_build("a build that hangs") {
        return;
    }
    let barn = Barn::found(&[]);
    let limits = "requires = [\"os=linux\"]\n[limits]\nquiet_s = 3\n";
    let step = |name: &str, run: &str| recipe(&barn.farm, name, &format!("{limits}[[step]]\nrun = [{run}]\n"));
    let word = format!("{}.75", 5_000 + std::process::id());
    let hangs = step("hangs", &format!("\"sh\", \"-c\", \"exec sleep {word}\""));
    let works = step("works", r#""sh", "-c", "end=$(($(date +%s) + 7)); while [ $(date +%s) -lt $end ]; do :; done""#);
    let _volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    let me = barn.person("me");
    let ended = me.asks(&["request", &hangs, "--output", "made"], 4);
    let reason = "stopped at a limit: it showed no sign of progress for longer than its recipe allows, neither output nor \
                  processor time (limit:quiet)";
    assert_eq!((&ended["outcome"], &ended["reason"]), (&"policy".into(), &reason.into()));
    assert_eq!(processes_with(&word), 0);
    assert_eq!(me.asks(&["request", &works, "--output", "made"], 0)["outcome"], "built");
}
