//! A zip archive as it would unpack, read strictly (PKWARE APPNOTE 6.3).
//!
//! A zip says everything twice: in a directory at its end and in a header before each entry. Readers differ in whom they
//! believe, where the directory is, and which of two entries of one name they keep, and archives were made that are two
//! different trees to two of them. So this reader is our own: both must agree; the directory ends where the end of the archive
//! is marked, and that mark is the only one; entries lie one after another from the first byte on and never over one another,
//! so that an archive cannot hold the same bytes many times over.

use super::header::path_inside;
use super::{ImportError, Imported, Intake, MAX_ENTRIES, MAX_GROWTH, Refusal, refused, unreadable};
use flate2::bufread::DeflateDecoder;
use protocol::tree::{MAX_MANIFEST_BYTES, Mode};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use tar::EntryType;

/// The mark of the end (4.3.16), and how long it is without its comment.
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
/// Where the end of a large archive is found (4.3.15), and that end (4.3.14).
const LOCATOR: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_BYTES: u64 = 20;
const LARGE_END: [u8; 4] = *b"PK\x06\x06";
const LARGE_END_BYTES: usize = 56;
/// An entry of the directory (4.3.12), and the header before an entry (4.3.7).
const LISTED: [u8; 4] = *b"PK\x01\x02";
const LISTED_BYTES: usize = 46;
const HEADER: [u8; 4] = *b"PK\x03\x04";
const HEADER_BYTES: usize = 30;
/// What stands where a number is too large for its field, and is said in the extra field `LARGE` instead (4.5.3).
const ELSEWHERE: u32 = u32::MAX;
const LARGE: u16 = 0x0001;
/// Another name for the entry (4.6.9).
const OTHER_NAME: u16 = 0x7075;
/// Encrypted, strongly encrypted, and with a directory of masked headers (4.4.4).
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// Sizes and sum follow the content.
const SIZES_FOLLOW: u16 = 1 << 3;
/// The longest target of a link.
const MAX_TARGET_BYTES: u64 = 4 << 10;
/// The largest directory.
const MAX_DIRECTORY_BYTES: u64 = MAX_MANIFEST_BYTES as u64;

/// Reads the archive of `size` bytes; it may grow to `grown_bytes` whatever its size.
pub(super) fn import(
    path: &Path,
    file: &File,
    size: u64,
    spool: &Path,
    grown_bytes: u64,
) -> Result<Imported, ImportError> {
    let archive = Archive { path, file, size };
    let (entries, directory_at) = archive.directory()?;
    archive.in_a_row(&entries, directory_at)?;
    let mut intake = Intake::new(spool, grown_bytes.max(size.saturating_mul(MAX_GROWTH)))?;
    for entry in &entries {
        archive.take(entry, &mut intake)?;
    }
    intake.finish_inside()
}

struct Archive<'a> {
    path: &'a Path,
    file: &'a File,
    size: u64,
}

/// An entry as the directory lists it.
#[derive(Debug)]
struct Listed {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    unpacked: u64,
    /// Where its header is.
    at: u64,
    /// As Unix has it; 0 where another system wrote it.
    mode: u32,
}

fn damaged(why: &str) -> ImportError {
    ImportError::Damaged(why.to_owned())
}

/// Numbers one after another, little-endian; whoever takes one has looked that it is there.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

impl<'a> Archive<'a> {
    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, ImportError> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.size) {
            return Err(damaged("it ends too early"));
        }
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(unreadable(self.path)(error)),
        }
    }

    /// The directory, and where it begins.
    fn directory(&self) -> Result<(Vec<Listed>, u64), ImportError> {
        let tail_bytes = usize::try_from(self.size).unwrap_or(usize::MAX).min(END_BYTES + usize::from(u16::MAX));
        let tail_at = self.size - tail_bytes as u64;
        let tail = self.read(tail_at, tail_bytes)?;
        // A mark counts where its comment reaches to the last byte.
        let fits = |at: &usize| {
            let mark = &tail[*at..];
            mark.len() >= END_BYTES
                && mark.starts_with(&END)
                && mark.len() - END_BYTES == usize::from(u16::from_le_bytes([mark[20], mark[21]]))
        };
        let mut marks = (0..tail.len()).filter(fits);
        let at = match (marks.next(), marks.next()) {
            (Some(at), None) => at,
            (None, _) => return Err(damaged("its end is not marked")),
            (Some(_), Some(_)) => return Err(damaged("its end is marked twice")),
        };
        let mut numbers = Numbers(&tail[at + 4..]);
        let disks = (numbers.u16(), numbers.u16());
        let counts = (numbers.u16(), numbers.u16());
        let (bytes, from) = (numbers.u32(), numbers.u32());
        if disks != (0, 0) || counts.0 != counts.1 {
            return Err(damaged("it is one of several parts"));
        }
        let end_at = tail_at + at as u64;
        let small = (u64::from(counts.0), u64::from(bytes), u64::from(from));
        let ((count, bytes, from), end_at) = self.large_end(end_at, small)?;
        if from.checked_add(bytes) != Some(end_at) || bytes > MAX_DIRECTORY_BYTES {
            return Err(damaged("its directory is not where its end says"));
        }
        if count > MAX_ENTRIES as u64 {
            return Err(ImportError::TooMany);
        }
        let listed = self.read(from, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        let mut rest = listed.as_slice();
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(Listed::read(&mut rest)?);
        }
        if rest.is_empty() { Ok((entries, from)) } else { Err(damaged("its directory holds more than it says")) }
    }

    /// Number of entries, bytes and place of the directory, and where it must end: as the end of a large archive says, if
    /// there is one. It may say more than the small end can, and nothing else.
    fn large_end(&self, end_at: u64, small: (u64, u64, u64)) -> Result<((u64, u64, u64), u64), ImportError> {
        let is_large =
            small.0 == u64::from(u16::MAX) || small.1 == u64::from(ELSEWHERE) || small.2 == u64::from(ELSEWHERE);
        let locator = match end_at.checked_sub(LOCATOR_BYTES) {
            Some(at) => self.read(at, 20)?,
            None => Vec::new(),
        };
        if !locator.starts_with(&LOCATOR) {
            return if is_large { Err(damaged("the end of a large archive is missing")) } else { Ok((small, end_at)) };
        }
        let mut numbers = Numbers(&locator[4..]);
        let (disk, at, disks) = (numbers.u32(), numbers.u64(), numbers.u32());
        if disk != 0 || disks > 1 || at.checked_add(LARGE_END_BYTES as u64) != Some(end_at - LOCATOR_BYTES) {
            return Err(damaged("the end of a large archive is not where it should be"));
        }
        let end = self.read(at, LARGE_END_BYTES)?;
        let mut numbers = Numbers(&end[4..]);
        let len = numbers.u64();
        let (_versions, disks) = (numbers.u32(), (numbers.u32(), numbers.u32()));
        let counts = (numbers.u64(), numbers.u64());
        let large = (counts.0, numbers.u64(), numbers.u64());
        let agrees = |small: u64, most: u64, large: u64| small == most || small == large;
        let agree = agrees(small.0, u64::from(u16::MAX), large.0)
            && agrees(small.1, u64::from(ELSEWHERE), large.1)
            && agrees(small.2, u64::from(ELSEWHERE), large.2);
        if !end.starts_with(&LARGE_END) || len != 44 || disks != (0, 0) || counts.0 != counts.1 || !agree {
            return Err(damaged("its two ends disagree"));
        }
        Ok((large, at))
    }

    /// Whether entries lie one after another from the first byte to the directory.
    fn in_a_row(&self, entries: &[Listed], directory_at: u64) -> Result<(), ImportError> {
        let mut sorted: Vec<&Listed> = entries.iter().collect();
        sorted.sort_by_key(|entry| entry.at);
        let mut free_from = 0;
        for entry in sorted {
            let least = (HEADER_BYTES as u64).checked_add(entry.packed);
            let end = least.and_then(|bytes| bytes.checked_add(entry.at));
            if entry.at < free_from || end.is_none_or(|end| end > directory_at) {
                return Err(refused(&entry.name, Refusal::Overlap));
            }
            if free_from == 0 && entry.at != 0 {
                return Err(damaged("something precedes its first entry"));
            }
            free_from = end.unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Takes in one entry, after its header was compared with the directory.
    fn take(&self, entry: &Listed, intake: &mut Intake) -> Result<(), ImportError> {
        let content_at = self.content_of(entry)?;
        let refuse = |why| Err(refused(&entry.name, why));
        let is_folder = entry.name.ends_with('/');
        let kind = if is_folder { EntryType::Directory } else { EntryType::Regular };
        // The top folder itself is no entry.
        let Some(path) = path_inside(&entry.name, kind)? else { return Ok(()) };
        match (entry.mode & 0o170_000, is_folder) {
            (0 | 0o040_000, true) if entry.unpacked == 0 => intake.folder(path.as_str()),
            (0 | 0o040_000, true) => refuse(Refusal::Content),
            (0 | 0o100_000, false) => {
                let content = self.content(entry, content_at)?;
                intake.file(path.as_str(), Mode::of_bits(entry.mode), content)
            }
            (0o120_000, false) if entry.unpacked > MAX_TARGET_BYTES => refuse(Refusal::Content),
            (0o120_000, false) => {
                let mut target = Vec::new();
                let mut content = self.content(entry, content_at)?;
                content.read_to_end(&mut target).map_err(|error| ImportError::Damaged(error.to_string()))?;
                intake.link(path.as_str(), target)
            }
            (0o100_000 | 0o120_000, true) | (0o040_000, false) => refuse(Refusal::Disagreement("sort")),
            (0o020_000 | 0o060_000, _) => refuse(Refusal::Special("device")),
            (0o010_000, _) => refuse(Refusal::Special("pipe")),
            (0o140_000, _) => refuse(Refusal::Special("socket")),
            _ => refuse(Refusal::Special("special entry")),
        }
    }

    /// Where the content of an entry begins, if its header says what the directory says.
    fn content_of(&self, entry: &Listed) -> Result<u64, ImportError> {
        let disagree = |about| refused(&entry.name, Refusal::Disagreement(about));
        let header = self.read(entry.at, HEADER_BYTES)?;
        if !header.starts_with(&HEADER) {
            return Err(refused(&entry.name, Refusal::Header("it is not where the directory says")));
        }
        let mut numbers = Numbers(&header[6..]);
        let (flags, method, _time) = (numbers.u16(), numbers.u16(), numbers.u32());
        let (crc, packed, unpacked) = (numbers.u32(), numbers.u32(), numbers.u32());
        let (name_bytes, extra_bytes) = (usize::from(numbers.u16()), usize::from(numbers.u16()));
        let more = self.read(entry.at + HEADER_BYTES as u64, name_bytes + extra_bytes)?;
        let (name, extra) = more.split_at(name_bytes);
        if name != entry.name.as_bytes() {
            return Err(disagree("name"));
        }
        if method != entry.method || (flags ^ entry.flags) & (ENCRYPTED | SIZES_FOLLOW) != 0 {
            return Err(disagree("compression"));
        }
        let mut large = Extra::of(extra).map_err(|why| refused(&entry.name, why))?.large.map(Numbers);
        let mut said = |field: u32| match &mut large {
            Some(large) if field == ELSEWHERE => large.u64(),
            _ => u64::from(field),
        };
        // Before the content, the whole size comes first.
        let said = (crc, said(unpacked), said(packed));
        let known = (entry.crc, entry.unpacked, entry.packed);
        if said != known && (flags & SIZES_FOLLOW == 0 || said != (0, 0, 0)) {
            return Err(disagree("size"));
        }
        Ok(entry.at + HEADER_BYTES as u64 + more.len() as u64)
    }

    /// The content of an entry, which fails where it is not what was announced.
    fn content(&self, entry: &Listed, at: u64) -> Result<Box<dyn Read + 'a>, ImportError> {
        if at.checked_add(entry.packed).is_none_or(|end| end > self.size) {
            return Err(damaged("it ends within a file"));
        }
        let stretch = Stretch { file: self.file, at, left: entry.packed };
        let inner: Unpacked<'a> = match entry.method {
            0 if entry.packed == entry.unpacked => Unpacked::Stored(stretch),
            0 => return Err(refused(&entry.name, Refusal::Disagreement("size"))),
            8 => Unpacked::Deflated(DeflateDecoder::new(BufReader::with_capacity(64 << 10, stretch))),
            method => return Err(refused(&entry.name, Refusal::Method(method))),
        };
        Ok(Box::new(Checked { inner, left: entry.unpacked, sum: crc32fast::Hasher::new(), crc: entry.crc }))
    }
}

/// The extra fields that matter.
#[derive(Default)]
struct Extra<'a> {
    large: Option<&'a [u8]>,
}

impl<'a> Extra<'a> {
    fn of(mut bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut extra = Self::default();
        // Some writers fill up with zeros, fewer than a field has.
        while bytes.len() >= 4 {
            let mut numbers = Numbers(bytes);
            let (kind, len) = (numbers.u16(), usize::from(numbers.u16()));
            let field = bytes.get(4..4 + len).ok_or(Refusal::Header("an extra field is cut off"))?;
            match kind {
                LARGE if extra.large.replace(field).is_some() => {
                    return Err(Refusal::Header("an extra field stands twice"));
                }
                OTHER_NAME => return Err(Refusal::Disagreement("name")),
                _ => {}
            }
            bytes = &bytes[4 + len..];
        }
        if bytes.iter().all(|byte| *byte == 0) { Ok(extra) } else { Err(Refusal::Header("an extra field is cut off")) }
    }
}

impl Listed {
    fn read(rest: &mut &[u8]) -> Result<Self, ImportError> {
        let cut = || damaged("its directory is cut off");
        let head = rest.get(..LISTED_BYTES).filter(|head| head.starts_with(&LISTED)).ok_or_else(cut)?;
        let mut numbers = Numbers(&head[4..]);
        let (made_by, _needs, flags, method, _time) =
            (numbers.u16(), numbers.u16(), numbers.u16(), numbers.u16(), numbers.u32());
        let (crc, packed, unpacked) = (numbers.u32(), numbers.u32(), numbers.u32());
        let lens = [numbers.u16(), numbers.u16(), numbers.u16()].map(usize::from);
        let (disk, _internal, external, at) = (numbers.u16(), numbers.u16(), numbers.u32(), numbers.u32());
        let more = rest.get(LISTED_BYTES..LISTED_BYTES + lens.iter().sum::<usize>()).ok_or_else(cut)?;
        *rest = &rest[LISTED_BYTES + more.len()..];
        let (name, more) = more.split_at(lens[0]);
        let Ok(name) = std::str::from_utf8(name) else { return Err(Intake::not_utf8(name)) };
        let refuse = |why| refused(name, why);
        if flags & ENCRYPTED != 0 {
            return Err(refuse(Refusal::Encrypted));
        }
        let large = Extra::of(&more[..lens[1]]).map_err(refuse)?.large.unwrap_or_default();
        let elsewhere = [unpacked, packed, at].iter().filter(|field| **field == ELSEWHERE).count();
        // A field that says more than is asked of it is for readers who look there first.
        if large.len() != elsewhere * 8 || disk != 0 {
            return Err(refuse(Refusal::Disagreement("size")));
        }
        let mut large = Numbers(large);
        let mut said = |field: u32| if field == ELSEWHERE { large.u64() } else { u64::from(field) };
        let (unpacked, packed, at) = (said(unpacked), said(packed), said(at));
        // Unix and macOS write modes.
        let mode = if matches!(made_by >> 8, 3 | 19) { external >> 16 } else { 0 };
        Ok(Self { name: name.to_owned(), flags, method, crc, packed, unpacked, at, mode })
    }
}

/// Bytes of a file from one place on.
struct Stretch<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let len = self.file.read_at(&mut into[..most], self.at)?;
        self.at += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

enum Unpacked<'a> {
    Stored(Stretch<'a>),
    Deflated(DeflateDecoder<BufReader<Stretch<'a>>>),
}

/// Content that fails where its length or its sum is not as announced, or something follows it.
struct Checked<'a> {
    inner: Unpacked<'a>,
    left: u64,
    sum: crc32fast::Hasher,
    crc: u32,
}

impl Read for Checked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wrong = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
        let len = match &mut self.inner {
            Unpacked::Stored(stretch) => stretch.read(into)?,
            Unpacked::Deflated(decoder) => decoder.read(into)?,
        };
        if len == 0 && !into.is_empty() {
            let rest = match &self.inner {
                Unpacked::Stored(stretch) => stretch.left,
                Unpacked::Deflated(decoder) => {
                    decoder.get_ref().buffer().len() as u64 + decoder.get_ref().get_ref().left
                }
            };
            return match (self.left, rest, self.sum.clone().finalize() == self.crc) {
                (0, 0, true) => Ok(0),
                (0, 0, false) => wrong("the sum of a file is wrong"),
                _ => wrong("a file is not as long as announced"),
            };
        }
        let Some(left) = self.left.checked_sub(len as u64) else { return wrong("a file is longer than announced") };
        self.left = left;
        self.sum.update(&into[..len]);
        Ok(len)
    }
}
