//! What a mail says: from the end of a request to subject and body, as a pure function.
//!
//! A letter says what was asked, what came of it and whose fault it is if nothing did, how long it took and where, how the log
//! ended, and which command to type next. Plain text, no HTML, nothing to click. Reasons, options and log lines come from
//! peers: they reach the body escaped and bounded, and the subject only in characters that no header trips over.

use super::text::{WIDTH, escape, moment, one_line, span, subject_safe, wrap};
use protocol::digest::Digest;
use protocol::farm::explain::{Confirmed, Ended, HowBuilt, PolicyEnd};
use protocol::id::{BuildKey, NoticeId, PeerKey, RequestId};
use protocol::report::{Fingerprint, Holding, Limit};
use protocol::request::{Address, Name, OptionValue, Source};
use protocol::time::Timestamp;
use std::collections::BTreeMap;

/// The longest subject, in characters.
const SUBJECT_MOST: usize = 78;
/// Lines of the log that a letter shows, and characters of each.
const LOG_LINES_MOST: usize = 40;
const LOG_LINE_MOST: usize = 160;
/// Characters of a reason, an option or a fingerprint.
const VALUE_MOST: usize = 400;
/// The longest line that quoted-printable leaves whole (RFC 2045 section 6.7): a command with a digest can be copied from the
/// file as well.
const LINE_MOST: usize = 76;
/// Where the values of a row begin, so that a label and a digest fit one line.
const VALUE_COLUMN: usize = 12;

/// The farm in whose name the letter is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// What people call the farm.
    pub farm: Name,
    /// The farm's ticket, for somebody who fetches on a machine that does not know the farm.
    pub ticket: Option<String>,
}

/// What there is to tell to one address about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The notice; unique per request and address.
    pub notice: NoticeId,
    /// Who is told.
    pub address: Address,
    /// The request.
    pub request: RequestId,
    /// The build.
    pub build_key: BuildKey,
    /// The recipe's name.
    pub recipe: Name,
    /// The options of the build, defaults filled in.
    pub options: BTreeMap<Name, OptionValue>,
    /// The pinned source, where it is known.
    pub source: Option<Source>,
    /// How it ended.
    pub ended: Ended,
    /// When the request was accepted.
    pub submitted_at: Timestamp,
    /// When the last attempt began, if one did.
    pub started_at: Option<Timestamp>,
    /// When the request ended; the date of the mail.
    pub ended_at: Timestamp,
    /// Who made the last attempt.
    pub volunteer: Option<PeerKey>,
    /// The environment of that attempt; empty when none is known.
    pub fingerprint: Fingerprint,
    /// The log of that attempt.
    pub log: Option<Digest>,
    /// The last lines of that log.
    pub log_tail: String,
}

/// Subject and body of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// One line of plain ASCII, at most 78 characters.
    pub subject: String,
    /// Lines of UTF-8, ended by `\n`; none begins with a full stop or with `From`.
    pub body: String,
}

/// Writes the letter.
#[must_use]
pub fn letter(occasion: &Occasion, sender: &Sender) -> Letter {
    let mut page = Page::default();
    opening(&mut page, occasion, sender);
    if matches!(occasion.ended, Ended::Built { .. }) {
        came_of_it(&mut page, occasion);
        asked(&mut page, occasion);
        log(&mut page, occasion);
    } else {
        // Whoever reads of a failure looks for its cause first.
        log(&mut page, occasion);
        came_of_it(&mut page, occasion);
        asked(&mut page, occasion);
    }
    farewell(&mut page, occasion, sender);
    Letter { subject: subject(occasion, &sender.farm), body: page.0 }
}

fn subject(occasion: &Occasion, farm: &Name) -> String {
    let recipe = subject_safe(occasion.recipe.as_str(), 32);
    let what = match &occasion.ended {
        Ended::Built { .. } => format!("{recipe} is built"),
        Ended::BuildError { reason, .. } => match failed_step(reason) {
            Some(step) => format!("{recipe}: build error in step {step}"),
            None => format!("{recipe}: build error"),
        },
        Ended::Infrastructure { .. } => format!("{recipe} could not be built: infrastructure"),
        Ended::Policy(PolicyEnd::Limit(limit)) => format!("{recipe} was stopped: {limit}"),
        Ended::Policy(PolicyEnd::Cancelled) => format!("{recipe} was cancelled"),
        Ended::Policy(PolicyEnd::Expired) => format!("{recipe} was not built: expired"),
        Ended::Policy(PolicyEnd::SourceNeverArrived) => format!("{recipe} was not built: no source"),
        Ended::Policy(PolicyEnd::NoAgreement) => format!("{recipe} was not built: no agreement"),
    };
    let mut subject = format!("[{}] {what}", subject_safe(farm.as_str(), 16));
    let options: Vec<_> = occasion.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let room = SUBJECT_MOST.saturating_sub(subject.len() + " ()".len());
    if !options.is_empty() && room >= 8 {
        subject.push_str(&format!(" ({})", subject_safe(&options.join(", "), room)));
    }
    subject
}

/// The number in `step N`, where the volunteer's reason begins so.
fn failed_step(reason: &str) -> Option<u16> {
    let rest = reason.strip_prefix("step ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    if digits.len() <= 3 { digits.parse().ok() } else { None }
}

fn opening(page: &mut Page, occasion: &Occasion, sender: &Sender) {
    let recipe = occasion.recipe.as_str();
    match &occasion.ended {
        Ended::Built { how, .. } => {
            page.prose(&match how {
                HowBuilt::Built => format!("{recipe} is built. Fetch it with"),
                HowBuilt::Cached => {
                    format!("{recipe} is there already: exactly this was built before. Fetch it with")
                }
            });
            fetch(page, occasion, sender);
        }
        Ended::BuildError { reason, confirmed } => {
            page.prose(&format!("{recipe} could not be built: the build itself failed."));
            page.quote(reason);
            build_error(page, *confirmed);
        }
        Ended::Infrastructure { reason } => {
            page.prose(&format!("{recipe} could not be built, and it is not your fault."));
            page.quote(reason);
            page.prose(
                "This is a failure of infrastructure: a machine, its sandbox or the network. The farm tried elsewhere \
                 before it gave up, and does not remember this against your build: ask again in the same words, and it \
                 starts afresh. If that fails too, whoever runs the farm would like to know.",
            );
        }
        Ended::Policy(end) => policy(page, occasion, end),
    }
}

fn fetch(page: &mut Page, occasion: &Occasion, sender: &Sender) {
    page.command(&format!("node fetch {}", occasion.request));
    page.prose(&format!(
        "The files come into the folder {}-{}, each checked against the digest of the artifact.",
        occasion.recipe,
        occasion.build_key.short()
    ));
    if let Some(ticket) = &sender.ticket {
        page.prose("On a machine that does not know this farm yet, name the farm by its ticket first:");
        page.command(&format!("export NODE_FARM={}", escape(ticket, 8_192)));
    }
}

fn build_error(page: &mut Page, confirmed: Confirmed) {
    page.prose("This is a build error: the fault lies in the recipe, its source or its options, not in the farm.");
    page.prose(match confirmed {
        Confirmed::Yes => {
            "A second volunteer failed in the same way, so the farm will not try again by itself: for an hour it gives \
             this answer to everybody who asks for the same build. With --fresh it tries at once."
        }
        Confirmed::No => {
            "No other volunteer was there to confirm it, so the farm does not remember it: ask again in the same words, \
             and it is tried again."
        }
    });
}

fn policy(page: &mut Page, occasion: &Occasion, end: &PolicyEnd) {
    let recipe = occasion.recipe.as_str();
    let waited = span(occasion.ended_at.since(occasion.submitted_at));
    let (what, next) = match end {
        PolicyEnd::Limit(limit) => (
            format!("{recipe} was stopped: it reached {}.", limit_in_words(*limit)),
            "The limit is set by the recipe or by the owner of the machine; neither the recipe nor the farm is broken. \
             Another attempt would end the same way, unless the build is made smaller or the limit of the recipe \
             is raised.",
        ),
        PolicyEnd::Cancelled => (
            format!("{recipe} was cancelled by whoever asked for it."),
            "Neither the recipe nor the farm is at fault. To have it built after all, ask again in the same words.",
        ),
        PolicyEnd::Expired => (
            format!("{recipe} was not built: the request expired after {waited}."),
            "No volunteer that could build it came in that time; neither the recipe nor the farm is at fault. \
             `node volunteers` shows who can do what. Ask again with a longer --expires, or require less.",
        ),
        PolicyEnd::SourceNeverArrived => (
            format!("{recipe} was not built: its source never arrived."),
            "The machine that asked went away before the farm held the source; neither the recipe nor the farm is at \
             fault. Ask again, and leave that machine on until it says that the farm holds the source.",
        ),
        PolicyEnd::NoAgreement => (
            format!("{recipe} has no result: those who built it did not agree."),
            "The request demands equal results of several volunteers (--agree), and theirs differ. Either the recipe is \
             not reproducible, or somebody's machine is not to be trusted. Where one volunteer's word is enough, ask \
             again with a smaller --agree.",
        ),
    };
    page.prose(&what);
    page.prose(&format!("This is a matter of policy. {next}"));
}

fn limit_in_words(limit: Limit) -> String {
    let words = match limit {
        Limit::Step(number) => return format!("the time limit of its step {number}"),
        Limit::Deadline => "its deadline",
        Limit::Memory => "the limit of memory",
        Limit::Processes => "the limit of processes",
        Limit::Disk => "the limit of disk space",
        Limit::Log => "the limit of its log",
        Limit::Quiet => "the time that it may show no sign of progress",
    };
    words.to_owned()
}

fn asked(page: &mut Page, occasion: &Occasion) {
    page.heading("What was asked");
    page.row("recipe", occasion.recipe.as_str());
    for (name, value) in &occasion.options {
        page.row("option", &one_line(&format!("{name}={value}"), VALUE_MOST));
    }
    match &occasion.source {
        None => {}
        Some(Source::Inline) => page.row("source", "the files inside the recipe"),
        Some(Source::Tree(manifest)) => page.row("source", &manifest.to_string()),
        Some(Source::Archive { digest, url, .. }) => {
            page.row("source", &one_line(url, VALUE_MOST));
            page.row("", &digest.to_string());
        }
        Some(Source::Git { url, commit }) => {
            page.row("source", &one_line(url.as_str(), VALUE_MOST));
            page.row("commit", commit.as_str());
        }
    }
    page.row("asked at", &moment(occasion.submitted_at));
    page.row("request", &occasion.request.to_string());
    page.row("build key", &occasion.build_key.to_string());
}

fn came_of_it(page: &mut Page, occasion: &Occasion) {
    page.heading("What came of it");
    let took = occasion.started_at.map(|started| occasion.ended_at.since(started));
    let waited = occasion.started_at.unwrap_or(occasion.ended_at);
    let cached = matches!(occasion.ended, Ended::Built { how: HowBuilt::Cached, .. });
    page.row("outcome", &outcome(&occasion.ended));
    if !cached {
        page.row("waited", &span(waited.since(occasion.submitted_at)));
        if let Some(took) = took {
            page.row("took", &span(took));
        }
    }
    if let Some(volunteer) = occasion.volunteer {
        page.row("volunteer", &volunteer.short());
    }
    if !occasion.fingerprint.0.is_empty() {
        page.row("made on", &one_line(&environment(&occasion.fingerprint), VALUE_MOST));
    }
    if let Ended::Built { manifest, holding, .. } = &occasion.ended {
        page.row("artifact", &manifest.to_string());
        if *holding == Holding::SingleHolder {
            page.row("copies", "one machine only holds it so far: better fetch it soon");
        }
    }
    if let Some(log) = occasion.log {
        page.row("log", &log.to_string());
    }
}

/// Such as `glibc 2.36, cc 12.2.0`.
fn environment(fingerprint: &Fingerprint) -> String {
    let words =
        fingerprint.0.iter().map(|(key, value)| format!("{} {value}", key.strip_prefix("tool.").unwrap_or(key)));
    words.collect::<Vec<_>>().join(", ")
}

fn outcome(ended: &Ended) -> String {
    match ended {
        Ended::Built { how: HowBuilt::Built, .. } => "built".to_owned(),
        Ended::Built { how: HowBuilt::Cached, .. } => "cached: built before".to_owned(),
        Ended::BuildError { confirmed: Confirmed::Yes, .. } => {
            "build error, confirmed by a second volunteer".to_owned()
        }
        Ended::BuildError { confirmed: Confirmed::No, .. } => "build error".to_owned(),
        Ended::Infrastructure { .. } => "infrastructure".to_owned(),
        Ended::Policy(PolicyEnd::Limit(limit)) => format!("policy, {limit}"),
        Ended::Policy(PolicyEnd::Cancelled) => "policy, cancelled".to_owned(),
        Ended::Policy(PolicyEnd::Expired) => "policy, expired".to_owned(),
        Ended::Policy(PolicyEnd::SourceNeverArrived) => "policy, the source never arrived".to_owned(),
        Ended::Policy(PolicyEnd::NoAgreement) => "policy, no agreement".to_owned(),
    }
}

fn log(page: &mut Page, occasion: &Occasion) {
    let lines: Vec<_> = occasion.log_tail.lines().map(str::trim_end).collect();
    let Some(last) = lines.iter().rposition(|line| !line.is_empty()) else { return };
    page.heading("How the log ends");
    for line in &lines[(last + 1).saturating_sub(LOG_LINES_MOST)..=last] {
        page.log_line(line);
    }
    if occasion.log.is_some() {
        page.blank();
        page.prose("All of it:");
        page.command(&format!("node logs {}", occasion.request));
    }
}

fn farewell(page: &mut Page, occasion: &Occasion, sender: &Sender) {
    page.blank();
    // The line that mail readers know as the start of a signature (RFC 3676 section 4.3).
    page.0.push_str("-- \n");
    page.prose(&format!(
        "Somebody gave {} with --email when asking the farm `{}` for this build. The farm mails nobody unasked: one mail \
         for each request that names your address, and no list to leave.",
        occasion.address, sender.farm
    ));
    page.0.truncate(page.0.trim_end().len());
    page.0.push('\n');
}

/// A body in the making.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text.trim_end());
        self.0.push('\n');
    }

    /// An empty line, unless there is one or nothing stands before it.
    fn blank(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
    }

    /// A paragraph of our own words.
    fn prose(&mut self, text: &str) {
        wrap(text, WIDTH).iter().for_each(|line| self.line(line));
        self.blank();
    }

    /// Something to type, never broken.
    fn command(&mut self, text: &str) {
        self.line(&format!(" {text}"));
        self.blank();
    }

    /// A reason in a peer's words.
    fn quote(&mut self, reason: &str) {
        for line in wrap(&one_line(reason, VALUE_MOST), WIDTH - 2) {
            self.line(&format!("  {line}"));
        }
        self.blank();
    }

    fn heading(&mut self, text: &str) {
        self.blank();
        self.line(text);
    }

    fn row(&mut self, label: &str, value: &str) {
        let indent = VALUE_COLUMN - 2;
        for (number, line) in wrap(value, LINE_MOST - VALUE_COLUMN).iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            self.line(&format!("  {label:<indent$}{line}"));
        }
    }

    fn log_line(&mut self, line: &str) {
        self.line(&format!("  | {}", escape(line, LOG_LINE_MOST)));
    }
}

#[cfg(test)]
mod tests;
