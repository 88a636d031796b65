//! Opening a log: reads every segment, mends a torn tail, refuses anything else that is damaged.
//!
//! - The last write may have been cut by a crash: what lies behind the last whole record of the *last*
//!   segment is cut off. Nothing in it was acknowledged, because the sync after it never returned.
//! - A damaged record with a whole record of a *later* batch behind it had been synced: that is decay.
//!   So is damage in an earlier segment, a segment missing in between, or a segment that does not begin
//!   where the one before it ended. Decay is [`WalError::Corrupt`], never a shorter log.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::index::{Index, Location, Slot};
use super::record::{self, Found, Frontier, Place, Record};
use super::segment::{self, HEADER_BYTES, Header, Segment, Syncs, UNFINISHED_SUFFIX};
use super::{Repair, WalConfig, WalError};

/// A log as it was found on disk, ready to be written on.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) index: Index,
    pub(super) segment: Segment,
    /// Earlier segments, oldest first.
    pub(super) sealed: VecDeque<Sealed>,
    /// Highest entry in `segment`.
    pub(super) highest: Option<u64>,
    /// Number of the last batch.
    pub(super) batch: u64,
    pub(super) repair: Option<Repair>,
}

/// A segment that is no longer written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) sequence: u64,
    /// Highest entry ever written to it; it may be deleted when that one is purged.
    pub(super) highest: Option<u64>,
}

/// Reads the log in `folder`, which may be empty.
pub(super) fn recover(folder: &Path, config: &WalConfig, syncs: &Syncs) -> Result<Recovery, WalError> {
    let mut sequences = list(folder)?;
    let leftovers = split_leftovers(&mut sequences);
    let mut replay = Replay::new(config);
    let last = sequences.last().copied();
    for &sequence in &sequences {
        replay.segment(folder, sequence, last == Some(sequence), syncs)?;
    }
    replay.nothing_is_missing(folder)?;
    for sequence in leftovers {
        let path = segment::path(folder, sequence);
        fs::remove_file(&path).map_err(|error| WalError::io("delete a purged segment", error))?;
    }
    replay.resume(folder, syncs)
}

/// Sequence numbers present, ascending. Deletes what was still being made when the process ended.
fn list(folder: &Path) -> Result<Vec<u64>, WalError> {
    let listing = |error| WalError::io("list the log's folder", error);
    let mut sequences = Vec::new();
    for entry in fs::read_dir(folder).map_err(listing)? {
        let entry = entry.map_err(listing)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(UNFINISHED_SUFFIX) {
            fs::remove_file(entry.path()).map_err(|error| WalError::io("delete an unfinished file", error))?;
        } else if let Some(sequence) = segment::sequence_of(name) {
            sequences.push(sequence);
        }
    }
    sequences.sort_unstable();
    Ok(sequences)
}

/// Takes out the segments below the last gap in the numbering. Purged segments are deleted oldest
/// first, but a file system may make a later deletion durable before an earlier one. Whether they
/// really were purged is checked by [`Replay::nothing_is_missing`].
fn split_leftovers(sequences: &mut Vec<u64>) -> Vec<u64> {
    let live = sequences.windows(2).rposition(|pair| pair[0] + 1 != pair[1]).map_or(0, |position| position + 1);
    let live = sequences.split_off(live);
    std::mem::replace(sequences, live)
}

struct Replay<'a> {
    config: &'a WalConfig,
    index: Index,
    first: Option<FirstSegment>,
    segments: VecDeque<Sealed>,
    last: Option<(Header, u64)>,
    batch: u64,
    repair: Option<Repair>,
}

/// The oldest segment there is, to be judged when the whole log was read.
struct FirstSegment {
    sequence: u64,
    next: Option<u64>,
}

impl<'a> Replay<'a> {
    fn new(config: &'a WalConfig) -> Self {
        Self {
            config,
            index: Index::new(Frontier::default(), config.cache_bytes),
            first: None,
            segments: VecDeque::new(),
            last: None,
            batch: 0,
            repair: None,
        }
    }

    fn segment(&mut self, folder: &Path, sequence: u64, is_last: bool, syncs: &Syncs) -> Result<(), WalError> {
        let path = segment::path(folder, sequence);
        let bytes = fs::read(&path).map_err(|error| WalError::io("read a segment", error))?;
        let corrupt = |offset: usize, why: String| WalError::Corrupt { file: path.clone(), offset: offset as u64, why };
        let header = Header::decode(&bytes)
            .filter(|header| header.sequence == sequence)
            .ok_or_else(|| corrupt(0, "the segment's header is damaged".into()))?;

        let mut highest = None;
        let mut place = Place::End;
        let mut at = HEADER_BYTES;
        while at < bytes.len() {
            match record::decode(&bytes, at, header.salt) {
                Ok(found) => {
                    (at, place) = (found.span.end, found.place);
                    let offset = found.span.start;
                    self.record(found, sequence, &mut highest).map_err(|why| corrupt(offset, why))?;
                }
                Err(why) if !is_last || at == HEADER_BYTES => return Err(corrupt(at, why.to_string())),
                Err(why) => {
                    let torn = match place {
                        Place::End => self.batch + 1,
                        Place::Within => self.batch,
                    };
                    if record::latest_batch_after(&bytes, at, header.salt) > Some(torn) {
                        let why = format!("{why}, though it was synced before what follows it");
                        return Err(corrupt(at, why));
                    }
                    self.mend(&path, at, bytes.len(), syncs)?;
                    break;
                }
            }
        }
        if at == HEADER_BYTES {
            return Err(corrupt(at, "the segment's first record is missing".into()));
        }
        self.segments.push_back(Sealed { sequence, highest });
        self.last = Some((header, at as u64));
        Ok(())
    }

    /// Takes one record in; the error says why it cannot stand here.
    fn record(&mut self, found: Found<'_>, segment: u64, highest: &mut Option<u64>) -> Result<(), String> {
        let opens_segment = found.span.start == HEADER_BYTES;
        if opens_segment != matches!(found.record, Record::Frontier(_)) {
            return Err("a segment begins with a frontier, and nothing else does".into());
        }
        if found.batch < self.batch {
            return Err(format!("batch {} after batch {}", found.batch, self.batch));
        }
        self.batch = found.batch;
        match found.record {
            Record::Frontier(frontier) if self.first.is_none() => {
                self.first = Some(FirstSegment { sequence: segment, next: frontier.next });
                self.index = Index::new(frontier, self.config.cache_bytes);
            }
            Record::Frontier(frontier) if frontier == *self.index.frontier() => {}
            Record::Frontier(_) => return Err("the segment does not begin where the last ended".into()),
            Record::Entry { index, .. } => {
                let location = Location { segment, offset: found.span.start as u64, length: found.span.len() };
                self.index.append(index, Slot::Stored(location)).map_err(|gap| gap.to_string())?;
                *highest = (*highest).max(Some(index));
            }
            Record::Truncate { since } => self.index.truncate(since),
            Record::Purge { upto, marker } => self.index.purge(upto, marker),
            Record::Committed { marker } => self.index.commit(marker),
        }
        Ok(())
    }

    /// Cuts the torn tail off, so that it is gone before anything new is written.
    fn mend(&mut self, path: &Path, keep: usize, length: usize, syncs: &Syncs) -> Result<(), WalError> {
        let cut = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(keep as u64)?;
            syncs.contents(&file)
        };
        cut().map_err(|error| WalError::io("cut a torn write off", error))?;
        let repair = Repair { file: PathBuf::from(path), offset: keep as u64, bytes_cut: (length - keep) as u64 };
        tracing::warn!(?repair, "the last write was torn by a crash; it had not been acknowledged");
        self.repair = Some(repair);
        Ok(())
    }

    /// Everything before the oldest segment must have been purged.
    fn nothing_is_missing(&self, folder: &Path) -> Result<(), WalError> {
        let Some(first) = &self.first else { return Ok(()) };
        let purged_next = self.index.frontier().purged.as_ref().map_or(0, |(upto, _)| upto + 1);
        if first.sequence > 0 && first.next.is_some_and(|next| next > purged_next) {
            return Err(WalError::Corrupt {
                file: segment::path(folder, first.sequence - 1),
                offset: 0,
                why: format!("the segment is missing, and entries from {purged_next} on with it"),
            });
        }
        Ok(())
    }

    /// Opens the last segment to write on, or begins a new one if there is none or it was mended: what
    /// was cut off must not be followed by records of another batch.
    fn resume(mut self, folder: &Path, syncs: &Syncs) -> Result<Recovery, WalError> {
        let opening = |error| WalError::io("open a segment to write", error);
        let (segment, highest) = match self.last {
            Some((header, length)) if self.repair.is_none() => {
                let highest = self.segments.pop_back().and_then(|sealed| sealed.highest);
                (Segment::resume(folder, header, length).map_err(opening)?, highest)
            }
            last => {
                let sequence = last.map_or(0, |(header, _)| header.sequence + 1);
                self.batch += 1;
                let frontier = self.index.frontier().clone();
                let segment = Segment::create(folder, sequence, self.batch, frontier, syncs);
                (segment.map_err(opening)?, None)
            }
        };
        Ok(Recovery {
            index: self.index,
            segment,
            sealed: self.segments,
            highest,
            batch: self.batch,
            repair: self.repair,
        })
    }
}
