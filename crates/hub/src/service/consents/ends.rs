//! How questions end without an answer: taken back, or nobody came in time. And how old ones go.

use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::consent::{self, Consent};
use cortex_core::id::ConsentId;
use cortex_core::limits::{CONSENTS_KEPT_MS, RUNS_AGE_AFTER_MS};
use cortex_core::name::printable;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::Tx;
use tokio_util::sync::CancellationToken;

use super::{Consents, asked_by, row_of, unknown};
use crate::service::runs::{give_up, put_consent};
use crate::service::{Caller, anew};

/// Wait after a store that failed.
const RETRY: Duration = Duration::from_secs(10);
/// Time between two looks for questions that are too old.
const TRIM_EVERY: Duration = Duration::from_secs(3_600);
/// Old questions that go at once.
const TRIM_BATCH: usize = 500;

impl Consents {
    /// Takes a question back. Only whoever asked may.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` when it was answered or has ended, `store_unavailable`.
    pub async fn withdraw(&self, caller: &Caller, id: ConsentId) -> Result<Consent, Refusal> {
        self.seen(caller, id).await?;
        let (context, caller, now) = (self.context.clone(), caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            let consent = tx.consent(id)?.ok_or_else(|| unknown(id))?;
            let withdrawn = consent::withdraw(&consent, caller.actor(), None, now)?;
            if !asked_by(&caller, &consent) {
                let message = format!("Question {id} is that of {}.", printable(&consent.caller, 100));
                return Err(Refusal::new(Code::Forbidden, message)
                    .hint("Answer it with `cortex consent deny ID --note TEXT`.")
                    .into());
            }
            let row = AuditRow::new(now, caller.actor(), "consent.withdraw", Outcome::Allowed);
            tx.append_audit(&AuditRow { token: Some(caller.token.id), ..row_of(&consent, row) })?;
            put_consent(tx, &withdrawn, &context, now)?;
            Ok(withdrawn)
        };
        self.context.commit(work, |_| ()).await
    }

    /// Takes back a question whose asker may not ask any more, and says so to whoever answers.
    pub(super) async fn take_back<T>(&self, id: ConsentId, why: Refusal) -> Result<T, Refusal> {
        let (context, now) = (self.context.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let consent = tx.consent(id)?.ok_or_else(|| unknown(id))?;
            give_up(tx, &consent, &why, &context, now)
        };
        Err(self.context.commit(work, |_| ()).await?)
    }

    /// Ends questions and lasting answers whose time is over until `shutdown`, and removes old ones.
    /// Sleeps until the next one is due.
    ///
    /// # Errors
    /// None: what the store could not do is tried again.
    pub async fn run_expiry(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        let mut changes = self.context.directory.questions();
        while !shutdown.is_cancelled() {
            changes.mark_unchanged();
            let failed = match self.end_due().await {
                Ok(()) => false,
                Err(refusal) => {
                    tracing::error!(%refusal, "questions whose time is over wait on");
                    true
                }
            };
            let wait = if failed { RETRY } else { self.next_due().min(TRIM_EVERY) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = changes.changed(), if !failed => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Ends what is due at this moment.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn end_due(&self) -> Result<(), Refusal> {
        let now = self.context.clock.wall();
        let due: Vec<ConsentId> = {
            let questions = self.context.directory.questions();
            let waiting = questions.borrow();
            waiting.iter().filter(|(_, end)| **end <= now).map(|(id, _)| *id).collect()
        };
        if !due.is_empty() {
            let context = self.context.clone();
            let work = move |tx: &mut dyn Tx| {
                for id in due {
                    let Some(expired) = tx.consent(id)?.and_then(|one| consent::expire(&one, now)) else {
                        continue;
                    };
                    let row = AuditRow::new(now, "hub", "consent.expire", Outcome::Denied);
                    tx.append_audit(&row_of(&expired, row))?;
                    put_consent(tx, &expired, &context, now)?;
                }
                Ok(())
            };
            self.context.commit(work, |()| ()).await?;
        }
        self.end_lasting(now).await?;
        self.trim(now).await
    }

    fn next_due(&self) -> Duration {
        let questions = self.context.directory.questions();
        let question = questions.borrow().values().min().copied();
        let rules = self.context.directory.consent_rules();
        let lasting = rules.iter().filter_map(|rule| rule.until).min();
        let now = self.context.clock.wall();
        let ms = |end: WallTime| u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0);
        question.into_iter().chain(lasting).min().map_or(TRIM_EVERY, |end| Duration::from_millis(ms(end)))
    }

    /// A clock that is wrong when a machine starts is mostly set right within the hour.
    async fn trim(&self, now: WallTime) -> Result<(), Refusal> {
        if self.context.clock.now().0 < RUNS_AGE_AFTER_MS {
            return Ok(());
        }
        let before = WallTime(now.0.saturating_sub_unsigned(CONSENTS_KEPT_MS));
        let batch = move |tx: &mut dyn Tx| Ok(tx.trim_consents(before, TRIM_BATCH)?);
        while self.context.commit(batch, |_| ()).await? == TRIM_BATCH as u64 {}
        Ok(())
    }
}
