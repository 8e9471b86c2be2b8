//! Operations on files and their answers for tests, here and in other crates: one of each kind for each
//! field that can differ, and random ones. Never in a build that is shipped.

#![expect(clippy::expect_used, reason = "for tests, where a wrong sample must be loud")]

use bytes::Bytes;
use proptest::option;
use proptest::prelude::*;

use super::answer::{Diff, Encoding, Ending, Entry, FileAnswer, LineFacts, Match, Meta, Note, Skipped};
use super::content::ContentId;
use super::entity::{FileEnd, FileOutcome};
use super::op::{
    Content, Edit, Expect, FileOp, FindQuery, Glob, GrepQuery, Kind, Page, ReadAs, ReadRange, WriteHow,
};
use super::path::FilePath;
use crate::error::{Code, DETAILS, Refusal};
use crate::limits;

/// A path that must be one.
///
/// # Panics
///
/// When it is none.
pub fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

/// Of each kind one operation, and for each of its fields another one that differs in that field.
pub fn every() -> Vec<FileOp> {
    let expects =
        [Expect::Any, Expect::Absent, Expect::Etag(ContentId::of(b"1")), Expect::Etag(ContentId::of(b"2"))];
    let page = |limit, cursor: Option<&'static str>| Page {
        limit,
        cursor: cursor.map(|text| Bytes::from_static(text.as_bytes())),
    };
    let pages = [page(1, None), page(2, None), page(1, Some("")), page(1, Some("c"))];
    let globs =
        [None, Some(Glob::parse("*").expect("a pattern")), Some(Glob::parse("ب?").expect("a pattern"))];
    let (a, b) = (path("/a"), path("/a/ب"));
    let mut all = Vec::new();

    let list = |path: &FilePath, depth, hidden, glob: &Option<Glob>, hash, page: &Page| FileOp::List {
        path: path.clone(),
        depth,
        hidden,
        glob: glob.clone(),
        hash,
        page: page.clone(),
    };
    all.extend(globs.iter().map(|glob| list(&a, 1, false, glob, false, &pages[0])));
    all.extend(pages[1..].iter().map(|page| list(&a, 1, false, &None, false, page)));
    all.extend([list(&b, 1, false, &None, false, &pages[0]), list(&a, 2, false, &None, false, &pages[0])]);
    all.extend([list(&a, 1, true, &None, false, &pages[0]), list(&a, 1, false, &None, true, &pages[0])]);

    all.extend(
        [(&a, false), (&a, true), (&b, false)].map(|(path, hash)| FileOp::Stat { path: path.clone(), hash }),
    );

    let read = |range, want, hash| FileOp::Read { path: a.clone(), range, want, hash };
    let inline = |bytes_max| ReadAs::Inline { bytes_max };
    let bytes = |from, len| ReadRange::Bytes { from, len };
    let lines = |from, count| ReadRange::Lines { from, count };
    let ranges =
        [ReadRange::All, bytes(1, 1), bytes(1, 2), bytes(2, 1), lines(1, 1), lines(1, 2), lines(2, 1)];
    all.extend(ranges.map(|range| read(range, inline(1), false)));
    all.extend([read(ReadRange::All, inline(2), false), read(ReadRange::All, ReadAs::Stream, false)]);
    all.push(read(ReadRange::All, inline(1), true));

    let find = |query| FileOp::Find { path: a.clone(), query, page: pages[0].clone() };
    all.extend(globs.iter().map(|name| find(FindQuery { name: name.clone(), ..FindQuery::default() })));
    all.extend(Kind::ALL.iter().map(|kind| find(FindQuery { kind: Some(*kind), ..FindQuery::default() })));
    for at in 0..5 {
        let some = |n: u32| (n == at).then_some(7);
        let (size_min, size_max, changed_within_ms) = (some(0), some(1), some(2));
        all.push(find(FindQuery {
            size_min,
            size_max,
            changed_within_ms,
            hidden: at == 3,
            ignored: at == 4,
            ..FindQuery::default()
        }));
    }

    let grep = |change: &dyn Fn(&mut GrepQuery)| {
        let mut query = GrepQuery { pattern: "x".to_owned(), ..GrepQuery::default() };
        change(&mut query);
        FileOp::Grep { path: a.clone(), query, page: pages[0].clone() }
    };
    let changes: [&dyn Fn(&mut GrepQuery); 8] = [
        &|_| {},
        &|query| query.pattern = "y".to_owned(),
        &|query| query.literal = true,
        &|query| query.ignore_case = true,
        &|query| query.glob = globs[1].clone(),
        &|query| query.context = 1,
        &|query| query.hidden = true,
        &|query| query.ignored = true,
    ];
    all.extend(changes.map(grep));

    let write = |content, how, expect, mkdirs, mode, dry_run| FileOp::Write {
        path: a.clone(),
        content,
        how,
        expect,
        mkdirs,
        mode,
        dry_run,
    };
    let text = || Content::Inline(Bytes::from_static(b"x"));
    let contents = [
        text(),
        Content::Inline(Bytes::new()),
        Content::Streamed { id: None, len: None },
        Content::Streamed { id: None, len: Some(1) },
        Content::Streamed { id: Some(ContentId::of(b"x")), len: None },
    ];
    all.extend(contents.map(|content| write(content, WriteHow::Put, Expect::Any, false, None, false)));
    all.extend(
        [WriteHow::Create, WriteHow::Replace, WriteHow::Append]
            .map(|how| write(text(), how, Expect::Any, false, None, false)),
    );
    all.extend(expects[1..].iter().map(|expect| write(text(), WriteHow::Put, *expect, false, None, false)));
    all.push(write(text(), WriteHow::Put, Expect::Any, true, None, false));
    all.extend(
        [0o600, 0o644].map(|mode| write(text(), WriteHow::Put, Expect::Any, false, Some(mode), false)),
    );
    all.push(write(text(), WriteHow::Put, Expect::Any, false, None, true));

    let step = |old: &'static str, new: &'static str, all| Edit { old: old.into(), new: new.into(), all };
    let edit = |edits, expect, dry_run| FileOp::Edit { path: a.clone(), edits, expect, dry_run };
    let steps = [
        vec![step("a", "b", false)],
        vec![step("ab", "", false)],
        vec![step("a", "b", true)],
        vec![step("a", "c", false)],
        vec![step("a", "b", false), step("a", "b", false)],
    ];
    all.extend(steps.map(|edits| edit(edits, Expect::Any, false)));
    all.extend([
        edit(vec![step("a", "b", false)], expects[2], false),
        edit(vec![step("a", "b", false)], Expect::Any, true),
    ]);

    all.extend([(false, None), (true, None), (false, Some(0o700))].map(|(parents, mode)| FileOp::MakeDir {
        path: a.clone(),
        parents,
        mode,
    }));
    let remove = |recursive, expect, dry_run| FileOp::Remove { path: a.clone(), recursive, expect, dry_run };
    all.extend([
        remove(false, Expect::Any, false),
        remove(true, Expect::Any, false),
        remove(false, Expect::Any, true),
        remove(false, expects[2], false),
    ]);
    for (from, to) in [("/a", "/b"), ("/b", "/a"), ("/a", "/bb"), ("/ab", "/b")] {
        let (from, to) = (path(from), path(to));
        for (replace, expect) in [(false, Expect::Any), (true, Expect::Any), (false, expects[2])] {
            all.push(FileOp::Move { from: from.clone(), to: to.clone(), replace, expect });
            all.push(FileOp::Copy { from: from.clone(), to: to.clone(), recursive: false, replace, expect });
        }
        all.push(FileOp::Copy { from, to, recursive: true, replace: false, expect: Expect::Any });
    }
    all
}

fn any_path() -> impl Strategy<Value = FilePath> {
    prop::sample::select(vec!["/a", "/b", "/a/b", "/ب"]).prop_map(path)
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(0..2_u8, 0..3).prop_map(Bytes::from)
}

fn any_glob() -> impl Strategy<Value = Option<Glob>> {
    option::of(
        prop::sample::select(vec!["*", "a", "**/ب"]).prop_map(|text| Glob::parse(text).expect("a pattern")),
    )
}

fn any_page() -> impl Strategy<Value = Page> {
    (1..3_u32, option::of(any_bytes())).prop_map(|(limit, cursor)| Page { limit, cursor })
}

fn any_etag() -> impl Strategy<Value = ContentId> {
    prop::sample::select(vec![ContentId::of(b"1"), ContentId::of(b"2")])
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![Just(Expect::Any), Just(Expect::Absent), any_etag().prop_map(Expect::Etag)]
}

fn any_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        any_bytes().prop_map(Content::Inline),
        (option::of(any_etag()), option::of(0..2_u64)).prop_map(|(id, len)| Content::Streamed { id, len }),
    ]
}

fn any_range() -> impl Strategy<Value = ReadRange> {
    prop_oneof![
        Just(ReadRange::All),
        (0..2_u64, 1..3_u64).prop_map(|(from, len)| ReadRange::Bytes { from, len }),
        (1..3_u64, 1..3_u64).prop_map(|(from, count)| ReadRange::Lines { from, count }),
    ]
}

fn any_query() -> impl Strategy<Value = GrepQuery> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (prop::sample::select(vec!["x", "xy"]), any_glob(), 0..2_u8, flags).prop_map(
        |(pattern, glob, context, (literal, ignore_case, hidden, ignored))| GrepQuery {
            pattern: pattern.to_owned(),
            literal,
            ignore_case,
            glob,
            context,
            hidden,
            ignored,
        },
    )
}

fn any_find() -> impl Strategy<Value = FindQuery> {
    let sizes = (option::of(0..2_u64), option::of(0..2_u64), option::of(0..2_u64));
    let kind = option::of(prop::sample::select(Kind::ALL.to_vec()));
    (any_glob(), kind, sizes, any::<bool>(), any::<bool>()).prop_map(
        |(name, kind, (size_min, size_max, changed_within_ms), hidden, ignored)| FindQuery {
            name,
            kind,
            size_min,
            size_max,
            changed_within_ms,
            hidden,
            ignored,
        },
    )
}

/// Any operation, of few values; not all of them pass [`FileOp::check`].
pub fn any_op() -> BoxedStrategy<FileOp> {
    let flag = any::<bool>;
    let mode = || option::of(0..2_u16);
    let how =
        prop::sample::select(vec![WriteHow::Create, WriteHow::Replace, WriteHow::Append, WriteHow::Put]);
    let want =
        prop_oneof![(1..3_u32).prop_map(|bytes_max| ReadAs::Inline { bytes_max }), Just(ReadAs::Stream)];
    let edit = (any_bytes(), any_bytes(), flag()).prop_map(|(old, new, all)| Edit { old, new, all });
    let edits = prop::collection::vec(edit, 0..3);
    prop_oneof![
        (any_path(), 1..3_u8, flag(), any_glob(), flag(), any_page()).prop_map(
            |(path, depth, hidden, glob, hash, page)| FileOp::List { path, depth, hidden, glob, hash, page }
        ),
        (any_path(), flag()).prop_map(|(path, hash)| FileOp::Stat { path, hash }),
        (any_path(), any_range(), want, flag()).prop_map(|(path, range, want, hash)| FileOp::Read {
            path,
            range,
            want,
            hash
        }),
        (any_path(), any_find(), any_page()).prop_map(|(path, query, page)| FileOp::Find {
            path,
            query,
            page
        }),
        (any_path(), any_query(), any_page()).prop_map(|(path, query, page)| FileOp::Grep {
            path,
            query,
            page
        }),
        (any_path(), any_content(), how, any_expect(), flag(), mode(), flag()).prop_map(
            |(path, content, how, expect, mkdirs, mode, dry_run)| {
                FileOp::Write { path, content, how, expect, mkdirs, mode, dry_run }
            }
        ),
        (any_path(), edits, any_expect(), flag()).prop_map(|(path, edits, expect, dry_run)| FileOp::Edit {
            path,
            edits,
            expect,
            dry_run
        }),
        (any_path(), flag(), mode()).prop_map(|(path, parents, mode)| FileOp::MakeDir {
            path,
            parents,
            mode
        }),
        (any_path(), flag(), any_expect(), flag()).prop_map(|(path, recursive, expect, dry_run)| {
            FileOp::Remove { path, recursive, expect, dry_run }
        }),
        (any_path(), any_path(), flag(), any_expect()).prop_map(|(from, to, replace, expect)| FileOp::Move {
            from,
            to,
            replace,
            expect
        }),
        (any_path(), any_path(), flag(), flag(), any_expect()).prop_map(
            |(from, to, recursive, replace, expect)| FileOp::Copy { from, to, recursive, replace, expect }
        ),
    ]
    .boxed()
}

/// Any answer that keeps its bounds.
pub fn any_answer() -> BoxedStrategy<FileAnswer> {
    let flag = any::<bool>;
    let next = || option::of(any_bytes());
    let entry = (any_name(), any_meta()).prop_map(|(name, meta)| Entry { name, meta });
    let entries = prop::collection::vec(entry, 0..4);
    let matches = prop::collection::vec(any_match(), 0..4);
    let notes = || prop::collection::vec(prop::sample::select(Note::ALL.to_vec()), 0..3);
    let content = (any_bytes(), any::<u64>(), any::<u64>(), option::of(any_hash()), option::of(any_lines()));
    let encoding = prop::sample::select(vec![Encoding::Utf8, Encoding::Utf8Bom, Encoding::Binary]);
    let written = (any_hash(), any::<u64>(), flag(), option::of(any_hash()));
    prop_oneof![
        (entries, next(), any::<u64>(), any_skipped()).prop_map(|(entries, next, searched, skipped)| {
            FileAnswer::Listing { entries, next, searched, skipped }
        }),
        any_meta().prop_map(FileAnswer::Meta),
        (content, encoding, flag()).prop_map(|((data, from, size, etag, lines), encoding, complete)| {
            FileAnswer::Content { data, from, size, etag, lines, encoding, complete }
        }),
        (any::<u64>(), option::of(any_hash())).prop_map(|(size, etag)| FileAnswer::Streaming { size, etag }),
        (matches, next(), any::<u64>(), any_skipped()).prop_map(|(matches, next, searched, skipped)| {
            FileAnswer::Matches { matches, next, searched, skipped }
        }),
        (written, option::of(any_diff()), notes(), flag()).prop_map(
            |((etag, bytes, created, before), diff, notes, dry_run)| FileAnswer::Written {
                etag,
                bytes,
                created,
                before,
                diff,
                notes,
                dry_run,
            }
        ),
        (any::<u64>(), any::<u64>(), notes(), flag())
            .prop_map(|(removed, made, notes, dry_run)| FileAnswer::Done { removed, made, notes, dry_run }),
    ]
    .boxed()
}

/// Any end of an operation that changes files. Its refusals may be longer than what is kept of one.
pub fn any_end() -> BoxedStrategy<FileEnd> {
    let done =
        prop_oneof![
            (any_hash(), any::<u64>(), any::<bool>())
                .prop_map(|(etag, bytes, created)| FileOutcome::Written { etag, bytes, created }),
            (any::<u64>(), any::<u64>()).prop_map(|(removed, made)| FileOutcome::Done { removed, made }),
        ];
    prop_oneof![done.prop_map(Ok), any_refusal().prop_map(Err)].boxed()
}

/// Any refusal of printable text, with each detail once and in order.
pub fn any_refusal() -> BoxedStrategy<Refusal> {
    let code = prop::sample::select(Code::ALL.to_vec());
    let name = prop::sample::select(DETAILS.to_vec());
    let details = prop::collection::btree_map(name, "[ -~ب-ي]{0,200}", 0..4);
    (code, "[ -~ب-ي]{0,400}", "[ -~ب-ي]{0,400}", details)
        .prop_map(|(code, message, hint, details)| Refusal {
            code,
            message,
            hint,
            details: details.into_iter().collect(),
        })
        .boxed()
}

/// Any hash.
pub fn any_hash() -> impl Strategy<Value = ContentId> {
    any::<[u8; 32]>().prop_map(ContentId::new)
}

/// Names as a disk may have them: not all are UTF-8.
fn any_name() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        "[a-zب-ي./]{0,40}".prop_map(Bytes::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    ]
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let numbers = (any::<u64>(), 0..=0o7777_u16, any::<i64>(), any::<u32>(), any::<u32>(), any::<u64>());
    (kind, numbers, option::of(any_name()), option::of(any_hash())).prop_map(
        |(kind, (size, mode, mtime_ns, uid, gid, links), target, etag)| Meta {
            kind,
            size,
            mode,
            mtime_ns,
            uid,
            gid,
            links,
            target,
            etag,
        },
    )
}

fn any_match() -> impl Strategy<Value = Match> {
    let line = || prop::collection::vec(any::<u8>(), 0..limits::GREP_LINE_BYTES_MAX).prop_map(Bytes::from);
    let lines = || prop::collection::vec(line(), 0..3);
    (any_name(), 1..u64::MAX, line(), lines(), lines()).prop_map(|(name, line, text, before, after)| Match {
        name,
        line,
        text,
        before,
        after,
    })
}

fn any_lines() -> impl Strategy<Value = LineFacts> {
    let ending = prop::sample::select(vec![Ending::None, Ending::Lf, Ending::CrLf, Ending::Mixed]);
    (any::<u64>(), any::<u64>(), ending, any::<bool>())
        .prop_map(|(total, first, ending, final_newline)| LineFacts { total, first, ending, final_newline })
}

fn any_skipped() -> impl Strategy<Value = Skipped> {
    prop::array::uniform5(any::<u64>()).prop_map(|[unreadable, binary, too_large, ignored, unsupported]| {
        Skipped { unreadable, binary, too_large, ignored, unsupported }
    })
}

fn any_diff() -> impl Strategy<Value = Diff> {
    ("[ -~ب-ي\n]{0,200}", any::<u32>(), any::<u32>(), any::<bool>())
        .prop_map(|(text, added, removed, cut)| Diff { text, added, removed, cut })
}
