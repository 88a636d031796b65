//! The vote, in a file of its own: `vote`, replaced whole and durable before the caller goes on.

use std::fs;
use std::io;
use std::path::Path;

use super::WalError;
use super::segment::Syncs;

const NAME: &str = "vote";
const MAGIC: [u8; 8] = *b"barnvot1";

/// Replaces the vote; it is on disk when this returns.
pub(super) fn write(folder: &Path, vote: &[u8], syncs: &Syncs) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + vote.len() + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(vote);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    syncs.replace(&folder.join(NAME), &bytes).map(drop)
}

/// The vote last written; none if there never was one. A damaged file is an error: whoever forgot
/// that it voted could vote twice.
pub(super) fn read(folder: &Path) -> Result<Option<Vec<u8>>, WalError> {
    let path = folder.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WalError::io("read the vote", error)),
    };
    let whole = || {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let vote = body.strip_prefix(&MAGIC)?;
        (crc32fast::hash(body) == u32::from_le_bytes(*crc)).then(|| vote.to_vec())
    };
    whole().map(Some).ok_or_else(|| WalError::Corrupt { file: path, offset: 0, why: "the vote is damaged".into() })
}
