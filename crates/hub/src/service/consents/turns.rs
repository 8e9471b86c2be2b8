//! One approval of a question at a time: two would bring the same run on its way, and the one that
//! loses would take the winner's away. Who comes second is told so; the store decides between the rest.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::id::ConsentId;
use cortex_core::{Code, Refusal};

type Taken = Mutex<BTreeSet<ConsentId>>;

/// Questions that somebody approves at this moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Taken>);

/// The turn of one approval, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    taken: Arc<Taken>,
    id: ConsentId,
}

impl Turns {
    /// # Errors
    /// `conflict` when somebody else has it.
    pub(super) fn take(&self, id: ConsentId) -> Result<Turn, Refusal> {
        if lock(&self.0).insert(id) {
            return Ok(Turn { taken: Arc::clone(&self.0), id });
        }
        let message = format!("Somebody else approves question {id} at this moment.");
        Err(Refusal::new(Code::Conflict, message)
            .hint(format!("Look at what came of it with `cortex consent show {id}`.")))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.taken).remove(&self.id);
    }
}

fn lock(taken: &Taken) -> MutexGuard<'_, BTreeSet<ConsentId>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_taken_once_and_free_again_when_it_is_over() {
        let (turns, id) = (Turns::default(), ConsentId::mint(1, &[1; 10]));
        let turn = turns.take(id).expect("it is free");
        assert_eq!(turns.take(id).expect_err("it is taken").code, Code::Conflict);
        assert!(turns.take(ConsentId::mint(1, &[2; 10])).is_ok(), "another question");
        drop(turn);
        assert!(turns.take(id).is_ok());
    }
}
