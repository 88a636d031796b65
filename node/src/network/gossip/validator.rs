//! Judges gossip before it is forwarded, beside the driver and never in it.
//!
//! The order is that of cost: size, form, farm and kind, freshness, replay, rate, signature. What an author is remembered by
//! (its newest words, its rate) is only written once the signature has been found good, so nobody can use up another's share.
//! What cannot be honest is rejected, which costs the peer that passed it on its standing; what may be late or a copy is
//! ignored, which costs nobody anything.

use super::bucket::Bucket;
use crate::network::News;
use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId};
use protocol::codec;
use protocol::digest::Digest;
use protocol::gossip::{CLOCK_WINDOW, CapabilityNews, MAX_GOSSIP_BYTES, RequestNews};
use protocol::id::{FarmId, PeerKey};
use protocol::signed::{Kind, OpenError, Signed};
use protocol::time::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Messages that may wait to be judged; more are ignored.
pub(in crate::network) const QUEUE: usize = 256;
/// Authors remembered; the one that was silent longest is forgotten for a new one.
const MAX_AUTHORS: usize = 4_096;
/// Words of one author remembered within the clock window.
const MAX_WORDS: usize = 64;
/// Words an author may whisper at once, and how often after that.
const BURST: u32 = 32;
const EVERY: Duration = Duration::from_secs(2);

/// A message to be judged.
#[derive(Debug)]
pub(in crate::network) struct Whisper {
    /// Its id.
    pub(in crate::network) id: MessageId,
    /// Who passed it on.
    pub(in crate::network) from: PeerId,
    /// The kind of word that belongs on its topic.
    pub(in crate::network) kind: Kind,
    /// Its bytes.
    pub(in crate::network) data: Vec<u8>,
}

/// What became of it.
#[derive(Debug)]
pub(in crate::network) struct Judgement {
    /// Its id.
    pub(in crate::network) id: MessageId,
    /// Who passed it on.
    pub(in crate::network) from: PeerId,
    /// Whether to forward it.
    pub(in crate::network) acceptance: MessageAcceptance,
    /// What it says, when it is accepted.
    pub(in crate::network) news: Option<News>,
}

/// Why a word is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::network) enum Fault {
    /// Longer than gossip may be.
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// Not an envelope in canonical form.
    #[error("not an envelope: {0}")]
    Form(codec::CodecError),
    /// Wrong kind, wrong farm, wrong signature or a damaged payload.
    #[error(transparent)]
    Envelope(OpenError),
    /// Its author's clock is too far from ours, or its time is over.
    #[error("stale or from the future")]
    Stale,
    /// Heard before.
    #[error("heard before")]
    Replay,
    /// Its author whispers too much.
    #[error("its author whispers too much")]
    Rate,
}

impl Fault {
    fn acceptance(&self) -> MessageAcceptance {
        match self {
            Self::TooLong(_) | Self::Form(_) | Self::Envelope(_) => MessageAcceptance::Reject,
            Self::Stale | Self::Replay | Self::Rate => MessageAcceptance::Ignore,
        }
    }
}

/// Judges what comes until nobody sends any more.
pub(in crate::network) async fn run(
    farm: FarmId,
    mut whispers: mpsc::Receiver<Whisper>,
    judgements: mpsc::Sender<Judgement>,
) {
    let mut validator = Validator::new(farm);
    while let Some(Whisper { id, from, kind, data }) = whispers.recv().await {
        let (acceptance, news) = match validator.judge(kind, &data, wall_clock(), Instant::now()) {
            Ok(news) => (MessageAcceptance::Accept, Some(news)),
            Err(fault) => {
                tracing::debug!(%from, %fault, "a whisper was not forwarded");
                (fault.acceptance(), None)
            }
        };
        if judgements.send(Judgement { id, from, acceptance, news }).await.is_err() {
            return;
        }
    }
}

/// The time of day.
pub(in crate::network) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH + since
}

/// The judge and what it remembers.
#[derive(Debug)]
pub(in crate::network) struct Validator {
    farm: FarmId,
    authors: BTreeMap<PeerKey, Author>,
    /// Authors by the time they were heard last.
    heard: BTreeSet<(Instant, PeerKey)>,
}

#[derive(Debug)]
struct Author {
    heard: Instant,
    bucket: Bucket,
    /// Words within the clock window, by the author's time.
    words: BTreeSet<(Timestamp, Digest)>,
}

impl Validator {
    /// A judge of this farm's gossip that has heard nothing.
    pub(in crate::network) fn new(farm: FarmId) -> Self {
        Self { farm, authors: BTreeMap::new(), heard: BTreeSet::new() }
    }

    /// Judges one word at this time of day and of the monotonic clock.
    pub(in crate::network) fn judge(
        &mut self,
        kind: Kind,
        data: &[u8],
        wall: Timestamp,
        now: Instant,
    ) -> Result<News, Fault> {
        if data.len() > MAX_GOSSIP_BYTES {
            return Err(Fault::TooLong(data.len()));
        }
        let signed: Signed = codec::decode(data, MAX_GOSSIP_BYTES).map_err(Fault::Form)?;
        if signed.farm != self.farm {
            return Err(Fault::Envelope(OpenError::Farm));
        }
        if signed.kind != kind {
            return Err(Fault::Envelope(OpenError::Kind { expected: kind, found: signed.kind }));
        }
        let (issued_at, ttl) = stamp(&signed)?;
        if wall.since(issued_at) > CLOCK_WINDOW.duration().min(ttl.duration())
            || issued_at.since(wall) > CLOCK_WINDOW.duration()
        {
            return Err(Fault::Stale);
        }
        let word = (issued_at, signed.id());
        self.unheard(&signed.key, word, now)?;
        let author = signed.key;
        let news = match kind {
            Kind::CapabilityNews => News::Capability { author, news: signed.open(self.farm).map_err(Fault::Envelope)? },
            _ => News::Request { author, news: signed.open(self.farm).map_err(Fault::Envelope)? },
        };
        self.remember(author, word, wall, now);
        Ok(news)
    }

    /// That this word is new and within its author's share.
    fn unheard(&mut self, key: &PeerKey, word: (Timestamp, Digest), now: Instant) -> Result<(), Fault> {
        let Some(author) = self.authors.get_mut(key) else { return Ok(()) };
        if author.words.contains(&word) {
            return Err(Fault::Replay);
        }
        // A full memory begins with the oldest word that is known; older ones cannot be told from copies.
        if author.words.len() >= MAX_WORDS && author.words.first().is_some_and(|oldest| word.0 <= oldest.0) {
            return Err(Fault::Replay);
        }
        if author.bucket.has_token(now) { Ok(()) } else { Err(Fault::Rate) }
    }

    fn remember(&mut self, key: PeerKey, word: (Timestamp, Digest), wall: Timestamp, now: Instant) {
        if self.authors.len() >= MAX_AUTHORS
            && !self.authors.contains_key(&key)
            && let Some((_, silent)) = self.heard.pop_first()
        {
            self.authors.remove(&silent);
        }
        let author = self.authors.entry(key).or_insert_with(|| Author {
            heard: now,
            bucket: Bucket::full(BURST, EVERY, now),
            words: BTreeSet::new(),
        });
        self.heard.remove(&(author.heard, key));
        self.heard.insert((now, key));
        author.heard = now;
        author.bucket.take(now);
        // What has left the clock window is refused as stale and need not be remembered.
        let window = wall - CLOCK_WINDOW.duration();
        author.words.retain(|(issued_at, _)| *issued_at >= window);
        author.words.insert(word);
        if author.words.len() > MAX_WORDS {
            author.words.pop_first();
        }
    }
}

/// When the author says it was said, and how long it holds; not believed before the signature is checked.
fn stamp(signed: &Signed) -> Result<(Timestamp, Span), Fault> {
    if signed.kind == Kind::CapabilityNews {
        let news: CapabilityNews = signed.payload_unchecked().map_err(Fault::Envelope)?;
        return Ok((news.issued_at, news.ttl));
    }
    let news: RequestNews = signed.payload_unchecked().map_err(Fault::Envelope)?;
    let ttl = match &news {
        RequestNews::Waiting { ttl, .. } => *ttl,
        RequestNews::Decided { .. } => CLOCK_WINDOW,
    };
    Ok((news.issued_at(), ttl))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::id::BuildKey;
    use protocol::signed::SecretKey;

    const WALL: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn farm() -> FarmId {
        FarmId(Digest::of(b"farm"))
    }

    fn author(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn word(n: u32, by: u8, issued_at: Timestamp) -> Signed {
        let build_key = BuildKey(Digest::of(&n.to_be_bytes()));
        Signed::new(&RequestNews::Decided { build_key, issued_at }, farm(), &author(by))
    }

    struct Bench {
        validator: Validator,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { validator: Validator::new(farm()), start: Instant::now() }
        }

        /// Judges a word `after` the start, on both clocks.
        fn judge(&mut self, signed: &Signed, after: Duration) -> Result<(), Fault> {
            let bytes = codec::encode(signed);
            self.validator.judge(Kind::RequestNews, &bytes, WALL + after, self.start + after).map(drop)
        }
    }

    #[test]
    fn each_fault_is_named_and_only_dishonest_ones_are_held_against_the_sender() {
        let mut bench = Bench::new();
        let mut judge = |kind, bytes: &[u8]| bench.validator.judge(kind, bytes, WALL, bench.start).map(drop);
        let good = codec::encode(&word(1, 1, WALL));
        let stale = codec::encode(&word(2, 1, WALL - Duration::from_millis(300_001)));
        let early = codec::encode(&word(3, 1, WALL + Duration::from_millis(300_001)));
        let mut forged = word(4, 1, WALL);
        forged.key = author(2).public();
        let foreign = Signed { farm: FarmId(Digest::of(b"other")), ..word(5, 1, WALL) };

        assert_eq!(judge(Kind::RequestNews, &good), Ok(()));
        let faults = [
            (judge(Kind::RequestNews, &good), Fault::Replay),
            (judge(Kind::RequestNews, &stale), Fault::Stale),
            (judge(Kind::RequestNews, &early), Fault::Stale),
            (judge(Kind::RequestNews, &[0; 1_025]), Fault::TooLong(1_025)),
            (judge(Kind::RequestNews, &codec::encode(&forged)), Fault::Envelope(OpenError::Signature)),
            (judge(Kind::RequestNews, &codec::encode(&foreign)), Fault::Envelope(OpenError::Farm)),
        ];
        for (result, fault) in faults {
            assert_eq!(result, Err(fault.clone()));
            let held_against = !matches!(fault, Fault::Replay | Fault::Stale);
            assert_eq!(matches!(fault.acceptance(), MessageAcceptance::Reject), held_against, "{fault}");
        }
        assert!(matches!(judge(Kind::RequestNews, b"noise"), Err(Fault::Form(_))));
        let wrong_topic = judge(Kind::CapabilityNews, &good);
        assert!(matches!(wrong_topic, Err(Fault::Envelope(OpenError::Kind { .. }))), "{wrong_topic:?}");
    }

    #[test]
    fn a_word_of_short_life_is_stale_sooner() {
        let mut bench = Bench::new();
        let news = RequestNews::Waiting {
            request: protocol::id::RequestId(Digest::of(b"r")),
            build_key: BuildKey(Digest::of(b"b")),
            requirement: protocol::id::RequirementId(Digest::of(b"q")),
            origin: author(1).public(),
            issued_at: WALL,
            ttl: Span::from_secs(10),
        };
        let signed = Signed::new(&news, farm(), &author(1));
        assert_eq!(bench.judge(&signed, Duration::from_secs(11)), Err(Fault::Stale));
        assert_eq!(bench.judge(&signed, Duration::from_secs(9)), Ok(()));
    }

    #[test]
    fn an_author_has_its_share_and_nobody_else_can_use_it_up() {
        let mut bench = Bench::new();
        for n in 0..1_000 {
            let forged = Signed { key: author(1).public(), ..word(n, 2, WALL) };
            assert_eq!(bench.judge(&forged, Duration::ZERO), Err(Fault::Envelope(OpenError::Signature)));
        }
        let passed = (0..100).filter(|n| bench.judge(&word(*n, 1, WALL), Duration::ZERO).is_ok()).count();
        assert_eq!(passed, BURST as usize);
        assert_eq!(bench.judge(&word(200, 1, WALL), Duration::ZERO), Err(Fault::Rate));
        assert_eq!(bench.judge(&word(200, 1, WALL), EVERY), Ok(()));
        assert_eq!(bench.judge(&word(1, 2, WALL), Duration::ZERO), Ok(()), "another author has its own");
    }

    #[test]
    fn a_full_memory_never_lets_a_copy_pass() {
        let mut bench = Bench::new();
        let at = |n: u32| Duration::from_secs(2) * n;
        let words: Vec<_> = (0..140).map(|n| word(n, 1, WALL + at(n))).collect();
        for (n, signed) in words.iter().enumerate() {
            assert_eq!(bench.judge(signed, at(n as u32)), Ok(()), "word {n}");
        }
        for (n, signed) in words.iter().enumerate() {
            assert!(bench.judge(signed, at(140)).is_err(), "copy of word {n}");
        }
        assert!(bench.validator.authors.values().all(|author| author.words.len() <= MAX_WORDS));
    }

    #[test]
    fn the_number_of_authors_is_bounded() {
        let mut validator = Validator::new(farm());
        let start = Instant::now();
        for n in 0..MAX_AUTHORS as u64 + 5 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            let heard = start + Duration::from_millis(n);
            validator.remember(PeerKey::from_bytes(key), (WALL, Digest::of(&key)), WALL, heard);
        }
        assert_eq!((validator.authors.len(), validator.heard.len()), (MAX_AUTHORS, MAX_AUTHORS));
        assert!(!validator.authors.contains_key(&PeerKey::from_bytes([0; 32])), "the one silent longest went");
    }
}
