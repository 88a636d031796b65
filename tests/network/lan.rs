//! `--lan`: two hosts on one wire find each other by mDNS, with no ticket handed from one to the other.
//!
//! The hosts are network namespaces with a veth pair between them, made here and gone at the end; nothing is said on a real
//! network.

use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, Home, Process, Ran};
use crate::left_out;
use crate::neighbours::{Made, ticket_in};
use protocol::ticket::Ticket;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Addresses of the two hosts.
const ADDRESSES: [&str; 2] = ["10.213.77.1", "10.213.77.2"];

/// One of the hosts.
#[derive(Clone, Copy, Debug)]
enum Host {
    Barn = 0,
    House = 1,
}

/// Two hosts and the wire between them.
#[derive(Debug)]
struct Wire {
    names: [String; 2],
}

impl Wire {
    /// Lays the wire, or says why this machine cannot.
    fn lay() -> Result<Self, String> {
        let names = ["barn", "house"].map(|host| format!("barnraise-{}-{host}", std::process::id()));
        let wire = Self { names };
        let [barn, house] = &wire.names;
        ip(&["netns", "add", barn])?;
        ip(&["netns", "add", house])?;
        ip(&["link", "add", "wire", "netns", barn, "type", "veth", "peer", "name", "wire", "netns", house])?;
        for (name, address) in wire.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "wire"])?;
            ip(&["-n", name, "link", "set", "wire", "up", "multicast", "on"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(wire)
    }

    /// A command of a home, on one of the hosts.
    fn on(&self, host: Host, home: &Home, words: &[&str]) -> Command {
        let plain = home.command(words);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.names[host as usize]));
        command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
        command.current_dir(plain.get_current_dir().unwrap_or(Path::new("/")));
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn start(&self, host: Host, home: &Home, words: &[&str]) -> Process {
        Process::start(&mut self.on(host, home, words))
    }

    #[track_caller]
    fn run(&self, host: Host, home: &Home, words: &[&str]) -> Ran {
        self.start(host, home, words).end(BUILD)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was never made cannot be removed.
            let _absent = ip(&["netns", "del", name]);
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(words).output().map_err(|error| format!("`ip` of iproute2: {error}"))?;
    if ran.status.success() {
        Ok(())
    } else {
        Err(format!("`ip {}`: {}", words.join(" "), String::from_utf8_lossy(&ran.stderr).trim()))
    }
}

#[test]
fn a_farm_is_found_on_the_local_network() {
    let wire = match Wire::lay() {
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
        let here = |address: &String| address.starts_with(&format!("/ip4/{}/", ADDRESSES[Host::House as usize]));
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
    let barn = format!("/ip4/{}/", ADDRESSES[Host::Barn as usize]);
    assert!(addresses.iter().all(|address| address.starts_with(&barn)), "{addresses:?}");
    for kind in ["/tcp/", "/udp/"] {
        assert_eq!(addresses.iter().filter(|address| address.contains(kind)).count(), 1, "{addresses:?}");
    }
}
