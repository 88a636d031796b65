//! The rules of the language, applied to every recipe whether it came as text or as a blob.

use super::bound::Bound;
use super::clash::{Clash, ClashKind};
use super::condition::{Condition, MAX_CONDITIONS, PLATFORM_KEYS};
use super::env::Variable;
use super::error::{Part, Place, Problem};
use super::files::file_entries;
use super::option::{Choice, Effect, OptionRule, Sort, Spread, unknown};
use super::pattern::MAX_VALUE_BYTES;
use super::template::{HERE, JOBS, Word};
use super::{
    Form, LANGUAGE, Limits, MAX_CHOICE_WORDS, MAX_CHOICES, MAX_FILES, MAX_LINE_BYTES, MAX_MIB, MAX_OPTIONS,
    MAX_OUTPUTS, MAX_RECIPE_BYTES, MAX_SETTINGS_BYTES, MAX_SOURCE_DATE_EPOCH, MAX_STEP_BYTES, MAX_STEPS, MAX_TIME,
    MAX_VARIABLES, MAX_VARIANTS, MAX_WORDS, MIN_SOURCE_DATE_EPOCH, Presence, Raised, SourceRule, StepRule, VariantRule,
};
use crate::codec;
use crate::platform::{MAX_KEYS, Requirement};
use crate::report::Reproducibility;
use crate::request::{Name, OptionValue};
use crate::source::{HttpsUrl, MAX_URL_BYTES};
use crate::time::Span;
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

/// A fault further in than `place`.
fn fault_in(place: &[Part], more: impl IntoIterator<Item = Part>, problem: impl Into<Problem>) -> Fault {
    Fault { place: Place(place.iter().cloned().chain(more).collect()), problem: Box::new(problem.into()) }
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

/// Every broken rule that does not follow from another.
pub(super) fn check(form: &Form) -> Vec<Fault> {
    let mut faults: Vec<Fault> = whole(form).err().into_iter().collect();
    let mut note = |checked: Result<(), Fault>| faults.extend(checked.err());
    form.options.iter().for_each(|(name, rule)| note(option(name, rule).and_then(|()| relations(form, name, rule))));
    note(source(form));
    note(files(form));
    note(variables(form, &["env".into()], &form.env));
    form.variants.iter().enumerate().for_each(|(at, rule)| note(variant(form, at, rule)));
    form.steps.iter().enumerate().for_each(|(at, rule)| note(step(form, at, rule)));
    note(outputs(form));
    note(smoke(form));
    note(limits(&form.limits));
    if faults.is_empty() {
        faults.extend(every_option_is_used(form).and_then(|()| defaults(form)).err());
    }
    faults
}

/// The fields at the top, and how many there are of each below.
fn whole(form: &Form) -> Result<(), Fault> {
    if form.recipe != LANGUAGE {
        return Err(fault(["recipe".into()], Problem::Language(form.recipe)));
    }
    let len = codec::encode(form).len();
    if len > MAX_RECIPE_BYTES {
        return Err(fault([], Problem::TooLarge { len, max: MAX_RECIPE_BYTES }));
    }
    line(&form.description).map_err(|problem| fault(["description".into()], problem))?;
    let keys: BTreeSet<&str> = form
        .variants
        .iter()
        .map(|variant| &variant.requirement)
        .chain([&form.requirement])
        .flat_map(|requirement| requirement.iter().map(|(key, _)| key))
        .collect();
    // Memory, disk and platform come to it.
    if !form.requirement.is_within_limits() || keys.len() + 4 > MAX_KEYS {
        return Err(fault(["requires".into()], Problem::Requirement));
    }
    let epochs = MIN_SOURCE_DATE_EPOCH..=MAX_SOURCE_DATE_EPOCH;
    if !epochs.contains(&form.source_date_epoch) {
        let problem = Problem::Range { found: form.source_date_epoch, min: *epochs.start(), max: *epochs.end() };
        return Err(fault(["source_date_epoch".into()], problem));
    }
    let len = Bound(&form.options).settings();
    if len > MAX_SETTINGS_BYTES {
        return Err(fault(["option".into()], Problem::Settings { len, max: MAX_SETTINGS_BYTES }));
    }
    let counts = [
        ("option", "options", form.options.len(), 0, MAX_OPTIONS),
        ("file", "files", form.files.len(), 0, MAX_FILES),
        ("variant", "variants", form.variants.len(), 0, MAX_VARIANTS),
        ("step", "steps", form.steps.len(), 1, MAX_STEPS),
        ("output", "outputs", form.outputs.len(), 1, MAX_OUTPUTS),
    ];
    counts.into_iter().try_for_each(|(field, what, found, min, max)| {
        count(what, found, min, max).map_err(|problem| fault([field.into()], problem))
    })
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
    if [JOBS, HERE].contains(&name.as_str()) || PLATFORM_KEYS.contains(&name.as_str()) {
        return Err(fault(["option".into(), name.into()], Problem::Reserved));
    }
    line(&rule.help).map_err(|problem| at("help", problem))?;
    match &rule.sort {
        Sort::Choice { choices, .. } => check_choices(name, choices)?,
        Sort::List { choices, spread, .. } => {
            check_choices(name, choices)?;
            if let Spread::Joined(between) = spread {
                // Nothing between the values would make two of them one.
                line(between).map_err(|_| at("join", Problem::Line { max: MAX_LINE_BYTES }))?;
                if choices.iter().any(|choice| choice.words.is_some()) {
                    return Err(at("join", Problem::JoinAndWords));
                }
            }
        }
        Sort::Bool { yes, no, .. } => {
            plain(yes).and_then(|()| plain(no)).map_err(|problem| at("words", problem))?;
        }
        Sort::Integer { min, max, .. } if min > max => return Err(at("min", Problem::EmptyRange)),
        Sort::Integer { .. } | Sort::Text { .. } => {}
    }
    rule.check(name, &rule.default()).map_err(|error| at("default", Problem::Option(error)))
}

/// The words that stand for a value.
fn plain(words: &[Word]) -> Result<(), Problem> {
    count("words", words.len(), 0, MAX_CHOICE_WORDS)?;
    words.iter().find(|word| word.plain().is_none()).map_or(Ok(()), |word| Err(Problem::NotPlain(word.to_string())))
}

fn check_choices(name: &Name, choices: &[Choice]) -> Result<(), Fault> {
    let at = |field: &str, problem| fault(["option".into(), name.into(), field.into()], problem);
    count("choices", choices.len(), 1, MAX_CHOICES).map_err(|problem| at("choices", problem))?;
    let mut seen = BTreeSet::new();
    for (number, Choice { value, words }) in choices.iter().enumerate() {
        let wrong = |problem| fault(["option".into(), name.into(), "choices".into(), number.into()], problem);
        line(value).map_err(wrong)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(wrong(Problem::Line { max: MAX_VALUE_BYTES }));
        }
        if value.contains([',', '|']) || value.trim() != value {
            return Err(wrong(Problem::Untypable(value.clone())));
        }
        if !seen.insert(value) {
            return Err(wrong(Problem::Twice(value.clone())));
        }
        plain(words.as_deref().unwrap_or_default()).map_err(|problem| at("words", problem))?;
    }
    let bare = choices.iter().find(|choice| choice.words.is_none());
    match bare.filter(|_| choices.iter().any(|choice| choice.words.is_some())) {
        Some(bare) => Err(at("words", Problem::WordsMissing(bare.value.clone()))),
        None => Ok(()),
    }
}

/// What an option's values need and exclude.
fn relations(form: &Form, name: &Name, rule: &OptionRule) -> Result<(), Fault> {
    for (field, rules) in [("needs", &rule.needs), ("excludes", &rule.excludes)] {
        if rule.effect == Effect::Effort && !rules.is_empty() {
            return Err(fault(["option".into(), name.into(), field.into()], Problem::EffortWithRules));
        }
        for (value, when) in rules {
            let place: [Part; 4] = ["option".into(), name.into(), field.into(), value.as_str().into()];
            spelling(name, rule, value).map_err(|problem| fault_in(&place, [], problem))?;
            conditions(form, &place, when)?;
            for (at, condition) in when.iter().enumerate() {
                let subject = condition.subject();
                if subject == name {
                    return Err(fault_in(&place, [at.into()], Problem::DependsOnItself(name.clone())));
                }
                if condition.is_about_platform() {
                    return Err(fault_in(&place, [at.into()], Problem::DependsOnPlatform(subject.clone())));
                }
            }
        }
    }
    Ok(())
}

/// The conditions at `place`: each is about the platform, or about a value that an option can have.
fn conditions(form: &Form, place: &[Part], when: &[Condition]) -> Result<(), Fault> {
    count("conditions", when.len(), 0, MAX_CONDITIONS).map_err(|problem| fault_in(place, [], problem))?;
    let fits = |(at, condition): (usize, &Condition)| {
        condition_fits(form, condition).map_err(|problem| fault_in(place, [at.into()], problem))
    };
    when.iter().enumerate().try_for_each(fits)
}

fn condition_fits(form: &Form, condition: &Condition) -> Result<(), Problem> {
    let name = condition.subject();
    if condition.is_about_platform() {
        let is_word = |word: &String| !word.is_empty() && word.parse::<Name>().is_ok();
        let strange = condition.values().iter().find(|word| !is_word(word));
        return strange.map_or(Ok(()), |word| Err(Problem::Untypable(word.clone())));
    }
    let rule = form.options.get(name).ok_or_else(|| unknown(&form.options, name.as_str()))?;
    if rule.effect == Effect::Effort {
        return Err(Problem::DependsOnEffort(name.clone()));
    }
    condition.values().iter().try_for_each(|value| spelling(name, rule, value))
}

/// Whether `written` is a value of the option, as the language spells it: of a list, one value, or nothing for the empty one.
fn spelling(name: &Name, rule: &OptionRule, written: &str) -> Result<(), Problem> {
    let canonical = match rule.read(name, written)? {
        OptionValue::List(values) if values.len() > 1 => return Err(Problem::Untypable(written.to_owned())),
        value => value.to_string(),
    };
    if canonical == written { Ok(()) } else { Err(Problem::Spelling { written: written.to_owned(), canonical }) }
}

/// Whether whoever says nothing gets something that goes together.
fn defaults(form: &Form) -> Result<(), Fault> {
    let values = form.options.iter().map(|(name, rule)| (name.clone(), rule.default())).collect();
    let Some(clash) = Clash::find(&form.options, &values) else { return Ok(()) };
    let field = match clash.kind {
        ClashKind::Needs => "needs",
        ClashKind::Excludes => "excludes",
    };
    let place = ["option".into(), (&clash.option).into(), field.into(), clash.value.as_str().into()];
    Err(fault(place, Problem::DefaultsClash(Box::new(clash))))
}

fn source(form: &Form) -> Result<(), Fault> {
    let at = |field: &str, problem| fault(["source".into(), field.into()], problem);
    match &form.source {
        SourceRule::Inline if form.files.is_empty() => return Err(fault([], Problem::NoSource)),
        SourceRule::Inline => {}
        SourceRule::Given { hint } | SourceRule::Git { hint, .. } => {
            line(hint).map_err(|problem| at("hint", problem))?
        }
        SourceRule::Archive { hint, size, url, .. } => {
            line(hint).map_err(|problem| at("hint", problem))?;
            if url.parse::<HttpsUrl>().is_err() {
                return Err(at("archive", Problem::Url { max: MAX_URL_BYTES }));
            }
            if *size == 0 {
                return Err(at("size", Problem::Range { found: 0, min: 1, max: u64::MAX }));
            }
        }
    }
    Ok(())
}

fn files(form: &Form) -> Result<(), Fault> {
    Manifest::new(file_entries(&form.files).collect())
        .map_err(|error| fault(["file".into()], Problem::Files(error)))?;
    Ok(())
}

fn variant(form: &Form, at: usize, rule: &VariantRule) -> Result<(), Fault> {
    let here = |field: &str, problem| fault(["variant".into(), at.into(), field.into()], problem);
    let VariantRule { when, requirement, env, limits } = rule;
    if when.is_empty() {
        return Err(here("when", Problem::Count { what: "conditions", found: 0, min: 1, max: MAX_CONDITIONS }));
    }
    conditions(form, &["variant".into(), at.into(), "when".into()], when)?;
    if requirement.is_empty() && env.is_empty() && *limits == Raised::default() {
        return Err(fault(["variant".into(), at.into()], Problem::EmptyVariant));
    }
    if !requirement.is_within_limits() {
        return Err(here("requires", Problem::Requirement));
    }
    if let Some(key) = PLATFORM_KEYS.into_iter().find(|key| requirement.get(key).is_some()) {
        return Err(here("requires", Problem::VariantPlatform(key.to_owned())));
    }
    variables(form, &["variant".into(), at.into(), "env".into()], env)?;
    let usual = Limits::default();
    let raised = Limits {
        time: limits.time.unwrap_or(usual.time),
        memory_mib: limits.memory_mib.unwrap_or(usual.memory_mib),
        disk_mib: limits.disk_mib.unwrap_or(usual.disk_mib),
        quiet: usual.quiet,
    };
    limits_within(&["variant".into(), at.into(), "limits".into()], &raised)
}

fn step(form: &Form, at: usize, rule: &StepRule) -> Result<(), Fault> {
    let here = |field: &str, problem| fault(["step".into(), at.into(), field.into()], problem);
    conditions(form, &["step".into(), at.into(), "when".into()], &rule.when)?;
    run(form, &rule.run, &rule.when).map_err(|(word, problem)| match word {
        Some(word) => fault(["step".into(), at.into(), "run".into(), word.into()], problem),
        None => here("run", problem),
    })?;
    variables(form, &["step".into(), at.into(), "env".into()], &rule.env)?;
    // Variants and the recipe itself may add to what the step sets.
    let env = form.variants.iter().map(|variant| &variant.env).chain([&form.env, &rule.env]).flatten();
    let bound = Bound(&form.options);
    let len = bound.words(&rule.run) + env.map(|(name, value)| name.len() + 1 + bound.variable(value)).sum::<usize>();
    if len > MAX_STEP_BYTES {
        return Err(here("run", Problem::LongStep { len, max: MAX_STEP_BYTES }));
    }
    let Some(time) = rule.time else { return Ok(()) };
    let raised = form.variants.iter().filter_map(|variant| variant.limits.time);
    let all = raised.chain([form.limits.time]).max().unwrap_or(form.limits.time);
    let seconds = |time: Span| time.as_millis() / 1_000;
    if time < Span::from_secs(1) || time > all || time != Span::from_secs(seconds(time)) {
        let (step_s, all_s) = (seconds(time), seconds(all));
        return Err(here("time_s", Problem::StepTime { step_s, all_s }));
    }
    Ok(())
}

fn variables(form: &Form, place: &[Part], env: &BTreeMap<String, Variable>) -> Result<(), Fault> {
    count("variables", env.len(), 0, MAX_VARIABLES).map_err(|problem| fault_in(place, [], problem))?;
    for (name, variable) in env {
        let wrong = |problem| fault_in(place, [name.as_str().into()], problem);
        let good = name.len() <= MAX_VALUE_BYTES
            && name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if !good || SANDBOX_VARIABLES.contains(&name.as_str()) {
            return Err(wrong(Problem::Variable(name.clone())));
        }
        match variable {
            Variable::Text(word) => holes(form, word, Holes::Inside).map_err(wrong)?,
            Variable::Words(words) => {
                count("words", words.len(), 1, MAX_WORDS).map_err(wrong)?;
                for (at, word) in words.iter().enumerate() {
                    holes(form, word, Holes::Words)
                        .and_then(|()| no_spaces(form, word))
                        .map_err(|problem| fault_in(place, [name.as_str().into(), at.into()], problem))?;
                }
            }
        }
    }
    Ok(())
}

/// Whether nobody who asks can put a space into this word of a list that is joined with spaces.
fn no_spaces(form: &Form, word: &Word) -> Result<(), Problem> {
    let may_hold_one = |name: &&Name| match form.options.get(*name).map(|rule| &rule.sort) {
        Some(Sort::Text { pattern, .. }) => pattern.admits(b' '),
        _ => false,
    };
    word.options().find(may_hold_one).map_or(Ok(()), |name| Err(Problem::Spaced(name.clone())))
}

/// Checks the words of a step or smoke test; the fault names the word it is in.
fn run(form: &Form, words: &[Word], when: &[Condition]) -> Result<(), (Option<usize>, Problem)> {
    count("words", words.len(), 1, MAX_WORDS).map_err(|problem| (None, problem))?;
    let program = words[0].plain().unwrap_or_default();
    if program.is_empty() || program.starts_with(['/', '-']) {
        return Err((Some(0), Problem::Program));
    }
    let tool = format!("tool.{program}");
    if !program.contains('/')
        && !PLAIN_PROGRAMS.contains(&program)
        && !requirements_with(form, when).any(|requirement| requirement.get(&tool).is_some())
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

/// What is required of every volunteer that runs a step under these conditions.
fn requirements_with<'a>(form: &'a Form, when: &'a [Condition]) -> impl Iterator<Item = &'a Requirement> {
    let counts = |variant: &&VariantRule| {
        variant.when.iter().all(|wanted| when.iter().any(|condition| condition.implies(wanted)))
    };
    let variants = form.variants.iter().filter(counts).map(|variant| &variant.requirement);
    std::iter::once(&form.requirement).chain(variants)
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
    let mut lists: Vec<&Name> = Vec::new();
    for name in word.options() {
        let rule = form.options.get(name).ok_or_else(|| unknown(&form.options, name.as_str()))?;
        let stands_alone = kind == Holes::Words && word.whole().is_some();
        match &rule.sort {
            Sort::Bool { .. } if !stands_alone => return Err(Problem::BoolInWord(name.clone())),
            Sort::Bool { yes, no, .. } if yes.is_empty() && no.is_empty() => {
                return Err(Problem::BoolWithoutWords(name.clone()));
            }
            Sort::List { spread: Spread::Words, .. } => {
                if kind == Holes::Inside {
                    return Err(Problem::ListInText(name.clone()));
                }
                if let Some(other) = lists.iter().find(|other| **other != name) {
                    return Err(Problem::TwoLists((*other).clone(), name.clone()));
                }
                lists.push(name);
            }
            _ => {}
        }
    }
    Ok(())
}

fn every_option_is_used(form: &Form) -> Result<(), Fault> {
    let runs = form.steps.iter().flat_map(|step| &step.run);
    let envs = form.steps.iter().map(|step| &step.env).chain(form.variants.iter().map(|variant| &variant.env));
    let set = envs.chain([&form.env]).flat_map(BTreeMap::values).flat_map(Variable::words);
    let whens = form.steps.iter().map(|step| &step.when).chain(form.variants.iter().map(|variant| &variant.when));
    let asked = whens.chain(form.outputs.iter().map(|output| &output.when)).flatten().map(Condition::subject);
    let used: BTreeSet<&Name> = runs.chain(set).flat_map(Word::options).chain(asked).collect();
    match form.options.keys().find(|name| !used.contains(name)) {
        Some(name) => Err(fault(["option".into(), name.into()], Problem::Unused(name.clone()))),
        None => Ok(()),
    }
}

fn outputs(form: &Form) -> Result<(), Fault> {
    let mut places = BTreeMap::new();
    for (at, output) in form.outputs.iter().enumerate() {
        conditions(form, &["output".into(), at.into(), "when".into()], &output.when)?;
        let place = output.rename.as_ref().filter(|_| output.path.plain().is_some());
        let place = place.map_or(output.path.as_str(), |path| path.as_str());
        // Two that are declared at different times may stand in the same place.
        if places.insert((place, &output.when), at).is_some() {
            return Err(fault(["output".into(), at.into()], Problem::Twice(place.to_owned())));
        }
    }
    match form.outputs.iter().all(|output| output.presence == Presence::Optional) {
        true if !form.outputs.is_empty() => Err(fault(["output".into()], Problem::NoRequiredOutput)),
        _ => Ok(()),
    }
}

fn smoke(form: &Form) -> Result<(), Fault> {
    let Some(smoke) = &form.smoke else {
        return match form.reproducibility {
            Reproducibility::Claimed => Ok(()),
            Reproducibility::NotClaimed => Err(fault(["reproducible".into()], Problem::NoSmoke)),
        };
    };
    run(form, &smoke.run, &[]).map_err(|(word, problem)| match word {
        Some(word) => fault(["smoke".into(), "run".into(), word.into()], problem),
        None => fault(["smoke".into(), "run".into()], problem),
    })?;
    let len = Bound(&form.options).words(&smoke.run);
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
    limits_within(&["limits".into()], limits)
}

fn limits_within(place: &[Part], limits: &Limits) -> Result<(), Fault> {
    let within = |field: &str, found: u64, max: u64| {
        if (1..=max).contains(&found) {
            return Ok(());
        }
        Err(fault_in(place, [field.into()], Problem::Range { found, min: 1, max }))
    };
    // A blob could hold parts of a second, which the text cannot.
    let whole = |span: Span| Some(span.as_millis() / 1_000).filter(|secs| span == Span::from_secs(*secs)).unwrap_or(0);
    within("time_s", whole(limits.time), whole(MAX_TIME))?;
    within("quiet_s", whole(limits.quiet), whole(MAX_TIME))?;
    within("memory_mib", limits.memory_mib, MAX_MIB)?;
    within("disk_mib", limits.disk_mib, MAX_MIB)
}
