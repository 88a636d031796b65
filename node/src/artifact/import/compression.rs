//! What an archive is, told by its first bytes, and its content within limits.

use super::{ImportError, MAX_GROWTH};
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

/// What xz may use to decode: above the 65 MiB of its own highest preset.
const XZ_MEMORY_BYTES: u64 = 96 << 20;
/// The largest zstd window, log 2: what `zstd --long` uses.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Where a tar header says that it is one (POSIX.1-1988).
const USTAR_AT: usize = 257;

/// Which archive `start`, the first bytes of a file, begins.
fn decoder<'a>(path: &Path, start: &[u8], content: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>, ImportError> {
    let format = |found| ImportError::Format { path: path.to_owned(), found };
    let damaged = |error: &dyn std::fmt::Display| ImportError::Damaged(error.to_string());
    match start {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(content))),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Ok(Box::new(MultiBzDecoder::new(content))),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED).map_err(|error| damaged(&error))?;
            Ok(Box::new(XzDecoder::new_stream(content, stream)))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(content).map_err(|error| damaged(&error))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|error| damaged(&error))?;
            Ok(Box::new(decoder))
        }
        _ if start.get(USTAR_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) => Ok(Box::new(content)),
        [] => Err(format("empty")),
        [b'P', b'K', 7, 8, ..] => Err(format("one part of a zip archive")),
        [b'7', b'z', 0xbc, 0xaf, ..] => Err(format("a 7z archive")),
        _ => Err(format("no archive")),
    }
}

/// The content of an archive, counted.
pub(super) struct Content<'a> {
    inner: Box<dyn Read + 'a>,
    left: u64,
    seen: Seen,
}

/// What became of the content, known to whoever reads it through others.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    limit: u64,
    over: Rc<Cell<bool>>,
    ended: Rc<Cell<bool>>,
}

impl Seen {
    /// The error behind a failure to read: the limit, the machine, or else the archive.
    pub(super) fn cause(&self, path: &Path, error: io::Error) -> ImportError {
        if self.over.get() {
            ImportError::TooLarge { limit: self.limit }
        } else if error.raw_os_error().is_some() {
            ImportError::Io { path: path.to_owned(), error }
        } else {
            ImportError::Damaged(error.to_string())
        }
    }

    /// Whether the end of the content was met.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }
}

impl<'a> Content<'a> {
    /// The content of the archive in `file`, which is `size` bytes long; it may grow to `grown_bytes` whatever its size.
    pub(super) fn new(
        path: &Path,
        size: u64,
        grown_bytes: u64,
        mut file: impl BufRead + 'a,
    ) -> Result<(Self, Seen), ImportError> {
        let start = file.fill_buf().map_err(super::unreadable(path))?.to_vec();
        let limit = grown_bytes.max(size.saturating_mul(MAX_GROWTH));
        let seen = Seen { limit, ..Seen::default() };
        Ok((Self { inner: decoder(path, &start, file)?, left: limit, seen: seen.clone() }, seen))
    }
}

impl Read for Content<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(into)?;
        self.seen.ended.set(len == 0 && !into.is_empty());
        match self.left.checked_sub(len as u64) {
            Some(left) => {
                self.left = left;
                Ok(len)
            }
            None => {
                self.seen.over.set(true);
                Err(io::Error::other("the content exceeds its limit"))
            }
        }
    }
}
