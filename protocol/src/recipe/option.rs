//! The options of a recipe: what may be chosen, and what a choice turns into.

use super::clash::Clash;
use super::condition::Condition;
use super::nearest::nearest;
use super::pattern::Pattern;
use super::template::Word;
use crate::request::{Name, OptionValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One value of a choice or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The value as it is typed.
    pub value: String,
    /// The words that a whole-word hole turns into; `None` for the value itself.
    pub words: Option<Vec<Word>>,
}

/// What the values of a list turn into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spread {
    /// A word that holds the list stands once for each value.
    Words,
    /// One text: the values with this between them.
    Joined(String),
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
    Bool {
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
    /// Several of a few values, each once, in the author's order.
    List {
        /// The values in the author's order.
        choices: Vec<Choice>,
        /// What they turn into where they stand for themselves.
        spread: Spread,
        /// Whether no value at all is one too.
        may_be_empty: bool,
        /// The values when nothing is said.
        default: Vec<String>,
    },
}

/// What an option changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// What is built: it is part of the build key.
    Result,
    /// Only how the build is done.
    Effort,
}

/// An option of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionRule {
    /// One line for people.
    pub help: String,
    /// What it takes.
    pub sort: Sort,
    /// What it changes.
    pub effect: Effect,
    /// What must hold of other options where this one has the value.
    pub needs: BTreeMap<String, Vec<Condition>>,
    /// What must not hold of other options where this one has the value.
    pub excludes: BTreeMap<String, Vec<Condition>>,
}

/// The value of every option of a recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Those that change the result: part of the build key.
    pub options: BTreeMap<Name, OptionValue>,
    /// Those that do not.
    pub effort: BTreeMap<Name, OptionValue>,
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
    /// A request names it among those that change the result and it does not, or the other way round.
    #[error("option `{name}` stands in the wrong part of the request")]
    Misplaced {
        /// The option.
        name: Name,
    },
    /// Not among the choices.
    #[error("option `{name}` cannot be `{}`: it is one of {}{}", .value.escape_debug(), several(.choices), meant(.nearest.as_deref()))]
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
    Bool {
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
    /// A value of a list that is not among its choices.
    #[error(
        "option `{name}` cannot hold `{}`: it is a list, with commas between, of {}{}",
        .value.escape_debug(), several(.choices), meant(.nearest.as_deref())
    )]
    List {
        /// The option.
        name: Name,
        /// What was given.
        value: String,
        /// What can be given.
        choices: Vec<String>,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// An empty list where one is not allowed.
    #[error("option `{name}` cannot be empty: it is a list of at least one of {}", several(.choices))]
    Empty {
        /// The option.
        name: Name,
        /// What can be given.
        choices: Vec<String>,
    },
    /// A list that a request spells in another way than the recipe does.
    #[error("option `{name}` cannot be `{}`: each value stands once, in the order of the recipe", .value.escape_debug())]
    Order {
        /// The option.
        name: Name,
        /// What was given.
        value: String,
    },
    /// Values that do not go together.
    #[error(transparent)]
    Clash(#[from] Box<Clash>),
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// The first of many values.
fn several(values: &[String]) -> String {
    const SHOWN: usize = 16;
    let more = if values.len() > SHOWN { format!(" and {} more", values.len() - SHOWN) } else { String::new() };
    format!("{}{more}", values[..values.len().min(SHOWN)].join(", "))
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
            Sort::Bool { default, .. } => OptionValue::Bool(*default),
            Sort::Integer { default, .. } => OptionValue::Integer(*default),
            Sort::List { default, .. } => OptionValue::List(default.clone()),
        }
    }

    /// What can be typed, for help: `0..3`, `boehm|minimark`, `true|false`, `thread,_ssl`, or the pattern.
    #[must_use]
    pub fn accepts(&self) -> String {
        let all = |choices: &[Choice], between| {
            choices.iter().map(|choice| choice.value.as_str()).collect::<Vec<_>>().join(between)
        };
        match &self.sort {
            Sort::Choice { choices, .. } => all(choices, "|"),
            Sort::List { choices, .. } => all(choices, ","),
            Sort::Bool { .. } => "true|false".to_owned(),
            Sort::Integer { min, max, .. } => format!("{min}..{max}"),
            Sort::Text { pattern, .. } => pattern.to_string(),
        }
    }

    /// The choices of a choice or a list.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        match &self.sort {
            Sort::Choice { choices, .. } | Sort::List { choices, .. } => choices,
            Sort::Bool { .. } | Sort::Integer { .. } | Sort::Text { .. } => &[],
        }
    }

    /// The value that `text` stands for. The values of a list are typed in any order.
    ///
    /// # Errors
    ///
    /// [`OptionError`] when this option, called `name`, does not take it.
    pub fn read(&self, name: &Name, text: &str) -> Result<OptionValue, OptionError> {
        let value = match &self.sort {
            Sort::Choice { .. } | Sort::Text { .. } => OptionValue::Text(text.to_owned()),
            Sort::Bool { .. } => match text {
                "true" | "yes" => OptionValue::Bool(true),
                "false" | "no" => OptionValue::Bool(false),
                _ => return Err(self.refusal(name, text)),
            },
            Sort::Integer { .. } => OptionValue::Integer(text.parse().map_err(|_| self.refusal(name, text))?),
            Sort::List { .. } if text.is_empty() => OptionValue::List(Vec::new()),
            Sort::List { .. } => self.listed(name, text.split(',').map(str::trim))?,
        };
        self.check(name, &value)?;
        Ok(value)
    }

    /// These values of a list, each once and in the author's order.
    pub(super) fn listed<'v>(
        &self,
        name: &Name,
        values: impl Iterator<Item = &'v str>,
    ) -> Result<OptionValue, OptionError> {
        in_order(self.choices(), values).map(OptionValue::List).map_err(|value| self.refusal(name, value))
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
            (Sort::Bool { .. }, OptionValue::Bool(_)) => true,
            (Sort::Integer { min, max, .. }, OptionValue::Integer(number)) => (min..=max).contains(&number),
            (Sort::Text { pattern, .. }, OptionValue::Text(text)) => pattern.matches(text),
            (Sort::List { may_be_empty, .. }, OptionValue::List(values)) => {
                if values.is_empty() && !may_be_empty {
                    return Err(OptionError::Empty { name: name.clone(), choices: self.values() });
                }
                if self.listed(name, values.iter().map(String::as_str))? != *value {
                    return Err(OptionError::Order { name: name.clone(), value: value.to_string() });
                }
                true
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.refusal(name, &value.to_string())) }
    }

    fn values(&self) -> Vec<String> {
        self.choices().iter().map(|choice| choice.value.clone()).collect()
    }

    fn refusal(&self, name: &Name, value: &str) -> OptionError {
        let (name, value) = (name.clone(), value.to_owned());
        let choices = self.values();
        let nearest = nearest(&value, choices.iter().map(String::as_str)).map(str::to_owned);
        match &self.sort {
            Sort::Choice { .. } => OptionError::Choice { name, value, choices, nearest },
            Sort::List { .. } => OptionError::List { name, value, choices, nearest },
            Sort::Bool { .. } => OptionError::Bool { name, value },
            Sort::Integer { min, max, .. } => OptionError::Integer { name, value, min: *min, max: *max },
            Sort::Text { pattern, .. } => OptionError::Text { name, value, pattern: pattern.clone() },
        }
    }

    /// The words that `value` turns into where a hole is a whole word; `None` for the value itself.
    pub(super) fn words(&self, value: &OptionValue) -> Option<Vec<&Word>> {
        let listed = |value: &str| self.choices().iter().find(|choice| choice.value == value)?.words.as_deref();
        match (&self.sort, value) {
            (Sort::Choice { .. }, OptionValue::Text(text)) => Some(listed(text)?.iter().collect()),
            (Sort::List { choices, .. }, OptionValue::List(values))
                if choices.iter().any(|choice| choice.words.is_some()) =>
            {
                Some(values.iter().filter_map(|value| listed(value)).flatten().collect())
            }
            (Sort::Bool { yes, no, .. }, OptionValue::Bool(flag)) => {
                Some(if *flag { yes } else { no }.iter().collect())
            }
            _ => None,
        }
    }

    /// What `value` is inside a word.
    pub(super) fn text(&self, value: &OptionValue) -> String {
        match (&self.sort, value) {
            (Sort::List { spread: Spread::Joined(between), .. }, OptionValue::List(values)) => values.join(between),
            _ => value.to_string(),
        }
    }
}

/// These values, each once and in the order of the choices; or else the first that is none of them.
pub(super) fn in_order<'v>(choices: &[Choice], values: impl Iterator<Item = &'v str>) -> Result<Vec<String>, &'v str> {
    let mut chosen = vec![false; choices.len()];
    for value in values {
        let at = choices.iter().position(|choice| choice.value == value);
        chosen[at.ok_or(value)?] = true;
    }
    let chosen = choices.iter().zip(chosen).filter(|(_, chosen)| *chosen);
    Ok(chosen.map(|(choice, _)| choice.value.clone()).collect())
}

/// Every option with its value: what was given, and the defaults.
pub(super) fn resolve(rules: &BTreeMap<Name, OptionRule>, given: &[(String, String)]) -> Result<Settings, OptionError> {
    let mut values = BTreeMap::new();
    for (typed, text) in given {
        let (name, rule) =
            rules.iter().find(|(name, _)| name.as_str() == typed).ok_or_else(|| unknown(rules, typed))?;
        if values.insert(name.clone(), rule.read(name, text)?).is_some() {
            return Err(OptionError::Twice { name: name.clone() });
        }
    }
    let mut settings = Settings::default();
    for (name, rule) in rules {
        let value = values.remove(name).unwrap_or_else(|| rule.default());
        let part = match rule.effect {
            Effect::Result => &mut settings.options,
            Effect::Effort => &mut settings.effort,
        };
        part.insert(name.clone(), value);
    }
    Clash::find(rules, &settings.options).map_or(Ok(settings), |clash| Err(Box::new(clash).into()))
}

/// Checks values that somebody else resolved: all of them in their places, and no other.
pub(super) fn check(
    rules: &BTreeMap<Name, OptionRule>,
    options: &BTreeMap<Name, OptionValue>,
    effort: &BTreeMap<Name, OptionValue>,
) -> Result<(), OptionError> {
    check_part(rules, effort, Effect::Effort)?;
    check_spec(rules, options)
}

/// Checks the values of all options that change the result, and that they go together.
pub(super) fn check_spec(
    rules: &BTreeMap<Name, OptionRule>,
    options: &BTreeMap<Name, OptionValue>,
) -> Result<(), OptionError> {
    check_part(rules, options, Effect::Result)?;
    Clash::find(rules, options).map_or(Ok(()), |clash| Err(Box::new(clash).into()))
}

fn check_part(
    rules: &BTreeMap<Name, OptionRule>,
    values: &BTreeMap<Name, OptionValue>,
    effect: Effect,
) -> Result<(), OptionError> {
    for name in values.keys() {
        let rule = rules.get(name).ok_or_else(|| unknown(rules, name.as_str()))?;
        if rule.effect != effect {
            return Err(OptionError::Misplaced { name: name.clone() });
        }
    }
    rules.iter().filter(|(_, rule)| rule.effect == effect).try_for_each(|(name, rule)| match values.get(name) {
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
