//! Lists, options that depend on one another, and what holds only for some options or platforms.

use super::*;
use crate::platform::Requirement;

/// What the ancestor offered, in today's terms.
const PYPY: &str = r##"
recipe = 1
name = "pypy"
description = "An interpreter with everything that can depend on something"
requires = ["tool.python2>=2.7", "tool.cc", "tool.make"]
reproducible = false
source_date_epoch = 1700000000
env = { PYPY_USESSION_BASENAME = "farm", CFLAGS = ["-pipe", "{debug}", "-DLABEL={label}"] }

[source]
hint = "a source release"

[option.opt]
type = "choice"
help = "optimisation level"
choices = ["0", "1", "2", "3", "size", "mem", "jit"]
default = "1"
words = { 0 = ["-O0"], 1 = ["-O1"], 2 = ["-O2"], 3 = ["-O3"], size = ["--opt=size"], mem = ["--opt=mem"], jit = ["-Ojit"] }
needs = { jit = ["gc=default|incminimark", "thread=true"] }

[option.gc]
type = "choice"
help = "garbage collector"
choices = ["default", "boehm", "incminimark"]
default = "default"
words = { default = [], boehm = ["--gc=boehm"], incminimark = ["--gc=incminimark"] }

[option.thread]
type = "bool"
help = "threads"
default = true
words = { true = ["--thread"], false = ["--no-thread"] }

[option.withmod]
type = "list"
help = "modules to build in"
choices = ["signal", "_ssl", "thread", "cpyext"]
default = ["thread", "signal"]
needs = { thread = ["thread=true"] }
excludes = { cpyext = ["gc=boehm"] }

[option.withoutmod]
type = "list"
help = "modules to leave out"
choices = ["_ssl", "cpyext", "zlib"]
default = []
words = { _ssl = ["--without", "ssl"], cpyext = ["--without", "cpyext"], zlib = [] }

[option.flavours]
type = "list"
help = "as one text"
choices = ["a", "b"]
default = ["a"]
join = "+"

[option.debug]
type = "bool"
help = "for debuggers"
default = false
words = { true = ["-g", "-fno-omit-frame-pointer"] }

[option.label]
type = "text"
help = "a word"
pattern = "[a-z]{0,9}"
default = ""

[option.verbose]
type = "integer"
help = "how much the log says"
min = 0
max = 3
default = 0
changes_result = false

[[variant]]
when = ["gc=boehm"]
requires = ["header.gc.h", "tool.cc>=9"]

[[variant]]
when = ["gc=default", "opt=0|1|size"]
requires = ["header.gc.h"]

[[variant]]
when = ["opt=jit"]
env = { PYPY_GC_MAX = "4GB" }
limits = { time_s = 7200, memory_mib = 4096 }

[[variant]]
when = ["arch=aarch64"]
env = { CFLAGS = "-O1", EXTRA = "arm" }

[[step]]
run = ["python2", "rpython", "--v{verbose}", "{opt}", "{gc}", "{thread}", "--withmod-{withmod}", "{withoutmod}", "{flavours}"]
time_s = 7200

[[step]]
when = ["os=linux"]
run = ["make", "-j{jobs}"]
env = { CFLAGS = "{flavours}" }

[[step]]
when = ["os=darwin", "opt=jit"]
run = ["codesign"]

[[variant]]
when = ["os=darwin"]
requires = ["tool.codesign"]

[[output]]
path = "pypy-c"
as = "pypy"

[[output]]
path = "lib/**"
as = "share/lib"
optional = true

[[output]]
path = "pypy.dSYM/**"
when = ["os=darwin"]
optional = true

[smoke]
run = ["./pypy", "--version"]
"##;

fn pypy() -> Recipe {
    Recipe::parse(PYPY).unwrap_or_else(|error| panic!("{error}"))
}

fn platform(texts: &[&str]) -> Vec<Require> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn spec(recipe: &Recipe, pairs: &[(&str, &str)], extra: &[&str]) -> Result<BuildSpec, SpecError> {
    let options = recipe.resolve(&given(pairs))?.options;
    recipe.spec(options, Some(Source::Tree(ManifestId(Digest::of(b"tree")))), &platform(extra))
}

fn typed(requirement: &Requirement) -> Vec<String> {
    let typed = |(key, constraint): (&str, &Constraint)| {
        Require { key: key.to_owned(), constraint: constraint.clone() }.to_string()
    };
    requirement.iter().map(typed).collect()
}

#[test]
fn a_list_repeats_its_word_and_keeps_the_authors_order() {
    let chosen = [("withmod", "_ssl, thread,_ssl,signal"), ("withoutmod", "zlib,_ssl"), ("flavours", "b,a")];
    let steps = planned(&pypy(), &chosen, 2).steps;
    assert_eq!(
        steps[0].argv,
        [
            "python2",
            "rpython",
            "--v0",
            "-O1",
            "--thread",
            "--withmod-signal",
            "--withmod-_ssl",
            "--withmod-thread",
            "--without",
            "ssl",
            "a+b"
        ]
    );
    let canonical = pypy().resolve(&given(&chosen)).unwrap().options[&name("withmod")].clone();
    assert_eq!(canonical, OptionValue::List(["signal", "_ssl", "thread"].map(str::to_owned).into()));
    let none = planned(&pypy(), &[("withoutmod", "")], 1).steps;
    assert_eq!(none[0].argv.last().unwrap(), "a", "an empty list is no word");
}

#[test]
fn a_list_that_does_not_fit_is_told_what_does() {
    let recipe = pypy();
    for (value, message) in [
        (
            ("withmod", "signl"),
            "option `withmod` cannot hold `signl`: it is a list, with commas between, of signal, _ssl, thread, cpyext; did you mean `signal`?",
        ),
        (
            ("withmod", ""),
            "option `withmod` cannot be empty: it is a list of at least one of signal, _ssl, thread, cpyext",
        ),
        (("withmod", "signal,,thread"), "option `withmod` cannot hold ``"),
    ] {
        let error = recipe.resolve(&given(&[value])).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    // A stranger's request spells it as the recipe does, or is refused.
    let good = spec(&recipe, &[], &["os=linux", "arch=x86_64"]).unwrap();
    let effort = recipe.resolve(&[]).unwrap().effort;
    for values in [&["thread", "signal"][..], &["signal", "signal"], &["signal", "x"], &[]] {
        let mut bad = good.clone();
        let list = OptionValue::List(values.iter().map(|&value| value.to_owned()).collect());
        bad.options.insert(name("withmod"), list);
        assert!(matches!(recipe.admit(&bad, &effort), Err(SpecError::Option(_))), "{values:?}");
    }
}

#[test]
fn what_clashes_is_named_with_what_to_write_instead() {
    let recipe = pypy();
    for (pairs, message) in [
        (
            &[("opt", "jit"), ("gc", "boehm")][..],
            "`opt=jit` needs `gc=default|incminimark`, and `gc` is `boehm`: write `--option gc=default` or `--option opt=1`",
        ),
        (
            &[("thread", "false")],
            "`withmod=thread` needs `thread=true`, and `thread` is `false`: write `--option thread=true` or `--option withmod=signal`",
        ),
        (
            &[("withmod", "cpyext"), ("gc", "boehm")],
            "`withmod=cpyext` and `gc=boehm` exclude each other: write `--option gc=default` or `--option withmod=signal,thread`",
        ),
    ] {
        let error = recipe.resolve(&given(pairs)).unwrap_err();
        assert_eq!(error.to_string(), message);
        let OptionError::Clash(clash) = error else { panic!("{error}") };
        // The advice is good: taking it mends this clash.
        for (option, value) in &clash.instead {
            let mended = pairs.iter().copied().filter(|(name, _)| *name != option.as_str());
            let mended: Vec<_> = mended.chain([(option.as_str(), value.as_str())]).collect();
            assert!(recipe.resolve(&given(&mended)).is_ok(), "{option}={value}");
        }
        let mut asked = spec(&recipe, &[], &["os=linux", "arch=x86_64"]).unwrap();
        for (option, value) in pairs {
            let value = recipe.options()[&name(option)].read(&name(option), value).unwrap();
            asked.options.insert(name(option), value);
        }
        let effort = recipe.resolve(&[]).unwrap().effort;
        assert!(matches!(recipe.admit(&asked, &effort), Err(SpecError::Option(OptionError::Clash(_)))), "{pairs:?}");
    }
}

#[test]
fn the_requirement_depends_on_options() {
    let linux = ["os=linux", "arch=x86_64"];
    let required = |pairs: &[(&str, &str)]| typed(&spec(&pypy(), pairs, &linux).unwrap().requirement);
    let usual = ["disk_mib>=2048", "memory_mib>=1024", "os=linux", "tool.cc", "tool.make", "tool.python2>=2.7"];
    let with = |more: &[&str], less: &[&str]| {
        let mut all: Vec<String> = usual.iter().chain(more).chain(&["arch=x86_64"]).map(ToString::to_string).collect();
        all.retain(|text| !less.contains(&text.as_str()));
        all.sort();
        all
    };
    assert_eq!(required(&[("opt", "2")]), with(&[], &[]));
    assert_eq!(required(&[]), with(&["header.gc.h"], &[]), "the default of -O1 is Boehm's");
    assert_eq!(required(&[("opt", "2"), ("gc", "boehm")]), with(&["header.gc.h", "tool.cc>=9"], &["tool.cc"]));
    assert_eq!(required(&[("opt", "jit")]), with(&["memory_mib>=4096"], &["memory_mib>=1024"]));

    // Whoever leaves out what an option requires is refused.
    let recipe = pypy();
    let effort = recipe.resolve(&[]).unwrap().effort;
    let mut lax = spec(&recipe, &[("opt", "2")], &linux).unwrap();
    lax.options.insert(name("gc"), OptionValue::Text("boehm".to_owned()));
    let refused = SpecError::Requirement { recipe: name("pypy"), key: "header.gc.h".to_owned() };
    assert_eq!(recipe.admit(&lax, &effort), Err(refused));
    // A bound that somebody adds stays beside that of a variant.
    let stricter =
        spec(&recipe, &[("gc", "boehm"), ("opt", "2")], &["os=linux", "arch=x86_64", "tool.cc>=12"]).unwrap();
    assert!(typed(&stricter.requirement).contains(&"tool.cc>=12".to_owned()));
}

#[test]
fn steps_outputs_and_variables_depend_on_the_platform() {
    let recipe = pypy();
    let effort = recipe.resolve(&[]).unwrap().effort;
    let plan = |pairs: &[(&str, &str)], extra: &[&str]| {
        recipe.plan(&spec(&recipe, pairs, extra).unwrap(), &effort, cores(3)).unwrap()
    };
    let open = spec(&recipe, &[], &["os=linux"]).unwrap_err();
    assert_eq!(open.to_string(), "recipe `pypy` differs by `arch`: say which is wanted, with --platform OS/ARCH");

    let linux = plan(&[("debug", "true"), ("label", "x")], &["os=linux", "arch=x86_64"]);
    let variable = |plan: &Plan, step: usize, name: &str| plan.steps[step].env.get(name).cloned();
    assert_eq!(linux.steps.iter().map(|step| step.argv[0].as_str()).collect::<Vec<_>>(), ["python2", "make"]);
    assert_eq!(linux.steps[0].time, Some(Span::from_secs(7200)));
    assert_eq!(variable(&linux, 0, "CFLAGS").as_deref(), Some("-pipe -g -fno-omit-frame-pointer -DLABEL=x"));
    assert_eq!(variable(&linux, 1, "CFLAGS").as_deref(), Some("a"), "a step's own variable comes first");
    assert_eq!(variable(&linux, 1, "EXTRA"), None);
    assert_eq!(linux.outputs.iter().map(|output| output.path.as_str()).collect::<Vec<_>>(), ["pypy-c", "lib/**"]);
    assert_eq!((linux.limits.time, linux.source_date_epoch), (Span::from_secs(3600), 1_700_000_000));

    let arm = plan(&[("opt", "jit")], &["os=darwin", "arch=aarch64"]);
    assert_eq!(arm.steps.iter().map(|step| step.argv[0].as_str()).collect::<Vec<_>>(), ["python2", "codesign"]);
    assert_eq!(variable(&arm, 0, "CFLAGS").as_deref(), Some("-O1"), "a variant comes before the recipe");
    assert_eq!(
        (variable(&arm, 0, "EXTRA"), variable(&arm, 0, "PYPY_GC_MAX")),
        (Some("arm".into()), Some("4GB".into()))
    );
    assert_eq!((arm.limits.time, arm.limits.memory_mib), (Span::from_secs(7200), 4096));
    assert_eq!(arm.outputs.len(), 3);
}

#[test]
fn effort_stays_out_of_the_build_key_and_is_checked_all_the_same() {
    let recipe = pypy();
    let linux = ["os=linux", "arch=x86_64"];
    let loud = recipe.resolve(&given(&[("verbose", "3")])).unwrap();
    assert_eq!(loud.effort, BTreeMap::from([(name("verbose"), OptionValue::Integer(3))]));
    let (quiet, spec_of_loud) =
        (spec(&recipe, &[], &linux).unwrap(), spec(&recipe, &[("verbose", "3")], &linux).unwrap());
    assert_eq!(quiet.key(), spec_of_loud.key());
    assert_eq!(recipe.plan(&quiet, &loud.effort, cores(1)).unwrap().steps[0].argv[2], "--v3");

    let wrong = |effort: BTreeMap<Name, OptionValue>| recipe.plan(&quiet, &effort, cores(1)).unwrap_err().to_string();
    assert_eq!(wrong(BTreeMap::new()), "option `verbose` has no value");
    let with = |key: &str, value| loud.effort.clone().into_iter().chain([(name(key), value)]).collect();
    assert_eq!(
        wrong(with("verbose", OptionValue::Integer(4))),
        "option `verbose` cannot be `4`: it is a whole number from 0 to 3"
    );
    assert_eq!(
        wrong(with("gc", OptionValue::Text("boehm".to_owned()))),
        "option `gc` stands in the wrong part of the request"
    );
    let mut moved = quiet.clone();
    moved.options.insert(name("verbose"), OptionValue::Integer(0));
    assert!(matches!(recipe.admit(&moved, &loud.effort), Err(SpecError::Option(OptionError::Misplaced { .. }))));
}

/// Each row: what is changed, and the error with its place.
#[test]
fn mistakes_in_relations_are_located() {
    let rows = [
        (
            "needs = { thread =",
            "needs = { threads =",
            "option.withmod.needs.threads: option `withmod` cannot hold `threads`",
        ),
        (
            "[\"thread=true\"]",
            "[\"thraed=true\"]",
            "option.withmod.needs.thread 1: no option `thraed`; did you mean `thread`?",
        ),
        ("[\"thread=true\"]", "[\"thread=yes\"]", "option.withmod.needs.thread 1: `yes` is spelled `true` here"),
        (
            "[\"thread=true\"]",
            "[\"thread\"]",
            "option.withmod.needs.thread 1: `thread` is not a condition: write OPTION=VALUE",
        ),
        (
            "[\"gc=boehm\"] }",
            "[\"gc=bohm\"] }",
            "option `gc` cannot be `bohm`: it is one of default, boehm, incminimark; did you mean `boehm`?",
        ),
        (
            "[\"gc=boehm\"] }",
            "[\"verbose=1\"] }",
            "option `verbose` says `changes_result = false`, so nothing may depend on its value",
        ),
        ("[\"gc=boehm\"] }", "[\"os=linux\"] }", "options may need or exclude only options: `when` of a step"),
        ("[\"gc=boehm\"] }", "[\"withmod=_ssl\"] }", "option `withmod` cannot need or exclude itself"),
        (
            "changes_result = false",
            "changes_result = false\nneeds = { 3 = [\"gc=boehm\"] }",
            "option.verbose.needs: an option with `changes_result = false` has no `needs`",
        ),
        (
            "default = true",
            "default = false",
            "option.withmod.needs.thread: the defaults do not go together: `withmod=thread` needs `thread=true`",
        ),
        (
            "[\"thread\", \"signal\"]",
            "\"thread\"",
            "option.withmod.default: the default of a list is a list: write `default = []`",
        ),
        ("[\"thread\", \"signal\"]", "[\"threads\"]", "option.withmod.default: option `withmod` cannot hold `threads`"),
        (
            "\"_ssl\", \"thread\", \"cpyext\"",
            "\"_ssl,x\", \"thread\", \"cpyext\"",
            "option.withmod.choices 2: `_ssl,x` cannot be a value",
        ),
        (
            "join = \"+\"",
            "join = \"+\"\nwords = { a = [], b = [] }",
            "option.flavours.join: `join` makes the list one text",
        ),
        ("join = \"+\"", "", "step 2.env.CFLAGS: `{flavours}` is a list and this is one text"),
        (
            "\"--withmod-{withmod}\"",
            "\"--{withmod}-{withoutmod}\"",
            "step 1.run 7: `{withmod}` and `{withoutmod}` are two lists in one word",
        ),
        ("[a-z]{0,9}", "[a-z ]{0,9}", "env.CFLAGS 3: option `label` may hold a space"),
        ("[\"-pipe\", \"{debug}\"", "[7, \"{debug}\"", "env.CFLAGS: a variable is a text, or a list of words"),
        ("\"opt=0|1|size\"", "\"opt=0|1|sise\"", "variant 2.when 2: option `opt` cannot be `sise`"),
        ("when = [\"opt=jit\"]", "when = []", "variant 3.when: 0 conditions: a recipe has 1 to 8"),
        (
            "requires = [\"header.gc.h\"]",
            "requires = [\"os=linux\"]",
            "variant 2.requires: a variant cannot require `os`",
        ),
        (
            "when = [\"os=darwin\", \"opt=jit\"]",
            "when = [\"opt=jit\"]",
            "step 3.run 1: `codesign` is run, so the recipe must require it",
        ),
        (
            "when = [\"os=darwin\"]\nrequires",
            "when = [\"os=darwin\", \"gc=boehm\"]\nrequires",
            "step 3.run 1: `codesign` is run, so the recipe must require it",
        ),
        ("requires = [\"header.gc.h\"]", "", "variant 2: a variant adds something"),
        ("memory_mib = 4096 }", "memory_mib = 0 }", "variant 3.limits.memory_mib: 0 is out of range"),
        ("\ntime_s = 7200\n", "\ntime_s = 7201\n", "step 1.time_s: this step may take 7201 s and all together 7200 s"),
        ("\ntime_s = 7200\n", "\ntime_s = 0\n", "step 1.time_s: this step may take 0 s"),
        (
            "source_date_epoch = 1700000000",
            "source_date_epoch = 17",
            "source_date_epoch: 17 is out of range: 315532800 to 4102444800",
        ),
        (
            "as = \"pypy\"\n\n[[output]]\npath = \"lib/**\"",
            "optional = true\n\n[[output]]\npath = \"lib/**\"",
            "every output is optional",
        ),
        (
            "[option.label]",
            "[option.arch]",
            "option.arch: `jobs`, `here`, `os` and `arch` mean the volunteer's cores, folder and platform",
        ),
    ];
    let mut wrong = Vec::new();
    for (old, new, expected) in rows {
        assert!(PYPY.contains(old), "{old}");
        let errors = Recipe::parse_all(&PYPY.replacen(old, new, 1)).unwrap_err();
        let said: Vec<String> = errors.iter().map(RecipeError::to_string).collect();
        if !said.iter().any(|said| said.contains(expected)) || errors.iter().any(|error| error.position.is_none()) {
            wrong.push((expected, said));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_does_not_follow_from_another_mistake_is_told_at_once() {
    let text = PYPY
        .replacen("\"make\", \"-j{jobs}\"", "\"ninja\", \"-j{jobs}\"", 1)
        .replacen("default = \"1\"", "default = \"4\"", 1)
        .replacen("memory_mib = 4096", "memory_mib = 0", 1);
    let errors = Recipe::parse_all(&text).unwrap_err();
    let said: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.place, error.problem)).collect();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].starts_with("option.opt.default: option `opt` cannot be `4`"), "{said:#?}");
    assert!(said[1].starts_with("variant 3.limits.memory_mib: 0 is out of range"), "{said:#?}");
    assert!(said[2].starts_with("step 2.run 1: `ninja` is run"), "{said:#?}");
    let lines: Vec<usize> = errors.iter().map(|error| error.position.unwrap().line).collect();
    assert!(lines.is_sorted() && lines[0] < lines[2], "{lines:?}");
    let first = errors.first.position.unwrap();
    assert_eq!((first.column, first.width), (11, 3), "all of `\"4\"`");
}

#[test]
fn a_build_that_would_leave_nothing_is_not_asked_for() {
    let text = PYPY.replacen("as = \"pypy\"", "as = \"pypy\"\nwhen = [\"opt=2\"]", 1);
    let recipe = Recipe::parse(&text).unwrap();
    assert!(spec(&recipe, &[("opt", "2")], &["os=linux", "arch=x86_64"]).is_ok());
    let error = spec(&recipe, &[("opt", "3")], &["os=linux", "arch=x86_64"]).unwrap_err();
    assert_eq!(error, SpecError::NoOutput { recipe: name("pypy") });
}

#[test]
fn a_bool_that_only_conditions_ask_for_needs_no_words() {
    let text = |run: &str, when: &str| {
        format!(
            "recipe = 1\nname = \"x\"\ndescription = \"x\"\nreproducible = true\n\
             [option.docs]\ntype = \"bool\"\nhelp = \"h\"\ndefault = false\n\
             [[file]]\npath = \"a\"\ntext = \"a\"\n[[step]]\n{when}\nrun = [\"true\"{run}]\n[[output]]\npath = \"a\"\n"
        )
    };
    let recipe = Recipe::parse(&text("", "when = [\"docs=true\"]")).unwrap();
    assert_eq!(planned(&recipe, &[("docs", "true")], 1).steps.len(), 1);
    assert_eq!(planned(&recipe, &[], 1).steps.len(), 0);
    let error = Recipe::parse(&text(", \"{docs}\"", "")).unwrap_err().to_string();
    assert!(error.contains("step 1.run 2: `{docs}` has no words: write `words = { true = [\"WORD\"] }`"), "{error}");
}

/// Any value of an option as somebody types it, many of them wrong.
fn any_value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "0",
        "1",
        "3",
        "jit",
        "size",
        "boehm",
        "incminimark",
        "default",
        "true",
        "false",
        "signal",
        "thread,signal",
        "cpyext",
        "_ssl,cpyext,zlib",
        "b,a",
        "abc",
        "-1",
        "x y",
        "a,a",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    /// Whatever is typed: what `resolve` lets through, `spec` and `admit` let through as well, the plan is within bounds, and
    /// the blob that travels plans the same.
    #[test]
    fn what_is_resolved_is_admitted(
        typed in prop::collection::btree_map(prop::sample::select(pypy().options().keys().cloned().collect::<Vec<_>>()), any_value(), 0..6),
        os in prop::sample::select(vec!["os=linux", "os=darwin"]), arch in prop::sample::select(vec!["arch=x86_64", "arch=aarch64"]),
        jobs in 1u32..,
    ) {
        let recipe = pypy();
        let typed: Vec<(String, String)> = typed.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        let Ok(Settings { options, effort }) = recipe.resolve(&typed) else { return Ok(()) };
        let spec = recipe.spec(options, Some(Source::Tree(ManifestId(Digest::of(b"tree")))), &platform(&[os, arch])).unwrap();
        prop_assert_eq!(recipe.admit(&spec, &effort), Ok(()));
        let plan = recipe.plan(&spec, &effort, cores(jobs)).unwrap();
        let again = Recipe::decode(&recipe.encode()).unwrap();
        prop_assert_eq!(again.plan(&spec, &effort, cores(jobs)).unwrap(), plan.clone());
        for (step, rule) in plan.steps.iter().zip(recipe.step_rules()) {
            let argv: usize = step.argv.iter().map(|word| word.len() + 1).sum();
            let env: usize = step.env.iter().map(|(name, value)| name.len() + 1 + value.len() + 1).sum();
            let bound = bound::Bound(recipe.options());
            prop_assert!(argv <= bound.words(&rule.run), "{argv} {rule:?}");
            prop_assert!(argv + env <= MAX_STEP_BYTES);
        }
        let taken = codec::encode(&spec.options).len() + codec::encode(&effort).len();
        prop_assert!(taken <= bound::Bound(recipe.options()).settings() + 6, "{taken}");
        // What is printed is what can be typed.
        for (name, value) in spec.options.iter().chain(&effort) {
            prop_assert_eq!(&recipe.options()[name].read(name, &value.to_string()).unwrap(), value);
        }
    }

    /// What is read as a condition prints as it was written.
    #[test]
    fn conditions_print_as_they_are_written(text in "[a-z0-9._+-]{1,9}=[ -~]{0,20}") {
        if let Ok(condition) = Condition::try_from(text.clone()) {
            prop_assert_eq!(condition.to_string(), text);
        }
    }

    /// No choice of options makes a step longer than its bound, and a bound that is too large is no recipe.
    #[test]
    fn no_step_grows_beyond_its_bound(
        plain in "[a-z-]{0,40}", values in prop::collection::btree_set("[a-z_]{1,12}", 1..20), repeats in 1usize..40, chosen in any::<u32>(),
        join in prop::option::of("[+ ]{1,3}"),
    ) {
        let values: Vec<String> = values.into_iter().collect();
        let word = format!("\"{plain}{}\"", "{m}".repeat(repeats));
        let join_line = join.as_ref().map(|join| format!("join = \"{join}\"\n")).unwrap_or_default();
        let text = format!(
            "recipe = 1\nname = \"x\"\ndescription = \"x\"\nreproducible = true\n\
             env = {{ A = [{word}] }}\n\
             [option.m]\ntype = \"list\"\nhelp = \"h\"\nchoices = {values:?}\ndefault = []\n{join_line}\
             [[file]]\npath = \"a\"\ntext = \"\"\n[[step]]\nrun = [\"true\", {word}, \"{{m}}\"]\n[[output]]\npath = \"a\"\n"
        );
        let recipe = Recipe::parse(&text).unwrap();
        let picked: Vec<&str> =
            values.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, value)| value.as_str()).collect();
        let plan = planned(&recipe, &[("m", &picked.join(","))], 1);
        let bound = bound::Bound(recipe.options());
        let argv: usize = plan.steps[0].argv.iter().map(|word| word.len() + 1).sum();
        prop_assert!(argv <= bound.words(&recipe.step_rules()[0].run));
        let words = if join.is_some() { 1 } else { picked.len() };
        prop_assert_eq!(plan.steps[0].argv.len(), 1 + 2 * words);
        let set = plan.steps[0].env.get("A").map(String::len).unwrap_or_default();
        prop_assert!(set <= bound.variable(&recipe.0.env["A"]));
    }
}
