//! The rules of the house that no compiler checks.
//!
//! Each test names every place that breaks its rule. Words that a rule forbids are put together from pieces here, so that this
//! file keeps the rules too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MEMBERS: [&str; 3] = ["protocol", "node", "cli"];
/// A file longer than this is to be two; tables of tests may be longer than code.
const MAX_LINES: usize = 600;
const MAX_TEST_LINES: usize = 800;
/// Names that a trait of libp2p wants.
const NAMES_OF_OTHERS: [&str; 5] = ["InboundOpenInfo", "OutboundOpenInfo", "Info", "InfoIter", "protocol_info"];
/// Words with no one meaning (ARCHITECTURE.md, "Words").
const FORBIDDEN: [&str; 11] =
    ["worker", "master", "slave", "task", "item", "manager", "helper", "util", "common", "data", "info"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every file that belongs to the repository: what git knows, or would take in.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<PathBuf> = text
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect();
    assert!(files.len() > 20, "git lists {} files", files.len());
    files
}

fn sources() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_test_code(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// The lines of a file without comments, numbered from 1. Strings may hold `//`; the rules below do not mind what follows one.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
}

fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Whether `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

#[test]
fn cli_needs_node_needs_protocol_and_never_back() {
    let mut broken = Vec::new();
    for (member, above) in [("protocol", ["node", "cli"].as_slice()), ("node", &["cli"]), ("cli", &[])] {
        let manifest: toml::Table = read(&Path::new(member).join("Cargo.toml")).parse().unwrap();
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(toml::Value::Table(needed)) = manifest.get(table) else { continue };
            broken.extend(
                above.iter().filter(|name| needed.contains_key(**name)).map(|name| format!("{member} needs {name}")),
            );
            if member != "cli" && needed.contains_key("anyhow") {
                broken.push(format!("{member} needs anyhow: its errors are types"));
            }
        }
        for (path, text) in sources().iter().filter(|(path, _)| path.starts_with(member)) {
            for (at, line) in code(text) {
                for name in above {
                    if has_word(line, &format!("use {name}::"))
                        || line.trim_start().starts_with(&format!("use {name}::"))
                    {
                        broken.push(format!("{}:{at} uses {name}", path.display()));
                    }
                }
            }
        }
    }
    none("imports go from cli to node to protocol", &broken);
}

/// The first names after `crate::` in every path and `use` of a file.
fn rooms_named(text: &str) -> BTreeSet<String> {
    let code: String = code(text).map(|(_, line)| line).collect::<Vec<_>>().join("\n");
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| {
            text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
        };
        match rest.strip_prefix('{') {
            None => {
                named.insert(word(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && depth == 0 && !c.is_whitespace() => {
                            named.insert(word(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

#[test]
fn rooms_stand_on_one_another_as_the_plan_has_it() {
    assert_eq!(
        rooms_named("use crate::{artifact::Store, volunteer::{a, b}, network};\nlet x = crate::client::y;"),
        ["artifact", "client", "network", "volunteer"].map(str::to_owned).into(),
        "the check itself"
    );
    let forbidden: [(&str, &[&str]); 6] = [
        ("coordinator", &["volunteer", "client"]),
        ("volunteer", &["coordinator", "client"]),
        ("client", &["coordinator", "volunteer"]),
        ("source", &["coordinator", "volunteer", "client", "network"]),
        ("artifact", &["coordinator", "volunteer", "client", "source"]),
        ("network", &["coordinator", "volunteer", "client", "artifact", "source"]),
    ];
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let Ok(inside) = path.strip_prefix("node/src") else { continue };
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        let Some((_, not)) = forbidden.iter().find(|(name, _)| *name == room) else { continue };
        broken.extend(
            rooms_named(&text)
                .iter()
                .filter(|name| not.contains(&name.as_str()))
                .map(|name| format!("{} names crate::{name}", path.display())),
        );
    }
    none("coordinator, volunteer and client are siblings on source and artifact, which stands on network", &broken);
}

/// The names that a line of code gives to something of ours.
fn names_given(line: &str) -> Vec<&str> {
    let words: Vec<&str> =
        line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let givers = ["fn", "struct", "enum", "trait", "mod", "type", "const", "static"];
    words.windows(2).filter(|pair| givers.contains(&pair[0])).map(|pair| pair[1]).collect()
}

/// The words of a name in any case.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c == '-' || c == '.' || (c.is_uppercase() && !words.last().unwrap().is_empty()) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words
}

#[test]
fn forbidden_words_name_nothing() {
    let forbidden = |name: &str| {
        words_of(name)
            .into_iter()
            .find(|word| FORBIDDEN.contains(&word.trim_end_matches('s')) || FORBIDDEN.contains(&word.as_str()))
    };
    assert_eq!(forbidden("BuildTasks"), Some("tasks".to_owned()), "the check itself");
    assert_eq!(forbidden("metadata"), None, "the check itself");
    let mut broken = Vec::new();
    for path in files() {
        broken
            .extend(path.iter().filter_map(|part| Some(format!("{}: {}", path.display(), forbidden(part.to_str()?)?))));
    }
    for (path, text) in sources() {
        let mut is_sentence = false;
        for (at, line) in code(&text) {
            // The name of a test is a sentence, and what is in quotes is not a name.
            let names_a_test = std::mem::replace(&mut is_sentence, line.trim_end().ends_with("test]"));
            let bare = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
            let given = names_given(&bare);
            for name in given.into_iter().filter(|name| !names_a_test && !NAMES_OF_OTHERS.contains(name)) {
                broken.extend(forbidden(name).map(|word| format!("{}:{at} {name}: {word}", path.display())));
            }
        }
    }
    none("these words have no one meaning", &broken);
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| !is_test_code(path) || path.starts_with("tests"))
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    none("a module opens with `//!`", &silent);
}

#[test]
fn every_file_can_be_read_by_people() {
    let is_text = |path: &PathBuf| fs::read_to_string(root().join(path)).is_ok();
    let broken: Vec<String> =
        files().iter().filter(|path| !is_text(path)).map(|path| path.display().to_string()).collect();
    none("the repository holds text", &broken);
}

#[test]
fn doubt_is_not_stored_in_code() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut broken = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (at, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| has_word(line, mark)) {
                broken.push(format!("{}:{}", path.display(), at + 1));
            }
        }
    }
    none("what is in doubt is settled or left out", &broken);
}

#[test]
fn files_are_small() {
    let most = |path: &Path| if is_test_code(path) { MAX_TEST_LINES } else { MAX_LINES };
    let broken: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(path, lines)| *lines > most(path))
        .map(|(path, lines)| format!("{}: {lines} lines, where {} are the most", path.display(), most(path)))
        .collect();
    none("a file is short", &broken);
}

#[test]
fn nothing_names_a_place_of_one_machine() {
    let mut places = vec![root().display().to_string(), concat!("/root", "/").to_owned()];
    places.extend(std::env::var("CARGO_HOME"));
    let mut broken = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (at, line) in text.lines().enumerate() {
            // A place is named where a path begins, not where a folder of ours is called the same.
            let begins = |place: &String| {
                line.match_indices(place.as_str())
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/})*".contains(c)))
            };
            broken
                .extend(places.iter().filter(|place| begins(place)).map(|_| format!("{}:{}", path.display(), at + 1)));
        }
    }
    none("the repository works anywhere", &broken);
}

/// Tests that a page names, as `path.rs::name` between backticks.
fn tests_named(page: &str) -> Vec<(&str, &str)> {
    page.split('`').filter_map(|words| words.split_once(".rs::")).collect()
}

#[test]
fn the_page_about_the_ancestor_names_tests_that_exist() {
    let page = read(Path::new("tests/LINEAGE.md"));
    let named = tests_named(&page);
    assert!(named.len() > 60, "the page names {} tests", named.len());
    let is_there = |(path, name): &(&str, &str)| {
        let text = fs::read_to_string(root().join(format!("{path}.rs"))).unwrap_or_default();
        let is_test = |before: &str| {
            before.lines().rev().take(4).any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
        };
        text.match_indices(&format!("fn {name}(")).any(|(at, _)| is_test(&text[..at]))
    };
    let broken: Vec<String> =
        named.iter().filter(|test| !is_there(test)).map(|(path, name)| format!("{path}.rs::{name}")).collect();
    none("the page names a test that does not exist", &broken);
    let rows = |prefix: &str, count: usize| {
        let missing: Vec<String> = (1..=count)
            .map(|nr| format!("{prefix}{nr}"))
            .filter(|id| !page.lines().any(|line| line.starts_with('|') && has_word(line, id)))
            .collect();
        none("the page has no row for", &missing);
    };
    rows("D", 16);
    rows("S", 11);
}

#[test]
fn one_place_prints_and_one_place_is_unsafe() {
    let (mut print, mut unsafe_places) = (Vec::new(), Vec::new());
    let ours = |path: &Path| {
        !is_test_code(path) && MEMBERS.iter().any(|member| path.starts_with(Path::new(member).join("src")))
    };
    for (path, text) in sources().iter().filter(|(path, _)| ours(path)) {
        // What is below the first mark of a test module says why a test was left out.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let allows = |lint: &str| {
            code(text).any(|(_, line)| line.contains(lint) && (line.contains("allow(") || line.contains("expect(")))
        };
        if allows("print_stdout") || allows("print_stderr") {
            print.push(path.display().to_string());
        }
        if allows("unsafe_code") {
            unsafe_places.push(path.display().to_string());
        }
    }
    assert_eq!(print, ["cli/src/output.rs"], "only the output prints");
    assert!(unsafe_places.len() <= 1, "only the place that sets up the sandboxed child is unsafe: {unsafe_places:?}");
}

#[test]
fn what_we_stand_on_is_licensed_and_from_one_registry() {
    let has_deny = Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|asked| asked.status.success());
    if !has_deny {
        println!("cargo-deny is absent: licences and sources are checked here, advisories and duplicates are not");
    }
    let rules: toml::Table = read(Path::new("deny.toml")).parse().unwrap();
    let allowed: BTreeSet<&str> =
        rules["licenses"]["allow"].as_array().unwrap().iter().map(|licence| licence.as_str().unwrap()).collect();
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host()])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let compiled = compiled();
    assert!(compiled.len() > 100, "{} packages", compiled.len());
    let mut broken = Vec::new();
    for package in packages {
        let name = format!("{} v{}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        if !compiled.contains(&name) {
            continue;
        }
        match package["license"].as_str() {
            Some(licence) if licence::is_met(licence, &allowed) => {}
            licence => broken.push(format!("{name} is licensed {}", licence.unwrap_or("in words of its own"))),
        }
        match package["source"].as_str() {
            None => {}
            Some(source) if source.starts_with("registry+") && source.ends_with(concat!("crates", ".io-index")) => {}
            Some(source) => broken.push(format!("{name} comes from {source}")),
        }
    }
    none("licences of deny.toml, sources of the registry", &broken);
}

/// Name and version of every package that is compiled here; `cargo metadata` also lists what optional features would bring.
fn compiled() -> BTreeSet<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p}"]);
    let tree = tree.current_dir(root()).output().unwrap();
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The platform that this test was built on; crates for others need not be here.
fn host() -> String {
    let asked = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let text = String::from_utf8(asked.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// SPDX licence expressions.
mod licence {
    use std::collections::BTreeSet;

    /// Whether the licences of `allowed` are enough for `expression`. `/` is an old way to write `OR`.
    pub(super) fn is_met(expression: &str, allowed: &BTreeSet<&str>) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let (met, rest) = any_of(&words, allowed);
        met && rest.is_empty()
    }

    fn any_of<'w>(words: &'w [&'w str], allowed: &BTreeSet<&str>) -> (bool, &'w [&'w str]) {
        let (mut met, mut rest) = all_of(words, allowed);
        while let ["OR", more @ ..] = rest {
            let (other, after) = all_of(more, allowed);
            (met, rest) = (met || other, after);
        }
        (met, rest)
    }

    fn all_of<'w>(words: &'w [&'w str], allowed: &BTreeSet<&str>) -> (bool, &'w [&'w str]) {
        let (mut met, mut rest) = one(words, allowed);
        while let ["AND", more @ ..] = rest {
            let (other, after) = one(more, allowed);
            (met, rest) = (met && other, after);
        }
        (met, rest)
    }

    fn one<'w>(words: &'w [&'w str], allowed: &BTreeSet<&str>) -> (bool, &'w [&'w str]) {
        match words {
            ["(", inner @ ..] => match any_of(inner, allowed) {
                (met, [")", rest @ ..]) => (met, rest),
                (_, rest) => (false, rest),
            },
            // An exception only adds to what the licence allows.
            [licence, "WITH", _, rest @ ..] | [licence, rest @ ..] => (allowed.contains(licence), rest),
            [] => (false, &[]),
        }
    }

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        let allowed = BTreeSet::from(["MIT", "Unicode-3.0", "Apache-2.0"]);
        for met in [
            "MIT",
            "GPL-3.0 OR MIT",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_met(met, &allowed), "{met}");
        }
        for unmet in ["", "GPL-3.0", "MIT AND GPL-3.0", "GPL-3.0 OR MIT AND BSD-3-Clause", "(MIT", "MIT MIT"] {
            assert!(!is_met(unmet, &allowed), "{unmet}");
        }
    }
}
