//! `--lan`: two hosts on one wire find each other by mDNS, with no ticket handed from one to the other.

use crate::deadline::{SOON, wait_for};
use crate::farm::Farm;
use crate::left_out;
use crate::neighbours::{Made, ticket_in};
use crate::wire::{Host, Wire};
use protocol::ticket::Ticket;
use serde_json::Value;

#[test]
fn a_farm_is_found_on_the_local_network() {
    let wire = match Wire::lay("lan") {
        Ok(wire) => wire,
        Err(because) => return left_out("a farm found by mDNS", &because),
    };
    let farm = Farm::new();
    let requester = farm.home("requester");
    let alone = wire.run(Host::House, &requester, &["request", "hello", "--lan", "--json"]);
    let reason = alone.ended_with(3).json()["reason"].clone();
    assert_eq!(reason, "no farm was found on the local network");

    let words = ["--json", "--coordinator", "--volunteer", "--farm-name", "barn"];
    let mut barn = wire.start(Host::Barn, &farm.home("barn"), &words);
    let ticket = ticket_in(&barn.line("a ticket", |line| line.contains("ticket")));
    assert_can_be_dialled(&ticket);

    let mut volunteer = wire.start(Host::House, &farm.home("volunteer"), &["--json", "--volunteer", "--lan"]);
    volunteer.line("a volunteer that serves", |line| line.contains("ticket"));
    let asker = farm.home("asker");
    wait_for("a ticket that names the volunteer", SOON, || {
        let shown = wire.run(Host::Barn, &asker, &["farm", "show", "--json", "--farm", &ticket.to_string()]);
        let ticket = ticket_in(&shown.ended_with(0).stdout);
        let here = |address: &String| address.starts_with(&format!("/ip4/{}/", Host::House.address()));
        ticket.peers.iter().any(|peer| !peer.addresses.is_empty() && peer.addresses.iter().all(here)).then_some(())
    });

    let request = ["request", "hello", "--lan", "--json", "--option", "greeting=lan", "--output", "out"];
    let ran = wire.run(Host::House, &requester, &request);
    let json = ran.ended_with(0).json();
    eprintln!("in the farm found by mDNS, built and fetched in {} ms", json["elapsed_ms"]);
    assert_eq!((&json["outcome"], Made::of(&json).says()), (&Value::from("built"), "lan".to_owned()));

    let mut mill = wire.start(Host::Barn, &farm.home("mill"), &["--json", "--coordinator", "--farm-name", "mill"]);
    let other = ticket_in(&mill.line("a second ticket", |line| line.contains("ticket")));
    assert_ne!(other.farm, ticket.farm);
    let undecided = wire.run(Host::House, &farm.home("newcomer"), &["builds", "--lan"]);
    let said = &undecided.ended_with(2).stderr;
    assert!(
        said.contains("2 farms") && said.contains("barn: `--farm farm1") && said.contains("mill: `--farm farm1"),
        "{said}"
    );
    let decided = wire.run(Host::House, &requester, &["farm", "show", "--json", "--lan"]);
    assert_eq!(ticket_in(&decided.ended_with(0).stdout).farm, ticket.farm, "the farm of this home is one of them");
}

/// Whoever listens on every interface is listed where others reach it, by both transports, and never at loopback.
#[track_caller]
fn assert_can_be_dialled(ticket: &Ticket) {
    let addresses: Vec<&String> = ticket.coordinators.iter().flat_map(|contact| &contact.addresses).collect();
    let barn = format!("/ip4/{}/", Host::Barn.address());
    assert!(addresses.iter().all(|address| address.starts_with(&barn)), "{addresses:?}");
    for kind in ["/tcp/", "/udp/"] {
        assert_eq!(addresses.iter().filter(|address| address.contains(kind)).count(), 1, "{addresses:?}");
    }
}
