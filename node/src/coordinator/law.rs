//! The farm as the law that a replica keeps.

use super::replica::Law;
use protocol::farm::Farm;
use protocol::farm::command::{Applied, Command, Entry, Event, LawVersion, Rejection, Reply};
use protocol::time::Timestamp;
use std::io::{self, BufRead, Write};

impl Law for Farm {
    const NEWEST: LawVersion = LawVersion::NEWEST;

    type Command = Command;
    type Reply = Result<Reply, Rejection>;
    type Event = Event;

    fn apply(&mut self, index: u64, now: Timestamp, command: Command) -> (Self::Reply, Vec<Event>) {
        let Applied { reply, events } = Self::apply(self, Entry { index, now, command });
        (reply, events)
    }

    fn snapshot(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_snapshot(out)
    }

    fn restore(snapshot: &mut dyn BufRead) -> Result<Self, String> {
        Self::restore(snapshot).map_err(|error| error.to_string())
    }
}
