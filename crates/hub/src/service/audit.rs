//! The audit log: read in pages. Rows are written by the use cases they are about.

mod rejected;

use std::net::IpAddr;
use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::limits::PAGE_ITEMS_MAX;
use cortex_store::{AuditFilter, LoggedAudit, Tx};
use tokio_util::sync::CancellationToken;

use crate::service::{Caller, Context};
use rejected::{WINDOW, Windows};

/// The use cases of the audit log. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    context: Context,
    windows: Arc<Windows>,
}

/// A request whose credentials were rejected.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Where it came from.
    pub source: Option<IpAddr>,
    /// Why.
    pub refusal: Refusal,
    /// What it asked for. Never its credentials.
    pub asked: String,
}

impl Audit {
    /// The use cases over `context`.
    pub fn new(context: Context) -> Self {
        Self { context, windows: Arc::default() }
    }

    /// One page, oldest first.
    pub async fn list(&self, filter: AuditFilter, limit: usize) -> Result<Vec<LoggedAudit>, Refusal> {
        let limit = limit.min(PAGE_ITEMS_MAX);
        self.context.view(move |view| view.audit(&filter, limit)).await
    }

    /// Keeps that somebody known was refused for want of a right. A store that fails here is
    /// logged, and the refusal stands.
    pub async fn refused(&self, caller: &Caller, refusal: &Refusal, asked: &str) {
        self.denied(caller.actor(), refusal, asked.to_owned()).await;
    }

    /// Keeps that credentials were rejected: what is returned is to be run to its end, unless
    /// another that runs counts this one in. It ends within a minute, or soon after `stop`.
    pub fn rejected(
        &self,
        rejected: Rejected,
        stop: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let Rejected { source, refusal, asked } = rejected;
        let key = self.windows.begin(source, refusal.code)?;
        let audit = self.clone();
        Some(async move {
            let actor = key.0.map_or_else(|| "http:?".to_owned(), |source| format!("http:{source}"));
            audit.denied(actor.clone(), &refusal, asked).await;
            let _stopped = tokio::time::timeout(WINDOW, stop.cancelled()).await;
            let more = audit.windows.end(key);
            if more > 0 {
                let detail = format!("{more} more within {} s", WINDOW.as_secs());
                audit.denied(actor, &refusal, detail).await;
            }
        })
    }

    async fn denied(&self, actor: String, refusal: &Refusal, detail: String) {
        let row = AuditRow::new(self.context.clock.wall(), actor, "http.request", Outcome::Denied);
        let reason = Some(refusal.code.as_str().to_owned());
        let row = AuditRow { reason, detail: Some(detail), ..row };
        let work = move |tx: &mut dyn Tx| Ok(tx.append_audit(&row).map(|_| ())?);
        if let Err(error) = self.context.commit(work, |()| ()).await {
            tracing::warn!(code = %error.code, "a refusal could not be kept in the audit log");
        }
    }
}
