//! What one attempt may use, and the name of what ran out.
//!
//! The numbers are chosen by the volunteer's owner and the recipe; this module only gives them units. It promises that every
//! limit has one name, the same in types, reports and mail.

use std::time::Duration;

/// What all steps of one attempt may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from the start of the first step to the end of the last, waiting between steps not counted.
    pub wall: Duration,
    /// Memory of all processes, with their temporary files and page cache where a control group counts them.
    pub memory_bytes: u64,
    /// Processes and threads at one moment.
    pub processes: u32,
    /// How much of the log is kept. A build that writes four times as much is killed.
    pub log_bytes: u64,
    /// What the work folder may occupy; also the greatest size of one file.
    pub disk_bytes: u64,
    /// Processor cores.
    pub cores: u32,
    /// Time without a sign of progress: no output, and no processor time worth the name.
    pub quiet: Duration,
}
