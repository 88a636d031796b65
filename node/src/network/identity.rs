//! The two coats of a key: ours ([`PeerKey`]) and libp2p's ([`PeerId`]).
//!
//! A peer id of an ed25519 key is that key itself, in a protobuf message in an identity multihash, so the conversion loses
//! nothing and needs no lookup in either direction.

use libp2p::PeerId;
use libp2p::identity::Keypair;
use protocol::id::PeerKey;
use protocol::signed::SecretKey;

/// Identity multihash (0x00) of 36 bytes: a protobuf of key type ed25519 (field 1 = 1) and 32 key bytes (field 2).
const ED25519_PEER_ID: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The libp2p peer id of a key.
#[must_use]
pub fn peer_id(key: &PeerKey) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&ED25519_PEER_ID);
    bytes[6..].copy_from_slice(key.as_bytes());
    match PeerId::from_bytes(&bytes) {
        Ok(peer) => peer,
        Err(error) => unreachable!("an identity multihash of 36 bytes is a peer id: {error}"),
    }
}

/// The key behind a libp2p peer id; `None` for a peer whose key is not ed25519, which belongs to no farm.
#[must_use]
pub fn peer_key(peer: &PeerId) -> Option<PeerKey> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&ED25519_PEER_ID)?;
    Some(PeerKey::from_bytes(key.try_into().ok()?))
}

/// The same secret as libp2p holds it.
pub(super) fn keypair(secret: &SecretKey) -> Keypair {
    match Keypair::ed25519_from_bytes(secret.to_seed()) {
        Ok(pair) => pair,
        Err(error) => unreachable!("32 bytes are an ed25519 seed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_coats_fit_the_same_key() {
        for seed in 0..32 {
            let secret = SecretKey::from_seed(&[seed; 32]);
            let pair = keypair(&secret);
            assert_eq!(peer_id(&secret.public()), pair.public().to_peer_id());
            assert_eq!(peer_key(&pair.public().to_peer_id()), Some(secret.public()));
        }
    }

    #[test]
    fn other_peer_ids_have_no_key_here() {
        assert_eq!(peer_key(&PeerId::random()), None);
    }
}
