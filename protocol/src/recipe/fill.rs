//! Filling the holes of words with the values of options.
//!
//! Each word of the author turns into no word, one or several, never into a part of one: a hole that is the whole word turns
//! into the words that the author listed for the value, and a list without `join` repeats its word for each of its values.

use super::env::Variable;
use super::option::{OptionRule, Sort, Spread};
use super::plan::Ground;
use super::template::{Piece, Word};
use crate::request::{Name, OptionValue};
use std::collections::BTreeMap;

/// Fills holes. The options were checked against the rules before.
#[derive(Clone, Copy)]
pub(super) struct Filling<'a> {
    pub(super) rules: &'a BTreeMap<Name, OptionRule>,
    pub(super) options: &'a BTreeMap<Name, OptionValue>,
    pub(super) effort: &'a BTreeMap<Name, OptionValue>,
    pub(super) ground: Ground<'a>,
}

impl<'a> Filling<'a> {
    pub(super) fn words(&self, words: &[Word]) -> Vec<String> {
        let mut filled = Vec::with_capacity(words.len());
        for word in words {
            if let Some(listed) = word.whole().and_then(|name| self.rules.get(name)?.words(self.value(name)?)) {
                filled.extend(listed.into_iter().map(|word| self.word(word)));
            } else if let Some((name, values)) = word.options().find_map(|name| self.spreading(name)) {
                filled.extend(values.iter().map(|value| self.word_with(word, Some((name, value.as_str())))));
            } else {
                filled.push(self.word(word));
            }
        }
        filled
    }

    /// The text of a variable; `None` where it is not set.
    pub(super) fn variable(&self, variable: &Variable) -> Option<String> {
        match variable {
            Variable::Text(word) => Some(self.word(word)),
            Variable::Words(words) => Some(self.words(words).join(" ")).filter(|text| !text.is_empty()),
        }
    }

    pub(super) fn word(&self, word: &Word) -> String {
        self.word_with(word, None)
    }

    fn word_with(&self, word: &Word, spread: Option<(&Name, &str)>) -> String {
        let mut filled = String::new();
        for piece in word.pieces() {
            match (piece, spread) {
                (Piece::Plain(text), _) => filled.push_str(text),
                (Piece::Jobs, _) => filled.push_str(&self.ground.jobs.to_string()),
                (Piece::Here, _) => filled.push_str(self.ground.here),
                (Piece::Option(name), Some((spread, value))) if name == spread => filled.push_str(value),
                (Piece::Option(name), _) => {
                    if let (Some(rule), Some(value)) = (self.rules.get(name), self.value(name)) {
                        filled.push_str(&rule.text(value));
                    }
                }
            }
        }
        filled
    }

    fn value(&self, name: &Name) -> Option<&'a OptionValue> {
        self.options.get(name).or_else(|| self.effort.get(name))
    }

    /// The values for each of which a word that holds this option stands once.
    fn spreading<'n>(&self, name: &'n Name) -> Option<(&'n Name, &'a [String])> {
        match (&self.rules.get(name)?.sort, self.value(name)?) {
            (Sort::List { spread: Spread::Words, .. }, OptionValue::List(values)) => Some((name, values)),
            _ => None,
        }
    }
}
