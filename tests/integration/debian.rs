//! Real sources: the upstream archives that the distribution's source packages carry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Where the upstream archive of a source package is, downloaded once a build folder, or why there is none.
pub(crate) fn archive(package: &str) -> Result<PathBuf, String> {
    // One at a time: they share the lists of what there is.
    static LISTS: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);
    let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian").join(package);
    if let Some(archive) = found(&kept, package) {
        return Ok(archive);
    }
    let lists = lists.get_or_insert_with(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let downloaded = download(lists.path(), package)?;
    fs::create_dir_all(&kept).unwrap();
    // Another run of the tests may have been faster: its archive is as good.
    let _faster = fs::rename(&downloaded, kept.join(downloaded.file_name().unwrap()));
    found(&kept, package).ok_or_else(|| "the source package cannot be kept".to_owned())
}

fn found(folder: &Path, package: &str) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(&format!("{package}_")) && name.contains(".orig.tar.") && !name.ends_with(".asc")
    })
}

fn download(lists: &Path, package: &str) -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lib.sh");
    let words = ["-c", "set -eu; left_out=(); source \"$0\"; debian_source \"$1\" \"$2\"", script];
    let mut bash = Command::new("bash");
    let bash = bash.args(words).arg(lists).arg(package).stdin(Stdio::null());
    let ran = bash.output().map_err(|error| error.to_string())?;
    match found(&lists.join("download"), package) {
        Some(archive) if ran.status.success() => Ok(archive),
        _ => {
            let said = String::from_utf8_lossy(&ran.stderr);
            Err(format!("{package}'s source cannot be had: {}", said.lines().last().unwrap_or("no apt-get")))
        }
    }
}
