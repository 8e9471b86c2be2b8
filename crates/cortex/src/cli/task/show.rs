//! How tasks look: a row, all of one with its timeline, why it waits, the pool at a glance. Nothing is
//! wider than 80 columns but what somebody gave as one word.

use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_wire::http::{PoolStats, TaskExplained, TaskProgress, TaskStep, TaskStory, TaskView};

use crate::cli::args;
use crate::duration;
use crate::error::Result;
use crate::output::Output;

/// Columns of a terminal that nobody widened.
const COLUMNS: usize = 80;

pub(super) const HEAD: [&str; 6] = ["ID", "STATE", "PRIO", "TRY", "SUBMITTED", "WORK"];

pub(super) fn row(task: &TaskView) -> Vec<String> {
    vec![
        task.id.clone(),
        state(task),
        task.priority.to_string(),
        format!("{}/{}", task.attempt, task.attempts),
        args::age(Some(&task.submitted_at)),
        work(task),
    ]
}

fn state(task: &TaskView) -> String {
    match (&task.node, &task.progress) {
        (Some(node), _) if task.state == "leased" => format!("leased by {node}"),
        (None, Some(progress)) if task.state == "leased" => format!("leased, {}", parts(progress)),
        _ => task.state.clone(),
    }
}

/// `3/10`, or `3` of nobody knows how many.
fn parts(progress: &TaskProgress) -> String {
    let total = progress.total.map(|total| format!("/{total}"));
    format!("{}{}", progress.done, total.unwrap_or_default())
}

fn progress(progress: &TaskProgress) -> String {
    let percent = progress.total.filter(|total| *total > 0).map(|total| {
        // A worker may find more than it had counted.
        let percent = u128::from(progress.done) * 100 / u128::from(total);
        format!(" ({}%)", percent.min(100))
    });
    let note = progress.note.as_ref().map(|note| format!(", {}", printable(note, usize::MAX)));
    let age = args::age(Some(&progress.at));
    format!("{}{}{}, {age} ago", parts(progress), percent.unwrap_or_default(), note.unwrap_or_default())
}

fn work(task: &TaskView) -> String {
    match task.payload_bytes {
        Some(bytes) => format!("{} ({})", task.kind, count(bytes, "byte", "bytes")),
        None => args::show_argv(&task.argv),
    }
}

/// One task: its facts, its timeline, and what came too late.
pub(super) fn story(output: Output, story: &TaskStory) -> Result {
    if output.json {
        return output.json(story);
    }
    output.facts(&story.task, &facts(&story.task))?;
    output.line("timeline")?;
    let first = story.timeline.first().map(|step| step.at.clone());
    for step in &story.timeline {
        timeline(step, first.as_deref()).iter().try_for_each(|line| output.line(line))?;
    }
    for late in &story.evidence {
        let said = late.result.message.as_deref().unwrap_or("no message");
        output.line(&format!(
            "too late: attempt {} at {}: {}",
            late.attempt,
            late.at,
            printable(said, 300)
        ))?;
    }
    Ok(())
}

fn facts(task: &TaskView) -> Vec<(&'static str, String)> {
    let known = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let work = if task.payload_bytes.is_some() { work(task) } else { args::whole_argv(&task.argv) };
    let result = task.result.as_ref().map(|result| match (result.code, result.signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(code), None) => format!("exit {code}"),
        (None, None) => {
            let output = result.output.as_ref().or(result.output_base64.as_ref());
            count(output.map_or(0, String::len), "byte", "bytes")
        }
    });
    let limit = |concurrency: &cortex_wire::http::TaskConcurrency| {
        format!("{} at once with the key {}", concurrency.limit, printable(&concurrency.key, 128))
    };
    let list = |all: &[String]| (!all.is_empty()).then(|| all.join(" "));
    let message = task.result.as_ref().and_then(|result| result.message.as_deref());
    let told: [(&'static str, Option<String>); 21] = [
        ("id", Some(task.id.clone())),
        ("state", Some(state(task))),
        (if task.payload_bytes.is_some() { "payload" } else { "command" }, Some(work)),
        ("cwd", task.cwd.as_deref().map(|cwd| printable(cwd, usize::MAX))),
        ("selector", known(&Some(task.selector.clone()))),
        ("prefer", known(&Some(task.prefer.clone()))),
        ("priority", Some(task.priority.to_string())),
        ("attempts", Some(format!("{} of {}, {} failed", task.attempt, task.attempts, task.tries))),
        ("node", known(&task.node)),
        ("run", known(&task.run_id)),
        ("progress", task.progress.as_ref().map(progress)),
        ("result", result),
        ("message", message.map(|message| printable(message, usize::MAX))),
        ("lease", Some(duration::show(task.lease_ms))),
        ("run limit", task.run_limit_ms.map(duration::show)),
        ("after", list(&task.after)),
        ("concurrency", task.concurrency.as_ref().map(limit)),
        ("labels", known(&Some(args::show_labels(&task.labels)))),
        ("denied by", list(&task.excluded)),
        ("submitted by", Some(task.caller.clone())),
        ("key", task.key.as_deref().map(|key| printable(key, 128))),
    ];
    told.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// One step: when, since the first; what; and the rest, broken between words.
fn timeline(step: &TaskStep, first: Option<&str>) -> Vec<String> {
    let when = since(first, &step.at).unwrap_or_else(|| step.at.clone());
    let on = step.node.as_ref().map(|node| format!("on {node}"));
    let attempt = (step.attempt > 0).then(|| format!("attempt {}", step.attempt));
    let by = step.actor.as_ref().map(|actor| format!("by {}", printable(actor, 80)));
    let detail = step.detail.as_ref().map(|detail| printable(detail, 400));
    let parts = [attempt.filter(|_| step.step == "leased"), on, by, detail];
    let words = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let lead = format!("  {when:>9}  {:<16} ", step.step);
    let indent = lead.chars().count();
    let lines = broken(&words, COLUMNS.saturating_sub(indent).max(20));
    let mut lines = lines.into_iter();
    let mut shown = vec![format!("{lead}{}", lines.next().unwrap_or_default()).trim_end().to_owned()];
    shown.extend(lines.map(|line| format!("{:indent$}{line}", "")));
    shown
}

/// A moment that is itself for the first step, and how much later for the others.
fn since(first: Option<&str>, at: &str) -> Option<String> {
    let (first, at): (jiff::Timestamp, jiff::Timestamp) = (first?.parse().ok()?, at.parse().ok()?);
    let ms = u64::try_from(at.as_millisecond().saturating_sub(first.as_millisecond())).ok()?;
    Some(if ms == 0 { "0".to_owned() } else { format!("+{}", duration::show(ms)) })
}

/// Breaks a text between its words into lines of so many columns; a longer word stays whole.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

pub(super) fn explained(output: Output, explained: &TaskExplained) -> Result {
    if output.json {
        return output.json(explained);
    }
    output.line(&format!("Task {} is {}.", explained.id, explained.state))?;
    for reason in &explained.reasons {
        for (lead, text) in [("- ", Some(&reason.message)), ("  ", reason.hint.as_ref())] {
            let lines = text.map(|text| broken(&printable(text, usize::MAX), COLUMNS - lead.len()));
            for (at, line) in lines.unwrap_or_default().iter().enumerate() {
                output.line(&format!("{}{line}", if at == 0 { lead } else { "  " }))?;
            }
        }
    }
    Ok(())
}

pub(super) fn stats(output: Output, stats: &PoolStats) -> Result {
    if output.json {
        return output.json(stats);
    }
    let mut facts: Vec<(&str, String)> = Vec::new();
    for (state, count) in stats.tasks.iter().flatten() {
        facts.push((state, count.to_string()));
    }
    if let Some(oldest) = &stats.oldest_ready_at {
        facts.push(("oldest", format!("ready since {}", args::age(Some(oldest)))));
    }
    output.facts(stats, &facts)?;
    let rows = stats.nodes.iter().map(|node| {
        let state = if node.online { "online" } else { "offline" };
        vec![node.node.clone(), state.to_owned(), format!("{}/{}", node.busy, node.slots)]
    });
    if stats.nodes.is_empty() { Ok(()) } else { output.table(&["NODE", "STATE", "BUSY"], rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: &str, at: &str, detail: &str) -> TaskStep {
        TaskStep {
            at: at.to_owned(),
            step: step.to_owned(),
            attempt: 2,
            node: Some("build-2".to_owned()),
            run_id: None,
            actor: Some("token:ci".to_owned()),
            detail: Some(detail.to_owned()).filter(|detail| !detail.is_empty()),
        }
    }

    #[test]
    fn a_timeline_fits_in_80_columns_and_loses_no_word() {
        let first = "2030-01-31T08:00:00.000Z";
        let plain = timeline(&step("leased", "2030-01-31T08:00:03.200Z", ""), Some(first));
        assert_eq!(plain, ["     +3.2 s  leased           attempt 2 on build-2 by token:ci"]);
        let words = "a sentence that is far too long for one line ".repeat(6);
        let lines = timeline(&step("cancel_requested", "2030-02-03T08:00:00.000Z", &words), Some(first));
        assert!(lines.len() > 3 && lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:#?}");
        let shown: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        assert!(shown.join(" ").ends_with(words.trim()), "{lines:#?}");
        let odd = timeline(&step("failed", first, "red \u{1b}[31m"), Some(first));
        assert!(!odd[0].contains('\u{1b}'), "{odd:?}");
    }

    #[test]
    fn how_far_a_worker_is_is_shown_with_what_it_said() {
        let said = |done, total| TaskProgress { done, total, ..TaskProgress::default() };
        for (said, shown) in [
            (said(3, Some(10)), "3/10 (30%), "),
            (said(12, Some(10)), "12/10 (100%), "),
            (said(u64::MAX, Some(u64::MAX)), &format!("{0}/{0} (100%), ", u64::MAX)),
            (said(3, Some(0)), "3/0, "),
            (TaskProgress { note: Some("a \u{1b}[31m".to_owned()), ..said(3, None) }, "3, a "),
        ] {
            let text = progress(&said);
            assert!(text.starts_with(shown) && !text.contains('\u{1b}'), "{text}");
        }
        let leased =
            TaskView { state: "leased".to_owned(), progress: Some(said(3, None)), ..TaskView::default() };
        assert_eq!(state(&leased), "leased, 3");
        assert_eq!(state(&TaskView { state: "done".to_owned(), ..leased }), "done");
    }

    #[test]
    fn a_long_word_stays_whole() {
        let word = "x".repeat(100);
        assert_eq!(broken(&format!("a {word} b"), 20), ["a", &word, "b"]);
        assert!(broken("", 20).is_empty());
    }
}
