//! Archives that are almost right, in every packing: bits turned, bytes cut out, pieces doubled, before packing and after it.
//!
//! Whatever comes of one is refused, or a tree that follows every rule of trees and is no larger than it may grow to; nothing
//! panics and nothing takes forever.

use super::*;
use proptest::sample::Index;

const GROWN_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Drop(Index, u8),
    Double(Index, u16),
}

fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let change = prop_oneof![
        3 => (at(), 1u8..).prop_map(|(at, bits)| Change::Flip(at, bits)),
        3 => (at(), prop::sample::select(vec![0, b'/', b'.', b'7', 0x7f, 0x80, 0xff])).prop_map(|(at, to)| Change::Set(at, to)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), 1u8..).prop_map(|(at, count)| Change::Drop(at, count)),
        1 => (at(), 1u16..1_024).prop_map(|(at, count)| Change::Double(at, count)),
    ];
    prop::collection::vec(change, 0..most)
}

fn damage(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        match change {
            Change::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Change::Set(at, to) => bytes[at.index(length)] = *to,
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Drop(at, count) => {
                let from = at.index(length);
                bytes.drain(from..length.min(from + usize::from(*count)));
            }
            Change::Double(at, count) => {
                let from = at.index(length);
                let piece = bytes[from..length.min(from + usize::from(*count))].to_vec();
                bytes.splice(from..from, piece);
            }
        }
    }
}

fn tar_of_everything() -> Vec<u8> {
    Tar::default()
        .folder("top/")
        .file("top/README", b"read me\n")
        .link(EntryType::Symlink, "top/link", "README")
        .pax(EntryType::XHeader, &[("path", "top/a long name"), ("mtime", "1.5")])
        .file("top/short", &[7; 3_000])
        .long(EntryType::GNULongName, &format!("top/{}", "n".repeat(150)))
        .file("top/n", b"long")
        .end()
}

fn zip_of_everything() -> Vec<u8> {
    zips::zip(&[zips::part("top/README", b"read me\n"), zips::part("top/more", &[9; 2_000])])
}

type Pack = fn(&[u8]) -> Vec<u8>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_almost_an_archive_is_refused_or_a_tree(
        which in any::<Index>(),
        inside in changes(4),
        outside in changes(2),
    ) {
        let as_it_is: Pack = <[u8]>::to_vec;
        let (mut bytes, packs): (_, &[Pack]) = match which.index(6) {
            0 => (zip_of_everything(), &[as_it_is]),
            _ => (tar_of_everything(), &[as_it_is, gzip, xz, bz2, zst]),
        };
        damage(&mut bytes, &inside);
        let mut packed = packs[which.index(packs.len())](&bytes);
        damage(&mut packed, &outside);
        if let Ok(imported) = read_archive_within(&packed, GROWN_BYTES) {
            prop_assert_eq!(&Manifest::decode(&imported.manifest.encode()).unwrap(), &imported.manifest);
            let grown: u64 = imported.manifest.files().map(|(.., size, _)| size).sum();
            prop_assert!(grown <= GROWN_BYTES, "{} bytes", grown);
        }
        if inside.is_empty() && outside.is_empty() {
            prop_assert!(read_archive_within(&packed, GROWN_BYTES).is_ok(), "undamaged, it is a tree");
        }
    }
}
