//! What a build leaves behind: the files that its recipe declares, and where each stands in the artifact.

use super::condition::Condition;
use crate::tree::{PathError, TreePath};
use serde::{Deserialize, Serialize};

/// A path below the build folder whose last name may hold stars: `*` stands for any part of a name, and `**` as the whole
/// name for everything below the folder before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TreePath", into = "TreePath")]
pub struct OutputPattern(TreePath);

/// Why a text is not an output pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutputPatternError {
    /// Not a path inside the tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A star elsewhere than in the last name, or `**` that is not all of it.
    #[error("stars stand in the last name of a path only, as in `dist/*.whl` or `lib/**`")]
    Stars,
}

impl TryFrom<TreePath> for OutputPattern {
    type Error = OutputPatternError;

    fn try_from(path: TreePath) -> Result<Self, Self::Error> {
        let (folder, last) = split(&path);
        let below = last == "**" && !folder.is_empty();
        if folder.contains('*') || (last.contains("**") && !below) {
            return Err(OutputPatternError::Stars);
        }
        Ok(Self(path))
    }
}

impl From<OutputPattern> for TreePath {
    fn from(pattern: OutputPattern) -> Self {
        pattern.0
    }
}

impl OutputPattern {
    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The one path it stands for, if there is no star in it.
    #[must_use]
    pub fn plain(&self) -> Option<&TreePath> {
        (!self.0.as_str().contains('*')).then_some(&self.0)
    }

    /// The folder that its last name is in, empty at the top.
    pub(super) fn folder(&self) -> &str {
        split(&self.0).0
    }

    /// Whether it stands for `path`.
    #[must_use]
    pub fn matches(&self, path: &TreePath) -> bool {
        let (folder, last) = split(&self.0);
        if last == "**" {
            return path.as_str().strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        }
        let (path_folder, name) = split(path);
        folder == path_folder && name_matches(last.as_bytes(), name.as_bytes())
    }
}

/// Folder, empty at the top, and last name.
fn split(path: &TreePath) -> (&str, &str) {
    path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()))
}

/// Whether `name` matches `pattern`, whose stars stand for any run of bytes. Going back to the last star only is enough,
/// which bounds the work by the product of the lengths.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (p, n) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether an output may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// At least one file must match, or the build failed.
    Required,
    /// It is taken where it is there.
    Optional,
}

/// One declared output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where it stands below the build folder.
    pub path: OutputPattern,
    /// Where it stands in the artifact, if elsewhere: for a path with stars, the folder that takes the place of the path's.
    pub rename: Option<TreePath>,
    /// Whether it may be missing.
    pub presence: Presence,
    /// When it is declared at all.
    pub when: Vec<Condition>,
}

impl Output {
    /// Where a file at `path` of the build folder stands in the artifact; `None` if it is not this output.
    #[must_use]
    pub fn place(&self, path: &TreePath) -> Option<TreePath> {
        if !self.path.matches(path) {
            return None;
        }
        match &self.rename {
            None => Some(path.clone()),
            Some(place) if self.path.plain().is_some() => Some(place.clone()),
            Some(folder) => {
                let below = path.as_str().strip_prefix(self.path.folder())?.trim_start_matches('/');
                TreePath::try_from(format!("{folder}/{below}").as_str()).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::try_from(text).unwrap()
    }

    #[test]
    fn stars_stay_within_a_name() {
        for (pattern, good, bad) in [
            ("lua", &["lua"][..], &["luac", "a/lua", "lua/x"][..]),
            ("dist/*.whl", &["dist/a.whl", "dist/.whl"], &["dist/a/b.whl", "a.whl", "dist/a.whl2"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a", "ab/c"]),
            ("lib/**", &["lib/a", "lib/a/b"], &["lib", "lib2/a"]),
            ("a/bin/x*", &["a/bin/x", "a/bin/xy"], &["bin/x", "a/bin/y", "a/bin/x/y"]),
        ] {
            let pattern = OutputPattern::try_from(path(pattern)).unwrap();
            for name in good {
                assert!(pattern.matches(&path(name)), "{pattern:?} {name}");
            }
            for name in bad {
                assert!(!pattern.matches(&path(name)), "{pattern:?} {name}");
            }
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_the_product_of_the_lengths() {
        let pattern = "*a".repeat(120) + "b";
        assert!(!name_matches(pattern.as_bytes(), "a".repeat(255).as_bytes()));
    }

    #[test]
    fn stars_stand_in_the_last_name() {
        for wrong in ["**", "a/**/b", "*/b", "a**", "a/x**", "a/***"] {
            assert_eq!(OutputPattern::try_from(path(wrong)), Err(OutputPatternError::Stars), "{wrong}");
        }
    }

    #[test]
    fn a_renamed_output_stands_where_it_says() {
        for (pattern, rename, found, place) in [
            ("programs/zstd", Some("zstd"), "programs/zstd", Some("zstd")),
            ("programs/zstd", Some("zstd"), "programs/zstd.1", None),
            ("dist/*.whl", Some("wheels"), "dist/a.whl", Some("wheels/a.whl")),
            ("*.so", Some("lib"), "a.so", Some("lib/a.so")),
            ("out/usr/**", Some("root"), "out/usr/bin/a", Some("root/bin/a")),
            ("out/usr/**", None, "out/usr/bin/a", Some("out/usr/bin/a")),
        ] {
            let output = Output {
                path: OutputPattern::try_from(path(pattern)).unwrap(),
                rename: rename.map(path),
                presence: Presence::Required,
                when: Vec::new(),
            };
            assert_eq!(output.place(&path(found)), place.map(path), "{pattern} {found}");
        }
    }
}
