//! `node logs`: what a build wrote.

use crate::exit::{Exit, Failure};
use crate::output::{Format, LogText, Output};
use crate::shape::LogShape;
use protocol::id::RequestId;
use protocol::wire::{LogPart, LogState};

/// The most text of a log that one JSON object holds, in bytes; a log is bounded by its volunteer well below this.
const MAX_OBJECT_BYTES: usize = 64 << 20;

/// Puts the stretches of a log together and shows them as they come.
#[derive(Debug)]
pub(crate) struct Logs {
    request: RequestId,
    text: LogText,
    /// What a JSON object will hold.
    whole: String,
    next: u64,
    state: LogState,
}

impl Logs {
    /// A log of which nothing has come yet.
    pub(crate) fn new(request: RequestId) -> Self {
        Self { request, text: LogText::default(), whole: String::new(), next: 0, state: LogState::NotStarted }
    }

    /// Where to ask next, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.next
    }

    /// Takes in the next stretch.
    pub(crate) fn take(&mut self, output: &Output, part: &LogPart) -> Result<(), Failure> {
        let safe = self.safe(part);
        match output.format() {
            Format::Text => output.safe_text(&safe)?,
            Format::Json if self.whole.len() + safe.len() <= MAX_OBJECT_BYTES => self.whole.push_str(&safe),
            Format::Json => {}
        }
        Ok(())
    }

    fn safe(&mut self, part: &LogPart) -> String {
        let mut safe = String::new();
        if let Some(left_out) = part.offset.checked_sub(self.next).filter(|bytes| *bytes > 0) {
            safe = format!("\n[… {left_out} bytes left out …]\n");
        }
        // What came before the offset asked for was shown already.
        let seen = usize::try_from(self.next.saturating_sub(part.offset)).unwrap_or(usize::MAX).min(part.bytes.len());
        safe.push_str(&self.text.take(&part.bytes[seen..]));
        self.next = self.next.max(part.offset.saturating_add(part.bytes.len() as u64));
        self.state = part.state;
        safe
    }

    /// Nothing more will come, or nothing more is wanted.
    pub(crate) fn finish(mut self, output: &Output) -> Result<Exit, Failure> {
        let rest = self.text.finish();
        output.safe_text(&rest)?;
        self.whole.push_str(&rest);
        if self.state == LogState::NotStarted {
            output.say("nothing has been written yet: the build has not started");
        }
        output.object(&LogShape {
            request: Some(self.request.to_string()),
            log: Some(self.whole),
            complete: Some(self.state == LogState::Complete),
            reason: None,
        })?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::digest::Digest;

    fn part(offset: u64, bytes: &[u8], state: LogState) -> LogPart {
        LogPart { offset, bytes: bytes.to_vec(), state }
    }

    #[test]
    fn stretches_are_put_together_once() {
        let mut logs = Logs::new(RequestId(Digest::of(b"")));
        assert_eq!(logs.state, LogState::NotStarted);
        assert_eq!(logs.safe(&part(0, b"one\n", LogState::Growing)), "one\n");
        assert_eq!(logs.safe(&part(2, b"e\ntwo\n", LogState::Growing)), "two\n");
        assert_eq!(logs.offset(), 8);
        assert_eq!(logs.safe(&part(100, b"end\n", LogState::Complete)), "\n[… 92 bytes left out …]\nend\n");
        assert_eq!((logs.offset(), logs.state), (104, LogState::Complete));
        assert_eq!(logs.safe(&part(0, b"old", LogState::Complete)), "", "nothing is shown twice");
        assert_eq!(logs.safe(&part(u64::MAX, b"x", LogState::Growing)).lines().last(), Some("x"));
    }
}
