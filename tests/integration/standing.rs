//! Where a request stands: its place, who could build it, when it will be built; from anybody who knows something of it.

use crate::barn::{Barn, Gate, Person, gated_recipe};
use crate::deadline::{SOON, wait_for};
use serde_json::{Value, json};

/// Words that ask for the gated recipe with this marker.
fn marked(name: &str) -> String {
    format!("marker={name}-{}", std::process::id())
}

/// Some fields of an object.
fn fields(object: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), object[*name].clone())).collect()
}

#[test]
fn a_request_says_its_place_and_when_it_will_be_built() {
    if !crate::can_build("an estimate from past builds") {
        return;
    }
    let barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let _volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    let me = barn.person("me");
    let leaves = |name: &str| me.leaves(&[&file, "-o", &marked(name)]);
    let first = leaves("first");
    gate.is_reached();
    let (second, third) = (leaves("second"), leaves("third"));

    let runs = wait_for("its phase", SOON, || {
        let status = me.status(&first);
        (status["phase"] == "building").then_some(status)
    });
    assert_eq!((&runs["past_builds"], &runs["latest_ms"]), (&0.into(), &Value::Null), "{runs}");
    let names =
        ["ahead", "volunteers_busy", "volunteers_free", "volunteers_gone", "volunteers_refusing", "past_builds"];
    assert_eq!(
        fields(&me.status(&third), &names),
        json!({"ahead": 1, "volunteers_busy": 1, "volunteers_free": 0, "volunteers_gone": 0, "volunteers_refusing": 0,
               "past_builds": 0})
    );
    let text = me.runs(&["status", &third]).stdout;
    assert!(text.contains("because    waits for a volunteer: 1 busy; 1 job comes first\n"), "{text}");
    assert!(text.contains("\nbuilt      unknown: no past build to judge by"), "{text}");

    gate.open();
    for request in [&first, &second, &third] {
        me.waits_for(request, "finished");
    }
    gate.shut();
    let fourth = leaves("fourth");
    gate.is_reached();
    let fifth = me.status(&leaves("fifth"));
    assert_eq!(fifth["past_builds"], 3, "{fifth}");
    let (soonest, latest) = (fifth["soonest_ms"].as_u64().unwrap(), fifth["latest_ms"].as_u64().unwrap());
    assert!(soonest < latest && latest % 10_000 == 0, "a range, and no false precision: {fifth}");
    let text = me.runs(&["status", &fourth]).stdout;
    assert!(text.contains("judging by 3 past builds") || text.contains("longer than any of 3 past builds"), "{text}");
    gate.open();
}

#[test]
fn a_volunteer_tells_what_it_has_heard_when_no_coordinator_is_there() {
    if !crate::can_build("hearsay of a volunteer") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    let (me, neighbour) = (barn.person("me"), barn.at_home_of(&volunteer));
    let running = me.leaves(&[&file, "-o", &marked("running")]);
    gate.is_reached();
    let waiting = me.leaves(&[&file, "-o", &marked("waiting")]);
    // While a coordinator is there, it is asked.
    let known = neighbour.status(&waiting);
    assert_eq!((&known["ahead"], &known["told_by"]), (&0.into(), &Value::Null));

    barn.cut_power();
    assert_eq!(me.runs(&["status", &waiting]).code, Some(3), "who reaches nobody is told so");
    let told = hearsay(&neighbour, &waiting);
    assert_eq!(
        fields(&told, &["state", "request", "attempts"]),
        json!({"state": "queued", "request": waiting, "attempts": null})
    );
    assert!(told["heard_ms"].is_u64() && told["told_by"].is_string(), "{told}");
    let building = hearsay(&neighbour, &running);
    assert_eq!((&building["state"], &building["heard_ms"]), (&"running".into(), &0.into()));
    let said = neighbour.runs(&["status", &waiting[..8]]);
    assert!(said.ended_with(0).stderr.contains("no coordinator can be reached: this is hearsay, told by"), "{said:?}");
    assert!(
        said.stdout.contains("state      queued, by hearsay\nbecause    waited for a volunteer; 1 are"),
        "{said:?}"
    );
    assert_eq!(neighbour.runs(&["status", &"0".repeat(64)]).code, Some(3), "what nobody has heard of");
    gate.open();
}

/// What the volunteer of this home says, once it has noticed that its coordinator is gone.
#[track_caller]
fn hearsay(neighbour: &Person, request: &str) -> Value {
    wait_for("hearsay", SOON, || {
        let ran = neighbour.runs(&["status", request, "--json"]);
        (ran.code == Some(0)).then(|| ran.json())
    })
}
