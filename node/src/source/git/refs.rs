//! The names of a repository, and which commit a person means by one.
//!
//! Nothing is guessed: a name that two refs have for different commits is ambiguous, and one that none has is unknown, with
//! the nearest said.

use protocol::recipe::nearest::nearest;
use protocol::source::{Commit, Revision};
use std::collections::BTreeMap;

/// The most branches and tags that are looked at; what a repository has beyond that can be named by its commit.
const MAX_REFS: usize = 200_000;
/// The longest line of a listing, in bytes.
const MAX_LINE_BYTES: usize = 4 << 10;
/// Names that are told when none is near.
const TOLD: usize = 3;

/// What a repository says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refs {
    /// What is built when nobody says.
    head: Option<Commit>,
    /// The branch that HEAD is, where it is one.
    default_branch: Option<String>,
    /// By full name; a tag with the commit that it stands for.
    commits: BTreeMap<String, Commit>,
}

/// What a revision means as far as names go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This commit, by this name.
    Named(Commit, String),
    /// This commit, which no ref names.
    Whole(Commit),
    /// A commit that begins so.
    Short(String),
    /// Two refs have the name.
    Ambiguous {
        /// Full names.
        names: Vec<String>,
    },
    /// No ref has it, and it is no commit.
    Unknown,
}

/// Reads a listing as it comes.
#[derive(Debug, Default)]
pub(super) struct Listing {
    refs: Refs,
    line: Vec<u8>,
}

impl Listing {
    /// Takes in what `git ls-remote --symref` writes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.line_ends();
            } else if self.line.len() < MAX_LINE_BYTES {
                self.line.push(*byte);
            }
        }
    }

    pub(super) fn refs(self) -> Refs {
        self.refs
    }

    fn line_ends(&mut self) {
        let line = std::mem::take(&mut self.line);
        let Ok(line) = std::str::from_utf8(&line) else { return };
        let Some((what, name)) = line.split_once('\t') else { return };
        if let Some(branch) = what.strip_prefix("ref: ") {
            if name == "HEAD" {
                self.refs.default_branch = branch.strip_prefix("refs/heads/").map(str::to_owned);
            }
            return;
        }
        let Ok(commit) = what.parse::<Commit>() else { return };
        if name == "HEAD" {
            self.refs.head = Some(commit);
        } else if self.refs.commits.len() < MAX_REFS && name.starts_with("refs/") {
            // An annotated tag is listed twice, at last as what it stands for.
            let name = name.strip_suffix("^{}").unwrap_or(name);
            self.refs.commits.insert(name.to_owned(), commit);
        }
    }
}

impl Refs {
    /// What HEAD is, with the name of its branch.
    pub(super) fn head(&self) -> Option<(Commit, String)> {
        let name = self.default_branch.clone().unwrap_or_else(|| "HEAD".to_owned());
        Some((self.head.clone()?, name))
    }

    /// Digits of a commit here; a repository uses commits of one length.
    pub(super) fn commit_digits(&self) -> Option<usize> {
        let any = self.head.as_ref().or_else(|| self.commits.values().next());
        any.map(|commit| commit.as_str().len())
    }

    /// Whether a branch or tag stands for this commit.
    pub(super) fn name(&self, commit: &Commit) -> bool {
        self.head.as_ref() == Some(commit) || self.commits.values().any(|named| named == commit)
    }

    /// What `revision` means.
    pub(super) fn meaning(&self, revision: &Revision) -> Meaning {
        let text = revision.as_str();
        if text == "HEAD" {
            return match self.head() {
                Some((commit, name)) => Meaning::Named(commit, name),
                None => Meaning::Unknown,
            };
        }
        if let Some(commit) = revision.commit().filter(|commit| Some(commit.as_str().len()) == self.commit_digits()) {
            return Meaning::Whole(commit);
        }
        let exact = [text.to_owned(), format!("refs/{text}")];
        if let Some(name) = exact.into_iter().find(|name| self.commits.contains_key(name)) {
            return Meaning::Named(self.commits[&name].clone(), text.to_owned());
        }
        let both = [format!("refs/tags/{text}"), format!("refs/heads/{text}")];
        let found: Vec<(&String, &Commit)> = both.iter().filter_map(|name| self.commits.get_key_value(name)).collect();
        match found.as_slice() {
            [(_, commit)] => Meaning::Named((*commit).clone(), text.to_owned()),
            [(_, one), (_, other)] if one == other => Meaning::Named((*one).clone(), text.to_owned()),
            [] => revision.short_commit().map_or(Meaning::Unknown, Meaning::Short),
            several => Meaning::Ambiguous { names: several.iter().map(|(name, _)| (*name).clone()).collect() },
        }
    }

    /// What may have been meant instead: the nearest name, or a few that there are.
    pub(super) fn instead(&self, revision: &Revision) -> Vec<String> {
        let names = || self.commits.keys().filter_map(|name| short(name));
        match nearest(revision.as_str(), names()) {
            Some(name) => vec![name.to_owned()],
            None => {
                let default = self.default_branch.as_deref();
                default
                    .into_iter()
                    .chain(names().filter(|name| Some(*name) != default))
                    .take(TOLD)
                    .map(str::to_owned)
                    .collect()
            }
        }
    }
}

/// A branch or tag as people say it.
fn short(name: &str) -> Option<&str> {
    name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn commit(digit: char) -> Commit {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn refs() -> Refs {
        let row = |digit: char, name: &str| format!("{}\t{name}\n", commit(digit).as_str());
        let text = [
            "ref: refs/heads/main\tHEAD\n".to_owned(),
            row('1', "HEAD"),
            row('1', "refs/heads/main"),
            row('2', "refs/heads/feature/x"),
            row('3', "refs/heads/both"),
            row('4', "refs/tags/both"),
            row('5', "refs/tags/same"),
            row('5', "refs/heads/same"),
            row('6', "refs/tags/v1.0"),
            row('7', "refs/tags/v1.0^{}"),
            row('8', "refs/pull/1/head"),
            row('9', "refs/tags/deadbeef"),
            "nonsense\nxyz\trefs/heads/bad\n".to_owned(),
        ];
        let mut listing = Listing::default();
        // However it is cut.
        text.concat().as_bytes().chunks(7).for_each(|bytes| listing.take(bytes));
        listing.refs()
    }

    #[test]
    fn a_name_means_one_commit_or_says_why_not() {
        let meaning = |text: &str| refs().meaning(&text.parse().unwrap());
        let named = |digit, name: &str| Meaning::Named(commit(digit), name.to_owned());
        assert_eq!(refs().head(), Some((commit('1'), "main".to_owned())));
        assert_eq!(meaning("HEAD"), named('1', "main"));
        assert_eq!(meaning("main"), named('1', "main"));
        assert_eq!(meaning("feature/x"), named('2', "feature/x"));
        assert_eq!(meaning("v1.0"), named('7', "v1.0"), "an annotated tag stands for its commit");
        assert_eq!(meaning("same"), named('5', "same"), "two names, one commit");
        assert_eq!(meaning("refs/heads/both"), named('3', "refs/heads/both"));
        assert_eq!(meaning("tags/both"), named('4', "tags/both"));
        assert_eq!(meaning("refs/pull/1/head"), named('8', "refs/pull/1/head"));
        assert_eq!(meaning("deadbeef"), named('9', "deadbeef"), "a name comes before a short commit");
        assert_eq!(meaning("DEAD"), Meaning::Short("dead".to_owned()));
        assert_eq!(meaning(&"a".repeat(40)), Meaning::Whole(commit('a')));
        assert_eq!(meaning(&"a".repeat(64)), Meaning::Unknown, "commits here have 40 digits");
        assert_eq!(meaning("nope"), Meaning::Unknown);
        let Meaning::Ambiguous { names } = meaning("both") else { unreachable!() };
        assert_eq!(names, ["refs/tags/both", "refs/heads/both"]);
    }

    #[test]
    fn what_was_meant_is_told() {
        let instead = |text: &str| refs().instead(&text.parse().unwrap());
        assert_eq!(instead("mian"), ["main"]);
        assert_eq!(instead("v1.1"), ["v1.0"]);
        assert_eq!(instead("something-else-entirely"), ["main", "both", "feature/x"]);
    }
}
