//! Which addresses a source may come from: those of the public internet, and no others.
//!
//! A request names a recipe, a recipe names a URL, and a volunteer follows it from inside its owner's network. Whatever the
//! IANA special-purpose registries (RFC 6890; iana-ipv4-special-registry, iana-ipv6-special-registry) do not call globally
//! reachable is refused; so is every IPv6 address outside the global unicast block, and whatever carries a refused IPv4
//! address in it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not one of the public internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// This machine.
    Loopback,
    /// A private network (RFC 1918), unique local addresses (RFC 4193) or a carrier's network (RFC 6598).
    Private,
    /// The link itself (RFC 3927, RFC 4291); clouds serve their secrets there.
    LinkLocal,
    /// Nobody, a group or everybody: unspecified, multicast, broadcast.
    NotOne,
    /// Set aside for protocols, tests, examples or the future.
    Reserved,
}

impl Range {
    /// Whether an owner may let sources come from there.
    #[must_use]
    pub fn can_be_allowed(self) -> bool {
        matches!(self, Self::Loopback | Self::Private)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "of the fetching machine itself",
            Self::Private => "in a private network",
            Self::LinkLocal => "on the local link",
            Self::NotOne => "of no single machine",
            Self::Reserved => "reserved",
        })
    }
}

/// First address, length of the prefix, range.
const V4: [(Ipv4Addr, u32, Range); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, Range::NotOne),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Range::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Range::Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Range::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Range::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Range::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Range::Reserved),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Range::Reserved),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Range::Reserved),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Range::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Range::Reserved),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Range::Reserved),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Range::Reserved),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Range::NotOne),
    (Ipv4Addr::new(255, 255, 255, 255), 32, Range::NotOne),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Range::Reserved),
];

/// First address, length of the prefix, range. What is in none of them and not in 2000::/3 is reserved.
const V6: [(Ipv6Addr, u32, Range); 10] = [
    (Ipv6Addr::UNSPECIFIED, 128, Range::NotOne),
    (Ipv6Addr::LOCALHOST, 128, Range::Loopback),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Range::Reserved),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Range::Reserved),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Range::Reserved),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Range::Reserved),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Range::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Range::LinkLocal),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Range::Private),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Range::NotOne),
];

/// Global unicast (RFC 4291, section 2.4).
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// IPv4 addresses written as IPv6 (RFC 4291) and as NAT64 translates them (RFC 6052).
const CARRIERS: [(Ipv6Addr, u32); 2] =
    [(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96)];

/// The range that `address` lies in; `None` for the public internet.
#[must_use]
pub fn range_of(address: IpAddr) -> Option<Range> {
    match address {
        IpAddr::V4(address) => {
            let within = |(first, len, _): &&(Ipv4Addr, u32, Range)| {
                (u32::from(*first) ^ u32::from(address)).leading_zeros() >= *len
            };
            V4.iter().find(within).map(|(.., range)| *range)
        }
        IpAddr::V6(address) => {
            let within = |first: Ipv6Addr, len: u32| (u128::from(first) ^ u128::from(address)).leading_zeros() >= len;
            if CARRIERS.iter().any(|(first, len)| within(*first, *len)) {
                let [.., a, b, c, d] = address.octets();
                return range_of(Ipv4Addr::new(a, b, c, d).into());
            }
            match V6.iter().find(|(first, len, _)| within(*first, *len)) {
                Some((.., range)) => Some(*range),
                None => (!within(GLOBAL_V6.0, GLOBAL_V6.1)).then_some(Range::Reserved),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        let rows: [(&[&str], Option<Range>); 6] = [
            (
                &[
                    "1.1.1.1",
                    "8.8.8.8",
                    "9.255.255.255",
                    "11.0.0.0",
                    "100.63.255.255",
                    "100.128.0.0",
                    "126.255.255.255",
                    "128.0.0.0",
                    "169.253.255.255",
                    "169.255.0.0",
                    "172.15.255.255",
                    "172.32.0.0",
                    "192.0.1.0",
                    "192.167.255.255",
                    "192.169.0.0",
                    "198.17.255.255",
                    "198.20.0.0",
                    "223.255.255.255",
                    "2606:4700::1111",
                    "2001:200::1",
                    "2a00::1",
                    "3ffe::1",
                    "2003::1",
                    "::ffff:1.1.1.1",
                    "64:ff9b::1.1.1.1",
                ],
                None,
            ),
            (&["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"], Some(Range::Loopback)),
            (
                &[
                    "10.0.0.0",
                    "10.255.255.255",
                    "172.16.0.0",
                    "172.31.255.255",
                    "192.168.0.0",
                    "192.168.255.255",
                    "100.64.0.0",
                    "100.127.255.255",
                    "fc00::1",
                    "fdff::1",
                    "fec0::1",
                    "::ffff:10.0.0.1",
                    "64:ff9b::192.168.1.1",
                ],
                Some(Range::Private),
            ),
            (
                &["169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::1", "febf::1", "::ffff:169.254.169.254"],
                Some(Range::LinkLocal),
            ),
            (
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "::",
                    "224.0.0.1",
                    "239.255.255.255",
                    "255.255.255.255",
                    "ff02::1",
                    "::ffff:0.0.0.0",
                ],
                Some(Range::NotOne),
            ),
            (
                &[
                    "192.0.0.1",
                    "192.0.2.1",
                    "192.88.99.1",
                    "198.18.0.0",
                    "198.19.255.255",
                    "198.51.100.1",
                    "203.0.113.1",
                    "240.0.0.1",
                    "255.255.255.254",
                    "::127.0.0.1",
                    "::10.0.0.1",
                    "64:ff9b:1::1",
                    "100::1",
                    "2001::1",
                    "2001:1ff::1",
                    "2001:db8::1",
                    "2002:7f00:1::1",
                    "3fff::1",
                    "4000::1",
                    "5f00::1",
                    "1::1",
                ],
                Some(Range::Reserved),
            ),
        ];
        for (addresses, range) in rows {
            for address in addresses {
                assert_eq!(range_of(address.parse().unwrap()), range, "{address}");
            }
        }
        assert!(Range::Private.can_be_allowed() && Range::Loopback.can_be_allowed());
        assert!(
            !Range::LinkLocal.can_be_allowed() && !Range::NotOne.can_be_allowed() && !Range::Reserved.can_be_allowed()
        );
    }
}
