//! The real program, from outside: real processes, real sockets on loopback, real files.
//!
//! [`farm`] starts and ends processes, [`barn`] puts them to work, [`deadline`] waits for conditions, [`smtp`] is a real mail
//! server, [`origin`] a real https server with real git behind it. What a machine cannot run is named by [`left_out`], and is a
//! failure where the tests were told that everything is there.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod barn;
#[allow(dead_code, reason = "the test of process faults uses all of it")]
#[path = "../faults/clock.rs"]
mod clock;
mod deadline;
mod debian;
#[allow(dead_code, reason = "the test of process faults uses all of it")]
mod disk;
mod farm;
#[path = "../origin/server.rs"]
mod origin;
mod published;
mod smtp;

mod alone;
mod archives;
mod bad_input;
mod clocks;
mod command_line;
mod crash;
mod ending;
mod exit_codes;
mod four_processes;
mod git;
mod hostile;
mod mail;
mod mail_server;
mod matrix;
mod queue;
mod reproducible;
mod standing;
mod store;
mod stranger;
mod stuck;
mod toolchain;
mod verbs;

/// Whether this machine can run builds; says so where it cannot.
fn can_build(what: &str) -> bool {
    can_build_as(farm::User::Tester, what)
}

/// Whether this machine can run builds of `user`; says so where it cannot.
fn can_build_as(user: farm::User, what: &str) -> bool {
    let report = farm::Farm::of(user).home("doctor").run(&["doctor"], deadline::SOON);
    if report.code != Some(0) {
        left_out(what, &report.stderr);
    }
    report.code == Some(0)
}

/// Says that this machine cannot run something. `scripts/test` sets `BARNRAISE_TESTS=whole` where it installed all that the
/// tests use, and then nothing may be left out.
fn left_out(what: &str, because: &str) {
    assert!(std::env::var_os("BARNRAISE_TESTS").is_none_or(|word| word != "whole"), "{what} was left out: {because}");
    eprintln!("left out: {what}: {because}");
}
