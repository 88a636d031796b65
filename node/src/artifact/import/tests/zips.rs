//! Zip archives: what is read, and every way in which one can be two trees to two readers.

use super::*;
use std::process::Command;

/// An entry of a zip under construction; every field can be made to lie.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) name: Vec<u8>,
    /// The name before the content, where it is another.
    pub(super) other_name: Option<Vec<u8>>,
    pub(super) content: Vec<u8>,
    pub(super) flags: u16,
    /// Stored or deflated, as the directory says and as the header says.
    pub(super) method: [u16; 2],
    /// System and mode.
    pub(super) made_by: u16,
    pub(super) mode: u32,
    /// Sum, packed and unpacked size, as the directory and as the header say; as they are where nothing is given.
    pub(super) listed: Option<(u32, u32, u32)>,
    pub(super) headed: Option<(u32, u32, u32)>,
    /// Extra fields of directory and header.
    pub(super) extra: [Vec<u8>; 2],
    /// Where the directory says that the header is.
    pub(super) at: Option<u32>,
}

pub(super) fn part(name: &str, content: &[u8]) -> Part {
    Part {
        name: name.as_bytes().to_vec(),
        other_name: None,
        content: content.to_vec(),
        flags: 0,
        method: [0, 0],
        made_by: 3 << 8 | 20,
        mode: 0o100_644,
        listed: None,
        headed: None,
        extra: [Vec::new(), Vec::new()],
        at: None,
    }
}

impl Part {
    pub(super) fn deflated(mut self) -> Self {
        self.method = [8, 8];
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

pub(super) fn zip(parts: &[Part]) -> Vec<u8> {
    zip_with(parts, b"", |_| {})
}

/// A zip with this comment, whose end is changed by `change`.
pub(super) fn zip_with(parts: &[Part], comment: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for part in parts {
        let packed = if part.method == [8, 8] {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&part.content).unwrap();
            encoder.finish().unwrap()
        } else {
            part.content.clone()
        };
        let sizes = (crc32fast::hash(&part.content), packed.len() as u32, part.content.len() as u32);
        let at = part.at.unwrap_or(bytes.len() as u32);
        let fields =
            |into: &mut Vec<u8>, method: u16, (crc, packed, unpacked): (u32, u32, u32), name: &[u8], extra: &[u8]| {
                for number in [part.flags, method, 0, 0] {
                    into.extend(number.to_le_bytes());
                }
                for number in [crc, packed, unpacked] {
                    into.extend(number.to_le_bytes());
                }
                into.extend((name.len() as u16).to_le_bytes());
                into.extend((extra.len() as u16).to_le_bytes());
            };
        let name = part.other_name.as_ref().unwrap_or(&part.name);
        bytes.extend(b"PK\x03\x04\x14\x00");
        fields(&mut bytes, part.method[1], part.headed.unwrap_or(sizes), name, &part.extra[1]);
        bytes.extend(name.iter().chain(&part.extra[1]).chain(&packed));
        directory.extend(b"PK\x01\x02");
        directory.extend(part.made_by.to_le_bytes());
        directory.extend(20u16.to_le_bytes());
        fields(&mut directory, part.method[0], part.listed.unwrap_or(sizes), &part.name, &part.extra[0]);
        directory.extend([0; 6]);
        directory.extend((part.mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(part.name.iter().chain(&part.extra[0]));
    }
    let from = bytes.len() as u32;
    let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
    for _ in 0..2 {
        end.extend((parts.len() as u16).to_le_bytes());
    }
    end.extend((directory.len() as u32).to_le_bytes());
    end.extend(from.to_le_bytes());
    end.extend((comment.len() as u16).to_le_bytes());
    change(&mut end);
    [bytes, directory, end, comment.to_vec()].concat()
}

#[test]
fn a_folder_and_its_zip_are_the_same_tree() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("project-1.0");
    let big: Vec<u8> = (0..1_500_000u32).flat_map(u32::to_le_bytes).take(1_500_000).collect();
    lay_out(&root, &big);
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.args(words).current_dir(&root).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        for name in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
            git.env(name, "a@example.org");
        }
        assert!(git.env("HOME", "/nonexistent").status().unwrap().success(), "{words:?}");
    };
    // git knows no empty folders, writes modes and links, and a comment with the commit.
    fs::remove_dir(root.join("empty")).unwrap();
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "x"]);
    git(&["archive", "--format=zip", "--prefix=project-1.0/", "--output=../it.zip", "HEAD"]);
    let unpacked = read_archive(&fs::read(folder.path().join("it.zip")).unwrap()).unwrap();
    assert_eq!(unpacked.manifest.id(), directory::import(&root).unwrap().manifest.id());
    let (_, _, _, digests) = unpacked.manifest.files().find(|(.., size, _)| *size > 1_000_000).unwrap();
    let content: Vec<u8> = digests.iter().flat_map(|digest| unpacked.read(digest).unwrap().unwrap()).collect();
    assert_eq!(content, big);
}

#[test]
fn what_writers_write_is_read() {
    let streamed = |part: Part| {
        part.with(|part| {
            part.flags = 1 << 3;
            part.headed = Some((0, 0, 0));
        })
    };
    let large = |part: Part| {
        let size = part.content.len() as u64;
        part.with(|part| {
            let extra = |sizes: &[u64]| {
                let fields: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
                [&1u16.to_le_bytes()[..], &(fields.len() as u16).to_le_bytes(), &fields].concat()
            };
            let crc = crc32fast::hash(&part.content);
            (part.listed, part.headed) = (Some((crc, u32::MAX, u32::MAX)), Some((crc, u32::MAX, u32::MAX)));
            part.extra = [extra(&[size, size]), extra(&[size, size])];
        })
    };
    let rows: [(&str, Vec<u8>, &[&str]); 6] = [
        ("one folder", zip(&[part("t/", b"").with(|p| p.mode = 0o040_755), part("t/a", b"1").deflated()]), &["a"]),
        ("sizes that follow", zip(&[streamed(part("a", b"12").deflated())]), &["a"]),
        ("a large archive's sizes", zip(&[large(part("a", b"12"))]), &["a"]),
        (
            "another system's",
            zip(&[part("a", b"1").with(|p| p.made_by = 20), part("b/", b"").with(|p| p.made_by = 0)]),
            &["a", "b"],
        ),
        ("a comment", zip_with(&[part("a", b"1")], b"of 65535 bytes at most", |_| {}), &["a"]),
        (
            "a link",
            zip(&[part("d/l", b"a").with(|p| p.mode = 0o120_777), part("d/a", b""), part("e", b"")]),
            &["d/a", "d/l", "e"],
        ),
    ];
    for (what, bytes, expected) in rows {
        assert_eq!(paths(&read_archive(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"))), expected, "{what}");
    }
    assert!(matches!(read_archive(&zip(&[])), Err(ImportError::Empty)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Bytes of a good zip changed anywhere give a tree or an error, and never a panic.
    #[test]
    fn changed_zips_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = zip(&[part("t/a", b"some content").deflated(), part("t/b", b"1"), part("t/c/", b"")]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(imported) = read_archive(&bytes) {
            prop_assert_eq!(Manifest::decode(&imported.manifest.encode()), Ok(imported.manifest));
        }
    }
}
