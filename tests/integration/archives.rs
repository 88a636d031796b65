//! Published archives through the real program: pinned by whoever asks, resumed, fetched once; and several sources as one tree.

use crate::barn::{Barn, Gate, recipe};
use crate::deadline::{BUILD, wait_for};
use crate::origin::{Manner, Origin};
use crate::published::Published;
use protocol::digest::Digest;
use std::path::Path;
use std::process::Command;

/// A tar.gz with the file `text` and much that does not compress.
fn archive(folder: &Path, text: &str) -> Vec<u8> {
    let top = folder.join("it-1.0");
    std::fs::create_dir_all(&top).unwrap();
    let noise: Vec<u8> = (0..3_000u32).flat_map(|at| *Digest::of(&at.to_le_bytes()).as_bytes()).collect();
    std::fs::write(top.join("text"), text).unwrap();
    std::fs::write(top.join("noise"), noise).unwrap();
    let file = folder.join("it.tar.gz");
    let packed = Command::new("tar").args(["-czf", file.to_str().unwrap(), "it-1.0"]).current_dir(folder).status();
    assert!(packed.unwrap().success());
    std::fs::read(file).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

#[test]
fn a_pinned_archive_is_resumed_and_fetched_once() {
    let Some(it) = Published::new("published archives") else { return };
    let content = archive(it.barn.farm.folder(), "one\n");
    assert!(content.len() > 60_000, "{} bytes", content.len());
    it.origin.publish("it.tar.gz", &content);
    let url = it.origin.url("/files/it.tar.gz");
    let pinned = format!("{url}#sha256={}", digest(&content));
    it.origin.behaves(Manner::Breaks(20_000));
    let built = it.asks_from(&["--source", &pinned], &[], 0);
    assert_eq!(built["outcome"], "built");
    assert_eq!(it.built(&[]), "one\n.\n./noise\n./text\nnone\n");
    let fetches = it.origin.asked().len();
    assert!(fetches >= 4, "taken up again and again: {:?}", it.origin.asked());
    let other = it.asks_from(&["--source", &pinned], &["-o", "mark=other"], 0);
    assert_eq!(other["outcome"], "built");
    assert_eq!(it.origin.asked().len(), fetches + 1, "the requester asks how long it is, and nobody fetches it again");

    // Another content under the same address is nobody's build error.
    it.origin.behaves(Manner::Lies);
    let wrong = format!("{url}#sha256={}", "0".repeat(64));
    let words = [&it.recipe, "--source", &wrong, "--allow-private-sources", "--source-ca", &it.authority];
    let request = it.person.leaves(&words);
    let log = wait_for("the reason in the log", BUILD, || {
        let ran = it.person.runs(&["logs", &request]);
        ran.stdout.contains("cannot be fetched").then_some(ran.stdout)
    });
    assert!(log.contains("localhost sends an archive with digest") && log.contains("is pinned"), "{log}");
    assert_eq!(it.person.status(&request)["outcome"], serde_json::Value::Null);
}

#[test]
fn several_sources_are_one_tree() {
    let Some(it) = Published::new("several sources") else { return };
    let folder = it.barn.farm.folder();
    let content = archive(folder, "below\n");
    it.origin.publish("it.tar.gz", &content);
    let pinned = format!("lib/py={}#sha256={}", it.origin.url("/files/it.tar.gz"), digest(&content));
    let own = folder.join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("text"), "above\n").unwrap();
    let commit = it.repository.commit("text", "of a commit\n");
    let git = format!("git={}", it.origin.url("/git/it.git"));
    let sources = ["--source", own.to_str().unwrap(), "--source", &pinned, "--source", &git];
    let built = it.asks_from(&sources, &[], 0);
    assert_eq!(built["outcome"], "built");
    let lines = "above\n.\n./git\n./git/text\n./lib\n./lib/py\n./lib/py/noise\n./lib/py/text\n./text\nnone\n";
    assert_eq!(it.built(&[]), lines, "{commit}");
    let taken = it.asks_from(&["--source", own.to_str().unwrap(), "--source", &git, "--source", &git], &[], 2);
    assert!(
        taken["reason"].as_str().unwrap().contains("`git` cannot be part of a source: it stands there twice"),
        "{taken}"
    );
}

#[test]
fn a_peer_is_asked_before_the_origin() {
    if !crate::can_build("an archive from a peer") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::serve(folder.path());
    let content = archive(folder.path(), "one\n");
    origin.publish("it.tar.gz", &content);
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, &origin.ca_pem).unwrap();
    let fetching = ["--accept", "any", "--allow-private-sources", "--source-ca", authority.to_str().unwrap()];
    let barn = Barn::found(&[&["--volunteer", "--slots", "1"][..], &fetching[..]].concat());
    let url = origin.url("/files/it.tar.gz");
    let pinned = |name: &str, tool: &str| {
        let (digest, size) = (digest(&content), content.len());
        let rest = format!(
            "requires = [\"os=linux\"{tool}]\n[source]\nhint = \"it\"\narchive = \"{url}\"\nsha256 = \"{digest}\"\n\
             size = {size}\n[[step]]\nrun = [\"cat\", \"text\"]\n"
        );
        recipe(&barn.farm, name, &rest)
    };
    let person = barn.person("me");
    assert_eq!(person.asks(&["request", &pinned("first", "")], 0)["outcome"], "built");
    assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());

    // Another volunteer builds from the same archive when its origin is gone: the coordinator has it.
    origin.behaves(Manner::Empty);
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    gate.open();
    let other = barn.volunteer("other", &[&fetching[..], &["--tool", &gate.offer()][..]].concat());
    let built = person.asks(&["request", &pinned("second", ", \"tool.gate\"")], 0);
    assert_eq!((&built["outcome"], other.attempts()), (&"built".into(), 1));
    assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());
}
