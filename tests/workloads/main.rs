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
mod order;
mod sources;

mod native;
mod rpython;

/// Whether everything is to be built, whatever time it takes.
fn is_whole() -> bool {
    std::env::var_os("BARNRAISE_WORKLOADS").is_some_and(|word| word == "whole")
}

/// Whether this machine can run builds; says so where it cannot.
fn can_build(what: &str) -> bool {
    let report = farm::Farm::new().home("doctor").run(&["doctor"], deadline::SOON);
    if report.code != Some(0) {
        left_out(what, &report.stderr);
    }
    report.code == Some(0)
}

/// Says that this machine cannot run something. `scripts/test` sets `BARNRAISE_TESTS=whole` where it installed all that the
/// tests use, and then nothing may be left out.
fn left_out(what: &str, because: &str) {
    assert!(std::env::var_os("BARNRAISE_TESTS").is_none_or(|word| word != "whole"), "{what} was left out: {because}");
    not_here(what, because);
}

/// Says that this machine has no part in something, where no script installs what it lacks.
fn not_here(what: &str, because: &str) {
    eprintln!("left out: {what}: {because}");
}
