//! Who fetches what: a queue of pieces that providers take from. Pure, so that its rules are tested as values.

use super::frame::MAX_DIGESTS;
use protocol::digest::Digest;
use protocol::id::PeerKey;
use protocol::tree::CHUNK_BYTES;
use std::collections::{BTreeMap, BTreeSet};

/// The most bytes of one piece.
pub const MAX_PIECE_BYTES: u64 = 4 << 20;
/// How many pieces an artifact is cut into at least, if its chunks allow: so many that several providers find work.
const PIECES: u64 = 32;
/// How many providers may owe the same piece.
const MAX_TAKERS: usize = 2;

/// A chunk that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes, at most [`CHUNK_BYTES`].
    pub len: u32,
}

/// The position of a piece in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceNr(usize);

/// Whether a provider has anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// It owes nothing: it may double what another owes.
    Idle,
    /// It owes pieces already.
    Busy,
}

/// Pieces that wait, are owed, or are done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pieces: Vec<Piece>,
    waiting: BTreeSet<PieceNr>,
    /// Pieces owed, oldest first: an increasing number for each time a piece is first taken.
    owed: BTreeMap<u64, PieceNr>,
    taken: u64,
    remaining_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Piece {
    /// What of it is missing.
    wants: Vec<Want>,
    takers: BTreeSet<PeerKey>,
    /// When it was first taken, as a key of [`Plan::owed`].
    since: Option<u64>,
    /// Who does not have all of it.
    without: BTreeSet<PeerKey>,
}

impl Plan {
    /// A plan for chunks, each named once, cut into pieces in their order.
    #[must_use]
    pub fn new(wants: Vec<Want>) -> Self {
        let remaining_bytes = wants.iter().map(|want| u64::from(want.len)).sum::<u64>();
        let piece_bytes = (remaining_bytes / PIECES).clamp(CHUNK_BYTES, MAX_PIECE_BYTES);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut bytes = 0;
        for want in wants {
            let len = u64::from(want.len);
            match pieces.last_mut() {
                Some(piece) if piece.wants.len() < MAX_DIGESTS && bytes + len <= piece_bytes => {
                    bytes += len;
                    piece.wants.push(want);
                }
                _ => {
                    bytes = len;
                    pieces.push(Piece { wants: vec![want], ..Piece::default() });
                }
            }
        }
        let waiting = (0..pieces.len()).map(PieceNr).collect();
        Self { pieces, waiting, owed: BTreeMap::new(), taken: 0, remaining_bytes }
    }

    /// Whether nothing is missing any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.owed.is_empty()
    }

    /// Whether any piece waits for a provider.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes still missing.
    #[must_use]
    pub const fn remaining_bytes(&self) -> u64 {
        self.remaining_bytes
    }

    /// Gives `peer` a piece: the first that waits; if none does and it is idle, the one that another has owed longest.
    pub fn take(&mut self, peer: PeerKey, load: Load) -> Option<(PieceNr, Vec<Want>)> {
        let waiting = self.waiting.iter().copied().find(|nr| !self.pieces[nr.0].without.contains(&peer));
        let owed = || {
            self.owed.values().copied().find(|nr| {
                let piece = &self.pieces[nr.0];
                let open_to_peer = !piece.takers.contains(&peer) && !piece.without.contains(&peer);
                open_to_peer && piece.takers.len() < MAX_TAKERS
            })
        };
        let nr = waiting.or_else(|| if load == Load::Idle { owed() } else { None })?;
        if self.waiting.remove(&nr) {
            self.taken += 1;
            self.pieces[nr.0].since = Some(self.taken);
            self.owed.insert(self.taken, nr);
        }
        let piece = &mut self.pieces[nr.0];
        piece.takers.insert(peer);
        Some((nr, piece.wants.clone()))
    }

    /// Verified chunks of a piece came; returns how many bytes of them were still missing.
    pub fn arrived(&mut self, nr: PieceNr, digests: &[Digest]) -> u64 {
        let arrived: BTreeSet<_> = digests.iter().collect();
        let piece = &mut self.pieces[nr.0];
        let mut bytes = 0;
        piece.wants.retain(|want| {
            let keep = !arrived.contains(&want.digest);
            bytes += if keep { 0 } else { u64::from(want.len) };
            keep
        });
        self.remaining_bytes -= bytes;
        if self.pieces[nr.0].wants.is_empty() {
            self.waiting.remove(&nr);
            if let Some(since) = self.pieces[nr.0].since.take() {
                self.owed.remove(&since);
            }
        }
        bytes
    }

    /// `peer` does not have all of this piece and is not asked for it again.
    pub fn lacks(&mut self, peer: PeerKey, nr: PieceNr) {
        self.pieces[nr.0].without.insert(peer);
    }

    /// `peer` has answered for this piece; what is still missing of it waits again unless another owes it.
    pub fn answered(&mut self, peer: PeerKey, nr: PieceNr) {
        let piece = &mut self.pieces[nr.0];
        if piece.takers.remove(&peer)
            && piece.takers.is_empty()
            && let Some(since) = piece.since.take()
        {
            self.owed.remove(&since);
            self.waiting.insert(nr);
        }
    }

    /// Whether `peer` may have something that is still missing.
    #[must_use]
    pub fn is_open_to(&self, peer: PeerKey) -> bool {
        let open = |nr: &PieceNr| !self.pieces[nr.0].without.contains(&peer);
        self.waiting.iter().any(open) || self.owed.values().any(open)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn peer(nr: u8) -> PeerKey {
        PeerKey::from_bytes([nr; 32])
    }

    fn wants(lens: &[u32]) -> Vec<Want> {
        let want = |(at, len): (usize, &u32)| Want { digest: Digest::of(&at.to_be_bytes()), len: *len };
        lens.iter().enumerate().map(want).collect()
    }

    fn digests(wants: &[Want]) -> Vec<Digest> {
        wants.iter().map(|want| want.digest).collect()
    }

    /// `peer` is gone: nothing more comes of what it owes.
    fn leave(plan: &mut Plan, peer: PeerKey) {
        let owed: Vec<_> = plan.owed.values().copied().collect();
        owed.into_iter().for_each(|nr| plan.answered(peer, nr));
    }

    #[test]
    fn pieces_are_bounded_in_bytes_and_in_number() {
        let mut plan = Plan::new(wants(&[1 << 20; 256]));
        let (_, first) = plan.take(peer(1), Load::Idle).unwrap();
        assert_eq!(first.len(), 4);
        let mut small = Plan::new(wants(&[0; 10_000]));
        let (_, first) = small.take(peer(1), Load::Idle).unwrap();
        assert_eq!(first.len(), MAX_DIGESTS);
        let mut fair = Plan::new(wants(&[1 << 20; 64]));
        assert_eq!(fair.take(peer(1), Load::Idle).unwrap().1.len(), 2);
    }

    #[test]
    fn what_the_gone_owed_waits_again() {
        let mut plan = Plan::new(wants(&[1 << 20; 3]));
        let (first, _) = plan.take(peer(1), Load::Idle).unwrap();
        let (second, chunks) = plan.take(peer(1), Load::Busy).unwrap();
        assert_eq!(plan.arrived(second, &digests(&chunks)), 1 << 20);
        leave(&mut plan, peer(1));
        assert_eq!(plan.take(peer(2), Load::Idle).unwrap().0, first);
        assert_eq!(plan.remaining_bytes(), 2 << 20);
    }

    #[test]
    fn only_the_idle_double_and_only_once() {
        let mut plan = Plan::new(wants(&[10]));
        let (nr, chunks) = plan.take(peer(1), Load::Idle).unwrap();
        assert_eq!(plan.take(peer(2), Load::Busy), None);
        assert_eq!(plan.take(peer(1), Load::Idle), None);
        assert_eq!(plan.take(peer(2), Load::Idle), Some((nr, chunks.clone())));
        assert_eq!(plan.take(peer(3), Load::Idle), None);
        assert_eq!(plan.arrived(nr, &digests(&chunks)), 10);
        assert_eq!(plan.arrived(nr, &digests(&chunks)), 0);
        assert!(plan.is_done());
        plan.answered(peer(1), nr);
        leave(&mut plan, peer(2));
        assert!(plan.is_done());
    }

    #[test]
    fn who_lacks_a_piece_is_not_asked_for_it_again() {
        let mut plan = Plan::new(wants(&[10]));
        let (nr, _) = plan.take(peer(1), Load::Idle).unwrap();
        plan.lacks(peer(1), nr);
        plan.answered(peer(1), nr);
        assert!(!plan.is_open_to(peer(1)) && plan.is_open_to(peer(2)));
        assert_eq!(plan.take(peer(1), Load::Idle), None);
        assert_eq!(plan.take(peer(2), Load::Idle).unwrap().0, nr);
    }

    proptest! {
        /// Whatever providers do, everything is fetched once as long as one of them answers.
        #[test]
        fn every_byte_counts_once(
            lens in prop::collection::vec(0u32..=(1 << 20), 0..200),
            steps in prop::collection::vec((1u8..5, 0u8..4), 0..400),
        ) {
            let total: u64 = lens.iter().map(|len| u64::from(*len)).sum();
            let mut plan = Plan::new(wants(&lens));
            let mut owed: BTreeMap<PeerKey, Vec<(PieceNr, Vec<Want>)>> = BTreeMap::new();
            let mut counted = 0;
            for (nr, what) in steps {
                let peer = peer(nr);
                let mine = owed.entry(peer).or_default();
                match what {
                    0 | 1 => mine.extend(plan.take(peer, if mine.is_empty() { Load::Idle } else { Load::Busy })),
                    2 => if let Some((nr, chunks)) = mine.pop() {
                        let half = chunks.len().div_ceil(2);
                        counted += plan.arrived(nr, &digests(&chunks[..half]));
                        if half < chunks.len() {
                            plan.lacks(peer, nr);
                        }
                        plan.answered(peer, nr);
                    },
                    _ => {
                        leave(&mut plan, peer);
                        mine.clear();
                    }
                }
                prop_assert_eq!(plan.remaining_bytes(), total - counted);
            }
            (1..5).for_each(|nr| leave(&mut plan, peer(nr)));
            while let Some((nr, chunks)) = plan.take(peer(9), Load::Idle) {
                counted += plan.arrived(nr, &digests(&chunks));
                plan.answered(peer(9), nr);
            }
            prop_assert!(plan.is_done());
            prop_assert_eq!(counted, total);
        }
    }
}
