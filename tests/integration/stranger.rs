//! A project that no recipe of the catalogue knows, added by somebody who has read `node/recipes/README.md` and nothing else.

use crate::deadline::{BUILD, SOON};
use crate::farm::{Farm, Home};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that counts what it reads: a file for each sort of count.
const PROJECT: [(&str, &str); 6] = [
    ("tally.h", "typedef struct { const char *name; void (*see)(int); unsigned long *count; } counter;\n"),
    (
        "lines.c",
        "#include \"tally.h\"\nstatic unsigned long count;\nstatic void see(int byte) { count += byte == '\\n'; }\n\
         const counter lines = { \"lines\", see, &count };\n",
    ),
    (
        "words.c",
        "#include \"tally.h\"\n#include <ctype.h>\nstatic unsigned long count;\nstatic int inside;\n\
         static void see(int byte) { int space = isspace(byte); count += !space && !inside; inside = !space; }\n\
         const counter words = { \"words\", see, &count };\n",
    ),
    (
        "bytes.c",
        "#include \"tally.h\"\nstatic unsigned long count;\nstatic void see(int byte) { (void)byte; count += 1; }\n\
         const counter bytes = { \"bytes\", see, &count };\n",
    ),
    (
        "main.c",
        "#include \"tally.h\"\n#include <stdio.h>\n#define TEXT_OF(name) #name\n#define TEXT(name) TEXT_OF(name)\n\
         extern const counter lines, words, bytes;\nstatic const counter *const all[] = {\n\
         #ifdef COUNT_lines\n&lines,\n#endif\n#ifdef COUNT_words\n&words,\n#endif\n#ifdef COUNT_bytes\n&bytes,\n#endif\n};\n\
         int main(void) {\n    int byte;\n    unsigned long at;\n    const unsigned long many = sizeof all / sizeof *all;\n\
         \x20   while ((byte = getchar()) != EOF)\n        for (at = 0; at < many; at++) all[at]->see(byte);\n\
         \x20   puts(TEXT(TITLE));\n\
         \x20   for (at = 0; at < many; at++) printf(\"%s%c%lu\\n\", all[at]->name, BETWEEN, *all[at]->count);\n\
         \x20   return 0;\n}\n",
    ),
    ("Makefile", "%.o: %.c tally.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n"),
];

/// What a stranger makes of the page: options of every sort, some of which depend on others.
const RECIPE: &str = r##"
recipe = 1
name = "tally"
description = "Counts what it reads"
requires = ["os=linux", "tool.cc", "tool.make", "libc.glibc>=2.17", "cores>=1"]
reproducible = true
source_date_epoch = 1500000000
env = { CC = "cc", CFLAGS = ["-O{opt}", "{debug}", "{between}", "-DTITLE={title}", "-DCOUNT_{counts}"] }

[source]
hint = "the folder of tally"

[option.counts]
type = "list"
help = "what is counted"
choices = ["lines", "words", "bytes"]
default = ["words", "lines"]
needs = { bytes = ["opt=2|3"] }

[option.opt]
type = "integer"
help = "optimisation level"
min = 0
max = 3
default = 1

[option.debug]
type = "bool"
help = "keep what a debugger needs, and say what is in it"
default = false
words = { true = ["-g"] }
excludes = { true = ["opt=2|3"] }

[option.title]
type = "text"
help = "the first line of what is printed"
pattern = "[A-Za-z]{1,20}"
default = "tally"

[option.between]
type = "choice"
help = "what stands between a name and its count"
choices = ["equals", "colon"]
default = "colon"
words = { equals = ["-DBETWEEN=61"], colon = ["-DBETWEEN=58"] }

[option.quiet]
type = "bool"
help = "do not write the commands to the log"
default = false
words = { true = ["--silent"] }
changes_result = false

[[variant]]
when = ["debug=true", "os=linux"]
limits = { memory_mib = 300 }

[[file]]
path = "notes.sh"
text = '''
echo "dated $SOURCE_DATE_EPOCH" > notes
'''

[[step]]
run = ["make", "-j{jobs}", "{quiet}", "main.o", "{counts}.o"]
time_s = 60

[[step]]
run = ["cc", "-o", "out", "main.o", "{counts}.o"]

[[step]]
when = ["debug=true"]
run = ["sh", "notes.sh"]

[[output]]
path = "out"
as = "bin/tally"

[[output]]
path = "notes"
when = ["debug=true"]

[[output]]
path = "doc/**"
as = "share"
optional = true

[smoke]
run = ["sh", "-c", "printf 'a b\n' | ./bin/tally"]
expect = "{title}"

[limits]
time_s = 120
memory_mib = 256
disk_mib = 64
"##;

struct Stranger {
    farm: Farm,
    home: Home,
    source: String,
}

impl Stranger {
    fn new() -> Self {
        let farm = Farm::new();
        let source = farm.folder().join("tally");
        fs::create_dir(&source).unwrap();
        for (name, text) in PROJECT {
            fs::write(source.join(name), text).unwrap();
        }
        let home = farm.home("stranger");
        let source = source.to_str().unwrap().to_owned();
        Self { farm, home, source }
    }

    /// A recipe in the folder where the stranger types.
    fn writes(&self, name: &str, text: &str) {
        fs::write(self.home.path().join(name), text).unwrap();
    }

    fn request(&self, output: &str, options: &[&str], code: i32) -> Value {
        let output = self.farm.folder().join(output);
        let mut words =
            vec!["request", "./tally.toml", "--json", "--source", &self.source, "--output", output.to_str().unwrap()];
        words.extend(options.iter().flat_map(|option| ["--option", option]));
        self.home.run(&words, BUILD).ended_with(code).json()
    }

    /// What the built program makes of a text.
    fn counts(&self, output: &str, text: &str) -> String {
        let program = self.farm.folder().join(output).join("bin/tally");
        let mut run = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        run.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        String::from_utf8(run.wait_with_output().unwrap().stdout).unwrap()
    }
}

/// Whether a stranger's project can be built here.
fn can_build(what: &str) -> bool {
    let has_make = Path::new("/usr/bin/make").exists();
    if !has_make {
        crate::left_out(what, "there is no make");
    }
    has_make && crate::can_build(what)
}

/// The paths of what was built, below its folder.
fn files_of(built: &Value, folder: &Path) -> Vec<PathBuf> {
    let path = |file: &Value| Path::new(file["path"].as_str().unwrap()).strip_prefix(folder).unwrap().to_owned();
    built["files"].as_array().unwrap().iter().map(path).collect()
}

#[test]
fn a_project_of_their_own_is_checked_and_built_with_its_options() {
    if !can_build("a project of a stranger") {
        return;
    }
    let stranger = Stranger::new();
    stranger.writes("tally.toml", RECIPE);
    let checked = stranger.home.run(&["recipe", "check", "tally.toml", "--json"], SOON).ended_with(0).json();
    assert_eq!((&checked["name"], &checked["mistakes"]), (&"tally".into(), &Value::Array(Vec::new())));
    let shown = stranger.home.run(&["recipe", "show", "./tally.toml"], SOON);
    for said in ["counts=VALUE,…", "any of lines, words, bytes", "bytes needs opt=2|3", "does not change the result"]
    {
        assert!(shown.ended_with(0).stdout.contains(said), "{said}: {}", shown.stdout);
    }

    let usual = stranger.request("usual", &[], 0);
    assert_eq!(usual["outcome"], "built");
    assert_eq!(files_of(&usual, &stranger.farm.folder().join("usual")), [Path::new("bin/tally")]);
    assert_eq!(stranger.counts("usual", "one two\nthree\n"), "tally\nlines:2\nwords:3\n");

    let chosen = ["counts=bytes,lines", "opt=3", "title=Barn", "between=equals"];
    let other = stranger.request("other", &chosen, 0);
    assert_ne!(other["build_key"], usual["build_key"]);
    assert_eq!(stranger.counts("other", "one two\nthree\n"), "Barn\nlines=2\nbytes=14\n");

    let debug = stranger.request("debug", &["debug=yes"], 0);
    let folder = stranger.farm.folder().join("debug");
    assert_eq!(files_of(&debug, &folder), [Path::new("bin/tally"), Path::new("notes")]);
    assert_eq!(fs::read_to_string(folder.join("notes")).unwrap(), "dated 1500000000\n");

    // Another order of the list and another effort are the same wish.
    let again = stranger.request("again", &["quiet=true", "counts=words,lines,words"], 0);
    assert_eq!((&again["outcome"], &again["manifest"]), (&"cached".into(), &usual["manifest"]));

    for (options, reason) in [
        (
            &["counts=bytes"][..],
            "`counts=bytes` needs `opt=2|3`, and `opt` is `1`: write `--option opt=2` or `--option counts=lines,words`",
        ),
        (
            &["debug=true", "opt=2"],
            "`debug=true` and `opt=2` exclude each other: write `--option opt=1` or `--option debug=false`",
        ),
        (&["count=lines"], "no option `count`; did you mean `counts`?"),
        (
            &["counts=line"],
            "option `counts` cannot hold `line`: it is a list, with commas between, of lines, words, bytes; did you mean `lines`?",
        ),
    ] {
        assert_eq!(stranger.request("none", options, 2)["reason"], reason);
    }
}

#[test]
fn a_step_that_takes_too_long_is_named() {
    if !crate::can_build("a step with a limit of its own") {
        return;
    }
    let stranger = Stranger::new();
    let endless = "recipe = 1\nname = \"endless\"\ndescription = \"Never ends\"\nreproducible = true\n\
                   [[file]]\npath = \"a\"\ntext = \"a\"\n[[step]]\nrun = [\"true\"]\n\
                   [[step]]\nrun = [\"sh\", \"-c\", \"while true; do :; done\"]\ntime_s = 1\n[[output]]\npath = \"a\"\n";
    stranger.writes("endless.toml", endless);
    let ended = stranger.home.run(&["request", "./endless.toml", "--json"], BUILD).ended_with(4).json();
    assert_eq!(ended["outcome"], "policy");
    let reason = ended["reason"].as_str().unwrap();
    assert!(
        reason.contains("took longer in step 2 than the recipe allows") && reason.contains("limit:step-2"),
        "{reason}"
    );
}

#[test]
fn the_starter_builds_as_it_is() {
    let stranger = Stranger::new();
    let wrote = stranger.home.run(&["recipe", "new", "mine", "--json"], SOON).ended_with(0).json();
    let file = stranger.home.path().join("mine.toml");
    assert_eq!(wrote["file"].as_str(), file.to_str());
    let before = fs::read_to_string(&file).unwrap();
    let again = stranger.home.run(&["recipe", "new", "mine"], SOON);
    assert!(again.ended_with(2).stderr.contains("choose another name"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "what is there is kept");
    stranger.home.run(&["recipe", "check", "mine.toml"], SOON).ended_with(0);
    if !crate::can_build("the starter") {
        return;
    }
    let words = ["request", "./mine.toml", "--json", "-o", "greeting=hey you", "-o", "debug=true", "--output", "out"];
    let built = stranger.home.run(&words, BUILD).ended_with(0).json();
    assert_eq!(built["outcome"], "built");
    let said = Command::new(stranger.home.path().join("out/mine")).output().unwrap().stdout;
    assert_eq!(said, b"hey you\n");
}

#[test]
fn every_mistake_is_shown_where_it_is() {
    let stranger = Stranger::new();
    let wrong = RECIPE.replacen("default = \"colon\"", "default = \"coln\"", 1).replacen("\"tool.make\", ", "", 1);
    stranger.writes("wrong.toml", &wrong);
    let ran = stranger.home.run(&["recipe", "check", "wrong.toml"], SOON);
    let at = wrong.lines().position(|line| line == "default = \"coln\"").unwrap() + 1;
    let expected = format!(
        "error: wrong.toml: line {at}, column 11: option.between.default: option `between` cannot be `coln`: it is one of \
         equals, colon; did you mean `colon`?\n   |\n{at} | default = \"coln\"\n   |           ^^^^^^\n"
    );
    assert!(ran.ended_with(2).stderr.contains(&expected), "{}", ran.stderr);
    assert!(ran.stderr.contains("`make` is run, so the recipe must require it"), "{}", ran.stderr);
    assert!(ran.stderr.contains("wrong.toml is not a recipe: 2 mistakes"), "{}", ran.stderr);
    let object = stranger.home.run(&["recipe", "check", "wrong.toml", "--json"], SOON).ended_with(2).json();
    let mistakes = object["mistakes"].as_array().unwrap();
    assert_eq!((&mistakes[0]["line"], &mistakes[0]["column"]), (&at.into(), &11.into()));
    assert_eq!((mistakes.len(), &mistakes[1]["place"]), (2, &"step 1.run 1".into()));
}

#[test]
fn agreement_without_equal_bytes_explains_itself() {
    if !crate::can_build("a recipe that claims no reproducibility") {
        return;
    }
    let stranger = Stranger::new();
    let shaky = "recipe = 1\nname = \"shaky\"\ndescription = \"Differs\"\nreproducible = false\n\
                 [[file]]\npath = \"a\"\ntext = \"a\"\n[[step]]\nrun = [\"cp\", \"a\", \"b\"]\n[[output]]\npath = \"b\"\n\
                 [smoke]\nrun = [\"test\", \"-s\", \"b\"]\n";
    stranger.writes("shaky.toml", shaky);
    // On a farm of one nobody else can agree, so this expires.
    let ran = stranger.home.run(&["request", "./shaky.toml", "--agree", "2", "--expires", "10s"], BUILD);
    let said = "does not claim that equal inputs give equal bytes: `--agree 2` counts 2 volunteers whose builds pass its \
                smoke test";
    assert!(ran.ended_with(4).stderr.contains(said), "{}", ran.stderr);
}
