//! Where two artifacts differ, file by file and to the first byte.
//!
//! Whatever the manifests tell is not read: files whose chunks are the same are, and of a file that differs only the first chunk
//! that does is read, from both sides.

use protocol::tree::{CHUNK_BYTES, Manifest, Mode, Node, TreePath};
use std::collections::BTreeMap;
use std::io;

/// Bytes that are shown of each side from where two files differ.
pub const SHOWN_BYTES: usize = 16;

/// One of two artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one named first.
    First,
    /// The one named second.
    Second,
}

/// A path at which two artifacts are not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: TreePath,
    /// In what.
    pub kind: Kind,
}

/// In what two artifacts differ at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only one has something there.
    OnlyIn(Side),
    /// One has a file where the other has a folder or link, or links lead to two places.
    Sort,
    /// The permission bits.
    Mode {
        /// Of the first.
        first: Mode,
        /// Of the second.
        second: Mode,
    },
    /// The content.
    Content {
        /// How many bytes are the same before the first that is not.
        offset: u64,
        /// At most [`SHOWN_BYTES`] from there; empty where the file ends.
        first: Vec<u8>,
        /// The same of the second.
        second: Vec<u8>,
    },
}

/// Everything in which two artifacts differ, in the order of paths. `read` gives one chunk of a file of one side, by the number of
/// the chunk; nothing where the file ends before.
///
/// # Errors
///
/// What `read` fails with.
pub fn differences(
    first: &Manifest,
    second: &Manifest,
    mut read: impl FnMut(Side, &TreePath, u64) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<Difference>> {
    let mut found = Vec::new();
    let mut others: BTreeMap<&TreePath, &Node> =
        second.entries().iter().map(|entry| (&entry.path, &entry.node)).collect();
    for entry in first.entries() {
        let path = &entry.path;
        let mut differs = |kind| found.push(Difference { path: path.clone(), kind });
        match (&entry.node, others.remove(path)) {
            (_, None) => differs(Kind::OnlyIn(Side::First)),
            (one, Some(other)) if one == other => {}
            (Node::File { mode, chunks, .. }, Some(Node::File { mode: other_mode, chunks: other_chunks, .. })) => {
                if mode != other_mode {
                    differs(Kind::Mode { first: *mode, second: *other_mode });
                }
                let same = chunks.iter().zip(other_chunks).take_while(|(one, other)| one == other).count();
                if same < chunks.len().max(other_chunks.len()) {
                    let nr = same as u64;
                    let (one, other) = (read(Side::First, path, nr)?, read(Side::Second, path, nr)?);
                    let at = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
                    let shown = |bytes: &[u8]| bytes[at..].iter().take(SHOWN_BYTES).copied().collect();
                    let offset = nr * CHUNK_BYTES + at as u64;
                    differs(Kind::Content { offset, first: shown(&one), second: shown(&other) });
                }
            }
            (_, Some(_)) => differs(Kind::Sort),
        }
    }
    found.extend(others.into_keys().map(|path| Difference { path: path.clone(), kind: Kind::OnlyIn(Side::Second) }));
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::digest::Digest;
    use protocol::tree::Entry;

    const CHUNK: usize = CHUNK_BYTES as usize;

    type Files = BTreeMap<&'static str, (Mode, Vec<u8>)>;

    fn manifest(files: &Files) -> Manifest {
        let entry = |(path, (mode, content)): (&&str, &(Mode, Vec<u8>))| Entry {
            path: TreePath::try_from((*path).to_owned()).unwrap(),
            node: Node::File {
                mode: *mode,
                size: content.len() as u64,
                chunks: content.chunks(CHUNK).map(Digest::of).collect(),
            },
        };
        Manifest::new(files.iter().map(entry).collect()).unwrap()
    }

    fn compared(first: &Files, second: &Files) -> Vec<(String, Kind)> {
        let read = |side, path: &TreePath, nr: u64| {
            let files = if side == Side::First { first } else { second };
            let start = usize::try_from(nr).unwrap() * CHUNK;
            let content = &files[path.as_str()].1;
            Ok(content.get(start..).unwrap_or_default().iter().take(CHUNK).copied().collect())
        };
        let found = differences(&manifest(first), &manifest(second), read).unwrap();
        found.into_iter().map(|difference| (difference.path.to_string(), difference.kind)).collect()
    }

    #[test]
    fn the_first_byte_that_differs_is_found() {
        let mut large = vec![7; 2 * CHUNK + 10];
        let files = |large: &[u8], small: &[u8]| -> Files {
            [
                ("a", (Mode::Plain, b"same".to_vec())),
                ("large", (Mode::Executable, large.to_vec())),
                ("small", (Mode::Plain, small.to_vec())),
            ]
            .into()
        };
        let first = files(&large, b"short");
        assert_eq!(compared(&first, &first), []);
        large[CHUNK + 3] = 8;
        let kind = |offset, first: &[u8], second: &[u8]| Kind::Content {
            offset,
            first: first.to_vec(),
            second: second.to_vec(),
        };
        let mut eight = [7; SHOWN_BYTES];
        eight[0] = 8;
        assert_eq!(
            compared(&first, &files(&large, b"shorter")),
            [
                ("large".to_owned(), kind(CHUNK_BYTES + 3, &[7; SHOWN_BYTES], &eight)),
                ("small".to_owned(), kind(5, b"", b"er")),
            ]
        );
    }

    #[test]
    fn what_only_one_has_and_other_modes_are_named() {
        let first: Files = [("a", (Mode::Plain, vec![1])), ("b", (Mode::Plain, vec![2]))].into();
        let second: Files = [("b", (Mode::Executable, vec![2])), ("c", (Mode::Plain, vec![]))].into();
        assert_eq!(
            compared(&first, &second),
            [
                ("a".to_owned(), Kind::OnlyIn(Side::First)),
                ("b".to_owned(), Kind::Mode { first: Mode::Plain, second: Mode::Executable }),
                ("c".to_owned(), Kind::OnlyIn(Side::Second)),
            ]
        );
    }
}
