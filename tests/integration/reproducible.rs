//! `--check`: what depends on the conditions it is built in is found out, and named.

use crate::barn::recipe;
use crate::deadline::{BUILD, SOON};
use crate::farm::Farm;
use serde_json::Value;

/// Compiles a program that writes down one thing of its surroundings, and runs it.
const TELLTALE: &str = r#"
requires = ["os=linux", "tool.cc"]
[option.tells]
type = "choice"
help = "what the output depends on"
choices = ["nothing", "folder", "host", "clock", "zone", "files"]
default = "nothing"
[[file]]
path = "telltale.c"
text = '''
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char text[256] = "nothing";
    time_t now = time(NULL);
    struct stat status;
    FILE *out = fopen("told", "w");
    if (!strcmp(argv[1], "folder") && !getcwd(text, sizeof text)) return 1;
    if (!strcmp(argv[1], "host") && gethostname(text, sizeof text)) return 1;
    if (!strcmp(argv[1], "clock")) snprintf(text, sizeof text, "%ld", (long)now);
    if (!strcmp(argv[1], "zone")) strftime(text, sizeof text, "%Z", localtime(&now));
    if (!strcmp(argv[1], "files")) {
        if (stat("telltale.c", &status)) return 1;
        snprintf(text, sizeof text, "%ld", (long)status.st_mtime);
    }
    return fprintf(out, "it says: %s\n", text) < 0 || fclose(out);
}
'''
[[step]]
run = ["cc", "-o", "telltale", "telltale.c"]
[[step]]
run = ["./telltale", "{tells}"]
[[output]]
path = "told"
"#;

#[test]
fn what_depends_on_its_surroundings_is_found_out() {
    if !crate::can_build("a check") {
        return;
    }
    let farm = Farm::new();
    let (home, file) = (farm.home("me"), recipe(&farm, "telltale", TELLTALE));
    let check = |tells: &str, code: i32| -> Value {
        let option = format!("tells={tells}");
        let words = ["request", &file, "--check", "--json", "-o", &option, "--output", tells];
        home.run(&words, BUILD).ended_with(code).json()
    };
    let same = check("nothing", 0);
    assert_eq!((&same["reproducible"], &same["outcome"]), (&true.into(), &"built".into()), "{same}");
    assert_eq!(same["manifest"], same["other_manifest"]);
    assert_eq!(same["differences"].as_array().unwrap().len(), 0);
    for tells in ["folder", "host", "clock", "zone", "files"] {
        let other = check(tells, 1);
        assert_eq!(other["reproducible"], false, "{tells}: {other}");
        let differences = other["differences"].as_array().unwrap();
        assert_eq!(differences.len(), 1, "{other}");
        assert_eq!((&differences[0]["path"], &differences[0]["kind"]), (&"told".into(), &"content".into()));
        // Behind the words that are the same in both.
        assert!(differences[0]["offset"].as_u64().unwrap() >= 9, "{other}");
        assert_ne!(differences[0]["first"], differences[0]["second"]);
    }
    // For people: the file, the place, and what is there.
    let words = ["request", &*file, "--check", "-o", "tells=folder", "--output", "again"];
    let said = home.run(&words, BUILD);
    let shown = "not reproducible: told differs from byte 10: 62 75 69 6c 64 0a and 73 6f 6d 65 77 68 65 72 65 2f 65 6c 73 65 2f 74";
    assert!(said.ended_with(1).stderr.contains(shown), "{}", said.stderr);
}

#[test]
fn the_number_of_jobs_and_the_folder_are_told_by_holes() {
    if !crate::can_build("a check") {
        return;
    }
    let farm = Farm::new();
    let text = r#"
requires = ["os=linux", "tool.cc"]
[[file]]
path = "hole.c"
text = '''
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char here[256];
    FILE *out = fopen("jobs", "w");
    /* The hole says where the steps start. */
    return !getcwd(here, sizeof here) || access(HERE "/hole.c", R_OK) || fprintf(out, "%d\n", JOBS) < 0 || fclose(out);
}
'''
[[step]]
run = ["cc", "-DHERE=\"{here}\"", "-DJOBS={jobs}", "-o", "{here}/hole", "hole.c"]
[[step]]
run = ["./hole"]
[[output]]
path = "jobs"
"#;
    let (home, file) = (farm.home("me"), recipe(&farm, "hole", text));
    let object = home.run(&["request", &file, "--check", "--json"], BUILD).ended_with(1).json();
    let paths: Vec<&Value> = object["differences"].as_array().unwrap().iter().map(|found| &found["path"]).collect();
    assert_eq!(paths, ["jobs"], "{object}");
}

#[test]
fn a_check_compares_two_builds_and_nothing_else() {
    let home = Farm::new().home("me");
    for more in [["--detach"].as_slice(), &["--matrix", "greeting=a,b"], &["--agree", "2"]] {
        let words: Vec<&str> = ["request", "hello", "--check"].iter().chain(more).copied().collect();
        let ran = home.run(&words, SOON);
        assert!(ran.ended_with(2).stderr.contains("builds twice and compares"), "{}", ran.stderr);
    }
}
