//! Policies: shown, set, loosened and tightened by administrators, each change with its difference
//! in words in the audit log, and pushed to the node once it is durable.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{NodeId, Revision};
use cortex_core::limits::{PATH_BYTES_MAX, POLICY_PROGRAMS_MAX};
use cortex_core::name::printable;
use cortex_core::node::Node;
use cortex_core::policy::{Grant, PROFILES, Policy};
use cortex_core::rights::Right;
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::Tx;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::mesh::Mesh;
use crate::service::{Caller, Context, nodes, targets};

/// When a policy that could not be expired is tried again.
const EXPIRY_RETRY: Duration = Duration::from_secs(10);

/// The use cases of policies. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    context: Context,
    mesh: Mesh,
    changed: Arc<Notify>,
}

/// What to do to a policy.
#[derive(Clone, Debug)]
pub enum Change {
    /// The built-in profile of that name.
    Profile(String),
    /// Leave to start a program, for milliseconds or for good.
    Allow(String, Option<u64>),
    /// No leave to start a program, whatever else is said.
    Deny(String),
    /// Grants that have ended go.
    Expire,
}

impl Policies {
    /// The use cases over `context`.
    pub fn new(context: Context, mesh: Mesh) -> Self {
        Self { context, mesh, changed: Arc::default() }
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

    /// Changes a policy. Needs `policy:write` on the node. `Conflict` when `expected` is given and is not
    /// the revision that is changed.
    pub async fn change(
        &self,
        caller: &Caller,
        node: &str,
        change: Change,
        expected: Option<Revision>,
    ) -> Result<(Arc<Node>, Policy), Refusal> {
        let node = targets::find_for(&self.context.directory, caller, Right::PolicyWrite, node)?;
        let policy = self.apply(node.id, change, expected, caller.actor()).await?;
        Ok((node, policy))
    }

    /// What would be said to a command: the rule that allows it, or the refusal. The outer
    /// result is about the question, the inner one is the answer.
    pub fn test(
        &self,
        caller: &Caller,
        node: &str,
        spec: &RunSpec,
    ) -> Result<Result<&'static str, Refusal>, Refusal> {
        let (node, policy) = self.get(caller, node)?;
        spec.check()?;
        Ok(policy.check(spec, node.name.as_str(), self.context.clock.wall()))
    }

    /// Takes ended grants out of policies until `shutdown`; sleeps until the next one ends. A policy
    /// for which that fails keeps no other from it, and is tried again.
    pub async fn run_expiry(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            let now = self.context.clock.wall();
            let mut failed = false;
            for policy in self.context.directory.policies() {
                if policy.allow.iter().any(|grant| grant.until.is_some_and(|end| end <= now))
                    && let Err(refusal) =
                        self.apply(policy.node, Change::Expire, None, "hub".to_owned()).await
                {
                    tracing::error!(node_id = %policy.node, %refusal, "a grant has ended and stays in its policy");
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

    async fn next_end(&self) {
        let now = self.context.clock.wall();
        let policies = self.context.directory.policies();
        match policies.iter().filter_map(|policy| policy.next_expiry(now)).min() {
            Some(end) => {
                let ms = u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            None => std::future::pending().await,
        }
    }

    async fn apply(
        &self,
        node: NodeId,
        change: Change,
        expected: Option<Revision>,
        actor: String,
    ) -> Result<Policy, Refusal> {
        let now = self.context.clock.wall();
        let work = move |tx: &mut dyn Tx| {
            let record = nodes::live(tx, node)?;
            let before = tx.policy(node)?.unwrap_or_else(|| Policy::strict(node, record.joined_at));
            if let Some(expected) = expected
                && expected != before.revision
            {
                let message = format!(
                    "The policy of {} has revision {}, not {expected}.",
                    record.name, before.revision
                );
                return Err(Refusal::new(Code::Conflict, message).into());
            }
            let action = change.action();
            let after = change.apply(&before, now)?;
            let words = difference(&before, &after);
            tx.put_policy(&after)?;
            let event = Event::new(EventKind::PolicyChanged, now).node(node).actor(actor.as_str());
            tx.append_event(&event.subject(record.name.as_str()).detail(words.as_str()))?;
            let row = AuditRow::new(now, actor, action, Outcome::Allowed);
            let policy_revision = Some(after.revision);
            tx.append_audit(&AuditRow { node: Some(node), policy_revision, detail: Some(words), ..row })?;
            Ok(after)
        };
        let (directory, mesh, changed) =
            (self.context.directory.clone(), self.mesh.clone(), Arc::clone(&self.changed));
        let after = move |policy: &Policy| {
            directory.put_policy(policy.clone());
            mesh.push_policy(Arc::new(policy.clone()));
            changed.notify_one();
        };
        self.context.commit(work, after).await
    }
}

impl Change {
    const fn action(&self) -> &'static str {
        match self {
            Self::Profile(_) => "policy.set",
            Self::Allow(..) => "policy.allow",
            Self::Deny(_) => "policy.deny",
            Self::Expire => "policy.expire",
        }
    }

    /// The policy after this change, one revision up. Ended grants go with every change.
    fn apply(self, before: &Policy, now: WallTime) -> Result<Policy, Refusal> {
        let revision = before.revision.next();
        let mut after = Policy { revision, changed_at: now, ..before.clone() };
        after.allow.retain(|grant| grant.until.is_none_or(|end| now < end));
        match self {
            Self::Profile(name) => {
                after = Policy::from_profile(before.node, &name, revision, now)
                    .ok_or_else(|| unknown_profile(&name))?;
            }
            Self::Allow(program, for_ms) => {
                check_program(&program)?;
                check_span(for_ms)?;
                after.deny.retain(|denied| *denied != program);
                after.allow.retain(|grant| grant.program != program);
                after.allow.push(Grant { program, until: for_ms.map(|ms| now.plus_ms(ms)) });
                after.allow.sort_by(|a, b| a.program.cmp(&b.program));
            }
            Self::Deny(program) => {
                check_program(&program)?;
                after.deny.push(program);
                after.deny.sort();
                after.deny.dedup();
            }
            Self::Expire => {}
        }
        if after.allow.len() + after.deny.len() > POLICY_PROGRAMS_MAX {
            let message = format!("The policy would name more than {POLICY_PROGRAMS_MAX} programs.");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        Ok(after)
    }
}

/// The refusal of a profile that is not built in.
pub(super) fn unknown_profile(name: &str) -> Refusal {
    let message = format!("There is no profile `{}`.", printable(name, 80));
    Refusal::new(Code::InvalidArgument, message).hint(format!("Use one of: {}.", PROFILES.join(", ")))
}

fn check_program(program: &str) -> Result<(), Refusal> {
    let plain = !program.is_empty() && program.len() <= PATH_BYTES_MAX && !program.contains(char::is_control);
    if plain && (!program.contains('/') || program.starts_with('/')) {
        return Ok(());
    }
    let message =
        format!("`program` is `{}`, which is neither a name nor an absolute path.", printable(program, 80));
    Err(Refusal::new(Code::InvalidArgument, message)
        .hint("Name a program such as `cargo`, or its absolute path."))
}

fn check_span(for_ms: Option<u64>) -> Result<(), Refusal> {
    /// A year: what is meant to last longer is granted for good.
    const SPAN_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;
    if for_ms.is_some_and(|ms| ms == 0 || ms > SPAN_MS_MAX) {
        let message = format!("`for_ms` must be above 0 and at most {SPAN_MS_MAX}; leave it out for no end.");
        return Err(Refusal::new(Code::InvalidArgument, message));
    }
    Ok(())
}

/// What a change did, for people: `mode STRICT -> PERMISSIVE; allow +cargo (for 3600 s) -ls; deny +rm`.
fn difference(before: &Policy, after: &Policy) -> String {
    let mut words = vec![format!("revision {} -> {}", before.revision, after.revision)];
    if before.profile != after.profile {
        words.push(format!("profile {} -> {}", before.profile, after.profile));
    }
    if before.mode != after.mode {
        let [from, to] = [before, after].map(|policy| policy.mode.as_str().to_uppercase());
        words.push(format!("mode {from} -> {to}"));
    }
    let allow = |policy: &Policy| policy.allow.iter().map(|grant| shown(grant, after.changed_at)).collect();
    words.extend(set_difference("allow", &allow(before), &allow(after)));
    let plain = |list: &[String]| list.iter().map(|item| printable(item, 80)).collect();
    words.extend(set_difference("deny", &plain(&before.deny), &plain(&after.deny)));
    words.extend(set_difference("env", &plain(&before.env), &plain(&after.env)));
    words.join("; ")
}

fn shown(grant: &Grant, now: WallTime) -> String {
    let program = printable(&grant.program, 80);
    match grant.until {
        Some(end) if end > now => format!("{program} (for {} s)", end.0.saturating_sub(now.0) / 1000),
        Some(_) => format!("{program} (ended)"),
        None => program,
    }
}

fn set_difference(what: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> Option<String> {
    let added = after.difference(before).map(|item| format!(" +{item}"));
    let removed = before.difference(after).map(|item| format!(" -{item}"));
    let words: String = added.chain(removed).collect();
    (!words.is_empty()).then(|| format!("{what}{words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict() -> Policy {
        Policy::strict(NodeId::mint(1, &[0; 10]), WallTime(0))
    }

    #[test]
    fn a_change_is_told_in_words() {
        let before = strict();
        let after =
            Change::Allow("cargo".to_owned(), Some(3_600_000)).apply(&before, WallTime(5)).expect("allowed");
        assert_eq!(difference(&before, &after), "revision 1 -> 2; allow +cargo (for 3600 s)");
        let last = Change::Profile("permissive".to_owned()).apply(&after, WallTime(6)).expect("known");
        assert_eq!(
            difference(&after, &last),
            "revision 2 -> 3; profile strict -> permissive; mode STRICT -> PERMISSIVE; allow -cargo (for 3599 s)"
        );
    }

    #[test]
    fn denying_wins_over_allowing_until_it_is_allowed_anew() {
        let denied = Change::Deny("echo".to_owned()).apply(&strict(), WallTime(1)).expect("denied");
        let spec = RunSpec { argv: vec!["echo".to_owned()], ..RunSpec::default() };
        assert_eq!(denied.check(&spec, "n", WallTime(1)).expect_err("denied").code, Code::PolicyDenied);
        let allowed = Change::Allow("echo".to_owned(), None).apply(&denied, WallTime(2)).expect("allowed");
        assert_eq!(allowed.check(&spec, "n", WallTime(2)), Ok("exec.allow"));
        assert_eq!(allowed.revision, Revision(3));
    }

    #[test]
    fn a_program_is_a_name_or_an_absolute_path() {
        for bad in ["", "a/b", "./x", "x\n", "x\0"] {
            assert_eq!(check_program(bad).expect_err(bad).code, Code::InvalidArgument);
        }
        for good in ["cargo", "/usr/bin/env", "c++"] {
            check_program(good).expect(good);
        }
    }
}
