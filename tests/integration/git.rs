//! Git sources through the real program: a repository behind https on loopback, its names, its history, and what must not run.

use crate::deadline::{BUILD, wait_for};
use crate::farm::Farm;
use crate::origin::{Manner, Origin};
use crate::published::{Published, RECIPE};
use serde_json::Value;
use std::fs;
use std::path::Path;

#[test]
fn names_become_commits_before_anything_is_compared() {
    let Some(it) = Published::new("git sources") else { return };
    let first = it.repository.commit("text", "one\n");
    it.repository.git(&["tag", "--annotate", "--message", "x", "v1"]);
    let second = it.repository.commit("text", "two\n");
    let built = it.asks(&["--revision", "main"], 0);
    assert_eq!((&built["outcome"], &built["commit"]), (&"built".into(), &second.as_str().into()));
    assert_eq!(built["commits_back"], 0);
    assert!(it.built(&["--revision", "main"]).starts_with("two\n"));

    // The same commit by any name is the same build.
    for revision in [&["--revision", &second[..9]][..], &["--revision", &second], &[]] {
        let again = it.asks(revision, 0);
        assert_eq!((&again["outcome"], &again["build_key"]), (&"cached".into(), &built["build_key"]), "{revision:?}");
    }
    let tagged = it.asks(&["--revision", "v1"], 0);
    assert_eq!((&tagged["outcome"], &tagged["commit"]), (&"built".into(), &first.as_str().into()));
    assert!(it.built(&["--revision", "v1"]).starts_with("one\n"));

    // The branch moves: its name means another build, and within three commits the old one will do.
    let third = it.repository.commit("text", "three\n");
    let nearest = it.asks(&["--revision", "main", "--within", "3"], 0);
    assert_eq!((&nearest["outcome"], &nearest["commit"]), (&"cached".into(), &second.as_str().into()), "the nearest");
    assert_eq!((&nearest["commits_back"], &nearest["build_key"]), (&1.into(), &built["build_key"]));
    let moved = it.asks(&["--revision", "main"], 0);
    assert_eq!((&moved["outcome"], &moved["commit"]), (&"built".into(), &third.as_str().into()));
    let none = it.asks(&["--within", "2", "-o", "mark=other"], 0);
    assert_eq!(
        (&none["outcome"], &none["commit"], &none["commits_back"]),
        (&"built".into(), &third.as_str().into(), &0.into())
    );

    // Another option of a commit that was fetched fetches nothing: the volunteer has its files.
    let before = it.origin.asked().iter().filter(|asked| asked.starts_with("POST")).count();
    let other = it.asks(&["--revision", &third, "-o", "mark=third"], 0);
    assert_eq!(other["outcome"], "built");
    let lookups = it.origin.asked().iter().filter(|asked| asked.starts_with("POST")).count() - before;
    assert!(lookups <= 1, "one listing by the requester and nothing more: {:?}", it.origin.asked());
}

#[test]
fn what_cannot_be_resolved_says_what_was_meant() {
    let home = Farm::new().home("me");
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::serve(folder.path());
    let repository = origin.repository("it.git");
    let commit = repository.commit("text", "one\n");
    repository.git(&["tag", "v1.0"]);
    let (recipe, authority) = (folder.path().join("copied.toml"), folder.path().join("ca.pem"));
    fs::write(&recipe, RECIPE).unwrap();
    fs::write(&authority, &origin.ca_pem).unwrap();
    let ask = |url: &str, more: &[&str], code: i32| {
        let words = ["request", recipe.to_str().unwrap(), "--source", url, "--source-ca", authority.to_str().unwrap()];
        let words: Vec<&str> = words.iter().chain(more).chain(&["--json"]).copied().collect();
        let ran = home.run(&words, BUILD);
        let reason = ran.ended_with(code).json()["reason"].as_str().unwrap().to_owned();
        (reason, ran.stderr)
    };
    let url = origin.url("/git/it.git");
    let (reason, stderr) = ask(&url, &["--revision", "v1.0"], 2);
    assert!(reason.contains("sources come from public addresses only"), "{reason}");
    assert!(stderr.contains("--allow-private-sources"), "{stderr}");
    let here = |more: &[&'static str]| [&["--allow-private-sources"], more].concat();
    let (reason, _) = ask(&url, &here(&["--revision", "v1.1"]), 2);
    assert_eq!(reason, format!("{url} has no branch, tag or commit `v1.1`; did you mean `v1.0`?"));
    let (reason, _) = ask(&url, &here(&["--revision", "mian"]), 2);
    assert!(reason.ends_with("did you mean `main`?"), "{reason}");
    let (reason, _) = ask(&origin.url("/git/none.git"), &here(&[]), 2);
    assert!(reason.contains("there is no git repository at"), "{reason}");
    let (reason, stderr) = ask(&origin.url("/files/a.tar.gz"), &here(&[]), 2);
    assert!(reason.contains("pinned by its digest"), "{reason}");
    assert!(stderr.contains("#sha256=HEX") && stderr.contains("git+https://"), "{stderr}");
    // A full commit that is not there, and a host that is gone.
    let nowhere = "1".repeat(40);
    let (reason, _) = ask(&url, &["--allow-private-sources", "--revision", &nowhere], 2);
    assert!(reason.contains(&format!("no branch, tag or commit `{nowhere}`")), "{reason}");
    drop(origin);
    let (reason, stderr) = ask(&url, &["--allow-private-sources", "--revision", &commit], 5);
    assert!(reason.contains(&url) && stderr.contains("hint"), "{reason} {stderr}");
}

#[test]
fn nothing_of_a_repository_runs_but_the_recipe() {
    let Some(it) = Published::new("what a repository must not run") else { return };
    let canary = it.barn.farm.folder().join("canary");
    let touch = format!("touch {}", canary.display());
    it.repository.git(&["config", "filter.evil.smudge", &touch]);
    it.repository.git(&["config", "filter.evil.clean", "cat"]);
    it.repository.git(&["config", "filter.evil.required", "true"]);
    it.repository.write(".gitattributes", "* filter=evil eol=crlf\n");
    it.repository.write(".gitmodules", &submodule(&it.origin));
    fs::create_dir(it.repository.work.join("sub")).unwrap();
    it.repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", "1".repeat(40))]);
    it.repository.commit("text", "one\n");
    for hook in ["post-checkout", "post-merge", "pre-receive", "reference-transaction"] {
        it.repository.write_program(&format!(".git/hooks/{hook}"), &format!("#!/bin/sh\n{touch}\n"));
    }
    let built = it.asks(&[], 0);
    assert_eq!(built["outcome"], "built");
    assert_eq!(it.built(&[]), "one\n.\n./.gitattributes\n./.gitmodules\n./sub\n./text\nnone\n", "as committed");
    assert!(!canary.exists(), "neither hook nor filter ran");
    assert!(it.origin.asked().iter().all(|asked| !asked.contains("sub.git")), "no submodule was asked for");
    let left = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
    assert_eq!(left(&it.barn.farm.folder().join("volunteer/fetch")), 0, "nothing is left behind");
}

fn submodule(origin: &Origin) -> String {
    format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {}\n", origin.url("/git/sub.git"))
}

#[test]
fn a_repository_that_vanished_is_nobodys_build_error() {
    let Some(mut it) = Published::without_volunteer("a vanished repository") else { return };
    it.repository.commit("text", "one\n");
    let url = it.origin.url("/git/it.git");
    let words = [it.recipe.as_str(), "--source", &url, "--allow-private-sources", "--source-ca", &it.authority];
    let request = it.person.leaves(&words);
    it.origin.behaves(Manner::Empty);
    it.volunteers();
    let log = wait_for("the reason in the log", BUILD, || {
        let ran = it.person.runs(&["logs", &request]);
        ran.stdout.contains("cannot be fetched").then_some(ran.stdout)
    });
    assert!(log.contains(&format!("there is no git repository at {url}")), "{log}");
    let status = it.person.status(&request);
    assert_eq!(
        (&status["state"], &status["outcome"]),
        (&"queued".into(), &Value::Null),
        "tried again, elsewhere: {status}"
    );
}
