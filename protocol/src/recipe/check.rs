//! The rules of the language, applied to every recipe whether it came as text or as a blob.

use super::error::{Part, Place, Problem};
use super::files::file_entries;
use super::option::{OptionRule, Sort, unknown};
use super::pattern::MAX_VALUE_BYTES;
use super::template::{JOBS, Piece, Word};
use super::{
    Form, LANGUAGE, Limits, MAX_CHOICE_WORDS, MAX_CHOICES, MAX_FILES, MAX_LINE_BYTES, MAX_MIB, MAX_OPTIONS,
    MAX_OUTPUTS, MAX_RECIPE_BYTES, MAX_STEP_BYTES, MAX_STEPS, MAX_TIME, MAX_URL_BYTES, MAX_VARIABLES, MAX_WORDS,
    SourceRule, StepRule,
};
use crate::codec;
use crate::report::Reproducibility;
use crate::request::Name;
use crate::tree::Manifest;
use std::collections::{BTreeMap, BTreeSet};

/// A broken rule and the field that breaks it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) problem: Box<Problem>,
}

/// A fault at the field that `parts` lead to.
pub(super) fn fault<const N: usize>(parts: [Part; N], problem: impl Into<Problem>) -> Fault {
    Fault { place: Place(parts.into()), problem: Box::new(problem.into()) }
}

/// Programs that every POSIX system has (IEEE Std 1003.1, Utilities) and volunteers do not announce as tools.
const PLAIN_PROGRAMS: [&str; 22] = [
    "awk", "cat", "chmod", "cmp", "cp", "env", "find", "grep", "head", "ln", "ls", "mkdir", "mv", "rm", "sed", "sh",
    "sort", "tail", "test", "touch", "tr", "true",
];

/// Programs whose word after `-c` is a text that they take apart.
const SHELLS: [&str; 4] = ["bash", "dash", "sh", "zsh"];

/// Variables that the sandbox sets and steps rely on.
const SANDBOX_VARIABLES: [&str; 3] = ["HOME", "PATH", "TMPDIR"];

pub(super) fn check(form: &Form) -> Result<(), Fault> {
    if form.recipe != LANGUAGE {
        return Err(fault(["recipe".into()], Problem::Language(form.recipe)));
    }
    let len = codec::encode(form).len();
    if len > MAX_RECIPE_BYTES {
        return Err(fault([], Problem::TooLarge { len, max: MAX_RECIPE_BYTES }));
    }
    line(&form.description).map_err(|problem| fault(["description".into()], problem))?;
    if !form.requirement.is_within_limits() {
        return Err(fault(["requires".into()], Problem::Requirement));
    }
    count("options", form.options.len(), 0, MAX_OPTIONS).map_err(|problem| fault(["option".into()], problem))?;
    for (name, rule) in &form.options {
        option(name, rule)?;
    }
    source(form)?;
    count("steps", form.steps.len(), 1, MAX_STEPS).map_err(|problem| fault(["step".into()], problem))?;
    for (at, rule) in form.steps.iter().enumerate() {
        step(form, at, rule)?;
    }
    every_option_is_used(form)?;
    outputs(form)?;
    smoke(form)?;
    limits(&form.limits)
}

fn count(what: &'static str, found: usize, min: usize, max: usize) -> Result<(), Problem> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(Problem::Count { what, found, min, max }) }
}

fn line(text: &str) -> Result<(), Problem> {
    let fits = (1..=MAX_LINE_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(Problem::Line { max: MAX_LINE_BYTES }) }
}

fn option(name: &Name, rule: &OptionRule) -> Result<(), Fault> {
    let at = |field: &str, problem| fault(["option".into(), name.into(), field.into()], problem);
    if name.as_str() == JOBS {
        return Err(fault(["option".into(), name.into()], Problem::Reserved));
    }
    line(&rule.help).map_err(|problem| at("help", problem))?;
    let plain = |words: &[Word]| {
        count("words", words.len(), 0, MAX_CHOICE_WORDS)?;
        words.iter().find(|word| word.plain().is_none()).map_or(Ok(()), |word| Err(Problem::NotPlain(word.to_string())))
    };
    match &rule.sort {
        Sort::Choice { choices, .. } => {
            count("choices", choices.len(), 1, MAX_CHOICES).map_err(|problem| at("choices", problem))?;
            let mut seen = BTreeSet::new();
            for choice in choices {
                line(&choice.value).map_err(|problem| at("choices", problem))?;
                if choice.value.len() > MAX_VALUE_BYTES {
                    return Err(at("choices", Problem::Line { max: MAX_VALUE_BYTES }));
                }
                if !seen.insert(&choice.value) {
                    return Err(at("choices", Problem::Twice(choice.value.clone())));
                }
                plain(choice.words.as_deref().unwrap_or_default()).map_err(|problem| at("words", problem))?;
            }
            if let Some(bare) = choices.iter().find(|choice| choice.words.is_none())
                && choices.iter().any(|choice| choice.words.is_some())
            {
                return Err(at("words", Problem::WordsMissing(bare.value.clone())));
            }
        }
        Sort::Flag { yes, no, .. } => {
            plain(yes).and_then(|()| plain(no)).map_err(|problem| at("words", problem))?;
            if yes.is_empty() && no.is_empty() {
                return Err(fault(
                    ["option".into(), name.into()],
                    Problem::MissingField { field: "words", sort: "flag" },
                ));
            }
        }
        Sort::Integer { min, max, .. } if min > max => return Err(at("min", Problem::EmptyRange)),
        Sort::Integer { .. } | Sort::Text { .. } => {}
    }
    rule.check(name, &rule.default()).map_err(|error| at("default", Problem::Option(error)))
}

fn source(form: &Form) -> Result<(), Fault> {
    let at = |field: &str, problem| fault(["source".into(), field.into()], problem);
    match &form.source {
        SourceRule::Inline if form.files.is_empty() => return Err(fault([], Problem::NoSource)),
        SourceRule::Inline => {}
        SourceRule::Given { hint } => line(hint).map_err(|problem| at("hint", problem))?,
        SourceRule::Archive { hint, size, url, .. } => {
            line(hint).map_err(|problem| at("hint", problem))?;
            let host = url.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
            let fits = url.len() <= MAX_URL_BYTES && url.bytes().all(|b| b.is_ascii_graphic());
            if !fits || host.is_empty() || host.contains('@') {
                return Err(at("archive", Problem::Url { max: MAX_URL_BYTES }));
            }
            if *size == 0 {
                return Err(at("size", Problem::Range { found: 0, min: 1, max: u64::MAX }));
            }
        }
    }
    count("files", form.files.len(), 0, MAX_FILES).map_err(|problem| fault(["file".into()], problem))?;
    Manifest::new(file_entries(&form.files).collect())
        .map_err(|error| fault(["file".into()], Problem::Files(error)))?;
    Ok(())
}

fn step(form: &Form, at: usize, rule: &StepRule) -> Result<(), Fault> {
    let here = |field: &str, problem| fault(["step".into(), at.into(), field.into()], problem);
    run(form, &rule.run).map_err(|(word, problem)| match word {
        Some(word) => fault(["step".into(), at.into(), "run".into(), word.into()], problem),
        None => here("run", problem),
    })?;
    count("variables", rule.env.len(), 0, MAX_VARIABLES).map_err(|problem| here("env", problem))?;
    for (variable, word) in &rule.env {
        let wrong = |problem| fault(["step".into(), at.into(), "env".into(), variable.as_str().into()], problem);
        let good = variable.len() <= MAX_VALUE_BYTES
            && variable.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && variable.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !good || SANDBOX_VARIABLES.contains(&variable.as_str()) {
            return Err(wrong(Problem::Variable(variable.clone())));
        }
        holes(form, word, Holes::Inside).map_err(wrong)?;
    }
    let len = rule.run.iter().map(|word| longest_words(&form.options, word)).sum::<usize>()
        + rule.env.iter().map(|(name, word)| name.len() + longest(&form.options, word)).sum::<usize>();
    if len > MAX_STEP_BYTES {
        return Err(here("run", Problem::LongStep { len, max: MAX_STEP_BYTES }));
    }
    Ok(())
}

/// Checks the words of a step or smoke test; the fault names the word it is in.
fn run(form: &Form, words: &[Word]) -> Result<(), (Option<usize>, Problem)> {
    count("words", words.len(), 1, MAX_WORDS).map_err(|problem| (None, problem))?;
    let program = words[0].plain().unwrap_or_default();
    if program.is_empty() || program.starts_with(['/', '-']) {
        return Err((Some(0), Problem::Program));
    }
    let tool = format!("tool.{program}");
    if !program.contains('/')
        && !PLAIN_PROGRAMS.contains(&program)
        && !form.requirement.iter().any(|(key, _)| key == tool)
    {
        return Err((Some(0), Problem::NotRequired(program.to_owned())));
    }
    if SHELLS.contains(&program)
        && let Some(at) = words.windows(2).position(|pair| pair[0].as_str() == "-c" && pair[1].plain().is_none())
    {
        return Err((Some(at + 1), Problem::ShellText));
    }
    for (at, word) in words.iter().enumerate() {
        holes(form, word, Holes::Words).map_err(|problem| (Some(at), problem))?;
    }
    Ok(())
}

/// Whether a hole may stand for a list of words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holes {
    /// As a word of its own it may.
    Words,
    /// It is always part of a text.
    Inside,
}

fn holes(form: &Form, word: &Word, kind: Holes) -> Result<(), Problem> {
    for piece in word.pieces() {
        let Piece::Option(name) = piece else { continue };
        let rule = form.options.get(name).ok_or_else(|| unknown(&form.options, name.as_str()))?;
        let stands_alone = kind == Holes::Words && word.whole().is_some();
        if matches!(rule.sort, Sort::Flag { .. }) && !stands_alone {
            return Err(Problem::FlagInWord(name.clone()));
        }
    }
    Ok(())
}

/// The most bytes that `word` can turn into, where it may stand for several words.
fn longest_words(rules: &BTreeMap<Name, OptionRule>, word: &Word) -> usize {
    let total = |words: &[Word]| words.iter().map(|word| word.as_str().len() + 1).sum::<usize>();
    match word.whole().and_then(|name| rules.get(name)).map(|rule| &rule.sort) {
        Some(Sort::Flag { yes, no, .. }) => total(yes).max(total(no)),
        Some(Sort::Choice { choices, .. }) if choices.iter().any(|choice| choice.words.is_some()) => {
            choices.iter().map(|choice| total(choice.words.as_deref().unwrap_or_default())).max().unwrap_or(0)
        }
        _ => longest(rules, word) + 1,
    }
}

/// The most bytes that `word` can turn into as one text.
fn longest(rules: &BTreeMap<Name, OptionRule>, word: &Word) -> usize {
    let piece = |piece: &Piece| match piece {
        Piece::Plain(text) => text.len(),
        // Ten digits of a u32; nineteen and a sign of an i64.
        Piece::Jobs => 10,
        Piece::Option(name) => match rules.get(name).map(|rule| &rule.sort) {
            Some(Sort::Integer { .. }) => 20,
            Some(Sort::Choice { choices, .. }) => choices.iter().map(|choice| choice.value.len()).max().unwrap_or(0),
            _ => MAX_VALUE_BYTES,
        },
    };
    word.pieces().iter().map(piece).sum()
}

fn every_option_is_used(form: &Form) -> Result<(), Fault> {
    let words = form.steps.iter().flat_map(|step| step.run.iter().chain(step.env.values()));
    let used: BTreeSet<&Name> = words
        .flat_map(Word::pieces)
        .filter_map(|piece| match piece {
            Piece::Option(name) => Some(name),
            Piece::Plain(_) | Piece::Jobs => None,
        })
        .collect();
    match form.options.keys().find(|name| !used.contains(name)) {
        Some(name) => Err(fault(["option".into(), name.into()], Problem::Unused(name.clone()))),
        None => Ok(()),
    }
}

fn outputs(form: &Form) -> Result<(), Fault> {
    count("outputs", form.outputs.len(), 1, MAX_OUTPUTS).map_err(|problem| fault(["output".into()], problem))?;
    let mut places = BTreeSet::new();
    for (at, output) in form.outputs.iter().enumerate() {
        if output.rename.is_some() && output.path.plain().is_none() {
            return Err(fault(["output".into(), at.into(), "as".into()], Problem::RenamedPattern));
        }
        let place = output.rename.as_ref().map_or(output.path.as_str(), |path| path.as_str());
        if !places.insert(place) {
            return Err(fault(["output".into(), at.into()], Problem::Twice(place.to_owned())));
        }
    }
    Ok(())
}

fn smoke(form: &Form) -> Result<(), Fault> {
    let Some(smoke) = &form.smoke else {
        return match form.reproducibility {
            Reproducibility::Claimed => Ok(()),
            Reproducibility::NotClaimed => Err(fault(["reproducible".into()], Problem::NoSmoke)),
        };
    };
    run(form, &smoke.run).map_err(|(word, problem)| match word {
        Some(word) => fault(["smoke".into(), "run".into(), word.into()], problem),
        None => fault(["smoke".into(), "run".into()], problem),
    })?;
    let len = smoke.run.iter().map(|word| longest_words(&form.options, word)).sum::<usize>();
    if len > MAX_STEP_BYTES {
        return Err(fault(["smoke".into(), "run".into()], Problem::LongStep { len, max: MAX_STEP_BYTES }));
    }
    match &smoke.expect {
        Some(word) if word.as_str().is_empty() => {
            Err(fault(["smoke".into(), "expect".into()], Problem::Line { max: MAX_LINE_BYTES }))
        }
        Some(word) => {
            holes(form, word, Holes::Inside).map_err(|problem| fault(["smoke".into(), "expect".into()], problem))
        }
        None => Ok(()),
    }
}

fn limits(limits: &Limits) -> Result<(), Fault> {
    let within = |field: &str, found: u64, max: u64| {
        if (1..=max).contains(&found) {
            Ok(())
        } else {
            Err(fault(["limits".into(), field.into()], Problem::Range { found, min: 1, max }))
        }
    };
    let time_s = limits.time.as_millis() / 1_000;
    within("time_s", time_s, MAX_TIME.as_millis() / 1_000)?;
    if limits.time != crate::time::Span::from_secs(time_s) {
        return Err(fault(["limits".into(), "time_s".into()], Problem::Range { found: time_s, min: 1, max: time_s }));
    }
    within("memory_mib", limits.memory_mib, MAX_MIB)?;
    within("disk_mib", limits.disk_mib, MAX_MIB)
}
