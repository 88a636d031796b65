//! Many at once: every combination of options in one command.

use crate::barn::recipe;
use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, Home, Process};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Prints what was chosen, and cannot be compiled in the mood `bad`.
const MOODY: &str = r#"
requires = ["os=linux", "tool.cc"]
[option.mood]
type = "choice"
help = "whether it can be compiled"
choices = ["good", "bad"]
default = "good"
words = { good = ["-DGOOD"], bad = ["-DBAD"] }
[option.word]
type = "text"
help = "what it prints"
pattern = "[a-z]{1,8}"
default = "none"
[[file]]
path = "moody.c"
text = '''
#include <stdio.h>
#ifdef BAD
#error "in a bad mood"
#endif
int main(void) { return puts(WORD) < 0; }
'''
[[step]]
run = ["cc", "{mood}", "-DWORD=\"{word}\"", "-o", "moody", "moody.c"]
[[output]]
path = "moody"
"#;

fn asks(home: &Home, words: &[&str], code: i32) -> Value {
    let words: Vec<&str> = ["request"].iter().chain(words).chain(&["--json"]).copied().collect();
    home.run(&words, BUILD).ended_with(code).json()
}

fn column(object: &Value, of: impl Fn(&Value) -> Value) -> Vec<Value> {
    object["combinations"].as_array().unwrap_or_else(|| panic!("{object}")).iter().map(of).collect()
}

#[test]
fn every_combination_is_built_fetched_and_told() {
    if !crate::can_build("a matrix") {
        return;
    }
    let farm = Farm::new();
    let (home, file, root) = (farm.home("me"), recipe(&farm, "moody", MOODY), farm.folder().join("all"));
    let words = [&*file, "--matrix", "mood=good,bad", "--matrix", "word=one,two", "--output", root.to_str().unwrap()];
    let object = asks(&home, &words, 1);
    let options = column(&object, |cell| format!("{} {}", cell["options"]["mood"], cell["options"]["word"]).into());
    assert_eq!(options, [r#""good" "one""#, r#""good" "two""#, r#""bad" "one""#, r#""bad" "two""#]);
    assert_eq!(column(&object, |cell| cell["outcome"].clone()), ["built", "built", "build_error", "build_error"]);
    assert_eq!(column(&object, |cell| cell["exit_code"].clone()), [0, 0, 1, 1]);
    for (word, folder) in [("one", "mood=good,word=one"), ("two", "mood=good,word=two")] {
        let said = Command::new(root.join(folder).join("moody")).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), word);
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 2, "nothing is fetched where nothing was built");

    // Once more, for people: what is built is found, and the worst of all ends is the end of the command.
    let words = ["request", &file, "--matrix", "mood=good", "--matrix", "word=one,two,three"];
    let ran = home.run(&words, BUILD);
    let lines: Vec<Vec<&str>> =
        ran.ended_with(0).stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{}", ran.stdout);
    assert_eq!(lines[0], ["COMBINATION", "OUTCOME", "TIME", "FILES"]);
    assert!(lines[1].starts_with(&["mood=good", "word=one", "already", "built"]), "{}", ran.stdout);
    assert!(lines[3].starts_with(&["mood=good", "word=three", "built"]), "{}", ran.stdout);
    assert!(ran.stderr.contains("3 combinations: 2 already built, 1 built in "), "{}", ran.stderr);
    let folder = home.path().join(lines[3].last().unwrap());
    assert!(Path::new(&folder).join("moody").is_file(), "{}", folder.display());
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let farm = Farm::new();
    let home = farm.home("me");
    for (words, said) in [
        (["hello", "--matrix", "greeting"].as_slice(), "write NAME=VALUE,VALUE"),
        (&["hello", "--matrix", "greeting=a,a"], "has `a` twice"),
        (&["hello", "--matrix", "greeting=a,,b"], "empty value"),
        (&["hello", "--matrix", "greeting=a", "--matrix", "greeting=b"], "given twice"),
        (&["hello", "--matrix", "greeting=a", "--option", "greeting=b"], "contradict each other"),
        (&["hello", "--matrix", "colour=red,blue"], "no option `colour`"),
        (&["hello", "--matrix", "greeting=*,/"], "cannot be `*`"),
    ] {
        let ran = home.run(&["request"].iter().chain(words).copied().collect::<Vec<_>>(), SOON);
        assert!(ran.ended_with(2).stderr.contains(said), "{words:?}: {}", ran.stderr);
    }
    let all: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let many = home.run(&["request", "hello", "--matrix", &format!("greeting={}", all.join(","))], SOON);
    assert!(many.ended_with(2).stderr.contains("more than 256 combinations"), "{}", many.stderr);
}

#[test]
fn an_interrupted_matrix_takes_all_of_it_back() {
    if !crate::can_build("a matrix") {
        return;
    }
    let home = Farm::new().home("me");
    let words = ["request", "hello", "--require", "tool.nobody-has-it", "--matrix", "greeting=one,two"];
    let mut asking = Process::start(&mut home.command(words));
    wait_for("both to wait", BUILD, || {
        let said = asking.stderr();
        let waits = |name: &str| said.lines().any(|line| line.starts_with(name) && line.contains("needs tool"));
        (waits("greeting=one") && waits("greeting=two")).then_some(())
    });
    asking.signal(Signal::INT);
    assert_eq!(wait_for("its end", SOON, || asking.ended()).code(), Some(130));
    assert!(asking.stderr().contains("takes it up again"), "{}", asking.stderr());
    let next = asks(&home, &["hello"], 0);
    assert_eq!(next["outcome"], "built", "nothing is left in its way");
}
