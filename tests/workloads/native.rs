//! Lua, zstd, Redis and SQLite from their own sources, twice each: equal to the last bit, and running.

use crate::barn::Barn;
use crate::debian;
use crate::order::{self, Made, Order};
use crate::sources;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program, the two option sets it is built with, and how it shows that it works.
struct Workload {
    recipe: &'static str,
    source: Result<PathBuf, String>,
    sets: [&'static [&'static str]; 2],
    /// How many of the sets are built a second time when time matters.
    repeated: usize,
    works: fn(&Made),
}

impl Workload {
    #[track_caller]
    fn comes_out_alike_twice(self) {
        let Self { recipe, source, sets, repeated, works } = self;
        let what = format!("{recipe} from its source");
        if !crate::can_build(&what) {
            return;
        }
        let source = match source {
            Ok(source) => source,
            Err(because) => return crate::left_out(&what, &because),
        };
        let barn = Barn::found(&[]);
        let volunteer = barn.volunteer("one", &[]);
        let me = barn.person("me");
        let mut manifests = Vec::new();
        for (at, options) in sets.into_iter().enumerate() {
            let order = Order { recipe, source: &source, options };
            let made = order.placed(&me, &volunteer, &format!("first-{at}"), &[]);
            assert_eq!(made.outcome, "built");
            works(&made);
            if crate::is_whole() || at < repeated {
                let again = order.placed(&me, &volunteer, &format!("second-{at}"), &["--fresh"]);
                assert_eq!(again.outcome, "built", "fresh is built anew");
                assert_eq!(again.manifest, made.manifest, "{recipe} {options:?} is not the same twice");
                order.tell(&again, "the same twice");
            } else {
                order.tell(&made, "once");
            }
            manifests.push(made.manifest);
        }
        assert_ne!(manifests[0], manifests[1], "the options of {recipe} change nothing");
    }
}

#[test]
fn lua() {
    let works = |made: &Made| {
        assert_eq!(order::run(made, "lua", &["-e", "print(2^53 | 0, #string.rep('x', 99))"]), "9007199254740992\t99\n");
    };
    let source = debian::archive("lua5.4");
    Workload { recipe: "lua", source, sets: [&["opt=0"], &["opt=2"]], repeated: 2, works }.comes_out_alike_twice();
}

#[test]
fn zstd() {
    let works = |made: &Made| {
        let zstd = made.folder.join("zstd");
        let script = "printf 'barn raised together %.0s' $(seq 1000) >text && \"$0\" -q -19 text && \"$0\" -q -dc text.zst | \
                      cmp - text && wc -c <text.zst";
        let mut shell = Command::new("sh");
        let ran =
            shell.args(["-c", script]).arg(&zstd).current_dir(&made.folder).stdin(Stdio::null()).output().unwrap();
        let compressed = String::from_utf8(ran.stdout).unwrap();
        assert!(
            ran.status.success() && compressed.trim().parse::<u32>().unwrap() < 100,
            "{compressed:?} {:?}",
            ran.stderr
        );
    };
    let sets: [&[&str]; 2] = [&["opt=0", "threads=false"], &["opt=1"]];
    let source = debian::archive("libzstd");
    Workload { recipe: "zstd", source, sets, repeated: 1, works }.comes_out_alike_twice();
}

#[test]
fn sqlite() {
    let works = |made: &Made| {
        let sql = [
            "create table t(x)",
            "insert into t values (1), (2), (39)",
            "select sum(x), sqlite_version() > '3' from t",
        ];
        assert_eq!(order::run(made, "sqlite", &[&[":memory:"], &sql[..]].concat()), "42|1\n");
    };
    let sets: [&[&str]; 2] = [&["opt=0"], &["opt=1", "fts5=true", "temp=memory"]];
    Workload { recipe: "sqlite", source: sources::amalgamation(), sets, repeated: 1, works }.comes_out_alike_twice();
}

#[test]
fn redis() {
    let works = |made: &Made| {
        assert!(order::run(made, "redis-server", &["--version"]).contains("malloc=libc"));
        assert!(order::run(made, "redis-cli", &["--version"]).starts_with("redis-cli "));
    };
    let source = debian::archive("redis");
    Workload { recipe: "redis", source, sets: [&["opt=0"], &["opt=1"]], repeated: 1, works }.comes_out_alike_twice();
}
