//! Providers: who is named as having something, and one of them at work on its stream.

use super::frame::{Ask, HEAD_BYTES, Head, Reply};
use super::plan::Want;
use super::{Fault, STALL};
use crate::network::{BulkStream, Network};
use protocol::digest::Digest;
use protocol::id::PeerKey;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::bytes::{BufMut as _, Bytes};

/// Small answers are gathered into reads of this size; larger ones go straight to their place.
const READ_BYTES: usize = 64 << 10;
/// The slowest an answer may come, in bytes a second, once [`STALL`] has passed.
const MIN_RATE: u64 = 8 << 10;

/// The most providers that are taken notice of for one artifact.
const MAX_PROVIDERS: usize = 128;

/// Peers said to have something. They may be known from the start, or be found while a fetch runs; each is offered once.
#[derive(Debug, Default)]
pub struct Providers {
    known: VecDeque<PeerKey>,
    /// Everybody ever named, in that order.
    seen: Vec<PeerKey>,
    banned: BTreeSet<PeerKey>,
    arriving: Option<mpsc::Receiver<PeerKey>>,
}

impl Providers {
    /// Peers known already, best first, and more to come until the channel closes.
    #[must_use]
    pub fn new(known: Vec<PeerKey>, arriving: mpsc::Receiver<PeerKey>) -> Self {
        let mut providers = Self::from(known);
        providers.arriving = Some(arriving);
        providers
    }

    /// The next one; waits while more may come. Cancelling it loses nobody.
    pub(super) async fn next(&mut self) -> Option<PeerKey> {
        loop {
            if let Some(peer) = self.known.pop_front() {
                return Some(peer);
            }
            match self.arriving.as_mut()?.recv().await {
                Some(peer) => self.add(peer),
                None => self.arriving = None,
            }
        }
    }

    /// Whether another one is known now.
    pub(super) fn is_waiting(&mut self) -> bool {
        while let Some(Ok(peer)) = self.arriving.as_mut().map(mpsc::Receiver::try_recv) {
            self.add(peer);
        }
        !self.known.is_empty()
    }

    /// It lied: not to be offered again.
    pub(super) fn ban(&mut self, peer: PeerKey) {
        self.banned.insert(peer);
        self.known.retain(|known| *known != peer);
    }

    /// Offers everybody again, `first` before the others.
    pub(super) fn rewind(&mut self, first: Option<PeerKey>) {
        let others = self.seen.iter().copied().filter(|peer| Some(*peer) != first && !self.banned.contains(peer));
        self.known = first.into_iter().chain(others).collect();
    }

    fn add(&mut self, peer: PeerKey) {
        if self.seen.len() < MAX_PROVIDERS && !self.seen.contains(&peer) {
            self.seen.push(peer);
            self.known.push_back(peer);
        }
    }
}

impl From<Vec<PeerKey>> for Providers {
    fn from(known: Vec<PeerKey>) -> Self {
        let mut providers = Self::default();
        known.into_iter().for_each(|peer| providers.add(peer));
        providers
    }
}

impl From<mpsc::Receiver<PeerKey>> for Providers {
    fn from(arriving: mpsc::Receiver<PeerKey>) -> Self {
        Self::new(Vec::new(), arriving)
    }
}

/// An open stream to a provider.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) answers: Answers,
    pub(super) asks: WriteHalf<BulkStream>,
}

/// The reading half.
pub(super) type Answers = BufReader<ReadHalf<BulkStream>>;

/// What came for one digest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Bytes(Bytes),
    Absent,
}

impl Stream {
    pub(super) async fn open(network: &Network, peer: PeerKey) -> Result<Self, Fault> {
        let opening = timeout(STALL, network.open_bulk(peer));
        let stream = opening.await.map_err(|_| Fault::Stalled)?.map_err(Fault::Unreachable)?;
        let (answers, asks) = tokio::io::split(stream);
        Ok(Self { answers: BufReader::with_capacity(READ_BYTES, answers), asks })
    }
}

/// Writes requests as they are handed over, until nobody hands any over.
pub(super) async fn write_asks(mut stream: WriteHalf<BulkStream>, mut asks: mpsc::Receiver<Ask>) -> io::Result<()> {
    while let Some(ask) = asks.recv().await {
        stream.write_all(&ask.encode()).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// Reads the answer for position `at`, whose bytes must be as many as `due` says.
pub(super) async fn read_answer(stream: &mut (impl AsyncRead + Unpin), at: u16, due: Due) -> Result<Answer, Fault> {
    let mut head = [0; HEAD_BYTES];
    timeout(STALL, stream.read_exact(&mut head)).await.map_err(|_| Fault::Stalled)?.map_err(broken)?;
    let head = Head::decode(head)?;
    if head.reply == Reply::Busy {
        return Err(Fault::Busy);
    }
    if head.at != at {
        return Err(super::frame::FrameError::Order { expected: at, found: head.at }.into());
    }
    match head.reply {
        Reply::Bytes(len) => {
            due.check(len)?;
            read_bytes(stream, len).await.map(Answer::Bytes)
        }
        Reply::Absent => Ok(Answer::Absent),
        Reply::Refused => Err(Fault::Refused),
        Reply::Busy => Err(Fault::Busy),
    }
}

/// How many bytes an answer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Exactly(u32),
    AtMost(u64),
}

impl Due {
    fn check(self, found: u32) -> Result<(), Fault> {
        let found = u64::from(found);
        let (expected, fits) = match self {
            Self::Exactly(len) => (u64::from(len), u64::from(len) == found),
            Self::AtMost(max) => (max, found <= max),
        };
        if fits { Ok(()) } else { Err(super::frame::FrameError::Length { expected, found }.into()) }
    }
}

async fn read_bytes(stream: &mut (impl AsyncRead + Unpin), len: u32) -> Result<Bytes, Fault> {
    let total = len as usize;
    let began = Instant::now();
    // Room is made as bytes come: an announced length alone costs nothing.
    let mut bytes = Vec::with_capacity(total.min(protocol::tree::CHUNK_BYTES as usize));
    while bytes.len() < total {
        let missing = total - bytes.len();
        // By what has come, not by what was announced: that would let whoever announces much be as slow as it likes.
        let deadline = began + STALL + Duration::from_secs(bytes.len() as u64 / MIN_RATE);
        // What is left is zeroed before every read, so a read gets no more of it than it is likely to fill.
        let mut rest = (&mut bytes).limit(missing.min(READ_BYTES));
        let within = STALL.min(deadline.saturating_duration_since(Instant::now()));
        let read = timeout(within, stream.read_buf(&mut rest)).await.map_err(|_| Fault::Stalled)?;
        if read.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(bytes.into())
}

pub(super) fn broken(error: io::Error) -> Fault {
    Fault::Broken(error.to_string())
}

/// A request for these chunks.
pub(super) fn ask_for(wants: &[Want]) -> Ask {
    Ask::Chunks(wants.iter().map(|want| want.digest).collect::<Vec<Digest>>())
}
