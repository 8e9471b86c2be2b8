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
