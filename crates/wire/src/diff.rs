//! What changed in a text, for people: a unified diff, bounded in bytes and in time.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cortex_core::files::answer::Diff;
use cortex_core::limits::DIFF_BYTES_MAX;
use cortex_core::words::count;
use similar::{ChangeTag, TextDiff};

/// Unchanged lines that are shown around what changed.
const CONTEXT: usize = 3;
/// How long a short difference is looked for; after that what is shown is right, and longer than it had to
/// be.
const TIME_MAX: Duration = Duration::from_millis(200);

/// The difference between two contents under the names that they have before and after. Of what is no
/// text only the sizes are told.
pub fn unified(old: &[u8], new: &[u8], old_name: &str, new_name: &str) -> Diff {
    if old == new {
        return Diff { text: String::new(), added: 0, removed: 0, cut: false };
    }
    let (Some(old_text), Some(new_text)) = (text(old), text(new)) else {
        let text = format!("binary files differ, {} -> {}\n", old.len(), count(new.len(), "byte", "bytes"));
        return Diff { text, added: 0, removed: 0, cut: false };
    };
    let deadline = Instant::now() + TIME_MAX;
    // Only `\n` ends a line, as in all that is told of lines.
    let (old_lines, new_lines): (Vec<&str>, Vec<&str>) =
        (old_text.split_inclusive('\n').collect(), new_text.split_inclusive('\n').collect());
    let diff = TextDiff::configure().deadline(deadline).diff_slices(&old_lines, &new_lines);
    let mut out = Bounded::default();
    out.line(format_args!("--- {old_name}\n"));
    out.line(format_args!("+++ {new_name}\n"));
    let (mut added, mut removed) = (0_u32, 0_u32);
    for group in diff.grouped_ops(CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let before = first.old_range().start..last.old_range().end;
        let after = first.new_range().start..last.new_range().end;
        out.line(format_args!("@@ -{} +{} @@\n", span(&before), span(&after)));
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => {
                    removed = removed.saturating_add(1);
                    '-'
                }
                ChangeTag::Insert => {
                    added = added.saturating_add(1);
                    '+'
                }
            };
            out.line(format_args!("{sign}{}", change.value()));
            if !change.value().ends_with('\n') {
                out.line(format_args!("\n\\ No newline at end of file\n"));
            }
        }
    }
    Diff { text: out.text, added, removed, cut: out.is_cut }
}

/// Text as [`cortex_core::files::answer::Encoding`] has it.
fn text(content: &[u8]) -> Option<&str> {
    std::str::from_utf8(content).ok().filter(|text| !text.contains('\0'))
}

/// Lines of one side of a hunk, as the format writes them: an empty range is named by the line before.
fn span(range: &std::ops::Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => format!("{}", range.start + 1),
        len => format!("{},{len}", range.start + 1),
    }
}

/// Text that takes whole pieces, or what fits of the last one.
#[derive(Default)]
struct Bounded {
    text: String,
    is_cut: bool,
}

impl Bounded {
    fn line(&mut self, piece: std::fmt::Arguments<'_>) {
        if self.is_cut {
            return;
        }
        // Writing to a string cannot fail.
        let _written = self.text.write_fmt(piece);
        if self.text.len() > DIFF_BYTES_MAX {
            self.text.truncate(self.text.floor_char_boundary(DIFF_BYTES_MAX));
            self.is_cut = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: &str, new: &str) -> Diff {
        unified(old.as_bytes(), new.as_bytes(), "a/f", "b/f")
    }

    #[test]
    fn what_changed_is_shown_with_three_lines_around() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let text = "--- a/f\n+++ b/f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+خمسة\n 6\n 7\n 8\n";
        let expected = Diff { text: text.to_owned(), added: 1, removed: 1, cut: false };
        assert_eq!(diff(old, &old.replace('5', "خمسة")), expected);
        assert_eq!(diff("", "a\n").text, "--- a/f\n+++ b/f\n@@ -0,0 +1 @@\n+a\n");
        assert_eq!(diff("a\n", "").text, "--- a/f\n+++ b/f\n@@ -1 +0,0 @@\n-a\n");
        assert_eq!(diff("a\n", "a\n"), Diff { text: String::new(), added: 0, removed: 0, cut: false });
    }

    #[test]
    fn a_last_line_without_an_end_and_returns_are_told() {
        let text = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n";
        assert_eq!(diff("a", "a\n").text, text);
        assert_eq!(diff("a\r\n", "a\n").text, "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\r\n+a\n");
        let text = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\rb\n+a\rc\n";
        assert_eq!(diff("a\rb\n", "a\rc\n").text, text, "a return alone ends no line");
    }

    #[test]
    fn of_what_is_no_text_the_sizes_are_told() {
        for (old, new, sizes) in
            [(&b"a\0"[..], &b"b"[..], "2 -> 1 byte"), (b"a", b"\xff\xfe", "1 -> 2 bytes")]
        {
            let diff = unified(old, new, "a/f", "b/f");
            assert_eq!(diff.text, format!("binary files differ, {sizes}\n"));
            assert_eq!((diff.added, diff.removed, diff.cut), (0, 0, false));
        }
    }

    #[test]
    fn a_large_difference_is_cut_between_characters_and_counted_whole() {
        let (old, new) = ("م\n".repeat(40_000), "ن\n".repeat(50_000));
        let diff = diff(&old, &new);
        assert!(diff.cut && diff.text.len() <= DIFF_BYTES_MAX && diff.text.len() > DIFF_BYTES_MAX - 4);
        assert_eq!((diff.added, diff.removed), (50_000, 40_000));
    }

    #[test]
    fn contents_that_have_little_in_common_take_no_longer_than_they_may() {
        let line = |n: u64| format!("{}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50);
        let old: String = (0..200_000).map(line).collect();
        let new: String = (0..200_000).map(|n| line(n * 7 + 3)).collect();
        let began = Instant::now();
        let diff = diff(&old, &new);
        // Generous: the machine may be busy; without a bound it takes minutes.
        assert!(began.elapsed() < TIME_MAX * 50, "{:?}", began.elapsed());
        assert!(diff.cut && diff.added > 0);
    }
}
