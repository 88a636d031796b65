//! A recipe as its author writes it: TOML, read with line and column for whatever is wrong.
//!
//! What a single field can be wrong about is said by the type of that field ([`Name`], [`Pattern`], [`Word`], …) and
//! located by the TOML reader; what fields can be wrong about together is said by [`check`] and located here, by walking
//! the text's own tree to the place that the fault names.

use super::check::{Fault, check, fault};
use super::error::{Part, Place, Position, Problem, RecipeError};
use super::nearest::nearest;
use super::{
    Choice, Form, InlineFile, LANGUAGE, Limits, MAX_RECIPE_BYTES, OptionRule, Output, OutputPattern, Pattern,
    SmokeRule, Sort, SourceRule, StepRule, Word,
};
use crate::digest::Digest;
use crate::platform::{Require, Requirement};
use crate::report::Reproducibility;
use crate::request::Name;
use crate::time::Span;
use crate::tree::{Mode, TreePath};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    #[allow(dead_code, reason = "read before the rest, so that other languages are named and not misread")]
    recipe: u32,
    name: Name,
    description: String,
    #[serde(default)]
    requires: Vec<String>,
    reproducible: bool,
    #[serde(default)]
    option: BTreeMap<Name, DraftOption>,
    source: Option<DraftSource>,
    #[serde(default)]
    file: Vec<DraftFile>,
    step: Vec<DraftStep>,
    output: Vec<DraftOutput>,
    smoke: Option<DraftSmoke>,
    #[serde(default)]
    limits: DraftLimits,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DraftSort {
    Choice,
    Flag,
    Integer,
    Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftOption {
    r#type: DraftSort,
    help: String,
    default: toml::Value,
    choices: Option<Vec<String>>,
    words: Option<BTreeMap<String, Vec<Word>>>,
    min: Option<i64>,
    max: Option<i64>,
    pattern: Option<Pattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftSource {
    hint: String,
    archive: Option<String>,
    sha256: Option<Digest>,
    size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftFile {
    path: TreePath,
    text: String,
    #[serde(default)]
    executable: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftStep {
    run: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, Word>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftOutput {
    path: OutputPattern,
    r#as: Option<TreePath>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftSmoke {
    run: Vec<String>,
    expect: Option<Word>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftLimits {
    time_s: Option<u64>,
    memory_mib: Option<u64>,
    disk_mib: Option<u64>,
}

/// Reads, checks and locates.
pub(super) fn parse(text: &str) -> Result<Form, RecipeError> {
    if text.len() > MAX_RECIPE_BYTES {
        let problem = Problem::TooLarge { len: text.len(), max: MAX_RECIPE_BYTES };
        return Err(RecipeError { position: None, place: Place::default(), problem: Box::new(problem) });
    }
    let tree = DeTable::parse(text).map_err(|error| misread(text, &error))?;
    let located = |Fault { place, problem }: Fault| {
        let position = span_of(tree.get_ref(), &place).map(|span| position(text, span.start));
        RecipeError { position, place, problem }
    };
    if let Some(language) = language(tree.get_ref()).filter(|language| *language != LANGUAGE) {
        return Err(located(fault(["recipe".into()], Problem::Language(language))));
    }
    let draft: Draft = toml::from_str(text).map_err(|error| misread(text, &error))?;
    let form = draft.form().map_err(located)?;
    check(&form).map_err(located)?;
    Ok(form)
}

fn language(table: &DeTable<'_>) -> Option<u32> {
    let integer = table.get("recipe")?.get_ref().as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

impl Draft {
    fn form(self) -> Result<Form, Fault> {
        let mut requirement = Requirement::none();
        for (at, text) in self.requires.into_iter().enumerate() {
            let Require { key, constraint } =
                text.parse().map_err(|error| fault(["requires".into(), at.into()], Problem::Require(error)))?;
            if requirement.iter().any(|(known, _)| known == key) {
                return Err(fault(["requires".into(), at.into()], Problem::Twice(key)));
            }
            requirement.add(key, constraint);
        }
        let mut options = BTreeMap::new();
        for (name, draft) in self.option {
            let rule = draft.rule(&name)?;
            options.insert(name, rule);
        }
        let mut files = BTreeMap::new();
        for (at, DraftFile { path, text, executable }) in self.file.into_iter().enumerate() {
            let mode = if executable { Mode::Executable } else { Mode::Plain };
            if files.insert(path.clone(), InlineFile { mode, text }).is_some() {
                return Err(fault(["file".into(), at.into(), "path".into()], Problem::Twice(path.to_string())));
            }
        }
        let mut steps = Vec::new();
        for (at, DraftStep { run, env }) in self.step.into_iter().enumerate() {
            let run = words(run, &["step".into(), at.into(), "run".into()])?;
            steps.push(StepRule { run, env });
        }
        let smoke = match self.smoke {
            Some(DraftSmoke { run, expect }) => {
                Some(SmokeRule { run: words(run, &["smoke".into(), "run".into()])?, expect })
            }
            None => None,
        };
        let usual = Limits::default();
        Ok(Form {
            recipe: LANGUAGE,
            name: self.name,
            description: self.description,
            options,
            requirement,
            source: self.source.map_or(Ok(SourceRule::Inline), DraftSource::rule)?,
            files,
            steps,
            outputs: self.output.into_iter().map(|draft| Output { path: draft.path, rename: draft.r#as }).collect(),
            smoke,
            limits: Limits {
                time: self.limits.time_s.map_or(usual.time, Span::from_secs),
                memory_mib: self.limits.memory_mib.unwrap_or(usual.memory_mib),
                disk_mib: self.limits.disk_mib.unwrap_or(usual.disk_mib),
            },
            reproducibility: if self.reproducible { Reproducibility::Claimed } else { Reproducibility::NotClaimed },
        })
    }
}

impl DraftSource {
    fn rule(self) -> Result<SourceRule, Fault> {
        match (self.archive, self.sha256, self.size) {
            (None, None, None) => Ok(SourceRule::Given { hint: self.hint }),
            (Some(url), Some(digest), Some(size)) => Ok(SourceRule::Archive { hint: self.hint, digest, size, url }),
            _ => Err(fault(["source".into()], Problem::HalfArchive)),
        }
    }
}

impl DraftOption {
    fn rule(mut self, name: &Name) -> Result<OptionRule, Fault> {
        let (sort, fields) = match self.r#type {
            DraftSort::Choice => ("choice", "`help`, `choices`, `default` and perhaps `words`"),
            DraftSort::Flag => ("flag", "`help`, `words` and `default`"),
            DraftSort::Integer => ("integer", "`help`, `min`, `max` and `default`"),
            DraftSort::Text => ("text", "`help`, `pattern` and `default`"),
        };
        let at = |field: &str, problem| fault(["option".into(), name.into(), field.into()], problem);
        let missing = |field| fault(["option".into(), name.into()], Problem::MissingField { field, sort });
        let default = self.default.clone();
        let kind = match self.r#type {
            DraftSort::Choice => {
                let values = self.choices.take().ok_or_else(|| missing("choices"))?;
                let mut words = self.words.take();
                let choices = values
                    .into_iter()
                    .map(|value| Choice { words: words.as_mut().and_then(|words| words.remove(&value)), value })
                    .collect();
                if let Some(value) = words.and_then(|words| words.into_keys().next()) {
                    return Err(at("words", Problem::WordsForNothing(value)));
                }
                Sort::Choice { choices, default: text_of(&default) }
            }
            DraftSort::Flag => {
                let mut words = self.words.take().ok_or_else(|| missing("words"))?;
                let (yes, no) = (words.remove("true").unwrap_or_default(), words.remove("false").unwrap_or_default());
                if let Some(value) = words.into_keys().next() {
                    return Err(at("words", Problem::WordsForNothing(value)));
                }
                let wrong = || super::OptionError::Flag { name: name.clone(), value: text_of(&default) };
                Sort::Flag { yes, no, default: default.as_bool().ok_or_else(|| at("default", wrong().into()))? }
            }
            DraftSort::Integer => {
                let min = self.min.take().ok_or_else(|| missing("min"))?;
                let max = self.max.take().ok_or_else(|| missing("max"))?;
                let wrong = || super::OptionError::Integer { name: name.clone(), value: text_of(&default), min, max };
                let default = default.as_integer().ok_or_else(|| at("default", wrong().into()))?;
                Sort::Integer { min, max, default }
            }
            DraftSort::Text => {
                let pattern = self.pattern.take().ok_or_else(|| missing("pattern"))?;
                Sort::Text { pattern, default: text_of(&default) }
            }
        };
        // What the sort takes was taken; what is left has no meaning for it.
        let left = [
            ("choices", self.choices.is_some()),
            ("words", self.words.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("pattern", self.pattern.is_some()),
        ];
        match left.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(at(field, Problem::NoSuchField { field, sort, fields })),
            None => Ok(OptionRule { help: self.help, sort: kind }),
        }
    }
}

/// The words of a list; a fault names the word. (The reader itself would only name the list.)
fn words(texts: Vec<String>, place: &[Part]) -> Result<Vec<Word>, Fault> {
    let word = |(at, text)| {
        Word::try_from(text).map_err(|error| {
            let place = Place(place.iter().cloned().chain([Part::At(at)]).collect());
            Fault { place, problem: Box::new(Problem::Word(error)) }
        })
    };
    texts.into_iter().enumerate().map(word).collect()
}

fn text_of(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Turns the reader's error into ours.
fn misread(text: &str, error: &toml::de::Error) -> RecipeError {
    let message = error.message().trim().to_owned();
    let problem = Problem::Toml { nearest: meant(&message), message };
    let position = error.span().map(|span| position(text, span.start));
    RecipeError { position, place: Place::default(), problem: Box::new(problem) }
}

/// The field that was probably meant, from serde's "unknown field `x`, expected one of `a`, `b`": the first quoted word
/// is what was written, the others are what can be.
fn meant(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let written = quoted.next()?;
    nearest(written, quoted).map(str::to_owned)
}

/// The bytes of the text that hold the field at `place`, or as much of the way to it as there is.
fn span_of(table: &DeTable<'_>, place: &Place) -> Option<Range<usize>> {
    let (first, rest) = place.0.split_first()?;
    let Part::Key(key) = first else { return None };
    let (written, mut value) = table.get_key_value(key.as_str())?;
    let mut span = match value.get_ref() {
        DeValue::Table(_) | DeValue::Array(_) => written.span(),
        _ => value.span(),
    };
    for part in rest {
        let (next, next_span) = match (part, value.get_ref()) {
            (Part::Key(key), DeValue::Table(table)) => match table.get_key_value(key.as_str()) {
                Some((written, next)) if matches!(next.get_ref(), DeValue::Table(_)) => (next, written.span()),
                Some((_, next)) => (next, next.span()),
                None => break,
            },
            (Part::At(at), DeValue::Array(array)) => match array.get(*at) {
                Some(next) => (next, next.span()),
                None => break,
            },
            _ => break,
        };
        (value, span) = (next, next_span);
    }
    Some(span)
}

fn position(text: &str, at: usize) -> Position {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}
