//! Sources from the package registries, by their ordinary clients, kept in the build folder and compared with digests.

use protocol::digest::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// SQLite's amalgamation, in the crate whose build script compiles it.
const SQLITE: (&str, &str) =
    ("libsqlite3-sys-0.39.1.crate", "14a5f01b87b92705d07b433c06f96cbc764637d81a0bffb5734ce17cf0f9a2b3");
/// PyPy's toolchain and the library that it stands on.
const SDISTS: [(&str, &str); 2] = [
    ("rpython-0.2.1.tar.gz", "803933038f3744538fc04bca9d5be0102eaa80fdc26dcb376b8178e0fa66e90b"),
    ("py-1.11.0.tar.gz", "51c75c4126074b472f746a24399ad32f6053d1b34b68d2fa41e558e6f4a98719"),
];

/// Where the archive with the amalgamation is, or why it cannot be had.
pub(crate) fn amalgamation() -> Result<PathBuf, String> {
    let kept = folder("sqlite").join(SQLITE.0);
    if !kept.exists() {
        let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let manifest = "[package]\nname = \"amalgamation\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\npath = \"lib.rs\"\n\
                        [dependencies]\nlibsqlite3-sys = { version = \"=0.39.1\", default-features = false }\n[workspace]\n";
        fs::write(project.path().join("Cargo.toml"), manifest).unwrap();
        fs::write(project.path().join("lib.rs"), "").unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        ran(cargo.args(["fetch", "--quiet"]).current_dir(project.path()))?;
        let fetched = downloaded_crate().ok_or("cargo keeps it in no place that is known")?;
        fs::copy(fetched, &kept).unwrap();
    }
    checked(kept, SQLITE.1)
}

/// The crate's archive in cargo's own folder, below one for each registry.
fn downloaded_crate() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/cache")).ok()?;
    registries.map(|entry| entry.unwrap().path().join(SQLITE.0)).find(|path| path.exists())
}

/// A folder with PyPy's toolchain and `py` beside it, and `target` as the file `name`; or why it cannot be had. `python` is the
/// Python 2.7 whose pip downloads them: theirs is the only one that can read what they say of themselves.
pub(crate) fn toolchain(python: &Path, into: &Path, name: &str, target: &str) -> Result<(), String> {
    let kept = folder("sdists");
    if SDISTS.iter().any(|(file, _)| !kept.join(file).exists()) {
        let mut pip = Command::new(python);
        let words = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest"];
        ran(pip.args(words).arg(&kept).args(["rpython==0.2.1", "py==1.11.0"]))?;
    }
    for ((file, digest), place) in SDISTS.into_iter().zip(["", "py"]) {
        let archive = checked(kept.join(file), digest)?;
        let place = into.join(place);
        fs::create_dir_all(&place).unwrap();
        ran(Command::new("tar")
            .args(["--extract", "--strip-components", "1", "--file"])
            .arg(archive)
            .current_dir(place))?;
    }
    fs::write(into.join(name), target).unwrap();
    Ok(())
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn checked(path: PathBuf, digest: &str) -> Result<PathBuf, String> {
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    assert_eq!(Digest::of(&bytes).to_string(), digest, "{} is not what it was", path.display());
    Ok(path)
}

fn ran(command: &mut Command) -> Result<(), String> {
    let ran = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() { Ok(()) } else { Err(said.lines().last().unwrap_or("it failed").to_owned()) }
}
