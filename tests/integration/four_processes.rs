//! Four processes as four machines: a coordinator, two volunteers and somebody who asks, each in a home of mode 0700.

use crate::barn::{Barn, Person};
use crate::debian;
use crate::farm::User;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// An ordinary user that no machine gives to anybody.
const NOBODY_ELSE: u32 = 54_321;

#[test]
fn as_the_tester_lua_is_built_once_and_outlives_its_volunteers() {
    lua_is_built_once_and_outlives_its_volunteers(User::Tester);
}

#[test]
fn as_an_ordinary_user_lua_is_built_once_and_outlives_its_volunteers() {
    if !rustix::process::geteuid().is_root() {
        // Then the test above is this one.
        return;
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        return crate::left_out("a farm of an ordinary user", "there is no `setpriv` here");
    }
    lua_is_built_once_and_outlives_its_volunteers(User::Ordinary(NOBODY_ELSE));
}

fn lua_is_built_once_and_outlives_its_volunteers(user: User) {
    let what = "Lua built by a farm of four processes";
    if !crate::can_build_as(user, what) {
        return;
    }
    let archive = match debian::archive("lua5.4") {
        Ok(archive) => archive,
        Err(because) => return crate::left_out(what, &because),
    };
    let barn = Barn::found_by(user, &[]);
    let source = barn.farm.folder().join(archive.file_name().unwrap());
    std::fs::copy(&archive, &source).unwrap();
    barn.farm.hand_over(&source);
    let mut volunteers = [barn.volunteer("one", &[]), barn.volunteer("two", &[])];
    let me = barn.person("me");
    assert_eq!(running_as(volunteers[0].process.pid()), me_as(user));

    let built = ask(&me, &source, "lua");
    assert_eq!(built["outcome"], "built");
    let keys = me.asks(&["volunteers"], 0);
    let keys: Vec<&Value> = keys["volunteers"].as_array().unwrap().iter().map(|known| &known["volunteer"]).collect();
    assert_eq!(keys.len(), 2);
    assert!(keys.contains(&&built["volunteer"]), "{built} was built by one of {keys:?}");
    runs(&me.folder().join("lua"));
    let request = built["request"].as_str().unwrap();
    assert_eq!(me.status(request)["attempts"], 1);

    // Somebody else asks: nothing is built.
    let you = barn.person("you");
    let found = ask(&you, &source, "lua");
    assert_eq!(found["outcome"], "cached");
    assert_eq!((&found["manifest"], &found["build_key"]), (&built["manifest"], &built["build_key"]));
    runs(&you.folder().join("lua"));
    assert_eq!(me.status(request)["attempts"], 1);
    assert_eq!(volunteers.iter().map(super::barn::Volunteer::attempts).sum::<usize>(), 1);

    // Nobody is left who built anything: the keeper has it.
    for volunteer in &mut volunteers {
        volunteer.process.kill();
    }
    let they = barn.person("they");
    let kept = ask(&they, &source, "lua");
    assert_eq!((&kept["outcome"], &kept["manifest"]), (&"cached".into(), &built["manifest"]));
    runs(&they.folder().join("lua"));
    assert_eq!(me.asks(&["builds"], 0)["builds"].as_array().unwrap().len(), 1);
}

fn ask(person: &Person, source: &Path, folder: &str) -> Value {
    let (source, folder) = (source.to_str().unwrap(), person.folder().join(folder));
    let words = ["request", "lua", "--source", source, "-o", "opt=3", "--output", folder.to_str().unwrap()];
    let got = person.asks(&words, 0);
    let paths: Vec<&Value> = got["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(paths, [folder.join("lua").to_str().unwrap()]);
    got
}

/// The interpreter in `folder` runs.
fn runs(folder: &Path) {
    let ran = Command::new(folder.join("lua")).args(["-e", "print(2^53, math.type(2^53), 2^53 | 0)"]).output().unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(printed, "9.007199254741e+15\tfloat\t9007199254740992\n", "{}", String::from_utf8_lossy(&ran.stderr));
}

/// The user as whom a process runs.
fn running_as(pid: u32) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

fn me_as(user: User) -> u32 {
    match user {
        User::Tester => rustix::process::geteuid().as_raw(),
        User::Ordinary(uid) => uid,
    }
}
