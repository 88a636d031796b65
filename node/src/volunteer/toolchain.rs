//! The tools and headers that builds may ask for: what their programs are called, and how they tell their version.
//!
//! Nothing here runs anything, and nothing that a program printed is believed beyond its version: [`super::survey`] asks.

use protocol::platform::Version;
use std::collections::BTreeSet;

/// How a program tells its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Anyhow: a program that tells none has version 0.
    Usual,
    /// As a Python of this major version, whoever made it.
    Python(u32),
    /// As a PyPy for Python of this major version, by PyPy's own version.
    PyPy(u32),
}

/// A tool that builds may ask for.
#[derive(Clone, Copy, Debug)]
pub struct KnownTool {
    /// How recipes name it.
    pub name: &'static str,
    /// What its program may be called, best first. Builds find it as `name`, whichever it is.
    pub programs: &'static [&'static str],
    /// What makes it tell its version.
    pub arguments: &'static [&'static str],
    /// How it does.
    pub telling: Telling,
}

/// A script for interpreters that have no option for it, laid beside them: it prints Tcl's version.
pub(super) const TCL_SCRIPT: (&str, &str) = ("version.tcl", "puts [info patchlevel]\n");

const USUAL: &[&str] = &["--version"];

const fn tool(programs: &'static [&'static str]) -> KnownTool {
    KnownTool { name: programs[0], programs, arguments: USUAL, telling: Telling::Usual }
}

const fn asked(programs: &'static [&'static str], arguments: &'static [&'static str]) -> KnownTool {
    KnownTool { arguments, ..tool(programs) }
}

const fn told(programs: &'static [&'static str], telling: Telling) -> KnownTool {
    KnownTool { telling, ..tool(programs) }
}

/// Tools that are looked for in `/usr/bin`, and behind the prefixes that the owner offers under their names.
///
/// `python2` is any interpreter of that language, CPython or else PyPy; `pypy` is known by PyPy's own version.
pub const KNOWN_TOOLS: &[KnownTool] = &[
    tool(&["ar"]),
    tool(&["as"]),
    tool(&["autoconf"]),
    tool(&["automake"]),
    tool(&["bison"]),
    tool(&["c++"]),
    tool(&["cargo"]),
    tool(&["cc"]),
    tool(&["clang"]),
    tool(&["clang++"]),
    tool(&["cmake"]),
    tool(&["flex"]),
    tool(&["g++"]),
    tool(&["gcc"]),
    tool(&["gfortran"]),
    tool(&["git"]),
    asked(&["go"], &["version"]),
    tool(&["gperf"]),
    asked(&["java"], &["-version"]),
    asked(&["javac"], &["-version"]),
    tool(&["ld"]),
    tool(&["libtool", "libtoolize"]),
    tool(&["m4"]),
    tool(&["make", "gmake"]),
    tool(&["makeinfo"]),
    tool(&["meson"]),
    asked(&["nasm"], &["-v"]),
    tool(&["ninja", "ninja-build"]),
    tool(&["node", "nodejs"]),
    asked(&["ocaml"], &["-version"]),
    tool(&["patch"]),
    asked(&["perl"], &["-e", "print $^V"]),
    tool(&["pkg-config", "pkgconf"]),
    told(&["pypy", "pypy2.7", "pypy2"], Telling::PyPy(2)),
    told(&["pypy3", "pypy"], Telling::PyPy(3)),
    told(&["python2", "python2.7", "python", "pypy2.7", "pypy2", "pypy"], Telling::Python(2)),
    told(&["python3", "python"], Telling::Python(3)),
    tool(&["ranlib"]),
    tool(&["ruby"]),
    tool(&["rustc"]),
    tool(&["strip"]),
    tool(&["swig"]),
    tool(&["tar"]),
    asked(&["tclsh", "tclsh8.6", "tclsh9.0"], &[TCL_SCRIPT.0]),
    asked(&["unzip"], &["-v"]),
    tool(&["xz"]),
    asked(&["zip"], &["-v"]),
];

/// Headers that are looked for although no recipe of the catalogue asks for them, because recipes of others often do.
pub const KNOWN_HEADERS: &[&str] = &[
    "bzlib.h",
    "curl/curl.h",
    "expat.h",
    "ffi.h",
    "gc.h",
    "gdbm.h",
    "gmp.h",
    "lz4.h",
    "lzma.h",
    "mpfr.h",
    "ncurses.h",
    "openssl/ssl.h",
    "pcre2.h",
    "readline/readline.h",
    "sqlite3.h",
    "tcl.h",
    "uuid/uuid.h",
    "yaml.h",
    "zlib.h",
    "zstd.h",
];

/// The known tool of this name.
pub(super) fn known(name: &str) -> Option<&'static KnownTool> {
    KNOWN_TOOLS.iter().find(|tool| tool.name == name)
}

impl Telling {
    /// The version in what a program printed; `None` where another program answered to its name.
    #[must_use]
    pub fn version(self, printed: &str) -> Option<Version> {
        match self {
            Self::Usual => usual(printed).or_else(|| "0".parse().ok()),
            Self::Python(major) => python(printed, major),
            Self::PyPy(major) => {
                python(printed, major)?;
                let (_, after) = printed.split_once("[PyPy ")?;
                Version::find(after.lines().next()?)
            }
        }
    }
}

/// `Python 2.7.18` at the start of a line.
fn python(printed: &str, major: u32) -> Option<Version> {
    let version = printed.lines().find_map(|line| Version::find(line.strip_prefix("Python ")?))?;
    (version.to_string().split('.').next()? == major.to_string()).then_some(version)
}

/// The first word that is a version, outside of brackets if there is one: `gcc-12 (Debian 12.2.0-14) 12.2.0`.
fn usual(printed: &str) -> Option<Version> {
    let word = |word: &str| {
        let word = word.trim_start_matches(['"', 'v']);
        word.starts_with(|c: char| c.is_ascii_digit()).then(|| Version::find(word))?
    };
    let bare = printed.lines().map(unbracketed).collect::<Vec<_>>();
    bare.iter()
        .find_map(|line| line.split_whitespace().find_map(word))
        .or_else(|| bare.iter().map(String::as_str).chain(printed.lines()).find_map(Version::find))
}

fn unbracketed(line: &str) -> String {
    let mut depth = 0_u32;
    let outside = |c: &char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    };
    line.chars().filter(outside).collect()
}

/// A C text that the preprocessor turns into the quoted names of those headers that are there, one a line.
#[must_use]
pub(super) fn header_probe(headers: &BTreeSet<String>) -> String {
    headers.iter().map(|header| format!("#if __has_include(<{header}>)\n\"{header}\"\n#endif\n")).collect()
}

/// Which of `headers` the preprocessor found, from what it printed.
#[must_use]
pub(super) fn headers_found(headers: &BTreeSet<String>, printed: &str) -> BTreeSet<String> {
    let named = printed.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix('"'));
    named.filter(|name| headers.contains(*name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        for (printed, version) in [
            ("cc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright", "12.2.0"),
            ("gcc-12 (crosstool-NG 1.25.0) 12.3.0", "12.3.0"),
            ("GNU ld (GNU Binutils for Debian) 2.40", "2.40"),
            ("m4 (GNU M4) 1.4.19", "1.4.19"),
            ("GNU Make 4.3\nBuilt for x86_64", "4.3"),
            ("Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu", "14.0.6"),
            ("go version go1.22.1 linux/amd64", "1.22.1"),
            ("v5.36.0", "5.36.0"),
            ("ruby 3.1.2p20 (2022-04-12 revision 4491bb740a) [x86_64-linux-gnu]", "3.1.2"),
            ("rustc 1.95.0 (59807616e 2026-04-14)", "1.95.0"),
            ("openjdk version \"17.0.15\" 2025-04-15", "17.0.15"),
            ("warning: old\nxz (XZ Utils) 5.4.1", "5.4.1"),
            ("UnZip 6.00 of 20 April 2009, by Debian.", "6.0"),
            ("no number", "0"),
        ] {
            assert_eq!(Telling::Usual.version(printed).unwrap().to_string(), version, "{printed}");
        }
    }

    #[test]
    fn a_python_is_known_by_its_language_and_a_pypy_by_its_own_version() {
        let cpython = "Python 2.7.18\n";
        let pypy = "Python 2.7.18 (2a4f8b2c, Jan 1 2026, 00:00:00)\n[PyPy 7.3.19 with GCC 10.2.1 20210130]\n";
        let pypy3 = "Python 3.10.16 (2a4f8b2c)\n[PyPy 7.3.19 with GCC 10.2.1]\n";
        for (telling, printed, version) in [
            (Telling::Python(2), cpython, Some("2.7.18")),
            (Telling::Python(2), pypy, Some("2.7.18")),
            (Telling::Python(2), pypy3, None),
            (Telling::Python(3), cpython, None),
            (Telling::PyPy(2), pypy, Some("7.3.19")),
            (Telling::PyPy(2), pypy3, None),
            (Telling::PyPy(3), pypy3, Some("7.3.19")),
            (Telling::PyPy(2), cpython, None),
        ] {
            assert_eq!(telling.version(printed).map(|version| version.to_string()).as_deref(), version, "{printed}");
        }
    }

    #[test]
    fn tools_are_distinct_and_called_by_their_name_first() {
        let names: BTreeSet<_> = KNOWN_TOOLS.iter().map(|tool| tool.name).collect();
        assert_eq!(names.len(), KNOWN_TOOLS.len());
        assert!(KNOWN_TOOLS.iter().all(|tool| tool.programs[0] == tool.name));
    }

    #[test]
    fn headers_are_read_from_the_preprocessors_answer() {
        let asked: BTreeSet<String> = ["gc.h", "linux/fs.h"].map(str::to_owned).into();
        assert!(header_probe(&asked).contains("#if __has_include(<gc.h>)\n\"gc.h\"\n#endif\n"));
        let printed = "# 1 \"/build/headers.c\"\n\"linux/fs.h\"\n\"other.h\"\ngc.h\n";
        assert_eq!(headers_found(&asked, printed), ["linux/fs.h".to_owned()].into());
    }
}
