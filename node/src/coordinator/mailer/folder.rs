//! Mail as files: exactly one finished `.eml` per notice.
//!
//! The file is named by the notice, written under a temporary name in the same directory, synced, renamed, and the directory
//! synced. A file that is there already was finished: nothing is written again. Whatever dies in between leaves at most a
//! hidden `.part` file, which the next attempt overwrites.

use super::mail::Mail;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A directory that takes mails.
#[derive(Clone, Debug)]
pub struct Folder {
    directory: PathBuf,
}

/// The directory does not take mails.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
}

impl Folder {
    /// Opens `directory`, made readable for its owner only where it does not exist: mails hold addresses.
    ///
    /// # Errors
    ///
    /// [`FolderError`] when it cannot be made or is no directory.
    pub fn open(directory: PathBuf) -> Result<Self, FolderError> {
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory) {
            Ok(()) => Ok(Self { directory }),
            Err(source) => Err(FolderError { path: directory, source }),
        }
    }

    /// Stores `mail`; when this returns, the file survives a power cut.
    ///
    /// # Errors
    ///
    /// [`FolderError`] names the path that could not be written.
    pub async fn store(&self, mail: &Mail) -> Result<(), FolderError> {
        let (directory, mail) = (self.directory.clone(), mail.clone());
        let path = directory.clone();
        tokio::task::spawn_blocking(move || store(&directory, &mail))
            .await
            .unwrap_or_else(|stopped| Err(FolderError { path, source: io::Error::other(stopped) }))
    }
}

fn store(directory: &Path, mail: &Mail) -> Result<(), FolderError> {
    let finished = directory.join(format!("{}.eml", mail.notice));
    let part = directory.join(format!(".{}.part", mail.notice));
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError { path, source }
    };
    if !finished.try_exists().map_err(at(&finished))? {
        write(&part, &mail.bytes).map_err(at(&part))?;
        fs::rename(&part, &finished).map_err(at(&finished))?;
    }
    // Also when the file was there: whoever renamed it may have died before this.
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(at(directory))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::coordinator::mailer::letter::Letter;
    use crate::coordinator::mailer::mail::From;
    use protocol::digest::Digest;
    use protocol::id::NoticeId;
    use protocol::time::Timestamp;
    use std::os::unix::fs::PermissionsExt as _;

    fn mail(notice: &[u8], body: &str) -> Mail {
        let letter = Letter { subject: "s".to_owned(), body: body.to_owned() };
        let from = From::parse("farm@example.org").unwrap();
        let to = "me@example.org".parse().unwrap();
        Mail::new(NoticeId(Digest::of(notice)), &from, &to, Timestamp::EPOCH, &letter).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn repeated_runs_leave_one_finished_file_per_notice() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("deep/mail");
        for _run in 0..3 {
            let folder = Folder::open(directory.clone()).unwrap();
            for notice in [b"one", b"two"] {
                folder.store(&mail(notice, "hello\n")).await.unwrap();
            }
        }
        let mut expected = [b"one", b"two"].map(|notice| format!("{}.eml", Digest::of(notice)));
        expected.sort();
        assert_eq!(names(&directory), expected);
        assert!(!fs::read(directory.join(&expected[0])).unwrap().is_empty());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(&expected[0]))), (0o700, 0o600));
    }

    #[tokio::test]
    async fn what_a_crash_left_is_overwritten_and_what_was_finished_is_not() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path().to_owned()).unwrap();
        let notice = Digest::of(b"one");
        fs::write(home.path().join(format!(".{notice}.part")), "x".repeat(100_000)).unwrap();
        folder.store(&mail(b"one", "first\n")).await.unwrap();
        let path = home.path().join(format!("{notice}.eml"));
        let first = fs::read(&path).unwrap();
        assert_eq!(first, mail(b"one", "first\n").as_bytes());
        folder.store(&mail(b"one", "second\n")).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(names(home.path()), [format!("{notice}.eml")]);
    }

    #[tokio::test]
    async fn a_directory_that_is_none_is_an_error_with_its_path() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Folder::open(file.clone()).unwrap_err();
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
        let folder = Folder::open(home.path().join("gone")).unwrap();
        fs::remove_dir(home.path().join("gone")).unwrap();
        assert!(folder.store(&mail(b"one", "x\n")).await.is_err());
    }
}
