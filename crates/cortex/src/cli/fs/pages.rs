//! The pages of a list or a search, one after the other, up to a limit.

use cortex_core::words::count;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{FreshView, SkippedView};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Files, Query, fresh};
use crate::client::Call;
use crate::error::{Failure, Result};
use crate::output::Output;

/// Items that one array may have. More are for `--stream`, which holds one page at a time.
const ARRAY_ITEMS_MAX: usize = 200_000;

/// A page of anything.
#[derive(Deserialize)]
struct PageOf<T> {
    items: Vec<T>,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(default)]
    skipped: SkippedView,
    #[serde(default)]
    fresh: Option<FreshView>,
}

/// The pages of one list.
pub(super) struct Pages<'a> {
    files: &'a mut Files,
    base: String,
    page_max: u32,
    /// Items that may still come.
    left: usize,
    next: Next,
    skipped: SkippedView,
    /// Whose answer the last page is.
    fresh: Option<FreshView>,
}

enum Next {
    First,
    After(String),
    End,
}

impl<'a> Pages<'a> {
    /// At most `limit` items of this address, at most `page_max` in one answer.
    pub(super) fn new(files: &'a mut Files, base: Query, page_max: u32, limit: Option<usize>) -> Self {
        let left = limit.unwrap_or(usize::MAX);
        Self {
            files,
            base: base.0,
            page_max,
            left,
            next: Next::First,
            skipped: SkippedView::default(),
            fresh: None,
        }
    }

    /// The next page, which may be empty; `None` after the last.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Vec<T>>> {
        let url = Query(self.base.clone()).with("limit", self.left.min(self.page_max as usize));
        let url = match &self.next {
            Next::First => url,
            Next::After(cursor) if self.left > 0 => url.with("cursor", cursor),
            Next::After(_) | Next::End => return Ok(None),
        };
        let mut page: PageOf<T> = self.files.call(Method::GET, url, Call::default()).await?;
        if matches!((&self.next, &page.next_cursor), (Next::After(before), Some(after)) if before == after) {
            return Err(Refusal::new(Code::Internal, "The hub answers with the same page again.").into());
        }
        page.items.truncate(self.left);
        self.left -= page.items.len();
        self.next = page.next_cursor.map_or(Next::End, Next::After);
        self.skipped = sum(self.skipped, page.skipped);
        self.fresh = page.fresh;
        Ok(Some(page.items))
    }

    /// All items, for an array.
    pub(super) async fn all<T: DeserializeOwned>(&mut self) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while let Some(page) = self.next::<T>().await? {
            items.extend(page);
            if items.len() > ARRAY_ITEMS_MAX {
                return Err(Failure::new(
                    Code::TooLarge,
                    format!("There are more than {ARRAY_ITEMS_MAX} entries, too many for one array."),
                    "Add `--stream` for one object per line, or `--limit`.",
                ));
            }
        }
        Ok(items)
    }

    /// Tells what is not in the result, when there is something to tell.
    pub(super) fn tell_rest(&self, output: Output) {
        if let Some(fresh) = &self.fresh {
            fresh::say(output, fresh);
        }
        let left_out = left_out(self.skipped);
        if !left_out.is_empty() {
            output.say(&format!("Left out: {left_out}."));
        }
        if matches!(self.next, Next::After(_)) {
            output.say("There is more than the limit.");
        }
    }

    /// What an ignore file leaves out.
    pub(super) const fn ignored(&self) -> u64 {
        self.skipped.ignored
    }
}

const fn sum(a: SkippedView, b: SkippedView) -> SkippedView {
    SkippedView {
        unreadable: a.unreadable.saturating_add(b.unreadable),
        binary: a.binary.saturating_add(b.binary),
        too_large: a.too_large.saturating_add(b.too_large),
        ignored: a.ignored.saturating_add(b.ignored),
        unsupported: a.unsupported.saturating_add(b.unsupported),
    }
}

/// In words. What an ignore file leaves out is as it should be, and not told.
fn left_out(skipped: SkippedView) -> String {
    let SkippedView { unreadable, binary, too_large, ignored: _, unsupported } = skipped;
    let parts = [
        (unreadable, "unreadable entry", "unreadable entries"),
        (binary, "binary file", "binary files"),
        (too_large, "file too large to search", "files too large to search"),
        (unsupported, "name that no command can give", "names that no command can give"),
    ];
    let told = parts.iter().filter(|(number, ..)| *number > 0);
    let told = told.map(|(number, one, many)| count(*number, one, many));
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_by_reason_and_ignored_files_are_not() {
        let skipped = SkippedView { unreadable: 2, ignored: 9, unsupported: 1, ..SkippedView::default() };
        assert_eq!(left_out(sum(skipped, skipped)), "4 unreadable entries, 2 names that no command can give");
        assert_eq!(left_out(SkippedView { ignored: 3, ..SkippedView::default() }), "");
    }
}
