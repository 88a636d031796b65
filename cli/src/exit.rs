//! How the program ends: the exit codes that scripts rely on.
//!
//! The numbers are an interface. Whatever ends a command is turned into an [`Exit`] once, here, and nowhere else.

use crate::sentences::{self, Said};
use protocol::farm::command::Rejection;
use protocol::farm::explain::Ended;
use protocol::wire::Refusal;
use std::process::ExitCode;

/// Every way to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Built and fetched, or whatever was asked is done.
    Done = 0,
    /// The recipe's own failure.
    BuildError = 1,
    /// What was typed makes no sense.
    Usage = 2,
    /// No farm is known, or no coordinator can be reached.
    Unreachable = 3,
    /// Refused, cancelled, limited or expired.
    Policy = 4,
    /// The farm or this machine failed.
    Infrastructure = 5,
    /// Interrupted from the keyboard: 128 + SIGINT, as shells have it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&Ended> for Exit {
    fn from(ended: &Ended) -> Self {
        match ended {
            Ended::Built { .. } => Self::Done,
            Ended::BuildError { .. } => Self::BuildError,
            Ended::Infrastructure { .. } => Self::Infrastructure,
            Ended::Policy(_) => Self::Policy,
        }
    }
}

impl From<&Rejection> for Exit {
    fn from(_: &Rejection) -> Self {
        Self::Policy
    }
}

impl From<&Refusal> for Exit {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            // Nobody who could answer was reached.
            Refusal::NotACoordinator
            | Refusal::NotTheLeader
            | Refusal::Version(_)
            | Refusal::OtherFarm
            | Refusal::Busy
            | Refusal::ShuttingDown => Self::Unreachable,
            Refusal::Invalid(_) | Refusal::NotAllowed | Refusal::ClockAhead => Self::Policy,
            Refusal::Failed(_) => Self::Infrastructure,
        }
    }
}

/// Why a command did not do what it was asked: the code for scripts and the sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// What is said.
    pub(crate) said: Said,
}

impl Failure {
    /// A failure with its sentence.
    pub(crate) fn new(exit: Exit, said: Said) -> Self {
        Self { exit, said }
    }
}

impl From<&Rejection> for Failure {
    fn from(rejection: &Rejection) -> Self {
        Self::new(rejection.into(), sentences::rejected(rejection))
    }
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        Self::new(refusal.into(), sentences::refused(refusal))
    }
}

/// Stdout closed or full: whoever read it has gone, and nothing else can be said there.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let said = Said::with_next(format!("cannot write the answer: {error}"), "look at where stdout leads");
        Self::new(Exit::Infrastructure, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::farm::explain::{Confirmed, PolicyEnd};

    #[test]
    fn the_numbers_are_an_interface() {
        let numbers = [
            (Exit::Done, 0),
            (Exit::BuildError, 1),
            (Exit::Usage, 2),
            (Exit::Unreachable, 3),
            (Exit::Policy, 4),
            (Exit::Infrastructure, 5),
            (Exit::Interrupted, 130),
        ];
        for (exit, number) in numbers {
            assert_eq!(exit as u8, number, "{exit:?}");
        }
    }

    #[test]
    fn each_kind_of_end_has_its_code() {
        let reason = || "because".to_owned();
        assert_eq!(Exit::from(&Ended::BuildError { reason: reason(), confirmed: Confirmed::No }), Exit::BuildError);
        assert_eq!(Exit::from(&Ended::Infrastructure { reason: reason() }), Exit::Infrastructure);
        assert_eq!(Exit::from(&Ended::Policy(PolicyEnd::Cancelled)), Exit::Policy);
        assert_eq!(Exit::from(&Refusal::NotTheLeader), Exit::Unreachable);
        assert_eq!(Exit::from(&Refusal::NotAllowed), Exit::Policy);
        assert_eq!(Exit::from(&Rejection::UnknownRequest), Exit::Policy);
    }
}
