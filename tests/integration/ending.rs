//! Told to stop in the middle of things: a daemon ends in order within its bound, with status 0, and leaves no process and
//! nothing undone; told twice, it ends at once.
//!
//! | in the middle of | where |
//! |---|---|
//! | a build, by a volunteer with others | [`crate::crash`]: `a_volunteer_that_is_told_to_stop_hands_its_build_back` |
//! | a build, in a daemon of both roles | [`a_farm_in_one_daemon_stops_in_the_middle_of_a_build`] |
//! | a claim that is parked, a request that is watched | [`nobody_who_waits_holds_a_daemon_up`] |
//! | a source on its way | [`a_source_on_its_way_holds_nobody_up`] |
//! | a mail to a server that is silent | [`crate::bad_input`]: `a_mail_server_that_puts_off_or_is_silent_loses_no_mail` |
//! | an orderly end | [`told_twice_it_ends_at_once`] |

use crate::barn::{Barn, Gate, gated_recipe, processes_with};
use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, Process};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

/// What an orderly end may take in all, with time for a busy machine to notice.
const BOUND: Duration = Duration::from_secs(13);
/// How long a daemon may take to serve.
const START: Duration = Duration::from_secs(90);

/// Tells a daemon to stop: it does, in order and within its bound.
#[track_caller]
fn stops(process: &mut Process) {
    let before = Instant::now();
    let status = process.stop();
    assert!(status.success(), "{status}: {}", process.stderr());
    assert!(before.elapsed() < BOUND, "{:?}: {}", before.elapsed(), process.stderr());
    assert!(!process.stderr().contains("not everything ended in time"), "{}", process.stderr());
}

#[test]
fn a_farm_in_one_daemon_stops_in_the_middle_of_a_build() {
    if !crate::can_build("a farm in one daemon that stops") {
        return;
    }
    let farm = Farm::new();
    let gate = Gate::closed(&farm, "gate", "gate");
    let file = gated_recipe(&farm);
    let home = farm.home("both");
    let offer = gate.offer();
    let words = ["--coordinator", "--volunteer", "--no-mdns", "--slots", "1", "--accept", "any", "--tool", &offer];
    let mut daemon = home.daemon(&[&words[..], &["--farm-name", "x"]].concat());
    daemon.says("coordinates and volunteers", START);
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    let me = farm.home("me");
    let left = me.run(&["request", &file, "--detach", "--json", "--farm", &ticket], BUILD).ended_with(0).json();
    gate.is_reached();
    stops(&mut daemon);
    assert_eq!(processes_with(&gate.program()), 0, "nothing of the build is left");
    assert!(daemon.stderr().contains("handed back"), "{}", daemon.stderr());
    assert!(fs::read_dir(home.path().join("work")).unwrap().next().is_none(), "nor of its folder");

    gate.open();
    let mut daemon = home.daemon(&words);
    daemon.says("coordinates and volunteers", START);
    let request = left["request"].as_str().unwrap();
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    let end = wait_for("the end of the build", BUILD, || {
        let status = me.run(&["status", request, "--json", "--farm", &ticket], SOON).ended_with(0).json();
        (status["state"] == "finished").then_some(status)
    });
    assert_eq!((&end["outcome"], &end["attempts"]), (&"built".into(), &2.into()), "{end}");
    stops(&mut daemon);
}

#[test]
fn nobody_who_waits_holds_a_daemon_up() {
    if !crate::can_build("a volunteer that waits while its coordinator stops") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let me = barn.person("me");
    let mut idle = barn.volunteer("idle", &[]);
    let mut watching = me.starts(&["request", "hello", "--require", "tool.nobody-has-it"]);
    watching.says("nobody-has-it", SOON);
    wait_for("its parked claim", SOON, || {
        let volunteers = me.asks(&["volunteers"], 0);
        (volunteers["volunteers"][0]["presence"] == "free").then_some(())
    });
    stops(&mut barn.coordinator);
    // Whoever was answered nothing goes on waiting for the coordinator, and can be told to stop as well.
    assert!(watching.ended().is_none());
    stops(&mut idle.process);
    assert_eq!(watching.stop().code(), Some(130), "{}", watching.stderr());
}

#[test]
fn a_source_on_its_way_holds_nobody_up() {
    let mut barn = Barn::found(&[]);
    let (me, you) = (barn.person("me"), barn.person("you"));
    let Some((mut asked, _)) = crate::crash::source_on_its_way(&barn, &me, &you) else {
        return crate::left_out("a stop while a source is on its way", "sources arrive before they can be seen coming");
    };
    stops(&mut barn.coordinator);
    assert!(asked.ended().is_none(), "it waits for the coordinator: {}", asked.stderr());
    assert_eq!(asked.stop().code(), Some(130), "{}", asked.stderr());
}

#[test]
fn told_twice_it_ends_at_once() {
    if !crate::can_build("a volunteer that is told twice to stop") {
        return;
    }
    let barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let mut volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]).process;
    barn.person("me").leaves(&[&file]);
    gate.is_reached();
    // The lease is handed back to a coordinator that does not answer, which takes the volunteer five seconds to give up.
    barn.coordinator.signal(Signal::STOP);
    volunteer.signal(Signal::TERM);
    wait_for("the end of the build", SOON, || (processes_with(&gate.program()) == 0).then_some(()));
    assert!(volunteer.ended().is_none(), "it still hands back: {}", volunteer.stderr());
    let before = Instant::now();
    volunteer.signal(Signal::TERM);
    let ended = wait_for("the end", SOON, || volunteer.ended());
    assert_eq!(ended.code(), Some(130));
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    barn.coordinator.signal(Signal::CONT);
}
