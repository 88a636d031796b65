//! Ports that a daemon takes again at its next start, so that tickets stay true, and where its own machine finds them.

use protocol::ticket::MAX_ADDRESSES;

/// What of a node's addresses is listened on here: an external one may lead to another port.
pub(crate) fn own_of(addresses: &[String], external: &[String]) -> Vec<String> {
    let is_external = |address: &String| external.iter().any(|text| text.split("/p2p/").next() == Some(address));
    addresses.iter().filter(|address| !is_external(address)).cloned().collect()
}

/// The same addresses at the ports of the last run, where there was one, so that tickets stay true.
pub(crate) fn taken_before(listened: &[String], wanted: Vec<String>) -> Vec<String> {
    let port_of = |text: &str, kind: &str| -> Option<u16> { text.split_once(kind)?.1.split('/').next()?.parse().ok() };
    wanted
        .into_iter()
        .map(|address| {
            let kind = if address.contains("/tcp/") { "/tcp/" } else { "/udp/" };
            match listened.iter().find_map(|before| port_of(before, kind)) {
                Some(port) => address.replacen(&format!("{kind}0"), &format!("{kind}{port}"), 1),
                None => address,
            }
        })
        .collect()
}

/// How commands on this machine reach a node with these addresses: by loopback first, which stays when the machine comes into
/// another network.
pub(crate) fn from_here(addresses: &[String], external: &[String]) -> Vec<String> {
    let at_loopback = |address: &String| {
        let (host, rest) = address.strip_prefix("/ip4/")?.split_once('/')?;
        host.parse::<std::net::Ipv4Addr>().ok()?;
        Some(format!("/ip4/127.0.0.1/{rest}"))
    };
    let mut here: Vec<String> = Vec::new();
    for address in own_of(addresses, external).iter().filter_map(at_loopback).chain(addresses.iter().cloned()) {
        if !here.contains(&address) {
            here.push(address);
        }
    }
    here.truncate(MAX_ADDRESSES);
    here
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::config::Transports;

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_ports_of_the_last_run_are_taken_again() {
        let both = || Transports::Both.listen_at("0.0.0.0");
        assert_eq!(taken_before(&[], both()), both());
        let before = texts(&["/ip4/10.0.0.7/tcp/4001", "/ip4/192.0.2.7/tcp/4001", "/ip4/10.0.0.7/udp/4002/quic-v1"]);
        assert_eq!(taken_before(&before, both()), texts(&["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4002/quic-v1"]));
        assert_eq!(
            taken_before(&before, Transports::Quic.listen_at("0.0.0.0")),
            texts(&["/ip4/0.0.0.0/udp/4002/quic-v1"])
        );
        assert_eq!(
            taken_before(&before[..1], both()),
            texts(&["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/0/quic-v1"]),
            "a transport that was not used then gets a new port"
        );
    }

    #[test]
    fn an_external_port_is_not_listened_on() {
        let external = texts(&["/ip4/192.0.2.7/tcp/443/p2p/12D3KooW"]);
        let addresses = texts(&["/ip4/192.0.2.7/tcp/443", "/ip4/10.0.0.7/tcp/4001"]);
        assert_eq!(own_of(&addresses, &external), texts(&["/ip4/10.0.0.7/tcp/4001"]));
    }

    #[test]
    fn commands_on_this_machine_come_by_loopback() {
        let addresses = texts(&["/ip4/192.0.2.7/tcp/443", "/ip4/10.0.0.7/tcp/4001", "/ip4/192.168.0.7/tcp/4001"]);
        let external = texts(&["/ip4/192.0.2.7/tcp/443"]);
        let here = from_here(&addresses, &external);
        assert_eq!(here, [&texts(&["/ip4/127.0.0.1/tcp/4001"]), &addresses[..]].concat());
        assert_eq!(from_here(&here[..1], &[]), here[..1]);
        assert_eq!(from_here(&external, &external), external, "an own address that is announced as external");
    }
}
