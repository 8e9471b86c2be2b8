//! `cortex workspace ls|status`, and how a workspace looks to people.

use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_wire::http::{LeftOutView, MemberView, WorkspaceView};
use indicatif::HumanBytes;

use super::path;
use crate::cli::Context;
use crate::cli::args::{age, short, whole_argv};
use crate::cli::transfer::ended;
use crate::client::Client;
use crate::error::Result;

const LIST: [&str; 5] = ["NAME", "SOURCE", "REVISION", "LOCK", "MEMBERS"];
const MEMBERS: [&str; 6] = ["MEMBER", "ROLE", "STATE", "REVISION", "SEEN", "NOTE"];

/// List the workspaces.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex workspace ls")]
pub(super) struct Ls {}

impl Ls {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let all: Vec<WorkspaceView> = client.list("/workspaces", usize::MAX).await?;
        let empty = "There are no workspaces. Next: cortex workspace create NAME --lead NODE:PATH";
        context.output.list(&all, &LIST, row, empty)
    }
}

fn row(view: &WorkspaceView) -> Vec<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for member in &view.members {
        match counts.iter_mut().find(|(state, _)| *state == member.state) {
            Some((_, count)) => *count += 1,
            None => counts.push((&member.state, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    vec![
        printable(&view.name, 80),
        if view.mode == "node" { "lead" } else { "hub" }.to_owned(),
        view.revision.to_string(),
        view.lock.as_ref().map_or_else(|| "-".to_owned(), |lock| short(&printable(&lock.holder, 80), 20)),
        if counts.is_empty() { "none".to_owned() } else { counts.join(", ") },
    ]
}

/// Show how a workspace and its members stand.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex workspace status notes")]
pub(super) struct Status {
    /// The workspace.
    name: String,
}

impl Status {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let view: WorkspaceView = client.get(&path(&self.name, "")).await?;
        if context.output.json {
            return context.output.json(&view);
        }
        let facts = facts(&view);
        let facts: Vec<(&str, String)> = facts.iter().map(|(name, value)| (*name, value.clone())).collect();
        context.output.facts(&view, &facts)?;
        if view.members.is_empty() {
            let next = whole_argv(&words(&["cortex", "workspace", "attach", &view.name, "NODE:PATH"]));
            context.output.say(&format!("It has no members. Next: {next}"));
            return Ok(());
        }
        context.output.line("")?;
        context.output.table(&MEMBERS, view.members.iter().map(member))?;
        troubles(context, &view);
        Ok(())
    }
}

fn facts(view: &WorkspaceView) -> Vec<(&'static str, String)> {
    let rules = &view.rules;
    let mut kept = Vec::new();
    if !rules.exclude.is_empty() {
        let patterns: Vec<String> = rules.exclude.iter().map(|pattern| printable(pattern, 80)).collect();
        kept.push(format!("without {}", patterns.join(" ")));
    }
    kept.push(if rules.ignore_files { "ignore files are heeded" } else { "no ignore files" }.to_owned());
    kept.push(if rules.vcs { "with .git and its like" } else { "without .git and its like" }.to_owned());
    if !rules.links_outside {
        kept.push("no links that lead out".to_owned());
    }
    let mut facts = vec![
        ("workspace", printable(&view.name, 80)),
        ("source", if view.mode == "node" { "its lead" } else { "the hub's copy" }.to_owned()),
        ("revision", view.revision.to_string()),
        ("rules", kept.join(", ")),
        ("at most", HumanBytes(view.bytes_max).to_string()),
    ];
    if let Some(lock) = &view.lock {
        let holder = printable(&lock.holder, 80);
        facts.push((
            "lock",
            format!("{} of {holder}, until {} if it is not extended", lock.epoch, lock.until),
        ));
    }
    facts
}

/// `NODE:PATH` of a member.
pub(super) fn member_name(member: &MemberView) -> String {
    printable(&format!("{}:{}", member.node, member.path), 300)
}

fn member(member: &MemberView) -> Vec<String> {
    let revision = if member.revision == member.intent {
        member.revision.to_string()
    } else {
        format!("{} of {}", member.revision, member.intent)
    };
    let mut notes = Vec::new();
    if let Some(halt) = &member.halt {
        notes.push(format!("rule {}", halt.rule));
    }
    if member.conflicts > 0 {
        notes.push(count(member.conflicts, "conflict", "conflicts"));
    }
    if member.state == "drifted" {
        notes.push(format!("drift found {}", age(member.drift_since.as_deref())));
    }
    if let Some(problem) = &member.problem {
        notes.push(problem.code.clone());
    }
    if let Some(left_out) = &member.left_out {
        notes.push(format!("{} left out", total(left_out)));
    }
    notes.extend(unwatched(member));
    vec![
        member_name(member),
        member.role.clone(),
        member.state.clone(),
        revision,
        age(member.seen_at.as_deref()),
        notes.join(", "),
    ]
}

/// Why changes of the folder are found later than where its node tells of them.
fn unwatched(member: &MemberView) -> Option<String> {
    let why = match member.unwatched.as_deref()? {
        "limit" => "the machine watches no more folders (fs.inotify.max_user_watches)",
        "overflow" => "more changed at once than the machine tells",
        "failed" => "the machine could not watch it",
        "denied" => "the node's policy does not give it",
        "many" => "it is among more folders than a node watches",
        "moved" => "it was not there, or was moved",
        "remote" => "its disk does not tell of all changes",
        "ended" => "what watched it on the node ended; it begins anew",
        "version" => "the node's version of cortex watches no folders",
        other => return Some(format!("not watched: {}", printable(other, 40))),
    };
    let every = if member.role == "follower" { 60 } else { 10 };
    Some(format!("looked at every {every} s: {why}"))
}

/// What stands in the way of members, with the ways on.
pub(super) fn troubles(context: &Context, view: &WorkspaceView) {
    for member in &view.members {
        for line in trouble(&view.name, member) {
            context.output.say(&line);
        }
    }
}

fn trouble(name: &str, member: &MemberView) -> Vec<String> {
    let who = member_name(member);
    let whole = format!("{}:{}", member.node, member.path);
    let command = |rest: &[&str]| whole_argv(&words(&[&["cortex", "workspace"], rest].concat()));
    let mut lines = Vec::new();
    if let Some(halt) = &member.halt {
        lines.push(format!("{who}: halted by rule {}: {}", halt.rule, halt.message));
        lines.push(format!("  look:        {}", command(&["diff", name, &whole, "--stat"])));
        lines.push(format!("  let it pass: {}", command(&["resync", name, "--accept", &halt.id])));
    }
    match member.state.as_str() {
        "unavailable" => {
            lines.push(format!(
                "{who}: the folder is gone, is another one, or cannot be looked at. Nothing is taken for removed."
            ));
            lines.push("  bring back:  the folder that it was; it goes on by itself".to_owned());
            let attach = command(&["attach", name, &whole, "--role", &member.role]);
            lines.push(format!("  as it is:    {}", command(&["detach", name, &whole])));
            lines.push(format!("               {attach}"));
        }
        "drifted" => {
            lines.push(format!("{who}: it has changes of its own, which stay and reach nobody."));
            lines.push(format!("  look:        {}", command(&["diff", name, &whole])));
            if member.role == "follower" {
                lines.push(format!("  end it:      {}", command(&["resync", name, &whole, "--repair"])));
                let own = whole_argv(&words(&["cortex", "fs", "rm", &format!("{whole}/NAME")]));
                lines.push(format!(
                    "  only there:  what the workspace has not (`A` in the difference) stays even then: {own}"
                ));
            }
        }
        "conflict" => {
            lines.push(format!(
                "{who}: it and the workspace both changed {}, as `….conflict-NODE-REVISION`.",
                count(
                    member.conflicts,
                    "path; the other version is beside it",
                    "paths; the other version is beside each"
                )
            ));
            lines.push(format!("  seen them:   {}", command(&["resync", name, &whole])));
        }
        _ => {}
    }
    if let Some(view) = &member.left_out {
        lines.push(format!("{who}: not in the workspace: {}.", left_out(view)));
    }
    if let Some(problem) = &member.problem {
        lines.push(format!("{who}: {} ({}; it is tried again)", problem.message, problem.code));
        if !problem.hint.is_empty() {
            lines.push(format!("  hint:        {}", problem.hint));
        }
    }
    lines
}

fn total(left_out: &LeftOutView) -> u64 {
    let LeftOutView { unnamed, too_large, rules_unread, unreadable, unfit } = *left_out;
    [unnamed, too_large, rules_unread, unreadable, unfit].into_iter().fold(0, u64::saturating_add)
}

/// What a folder has and no tree has, by reason.
fn left_out(left_out: &LeftOutView) -> String {
    let further = [
        (left_out.unreadable, "entry cannot be read", "entries cannot be read"),
        (
            left_out.unfit,
            "entry is no file, folder or link of the folder",
            "entries are no files, folders or links of the folder",
        ),
    ];
    ended::left_out(left_out).chain(ended::counted(further)).collect::<Vec<_>>().join("; ")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use cortex_wire::http::HaltView;

    use super::*;

    pub(in super::super) fn of(state: &str) -> MemberView {
        MemberView {
            id: "0198a1c2-0000-7000-8000-000000000000".to_owned(),
            node: "a".to_owned(),
            path: "/srv/مشروع x".to_owned(),
            role: "follower".to_owned(),
            state: state.to_owned(),
            revision: 2,
            intent: 3,
            watch: "scan".to_owned(),
            unwatched: None,
            seen_at: None,
            drift_since: None,
            conflicts: 0,
            halt: None,
            problem: None,
            left_out: None,
        }
    }

    #[test]
    fn a_halt_shows_the_command_that_lets_it_pass() {
        let halt =
            HaltView { id: "ab".repeat(32), rule: "deletes".to_owned(), message: "too much".to_owned() };
        let id = halt.id.clone();
        let lines = trouble("notes", &MemberView { halt: Some(halt), ..of("halted") });
        assert!(
            lines.iter().any(|line| line.ends_with(&format!("cortex workspace resync notes --accept {id}")))
        );
        assert!(lines.iter().any(|line| line.contains("'a:/srv/مشروع x'")), "{lines:?}");
    }

    #[test]
    fn what_is_well_says_nothing_and_the_rest_names_a_command() {
        assert_eq!(trouble("notes", &of("in_sync")), Vec::<String>::new());
        for state in ["drifted", "conflict", "unavailable"] {
            let lines = trouble("notes", &of(state));
            assert!(lines.iter().any(|line| line.contains("cortex workspace ")), "{lines:?}");
        }
        assert_eq!(member(&of("syncing"))[3], "2 of 3");
        let left_out = LeftOutView { unnamed: 2, unfit: 1, ..LeftOutView::default() };
        let view = MemberView { left_out: Some(left_out), ..of("in_sync") };
        assert_eq!(member(&view)[5], "3 left out");
        assert_eq!(
            trouble("notes", &view),
            ["a:/srv/مشروع x: not in the workspace: 2 entries have names that no tree takes; \
             1 entry is no file, folder or link of the folder."]
        );
    }

    #[test]
    fn a_member_that_is_not_watched_says_how_often_it_is_looked_at_and_why() {
        let note = |why: &str, role: &str| {
            let (unwatched, role) = (Some(why.to_owned()), role.to_owned());
            member(&MemberView { unwatched, role, ..of("in_sync") }).pop().unwrap_or_default()
        };
        assert_eq!(
            note("limit", "lead"),
            "looked at every 10 s: the machine watches no more folders (fs.inotify.max_user_watches)"
        );
        assert!(note("version", "follower").starts_with("looked at every 60 s: the node's version"));
        assert_eq!(note("of a later hub", "peer"), "not watched: of a later hub");
        assert_eq!(member(&of("in_sync")).pop(), Some(String::new()));
    }
}
