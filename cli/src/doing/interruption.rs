//! What is said to whoever interrupts a request: where it stands, and how to come back to it.

use crate::exit::{Exit, Failure};
use crate::sentences::{self, Said};
use protocol::id::RequestId;

/// Whether a command is its own farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    Yes,
    No,
}

/// What is said to who interrupts a command that has submitted these.
pub(super) fn interrupted(alone: Alone, submitted: &[RequestId]) -> Failure {
    let said = match (alone, submitted) {
        (Alone::Yes, _) => sentences::interrupted_alone(&again()),
        (Alone::No, []) => {
            Said::with_next("interrupted before the farm had the request", format!("ask again: `{}`", again()))
        }
        (Alone::No, [request]) => sentences::interrupted(*request),
        (Alone::No, requests) => sentences::interrupted_many(requests.len(), &again()),
    };
    Failure::new(Exit::Interrupted, said)
}

/// The command as it was typed, to be typed again.
fn again() -> String {
    let words: Vec<String> = std::env::args().skip(1).map(|word| shell_word(&word)).collect();
    format!("node {}", words.join(" "))
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
