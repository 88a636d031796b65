//! Words of a step with holes: `-O{opt}`, `{gc}`, `-j{jobs}`, `{here}/out`.
//!
//! A hole is filled with the value of an option inside *one* word; nothing is ever split, joined or given to a shell. `{{`
//! and `}}` are plain braces.

use crate::request::Name;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest word before its holes are filled, in bytes.
pub const MAX_WORD_BYTES: usize = 4_096;

/// The name that stands for the volunteer's number of cores; no option may take it.
pub const JOBS: &str = "jobs";
/// The hole for the absolute path of the folder in which the build is made: the path is not the same in every build.
pub const HERE: &str = "here";

/// Why a text is not a word of a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Too long.
    #[error("a word of a step has at most {MAX_WORD_BYTES} bytes")]
    TooLong,
    /// A control character other than a tab or a line break would end or garble the word.
    #[error("a control character in a word of a step")]
    Character,
    /// A brace without its partner, or around something that is no name.
    #[error("`{{` and `}}` stand around the name of an option; write `{{{{` and `}}}}` for plain braces")]
    Brace,
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it stands.
    Plain(String),
    /// The value of an option.
    Option(Name),
    /// How many jobs may run side by side.
    Jobs,
    /// The folder in which the build is made.
    Here,
}

/// One word of a step, with holes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word {
    text: String,
    pieces: Vec<Piece>,
}

impl Word {
    /// The word as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The word, if it has no holes.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Plain(text)] => Some(text),
            _ => None,
        }
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The options in its holes.
    pub(super) fn options(&self) -> impl Iterator<Item = &Name> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Option(name) => Some(name),
            Piece::Plain(_) | Piece::Jobs | Piece::Here => None,
        })
    }

    /// The option that this word consists of, if it is nothing but one hole.
    pub(super) fn whole(&self) -> Option<&Name> {
        match self.pieces.as_slice() {
            [Piece::Option(name)] => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.text
    }
}

impl TryFrom<String> for Word {
    type Error = WordError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() > MAX_WORD_BYTES {
            return Err(WordError::TooLong);
        }
        if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n')) {
            return Err(WordError::Character);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..];
            if brace.starts_with("{{") || brace.starts_with("}}") {
                plain.push_str(&brace[..1]);
                rest = &brace[2..];
                continue;
            }
            let (name, after) =
                brace.strip_prefix('{').and_then(|inside| inside.split_once('}')).ok_or(WordError::Brace)?;
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            pieces.push(match name {
                JOBS => Piece::Jobs,
                HERE => Piece::Here,
                name => Piece::Option(name.parse().map_err(|_| WordError::Brace)?),
            });
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Ok(Self { text, pieces })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn word(text: &str) -> Result<Word, WordError> {
        Word::try_from(text.to_owned())
    }

    #[test]
    fn holes_are_found_and_braces_kept() {
        let name = |text: &str| Piece::Option(text.parse().unwrap());
        let plain = |text: &str| Piece::Plain(text.to_owned());
        assert_eq!(word("-O{opt}").unwrap().pieces, [plain("-O"), name("opt")]);
        assert_eq!(word("{gc}").unwrap().whole(), Some(&"gc".parse().unwrap()));
        assert_eq!(word("-j{jobs}x").unwrap().pieces, [plain("-j"), Piece::Jobs, plain("x")]);
        assert_eq!(word("{here}/out").unwrap().pieces, [Piece::Here, plain("/out")]);
        assert_eq!(word("f() {{ {a}{b} }}").unwrap().pieces, [plain("f() { "), name("a"), name("b"), plain(" }")]);
        assert_eq!(word("{{opt}}").unwrap().plain(), Some("{opt}"));
        assert_eq!(word("").unwrap().plain(), Some(""));
        assert_eq!(word("a b;$(c)").unwrap().plain(), Some("a b;$(c)"));
    }

    #[test]
    fn what_is_no_word_is_refused() {
        for text in ["{", "}", "{opt", "opt}", "{}", "{Opt}", "{a b}", "{{a}", "{a{b}}"] {
            assert_eq!(word(text), Err(WordError::Brace), "{text}");
        }
        assert_eq!(word("a\0b"), Err(WordError::Character));
        assert_eq!(word(&"x".repeat(MAX_WORD_BYTES + 1)), Err(WordError::TooLong));
    }
}
