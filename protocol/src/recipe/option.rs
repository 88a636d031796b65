//! The options of a recipe: what may be chosen, and what a choice turns into.

use super::nearest::nearest;
use super::pattern::Pattern;
use super::template::Word;
use crate::request::{Name, OptionValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One value of a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The value as it is typed.
    pub value: String,
    /// The words that a whole-word hole turns into; `None` for the value itself.
    pub words: Option<Vec<Word>>,
}

/// What an option takes, and its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sort {
    /// One of a few values.
    Choice {
        /// The values in the author's order.
        choices: Vec<Choice>,
        /// The value when nothing is said.
        default: String,
    },
    /// Yes or no.
    Flag {
        /// The words that a whole-word hole turns into for yes.
        yes: Vec<Word>,
        /// The words for no.
        no: Vec<Word>,
        /// The value when nothing is said.
        default: bool,
    },
    /// A whole number from `min` to `max`.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
        /// The value when nothing is said.
        default: i64,
    },
    /// A text that matches a pattern.
    Text {
        /// What the whole text must match.
        pattern: Pattern,
        /// The value when nothing is said.
        default: String,
    },
}

/// An option of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionRule {
    /// One line for people.
    pub help: String,
    /// What it takes.
    pub sort: Sort,
}

/// Why a value is not one that an option takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The recipe has no such option.
    #[error("no option `{}`{}", .name.escape_debug(), or_known(.nearest.as_ref(), .known))]
    Unknown {
        /// What was given.
        name: String,
        /// What was probably meant.
        nearest: Option<Name>,
        /// The options there are.
        known: Vec<Name>,
    },
    /// Given more than once.
    #[error("option `{name}` is given twice")]
    Twice {
        /// The option.
        name: Name,
    },
    /// A request names no value for it, although requests name all.
    #[error("option `{name}` has no value")]
    Missing {
        /// The option.
        name: Name,
    },
    /// Not among the choices.
    #[error("option `{name}` cannot be `{}`: it is one of {}{}", .value.escape_debug(), .choices.join(", "), meant(.nearest.as_deref()))]
    Choice {
        /// The option.
        name: Name,
        /// What was given.
        value: String,
        /// What can be given.
        choices: Vec<String>,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// Neither yes nor no.
    #[error("option `{name}` cannot be `{}`: it is true or false", .value.escape_debug())]
    Flag {
        /// The option.
        name: Name,
        /// What was given.
        value: String,
    },
    /// No whole number, or out of range.
    #[error("option `{name}` cannot be `{}`: it is a whole number from {min} to {max}", .value.escape_debug())]
    Integer {
        /// The option.
        name: Name,
        /// What was given.
        value: String,
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// A text that does not match.
    #[error("option `{name}` cannot be `{}`: the whole text must match {pattern}", .value.escape_debug())]
    Text {
        /// The option.
        name: Name,
        /// What was given.
        value: String,
        /// What it must match.
        pattern: Pattern,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn or_known(nearest: Option<&Name>, known: &[Name]) -> String {
    match (nearest, known) {
        (Some(name), _) => meant(Some(name.as_str())),
        (None, []) => ": the recipe has no options".to_owned(),
        (None, known) => {
            format!(": the recipe has {}", known.iter().map(Name::as_str).collect::<Vec<_>>().join(", "))
        }
    }
}

impl OptionRule {
    /// The value when nothing is said.
    #[must_use]
    pub fn default(&self) -> OptionValue {
        match &self.sort {
            Sort::Choice { default, .. } | Sort::Text { default, .. } => OptionValue::Text(default.clone()),
            Sort::Flag { default, .. } => OptionValue::Flag(*default),
            Sort::Integer { default, .. } => OptionValue::Integer(*default),
        }
    }

    /// What can be typed, for help: `0..3`, `boehm|minimark`, `true|false`, or the pattern.
    #[must_use]
    pub fn accepts(&self) -> String {
        match &self.sort {
            Sort::Choice { choices, .. } => {
                choices.iter().map(|choice| choice.value.as_str()).collect::<Vec<_>>().join("|")
            }
            Sort::Flag { .. } => "true|false".to_owned(),
            Sort::Integer { min, max, .. } => format!("{min}..{max}"),
            Sort::Text { pattern, .. } => pattern.to_string(),
        }
    }

    /// The value that `text` stands for.
    ///
    /// # Errors
    ///
    /// [`OptionError`] when this option, called `name`, does not take it.
    pub fn read(&self, name: &Name, text: &str) -> Result<OptionValue, OptionError> {
        let value = match &self.sort {
            Sort::Choice { .. } | Sort::Text { .. } => OptionValue::Text(text.to_owned()),
            Sort::Flag { .. } => match text {
                "true" | "yes" => OptionValue::Flag(true),
                "false" | "no" => OptionValue::Flag(false),
                _ => return Err(self.refusal(name, text)),
            },
            Sort::Integer { .. } => OptionValue::Integer(text.parse().map_err(|_| self.refusal(name, text))?),
        };
        self.check(name, &value)?;
        Ok(value)
    }

    /// Whether `value` is one that this option, called `name`, takes.
    ///
    /// # Errors
    ///
    /// [`OptionError`] when it is not.
    pub fn check(&self, name: &Name, value: &OptionValue) -> Result<(), OptionError> {
        let fits = match (&self.sort, value) {
            (Sort::Choice { choices, .. }, OptionValue::Text(text)) => {
                choices.iter().any(|choice| choice.value == *text)
            }
            (Sort::Flag { .. }, OptionValue::Flag(_)) => true,
            (Sort::Integer { min, max, .. }, OptionValue::Integer(number)) => (min..=max).contains(&number),
            (Sort::Text { pattern, .. }, OptionValue::Text(text)) => pattern.matches(text),
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.refusal(name, &value.to_string())) }
    }

    fn refusal(&self, name: &Name, value: &str) -> OptionError {
        let (name, value) = (name.clone(), value.to_owned());
        match &self.sort {
            Sort::Choice { choices, .. } => {
                let choices: Vec<String> = choices.iter().map(|choice| choice.value.clone()).collect();
                let nearest = nearest(&value, choices.iter().map(String::as_str)).map(str::to_owned);
                OptionError::Choice { name, value, choices, nearest }
            }
            Sort::Flag { .. } => OptionError::Flag { name, value },
            Sort::Integer { min, max, .. } => OptionError::Integer { name, value, min: *min, max: *max },
            Sort::Text { pattern, .. } => OptionError::Text { name, value, pattern: pattern.clone() },
        }
    }

    /// The words that `value` turns into where a hole is a whole word; `None` for the value itself.
    pub(super) fn words(&self, value: &OptionValue) -> Option<&[Word]> {
        match (&self.sort, value) {
            (Sort::Choice { choices, .. }, OptionValue::Text(text)) => {
                choices.iter().find(|choice| choice.value == *text)?.words.as_deref()
            }
            (Sort::Flag { yes, no, .. }, OptionValue::Flag(flag)) => Some(if *flag { yes } else { no }),
            _ => None,
        }
    }
}

/// Every option with its value: what was given, and the defaults.
pub(super) fn resolve(
    rules: &BTreeMap<Name, OptionRule>,
    given: &[(String, String)],
) -> Result<BTreeMap<Name, OptionValue>, OptionError> {
    let mut values = BTreeMap::new();
    for (typed, text) in given {
        let (name, rule) =
            rules.iter().find(|(name, _)| name.as_str() == typed).ok_or_else(|| unknown(rules, typed))?;
        if values.insert(name.clone(), rule.read(name, text)?).is_some() {
            return Err(OptionError::Twice { name: name.clone() });
        }
    }
    for (name, rule) in rules {
        values.entry(name.clone()).or_insert_with(|| rule.default());
    }
    Ok(values)
}

/// Checks values that somebody else resolved: all of them, and no other.
pub(super) fn check(
    rules: &BTreeMap<Name, OptionRule>,
    values: &BTreeMap<Name, OptionValue>,
) -> Result<(), OptionError> {
    if let Some(name) = values.keys().find(|name| !rules.contains_key(*name)) {
        return Err(unknown(rules, name.as_str()));
    }
    rules.iter().try_for_each(|(name, rule)| match values.get(name) {
        Some(value) => rule.check(name, value),
        None => Err(OptionError::Missing { name: name.clone() }),
    })
}

pub(super) fn unknown(rules: &BTreeMap<Name, OptionRule>, typed: &str) -> OptionError {
    let meant = nearest(typed, rules.keys().map(Name::as_str));
    OptionError::Unknown {
        name: typed.to_owned(),
        nearest: rules.keys().find(|name| Some(name.as_str()) == meant).cloned(),
        known: rules.keys().cloned().collect(),
    }
}
