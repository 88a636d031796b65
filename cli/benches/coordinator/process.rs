//! The real program as a coordinator, and what the system says of its memory.

use node::home::Home;
use protocol::ticket::Ticket;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start may take before the bench gives up.
const START: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A coordinator in a process of its own.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    /// From its start until it served.
    pub(crate) started_in: Duration,
    /// Where it serves.
    pub(crate) ticket: Ticket,
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    resident: u64,
    peak: u64,
}

impl Daemon {
    /// Starts `node --coordinator` in this home, which founds a farm if there is none, and waits until it serves.
    pub(crate) fn start(home: &Path) -> Self {
        let words = home.join("words");
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_node"))
            .args(["--coordinator", "--no-mdns", "--farm-name", "bench"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"])
            .arg("--home")
            .arg(home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&words).unwrap())
            .spawn()
            .unwrap();
        let home = Home::open(home).unwrap();
        loop {
            if let Some((farm, contact)) = home.daemon().unwrap() {
                let ticket = Ticket { farm, coordinators: vec![contact], peers: Vec::new() };
                return Self { child, started_in: begun.elapsed(), ticket };
            }
            let ended = child.try_wait().unwrap();
            let said = || std::fs::read_to_string(&words).unwrap();
            assert!(ended.is_none() && begun.elapsed() < START, "it does not serve: {ended:?}\n{}", said());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_matches([':', '\t', ' ']).strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1_024
        };
        Memory { resident: bytes("VmRSS"), peak: bytes("VmHWM") }
    }

    /// Ends it as its owner would.
    pub(crate) fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB resident, {} MiB at most", self.resident >> 20, self.peak >> 20)
    }
}
