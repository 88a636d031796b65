//! What a build leaves behind: the files that its recipe declares, and where each stands in the artifact.

use crate::tree::{PathError, TreePath};
use serde::{Deserialize, Serialize};

/// A path below the build folder in which `*` stands for any part of a name, and `**` as the last name for everything
/// below a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TreePath", into = "TreePath")]
pub struct OutputPattern(TreePath);

/// Why a text is not an output pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutputPatternError {
    /// Not a path inside the tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `**` elsewhere than as the last name below a folder.
    #[error("`**` can only be the last name of a path, as in `lib/**`")]
    Stars,
}

impl TryFrom<TreePath> for OutputPattern {
    type Error = OutputPatternError;

    fn try_from(path: TreePath) -> Result<Self, Self::Error> {
        let names: Vec<&str> = path.names().collect();
        let misplaced =
            |(at, name): (usize, &&str)| name.contains("**") && (*name != "**" || at == 0 || at + 1 != names.len());
        if names.iter().enumerate().any(misplaced) { Err(OutputPatternError::Stars) } else { Ok(Self(path)) }
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

    /// Whether it stands for `path`.
    #[must_use]
    pub fn matches(&self, path: &TreePath) -> bool {
        let mut names = path.names();
        for pattern in self.0.names() {
            match (pattern, names.next()) {
                ("**", Some(_)) => return true,
                (pattern, Some(name)) if name_matches(pattern.as_bytes(), name.as_bytes()) => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
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

/// One declared output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where it stands below the build folder. At least one file must match.
    pub path: OutputPattern,
    /// Where it stands in the artifact, if elsewhere; only for a path without stars.
    pub rename: Option<TreePath>,
}

impl Output {
    /// Where a file at `path` of the build folder stands in the artifact; `None` if it is not this output.
    #[must_use]
    pub fn place(&self, path: &TreePath) -> Option<TreePath> {
        self.path.matches(path).then(|| self.rename.clone().unwrap_or_else(|| path.clone()))
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
            ("*/bin/x*", &["a/bin/x", "b/bin/xy"], &["bin/x", "a/bin/y"]),
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
    fn double_stars_stand_last() {
        for wrong in ["**", "a/**/b", "a**", "a/x**"] {
            assert_eq!(OutputPattern::try_from(path(wrong)), Err(OutputPatternError::Stars), "{wrong}");
        }
    }

    #[test]
    fn a_renamed_output_stands_where_it_says() {
        let output =
            Output { path: OutputPattern::try_from(path("programs/zstd")).unwrap(), rename: Some(path("zstd")) };
        assert_eq!(output.place(&path("programs/zstd")), Some(path("zstd")));
        assert_eq!(output.place(&path("programs/zstd.1")), None);
    }
}
