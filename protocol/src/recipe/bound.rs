//! How long a step can get, whatever its options are.

use super::env::Variable;
use super::option::{Choice, OptionRule, Sort, Spread};
use super::plan::MAX_HERE_BYTES;
use super::template::{Piece, Word};
use crate::request::Name;
use std::collections::BTreeMap;

/// What a length takes in canonical CBOR, at most.
const LENGTH: usize = 3;
/// What the sort of a value takes: a map of one, and its name.
const KIND: usize = 9;

/// Lengths at worst, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Bound<'a>(pub(super) &'a BTreeMap<Name, OptionRule>);

impl Bound<'_> {
    /// Of all words that these turn into, with the byte that ends each.
    pub(super) fn words(self, words: &[Word]) -> usize {
        words.iter().map(|word| self.word(word)).sum()
    }

    /// Of what a variable is set to.
    pub(super) fn variable(self, variable: &Variable) -> usize {
        self.words(variable.words())
    }

    /// Of the names and values of all options, as a request holds them.
    pub(super) fn settings(self) -> usize {
        let value = |rule: &OptionRule| match &rule.sort {
            Sort::Bool { .. } => 1,
            Sort::Integer { .. } => 9,
            Sort::Text { pattern, .. } => pattern.longest() + LENGTH,
            Sort::Choice { choices, .. } => longest(choices) + LENGTH,
            Sort::List { choices, .. } => {
                choices.iter().map(|choice| choice.value.len() + LENGTH).sum::<usize>() + LENGTH
            }
        };
        self.0.iter().map(|(name, rule)| name.as_str().len() + LENGTH + KIND + value(rule)).sum()
    }

    fn word(self, word: &Word) -> usize {
        let plain = |words: &[Word]| words.iter().map(|word| word.as_str().len() + 1).sum::<usize>();
        let listed = |choice: &Choice| plain(choice.words.as_deref().unwrap_or_default());
        match word.whole().and_then(|name| self.0.get(name)).map(|rule| &rule.sort) {
            Some(Sort::Bool { yes, no, .. }) => return plain(yes).max(plain(no)),
            Some(Sort::Choice { choices, .. }) if choices.iter().any(|choice| choice.words.is_some()) => {
                return choices.iter().map(listed).max().unwrap_or(0);
            }
            Some(Sort::List { choices, .. }) if choices.iter().any(|choice| choice.words.is_some()) => {
                return choices.iter().map(listed).sum();
            }
            _ => {}
        }
        let once = word.pieces().iter().map(|piece| self.piece(piece)).sum::<usize>() + 1;
        once * word.options().map(|name| self.copies(name)).max().unwrap_or(1)
    }

    fn piece(self, piece: &Piece) -> usize {
        match piece {
            Piece::Plain(text) => text.len(),
            // Ten digits of a u32; nineteen and a sign of an i64.
            Piece::Jobs => 10,
            Piece::Here => MAX_HERE_BYTES,
            Piece::Option(name) => match self.0.get(name).map(|rule| &rule.sort) {
                Some(Sort::Integer { .. }) => 20,
                Some(Sort::Choice { choices, .. } | Sort::List { choices, spread: Spread::Words, .. }) => {
                    longest(choices)
                }
                Some(Sort::List { choices, spread: Spread::Joined(between), .. }) => {
                    choices.iter().map(|choice| choice.value.len() + between.len()).sum()
                }
                Some(Sort::Text { pattern, .. }) => pattern.longest(),
                // No word holds it but as a whole.
                Some(Sort::Bool { .. }) | None => 0,
            },
        }
    }

    /// How often a word that holds this option can stand.
    fn copies(self, name: &Name) -> usize {
        match self.0.get(name).map(|rule| &rule.sort) {
            Some(Sort::List { choices, spread: Spread::Words, .. }) => choices.len(),
            _ => 1,
        }
    }
}

fn longest(choices: &[Choice]) -> usize {
    choices.iter().map(|choice| choice.value.len()).max().unwrap_or(0)
}
