//! Verbs in a farm: cancel, logs, detach and fetch, what `--json` holds, every exit code, and the keyboard.

use crate::barn::{Barn, Gate, gated_recipe, processes_with, recipe};
use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, NODE, Process};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

/// What `request` and `fetch` tell, always.
const REQUEST: [&str; 12] = [
    "request",
    "build_key",
    "outcome",
    "reason",
    "manifest",
    "volunteer",
    "commit",
    "commits_back",
    "files",
    "queued_ms",
    "built_ms",
    "elapsed_ms",
];

#[track_caller]
fn has_fields(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "`{field}` is missing in {object}");
    }
}

/// A farm of one volunteer that has a closed gate, and the recipe that goes through it.
fn gated_farm(what: &str) -> Option<(Barn, Gate, String, super::barn::Volunteer)> {
    if !crate::can_build(what) {
        return None;
    }
    let barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    Some((barn, gate, file, volunteer))
}

#[test]
fn a_cancelled_build_is_stopped() {
    let Some((barn, gate, file, volunteer)) = gated_farm("a cancelled build") else { return };
    let me = barn.person("me");
    let marker = format!("cancelled-{}", std::process::id());
    let wish = ["request", &file, "-o", &format!("marker={marker}")];
    let request = me.leaves(&wish[1..]);
    let mut waiting = me.starts(&[&wish[..], &["--json"]].concat());
    waiting.says("builds it", BUILD);
    wait_for("the build at the gate", BUILD, || (processes_with(&marker) > 0).then_some(()));
    // It is somebody's own.
    let you = barn.person("you");
    let refused = you.asks(&["cancel", &request], 4);
    has_fields(&refused, &["request", "cancelled", "reason"]);
    assert!(refused["reason"].as_str().unwrap().contains("somebody else"), "{refused}");

    // The other subscription keeps the job alive.
    assert_eq!(me.asks(&["cancel", &request], 0)["cancelled"], true);
    let ended = me.status(&request);
    assert_eq!((&ended["state"], &ended["outcome"]), (&"finished".into(), &"policy".into()));
    assert_eq!(me.asks(&["status"], 0)["running"], 1);
    assert!(processes_with(&marker) > 0);
    let second = me.asks(&["status"], 0)["queue"][0]["request"].as_str().unwrap().to_owned();
    assert_ne!(second, request);
    // With the last the build's processes go.
    assert_eq!(me.asks(&["cancel", &second[..8]], 0)["request"], second.as_str());
    let end = waiting.end(BUILD).ended_with(4).json();
    has_fields(&end, &REQUEST);
    assert_eq!((&end["outcome"], &end["request"]), (&"policy".into(), &second.as_str().into()));
    assert_eq!(end["reason"], "cancelled by its requester");
    wait_for("the end of the build's processes", SOON, || (processes_with(&marker) == 0).then_some(()));
    // The slot is free for others.
    gate.open();
    assert_eq!(me.asks(&["request", &file, "--output", "other"], 0)["outcome"], "built");
    assert_eq!(volunteer.attempts(), 2);
}

#[test]
fn a_log_is_followed_while_it_grows_and_to_its_end() {
    let Some((barn, gate, file, _volunteer)) = gated_farm("a log that is followed") else { return };
    let me = barn.person("me");
    let request = me.leaves(&[&file, "-o", "marker=loud"]);
    let mut following =
        [me.starts(&["logs", "--follow", &request]), barn.person("you").starts(&["logs", "-f", &request])];
    for one in &mut following {
        one.line("a line of a running build", |line| line == "before the gate: loud");
        assert!(one.ended().is_none() && !one.stdout().contains("behind the gate"));
    }
    // Without --follow what is there is shown, and that is all.
    let so_far = me.runs(&["logs", &request]);
    assert_eq!(so_far.ended_with(0).stdout, following[0].stdout());
    assert_eq!(me.asks(&["logs", &request], 0)["complete"], false);
    gate.open();
    let whole = following.map(|one| one.end(BUILD).ended_with(0).stdout.clone());
    assert!(whole[0].ends_with("behind the gate: loud\n"), "{}", whole[0]);
    assert_eq!(whole[0], whole[1]);
    me.waits_for(&request, "finished");
    let kept = me.asks(&["logs", &request[..8]], 0);
    assert_eq!((&kept["log"], &kept["complete"]), (&whole[0].as_str().into(), &true.into()));
}

#[test]
fn what_was_left_with_the_farm_is_fetched_later() {
    let Some((barn, gate, file, _volunteer)) = gated_farm("detach and fetch") else { return };
    let me = barn.person("me");
    let left = me.asks(&["request", &file, "-o", "marker=later", "--detach"], 0);
    has_fields(&left, &REQUEST);
    for unknown in ["outcome", "reason", "manifest", "volunteer", "files", "built_ms"] {
        assert_eq!(left[unknown], Value::Null, "{unknown}");
    }
    let request = left["request"].as_str().unwrap();
    me.waits_for(request, "running");
    // Not built yet: that is said, and is no failure of anybody.
    let early = me.asks(&["fetch", request], 4);
    has_fields(&early, &REQUEST);
    assert!(early["reason"].as_str().unwrap().starts_with("not built yet"), "{early}");
    // The recipe's file may be gone by now: the farm holds it.
    fs::remove_file(&file).unwrap();
    gate.open();
    let end = me.waits_for(request, "finished");
    has_fields(&end, &["state", "attempts", "waiting_because"]);
    assert_eq!((&end["attempts"], &end["waiting_because"]), (&1.into(), &Value::Null));

    let you = barn.person("you");
    let named = [request, left["build_key"].as_str().unwrap(), end["manifest"].as_str().unwrap()];
    for (person, name) in [(&me, named[0]), (&you, named[0]), (&you, named[1]), (&you, named[2])] {
        let folder = person.folder().join(format!("by-{}", &name[..8]));
        let got = person.asks(&["fetch", name, "--output", folder.to_str().unwrap()], 0);
        has_fields(&got, &REQUEST);
        let file = &got["files"][0];
        has_fields(file, &["path", "digest", "size", "mode"]);
        assert_eq!(file["path"], folder.join("made").to_str().unwrap());
        assert_eq!((&file["size"], &file["mode"]), (&5.into(), &"0644".into()));
        assert_eq!(got["manifest"], end["manifest"]);
        assert_eq!(fs::read(folder.join("made")).unwrap(), b"made\n");
    }
}

#[test]
fn one_person_may_ask_for_many_things_at_once() {
    let Some((barn, gate, file, volunteer)) = gated_farm("many commands of one person") else { return };
    gate.open();
    let me = barn.person("me");
    // Each has a recipe to hand over over its own connection, and all wait at the same time.
    let markers: Vec<String> = (0..10).map(|at| format!("many-{at}")).collect();
    let asked: Vec<Process> = markers
        .iter()
        .map(|marker| {
            let text = fs::read_to_string(&file).unwrap().replace("For a test", marker);
            let own = me.folder().join(format!("{marker}.toml"));
            fs::write(&own, text).unwrap();
            let folder = me.folder().join(marker);
            me.starts(&["request", own.to_str().unwrap(), "--json", "--output", folder.to_str().unwrap()])
        })
        .collect();
    let mut keys: Vec<Value> = asked
        .into_iter()
        .map(|asked| {
            let built = asked.end(BUILD).ended_with(0).json();
            assert_eq!(built["outcome"], "built");
            built["build_key"].clone()
        })
        .collect();
    keys.sort_by_key(Value::to_string);
    keys.dedup();
    assert_eq!(keys.len(), markers.len());
    assert_eq!(volunteer.attempts(), markers.len());
}

#[test]
fn every_end_has_its_code_and_its_object() {
    if !crate::can_build("every exit code in a farm") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let volunteers = ["one", "two"].map(|name| barn.volunteer(name, &["--accept", "any"]));
    let me = barn.person("me");

    // 0, with nothing unknown.
    let built = me.asks(&["request", "hello", "-o", "greeting=codes"], 0);
    has_fields(&built, &REQUEST);
    let not_said = ["reason", "commit", "commits_back"];
    for known in REQUEST.iter().filter(|field| !not_said.contains(field)) {
        assert_ne!(built[known], Value::Null, "{known}");
    }
    let path = built["files"][0]["path"].as_str().unwrap();
    assert_eq!(std::process::Command::new(path).output().unwrap().stdout, b"codes\n");
    // 1: both volunteers say that the recipe fails.
    let broken =
        recipe(&barn.farm, "broken", "requires = [\"os=linux\"]\n[[step]]\nrun = [\"sh\", \"-c\", \"exit 3\"]\n");
    let failed = me.asks(&["request", &broken], 1);
    has_fields(&failed, &REQUEST);
    assert_eq!((&failed["outcome"], &failed["files"]), (&"build_error".into(), &Value::Null));
    assert_eq!(me.status(failed["request"].as_str().unwrap())["attempts"], 2, "confirmed by a second volunteer");
    assert!(failed["reason"].as_str().unwrap().ends_with("a second volunteer failed alike"), "{failed}");
    // 2: not what the recipe takes.
    let usage = me.asks(&["request", "hello", "-o", "greeting=a b"], 2);
    has_fields(&usage, &REQUEST);
    assert!(usage["reason"].is_string());
    // 4: it expires with nobody there who could do it.
    let expired = me.asks(&["request", "hello", "--require", "tool.nobody-has-it", "--expires", "1s"], 4);
    has_fields(&expired, &REQUEST);
    assert_eq!(expired["outcome"], "policy");
    assert!(expired["reason"].as_str().unwrap().starts_with("expired"), "{expired}");
    // The other objects that scripts read.
    has_fields(&me.asks(&["status"], 0), &["queued", "running", "finished", "volunteers"]);
    let shown = me.asks(&["farm", "show"], 0);
    has_fields(&shown, &["farm_id", "ticket", "coordinators"]);
    assert!(shown["ticket"].as_str().unwrap().starts_with("farm1"));
    // 3, in the shape of each verb: the coordinator is gone.
    drop(volunteers);
    assert!(barn.coordinator.stop().success());
    for (words, fields) in [
        (&["request", "hello", "-o", "greeting=too-late"][..], &REQUEST[..]),
        (&["fetch", "01234567"], &REQUEST),
        (&["status"], &["queued", "running", "finished", "volunteers", "reason"]),
        (&["status", "01234567"], &["state", "attempts", "waiting_because", "reason"]),
        (&["farm", "show"], &["farm_id", "ticket", "coordinators", "reason"]),
        (&["cancel", "01234567"], &["request", "cancelled", "reason"]),
        (&["logs", "01234567"], &["request", "log", "complete", "reason"]),
    ] {
        let unreached = me.asks(words, 3);
        has_fields(&unreached, fields);
        assert!(unreached["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{words:?}: {unreached}");
    }
}

#[test]
fn without_a_sandbox_a_farm_of_one_says_how_to_mend_it() {
    let what = "a machine without bubblewrap";
    if !rustix::process::geteuid().is_root() || !crate::can_build(what) {
        return crate::left_out(what, "hiding it takes root, unshare and an installed bubblewrap");
    }
    let home = Farm::new().home("me");
    // In a mount namespace of its own the command finds no bubblewrap where it is installed.
    let hide = "for folder in /usr/local/bin /usr/bin /bin; do \
                    if [ -e $folder/bwrap ]; then mount --bind /dev/null $folder/bwrap; fi; done; exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", hide, "hide", NODE, "request", "hello", "--json"]);
    command.current_dir(home.path()).env("NODE_HOME", home.path());
    let ran = Process::start(&mut command).end(BUILD);
    let object = ran.ended_with(5).json();
    has_fields(&object, &REQUEST);
    assert!(object["reason"].as_str().unwrap().contains("bubblewrap"), "{object}");
    assert!(ran.stderr.contains("install"), "the command that mends it: {}", ran.stderr);
}

#[test]
fn three_lost_volunteers_are_the_farms_failure() {
    if !crate::can_build("three lost volunteers") {
        return;
    }
    let barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let me = barn.person("me");
    let asked = me.starts(&["request", &file, "-o", "marker=unlucky", "--json"]);
    for name in ["one", "two", "three"] {
        let mut volunteer = barn.volunteer(name, &["--accept", "any", "--tool", &gate.offer()]);
        wait_for("the attempt to begin", BUILD, || (volunteer.attempts() == 1).then_some(()));
        wait_for("the farm to know it", BUILD, || (me.asks(&["status"], 0)["running"] == 1).then_some(()));
        volunteer.process.kill();
    }
    let end = asked.end(BUILD).ended_with(5).json();
    has_fields(&end, &REQUEST);
    assert_eq!(end["outcome"], "infrastructure");
    assert_eq!(me.status(end["request"].as_str().unwrap())["attempts"], 3);
}

#[test]
fn interrupted_in_a_farm_the_request_lives_on() {
    let Some((barn, gate, file, volunteer)) = gated_farm("an interrupted request") else { return };
    let me = barn.person("me");
    let mut asked = me.starts(&["request", &file, "-o", "marker=interrupted", "--json"]);
    asked.says("builds it", BUILD);
    asked.signal(Signal::INT);
    let end = asked.end(SOON);
    let object = end.ended_with(130).json();
    has_fields(&object, &REQUEST);
    let request = object["request"].as_str().unwrap();
    assert_eq!(object["outcome"], Value::Null);
    let back = format!("`node fetch {}`", &request[..8]);
    assert!(end.stderr.contains(&back), "how to come back: {}", end.stderr);
    assert_eq!(me.status(request)["state"], "running");
    gate.open();
    me.waits_for(request, "finished");
    assert_eq!(me.asks(&["fetch", &request[..8]], 0)["outcome"], "built");
    assert_eq!(volunteer.attempts(), 1);
}

#[test]
fn interrupted_alone_it_says_which_command_resumes_it() {
    if !crate::can_build("an interrupted farm of one") {
        return;
    }
    let farm = Farm::new();
    let home = farm.home("me");
    let marker = format!("alone-{}", std::process::id());
    // A farm of one has no gate, so this waits for a file that no build can make: long enough to be interrupted.
    let slow = recipe(
        &farm,
        "slow",
        r#"
requires = ["os=linux"]
[option.marker]
type = "text"
help = "by which the build's processes are found"
pattern = "[a-z0-9-]{1,64}"
default = "nobody"
[[step]]
run = ["sh", "-c", "until [ -e open ]; do sleep 0.05; done", "{marker}"]
"#,
    );
    let option = format!("marker={marker}");
    let mut asked = Process::start(&mut home.command(["request", &slow, "-o", &option]));
    wait_for("the build to run", BUILD, || {
        assert_eq!(asked.ended(), None, "{}", asked.stderr());
        (processes_with(&marker) > 0).then_some(())
    });
    asked.signal(Signal::INT);
    let end = asked.end(SOON);
    let again = format!("`node request {slow} -o {option}` takes it up again");
    assert!(end.ended_with(130).stderr.contains(&again), "{}", end.stderr);
    assert!(end.stderr.contains("the build stopped"), "{}", end.stderr);
    wait_for("the end of the build's processes", SOON, || (processes_with(&marker) == 0).then_some(()));
    // The home is usable again.
    assert_eq!(home.run(&["request", "hello", "--json"], BUILD).ended_with(0).json()["outcome"], "built");
}
