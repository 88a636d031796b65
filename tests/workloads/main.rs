//! Software that nobody wrote for a test, built by farms of real processes: what was built must run.
//!
//! [`native`] builds C programs twice and compares them bit for bit, [`rpython`] translates programs with PyPy's own toolchain.
//! Both print figures. Without more they build little enough for every change; `BARNRAISE_WORKLOADS=whole`, which
//! `scripts/workloads` sets, builds all of it. What a machine cannot run is named.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/barn.rs"]
mod barn;
#[path = "../integration/deadline.rs"]
mod deadline;
#[path = "../integration/debian.rs"]
mod debian;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/farm.rs"]
mod farm;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/lacks.rs"]
mod lacks;
mod order;
mod sources;

mod native;
mod rpython;

use lacks::{can_build, left_out, not_here};

/// Whether everything is to be built, whatever time it takes.
fn is_whole() -> bool {
    std::env::var_os("BARNRAISE_WORKLOADS").is_some_and(|word| word == "whole")
}
