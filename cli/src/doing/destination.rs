//! Where files are to go, tried before anything is asked for: a build for a folder that cannot take it is lost time.
//!
//! Trying is writing: rights, a file system that is read-only and one that is full are told by the attempt itself. Nothing stays
//! of it, and nothing of the person's is touched.

use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use std::io::{self, Write as _};
use std::path::Path;

/// Written to see whether there is any room.
const TRIAL: [u8; 4_096] = [0; 4_096];

/// Refuses a folder for files that cannot be written to now; `None` is the folder in which the command was typed.
pub(super) fn check(output: Option<&Path>) -> Result<(), Failure> {
    let output = output.unwrap_or_else(|| Path::new("."));
    let path = std::path::absolute(output).map_err(|error| refused(output, &error))?;
    // What is missing is made, from the nearest that is there; files are gathered beside the last of it first.
    for folder in path.ancestors() {
        match folder.metadata() {
            Ok(found) if !found.is_dir() => {
                let error = io::Error::new(io::ErrorKind::NotADirectory, "something that is no folder stands there");
                return Err(refused(folder, &error));
            }
            Ok(_) => {
                probe(folder).map_err(|error| refused(folder, &error))?;
                let beside = folder.parent().filter(|_| folder == path && output != Path::new("."));
                return beside.map_or(Ok(()), |parent| probe(parent).map_err(|error| refused(parent, &error)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(folder, &error)),
        }
    }
    Ok(())
}

/// Writes something into a folder, and takes it away again.
fn probe(folder: &Path) -> io::Result<()> {
    let mut trial = tempfile::Builder::new().prefix(".node-").tempfile_in(folder).map_err(bare)?;
    trial.as_file_mut().write_all(&TRIAL)
}

/// Without the name of the trial, which nobody has chosen.
fn bare(error: io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn refused(folder: &Path, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, or give another with `--output DIR`"
        }
        _ => "look at the folder and its rights, or give another with `--output DIR`",
    };
    let what = format!("the files cannot go to {}: {error}", folder.display());
    Failure::new(Exit::Usage, Said::with_next(what, next))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("file"), "mine").unwrap();
        for name in ["new", "folder", "folder/new", "missing/new"] {
            assert!(check(Some(&at(name))).is_ok(), "{name}");
        }
        let told = |name: &str| check(Some(&at(name))).unwrap_err().said.what;
        assert!(told("file").contains("something that is no folder stands there"), "{}", told("file"));
        assert!(told("file/new").contains("Not a directory"), "{}", told("file/new"));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
        assert_eq!(std::fs::read_dir(at("folder")).unwrap().count(), 0);
    }
}
