//! Mail as state: a notice stays pending until it was sent or failed for good.
//!
//! There is exactly one notice per request and address, named by their digest, so that whatever happens between two
//! coordinators nobody is told twice under two names. What was settled stays known, without its content, until the request
//! is forgotten.

use crate::charter::Policy;
use crate::codec;
use crate::digest::Digest;
use crate::farm::command::Permanence;
use crate::farm::explain::Ended;
use crate::id::{BuildKey, NoticeId, PeerKey, RequestId};
use crate::request::{Address, Name, OptionValue};
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The wait after the first failure that may pass; doubled each time.
pub const FIRST_BACKOFF: Span = Span::from_secs(60);
/// The longest wait between two tries.
pub const LONGEST_BACKOFF: Span = Span::from_secs(6 * 3_600);
/// How long sending is tried.
pub const TRIED_FOR: Span = Span::from_secs(5 * 86_400);
/// The most failures that are shown.
pub const MAX_SHOWN_FAILURES: usize = 100;

/// What one address is to be told about one request, with everything a mail says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Names it; the mail's Message-ID and the name of its file are made from it.
    pub id: NoticeId,
    /// The request.
    pub request: RequestId,
    /// Where to write.
    pub address: Address,
    /// Who asked.
    pub requester: PeerKey,
    /// Recipe, for people.
    pub recipe: Name,
    /// Options as chosen.
    pub options: BTreeMap<Name, OptionValue>,
    /// The build.
    pub build_key: BuildKey,
    /// How it ended.
    pub ended: Ended,
    /// When the request was accepted.
    pub submitted_at: Timestamp,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When the request ended.
    pub ended_at: Timestamp,
    /// Who attempted it last.
    pub volunteer: Option<PeerKey>,
    /// The log of that attempt.
    pub log: Option<Digest>,
    /// Its last lines.
    pub log_tail: String,
    /// How often sending was begun.
    pub attempts: u32,
    /// Not to be sent before.
    pub not_before: Timestamp,
}

impl Notice {
    /// The name of what is to be told to `address` about `request`.
    #[must_use]
    pub fn id(request: RequestId, address: &Address) -> NoticeId {
        NoticeId(Digest::of(&codec::encode(&(request, address))))
    }
}

/// A notice that could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The notice.
    pub notice: NoticeId,
    /// The request.
    pub request: RequestId,
    /// When it was given up.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Delivery {
    Pending(Box<Notice>),
    Sent,
    Failed,
}

/// Mails of one day, for the daily caps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Today {
    day: u64,
    by_address: BTreeMap<Address, u32>,
    by_requester: BTreeMap<PeerKey, u32>,
}

/// Every notice of a remembered request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Notices {
    notices: BTreeMap<NoticeId, Delivery>,
    today: Today,
    failures: VecDeque<Failure>,
    #[serde(skip)]
    due: BTreeSet<(Timestamp, NoticeId)>,
}

impl Notices {
    pub(super) fn get(&self, id: NoticeId) -> Option<&Delivery> {
        self.notices.get(&id)
    }

    /// Takes a new notice in; false when it is over a daily cap, and so has failed at once.
    pub(super) fn add(&mut self, notice: Notice, policy: &Policy, now: Timestamp) -> bool {
        if self.today.day != now.day() {
            self.today = Today { day: now.day(), ..Today::default() };
        }
        let to_address = self.today.by_address.get(&notice.address).copied().unwrap_or_default();
        let by_requester = self.today.by_requester.get(&notice.requester).copied().unwrap_or_default();
        let over = if to_address >= policy.mails_per_address {
            Some("the daily cap of mails to this address is reached")
        } else if by_requester >= policy.mails_per_requester {
            Some("the daily cap of mails for this requester is reached")
        } else {
            None
        };
        if let Some(reason) = over {
            self.notices.insert(notice.id, Delivery::Failed);
            self.show(Failure { notice: notice.id, request: notice.request, at: now, reason: reason.to_owned() });
            return false;
        }
        self.today.by_address.insert(notice.address.clone(), to_address + 1);
        self.today.by_requester.insert(notice.requester, by_requester + 1);
        self.due.insert((notice.not_before, notice.id));
        self.notices.insert(notice.id, Delivery::Pending(Box::new(notice)));
        true
    }

    pub(super) fn attempt(&mut self, id: NoticeId) {
        if let Some(Delivery::Pending(notice)) = self.notices.get_mut(&id) {
            notice.attempts = notice.attempts.saturating_add(1);
        }
    }

    pub(super) fn sent(&mut self, id: NoticeId) {
        self.settle(id, Delivery::Sent);
    }

    pub(super) fn failed(&mut self, id: NoticeId, permanence: Permanence, reason: String, now: Timestamp) {
        let Some(Delivery::Pending(notice)) = self.notices.get_mut(&id) else { return };
        let given_up = now.since(notice.ended_at) >= TRIED_FOR.duration();
        if permanence == Permanence::Permanent || given_up {
            let request = notice.request;
            self.settle(id, Delivery::Failed);
            self.show(Failure { notice: id, request, at: now, reason });
        } else {
            self.due.remove(&(notice.not_before, id));
            notice.not_before = now + backoff(notice.attempts).duration();
            self.due.insert((notice.not_before, id));
        }
    }

    fn settle(&mut self, id: NoticeId, delivery: Delivery) {
        if let Some(place) = self.notices.get_mut(&id) {
            if let Delivery::Pending(notice) = place {
                self.due.remove(&(notice.not_before, id));
            }
            *place = delivery;
        }
    }

    fn show(&mut self, failure: Failure) {
        if self.failures.len() == MAX_SHOWN_FAILURES {
            self.failures.pop_back();
        }
        self.failures.push_front(failure);
    }

    pub(super) fn forget(&mut self, id: NoticeId) {
        self.settle(id, Delivery::Sent);
        self.notices.remove(&id);
    }

    pub(super) fn is_pending(&self, id: NoticeId) -> bool {
        matches!(self.notices.get(&id), Some(Delivery::Pending(_)))
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = &Notice> {
        self.due.iter().filter_map(|(_, id)| match self.notices.get(id) {
            Some(Delivery::Pending(notice)) => Some(notice.as_ref()),
            _ => None,
        })
    }

    pub(super) fn pending_count(&self) -> u64 {
        self.due.len() as u64
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NoticeId, &Delivery)> {
        self.notices.iter().map(|(id, delivery)| (*id, delivery))
    }

    pub(super) fn reindex(&mut self) {
        self.due = self.pending_keys();
    }

    fn pending_keys(&self) -> BTreeSet<(Timestamp, NoticeId)> {
        let pending = self.notices.iter().filter_map(|(id, delivery)| match delivery {
            Delivery::Pending(notice) => Some((notice.not_before, *id)),
            Delivery::Sent | Delivery::Failed => None,
        });
        pending.collect()
    }

    /// For the invariants.
    pub(super) fn index_agrees(&self) -> bool {
        self.due == self.pending_keys()
    }
}

/// The wait after the `attempts`-th try.
fn backoff(attempts: u32) -> Span {
    let doubled = FIRST_BACKOFF.as_millis() << attempts.saturating_sub(1).min(16);
    Span::from_millis(doubled.min(LONGEST_BACKOFF.as_millis()))
}
