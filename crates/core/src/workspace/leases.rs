//! When locks of workspaces end: a machine of the hub's memory, on its monotonic clock, so that no jump
//! of a wall clock ends one early or late. What it tells is an end to be stored, with
//! [`super::Command::Expire`]; the store may know of a newer lock.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Code, Refusal};
use crate::id::{LockEpoch, WorkspaceId};
use crate::limits::RESTART_GRACE_MS;
use crate::time::Timestamp;

/// An end that could not be stored is told again after that time.
const AGAIN_MS: u64 = 1_000;

/// The locks of all workspaces of a hub: at most one of each.
#[derive(Clone, Debug, Default)]
pub struct LockLeases {
    held: BTreeMap<WorkspaceId, Held>,
    due: BTreeSet<(Timestamp, WorkspaceId)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: LockEpoch,
    ttl_ms: u64,
    due: Timestamp,
    /// Its end was told, and is on its way to the store.
    is_over: bool,
}

impl LockLeases {
    /// A lock was given. One that is older than what is known is left out.
    pub fn given(&mut self, workspace: WorkspaceId, epoch: LockEpoch, ttl_ms: u64, now: Timestamp) {
        self.put(workspace, epoch, ttl_ms, now.plus_ms(ttl_ms));
    }

    /// A lock was found in the store when the hub began: it has its whole time again, and no less than a
    /// holder needs to come back.
    pub fn found(&mut self, workspace: WorkspaceId, epoch: LockEpoch, ttl_ms: u64, now: Timestamp) {
        self.put(workspace, epoch, ttl_ms, now.plus_ms(ttl_ms.max(RESTART_GRACE_MS)));
    }

    /// The holder is still at it, for its whole time from `now`, and never for less than it had. A lock
    /// whose end was told is not extended: others may have it already.
    ///
    /// # Errors
    /// `stale_epoch`.
    pub fn extend(
        &mut self,
        workspace: WorkspaceId,
        epoch: LockEpoch,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let held = self.held.get_mut(&workspace).filter(|held| held.epoch == epoch && !held.is_over);
        let held = held.ok_or_else(|| {
            Refusal::new(Code::StaleEpoch, format!("The lock {epoch} of workspace {workspace} has ended."))
                .hint(
                    "Read what is there, take the lock again with `cortex workspace lock`, and decide anew.",
                )
        })?;
        self.due.remove(&(held.due, workspace));
        held.due = held.due.max(now.plus_ms(held.ttl_ms));
        self.due.insert((held.due, workspace));
        Ok(())
    }

    /// The lock has ended in the store.
    pub fn ended(&mut self, workspace: WorkspaceId, epoch: LockEpoch) {
        if let Some(held) = self.held.get(&workspace).copied().filter(|held| held.epoch == epoch) {
            self.held.remove(&workspace);
            self.due.remove(&(held.due, workspace));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// When to ask for ended ones.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        self.due.first().map(|(due, _)| (*due, "the lock of a workspace ends"))
    }

    /// A lock that has ended. It is told again until [`Self::ended`] or [`Self::given`] is called.
    pub fn poll_ended(&mut self, now: Timestamp) -> Option<(WorkspaceId, LockEpoch)> {
        let (due, workspace) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, workspace));
        let held = self.held.get_mut(&workspace)?;
        held.is_over = true;
        held.due = now.plus_ms(AGAIN_MS);
        self.due.insert((held.due, workspace));
        Some((workspace, held.epoch))
    }

    fn put(&mut self, workspace: WorkspaceId, epoch: LockEpoch, ttl_ms: u64, due: Timestamp) {
        if let Some(before) = self.held.get(&workspace).copied() {
            if before.epoch > epoch {
                return;
            }
            self.due.remove(&(before.due, workspace));
        }
        self.held.insert(workspace, Held { epoch, ttl_ms, due, is_over: false });
        self.due.insert((due, workspace));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workspace(number: u8) -> WorkspaceId {
        WorkspaceId::mint(1, &[number; 10])
    }

    fn ended(leases: &mut LockLeases, now: u64) -> Vec<(WorkspaceId, LockEpoch)> {
        std::iter::from_fn(|| leases.poll_ended(Timestamp(now))).collect()
    }

    #[test]
    fn a_lock_that_nobody_extends_ends_at_its_end_and_is_told_until_it_is_stored() {
        let mut leases = LockLeases::default();
        leases.given(workspace(1), LockEpoch(4), 100, Timestamp(0));
        assert_eq!(leases.poll_timeout().map(|(at, _)| at), Some(Timestamp(100)));
        assert_eq!(ended(&mut leases, 99), []);
        assert_eq!(ended(&mut leases, 100), [(workspace(1), LockEpoch(4))]);
        assert_eq!(ended(&mut leases, 101), [], "not at once again");
        assert_eq!(ended(&mut leases, 100 + AGAIN_MS), [(workspace(1), LockEpoch(4))]);
        leases.ended(workspace(1), LockEpoch(4));
        assert!(leases.is_empty() && leases.poll_timeout().is_none());
    }

    #[test]
    fn a_lock_whose_end_was_told_is_not_extended_and_nor_is_an_older_one() {
        let mut leases = LockLeases::default();
        leases.given(workspace(1), LockEpoch(2), 100, Timestamp(0));
        for (number, epoch) in [(1, 1), (1, 3), (2, 2)] {
            let refusal =
                leases.extend(workspace(number), LockEpoch(epoch), Timestamp(1)).expect_err("no such lock");
            assert_eq!(refusal.code, Code::StaleEpoch);
        }
        leases.extend(workspace(1), LockEpoch(2), Timestamp(100)).expect("nobody has looked yet");
        assert_eq!(ended(&mut leases, 199), []);
        assert_eq!(ended(&mut leases, 200).len(), 1);
        let refusal = leases.extend(workspace(1), LockEpoch(2), Timestamp(200)).expect_err("over");
        assert_eq!(refusal.code, Code::StaleEpoch);
    }

    #[test]
    fn the_end_of_an_older_lock_ends_no_newer_one_and_an_older_one_replaces_none() {
        let mut leases = LockLeases::default();
        leases.given(workspace(1), LockEpoch(2), 100, Timestamp(0));
        leases.ended(workspace(1), LockEpoch(1));
        leases.given(workspace(1), LockEpoch(1), 5, Timestamp(0));
        assert_eq!((leases.len(), ended(&mut leases, 50)), (1, vec![]));
        assert_eq!(ended(&mut leases, 100), [(workspace(1), LockEpoch(2))]);
    }

    #[test]
    fn a_lock_that_was_found_at_a_start_holds_for_as_long_as_its_holder_needs_to_come_back() {
        let mut leases = LockLeases::default();
        leases.found(workspace(1), LockEpoch(1), 1_000, Timestamp(0));
        leases.found(workspace(2), LockEpoch(1), RESTART_GRACE_MS + 5, Timestamp(0));
        assert_eq!(ended(&mut leases, RESTART_GRACE_MS - 1), []);
        assert_eq!(ended(&mut leases, RESTART_GRACE_MS), [(workspace(1), LockEpoch(1))]);
        assert_eq!(ended(&mut leases, RESTART_GRACE_MS + 5), [(workspace(2), LockEpoch(1))]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The clock is asked at each millisecond that the machine names and at none else, as a hub does.
        #[test]
        fn a_lock_ends_exactly_its_time_after_its_last_extension(
            ttl_ms in 1_u64..5_000,
            waits in prop::collection::vec(0_u64..6_000, 0..20),
        ) {
            let mut leases = LockLeases::default();
            leases.given(workspace(1), LockEpoch(1), ttl_ms, Timestamp(7));
            let (mut now, mut end) = (7, 7 + ttl_ms);
            for wait in waits {
                now += wait;
                if now >= end {
                    break;
                }
                prop_assert_eq!(ended(&mut leases, now), []);
                prop_assert!(leases.extend(workspace(1), LockEpoch(1), Timestamp(now)).is_ok());
                end = now + ttl_ms;
            }
            prop_assert_eq!(leases.poll_timeout().map(|(at, _)| at), Some(Timestamp(end)));
            prop_assert_eq!(ended(&mut leases, end - 1), []);
            prop_assert_eq!(ended(&mut leases, end), [(workspace(1), LockEpoch(1))]);
        }
    }
}
