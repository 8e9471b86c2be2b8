//! The audit log: read in pages. Rows are written by the use cases they are about.

mod anchor;
mod rejected;
pub mod verify;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{Generation, Seq};
use cortex_core::limits::PAGE_ITEMS_MAX;
use cortex_core::node::AuditHead;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{AuditFilter, LoggedAudit, Read, StoreError, Tx};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::service::network::network_name;
use crate::service::{Caller, Context, targets};
use anchor::{Anchor, Anchors, BEHIND_MAX};
use rejected::{Key, Kind, WINDOW, Windows};
use verify::{Broken, Verdict, Verification, Witness};

/// The use cases of the audit log. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    context: Context,
    windows: Arc<Windows>,
    anchors: Option<Anchors>,
    /// One verification at a time: each reads the whole log.
    verifying: Arc<Semaphore>,
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
        Self { context, windows: Arc::default(), anchors: None, verifying: Arc::new(Semaphore::new(1)) }
    }

    /// With an anchor in this directory, beside the database.
    #[must_use]
    pub fn anchored(self, dir: &Path) -> Self {
        Self { anchors: Some(Anchors::new(dir)), ..self }
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
        let mut rows = self.page(filter, size).await?;
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

    async fn page(&self, filter: AuditFilter, limit: usize) -> Result<Vec<LoggedAudit>, Refusal> {
        self.context.view(move |view| view.audit(&filter, limit)).await
    }

    /// Whether the log is what was written: its chain, its anchor, and what nodes saw of it.
    ///
    /// # Errors
    /// `rate_limited` while another one is under way.
    pub async fn verify(&self) -> Result<Verdict, Refusal> {
        let _turn = self.verifying.try_acquire().map_err(|_| {
            Refusal::new(Code::RateLimited, "The audit log is being verified at this moment.")
                .detail("retry_after_s", "5")
        })?;
        let (witnesses, damaged) = self.witnesses().await?;
        let mut verification = Verification::new(witnesses);
        loop {
            let filter = AuditFilter { after: verification.after(), ..AuditFilter::default() };
            let rows = self.page(filter, PAGE_ITEMS_MAX).await?;
            if !verification.take(&rows) || rows.len() < PAGE_ITEMS_MAX {
                break;
            }
        }
        let mut verdict = verification.finish();
        if let (None, Some(name)) = (&verdict.broken, damaged) {
            let why = format!("The file {name} of the data directory is not as it was written.");
            verdict.broken = Some(Broken { at: None, why });
        }
        if let Some(broken) = &verdict.broken {
            self.doubt(&broken.why).await;
        }
        Ok(verdict)
    }

    /// Everybody who saw a row of this log, and an anchor that cannot be read.
    async fn witnesses(&self) -> Result<(Vec<Witness>, Option<String>), Refusal> {
        let (generation, nodes) = self.context.view(|view| Ok((view.generation()?, view.nodes()?))).await?;
        let contradictions = self.context.directory.audit().contradictions();
        let seen = nodes.iter().flat_map(|node| {
            let heads = [node.audit_seen, contradictions.get(&node.id).copied()];
            let name = format!("node {}", node.name);
            heads.into_iter().flatten().map(move |head| Witness { name: name.clone(), head })
        });
        let mut witnesses: Vec<Witness> = seen.collect();
        let mut damaged = None;
        for (name, anchor) in self.anchors_on_disk().await? {
            match anchor {
                Some(anchor) if anchor.generation == generation => {
                    witnesses.push(Witness { name, head: anchor.head });
                }
                Some(_) => {}
                None => damaged = damaged.or(Some(name)),
            }
        }
        Ok((witnesses, damaged))
    }

    async fn anchors_on_disk(&self) -> Result<Vec<(String, Option<Anchor>)>, Refusal> {
        match self.anchors.clone() {
            Some(anchors) => on_disk(move || anchors.all()).await,
            None => Ok(Vec::new()),
        }
    }

    /// Lets the anchor follow the log until `shutdown`. First looks at the one that is there.
    ///
    /// # Errors
    /// When the data directory cannot be read or written.
    pub async fn run_anchor(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        let Some(anchors) = self.anchors.clone() else { return Ok(()) };
        let generation = self.context.view(|view| view.generation()).await?;
        self.look_at(&anchors, generation).await?;
        let mut heads = self.context.directory.audit().follow();
        loop {
            let head = *heads.borrow_and_update();
            if let Some(head) = head {
                let anchors = anchors.clone();
                on_disk(move || anchors.write(&Anchor { generation, head })).await?;
            }
            if shutdown.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                _followed = heads.changed() => {}
                () = shutdown.cancelled() => {}
            }
            // Further rows ride along.
            let _stopped = tokio::time::timeout(BEHIND_MAX, shutdown.cancelled()).await;
        }
    }

    /// What the anchor of an earlier life says of the log as it is. One that does not fit is kept.
    async fn look_at(&self, anchors: &Anchors, generation: Generation) -> Result<(), Refusal> {
        let files = anchors.clone();
        let (why, doubt) = match on_disk(move || files.current()).await? {
            None => return Ok(()),
            Some(None) => {
                ("damaged", Some("The anchor of the audit log is not as it was written.".to_owned()))
            }
            Some(Some(anchor)) if anchor.generation != generation => ("earlier", None),
            Some(Some(anchor)) => {
                let head = anchor.head;
                if self.context.view(move |view| has_row(view, head)).await? {
                    return Ok(());
                }
                let doubt = format!("The anchor saw row {}, which is not in the audit log.", head.seq);
                ("broken", Some(doubt))
            }
        };
        let (files, now) = (anchors.clone(), self.context.clock.wall());
        on_disk(move || files.put_aside(why, now)).await?;
        if let Some(doubt) = doubt {
            self.doubt(&doubt).await;
        }
        Ok(())
    }

    /// Tells, once in the life of a hub, that the log is not what was written.
    async fn doubt(&self, why: &str) {
        if !self.context.directory.audit().doubt(why) {
            return;
        }
        tracing::error!(code = %Code::AuditBroken, why, "the audit log is broken");
        let event = broken_event(why, self.context.clock.wall());
        let told = self.context.commit(move |tx| Ok(tx.append_event(&event)?), |_| ()).await;
        if let Err(refusal) = told {
            tracing::warn!(code = %refusal.code, "the event of a broken audit log could not be kept");
        }
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

/// What a broken log is told as.
pub(crate) fn broken_event(why: &str, now: WallTime) -> Event {
    Event::new(EventKind::AuditBroken, now).actor("hub").detail(why)
}

/// Whether the log has this very row. One query.
pub(crate) fn has_row<V: Read + ?Sized>(view: &V, head: AuditHead) -> Result<bool, StoreError> {
    let filter = AuditFilter { after: Seq(head.seq.0.saturating_sub(1)), ..AuditFilter::default() };
    let rows = view.audit(&filter, 1)?;
    Ok(rows.first().is_some_and(|row| (row.seq, row.hash) == (head.seq, head.hash)))
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err(std::io::Error::other("it ended unexpectedly")));
    done.map_err(|error| {
        let message = format!("The anchor of the audit log cannot be read or written: {error}.");
        Refusal::new(Code::StoreUnavailable, message)
    })
}

#[cfg(test)]
mod tests {
    use cortex_core::Code;
    use cortex_store::memory::MemoryStore;

    use super::*;
    use crate::bus::Bus;
    use crate::clock::Clock;
    use crate::directory::Directory;

    #[tokio::test]
    async fn whoever_tries_tokens_from_all_addresses_of_an_ipv6_network_has_one_row_and_a_number() {
        let (clock, store) = (Clock::default(), Arc::new(MemoryStore::new(None)));
        let audit = Audit::new(Context {
            store,
            clock,
            directory: Directory::default(),
            bus: Bus::new(clock),
            board: crate::board::Board::new(clock),
        });
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
