//! The volunteer: it lets a stranger's program run on this machine, and lets it do nothing but build.
//!
//! ```text
//! Sandbox::probe(work)                       once: does this machine have a sandbox, and if not, why?
//! sweep(work)                                at start: what a crash has left
//!   Workspace::create(work, attempt, user)   per attempt: a fresh folder; unpack the source into `build_path()`
//!   workspace.hand_over()                    now it is the build user's
//!   sandbox.enclose(Setup { … })             limits, tools, control group, log
//!     enclosure.log()                        read by offset, followed, kept
//!     enclosure.run(&step, &cancel)          per step: to the proven death of all its processes
//!     enclosure.collect(&outputs, …)         what the recipe declared, and nothing that is not a plain file
//!     enclosure.close()                      nothing is left
//! ```
//!
//! Reading order: `sandbox` says what a build sees, `launcher` and `seccomp` how it is shut in, `process` how it is watched and
//! ended, `outcome` what that is called, `hierarchy`, `cgroup` and `watch` what it may use, `floor` what must stay free, `vitals`
//! what it shows, `workspace` and `janitor` where it works, `output` and `collect` what is taken from it. Nothing here trusts the
//! build, its files, its names or its exit status.

pub mod announce;
mod build_log;
pub mod builder;
mod cgroup;
mod collect;
pub mod duty;
mod enclosure;
mod floor;
mod hierarchy;
mod janitor;
mod launcher;
mod limits;
pub mod machine;
mod outcome;
mod output;
mod probe;
mod process;
pub mod running;
mod sandbox;
mod seccomp;
pub mod staff;
mod supply;
mod surroundings;
pub mod survey;
mod tool;
pub mod toolchain;
mod verdicts;
mod vitals;
mod watch;
pub mod workshop;
mod workspace;

pub use build_log::{BuildLog, CHUNK_BYTES, LogChunk};
pub use collect::{CollectError, CollectLimits, Collected, FileKind};
pub use enclosure::{Enclosure, EnclosureError, Setup};
pub use hierarchy::{Absent, Hierarchy, Seat};
pub use launcher::{LaunchError, Moment};
pub use limits::Limits;
pub use outcome::{Outcome, SandboxFailure, StepEnd, Usage};
pub use output::{NotAPattern, OutputPattern};
pub use probe::Unavailable;
pub use process::DEATH_TIME;
pub use sandbox::{Confinement, Sandbox, Step};
pub use surroundings::{ALIAS_DIR, BUILD_DIR, HOME_DIR, Surroundings};
pub use tool::{Alias, Tool, ToolError};
pub use vitals::Vitals;
pub use workspace::{BUILD_UIDS, BuildUser, FIRST_BUILD_UID, Workspace, WorkspaceError, sweep};

#[cfg(test)]
mod tests;
