//! Filling the holes of words with the values of options.

use super::option::OptionRule;
use super::template::{Piece, Word};
use crate::request::{Name, OptionValue};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Fills holes. The options were checked against the rules before.
pub(super) struct Filling<'a> {
    pub(super) rules: &'a BTreeMap<Name, OptionRule>,
    pub(super) options: &'a BTreeMap<Name, OptionValue>,
    pub(super) jobs: NonZeroU32,
}

impl Filling<'_> {
    pub(super) fn words(&self, words: &[Word]) -> Vec<String> {
        let mut filled = Vec::with_capacity(words.len());
        for word in words {
            let listed = word.whole().and_then(|name| self.rules.get(name)?.words(self.options.get(name)?));
            match listed {
                Some(listed) => filled.extend(listed.iter().map(|word| self.word(word))),
                None => filled.push(self.word(word)),
            }
        }
        filled
    }

    pub(super) fn word(&self, word: &Word) -> String {
        let mut filled = String::new();
        for piece in word.pieces() {
            match piece {
                Piece::Plain(text) => filled.push_str(text),
                Piece::Jobs => filled.push_str(&self.jobs.to_string()),
                Piece::Option(name) => {
                    if let Some(value) = self.options.get(name) {
                        filled.push_str(&value.to_string());
                    }
                }
            }
        }
        filled
    }
}
