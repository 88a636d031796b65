//! The volunteer: it lets a stranger's program run on this machine, and lets it do nothing but build.
//!
//! ```text
//! Sandbox::probe(work)                       once: does this machine have a sandbox, and if not, why?
//!   Workspace::create(work, attempt, user)   per attempt: a fresh folder; unpack the source into `build_path()`
//!   workspace.hand_over()                    now it is the build user's
//!   sandbox.enclose(Setup { … })             limits, tools, control group, log
//!     enclosure.run(&step, &cancel)          per step: to the proven death of all its processes
//!     collect(workspace, outputs, …)         what the recipe declared, and nothing that is not a plain file
//!     enclosure.close()                      nothing is left
//! workspace::sweep(work)                     at start: what a crash has left
//! ```
//!
//! Reading order: [`sandbox`] says what a build sees, `launcher` and `seccomp` how it is shut in, [`process`] how it is watched
//! and ended, [`cgroup`] and `watch` what it may use, [`workspace`] and `janitor` where it works, [`mod@collect`] what is taken
//! from it. The threats that each of them answers are in the rules of those pages; nothing here trusts the build, its files, its
//! names or its exit status.

pub mod build_log;
pub mod cgroup;
pub mod collect;
pub mod enclosure;
mod janitor;
mod launcher;
pub mod limits;
pub mod probe;
pub mod process;
pub mod sandbox;
mod seccomp;
mod watch;
pub mod workspace;

pub use launcher::{LaunchError, Moment};

#[cfg(test)]
mod tests;
