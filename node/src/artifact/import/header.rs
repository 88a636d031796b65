//! What an archive says about its entries, read strictly: the names of both kinds, and the headers of tar.
//!
//! A name, a link target or a size can be said in the header of an entry, in GNU's long-name entries before it, and in a
//! PAX header (POSIX.1-2001, pax Interchange Format). Readers differ in whom they believe, and archives were made that are
//! two different trees to two of them. Here whatever disagrees is refused, and so is a PAX record that cannot be read.

use super::{ImportError, Refusal, refused};
use protocol::tree::TreePath;
use std::io::Read;
use tar::{EntryType, Header};

/// The longest extension header that is read, in bytes: a path, a target and a few attributes.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;

/// What was said about the entry that follows.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    gnu_name: Option<Vec<u8>>,
    gnu_target: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// The records of a PAX header that change an entry.
#[derive(Debug, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Ahead {
    /// Takes in an extension header; `false` if `entry` is none.
    pub(super) fn takes(&mut self, kind: EntryType, name: &str, entry: &mut impl Read) -> Result<bool, Problem> {
        let slot = match kind {
            EntryType::GNULongName => Some(&mut self.gnu_name),
            EntryType::GNULongLink => Some(&mut self.gnu_target),
            _ => None,
        };
        if let Some(slot) = slot {
            let mut text = read(entry, name)?;
            // The text ends at its first NUL, as in C.
            text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
            return match slot.replace(text) {
                None => Ok(true),
                Some(_) => Err(refused(name, Refusal::Header("two long names for one entry")).into()),
            };
        }
        match kind {
            EntryType::XHeader => {
                let pax = Pax::read(&read(entry, name)?).map_err(|why| refused(name, why))?;
                match self.pax.replace(pax) {
                    None => Ok(true),
                    Some(_) => Err(refused(name, Refusal::Header("two PAX headers for one entry")).into()),
                }
            }
            // `git archive` writes one with the commit; what would rename or resize every entry is refused.
            EntryType::XGlobalHeader => {
                let pax = Pax::read(&read(entry, name)?).map_err(|why| refused(name, why))?;
                if pax.path.is_some() || pax.target.is_some() || pax.size.is_some() {
                    return Err(refused(name, Refusal::Header("a name or size for all entries")).into());
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        self.gnu_name.is_none() && self.gnu_target.is_none() && self.pax.is_none()
    }

    /// Name and link target of the entry with this header; its size is that of the header or the entry is refused.
    pub(super) fn apply(self, header: &Header) -> Result<(String, Option<Vec<u8>>), ImportError> {
        let plain = header.path_bytes();
        let pax = self.pax.unwrap_or_default();
        let name = one(self.gnu_name, pax.path).map_err(|()| Refusal::Disagreement("name"));
        let name = name.map(|name| name.unwrap_or_else(|| plain.to_vec()));
        let lossy = || String::from_utf8_lossy(&plain).into_owned();
        let name = name.map_err(|why| refused(&lossy(), why))?;
        let name = String::from_utf8(name)
            .map_err(|error| refused(&String::from_utf8_lossy(error.as_bytes()), Refusal::NotUtf8))?;
        let size = header.entry_size().map_err(|_| refused(&name, Refusal::Header("its size is no number")))?;
        if pax.size.is_some_and(|pax| pax != size) {
            return Err(refused(&name, Refusal::Disagreement("size")));
        }
        let target = one(self.gnu_target, pax.target).map_err(|()| refused(&name, Refusal::Disagreement("link")))?;
        Ok((name, target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))))
    }
}

/// What GNU's entry and PAX say, unless they differ.
fn one(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, ()> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(()),
        (gnu, pax) => Ok(pax.or(gnu)),
    }
}

/// Why an extension header cannot be used.
pub(super) enum Problem {
    /// Reading the archive failed.
    Read(std::io::Error),
    /// It says what is refused.
    Import(ImportError),
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

fn read(entry: &mut impl Read, name: &str) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION_BYTES + 1).read_to_end(&mut bytes).map_err(Problem::Read)?;
    if bytes.len() as u64 > MAX_EXTENSION_BYTES {
        return Err(refused(name, Refusal::Header("too long")).into());
    }
    Ok(bytes)
}

impl Pax {
    /// Reads records of the form `LENGTH KEY=VALUE\n`, where the length counts all of it.
    fn read(mut bytes: &[u8]) -> Result<Self, Refusal> {
        let wrong = || Refusal::Header("a PAX record that cannot be read");
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(8).position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let digits = std::str::from_utf8(&bytes[..space]).map_err(|_| wrong())?;
            let len: usize = match digits.parse() {
                Ok(len) if digits.bytes().all(|b| b.is_ascii_digit()) => len,
                _ => return Err(wrong()),
            };
            let record = bytes.get(space + 1..len).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            pax.take(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[len..];
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let repeated = match key {
            b"path" => self.path.replace(value.to_vec()).is_some(),
            b"linkpath" => self.target.replace(value.to_vec()).is_some(),
            b"size" => {
                let size = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let size = size.and_then(|text| text.parse().ok()).ok_or(Refusal::Header("its size is no number"))?;
                self.size.replace(size).is_some()
            }
            key if key.starts_with(b"GNU.sparse.") => return Err(Refusal::Special("sparse file")),
            _ => false,
        };
        if repeated { Err(Refusal::Header("a PAX record that stands twice")) } else { Ok(()) }
    }
}

/// Where an entry stands in the tree; `None` for the folder that holds it all, which archives call `./`.
pub(super) fn path_inside(name: &str, kind: EntryType) -> Result<Option<TreePath>, ImportError> {
    if name.starts_with('/') {
        return Err(refused(name, Refusal::Absolute));
    }
    let mut inside = name;
    while let Some(rest) = inside.strip_prefix("./") {
        inside = rest;
    }
    if kind == EntryType::Directory {
        inside = inside.strip_suffix('/').unwrap_or(inside);
        if inside.is_empty() || inside == "." {
            return Ok(None);
        }
    }
    TreePath::try_from(inside).map(Some).map_err(|error| refused(name, Refusal::Path(error)))
}
