//! Trees: the one shape of sources and artifacts.
//!
//! A tree is a sorted list of entries; each file is cut into chunks of [`CHUNK_BYTES`] from its own start, so that one
//! changed file costs its own chunks and nothing else. A [`Manifest`] is a tree's canonical encoding: a CBOR sequence
//! (RFC 8742) of entries in strictly rising order of path. Its digest names the artifact or source.
//!
//! A path cannot leave the tree and a link cannot point out of it, by construction: [`TreePath`] and [`LinkTarget`] refuse
//! everything else when they are made and when they are decoded. Owner, time and every mode bit but "executable" are not
//! part of a tree.

use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::id::ManifestId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The size of every chunk of a file but its last, in bytes.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// The largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 64 << 20;
/// The largest encoding of one entry: a file of 64 GiB.
pub const MAX_ENTRY_BYTES: usize = 4 << 20;
/// The longest path, in bytes (PATH_MAX of Linux, less what the unpacking folder needs).
pub const MAX_PATH_BYTES: usize = 3_072;
/// The longest name between two slashes, in bytes (NAME_MAX of Linux).
pub const MAX_NAME_BYTES: usize = 255;
/// The deepest nesting of folders.
pub const MAX_DEPTH: usize = 128;

/// Why a text is not a path inside a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Empty, or with an empty part: absolute, doubled or trailing slash.
    #[error("an empty name in the path")]
    Empty,
    /// `.` or `..`.
    #[error("`.` or `..` in the path")]
    Dots,
    /// Too long or too deep.
    #[error("the path is too long or too deep")]
    TooLong,
    /// A control character, which would reach a terminal, or a backslash, which is a separator elsewhere.
    #[error("a control character or backslash in the path")]
    Character,
    /// A link that is absolute or leads out of the tree.
    #[error("the link leads out of the tree")]
    Outside,
}

/// A relative path with `/` between plain names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(String);

impl TreePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the outermost folder inwards.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The folder that holds this path; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }
}

impl TryFrom<String> for TreePath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() > MAX_PATH_BYTES || text.split('/').count() > MAX_DEPTH {
            return Err(PathError::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(PathError::Character);
        }
        for name in text.split('/') {
            match name {
                "" => return Err(PathError::Empty),
                "." | ".." => return Err(PathError::Dots),
                name if name.len() > MAX_NAME_BYTES => return Err(PathError::TooLong),
                _ => {}
            }
        }
        Ok(Self(text))
    }
}

impl TryFrom<&str> for TreePath {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::try_from(text.to_owned())
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        path.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Where a symbolic link points: relative, and inside the tree when followed from the link's own folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkTarget(String);

impl LinkTarget {
    /// The target of a link at `from`.
    ///
    /// # Errors
    ///
    /// [`PathError`] when the target is absolute, leads out of the tree, or is no plain path.
    pub fn new(from: &TreePath, target: &str) -> Result<Self, PathError> {
        if target.is_empty() {
            return Err(PathError::Empty);
        }
        if target.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if target.chars().any(|c| c.is_control() || c == '\\') {
            return Err(PathError::Character);
        }
        if target.starts_with('/') {
            return Err(PathError::Outside);
        }
        let mut depth = from.names().count() - 1;
        for name in target.split('/') {
            match name {
                "" | "." => {}
                ".." => depth = depth.checked_sub(1).ok_or(PathError::Outside)?,
                _ => depth += 1,
            }
        }
        Ok(Self(target.to_owned()))
    }

    /// The target as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a file may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// 0644.
    Plain,
    /// 0755.
    Executable,
}

impl Mode {
    /// The mode whose executable bit is that of the Unix mode `bits`.
    #[must_use]
    pub const fn of_bits(bits: u32) -> Self {
        if bits & 0o100 == 0 { Self::Plain } else { Self::Executable }
    }

    /// The permission bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Plain => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A regular file.
    File {
        /// Whether it may be run.
        mode: Mode,
        /// Length in bytes.
        size: u64,
        /// Digests of its chunks in order; none for an empty file.
        chunks: Vec<Digest>,
    },
    /// A symbolic link inside the tree; sources only.
    Link {
        /// Where it points.
        target: LinkTarget,
    },
    /// A folder that would otherwise be missing because it is empty.
    Folder,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub path: TreePath,
    /// What stands there.
    pub node: Node,
}

/// How many chunks a file of `size` bytes has.
#[must_use]
pub const fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES)
}

/// The length of chunk `at` of a file of `size` bytes.
#[must_use]
pub const fn chunk_len(size: u64, at: u64) -> u64 {
    let start = at.saturating_mul(CHUNK_BYTES);
    let rest = size.saturating_sub(start);
    if rest < CHUNK_BYTES { rest } else { CHUNK_BYTES }
}

/// Why bytes are not a manifest, or entries not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Larger than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// An entry is damaged.
    #[error("entry {at} is damaged: {error}")]
    Entry {
        /// Its position, from 0.
        at: usize,
        /// What is wrong.
        error: CodecError,
    },
    /// Entries are not in strictly rising order of path.
    #[error("`{0}` stands twice or out of order")]
    Order(TreePath),
    /// A file's size and number of chunks disagree.
    #[error("`{0}` has a wrong number of chunks")]
    Chunks(TreePath),
    /// A path runs through something that is not a folder.
    #[error("`{0}` lies below something that is not a folder")]
    BelowFile(TreePath),
    /// A link leads out of the tree.
    #[error("the link `{0}` leads out of the tree")]
    Link(TreePath),
}

/// A tree in canonical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

impl Manifest {
    /// The tree of `entries`, in any order.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] when two entries share a path, one lies below a file, or sizes and chunks disagree.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self { entries };
        manifest.check()?;
        Ok(manifest)
    }

    /// The entries in order of path.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files().map(|(_, _, size, _)| size).sum()
    }

    /// Path, mode, size and chunks of every file in order.
    pub fn files(&self) -> impl Iterator<Item = (&TreePath, Mode, u64, &[Digest])> {
        self.entries.iter().filter_map(|entry| match &entry.node {
            Node::File { mode, size, chunks } => Some((&entry.path, *mode, *size, chunks.as_slice())),
            Node::Link { .. } | Node::Folder => None,
        })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in &self.entries {
            bytes.extend_from_slice(&codec::encode(entry));
        }
        bytes
    }

    /// The digest of the canonical bytes.
    #[must_use]
    pub fn id(&self) -> ManifestId {
        ManifestId(Digest::of(&self.encode()))
    }

    /// Reads a manifest entry by entry.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] on the first entry that is not canonical, out of order or inconsistent.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let mut entries = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = entries.len();
            let (entry, len) = codec::decode_first::<Entry>(rest, MAX_ENTRY_BYTES)
                .map_err(|error| ManifestError::Entry { at, error })?;
            entries.push(entry);
            rest = &rest[len..];
        }
        let manifest = Self { entries };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let mut folders: std::collections::HashSet<&str> = std::collections::HashSet::new();
        let mut leaves: std::collections::HashSet<&str> = std::collections::HashSet::new();
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 && self.entries[at - 1].path >= entry.path {
                return Err(ManifestError::Order(entry.path.clone()));
            }
            match &entry.node {
                Node::File { size, chunks, .. } if chunk_count(*size) != chunks.len() as u64 => {
                    return Err(ManifestError::Chunks(entry.path.clone()));
                }
                Node::Link { target } => {
                    LinkTarget::new(&entry.path, target.as_str())
                        .map_err(|_| ManifestError::Link(entry.path.clone()))?;
                }
                Node::File { .. } | Node::Folder => {}
            }
            if !matches!(entry.node, Node::Folder) {
                leaves.insert(entry.path.as_str());
            }
            let mut folder = entry.path.parent();
            while let Some(path) = folder.filter(|path| folders.insert(path)) {
                folder = path.rsplit_once('/').map(|(parent, _)| parent);
            }
        }
        match self
            .entries
            .iter()
            .find(|entry| leaves.contains(entry.path.as_str()) && folders.contains(entry.path.as_str()))
        {
            Some(entry) => Err(ManifestError::BelowFile(entry.path.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(path: &str, content: &[u8]) -> Entry {
        let chunks = content.chunks(usize::try_from(CHUNK_BYTES).unwrap()).map(Digest::of).collect();
        Entry {
            path: TreePath::try_from(path).unwrap(),
            node: Node::File { mode: Mode::Plain, size: content.len() as u64, chunks },
        }
    }

    #[test]
    fn paths_stay_inside() {
        for good in ["a", "a/b", "a b/ü", "..a/b..", "a/.hidden"] {
            assert!(TreePath::try_from(good).is_ok(), "{good}");
        }
        let deep = "a/".repeat(MAX_DEPTH) + "a";
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", "/a", "a/", "a//b", ".", "a/../b", "a\u{1b}[31m", "a\nb", "a\\b", "\u{85}", &deep, &long] {
            assert!(TreePath::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn links_stay_inside() {
        let from = TreePath::try_from("a/b/link").unwrap();
        for good in ["x", "../x", "../../x", "./x", "../../a/x"] {
            assert!(LinkTarget::new(&from, good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../../../x", "x/../../../../y", "a\0b"] {
            assert!(LinkTarget::new(&from, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_manifest_is_canonical_whatever_the_order() {
        let big = vec![7; 3_000_000];
        let one = Manifest::new(vec![file("b", b"2"), file("a/x", &big), file("empty", b"")]).unwrap();
        let two = Manifest::new(vec![file("empty", b""), file("b", b"2"), file("a/x", &big)]).unwrap();
        assert_eq!(one.id(), two.id());
        assert_eq!(Manifest::decode(&one.encode()), Ok(one.clone()));
        assert_eq!(one.total_bytes(), 3_000_001);
        assert_eq!(one.files().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(), ["a/x", "b", "empty"]);
    }

    #[test]
    fn what_is_no_tree_is_refused_by_name() {
        let path = |text: &str| TreePath::try_from(text).unwrap();
        assert_eq!(Manifest::new(vec![file("a", b""), file("a", b"1")]), Err(ManifestError::Order(path("a"))));
        assert_eq!(Manifest::new(vec![file("a", b"1"), file("a/b/c", b"1")]), Err(ManifestError::BelowFile(path("a"))));
        let mut wrong = file("a", b"1");
        wrong.node = Node::File { mode: Mode::Plain, size: 0, chunks: vec![Digest::of(b"")] };
        assert_eq!(Manifest::new(vec![wrong]), Err(ManifestError::Chunks(path("a"))));

        let ordered = Manifest::new(vec![file("a", b"1"), file("b", b"2")]).unwrap();
        let first = codec::encode(&ordered.entries()[0]);
        let second = codec::encode(&ordered.entries()[1]);
        assert_eq!(Manifest::decode(&[second, first.clone()].concat()), Err(ManifestError::Order(path("a"))));
        assert!(matches!(Manifest::decode(&first[..first.len() - 1]), Err(ManifestError::Entry { at: 0, .. })));
    }

    #[test]
    fn chunk_lengths_add_up() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES] {
            let sum: u64 = (0..chunk_count(size)).map(|at| chunk_len(size, at)).sum();
            assert_eq!(sum, size);
        }
    }
}
