//! A folder as it lies there, without the history of version control and without what its `.gitignore` files name.

use super::chunks::{Chunks, FolderChunks, open};
use super::{
    Findings, Found, ImportError, Imported, LEFT_OUT, MAX_ENTRIES, MAX_FOLDER_BYTES, Refusal, refused, unreadable,
};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use protocol::tree::{Mode, TreePath};
use std::fs::{self, FileType};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Walks the folder. Links are never followed.
pub(super) fn import(root: &Path) -> Result<Imported, ImportError> {
    let mut chunks = FolderChunks::default();
    let mut findings = Findings::default();
    let mut left_bytes = MAX_FOLDER_BYTES;
    let mut left_out = 0;
    // Folders still to be listed, with their paths inside the tree and what holds for them.
    let mut folders: Vec<(PathBuf, Option<TreePath>, Option<Rc<Ignored>>)> = vec![(root.to_owned(), None, None)];
    while let Some((folder, inside, above)) = folders.pop() {
        let ignored = Ignored::in_folder(&folder, above).map_err(unreadable(&folder))?;
        for entry in listed(&folder)? {
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(refused(&path.to_string_lossy(), Refusal::NotUtf8));
            };
            let kind = entry.file_type().map_err(unreadable(&path))?;
            let is_ignored = ignored.as_ref().is_some_and(|ignored| ignored.names(&path, kind));
            if LEFT_OUT.contains(&name.as_str()) || is_ignored {
                left_out += 1;
                continue;
            }
            let tree_path = match &inside {
                Some(inside) => TreePath::try_from(format!("{inside}/{name}")),
                None => TreePath::try_from(name),
            }
            .map_err(|error| refused(&path.to_string_lossy(), Refusal::Path(error)))?;
            let found = if kind.is_dir() {
                folders.push((path, Some(tree_path.clone()), ignored.clone()));
                Found::Folder
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(unreadable(&path))?;
                let Ok(target) = target.into_os_string().into_string() else {
                    return Err(refused(&path.to_string_lossy(), Refusal::NotUtf8));
                };
                Found::Link { target }
            } else if kind.is_file() {
                file(&mut chunks, path, &mut left_bytes)?
            } else {
                return Err(refused(tree_path.as_str(), Refusal::Special(special(kind))));
            };
            findings.add(tree_path, found)?;
        }
    }
    Ok(Imported { manifest: findings.manifest()?, chunks: Chunks::Folder(chunks), left_out })
}

/// What the `.gitignore` files of a folder and of those above it name (gitignore(5)). Files of the machine or of a person that
/// say more are not read: a tree is the same whoever gives it.
#[derive(Debug)]
struct Ignored {
    rules: Gitignore,
    above: Option<Rc<Self>>,
}

impl Ignored {
    /// What holds in `folder`. Patterns that git could not read name nothing, as for git.
    fn in_folder(folder: &Path, above: Option<Rc<Self>>) -> io::Result<Option<Rc<Self>>> {
        let path = folder.join(".gitignore");
        let mut text = String::new();
        match open(&path) {
            Ok(file) if file.metadata()?.is_file() => {
                file.take(MAX_IGNORE_BYTES).read_to_string(&mut text).or_else(|error| match error.kind() {
                    io::ErrorKind::InvalidData => Ok(0),
                    _ => Err(error),
                })?;
            }
            Ok(_) | Err(_) => return Ok(above),
        }
        let mut builder = GitignoreBuilder::new(folder);
        for line in text.lines() {
            if let Err(error) = builder.add_line(None, line) {
                tracing::debug!(%error, path = %path.display(), "a pattern that names nothing");
            }
        }
        match builder.build() {
            Ok(rules) => Ok(Some(Rc::new(Self { rules, above }))),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Whether an entry is left out: the last pattern that matches decides, the nearest file first.
    fn names(&self, path: &Path, kind: FileType) -> bool {
        match self.rules.matched(path, kind.is_dir()) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => self.above.as_ref().is_some_and(|above| above.names(path, kind)),
        }
    }
}

/// The longest `.gitignore` that is read.
const MAX_IGNORE_BYTES: u64 = 1 << 20;

/// The entries in order of name, so that what is refused first does not depend on the file system.
fn listed(folder: &Path) -> Result<Vec<fs::DirEntry>, ImportError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        entries.push(entry.map_err(unreadable(folder))?);
        if entries.len() > MAX_ENTRIES {
            return Err(ImportError::TooMany);
        }
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

fn file(chunks: &mut FolderChunks, path: PathBuf, left_bytes: &mut u64) -> Result<Found, ImportError> {
    let file = open(&path).map_err(unreadable(&path))?;
    let status = file.metadata().map_err(unreadable(&path))?;
    if !status.is_file() {
        return Err(refused(&path.to_string_lossy(), Refusal::Special(special(status.file_type()))));
    }
    // A file that grows while it is read stops at what is left, too.
    let content = file.take(left_bytes.saturating_add(1));
    let (size, digests) = chunks.add(path.clone(), content).map_err(unreadable(&path))?;
    *left_bytes = left_bytes.checked_sub(size).ok_or(ImportError::TooLarge { limit: MAX_FOLDER_BYTES })?;
    Ok(Found::File { mode: Mode::of_bits(status.mode()), size, chunks: digests })
}

fn special(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "pipe"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else if kind.is_symlink() {
        "symbolic link"
    } else {
        "special file"
    }
}
