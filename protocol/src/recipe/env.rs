//! Variables of a step's environment.

use super::template::Word;
use serde::{Deserialize, Serialize};
use std::slice;

/// What a variable is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Variable {
    /// One text, always set.
    Text(Word),
    /// Words as a step has them, with one space between; not set where no word is left.
    Words(Vec<Word>),
}

impl Variable {
    /// Its words, of which a text is one.
    #[must_use]
    pub fn words(&self) -> &[Word] {
        match self {
            Self::Text(word) => slice::from_ref(word),
            Self::Words(words) => words,
        }
    }
}
