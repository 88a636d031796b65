//! The command line as scripts meet it: what needs no farm.

use crate::deadline::SOON;
use crate::farm::{Farm, NODE};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

#[test]
fn help_is_an_answer_and_nothing_typed_is_a_mistake() {
    let home = Farm::new().home("me");
    let help = home.run(&["--help"], SOON);
    assert!(help.ended_with(0).stdout.contains("Usage: node"), "{}", help.stdout);
    assert_eq!(help.stderr, "");
    let nothing = home.run(&[], SOON);
    assert!(nothing.ended_with(2).stderr.contains("Usage: node"), "{}", nothing.stderr);
    assert_eq!(nothing.stdout, "");
    let version = home.run(&["--version"], SOON);
    assert_eq!(version.ended_with(0).stdout, format!("node {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_usage_error_is_one_object_too() {
    let home = Farm::new().home("me");
    let wrong = home.run(&["request", "lua", "--agree", "9", "--json"], SOON);
    assert_eq!(
        wrong.ended_with(2).json(),
        json!({
            "request": null, "build_key": null, "outcome": null,
            "reason": "invalid value '9' for '--agree <K>': give a number from 1 to 5",
            "manifest": null, "volunteer": null, "commit": null, "commits_back": null,
            "files": null, "queued_ms": null, "built_ms": null, "elapsed_ms": null
        })
    );
    assert!(wrong.stderr.contains("1 to 5"), "people are told as well: {}", wrong.stderr);
    assert_eq!(
        home.run(&["--json", "--smtp", "x"], SOON).ended_with(2).json()["reason"].as_str().map(|_| ()),
        Some(())
    );
}

#[test]
fn flags_come_from_the_environment_as_well() {
    let home = Farm::new().home("me");
    let ran = home.command(["recipe", "list"]).env("NODE_JSON", "1").output().unwrap();
    let object: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(object["recipes"].is_array());
    let ran = home.command(["recipe", "list"]).env("NODE_JSON", "0").output().unwrap();
    assert!(String::from_utf8(ran.stdout).unwrap().starts_with("RECIPE"));
    let ran = home.command(["doctor"]).env("NODE_LOG", "=:=").output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
}

#[test]
fn the_catalogue_is_listed_and_shown() {
    let home = Farm::new().home("me");
    let list = home.run(&["recipe", "list", "--json"], SOON).ended_with(0).json();
    let names: Vec<_> =
        list["recipes"].as_array().unwrap().iter().map(|recipe| recipe["name"].as_str().unwrap()).collect();
    assert!(["hello", "lua", "sqlite", "zstd"].iter().all(|name| names.contains(name)), "{names:?}");
    let lua = home.run(&["recipe", "show", "lua", "--json"], SOON).ended_with(0).json();
    assert_eq!((&lua["options"][0]["name"], &lua["options"][0]["accepts"]), (&json!("opt"), &json!("0..3")));
    assert_eq!(lua["outputs"], json!(["lua"]));
    let unknown = home.run(&["recipe", "show", "lisp"], SOON);
    assert!(unknown.ended_with(2).stderr.contains("no recipe `lisp`"), "{}", unknown.stderr);
}

#[test]
fn a_recipe_of_ones_own_is_checked() {
    let farm = Farm::new();
    let home = farm.home("me");
    let file = farm.folder().join("own.toml");
    std::fs::write(&file, "recipe = 1\nname = \"own\"\ndescription = \"\x1b[31m\"\n").unwrap();
    let check = home.run(&["recipe", "check", file.to_str().unwrap()], SOON);
    assert!(check.ended_with(2).stderr.contains("is not a recipe"), "{}", check.stderr);
    assert!(!check.stderr.contains('\x1b') && !check.stdout.contains('\x1b'));
}

#[test]
fn the_doctor_names_what_is_missing_with_its_command() {
    let farm = Farm::new();
    let home = farm.home("me");
    let report = home.run(&["doctor", "--json"], SOON).json();
    assert_eq!(report["checks"][0]["name"], "bubblewrap");
    let folder = farm.folder().join("no-programs");
    std::fs::create_dir(&folder).unwrap();
    // Without a `cc` on the path there is advice, whatever else this machine lacks.
    let mut ran = home.command(["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&ran.env("PATH", &folder).output().unwrap().stdout).unwrap();
    let compiler = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "C compiler").unwrap();
    assert_eq!(compiler["state"], "advice");
    assert!(compiler["mend"].as_str().unwrap().contains("gcc"), "{compiler}");
}

#[test]
fn a_home_open_to_others_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let home = Farm::new().home("me");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let doctor = home.run(&["doctor"], SOON);
    let mend = format!("`chmod 700 {}`", home.path().display());
    assert!(doctor.ended_with(5).stderr.contains(&mend), "{}", doctor.stderr);
}

#[test]
fn completions_are_scripts() {
    let home = Farm::new().home("me");
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(&["completions", shell], SOON);
        assert!(script.ended_with(0).stdout.contains("node"), "{shell}");
    }
    let syntax = Command::new("bash").args(["-n", "-c", &home.run(&["completions", "bash"], SOON).stdout]).status();
    assert!(syntax.unwrap().success());
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let mut node =
        Command::new(NODE).args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(node.stdout.take());
    let ended = node.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(matches!(ended.status.code(), Some(0 | 5)), "{:?}", ended.status);
}
