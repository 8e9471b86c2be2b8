//! The refusals that a store makes by itself, in the same words whichever store it is.

use cortex_core::files::entity::FileTask;
use cortex_core::id::Revision;
use cortex_core::name::printable;
use cortex_core::node::Node;
use cortex_core::pool::Task;
use cortex_core::pool::schedule::Schedule;
use cortex_core::run::Run;
use cortex_core::skill::SkillRow;
use cortex_core::token::Token;
use cortex_core::user::User;
use cortex_core::workspace::{Member, Workspace};
use cortex_core::{Code, Refusal};

use crate::{StoredPolicy, WriteError};

pub(crate) fn node_name(node: &Node) -> WriteError {
    let name = &node.name;
    Refusal::new(Code::Conflict, format!("Another node has the name `{name}`."))
        .hint(format!("Choose another name, or remove the other node with `cortex node rm {name}` first."))
        .into()
}

pub(crate) fn token_name(token: &Token) -> WriteError {
    let name = &token.name;
    Refusal::new(Code::Conflict, format!("Another live token has the name `{name}`."))
        .hint(format!("Choose another name, or revoke the other with `cortex token revoke {name}` first."))
        .into()
}

pub(crate) fn user_name(user: &User) -> WriteError {
    let name = &user.name;
    Refusal::new(Code::Conflict, format!("Another user has the name `{name}`."))
        .hint(format!("Choose another name, or remove the other user with `cortex user rm {name}` first."))
        .into()
}

pub(crate) fn policy_revision(policy: &StoredPolicy, stored: Revision) -> WriteError {
    Refusal::new(
        Code::Conflict,
        format!("The policy has revision {stored} by now; revision {} cannot follow it.", policy.revision),
    )
    .hint("Read the policy again with `cortex policy get`, then repeat the change.")
    .detail("revision", stored.to_string())
    .into()
}

pub(crate) fn run_key(run: &Run) -> WriteError {
    Refusal::new(Code::Conflict, format!("Run {} repeats the idempotency key of an earlier run.", run.id))
        .hint("Use the run that has this key, or choose a new key.")
        .into()
}

pub(crate) fn file_op_key(task: &FileTask) -> WriteError {
    let message = format!("Operation {} repeats the idempotency key of an earlier operation.", task.id);
    Refusal::new(Code::Conflict, message)
        .hint("Use the operation that has this key, or choose a new key.")
        .into()
}

pub(crate) fn schedule_name(schedule: &Schedule) -> WriteError {
    Refusal::new(Code::Conflict, format!("You have another schedule `{}`.", schedule.name))
        .hint("Choose another name, or remove the other one with `cortex task schedule rm` first.")
        .into()
}

pub(crate) fn task_key(task: &Task) -> WriteError {
    Refusal::new(Code::Conflict, format!("Task {} repeats the idempotency key of an earlier task.", task.id))
        .hint("Use the task that has this key, or choose a new key.")
        .into()
}

pub(crate) fn workspace_name(ws: &Workspace) -> WriteError {
    let name = &ws.name;
    Refusal::new(Code::Conflict, format!("Another workspace has the name `{name}`."))
        .hint(format!("Choose another name, or remove the other with `cortex workspace rm {name}` first."))
        .into()
}

pub(crate) fn workspace_head(ws: &Workspace, stored: Revision) -> WriteError {
    Refusal::new(Code::Conflict, format!("Workspace {} is at revision {stored} by now.", ws.name))
        .hint("Read the present state and decide again.")
        .detail("head", stored.to_string())
        .into()
}

pub(crate) fn member_path(member: &Member) -> WriteError {
    let path = printable(member.path.as_str(), 200);
    Refusal::new(Code::Conflict, format!("Another member has the folder `{path}`."))
        .hint("Choose a folder beside it, or detach that member first.")
        .into()
}

pub(crate) fn skill_revision(row: &SkillRow, stored: Revision) -> WriteError {
    let message = format!("Skill {} is at revision {stored}; revision {} cannot follow it.", row.name, row.n);
    Refusal::new(Code::Conflict, message)
        .hint("Read the newest revision with `cortex skill show NAME`, and promote on top of it.")
        .detail("head", stored.to_string())
        .into()
}
