//! Commands for which a person is asked: how they are judged, the question as it is written, and the
//! answer that starts one, in one transaction with the run.
//!
//! Never here: an answer that hides a denial. A person lifts what the policy leaves to people, and
//! nothing else.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::consent::{self, Consent, ConsentRule, Reply, Standing};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{ConsentId, RunId};
use cortex_core::limits::{CONSENT_RULES_MAX, CONSENTS_OPEN_PER_TOKEN_MAX};
use cortex_core::lock::{Lock, Locks};
use cortex_core::name::printable;
use cortex_core::node::Node;
use cortex_core::policy::{self, Answer, Document, Question, Rule};
use cortex_core::rights::Right;
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{ConsentFilter, StoreError, Tx, WriteError};

use super::accept::{Judged, Written, audit, refuse};
use crate::directory::Directory;
use crate::service::consents::{self, Turn, answerer, still_answers};
use crate::service::{Caller, Context, principal};

/// What may allow a command beside the policy.
#[derive(Clone, Debug)]
pub enum Leave {
    /// Nothing. The policy may ask a person all the same.
    Policy,
    /// A person, who is asked with these words.
    Ask(String),
    /// A person, who was asked and says yes.
    Answered(Arc<Approval>),
}

/// The yes of a person.
#[derive(Debug)]
pub struct Approval {
    /// Nobody else starts the same run meanwhile.
    pub(crate) _turn: Turn,
    /// To which question.
    pub consent: ConsentId,
    /// Which run it starts.
    pub run: RunId,
    /// In which words.
    pub reply: Reply,
    /// Whose.
    pub by: Caller,
    /// The id of the answer for questions to come, when it is one.
    pub lasting: ConsentId,
}

/// What is to be done with a command that nothing denies.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It starts.
    Start {
        /// The rule of the policy that allows it.
        rule: String,
        /// The answer that was given before and covers it.
        lasting: Option<Arc<ConsentRule>>,
    },
    /// A person is asked.
    Ask {
        /// By which rule.
        rule: String,
        /// In the caller's words.
        reason: String,
    },
}

impl Leave {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Ask(reason) => consent::check_reason(reason),
            Self::Policy | Self::Answered(_) => Ok(()),
        }
    }

    pub(super) fn approval(&self) -> Option<Arc<Approval>> {
        match self {
            Self::Answered(approval) => Some(Arc::clone(approval)),
            Self::Policy | Self::Ask(_) => None,
        }
    }

    pub(super) fn run(&self) -> Option<RunId> {
        self.approval().map(|approval| approval.run)
    }

    pub(super) fn consent(&self) -> Option<ConsentId> {
        self.approval().map(|approval| approval.consent)
    }
}

/// Judges the command of a run by the policy of its node, and by what people said before. A person
/// lifts what the policy asks one for, and `exec.allow` when the caller wants one to be asked.
pub(super) fn judge(
    directory: &Directory,
    policy: &Document,
    leave: &Leave,
    run: &Run,
    node: &str,
) -> Result<Verdict, Refusal> {
    let (now, site) = (run.accepted_at, directory.site(run.node));
    let answer = |consent| {
        let question = Question { spec: &run.spec, node, site: &site, now: Some(now), consent };
        policy::judge(policy, &question)
    };
    let start = |lasting| Ok(Verdict::Start { rule: answer(true)?.allowed(node)?.to_string(), lasting });
    let reason = match leave {
        Leave::Answered(_) => return start(None),
        Leave::Policy => None,
        Leave::Ask(reason) => Some(reason.trim()),
    };
    let asks = match (answer(false), reason) {
        (Ok(Answer::Allowed { rule }), None) => {
            return Ok(Verdict::Start { rule: rule.to_string(), lasting: None });
        }
        (Ok(Answer::Allowed { .. }), Some(_)) => "asked".to_owned(),
        (Ok(Answer::Ask { rule }), _) => rule.to_string(),
        (Err(refusal), Some(_)) if Rule::of(&refusal) == Some("exec.allow") => {
            // What no person may lift is said at once.
            answer(true)?;
            "exec.allow".to_owned()
        }
        (Err(refusal), _) => return Err(refusal),
    };
    match run.token.and_then(|token| directory.lasting(run.node, token, &run.spec, now)) {
        Some(lasting) => start(Some(lasting)),
        None => Ok(Verdict::Ask { rule: asks, reason: reason.unwrap_or_default().to_owned() }),
    }
}

/// What an earlier request with this key has come to, when a person was asked for it.
pub(super) fn known(tx: &mut dyn Tx, one: &Judged) -> Result<Option<Written>, WriteError> {
    let run = &one.run;
    let Some(key) = &run.idempotency_key else { return Ok(None) };
    let found = tx.consent_by_key(&run.caller, run.node, key)?;
    let Some(consent) = found.filter(|consent| Some(consent.token) == run.token) else { return Ok(None) };
    if consent.spec != run.spec {
        let message = format!(
            "The idempotency key was used on {} for another command, question {}.",
            one.name, consent.id
        );
        let refusal = Refusal::new(Code::Conflict, message).hint("Use a new key for a new command.");
        return refuse(tx, one, refusal).map(Some);
    }
    Ok(match consent.standing {
        Standing::Pending => Some(Written::Asked(Box::new(consent))),
        // Its run has been removed for its age.
        Standing::Approved => None,
        Standing::Denied | Standing::Expired | Standing::Withdrawn => {
            Some(Written::Refused(consents::ended(&consent)))
        }
    })
}

/// Writes the question, unless the same one waits already.
pub(super) fn ask(
    tx: &mut dyn Tx,
    one: &Judged,
    rule: &str,
    reason: &str,
    context: &Context,
) -> Result<Written, WriteError> {
    let (run, now) = (&one.run, one.run.accepted_at);
    let Some(token) = run.token else {
        return Err(Refusal::new(Code::Internal, "A run without a token asks nobody.").into());
    };
    let waiting = ConsentFilter { standing: Some(Standing::Pending), token: Some(token), before: None };
    let own = tx.consents(&waiting, CONSENTS_OPEN_PER_TOKEN_MAX)?;
    let same = |open: &&Consent| open.node == run.node && open.spec == run.spec && open.expires_at > now;
    if let Some(same) = own.iter().find(same) {
        return Ok(Written::Asked(Box::new(same.clone())));
    }
    let draft = draft(run, token, crate::clock::new_consent_id(&context.clock), rule, reason);
    let consent = match consent::ask(draft, (tx.consents_pending()?, own.len()), now) {
        Ok(consent) => consent,
        Err(refusal) => return refuse(tx, one, refusal),
    };
    let row = audit(one, Outcome::Allowed, rule);
    let detail = Some(printable(&consent.reason, 400)).filter(|words| !words.is_empty());
    tx.append_audit(&AuditRow {
        action: "consent.ask".to_owned(),
        consent: Some(consent.id),
        detail,
        ..row
    })?;
    put_consent(tx, &consent, context, now)?;
    Ok(Written::Asked(Box::new(consent)))
}

fn draft(run: &Run, token: cortex_core::id::TokenId, id: ConsentId, rule: &str, reason: &str) -> Consent {
    Consent {
        id,
        run: run.id,
        node: run.node,
        caller: run.caller.clone(),
        token,
        user: run.user,
        spec: run.spec.clone(),
        key: run.idempotency_key.clone(),
        traceparent: run.traceparent.clone(),
        reason: reason.to_owned(),
        rule: rule.to_owned(),
        notes: Vec::new(),
        standing: Standing::Pending,
        answered_by: None,
        note: None,
        created_at: run.accepted_at,
        expires_at: run.accepted_at,
        answered_at: None,
    }
}

/// Writes the answer by which the run starts. `Some` when the question ended instead, because whoever
/// asked may not ask any more.
///
/// # Errors
/// The question waits on: somebody was faster, the answer is none, or the node cannot take the run at
/// this moment.
pub(super) fn approve(
    tx: &mut dyn Tx,
    one: &Judged,
    approval: &Approval,
    node: Option<&Node>,
    locks: &Locks,
    context: &Context,
) -> Result<Option<Refusal>, WriteError> {
    let now = one.run.accepted_at;
    let by = still_answers(tx, &approval.by, one.run.node, now)?;
    if let Some(lock) = node.and_then(|node| locks.on_node(node.id, &node.labels, now)) {
        return Err(lock.refusal().into());
    }
    let consent = tx.consent(approval.consent)?.ok_or_else(|| consents::unknown(approval.consent))?;
    let by = answerer(&by);
    let answered = consent::answer(&consent, &approval.reply, &by, approval.lasting, now)?;
    let locked = locks.on_caller(consent.token, consent.user, now).map(Lock::refusal);
    if let Err(refusal) =
        locked.map_or_else(|| may_still_ask(tx, &consent, node, now), |refusal| Ok(Err(refusal)))?
    {
        return give_up(tx, &consent, &refusal, context, now).map(Some);
    }
    if let Err(refusal) = &one.verdict {
        if !is_for_good(refusal.code) {
            return Err(refusal.clone().into());
        }
        refuse(tx, one, refusal.clone())?;
        return give_up(tx, &consent, refusal, context, now).map(Some);
    }
    let mut detail = reply_words(&approval.reply).to_owned();
    if let Some(rule) = answered.lasting {
        put_rule(tx, &rule, context, now)?;
        detail = format!("{detail}, lasting answer {}: {}", rule.id, consents::pattern_words(&rule));
    }
    let row = AuditRow::new(now, by.actor, "consent.approve", Outcome::Allowed);
    let row = AuditRow { token: Some(by.token), detail: Some(detail), ..consents::row_of(&consent, row) };
    tx.append_audit(&row)?;
    put_consent(tx, &answered.consent, context, now)?;
    Ok(None)
}

/// Writes a question as it stands, its event, and what follows the commit.
pub(crate) fn put_consent(
    tx: &mut dyn Tx,
    consent: &Consent,
    context: &Context,
    now: WallTime,
) -> Result<(), WriteError> {
    tx.put_consent(consent)?;
    tx.append_event(&consent.told(now))?;
    let (directory, consent) = (context.directory.clone(), consent.clone());
    tx.after_commit(Box::new(move || directory.put_consent(&consent)));
    Ok(())
}

fn put_rule(tx: &mut dyn Tx, rule: &ConsentRule, context: &Context, now: WallTime) -> Result<(), WriteError> {
    if tx.consent_rules()?.iter().filter(|rule| rule.holds(now)).count() >= CONSENT_RULES_MAX {
        let message = format!("{CONSENT_RULES_MAX} lasting answers hold, the most that this hub keeps.");
        return Err(Refusal::new(Code::Quota, message)
            .hint("Answer this once, or end some with `cortex consent forget ID`.")
            .into());
    }
    tx.put_consent_rule(rule)?;
    let event = Event::new(EventKind::ConsentRuleMade, now).node(rule.node).actor(rule.made_by.as_str());
    tx.append_event(&event.subject(rule.id.to_string()))?;
    let (directory, rule) = (context.directory.clone(), rule.clone());
    tx.after_commit(Box::new(move || directory.put_consent_rule(rule)));
    Ok(())
}

/// Takes a question back whose asker may not ask it any more. Returns what the answerer is told.
pub(crate) fn give_up(
    tx: &mut dyn Tx,
    consent: &Consent,
    refusal: &Refusal,
    context: &Context,
    now: WallTime,
) -> Result<Refusal, WriteError> {
    let note = Some(refusal.message.clone());
    let withdrawn = consent::withdraw(consent, "hub".to_owned(), note, now)?;
    let row = AuditRow::new(now, "hub", "consent.withdraw", Outcome::Denied);
    let (reason, detail) = (Some(refusal.code.as_str().to_owned()), Some(refusal.message.clone()));
    tx.append_audit(&AuditRow { reason, detail, ..consents::row_of(consent, row) })?;
    put_consent(tx, &withdrawn, context, now)?;
    let message =
        format!("Question {} was taken back, and nothing was started: {}", consent.id, refusal.message);
    Ok(Refusal::new(Code::Conflict, message)
        .hint(format!("Look at it with `cortex consent show {}`; whoever asked may ask anew.", consent.id))
        .detail("standing", withdrawn.standing.as_str())
        .detail("why", refusal.code.as_str()))
}

/// Whether whoever asked may still start runs there, as this transaction sees it.
fn may_still_ask(
    tx: &dyn Tx,
    consent: &Consent,
    node: Option<&Node>,
    now: WallTime,
) -> Result<Result<(), Refusal>, WriteError> {
    let who = match principal(tx, consent.token, now)? {
        Ok(who) => who,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let gone = || Refusal::new(Code::NodeNotFound, "The node was removed.");
    Ok(node.ok_or_else(gone).and_then(|node| who.on(Right::RunsStart, node)))
}

/// Whether a lasting answer was ended since it was found: then the command is not what it covers.
pub(super) fn ended(tx: &dyn Tx, rule: &ConsentRule) -> Result<Option<Refusal>, StoreError> {
    if tx.consent_rules()?.iter().any(|held| held.id == rule.id) {
        return Ok(None);
    }
    let message = format!("The lasting answer {} was ended at this moment.", rule.id);
    Ok(Some(Refusal::new(Code::Conflict, message).hint("Send the command again: a person is asked then.")))
}

/// Who allowed a run beside the policy, for the audit log.
pub(super) fn allowed_by(one: &Judged) -> Option<String> {
    if let Some(approval) = &one.approval {
        return Some(format!("approved by {}", approval.by.actor()));
    }
    match &one.verdict {
        Ok(Verdict::Start { lasting: Some(rule), .. }) => {
            Some(format!("by the lasting answer {} of {}", rule.id, rule.made_by))
        }
        Ok(Verdict::Start { lasting: None, .. } | Verdict::Ask { .. }) | Err(_) => None,
    }
}

/// Whether waiting changes nothing about it.
const fn is_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::PolicyDenied
            | Code::PolicyInvalid
            | Code::Forbidden
            | Code::NodeNotFound
            | Code::NodeRevoked
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::TooLarge
            | Code::TooComplex
    )
}

const fn reply_words(reply: &Reply) -> &'static str {
    match reply {
        Reply::Once => "once",
        Reply::For(_) => "this command for a time",
        Reply::Pattern { .. } => "commands that begin like it",
        Reply::Deny { .. } => "no",
    }
}
