//! Tools that the volunteer's owner shows to builds: folders bound read-only at their own path.

use std::path::{Component, Path, PathBuf};

use super::surroundings::{ALIAS_DIR, BUILD_DIR, HOME_DIR, Surroundings};

/// A tool of the volunteer's owner, `--tool NAME=PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    name: String,
    prefix: PathBuf,
}

/// Why a tool cannot be shown to builds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// Not an absolute path without `.` and `..`, in UTF-8, without `:`.
    #[error("`{0}` is not a plain absolute path")]
    NotPlain(PathBuf),
    /// There is no such folder.
    #[error("`{0}` is not a folder")]
    NotFolder(PathBuf),
    /// The sandbox has something of its own at, above or below this path.
    #[error("`{0}` would hide a part of the sandbox")]
    Reserved(PathBuf),
    /// The folder has no program of that name.
    #[error("the tool `{tool}` is not there: `{}` has no program {}", .folder.display(), .names.join(", nor "))]
    NoProgram {
        /// The tool.
        tool: String,
        /// Where its program was looked for.
        folder: PathBuf,
        /// What it may be called.
        names: Vec<String>,
    },
    /// Its program does not answer in the sandbox, or is not what it is offered as.
    #[error("the tool `{tool}` cannot be offered: `{}` does not tell a version in the sandbox: {reason}", .program.display())]
    NoAnswer {
        /// The tool.
        tool: String,
        /// Its program.
        program: PathBuf,
        /// What it said last. From the program: escape it where it is shown.
        reason: String,
    },
}

/// A program that builds find under a tool's name, although it is called otherwise on this machine: Debian has a Python 2.7 that
/// is called `python2.7` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// What recipes call it.
    pub name: String,
    /// Where it is inside, which is where it is outside.
    pub program: PathBuf,
}

impl Tool {
    /// A tool whose programs are in `PREFIX/bin`.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn new(name: &str, prefix: &Path) -> Result<Self, ToolError> {
        let mut components = prefix.components();
        let plain = components.next() == Some(Component::RootDir)
            && components.all(|component| matches!(component, Component::Normal(_)))
            && prefix.to_str().is_some_and(|text| !text.contains(|c: char| c == ':' || c.is_control()));
        let refused = prefix.to_owned();
        if !plain {
            return Err(ToolError::NotPlain(refused));
        }
        const TAKEN: [&str; 9] =
            ["/usr", "/etc/alternatives", "/proc", "/dev", "/tmp", BUILD_DIR, HOME_DIR, ALIAS_DIR, "/bin"];
        const CLOSED: [&str; 7] =
            ["/proc", "/dev", "/sys", BUILD_DIR, HOME_DIR, ALIAS_DIR, Surroundings::OTHER.build_dir];
        let hides = |taken: &&str| Path::new(taken).starts_with(prefix);
        if TAKEN.iter().any(hides) || CLOSED.iter().any(|closed| prefix.starts_with(closed)) {
            return Err(ToolError::Reserved(refused));
        }
        if !prefix.is_dir() {
            return Err(ToolError::NotFolder(refused));
        }
        // Without a slash at its end, so that it joins `/bin` well.
        Ok(Self { name: name.to_owned(), prefix: prefix.components().collect() })
    }

    /// What requirements call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, outside and inside.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }
}

/// Tools in the order of their `PATH`, each prefix once.
pub(super) fn distinct(tools: Vec<Tool>) -> Vec<Tool> {
    let mut distinct: Vec<Tool> = Vec::new();
    for tool in tools {
        if distinct.iter().all(|known| known.prefix != tool.prefix) {
            distinct.push(tool);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_cannot_hide_the_sandbox() {
        for prefix in ["/", "/usr", "/etc", "/home", "/tmp", "/proc/1", "/dev/shm", "/build/x", "/home/build"] {
            assert_eq!(Tool::new("t", Path::new(prefix)), Err(ToolError::Reserved(prefix.into())), "{prefix}");
        }
        for prefix in ["opt", "/opt/../etc", "/opt/a:b", ""] {
            assert_eq!(Tool::new("t", Path::new(prefix)), Err(ToolError::NotPlain(prefix.into())), "{prefix}");
        }
        assert_eq!(Tool::new("t", Path::new("/nowhere")), Err(ToolError::NotFolder("/nowhere".into())));
    }
}
