//! Values as people type them, each parsed to a type that holds nothing wrong.

use node::network::{AddressError, check_address};
use protocol::digest::Digest;
use protocol::request::{MAX_TTL, Name, NameError};
use protocol::source::HttpsUrl;
use protocol::time::Span;
use protocol::tree::TreePath;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A recipe of the catalogue, or one in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecipeArg {
    /// By its name.
    Catalogue(Name),
    /// A TOML file: anything with a slash in it or that ends in `.toml`.
    File(PathBuf),
}

impl FromStr for RecipeArg {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_toml = Path::new(text).extension().is_some_and(|extension| extension == "toml");
        if text.contains('/') || is_toml { Ok(Self::File(text.into())) } else { text.parse().map(Self::Catalogue) }
    }
}

/// A source as it was typed: where it is, and below which folder it is to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceArg {
    /// The folder; `None` for the source itself.
    pub(crate) below: Option<TreePath>,
    /// Where it is to be taken from.
    pub(crate) place: SourcePlace,
}

/// Where a source is to be taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourcePlace {
    /// A directory or an archive.
    Path(PathBuf),
    /// An archive behind https, pinned by its digest.
    Archive {
        /// Where.
        url: HttpsUrl,
        /// SHA-256 of the file.
        digest: Digest,
    },
    /// A git repository.
    Git(HttpsUrl),
    /// Behind https, and nothing says what it is.
    Url(HttpsUrl),
}

impl FromStr for SourceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._+-".contains(&b));
        let named = text.split_once('=').filter(|(name, _)| is_plain(name));
        let named = named.and_then(|(name, place)| Some((TreePath::try_from(name).ok()?, place)));
        match named {
            Some((below, place)) => Ok(Self { below: Some(below), place: place.parse()? }),
            None => Ok(Self { below: None, place: text.parse()? }),
        }
    }
}

impl SourcePlace {
    /// As a person would type it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Archive { url, digest } => format!("{url}#sha256={digest}"),
            Self::Git(url) | Self::Url(url) => url.to_string(),
        }
    }
}

impl FromStr for SourcePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = |text: &str| text.parse::<HttpsUrl>().map_err(|error| error.to_string());
        let Some((scheme, rest)) = text.split_once("://") else {
            let what = "give a directory, an archive or an https:// address";
            return if text.is_empty() { Err(what.to_owned()) } else { Ok(Self::Path(text.into())) };
        };
        match (scheme, rest.split_once('#')) {
            ("git+https", None) => url(&format!("https://{rest}")).map(Self::Git),
            ("https", Some((address, pin))) => {
                let digest = pin.strip_prefix("sha256=").and_then(|digits| digits.to_ascii_lowercase().parse().ok());
                let digest =
                    digest.ok_or_else(|| format!("`#{pin}` pins nothing: write #sha256= and 64 hexadecimal digits"))?;
                Ok(Self::Archive { url: url(&format!("https://{address}"))?, digest })
            }
            ("https", None) if rest.trim_end_matches('/').ends_with(".git") => url(text).map(Self::Git),
            ("https", None) => url(text).map(Self::Url),
            ("git+https", Some(_)) => Err("write the revision with `--revision`, not behind `#`".to_owned()),
            (scheme, _) => Err(format!("`{scheme}://` is not taken: give https://, a directory or an archive")),
        }
    }
}

/// An option and the value chosen for it; the recipe knows which values it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The option.
    pub(crate) name: Name,
    /// The value as typed.
    pub(crate) value: String,
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as opt=3")?;
        Ok(Self { name: name.parse().map_err(|error: NameError| error.to_string())?, value: value.to_owned() })
    }
}

/// The most combinations that one command asks for.
pub(crate) const MAX_COMBINATIONS: usize = 256;

/// An option and several values for it, each to be combined with those of every other axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// The option.
    pub(crate) name: Name,
    /// The values as typed, each once, never none.
    pub(crate) values: Vec<String>,
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, values) = text.split_once('=').ok_or("write NAME=VALUE,VALUE…, such as opt=1,jit")?;
        let name = name.parse().map_err(|error: NameError| error.to_string())?;
        let values: Vec<String> = values.split(',').map(str::to_owned).collect();
        match values.iter().enumerate().find(|(at, value)| value.is_empty() || values[..*at].contains(value)) {
            Some((_, value)) if value.is_empty() => Err(format!("`{text}` has an empty value")),
            Some((_, value)) => Err(format!("`{text}` has `{value}` twice")),
            None => Ok(Self { name, values }),
        }
    }
}

/// Every combination of one value of each axis; those of the last axis follow one another.
pub(crate) fn combinations(axes: &[Axis]) -> Vec<Vec<Chosen>> {
    axes.iter().fold(vec![Vec::new()], |before, axis| {
        let with = |chosen: &Vec<Chosen>, value: &String| {
            let next = Chosen { name: axis.name.clone(), value: value.clone() };
            chosen.iter().cloned().chain([next]).collect()
        };
        before.iter().flat_map(|chosen| axis.values.iter().map(move |value| with(chosen, value))).collect()
    })
}

/// A tool outside the system folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolArg {
    /// What recipes call it.
    pub(crate) name: Name,
    /// Where it is installed; its programs are in `bin` below.
    pub(crate) prefix: PathBuf,
}

impl FromStr for ToolArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, prefix) = text.split_once('=').ok_or("write NAME=PREFIX, such as python2=/opt/python2")?;
        if !Path::new(prefix).is_absolute() {
            return Err(format!("`{prefix}` is not an absolute path, and a tool is bound at its own path"));
        }
        Ok(Self { name: name.parse().map_err(|error: NameError| error.to_string())?, prefix: prefix.into() })
    }
}

/// A size in bytes, typed with a binary unit: `512M`, `8G`, `1.5T`; without a unit, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size {
    /// Bytes.
    pub(crate) bytes: u64,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a size: write 512M, 8G or 1.5T");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(wrong()),
        };
        let (whole, tenths) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(tenths) || tenths.len() > 1 {
            return Err(wrong());
        }
        let tenth_parts = format!("{whole}{tenths}").parse::<u64>().map_err(|_| wrong())?;
        let bytes = (u128::from(tenth_parts) << shift) / 10;
        u64::try_from(bytes).ok().filter(|bytes| *bytes > 0).map(|bytes| Self { bytes }).ok_or_else(wrong)
    }
}

/// An address to listen on or to be reached at, as it was typed.
pub(crate) fn address(text: &str) -> Result<String, AddressError> {
    check_address(text).map(|()| text.to_owned())
}

/// How many builds at a time.
pub(crate) fn slots(text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| format!("give a number from 1 to {}", u16::MAX))
}

/// How long a request waits, typed as people say it: `7d`, `90m`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) Span);

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write 7d, 12h or 30m"))?;
        if duration < Duration::from_secs(1) || duration > MAX_TTL.duration() {
            let days = MAX_TTL.duration().as_secs() / 86_400;
            return Err(format!("a request waits from one second to {days} days"));
        }
        Ok(Self(Span::from(duration)))
    }
}

/// When encryption of a mail connection begins, as the address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFrom {
    /// With the connection: `smtps://`.
    Connection,
    /// As `--smtp-tls` says: `smtp://`.
    Setting,
}

/// A mail server as typed. A password has no place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Smtp {
    /// When encryption begins.
    pub(crate) tls: TlsFrom,
    /// Who logs in.
    pub(crate) user: Option<String>,
    /// The server.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
}

impl FromStr for Smtp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "write smtp://[USER@]HOST[:PORT] or smtps://[USER@]HOST[:PORT]".to_owned();
        let (tls, rest, default_port) = match text.split_once("://").ok_or_else(wrong)? {
            ("smtp", rest) => (TlsFrom::Setting, rest, 587),
            ("smtps", rest) => (TlsFrom::Connection, rest, 465),
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A user may be a whole mail address, so the last @ counts.
        let (user, server) = match rest.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err("a password does not belong on a command line: use `--smtp-password-file FILE`".to_owned());
        }
        let (host, port) = split_port(server).ok_or_else(wrong)?;
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if !is_plain(host) || !user.is_none_or(is_plain) {
            return Err(wrong());
        }
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
            None => default_port,
        };
        Ok(Self { tls, user: user.map(str::to_owned), host: host.to_owned(), port })
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(server: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = server.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match server.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((server, None)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_recipe_is_a_name_or_a_file() {
        assert_eq!("lua".parse(), Ok(RecipeArg::Catalogue("lua".parse().unwrap())));
        assert_eq!("./lua".parse(), Ok(RecipeArg::File("./lua".into())));
        assert_eq!("lua.toml".parse(), Ok(RecipeArg::File("lua.toml".into())));
        assert!("Lua".parse::<RecipeArg>().is_err());
    }

    #[test]
    fn a_source_is_a_path_or_https() {
        let url = |text: &str| text.parse::<HttpsUrl>().unwrap();
        let digest = Digest::of(b"");
        for (text, place) in [
            ("a.tar.gz", SourcePlace::Path("a.tar.gz".into())),
            ("./a=b", SourcePlace::Path("./a=b".into())),
            ("https://h/a", SourcePlace::Url(url("https://h/a"))),
            ("https://h/a?b=c", SourcePlace::Url(url("https://h/a?b=c"))),
            ("https://h/a.git", SourcePlace::Git(url("https://h/a.git"))),
            ("git+https://h/a", SourcePlace::Git(url("https://h/a"))),
            (&format!("https://h/a#sha256={digest}"), SourcePlace::Archive { url: url("https://h/a"), digest }),
        ] {
            assert_eq!(text.parse(), Ok(SourceArg { below: None, place: place.clone() }), "{text}");
            let below = Some(TreePath::try_from("lib/py").unwrap());
            assert_eq!(format!("lib/py={text}").parse(), Ok(SourceArg { below, place }), "{text}");
        }
        for wrong in [
            "",
            "http://example.org/a",
            "file:///etc",
            "https://",
            "ssh://h/a.git",
            "git+https://h/a#main",
            "https://h/a#sha256=12",
            "https://me:pw@h/a.git",
            "py=",
        ] {
            assert!(wrong.parse::<SourceArg>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [("1", 1), ("512M", 512 << 20), ("8g", 8 << 30), ("8GiB", 8 << 30), ("1.5K", 1536)] {
            assert_eq!(text.parse(), Ok(Size { bytes }), "{text}");
        }
        for wrong in ["", "0", "M", "1.M", "1.25G", "-1", "1X", "99999999999T"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_lifetime_is_bounded() {
        assert_eq!("7d".parse(), Ok(Lifetime(Span::from_secs(7 * 86_400))));
        for wrong in ["", "0s", "1ms", "91d", "soon"] {
            assert!(wrong.parse::<Lifetime>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mail_server_carries_no_password() {
        let smtp = |tls, user: Option<&str>, host: &str, port| {
            Ok(Smtp { tls, user: user.map(str::to_owned), host: host.to_owned(), port })
        };
        assert_eq!("smtp://mail.example.org".parse(), smtp(TlsFrom::Setting, None, "mail.example.org", 587));
        assert_eq!("smtp://me@h:25".parse(), smtp(TlsFrom::Setting, Some("me"), "h", 25));
        assert_eq!("smtps://me@example.org@h/".parse(), smtp(TlsFrom::Connection, Some("me@example.org"), "h", 465));
        assert_eq!("smtp://[::1]:2525".parse(), smtp(TlsFrom::Setting, None, "::1", 2525));
        for wrong in ["mail", "smtp://", "smtp://u:secret@h", "smtp://h:0", "smtp://h:99999", "http://h", "smtp://a b"]
        {
            assert!(wrong.parse::<Smtp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_and_tools_are_pairs() {
        let chosen: Chosen = "cflags=-DX=1".parse().unwrap();
        assert_eq!((chosen.name.as_str(), chosen.value.as_str()), ("cflags", "-DX=1"));
        assert!("opt".parse::<Chosen>().is_err());
        let tool: ToolArg = "python2=/opt/python2".parse().unwrap();
        assert_eq!((tool.name.as_str(), tool.prefix), ("python2", PathBuf::from("/opt/python2")));
        assert!("python2=opt".parse::<ToolArg>().is_err());
    }
}
