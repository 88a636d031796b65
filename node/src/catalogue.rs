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
    use protocol::request::{BuildSpec, OptionValue, Source};
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
            let given = (!matches!(recipe.source(), SourceRule::Inline))
                .then(|| Source::Tree(ManifestId(Digest::of(b"a source"))));
            let platform: Vec<Require> = ["os=linux", "arch=x86_64"].iter().map(|text| text.parse().unwrap()).collect();
            let spec = recipe.spec(options, given, &platform).unwrap();
            let ground = Ground { jobs: NonZeroU32::MIN, here: "/build" };
            let Plan { steps, smoke, .. } = recipe.plan(&spec, &effort, ground).unwrap();
            // A plain brace is none of ours, as in what find runs.
            let holes = recipe.options().keys().map(ToString::to_string).chain(["jobs".to_owned(), "here".to_owned()]);
            for hole in holes.map(|name| format!("{{{name}}}")) {
                assert!(
                    steps.iter().all(|step| step.argv.iter().all(|word| !word.contains(&hole))),
                    "{hole} {steps:?}"
                );
            }
            assert!(smoke.is_some(), "{}", recipe.name());
        }
    }

    /// What is asked for with these options, or why that cannot be.
    fn asked(recipe: &str, options: &[&str]) -> Result<(BuildSpec, Plan), String> {
        let recipe = by_name(recipe).unwrap();
        let given: Vec<_> = options.iter().map(|option| option.split_once('=').unwrap()).collect();
        let given: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let Settings { options, effort } = recipe.resolve(&given).map_err(|error| error.to_string())?;
        let spec = recipe.spec(options, Some(Source::Tree(ManifestId(Digest::of(b"a source")))), &[]).unwrap();
        let plan = recipe.plan(&spec, &effort, Ground { jobs: NonZeroU32::MIN, here: "/here" }).unwrap();
        Ok((spec, plan))
    }

    fn needs(recipe: &str, options: &[&str], key: &str) -> bool {
        asked(recipe, options).unwrap().0.requirement.iter().any(|(needed, _)| needed == key)
    }

    #[test]
    fn a_pypy_is_translated_as_one_asks() {
        let words = |options: &[&str]| asked("pypy", options).unwrap().1.steps[1].argv.join(" ");
        assert_eq!(
            words(&[]),
            "python2 -m rpython --batch --make-jobs=1 -Ojit --gc=incminimark --cc=cc --shared \
             /here/pypy/goal/targetpypystandalone.py --allworkingmodules"
        );
        assert_eq!(
            words(&[
                "opt=0",
                "gc=boehm",
                "allworkingmodules=false",
                "withmod=signal,zlib",
                "withoutmod=cpyext",
                "thread=false",
                "continuation=false",
                "shared=false",
                "cc=clang"
            ]),
            "python2 -m rpython --batch --make-jobs=1 -O0 --gc=boehm --cc=clang --no-thread --no-continuation --no-shared \
             /here/pypy/goal/targetpypystandalone.py --no-allworkingmodules --withmod-signal --withmod-zlib --withoutmod-cpyext"
        );
        for together in [
            &["opt=0"][..],
            &["opt=1", "gc=boehm"],
            &["gc=semispace", "withoutmod=cpyext"],
            &["allworkingmodules=false", "withmod=zlib"],
            &["continuation=true", "opt=2", "gc=boehm", "withoutmod=cpyext"],
        ] {
            assert!(asked("pypy", together).is_err(), "{together:?} would end a translation after minutes");
        }
        assert!(needs("pypy", &["opt=1", "gc=boehm", "withoutmod=cpyext"], "header.gc.h"));
        assert!(!needs("pypy", &[], "header.gc.h") && needs("pypy", &[], "header.ffi.h"));
        assert!(needs("pypy", &["cc=clang"], "tool.clang") && !needs("pypy", &[], "tool.clang"));
    }

    #[test]
    fn an_rpython_program_is_a_path_inside_the_source() {
        for outside in ["../x.py", "/etc/x.py", "a/../x.py", "x", "-x.py", "a b.py", ".x.py"] {
            assert!(asked("rpython", &[&format!("target={outside}")]).is_err(), "{outside}");
        }
        let (_, plan) = asked("rpython", &["target=goal/target_x.py", "opt=1", "gc=minimark"]).unwrap();
        assert!(plan.steps[1].argv.iter().any(|word| word == "/here/goal/target_x.py"), "{:?}", plan.steps);
        // Boehm's collector is the default of the low levels.
        for (options, boehm) in [
            (&["opt=1"][..], true),
            (&["opt=size"], true),
            (&["opt=2"], false),
            (&["opt=2", "gc=boehm"], true),
            (&["opt=1", "gc=minimark"], false),
        ] {
            assert_eq!(needs("rpython", options, "header.gc.h"), boehm, "{options:?}");
        }
        assert!(asked("rpython", &["opt=0", "gc=minimark"]).is_err());
    }

    #[test]
    fn a_cpython_needs_the_headers_of_its_modules() {
        assert!(!needs("cpython", &[], "header.zlib.h"));
        assert!(needs("cpython", &["modules=zlib,ssl"], "header.zlib.h"));
        assert!(needs("cpython", &["modules=zlib,ssl"], "header.openssl/ssl.h"));
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
