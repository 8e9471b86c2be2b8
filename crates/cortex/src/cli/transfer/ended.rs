//! How a transfer ended at each node: the exit status, the last line of JSON, and what people read.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::name::printable;
use cortex_core::{Code, Refusal, words};
use cortex_wire::error::{Problem, surface};
use cortex_wire::http::{
    HaltView, LeftOutView, TransferEndView, TransferNodeView, TransferNoteView, TransferView,
};
use indicatif::HumanBytes;
use serde::Serialize;

use crate::cli::args::whole_argv;
use crate::duration;
use crate::error::{Failure, Refused, Result};
use crate::output::Output;

/// Conflicts, and what a rule halted.
const CONFLICT: u8 = 8;
/// A reason for which a path stays as it is.
const IN_CONFLICT: &str = "conflict";

/// The last line for a node. What is empty is left out.
#[derive(Debug, Serialize)]
struct Done<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    node: &'a str,
    files: u64,
    bytes: u64,
    wire_bytes: u64,
    duration_ms: u64,
    #[serde(skip_serializing_if = "is_false")]
    dry_run: bool,
    #[serde(skip_serializing_if = "is_zero")]
    removed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    held: BTreeMap<&'a str, u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [TransferNoteView],
    #[serde(skip_serializing_if = "is_zero")]
    notes_more: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    halt: Option<&'a HaltView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Problem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<LeftOutView>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The refusal of `--delete` while so many entries of the source can be neither read nor sent: they would be
/// taken for gone (SYNC rule 11).
pub(in crate::cli) fn unknown_is_not_gone(count: usize, verb: &str) -> Refusal {
    let entries = words::count(count, "entry", "entries");
    let message =
        format!("{entries} of the source cannot be read or sent, and would be removed at its copy.");
    let hint = format!("Make them readable, name them with --exclude, or {verb} without --delete.");
    Refusal::new(Code::UnsupportedEntry, message).hint(hint)
}

/// Ways on from a refusal, as `(what, command)`.
pub(in crate::cli) type Ways = Vec<(&'static str, String)>;

/// What a transfer does, for sentences, and the command that does it at one node.
pub(in crate::cli) struct Told<'a> {
    /// `pushed to`, `pulled from`.
    pub(in crate::cli) done: &'static str,
    /// The command for that node alone; with a halt that it lets pass.
    pub(in crate::cli) command: &'a dyn Fn(&TransferNodeView, Option<&HaltView>) -> Vec<String>,
    /// Ways on from a refusal at that node.
    pub(in crate::cli) ways: &'a dyn Fn(&TransferNodeView, &Problem) -> Ways,
}

/// The exit status of all nodes together: that of the one, of several 1 when any failed, else 8 when any is
/// in conflict.
pub(in crate::cli) fn status(view: &TransferView) -> u8 {
    let each: Vec<u8> = view.nodes.iter().map(status_at).collect();
    match each[..] {
        [one] => one,
        _ if each.iter().any(|status| ![0, CONFLICT].contains(status)) => 1,
        _ => each.into_iter().max().unwrap_or(0),
    }
}

fn status_at(node: &TransferNodeView) -> u8 {
    match node.state.as_str() {
        "done" | "in_sync" => match &node.end {
            Some(end) if notes(end, "failed").next().is_some() => 1,
            Some(end) if is_in_conflict(end) => CONFLICT,
            Some(_) | None if node.left_out.is_some_and(|left_out| is_partial(&left_out)) => 1,
            Some(_) | None => 0,
        },
        "halted" => CONFLICT,
        "cancelled" => 1,
        _ => node.error.as_ref().map_or(1, |problem| surface(problem.code()).exit.max(1)),
    }
}

/// Whether something did not come that belongs to a copy. Devices and their like do not.
pub(in crate::cli) const fn is_partial(left_out: &LeftOutView) -> bool {
    let LeftOutView { unnamed, too_large, rules_unread, unreadable, unfit: _ } = *left_out;
    unnamed > 0 || too_large > 0 || rules_unread > 0 || unreadable > 0
}

/// What of a folder is in no tree, and is not told by its path or not why, in words.
pub(in crate::cli) fn left_out(left_out: &LeftOutView) -> impl Iterator<Item = String> {
    let words = [
        (left_out.unnamed, "entry has a name that no tree takes", "entries have names that no tree takes"),
        (
            left_out.too_large,
            "file is too large, or hardly anything but a hole",
            "files are too large, or hardly anything but a hole",
        ),
        (
            left_out.rules_unread,
            "folder has an ignore file that cannot be read",
            "folders have ignore files that cannot be read",
        ),
    ];
    counted(words)
}

fn is_in_conflict(end: &TransferEndView) -> bool {
    end.held.get(IN_CONFLICT).is_some_and(|count| *count > 0) || notes(end, IN_CONFLICT).next().is_some()
}

fn notes<'a>(end: &'a TransferEndView, what: &'a str) -> impl Iterator<Item = &'a TransferNoteView> {
    end.notes.iter().filter(move |note| note.what == what)
}

/// Tells of each node how it ended there, as soon as it has: whoever reads that waits for no other node.
pub(in crate::cli) struct Telling<'a> {
    output: Output,
    is_quiet: bool,
    told: Told<'a>,
    /// Nodes of which a good end was told.
    well: BTreeSet<String>,
    /// How many of the view's nodes were told, by their places in it.
    told_of: BTreeSet<usize>,
    /// What became of what was told. A reader that has gone away ends nothing of the transfer itself.
    written: Result,
}

impl<'a> Telling<'a> {
    pub(in crate::cli) fn new(output: Output, is_quiet: bool, told: Told<'a>) -> Self {
        Self { output, is_quiet, told, well: BTreeSet::new(), told_of: BTreeSet::new(), written: Ok(()) }
    }

    /// Another transfer does the same from here on: what it comes to is told, but no good end twice.
    pub(in crate::cli) fn anew(&mut self) {
        self.told_of.clear();
    }

    /// Whether [`Self::see`] has something to tell of this view.
    pub(in crate::cli) fn is_due(&self, view: &TransferView) -> bool {
        view.nodes.iter().enumerate().any(|(place, node)| is_over(node) && !self.told_of.contains(&place))
    }

    /// Tells what has ended since the view before.
    pub(in crate::cli) fn see(&mut self, view: &TransferView) {
        for node in self.due(view) {
            if self.written.is_ok() {
                self.written = if self.output.json {
                    self.output.json(&line(node))
                } else {
                    at_node(self.output, node, self.is_quiet, &self.told)
                };
            }
        }
    }

    /// Tells the rest, and gives the exit status.
    pub(in crate::cli) fn end(mut self, view: &TransferView) -> Result<u8> {
        self.see(view);
        self.written.map(|()| status(view))
    }

    /// The nodes that ended and were not told.
    fn due<'v>(&mut self, view: &'v TransferView) -> Vec<&'v TransferNodeView> {
        let Self { well, told_of, .. } = self;
        let ended = view.nodes.iter().enumerate().filter(|(_, node)| is_over(node));
        let news = ended.filter(|(place, _)| told_of.insert(*place)).map(|(_, node)| node);
        news.filter(|node| !is_good(node) || well.insert(node.node.clone())).collect()
    }
}

/// Whether nothing more comes of that node.
pub(in crate::cli) fn is_over(node: &TransferNodeView) -> bool {
    !matches!(node.state.as_str(), "queued" | "scanning" | "moving" | "applying")
}

fn is_good(node: &TransferNodeView) -> bool {
    matches!(node.state.as_str(), "done" | "in_sync")
}

fn line(node: &TransferNodeView) -> Done<'_> {
    let none = || (0, 0, 0, 0, false);
    let end = node.end.as_ref();
    let (files, bytes, removed, notes_more, dry_run) =
        end.map_or_else(none, |end| (end.written, end.bytes, end.removed, end.notes_more, end.dry_run));
    let held = end.into_iter().flat_map(|end| &end.held).filter(|(_, count)| **count > 0);
    Done {
        kind: "done",
        node: &node.node,
        files,
        bytes,
        wire_bytes: node.wire_bytes,
        duration_ms: node.duration_ms,
        dry_run,
        removed,
        state: (!is_good(node)).then_some(node.state.as_str()),
        held: held.map(|(why, count)| (why.as_str(), *count)).collect(),
        notes: end.map_or(&[], |end| &end.notes),
        notes_more,
        halt: end.and_then(|end| end.halt.as_ref()),
        error: node.error.as_ref(),
        left_out: node.left_out,
    }
}

/// One node, for people: what would be done is the result of a dry run, and all else is talk.
fn at_node(output: Output, node: &TransferNodeView, is_quiet: bool, told: &Told<'_>) -> Result {
    let place = place(node);
    let none = TransferEndView::default();
    let end = node.end.as_ref().unwrap_or(&none);
    if let Some(halt) = &end.halt {
        halted(output, &place, halt, &(told.command)(node, Some(halt)));
        return Ok(());
    }
    if end.dry_run && node.error.is_none() {
        output.line(&would(&place, end))?;
        end.notes.iter().try_for_each(|note| output.line(&noted(note)))?;
        return more(end.notes_more).map_or(Ok(()), |more| output.line(&more));
    }
    if let Some(problem) = &node.error {
        let mut problem = problem.clone();
        problem.message = format!("{place}: {}", problem.message);
        let (ways, exit) = ((told.ways)(node, &problem), surface(problem.code()).exit);
        output.refused(&Refused { problem, ways, exit });
    } else if !is_quiet {
        output.say(&sentence(&place, node, end, told.done));
    }
    if let Some(node) = node.left_out.filter(|_| !is_quiet) {
        left_out(&node).for_each(|what| output.say(&format!("left out: {what}")));
    }
    // What was not done is told to the quiet as well.
    let shown = |note: &&TransferNoteView| !is_quiet || matches!(note.what.as_str(), "failed" | IN_CONFLICT);
    let worth = |note: &&TransferNoteView| !matches!(note.what.as_str(), "ignored" | "below" | "contains");
    end.notes.iter().filter(worth).filter(shown).for_each(|note| output.say(&noted(note)));
    more(end.notes_more).filter(|_| !is_quiet).iter().for_each(|more| output.say(more));
    if is_in_conflict(end) {
        let (node, path) = (&node.node, &node.path);
        output.say(&format!(
            "  Both sides changed what is in conflict. Look with `cortex fs ls {}`, and replace what is there with --force.",
            whole_argv(&[format!("{node}:{path}")])
        ));
    }
    Ok(())
}

fn place(node: &TransferNodeView) -> String {
    printable(&format!("{}:{}", node.node, node.path), 300)
}

fn sentence(place: &str, node: &TransferNodeView, end: &TransferEndView, done: &str) -> String {
    let took = duration::show(node.duration_ms);
    match node.state.as_str() {
        "in_sync" => format!("{place} is as it should be: nothing was sent, {took}"),
        "done" => {
            let sent = HumanBytes(node.wire_bytes);
            let removed = further(end.removed, "removed", "removed");
            let kept: u64 =
                end.held.iter().filter(|(why, _)| *why != "ignored").map(|(_, count)| count).sum();
            let kept = further(kept, "left as it is", "left as they are");
            format!(
                "{done} {place}: {}, {}{removed}{kept} ({sent} sent, {took})",
                words::count(end.written, "file", "files"),
                HumanBytes(end.bytes)
            )
        }
        other => format!("{place}: {}", printable(&other.replace('_', " "), 40)),
    }
}

/// What there is any of, each with the words for one and for several.
pub(in crate::cli) fn counted<'w>(
    all: impl IntoIterator<Item = (u64, &'w str, &'w str)>,
) -> impl Iterator<Item = String> {
    let some = all.into_iter().filter(|(count, ..)| *count > 0);
    some.map(|(count, one, many)| words::count(count, one, many))
}

fn further(count: u64, one: &str, many: &str) -> String {
    counted([(count, one, many)]).map(|counted| format!(", {counted}")).collect()
}

fn would(place: &str, end: &TransferEndView) -> String {
    let removed = further(end.removed, "would be removed", "would be removed");
    let held: Vec<String> = end.held.iter().filter(|(_, count)| **count > 0).map(held).collect();
    let held = if held.is_empty() { String::new() } else { format!(", {}", held.join(", ")) };
    let extra = further(end.extra, "more is there and stays", "more are there and stay");
    let same = further(end.same, "is as it should be", "are as they should be");
    format!(
        "{place}: {}, {}, would be written{removed}{same}{extra}{held}",
        words::count(end.written, "file", "files"),
        HumanBytes(end.bytes)
    )
}

fn held((why, count): (&String, &u64)) -> String {
    format!("{count} {}", printable(&why.replace('_', " "), 40))
}

/// One path, with what became of it in front.
fn noted(note: &TransferNoteView) -> String {
    let path = printable(&note.path, usize::MAX);
    let other = note.other.as_deref().map(|other| printable(other, usize::MAX));
    match (note.what.as_str(), other) {
        ("keep", Some(other)) => format!("  rename    {path} -> {other}"),
        (IN_CONFLICT, Some(other)) => format!("  conflict  {path} (the other version is kept as {other})"),
        ("failed", Some(code)) => format!("  failed    {path} ({code})"),
        (what, _) => format!("  {:9} {path}", printable(&what.replace('_', " "), 40)),
    }
}

fn more(count: u64) -> Option<String> {
    (count > 0).then(|| format!("  … and {count} more"))
}

fn halted(output: Output, place: &str, halt: &HaltView, command: &[String]) {
    let problem = Problem::new(
        &cortex_core::Refusal::new(
            Code::SyncHalted,
            format!(
                "{place}: {} Nothing was changed (rule {}).",
                printable(&halt.message, 500),
                printable(&halt.rule, 80)
            ),
        )
        .hint("Look first whether the source and the target are the right ones."),
        "",
    );
    let ways = vec![("let it pass", whole_argv(command))];
    output.refused(&Refused { problem, ways, exit: CONFLICT });
}

/// The end of a command, by its exit status.
pub(in crate::cli) const fn end(status: u8) -> Result {
    if status == 0 { Ok(()) } else { Err(Failure::Exit(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str) -> TransferNodeView {
        TransferNodeView {
            node: name.into(),
            path: "/srv/تطبيق".into(),
            state: state.into(),
            bytes_total: 10,
            bytes_moved: 10,
            wire_bytes: 7,
            steps_total: 1,
            steps_done: 1,
            duration_ms: 1_500,
            error: None,
            end: Some(TransferEndView { written: 2, bytes: 10, ..TransferEndView::default() }),
            left_out: None,
        }
    }

    fn failed(name: &str, code: Code) -> TransferNodeView {
        let error = Some(Problem::new(&cortex_core::Refusal::new(code, "why"), ""));
        TransferNodeView { error, end: None, ..node(name, "failed") }
    }

    fn note(path: &str, what: &str, other: Option<&str>) -> TransferNoteView {
        TransferNoteView { path: path.into(), what: what.into(), other: other.map(str::to_owned) }
    }

    fn with(state: &str, change: impl FnOnce(&mut TransferEndView)) -> TransferNodeView {
        let mut node = node("a", state);
        node.end.as_mut().map(change).expect("it has an end");
        node
    }

    fn conflict() -> TransferNodeView {
        with("done", |end| {
            end.held.insert(IN_CONFLICT.into(), 1);
        })
    }

    fn status_of(nodes: Vec<TransferNodeView>) -> u8 {
        status(&view_of(nodes))
    }

    fn view_of(nodes: Vec<TransferNodeView>) -> TransferView {
        TransferView {
            id: "t".into(),
            kind: "push".into(),
            state: "done".into(),
            seq: 1,
            root: None,
            entries: 0,
            bytes: 0,
            by: String::new(),
            at: String::new(),
            ended_at: None,
            nodes,
        }
    }

    #[test]
    fn one_node_gives_its_own_status_and_of_several_a_failure_is_one_and_a_conflict_eight() {
        for (node, status) in [
            (node("a", "done"), 0),
            (node("a", "in_sync"), 0),
            (node("a", "halted"), 8),
            (node("a", "cancelled"), 1),
            (conflict(), 8),
            (with("done", |end| end.notes.push(note("x", "failed", Some("no_space")))), 1),
            (failed("a", Code::PolicyDenied), 5),
            (failed("a", Code::NodeOffline), 7),
            (TransferNodeView { error: None, ..failed("a", Code::Internal) }, 1),
        ] {
            assert_eq!(status_of(vec![node.clone()]), status, "{node:?}");
        }
        assert_eq!(status_of(vec![node("a", "done"), node("b", "in_sync")]), 0);
        assert_eq!(status_of(vec![node("a", "done"), failed("b", Code::NodeOffline)]), 1);
        assert_eq!(status_of(vec![node("a", "done"), conflict()]), 8);
        assert_eq!(status_of(vec![node("a", "halted"), failed("b", Code::NodeOffline)]), 1);
        assert_eq!(status_of(Vec::new()), 0, "nobody was asked");
    }

    #[test]
    fn a_node_is_told_once_it_has_ended_whoever_goes_on_and_after_a_new_start_only_what_is_new() {
        let view = |states: &[(&str, &str)]| {
            let nodes = states.iter().map(|(name, state)| match *state {
                "away" => failed(name, Code::NodeOffline),
                state => node(name, state),
            });
            view_of(nodes.collect())
        };
        let names = |due: Vec<&TransferNodeView>| -> Vec<String> {
            due.iter().map(|node| format!("{} {}", node.node, node.state)).collect()
        };
        let told = Told { done: "pushed to", command: &|_, _| Vec::new(), ways: &|_, _| Vec::new() };
        let mut telling = Telling::new(Output::new(true), false, told);
        let first = view(&[("a", "moving"), ("b", "away"), ("c", "queued")]);
        assert!(telling.is_due(&first));
        assert_eq!(names(telling.due(&first)), ["b failed"]);
        assert!(!telling.is_due(&first));
        let second = view(&[("a", "applying"), ("b", "away"), ("c", "done")]);
        assert_eq!(names(telling.due(&second)), ["c done"]);
        telling.anew();
        let third = view(&[("a", "done"), ("b", "done"), ("c", "in_sync")]);
        assert_eq!(names(telling.due(&third)), ["a done", "b done"]);
        telling.anew();
        let fourth = view(&[("a", "halted"), ("b", "in_sync"), ("c", "scanning")]);
        assert_eq!(names(telling.due(&fourth)), ["a halted"], "a bad end is told after a good one");
    }

    #[test]
    fn the_last_line_of_a_good_end_has_six_members_and_a_bad_one_says_why() {
        let text = |node: &TransferNodeView| serde_json::to_string(&line(node)).expect("JSON");
        assert_eq!(
            text(&node("a", "done")),
            r#"{"type":"done","node":"a","files":2,"bytes":10,"wire_bytes":7,"duration_ms":1500}"#
        );
        let bad = text(&failed("b", Code::NodeOffline));
        assert!(bad.contains(r#""state":"failed""#) && bad.contains(r#""code":"node_offline""#), "{bad}");
        let held = text(&conflict());
        assert!(held.ends_with(r#""held":{"conflict":1}}"#), "{held}");
    }

    #[test]
    fn sentences_say_what_was_done_and_what_was_left() {
        let left = with("done", |end| {
            end.removed = 3;
            end.held.insert("kept".into(), 2);
            end.held.insert("ignored".into(), 9);
        });
        let end = left.end.as_ref().expect("its end");
        assert_eq!(
            sentence(&place(&left), &left, end, "pushed to"),
            "pushed to a:/srv/تطبيق: 2 files, 10 B, 3 removed, 2 left as they are (7 B sent, 1.5 s)"
        );
        let same = node("a", "in_sync");
        assert!(sentence("a:/x", &same, end, "pushed to").starts_with("a:/x is as it should be"));
        assert_eq!(
            would("a:/x", end),
            "a:/x: 2 files, 10 B, would be written, 3 would be removed, 9 ignored, 2 kept"
        );
    }

    #[test]
    fn one_of_anything_is_told_as_one() {
        let one = with("done", |end| {
            (end.written, end.removed, end.extra, end.same) = (1, 1, 1, 1);
            end.held.insert("kept".into(), 1);
        });
        let end = one.end.as_ref().expect("its end");
        assert_eq!(
            sentence("a:/x", &one, end, "pushed to"),
            "pushed to a:/x: 1 file, 10 B, 1 removed, 1 left as it is (7 B sent, 1.5 s)"
        );
        assert_eq!(
            would("a:/x", end),
            "a:/x: 1 file, 10 B, would be written, 1 would be removed, 1 is as it should be, \
             1 more is there and stays, 1 kept"
        );
        let all = |count| LeftOutView {
            unnamed: count,
            too_large: count,
            rules_unread: count,
            ..LeftOutView::default()
        };
        let told = left_out(&all(1)).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                "1 entry has a name that no tree takes",
                "1 file is too large, or hardly anything but a hole",
                "1 folder has an ignore file that cannot be read",
            ]
        );
        assert_eq!(left_out(&all(0)).count(), 0);
        assert!(left_out(&all(2)).all(|told| told.starts_with("2 ")));
        let refusal = unknown_is_not_gone(1, "push");
        assert!(refusal.message.starts_with("1 entry of the source cannot"), "{}", refusal.message);
    }

    #[test]
    fn a_name_on_a_node_cannot_speak_to_a_terminal() {
        let shown = noted(&note("a\u{1b}[2Jb\nc", "write", None));
        assert_eq!(shown, "  write     a\\u{1b}[2Jb\\u{a}c");
        assert_eq!(noted(&note("أ", "keep", Some("ب"))), "  rename    أ -> ب");
        assert!(noted(&note("x", "failed", Some("no_space"))).ends_with("x (no_space)"));
    }
}
