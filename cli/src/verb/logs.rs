//! `node logs`: what a build wrote.

use crate::exit::{Exit, Failure};
use crate::output::{Format, LogText, Output};
use crate::shape::LogShape;
use protocol::id::RequestId;
use protocol::wire::{LogPosition, LogState, RequestLog};

/// The most text of a log that one JSON object holds, in bytes; a log is bounded by its volunteer well below this.
const MAX_OBJECT_BYTES: usize = 64 << 20;

/// Puts the stretches of a log together and shows them as they come.
#[derive(Debug)]
pub(crate) struct Logs {
    request: RequestId,
    text: LogText,
    /// What a JSON object will hold.
    whole: String,
    next: LogPosition,
    state: LogState,
}

impl Logs {
    /// A log of which nothing has come yet.
    pub(crate) fn new(request: RequestId) -> Self {
        Self {
            request,
            text: LogText::default(),
            whole: String::new(),
            next: LogPosition::default(),
            state: LogState::NotStarted,
        }
    }

    /// Where to ask next.
    pub(crate) fn position(&self) -> LogPosition {
        self.next
    }

    /// Takes in the next stretch.
    pub(crate) fn take(&mut self, output: &Output, log: &RequestLog) -> Result<(), Failure> {
        let safe = self.safe(log);
        match output.format() {
            Format::Text => output.safe_text(&safe)?,
            Format::Json if self.whole.len() + safe.len() <= MAX_OBJECT_BYTES => self.whole.push_str(&safe),
            Format::Json => {}
        }
        Ok(())
    }

    fn safe(&mut self, RequestLog { attempt, part }: &RequestLog) -> String {
        let mut safe = String::new();
        if *attempt != self.next.attempt {
            if self.next.offset > 0 {
                safe = format!("{}\n[attempt {attempt}]\n", std::mem::take(&mut self.text).finish());
            }
            self.next = LogPosition { attempt: *attempt, offset: 0 };
        }
        let next = &mut self.next.offset;
        if let Some(left_out) = part.offset.checked_sub(*next).filter(|bytes| *bytes > 0) {
            safe.push_str(&format!("\n[… {left_out} bytes left out …]\n"));
        }
        // What came before the offset asked for was shown already.
        let seen = usize::try_from(next.saturating_sub(part.offset)).unwrap_or(usize::MAX).min(part.bytes.len());
        safe.push_str(&self.text.take(&part.bytes[seen..]));
        *next = (*next).max(part.offset.saturating_add(part.bytes.len() as u64));
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
    use protocol::wire::LogPart;

    fn log(attempt: u32, offset: u64, bytes: &[u8], state: LogState) -> RequestLog {
        RequestLog { attempt, part: LogPart { offset, bytes: bytes.to_vec(), state } }
    }

    #[test]
    fn stretches_are_put_together_once() {
        let mut logs = Logs::new(RequestId(Digest::of(b"")));
        assert_eq!(logs.state, LogState::NotStarted);
        assert_eq!(logs.safe(&log(1, 0, b"one\n", LogState::Growing)), "one\n");
        assert_eq!(logs.safe(&log(1, 2, b"e\ntwo\n", LogState::Growing)), "two\n");
        assert_eq!(logs.position(), LogPosition { attempt: 1, offset: 8 });
        assert_eq!(logs.safe(&log(1, 100, b"end\n", LogState::Complete)), "\n[… 92 bytes left out …]\nend\n");
        assert_eq!((logs.position().offset, logs.state), (104, LogState::Complete));
        assert_eq!(logs.safe(&log(1, 0, b"old", LogState::Complete)), "", "nothing is shown twice");
        assert_eq!(logs.safe(&log(1, u64::MAX, b"x", LogState::Growing)).lines().last(), Some("x"));
    }

    #[test]
    fn another_attempt_begins_a_log_of_its_own() {
        let mut logs = Logs::new(RequestId(Digest::of(b"")));
        assert_eq!(logs.safe(&log(0, 0, b"", LogState::NotStarted)), "");
        assert_eq!(logs.safe(&log(1, 0, b"first\n", LogState::Growing)), "first\n", "nothing came before it");
        assert_eq!(logs.safe(&log(2, 0, b"second\n", LogState::Growing)), "\n[attempt 2]\nsecond\n");
        assert_eq!(logs.position(), LogPosition { attempt: 2, offset: 7 });
    }
}
