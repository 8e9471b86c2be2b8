//! The lock of a workspace: one holder, a number that only grows, and an end.

use super::super::Holding;
use super::Unlocked;
use super::draft::Draft;
use crate::error::{Code, Refusal};
use crate::event::EventKind;
use crate::id::LockEpoch;
use crate::limits::{WORKSPACE_LOCK_MS_MAX, WORKSPACE_LOCK_MS_MIN};

impl Draft<'_> {
    /// Also whoever has it already is refused: a second lock would end the first behind the back of what
    /// runs under it.
    pub(super) fn lock(&mut self, holder: String, ttl_ms: u64) -> Result<(), Refusal> {
        if !(WORKSPACE_LOCK_MS_MIN..=WORKSPACE_LOCK_MS_MAX).contains(&ttl_ms) {
            let message =
                format!("A lock holds for {WORKSPACE_LOCK_MS_MIN} to {WORKSPACE_LOCK_MS_MAX} milliseconds.");
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Choose a shorter time and extend the lock while you work."));
        }
        self.ws.check_lock(None)?;
        self.ws.epoch = self.ws.epoch.next();
        let until = self.now.plus_ms(ttl_ms);
        self.tell(EventKind::WorkspaceLocked, Some(&holder), Some(self.ws.epoch.to_string()));
        self.ws.lock = Some(Holding { holder, ttl_ms, until });
        Ok(())
    }

    pub(super) fn extend(&mut self, epoch: LockEpoch) -> Result<(), Refusal> {
        self.ws.check_lock(Some(epoch))?;
        if let Some(holding) = &mut self.ws.lock {
            holding.until = holding.until.max(self.now.plus_ms(holding.ttl_ms));
        }
        Ok(())
    }

    pub(super) fn unlock(&mut self, epoch: LockEpoch) -> Result<(), Refusal> {
        self.ws.check_lock(Some(epoch))?;
        let holder = self.ws.lock.as_ref().map(|holding| holding.holder.clone());
        self.end_lock(Unlocked::GivenBack, holder.as_deref());
        Ok(())
    }

    pub(super) fn expire(&mut self, epoch: LockEpoch) -> Result<(), Refusal> {
        self.ws.check_lock(Some(epoch))?;
        self.end_lock(Unlocked::Expired, None);
        Ok(())
    }

    pub(super) fn break_lock(&mut self, by: &str) -> Result<(), Refusal> {
        if self.ws.lock.is_none() {
            return Err(Refusal::new(Code::Conflict, format!("Workspace {} is not locked.", self.ws.name)));
        }
        self.end_lock(Unlocked::Broken, Some(by));
        Ok(())
    }

    /// What members changed under the lock was planned as if it were not theirs to change: it is planned
    /// anew.
    pub(super) fn end_lock(&mut self, how: Unlocked, by: Option<&str>) {
        let detail = format!("{} {}", self.ws.epoch, how.as_str());
        self.ws.lock = None;
        self.tell(EventKind::WorkspaceUnlocked, by, Some(detail));
        self.change_all(|member| member.settled = None);
    }
}
