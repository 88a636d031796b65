//! Programs in RPython, translated by a farm with PyPy's own toolchain: three option sets, and nothing is translated twice.

use crate::barn::{Barn, Person, Volunteer};
use crate::deadline::{BUILD, wait_for};
use crate::order::{self, Order};
use crate::sources;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that is translated.
const TARGET: &str = include_str!("target.py");
/// A text that it runs.
const HELLO: &str =
    "++++++++[>++++[>++>+++>+++>+<<<<-]>+>+>->>+[<]<-]>>.>---.+++++++..+++.>>.<-.<.+++.------.--------.>>+.>++.";

/// A Python 2.7: its program, and what a volunteer says to offer it.
struct Python {
    program: PathBuf,
    offer: Option<String>,
}

/// From `BARNRAISE_PYTHON2` (the folder that holds `bin/python2.7`), the PATH, or pyenv.
fn python() -> Option<Python> {
    let named = std::env::var_os("BARNRAISE_PYTHON2").map(PathBuf::from);
    let on_path = || ["python2.7", "python2"].iter().find_map(|program| prefix_of(Path::new(program)));
    let found = named.or_else(on_path).or_else(of_pyenv)?;
    let program = found.join("bin/python2.7");
    // What is in /usr is found without being offered.
    let offer = (!found.starts_with("/usr")).then(|| format!("python2={}", found.display()));
    program.is_file().then_some(Python { program, offer })
}

/// Where a Python 2.7 says that it lives.
fn prefix_of(program: &Path) -> Option<PathBuf> {
    let asks = "import sys; assert sys.version_info[:2] == (2, 7); print(sys.prefix)";
    let said = Command::new(program).args(["-c", asks]).output().ok().filter(|said| said.status.success())?;
    Some(PathBuf::from(String::from_utf8(said.stdout).ok()?.trim()))
}

fn of_pyenv() -> Option<PathBuf> {
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(std::env::home_dir()?.join(".pyenv")))?;
    let versions = std::fs::read_dir(root.join("versions")).ok()?;
    let programs = versions.map(|entry| entry.unwrap().path().join("bin/python2.7"));
    programs.into_iter().find_map(|program| prefix_of(&program))
}

#[test]
fn a_program_is_translated_with_three_option_sets_and_each_is_found_the_second_time() {
    let what = "RPython by a farm";
    if !crate::can_build(what) {
        return;
    }
    let Some(python) = python() else {
        return crate::not_here(what, "no Python 2.7: name the folder of one with BARNRAISE_PYTHON2");
    };
    let source = tempfile::tempdir().unwrap();
    if let Err(because) = sources::toolchain(&python.program, source.path(), "interpreter.py", TARGET) {
        return crate::not_here(what, &because);
    }
    let barn = Barn::found(&[]);
    let offer: Vec<&str> = python.offer.iter().flat_map(|offer| ["--tool", offer]).collect();
    let volunteer = barn.volunteer("one", &offer);
    let me = barn.person("me");

    let facts = me.asks(&["volunteers"], 0)["volunteers"][0]["facts"].clone();
    assert!(facts["tool.python2"].as_str().unwrap().starts_with("2.7"), "{facts}");
    let boehm = if facts["header.gc.h"] == "true" {
        "gc=boehm"
    } else {
        boehm_is_waited_for(&me, source.path());
        crate::left_out("a program with Boehm's collector", "this machine has no gc.h");
        "gc=semispace"
    };
    for options in [&["opt=1", boehm][..], &["opt=1", "gc=minimark"], &["opt=2"]] {
        let options: Vec<&str> = ["target=interpreter.py"].iter().chain(options).copied().collect();
        let order = Order { recipe: "rpython", source: source.path(), options: &options };
        is_translated_once(&order, &me, &volunteer, |program| {
            order::run(program, "program", &[HELLO]) == "Hello World!\n"
        });
    }
    if crate::is_whole() {
        // What the recipe translates when no target is named.
        let order = Order { recipe: "rpython", source: source.path(), options: &["opt=mem"] };
        is_translated_once(&order, &me, &volunteer, |program| {
            order::run(program, "program", &[]).contains("hello world")
        });
    }
}

/// Boehm's collector is the default of the low levels, and is a library: who waits for it is told.
#[track_caller]
fn boehm_is_waited_for(me: &Person, source: &Path) {
    let request = me.leaves(&["rpython", "--source", source.to_str().unwrap(), "--option", "opt=1"]);
    let because = format!("needs header gc.h: 0 of 1 linux/{} volunteers have it", std::env::consts::ARCH);
    wait_for(&because, BUILD, || (me.status(&request)["waiting_because"] == *because).then_some(()));
    me.asks(&["cancel", &request], 0);
}

#[track_caller]
fn is_translated_once(order: &Order<'_>, me: &Person, volunteer: &Volunteer, works: impl Fn(&order::Made) -> bool) {
    let begun = volunteer.attempts();
    let name = order.options.join("-");
    let made = order.placed(me, volunteer, &format!("{name}-first"), &[]);
    assert_eq!(made.outcome, "built");
    assert!(works(&made), "{name}");
    let found = order.placed(me, volunteer, &format!("{name}-second"), &[]);
    assert_eq!((found.outcome.as_str(), &found.manifest), ("cached", &made.manifest));
    assert!(works(&found), "{name}");
    assert_eq!(volunteer.attempts(), begun + 1);
    assert_eq!(order::attempts(me, &made.request), 1);
    order.tell(&made, "found the second time");
}
