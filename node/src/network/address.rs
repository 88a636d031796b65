//! Addresses: text outside, multiaddrs inside, and which of them are worth believing.
//!
//! What a person configured is tried, until the peer itself says that it is at another port there. What a peer says about
//! itself or others is filtered: loopback, unspecified, link-local and multicast addresses lead nowhere from another machine,
//! and a node that followed them would dial itself.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::io;
use std::net::{IpAddr, TcpListener};

/// A text is not an address that can be dialled or listened on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address like /ip4/192.0.2.7/tcp/4001: {reason}")]
pub struct AddressError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Whether addresses of this machine alone are worth remembering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It listens within this process alone, as tests do.
    Process,
    /// Everything this node listens on is loopback (or it listens on nothing): loopback is all there may be.
    Loopback,
    /// It listens on more.
    Wide,
}

/// Reads an address; a trailing `/p2p/…` is cut off, for the key says that better.
pub(super) fn parse(text: &str) -> Result<Multiaddr, AddressError> {
    let error = |reason: String| AddressError { text: text.to_owned(), reason };
    let address: Multiaddr = text.parse().map_err(|e: libp2p::multiaddr::Error| error(e.to_string()))?;
    let address = without_peer(address);
    if address.is_empty() { Err(error("it is empty".to_owned())) } else { Ok(address) }
}

/// Whether a text is an address that can be dialled or listened on.
///
/// # Errors
///
/// [`AddressError`] with what is wrong with it.
pub fn check(text: &str) -> Result<(), AddressError> {
    parse(text).map(drop)
}

/// Fails when somebody listens there already over TCP. libp2p shares ports between sockets, so that it would listen all the
/// same, and the system would hand each newcomer to either.
pub(super) fn is_free(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let (Some(host), Some(Protocol::Tcp(port))) = (parts.next().and_then(|first| ip(&first)), parts.next()) else {
        return Ok(());
    };
    if port == 0 { Ok(()) } else { TcpListener::bind((host, port)).map(drop) }
}

/// The address without the peer's name at its end.
pub(super) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// Whether an address that a peer told us is worth remembering.
pub(super) fn is_credible(address: &Multiaddr, reach: Reach) -> bool {
    let Some(first) = address.iter().next() else { return false };
    if matches!(first, Protocol::Memory(_)) {
        return reach == Reach::Process;
    }
    let dialable = is_tcp(address) || is_quic(address);
    match ip(&first) {
        Some(ip) if ip.is_loopback() => dialable && reach == Reach::Loopback,
        Some(ip) => dialable && !ip.is_unspecified() && !ip.is_multicast() && !is_link_local(ip),
        None => dialable && matches!(first, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)),
    }
}

/// Whether it leads to this machine only.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().next().and_then(|first| ip(&first)).is_some_and(|ip| ip.is_loopback())
}

/// Whether they differ in nothing but the port: whoever listens at one has left the other.
pub(super) fn is_same_but_for_port(one: &Multiaddr, other: &Multiaddr) -> bool {
    let without_port = |address: &Multiaddr| -> Multiaddr {
        let parts = address.iter().map(|part| match part {
            Protocol::Tcp(_) => Protocol::Tcp(0),
            Protocol::Udp(_) => Protocol::Udp(0),
            other => other,
        });
        parts.collect()
    };
    without_port(one) == without_port(other)
}

/// Whether it is plain TCP, the fastest way for bulk.
pub(super) fn is_tcp(address: &Multiaddr) -> bool {
    let mut parts = address.iter().skip(1);
    matches!(parts.next(), Some(Protocol::Tcp(_))) && parts.all(|part| matches!(part, Protocol::P2p(_)))
}

/// Whether it is QUIC.
pub(super) fn is_quic(address: &Multiaddr) -> bool {
    let mut parts = address.iter().skip(1);
    matches!((parts.next(), parts.next()), (Some(Protocol::Udp(_)), Some(Protocol::QuicV1)))
        && parts.all(|part| matches!(part, Protocol::P2p(_)))
}

fn ip(part: &Protocol<'_>) -> Option<IpAddr> {
    match part {
        Protocol::Ip4(ip) => Some((*ip).into()),
        Protocol::Ip6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_peers_say_is_filtered() {
        for (text, wide, loopback) in [
            ("/ip4/192.0.2.7/tcp/4001", true, true),
            ("/ip4/10.0.0.7/udp/4001/quic-v1", true, true),
            ("/ip6/2001:db8::7/tcp/4001", true, true),
            ("/dns/farm.example.org/tcp/4001", true, true),
            ("/ip4/127.0.0.1/tcp/4001", false, true),
            ("/ip6/::1/udp/4001/quic-v1", false, true),
            ("/ip4/0.0.0.0/tcp/4001", false, false),
            ("/ip4/169.254.1.1/tcp/4001", false, false),
            ("/ip6/fe80::1/tcp/4001", false, false),
            ("/ip4/224.0.0.251/udp/5353/quic-v1", false, false),
            ("/ip4/192.0.2.7/udp/4001", false, false),
            ("/ip4/192.0.2.7/tcp/4001/ws", false, false),
        ] {
            let address = parse(text).unwrap();
            assert_eq!(is_credible(&address, Reach::Wide), wide, "{text}");
            assert_eq!(is_credible(&address, Reach::Loopback), loopback, "{text}");
        }
        let here = parse("/memory/7").unwrap();
        assert_eq!(
            [Reach::Wide, Reach::Loopback, Reach::Process].map(|reach| is_credible(&here, reach)),
            [false, false, true]
        );
    }

    #[test]
    fn another_port_is_told_from_another_place() {
        let here = parse("/ip4/192.0.2.7/tcp/4001").unwrap();
        for (text, is_same) in [
            ("/ip4/192.0.2.7/tcp/4001", true),
            ("/ip4/192.0.2.7/tcp/4002", true),
            ("/ip4/192.0.2.8/tcp/4001", false),
            ("/ip4/192.0.2.7/udp/4001/quic-v1", false),
            ("/dns/farm.example.org/tcp/4001", false),
        ] {
            assert_eq!(is_same_but_for_port(&here, &parse(text).unwrap()), is_same, "{text}");
        }
    }

    #[test]
    fn the_name_at_the_end_is_cut_off() {
        let named = "/ip4/192.0.2.7/tcp/1/p2p/12D3KooWGatU9UVVbhuKPsVWnRPCRVZpRSZGuKGGtMsdyTSoXMBi";
        assert_eq!(parse(named).unwrap().to_string(), "/ip4/192.0.2.7/tcp/1");
        assert!(parse("localhost:4001").is_err());
        assert!(parse("").is_err());
    }
}
