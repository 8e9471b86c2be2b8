//! Answers that last: listed, ended by people, and by their time.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::consent::ConsentRule;
use cortex_core::event::{Event, EventKind};
use cortex_core::id::ConsentId;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use super::{Consents, may_not_answer, pattern_words, still_answers};
use crate::service::{Caller, Context};

impl Consents {
    /// The lasting answers that the caller sees, oldest first.
    pub fn rules(&self, caller: &Caller) -> Vec<Arc<ConsentRule>> {
        let rules = self.context.directory.consent_rules().into_iter();
        rules.filter(|rule| self.sees_rule(caller, rule)).collect()
    }

    /// Ends a lasting answer.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `store_unavailable`.
    pub async fn forget(&self, caller: &Caller, id: ConsentId) -> Result<ConsentRule, Refusal> {
        let unknown = move || {
            Refusal::new(Code::NotFound, format!("There is no lasting answer {id}."))
                .hint("List them with `cortex consent rules`.")
        };
        let rules = self.context.directory.consent_rules();
        let rule =
            rules.iter().find(|rule| rule.id == id && self.sees_rule(caller, rule)).ok_or_else(unknown)?;
        if !self.has(caller, Right::ConsentsAnswer, rule.node) {
            caller.anywhere(Right::ConsentsAnswer)?;
            return Err(may_not_answer(caller));
        }
        let (context, caller, now) = (self.context.clone(), caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let held = tx.consent_rules()?.into_iter().find(|rule| rule.id == id).ok_or_else(unknown)?;
            let caller = still_answers(tx, &caller, held.node, now)?;
            let row = AuditRow::new(now, caller.actor(), "consent.forget", Outcome::Allowed);
            end(tx, held, AuditRow { token: Some(caller.token.id), ..row }, &context)
        };
        self.context.commit(work, |_| ()).await
    }

    /// Ends those whose time is over.
    pub(super) async fn end_lasting(&self, now: WallTime) -> Result<(), Refusal> {
        let rules = self.context.directory.consent_rules();
        let due: Vec<ConsentId> = rules.iter().filter(|rule| !rule.holds(now)).map(|rule| rule.id).collect();
        if due.is_empty() {
            return Ok(());
        }
        let context = self.context.clone();
        let work = move |tx: &mut dyn Tx| {
            for rule in tx.consent_rules()?.into_iter().filter(|rule| due.contains(&rule.id)) {
                end(tx, rule, AuditRow::new(now, "hub", "consent.forget", Outcome::Allowed), &context)?;
            }
            Ok(())
        };
        self.context.commit(work, |()| ()).await
    }

    fn sees_rule(&self, caller: &Caller, rule: &ConsentRule) -> bool {
        let foreign = caller.token.kind == TokenKind::Client && rule.token != caller.token.id;
        !foreign && self.has(caller, Right::ConsentsRead, rule.node)
    }
}

fn end(
    tx: &mut dyn Tx,
    rule: ConsentRule,
    row: AuditRow,
    context: &Context,
) -> Result<ConsentRule, WriteError> {
    let ended = ConsentRule { ended_at: Some(row.at), ..rule };
    tx.put_consent_rule(&ended)?;
    let event = Event::new(EventKind::ConsentRuleEnded, row.at).node(ended.node).actor(row.actor.as_str());
    tx.append_event(&event.subject(ended.id.to_string()))?;
    let (node, consent, detail) = (Some(ended.node), Some(ended.id), Some(pattern_words(&ended)));
    tx.append_audit(&AuditRow { node, consent, detail, ..row })?;
    let (directory, rule) = (context.directory.clone(), ended.clone());
    tx.after_commit(Box::new(move || directory.put_consent_rule(rule)));
    Ok(ended)
}
