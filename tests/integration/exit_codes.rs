//! The exit codes, by real processes in a farm. Code 1 is tried in a farm of one, code 5 by the doctor.

use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, Home, Process};
use rustix::process::Signal;

/// A coordinator that volunteers with `more` flags, and its ticket.
fn barn(home: &Home, words: &[&str]) -> (Process, String) {
    let mut daemon = home.daemon(words);
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    (daemon, ticket)
}

#[test]
fn a_farm_answers_each_end_with_its_code() {
    if !crate::can_build("a farm of real processes") {
        return;
    }
    let farm = Farm::new();
    let (mut daemon, ticket) =
        barn(&farm.home("barn"), &["--coordinator", "--volunteer", "--farm-name", "pypy", "--no-mdns"]);
    let me = farm.home("me");
    let asks = |words: &[&str], code: i32| {
        let words: Vec<&str> = words.iter().copied().chain(["--json", "--farm", &ticket]).collect();
        me.run(&words, BUILD).ended_with(code).json()
    };

    // 0: built, then found.
    assert_eq!(asks(&["request", "hello"], 0)["outcome"], "built");
    assert_eq!(asks(&["request", "hello"], 0)["outcome"], "cached");
    // 2: options that the recipe does not take.
    assert!(asks(&["request", "hello", "-o", "greeting=a b"], 2)["reason"].is_string());
    assert!(asks(&["request", "hello", "-o", "colour=red"], 2)["reason"].is_string());
    // Detached, it waits for a tool that nobody has, and says so.
    let waiting = asks(&["request", "hello", "--require", "tool.nobody-has-it", "--detach"], 0);
    assert!(waiting["outcome"].is_null(), "{waiting}");
    let id = waiting["request"].as_str().unwrap().to_owned();
    let status = wait_for("the reason for waiting", SOON, || {
        let status = asks(&["status", &id[..8]], 0);
        status["waiting_because"].is_string().then_some(status)
    });
    let because = status["waiting_because"].as_str().unwrap();
    assert!(because.starts_with("needs tool nobody-has-it: 0 of 1 "), "{because}");
    assert_eq!((&status["state"], &status["attempts"]), (&"queued".into(), &0.into()));
    assert_eq!(asks(&["status"], 0)["queued"], 1);
    // 4: cancelled. 2: what is named was never there.
    assert_eq!(asks(&["cancel", &id], 0)["cancelled"], true);
    assert!(asks(&["fetch", &id], 4)["reason"].is_string());
    assert!(asks(&["status", &"0".repeat(64)], 2)["reason"].is_string());
    // 130: interrupted; the farm goes on with the request, and the way back is named.
    let words = ["request", "hello", "--require", "tool.nobody-has-it", "--farm", &ticket];
    let mut asking = Process::start(&mut me.command(words));
    wait_for("the reason for waiting", SOON, || asking.stderr().contains("needs tool nobody-has-it").then_some(()));
    asking.signal(Signal::INT);
    assert_eq!(wait_for("its end", SOON, || asking.ended()).code(), Some(130));
    wait_for("the way back", SOON, || asking.stderr().contains("`node fetch ").then_some(()));
    assert_eq!(asks(&["status"], 0)["queued"], 1, "it lives on");
    // The lists know what happened.
    assert_eq!(asks(&["builds"], 0)["builds"][0]["recipe"], "hello");
    assert!(asks(&["volunteers"], 0)["volunteers"][0]["slots"].is_u64());
    assert_eq!(asks(&["farm", "show"], 0)["ticket"], ticket.as_str());
    // 3: the coordinator is gone.
    assert!(daemon.stop().success());
    assert!(asks(&["status"], 3)["reason"].is_string());
}
