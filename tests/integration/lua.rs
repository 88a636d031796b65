//! Lua's real source: the upstream archive that the distribution's source package carries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the archive is, downloaded once a build folder, or why there is none.
pub(crate) fn archive() -> Result<PathBuf, String> {
    static ARCHIVE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    ARCHIVE.get_or_init(|| found(&kept()).map_or_else(download, Ok)).clone()
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("lua-source")
}

fn found(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("lua5.4_") && name.contains(".orig.tar.") && !name.ends_with(".asc")
    })
}

fn download() -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lib.sh");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let words = ["-c", "set -eu; left_out=(); source \"$0\"; lua_source \"$1\"", script];
    let mut bash = Command::new("bash");
    let ran = bash.args(words).arg(folder.path()).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let download = folder.path().join("download");
    if !ran.status.success() || found(&download).is_none() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("the source package cannot be had: {}", said.lines().last().unwrap_or("no apt-get")));
    }
    // Another run of the tests may have been faster: its archive is as good.
    let _faster = fs::rename(&download, kept());
    found(&kept()).ok_or_else(|| "the source package cannot be kept".to_owned())
}
