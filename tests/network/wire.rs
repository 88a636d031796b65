//! Two hosts on one wire: network namespaces with a veth pair between them, made here and gone at the end. Nothing is said on a
//! real network.

use crate::deadline::BUILD;
use crate::farm::{Home, Process, Ran};
use std::path::Path;
use std::process::{Command, Stdio};

/// Addresses of the two hosts.
const ADDRESSES: [&str; 2] = ["10.213.77.1", "10.213.77.2"];

/// One of the hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    Barn = 0,
    House = 1,
}

impl Host {
    /// Where it is on the wire.
    pub(crate) const fn address(self) -> &'static str {
        ADDRESSES[self as usize]
    }
}

/// Two hosts and the wire between them.
#[derive(Debug)]
pub(crate) struct Wire {
    names: [String; 2],
}

impl Wire {
    /// Lays the wire of a test of this name, or says why this machine cannot.
    pub(crate) fn lay(name: &str) -> Result<Self, String> {
        let names = ["barn", "house"].map(|host| format!("barnraise-{}-{name}-{host}", std::process::id()));
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

    /// Starts a command of a home on one of the hosts.
    pub(crate) fn start(&self, host: Host, home: &Home, words: &[&str]) -> Process {
        Process::start(&mut self.on(host, home, words))
    }

    /// Runs one to its end.
    #[track_caller]
    pub(crate) fn run(&self, host: Host, home: &Home, words: &[&str]) -> Ran {
        self.start(host, home, words).end(BUILD)
    }
}

impl Wire {
    /// What a host has put on the wire so far, in bytes, with the headers of every layer.
    pub(crate) fn sent_bytes(&self, host: Host) -> u64 {
        let name = &self.names[host as usize];
        let shown = Command::new("ip").args(["-n", name, "-s", "-j", "link", "show", "wire"]).output().unwrap();
        let links: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        links[0]["stats64"]["tx"]["bytes"].as_u64().unwrap_or_else(|| panic!("{links}"))
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
