//! Hostile archives through the real program: refused by name, with what to do, and nothing of them on disk. Every case is
//! tried in the tests of the library; here are some as a person meets them.

use crate::deadline::SOON;
use crate::farm::Farm;
use crate::published::RECIPE;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Packs a file in `folder` with the system's tar.
fn pack(folder: &Path, file: &str, words: &[&str]) {
    let mut tar = Command::new("tar");
    let packed = tar.arg("-cf").arg(file).args(words).current_dir(folder).stderr(Stdio::null()).status();
    assert!(packed.unwrap().success(), "{words:?}");
}

#[test]
fn a_hostile_archive_is_refused_by_name_before_anything_is_sent() {
    let farm = Farm::new();
    let home = farm.home("me");
    let folder = farm.folder().join("made");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("text"), "one\n").unwrap();
    fs::hard_link(folder.join("text"), folder.join("twin")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let recipe = farm.folder().join("copied.toml");
    fs::write(&recipe, RECIPE).unwrap();
    pack(&folder, "up.tar.gz", &["-z", "--transform=s,^text,../../evil,", "-P", "text"]);
    pack(&folder, "absolute.tar.bz2", &["-j", "--transform=s,^text,/tmp/evil,", "-P", "text"]);
    pack(&folder, "link.tar.xz", &["-J", "text", "link"]);
    pack(&folder, "twin.tar", &["text", "twin"]);
    pack(&folder, "pipe.tar", &["text", "pipe"]);
    pack(&folder, "twice.tar", &["--hard-dereference", "text", "./text"]);
    fs::write(folder.join("cut.zip"), b"PK\x03\x04 and nothing more").unwrap();
    fs::write(folder.join("no.archive"), b"#!/bin/sh\n").unwrap();
    for (file, words) in [
        ("up.tar.gz", "`../../evil` cannot be part of a source"),
        ("absolute.tar.bz2", "`/tmp/evil` cannot be part of a source: its path is absolute"),
        ("link.tar.xz", "`link` cannot be part of a source: it is a link to `/etc/passwd`"),
        ("twin.tar", "`twin` cannot be part of a source: it is a hard link"),
        ("pipe.tar", "`pipe` cannot be part of a source: it is a pipe"),
        ("twice.tar", "`text` cannot be part of a source: it stands there twice"),
        ("cut.zip", "the archive is damaged: its end is not marked"),
        ("no.archive", "is no archive: give a folder"),
    ] {
        let source = folder.join(file);
        let words_typed = ["request", recipe.to_str().unwrap(), "--source", source.to_str().unwrap(), "--json"];
        let ran = home.run(&words_typed, SOON);
        let object = ran.ended_with(2).json();
        let reason = object["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{file}: {reason}");
        assert!(ran.stderr.contains("hint"), "{file}: {}", ran.stderr);
        assert!(!ran.stderr.contains("farm of one"), "nobody is asked for it: {}", ran.stderr);
    }
    assert!(!farm.folder().join("evil").exists());
}
