//! The recipes that came with the program.
//!
//! They are part of the binary, so every volunteer of one version accepts the same ones by default and a requester needs
//! no file to name them.

use protocol::id::RecipeId;
use protocol::recipe::Recipe;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// The texts, in the order in which they are listed.
const TEXTS: [&str; 8] = [
    include_str!("../recipes/cpython.toml"),
    include_str!("../recipes/hello.toml"),
    include_str!("../recipes/lua.toml"),
    include_str!("../recipes/pypy.toml"),
    include_str!("../recipes/redis.toml"),
    include_str!("../recipes/rpython.toml"),
    include_str!("../recipes/sqlite.toml"),
    include_str!("../recipes/zstd.toml"),
];

static RECIPES: LazyLock<Vec<Recipe>> = LazyLock::new(|| TEXTS.iter().map(|text| read(text)).collect());

static IDS: LazyLock<BTreeMap<RecipeId, usize>> =
    LazyLock::new(|| RECIPES.iter().enumerate().map(|(at, recipe)| (recipe.id(), at)).collect());

fn read(text: &str) -> Recipe {
    match Recipe::parse(text) {
        Ok(recipe) => recipe,
        Err(error) => panic!("the tests of this page read every recipe that is shipped: {error}"),
    }
}

/// The recipes in order of name.
#[must_use]
pub fn all() -> &'static [Recipe] {
    &RECIPES
}

/// The recipe of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.name().as_str() == name)
}

/// The recipe with this digest.
#[must_use]
pub fn by_id(id: &RecipeId) -> Option<&'static Recipe> {
    IDS.get(id).map(|at| &RECIPES[*at])
}

/// What a volunteer accepts from anyone unless its owner says otherwise.
#[must_use]
pub fn ids() -> BTreeSet<RecipeId> {
    IDS.keys().copied().collect()
}

/// The facts of a volunteer that any of them may ask for, whatever the options, by dotted key.
#[must_use]
pub fn keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for recipe in all() {
        let always = recipe.requirement();
        let sometimes = recipe.variants().iter().flat_map(|variant| variant.requirement.iter());
        keys.extend(always.iter().chain(sometimes).map(|(key, _)| key.to_owned()));
    }
    keys
}

/// The headers that any of them may ask for.
pub fn headers() -> impl Iterator<Item = String> {
    keys().into_iter().filter_map(|key| Some(key.strip_prefix("header.")?.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says aloud that it did not run")]
    use super::*;
    use protocol::digest::Digest;
    use protocol::id::ManifestId;
    use protocol::platform::Require;
    use protocol::recipe::{Ground, Plan, Settings, Sort, SourceRule};
    use protocol::request::OptionValue;
    use std::num::NonZeroU32;
    use std::process::Command;

    #[test]
    fn shipped_recipes_are_distinct_and_found_by_name_and_id() {
        let names: Vec<_> = all().iter().map(|recipe| recipe.name().as_str()).collect();
        assert_eq!(names, ["cpython", "hello", "lua", "pypy", "redis", "rpython", "sqlite", "zstd"]);
        assert_eq!(ids().len(), names.len());
        for recipe in all() {
            assert_eq!(by_id(&recipe.id()), Some(recipe));
            assert_eq!(by_name(recipe.name().as_str()), Some(recipe));
            assert_eq!(Recipe::decode(&recipe.encode()).as_ref(), Ok(recipe));
        }
        assert_eq!(by_name("nonesuch"), None);
    }

    /// Options may bring requirements of their own.
    #[test]
    fn what_a_volunteer_looks_for_is_what_recipes_ask_for_whatever_the_options() {
        let keys = keys();
        for key in ["tool.cc", "tool.clang", "tool.python2", "header.gc.h", "header.openssl/ssl.h"] {
            assert!(keys.contains(key), "{key}");
        }
        assert!(headers().any(|header| header == "readline/readline.h"));
    }

    /// Scripts depend on these names.
    #[test]
    fn option_names_are_an_interface() {
        let hello = by_name("hello").unwrap();
        let Sort::Text { pattern, .. } = &hello.options()[&"greeting".parse().unwrap()].sort else { panic!() };
        assert_eq!(pattern.as_str(), "[A-Za-z0-9-]{1,64}");
        assert_eq!(hello.options().len(), 1);
        assert_eq!(hello.source(), &SourceRule::Inline);

        let lua = by_name("lua").unwrap();
        assert!(matches!(lua.options()[&"opt".parse().unwrap()].sort, Sort::Integer { min: 0, max: 3, .. }));
        assert_eq!(lua.outputs().len(), 1);
        assert_eq!(lua.outputs()[0].path.as_str(), "lua");
    }

    #[test]
    fn every_recipe_expands_with_its_defaults() {
        for recipe in all() {
            let Settings { options, effort } = recipe.resolve(&[]).unwrap();
            let given = (!matches!(recipe.source(), SourceRule::Inline)).then(|| ManifestId(Digest::of(b"a source")));
            let platform: Vec<Require> = ["os=linux", "arch=x86_64"].iter().map(|text| text.parse().unwrap()).collect();
            let spec = recipe.spec(options, given, &platform).unwrap();
            let ground = Ground { jobs: NonZeroU32::MIN, here: "/build" };
            let Plan { steps, smoke, .. } = recipe.plan(&spec, &effort, ground).unwrap();
            assert!(steps.iter().all(|step| step.argv.iter().all(|word| !word.contains(['{', '}']))), "{steps:?}");
            assert!(smoke.is_some(), "{}", recipe.name());
        }
    }

    /// The step and the smoke test of `hello`, run in an empty environment with the system's own compiler.
    #[test]
    fn hello_builds_and_greets() {
        if !std::path::Path::new("/usr/bin/cc").exists() {
            eprintln!("not run: hello_builds_and_greets needs /usr/bin/cc");
            return;
        }
        let hello = by_name("hello").unwrap();
        let Settings { options, effort } = hello.resolve(&[("greeting".to_owned(), "Barn-1".to_owned())]).unwrap();
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
        let spec = hello.spec(options, None, &[]).unwrap();
        let plan = hello.plan(&spec, &effort, Ground { jobs: NonZeroU32::MIN, here: "/build" }).unwrap();
        for step in plan.steps {
            let output = run(&step.argv);
            assert!(output.status.success(), "{output:?}");
        }
        let smoke = plan.smoke.unwrap();
        let output = run(&smoke.argv);
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "Barn-1\n");
        assert_eq!(smoke.expect.as_deref(), Some("Barn-1"));
    }
}
