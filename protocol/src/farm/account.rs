//! What the farm remembers of a requester: the place in the queue, and how much is open.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): a job's tag is one step after the later of the class's virtual time
//! and its requester's last tag; granting a job moves virtual time to its tag. So a requester with one job comes right after
//! the job that was granted last, however many another requester has queued. All requesters weigh the same.
//!
//! An account exists only while its requester has something open, so a stranger cannot grow this book for long.

use crate::farm::queue::NeedId;
use crate::id::PeerKey;
use crate::request::Priority;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most distinct requirements that the open requests of one requester may have.
pub const MAX_OPEN_REQUIREMENTS: usize = 64;

/// Priority classes.
pub(super) const CLASSES: usize = 3;

pub(super) const fn class_at(priority: Priority) -> usize {
    match priority {
        Priority::Urgent => 0,
        Priority::Normal => 1,
        Priority::Batch => 2,
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Account {
    /// Last tag given, by class.
    tags: [u64; CLASSES],
    /// Queued jobs charged to this requester, by class.
    queued: [u32; CLASSES],
    /// Requests that wait.
    waiting: u32,
    /// How many of them need what.
    needs: BTreeMap<NeedId, u32>,
}

/// Requests that wait, queued jobs by class, requests by need.
pub(super) type Open = (u32, [u32; CLASSES], BTreeMap<NeedId, u32>);

/// Every requester with something open, and the virtual time of each class.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Accounts {
    virtual_time: [u64; CLASSES],
    accounts: BTreeMap<PeerKey, Account>,
}

impl Accounts {
    /// Whether one more request with this need would be within the caps.
    pub(super) fn has_room(&self, requester: &PeerKey, need: Option<NeedId>, waiting_cap: u32) -> bool {
        let Some(account) = self.accounts.get(requester) else { return waiting_cap > 0 };
        let known = need.is_some_and(|need| account.needs.contains_key(&need));
        account.waiting < waiting_cap && (known || account.needs.len() < MAX_OPEN_REQUIREMENTS)
    }

    pub(super) fn open(&mut self, requester: PeerKey, need: NeedId) {
        let account = self.accounts.entry(requester).or_default();
        account.waiting += 1;
        *account.needs.entry(need).or_default() += 1;
    }

    pub(super) fn close(&mut self, requester: &PeerKey, need: NeedId) {
        let Some(account) = self.accounts.get_mut(requester) else { return };
        account.waiting = account.waiting.saturating_sub(1);
        if let Some(count) = account.needs.get_mut(&need) {
            *count -= 1;
            if *count == 0 {
                account.needs.remove(&need);
            }
        }
        self.forget_if_idle(requester);
    }

    /// A job of this requester is queued, for the first time or again; its tag.
    pub(super) fn queued(&mut self, requester: PeerKey, class: Priority, tag: Option<u64>) -> u64 {
        let at = class_at(class);
        let account = self.accounts.entry(requester).or_default();
        let tag = tag.unwrap_or_else(|| self.virtual_time[at].max(account.tags[at]) + 1);
        account.queued[at] += 1;
        account.tags[at] = account.tags[at].max(tag);
        tag
    }

    /// A job of this requester is queued no more. With nothing left in the class the tag is forgotten: after grants it is
    /// not later than virtual time anyway, after cancellations nobody should pay for work that was not done.
    pub(super) fn unqueued(&mut self, requester: &PeerKey, class: Priority) {
        let at = class_at(class);
        let Some(account) = self.accounts.get_mut(requester) else { return };
        account.queued[at] = account.queued[at].saturating_sub(1);
        if account.queued[at] == 0 {
            account.tags[at] = 0;
        }
        self.forget_if_idle(requester);
    }

    pub(super) fn granted(&mut self, class: Priority, tag: u64) {
        let time = &mut self.virtual_time[class_at(class)];
        *time = (*time).max(tag);
    }

    pub(super) const fn virtual_time(&self) -> [u64; CLASSES] {
        self.virtual_time
    }

    /// What each requester has open: requests, queued jobs by class, requests by need. For the invariants.
    pub(super) fn open_by_requester(&self) -> impl Iterator<Item = (PeerKey, Open)> {
        self.accounts.iter().map(|(key, account)| (*key, (account.waiting, account.queued, account.needs.clone())))
    }

    fn forget_if_idle(&mut self, requester: &PeerKey) {
        let idle =
            self.accounts.get(requester).is_some_and(|a| a.waiting == 0 && a.queued.iter().all(|count| *count == 0));
        if idle {
            self.accounts.remove(requester);
        }
    }
}
