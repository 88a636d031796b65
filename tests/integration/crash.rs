//! Power cuts in the middle of things: of a volunteer that builds, of a coordinator with a build running and a queue.

use crate::barn::{Barn, Gate, Person, gated_recipe, processes_with, recipe};
use crate::deadline::{BUILD, wait_for};
use crate::farm::Process;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

#[test]
fn a_build_whose_volunteer_dies_is_built_by_the_other() {
    if !crate::can_build("the death of a volunteer") {
        return;
    }
    let barn = Barn::found(&[]);
    let gates = ["gate-one", "gate-two"].map(|folder| Gate::closed(&barn.farm, folder, "gate"));
    let file = gated_recipe(&barn.farm);
    let mut volunteers = [("one", &gates[0]), ("two", &gates[1])]
        .map(|(name, gate)| barn.volunteer(name, &["--accept", "any", "--tool", &gate.offer()]));
    let me = barn.person("me");
    let asked = me.starts(&["request", &file, "--json", "--output", "made"]);

    let first =
        wait_for("a build at a gate", BUILD, || gates.iter().position(|gate| processes_with(&gate.program()) > 0));
    let second = 1 - first;
    let farm = me.asks(&["status"], 0);
    let key = running_at(&farm, || me.asks(&["volunteers"], 0));
    let mut following = me.starts(&["logs", "--follow", farm["queue"][0]["request"].as_str().unwrap()]);
    following.line("the log of the first attempt", |line| line.starts_with("before the gate"));
    volunteers[first].process.kill();
    wait_for("the build to die with its volunteer", BUILD, || {
        (processes_with(&gates[first].program()) == 0).then_some(())
    });
    wait_for("the other to take it up", BUILD, || (processes_with(&gates[second].program()) > 0).then_some(()));
    gates[second].open();
    let built = asked.end(BUILD).ended_with(0).json();
    assert_eq!(built["outcome"], "built");
    assert_ne!(built["volunteer"], key, "the dead one builds nothing");
    let status = me.status(built["request"].as_str().unwrap());
    let starts: usize = volunteers.iter().map(super::barn::Volunteer::attempts).sum();
    assert_eq!(starts, 2);
    assert_eq!(status["attempts"], starts);
    let log = following.end(BUILD).ended_with(0).stdout.clone();
    let attempts: Vec<&str> = log.split("[attempt 2]").collect();
    assert!(attempts.len() == 2 && !attempts[0].contains("behind the gate"), "{log}");
    assert!(attempts[1].contains("before the gate") && attempts[1].contains("behind the gate"), "{log}");
    let farm = me.asks(&["status"], 0);
    assert_eq!((&farm["queued"], &farm["running"]), (&0.into(), &0.into()));
    assert_eq!(me.asks(&["builds"], 0)["builds"].as_array().unwrap().len(), 1, "one verdict");
    assert_eq!(gates.iter().map(|gate| processes_with(&gate.program())).sum::<usize>(), 0);
}

/// The volunteer that is busy while one build runs.
fn running_at(farm: &Value, volunteers: impl FnOnce() -> Value) -> Value {
    assert_eq!(farm["running"], 1, "{farm}");
    let volunteers = volunteers();
    let busy: Vec<&Value> =
        volunteers["volunteers"].as_array().unwrap().iter().filter(|known| known["busy"] == 1).collect();
    assert_eq!(busy.len(), 1, "{volunteers}");
    busy[0]["volunteer"].clone()
}

#[test]
fn a_coordinator_that_dies_loses_nothing_and_the_build_goes_on() {
    if !crate::can_build("the death of a coordinator") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    let me = barn.person("me");
    let addresses = barn.addresses(&me);

    let marker = |word: &str| format!("marker={word}-{}", std::process::id());
    let running = marker("running");
    let waiting = me.starts(&["request", &file, "-o", &running, "--json", "--output", "made"]);
    wait_for("the build to begin", BUILD, || (volunteer.attempts() == 1).then_some(()));
    let word = running.trim_start_matches("marker=");
    wait_for("the build at the gate", BUILD, || (processes_with(word) > 0).then_some(()));
    let queued = [marker("second"), marker("third")].map(|marker| me.leaves(&[&file, "-o", &marker]));
    let needy = me.leaves(&["hello", "--require", "tool.nobody-has-it"]);
    // An instant before the end, one more.
    let last = me.leaves(&[&file, "-o", &marker("last")]);
    let queue = |farm: &Value| -> Vec<(Value, Value)> {
        let rows = farm["queue"].as_array().unwrap();
        rows.iter().map(|row| (row["request"].clone(), row["state"].clone())).collect()
    };
    let before = me.asks(&["status"], 0);
    assert_eq!((&before["running"], &before["queued"]), (&1.into(), &4.into()), "{before}");
    let attempt = queue(&before).iter().find(|(_, state)| state == "running").map(|(id, _)| id.clone()).unwrap();
    let attempt = attempt.as_str().unwrap();
    let begun = me.status(attempt)["started_at_ms"].clone();

    barn.cut_power();
    assert_eq!(me.runs(&["status"]).code, Some(3));
    barn.start_again(&addresses);

    let after = me.asks(&["status"], 0);
    assert_eq!(queue(&after), queue(&before), "everything is there, in its order");
    let survivor = me.status(attempt);
    assert_eq!((&survivor["state"], &survivor["attempts"]), (&"running".into(), &1.into()));
    assert_eq!(survivor["started_at_ms"], begun);
    assert!(processes_with(word) > 0, "the build was not stopped");

    gate.open();
    let built = waiting.end(BUILD).ended_with(0).json();
    assert_eq!((&built["outcome"], &built["request"]), (&"built".into(), &attempt.into()));
    let end = me.status(attempt);
    assert_eq!((&end["attempts"], &end["started_at_ms"]), (&1.into(), &begun), "it was the same lease all the time");
    for request in queued.iter().chain([&last]) {
        let end = me.waits_for(request, "finished");
        assert_eq!((&end["outcome"], &end["attempts"]), (&"built".into(), &1.into()));
    }
    assert_eq!(me.status(&needy)["state"], "queued");
    assert_eq!(volunteer.attempts(), 4);
}

#[test]
fn a_build_that_ends_while_no_coordinator_is_there_is_reported_later() {
    if !crate::can_build("a report that waits") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    let me = barn.person("me");
    let addresses = barn.addresses(&me);
    let request = me.leaves(&[&file]);
    gate.is_reached();
    barn.cut_power();
    gate.open();
    let mut process = volunteer.process;
    process.says("the report waits for a coordinator", BUILD);
    barn.start_again(&addresses);
    let end = me.waits_for(&request, "finished");
    assert_eq!((&end["outcome"], &end["attempts"]), (&"built".into(), &1.into()), "{end}");
    assert_eq!(me.asks(&["fetch", &request, "--output", "made"], 0)["manifest"], end["manifest"]);
}

#[test]
fn a_volunteer_that_is_told_to_stop_hands_its_build_back() {
    if !crate::can_build("a volunteer that stops") {
        return;
    }
    let barn = Barn::found(&[]);
    let gates = ["gate-one", "gate-two"].map(|folder| Gate::closed(&barn.farm, folder, "gate"));
    let file = gated_recipe(&barn.farm);
    let first = barn.volunteer("one", &["--accept", "any", "--tool", &gates[0].offer()]);
    let me = barn.person("me");
    let request = me.leaves(&[&file]);
    gates[0].is_reached();
    let second = barn.volunteer("two", &["--accept", "any", "--tool", &gates[1].offer()]);
    let mut process = first.process;
    assert!(process.stop().success());
    assert!(process.stderr().contains("handed back"), "{}", process.stderr());
    assert_eq!(processes_with(&gates[0].program()), 0, "nothing of the build is left");
    gates[1].open();
    let end = me.waits_for(&request, "finished");
    assert_eq!((&end["outcome"], &end["attempts"]), (&"built".into(), &2.into()));
    assert_eq!(second.attempts(), 1);
}

#[test]
fn a_source_on_its_way_when_the_coordinator_dies_arrives_all_the_same() {
    let mut barn = Barn::found(&[]);
    let (me, you) = (barn.person("me"), barn.person("you"));
    let addresses = barn.addresses(&me);
    let Some((asked, seen)) = source_on_its_way(&barn, &me, &you) else {
        return crate::left_out(
            "the death of a coordinator that takes a source over",
            "sources arrive before they can be seen coming",
        );
    };
    barn.cut_power();
    barn.start_again(&addresses);
    let request = asked.end(BUILD).ended_with(0).json()["request"].clone();
    assert_eq!(request, seen["request"]);
    assert_eq!(you.status(request.as_str().unwrap())["state"], "queued", "the farm holds the source");
}

/// Asks for something that nobody can build, with larger and larger sources, until `you` see one on its way: the command that
/// hands it over, and the request in the queue.
pub(crate) fn source_on_its_way(barn: &Barn, me: &Person, you: &Person) -> Option<(Process, Value)> {
    let rest = "requires = [\"tool.nobody-has-it\"]\n[source]\nhint = \"anything\"\n[[step]]\nrun = [\"true\"]\n";
    let file = recipe(&barn.farm, "big", rest);
    for mebibytes in [64, 128, 256, 512] {
        let source = big_source(barn, mebibytes);
        let asked = me.starts(&["request", &file, "--source", source.to_str().unwrap(), "--detach", "--json"]);
        let seen = wait_for("the request", BUILD, || {
            let farm = you.asks(&["status"], 0);
            let newest = farm["queue"].as_array().unwrap().last()?;
            (newest["recipe"] == "big").then(|| newest.clone())
        });
        if seen["state"] == "awaiting_source" {
            return Some((asked, seen));
        }
        let request = asked.end(BUILD).ended_with(0).json()["request"].clone();
        me.asks(&["cancel", request.as_str().unwrap()], 0);
    }
    None
}

/// A folder with one file of so many different chunks.
fn big_source(barn: &Barn, mebibytes: usize) -> PathBuf {
    let folder = barn.farm.folder().join(format!("source-{mebibytes}"));
    fs::create_dir(&folder).unwrap();
    let mut bytes = vec![0; mebibytes << 20];
    for (at, chunk) in bytes.chunks_mut(1 << 20).enumerate() {
        chunk[..16].copy_from_slice(&((mebibytes << 32) + at).to_be_bytes().repeat(2));
    }
    fs::write(folder.join("big"), bytes).unwrap();
    folder
}
