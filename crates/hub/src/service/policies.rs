//! Policies: shown, set, loosened and tightened, each change signed, with its difference in words in
//! the audit log, and pushed to the node once it is durable. A test of a command, or of an operation on
//! files, is the answer that its node would give.

mod change;
mod profiles;
pub(crate) mod signed;
mod words;

use std::sync::Arc;
use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::files::op::FileOp;
use cortex_core::id::{NodeId, Revision};
use cortex_core::invite::within_bound;
use cortex_core::message::SignedPolicy;
use cortex_core::node::Node;
use cortex_core::policy::{self, Answer, Document, FileQuestion, Mode, Policy, Question};
use cortex_core::rights::Right;
use cortex_core::run::RunSpec;
use cortex_core::sandbox::Level;
use cortex_core::token::{Token, TokenKind};
use cortex_core::{Code, Refusal};
use cortex_store::{StoredPolicy, Tx, WriteError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::mesh::{Asker, Mesh};
use crate::service::{Caller, Context, anew, nodes, targets};

pub use change::Change;
pub(super) use change::unknown_profile;
pub use profiles::Profile;
pub use signed::settle;

/// When a policy that could not be expired is tried again.
const EXPIRY_RETRY: Duration = Duration::from_secs(10);

/// The use cases of policies. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    context: Context,
    mesh: Mesh,
    authority: Arc<Authority>,
    changed: Arc<Notify>,
}

/// How to make a change.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Only when this is the revision that is changed.
    pub expected: Option<Revision>,
    /// End live runs that the new policy would refuse.
    pub kill: bool,
}

/// What would be said to a command, or to an operation on files.
pub struct Verdict {
    /// The answer, or the refusal.
    pub answer: Result<Answer, Refusal>,
    /// The level that the node reached; `None` before it ever was here.
    pub level: Option<Level>,
}

/// One revision of a policy.
pub struct Past {
    /// The row.
    pub stored: StoredPolicy,
    /// What it says; `None` when it cannot be verified.
    pub policy: Option<Policy>,
    /// What it changed; empty for the oldest that is kept.
    pub words: String,
}

/// With what a policy is compared.
#[derive(Clone, Debug)]
pub enum Against {
    /// A profile, built in or kept.
    Profile(String),
    /// A document.
    Document(Box<Document>),
    /// An earlier revision.
    Revision(Revision),
}

impl Policies {
    /// The use cases over `context`.
    pub fn new(context: Context, mesh: Mesh, authority: Arc<Authority>) -> Self {
        Self { context, mesh, authority, changed: Arc::default() }
    }

    /// The policy of a node by name or id.
    pub fn get(&self, caller: &Caller, node: &str) -> Result<(Arc<Node>, Arc<Policy>), Refusal> {
        let node = targets::find_for(&self.context.directory, caller, Right::PolicyRead, node)?;
        let policy = self.context.directory.policy(node.id, node.joined_at);
        Ok((node, policy))
    }

    /// At most `limit` policies that the caller sees, by the names of their nodes, from memory.
    pub fn list(&self, caller: &Caller, after: Option<&str>, limit: usize) -> Vec<(Arc<Node>, Arc<Policy>)> {
        let directory = &self.context.directory;
        let nodes = directory.nodes().into_iter().filter(|node| caller.has(Right::PolicyRead, node));
        let page = nodes.filter(|node| after.is_none_or(|after| node.name.as_str() > after)).take(limit);
        page.map(|node| (Arc::clone(&node), directory.policy(node.id, node.joined_at))).collect()
    }

    /// Changes a policy. Needs `policy:write` on the node, and for PERMISSIVE a token without limits.
    /// `Conflict` when another revision was expected.
    pub async fn change(
        &self,
        caller: &Caller,
        node: &str,
        change: Change,
        terms: Terms,
    ) -> Result<(Arc<Node>, Arc<Policy>), Refusal> {
        let node = targets::find_for(&self.context.directory, caller, Right::PolicyWrite, node)?;
        let policy = self.apply(node.id, change, terms, Some(caller.clone())).await?;
        Ok((node, policy))
    }

    /// What would be said to a command, by the policy, the ceiling and the level of its node. The
    /// outer result is about the question.
    ///
    /// # Errors
    /// `node_not_found`, and what [`RunSpec::check`] says.
    pub fn test(&self, caller: &Caller, node: &str, spec: &RunSpec) -> Result<Verdict, Refusal> {
        let (node, policy) = self.get(caller, node)?;
        spec.check()?;
        let (site, now) = (self.context.directory.site(node.id), Some(self.context.clock.wall()));
        let question = Question { spec, node: node.name.as_str(), site: &site, now, consent: false };
        Ok(Verdict { answer: policy::judge(&policy.document, &question), level: site.ground.level })
    }

    /// The same for an operation on files. Whether the path is a link that leads out of its folder, or one of
    /// the folders that the node itself lives by, the node alone knows.
    ///
    /// # Errors
    /// `node_not_found`, and what [`FileOp::check`] says.
    pub fn test_file(&self, caller: &Caller, node: &str, op: &FileOp) -> Result<Verdict, Refusal> {
        let (node, policy) = self.get(caller, node)?;
        op.check()?;
        let site = self.context.directory.site(node.id);
        let name = node.name.as_str();
        let question = FileQuestion { op, node: name, site: &site, reserved: &[], consent: false };
        Ok(Verdict { answer: policy::judge_files(&policy.document, &question), level: site.ground.level })
    }

    /// Revisions below `before`, newest first, at most `limit`, each with what it changed.
    ///
    /// # Errors
    /// `node_not_found`, `store_unavailable`.
    pub async fn history(
        &self,
        caller: &Caller,
        node: &str,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<Past>, Refusal> {
        let id = self.get(caller, node)?.0.id;
        let rows = self.context.view(move |view| view.policy_history(id, before, limit + 1)).await?;
        let read: Vec<Option<Policy>> = rows
            .iter()
            .map(|row| signed::read(&self.authority, row).ok().map(|(policy, _)| policy))
            .collect();
        let past = rows.into_iter().take(limit).enumerate().map(|(at, stored)| {
            let policy = read.get(at).cloned().flatten();
            let words = match (read.get(at + 1), &policy) {
                (Some(Some(earlier)), Some(policy)) => words::sentence(earlier, policy),
                (Some(None) | None, _) | (Some(Some(_)), None) => String::new(),
            };
            Past { stored, policy, words }
        });
        Ok(past.collect())
    }

    /// What setting a node to something else would change, as lines for people.
    ///
    /// # Errors
    /// `node_not_found`, `invalid_argument` for an unknown profile, `not_found` for a revision that
    /// is not kept, `store_unavailable`.
    pub async fn diff(&self, caller: &Caller, node: &str, against: Against) -> Result<Vec<String>, Refusal> {
        let policy = self.get(caller, node)?.1;
        let now = self.context.clock.wall();
        let change = match against {
            Against::Profile(name) => Change::Profile(name),
            Against::Document(document) => Change::Document(document),
            Against::Revision(revision) => Change::Rollback(revision),
        };
        let (authority, before) = (Arc::clone(&self.authority), Policy::clone(&policy));
        let look = move |view: &dyn cortex_store::Read| match change.apply(view, &authority, &before, now) {
            Ok(after) => Ok(Ok(after)),
            Err(cortex_store::WriteError::Refused(refusal)) => Ok(Err(refusal)),
            Err(cortex_store::WriteError::Store(error)) => Err(error),
        };
        let after = self.context.view(look).await??;
        Ok(words::lines(&policy.document, &after.document, now))
    }

    /// Takes ended leave out of policies until `shutdown`; sleeps until the next one ends. A policy
    /// for which that fails keeps no other from it, and is tried again.
    pub async fn run_expiry(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            let now = Some(self.context.clock.wall());
            let mut failed = false;
            for policy in self.context.directory.policies() {
                if policy.document.programs.iter().any(|program| !program.holds(now))
                    && let Err(refusal) = self.expire(policy.node).await
                {
                    tracing::error!(node_id = %policy.node, %refusal, "leave has ended and stays in its policy");
                    failed = true;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EXPIRY_RETRY), if failed => {}
                () = self.next_end() => {}
                () = self.changed.notified() => {}
                () = shutdown.cancelled() => break,
            }
        }
        Ok(())
    }

    async fn expire(&self, node: NodeId) -> Result<(), Refusal> {
        self.apply(node, Change::Expire, Terms::default(), None).await.map(drop)
    }

    async fn next_end(&self) {
        let now = self.context.clock.wall();
        let policies = self.context.directory.policies();
        match policies.iter().filter_map(|policy| policy.document.next_expiry(now)).min() {
            Some(end) => {
                let ms = u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Changes a policy for `caller`; without one for the hub itself.
    async fn apply(
        &self,
        node: NodeId,
        change: Change,
        terms: Terms,
        caller: Option<Caller>,
    ) -> Result<Arc<Policy>, Refusal> {
        let actor = caller.as_ref().map_or_else(|| "hub".to_owned(), |caller| caller.actor());
        let (now, authority) = (self.context.clock.wall(), Arc::clone(&self.authority));
        let Terms { expected, kill } = terms;
        let work = move |tx: &mut dyn Tx| {
            let record = nodes::live(tx, node)?;
            let caller = caller.map(|caller| anew(tx, &caller, now)).transpose()?;
            caller.as_ref().map_or(Ok(()), |caller| caller.on(Right::PolicyWrite, &record))?;
            let before = signed::newest(tx, &authority, &record)?;
            expect(&record, &before, expected)?;
            let plain = change.action(false);
            let after = change.clone().apply(tx, &authority, &before, now)?;
            let opens = after.document.mode == Mode::Permissive && before.document.mode == Mode::Strict;
            if after.document.mode == Mode::Permissive {
                caller.as_ref().map_or(Ok(()), |caller| may_open(&caller.token))?;
            }
            keep_bound(tx, node, &before, &after)?;
            let action = if opens { change.action(true) } else { plain };
            let words = words::sentence(&before, &after);
            let stored = signed::sign(&authority, tx.generation()?, &after, &actor)?;
            tx.put_policy(&stored)?;
            let event = Event::new(EventKind::PolicyChanged, now).node(node).actor(actor.as_str());
            tx.append_event(&event.subject(record.name.as_str()).detail(words.as_str()))?;
            let row = AuditRow::new(now, actor, action, Outcome::Allowed);
            let (detail, token) = (Some(words), caller.map(|caller| caller.token.id));
            signed::append(tx, &after, &stored, AuditRow { detail, token, ..row })?;
            Ok(signed::hold(&authority, stored))
        };
        let this = self.clone();
        let after = move |signed: &SignedPolicy| this.follow(node, signed, kill);
        let signed = self.context.commit(work, after).await?;
        signed
            .policy
            .map(Arc::from)
            .ok_or_else(|| Refusal::new(Code::Internal, "A policy was not read back."))
    }

    /// What follows a committed change.
    fn follow(&self, node: NodeId, signed: &SignedPolicy, kill: bool) {
        self.context.directory.put_policy(signed.clone());
        self.mesh.push_policy(node, signed.clone());
        if let Some(policy) = signed.policy.as_ref().filter(|_| kill) {
            self.end_refused(policy);
        }
        self.changed.notify_one();
    }

    /// Ends the live runs that the policy would refuse. A person's yes to a run is not undone by
    /// rules that it lifts.
    fn end_refused(&self, policy: &Policy) {
        let site = self.context.directory.site(policy.node);
        let now = Some(self.context.clock.wall());
        let refused = |run: &cortex_core::run::Run| {
            let consent = run.consent.is_some();
            let question = Question { spec: &run.spec, node: "the node", site: &site, now, consent };
            let answer = policy::judge(&policy.document, &question);
            run.node == policy.node && answer.and_then(|answer| answer.allowed("the node")).is_err()
        };
        self.mesh.end_runs(refused, &format!("policy:{}", policy.revision));
        // Each is short: it is judged anew when it is asked for again.
        let why = format!("The policy of its node changed, to revision {}.", policy.revision);
        let ended = |by: &Asker| (by.node == policy.node).then(|| Refusal::new(Code::PolicyDenied, &*why));
        self.mesh.end_files(ended);
        self.mesh.look_at_transfers(policy.node);
    }
}

/// Refuses a policy beyond the bound of the invite by which its node joined. What only tightens is
/// never refused, whatever held before.
fn keep_bound(tx: &dyn Tx, node: NodeId, before: &Policy, after: &Policy) -> Result<(), WriteError> {
    let bound = tx.invite_of(node)?.and_then(|invite| invite.max_profile);
    match within_bound(bound.as_deref(), &after.document) {
        Err(_) if after.document.is_within(&before.document) => Ok(()),
        within => Ok(within?),
    }
}

fn expect(record: &Node, before: &Policy, expected: Option<Revision>) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != before.revision => {
            let message =
                format!("The policy of {} has revision {}, not {expected}.", record.name, before.revision);
            Err(Refusal::new(Code::Conflict, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Who may have a node without walls: nobody with a token that was made for less than everything.
pub(super) fn may_open(token: &Token) -> Result<(), Refusal> {
    if token.kind != TokenKind::Client && token.nodes.is_none() && token.rights.is_none() {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Forbidden,
        "A token with limits cannot make a node PERMISSIVE, or change one that is.",
    )
    .hint("Ask an administrator whose token has no limits, or set a STRICT profile."))
}
