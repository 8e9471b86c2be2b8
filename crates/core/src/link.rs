//! One connection between a node and the hub, as each end watches it. Machines: they say when the
//! other end has been silent for too long, and never touch the store or a queue.

use crate::error::{Code, Refusal};
use crate::limits::{
    BACKOFF_MS_MAX, BACKOFF_MS_MIN, HEARTBEAT_MS, HELLO_MS_MAX, PROTOCOL, PROTOCOL_MIN, SILENCE_MS_MAX,
};
use crate::message::{Hello, ToHub};
use crate::time::Timestamp;

/// The hub's end of a link.
#[derive(Clone, Debug)]
pub struct HubLink {
    opened: Timestamp,
    heard: Timestamp,
    greeted: bool,
}

impl HubLink {
    /// A connection that has said nothing.
    pub const fn new(now: Timestamp) -> Self {
        Self { opened: now, heard: now, greeted: false }
    }

    /// Judges the order and version of messages: Hello first, and once (ABUSE 12, 15). Any good
    /// message is a sign of life.
    pub fn handle(&mut self, message: &ToHub, now: Timestamp) -> Result<(), Refusal> {
        match (self.greeted, message) {
            (false, ToHub::Hello(hello)) => {
                check_version(hello)?;
                self.greeted = true;
            }
            (false, _) => return Err(out_of_order("The first message on a link must be Hello.")),
            (true, ToHub::Hello(_)) => return Err(out_of_order("Hello was said before on this link.")),
            (true, _) => {}
        }
        self.heard = now;
        Ok(())
    }

    /// Whether Hello was taken.
    pub const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// When the other end was last heard.
    pub const fn heard(&self) -> Timestamp {
        self.heard
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub const fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        if self.greeted {
            Some((self.heard.plus_ms(SILENCE_MS_MAX), "the node's silence"))
        } else {
            Some((self.opened.plus_ms(HELLO_MS_MAX), "a Hello that does not come"))
        }
    }

    /// `Err` when the link must be closed at `now`.
    pub fn handle_timeout(&self, now: Timestamp) -> Result<(), Refusal> {
        match self.poll_timeout() {
            Some((at, why)) if at <= now => {
                Err(Refusal::new(Code::Timeout, format!("The link is closed for {why}."))
                    .hint("The node dials again by itself; look at its log and network if it does not."))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The node's end of a link: when to say a heartbeat, and when the hub must be taken for dead.
#[derive(Clone, Debug)]
pub struct NodeLink {
    heard: Timestamp,
    next_heartbeat: Timestamp,
    seq: u64,
    sent_at: Option<(u64, Timestamp)>,
    rtt_ms: Option<u64>,
}

impl NodeLink {
    /// A link on which Hello was just sent.
    pub const fn new(now: Timestamp) -> Self {
        Self { heard: now, next_heartbeat: now.plus_ms(HEARTBEAT_MS), seq: 0, sent_at: None, rtt_ms: None }
    }

    /// Something came from the hub.
    pub const fn heard(&mut self, now: Timestamp) {
        self.heard = now;
    }

    /// The answer to a heartbeat came.
    pub fn handle_ack(&mut self, seq: u64, now: Timestamp) {
        if let Some((sent, at)) = self.sent_at
            && sent == seq
        {
            self.rtt_ms = Some(now.ms_since(at));
            self.sent_at = None;
        }
    }

    /// Time of the last answered heartbeat there and back, milliseconds.
    pub const fn rtt_ms(&self) -> Option<u64> {
        self.rtt_ms
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let silence = (self.heard.plus_ms(SILENCE_MS_MAX), "the hub's silence");
        Some(silence.min((self.next_heartbeat, "a heartbeat")))
    }

    /// The heartbeat to send, when one is due; `Err` when the hub has been silent for too long.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<Option<ToHub>, Refusal> {
        if self.heard.plus_ms(SILENCE_MS_MAX) <= now {
            return Err(Refusal::new(
                Code::Timeout,
                "The hub has been silent for too long; the link is closed.",
            ));
        }
        if now < self.next_heartbeat {
            return Ok(None);
        }
        self.seq += 1;
        self.sent_at = Some((self.seq, now));
        self.next_heartbeat = now.plus_ms(HEARTBEAT_MS);
        Ok(Some(ToHub::Heartbeat { seq: self.seq }))
    }
}

/// When a node dials again: exponential with full jitter, so that a thousand nodes do not come in
/// one moment (ABUSE 81).
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Waits from the start.
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// A link was welcomed: the next failure is the first again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next try, milliseconds. `random` is uniform over all u64; `asked` is
    /// the hub's own wish and the least that is waited, with jitter of half of it on top.
    pub fn next_ms(&mut self, random: u64, asked: Option<u64>) -> u64 {
        let ceiling = BACKOFF_MS_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        match asked {
            Some(ms) => ms.saturating_add(random % (ms / 2 + 1)),
            None => (BACKOFF_MS_MIN / 2 + random % ceiling).min(BACKOFF_MS_MAX),
        }
    }
}

fn check_version(hello: &Hello) -> Result<(), Refusal> {
    if (PROTOCOL_MIN..=PROTOCOL).contains(&hello.protocol) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::VersionUnsupported,
        format!("The node speaks protocol {}; this hub speaks {PROTOCOL_MIN} to {PROTOCOL}.", hello.protocol),
    ))
}

fn out_of_order(message: &str) -> Refusal {
    Refusal::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Generation};
    use crate::node::Facts;

    fn hello(protocol: u32) -> ToHub {
        let (generation, epoch) = (Generation(0), Epoch(0));
        ToHub::Hello(Box::new(Hello {
            protocol,
            instance: 1,
            dial: 1,
            generation,
            epoch,
            facts: Facts::default(),
            ceiling: None,
            audit_head: None,
            runs: vec![],
            files: vec![],
        }))
    }

    #[test]
    fn hello_comes_first_and_once() {
        let now = Timestamp(5);
        let mut link = HubLink::new(now);
        let early = link.handle(&ToHub::Heartbeat { seq: 1 }, now).expect_err("before Hello");
        assert_eq!((early.code, link.is_greeted()), (Code::InvalidArgument, false));
        link.handle(&hello(PROTOCOL), now).expect("Hello");
        link.handle(&ToHub::Heartbeat { seq: 1 }, now).expect("after Hello");
        assert_eq!(link.handle(&hello(PROTOCOL), now).expect_err("twice").code, Code::InvalidArgument);
    }

    #[test]
    fn a_version_outside_the_bounds_is_refused() {
        for protocol in [0, PROTOCOL_MIN.wrapping_sub(1), PROTOCOL + 1, u32::MAX] {
            let mut link = HubLink::new(Timestamp(0));
            let refusal = link.handle(&hello(protocol), Timestamp(0)).expect_err("version");
            assert_eq!((refusal.code, link.is_greeted()), (Code::VersionUnsupported, false));
        }
    }

    #[test]
    fn a_connection_without_hello_is_closed_in_time_and_not_before() {
        let link = HubLink::new(Timestamp(100));
        assert_eq!(link.handle_timeout(Timestamp(100 + HELLO_MS_MAX - 1)), Ok(()));
        assert_eq!(link.handle_timeout(Timestamp(100 + HELLO_MS_MAX)).expect_err("late").code, Code::Timeout);
    }

    #[test]
    fn any_message_is_a_sign_of_life_and_silence_ends_the_link() {
        let mut link = HubLink::new(Timestamp(0));
        link.handle(&hello(PROTOCOL), Timestamp(1_000)).expect("Hello");
        link.handle(&ToHub::Heartbeat { seq: 1 }, Timestamp(8_000)).expect("a heartbeat");
        let (at, _) = link.poll_timeout().expect("a link always waits");
        assert_eq!(at, Timestamp(8_000 + SILENCE_MS_MAX));
        assert!(link.handle_timeout(Timestamp(at.0 - 1)).is_ok() && link.handle_timeout(at).is_err());
    }

    #[test]
    fn a_node_says_heartbeats_in_time_and_gives_a_silent_hub_up() {
        let mut link = NodeLink::new(Timestamp(0));
        assert_eq!(link.handle_timeout(Timestamp(HEARTBEAT_MS - 1)), Ok(None));
        assert_eq!(link.handle_timeout(Timestamp(HEARTBEAT_MS)), Ok(Some(ToHub::Heartbeat { seq: 1 })));
        assert_eq!(link.handle_timeout(Timestamp(HEARTBEAT_MS)), Ok(None));
        link.heard(Timestamp(3_100));
        link.handle_ack(7, Timestamp(3_100));
        assert_eq!(link.rtt_ms(), None, "an answer to something else");
        link.handle_ack(1, Timestamp(3_100));
        assert_eq!(link.rtt_ms(), Some(100));
        let end = Timestamp(3_100 + SILENCE_MS_MAX);
        assert!(link.handle_timeout(Timestamp(end.0 - 1)).is_ok());
        assert_eq!(link.handle_timeout(end).expect_err("silence").code, Code::Timeout);
    }

    #[test]
    fn backoff_grows_stays_in_its_bounds_and_begins_anew() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let mut backoff = Backoff::new();
            for _ in 0..70 {
                let ms = backoff.next_ms(random, None);
                assert!((BACKOFF_MS_MIN / 2..=BACKOFF_MS_MAX).contains(&ms), "{ms}");
            }
            backoff.reset();
            assert!(backoff.next_ms(random, None) <= BACKOFF_MS_MIN * 3 / 2);
        }
    }

    #[test]
    fn the_hubs_wish_is_the_least_that_is_waited() {
        for (asked, random) in [(0, 9), (1_000, 0), (1_000, u64::MAX), (u64::MAX, u64::MAX)] {
            let ms = Backoff::new().next_ms(random, Some(asked));
            assert!(ms >= asked && ms <= asked.saturating_add(asked / 2));
        }
    }
}
