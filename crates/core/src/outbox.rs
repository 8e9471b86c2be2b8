//! What waits for one link, in three lanes: control before interactive before bulk. A machine.
//!
//! Full is answered, never waited for: the caller of [`Outbox::push`] gets the message back with
//! the lane, and its rule says what follows (`limits`).

use std::collections::VecDeque;

use crate::limits::{OUTBOX_BULK_MAX, OUTBOX_CONTROL_MAX, OUTBOX_INTERACTIVE_MAX};

/// How urgent a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// What keeps the link and its runs in order: welcome, acknowledgements, credit, cancel.
    Control,
    /// What somebody waits for: commands, standard input.
    Interactive,
    /// What can wait.
    Bulk,
}

/// A lane is full; the message comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T> {
    /// Which lane.
    pub lane: Lane,
    /// The message.
    pub message: T,
}

/// The machine.
#[derive(Debug)]
pub struct Outbox<T> {
    control: VecDeque<T>,
    interactive: VecDeque<T>,
    bulk: VecDeque<T>,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self { control: VecDeque::new(), interactive: VecDeque::new(), bulk: VecDeque::new() }
    }
}

impl<T> Outbox<T> {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a lane, or gives the message back.
    pub fn push(&mut self, lane: Lane, message: T) -> Result<(), Full<T>> {
        let (queue, max) = match lane {
            Lane::Control => (&mut self.control, OUTBOX_CONTROL_MAX),
            Lane::Interactive => (&mut self.interactive, OUTBOX_INTERACTIVE_MAX),
            Lane::Bulk => (&mut self.bulk, OUTBOX_BULK_MAX),
        };
        if queue.len() >= max {
            return Err(Full { lane, message });
        }
        queue.push_back(message);
        Ok(())
    }

    /// Adds to the interactive lane whatever waits there: for messages that are bounded elsewhere, and whose
    /// sender has asked [`Self::has_room`] before.
    pub fn push_admitted(&mut self, message: T) {
        self.interactive.push_back(message);
    }

    /// Whether the interactive lane takes another message.
    pub fn has_room(&self) -> bool {
        self.interactive.len() < OUTBOX_INTERACTIVE_MAX
    }

    /// The most urgent message.
    pub fn pop(&mut self) -> Option<T> {
        self.control.pop_front().or_else(|| self.interactive.pop_front()).or_else(|| self.bulk.pop_front())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.control.len() + self.interactive.len() + self.bulk.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: [(Lane, usize); 3] = [
        (Lane::Control, OUTBOX_CONTROL_MAX),
        (Lane::Interactive, OUTBOX_INTERACTIVE_MAX),
        (Lane::Bulk, OUTBOX_BULK_MAX),
    ];

    #[test]
    fn control_goes_before_interactive_before_bulk_and_each_keeps_its_order() {
        let mut outbox = Outbox::new();
        for (lane, message) in [
            (Lane::Bulk, 5),
            (Lane::Interactive, 3),
            (Lane::Control, 1),
            (Lane::Bulk, 6),
            (Lane::Control, 2),
            (Lane::Interactive, 4),
        ] {
            outbox.push(lane, message).expect("room");
        }
        assert_eq!(std::iter::from_fn(|| outbox.pop()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_lane_gives_the_message_back_and_stops_no_other() {
        let mut outbox = Outbox::new();
        for (lane, max) in LANES {
            for n in 0..max {
                outbox.push(lane, n).expect("below the bound");
            }
            assert_eq!(outbox.push(lane, usize::MAX), Err(Full { lane, message: usize::MAX }));
        }
        assert_eq!(outbox.len(), LANES.iter().map(|(_, max)| max).sum::<usize>());
    }

    #[test]
    fn what_was_admitted_is_queued_behind_a_full_lane() {
        let mut outbox = Outbox::new();
        for number in 0..OUTBOX_INTERACTIVE_MAX {
            assert!(outbox.has_room());
            outbox.push(Lane::Interactive, number).expect("room");
        }
        assert!(!outbox.has_room() && outbox.push(Lane::Interactive, 0).is_err());
        outbox.push_admitted(usize::MAX);
        let all: Vec<usize> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!((all.len(), all.last()), (OUTBOX_INTERACTIVE_MAX + 1, Some(&usize::MAX)));
        assert!(outbox.has_room());
    }
}
