//! Values of options that do not go together, and what to write instead.

use super::condition::{Condition, has};
use super::option::{OptionRule, Sort};
use crate::request::{Name, OptionValue};
use std::collections::BTreeMap;
use std::fmt;

/// Two options whose values do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The option whose rule is broken.
    pub option: Name,
    /// Its value that has the rule.
    pub value: String,
    /// Which rule.
    pub kind: ClashKind,
    /// What is needed or excluded.
    pub condition: Condition,
    /// What the other option is.
    pub found: String,
    /// Values to choose instead, as they are typed; the first is the best guess.
    pub instead: Vec<(Name, String)>,
}

/// Which rule two options break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClashKind {
    /// The condition had to hold.
    Needs,
    /// The condition must not hold.
    Excludes,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, condition, found, .. } = self;
        let (option, value) = (option.as_str(), value.escape_debug());
        match self.kind {
            ClashKind::Needs => {
                let found = if found.is_empty() { "empty".to_owned() } else { format!("`{}`", found.escape_debug()) };
                let other = condition.subject();
                write!(f, "`{option}={value}` needs `{condition}`, and `{other}` is {found}")?;
            }
            ClashKind::Excludes => {
                let other = format!("{}={}", condition.subject(), found.escape_debug());
                write!(f, "`{option}={value}` and `{other}` exclude each other")?;
            }
        }
        for (at, (name, value)) in self.instead.iter().enumerate() {
            write!(f, "{} `--option {name}={}`", if at == 0 { ": write" } else { " or" }, value.escape_debug())?;
        }
        Ok(())
    }
}

impl std::error::Error for Clash {}

impl Clash {
    /// The first rule that these values break.
    pub(super) fn find(rules: &BTreeMap<Name, OptionRule>, values: &BTreeMap<Name, OptionValue>) -> Option<Self> {
        let of_option = |(name, rule): (&Name, &OptionRule)| {
            let value = values.get(name)?;
            let needs = rule.needs.iter().map(|(of, conditions)| (ClashKind::Needs, of, conditions));
            let excludes = rule.excludes.iter().map(|(of, conditions)| (ClashKind::Excludes, of, conditions));
            needs.chain(excludes).filter(|(_, of, _)| has(value, of)).find_map(|(kind, of, conditions)| {
                let broken = conditions.iter().find(|condition| {
                    let holds = values.get(condition.subject()).is_some_and(|other| condition.holds(other));
                    holds != (kind == ClashKind::Needs)
                })?;
                Some(Self::new(rules, values, (name, of), kind, broken))
            })
        };
        rules.iter().find_map(of_option)
    }

    fn new(
        rules: &BTreeMap<Name, OptionRule>,
        values: &BTreeMap<Name, OptionValue>,
        (option, value): (&Name, &String),
        kind: ClashKind,
        condition: &Condition,
    ) -> Self {
        let other = condition.subject();
        let found = values.get(other);
        let without = |name: &Name, unwanted: &[String]| {
            let instead = without(name, rules.get(name)?, values.get(name)?, unwanted)?;
            Some((name.clone(), instead))
        };
        let mend_other = match (kind, found) {
            (ClashKind::Needs, Some(found)) => {
                rules.get(other).and_then(|rule| with(other, rule, found, condition)).map(|mend| (other.clone(), mend))
            }
            (ClashKind::Excludes, Some(_)) => without(other, condition.values()),
            (_, None) => None,
        };
        let mend_self = without(option, std::slice::from_ref(value));
        Self {
            option: option.clone(),
            value: value.clone(),
            kind,
            condition: condition.clone(),
            found: found.map(OptionValue::to_string).unwrap_or_default(),
            instead: mend_other.into_iter().chain(mend_self).collect(),
        }
    }
}

/// What to type so that a needed condition holds: a list keeps what it has.
fn with(name: &Name, rule: &OptionRule, found: &OptionValue, condition: &Condition) -> Option<String> {
    let wanted = condition.values().first()?;
    match found {
        OptionValue::List(values) if !wanted.is_empty() => {
            let all = values.iter().chain([wanted]).map(String::as_str);
            rule.listed(name, all).ok().map(|value| value.to_string())
        }
        _ => Some(wanted.clone()),
    }
}

/// What to type so that an option has none of the unwanted values: the rest of a list, or else its default, or else what is
/// nearest at hand.
fn without(name: &Name, rule: &OptionRule, found: &OptionValue, unwanted: &[String]) -> Option<String> {
    let is_good = |value: &OptionValue| !unwanted.iter().any(|unwanted| has(value, unwanted));
    if let OptionValue::List(values) = found {
        let kept: Vec<String> = values.iter().filter(|value| !unwanted.contains(value)).cloned().collect();
        let kept = OptionValue::List(kept);
        if rule.check(name, &kept).is_ok() && is_good(&kept) {
            return Some(kept.to_string());
        }
    }
    let default = rule.default();
    if is_good(&default) {
        return Some(default.to_string());
    }
    let candidates: Vec<OptionValue> = match &rule.sort {
        Sort::Bool { .. } => vec![OptionValue::Bool(true), OptionValue::Bool(false)],
        Sort::Choice { choices, .. } => choices.iter().map(|choice| OptionValue::Text(choice.value.clone())).collect(),
        Sort::Integer { min, max, .. } => (*min..=*max).take(unwanted.len() + 1).map(OptionValue::Integer).collect(),
        Sort::Text { .. } | Sort::List { .. } => Vec::new(),
    };
    candidates.iter().find(|value| is_good(value)).map(OptionValue::to_string)
}
