//! The hostile set: archives that attack whoever unpacks them, each by name, each refused. Tar cases are tried plain and in
//! every compression.

use super::zips::{Part, part, zip, zip_with};
use super::*;

fn said(bytes: &[u8]) -> String {
    match read_archive(bytes) {
        Ok(imported) => format!("taken in: {:?}", paths(&imported)),
        Err(error) => error.to_string(),
    }
}

/// The case, the archive, and what its refusal says.
type Case = (&'static str, Vec<u8>, &'static str);

fn tars() -> Vec<Case> {
    let tar = Tar::default;
    let disagreeing = tar().pax(EntryType::XHeader, &[("size", "1024")]).file("x", b"1").file("hidden", b"2");
    let two_names = tar().long(EntryType::GNULongName, "one").pax(EntryType::XHeader, &[("path", "two")]);
    vec![
        ("a path upwards", tar().file("../x", b"1").end(), "`../x` cannot be part of a source"),
        ("a path upwards from inside", tar().file("a/../../x", b"1").end(), "`a/../../x`"),
        ("an absolute path", tar().file("/etc/cron.d/x", b"1").end(), "its path is absolute"),
        ("a terminal's escape in a name", tar().file("a\u{1b}[31m", b"1").end(), "`a\\u{1b}[31m`"),
        ("a link out of the tree", tar().link(EntryType::Symlink, "a", "../b").end(), "it is a link to `../b`"),
        ("an absolute link", tar().link(EntryType::Symlink, "a", "/etc/shadow").end(), "it is a link to `/etc/shadow`"),
        (
            "a link, then a file through it",
            tar().link(EntryType::Symlink, "a", "b").file("a/x", b"1").file("c", b"").end(),
            "the source is no tree",
        ),
        ("a hard link", tar().file("a", b"1").link(EntryType::Link, "x", "/etc/shadow").end(), "it is a hard link"),
        ("a device", tar().link(EntryType::Char, "x", "").end(), "it is a device"),
        ("a pipe", tar().link(EntryType::Fifo, "x", "").end(), "it is a pipe"),
        ("sizes of PAX and ustar that differ", disagreeing.end(), "its headers disagree about its size"),
        ("names of GNU and PAX that differ", two_names.file("x", b"1").end(), "its headers disagree about its name"),
        ("a name twice", tar().file("t/a", b"1").file("t/b", b"").file("t/a", b"2").end(), "it stands there twice"),
        ("a file that is also a folder", tar().file("a", b"1").file("a/b", b"2").file("c", b"").end(), "no tree"),
        ("a name that is no text", tar().entry(EntryType::Regular, b"\xff", b"", |_| {}).end(), "not UTF-8"),
        ("a bomb of zeros", tar().file("zeros", &vec![0; 8 << 20]).end(), "more than"),
        (
            "a second archive behind the end",
            [tar().file("a", b"1").end(), tar().file("b", b"2").end()].concat(),
            "damaged",
        ),
        ("a size beyond its end", tar().entry(EntryType::Regular, b"x", b"", |h| h.set_size(1 << 40)).end(), "damaged"),
    ]
}

#[test]
fn hostile_tars_are_refused_in_every_compression() {
    type Pack = fn(&[u8]) -> Vec<u8>;
    let packings: [(&str, Pack); 5] = [("tar", <[u8]>::to_vec), ("gz", gzip), ("bz2", bz2), ("xz", xz), ("zst", zst)];
    for (case, tar, words) in tars() {
        for (packing, pack) in packings {
            // Unpacked, zeros are no bomb: they take as much room as they are.
            if (case, packing) == ("a bomb of zeros", "tar") {
                continue;
            }
            let said = said(&pack(&tar));
            assert!(said.contains(words), "{case}, {packing}: {said}");
        }
    }
}

fn zips() -> Vec<Case> {
    let with = |change: fn(&mut Part)| part("a", b"12").with(change);
    let link = |target: &[u8]| part("a", target).with(|part| part.mode = 0o120_777);
    let large = |sizes: &[u64]| {
        let fields: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        [&1u16.to_le_bytes()[..], &(fields.len() as u16).to_le_bytes(), &fields].concat()
    };
    let other_path = [&0x7075u16.to_le_bytes()[..], &[6, 0], b"\x01\0\0\0\0b"].concat();
    let alone = [part("first", b"1")];
    let first = || alone[0].clone();
    vec![
        ("a path upwards", zip(&[part("../x", b"1")]), "`../x` cannot be part of a source"),
        ("a path upwards from inside", zip(&[part("a/../../x", b"1")]), "`a/../../x`"),
        ("an absolute path", zip(&[part("/etc/cron.d/x", b"1")]), "its path is absolute"),
        ("a path of another system", zip(&[part("..\\x", b"1")]), "`..\\\\x`"),
        ("a terminal's escape in a name", zip(&[part("a\u{1b}[31m", b"1")]), "`a\\u{1b}[31m`"),
        ("a name that is no text", zip(&[with(|part| part.name = b"\xff".to_vec())]), "not UTF-8"),
        ("a link out of the tree", zip(&[link(b"../b")]), "it is a link to `../b`"),
        ("an absolute link", zip(&[link(b"/etc/shadow")]), "it is a link to `/etc/shadow`"),
        ("a link of a megabyte", zip(&[link(&[b'a'; 1 << 20])]), "it is no file and has content"),
        (
            "a link, then a file through it",
            zip(&[link(b"b"), part("a/x", b"1"), part("c", b"")]),
            "the source is no tree",
        ),
        ("a device", zip(&[with(|part| part.mode = 0o020_644)]), "it is a device"),
        ("a pipe", zip(&[with(|part| part.mode = 0o010_644)]), "it is a pipe"),
        ("a socket", zip(&[with(|part| part.mode = 0o140_644)]), "it is a socket"),
        ("a folder with content", zip(&[part("a/", b"12").with(|part| part.mode = 0o040_755)]), "has content"),
        ("a file by mode and a folder by name", zip(&[part("a/", b"")]), "its headers disagree about its sort"),
        ("a name twice", zip(&[part("a", b"1"), part("a", b"2")]), "it stands there twice"),
        ("a file that is also a folder", zip(&[part("a", b"1"), part("a/b", b"2"), part("c", b"")]), "no tree"),
        (
            "another name in the header",
            zip(&[with(|part| part.other_name = Some(b"b".to_vec()))]),
            "disagree about its name",
        ),
        (
            "another name in an extra field",
            zip(&[part("a", b"1").with(|part| part.extra[0] = other_path)]),
            "disagree about its name",
        ),
        (
            "another size in the header",
            zip(&[with(|part| part.headed = Some((crc32fast::hash(b"12"), 1, 1)))]),
            "about its size",
        ),
        ("another sum in the header", zip(&[with(|part| part.headed = Some((7, 2, 2)))]), "about its size"),
        ("another packing in the header", zip(&[with(|part| part.method[1] = 8)]), "about its compression"),
        (
            "a wrong sum",
            zip(&[with(|part| (part.listed, part.headed) = (Some((7, 2, 2)), Some((7, 2, 2))))]),
            "the sum of a file is wrong",
        ),
        ("stored with another size", zip(&[with(|part| part.listed = Some((7, 2, 1)))]), "about its size"),
        (
            "longer than announced",
            zip(&[part("a", b"123").deflated().with(|part| {
                let sizes = Some((crc32fast::hash(b"123"), 5, 2));
                (part.listed, part.headed) = (sizes, sizes);
            })]),
            "longer than announced",
        ),
        ("encrypted", zip(&[with(|part| part.flags = 1)]), "it is encrypted"),
        ("strongly encrypted", zip(&[with(|part| part.flags = 1 << 6)]), "it is encrypted"),
        ("packed by a method of its own", zip(&[with(|part| part.method = [12, 12])]), "it is packed by method 12"),
        (
            "a large size that nothing asks for",
            zip(&[part("a", b"12").with(|part| part.extra[0] = large(&[1 << 40]))]),
            "about its size",
        ),
        (
            "a large size that is a lie",
            zip(&[part("a", b"12").with(|part| {
                part.listed = Some((crc32fast::hash(b"12"), 2, u32::MAX));
                part.extra[0] = large(&[1 << 40]);
            })]),
            "about its size",
        ),
        (
            "a large place beyond the end",
            zip(&[part("a", b"12").with(|part| {
                part.at = Some(u32::MAX);
                part.extra[0] = large(&[u64::MAX - 3]);
            })]),
            "lies over another entry or the directory",
        ),
        (
            "one content for two entries",
            zip(&[first(), part("second", b"1").with(|part| part.at = Some(0))]),
            "lies over another entry",
        ),
        ("a bomb of zeros", zip(&[part("zeros", &vec![0; 8 << 20]).deflated()]), "more than"),
        ("bytes before the first entry", [b"#!/bin/sh\n".to_vec(), zip(&alone)].concat(), "no archive"),
        ("a gap before the first entry", zip(&[first().with(|part| part.at = Some(3))]), "something precedes"),
        ("bytes behind the end", [zip(&alone), b"more".to_vec()].concat(), "its end is not marked"),
        ("an end inside the comment", zip_with(&alone, &zip(&[part("b", b"2")]), |_| {}), "its end is marked twice"),
        (
            "more entries than announced",
            zip_with(&[first(), part("b", b"2")], b"", |end| (end[8], end[10]) = (1, 1)),
            "more than it says",
        ),
        ("fewer entries than announced", zip_with(&alone, b"", |end| (end[8], end[10]) = (2, 2)), "cut off"),
        ("the first of two parts", zip_with(&alone, b"", |end| end[4] = 1), "one of several parts"),
        ("a directory elsewhere", zip_with(&alone, b"", |end| end[16] ^= 1), "not where its end says"),
        (
            "a large end that is missing",
            zip_with(&alone, b"", |end| end[16..20].fill(0xff)),
            "the end of a large archive is missing",
        ),
    ]
}

#[test]
fn hostile_zips_are_refused() {
    for (case, zip, words) in zips() {
        let said = said(&zip);
        assert!(said.contains(words), "{case}: {said}");
    }
}

/// Two ends of a large archive, of which a reader of the old one sees another archive than a reader of the new one.
#[test]
fn two_ends_that_disagree_are_refused() {
    let mut whole = zip(&[part("a", b"1"), part("b", b"2")]);
    let end = whole.split_off(whole.len() - 22);
    let number = |at: usize| u64::from(u32::from_le_bytes(end[at..at + 4].try_into().unwrap()));
    let large_at = whole.len() as u64;
    let large = |count: u64| {
        let mut large = b"PK\x06\x06".to_vec();
        large.extend(44u64.to_le_bytes());
        large.extend([45, 0, 45, 0]);
        large.extend([0; 8]);
        for number in [count, count, number(12), number(16)] {
            large.extend(number.to_le_bytes());
        }
        large.extend(b"PK\x06\x07\0\0\0\0");
        large.extend(large_at.to_le_bytes());
        large.extend(1u32.to_le_bytes());
        large
    };
    assert_eq!(paths(&read_archive(&[&whole[..], &large(2), &end].concat()).unwrap()), ["a", "b"]);
    assert!(said(&[&whole[..], &large(1), &end].concat()).contains("its two ends disagree"));
}
