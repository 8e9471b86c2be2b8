//! Output of a run as a numbered stream: one order over both of its streams, offsets in each.
//!
//! A **position** counts bytes of both streams together in the order in which the node read them;
//! an **offset** counts bytes of one stream. Positions decide (gap, repeat, credit); offsets are
//! what viewers see.

use crate::limits::{CREDIT_BYTES_MAX, CREDIT_BYTES_START};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// How far both streams have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Positions {
    /// Bytes of standard output.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
}

impl Positions {
    /// The position in the common order.
    pub const fn total(self) -> u64 {
        self.stdout.saturating_add(self.stderr)
    }

    /// Whether neither stream is behind `other`'s.
    pub const fn covers(self, other: Self) -> bool {
        self.stdout >= other.stdout && self.stderr >= other.stderr
    }

    /// The further one of each stream.
    #[must_use]
    pub fn furthest(self, other: Self) -> Self {
        Self { stdout: self.stdout.max(other.stdout), stderr: self.stderr.max(other.stderr) }
    }

    /// Bytes of one stream.
    pub const fn of(self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Moves one stream on by `bytes`.
    pub const fn advance(&mut self, stream: Stream, bytes: u64) {
        match stream {
            Stream::Stdout => self.stdout = self.stdout.saturating_add(bytes),
            Stream::Stderr => self.stderr = self.stderr.saturating_add(bytes),
        }
    }
}

/// What the receiver makes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Take the frame without its first `skip` bytes, which were there already.
    Take {
        /// Bytes to leave out in front.
        skip: u64,
    },
    /// All of it was there already.
    Repeat,
    /// Bytes before it are missing: ask for `from`.
    Gap {
        /// The first position that is missing.
        from: u64,
    },
    /// It contradicts what came before, or goes beyond the credit: close the link.
    Violation,
}

/// The hub's end of one run's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    next: Positions,
    durable: u64,
    granted: u64,
    window: u64,
}

impl Receiver {
    /// Begins where the kept log ends; all of that is durable.
    pub const fn new(kept: Positions) -> Self {
        let total = kept.total();
        let granted = total.saturating_add(CREDIT_BYTES_START);
        Self { next: kept, durable: total, granted, window: CREDIT_BYTES_START }
    }

    /// How far the output has arrived without a gap.
    pub const fn next(&self) -> Positions {
        self.next
    }

    /// Up to which position the output survives a loss of power.
    pub const fn durable(&self) -> u64 {
        self.durable
    }

    /// Up to which position the node may send.
    pub const fn granted(&self) -> u64 {
        self.granted
    }

    /// A new link: what was granted beyond what arrived is granted anew.
    pub fn resume(&mut self) {
        self.granted = self.granted.max(self.next.total().saturating_add(self.window));
    }

    /// The node cannot give what lies before `first_kept`: goes on from there. `false` when a
    /// stream would go back, which no honest node says; nothing is changed then. What had arrived
    /// is no more durable by this than it was.
    pub fn skip_to(&mut self, first_kept: Positions) -> bool {
        if !first_kept.covers(self.next) {
            return false;
        }
        self.next = first_kept;
        self.resume();
        true
    }

    /// Judges a frame of `len` bytes at `position` (common order) and `offset` (its stream).
    pub fn accept(&mut self, stream: Stream, position: u64, offset: u64, len: u64) -> Accepted {
        let (Some(end), Some(offset_end)) = (position.checked_add(len), offset.checked_add(len)) else {
            return Accepted::Violation;
        };
        let here = self.next.total();
        if position > here {
            return Accepted::Gap { from: here };
        }
        if end <= here {
            return Accepted::Repeat;
        }
        let skip = here - position;
        if end > self.granted || offset + skip != self.next.of(stream) || offset_end < self.next.of(stream) {
            return Accepted::Violation;
        }
        self.next.advance(stream, len - skip);
        Accepted::Take { skip }
    }

    /// The log has taken in all before `position`. Returns the new grant when it is worth a
    /// message: a quarter of the window or more.
    pub fn written(&mut self, position: u64) -> Option<u64> {
        let written = position.min(self.next.total());
        if written >= CREDIT_BYTES_START {
            self.window = CREDIT_BYTES_MAX;
        }
        let grant = written.saturating_add(self.window);
        if grant <= self.granted || grant < self.granted.saturating_add(self.window / 4) {
            return None;
        }
        self.granted = grant;
        Some(grant)
    }

    /// All before `position` survives a loss of power: the node may forget it.
    pub fn synced(&mut self, position: u64) {
        self.durable = self.durable.max(position.min(self.next.total()));
    }
}

/// The node's end of one run's output: what is kept, what was sent, what may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    begin: u64,
    end: u64,
    sent: u64,
    granted: u64,
}

impl Sender {
    /// A run that the hub has just sent: both ends begin with the same credit, so that output
    /// flows without a message about it. (The default grants nothing until it is resumed.)
    pub const fn new() -> Self {
        Self { begin: 0, end: 0, sent: 0, granted: CREDIT_BYTES_START }
    }

    /// First position that is still kept.
    pub const fn begin(&self) -> u64 {
        self.begin
    }

    /// Position after the last byte that the process wrote.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Position after the last byte that was sent on this link.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that are kept.
    pub const fn kept(&self) -> u64 {
        self.end - self.begin
    }

    /// The process wrote `len` bytes.
    pub const fn wrote(&mut self, len: u64) {
        self.end = self.end.saturating_add(len);
    }

    /// What may be sent now: from which position, at most how many bytes.
    pub fn sendable(&self, bytes_max: u64) -> Option<(u64, u64)> {
        let upto = self.end.min(self.granted);
        (upto > self.sent).then(|| (self.sent, bytes_max.min(upto - self.sent)))
    }

    /// `len` bytes went out.
    pub const fn sent_bytes(&mut self, len: u64) {
        self.sent = self.sent.saturating_add(len);
    }

    /// The hub grants up to `granted` and keeps all before `durable` for good. Returns the new
    /// beginning when kept bytes can go.
    pub fn credit(&mut self, granted: u64, durable: u64) -> Option<u64> {
        self.granted = self.granted.max(granted);
        let durable = durable.min(self.end);
        if durable <= self.begin {
            return None;
        }
        self.begin = durable;
        self.sent = self.sent.max(durable);
        Some(self.begin)
    }

    /// A new link: the hub has all before `from`. `Err` is the first position still kept when
    /// the asked ones are gone.
    pub fn resume(&mut self, from: u64, granted: u64) -> Result<(), u64> {
        if from < self.begin {
            return Err(self.begin);
        }
        self.sent = from.min(self.end);
        self.granted = granted;
        Ok(())
    }

    /// The link ended: nothing may be sent until it is resumed.
    pub const fn hold(&mut self) {
        self.granted = self.sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(stderr: bool) -> Stream {
        if stderr { Stream::Stderr } else { Stream::Stdout }
    }

    #[test]
    fn what_overflows_or_contradicts_is_a_violation() {
        let kept = Positions { stdout: 10, stderr: 5 };
        for (of, position, offset, len) in [
            (Stream::Stdout, u64::MAX, 10, 1),
            (Stream::Stdout, 15, u64::MAX, 1),
            (Stream::Stdout, 15, 11, 1),
            (Stream::Stdout, 15, 9, 1),
            (Stream::Stderr, 15, 10, 1),
            (Stream::Stdout, 15, 10, CREDIT_BYTES_START + 1),
            (Stream::Stdout, 14, 10, 2),
        ] {
            let mut receiver = Receiver::new(kept);
            assert_eq!(
                receiver.accept(of, position, offset, len),
                Accepted::Violation,
                "{position} {offset} {len}"
            );
            assert_eq!(receiver.next(), kept);
        }
        let mut receiver = Receiver::new(kept);
        assert_eq!(receiver.accept(Stream::Stdout, 16, 11, 1), Accepted::Gap { from: 15 });
        assert_eq!(receiver.accept(Stream::Stdout, 15, 10, CREDIT_BYTES_START), Accepted::Take { skip: 0 });
    }

    #[test]
    fn the_largest_numbers_overflow_nothing() {
        let mut receiver = Receiver::new(Positions { stdout: u64::MAX, stderr: u64::MAX });
        receiver.resume();
        receiver.synced(u64::MAX);
        assert_eq!(receiver.written(u64::MAX), None);
        assert_eq!(receiver.granted(), u64::MAX);
        let mut fresh = Receiver::new(Positions::default());
        assert!(fresh.skip_to(Positions { stdout: u64::MAX, stderr: 1 }));
        assert!(!fresh.skip_to(Positions::default()) && fresh.durable() == 0);
    }

    #[test]
    fn a_sender_held_sends_nothing_until_it_is_resumed() {
        let mut sender = Sender::new();
        sender.wrote(100);
        assert_eq!(sender.sendable(40), Some((0, 40)));
        sender.sent_bytes(40);
        sender.hold();
        assert_eq!(sender.sendable(40), None);
        assert_eq!(sender.resume(10, 60), Ok(()));
        assert_eq!(sender.sendable(1_000), Some((10, 50)));
        assert_eq!(sender.credit(60, 30), Some(30));
        assert_eq!((sender.resume(29, 99), sender.kept()), (Err(30), 70));
    }

    proptest! {
        /// Any order of honest pieces, with repeats and gaps, leaves a prefix of the truth.
        #[test]
        fn pieces_in_any_order_leave_a_prefix_without_a_gap(
            lens in prop::collection::vec((1_u64..50, any::<bool>()), 1..30),
            picks in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..50), 0..120),
        ) {
            let mut truth = Vec::new();
            let mut at = Positions::default();
            for (len, stderr) in lens {
                truth.push((at, stream(stderr), len));
                at.advance(stream(stderr), len);
            }
            let mut receiver = Receiver::new(Positions::default());
            let mut taken = 0;
            for (pick, cut) in picks {
                let (from, of, len) = truth[pick.index(truth.len())];
                let cut = cut.min(len - 1);
                let (position, offset, len) = (from.total() + cut, from.of(of) + cut, len - cut);
                match receiver.accept(of, position, offset, len) {
                    Accepted::Take { skip } => {
                        prop_assert_eq!(position + skip, taken);
                        taken = position + len;
                    }
                    Accepted::Repeat => prop_assert!(position + len <= taken),
                    Accepted::Gap { from } => prop_assert!(from == taken && position > taken),
                    Accepted::Violation => prop_assert!(false, "an honest piece"),
                }
                prop_assert_eq!(receiver.next().total(), taken);
            }
        }

        /// Whatever comes: nothing panics, nothing beyond the credit is taken, nothing goes back.
        #[test]
        fn no_frame_goes_beyond_the_credit_or_back(
            frames in prop::collection::vec((any::<bool>(), 0_u64..600_000, 0_u64..600_000, 0_u64..300_000, any::<bool>()), 0..60),
        ) {
            let mut receiver = Receiver::new(Positions::default());
            for (stderr, position, offset, len, wild) in frames {
                let shift = if wild { u64::MAX - 400_000 } else { 0 };
                let before = receiver.next();
                receiver.accept(stream(stderr), position.saturating_add(shift), offset, len);
                prop_assert!(receiver.next().covers(before) && receiver.next().total() <= receiver.granted());
                let _ = receiver.written(receiver.next().total());
                receiver.synced(position);
                prop_assert!(receiver.durable() <= receiver.next().total());
            }
        }
    }
}
