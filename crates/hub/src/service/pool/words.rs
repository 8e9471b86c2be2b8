//! The words in which people read why a task waits, and what would change it. The one place of them.

use cortex_core::pool::TaskState;
use cortex_core::pool::explain::Reason;
use cortex_core::time::WallTime;

/// A sentence, and what would change it.
pub(crate) fn words(reason: &Reason, time: impl Fn(WallTime) -> String) -> (String, Option<String>) {
    match reason {
        Reason::NotWaiting(state) => (not_waiting(*state).to_owned(), None),
        Reason::ScheduledFor(at) => (format!("It is not due before {}.", time(*at)), None),
        Reason::AfterFailure { at, tries } => {
            let message = format!("It failed {tries} time(s); the next attempt is due at {}.", time(*at));
            hinted(message, "Look at its last run: `cortex task logs`.")
        }
        Reason::Dependency(id, state) => dependency(&id.to_string(), *state),
        Reason::KeyFull { key, limit } => (
            format!("{limit} task(s) with the concurrency key `{key}` are worked on, and no more may be."),
            None,
        ),
        Reason::Paused(pause) => (format!("{} is paused by {}.", pause.what, pause.by), None),
        Reason::OwnerStopped(why) => hinted(
            format!("Nothing of its owner is handed out: {why}."),
            "Lift the lock, or submit it with another token.",
        ),
        Reason::NoNodeWith { selector, nearest } => {
            let near =
                nearest.as_ref().map(|(name, lacks)| format!(" Nearest is {name}, which lacks {lacks}."));
            let message = format!("No node has the labels `{selector}`.{}", near.unwrap_or_default());
            let hint = match nearest {
                Some((name, lacks)) => {
                    format!("Set them, such as with `cortex node label {name} {}`.", lacks.replace(',', " "))
                }
                None => {
                    "Make an invite with `cortex invite`: there is no node yet that you may see.".to_owned()
                }
            };
            (message, Some(hint))
        }
        Reason::OwnerMayNot(nodes) => hinted(
            format!("Its owner may not start commands on {}.", nodes.join(", ")),
            "Ask an administrator for the right, or submit it with another token.",
        ),
        Reason::Offline(nodes) => hinted(
            format!("Not connected: {}.", nodes.join(", ")),
            "Start the node, or look at it with `cortex node get`.",
        ),
        Reason::NodePaused(nodes) => {
            let all: Vec<String> = nodes.iter().map(|(node, by)| format!("{node} (by {by})")).collect();
            let what = "See what stands still with `cortex task pauses`, and let it go on with `cortex task resume`.";
            hinted(format!("Stands still: {}.", all.join(", ")), what)
        }
        Reason::Denied(nodes) => denied(nodes),
        Reason::Busy(nodes) => (format!("Busy with as many tasks as they take: {}.", nodes.join(", ")), None),
        Reason::NoSlots(nodes) => hinted(
            format!("Takes no tasks at all: {}.", nodes.join(", ")),
            "Give the node slots: `node.slots` in its configuration.",
        ),
        Reason::NoWorker(kind) => hinted(
            format!("No worker asks for the kind `{kind}` at the moment."),
            format!("Start one, or claim it yourself: `cortex task claim --kind {kind}`."),
        ),
        Reason::Next => ("Nothing holds it: it can be claimed at any moment.".to_owned(), None),
    }
}

fn hinted(message: impl Into<String>, hint: impl Into<String>) -> (String, Option<String>) {
    (message.into(), Some(hint.into()))
}

const fn not_waiting(state: TaskState) -> &'static str {
    match state {
        TaskState::Leased => "It does not wait: somebody works on it.",
        TaskState::Done => "It does not wait: it is done.",
        TaskState::Dead => "It does not wait: it failed for the last time.",
        TaskState::Cancelled => "It does not wait: it was cancelled.",
        TaskState::Expired => "It does not wait: it did not start in its time.",
        TaskState::Scheduled | TaskState::Ready => "It waits.",
    }
}

fn dependency(id: &str, state: TaskState) -> (String, Option<String>) {
    let message = format!("It comes after task {id}, which is {}.", state.as_str());
    match state {
        TaskState::Dead | TaskState::Cancelled | TaskState::Expired => hinted(
            message,
            format!("Have that one tried again with `cortex task retry {id}`, or cancel this one."),
        ),
        TaskState::Scheduled | TaskState::Ready | TaskState::Leased | TaskState::Done => (message, None),
    }
}

fn denied(nodes: &[(String, String)]) -> (String, Option<String>) {
    let all: Vec<String> = nodes.iter().map(|(node, rule)| format!("{node} (rule {rule})")).collect();
    let node = nodes.first().map_or("NODE", |(node, _)| node.as_str());
    hinted(
        format!("Denied by policy: {}.", all.join(", ")),
        format!(
            "Allow the program with `cortex policy allow {node} PROGRAM`, then `cortex task retry` this one."
        ),
    )
}

#[cfg(test)]
mod tests {
    use cortex_core::id::TaskId;
    use cortex_core::name::Selector;
    use cortex_core::pool::explain::PauseFacts;

    use super::*;

    #[test]
    fn every_reason_is_a_sentence_and_what_can_be_mended_has_a_hint() {
        let node = || vec!["build-2".to_owned()];
        let id = TaskId::mint(1, &[1; 10]);
        let selector = Selector::parse("gpu=a100,os=linux").expect("a selector");
        let nearest = Some(("build-2".to_owned(), "gpu=a100,os=linux".to_owned()));
        let at = WallTime(0);
        for (reason, holds, is_hinted) in [
            (Reason::NotWaiting(TaskState::Done), "it is done", false),
            (Reason::ScheduledFor(at), "not due before T", false),
            (Reason::AfterFailure { at, tries: 2 }, "failed 2 time(s)", true),
            (Reason::Dependency(id, TaskState::Dead), "which is dead", true),
            (Reason::Dependency(id, TaskState::Leased), "which is leased", false),
            (Reason::KeyFull { key: "db".into(), limit: 1 }, "`db`", false),
            (Reason::Paused(PauseFacts { what: "kind:a".into(), by: "user:ada".into() }), "user:ada", false),
            (Reason::OwnerStopped("locked".into()), "locked", true),
            (Reason::NoNodeWith { selector, nearest }, "which lacks gpu=a100", true),
            (Reason::OwnerMayNot(node()), "build-2", true),
            (Reason::Offline(node()), "build-2", true),
            (Reason::NodePaused(vec![("build-2".into(), "user:ada".into())]), "build-2 (by user:ada)", true),
            (Reason::Denied(vec![("build-2".into(), "exec.allow".into())]), "rule exec.allow", true),
            (Reason::Busy(node()), "build-2", false),
            (Reason::NoSlots(node()), "build-2", true),
            (Reason::NoWorker("resize".into()), "`resize`", true),
            (Reason::Next, "at any moment", false),
        ] {
            let (message, hint) = words(&reason, |_| "T".to_owned());
            assert!(message.contains(holds) && message.ends_with('.'), "{reason:?}: {message}");
            assert_eq!(hint.is_some(), is_hinted, "{reason:?}");
        }
    }
}
