//! Ids that one side wants and the other has not looked at yet: bounded by what a receiver may have open.

use std::sync::{Mutex, PoisonError};

use cortex_core::files::content::ContentId;
use cortex_core::limits::WANTS_OPEN_MAX;
use cortex_core::{Code, Refusal};
use tokio::sync::Notify;

/// Such ids, in order.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    ids: Mutex<Vec<ContentId>>,
    came: Notify,
}

impl Asked {
    /// Adds more.
    ///
    /// # Errors
    /// `too_large` when more would wait than may be open.
    pub(crate) fn push(&self, more: &[ContentId]) -> Result<(), Refusal> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() + more.len() > WANTS_OPEN_MAX {
            let message = format!("More than {WANTS_OPEN_MAX} pieces were asked for at once.");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        ids.extend_from_slice(more);
        drop(ids);
        self.came.notify_one();
        Ok(())
    }

    /// Takes all that wait; maybe none.
    pub(crate) fn take(&self) -> Vec<ContentId> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same once there is something.
    pub(crate) async fn next(&self) -> Vec<ContentId> {
        loop {
            let ids = self.take();
            if !ids.is_empty() {
                return ids;
            }
            self.came.notified().await;
        }
    }
}
