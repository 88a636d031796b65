//! What a replica asks of the rules that it keeps: a deterministic fold over commands.

use std::fmt::Debug;
use std::io::{self, BufRead, Write};

use protocol::farm::command::LawVersion;
use protocol::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The replicated state and its rules. The same commands in the same order give the same state and the
/// same replies on every coordinator; no clock, no chance, no files.
pub trait Law: Default + Debug + Send + Sync + 'static {
    /// The newest version of the rules that this program knows. Entries of a newer one stop the replica
    /// rather than being misread.
    const NEWEST: LawVersion;

    /// What is proposed.
    type Command: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What the proposer is told, refusals included.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// What everybody else is told.
    type Event: Clone + Debug + Send + Sync + 'static;

    /// Takes one command in: the `index`-th since the farm began, from 1, stamped `now` by its proposer.
    fn apply(&mut self, index: u64, now: Timestamp, command: Self::Command) -> (Self::Reply, Vec<Self::Event>);

    /// Writes all of the state, as bytes that [`Law::restore`] understands in this and later versions, a little at a time.
    fn snapshot(&self, out: &mut dyn Write) -> io::Result<()>;

    /// The state that [`Law::snapshot`] wrote, or why the bytes are not one.
    fn restore(snapshot: &mut dyn BufRead) -> Result<Self, String>;
}
