//! What we want of ourselves, which libp2p refuses to dial: answered in process by the handlers that answer anybody.

use super::calls::{Answered, offer};
use super::driver::Driver;
use super::peers::{BulkReply, Errand, Want};
use super::{BulkStream, CallError, Caller, Incoming, IncomingBulk, IncomingRaft};
use futures::future::FutureExt as _;
use protocol::wire::{Answer, Control, Refusal};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Bytes in flight on a stream to ourselves.
const PIPE_BYTES: usize = 256 << 10;

impl Driver {
    /// Does what we want of ourselves, through the same handlers as for anybody.
    pub(super) fn do_here(&mut self, errand: Errand) {
        let Errand { until, want } = errand;
        let caller = Caller { peer: self.local };
        match want {
            Want::Call(call, reply) => match *call {
                // Whoever dropped the receiver waits no more; so in all arms.
                Control::Hello(_) => drop(reply.send(Ok(Answer::Hello(self.say_hello())))),
                call => {
                    let (answer_to, answer) = oneshot::channel();
                    let offered = offer(&self.outlet.control, Incoming { caller, call, reply: answer_to });
                    self.relay_own(offered, until, answer, reply);
                }
            },
            Want::Park(call, reply) => {
                let (answer_to, answer) = oneshot::channel();
                let offered = offer(&self.outlet.park, Incoming { caller, call: *call, reply: answer_to });
                self.relay_own(offered, until, answer, reply);
            }
            Want::Raft(bytes, reply) => {
                let (answer_to, answer) = oneshot::channel();
                let offered = offer(&self.outlet.raft, IncomingRaft { caller, bytes, reply: answer_to });
                self.relay_own(offered, until, answer, reply);
            }
            Want::Bulk(reply) => self.open_bulk_here(caller, reply),
            Want::Meet(reply) => drop(reply.send(Ok(()))),
        }
    }

    fn relay_own<T: Send + 'static>(
        &mut self,
        offered: Result<(), Refusal>,
        until: Instant,
        answer: oneshot::Receiver<T>,
        reply: oneshot::Sender<Result<T, CallError>>,
    ) {
        let peer = self.local;
        if let Err(refusal) = offered {
            return drop(reply.send(Err(CallError::Refused { peer, refusal })));
        }
        let relayed = async move {
            let result = match tokio::time::timeout_at(until, answer).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) => Err(CallError::Refused { peer, refusal: Refusal::Busy }),
                Err(_) => Err(CallError::Timeout(peer)),
            };
            drop(reply.send(result));
            Answered::Own
        };
        self.exchanges.answer_ourselves(relayed.boxed());
    }

    fn open_bulk_here(&mut self, caller: Caller, reply: BulkReply) {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.deliver_stream(IncomingBulk { caller, stream: Box::new(theirs) });
        drop(reply.send(Ok(Box::new(ours) as BulkStream)));
    }
}
