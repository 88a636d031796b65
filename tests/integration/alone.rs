//! A farm of one: `node request` where no farm is known.

use crate::barn::{Gate, gated_recipe};
use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, Home, Process};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn request(home: &Home, output: &Path, more: &[&str]) -> Value {
    let mut words = vec!["request", "hello", "--json", "--output", output.to_str().unwrap()];
    words.extend(more);
    home.run(&words, BUILD).ended_with(0).json()
}

#[test]
fn one_command_builds_delivers_and_mails() {
    if !crate::can_build("a farm of one") {
        return;
    }
    let farm = Farm::new();
    let home = farm.home("me");
    let output = farm.folder().join("out");
    let built = request(&home, &output, &["-o", "greeting=barn-raised", "--email", "you@example.org"]);
    assert_eq!(built["outcome"], "built");
    assert_eq!(built["reason"], Value::Null);
    let file = &built["files"][0];
    let path = output.join("hello");
    assert_eq!(file["path"].as_str(), path.to_str());
    assert_eq!(file["mode"], "0755");
    assert_eq!(file["size"].as_u64(), Some(fs::metadata(&path).unwrap().len()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    let sum = Command::new("sha256sum").arg(&path).output().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(file["digest"].as_str().unwrap()));
    assert_eq!(Command::new(&path).output().unwrap().stdout, b"barn-raised\n");
    let mails = mails_below(home.path());
    assert_eq!(mails.len(), 1, "{mails:?}");
    let mail = fs::read_to_string(&mails[0]).unwrap();
    assert!(mail.contains("To: you@example.org") && mail.contains("hello"), "{mail}");
}

fn mails_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut mails = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "eml") {
                mails.push(path);
            }
        }
    }
    mails
}

#[test]
fn the_same_wish_is_built_once() {
    if !crate::can_build("a farm of one") {
        return;
    }
    let farm = Farm::new();
    let home = farm.home("me");
    let first = request(&home, &farm.folder().join("one"), &[]);
    let second = request(&home, &farm.folder().join("two"), &[]);
    assert_eq!((&first["outcome"], &second["outcome"]), (&"built".into(), &"cached".into()));
    for field in ["build_key", "manifest"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    let other = request(&home, &farm.folder().join("three"), &["-o", "greeting=other"]);
    assert_eq!(other["outcome"], "built");
    assert_ne!(other["build_key"], first["build_key"]);
    let fresh = request(&home, &farm.folder().join("four"), &["--fresh"]);
    assert_eq!((&fresh["outcome"], &fresh["manifest"]), (&"built".into(), &first["manifest"]), "hello is reproducible");
}

#[test]
fn without_output_the_folder_is_named_after_recipe_and_build_key() {
    if !crate::can_build("a farm of one") {
        return;
    }
    let home = Farm::new().home("me");
    let ran = home.run(&["request", "hello"], BUILD);
    let path = ran.ended_with(0).stdout.trim();
    let folder = Path::new(path).parent().unwrap();
    assert_eq!(folder.parent(), Some(home.path()));
    let name = folder.file_name().unwrap().to_str().unwrap();
    let digits = name.strip_prefix("hello-").unwrap();
    assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    assert!(ran.stderr.contains("farm of one"), "it says what it is: {}", ran.stderr);
}

#[test]
fn a_build_error_has_its_code_its_reason_and_its_log() {
    if !crate::can_build("a farm of one") {
        return;
    }
    let farm = Farm::new();
    let home = farm.home("me");
    let file = farm.folder().join("broken.toml");
    let recipe = r#"
recipe = 1
name = "broken"
description = "Fails"
requires = ["os=linux", "tool.cc"]
reproducible = true
[[file]]
path = "broken.c"
text = "this is no C"
[[step]]
run = ["cc", "-o", "broken", "broken.c"]
[[output]]
path = "broken"
"#;
    fs::write(&file, recipe).unwrap();
    let failed = home.run(&["request", file.to_str().unwrap(), "--json"], BUILD);
    let object = failed.ended_with(1).json();
    assert_eq!(object["outcome"], "build_error");
    assert!(object["reason"].as_str().unwrap().starts_with("build error: "), "{object}");
    assert_eq!(object["files"], Value::Null);
}

#[test]
fn it_offers_the_tools_that_it_is_given() {
    if !crate::can_build("a farm of one") {
        return;
    }
    let farm = Farm::new();
    let gate = Gate::closed(&farm, "gate", "gate");
    gate.open();
    let words = ["request", &gated_recipe(&farm), "--tool", &gate.offer(), "--json"];
    assert_eq!(farm.home("me").run(&words, BUILD).ended_with(0).json()["outcome"], "built");
}

#[test]
fn nothing_is_left_with_a_farm_that_leaves_with_its_last_client() {
    if !crate::can_build("a farm of one") {
        return;
    }
    let home = Farm::new().home("me");
    let mut waiting = Process::start(&mut home.command(["request", "hello", "--require", "tool.nobody-has-it"]));
    wait_for("the farm of one", BUILD, || waiting.stderr().contains("needs tool nobody-has-it").then_some(()));
    let detached = home.run(&["request", "hello", "--detach"], BUILD);
    assert!(detached.ended_with(3).stderr.contains("`node --coordinator --volunteer"), "{}", detached.stderr);
    waiting.signal(Signal::INT);
    assert_eq!(wait_for("its end", SOON, || waiting.ended()).code(), Some(130));
}

#[test]
fn without_a_farm_the_other_verbs_say_so() {
    let home = Farm::new().home("me");
    for words in [["status", "--json"], ["builds", "--json"], ["volunteers", "--json"]] {
        let ran = home.run(&words, SOON);
        assert!(ran.ended_with(3).json()["reason"].is_string(), "{words:?}");
        assert!(ran.stderr.contains("--farm TICKET"), "{}", ran.stderr);
    }
    let detached = home.run(&["request", "hello", "--detach"], SOON);
    assert!(detached.ended_with(3).stderr.contains("`node --coordinator --volunteer"), "{}", detached.stderr);
}
