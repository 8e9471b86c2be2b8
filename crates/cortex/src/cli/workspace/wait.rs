//! `cortex workspace wait`, and how other verbs wait.

use std::time::Duration;

use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{DriftView, MemberView, WorkspaceView};
use tokio::time::{Instant, sleep};

use super::{changed, path, show};
use crate::cli::transfer::bars::Bars;
use crate::cli::transfer::follow::again;
use crate::cli::{Context, args};
use crate::client::Client;
use crate::error::{Failure, Result};
use crate::output::Output;

/// How long is waited when nobody says otherwise.
const TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The first and the longest pause between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Wait until all members have the newest revision.
///
/// A halt, drift and conflicts end it at once with status 8: no waiting helps there. What was changed in a
/// folder a moment ago may not have been looked at: `cortex workspace resync NAME --wait` looks first.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex workspace wait notes --timeout 2m")]
pub(super) struct Wait {
    /// The workspace.
    name: String,
    /// How long at most, such as 30s; five minutes when missing.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms, default_value = "5m")]
    timeout: u64,
}

impl Wait {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let view = wait(context.output, client, &self.name, self.timeout).await?;
        let sentence =
            format!("Workspace {} is in sync at revision {}.", printable(&view.name, 80), view.revision);
        changed(context, &view, &sentence, None)
    }
}

/// Whether a verb waits for what it began.
#[derive(clap::Args, Debug)]
pub(super) struct Patient {
    /// Wait until all members have the newest revision.
    #[arg(long)]
    wait: bool,
    /// How long at most, such as 30s; five minutes when missing.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms, requires = "wait")]
    timeout: Option<u64>,
}

impl Patient {
    /// Whether it waits.
    pub(super) const fn is_set(&self) -> bool {
        self.wait
    }

    /// The view after the wait; the same when nobody waits.
    pub(super) async fn wait(
        &self,
        output: Output,
        client: &mut Client,
        view: WorkspaceView,
    ) -> Result<WorkspaceView> {
        if !self.wait {
            return Ok(view);
        }
        wait(output, client, &view.name, self.timeout.unwrap_or(TIMEOUT_MS)).await
    }

    /// As [`wait`](Self::wait), after a repair. What only a member has stays there and is no failure: with the
    /// sentence that says so.
    pub(super) async fn wait_repaired(
        &self,
        output: Output,
        client: &mut Client,
        view: WorkspaceView,
    ) -> Result<(WorkspaceView, Option<String>)> {
        let name = view.name.clone();
        let failure = match self.wait(output, client, view).await {
            Ok(view) => return Ok((view, None)),
            Err(failure) if failure.code() == Some(Code::Conflict) => failure,
            Err(failure) => return Err(failure),
        };
        let drifts: Vec<DriftView> = client.get(&path(&name, "/drift?diff=false")).await?;
        let Some(kept) = only_there(&drifts) else { return Err(failure) };
        let diff = command(&["diff", &name, "--stat"]);
        let kept = count(
            kept,
            "entry that only a member has stays, and is drift until somebody removes it",
            "entries that only its members have stay, and are drift until somebody removes them",
        );
        let sentence = format!("{kept}. Look: {diff}");
        Ok((client.get(&path(&name, "")).await?, Some(sentence)))
    }
}

/// How many paths only members have; `None` when they differ in others as well, or nobody knows.
fn only_there(drifts: &[DriftView]) -> Option<usize> {
    let is_known = |drift: &DriftView| drift.error.is_none() && !drift.cut;
    let mut paths = drifts.iter().flat_map(|drift| &drift.paths);
    (drifts.iter().all(is_known) && paths.all(|path| path.hub.is_none()))
        .then(|| drifts.iter().map(|drift| drift.paths.len()).sum())
}

/// A command of this group, as a shell takes it.
fn command(rest: &[&str]) -> String {
    let words: Vec<String> =
        ["cortex", "workspace"].iter().chain(rest).map(|word| (*word).to_owned()).collect();
    args::whole_argv(&words)
}

async fn wait(output: Output, client: &mut Client, name: &str, timeout_ms: u64) -> Result<WorkspaceView> {
    let spinner = Bars::new(output.json).spinner(&format!("looking at workspace {}", printable(name, 80)));
    let waited = until_in_sync(client, name, timeout_ms, |members| spinner.set_message(members)).await;
    spinner.finish_and_clear();
    waited
}

/// Tells with every look what it waits for.
async fn until_in_sync(
    client: &mut Client,
    name: &str,
    timeout_ms: u64,
    tell: impl Fn(String),
) -> Result<WorkspaceView> {
    let (until, url) = (Instant::now() + Duration::from_millis(timeout_ms).min(WAIT_MAX), path(name, ""));
    let mut pause = PAUSE.0;
    loop {
        let look = async |client: &mut Client| client.get::<WorkspaceView>(&url).await;
        let view = again(client, look).await?;
        match stands(&view) {
            Stands::InSync => return Ok(view),
            Stands::Stuck(member) => return Err(stuck(&view, member)),
            Stands::Moving(members) if Instant::now() < until => tell(awaited(&view, &members)),
            Stands::Moving(members) => return Err(late(&view, &members, timeout_ms)),
        }
        sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 3 / 2).min(PAUSE.1);
    }
}

/// How a workspace stands for somebody who waits.
#[derive(Debug)]
enum Stands<'v> {
    InSync,
    /// A person has to do something.
    Stuck(&'v MemberView),
    /// It may come by itself.
    Moving(Vec<&'v MemberView>),
}

fn stands(view: &WorkspaceView) -> Stands<'_> {
    let is_stuck = |member: &&MemberView| matches!(member.state.as_str(), "halted" | "drifted" | "conflict");
    if let Some(member) = view.members.iter().find(is_stuck) {
        return Stands::Stuck(member);
    }
    let moving: Vec<&MemberView> = view.members.iter().filter(|member| member.state != "in_sync").collect();
    if moving.is_empty() { Stands::InSync } else { Stands::Moving(moving) }
}

fn stuck(view: &WorkspaceView, member: &MemberView) -> Failure {
    let (who, name) = (show::member_name(member), &view.name);
    let whole = format!("{}:{}", member.node, member.path);
    match &member.halt {
        Some(halt) => Failure::new(
            Code::SyncHalted,
            format!("{who} is halted by rule {}: {}", halt.rule, halt.message),
            format!(
                "Look at the folder; if it is as it should be: `{}`.",
                command(&["resync", name, "--accept", &halt.id])
            ),
        )
        .way("let it pass", command(&["resync", name, "--accept", &halt.id])),
        None if member.state == "drifted" => Failure::new(
            Code::Conflict,
            format!("{who} has changes of its own."),
            format!(
                "Look with `{}`, and end it with --repair; what only the member has stays even then.",
                command(&["diff", name, &whole])
            ),
        )
        .way("end it", command(&["resync", name, &whole, "--repair"])),
        None => Failure::new(
            Code::Conflict,
            format!(
                "{who} and the workspace both changed {}; both versions are kept.",
                count(member.conflicts, "path", "paths")
            ),
            format!("Look for names with `.conflict-`; then `{}`.", command(&["resync", name, &whole])),
        ),
    }
}

/// What is waited for, in one line.
fn awaited(view: &WorkspaceView, members: &[&MemberView]) -> String {
    let all = count(view.members.len(), "member", "members");
    format!("waiting for {} of {all}: {}", members.len(), each(members, 3))
}

/// The first of these members, each with its state.
fn each(members: &[&MemberView], shown_max: usize) -> String {
    let shown = members.iter().take(shown_max);
    let shown: Vec<String> =
        shown.map(|member| format!("{} is {}", show::member_name(member), member.state)).collect();
    let more = members.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}

fn late(view: &WorkspaceView, members: &[&MemberView], timeout_ms: u64) -> Failure {
    let problem = members.iter().find_map(|member| member.problem.as_ref());
    let hint = match problem {
        Some(problem) => format!("{} {}", problem.message, problem.hint),
        None => format!(
            "Look with `cortex workspace status {}`, or wait longer with --timeout.",
            printable(&view.name, 80)
        ),
    };
    let message = format!(
        "Workspace {} did not come in sync within {}: {}.",
        printable(&view.name, 80),
        crate::duration::show(timeout_ms),
        each(members, 5)
    );
    Refusal::new(Code::Timeout, message).hint(hint.trim()).into()
}

#[cfg(test)]
mod tests {
    use cortex_wire::http::WorkspaceRules;

    use super::show::tests::of;
    use super::*;

    fn view(states: &[&str]) -> WorkspaceView {
        let member = |state: &&str| MemberView { node: format!("node-{state}"), ..of(state) };
        WorkspaceView {
            id: "w".to_owned(),
            name: "notes".to_owned(),
            mode: "node".to_owned(),
            revision: 3,
            root: String::new(),
            rules: WorkspaceRules::default(),
            bytes_max: 1,
            lock: None,
            members: states.iter().map(member).collect(),
            owner: "admin".to_owned(),
            created_at: String::new(),
        }
    }

    #[test]
    fn what_is_waited_for_is_one_line_with_the_members_that_are_not_there() {
        let told = |states: &[&str]| {
            let view = view(states);
            let Stands::Moving(members) = stands(&view) else { panic!("{states:?} are waited for") };
            awaited(&view, &members)
        };
        assert_eq!(
            told(&["in_sync", "offline"]),
            "waiting for 1 of 2 members: node-offline:/srv/مشروع x is offline"
        );
        let many = told(&["syncing", "joining", "unavailable", "offline", "syncing"]);
        assert!(many.starts_with("waiting for 5 of 5 members: node-syncing:/srv/"), "{many}");
        assert!(many.ends_with("node-unavailable:/srv/مشروع x is unavailable and 2 more"), "{many}");
        assert!(told(&["syncing"]).starts_with("waiting for 1 of 1 member: "));
    }
}
