//! Where git works, and as whom.
//!
//! What a server sends is parsed by a large program in C, so it is never done as root. Root gives the work to a user of its own,
//! in a folder below `/var/tmp`, because that user may not enter the folders above a home; anybody else does it himself, in
//! his home. The folder goes when the work is done; what a crash has left is removed a day later.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The user as whom root has git run: after those of builds, in the same gap between the ranges that distributions hand out.
const UID: u32 = 61_128;
/// Where that user may work.
const SHARED: &str = "/var/tmp";
const PREFIX: &str = "barnraise-git-";
/// Nobody fetches for so long.
const LEFT_BEHIND: Duration = Duration::from_secs(86_400);

/// A folder for one repository.
#[derive(Debug)]
pub(super) struct Place {
    folder: TempDir,
    user: User,
}

/// As whom git runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// As whoever runs this program.
    Caller,
    /// As a user without rights.
    Own(u32),
}

impl User {
    /// The one for whoever runs this program.
    pub(super) fn here() -> Self {
        if rustix::process::geteuid().is_root() { Self::Own(UID) } else { Self::Caller }
    }

    /// Makes a file or folder this user's.
    fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Caller => Ok(()),
            Self::Own(uid) => chown(path, Some(uid), Some(uid)),
        }
    }
}

impl Place {
    /// A fresh folder; below `home` where we are not root.
    pub(super) fn make(home: &Path) -> io::Result<Self> {
        let user = User::here();
        let above = match user {
            User::Caller => home,
            User::Own(uid) => {
                sweep(Path::new(SHARED), uid);
                Path::new(SHARED)
            }
        };
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(above)?;
        user.own(folder.path())?;
        let place = Self { folder, user };
        fs::create_dir(place.home())?;
        user.own(&place.home())?;
        Ok(place)
    }

    /// As whom git runs here.
    pub(super) fn user(&self) -> User {
        self.user
    }

    /// An empty home.
    pub(super) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Where the repository is to be.
    pub(super) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// A file that git can read.
    pub(super) fn file(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, content)?;
        self.user.own(&path)?;
        Ok(path)
    }
}

/// Removes what a crash has left, as far as it is ours and old.
fn sweep(folder: &Path, uid: u32) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let old = |status: &fs::Metadata| {
            status.uid() == uid
                && status.is_dir()
                && status.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_BEHIND))
        };
        if ours
            && entry.metadata().is_ok_and(|status| old(&status))
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "what an earlier fetch left cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn what_is_old_and_ours_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let me = rustix::process::geteuid().as_raw();
        for (name, days) in [("barnraise-git-old", 2), ("barnraise-git-new", 0), ("another-old", 2)] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("object"), "x").unwrap();
            fs::File::open(&path).unwrap().set_modified(SystemTime::now() - LEFT_BEHIND * days).unwrap();
        }
        sweep(folder.path(), me + 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "another's stay");
        sweep(folder.path(), me);
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["another-old", "barnraise-git-new"]);
    }

    #[test]
    fn root_hands_the_work_to_somebody_else() {
        let home = tempfile::tempdir().unwrap();
        let place = Place::make(home.path()).unwrap();
        let me = rustix::process::geteuid();
        let owner = fs::metadata(place.home()).unwrap().uid();
        assert_eq!(owner, if me.is_root() { UID } else { me.as_raw() });
        let (folder, file) = (place.home(), place.file("authorities.pem", b"x").unwrap());
        assert_eq!(fs::metadata(&file).unwrap().uid(), owner);
        drop(place);
        assert!(!folder.exists());
    }
}
