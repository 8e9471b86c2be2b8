//! `cortex fs grep`.

use cortex_core::limits::MATCHES_PAGE_MAX;
use cortex_core::words::count;
use cortex_wire::http::MatchView;

use super::find::Beyond;
use super::pages::Pages;
use super::show::{self, MAGENTA};
use super::{Files, fresh};
use crate::cli::Context;
use crate::error::{Failure, Result};
use crate::output::Output;

/// Find lines in files. Exit 1 when there is none. What ignore files leave out is not searched.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs grep 'fn main' build-2:/srv/app --glob '*.rs'\n  cortex fs grep -F -i 'error:' build-2:/srv/app/run.log -C 2"
)]
pub(super) struct Grep {
    /// A regular expression; one that begins with `-` goes behind `--`, with what follows it.
    pattern: String,
    /// The folder, or one file.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// The pattern is plain text.
    #[arg(short = 'F', long)]
    fixed: bool,
    /// Upper and lower case are the same.
    #[arg(short, long)]
    ignore_case: bool,
    /// So many lines before and after each, at most 10.
    #[arg(short = 'C', long, value_name = "N", default_value_t = 0)]
    context: u8,
    /// Only in files of these names.
    #[arg(long, value_name = "GLOB")]
    glob: Option<String>,
    #[command(flatten)]
    beyond: Beyond,
    #[command(flatten)]
    from: fresh::From,
    /// At most so many lines; all when missing.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Grep {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let url = files.search_url().with("pattern", self.pattern).flag("literal", self.fixed);
        let url = url.flag("ignore_case", self.ignore_case).maybe("glob", self.glob);
        let url = url.maybe("context", (self.context > 0).then_some(self.context));
        let output = context.output;
        let mut printer = Printer::new(&files.place.path, self.context > 0, output);
        let mut pages = Pages::new(files, self.from.on(self.beyond.on(url)), MATCHES_PAGE_MAX, self.limit);
        let mut found = false;
        while let Some(items) = pages.next::<MatchView>().await? {
            found |= !items.is_empty();
            if output.json {
                items.iter().try_for_each(|line| output.json(line))?;
            } else {
                items.iter().for_each(|line| printer.take(line));
                output.bytes(printer.ready().as_bytes())?;
            }
        }
        output.bytes(printer.end().as_bytes())?;
        pages.tell_rest(output);
        if found {
            return Ok(());
        }
        let ignored = pages.ignored();
        let hint = if ignored == 0 {
            String::new()
        } else {
            let ignored = count(ignored, "entry was", "entries were");
            format!(" {ignored} left out by ignore files; --ignored looks there too.")
        };
        output.say(&format!("No line was found.{hint}"));
        Err(Failure::Exit(1))
    }
}

/// Lines with their neighbours, each once however near the matches are to each other.
struct Printer {
    folder: String,
    groups: bool,
    output: Output,
    terminal: bool,
    text: String,
    file: Option<String>,
    /// Number of the last line that was printed.
    last: u64,
    /// Lines after the last match, from the one after it.
    after: Vec<String>,
}

impl Printer {
    fn new(path: &str, groups: bool, output: Output) -> Self {
        let folder = path.trim_end_matches('/').to_owned();
        let terminal = output.is_terminal();
        Self { folder, groups, output, terminal, text: String::new(), file: None, last: 0, after: Vec::new() }
    }

    fn take(&mut self, found: &MatchView) {
        let same = self.file.as_deref() == Some(found.file.as_str());
        self.neighbours_until(if same { found.line } else { u64::MAX });
        let first = found.line.saturating_sub(found.before.len() as u64);
        let is_apart = !same || first > self.last + 1;
        if self.groups && self.file.is_some() && is_apart {
            self.text.push_str("--\n");
        }
        if !same {
            self.file = Some(found.file.clone());
            self.last = 0;
        }
        for (number, line) in (first..).zip(&found.before) {
            if number > self.last {
                self.print(number, '-', line);
            }
        }
        self.print(found.line, ':', &found.text);
        self.after.clone_from(&found.after);
    }

    /// What may be printed so far.
    fn ready(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// The rest.
    fn end(&mut self) -> String {
        self.neighbours_until(u64::MAX);
        self.ready()
    }

    fn neighbours_until(&mut self, line: u64) {
        for (number, text) in (self.last + 1..line).zip(std::mem::take(&mut self.after)) {
            self.print(number, '-', &text);
        }
    }

    fn print(&mut self, number: u64, mark: char, line: &str) {
        if let Some(file) = self.file.as_deref().filter(|file| !file.is_empty()) {
            let shown = format!("{}/{}", self.folder, show::name(file, self.terminal));
            self.text.push_str(&format!("{}{mark}", self.output.paint(MAGENTA, &shown)));
        }
        self.text.push_str(&format!("{number}{mark}{}\n", show::line(line, self.terminal)));
        self.last = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, line: u64, before: &[&str], after: &[&str]) -> MatchView {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        MatchView {
            file: file.to_owned(),
            file_base64: None,
            line,
            text: format!("hit {line}"),
            before: owned(before),
            after: owned(after),
        }
    }

    fn shown(path: &str, groups: bool, matches: &[MatchView]) -> String {
        let mut printer = Printer::new(path, groups, Output::new(false));
        matches.iter().for_each(|found| printer.take(found));
        printer.end()
    }

    #[test]
    fn a_line_is_shown_with_its_file_and_number_and_of_one_file_with_its_number() {
        let matches = [found("a.rs", 3, &[], &[]), found("ب/c.rs", 1, &[], &[])];
        assert_eq!(shown("/srv", false, &matches), "/srv/a.rs:3:hit 3\n/srv/ب/c.rs:1:hit 1\n");
        assert_eq!(shown("/", false, &matches[..1]), "/a.rs:3:hit 3\n");
        assert_eq!(shown("/srv/a.rs", false, &[found("", 3, &[], &[])]), "3:hit 3\n");
        assert_eq!(shown("/srv", true, &[]), "");
    }

    #[test]
    fn neighbours_of_near_matches_are_shown_once_and_groups_are_apart() {
        let matches = [
            found("", 2, &["one"], &["three", "four"]),
            found("", 4, &["hit 2", "three"], &["five", "six"]),
            found("", 6, &["four", "five"], &["seven"]),
            found("", 20, &["18", "19"], &[]),
        ];
        let expected =
            "1-one\n2:hit 2\n3-three\n4:hit 4\n5-five\n6:hit 6\n7-seven\n--\n18-18\n19-19\n20:hit 20\n";
        assert_eq!(shown("/f", true, &matches), expected);
        let files = [found("a", 1, &[], &["x"]), found("b", 2, &["y"], &[])];
        assert_eq!(shown("/", true, &files), "/a:1:hit 1\n/a-2-x\n--\n/b-1-y\n/b:2:hit 2\n");
    }
}
