//! What waits says why, and starts when it can.

use crate::barn::{Barn, Gate};
use crate::deadline::{BUILD, wait_for};
use std::time::{Duration, UNIX_EPOCH};

/// How long a request may go on waiting once a volunteer is there that can build it.
const START_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn a_tool_that_nobody_has_is_named_and_the_build_starts_when_somebody_has_it() {
    if !crate::can_build("a request that waits for a tool") {
        return;
    }
    let barn = Barn::found(&[]);
    let gate = Gate::closed(&barn.farm, "gate", "frobnicator");
    let me = barn.person("me");
    let wish = ["hello", "--platform", "linux/x86_64", "--require", "tool.frobnicator"];
    if !cfg!(target_arch = "x86_64") {
        return crate::left_out("the sentence about x86_64", "this is another machine");
    }
    let request = me.leaves(&wish);
    assert_eq!(
        me.status(&request)["waiting_because"],
        "needs one of the linux/x86_64 volunteers: none is in the farm now"
    );
    let without = [barn.volunteer("one", &[]), barn.volunteer("two", &[])];
    let because = "needs tool frobnicator: 0 of 2 linux/x86_64 volunteers have it";
    wait_for(because, BUILD, || (me.status(&request)["waiting_because"] == because).then_some(()));
    let status = me.status(&request);
    assert_eq!((&status["state"], &status["attempts"]), (&"queued".into(), &0.into()));
    // People are told the same: in the queue, and while they wait.
    let seen = me.runs(&["status"]);
    assert!(seen.ended_with(0).stdout.contains(because), "{}", seen.stdout);
    let you = barn.person("you");
    let words: Vec<&str> = ["request"].iter().chain(&wish).copied().collect();
    let mut waiting = you.starts(&words);
    waiting.says(because, BUILD);

    let capable = barn.volunteer("capable", &["--tool", &gate.offer()]);
    waiting.end(BUILD).ended_with(0);
    let done = me.waits_for(&request, "finished");
    assert_eq!((&done["outcome"], &done["attempts"]), (&"built".into(), &1.into()));
    let started = UNIX_EPOCH + Duration::from_millis(done["started_at_ms"].as_u64().unwrap());
    // It may have been given the build before it said that it serves.
    let waited = started.duration_since(capable.serves_since).unwrap_or_default();
    assert!(waited <= START_WITHIN, "started {waited:?} after a capable volunteer served");
    eprintln!("started {waited:?} after a capable volunteer served");
    assert!(without.iter().all(|volunteer| volunteer.attempts() == 0));
}
