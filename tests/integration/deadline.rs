//! Waiting for conditions, each with a deadline; never for time alone.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that takes a moment.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How long a test waits for something that takes a build.
pub(crate) const BUILD: Duration = Duration::from_secs(180);

const STEP: Duration = Duration::from_millis(10);

/// The value that `look` finds, looked for again and again until the deadline.
///
/// # Panics
///
/// When it has not been found by then.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {within:?} in vain for {what}");
        thread::sleep(STEP);
    }
}
