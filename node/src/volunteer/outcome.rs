//! How a step ended, in one word for every cause, and the rule that finds the word.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use super::launcher::LaunchError;
use protocol::report::Limit;

/// How a step ended.
#[derive(Debug)]
pub enum Outcome {
    /// The command ended by itself. 127 when it was not found and 126 when it could not be executed, as shells say it.
    Exited(i32),
    /// The command was killed by this signal, or is a shell whose last command was.
    Signalled(i32),
    /// A limit ended it, whatever its exit status says.
    Limit(Limit),
    /// Whoever ordered it no longer wants it.
    Cancelled,
    /// The sandbox failed; this says nothing about the recipe.
    SandboxFailed(SandboxFailure),
}

/// Why a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxFailure {
    /// Bubblewrap could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Bubblewrap gave up before the command started.
    #[error("bubblewrap gave up: {words}")]
    Setup {
        /// The end of what it said.
        words: String,
    },
    /// Somebody else killed the sandbox.
    #[error("the sandbox was killed by signal {signal}")]
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// Processes may be alive after [`DEATH_TIME`](super::DEATH_TIME); nothing may be collected from this work folder.
    #[error("not all processes of the build could be killed")]
    Survivors,
    /// The watching itself failed.
    #[error("watching the build failed: {0}")]
    Watching(#[from] io::Error),
    /// An argument or a variable cannot be passed to a program.
    #[error("`{0}` cannot be an argument or a variable")]
    Unspeakable(String),
    /// Somebody else filled the disk that the work folder lies on.
    #[error("less than {} MiB are free on the volunteer's disk", super::floor::BYTES >> 20)]
    HostFull,
    /// An earlier step left survivors.
    #[error("an earlier step of this attempt is not proven dead")]
    Unsettled,
}

/// What a step used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From start to proven death.
    pub wall: Duration,
    /// Processor time of all processes; none where it is not counted.
    pub cpu: Option<Duration>,
    /// The most memory at one moment of the attempt so far; none where it is not counted.
    pub peak_memory_bytes: Option<u64>,
}

/// How a step ended and what it used.
#[derive(Debug)]
pub struct StepEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
}

/// Why we killed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    HostFull,
    Limit(Limit),
}

/// What a step used and ran into, told after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) ran_out_of_memory: bool,
    pub(super) ran_out_of_processes: bool,
    /// The host's disk has less than its floor free: whatever the step wrote may be cut off.
    pub(super) host_is_full: bool,
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) cpu: Option<Duration>,
}

/// All that decides an outcome.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) stop: Option<Stop>,
    /// The command's own exit code, if it was executed and bubblewrap saw its end.
    pub(super) command: Option<i32>,
    pub(super) sandbox: ExitStatus,
    pub(super) findings: Findings,
    pub(super) last_words: String,
}

/// The outcome. A pure rule, so that each of its lines can be tested.
pub(super) fn conclude(ending: &Ending) -> Outcome {
    match ending.stop {
        Some(Stop::Cancelled) => return Outcome::Cancelled,
        Some(Stop::Limit(limit)) => return Outcome::Limit(limit),
        Some(Stop::HostFull) => return Outcome::SandboxFailed(SandboxFailure::HostFull),
        None => {}
    }
    // A parent may ignore that its children were killed, and exit with 0: its output cannot be trusted.
    if ending.findings.ran_out_of_memory {
        return Outcome::Limit(Limit::Memory);
    }
    // As little may a command notice that its files were cut off; and if it noticed, that says nothing about the recipe.
    if ending.findings.host_is_full {
        return Outcome::SandboxFailed(SandboxFailure::HostFull);
    }
    match ending.command {
        Some(0) => Outcome::Exited(0),
        Some(_) if ending.findings.ran_out_of_processes => Outcome::Limit(Limit::Processes),
        Some(code) if code == 128 + libc::SIGXFSZ => Outcome::Limit(Limit::Disk),
        Some(code @ 129..=192) => Outcome::Signalled(code - 128),
        Some(code) => Outcome::Exited(code),
        None => never_executed(ending),
    }
}

fn never_executed(ending: &Ending) -> Outcome {
    if let Some(signal) = ending.sandbox.signal() {
        return Outcome::SandboxFailed(SandboxFailure::Killed { signal });
    }
    // Nothing of the build has run, so these words are bubblewrap's own.
    let words = ending.last_words.trim_end();
    let last = words.lines().last().unwrap_or_default();
    if last.starts_with("bwrap: execvp ") {
        return Outcome::Exited(if last.ends_with("No such file or directory") { 127 } else { 126 });
    }
    Outcome::SandboxFailed(SandboxFailure::Setup { words: words.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(command: Option<i32>) -> Ending {
        Ending {
            stop: None,
            command,
            sandbox: ExitStatus::from_raw(command.unwrap_or(1) << 8),
            findings: Findings::default(),
            last_words: String::new(),
        }
    }

    fn named(ending: &Ending) -> String {
        match conclude(ending) {
            Outcome::Limit(limit) => limit.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_ending_has_its_outcome() {
        assert_eq!(named(&ending(Some(0))), "Exited(0)");
        assert_eq!(named(&ending(Some(2))), "Exited(2)");
        assert_eq!(named(&ending(Some(128 + 11))), "Signalled(11)");
        assert_eq!(named(&ending(Some(128 + 25))), "limit:disk");
        let starved = Findings { ran_out_of_memory: true, ..Findings::default() };
        assert_eq!(named(&Ending { findings: starved, ..ending(Some(0)) }), "limit:memory");
        let cut_off = Findings { host_is_full: true, ..Findings::default() };
        for command in [Some(0), Some(1), None] {
            assert_eq!(named(&Ending { findings: cut_off, ..ending(command) }), "SandboxFailed(HostFull)");
        }
        assert_eq!(named(&Ending { stop: Some(Stop::HostFull), ..ending(None) }), "SandboxFailed(HostFull)");
        let crowded = Findings { ran_out_of_processes: true, ..Findings::default() };
        assert_eq!(named(&Ending { findings: crowded, ..ending(Some(0)) }), "Exited(0)");
        assert_eq!(named(&Ending { findings: crowded, ..ending(Some(1)) }), "limit:pids");
        assert_eq!(named(&Ending { stop: Some(Stop::Cancelled), findings: starved, ..ending(None) }), "Cancelled");
        assert_eq!(named(&Ending { stop: Some(Stop::Limit(Limit::Deadline)), ..ending(None) }), "limit:deadline");
    }

    #[test]
    fn a_missing_command_is_the_recipes_fault_and_a_failed_setup_is_not() {
        let said = |words: &str| named(&Ending { last_words: words.to_owned(), ..ending(None) });
        assert_eq!(said("bwrap: execvp cc: No such file or directory\n"), "Exited(127)");
        assert_eq!(said("bwrap: execvp ./configure: Permission denied\n"), "Exited(126)");
        let setup = "bwrap: setting up uid map: Permission denied";
        assert_eq!(said(&format!("{setup}\n")), format!("SandboxFailed(Setup {{ words: \"{setup}\" }})"));
        assert_eq!(
            named(&Ending { sandbox: ExitStatus::from_raw(9), ..ending(None) }),
            "SandboxFailed(Killed { signal: 9 })"
        );
    }
}
