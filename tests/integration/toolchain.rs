//! Tools and headers: found by looking, offered by the owner, asked for by recipes, and named where they are missing.

use crate::barn::{self, Barn};
use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, Ran};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A folder as people have them for tools of their own, below one that only its owner may enter, with one program in `bin`.
fn prefix(farm: &Farm, program: &str, script: &str) -> PathBuf {
    let prefix = farm.folder().join("locked").join(format!("{program}-home"));
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::set_permissions(farm.folder().join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    let program = prefix.join("bin").join(program);
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    prefix
}

/// It answers as Python does, and otherwise writes where it was found.
const PYTHON: &str = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'Python 2.7.99'; exit; fi\necho \"$0\" >\"$1\"\n";

#[test]
fn an_offered_tool_is_found_under_its_name_whatever_its_program_is_called() {
    let what = "a tool that the owner offers";
    if !crate::can_build(what) {
        return;
    }
    let barn = Barn::found(&[]);
    let python = prefix(&barn.farm, "python2.7", PYTHON);
    let offer = format!("python2={}", python.display());
    let _volunteer = barn.volunteer("one", &["--accept", "any", "--tool", &offer]);
    let me = barn.person("me");
    let known = me.asks(&["volunteers"], 0);
    let facts = &known["volunteers"][0]["facts"];
    assert_eq!(facts["tool.python2"], "2.7.99", "{facts}");
    assert!(facts["tool.cc"].is_string() && facts["header.stdio.h"].is_null(), "{facts}");

    let asks = "requires = [\"os=linux\", \"tool.python2>=2.7\"]\n[[step]]\nrun = [\"python2\", \"made\"]\n";
    let recipe = barn::recipe(&barn.farm, "snake", asks);
    let built = me.asks(&["request", &recipe, "--output", "snake"], 0);
    let made = fs::read_to_string(me.folder().join("snake/made")).unwrap();
    assert_eq!(made, "/tools/python2\n", "it is found by the name that the recipe uses");
    let environment = &me.status(built["request"].as_str().unwrap())["environment"];
    assert_eq!(environment["tool.python2"], "2.7.99", "{environment}");
    assert!(environment["libc"].is_string() && environment["distribution"].is_string(), "{environment}");
    assert_eq!(&me.asks(&["builds"], 0)["builds"][0]["environment"], environment);
}

#[test]
fn a_volunteer_that_cannot_keep_its_offer_does_not_start_and_names_it() {
    let what = "a tool that is not there";
    if !crate::can_build(what) {
        return;
    }
    let barn = Barn::found(&[]);
    let starts = |name: &str, offer: &str| -> Ran {
        let me = barn.person(name);
        let words = ["--volunteer", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--tool", offer];
        me.starts(&words).end(SOON)
    };
    let empty = prefix(&barn.farm, "other", "#!/bin/sh\n");
    let absent = starts("absent", &format!("python2={}", empty.display()));
    let named = "python2, nor python2.7, nor python,";
    assert!(absent.ended_with(2).stderr.contains(named), "{}", absent.stderr);

    let broken = prefix(&barn.farm, "pypy", "#!/bin/sh\necho 'Python 3.10.16'\necho '[PyPy 7.3.19]'\n");
    let other = starts("other", &format!("pypy={}", broken.display()));
    assert!(other.ended_with(2).stderr.contains("it says `Python 3.10.16`"), "{}", other.stderr);

    let silent = prefix(&barn.farm, "frobnicator", "#!/bin/sh\necho 'no library' >&2\nexit 1\n");
    let fails = starts("fails", &format!("frobnicator={}", silent.display()));
    assert!(fails.ended_with(2).stderr.contains("in the sandbox: no library"), "{}", fails.stderr);
}

#[test]
fn a_header_that_nobody_has_is_named() {
    if !crate::can_build("a request that waits for a header") {
        return;
    }
    let barn = Barn::found(&[]);
    let _volunteers = [barn.volunteer("one", &[]), barn.volunteer("two", &[])];
    let me = barn.person("me");
    let platform = format!("linux/{}", std::env::consts::ARCH);
    let request = me.leaves(&["hello", "--platform", &platform, "--require", "header.no-such.h"]);
    let because = format!("needs header no-such.h: 0 of 2 {platform} volunteers have it");
    wait_for(&because, BUILD, || (me.status(&request)["waiting_because"] == *because).then_some(()));
    me.asks(&["cancel", &request], 0);
    // One that is there is no reason to wait: whoever has a C compiler has the headers of its library, and zlib's are probed.
    let facts = me.asks(&["volunteers"], 0)["volunteers"][0]["facts"].clone();
    if facts["header.zlib.h"] == "true" {
        me.asks(&["request", "hello", "--require", "header.zlib.h", "--output", "hello"], 0);
    }
}
