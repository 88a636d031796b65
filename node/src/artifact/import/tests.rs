#![allow(clippy::unwrap_used)]
//! The tree that a source becomes, and the hostile archives that become none, each by name.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use tar::{EntryType, Header};
use tempfile::TempDir;

mod hostile;
mod mutants;
mod zips;

/// An archive under construction, as bytes.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    /// An entry whose header is made by the crate and then changed by `change`.
    fn entry(mut self, kind: EntryType, name: &[u8], content: &[u8], change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name.as_bytes(), content, |_| {})
    }

    fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name.as_bytes(), b"", |header| header.set_mode(0o755))
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let set = |header: &mut Header| header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(kind, name.as_bytes(), b"", set)
    }

    fn pax(self, kind: EntryType, records: &[(&str, &str)]) -> Self {
        let content: String = records.iter().map(|(key, value)| pax_record(key, value)).collect();
        self.entry(kind, b"pax", content.as_bytes(), |_| {})
    }

    fn long(self, kind: EntryType, text: &str) -> Self {
        self.entry(kind, b"././@LongLink", format!("{text}\0").as_bytes(), |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn pax_record(key: &str, value: &str) -> String {
    let mut len = key.len() + value.len() + 3;
    while format!("{len} {key}={value}\n").len() != len {
        len = format!("{len} {key}={value}\n").len();
    }
    format!("{len} {key}={value}\n")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bz2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

fn read_archive(bytes: &[u8]) -> Result<Imported, ImportError> {
    read_archive_within(bytes, 4 << 20)
}

fn read_archive_within(bytes: &[u8], grown_bytes: u64) -> Result<Imported, ImportError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("archive");
    fs::write(&path, bytes).unwrap();
    archive::import(&path, folder.path(), grown_bytes)
}

fn paths(imported: &Imported) -> Vec<&str> {
    imported.manifest.entries().iter().map(|entry| entry.path.as_str()).collect()
}

fn refusal(bytes: &[u8]) -> (String, Refusal) {
    match read_archive(bytes) {
        Err(ImportError::Refused { name, why }) => (name, why),
        other => panic!("not refused: {other:?}"),
    }
}

/// A tree with everything that a tree can have, below `root`.
fn lay_out(root: &Path, big: &[u8]) {
    fs::create_dir_all(root.join("src/deep")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::write(root.join("README"), b"read me\n").unwrap();
    fs::write(root.join("src/nothing"), b"").unwrap();
    fs::write(root.join("src/deep/big"), big).unwrap();
    fs::write(root.join("configure"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("configure"), fs::Permissions::from_mode(0o775)).unwrap();
    fs::write(root.join(format!("src/{}", "n".repeat(200))), b"long name").unwrap();
    symlink("../README", root.join("src/README")).unwrap();
}

#[test]
fn a_folder_and_its_archives_are_the_same_tree() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("project-1.0");
    let big: Vec<u8> = (0..2_500_000u32).flat_map(u32::to_le_bytes).take(2_500_000).collect();
    lay_out(&root, &big);
    let imported = directory::import(&root).unwrap();
    let long = format!("src/{}", "n".repeat(200));
    assert_eq!(paths(&imported), ["README", "configure", "empty", "src/README", "src/deep/big", &long, "src/nothing"]);
    let modes: Vec<Mode> = imported.manifest.files().map(|(_, mode, ..)| mode).collect();
    assert_eq!(modes.iter().filter(|mode| **mode == Mode::Executable).count(), 1);

    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all("project-1.0", &root).unwrap();
    let plain = builder.into_inner().unwrap();
    for (kind, bytes) in
        [("tar", plain.clone()), ("gz", gzip(&plain)), ("bz2", bz2(&plain)), ("xz", xz(&plain)), ("zst", zst(&plain))]
    {
        let unpacked = read_archive(&bytes).unwrap();
        assert_eq!(unpacked.manifest.id(), imported.manifest.id(), "{kind}");
        for source in [&imported, &unpacked] {
            let (_, _, size, digests) = source.manifest.files().find(|(.., size, _)| *size > 1_000_000).unwrap();
            let content: Vec<u8> = digests.iter().flat_map(|digest| source.read(digest).unwrap().unwrap()).collect();
            assert_eq!((content.len() as u64, &content), (size, &big), "{kind}");
            assert_eq!(source.read(&Digest::of(b"elsewhere")).unwrap(), None);
        }
    }
}

#[test]
fn pax_names_and_a_global_comment_are_read() {
    let long = "d".repeat(120) + "/" + &"f".repeat(120);
    let bytes = Tar::default()
        .pax(EntryType::XGlobalHeader, &[("comment", "4ceee03c")])
        .pax(EntryType::XHeader, &[("mtime", "1.5"), ("path", &long), ("SCHILY.xattr.user.x", "a\nb")])
        .file("short", b"1")
        .pax(EntryType::XHeader, &[("linkpath", "short")])
        .link(EntryType::Symlink, "link", "ignored")
        .end();
    let imported = read_archive(&bytes).unwrap();
    assert_eq!(paths(&imported), [long.as_str(), "link"]);
    assert!(matches!(&imported.manifest.entries()[1].node, Node::Link { target } if target.as_str() == "short"));
}

#[test]
fn a_single_top_folder_is_dropped_and_a_single_file_kept() {
    let rows: [(Vec<u8>, &[&str]); 6] = [
        (Tar::default().folder("top/").file("top/a", b"1").file("top/b/c", b"2").end(), &["a", "b/c"]),
        (Tar::default().file("top/a", b"1").file("topper/b", b"2").end(), &["top/a", "topper/b"]),
        (Tar::default().file("top/a", b"1").file("b", b"2").end(), &["b", "top/a"]),
        (Tar::default().file("hello.c", b"1").end(), &["hello.c"]),
        (Tar::default().folder("./").file("./a", b"1").folder("./b/").end(), &["a", "b"]),
        (Tar::default().folder("top/").folder("top/").file("top/a", b"").end(), &["a"]),
    ];
    for (bytes, expected) in rows {
        assert_eq!(paths(&read_archive(&bytes).unwrap()), expected);
    }
}

#[test]
fn what_leaves_the_tree_is_refused() {
    let tar = Tar::default;
    let link = |target: &str, error| Refusal::Link { target: target.to_owned(), error };
    let rows = [
        (tar().file("../x", b"1"), "../x", Refusal::Path(PathError::Dots)),
        (tar().file("a/../../x", b"1"), "a/../../x", Refusal::Path(PathError::Dots)),
        (tar().file("/etc/cron.d/x", b"1"), "/etc/cron.d/x", Refusal::Absolute),
        (tar().file("a//b", b"1"), "a//b", Refusal::Path(PathError::Empty)),
        (tar().file("a\u{1b}[31m", b"1"), "a\u{1b}[31m", Refusal::Path(PathError::Character)),
        (tar().link(EntryType::Symlink, "a", "/etc/shadow"), "a", link("/etc/shadow", PathError::Outside)),
        (tar().link(EntryType::Symlink, "a", "../a"), "a", link("../a", PathError::Outside)),
        (tar().link(EntryType::Symlink, "a", ""), "a", link("", PathError::Empty)),
        // Inside while the top folder stands, outside once it is dropped.
        (tar().file("t/b", b"").link(EntryType::Symlink, "t/a", "../t/b"), "a", link("../t/b", PathError::Outside)),
    ];
    for (archive, name, why) in rows {
        assert_eq!(refusal(&archive.end()), (name.to_owned(), why));
    }
    let through = tar().link(EntryType::Symlink, "a", "b").file("a/x", b"1").file("c", b"").end();
    assert!(matches!(read_archive(&through), Err(ImportError::Tree(ManifestError::BelowFile(_)))), "link, then write");
    let deep = tar().long(EntryType::GNULongName, &("d/".repeat(200) + "f")).file("x", b"1").end();
    assert!(matches!(refusal(&deep).1, Refusal::Path(PathError::TooLong)));
    let not_utf8 = tar().entry(EntryType::Regular, b"\xff", b"", |_| {}).end();
    assert_eq!(refusal(&not_utf8).1, Refusal::NotUtf8);
}

#[test]
fn what_is_neither_file_folder_nor_link_is_refused() {
    for (kind, word) in [
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "pipe"),
        (EntryType::GNUSparse, "sparse file"),
        (EntryType::new(b'V'), "special entry"),
        (EntryType::new(b'M'), "special entry"),
    ] {
        let bytes = Tar::default().file("first", b"1").link(kind, "x", "first").end();
        assert_eq!(refusal(&bytes), ("x".to_owned(), Refusal::Special(word)));
    }
    let sparse = Tar::default().pax(EntryType::XHeader, &[("GNU.sparse.major", "1")]).file("x", b"1").end();
    assert_eq!(refusal(&sparse).1, Refusal::Special("sparse file"));
    for kind in [EntryType::Directory, EntryType::Symlink] {
        assert_eq!(refusal(&Tar::default().entry(kind, b"x", b"1", |_| {}).end()).1, Refusal::Content);
    }
}

/// Archives that are one tree to one reader and another to the next (CVE-2025-62518 and its kin).
#[test]
fn headers_that_disagree_are_refused() {
    let tar = Tar::default;
    let size = tar().pax(EntryType::XHeader, &[("size", "1024")]).file("x", b"1").file("hidden", b"2").end();
    assert_eq!(refusal(&size), ("x".to_owned(), Refusal::Disagreement("size")), "PAX size against ustar size");
    let names =
        tar().long(EntryType::GNULongName, "one").pax(EntryType::XHeader, &[("path", "two")]).file("x", b"1").end();
    assert_eq!(refusal(&names).1, Refusal::Disagreement("name"));
    let links = tar()
        .long(EntryType::GNULongLink, "one")
        .pax(EntryType::XHeader, &[("linkpath", "two")])
        .link(EntryType::Symlink, "x", "y")
        .end();
    assert_eq!(refusal(&links).1, Refusal::Disagreement("link"));
    let twice = tar().pax(EntryType::XHeader, &[("path", "a"), ("path", "b")]).file("x", b"").end();
    assert_eq!(refusal(&twice).1, Refusal::Header("a PAX record that stands twice"));
    let global = tar().pax(EntryType::XGlobalHeader, &[("path", "a")]).file("x", b"").end();
    assert_eq!(refusal(&global).1, Refusal::Header("a name or size for all entries"));
    let two = tar().long(EntryType::GNULongName, "a").long(EntryType::GNULongName, "b").file("x", b"").end();
    assert_eq!(refusal(&two).1, Refusal::Header("two long names for one entry"));
    for record in ["12 path=a\n", "x path=ab\n", "5 ab\n", "99999999999 a=b\n", "+9 path=a\n", "9 path=ab"] {
        let bytes = tar().entry(EntryType::XHeader, b"pax", record.as_bytes(), |_| {}).file("x", b"").end();
        assert_eq!(refusal(&bytes).1, Refusal::Header("a PAX record that cannot be read"), "{record:?}");
    }
    let large = tar().long(EntryType::GNULongName, &"a".repeat(70_000)).file("x", b"").end();
    assert_eq!(refusal(&large).1, Refusal::Header("too long"));
}

#[test]
fn what_stands_twice_is_refused() {
    let twice = Tar::default().file("t/a", b"1").file("t/b", b"").file("t/a", b"2").end();
    assert_eq!(refusal(&twice), ("a".to_owned(), Refusal::Twice));
    let below = Tar::default().file("a", b"1").file("a/b", b"2").file("c", b"").end();
    assert!(matches!(read_archive(&below), Err(ImportError::Tree(ManifestError::BelowFile(_)))));
}

#[test]
fn a_damaged_archive_is_no_source() {
    let whole = Tar::default().file("a", &[7; 3000]).file("b", &[8; 3000]).end();
    let damaged = |bytes: &[u8]| matches!(read_archive(bytes), Err(ImportError::Damaged(_)));
    assert!(read_archive(&whole).is_ok());
    // Cut between entries, within a file, within a header, before the end is marked.
    for cut in [3584, 2000, 3700, whole.len() - 1024] {
        assert!(damaged(&whole[..cut]), "cut at {cut}");
    }
    for packed in [gzip(&whole), bz2(&whole), xz(&whole), zst(&whole)] {
        assert!(damaged(&packed[..packed.len() - 5]), "a packed archive without its last bytes");
        let mut flipped = packed.clone();
        let at = flipped.len() - 6;
        flipped[at] ^= 1;
        assert!(read_archive(&flipped).is_err());
    }
    let more = [whole.clone(), Tar::default().file("c", b"1").end()].concat();
    assert!(damaged(&more), "a second archive after the end");
    let mut sum = whole.clone();
    sum[0] ^= 1;
    assert!(damaged(&sum), "a wrong header sum");
    assert!(damaged(&Tar::default().long(EntryType::GNULongName, "a").end()), "a long name of nothing");
    assert!(matches!(read_archive(&Tar::default().file("x", b"").end()[512..]), Err(ImportError::Format { .. })));
    assert!(matches!(read_archive(&gzip(&[0; 1024])), Err(ImportError::Empty)));
}

#[test]
fn bombs_stop_at_their_limit() {
    let zeros = Tar::default().file("zeros", &vec![0; 8 << 20]).end();
    for (kind, bomb) in [("gz", gzip(&zeros)), ("bz2", bz2(&zeros)), ("xz", xz(&zeros)), ("zst", zst(&zeros))] {
        assert!(bomb.len() < 200 << 10);
        let error = read_archive(&bomb).unwrap_err();
        assert!(matches!(error, ImportError::TooLarge { limit: 4_194_304 }), "{kind}: {error}");
        assert!(read_archive_within(&bomb, 16 << 20).is_ok(), "{kind}");
    }
    // What hides behind the end of the archive counts, too.
    let tail = [Tar::default().file("a", b"1").end(), vec![0; 8 << 20]].concat();
    assert!(matches!(read_archive(&zst(&tail)), Err(ImportError::TooLarge { .. })));
    // And so does a header of many extensions.
    let extensions = vec![("comment", "x"); 2_000];
    let mut many = Tar::default();
    for _ in 0..300 {
        many = many.pax(EntryType::XGlobalHeader, &extensions);
    }
    assert!(matches!(read_archive(&gzip(&many.file("x", b"").end())), Err(ImportError::TooLarge { .. })));
}

#[test]
fn the_shipped_limit_holds_for_a_small_bomb() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let header = Tar::default().entry(EntryType::Regular, b"zeros", b"", |header| header.set_size(600 << 20)).0;
    encoder.write_all(&header).unwrap();
    for _ in 0..600 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 100 << 10, "{}", bomb.len());
    let error = read_archive_within(&bomb, MIN_GROWN_BYTES).unwrap_err();
    assert!(matches!(error, ImportError::TooLarge { limit: MIN_GROWN_BYTES }), "{error}");
}

#[test]
fn decoders_get_no_more_memory_than_they_need() {
    // A dictionary of 1.5 GiB, in an archive of a few bytes.
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(1536 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let mut hungry = xz(&Tar::default().file("a", b"1").end());
    // The block header says the size of the dictionary in one byte (xz file format 5.3.1), and its own CRC after it.
    let (header, sum) = (12..20, 20..24);
    assert_eq!(hungry[14], 0x21, "LZMA2");
    hungry[16] = 40;
    let crc = crc32fast::hash(&hungry[header]).to_le_bytes();
    hungry[sum].copy_from_slice(&crc);
    let error = read_archive(&hungry).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");

    // A window of 2 GiB in the frame header (RFC 8878, 3.1.1.1.2).
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00];
    let error = read_archive(&window).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn entries_are_counted() {
    let mut findings = Findings::default();
    let long = "n".repeat(200);
    let outcome = (0..MAX_ENTRIES + 1)
        .try_for_each(|at| findings.add(TreePath::try_from(format!("{long}/{at}")).unwrap(), Found::Folder));
    assert!(matches!(outcome, Err(ImportError::TooMany)));
    assert!(findings.entries.len() < MAX_ENTRIES, "long names count by their length");
}

#[test]
fn other_files_are_called_what_they_are() {
    for (bytes, word) in
        [(&b"PK\x07\x08PK\x03\x04"[..], "one part of a zip archive"), (b"", "empty"), (b"#!/bin/sh\n", "no archive")]
    {
        let error = read_archive(bytes).unwrap_err();
        assert!(matches!(error, ImportError::Format { found, .. } if found == word), "{error}");
    }
    let missing = archive::import(Path::new("/nonexistent/x.tar"), Path::new("/tmp"), 1);
    assert!(matches!(missing, Err(ImportError::Io { .. })));
}

#[test]
fn a_folder_keeps_its_history_to_itself() {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join(".git/objects")).unwrap();
    fs::write(folder.path().join(".git/config"), b"secret").unwrap();
    fs::create_dir_all(folder.path().join("vendor/.svn")).unwrap();
    fs::write(folder.path().join("vendor/x"), b"1").unwrap();
    fs::write(folder.path().join(".gitignore"), b"*.o\n").unwrap();
    assert_eq!(paths(&directory::import(folder.path()).unwrap()), [".gitignore", "vendor/x"]);
}

#[test]
fn what_gitignore_names_is_left_out() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write(".gitignore", "# comment\n*.o\n!keep.o\n/build/\n/only-here\ntarget/\n\\!odd\ndocs/**/*.pdf\n[\n");
    write("lib/.gitignore", "!*.o\nlocal\n");
    for kept in [
        ".hidden",
        "keep.o",
        "lib/again.o",
        "lib/deep/again.o",
        "lib/only-here",
        "lib/build/x",
        "src/local",
        "target.c",
        "docs/x.txt",
    ] {
        write(kept, "kept");
    }
    for left in [
        "a.o",
        "src/b.o",
        "build/x",
        "only-here",
        "target/x",
        "lib/target/x",
        "lib/local",
        "!odd",
        "docs/a/b/c.pdf",
        ".git/config",
    ] {
        write(left, "left out");
    }
    let pipe = folder.path().join("a-pipe.o");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let imported = directory::import(folder.path()).unwrap();
    let expected = [
        ".gitignore",
        ".hidden",
        "docs/x.txt",
        "keep.o",
        "lib/.gitignore",
        "lib/again.o",
        "lib/build/x",
        "lib/deep/again.o",
        "lib/only-here",
        "src/local",
        "target.c",
    ];
    let files: Vec<&str> = imported.manifest.files().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(files, expected);
    assert_eq!(imported.left_out, 11, "ten, and a pipe that is not refused because it is no part of the source");
    // A link in the place of the file is not followed.
    fs::remove_file(folder.path().join(".gitignore")).unwrap();
    fs::remove_file(pipe).unwrap();
    symlink("lib/.gitignore", folder.path().join(".gitignore")).unwrap();
    assert!(paths(&directory::import(folder.path()).unwrap()).contains(&"a.o"));
}

#[test]
fn a_folder_with_special_files_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a"), b"1").unwrap();
    let refused = |expected: Refusal| match directory::import(folder.path()) {
        Err(ImportError::Refused { name, why }) if why == expected => name,
        other => panic!("{other:?}"),
    };
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert_eq!(refused(Refusal::Special("pipe")), "pipe");
    fs::remove_file(&pipe).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    assert_eq!(refused(Refusal::Special("socket")), "socket");
    drop(socket);
    fs::remove_file(folder.path().join("socket")).unwrap();
    symlink("/etc/passwd", folder.path().join("link")).unwrap();
    let outside = Refusal::Link { target: "/etc/passwd".to_owned(), error: PathError::Outside };
    assert_eq!(refused(outside), "link");
    fs::remove_file(folder.path().join("link")).unwrap();
    assert!(directory::import(folder.path()).is_ok());

    let empty = TempDir::new().unwrap();
    assert!(matches!(directory::import(empty.path()), Err(ImportError::Empty)));
}

#[test]
fn a_file_that_changed_since_is_noticed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"before").unwrap();
    let imported = directory::import(folder.path()).unwrap();
    let digest = Digest::of(b"before");
    assert_eq!(imported.read(&digest).unwrap().as_deref(), Some(b"before".as_slice()));
    for now in [&b"behind"[..], b"b"] {
        fs::write(&path, now).unwrap();
        assert_eq!(imported.read(&digest).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    fs::remove_file(&path).unwrap();
    symlink("/dev/zero", &path).unwrap();
    assert!(imported.read(&digest).is_err(), "a link is not followed");
}

#[tokio::test]
async fn the_path_says_which_it_is() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("x"), b"1").unwrap();
    let packed = TempDir::new().unwrap();
    let archive = packed.path().join("no-suffix");
    fs::write(&archive, gzip(&Tar::default().file("top/x", b"1").end())).unwrap();
    let (one, two) = (import(folder.path()).await.unwrap(), import(&archive).await.unwrap());
    assert_eq!(one.manifest.id(), two.manifest.id());
    assert!(matches!(import(Path::new("/nonexistent")).await, Err(ImportError::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bytes of a good archive changed anywhere give a tree or an error, and never a panic.
    #[test]
    fn changed_archives_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = Tar::default()
            .pax(EntryType::XGlobalHeader, &[("comment", "x")])
            .folder("t/")
            .long(EntryType::GNULongName, &"t/n".repeat(60))
            .file("short", b"1234")
            .pax(EntryType::XHeader, &[("path", "t/p"), ("size", "2")])
            .file("p", b"12")
            .link(EntryType::Symlink, "t/l", "p")
            .end();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(imported) = read_archive(&bytes) {
            let again = Manifest::decode(&imported.manifest.encode());
            prop_assert_eq!(again, Ok(imported.manifest));
        }
        for packed in [gzip(&bytes), bz2(&bytes), zst(&bytes)] {
            let _ = read_archive(&packed);
        }
    }
}
