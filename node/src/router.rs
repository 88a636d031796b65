//! Who answers what comes in: one place that knows every role of this node.
//!
//! Calls are answered side by side, a bounded number at a time; one more is told that the node is busy. What no role of
//! this node answers is refused with the reason.

use crate::artifact::Store;
use crate::artifact::steward::Owned;
use crate::coordinator::door::Door;
use crate::hearsay::Hearsay;
use crate::network::{Inbox, Incoming, News};
use crate::volunteer::duty::Volunteer;
use protocol::farm::explain::Presence;
use protocol::id::BuildKey;
use protocol::signed::Signed;
use protocol::ticket::Ticket;
use protocol::time::Span;
use protocol::wire::{Answer, CLAIM_WAIT, Control, HeardRequest, HeardState, Park, Refusal, RequestRef, fitting};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Calls answered at the same time, parked ones apart.
const AT_ONCE: usize = 512;
/// Calls parked at the same time.
const PARKED: usize = 16_384;
/// How long a coordinator is waited for on behalf of somebody who cannot reach one; the asker waits no longer himself.
const LEADER_WITHIN: Duration = Duration::from_secs(4);

/// The roles of a node, as far as calls are concerned. Clones share everything.
#[derive(Clone, Debug)]
pub struct Router {
    /// The coordinator's door, if this node is one.
    pub door: Option<Door>,
    /// The volunteer, if this node is one.
    pub volunteer: Option<Volunteer>,
    /// Judged builds that are kept here.
    pub store: Store,
    /// What gossip says.
    pub hearsay: Hearsay,
    /// The charter as last seen.
    pub charter: watch::Receiver<Option<Signed>>,
    /// The farm's ticket as this node would write it.
    pub ticket: watch::Receiver<Ticket>,
    /// Does what the owner of this home wishes; `None` where there is no home.
    pub owned: Option<Owned>,
}

/// The parts of an [`Inbox`] that the router serves.
#[derive(Debug)]
pub struct Calls {
    /// Calls over `control/1`.
    pub control: mpsc::Receiver<Incoming<Control>>,
    /// Calls over `park/1`.
    pub park: mpsc::Receiver<Incoming<Park>>,
    /// Gossip.
    pub news: mpsc::Receiver<News>,
}

impl Calls {
    /// Takes them out of an inbox; streams and Raft are served elsewhere.
    #[must_use]
    pub fn of(
        inbox: Inbox,
    ) -> (Self, mpsc::Receiver<crate::network::IncomingBulk>, mpsc::Receiver<crate::network::IncomingRaft>) {
        let Inbox { control, park, bulk, raft, news } = inbox;
        (Self { control, park, news }, bulk, raft)
    }
}

impl Router {
    /// Answers until `stop` is cancelled or the network ends. News goes to `news` after it was noted here.
    pub async fn run(self, mut calls: Calls, news: broadcast::Sender<News>, stop: CancellationToken) {
        let mut answering = JoinSet::new();
        let mut parked = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(_) = answering.join_next(), if !answering.is_empty() => {}
                Some(_) = parked.join_next(), if !parked.is_empty() => {}
                Some(heard) = calls.news.recv() => self.hear(heard, &news),
                Some(incoming) = calls.control.recv() => {
                    if answering.len() < AT_ONCE {
                        answering.spawn(self.clone().answer_control(incoming));
                    } else {
                        busy(incoming.reply);
                    }
                }
                Some(incoming) = calls.park.recv() => {
                    if parked.len() < PARKED {
                        parked.spawn(self.clone().answer_park(incoming));
                    } else {
                        busy(incoming.reply);
                    }
                }
                else => return,
            }
        }
    }

    fn hear(&self, heard: News, news: &broadcast::Sender<News>) {
        match &heard {
            News::Capability { author, news } => self.hearsay.hear(*author, news.clone()),
            // Who could say so otherwise does not know.
            News::Request { author, news } => {
                if self.volunteer.as_ref().is_some_and(|volunteer| volunteer.coordinators.includes(author)) {
                    self.hearsay.hear_of_request(news);
                }
            }
        }
        // Nobody listens on a node that is no volunteer.
        let _listeners = news.send(heard);
    }

    async fn answer_control(self, incoming: Incoming<Control>) {
        let Incoming { caller, call, mut reply } = incoming;
        let answering = async {
            match (&call, &self.door) {
                (Control::Charter, _) => Answer::Charter(self.charter.borrow().clone()),
                (Control::Ticket, _) => Answer::Ticket(Box::new(self.ticket.borrow().clone())),
                (Control::ReadLog { lease, offset }, _) => match &self.volunteer {
                    Some(volunteer) if volunteer.coordinators.includes(&caller.peer) => {
                        volunteer.answer(*lease, *offset, Duration::ZERO).await
                    }
                    Some(_) => Answer::Refused(Refusal::NotAllowed),
                    None => Answer::Log(None),
                },
                (_, Some(door)) => door.control(caller, call).await.unwrap_or(Answer::Refused(Refusal::NotAllowed)),
                (Control::Find(key), None) => self.find(*key).await,
                (Control::Volunteers, None) => self.volunteers(),
                (Control::Request(named), None) => self.request(named).await,
                (_, None) => Answer::Refused(Refusal::NotACoordinator),
            }
        };
        let answer = tokio::select! {
            biased;
            () = reply.closed() => return,
            answer = answering => answer,
        };
        // The caller may have given up meanwhile.
        let _gone = reply.send(answer);
    }

    async fn answer_park(self, incoming: Incoming<Park>) {
        let Incoming { caller, call, mut reply } = incoming;
        let answering = async {
            match (&call, &self.door, &self.volunteer) {
                (Park::FollowLease { lease, offset, wait }, _, Some(volunteer))
                    if volunteer.coordinators.includes(&caller.peer) =>
                {
                    volunteer.answer(*lease, *offset, wait.duration().min(CLAIM_WAIT)).await
                }
                (Park::FollowLease { .. }, _, Some(_)) => Answer::Refused(Refusal::NotAllowed),
                (Park::FollowLease { .. }, _, None) => Answer::Log(None),
                (Park::Owner(word), ..) => match &self.owned {
                    Some(owned) => owned.answer(caller.peer, word).await,
                    None => Answer::Refused(Refusal::NotAllowed),
                },
                (_, Some(door), _) => door.park(caller, call).await.unwrap_or(Answer::Refused(Refusal::NotAllowed)),
                (_, None, _) => Answer::Refused(Refusal::NotACoordinator),
            }
        };
        let answer = tokio::select! {
            biased;
            () = reply.closed() => return,
            answer = answering => answer,
        };
        // The caller may have given up meanwhile.
        let _gone = reply.send(answer);
    }

    /// The volunteers that gossip tells of, and this one, whose own whispers do not come back to it.
    fn volunteers(&self) -> Answer {
        let mut volunteers = self.hearsay.volunteers();
        if let Some(own) = self.volunteer.as_ref().map(Volunteer::view) {
            volunteers.retain(|view| view.volunteer != own.volunteer);
            volunteers.insert(0, own);
        }
        Answer::Volunteers(fitting(volunteers))
    }

    /// A request as a coordinator sees it, or, where none can be reached, as this volunteer has heard of it.
    async fn request(&self, named: &RequestRef) -> Answer {
        let Some(volunteer) = &self.volunteer else { return Answer::Refused(Refusal::NotACoordinator) };
        let asking = volunteer.coordinators.call(Control::Request(named.clone()));
        match tokio::time::timeout(LEADER_WITHIN, asking).await {
            Ok(Ok((_, answer @ (Answer::Request(_) | Answer::Refused(Refusal::Invalid(_)))))) => answer,
            _ => Answer::Heard(self.heard_of(named, volunteer).await.map(Box::new)),
        }
    }

    async fn heard_of(&self, named: &RequestRef, volunteer: &Volunteer) -> Option<HeardRequest> {
        let here = volunteer.running.requests().into_iter().find(|(request, _)| match named {
            RequestRef::Id(id) => request == id,
            RequestRef::Prefix(prefix) => request.to_string().starts_with(prefix.as_str()),
        });
        let (request, build_key, mut state, heard) = match here {
            Some((request, build_key)) => (request, build_key, HeardState::Building, Span::default()),
            None => {
                let (request, rumour) = self.hearsay.request(named)?;
                (request, rumour.build_key, rumour.state, self.hearsay.age(rumour.at))
            }
        };
        if let Ok(Some(_)) = self.store.judged(build_key).await {
            state = HeardState::Judged;
        }
        let Answer::Volunteers(volunteers) = self.volunteers() else { return None };
        let count = |presence| {
            let counted = volunteers.iter().filter(|view| view.presence == presence).count();
            u32::try_from(counted).unwrap_or(u32::MAX)
        };
        Some(HeardRequest {
            request,
            build_key,
            state,
            heard,
            free: count(Presence::Free),
            busy: count(Presence::Busy),
        })
    }

    /// A judged build that is kept here; whoever asks checks the verdict himself.
    async fn find(&self, key: BuildKey) -> Answer {
        match self.store.judged(key).await {
            Ok(kept) => Answer::Found { judged: kept.map(|kept| Box::new(kept.judged)), holders: Vec::new() },
            Err(error) => Answer::Refused(Refusal::Failed(error.to_string())),
        }
    }
}

fn busy(reply: oneshot::Sender<Answer>) {
    // The caller may have given up meanwhile.
    let _gone = reply.send(Answer::Refused(Refusal::Busy));
}
