//! `node recipe`: what can be built, and whether a recipe of one's own is one.

use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::sentences::Said;
use protocol::recipe::{MAX_RECIPE_BYTES, OptionRule, Recipe, SourceRule};
use protocol::report::Reproducibility;
use protocol::request::Name;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// An option of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OptionShape {
    pub(crate) name: String,
    pub(crate) help: String,
    /// What can be typed.
    pub(crate) accepts: String,
    pub(crate) default: String,
}

/// A recipe: `show` and `check`, and each row of `list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RecipeShape {
    pub(crate) name: Option<String>,
    /// Digest of the recipe.
    pub(crate) recipe: Option<String>,
    pub(crate) description: Option<String>,
    /// `inline`, `archive` or `given`.
    pub(crate) source: Option<&'static str>,
    pub(crate) options: Option<Vec<OptionShape>>,
    /// As `--require` takes them.
    pub(crate) requires: Option<Vec<String>>,
    pub(crate) outputs: Option<Vec<String>>,
    pub(crate) reproducible: Option<bool>,
    pub(crate) reason: Option<String>,
}

/// `recipe list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RecipesShape {
    pub(crate) recipes: Option<Vec<RecipeShape>>,
    pub(crate) reason: Option<String>,
}

impl From<&Recipe> for RecipeShape {
    fn from(recipe: &Recipe) -> Self {
        let option = |(name, rule): (&Name, &OptionRule)| OptionShape {
            name: name.to_string(),
            help: rule.help.clone(),
            accepts: rule.accepts(),
            default: rule.default().to_string(),
        };
        Self {
            name: Some(recipe.name().to_string()),
            recipe: Some(recipe.id().to_string()),
            description: Some(recipe.description().to_owned()),
            source: Some(match recipe.source() {
                SourceRule::Inline => "inline",
                SourceRule::Archive { .. } => "archive",
                SourceRule::Given { .. } => "given",
            }),
            options: Some(recipe.options().iter().map(option).collect()),
            requires: Some(requires(recipe)),
            outputs: Some(recipe.outputs().iter().map(|output| output.path.as_str().to_owned()).collect()),
            reproducible: Some(recipe.reproducibility() == Reproducibility::Claimed),
            reason: None,
        }
    }
}

/// What a recipe requires, as `--require` takes it.
fn requires(recipe: &Recipe) -> Vec<String> {
    let requirement = recipe.requirement();
    let typed = |(key, constraint): (&str, &protocol::platform::Constraint)| {
        protocol::platform::Require { key: key.to_owned(), constraint: constraint.clone() }.to_string()
    };
    requirement.iter().map(typed).collect()
}

/// Lists the recipes that came with the program.
pub(crate) fn list(output: &Output, recipes: &[Recipe]) -> Result<Exit, Failure> {
    let mut table = Table::new(&["RECIPE", "OPTIONS", "DESCRIPTION"]);
    for recipe in recipes {
        let options: Vec<&str> = recipe.options().keys().map(Name::as_str).collect();
        table.row([recipe.name().to_string(), options.join(", "), recipe.description().to_owned()]);
    }
    output.answer(&table.text())?;
    output.object(&RecipesShape { recipes: Some(recipes.iter().map(RecipeShape::from).collect()), reason: None })?;
    Ok(Exit::Done)
}

/// Shows one recipe of those that came with the program.
pub(crate) fn show(output: &Output, recipes: &[Recipe], name: &Name) -> Result<Exit, Failure> {
    let recipe = recipes.iter().find(|recipe| recipe.name() == name).ok_or_else(|| unknown(recipes, name))?;
    output.answer(&text(recipe))?;
    output.object(&RecipeShape::from(recipe))?;
    Ok(Exit::Done)
}

/// No recipe of this name came with the program.
pub(crate) fn unknown(recipes: &[Recipe], name: &Name) -> Failure {
    let known: Vec<&str> = recipes.iter().map(|recipe| recipe.name().as_str()).collect();
    let what = format!("no recipe `{name}` came with this program; there are {}", known.join(", "));
    Failure::new(Exit::Usage, Said::with_next(what, "name one of them, or give a TOML file such as `./my.toml`"))
}

/// Checks a recipe in a file.
pub(crate) fn check(output: &Output, file: &Path) -> Result<Exit, Failure> {
    let recipe = read(file)?;
    output.tell(&Said::with_next(
        format!("{} is a recipe: {}", file.display(), recipe.description()),
        format!("`node request {}` builds it; a volunteer needs `--accept members` or `any`", file.display()),
    ));
    output.answer(&recipe.id().to_string())?;
    output.object(&RecipeShape::from(&recipe))?;
    Ok(Exit::Done)
}

/// The recipe in a file.
pub(crate) fn read(file: &Path) -> Result<Recipe, Failure> {
    let shown = file.display();
    let wrong = |what: String, next: &str| Failure::new(Exit::Usage, Said::with_next(what, next));
    let mut text = String::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    let limit = MAX_RECIPE_BYTES as u64 + 1;
    let read = File::open(file).and_then(|opened| opened.take(limit).read_to_string(&mut text));
    read.map_err(|error| wrong(format!("{shown} cannot be read: {error}"), "give a recipe as a TOML file"))?;
    if text.len() > MAX_RECIPE_BYTES {
        let what = format!("{shown} is longer than a recipe may be ({} KiB)", MAX_RECIPE_BYTES >> 10);
        return Err(wrong(what, "leave large files to the source"));
    }
    Recipe::parse(&text).map_err(|error| {
        wrong(
            format!("{shown} is not a recipe: {error}"),
            "`node recipe show hello` shows one; `node recipe check FILE` tries again",
        )
    })
}

fn text(recipe: &Recipe) -> String {
    let mut lines = vec![
        format!("{}: {}", recipe.name(), recipe.description()),
        format!("recipe   {}", recipe.id()),
        match recipe.source() {
            SourceRule::Inline => "source   inside the recipe".to_owned(),
            SourceRule::Archive { hint, url, .. } => format!("source   {url}, or with --source: {hint}"),
            SourceRule::Given { hint } => format!("source   with --source: {hint}"),
        },
        format!("needs    {}", requires(recipe).join(", ")),
    ];
    for (name, rule) in recipe.options() {
        lines.push(format!("option   {name}={}  ({}; {})", rule.default(), rule.accepts(), rule.help));
    }
    lines.extend(recipe.outputs().iter().map(|output| format!("output   {}", output.path.as_str())));
    lines.push(match recipe.reproducibility() {
        Reproducibility::Claimed => "same     equal inputs are claimed to give equal bytes".to_owned(),
        Reproducibility::NotClaimed => "same     no claim; agreement counts passed smoke tests".to_owned(),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_catalogue_is_shown_as_it_is() {
        let hello = node::catalogue::by_name("hello").unwrap();
        let shape = RecipeShape::from(hello);
        assert_eq!((shape.name.as_deref(), shape.source), (Some("hello"), Some("inline")));
        assert_eq!(
            shape.options,
            Some(vec![OptionShape {
                name: "greeting".to_owned(),
                help: "what the program prints".to_owned(),
                accepts: "[A-Za-z0-9-]{1,64}".to_owned(),
                default: "hello".to_owned(),
            }])
        );
        assert!(shape.requires.unwrap().contains(&"tool.cc".to_owned()));
        assert!(text(hello).contains("option   greeting=hello  ([A-Za-z0-9-]{1,64}; what the program prints)"));
    }

    #[test]
    fn an_unknown_recipe_names_the_known_ones() {
        let failure = unknown(node::catalogue::all(), &"lisp".parse().unwrap());
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.said.what, "no recipe `lisp` came with this program; there are hello, lua, sqlite, zstd");
    }

    #[test]
    fn a_file_that_is_no_recipe_is_a_usage_error_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        assert_eq!(read(&file).unwrap_err().exit, Exit::Usage);
        std::fs::write(&file, "recipe = 1\nname = \"X\"\n").unwrap();
        let failure = read(&file).unwrap_err();
        assert!(failure.said.what.contains("is not a recipe: line 2"), "{}", failure.said.what);
        std::fs::write(&file, vec![b'#'; MAX_RECIPE_BYTES + 1]).unwrap();
        assert!(read(&file).unwrap_err().said.what.contains("longer than a recipe may be"));
    }
}
