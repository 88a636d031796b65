//! A recipe as its author writes it: TOML, read with line and column for whatever is wrong.
//!
//! What a single field can be wrong about is said by the type of that field ([`Name`], [`Pattern`], [`Word`], …) and
//! located by the TOML reader; what fields can be wrong about together is said by [`check`] and located here, by walking
//! the text's own tree to the place that the fault names.

use super::check::{Fault, check, fault};
use super::draft_option::DraftOption;
use super::error::{Part, Place, Position, Problem, RecipeError, RecipeErrors};
use super::wording::worded;
use super::{
    Condition, DEFAULT_SOURCE_DATE_EPOCH, Form, InlineFile, LANGUAGE, Limits, MAX_RECIPE_BYTES, Output, OutputPattern,
    Presence, Raised, SmokeRule, SourceRule, StepRule, Variable, VariantRule, Word,
};
use crate::digest::Digest;
use crate::platform::{Require, Requirement};
use crate::report::Reproducibility;
use crate::request::Name;
use crate::source::{HttpsUrl, Revision};
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
    source_date_epoch: Option<u64>,
    #[serde(default)]
    env: BTreeMap<String, toml::Value>,
    #[serde(default)]
    option: BTreeMap<Name, DraftOption>,
    source: Option<DraftSource>,
    #[serde(default)]
    file: Vec<DraftFile>,
    #[serde(default)]
    variant: Vec<DraftVariant>,
    step: Vec<DraftStep>,
    output: Vec<DraftOutput>,
    smoke: Option<DraftSmoke>,
    #[serde(default)]
    limits: DraftLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftSource {
    hint: String,
    archive: Option<String>,
    sha256: Option<Digest>,
    size: Option<u64>,
    git: Option<HttpsUrl>,
    revision: Option<Revision>,
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
struct DraftVariant {
    when: Vec<String>,
    #[serde(default)]
    requires: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, toml::Value>,
    #[serde(default)]
    limits: DraftRaised,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftStep {
    #[serde(default)]
    when: Vec<String>,
    run: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, toml::Value>,
    time_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftOutput {
    path: OutputPattern,
    r#as: Option<TreePath>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    when: Vec<String>,
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
    quiet_s: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftRaised {
    time_s: Option<u64>,
    memory_mib: Option<u64>,
    disk_mib: Option<u64>,
}

/// Reads, checks and locates. What does not follow from something else that is wrong is told at once.
pub(super) fn parse(text: &str) -> Result<Form, RecipeErrors> {
    if text.len() > MAX_RECIPE_BYTES {
        let problem = Problem::TooLarge { len: text.len(), max: MAX_RECIPE_BYTES };
        let first = RecipeError { position: None, place: Place::default(), problem: Box::new(problem) };
        return Err(RecipeErrors { first, rest: Vec::new() });
    }
    let only = |first| RecipeErrors { first, rest: Vec::new() };
    let tree = DeTable::parse(text).map_err(|error| only(misread(text, &error)))?;
    let located = |Fault { place, problem }: Fault| {
        let position = span_of(tree.get_ref(), &place).map(|span| position(text, span));
        RecipeError { position, place, problem }
    };
    let all = |faults: Vec<Fault>| {
        let mut errors: Vec<RecipeError> = faults.into_iter().map(located).collect();
        errors.sort_by_key(|error| error.position);
        (!errors.is_empty()).then(|| RecipeErrors { first: errors.remove(0), rest: errors })
    };
    if let Some(language) = language(tree.get_ref()).filter(|language| *language != LANGUAGE) {
        return Err(only(located(fault(["recipe".into()], Problem::Language(language)))));
    }
    let draft: Draft = toml::from_str(text).map_err(|error| only(misread(text, &error)))?;
    let mut faults = Vec::new();
    let form = draft.form(&mut faults);
    if let Some(errors) = all(faults) {
        return Err(errors);
    }
    all(check(&form)).map_or(Ok(form), Err)
}

fn language(table: &DeTable<'_>) -> Option<u32> {
    let integer = table.get("recipe")?.get_ref().as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

impl Draft {
    /// The canonical form; where a field is wrong, it is left out and its fault noted.
    fn form(self, faults: &mut Vec<Fault>) -> Form {
        let mut options = BTreeMap::new();
        for (name, draft) in self.option {
            match draft.rule(&name) {
                Ok(rule) => drop(options.insert(name, rule)),
                Err(fault) => faults.push(fault),
            }
        }
        let mut files = BTreeMap::new();
        for (at, DraftFile { path, text, executable }) in self.file.into_iter().enumerate() {
            let mode = if executable { Mode::Executable } else { Mode::Plain };
            if files.insert(path.clone(), InlineFile { mode, text }).is_some() {
                faults.push(fault(["file".into(), at.into(), "path".into()], Problem::Twice(path.to_string())));
            }
        }
        let mut taken = Taken { faults };
        let variants = self.variant.into_iter().enumerate();
        let variants = variants.filter_map(|(at, draft)| taken.or_note(draft.rule(&["variant".into(), at.into()])));
        let variants = variants.collect();
        let steps = self.step.into_iter().enumerate();
        let steps = steps.filter_map(|(at, draft)| taken.or_note(draft.rule(&["step".into(), at.into()])));
        let steps = steps.collect();
        let outputs = self.output.into_iter().enumerate();
        let outputs = outputs.filter_map(|(at, draft)| taken.or_note(draft.rule(&["output".into(), at.into()])));
        let outputs = outputs.collect();
        let smoke = self.smoke.and_then(|DraftSmoke { run, expect }| {
            Some(SmokeRule { run: taken.or_note(words(run, &["smoke".into(), "run".into()]))?, expect })
        });
        let requirement = taken.or_note(requirement(self.requires, &["requires".into()])).unwrap_or_default();
        let env = taken.or_note(variables(self.env, &["env".into()])).unwrap_or_default();
        let source = self.source.map(DraftSource::rule).and_then(|rule| taken.or_note(rule));
        let usual = Limits::default();
        Form {
            recipe: LANGUAGE,
            name: self.name,
            description: self.description,
            options,
            requirement,
            source: source.unwrap_or(SourceRule::Inline),
            files,
            env,
            variants,
            steps,
            outputs,
            smoke,
            limits: Limits {
                time: self.limits.time_s.map_or(usual.time, Span::from_secs),
                memory_mib: self.limits.memory_mib.unwrap_or(usual.memory_mib),
                disk_mib: self.limits.disk_mib.unwrap_or(usual.disk_mib),
                quiet: self.limits.quiet_s.map_or(usual.quiet, Span::from_secs),
            },
            source_date_epoch: self.source_date_epoch.unwrap_or(DEFAULT_SOURCE_DATE_EPOCH),
            reproducibility: if self.reproducible { Reproducibility::Claimed } else { Reproducibility::NotClaimed },
        }
    }
}

/// Takes what is right and notes what is not.
struct Taken<'a> {
    faults: &'a mut Vec<Fault>,
}

impl Taken<'_> {
    fn or_note<T>(&mut self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.faults.push(fault)).ok()
    }
}

impl DraftVariant {
    fn rule(self, place: &[Part]) -> Result<VariantRule, Fault> {
        Ok(VariantRule {
            when: conditions(self.when, &below(place, "when"))?,
            requirement: requirement(self.requires, &below(place, "requires"))?,
            env: variables(self.env, &below(place, "env"))?,
            limits: Raised {
                time: self.limits.time_s.map(Span::from_secs),
                memory_mib: self.limits.memory_mib,
                disk_mib: self.limits.disk_mib,
            },
        })
    }
}

impl DraftStep {
    fn rule(self, place: &[Part]) -> Result<StepRule, Fault> {
        Ok(StepRule {
            when: conditions(self.when, &below(place, "when"))?,
            run: words(self.run, &below(place, "run"))?,
            env: variables(self.env, &below(place, "env"))?,
            time: self.time_s.map(Span::from_secs),
        })
    }
}

impl DraftOutput {
    fn rule(self, place: &[Part]) -> Result<Output, Fault> {
        Ok(Output {
            path: self.path,
            rename: self.r#as,
            presence: if self.optional { Presence::Optional } else { Presence::Required },
            when: conditions(self.when, &below(place, "when"))?,
        })
    }
}

impl DraftSource {
    fn rule(self) -> Result<SourceRule, Fault> {
        let archive = match (self.archive, self.sha256, self.size) {
            (None, None, None) => None,
            (Some(url), Some(digest), Some(size)) => Some((url, digest, size)),
            _ => return Err(fault(["source".into()], Problem::HalfArchive)),
        };
        match (archive, self.git, self.revision) {
            (None, None, None) => Ok(SourceRule::Given { hint: self.hint }),
            (Some((url, digest, size)), None, None) => Ok(SourceRule::Archive { hint: self.hint, digest, size, url }),
            (None, Some(url), revision) => Ok(SourceRule::Git { hint: self.hint, url, revision }),
            (Some(_), Some(_), _) => Err(fault(["source".into(), "git".into()], Problem::TwoSources)),
            (_, None, Some(_)) => Err(fault(["source".into(), "revision".into()], Problem::LoneRevision)),
        }
    }
}

/// The words of a list; a fault names the word. (The reader itself would only name the list.)
fn words(texts: Vec<String>, place: &[Part]) -> Result<Vec<Word>, Fault> {
    each(texts, place, |text| Word::try_from(text).map_err(Problem::Word))
}

pub(super) fn conditions(texts: Vec<String>, place: &[Part]) -> Result<Vec<Condition>, Fault> {
    each(texts, place, |text| Condition::try_from(text).map_err(Problem::Condition))
}

fn each<T>(texts: Vec<String>, place: &[Part], read: impl Fn(String) -> Result<T, Problem>) -> Result<Vec<T>, Fault> {
    let one = |(at, text)| read(text).map_err(|problem| fault_at(&below(place, at), problem));
    texts.into_iter().enumerate().map(one).collect()
}

fn requirement(texts: Vec<String>, place: &[Part]) -> Result<Requirement, Fault> {
    let mut requirement = Requirement::none();
    for (at, text) in texts.into_iter().enumerate() {
        let wrong = |problem| fault_at(&below(place, at), problem);
        let Require { key, constraint } = text.parse().map_err(|error| wrong(Problem::Require(error)))?;
        if requirement.get(&key).is_some() {
            return Err(wrong(Problem::Twice(key)));
        }
        requirement.add(key, constraint);
    }
    Ok(requirement)
}

fn variables(values: BTreeMap<String, toml::Value>, place: &[Part]) -> Result<BTreeMap<String, Variable>, Fault> {
    let variable = |(name, value): (String, toml::Value)| {
        let place = below(place, name.as_str());
        let wrong = |problem| fault_at(&place, problem);
        let text = |value: toml::Value| match value {
            toml::Value::String(text) => Ok(text),
            _ => Err(wrong(Problem::VariableType)),
        };
        let variable = match value {
            toml::Value::Array(values) => {
                Variable::Words(words(values.into_iter().map(text).collect::<Result<_, _>>()?, &place)?)
            }
            value => Variable::Text(Word::try_from(text(value)?).map_err(|error| wrong(Problem::Word(error)))?),
        };
        Ok((name, variable))
    };
    values.into_iter().map(variable).collect()
}

/// The place one part further in.
pub(super) fn below(place: &[Part], part: impl Into<Part>) -> Vec<Part> {
    place.iter().cloned().chain([part.into()]).collect()
}

pub(super) fn text_of(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn fault_at(place: &[Part], problem: Problem) -> Fault {
    Fault { place: Place(place.to_vec()), problem: Box::new(problem) }
}

/// Turns the reader's error into ours.
fn misread(text: &str, error: &toml::de::Error) -> RecipeError {
    let problem = Problem::Toml(worded(error.message()));
    let position = error.span().map(|span| position(text, span));
    RecipeError { position, place: Place::default(), problem: Box::new(problem) }
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

fn position(text: &str, span: Range<usize>) -> Position {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let covered = text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        width: covered.chars().count().max(1),
    }
}
