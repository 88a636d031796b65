//! Conditions: `gc=boehm`, `opt=2|3`, `os=linux`.
//!
//! A condition names an option of the recipe, or `os` or `arch` of the platform that a request asks for, and the values of
//! which one must be there. The same form says when a step runs, an output is declared or a variant counts, and what a value
//! of an option needs or excludes. Nothing here knows which options a recipe has.

use crate::platform::{Constraint, Requirement, Value};
use crate::request::{Name, OptionValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Keys of the platform that a condition may ask for; no option may take their names.
pub const PLATFORM_KEYS: [&str; 2] = ["os", "arch"];
/// The most conditions that stand together.
pub const MAX_CONDITIONS: usize = 8;
/// The most values of a condition.
pub const MAX_CONDITION_VALUES: usize = 32;

/// The text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a condition: write OPTION=VALUE, OPTION=VALUE|VALUE, os=NAME or arch=NAME", .0.escape_debug())]
pub struct ConditionError(String);

/// `SUBJECT=VALUE`, or several values with `|` between them of which one is enough.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    subject: Name,
    values: Vec<String>,
}

impl Condition {
    /// The option, or the key of the platform.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The values of which one is enough, never none.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether it asks for the platform and not for an option.
    #[must_use]
    pub fn is_about_platform(&self) -> bool {
        PLATFORM_KEYS.contains(&self.subject.as_str())
    }

    /// Whether `other` holds wherever this one does.
    #[must_use]
    pub fn implies(&self, other: &Self) -> bool {
        self.subject == other.subject && self.values.iter().all(|value| other.values.contains(value))
    }

    /// Whether an option with this value fulfils it.
    #[must_use]
    pub fn holds(&self, value: &OptionValue) -> bool {
        self.values.iter().any(|wanted| has(value, wanted))
    }
}

/// Whether an option has this value: a list has each of its values, and one that is empty has the empty text.
pub(super) fn has(value: &OptionValue, wanted: &str) -> bool {
    match value {
        OptionValue::Text(text) => text == wanted,
        OptionValue::List(values) if values.is_empty() => wanted.is_empty(),
        OptionValue::List(values) => values.iter().any(|value| value == wanted),
        OptionValue::Bool(_) | OptionValue::Integer(_) => value.to_string() == wanted,
    }
}

impl TryFrom<String> for Condition {
    type Error = ConditionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let read = || {
            let (subject, values) = text.split_once('=')?;
            let values: Vec<String> = values.split('|').map(str::to_owned).collect();
            let good = values.len() <= MAX_CONDITION_VALUES
                && values.iter().enumerate().all(|(at, value)| !values[..at].contains(value));
            Some(Self { subject: subject.parse().ok()?, values }).filter(|_| good)
        };
        read().ok_or_else(|| ConditionError(text.clone()))
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.to_string()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.subject, self.values.join("|"))
    }
}

/// What conditions are held against: the options of a build, and the platform that its requirement fixes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    pub(super) options: &'a BTreeMap<Name, OptionValue>,
    pub(super) requirement: &'a Requirement,
}

impl Circumstances<'_> {
    /// Whether all of `when` holds; nothing at all always does.
    pub(super) fn allow(&self, when: &[Condition]) -> bool {
        when.iter().all(|condition| {
            if condition.is_about_platform() {
                let fixed = fixed(self.requirement, condition.subject().as_str());
                fixed.is_some_and(|fixed| condition.values().iter().any(|wanted| wanted == fixed))
            } else {
                self.options.get(condition.subject()).is_some_and(|value| condition.holds(value))
            }
        })
    }
}

/// The word that `key` of a volunteer must be, where the requirement leaves no choice.
pub(super) fn fixed<'a>(requirement: &'a Requirement, key: &str) -> Option<&'a str> {
    match requirement.get(key) {
        Some(Constraint::Is(Value::Text(word))) => Some(word),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn condition(text: &str) -> Condition {
        Condition::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn what_is_written_prints_back_and_the_rest_is_refused() {
        for text in ["gc=boehm", "opt=2|3", "label=", "os=linux"] {
            assert_eq!(condition(text).to_string(), text);
        }
        let many = format!("a={}", (0..=MAX_CONDITION_VALUES).map(|at| at.to_string()).collect::<Vec<_>>().join("|"));
        for text in ["", "gc", "=x", "GC=x", "gc>=3", "gc=a|a", &many] {
            assert!(Condition::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn every_sort_of_value_is_compared_as_it_is_typed() {
        let list = |values: &[&str]| OptionValue::List(values.iter().map(|&value| value.to_owned()).collect());
        for (text, value, holds) in [
            ("o=true", OptionValue::Bool(true), true),
            ("o=true", OptionValue::Bool(false), false),
            ("o=2|3", OptionValue::Integer(3), true),
            ("o=2|3", OptionValue::Integer(23), false),
            ("o=jit", OptionValue::Text("jit".to_owned()), true),
            ("o=a|b", list(&["b", "c"]), true),
            ("o=a", list(&["b", "c"]), false),
            ("o=", list(&[]), true),
            ("o=", list(&["b"]), false),
        ] {
            assert_eq!(condition(text).holds(&value), holds, "{text} {value:?}");
        }
    }

    #[test]
    fn all_conditions_must_hold_and_an_open_platform_fulfils_none() {
        let options = BTreeMap::from([("gc".parse().unwrap(), OptionValue::Text("boehm".to_owned()))]);
        let mut requirement = Requirement::none();
        requirement.add("os", Constraint::Is(Value::Text("linux".to_owned())));
        let circumstances = Circumstances { options: &options, requirement: &requirement };
        let allow = |texts: &[&str]| circumstances.allow(&texts.iter().map(|text| condition(text)).collect::<Vec<_>>());
        assert!(allow(&[]) && allow(&["os=linux"]) && allow(&["os=darwin|linux", "gc=boehm"]));
        assert!(!allow(&["os=linux", "gc=none"]) && !allow(&["arch=x86_64"]) && !allow(&["other=1"]));
    }
}
