//! What time a process sees, changed while it runs: libfaketime between the program and the system's clock.
//!
//! Only the wall clock is changed. Timers and the monotonic clock go on as they are, as they do when an administrator sets the
//! time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Below these folders or one level deeper, distributions keep the library.
const PLACES: [&str; 2] = ["/usr/lib", "/usr/lib64"];
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    /// Holds by how much the clock is wrong.
    file: PathBuf,
}

/// Where the library is, if it is installed.
pub(crate) fn library() -> Option<PathBuf> {
    let below = |place: &str| fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    PLACES
        .iter()
        .flat_map(|place| below(place).chain([PathBuf::from(place)]))
        .map(|folder| folder.join(LIBRARY))
        .find(|path| path.is_file())
}

impl Clock {
    /// A clock that is right, kept in `folder`.
    pub(crate) fn right(library: &Path, folder: &Path, name: &str) -> Self {
        let clock = Self { library: library.to_owned(), file: folder.join(format!("{name}.clock")) };
        clock.set(0);
        clock
    }

    /// Makes it wrong by so many seconds; by none, right.
    pub(crate) fn set(&self, by_s: i64) {
        let scratch = self.file.with_extension("part");
        fs::write(&scratch, format!("{by_s:+}\n")).unwrap();
        fs::rename(scratch, &self.file).unwrap();
    }

    /// Lets a command see this clock.
    pub(crate) fn show_to(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1");
        for setting in ["FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_DISABLE_SHM", "NO_FAKE_STAT"] {
            command.env(setting, "1");
        }
    }
}

#[test]
fn a_process_sees_the_clock_that_is_set() {
    let Some(library) = library() else {
        return crate::left_out("clocks that jump", "no libfaketime; `apt-get install libfaketime` has it");
    };
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::right(&library, folder.path(), "mine");
    let seen = || {
        let mut command = Command::new("date");
        clock.show_to(command.arg("+%s"));
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().parse::<i64>().unwrap()
    };
    let right = seen();
    clock.set(-3_600);
    let wrong = seen();
    assert!((3_590..=3_600).contains(&(right - wrong)), "{right} and then {wrong}");
}
