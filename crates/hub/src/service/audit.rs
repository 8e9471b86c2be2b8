//! The audit log: read in pages. Rows are written by the use cases they are about.

use cortex_core::Refusal;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::limits::PAGE_ITEMS_MAX;
use cortex_store::{AuditFilter, LoggedAudit, Tx};

use crate::service::{Caller, Context};

/// The use cases of the audit log. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    context: Context,
}

impl Audit {
    /// The use cases over `context`.
    pub const fn new(context: Context) -> Self {
        Self { context }
    }

    /// One page, oldest first.
    pub async fn list(&self, filter: AuditFilter, limit: usize) -> Result<Vec<LoggedAudit>, Refusal> {
        let limit = limit.min(PAGE_ITEMS_MAX);
        self.context.view(move |view| view.audit(&filter, limit)).await
    }

    /// Keeps that somebody known was refused for want of a right. A store that fails here is
    /// logged, and the refusal stands.
    pub async fn refused(&self, caller: &Caller, refusal: &Refusal, asked: &str) {
        let row = AuditRow::new(self.context.clock.wall(), caller.actor(), "http.request", Outcome::Denied);
        let reason = Some(refusal.code.as_str().to_owned());
        let row = AuditRow { reason, detail: Some(asked.to_owned()), ..row };
        let work = move |tx: &mut dyn Tx| Ok(tx.append_audit(&row).map(|_| ())?);
        if let Err(error) = self.context.commit(work, |()| ()).await {
            tracing::warn!(code = %error.code, "a refusal could not be kept in the audit log");
        }
    }
}
