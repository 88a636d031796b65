//! A coordinator that comes up with the date of its factory.

use crate::clock::{self, Clock};
use crate::deadline::{BUILD, SOON};
use crate::farm::{Farm, Process};

#[test]
fn a_senseless_clock_is_told_and_loses_nothing() {
    let Some(library) = clock::library() else {
        return crate::left_out("clocks that jump", "no libfaketime; `apt-get install libfaketime` has it");
    };
    let farm = Farm::new();
    let (home, me) = (farm.home("coordinator"), farm.home("me"));
    let theirs = Clock::right(&library, farm.folder(), "theirs");
    let daemon = |more: &[&str]| {
        let words = ["--coordinator", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let mut command = home.command(words.iter().chain(more));
        theirs.show_to(&mut command);
        Process::start(&mut command)
    };
    let mut coordinator = daemon(&["--farm-name", "x"]);
    let ticket = coordinator.line("the ticket", |line| line.starts_with("farm1"));

    me.run(&["request", "hello", "--detach", "--log", "off", "--farm", &ticket], BUILD).ended_with(0);

    // It goes on from the last stamp, and believes the clock when it is right.
    coordinator.kill();
    theirs.set(-10 * 365 * 86_400);
    let mut coordinator = daemon(&[]);
    coordinator.says("the system's clock makes no sense: time goes on from the farm's last stamp until a peer's clock agrees with it", SOON);
    let ticket = coordinator.line("the ticket", |line| line.starts_with("farm1"));
    let queued = || me.run(&["status", "--json", "--farm", &ticket], SOON).ended_with(0).json()["queued"].clone();
    assert_eq!(queued(), 1);
    theirs.set(0);
    assert_eq!(queued(), 1);
    coordinator.says("a peer's clock agrees with the system's: it is believed", SOON);
    assert!(coordinator.stop().success());
}
