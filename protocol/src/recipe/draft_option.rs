//! An option as its author writes it: which fields go with which type.

use super::check::{Fault, fault};
use super::draft::{below, conditions, text_of};
use super::error::{Part, Problem};
use super::option::in_order;
use super::{Choice, Condition, Effect, OptionError, OptionRule, Pattern, Sort, Spread, Word};
use crate::request::Name;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DraftSort {
    Choice,
    Bool,
    Integer,
    Text,
    List,
}

impl DraftSort {
    /// What the type is called, and the fields that go with it.
    fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Choice => ("choice", "`help`, `choices`, `default` and perhaps `words`"),
            Self::Bool => ("bool", "`help`, `default` and perhaps `words`"),
            Self::Integer => ("integer", "`help`, `min`, `max` and `default`"),
            Self::Text => ("text", "`help`, `pattern` and `default`"),
            Self::List => ("list", "`help`, `choices`, `default` and perhaps `words` or `join`, and `may_be_empty`"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DraftOption {
    r#type: DraftSort,
    help: String,
    default: toml::Value,
    choices: Option<Vec<String>>,
    words: Option<BTreeMap<String, Vec<Word>>>,
    min: Option<i64>,
    max: Option<i64>,
    pattern: Option<Pattern>,
    join: Option<String>,
    may_be_empty: Option<bool>,
    #[serde(default = "yes")]
    changes_result: bool,
    #[serde(default)]
    needs: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    excludes: BTreeMap<String, Vec<String>>,
}

fn yes() -> bool {
    true
}

impl DraftOption {
    /// The rule of the option called `name`.
    pub(super) fn rule(mut self, name: &Name) -> Result<OptionRule, Fault> {
        let effect = if self.changes_result { Effect::Result } else { Effect::Effort };
        let needs = rules(std::mem::take(&mut self.needs), name, "needs")?;
        let excludes = rules(std::mem::take(&mut self.excludes), name, "excludes")?;
        let sort = match self.r#type {
            DraftSort::Choice => Sort::Choice { choices: self.choices(name)?, default: text_of(&self.default) },
            DraftSort::Bool => self.bool(name)?,
            DraftSort::Integer => self.integer(name)?,
            DraftSort::Text => {
                let pattern = self.pattern.take().ok_or_else(|| self.missing(name, "pattern"))?;
                Sort::Text { pattern, default: text_of(&self.default) }
            }
            DraftSort::List => self.list(name)?,
        };
        // What the sort takes was taken; what is left has no meaning for it.
        let left = [
            ("choices", self.choices.is_some()),
            ("words", self.words.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("pattern", self.pattern.is_some()),
            ("join", self.join.is_some()),
            ("may_be_empty", self.may_be_empty.is_some()),
        ];
        match left.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => {
                let (sort, fields) = self.r#type.described();
                Err(at(name, field, Problem::NoSuchField { field, sort, fields }))
            }
            None => Ok(OptionRule { help: self.help, sort, effect, needs, excludes }),
        }
    }

    fn choices(&mut self, name: &Name) -> Result<Vec<Choice>, Fault> {
        let values = self.choices.take().ok_or_else(|| self.missing(name, "choices"))?;
        let mut words = self.words.take();
        let choice = |value| Choice { words: words.as_mut().and_then(|words| words.remove(&value)), value };
        let choices = values.into_iter().map(choice).collect();
        match words.and_then(|words| words.into_keys().next()) {
            Some(value) => Err(fault_of_word(name, value)),
            None => Ok(choices),
        }
    }

    fn bool(&mut self, name: &Name) -> Result<Sort, Fault> {
        let mut words = self.words.take().unwrap_or_default();
        let (yes, no) = (words.remove("true").unwrap_or_default(), words.remove("false").unwrap_or_default());
        if let Some(value) = words.into_keys().next() {
            return Err(fault_of_word(name, value));
        }
        let wrong = || OptionError::Bool { name: name.clone(), value: text_of(&self.default) };
        let default = self.default.as_bool().ok_or_else(|| at(name, "default", wrong().into()))?;
        Ok(Sort::Bool { yes, no, default })
    }

    fn integer(&mut self, name: &Name) -> Result<Sort, Fault> {
        let min = self.min.take().ok_or_else(|| self.missing(name, "min"))?;
        let max = self.max.take().ok_or_else(|| self.missing(name, "max"))?;
        let wrong = || OptionError::Integer { name: name.clone(), value: text_of(&self.default), min, max };
        let default = self.default.as_integer().ok_or_else(|| at(name, "default", wrong().into()))?;
        Ok(Sort::Integer { min, max, default })
    }

    fn list(&mut self, name: &Name) -> Result<Sort, Fault> {
        let choices = self.choices(name)?;
        let values = self.default.as_array().ok_or_else(|| at(name, "default", Problem::ListDefault))?;
        let default: Vec<String> = values.iter().map(text_of).collect();
        let spread = self.join.take().map_or(Spread::Words, Spread::Joined);
        let may_be_empty = self.may_be_empty.take().unwrap_or(default.is_empty());
        // The author may write the default in any order, as whoever asks may; what is no choice is left for the check to name.
        let ordered = in_order(&choices, default.iter().map(String::as_str)).ok();
        Ok(Sort::List { choices, spread, may_be_empty, default: ordered.unwrap_or(default) })
    }

    fn missing(&self, name: &Name, field: &'static str) -> Fault {
        let sort = self.r#type.described().0;
        fault(["option".into(), name.into()], Problem::MissingField { field, sort })
    }
}

fn at(name: &Name, field: &str, problem: Problem) -> Fault {
    fault(["option".into(), name.into(), field.into()], problem)
}

fn fault_of_word(name: &Name, value: String) -> Fault {
    at(name, "words", Problem::WordsForNothing(value))
}

/// What each value needs or excludes.
fn rules(
    texts: BTreeMap<String, Vec<String>>,
    name: &Name,
    field: &str,
) -> Result<BTreeMap<String, Vec<Condition>>, Fault> {
    let place: [Part; 3] = ["option".into(), name.into(), field.into()];
    let of_value = |(value, texts): (String, Vec<String>)| {
        let conditions = conditions(texts, &below(&place, value.as_str()))?;
        Ok((value, conditions))
    };
    texts.into_iter().map(of_value).collect()
}
