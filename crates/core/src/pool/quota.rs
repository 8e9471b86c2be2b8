//! How many tasks there may be that have not ended: of one party, and in all. What is full refuses new
//! ones, and holds up nobody else: what waits goes on, and an earlier submission is still found by its key.

use crate::error::{Code, Refusal};
use crate::limits::{TASKS_OPEN_MAX, TASKS_OPEN_PER_OWNER_MAX};

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Open tasks of one party.
    pub own: u64,
    /// Open tasks of all.
    pub all: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { own: TASKS_OPEN_PER_OWNER_MAX, all: TASKS_OPEN_MAX }
    }
}

/// How many more tasks a party, and all, may have open.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    quota: Quota,
    own: u64,
    all: u64,
}

impl Quota {
    /// The room that is left beside so many open tasks of the party, and of all.
    pub const fn beside(self, own: u64, all: u64) -> Room {
        Room { quota: self, own: self.own.saturating_sub(own), all: self.all.saturating_sub(all) }
    }
}

impl Room {
    /// Whether one more may be there.
    ///
    /// # Errors
    /// `quota`.
    pub fn check(&self) -> Result<(), Refusal> {
        let (whose, max) = match (self.own, self.all) {
            (0, _) => ("You have", self.quota.own),
            (_, 0) => ("The hub has", self.quota.all),
            _ => return Ok(()),
        };
        let message = format!("{whose} {max} open tasks, which is the most there may be.");
        Err(Refusal::new(Code::Quota, message)
            .hint("Wait for some to be done, or cancel some with `cortex task cancel`.")
            .detail("max", max.to_string()))
    }

    /// One more is there.
    pub const fn took(&mut self) {
        (self.own, self.all) = (self.own.saturating_sub(1), self.all.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_fits_and_the_next_is_told_whose_bound_it_met() {
        let quota = Quota { own: 2, all: 5 };
        let mut room = quota.beside(1, 1);
        room.check().expect("one more");
        room.took();
        let refusal = room.check().expect_err("its own bound");
        assert_eq!((refusal.code, refusal.details), (Code::Quota, vec![("max", "2".to_owned())]));
        let refusal = quota.beside(0, 5).check().expect_err("that of all");
        assert!(refusal.message.starts_with("The hub has 5"), "{}", refusal.message);
        // A bound that was lowered below what is there.
        assert!(quota.beside(9, 9).check().is_err());
    }
}
