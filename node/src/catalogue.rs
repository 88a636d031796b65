//! The recipes that came with the program.
//!
//! They are part of the binary, so every volunteer of one version accepts the same ones by default and a requester needs
//! no file to name them.

use protocol::id::RecipeId;
use protocol::recipe::Recipe;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// The texts, in the order in which they are listed.
const TEXTS: [&str; 4] = [
    include_str!("../recipes/hello.toml"),
    include_str!("../recipes/lua.toml"),
    include_str!("../recipes/sqlite.toml"),
    include_str!("../recipes/zstd.toml"),
];

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::read(&TEXTS));

/// Recipes by name and by id.
#[derive(Debug)]
pub struct Catalogue {
    recipes: Vec<Recipe>,
    ids: BTreeMap<RecipeId, usize>,
}

/// The recipes that came with the program, read once.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    &CATALOGUE
}

impl Catalogue {
    fn read(texts: &[&str]) -> Self {
        let parse = |text: &&str| match Recipe::parse(text) {
            Ok(recipe) => recipe,
            Err(error) => panic!("a recipe inside the program is read by its own tests: {error}"),
        };
        let recipes: Vec<Recipe> = texts.iter().map(parse).collect();
        let ids = recipes.iter().enumerate().map(|(at, recipe)| (recipe.id(), at)).collect();
        Self { recipes, ids }
    }

    /// The recipes in order of name.
    #[must_use]
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    /// The recipe of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Recipe> {
        self.recipes.iter().find(|recipe| recipe.name().as_str() == name)
    }

    /// The recipe with this digest.
    #[must_use]
    pub fn get(&self, id: &RecipeId) -> Option<&Recipe> {
        self.ids.get(id).map(|at| &self.recipes[*at])
    }

    /// What a volunteer accepts from anyone unless its owner says otherwise.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<RecipeId> {
        self.ids.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::recipe::{Sort, SourceRule};
    use protocol::request::OptionValue;
    use std::num::NonZeroU32;
    use std::process::Command;

    #[test]
    fn shipped_recipes_are_distinct_and_found_by_name_and_id() {
        let names: Vec<_> = catalogue().recipes().iter().map(|recipe| recipe.name().as_str()).collect();
        assert_eq!(names, ["hello", "lua", "sqlite", "zstd"]);
        assert_eq!(catalogue().ids().len(), names.len());
        for recipe in catalogue().recipes() {
            assert_eq!(catalogue().get(&recipe.id()), Some(recipe));
            assert_eq!(catalogue().named(recipe.name().as_str()), Some(recipe));
            assert_eq!(Recipe::decode(&recipe.encode()).as_ref(), Ok(recipe));
        }
        assert_eq!(catalogue().named("pypy"), None);
    }

    /// Scripts depend on these names.
    #[test]
    fn option_names_are_an_interface() {
        let hello = catalogue().named("hello").unwrap();
        let Sort::Text { pattern, .. } = &hello.options()[&"greeting".parse().unwrap()].sort else { panic!() };
        assert_eq!(pattern.as_str(), "[A-Za-z0-9-]{1,64}");
        assert_eq!(hello.options().len(), 1);
        assert_eq!(hello.source(), &SourceRule::Inline);

        let lua = catalogue().named("lua").unwrap();
        assert!(matches!(lua.options()[&"opt".parse().unwrap()].sort, Sort::Integer { min: 0, max: 3, .. }));
        assert_eq!(lua.outputs().len(), 1);
        assert_eq!(lua.outputs()[0].path.as_str(), "lua");
    }

    #[test]
    fn every_recipe_expands_with_its_defaults() {
        for recipe in catalogue().recipes() {
            let options = recipe.resolve(&[]).unwrap();
            let steps = recipe.steps(&options, NonZeroU32::new(3).unwrap()).unwrap();
            assert!(steps.iter().all(|step| step.argv.iter().all(|word| !word.contains(['{', '}']))), "{steps:?}");
            assert!(recipe.smoke(&options).unwrap().is_some(), "{}", recipe.name());
            assert!(recipe.spec(options, None, &[]).is_ok(), "{}", recipe.name());
        }
    }

    /// The step and the smoke test of `hello`, run in an empty environment with the system's own compiler.
    #[test]
    fn hello_builds_and_greets() {
        if !std::path::Path::new("/usr/bin/cc").exists() {
            eprintln!("not run: hello_builds_and_greets needs /usr/bin/cc");
            return;
        }
        let hello = catalogue().named("hello").unwrap();
        let options = hello.resolve(&[("greeting".to_owned(), "Barn-1".to_owned())]).unwrap();
        assert_eq!(options[&"greeting".parse().unwrap()], OptionValue::Text("Barn-1".to_owned()));
        let folder = tempfile::tempdir().unwrap();
        for (path, file) in hello.files() {
            std::fs::write(folder.path().join(path.as_str()), &file.text).unwrap();
        }
        let run = |argv: &[String]| {
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]).env_clear().env("PATH", "/usr/bin:/bin").current_dir(folder.path());
            command.output().unwrap()
        };
        for step in hello.steps(&options, NonZeroU32::MIN).unwrap() {
            let output = run(&step.argv);
            assert!(output.status.success(), "{output:?}");
        }
        let smoke = hello.smoke(&options).unwrap().unwrap();
        let output = run(&smoke.argv);
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "Barn-1\n");
        assert_eq!(smoke.expect.as_deref(), Some("Barn-1"));
    }
}
