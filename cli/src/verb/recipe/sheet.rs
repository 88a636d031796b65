//! A recipe on one page, as `--help` would show it: what `--option` accepts, what it needs, what it makes.

use protocol::recipe::{Condition, Effect, OptionRule, Output, Presence, Recipe, Sort, SourceRule, VariantRule};
use protocol::report::Reproducibility;
use protocol::request::Name;
use std::collections::BTreeMap;

/// As wide as the help of this program.
const WIDTH: usize = 100;
/// What can be typed stands beside the option's name up to this many characters, and in a line of its own beyond.
const SHORT: usize = 16;

/// The page.
pub(super) fn text(recipe: &Recipe) -> String {
    let mut page = format!("{}: {}\n", recipe.name(), recipe.description());
    options(&mut page, recipe);
    section(&mut page, "Requires", requires(recipe));
    section(
        &mut page,
        "Source",
        match recipe.source() {
            SourceRule::Inline => vec!["inside the recipe".to_owned()],
            SourceRule::Archive { hint, url, .. } => vec![url.clone(), format!("or with --source: {hint}")],
            SourceRule::Given { hint } => vec![format!("with --source: {hint}")],
            SourceRule::Git { hint, url, revision } => {
                let revision = revision.as_ref().map_or("HEAD", |revision| revision.as_str());
                vec![format!("{url} at {revision}, or another --revision"), format!("or with --source: {hint}")]
            }
        },
    );
    section(&mut page, "Outputs", recipe.outputs().iter().map(output).collect());
    section(&mut page, "Limits", limits(recipe));
    let claim = match recipe.reproducibility() {
        Reproducibility::Claimed => "Equal inputs are claimed to give equal bytes.",
        Reproducibility::NotClaimed => {
            "Equal inputs are not claimed to give equal bytes: `--agree` counts passed smoke tests."
        }
    };
    page.push_str(&format!("\n{claim}\nDigest of the recipe: {}", recipe.id()));
    page
}

/// What the recipe requires of every volunteer, as `--require` takes it.
pub(super) fn requirement(recipe: &Recipe) -> Vec<String> {
    typed(&recipe.requirement())
}

/// What a variant adds to it.
pub(super) fn variant_requirement(variant: &VariantRule) -> Vec<String> {
    typed(&variant.requirement)
}

/// Conditions as one reads them: `gc=boehm and os=linux`.
pub(super) fn when(conditions: &[Condition]) -> String {
    conditions.iter().map(Condition::to_string).collect::<Vec<_>>().join(" and ")
}

/// What values of an option need or exclude, one sentence each.
pub(super) fn relations(verb: &str, rules: &BTreeMap<String, Vec<Condition>>) -> Vec<String> {
    rules.iter().map(|(value, conditions)| format!("{value} {verb} {}", when(conditions))).collect()
}

fn typed(requirement: &protocol::platform::Requirement) -> Vec<String> {
    let typed = |(key, constraint): (&str, &protocol::platform::Constraint)| {
        protocol::platform::Require { key: key.to_owned(), constraint: constraint.clone() }.to_string()
    };
    requirement.iter().map(typed).collect()
}

fn section(page: &mut String, heading: &str, lines: Vec<String>) {
    page.push_str(&format!("\n{heading}:\n"));
    lines.iter().for_each(|line| page.push_str(&wrapped(line, 2)));
}

fn options(page: &mut String, recipe: &Recipe) {
    if recipe.options().is_empty() {
        page.push_str("\nIt takes no options.\n");
        return;
    }
    let left: Vec<String> = recipe.options().iter().map(|(name, rule)| format!("{name}={}", beside(rule))).collect();
    let width = left.iter().map(|text| text.chars().count()).max().unwrap_or(0) + 2;
    page.push_str("\nOptions, each as --option NAME=VALUE:\n");
    for ((name, rule), left) in recipe.options().iter().zip(left) {
        let lines = described(name, rule);
        for (at, line) in lines.iter().enumerate() {
            let text = wrapped(line, width + 2);
            if at == 0 {
                // The first line stands beside the name.
                page.push_str(&format!("  {left:<width$}{}", text.trim_start()));
            } else {
                page.push_str(&text);
            }
        }
    }
}

/// What stands beside the name of an option.
fn beside(rule: &OptionRule) -> String {
    let accepts = rule.accepts();
    match rule.sort {
        Sort::List { .. } => "VALUE,…".to_owned(),
        _ if accepts.chars().count() <= SHORT => accepts,
        Sort::Text { .. } => "TEXT".to_owned(),
        _ => "VALUE".to_owned(),
    }
}

fn described(name: &Name, rule: &OptionRule) -> Vec<String> {
    let default = rule.default().to_string();
    let default = if default.is_empty() { "nothing".to_owned() } else { default };
    let mut lines = vec![format!("{} [default: {default}]", rule.help)];
    let accepts = rule.accepts();
    match &rule.sort {
        Sort::List { may_be_empty, .. } => {
            let empty = if *may_be_empty { format!("; `{name}=` for none") } else { String::new() };
            lines.push(format!("any of {}{empty}", accepts.replace(',', ", ")));
        }
        _ if accepts.chars().count() <= SHORT => {}
        Sort::Choice { .. } => lines.push(format!("one of {}", accepts.replace('|', ", "))),
        _ => lines.push(format!("matching {accepts}")),
    }
    lines.extend(relations("needs", &rule.needs));
    lines.extend(relations("excludes", &rule.excludes));
    if rule.effect == Effect::Effort {
        lines.push("does not change the result".to_owned());
    }
    lines
}

fn requires(recipe: &Recipe) -> Vec<String> {
    let mut lines = vec![requirement(recipe).join(", ")];
    for variant in recipe.variants().iter().filter(|variant| !variant.requirement.is_empty()) {
        lines.push(format!("with {}: {}", when(&variant.when), variant_requirement(variant).join(", ")));
    }
    lines
}

fn output(output: &Output) -> String {
    let mut text = output.path.as_str().to_owned();
    if let Some(place) = &output.rename {
        text.push_str(&format!(" as {place}"));
    }
    if output.presence == Presence::Optional {
        text.push_str(", if it is there");
    }
    if !output.when.is_empty() {
        text.push_str(&format!(", with {}", when(&output.when)));
    }
    text
}

fn limits(recipe: &Recipe) -> Vec<String> {
    let limits = recipe.limits();
    let time = humantime::format_duration(limits.time.duration());
    let quiet = humantime::format_duration(limits.quiet.duration());
    let mut lines = vec![
        format!("{time}, {} MiB of memory, {} MiB of disk", limits.memory_mib, limits.disk_mib),
        format!("{quiet} without a sign of progress"),
    ];
    for variant in recipe.variants() {
        let raised = variant.limits;
        let parts = [
            raised.time.map(|time| humantime::format_duration(time.duration()).to_string()),
            raised.memory_mib.map(|mib| format!("{mib} MiB of memory")),
            raised.disk_mib.map(|mib| format!("{mib} MiB of disk")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            lines.push(format!("with {}: at least {}", when(&variant.when), parts.join(", ")));
        }
    }
    lines
}

/// Lines of at most [`WIDTH`] characters, indented, each with its end; a word that is longer stays whole.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push_str(&format!("{:indent$}{line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push_str(&format!("{:indent$}{line}\n", ""));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_recipe_is_shown_as_help_would() {
        let recipe = Recipe::parse(include_str!("sample.toml")).unwrap();
        let shown = text(&recipe);
        let (page, digest) = shown.rsplit_once(": ").unwrap();
        assert_eq!(digest, recipe.id().to_string());
        assert_eq!(page, include_str!("sample.txt").trim_end());
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH));
    }
}
