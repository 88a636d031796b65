//! `node recipe`: what can be built, whether a recipe of one's own is one, and a file to start from.

mod excerpt;
mod sheet;

use crate::args::RecipeArg;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::sentences::Said;
use node::catalogue;
use protocol::recipe::nearest::nearest;
use protocol::recipe::{
    Effect, MAX_RECIPE_BYTES, OptionRule, Recipe, RecipeError, RecipeErrors, Sort, SourceRule, VariantRule,
};
use protocol::report::Reproducibility;
use protocol::request::Name;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A recipe to start from, in which `NAME` stands for its name.
const STARTER: &str = include_str!("recipe/starter.toml");

/// An option of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OptionShape {
    pub(crate) name: String,
    /// `choice`, `bool`, `integer`, `text` or `list`.
    pub(crate) r#type: &'static str,
    pub(crate) help: String,
    /// What can be typed.
    pub(crate) accepts: String,
    pub(crate) default: String,
    /// Whether it is part of the build key.
    pub(crate) changes_result: bool,
    /// `VALUE needs OPTION=VALUE`.
    pub(crate) needs: Vec<String>,
    /// `VALUE excludes OPTION=VALUE`.
    pub(crate) excludes: Vec<String>,
}

/// What holds only for some options or platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VariantShape {
    /// All of which must hold.
    pub(crate) when: Vec<String>,
    /// As `--require` takes them.
    pub(crate) requires: Vec<String>,
}

/// Something wrong with a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MistakeShape {
    /// Counted from 1; null where the whole text is meant.
    pub(crate) line: Option<usize>,
    /// In characters, counted from 1.
    pub(crate) column: Option<usize>,
    /// The field, empty where the text is not even TOML.
    pub(crate) place: String,
    pub(crate) problem: String,
}

/// A recipe: `show`, `check` and `new`, and each row of `list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RecipeShape {
    pub(crate) name: Option<String>,
    /// Digest of the recipe.
    pub(crate) recipe: Option<String>,
    pub(crate) description: Option<String>,
    /// `inline`, `archive`, `git` or `given`.
    pub(crate) source: Option<&'static str>,
    pub(crate) options: Option<Vec<OptionShape>>,
    /// As `--require` takes them.
    pub(crate) requires: Option<Vec<String>>,
    pub(crate) variants: Option<Vec<VariantShape>>,
    pub(crate) outputs: Option<Vec<String>>,
    pub(crate) reproducible: Option<bool>,
    /// The file that `new` wrote.
    pub(crate) file: Option<PathBuf>,
    /// What `check` found.
    pub(crate) mistakes: Option<Vec<MistakeShape>>,
    pub(crate) reason: Option<String>,
}

/// `recipe list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RecipesShape {
    pub(crate) recipes: Option<Vec<RecipeShape>>,
    pub(crate) reason: Option<String>,
}

impl From<(&Name, &OptionRule)> for OptionShape {
    fn from((name, rule): (&Name, &OptionRule)) -> Self {
        Self {
            name: name.to_string(),
            r#type: match rule.sort {
                Sort::Choice { .. } => "choice",
                Sort::Bool { .. } => "bool",
                Sort::Integer { .. } => "integer",
                Sort::Text { .. } => "text",
                Sort::List { .. } => "list",
            },
            help: rule.help.clone(),
            accepts: rule.accepts(),
            default: rule.default().to_string(),
            changes_result: rule.effect == Effect::Result,
            needs: sheet::relations("needs", &rule.needs),
            excludes: sheet::relations("excludes", &rule.excludes),
        }
    }
}

impl From<&RecipeError> for MistakeShape {
    fn from(error: &RecipeError) -> Self {
        Self {
            line: error.position.map(|position| position.line),
            column: error.position.map(|position| position.column),
            place: error.place.to_string(),
            problem: error.problem.to_string(),
        }
    }
}

impl From<&Recipe> for RecipeShape {
    fn from(recipe: &Recipe) -> Self {
        let variant = |variant: &VariantRule| VariantShape {
            when: variant.when.iter().map(ToString::to_string).collect(),
            requires: sheet::variant_requirement(variant),
        };
        Self {
            name: Some(recipe.name().to_string()),
            recipe: Some(recipe.id().to_string()),
            description: Some(recipe.description().to_owned()),
            source: Some(match recipe.source() {
                SourceRule::Inline => "inline",
                SourceRule::Archive { .. } => "archive",
                SourceRule::Given { .. } => "given",
                SourceRule::Git { .. } => "git",
            }),
            options: Some(recipe.options().iter().map(OptionShape::from).collect()),
            requires: Some(sheet::requirement(recipe)),
            variants: Some(recipe.variants().iter().map(variant).collect()),
            outputs: Some(recipe.outputs().iter().map(|output| output.path.as_str().to_owned()).collect()),
            reproducible: Some(recipe.reproducibility() == Reproducibility::Claimed),
            ..Self::default()
        }
    }
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

/// Shows what one recipe takes, needs and makes.
pub(crate) fn show(output: &Output, recipe: &Recipe) -> Result<Exit, Failure> {
    output.answer(&sheet::text(recipe))?;
    output.object(&RecipeShape::from(recipe))?;
    Ok(Exit::Done)
}

/// The recipe that was named, of the catalogue or in a file.
pub(crate) fn named(recipe: &RecipeArg) -> Result<Recipe, Failure> {
    match recipe {
        RecipeArg::File(path) => read(path),
        RecipeArg::Catalogue(name) => {
            catalogue::by_name(name.as_str()).cloned().ok_or_else(|| unknown(catalogue::all(), name))
        }
    }
}

/// No recipe of this name came with the program.
fn unknown(recipes: &[Recipe], name: &Name) -> Failure {
    let known: Vec<&str> = recipes.iter().map(|recipe| recipe.name().as_str()).collect();
    let what = match nearest(name.as_str(), known.iter().copied()) {
        Some(meant) => format!("no recipe `{name}` came with this program; did you mean `{meant}`?"),
        None => format!("no recipe `{name}` came with this program; there are {}", known.join(", ")),
    };
    let next = "`node recipe list` shows them all; a recipe of your own is a TOML file such as `./my.toml`";
    Failure::new(Exit::Usage, Said::with_next(what, next))
}

/// Checks a recipe in a file, and says all that is wrong with it.
pub(crate) fn check(output: &Output, file: &Path) -> Result<Exit, Failure> {
    let text = text_of(file)?;
    let recipe = match Recipe::parse_all(&text) {
        Ok(recipe) => recipe,
        Err(errors) => return mistaken(output, file, &text, &errors),
    };
    output.tell(&Said::with_next(
        format!("{} is a recipe: {}", file.display(), recipe.description()),
        format!("`node request {}` builds it; a volunteer needs `--accept members` or `any`", file.display()),
    ));
    output.answer(&recipe.id().to_string())?;
    output.object(&RecipeShape { mistakes: Some(Vec::new()), ..RecipeShape::from(&recipe) })?;
    Ok(Exit::Done)
}

fn mistaken(output: &Output, file: &Path, text: &str, errors: &RecipeErrors) -> Result<Exit, Failure> {
    for error in errors.iter() {
        let excerpt = error.position.map(|position| excerpt::excerpt(text, position)).unwrap_or_default();
        output.error(&Said::new(format!("{}: {error}{excerpt}", file.display())));
    }
    let count = match errors.iter().count() {
        1 => "one mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    let what = format!("{} is not a recipe: {count}", file.display());
    output.tell(&Said::with_next(
        &what,
        "node/recipes/README.md describes the language; `node recipe new NAME` writes one",
    ));
    output.object(&RecipeShape {
        mistakes: Some(errors.iter().map(MistakeShape::from).collect()),
        reason: Some(format!("{what}: {errors}")),
        ..RecipeShape::default()
    })?;
    Ok(Exit::Usage)
}

/// Writes a recipe to start from into the current folder.
pub(crate) fn new(output: &Output, name: &Name) -> Result<Exit, Failure> {
    let file = PathBuf::from(format!("{name}.toml"));
    let text = starter(name);
    let recipe = Recipe::parse(&text).map_err(|error| {
        // A name of 64 characters is as good as any other, so this is ours.
        Failure::new(Exit::Infrastructure, Said::new(format!("the starter is not a recipe: {error}")))
    })?;
    let written = OpenOptions::new().write(true).create_new(true).open(&file);
    written.and_then(|mut written| written.write_all(text.as_bytes())).map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::AlreadyExists => "choose another name, or move that file away",
            _ => "go to a folder that you may write to",
        };
        Failure::new(Exit::Usage, Said::with_next(format!("{} cannot be written: {error}", file.display()), next))
    })?;
    output.tell(&Said::with_next(
        format!("{} is a recipe that builds as it is", file.display()),
        format!("change it, try it with `node recipe check {0}`, build it with `node request ./{0}`", file.display()),
    ));
    output.answer(&file.display().to_string())?;
    output.object(&RecipeShape { file: Some(std::path::absolute(&file)?), ..RecipeShape::from(&recipe) })?;
    Ok(Exit::Done)
}

fn starter(name: &Name) -> String {
    STARTER.replace("NAME", name.as_str())
}

/// The recipe in a file.
fn read(file: &Path) -> Result<Recipe, Failure> {
    let text = text_of(file)?;
    Recipe::parse(&text).map_err(|error| {
        let (what, next) = (
            format!("{} is not a recipe: {error}", file.display()),
            format!("`node recipe check {}` shows the place, and what else is wrong", file.display()),
        );
        Failure::new(Exit::Usage, Said::with_next(what, next))
    })
}

fn text_of(file: &Path) -> Result<String, Failure> {
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
    Ok(text)
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
                r#type: "text",
                help: "what the program prints".to_owned(),
                accepts: "[A-Za-z0-9-]{1,64}".to_owned(),
                default: "hello".to_owned(),
                changes_result: true,
                needs: Vec::new(),
                excludes: Vec::new(),
            }])
        );
        assert!(shape.requires.unwrap().contains(&"tool.cc".to_owned()));
    }

    #[test]
    fn an_unknown_recipe_names_the_known_ones() {
        let failure = unknown(node::catalogue::all(), &"lisp".parse().unwrap());
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.said.what.starts_with("no recipe `lisp` came with this program; there are "));
        assert!(node::catalogue::all().iter().all(|recipe| failure.said.what.contains(recipe.name().as_str())));
    }

    #[test]
    fn the_starter_is_a_recipe_under_every_name() {
        for name in ["x", "0", "my.project+2_-", &"n".repeat(64)] {
            let name: Name = name.parse().unwrap();
            assert_eq!(Recipe::parse(&starter(&name)).unwrap().name(), &name);
        }
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
