//! The only place that prints. Results go to standard output, talk to standard error; a reader
//! that has gone away ends the command quietly. Escape codes go to terminals only.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use cortex_wire::error::ErrorBody;
use serde::Serialize;

use crate::error::{Failure, Refused, Result};

/// How this process may speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Results as JSON.
    pub(crate) json: bool,
    /// Standard output is a terminal that wants colour.
    pub(crate) colour: bool,
    /// Standard error is a terminal that wants colour.
    colour_err: bool,
}

impl Output {
    /// Looks at the terminal and `NO_COLOR`.
    pub(crate) fn new(json: bool) -> Self {
        let wanted =
            crate::env::get("NO_COLOR").is_none() && crate::env::get("TERM").as_deref() != Some("dumb");
        let colour = wanted && io::stdout().is_terminal();
        Self { json, colour, colour_err: wanted && io::stderr().is_terminal() }
    }

    /// A line of the result.
    pub(crate) fn line(self, text: &str) -> Result {
        let mut stdout = io::stdout().lock();
        written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")))?;
        written(stdout.flush())
    }

    /// Bytes of the result as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result {
        let mut stdout = io::stdout().lock();
        written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
    }

    /// Bytes of a remote standard error as they are.
    pub(crate) fn bytes_err(self, bytes: &[u8]) -> Result {
        written(io::stderr().lock().write_all(bytes))
    }

    /// One JSON value on one line.
    pub(crate) fn json<T: Serialize + ?Sized>(self, value: &T) -> Result {
        let text = serde_json::to_string(value).map_err(|error| {
            Failure::from(cortex_core::Refusal::new(cortex_core::Code::Internal, error.to_string()))
        })?;
        self.line(&text)
    }

    /// Talk: a line on standard error. A closed standard error is no reason to end.
    pub(crate) fn say(self, text: &str) {
        ignore(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Rows under a head, in columns.
    pub(crate) fn table(self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(head);
        table.add_rows(rows);
        if let Some(width) = table.width().filter(|_| table.is_tty()) {
            fit(&mut table, width);
        }
        for line in table.lines() {
            // The first column has a blank before it.
            self.line(line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
        }
        Ok(())
    }

    /// A list: an array with `--json`, a table otherwise, one sentence of talk when empty.
    pub(crate) fn list<T: Serialize>(
        self,
        items: &[T],
        head: &[&str],
        row: impl Fn(&T) -> Vec<String>,
        when_empty: &str,
    ) -> Result {
        if self.json {
            return self.json(items);
        }
        if items.is_empty() {
            self.say(when_empty);
            return Ok(());
        }
        self.table(head, items.iter().map(row))
    }

    /// One thing: JSON, or `name  value` lines.
    pub(crate) fn facts<T: Serialize>(self, value: &T, facts: &[(&str, String)]) -> Result {
        if self.json {
            return self.json(value);
        }
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        facts.iter().try_for_each(|(name, value)| self.line(format!("{name:width$}  {value}").trim_end()))
    }

    /// Whether somebody is there who can be asked.
    pub(crate) fn can_ask(self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether the result goes to a terminal, which obeys what is written to it.
    pub(crate) fn is_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// A question, with its answer on the same line.
    pub(crate) fn ask(self, question: &str) {
        let mut stderr = io::stderr().lock();
        ignore(write!(stderr, "{question}").and_then(|()| stderr.flush()));
    }

    /// Asks before something that cannot be taken back. Without a terminal, `--yes` is needed.
    pub(crate) fn confirm(self, question: &str, yes: bool) -> Result {
        if yes {
            return Ok(());
        }
        if !self.can_ask() {
            return Err(Failure::usage(
                format!("{question} Nobody can be asked here."),
                "Add `--yes` to go ahead without being asked.",
            ));
        }
        ignore(write!(io::stderr().lock(), "{question} [y/N] "));
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        self.say("Nothing was changed.");
        Err(Failure::Exit(1))
    }

    /// Shows how a command ended, and gives its exit status.
    pub(crate) fn end(self, result: Result) -> u8 {
        let Err(failure) = result else { return 0 };
        if let Failure::Refused(refused) = &failure {
            self.refused(refused);
        }
        failure.exit()
    }

    /// Shows a refusal: the error object on standard output with `--json`, sentences for people.
    pub(crate) fn refused(self, refused: &Refused) {
        if self.json {
            // The status is the same whether or not somebody still reads.
            return ignore(self.json(&ErrorBody { error: refused.problem.clone() }));
        }
        let problem = &refused.problem;
        let denied = [cortex_core::Code::PolicyDenied, cortex_core::Code::ConsentDenied];
        let label = if denied.contains(&problem.code()) { "DENIED " } else { "error:" };
        self.say(&format!("{} {}", self.red(label), problem.message));
        let width = refused.ways.iter().map(|(what, _)| what.len() + 1).chain([5]).max().unwrap_or(5);
        let hint = shown_hint(refused);
        if !hint.is_empty() {
            self.say(&format!("  {:width$} {hint}", "hint:"));
        }
        for (what, command) in &refused.ways {
            self.say(&format!("  {:width$} {command}", format!("{what}:")));
        }
        if !problem.request_id.is_empty() {
            self.say(&format!("  ({}, exit {}, request {})", problem.code, refused.exit, problem.request_id));
        }
    }

    /// The n-th of some colours, for the name of a node.
    pub(crate) fn tint(self, index: usize, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", 31 + (index + 1) % 6) } else { text.to_owned() }
    }

    /// In a colour, by its number for terminals.
    pub(crate) fn paint(self, colour: u8, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn red(self, text: &str) -> String {
        if self.colour_err { format!("\x1b[31m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Breaks the last column within itself when a terminal of that width cannot hold the rows. The columns
/// before it stay whole: what is copied from them is on one line.
fn fit(table: &mut Table, width: u16) {
    /// A last column narrower than this is read worse than lines that the terminal breaks.
    const LAST_MIN: u16 = 16;
    /// Blanks around each column.
    const BLANKS: u16 = 2;
    let widths = table.column_max_content_widths();
    let Some((last, before)) = widths.split_last() else { return };
    let used = before.iter().fold(0_u16, |used, column| used.saturating_add(column.saturating_add(BLANKS)));
    let left = width.saturating_sub(used).saturating_sub(BLANKS);
    if left < LAST_MIN || *last <= left {
        return;
    }
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let count = before.len();
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_constraint(if at < count {
            ColumnConstraint::ContentWidth
        } else {
            ColumnConstraint::UpperBoundary(Width::Fixed(left + BLANKS))
        });
    }
}

/// The hint; its first sentence where the ways on below it say the rest as commands.
fn shown_hint(refused: &Refused) -> &str {
    let hint = refused.problem.hint.as_str();
    let end = hint.find(". ").filter(|_| !refused.ways.is_empty()).map_or(hint.len(), |dot| dot + 1);
    &hint[..end]
}

/// Whether standard output and standard error are known to go to different places.
pub(crate) fn goes_apart() -> bool {
    let place = |of: std::io::Result<OwnedFd>| {
        let about = File::from(of.ok()?).metadata().ok()?;
        Some((about.dev(), about.ino()))
    };
    let out = place(io::stdout().as_fd().try_clone_to_owned());
    let err = place(io::stderr().as_fd().try_clone_to_owned());
    out.is_some() && err.is_some() && out != err
}

/// A reader that has gone away wants no more: a quiet end with status 0.
fn written(result: io::Result<()>) -> Result {
    result.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::Exit(0);
        }
        Failure::new(
            cortex_core::Code::Internal,
            format!("The output cannot be written: {error}."),
            "Check the disk or the program that reads it.",
        )
    })
}

/// Talk that nobody can hear is no failure.
fn ignore<T, E>(result: std::result::Result<T, E>) {
    drop(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_breaks_the_last_column_and_no_other() {
        let id = "0198a1c2-0000-7000-8000-000000000000";
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["ID", "WORDS"]);
        table.add_row([id, "one two three four five six seven eight nine ten"]);
        fit(&mut table, 60);
        let lines: Vec<String> = table.lines().collect();
        assert!(lines.len() > 3 && lines.iter().all(|line| line.chars().count() <= 60), "{lines:#?}");
        assert!(lines[1].contains(id) && lines[2].starts_with(&" ".repeat(id.len())), "{lines:#?}");
        let mut narrow = Table::new();
        narrow.load_style(presets::NOTHING).add_row([id, "one two three four five six seven"]);
        fit(&mut narrow, 40);
        assert_eq!(narrow.lines().count(), 1, "what does not help is left to the terminal");
    }
}
