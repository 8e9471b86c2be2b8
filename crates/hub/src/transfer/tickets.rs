//! Tickets: leave for one node to open one stream, once, within a time, on the link by which it came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::files::ask::Ticket;
use cortex_core::id::{Epoch, LinkId, NodeId};
use cortex_core::limits::{STREAMS_PER_HUB_MAX, TICKET_MS, TICKETS_PER_NODE_MAX};
use cortex_core::time::Timestamp;
use cortex_core::{Code, Refusal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::TransferStream;

/// All tickets that nobody has used, and all streams. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tickets(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<Ticket, Waiting>,
    running: BTreeMap<u64, (LinkId, CancellationToken)>,
    next: u64,
}

/// A ticket that was given.
#[derive(Debug)]
struct Waiting {
    node: NodeId,
    link: LinkId,
    epoch: Epoch,
    until: Timestamp,
    give: oneshot::Sender<TransferStream>,
}

/// The stream of a ticket, which is to come. Dropped, the ticket is of no more use.
#[derive(Debug)]
pub struct Opening {
    tickets: Tickets,
    ticket: Ticket,
    stream: oneshot::Receiver<TransferStream>,
}

/// A ticket that was shown.
#[derive(Debug)]
pub(crate) struct Redeemed {
    /// To whom the stream goes.
    pub(crate) give: oneshot::Sender<TransferStream>,
    pub(crate) running: Running,
}

/// One stream, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Running {
    tickets: Tickets,
    number: u64,
    /// The link is gone, and the stream with it.
    pub(super) link_gone: CancellationToken,
}

impl Tickets {
    /// Gives a ticket for a link that is here.
    ///
    /// # Errors
    /// `quota` when the node has too many that it does not use, or the hub too many streams.
    pub(crate) fn issue(
        &self,
        ticket: Ticket,
        node: NodeId,
        (link, epoch): (LinkId, Epoch),
        now: Timestamp,
    ) -> Result<Opening, Refusal> {
        let (give, stream) = oneshot::channel();
        let mut state = self.lock();
        state.waiting.retain(|_, waiting| waiting.until > now);
        let of_node = state.waiting.values().filter(|waiting| waiting.node == node).count();
        if of_node >= TICKETS_PER_NODE_MAX || state.waiting.len() + state.running.len() >= STREAMS_PER_HUB_MAX
        {
            let message = "Too much content is under way at this moment.";
            return Err(
                Refusal::new(Code::Quota, message).hint("Wait for some of it to end, then ask again.")
            );
        }
        let until = now.plus_ms(TICKET_MS);
        state.waiting.insert(ticket, Waiting { node, link, epoch, until, give });
        drop(state);
        Ok(Opening { tickets: self.clone(), ticket, stream })
    }

    /// A node shows a ticket on a link of this epoch. It is used up by that, unless it is another node's.
    ///
    /// # Errors
    /// `forbidden` for one that is not there: used, too old, another node's, or none at all. `stale_epoch`.
    pub(crate) fn redeem(
        &self,
        ticket: Ticket,
        node: NodeId,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<Redeemed, Refusal> {
        let mut state = self.lock();
        let is_own = state.waiting.get(&ticket).is_some_and(|waiting| waiting.node == node);
        let waiting = if is_own { state.waiting.remove(&ticket) } else { None };
        let waiting = waiting.filter(|waiting| waiting.until > now && !waiting.give.is_closed());
        let Some(Waiting { link, epoch: given, give, .. }) = waiting else {
            let message = "The ticket for this stream was used, is too old, or was never given to this node.";
            return Err(Refusal::new(Code::Forbidden, message).hint("Wait for the hub to ask again."));
        };
        if given != epoch {
            let message = format!("The ticket is of the link of epoch {given}, not of {epoch}.");
            return Err(Refusal::new(Code::StaleEpoch, message));
        }
        let (number, link_gone) = (state.next, CancellationToken::new());
        state.next += 1;
        state.running.insert(number, (link, link_gone.clone()));
        drop(state);
        Ok(Redeemed { give, running: Running { tickets: self.clone(), number, link_gone } })
    }

    /// The link is gone: so is all that was given by it.
    pub(crate) fn link_ended(&self, link: LinkId) {
        let mut state = self.lock();
        state.waiting.retain(|_, waiting| waiting.link != link);
        for (of, link_gone) in state.running.values() {
            if *of == link {
                link_gone.cancel();
            }
        }
    }

    /// Tickets that nobody has used.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Streams.
    pub(crate) fn running(&self) -> usize {
        self.lock().running.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    /// The ticket.
    pub const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Waits for the stream, as long as the ticket holds.
    ///
    /// # Errors
    /// `node_offline` when the link ended, `timeout` when the node did not open it.
    pub async fn stream(mut self) -> Result<TransferStream, Refusal> {
        let patience = Duration::from_millis(TICKET_MS);
        match tokio::time::timeout(patience, &mut self.stream).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(_gone)) => {
                Err(Refusal::new(Code::NodeOffline, "The node's link ended before the content came.")
                    .hint("Wait until the node is back, then try again."))
            }
            Err(_late) => {
                let message = format!("The node opened no stream for the content within {TICKET_MS} ms.");
                Err(Refusal::new(Code::Timeout, message)
                    .hint("Try again; the node may have had too many under way."))
            }
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.tickets.lock().waiting.remove(&self.ticket);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tickets.lock().running.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(5);
    const LINK: LinkId = LinkId(9);

    fn node(n: u8) -> NodeId {
        NodeId::mint(1, &[n; 10])
    }

    fn ticket(n: u8) -> Ticket {
        Ticket::new([n; 16])
    }

    fn code<T>(result: Result<T, Refusal>) -> Option<Code> {
        result.err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_ticket_is_good_once_for_its_node_its_link_and_its_time() {
        let tickets = Tickets::default();
        let at = Timestamp(1_000);
        let issue = |n| tickets.issue(ticket(n), node(1), (LINK, EPOCH), at).expect("room");
        let opening = issue(1);
        assert_eq!(opening.ticket(), ticket(1));
        assert_eq!(
            code(tickets.redeem(ticket(1), node(2), EPOCH, at)),
            Some(Code::Forbidden),
            "another node"
        );
        assert_eq!(code(tickets.redeem(ticket(2), node(1), EPOCH, at)), Some(Code::Forbidden), "none");
        let redeemed = tickets.redeem(ticket(1), node(1), EPOCH, at).expect("its own");
        assert_eq!(code(tickets.redeem(ticket(1), node(1), EPOCH, at)), Some(Code::Forbidden), "twice");
        assert_eq!((tickets.waiting(), tickets.running()), (0, 1));
        drop(redeemed);
        let _second = issue(2);
        assert_eq!(code(tickets.redeem(ticket(2), node(1), Epoch(4), at)), Some(Code::StaleEpoch));
        assert_eq!(
            code(tickets.redeem(ticket(2), node(1), EPOCH, at)),
            Some(Code::Forbidden),
            "shown before"
        );
        let _third = issue(3);
        let late = at.plus_ms(TICKET_MS);
        assert_eq!(code(tickets.redeem(ticket(3), node(1), EPOCH, late)), Some(Code::Forbidden), "late");
        drop(opening);
        assert_eq!((tickets.waiting(), tickets.running()), (0, 0));
    }

    #[tokio::test]
    async fn with_its_link_a_ticket_goes_and_a_stream_ends() {
        let tickets = Tickets::default();
        let at = Timestamp(1_000);
        let issue = |n, link| tickets.issue(ticket(n), node(1), (link, EPOCH), at).expect("room");
        let (used, unused, other) = (issue(1, LINK), issue(2, LINK), issue(3, LinkId(10)));
        let redeemed = tickets.redeem(ticket(1), node(1), EPOCH, at).expect("its own");
        tickets.link_ended(LINK);
        assert!(redeemed.running.link_gone.is_cancelled());
        assert_eq!(code(tickets.redeem(ticket(2), node(1), EPOCH, at)), Some(Code::Forbidden));
        assert_eq!(code(unused.stream().await), Some(Code::NodeOffline));
        assert_eq!(tickets.waiting(), 1, "that of the other link");
        drop((used, other, redeemed));
        assert_eq!((tickets.waiting(), tickets.running()), (0, 0));
    }

    #[test]
    fn tickets_that_a_node_does_not_use_are_bounded_and_make_room_when_they_end() {
        let tickets = Tickets::default();
        let now = Timestamp(1_000);
        let issue = |n: usize, now| {
            let ticket = Ticket::new((n as u128).to_le_bytes());
            tickets.issue(ticket, node(1), (LINK, EPOCH), now)
        };
        let mut held: Vec<Opening> =
            (0..TICKETS_PER_NODE_MAX).map(|n| issue(n, now).expect("room")).collect();
        assert_eq!(code(issue(1_000, now)), Some(Code::Quota));
        held.pop();
        held.push(issue(1_001, now).expect("one was given up"));
        drop(issue(1_002, now.plus_ms(TICKET_MS)).expect("the others are too old"));
        drop(held);
        assert_eq!(tickets.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_stream_is_told_when_it_does_not_come() {
        let tickets = Tickets::default();
        let opening = tickets.issue(ticket(1), node(1), (LINK, EPOCH), Timestamp(0)).expect("room");
        assert_eq!(code(opening.stream().await), Some(Code::Timeout));
        assert_eq!(tickets.waiting(), 0);
    }
}
