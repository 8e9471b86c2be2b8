//! From inner types to the shapes of `cortex_wire::http`. Never a secret, never a decision.

use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::audit::Outcome;
use cortex_core::consent::{Consent, ConsentRule};
use cortex_core::event::Event;
use cortex_core::id::{NodeId, Seq};
use cortex_core::invite::{Invite, to_hex};
use cortex_core::limits::LOCK_MESSAGE_BYTES_MAX;
use cortex_core::lock::{Lock, Target};
use cortex_core::name::printable;
use cortex_core::node::{Node, Recovery};
use cortex_core::policy::{Policy, Program};
use cortex_core::rights::Rights;
use cortex_core::run::Run;
use cortex_core::sandbox::Layer;
use cortex_core::time::WallTime;
use cortex_core::token::{NodeScope, Token};
use cortex_core::user::{RoleGrant, Subject, User};
use cortex_store::LoggedAudit;
use cortex_wire::http::{
    AuditVerdictView, AuditView, ConsentRuleView, ConsentView, EventView, GrantView, InviteView, LayerView,
    LockView, NodeLock, NodeView, PolicyView, RecoveriesView, RoleGrantView, RunView, TokenView, UserView,
};
use cortex_wire::policy::DocumentText;

use crate::directory::Directory;
use crate::service::audit::verify::Verdict;
use crate::service::consents;
use crate::service::locks::Shown;
use crate::service::nodes::NodeStatus;

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn time(at: WallTime) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| format!("{at:.3}"))
}

/// A node.
pub(crate) fn node(status: &NodeStatus, now: WallTime) -> NodeView {
    let NodeStatus { node, policy, presence, runs_open, lock } = status;
    let state = match (node.quarantined, presence) {
        (true, _) => "quarantined",
        (false, Some(_)) => "online",
        (false, None) => "offline",
    };
    let seen = if presence.is_some() { Some(now) } else { node.last_seen_at };
    NodeView {
        id: node.id.to_string(),
        name: node.name.to_string(),
        state: state.to_owned(),
        labels: node.labels.clone(),
        os: node.facts.os.clone(),
        arch: node.facts.arch.clone(),
        hostname: node.facts.hostname.clone(),
        version: node.facts.version.clone(),
        cpus: node.facts.cpus,
        memory_bytes: node.facts.memory_bytes,
        tools: node.facts.tools.clone(),
        policy_mode: policy.document.mode.as_str().to_owned(),
        policy_profile: policy.profile.clone(),
        policy_revision: policy.revision.0,
        sandbox: node.facts.sandbox.clone(),
        layers: node.facts.layers.iter().map(layer).collect(),
        work: node.facts.place.work.clone(),
        epoch: presence.map_or(node.epoch, |presence| presence.epoch).0,
        runs_open: *runs_open,
        lock: lock.as_ref().map(node_lock),
        last_seen_at: seen.map(time),
        joined_at: time(node.joined_at),
    }
}

fn layer(layer: &Layer) -> LayerView {
    LayerView { name: layer.name.clone(), state: layer.state.as_str().to_owned(), note: layer.note.clone() }
}

fn node_lock(lock: &Lock) -> NodeLock {
    NodeLock {
        id: lock.id.to_string(),
        message: lock.refusal().message,
        expires_at: lock.expires_at.map(time),
    }
}

/// A run on the node of that name.
pub(crate) fn run(run: &Run, node: &str) -> RunView {
    RunView {
        id: run.id.to_string(),
        node: node.to_owned(),
        node_id: run.node.to_string(),
        state: run.state.as_str().to_owned(),
        argv: run.spec.argv.clone(),
        cwd: run.spec.cwd.clone(),
        timeout_ms: run.spec.timeout_ms,
        stdin: run.spec.stdin,
        code: run.code,
        signal: run.signal,
        caller: run.caller.clone(),
        policy_revision: run.policy_revision.0,
        sandbox: run.sandbox.clone(),
        accepted_at: time(run.accepted_at),
        started_at: run.started_at.map(time),
        ended_at: run.ended_at.map(time),
        duration_ms: run.duration_ms,
        output_bytes: run.output.total(),
        stdout_bytes: run.output.stdout,
        stderr_bytes: run.output.stderr,
        cancelled_by: run.cancelled_by.clone(),
        diagnostic: run.diagnostic.clone(),
        consent: run.consent.map(|id| id.to_string()),
        task_id: run.task.map(|(task, _)| task.to_string()),
        attempt: run.task.map(|(_, attempt)| attempt.0),
    }
}

/// A question on the node of that name.
pub(crate) fn consent(consent: &Consent, node: &str) -> ConsentView {
    let Consent { spec, .. } = consent;
    ConsentView {
        id: consent.id.to_string(),
        standing: consent.standing.as_str().to_owned(),
        run_id: consent.run.to_string(),
        node: node.to_owned(),
        node_id: consent.node.to_string(),
        caller: consent.caller.clone(),
        argv: spec.argv.clone(),
        cwd: spec.cwd.clone(),
        env_names: spec.env.iter().map(|(name, _)| name.clone()).collect(),
        stdin: spec.stdin,
        timeout_ms: spec.timeout_ms,
        reason: consent.reason.clone(),
        rule: consent.rule.clone(),
        notes: consent.notes.clone(),
        answered_by: consent.answered_by.clone(),
        note: consent.note.clone(),
        created_at: time(consent.created_at),
        expires_at: time(consent.expires_at),
        answered_at: consent.answered_at.map(time),
    }
}

/// An answer that lasts, on the node of that name.
pub(crate) fn consent_rule(rule: &ConsentRule, node: &str, directory: &Directory) -> ConsentRuleView {
    let token = directory.token_of(rule.token);
    ConsentRuleView {
        id: rule.id.to_string(),
        node: node.to_owned(),
        node_id: rule.node.to_string(),
        token_id: rule.token.to_string(),
        token: token.map_or_else(|| rule.token.to_string(), |token| token.name.to_string()),
        pattern: rule.pattern.0.clone(),
        exact: rule.exact,
        cwd: rule.cwd.clone(),
        env_names: rule.env.iter().map(|(name, _)| name.clone()).collect(),
        until: rule.until.map(time),
        made_by: rule.made_by.clone(),
        made_at: time(rule.made_at),
    }
}

/// What whoever asked is told while the question waits.
pub(crate) fn consent_required(consent: &Consent, node: &str) -> Refusal {
    consents::required(consent, node).detail("expires_at", time(consent.expires_at))
}

/// An invite, without its secret.
pub(crate) fn invite(invite: &Invite, now: WallTime) -> InviteView {
    let state = if invite.revoked_at.is_some() {
        "revoked"
    } else if invite.used_by.is_some() {
        "used"
    } else if invite.expires_at <= now {
        "expired"
    } else {
        "open"
    };
    InviteView {
        id: invite.id.to_string(),
        state: state.to_owned(),
        labels: invite.labels.clone(),
        profile: invite.profile.clone(),
        max_profile: invite.max_profile.clone(),
        owner: invite.owner.map(|owner| owner.to_string()),
        created_by: invite.created_by.clone(),
        created_at: time(invite.created_at),
        expires_at: time(invite.expires_at),
        used_by: invite.used_by.map(|node| node.to_string()),
    }
}

/// How often a node may recover its identity.
pub(crate) fn recoveries(node: &Node, recovery: &Recovery) -> RecoveriesView {
    RecoveriesView { node: node.name.to_string(), used: recovery.count, left: recovery.left }
}

/// A lock.
pub(crate) fn lock(shown: &Shown, now: WallTime) -> LockView {
    let lock = &shown.lock;
    let state = if lock.lifted_at.is_some() {
        "removed"
    } else if lock.holds(now) {
        "holds"
    } else {
        "expired"
    };
    let target_id = match &lock.target {
        Target::User(id) => Some(id.to_string()),
        Target::Token(id) => Some(id.to_string()),
        Target::Node(id) => Some(id.to_string()),
        Target::Label(..) => None,
    };
    LockView {
        id: lock.id.to_string(),
        target: shown.target.clone(),
        target_id,
        state: state.to_owned(),
        message: printable(&lock.message, LOCK_MESSAGE_BYTES_MAX),
        created_by: lock.created_by.clone(),
        created_at: time(lock.created_at),
        expires_at: lock.expires_at.map(time),
    }
}

/// A token, without its secret.
pub(crate) fn token(token: &Token, directory: &Directory, now: WallTime) -> TokenView {
    let state = match (token.revoked_at, token.check(now)) {
        (Some(_), _) => "revoked",
        (None, Err(_)) => "expired",
        (None, Ok(())) => "live",
    };
    let name = |id: &NodeId| directory.node(*id).map_or_else(|| id.to_string(), |node| node.name.to_string());
    let (nodes, selector) = match &token.nodes {
        None => (None, None),
        Some(NodeScope::Nodes(ids)) => (Some(ids.iter().map(name).collect()), None),
        Some(NodeScope::Selector(selector)) => (None, Some(selector.to_string())),
    };
    let user =
        token.user.map(|id| directory.user(id).map_or_else(|| id.to_string(), |user| user.name.to_string()));
    TokenView {
        id: token.id.to_string(),
        name: token.name.to_string(),
        role: token.role.as_str().to_owned(),
        state: state.to_owned(),
        created_at: time(token.created_at),
        expires_at: token.expires_at.map(time),
        kind: token.kind.as_str().to_owned(),
        user,
        rights: token.rights.map(rights),
        nodes,
        selector,
        tools: tools(token),
    }
}

/// Rights as words.
pub(crate) fn rights(rights: Rights) -> Vec<String> {
    rights.iter().map(|right| right.as_str().to_owned()).collect()
}

/// The tools of a token as words.
pub(crate) fn tools(token: &Token) -> Option<Vec<String>> {
    token.tools.as_ref().map(|tools| tools.iter().map(|tool| tool.as_str().to_owned()).collect())
}

/// A user with the roles that it and its groups have.
pub(crate) fn user(user: &User, grants: &[RoleGrant]) -> UserView {
    let name = |subject: &Subject| match subject {
        Subject::User(_) => format!("user:{}", user.name),
        Subject::Group(group) => format!("group:{group}"),
    };
    let own = grants.iter().filter(|grant| grant.is_of(user));
    UserView {
        id: user.id.to_string(),
        name: user.name.to_string(),
        groups: user.groups.iter().map(ToString::to_string).collect(),
        can_log_in: user.password.is_some(),
        roles: own.map(|grant| role_grant(grant, name(&grant.subject))).collect(),
        created_at: time(user.created_at),
    }
}

/// A role that was given.
pub(crate) fn grant(grant: &RoleGrant, users: &[Arc<User>]) -> RoleGrantView {
    let subject = match &grant.subject {
        Subject::Group(group) => format!("group:{group}"),
        Subject::User(id) => {
            let user = users.iter().find(|user| user.id == *id);
            format!("user:{}", user.map_or_else(|| id.to_string(), |user| user.name.to_string()))
        }
    };
    role_grant(grant, subject)
}

fn role_grant(grant: &RoleGrant, subject: String) -> RoleGrantView {
    RoleGrantView {
        id: grant.id.to_string(),
        subject,
        role: grant.role.as_str().to_owned(),
        selector: grant.selector.to_string(),
        created_by: grant.created_by.clone(),
        created_at: time(grant.created_at),
    }
}

/// A policy.
pub(crate) fn policy(node: &Node, policy: &Policy) -> PolicyView {
    let document = &policy.document;
    let grant =
        |program: &Program| GrantView { program: program.name.clone(), until: program.until.map(time) };
    PolicyView {
        node: node.name.to_string(),
        revision: policy.revision.0,
        profile: policy.profile.clone(),
        mode: document.mode.as_str().to_owned(),
        allow: document.programs.iter().map(grant).collect(),
        deny: document.deny.clone(),
        env: document.env.clone(),
        timeout_ms_max: document.timeout_ms_max,
        changed_at: time(policy.changed_at),
        document: DocumentText::from(document),
    }
}

/// A row of the audit log.
pub(crate) fn audit(logged: &LoggedAudit) -> AuditView {
    let row = &logged.row;
    let outcome = match row.outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
    };
    AuditView {
        seq: logged.seq.0,
        at: time(row.at),
        actor: row.actor.clone(),
        action: row.action.clone(),
        outcome: outcome.to_owned(),
        reason: row.reason.clone(),
        node: row.node.map(|id| id.to_string()),
        run: row.run.map(|id| id.to_string()),
        policy_revision: row.policy_revision.map(|revision| revision.0),
        argv: row.argv.clone(),
        detail: row.detail.clone(),
        token: row.token.map(|id| id.to_string()),
        policy_hash: row.policy_hash.as_ref().map(|hash| to_hex(hash)),
        consent: row.consent.map(|id| id.to_string()),
        hash: to_hex(&logged.hash),
    }
}

/// What became of a verification of the audit log.
pub(crate) fn verdict(verdict: &Verdict) -> AuditVerdictView {
    let broken = verdict.broken.as_ref();
    AuditVerdictView {
        ok: broken.is_none(),
        rows: verdict.head.seq.0,
        head: to_hex(&verdict.head.hash),
        witnesses: verdict.witnesses,
        broken_at: broken.and_then(|broken| broken.at).map(|seq| seq.0),
        why: broken.map(|broken| broken.why.clone()),
    }
}

/// An event.
pub(crate) fn event(seq: Seq, event: &Event) -> EventView {
    EventView {
        seq: seq.0,
        kind: event.kind.as_str().to_owned(),
        at: time(event.at),
        node: event.node.map(|id| id.to_string()),
        run: event.run.map(|id| id.to_string()),
        actor: event.actor.clone(),
        subject: event.subject.clone(),
        detail: event.detail.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(time(WallTime(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(WallTime(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
    }
}
