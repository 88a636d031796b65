//! A build that nobody holds any more: whoever cannot fetch it tells the farm, which builds it again for him.

use crate::neighbours::{GREETING, Made, Neighbours, Transport};
use serde_json::Value;
use std::fs;
use std::path::Path;

#[test]
fn a_build_whose_every_copy_is_lost_is_built_again() {
    is_built_again_without(|_, _| true);
}

#[test]
fn the_same_when_its_manifest_is_left() {
    is_built_again_without(|file, manifest| file != manifest);
}

fn is_built_again_without(loses: impl Fn(&str, &str) -> bool) {
    let neighbours = Neighbours::settle(Transport::Both);
    let made = neighbours.build("first", GREETING);
    for holder in ["coordinator", "builder"] {
        let store = neighbours.farm.folder().join(holder).join("store");
        let lost = remove_files(&store, &|file| loses(file, &made.manifest));
        assert!(lost >= 1, "{holder} held nothing");
    }
    let ran = neighbours.ask(&neighbours.farm.home("later"), &neighbours.founding, GREETING);
    let again = ran.ended_with(0).json();
    assert_eq!((&again["outcome"], Made::of(&again).key), (&Value::from("built"), made.key));
    assert_eq!(Made::of(&again).says(), GREETING);
    assert!(ran.stderr.contains("cannot be fetched"), "{}", ran.stderr);
}

/// Removes the files below a folder that `loses` names, and says how many there were.
fn remove_files(folder: &Path, loses: &impl Fn(&str) -> bool) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let removed = entries.map(|entry| {
        if entry.file_type().unwrap().is_dir() {
            return remove_files(&entry.path(), loses);
        }
        let lost = loses(entry.file_name().to_str().unwrap());
        if lost {
            fs::remove_file(entry.path()).unwrap();
        }
        usize::from(lost)
    });
    removed.sum()
}
