//! What makes an operation one that is carried out. Paths were checked when they were parsed.

use super::{Content, Edit, Expect, FileOp, FindQuery, Glob, GrepQuery, Page, ReadAs, ReadRange, WriteHow};
use crate::error::{Code, Refusal};
use crate::files::path::FilePath;
use crate::limits;
use crate::name::printable;
use crate::path::within;

/// Permissions that a caller may give: those of user, group and others. No operation makes a program that
/// runs as somebody else (SYNC rule 16).
const MODE_MAX: u16 = 0o777;

impl FileOp {
    /// Checks lengths, counts, and what contradicts itself.
    ///
    /// # Errors
    ///
    /// `invalid_argument` with the name of the field, and `too_large` with the bound.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::List { depth, page, .. } => {
                if !(1..=limits::LIST_DEPTH_MAX).contains(depth) {
                    let max = limits::LIST_DEPTH_MAX;
                    return invalid(format!("`depth` is {depth}; it must be 1 to {max}."));
                }
                check_page(page, limits::LIST_ENTRIES_PAGE_MAX)
            }
            Self::Stat { .. } => Ok(()),
            Self::Read { range, want, .. } => check_range(*range).and_then(|()| check_want(*want)),
            Self::Find { query, page, .. } => {
                check_find(query)?;
                check_page(page, limits::LIST_ENTRIES_PAGE_MAX)
            }
            Self::Grep { query, page, .. } => {
                check_grep(query)?;
                check_page(page, limits::MATCHES_PAGE_MAX)
            }
            Self::Write { path, content, how, expect, mode, .. } => {
                check_target(path)?;
                check_content(content)?;
                check_how(*how, *expect)?;
                check_mode(*mode)
            }
            Self::Edit { path, edits, expect, .. } => {
                check_target(path)?;
                check_present(*expect)?;
                check_edits(edits)
            }
            Self::MakeDir { path, mode, .. } => check_target(path).and_then(|()| check_mode(*mode)),
            Self::Remove { path, recursive, expect, .. } => {
                check_target(path)?;
                check_present(*expect)?;
                check_whole(*recursive, *expect)
            }
            Self::Move { from, to, expect, .. } => {
                check_target(from)?;
                check_ends(from, to)?;
                check_present(*expect)
            }
            Self::Copy { from, to, recursive, expect, .. } => {
                check_ends(from, to)?;
                check_present(*expect)?;
                check_whole(*recursive, *expect)
            }
        }
    }
}

impl Glob {
    /// Reads a pattern. Whether its brackets match is found out where it is used.
    ///
    /// # Errors
    ///
    /// `invalid_argument` when it is empty or has a control character, `too_large` beyond
    /// [`limits::GLOB_BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > limits::GLOB_BYTES_MAX {
            return too_large("The pattern for names is too long", limits::GLOB_BYTES_MAX as u64);
        }
        if text.is_empty() || text.contains(char::is_control) {
            let shown = printable(text, 80);
            return invalid(format!(
                "`{shown}` is no pattern for names: it is empty, or has a control character."
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn invalid<T>(message: String) -> Result<T, Refusal> {
    Err(Refusal::new(Code::InvalidArgument, message))
}

fn too_large<T>(what: &str, max: u64) -> Result<T, Refusal> {
    Err(Refusal::new(Code::TooLarge, format!("{what}; the bound is {max} bytes.")))
}

/// The top of the file system is nobody's to change.
fn check_target(path: &FilePath) -> Result<(), Refusal> {
    if path.as_str() != "/" {
        return Ok(());
    }
    invalid("`/` itself is not changed. Name an entry below it.".to_owned())
}

fn check_page(page: &Page, max: u32) -> Result<(), Refusal> {
    if !(1..=max).contains(&page.limit) {
        return invalid(format!("`limit` is {}; it must be 1 to {max}.", page.limit));
    }
    match &page.cursor {
        Some(cursor) if cursor.len() > limits::FILE_CURSOR_BYTES_MAX => {
            too_large("The cursor is too long", limits::FILE_CURSOR_BYTES_MAX as u64)
        }
        Some(_) | None => Ok(()),
    }
}

fn check_range(range: ReadRange) -> Result<(), Refusal> {
    match range {
        ReadRange::All => Ok(()),
        ReadRange::Bytes { from, len } if len == 0 || from.checked_add(len).is_none() => {
            invalid(format!("The range of {len} bytes from {from} is none."))
        }
        ReadRange::Lines { from, count } if from == 0 || count == 0 || from.checked_add(count).is_none() => {
            invalid(format!("The range of {count} lines from line {from} is none; lines count from 1."))
        }
        ReadRange::Bytes { .. } | ReadRange::Lines { .. } => Ok(()),
    }
}

fn check_want(want: ReadAs) -> Result<(), Refusal> {
    let max = limits::FILE_INLINE_BYTES_MAX;
    match want {
        ReadAs::Inline { bytes_max: 0 } => {
            invalid("`bytes_max` is 0, with which nothing is read.".to_owned())
        }
        ReadAs::Inline { bytes_max } if bytes_max as usize > max => {
            too_large("`bytes_max` is more than one answer holds", max as u64)
        }
        ReadAs::Inline { .. } | ReadAs::Stream => Ok(()),
    }
}

fn check_find(query: &FindQuery) -> Result<(), Refusal> {
    match (query.size_min, query.size_max) {
        (Some(min), Some(max)) if min > max => {
            invalid(format!("No file has at least {min} and at most {max} bytes."))
        }
        _ => Ok(()),
    }
}

fn check_grep(query: &GrepQuery) -> Result<(), Refusal> {
    let max = limits::GREP_PATTERN_BYTES_MAX;
    if query.pattern.len() > max {
        return too_large("The pattern is too long", max as u64);
    }
    if query.pattern.is_empty() || query.pattern.contains(['\n', '\r', '\0']) {
        return invalid("`pattern` is empty, or has a line end, which no line contains.".to_owned());
    }
    if query.context > limits::GREP_CONTEXT_MAX {
        let max = limits::GREP_CONTEXT_MAX;
        return invalid(format!("`context` is {}; it must be at most {max} lines.", query.context));
    }
    Ok(())
}

fn check_content(content: &Content) -> Result<(), Refusal> {
    match content {
        Content::Inline(bytes) if bytes.len() > limits::FILE_INLINE_BYTES_MAX => {
            too_large("The content is more than one request holds", limits::FILE_INLINE_BYTES_MAX as u64)
        }
        Content::Streamed { len: Some(len), .. } if *len > limits::FILE_BODY_BYTES_MAX => {
            too_large("The content is more than one file is written with", limits::FILE_BODY_BYTES_MAX)
        }
        Content::Inline(_) | Content::Streamed { .. } => Ok(()),
    }
}

fn check_how(how: WriteHow, expect: Expect) -> Result<(), Refusal> {
    match (how, expect) {
        (WriteHow::Create, Expect::Etag(_)) => invalid(
            "A file that is to be made has no etag before. Replace it, or leave the etag out.".to_owned(),
        ),
        (WriteHow::Replace, Expect::Absent) => {
            invalid("A file that is to be replaced must be there. Create it, or expect its etag.".to_owned())
        }
        (WriteHow::Create | WriteHow::Replace | WriteHow::Append | WriteHow::Put, _) => Ok(()),
    }
}

fn check_present(expect: Expect) -> Result<(), Refusal> {
    match expect {
        Expect::Absent => invalid("What is not there cannot be edited, moved, copied or removed.".to_owned()),
        Expect::Any | Expect::Etag(_) => Ok(()),
    }
}

fn check_whole(recursive: bool, expect: Expect) -> Result<(), Refusal> {
    match expect {
        Expect::Etag(_) if recursive => {
            invalid("A folder has no etag. Leave out the etag, or `recursive`.".to_owned())
        }
        Expect::Any | Expect::Absent | Expect::Etag(_) => Ok(()),
    }
}

fn check_mode(mode: Option<u16>) -> Result<(), Refusal> {
    match mode {
        Some(mode) if mode > MODE_MAX => {
            invalid(format!("`mode` is {mode:o}; it must be at most 777: no setuid, setgid or sticky bit."))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_edits(edits: &[Edit]) -> Result<(), Refusal> {
    let max = limits::EDITS_MAX;
    if edits.is_empty() || edits.len() > max {
        return invalid(format!("There are {} edits; it must be 1 to {max}.", edits.len()));
    }
    let bytes: usize = edits.iter().map(|edit| edit.old.len() + edit.new.len()).sum();
    if bytes > limits::FILE_INLINE_BYTES_MAX {
        return too_large("The edits are too long together", limits::FILE_INLINE_BYTES_MAX as u64);
    }
    match edits.iter().position(|edit| edit.old.is_empty() || edit.old == edit.new) {
        Some(at) => invalid(format!("Edit {} has nothing to find, or changes nothing.", at + 1)),
        None => Ok(()),
    }
}

/// Neither end of a move or a copy may lie within the other: what is moved into itself is lost, and what
/// is replaced by a part of itself as well.
fn check_ends(from: &FilePath, to: &FilePath) -> Result<(), Refusal> {
    check_target(to)?;
    if within(to.as_str(), from.as_str()) || within(from.as_str(), to.as_str()) {
        let (from, to) = (printable(from.as_str(), 200), printable(to.as_str(), 200));
        return invalid(format!("`{from}` and `{to}` are the same, or one lies within the other."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::content::ContentId;
    use crate::files::samples::path;

    const LARGE: Result<(), Code> = Err(Code::TooLarge);
    const BAD: Result<(), Code> = Err(Code::InvalidArgument);
    const ETAG: Expect = Expect::Etag(ContentId::new([1; 32]));

    fn check(op: &FileOp) -> Result<(), Code> {
        op.check().map_err(|refusal| refusal.code)
    }

    fn write(
        text: &str,
        content: Content,
        how: WriteHow,
        expect: Expect,
        mode: Option<u16>,
    ) -> Result<(), Code> {
        check(&FileOp::Write { path: path(text), content, how, expect, mkdirs: true, mode, dry_run: false })
    }

    fn bytes(len: usize) -> bytes::Bytes {
        vec![b'x'; len].into()
    }

    #[test]
    fn a_page_at_its_bounds_is_taken_and_beyond_refused() {
        let list = |depth, limit, cursor: usize| {
            let page = Page { limit, cursor: Some(bytes(cursor)) };
            check(&FileOp::List { path: path("/"), depth, hidden: true, glob: None, hash: true, page })
        };
        for (depth, limit, cursor, expected) in [
            (1, 1, 0, Ok(())),
            (8, limits::LIST_ENTRIES_PAGE_MAX, limits::FILE_CURSOR_BYTES_MAX, Ok(())),
            (0, 1, 0, BAD),
            (9, 1, 0, BAD),
            (1, 0, 0, BAD),
            (1, limits::LIST_ENTRIES_PAGE_MAX + 1, 0, BAD),
            (1, u32::MAX, 0, BAD),
            (1, 1, limits::FILE_CURSOR_BYTES_MAX + 1, LARGE),
        ] {
            assert_eq!(list(depth, limit, cursor), expected, "{depth} {limit} {cursor}");
        }
    }

    #[test]
    fn a_part_of_a_file_has_something_in_it_and_fits_in_an_answer() {
        let read = |range, want| check(&FileOp::Read { path: path("/a"), range, want, hash: false });
        let max = u32::try_from(limits::FILE_INLINE_BYTES_MAX).expect("small");
        let inline = |bytes_max| ReadAs::Inline { bytes_max };
        for (range, want, expected) in [
            (ReadRange::All, inline(1), Ok(())),
            (ReadRange::All, inline(max), Ok(())),
            (ReadRange::All, ReadAs::Stream, Ok(())),
            (ReadRange::All, inline(0), BAD),
            (ReadRange::All, inline(max + 1), LARGE),
            (ReadRange::Bytes { from: 0, len: u64::MAX }, inline(1), Ok(())),
            (ReadRange::Bytes { from: 1, len: u64::MAX }, inline(1), BAD),
            (ReadRange::Bytes { from: 0, len: 0 }, inline(1), BAD),
            (ReadRange::Lines { from: 1, count: 1 }, inline(1), Ok(())),
            (ReadRange::Lines { from: 0, count: 1 }, inline(1), BAD),
            (ReadRange::Lines { from: 1, count: 0 }, inline(1), BAD),
            (ReadRange::Lines { from: 1, count: u64::MAX }, inline(1), BAD),
        ] {
            assert_eq!(read(range, want), expected, "{range:?} {want:?}");
        }
    }

    #[test]
    fn a_search_says_what_it_looks_for() {
        let grep = |pattern: String, context, limit| {
            let query = GrepQuery { pattern, context, ..GrepQuery::default() };
            check(&FileOp::Grep { path: path("/"), query, page: Page { limit, cursor: None } })
        };
        let max = limits::GREP_PATTERN_BYTES_MAX;
        assert_eq!(grep("x".repeat(max), limits::GREP_CONTEXT_MAX, limits::MATCHES_PAGE_MAX), Ok(()));
        assert_eq!(grep("x".repeat(max + 1), 0, 1), LARGE);
        assert_eq!(grep("x".to_owned(), limits::GREP_CONTEXT_MAX + 1, 1), BAD);
        assert_eq!(grep("x".to_owned(), 0, limits::MATCHES_PAGE_MAX + 1), BAD);
        for pattern in ["", "a\nb", "a\0"] {
            assert_eq!(grep(pattern.to_owned(), 0, 1), BAD, "{pattern:?}");
        }
        let find = |size_min, size_max| {
            let query = FindQuery { size_min, size_max, ..FindQuery::default() };
            check(&FileOp::Find { path: path("/"), query, page: Page { limit: 1, cursor: None } })
        };
        assert_eq!(
            (find(Some(5), Some(5)), find(Some(6), Some(5)), find(Some(6), None)),
            (Ok(()), BAD, Ok(()))
        );
        let glob = |text: &str| Glob::parse(text).map(drop).map_err(|refusal| refusal.code);
        assert_eq!((glob(&"*".repeat(limits::GLOB_BYTES_MAX)), glob("**/مجلد/*.rs")), (Ok(()), Ok(())));
        assert_eq!((glob(&"*".repeat(limits::GLOB_BYTES_MAX + 1)), glob(""), glob("a\n")), (LARGE, BAD, BAD));
    }

    #[test]
    fn content_at_its_bounds_is_taken_and_beyond_refused() {
        let inline = |len| Content::Inline(bytes(len));
        let streamed = |len| Content::Streamed { id: None, len };
        let put = |content| write("/a", content, WriteHow::Put, Expect::Any, None);
        assert_eq!((put(inline(0)), put(inline(limits::FILE_INLINE_BYTES_MAX))), (Ok(()), Ok(())));
        assert_eq!(put(inline(limits::FILE_INLINE_BYTES_MAX + 1)), LARGE);
        assert_eq!((put(streamed(None)), put(streamed(Some(limits::FILE_BODY_BYTES_MAX)))), (Ok(()), Ok(())));
        assert_eq!(put(streamed(Some(limits::FILE_BODY_BYTES_MAX + 1))), LARGE);
    }

    #[test]
    fn a_write_that_contradicts_itself_is_refused() {
        let some = || Content::Inline(bytes(1));
        for how in [WriteHow::Create, WriteHow::Replace, WriteHow::Append, WriteHow::Put] {
            for expect in [Expect::Any, Expect::Absent, ETAG] {
                let bad = matches!(
                    (how, expect),
                    (WriteHow::Create, Expect::Etag(_)) | (WriteHow::Replace, Expect::Absent)
                );
                assert_eq!(write("/a", some(), how, expect, Some(0o777)).is_err(), bad, "{how:?} {expect:?}");
            }
        }
        assert_eq!(write("/", some(), WriteHow::Put, Expect::Any, None), BAD);
        for mode in [0o1000, 0o4755, u16::MAX] {
            assert_eq!(write("/a", some(), WriteHow::Put, Expect::Any, Some(mode)), BAD, "{mode:o}");
            assert_eq!(check(&FileOp::MakeDir { path: path("/a"), parents: true, mode: Some(mode) }), BAD);
        }
    }

    #[test]
    fn an_edit_finds_something_and_changes_it() {
        let step = |old: usize, new: usize| Edit { old: bytes(old), new: bytes(new), all: false };
        let edit = |edits, expect| check(&FileOp::Edit { path: path("/a"), edits, expect, dry_run: false });
        assert_eq!(edit(vec![step(1, 0); limits::EDITS_MAX], ETAG), Ok(()));
        assert_eq!(edit(vec![step(1, 0); limits::EDITS_MAX + 1], Expect::Any), BAD);
        assert_eq!(edit(vec![step(1, limits::FILE_INLINE_BYTES_MAX - 1)], Expect::Any), Ok(()));
        assert_eq!(edit(vec![step(1, limits::FILE_INLINE_BYTES_MAX)], Expect::Any), LARGE);
        for edits in [vec![], vec![step(0, 1)], vec![step(1, 0), step(2, 2)]] {
            assert_eq!(edit(edits.clone(), Expect::Any), BAD, "{edits:?}");
        }
        assert_eq!(edit(vec![step(1, 0)], Expect::Absent), BAD);
    }

    #[test]
    fn nothing_is_moved_or_copied_into_itself() {
        for (from, to, expected) in [
            ("/a", "/b", Ok(())),
            ("/a", "/ab", Ok(())),
            ("/a", "/a", BAD),
            ("/a", "/a/b", BAD),
            ("/a/b", "/a", BAD),
            ("/", "/a", BAD),
            ("/a", "/", BAD),
        ] {
            let (from, to) = (path(from), path(to));
            let copy = FileOp::Copy {
                from: from.clone(),
                to: to.clone(),
                recursive: true,
                replace: true,
                expect: Expect::Any,
            };
            let mv = FileOp::Move { from: from.clone(), to: to.clone(), replace: true, expect: ETAG };
            assert_eq!((check(&copy), check(&mv)), (expected, expected), "{from:?} {to:?}");
        }
        let remove = |text, recursive, expect| {
            check(&FileOp::Remove { path: path(text), recursive, expect, dry_run: true })
        };
        assert_eq!((remove("/a", true, Expect::Any), remove("/a", false, ETAG)), (Ok(()), Ok(())));
        assert_eq!((remove("/", true, Expect::Any), remove("/a", true, ETAG)), (BAD, BAD));
        assert_eq!(remove("/a", false, Expect::Absent), BAD);
    }
}
