//! Every decoder that takes bytes from a peer, given what is almost right: words cut short, lengthened, spliced with others,
//! with bits turned and lengths that lie. Whatever comes of it is refused, or is exactly what the bytes say; nothing panics.
//! Commands that come out whole are obeyed by a farm, with every invariant checked.
//!
//! `MUTANTS=n` makes so many instead of 20,000.

#[path = "../../../tests/damage.rs"]
mod damage;

use crate::golden::Words;
use crate::kit::*;
use damage::{changes, damage};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use protocol::codec;
use protocol::farm::command::Entry;
use protocol::recipe::Recipe;
use std::cell::Cell;

const MUTANTS: u32 = 20_000;

const RECIPES: [&str; 3] = [
    include_str!("../../../node/recipes/hello.toml"),
    include_str!("../../../node/recipes/pypy.toml"),
    include_str!("../../../node/recipes/rpython.toml"),
];

/// What CBOR says of lengths, breaks and simple values.
const TELLING: [u8; 13] = [0x00, 0x17, 0x18, 0x1b, 0x3b, 0x5f, 0x7f, 0x9b, 0xbb, 0xf6, 0xf7, 0xfb, 0xff];

/// Tries `test` with mutants of `words`, given by their place in the list.
fn with_mutants(words: &[&[u8]], test: impl Fn(usize, &[u8])) {
    let cases = std::env::var("MUTANTS").map_or(MUTANTS, |text| text.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mutants = (any::<Index>(), changes(TELLING.to_vec(), 1..4));
    let ran = TestRunner::new(config).run(&mutants, |(which, changes)| {
        let which = which.index(words.len());
        let mut bytes = words[which].to_vec();
        damage(&mut bytes, &changes, words);
        test(which, &bytes);
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn what_is_almost_a_word_is_refused_or_is_what_it_says() {
    let Words { bytes, rereads } = Words::all();
    let (names, words): (Vec<_>, Vec<&[u8]>) = bytes
        .iter()
        .filter(|(name, _)| rereads.contains_key(*name))
        .map(|(name, bytes)| (name, bytes.as_slice()))
        .unzip();
    let (read, refused) = (Cell::new(0_u32), Cell::new(0_u32));
    with_mutants(&words, |which, mutant| match rereads[names[which]](mutant) {
        Some(again) => {
            // A ticket may be typed in capital letters.
            assert!(again == mutant || names[which] == "ticket.text", "{}", names[which]);
            read.set(read.get() + 1);
        }
        None => refused.set(refused.get() + 1),
    });
    assert!(read.get() > 100 && refused.get() > read.get(), "{} read, {} refused", read.get(), refused.get());
}

#[test]
fn a_command_that_is_almost_right_leaves_the_farm_whole() {
    let words = Words::all().bytes;
    let commands: Vec<&[u8]> =
        words.iter().filter(|(name, _)| name.starts_with("entry.")).map(|(_, bytes)| bytes.as_slice()).collect();
    let obeyed = Cell::new(0_u32);
    with_mutants(&commands, |_, mutant| {
        let Ok(entry) = codec::decode::<Entry>(mutant, usize::MAX) else { return };
        let mut kit = Kit::new();
        let job = kit.submit(&Ask::by(1).mail(&["me"]));
        kit.grant(job, 10);
        // The kit checks every invariant, and that what is rejected changes nothing.
        if kit.apply(entry.command).reply.is_ok() {
            obeyed.set(obeyed.get() + 1);
        }
    });
    assert!(obeyed.get() > 20, "{} were obeyed: they try too little", obeyed.get());
}

#[test]
fn what_is_almost_a_recipe_is_refused_or_says_the_same_when_it_travels() {
    let blobs: Vec<Vec<u8>> = RECIPES.iter().map(|text| Recipe::parse(text).unwrap().encode()).collect();
    let texts: Vec<&[u8]> = RECIPES.iter().map(|text| text.as_bytes()).collect();
    let (read, travelled) = (Cell::new(0_u32), Cell::new(0_u32));
    with_mutants(&texts, |_, mutant| {
        let Ok(recipe) = Recipe::parse(&String::from_utf8_lossy(mutant)) else { return };
        assert_eq!(Recipe::decode(&recipe.encode()).unwrap(), recipe);
        read.set(read.get() + 1);
    });
    with_mutants(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>(), |_, mutant| {
        let Ok(recipe) = Recipe::decode(mutant) else { return };
        assert_eq!(recipe.encode(), mutant);
        travelled.set(travelled.get() + 1);
    });
    assert!(read.get() > 100 && travelled.get() > 100, "{} read, {} travelled", read.get(), travelled.get());
}
