//! The command that installs something, in the words of this machine's packager.

/// Whether the command is typed by root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Typist {
    Root,
    Other,
}

/// How packages are installed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packages {
    family: Family,
    typist: Typist,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Debian,
    Fedora,
    Arch,
    Alpine,
    Suse,
    Unknown,
}

impl Packages {
    /// As this machine's `/etc/os-release` says.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            family: Family::of(&release),
            typist: if rustix::process::geteuid().is_root() { Typist::Root } else { Typist::Other },
        }
    }

    #[cfg(test)]
    pub(super) fn of_release(release: &str) -> Self {
        Self { family: Family::of(release), typist: Typist::Other }
    }

    /// `sudo `, where it takes that.
    pub(super) fn prefix(self) -> &'static str {
        match self.typist {
            Typist::Root => "",
            Typist::Other => "sudo ",
        }
    }

    /// The command that installs a package of the same name everywhere.
    #[must_use]
    pub fn install(self, package: &str) -> String {
        let sudo = self.prefix();
        match self.family {
            Family::Debian => format!("{sudo}apt-get install {package}"),
            Family::Fedora => format!("{sudo}dnf install {package}"),
            Family::Arch => format!("{sudo}pacman -S {package}"),
            Family::Alpine => format!("{sudo}apk add {package}"),
            Family::Suse => format!("{sudo}zypper install {package}"),
            Family::Unknown => format!("install the package {package} of your distribution"),
        }
    }

    /// The command that brings a package up to date.
    pub(super) fn upgrade(self, package: &str) -> String {
        match self.family {
            Family::Debian => format!("{}apt-get install --only-upgrade {package}", self.prefix()),
            _ => self.install(package),
        }
    }

    /// The command that installs a C compiler and its headers.
    pub(super) fn install_compiler(self) -> String {
        self.install(match self.family {
            Family::Debian => "gcc libc6-dev make",
            Family::Alpine => "build-base",
            Family::Fedora | Family::Arch | Family::Suse | Family::Unknown => "gcc make",
        })
    }
}

impl Family {
    fn of(release: &str) -> Self {
        let value = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let (id, like) = (value("ID"), value("ID_LIKE"));
        std::iter::once(id.as_str())
            .chain(like.split_whitespace())
            .map(|word| match word {
                "debian" | "ubuntu" => Self::Debian,
                "fedora" | "rhel" => Self::Fedora,
                "arch" => Self::Arch,
                "alpine" => Self::Alpine,
                "suse" | "opensuse" => Self::Suse,
                _ => Self::Unknown,
            })
            .find(|family| *family != Self::Unknown)
            .unwrap_or(Self::Unknown)
    }
}
