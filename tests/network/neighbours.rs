//! A farm of three: a coordinator, the one volunteer that may build what the tests ask for, and a bystander that may not.
//!
//! The recipe is no part of the catalogue, and only the builder accepts any recipe: what the bystander holds it did not build.

use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::{Farm, Home, Process, Ran};
use protocol::id::{BuildKey, PeerKey};
use protocol::ticket::Ticket;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the built program prints.
pub(crate) const GREETING: &str = "neighbours";

const RECIPE: &str = r#"
recipe = 1
name = "greeter"
description = "Prints a greeting"
requires = ["os=linux", "tool.cc"]
reproducible = true

[option.greeting]
type = "text"
help = "what the program prints"
pattern = "[A-Za-z0-9-]{1,64}"
default = "neighbours"

[[file]]
path = "greeter.c"
text = '''
#include <stdio.h>

int main(void) {
    return puts(GREETING) < 0;
}
'''

[[step]]
run = ["cc", "-O2", "-DGREETING=\"{greeting}\"", "-o", "greeter", "greeter.c"]

[[output]]
path = "greeter"

[smoke]
run = ["./greeter"]
expect = "{greeting}"
"#;

/// Which transports everybody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Both,
    Tcp,
    Quic,
}

impl Transport {
    /// The word for `NODE_TRANSPORT`.
    const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }

    /// The same for a peer inside the test.
    pub(crate) const fn inside(self) -> node::network::config::Transports {
        use node::network::config::Transports;
        match self {
            Self::Both => Transports::Both,
            Self::Tcp => Transports::Tcp,
            Self::Quic => Transports::Quic,
        }
    }

    /// A command of this home on these transports.
    pub(crate) fn command(self, home: &Home, words: &[&str]) -> Command {
        let mut command = home.command(words);
        command.env("NODE_TRANSPORT", self.name());
        command
    }

    /// A daemon on ports of 127.0.0.1 that the system chooses.
    pub(crate) fn daemon(self, home: &Home, words: &[&str]) -> Process {
        let listen = self.inside().listen_at("127.0.0.1");
        let mut command = self.command(home, words);
        command.args(listen.iter().flat_map(|address| ["--listen", address]));
        Process::start(&mut command)
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(self, home: &Home, words: &[&str]) -> Ran {
        Process::start(&mut self.command(home, words)).end(BUILD)
    }
}

/// The farm.
#[derive(Debug)]
pub(crate) struct Neighbours {
    pub(crate) farm: Farm,
    pub(crate) transport: Transport,
    pub(crate) coordinator: Process,
    pub(crate) builder: Process,
    pub(crate) builder_home: Home,
    /// Started when everything that [`Neighbours::build`] was asked for is built.
    pub(crate) bystander: Option<Process>,
    pub(crate) bystander_home: Home,
    /// What the coordinator printed when it began to serve.
    pub(crate) founding: Ticket,
}

/// A build that the farm has made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) key: BuildKey,
    pub(crate) manifest: String,
    pub(crate) volunteer: PeerKey,
    pub(crate) file: PathBuf,
}

impl Neighbours {
    /// Founds the farm and waits until the builder serves.
    pub(crate) fn settle(transport: Transport) -> Self {
        let farm = Farm::new();
        let mut coordinator =
            transport.daemon(&farm.home("coordinator"), &["--json", "--coordinator", "--farm-name", "neighbours"]);
        let founding = ticket_in(&coordinator.line("a ticket", |line| line.contains("ticket")));
        let builder_home = farm.home("builder");
        let builder = Self::start_builder(transport, &builder_home, &founding);
        let bystander_home = farm.home("bystander");
        Self { farm, transport, coordinator, builder, builder_home, bystander: None, bystander_home, founding }
    }

    fn start_builder(transport: Transport, home: &Home, founding: &Ticket) -> Process {
        let words = ["--json", "--volunteer", "--accept", "any", "--farm", &founding.to_string()];
        let mut builder = transport.daemon(home, &words);
        builder.line("a builder that serves", |line| line.contains("ticket"));
        builder
    }

    /// Ends the builder as a power cut would, and starts it again after `meanwhile`.
    pub(crate) fn restart_builder(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.builder.kill();
        meanwhile(self.builder_home.path());
        self.builder = Self::start_builder(self.transport, &self.builder_home, &self.founding);
    }

    /// A recipe file of the farm's folder.
    pub(crate) fn recipe(&self, name: &str, text: &str) -> String {
        let path = self.farm.folder().join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Asks for the greeter; its files go to a new folder of the home.
    #[track_caller]
    pub(crate) fn ask(&self, home: &Home, ticket: &Ticket, greeting: &str) -> Ran {
        let recipe = self.recipe("greeter", RECIPE);
        let output = home.path().join("out");
        let option = format!("greeting={greeting}");
        let words = [
            "request",
            &recipe,
            "--json",
            "--farm",
            &ticket.to_string(),
            "--option",
            &option,
            "--output",
            text(&output),
        ];
        self.transport.run(home, &words)
    }

    /// Has the greeter built, by the builder.
    #[track_caller]
    pub(crate) fn build(&self, home: &str, greeting: &str) -> Made {
        let ran = self.ask(&self.farm.home(home), &self.founding, greeting);
        let json = ran.ended_with(0).json();
        assert_eq!(json["outcome"], "built", "{json}");
        Made::of(&json)
    }

    /// Starts the bystander and waits until the ticket that `node farm show` prints names both volunteers.
    #[track_caller]
    pub(crate) fn complete(&mut self) -> Ticket {
        let words = ["--json", "--volunteer", "--farm", &self.founding.to_string()];
        let mut bystander = self.transport.daemon(&self.bystander_home, &words);
        bystander.line("a bystander that serves", |line| line.contains("ticket"));
        self.bystander = Some(bystander);
        let asker = self.farm.home("asker");
        wait_for("a ticket that names both volunteers", SOON, || {
            let words = ["farm", "show", "--json", "--farm", &self.founding.to_string()];
            let ticket = ticket_in(&self.transport.run(&asker, &words).ended_with(0).stdout);
            (ticket.peers.len() == 2).then_some(ticket)
        })
    }
}

impl Made {
    /// What a successful `request` printed.
    pub(crate) fn of(json: &Value) -> Self {
        let word = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{name}: {json}")).to_owned();
        let volunteer: protocol::digest::Digest = word("volunteer").parse().unwrap();
        Self {
            key: word("build_key").parse().unwrap(),
            manifest: word("manifest"),
            volunteer: PeerKey::from_bytes(*volunteer.as_bytes()),
            file: json["files"][0]["path"].as_str().unwrap().into(),
        }
    }

    /// What the program prints.
    #[track_caller]
    pub(crate) fn says(&self) -> String {
        let said = Command::new(&self.file).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
    }
}

/// The ticket in a JSON object that shows a farm.
#[track_caller]
pub(crate) fn ticket_in(json: &str) -> Ticket {
    let shown: Value = serde_json::from_str(json).unwrap();
    shown["ticket"].as_str().unwrap().parse().unwrap()
}

/// A path as a word of a command line.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
