//! The farm as the law that a replica keeps.

use super::replica::Law;
use protocol::farm::Farm;
use protocol::farm::command::{Applied, Command, Entry, Event, LawVersion, Rejection, Reply};
use protocol::time::Timestamp;

impl Law for Farm {
    const NEWEST: LawVersion = LawVersion::NEWEST;

    type Command = Command;
    type Reply = Result<Reply, Rejection>;
    type Event = Event;

    fn apply(&mut self, index: u64, now: Timestamp, command: Command) -> (Self::Reply, Vec<Event>) {
        let Applied { reply, events } = Self::apply(self, Entry { index, now, command });
        (reply, events)
    }

    fn snapshot(&self) -> Vec<u8> {
        Self::snapshot(self)
    }

    fn restore(bytes: &[u8]) -> Result<Self, String> {
        Self::restore(bytes).map_err(|error| error.to_string())
    }
}
