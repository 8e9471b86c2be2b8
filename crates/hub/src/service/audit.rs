//! The audit log: read in pages. Rows are written by the use cases they are about.

mod rejected;

use std::net::IpAddr;
use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::Seq;
use cortex_core::limits::PAGE_ITEMS_MAX;
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};
use cortex_store::{AuditFilter, LoggedAudit, Tx};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::service::network::network_name;
use crate::service::{Caller, Context, targets};
use rejected::{Key, Kind, WINDOW, Windows};

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

    /// One page, oldest first, and where the next one begins. A caller that sees some nodes only gets
    /// their rows, which may be fewer than `limit` on a page that is not the last, and of the newest
    /// rows those among the newest thousand.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: AuditFilter,
        limit: usize,
    ) -> Result<(Vec<LoggedAudit>, Option<Seq>), Refusal> {
        caller.anywhere(Right::AuditRead)?;
        let limit = limit.min(PAGE_ITEMS_MAX);
        let sees_all = caller.everywhere(Right::AuditRead);
        let (size, newest) = (if sees_all { limit } else { PAGE_ITEMS_MAX }, filter.newest);
        let mut rows = self.context.view(move |view| view.audit(&filter, size)).await?;
        let mut next = rows.last().filter(|_| rows.len() == size).map(|last| last.seq);
        let directory = &self.context.directory;
        rows.retain(|logged| {
            let node = logged.row.node;
            sees_all || node.is_some_and(|node| targets::has(directory, caller, Right::AuditRead, node))
        });
        if newest && rows.len() > limit {
            rows.drain(..rows.len() - limit);
        } else if rows.len() > limit {
            rows.truncate(limit);
            next = rows.last().map(|last| last.seq);
        }
        Ok((rows, next))
    }

    /// Refuses who may not have all of it: an export that leaves rows out cannot be verified.
    pub fn may_export(caller: &Caller) -> Result<(), Refusal> {
        caller.anywhere(Right::AuditRead)?;
        if caller.everywhere(Right::AuditRead) {
            return Ok(());
        }
        let message = "An export holds the rows of all nodes: it needs audit:read on all nodes.";
        Err(Refusal::new(Code::Forbidden, message).hint(
            "Read the rows of your nodes with `cortex audit ls`, or ask an administrator for the export.",
        ))
    }

    /// Keeps that somebody known was refused for want of a right. To be run as [`Self::rejected`];
    /// the receiver hears when the row was written, or could not be.
    pub fn refused(
        &self,
        caller: &Caller,
        refusal: &Refusal,
        asked: String,
        stop: CancellationToken,
    ) -> Option<(impl Future<Output = ()> + Send + use<>, oneshot::Receiver<()>)> {
        let key = Key { actor: caller.actor(), code: refusal.code, asked: Some(asked.clone()) };
        let (told, hear) = oneshot::channel();
        Some((self.window(Kind::Known, key, asked, stop, told)?, hear))
    }

    /// Keeps that credentials were rejected, by the network from which they came: what is returned is to be run to its end, unless
    /// another that runs counts this one in. It ends within a minute, or soon after `stop`.
    pub fn rejected(
        &self,
        rejected: Rejected,
        stop: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let Rejected { source, refusal, mut asked } = rejected;
        let source = source.map(|source| source.to_canonical());
        if let Some(IpAddr::V6(address)) = source {
            asked.push_str(&format!(", from {address}"));
        }
        let network = source.map_or_else(|| "?".to_owned(), network_name);
        let key = Key { actor: format!("http:{network}"), code: refusal.code, asked: None };
        self.window(Kind::Stranger, key, asked, stop, oneshot::channel().0)
    }

    /// One row now, and one for all that is counted in until the window ends. A store that fails
    /// here is logged, and the refusals stand.
    fn window(
        &self,
        kind: Kind,
        key: Key,
        asked: String,
        stop: CancellationToken,
        told: oneshot::Sender<()>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let key = self.windows.begin(kind, key)?;
        let audit = self.clone();
        Some(async move {
            audit.denied(&key, asked).await;
            let _nobody_waits = told.send(());
            let _stopped = tokio::time::timeout(WINDOW, stop.cancelled()).await;
            let more = audit.windows.end(kind, &key);
            if more > 0 {
                let of = key.asked.as_ref().map_or_else(String::new, |asked| format!("{asked}, "));
                audit.denied(&key, format!("{of}{more} more within {} s", WINDOW.as_secs())).await;
            }
        })
    }

    async fn denied(&self, key: &Key, detail: String) {
        let row =
            AuditRow::new(self.context.clock.wall(), key.actor.as_str(), "http.request", Outcome::Denied);
        let reason = Some(key.code.as_str().to_owned());
        let row = AuditRow { reason, detail: Some(detail), ..row };
        let work = move |tx: &mut dyn Tx| Ok(tx.append_audit(&row).map(|_| ())?);
        if let Err(error) = self.context.commit(work, |()| ()).await {
            tracing::warn!(code = %error.code, "a refusal could not be kept in the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use cortex_store::memory::MemoryStore;

    use super::*;
    use crate::bus::Bus;
    use crate::clock::Clock;
    use crate::directory::Directory;

    #[tokio::test]
    async fn whoever_tries_tokens_from_all_addresses_of_an_ipv6_network_has_one_row_and_a_number() {
        let (clock, store) = (Clock::default(), Arc::new(MemoryStore::new(None)));
        let audit =
            Audit::new(Context { store, clock, directory: Directory::default(), bus: Bus::new(clock) });
        let stop = CancellationToken::new();
        stop.cancel();
        let rejected = |source: &str| {
            let refusal = Refusal::new(Code::Unauthenticated, "no");
            let source = Some(source.parse().expect("an address"));
            audit.rejected(Rejected { source, refusal, asked: "GET /".to_owned() }, stop.clone())
        };
        let first = rejected("2001:db8::1").expect("a window begins");
        for n in 2..100 {
            assert!(rejected(&format!("2001:db8::{n}")).is_none(), "{n}");
        }
        let elsewhere = rejected("2001:db8:0:1::1").expect("another network");
        first.await;
        elsewhere.await;
        let rows = audit.context.view(|view| view.audit(&AuditFilter::default(), 10)).await.expect("rows");
        let told: Vec<_> = rows
            .iter()
            .map(|logged| (logged.row.actor.as_str(), logged.row.detail.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            told,
            [
                ("http:2001:db8::/64", "GET /, from 2001:db8::1"),
                ("http:2001:db8::/64", "98 more within 60 s"),
                ("http:2001:db8:0:1::/64", "GET /, from 2001:db8:0:1::1"),
            ]
        );
    }
}
