//! The real program, from outside: real processes, real sockets on loopback, real files.
//!
//! [`farm`] starts and ends processes, [`barn`] puts them to work, [`deadline`] waits for conditions, [`smtp`] is a real mail
//! server, [`origin`] a real https server with real git behind it. What a machine cannot run is named by [`lacks`], and is a
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
#[allow(dead_code, reason = "the other tests use all of it")]
mod lacks;
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

use lacks::{can_build, can_build_as, left_out};
