//! Archives that are almost right, in every packing: bits turned, bytes cut out, pieces doubled, before packing and after it.
//!
//! Whatever comes of one is refused, or a tree that follows every rule of trees and is no larger than it may grow to; nothing
//! panics and nothing takes forever.

#[path = "../../../../../tests/damage.rs"]
mod damage;

use super::*;
use damage::{changes, damage};
use proptest::sample::Index;

const GROWN_BYTES: u64 = 1 << 20;

/// What archives say of paths, kinds and numbers.
const TELLING: [u8; 7] = [0, b'/', b'.', b'7', 0x7f, 0x80, 0xff];

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
        inside in changes(TELLING.to_vec(), 0..4),
        outside in changes(TELLING.to_vec(), 0..2),
    ) {
        let as_it_is: Pack = <[u8]>::to_vec;
        let (mut bytes, packs): (_, &[Pack]) = match which.index(6) {
            0 => (zip_of_everything(), &[as_it_is]),
            _ => (tar_of_everything(), &[as_it_is, gzip, xz, bz2, zst]),
        };
        let others = [tar_of_everything(), zip_of_everything()];
        let others = others.each_ref().map(Vec::as_slice);
        damage(&mut bytes, &inside, &others);
        let mut packed = packs[which.index(packs.len())](&bytes);
        damage(&mut packed, &outside, &others);
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
