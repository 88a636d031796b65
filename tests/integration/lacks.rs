//! What this machine lacks: a test that it cannot run is named, never passed over in silence.

use crate::deadline::SOON;
use crate::farm::{Farm, User};

/// Whether this machine can run builds; says so where it cannot.
pub(crate) fn can_build(what: &str) -> bool {
    can_build_as(User::Tester, what)
}

/// Whether this machine can run builds of `user`; says so where it cannot.
pub(crate) fn can_build_as(user: User, what: &str) -> bool {
    let report = Farm::of(user).home("doctor").run(&["doctor"], SOON);
    if report.code != Some(0) {
        left_out(what, &report.stderr);
    }
    report.code == Some(0)
}

/// Says that this machine cannot run something. `scripts/test` sets `BARNRAISE_TESTS=whole` where it installed all that the
/// tests use, and then nothing may be left out.
pub(crate) fn left_out(what: &str, because: &str) {
    assert!(std::env::var_os("BARNRAISE_TESTS").is_none_or(|word| word != "whole"), "{what} was left out: {because}");
    not_here(what, because);
}

/// Says that this machine has no part in something, where no script installs what it lacks.
pub(crate) fn not_here(what: &str, because: &str) {
    eprintln!("left out: {what}: {because}");
}
