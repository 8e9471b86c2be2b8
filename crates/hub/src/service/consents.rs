//! Questions to people: looked at, answered, taken back, and the answers that last.
//!
//! A yes is written in one transaction with the run that it starts (`service::runs`). Never here: an
//! answer by whoever asked.

mod ends;
mod lasting;
mod turns;

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::consent::{self, Answerer, Consent, ConsentRule, Reply, Standing};
use cortex_core::id::{ConsentId, NodeId};
use cortex_core::limits::{CONSENTS_SIMILAR_MAX, PAGE_ITEMS_MAX};
use cortex_core::name::printable;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::{Code, Refusal};
use cortex_store::{ConsentFilter, Tx, WriteError};

use super::runs::{Approval, Begun, Leave, Runs, StartRuns, put_consent};
use super::{Caller, Context, anew, principal, targets};
use crate::clock::new_consent_id;
use crate::mesh::Mesh;
pub use turns::Turn;
use turns::Turns;

/// Pages of questions that one answer looks through for a caller that sees few of them.
const FOREIGN_PAGES_MAX: usize = 10;

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Consents {
    context: Context,
    mesh: Mesh,
    runs: Runs,
    turns: Turns,
}

/// A question with what helps to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The question.
    pub consent: Consent,
    /// What was answered to questions about the same program on this node, newest first.
    pub similar: Vec<Consent>,
    /// Whether the caller may see the values of its variables: it asked, or it may answer.
    pub whole: bool,
}

impl Consents {
    /// The use cases over `mesh`.
    pub fn new(context: Context, mesh: Mesh, runs: Runs) -> Self {
        Self { context, mesh, runs, turns: Turns::default() }
    }

    /// Questions that the caller sees, newest first, and where the next page begins. Of a caller that
    /// sees some nodes only, a page may have fewer than `limit` and not be the last.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(
        &self,
        caller: &Caller,
        mut filter: ConsentFilter,
        limit: usize,
    ) -> Result<(Vec<Consent>, Option<ConsentId>), Refusal> {
        let client = caller.token.kind == TokenKind::Client;
        filter.token = client.then_some(caller.token.id);
        let size = if caller.everywhere(Right::ConsentsRead) { limit + 1 } else { PAGE_ITEMS_MAX };
        let mut seen = Vec::new();
        for _ in 0..FOREIGN_PAGES_MAX {
            let asked = filter.clone();
            let found = self.context.view(move |view| view.consents(&asked, size)).await?;
            let last = found.len() < size;
            filter.before = found.last().map(|consent| consent.id);
            seen.extend(found.into_iter().filter(|consent| self.sees(caller, consent)));
            if seen.len() > limit {
                seen.truncate(limit);
                let next = seen.last().map(|consent| consent.id);
                return Ok((seen, next));
            }
            if last {
                return Ok((seen, None));
            }
        }
        Ok((seen, filter.before))
    }

    /// A question that the caller sees, with past answers like the one that it needs.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn show(&self, caller: &Caller, id: ConsentId) -> Result<Shown, Refusal> {
        let consent = self.seen(caller, id).await?;
        let (node, program) = (consent.node, consent.spec.argv.first().cloned().unwrap_or_default());
        // One more, for the question itself is among them once it is answered.
        let similar = self
            .context
            .view(move |view| view.consents_alike(node, &program, CONSENTS_SIMILAR_MAX + 1))
            .await?;
        let others = similar.into_iter().filter(|one| one.id != id && self.sees(caller, one));
        let whole = asked_by(caller, &consent) || self.has(caller, Right::ConsentsAnswer, node);
        Ok(Shown { similar: others.take(CONSENTS_SIMILAR_MAX).collect(), consent, whole })
    }

    /// Says yes, and starts the run as whoever asked, which is looked up anew, by the policy of this
    /// moment.
    ///
    /// # Errors
    /// `not_found`, `forbidden`; `conflict` when it was answered or has ended, and when whoever asked
    /// may not ask any more, which takes the question back. `node_offline`, `locked`, `quota`,
    /// `sandbox_unavailable` and `store_unavailable` leave it waiting.
    pub async fn approve(&self, caller: &Caller, id: ConsentId, reply: Reply) -> Result<Consent, Refusal> {
        let consent = self.seen(caller, id).await?;
        self.check_answer(caller, &consent, &reply).await?;
        let approval = Approval {
            _turn: self.turns.take(id)?,
            consent: id,
            run: consent.run,
            reply,
            by: caller.clone(),
            lasting: new_consent_id(&self.context.clock),
        };
        let who = {
            let (token, now) = (consent.token, self.context.clock.wall());
            self.context.view(move |view| principal(view, token, now)).await?
        };
        let Some(node) = self.context.directory.node(consent.node) else {
            return self.take_back(id, Refusal::new(Code::NodeNotFound, "The node was removed.")).await;
        };
        let asker = match who {
            Ok(who) => Caller::new(who),
            Err(refusal) => return self.take_back(id, refusal).await,
        };
        if self.mesh.presence(node.id).is_none() {
            let message = format!("{} is offline; question {id} waits on.", node.name);
            return Err(Refusal::new(Code::NodeOffline, message));
        }
        let Consent { spec, key, traceparent, .. } = consent;
        let request = StartRuns { nodes: vec![node], spec, key, traceparent };
        let begun = self.runs.begin(&asker, request, Leave::Answered(Arc::new(approval))).await;
        match begun.into_iter().next() {
            Some((_, Ok(Begun::Run(_)))) => self.look(id).await,
            Some((_, Err(refusal))) => Err(refusal),
            Some((_, Ok(Begun::Asked(_)))) | None => {
                Err(Refusal::new(Code::Internal, "An answer started nothing."))
            }
        }
    }

    /// Says no, with a note for whoever asked.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict`, `invalid_argument`, `too_large`, `store_unavailable`.
    pub async fn deny(&self, caller: &Caller, id: ConsentId, note: String) -> Result<Consent, Refusal> {
        let (consent, reply) = (self.seen(caller, id).await?, Reply::Deny { note });
        self.check_answer(caller, &consent, &reply).await?;
        let (context, caller, now) = (self.context.clone(), caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let consent = tx.consent(id)?.ok_or_else(|| unknown(id))?;
            let caller = still_answers(tx, &caller, consent.node, now)?;
            let denied = consent::answer(&consent, &reply, &answerer(&caller), id, now)?.consent;
            let row = AuditRow::new(now, caller.actor(), "consent.deny", Outcome::Allowed);
            let detail = denied.note.as_deref().map(|note| printable(note, 400));
            tx.append_audit(&AuditRow { token: Some(caller.token.id), detail, ..row_of(&denied, row) })?;
            put_consent(tx, &denied, &context, now)?;
            Ok(denied)
        };
        self.context.commit(work, |_| ()).await
    }

    /// Waits until a question is answered or has ended, and returns it then.
    ///
    /// # Errors
    /// `store_unavailable`; `not_found` when nobody knows it any more.
    pub async fn settled(&self, id: ConsentId) -> Result<Consent, Refusal> {
        let mut waiting = self.context.directory.questions();
        // The sender lives as long as the directory.
        drop(waiting.wait_for(|waiting| !waiting.contains_key(&id)).await);
        self.look(id).await
    }

    async fn look(&self, id: ConsentId) -> Result<Consent, Refusal> {
        self.context.view(move |view| view.consent(id)).await?.ok_or_else(|| unknown(id))
    }

    async fn seen(&self, caller: &Caller, id: ConsentId) -> Result<Consent, Refusal> {
        Some(self.look(id).await?).filter(|consent| self.sees(caller, consent)).ok_or_else(|| unknown(id))
    }

    /// An AI client sees its own questions; everybody else those of its nodes.
    fn sees(&self, caller: &Caller, consent: &Consent) -> bool {
        let foreign = caller.token.kind == TokenKind::Client && consent.token != caller.token.id;
        !foreign && self.has(caller, Right::ConsentsRead, consent.node)
    }

    fn has(&self, caller: &Caller, right: Right, node: NodeId) -> bool {
        targets::has(&self.context.directory, caller, right, node)
    }

    /// Refuses an answer that can be told to be none before anything is begun. Who may not answer is
    /// in the audit log.
    async fn check_answer(&self, caller: &Caller, consent: &Consent, reply: &Reply) -> Result<(), Refusal> {
        let now = self.context.clock.wall();
        let may = if self.has(caller, Right::ConsentsAnswer, consent.node) {
            consent::answer(consent, reply, &answerer(caller), consent.id, now).map(|_| ())
        } else {
            caller.anywhere(Right::ConsentsAnswer).and_then(|()| Err(may_not_answer(caller)))
        };
        let Err(refusal) = may else { return Ok(()) };
        if refusal.code == Code::Forbidden {
            let row = AuditRow::new(now, caller.actor(), "consent.answer", Outcome::Denied);
            let (reason, detail) = (Some(refusal.code.as_str().to_owned()), Some(refusal.message.clone()));
            let row = AuditRow { reason, detail, token: Some(caller.token.id), ..row_of(consent, row) };
            self.context.commit(move |tx| Ok(tx.append_audit(&row)?), |_| ()).await?;
        }
        Err(refusal)
    }
}

/// Whoever answers, as this transaction finds it.
///
/// # Errors
/// `unauthenticated`, `locked`, `forbidden`.
pub(crate) fn still_answers(
    tx: &dyn Tx,
    caller: &Caller,
    node: NodeId,
    now: WallTime,
) -> Result<Caller, WriteError> {
    let caller = anew(tx, caller, now)?;
    let node = tx.node(node)?.filter(|node| node.removed_at.is_none());
    let there = node.is_some_and(|node| caller.has(Right::ConsentsAnswer, &node));
    if there || caller.everywhere(Right::ConsentsAnswer) {
        return Ok(caller);
    }
    Err(may_not_answer(&caller).into())
}

fn may_not_answer(caller: &Caller) -> Refusal {
    let message = format!("`{}` may not answer questions about this node.", caller.actor());
    Refusal::new(Code::Forbidden, message).detail("right", Right::ConsentsAnswer.as_str())
}

/// The caller as one who answers.
pub(crate) fn answerer(caller: &Caller) -> Answerer {
    Answerer {
        actor: caller.actor(),
        token: caller.token.id,
        user: caller.token.user,
        kind: caller.token.kind,
    }
}

/// An audit row about a question.
pub(crate) fn row_of(consent: &Consent, row: AuditRow) -> AuditRow {
    AuditRow {
        reason: row.reason.or_else(|| Some(consent.rule.clone())),
        node: Some(consent.node),
        run: Some(consent.run),
        argv: consent.spec.argv.clone(),
        consent: Some(consent.id),
        ..row
    }
}

/// A pattern for people: `git push …`; without the dots when nothing may follow.
pub fn pattern_words(rule: &ConsentRule) -> String {
    let words: Vec<String> = rule.pattern.0.iter().map(|word| printable(word, 100)).collect();
    format!("{}{}", words.join(" "), if rule.exact { "" } else { " …" })
}

/// What whoever asked is told while the question waits.
pub fn required(consent: &Consent, node: &str) -> Refusal {
    let message = format!("A person is asked before this runs on {node} (rule {}).", consent.rule);
    Refusal::new(Code::ConsentRequired, message)
        .hint(format!(
            "Wait for the answer, see `cortex consent show {}`: the command starts by itself then. Do not send it again.",
            consent.id
        ))
        .detail("consent_id", consent.id.to_string())
        .detail("run_id", consent.run.to_string())
        .detail("rule", consent.rule.as_str())
}

/// What whoever asked is told when the question has ended without a yes.
pub fn ended(consent: &Consent) -> Refusal {
    let note = consent.note.as_deref().map(|note| printable(note, 1_024)).unwrap_or_default();
    let by = consent.answered_by.as_deref().unwrap_or("nobody");
    let refusal = match consent.standing {
        Standing::Denied => Refusal::new(Code::ConsentDenied, format!("{by} says no: {note}")),
        Standing::Withdrawn => {
            Refusal::new(Code::ConsentDenied, format!("The question was taken back by {by}. {note}"))
                .hint("Look at what has changed, then ask anew if it is still needed.")
        }
        Standing::Expired | Standing::Pending | Standing::Approved => {
            let message = format!("Nobody has answered question {} in time.", consent.id);
            Refusal::new(Code::ConsentRequired, message)
                .hint("Ask somebody to look at `cortex consent ls -w`, then send the command again.")
        }
    };
    refusal.detail("consent_id", consent.id.to_string()).detail("standing", consent.standing.as_str())
}

/// Whether the caller asked this itself: with this token, or as this user.
fn asked_by(caller: &Caller, consent: &Consent) -> bool {
    caller.token.id == consent.token || (consent.user.is_some() && caller.token.user == consent.user)
}

pub(crate) fn unknown(id: ConsentId) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no question {id}."))
        .hint("List the questions with `cortex consent ls`.")
}
