#![allow(clippy::unwrap_used)]
use super::*;
use crate::id::ManifestId;
use crate::platform::Capability;
use crate::tree::{Entry, Manifest, Mode, Node};
use proptest::prelude::*;
use std::num::NonZeroU32;

/// A recipe that uses every field of the language.
const WHOLE: &str = r##"
# The digest does not see this line.
recipe = 1
name = "brainf"
description = "A translated interpreter"
requires = ["tool.python2>=2.7", "tool.cc", "os=linux"]
reproducible = false

[source]
hint = "the interpreter's sources"
archive = "https://example.org/brainf-1.tar.gz"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
size = 4096

[option.gc]
type = "choice"
help = "garbage collector"
choices = ["boehm", "minimark"]
default = "boehm"
words = { boehm = [], minimark = ["--gc=minimark", "--inline"] }

[option.opt]
type = "integer"
help = "optimisation level"
min = 0
max = 3
default = 1

[option.debug]
type = "bool"
help = "keep debug information"
default = false
words = { true = ["-g"] }

[option.label]
type = "text"
help = "printed by --version"
pattern = "[A-Za-z0-9 ;$-]{0,16}"
default = ""

[[file]]
path = "extra/main.py"
text = "print(1)\n"

[[file]]
path = "run"
text = "#!/bin/sh\n"
executable = true

[[step]]
run = ["python2", "-m", "translate", "{gc}", "-O{opt}", "{debug}", "--make-jobs={jobs}", "target.py"]
env = { LABEL = "{label}!", SOURCE_STYLE = "{{{gc}}}" }

[[step]]
run = ["cc", "-o", "out/brainf", "{label}"]

[[output]]
path = "out/brainf"
as = "brainf"

[[output]]
path = "share/**"

[smoke]
run = ["./brainf", "--level", "{opt}"]
expect = "level {opt}"

[limits]
time_s = 600
memory_mib = 512
disk_mib = 256
"##;

fn whole() -> Recipe {
    Recipe::parse(WHOLE).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn given(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn cores(jobs: u32) -> Ground<'static> {
    Ground { jobs: NonZeroU32::new(jobs).unwrap(), here: "/build" }
}

/// What a volunteer does for these options, in the way a request brings them.
fn planned(recipe: &Recipe, pairs: &[(&str, &str)], jobs: u32) -> Plan {
    let Settings { options, effort } = recipe.resolve(&given(pairs)).unwrap();
    let source = recipe.source().takes_another().then(|| Source::Tree(ManifestId(Digest::of(b"tree"))));
    let platform: Vec<Require> = ["os=linux", "arch=x86_64"].iter().map(|text| text.parse().unwrap()).collect();
    let spec = recipe.spec(options, source, &platform).unwrap();
    recipe.plan(&spec, &effort, cores(jobs)).unwrap()
}

/// The whole recipe with one piece of its text replaced.
fn with(old: &str, new: &str) -> String {
    assert!(WHOLE.contains(old), "{old}");
    WHOLE.replacen(old, new, 1)
}

#[test]
fn options_become_words_and_never_more() {
    let recipe = whole();
    let chosen = [("gc", "minimark"), ("opt", "3"), ("debug", "true"), ("label", "a b;$")];
    let Plan { steps, smoke, .. } = planned(&recipe, &chosen, 4);
    assert_eq!(
        steps[0].argv,
        ["python2", "-m", "translate", "--gc=minimark", "--inline", "-O3", "-g", "--make-jobs=4", "target.py"]
    );
    assert_eq!(
        steps[0].env,
        BTreeMap::from([
            ("LABEL".to_owned(), "a b;$!".to_owned()),
            ("SOURCE_STYLE".to_owned(), "{minimark}".to_owned())
        ])
    );
    assert_eq!(steps[1].argv, ["cc", "-o", "out/brainf", "a b;$"], "spaces and signs stay inside one word");
    assert_eq!(
        smoke.unwrap(),
        SmokeTest { argv: ["./brainf", "--level", "3"].map(str::to_owned).into(), expect: Some("level 3".to_owned()) }
    );

    let steps = planned(&recipe, &[], 1).steps;
    assert_eq!(steps[0].argv, ["python2", "-m", "translate", "-O1", "--make-jobs=1", "target.py"]);
    assert_eq!(steps[1].argv, ["cc", "-o", "out/brainf", ""], "an empty text is an empty word, not a missing one");
}

#[test]
fn defaults_are_filled_in() {
    assert_eq!(
        whole().resolve(&given(&[("opt", "2")])).unwrap().options,
        BTreeMap::from([
            (name("debug"), OptionValue::Bool(false)),
            (name("gc"), OptionValue::Text("boehm".to_owned())),
            (name("label"), OptionValue::Text(String::new())),
            (name("opt"), OptionValue::Integer(2)),
        ])
    );
}

#[test]
fn a_value_that_does_not_fit_is_told_what_does() {
    let recipe = whole();
    for (pairs, message) in [
        (&[("optt", "1")][..], "no option `optt`; did you mean `opt`?"),
        (&[("threads", "1")], "no option `threads`: the recipe has debug, gc, label, opt"),
        (&[("a\u{1b}[31m", "1")], "no option `a\\u{1b}[31m`: the recipe has debug, gc, label, opt"),
        (&[("opt", "4")], "option `opt` cannot be `4`: it is a whole number from 0 to 3"),
        (&[("opt", "fast")], "option `opt` cannot be `fast`: it is a whole number from 0 to 3"),
        (
            &[("gc", "minmark")],
            "option `gc` cannot be `minmark`: it is one of boehm, minimark; did you mean `minimark`?",
        ),
        (&[("debug", "1")], "option `debug` cannot be `1`: it is true or false"),
        (&[("label", "a\nb")], "option `label` cannot be `a\\nb`: the whole text must match [A-Za-z0-9 ;$-]{0,16}"),
        (&[("opt", "1"), ("opt", "1")], "option `opt` is given twice"),
    ] {
        assert_eq!(recipe.resolve(&given(pairs)).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_volunteer_runs_nothing_that_does_not_fit() {
    let recipe = whole();
    let good = recipe.resolve(&[]).unwrap().options;
    let spec = recipe.spec(good.clone(), None, &[]).unwrap();
    let changed = |key: &str, value: OptionValue| {
        let mut options = good.clone();
        options.insert(name(key), value);
        options
    };
    let mut short = good.clone();
    short.remove(&name("opt"));
    for bad in [
        changed("opt", OptionValue::Integer(9)),
        changed("opt", OptionValue::Text("1".to_owned())),
        changed("debug", OptionValue::Integer(1)),
        changed("gc", OptionValue::Text("x".to_owned())),
        changed("label", OptionValue::Text("a\0b".to_owned())),
        changed("other", OptionValue::Integer(1)),
        short,
    ] {
        let asked = BuildSpec { options: bad, ..spec.clone() };
        assert!(matches!(recipe.admit(&asked, &BTreeMap::new()), Err(SpecError::Option(_))), "{asked:?}");
        assert!(recipe.plan(&asked, &BTreeMap::new(), cores(1)).is_err(), "{asked:?}");
    }
}

#[test]
fn a_spec_is_admitted_only_as_the_recipe_would_make_it() {
    let recipe = whole();
    let options = recipe.resolve(&[]).unwrap().options;
    let admit = |spec: &BuildSpec| recipe.admit(spec, &BTreeMap::new());
    let extra: Vec<Require> = ["arch=x86_64", "memory_mib>=4096"].iter().map(|text| text.parse().unwrap()).collect();
    let spec = recipe.spec(options.clone(), None, &extra).unwrap();
    assert!(matches!(&spec.source, Source::Archive { size: 4096, .. }));
    let required: Vec<String> = spec
        .requirement
        .iter()
        .map(|(key, constraint)| Require { key: key.to_owned(), constraint: constraint.clone() }.to_string())
        .collect();
    assert_eq!(
        required,
        ["arch=x86_64", "disk_mib>=256", "memory_mib>=4096", "os=linux", "tool.cc", "tool.python2>=2.7"]
    );

    let tree = ManifestId(Digest::of(b"tree"));
    for other in [
        Source::Tree(tree),
        Source::Archive { digest: Digest::of(b""), size: 4096, url: "https://example.org/other".to_owned() },
        git("https://example.org/x.git"),
    ] {
        let spec = recipe.spec(options.clone(), Some(other.clone()), &[]).unwrap();
        assert_eq!(spec.source, other, "whoever asks may give another source");
        assert_eq!(admit(&spec), Ok(()));
    }
    let mut lax = recipe.spec(options, Some(git("https://example.org/x.git")), &[]).unwrap();
    let needs_git = ("fetch.git", &Constraint::AtLeast(Value::Version("2.31".parse().unwrap())));
    assert!(lax.requirement.iter().any(|need| need == needs_git));
    lax.requirement = spec.requirement.clone();
    assert!(matches!(admit(&lax), Err(SpecError::Requirement { key, .. }) if key == "fetch.git"));
    let mut nothing = spec.clone();
    nothing.source = Source::Inline;
    assert!(matches!(admit(&nothing), Err(SpecError::SourceMissing { .. })));
    let mut lax = spec.clone();
    lax.requirement = Requirement::none();
    assert!(matches!(admit(&lax), Err(SpecError::Requirement { .. })));
    let mut other = spec.clone();
    other.recipe = RecipeId(Digest::of(b"other"));
    assert_eq!(admit(&other), Err(SpecError::OtherRecipe { recipe: name("brainf") }));
    assert_eq!(admit(&spec), Ok(()));
}

#[test]
fn the_source_rule_is_kept() {
    let archive = &WHOLE[WHOLE.find("archive =").unwrap()..WHOLE.find("[option.gc]").unwrap()];
    let given = Recipe::parse(&with(archive, "\n")).unwrap();
    let options = given.resolve(&[]).unwrap().options;
    assert_eq!(
        given.spec(options, None, &[]).unwrap_err().to_string(),
        "recipe `brainf` requires --source: the interpreter's sources"
    );
    let section = &WHOLE[WHOLE.find("[source]").unwrap()..WHOLE.find("[option.gc]").unwrap()];
    let inline = Recipe::parse(&with(section, "\n")).unwrap();
    let options = inline.resolve(&[]).unwrap().options;
    assert_eq!(inline.spec(options.clone(), None, &[]).unwrap().source, Source::Inline);
    assert_eq!(
        inline.spec(options, Some(Source::Tree(ManifestId(Digest::of(b"x")))), &[]).unwrap_err().to_string(),
        "recipe `brainf` carries its own source: leave out --source"
    );
}

fn git(url: &str) -> Source {
    Source::Git { url: url.parse().unwrap(), commit: "0123456789".repeat(4).parse().unwrap() }
}

#[test]
fn a_repository_is_built_at_the_commit_that_was_looked_up() {
    let archive = &WHOLE[WHOLE.find("archive =").unwrap()..WHOLE.find("[option.gc]").unwrap()];
    let from = |text: &str| Recipe::parse(&with(archive, text));
    let commit = "0123456789".repeat(4);
    let moving = from("git = \"https://example.org/brainf.git\"\nrevision = \"main\"\n").unwrap();
    let options = moving.resolve(&[]).unwrap().options;
    assert_eq!(
        moving.spec(options.clone(), None, &[]).unwrap_err().to_string(),
        "recipe `brainf` builds from https://example.org/brainf.git, and its revision was not looked up"
    );
    let found = git("https://example.org/brainf.git");
    assert_eq!(moving.spec(options.clone(), Some(found.clone()), &[]).unwrap().source, found);
    let pinned = format!("git = \"https://example.org/brainf.git\"\nrevision = \"{commit}\"\n");
    assert_eq!(from(&pinned).unwrap().spec(options, None, &[]).unwrap().source, found);
    for (text, wrong) in [
        ("git = \"http://example.org/x.git\"\n", "is no https address"),
        ("git = \"https://x/y\"\nrevision = \"--evil\"\n", "names no revision"),
        ("revision = \"main\"\n", "source.revision: `revision` names a commit of a repository: add `git`"),
    ] {
        let error = from(text).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
    let both = with("archive =", "git = \"https://x/y\"\narchive =");
    assert!(Recipe::parse(&both).unwrap_err().to_string().contains("an archive or a git repository"));
}

#[test]
fn layout_and_comments_do_not_change_the_digest_and_content_does() {
    let recipe = whole();
    let plain: String =
        WHOLE.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}  \n\n")).collect();
    assert_eq!(Recipe::parse(&plain).unwrap().id(), recipe.id());
    for (old, new) in [
        ("default = 1", "default = 2"),
        ("-O{opt}", "-o{opt}"),
        ("print(1)", "print(2)"),
        ("executable = true", "executable = false"),
        ("time_s = 600", "time_s = 601"),
        ("as = \"brainf\"", "as = \"brainf2\""),
        ("a translated", "a Translated"),
    ] {
        let text = if WHOLE.contains(old) { with(old, new) } else { with("A translated", new) };
        assert_ne!(Recipe::parse(&text).unwrap().id(), recipe.id(), "{old}");
    }
}

#[test]
fn the_blob_is_the_recipe() {
    let recipe = whole();
    assert_eq!(Recipe::decode(&recipe.encode()), Ok(recipe.clone()));
    assert_eq!(recipe.id(), RecipeId(Digest::of(&recipe.encode())));

    // A stranger's blob passes the same checks as a text.
    let mut form = recipe.0.clone();
    form.steps[0].run[0] = Word::try_from("/bin/sh".to_owned()).unwrap();
    let error = Recipe::decode(&codec::encode(&form)).unwrap_err();
    assert_eq!((*error.problem, error.place.to_string()), (Problem::Program, "step 1.run 1".to_owned()));
    assert!(matches!(*Recipe::decode(b"\xa0").unwrap_err().problem, Problem::Codec(_)));
    let mut trailing = recipe.encode();
    trailing.push(0);
    assert!(Recipe::decode(&trailing).is_err());
}

/// Each row: what is changed, and the error with its place.
#[test]
fn errors_say_where_and_what_instead() {
    let long = format!("help = \"{}\"", "x".repeat(513));
    let rows: Vec<(String, &str)> = vec![
        (
            with("recipe = 1", "recipe = 2"),
            "line 3, column 10: recipe: `recipe = 2`: this program reads recipe language 1",
        ),
        (
            with("name = \"brainf\"", "nam = \"brainf\""),
            "line 4, column 1: there is no `nam` here; did you mean `name`?",
        ),
        (with("hint =", "hnt ="), "did you mean `hint`?"),
        (with("name = \"brainf\"", "name = \"Brain F\""), "line 4, column 8: `Brain F` is not a name"),
        (with("reproducible = false", "reproducible = maybe"), "line 7, column 16"),
        (
            with("os=linux", "os>=linux"),
            "line 6, column 45: requires 3: `os>=linux` is not a requirement: write KEY=VALUE",
        ),
        (with("os=linux", "tool.cc>=3"), "line 6, column 45: requires 3: `tool.cc` stands twice"),
        (with("help = \"garbage collector\"", &long), "line 17, column 8: option.gc.help: one line of 1 to 512 bytes"),
        (with("min = 0", "mim = 0"), "did you mean `min`?"),
        (
            with("min = 0", "pattern = \"[a]\"\nmin = 0"),
            "option.opt.pattern: an option of type `integer` has no `pattern`",
        ),
        (with("min = 0\n", ""), "line 22, column 9: option.opt: an option of type `integer` needs `min`"),
        (with("min = 0", "min = 4"), "option.opt.min: `min` is above `max`"),
        (
            with("default = 1", "default = 7"),
            "line 27, column 11: option.opt.default: option `opt` cannot be `7`: it is a whole number from 0 to 3",
        ),
        (with("default = \"boehm\"", "default = \"bohm\""), "did you mean `boehm`?"),
        (with("default = false", "default = \"no\""), "option `debug` cannot be `no`: it is true or false"),
        (with("boehm = [], ", ""), "option.gc.words: `boehm` has no words"),
        (with("boehm = [], ", "boehm = [], none = [], "), "option.gc.words: `none` is no value of this option"),
        (with("[\"--gc=minimark\"", "[\"--gc={opt}\""), "`--gc={opt}` may not depend on options"),
        (with("{0,16}", "*"), "line 38, column 11: `*` has no meaning here"),
        (with("-O{opt}", "-O{op}"), "line 51, column 46: step 1.run 5: no option `op`; did you mean `opt`?"),
        (with("-O{opt}", "-O{opt"), "line 51, column 46: step 1.run 5: `{` and `}` stand around the name of an option"),
        (with("\"{debug}\"", "\"-x{debug}\""), "step 1.run 6: `{debug}` is a bool: make it a word of its own"),
        (with("\"-O{opt}\", ", ""), "option.opt: no step uses option `opt`"),
        (
            with("[option.debug]", "[option.jobs]"),
            "option.jobs: `jobs`, `here`, `os` and `arch` mean the volunteer's cores, folder and platform",
        ),
        (with("[\"cc\",", "[\"gcc\","), "step 2.run 1: `gcc` is run, so the recipe must require it: add \"tool.gcc\""),
        (with("[\"cc\",", "[\"/usr/bin/cc\","), "step 2.run 1: the first word is the program"),
        (with("[\"cc\",", "[\"{label}\","), "step 2.run 1: the first word is the program"),
        (
            with("[\"cc\", \"-o\", \"out/brainf\",", "[\"sh\", \"-c\","),
            "line 55, column 20: step 2.run 3: an option may not stand in the text of a shell",
        ),
        (with("LABEL =", "PATH ="), "step 1.env.PATH: `PATH` cannot be set"),
        (with("LABEL =", "label ="), "step 1.env.label: `label` cannot be set"),
        (with("path = \"share/**\"", "path = \"**/share\""), "stars stand in the last name of a path only"),
        (with("path = \"share/**\"", "path = \"../share\""), "`.` or `..` in the path"),
        (with("path = \"share/**\"", "path = \"brainf\""), "output 2: `brainf` stands twice"),
        (with("path = \"run\"", "path = \"extra\""), "`extra` lies below something that is not a folder"),
        (with("path = \"run\"", "path = \"extra/main.py\""), "file 2.path: `extra/main.py` stands twice"),
        (with("https://", "http://"), "line 11, column 11: source.archive: an archive is at an https address"),
        (with("https://", "https://me:pw@"), "an archive is at an https address"),
        (with("size = 4096\n", ""), "line 9, column 2: source: `archive`, `sha256` and `size` go together"),
        (with("time_s = 600", "time_s = 0"), "limits.time_s: 0 is out of range: 1 to 172800"),
        (with("memory_mib = 512", "memory_mib = 2000000"), "limits.memory_mib: 2000000 is out of range"),
        (with("[smoke]", "[smock]"), "there is no `smock` here: there are recipe, name"),
        (
            with(&WHOLE[WHOLE.find("[smoke]").unwrap()..WHOLE.find("[limits]").unwrap()], "\n"),
            "line 7, column 16: reproducible: `reproducible = false` needs a `[smoke]` test",
        ),
        (with("[[step]]", "[[step"), "line 50, column"),
        ("recipe = 1".to_owned(), "`name` is missing: write `name = \"mine\"`"),
    ];
    let messages = rows.iter().map(|(text, expected)| (Recipe::parse(text).unwrap_err().to_string(), expected));
    let wrong: Vec<_> = messages.filter(|(message, expected)| !message.contains(**expected)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn everything_is_bounded() {
    let step = "[[step]]\nrun = [\"true\", \"{label}\"]\n\n";
    let many = with("[[output]]", &(step.repeat(MAX_STEPS) + "[[output]]"));
    assert!(matches!(*Recipe::parse(&many).unwrap_err().problem, Problem::Count { what: "steps", .. }));

    let holes = "{label}".repeat(500);
    let growing = with("\"target.py\"", &vec![format!("\"{holes}\""); 40].join(", "));
    assert!(matches!(*Recipe::parse(&growing).unwrap_err().problem, Problem::LongStep { .. }));

    let option = |at: usize| {
        format!("[option.text{at}]\ntype = \"text\"\nhelp = \"h\"\npattern = \"[a]{{0,255}}\"\ndefault = \"\"\n\n")
    };
    let many = with("[[file]]", &((0..16).map(option).collect::<String>() + "[[file]]"));
    assert!(matches!(*Recipe::parse(&many).unwrap_err().problem, Problem::Settings { .. }));

    let large = with("print(1)", &"x".repeat(MAX_RECIPE_BYTES));
    assert!(matches!(*Recipe::parse(&large).unwrap_err().problem, Problem::TooLarge { .. }));

    // Deep nesting must not exhaust the stack of whoever reads it.
    let deep = format!("recipe = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Recipe::parse(&deep).is_err());
}

#[test]
fn files_are_laid_over_the_source() {
    let recipe = whole();
    let entry = |path: &str, node: Node| Entry { path: TreePath::try_from(path).unwrap(), node };
    let file = |content: &[u8]| Node::File {
        mode: Mode::Plain,
        size: content.len() as u64,
        chunks: vec![Digest::of(content)],
    };
    let link = |from: &str, to: &str| {
        let path = TreePath::try_from(from).unwrap();
        let target = crate::tree::LinkTarget::new(&path, to).unwrap();
        Entry { path, node: Node::Link { target } }
    };
    let source = Manifest::new(vec![entry("a.c", file(b"a")), entry("extra/main.py", file(b"old"))]).unwrap();
    let laid = recipe.over(&source).unwrap();
    let names: Vec<_> = laid.files().map(|(path, mode, ..)| (path.as_str(), mode)).collect();
    assert_eq!(names, [("a.c", Mode::Plain), ("extra/main.py", Mode::Plain), ("run", Mode::Executable)]);
    let (_, _, _, chunks) = laid.files().nth(1).unwrap();
    assert_eq!(recipe.chunk(&chunks[0]), Some(b"print(1)\n".as_slice()));
    assert_eq!(recipe.tree().files().count(), 2);

    // A link in the source never redirects a file of the recipe.
    let through = Manifest::new(vec![link("extra", "elsewhere")]).unwrap();
    assert_eq!(recipe.over(&through).unwrap_err().path.as_str(), "extra");
    let at = Manifest::new(vec![link("run", "elsewhere")]).unwrap();
    assert!(recipe.over(&at).unwrap().files().any(|(path, ..)| path.as_str() == "run"));
}

#[test]
fn the_requirement_is_met_by_a_machine_that_has_it_all() {
    let fact = |text: &str| text.parse::<Require>().unwrap();
    let mut facts = BTreeMap::new();
    for text in ["os=linux", "memory_mib=512", "disk_mib=256"] {
        let Require { key, constraint: Constraint::Is(value) } = fact(text) else { unreachable!() };
        facts.insert(key, value);
    }
    let version = |text: &str| Value::Version(text.parse().unwrap());
    facts.insert(
        "tool".to_owned(),
        Value::Map(BTreeMap::from([("cc".to_owned(), version("12.2")), ("python2".to_owned(), version("2.7.18"))])),
    );
    let machine = Capability { facts, accepts: crate::platform::Acceptance::Any, slots: 1 };
    assert!(whole().requirement().met_by(&machine));
}

mod page;
mod relations;

proptest! {
    /// Whatever options a recipe gives, text and blob agree, and the blob is stable.
    #[test]
    fn the_canonical_form_is_stable(
        min in -50i64..0, max in 0i64..50, flag: bool, text in "[a-z]{1,9}", argument in "[ -~]{0,20}", time_s in 1u64..172_800,
    ) {
        let argument = argument.replace('{', "{{").replace('}', "}}");
        let quoted = toml::Value::String(argument.clone()).to_string();
        let source = format!(
            "reproducible = true\nrecipe = 1\ndescription = \"x\"\nname = \"x\"\n[limits]\ntime_s = {time_s}\n\
             [option.n]\nmin = {min}\nmax = {max}\ndefault = {max}\nhelp = \"h\"\ntype = \"integer\"\n\
             [option.f]\ntype = \"bool\"\nhelp = \"h\"\ndefault = {flag}\nwords = {{ false = [{quoted}] }}\n\
             [option.t]\ntype = \"text\"\nhelp = \"h\"\npattern = \"[a-z]{{1,9}}\"\ndefault = \"{text}\"\n\
             [[file]]\npath = \"a\"\ntext = {quoted}\n\
             [[step]]\nrun = [\"true\", {quoted}, \"{{n}}\", \"{{f}}\", \"{{t}}\"]\n[[output]]\npath = \"a\"\n"
        );
        let recipe = Recipe::parse(&source).unwrap();
        let again = Recipe::decode(&recipe.encode()).unwrap();
        prop_assert_eq!(&again, &recipe);
        prop_assert_eq!(again.id(), recipe.id());
        let steps = planned(&again, &[], 1).steps;
        prop_assert_eq!(&steps[0].argv[1], &argument.replace("{{", "{").replace("}}", "}"));
        prop_assert_eq!(steps[0].argv.len(), if flag { 4 } else { 5 });
    }

    /// No text and no blob makes the readers panic.
    #[test]
    fn readers_never_panic(text in "[ -~\n]{0,200}", cut in 0..WHOLE.len(), junk in "[\\x00-\\x7f]{0,4}", at in any::<prop::sample::Index>(), byte: u8) {
        let _ = Recipe::parse(&text);
        let _ = Recipe::parse(&format!("{}{junk}{}", &WHOLE[..cut], &WHOLE[cut..]));
        let mut blob = whole().encode();
        let at = at.index(blob.len());
        blob[at] = byte;
        let _ = Recipe::decode(&blob);
    }
}
