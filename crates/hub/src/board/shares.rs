//! How much of the store's time one party's submissions may have at once. A flood of one party waits for
//! its own share here, and stands in nobody's way: whoever else submits finds at most so many tasks of it
//! before its own. What waits too long is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::limits::{STORE_MS_MAX, SUBMITTING_TASKS_MAX};
use cortex_core::pool::Owner;
use cortex_core::{Code, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Shares {
    parties: Arc<Mutex<BTreeMap<Owner, Party>>>,
}

struct Party {
    room: Arc<Semaphore>,
    /// Submissions that have a share or wait for one.
    users: usize,
}

/// A share, until it is dropped.
pub struct Share {
    _permit: OwnedSemaphorePermit,
    _entry: Entry,
}

/// A party is remembered for as long as it submits.
struct Entry {
    shares: Shares,
    party: Owner,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut parties = self.shares.parties();
        let Some(party) = parties.get_mut(&self.party) else { return };
        party.users -= 1;
        if party.users == 0 {
            parties.remove(&self.party);
        }
    }
}

impl Shares {
    /// A share for so many tasks, in the order of asking.
    ///
    /// # Errors
    /// `rate_limited` when there is none within the store's own deadline.
    pub async fn take(&self, party: Owner, tasks: usize) -> Result<Share, Refusal> {
        let (room, entry) = self.enter(party);
        let count = u32::try_from(tasks.min(SUBMITTING_TASKS_MAX)).unwrap_or(1);
        let wait = Duration::from_millis(STORE_MS_MAX);
        match tokio::time::timeout(wait, room.acquire_many_owned(count)).await {
            Ok(Ok(permit)) => Ok(Share { _permit: permit, _entry: entry }),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    fn enter(&self, party: Owner) -> (Arc<Semaphore>, Entry) {
        let mut parties = self.parties();
        let new = || Party { room: Arc::new(Semaphore::new(SUBMITTING_TASKS_MAX)), users: 0 };
        let known = parties.entry(party).or_insert_with(new);
        known.users += 1;
        (Arc::clone(&known.room), Entry { shares: self.clone(), party })
    }

    fn parties(&self) -> MutexGuard<'_, BTreeMap<Owner, Party>> {
        self.parties.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy() -> Refusal {
    let message = "You submit more tasks at once than the hub takes in.";
    Refusal::new(Code::RateLimited, message)
        .hint("Submit fewer at once, each after the answer to the one before.")
        .detail("retry_after_s", "1")
}

#[cfg(test)]
mod tests {
    use cortex_core::id::UserId;

    use super::*;

    fn person(number: u8) -> Owner {
        Owner { token: None, user: Some(UserId::mint(1, &[number; 10])) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_for_its_own_share_and_for_nobody_elses() {
        let shares = Shares::default();
        let first = shares.take(person(1), SUBMITTING_TASKS_MAX).await.expect("all of it");
        let _other = shares.take(person(2), usize::MAX).await.expect("another party's");
        let (refusal, _) = tokio::join!(shares.take(person(1), 1), shares.take(person(2), 1));
        assert_eq!(refusal.err().map(|refusal| refusal.code), Some(Code::RateLimited));
        let waits = shares.take(person(1), 1);
        let frees = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(first);
        };
        let (given, ()) = tokio::join!(waits, frees);
        given.expect("there is room again");
    }

    #[tokio::test]
    async fn nobody_is_remembered_who_submits_nothing() {
        let shares = Shares::default();
        let share = shares.take(person(1), 1).await.expect("room");
        // One that was given up while it waited.
        drop(
            futures::future::select(Box::pin(shares.take(person(1), usize::MAX)), std::future::ready(()))
                .await,
        );
        assert_eq!(shares.parties().len(), 1);
        drop(share);
        assert!(shares.parties().is_empty());
    }
}
