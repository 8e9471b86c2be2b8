//! What is asked.

use cortex_core::Refusal;
use cortex_core::files::op::{
    Content, Edit, Expect, FileOp, FindQuery, Glob, GrepQuery, Page, ReadAs, ReadRange, WriteHow,
};
use cortex_core::files::path::FilePath;

use super::{etag_from, etag_if_set, etag_into, kind_from, kind_into};
use crate::convert::missing;
use crate::mesh;
use crate::mesh::file_ask::Op;

pub(super) fn op_into(op: FileOp) -> Op {
    match op {
        FileOp::List { path, depth, hidden, glob, hash, page } => Op::List(mesh::FileList {
            path: path.to_string(),
            depth: u32::from(depth),
            hidden,
            glob: glob_into(glob),
            hash,
            page: Some(page_into(page)),
        }),
        FileOp::Stat { path, hash } => Op::Stat(mesh::FileStat { path: path.to_string(), hash }),
        FileOp::Read { path, range, want, hash } => {
            let (bytes_max, stream) = match want {
                ReadAs::Inline { bytes_max } => (bytes_max, false),
                ReadAs::Stream => (0, true),
            };
            let range = range_into(range);
            Op::Read(mesh::FileRead { path: path.to_string(), range, bytes_max, stream, hash })
        }
        FileOp::Find { path, query, page } => Op::Find(find_into(path.to_string(), query, page)),
        FileOp::Grep { path, query, page } => Op::Grep(grep_into(path.to_string(), query, page)),
        FileOp::Write { path, content, how, expect, mkdirs, mode, dry_run } => Op::Write(mesh::FileWrite {
            path: path.to_string(),
            content: Some(content_into(content)),
            how: how_into(how).into(),
            expect: expect_into(expect),
            mkdirs,
            mode: mode.map(u32::from),
            dry_run,
        }),
        FileOp::Edit { path, edits, expect, dry_run } => {
            let step = |Edit { old, new, all }| mesh::EditStep { old, new, all };
            let edits = edits.into_iter().map(step).collect();
            Op::Edit(mesh::FileEdit { path: path.to_string(), edits, expect: expect_into(expect), dry_run })
        }
        FileOp::MakeDir { path, parents, mode } => {
            Op::MakeDir(mesh::FileMakeDir { path: path.to_string(), parents, mode: mode.map(u32::from) })
        }
        FileOp::Remove { path, recursive, expect, dry_run } => {
            let expect = expect_into(expect);
            Op::Remove(mesh::FileRemove { path: path.to_string(), recursive, expect, dry_run })
        }
        FileOp::Move { from, to, replace, expect } => {
            let (from, to, expect) = (from.to_string(), to.to_string(), expect_into(expect));
            Op::Move(mesh::FileMove { from, to, replace, expect })
        }
        FileOp::Copy { from, to, recursive, replace, expect } => {
            let (from, to, expect) = (from.to_string(), to.to_string(), expect_into(expect));
            Op::Copy(mesh::FileCopy { from, to, recursive, replace, expect })
        }
    }
}

/// Reads what is there. Whether it makes sense together is for [`FileOp::check`].
pub(super) fn op_from(op: Op) -> Result<FileOp, Refusal> {
    let path = |text: String| FilePath::parse(&text);
    Ok(match op {
        Op::List(list) => FileOp::List {
            path: path(list.path)?,
            depth: u8::try_from(list.depth).map_err(|_| missing("list.depth"))?,
            hidden: list.hidden,
            glob: glob_from(list.glob)?,
            hash: list.hash,
            page: page_from(list.page)?,
        },
        Op::Stat(stat) => FileOp::Stat { path: path(stat.path)?, hash: stat.hash },
        Op::Read(read) => FileOp::Read {
            path: path(read.path)?,
            range: range_from(read.range),
            want: want_from(read.bytes_max, read.stream)?,
            hash: read.hash,
        },
        Op::Find(find) => find_from(find)?,
        Op::Grep(grep) => grep_from(grep)?,
        Op::Write(write) => FileOp::Write {
            path: path(write.path)?,
            content: content_from(write.content)?,
            how: how_from(write.how)?,
            expect: expect_from(write.expect)?,
            mkdirs: write.mkdirs,
            mode: mode_from(write.mode)?,
            dry_run: write.dry_run,
        },
        Op::Edit(edit) => {
            let step = |mesh::EditStep { old, new, all }| Edit { old, new, all };
            FileOp::Edit {
                path: path(edit.path)?,
                edits: edit.edits.into_iter().map(step).collect(),
                expect: expect_from(edit.expect)?,
                dry_run: edit.dry_run,
            }
        }
        Op::MakeDir(make) => {
            FileOp::MakeDir { path: path(make.path)?, parents: make.parents, mode: mode_from(make.mode)? }
        }
        Op::Remove(remove) => FileOp::Remove {
            path: path(remove.path)?,
            recursive: remove.recursive,
            expect: expect_from(remove.expect)?,
            dry_run: remove.dry_run,
        },
        Op::Move(mv) => FileOp::Move {
            from: path(mv.from)?,
            to: path(mv.to)?,
            replace: mv.replace,
            expect: expect_from(mv.expect)?,
        },
        Op::Copy(copy) => FileOp::Copy {
            from: path(copy.from)?,
            to: path(copy.to)?,
            recursive: copy.recursive,
            replace: copy.replace,
            expect: expect_from(copy.expect)?,
        },
    })
}

fn page_into(page: Page) -> mesh::FilePage {
    mesh::FilePage { limit: page.limit, cursor: page.cursor }
}

fn page_from(page: Option<mesh::FilePage>) -> Result<Page, Refusal> {
    let page = page.ok_or_else(|| missing("page"))?;
    Ok(Page { limit: page.limit, cursor: page.cursor })
}

fn glob_into(glob: Option<Glob>) -> Option<String> {
    glob.map(|glob| glob.as_str().to_owned())
}

fn glob_from(glob: Option<String>) -> Result<Option<Glob>, Refusal> {
    glob.map(|text| Glob::parse(&text)).transpose()
}

const fn range_into(range: ReadRange) -> Option<mesh::file_read::Range> {
    use mesh::file_read::Range;
    match range {
        ReadRange::All => None,
        ReadRange::Bytes { from, len } => Some(Range::Bytes(mesh::BytesRange { from, len })),
        ReadRange::Lines { from, count } => Some(Range::Lines(mesh::LinesRange { from, count })),
    }
}

const fn range_from(range: Option<mesh::file_read::Range>) -> ReadRange {
    use mesh::file_read::Range;
    match range {
        None => ReadRange::All,
        Some(Range::Bytes(mesh::BytesRange { from, len })) => ReadRange::Bytes { from, len },
        Some(Range::Lines(mesh::LinesRange { from, count })) => ReadRange::Lines { from, count },
    }
}

fn want_from(bytes_max: u32, stream: bool) -> Result<ReadAs, Refusal> {
    match (bytes_max, stream) {
        (0, true) => Ok(ReadAs::Stream),
        (bytes_max, false) => Ok(ReadAs::Inline { bytes_max }),
        (_, true) => Err(missing("read.bytes_max (0 when it is streamed)")),
    }
}

fn find_into(path: String, query: FindQuery, page: Page) -> mesh::FileFind {
    let FindQuery { name, kind, size_min, size_max, changed_within_ms, hidden, ignored } = query;
    mesh::FileFind {
        path,
        name: glob_into(name),
        kind: kind.map(|kind| kind_into(kind).into()),
        size_min,
        size_max,
        changed_within_ms,
        hidden,
        ignored,
        page: Some(page_into(page)),
    }
}

fn find_from(find: mesh::FileFind) -> Result<FileOp, Refusal> {
    let query = FindQuery {
        name: glob_from(find.name)?,
        kind: find.kind.map(kind_from).transpose()?,
        size_min: find.size_min,
        size_max: find.size_max,
        changed_within_ms: find.changed_within_ms,
        hidden: find.hidden,
        ignored: find.ignored,
    };
    Ok(FileOp::Find { path: FilePath::parse(&find.path)?, query, page: page_from(find.page)? })
}

fn grep_into(path: String, query: GrepQuery, page: Page) -> mesh::FileGrep {
    let GrepQuery { pattern, literal, ignore_case, glob, context, hidden, ignored } = query;
    mesh::FileGrep {
        path,
        pattern,
        literal,
        ignore_case,
        glob: glob_into(glob),
        context: u32::from(context),
        hidden,
        ignored,
        page: Some(page_into(page)),
    }
}

fn grep_from(grep: mesh::FileGrep) -> Result<FileOp, Refusal> {
    let query = GrepQuery {
        pattern: grep.pattern,
        literal: grep.literal,
        ignore_case: grep.ignore_case,
        glob: glob_from(grep.glob)?,
        context: u8::try_from(grep.context).map_err(|_| missing("grep.context"))?,
        hidden: grep.hidden,
        ignored: grep.ignored,
    };
    Ok(FileOp::Grep { path: FilePath::parse(&grep.path)?, query, page: page_from(grep.page)? })
}

fn content_into(content: Content) -> mesh::file_write::Content {
    match content {
        Content::Inline(bytes) => mesh::file_write::Content::Inline(bytes),
        Content::Streamed { id, len } => {
            mesh::file_write::Content::Streamed(mesh::Streamed { id: id.map(etag_into), length: len })
        }
    }
}

fn content_from(content: Option<mesh::file_write::Content>) -> Result<Content, Refusal> {
    match content.ok_or_else(|| missing("write.content"))? {
        mesh::file_write::Content::Inline(bytes) => Ok(Content::Inline(bytes)),
        mesh::file_write::Content::Streamed(mesh::Streamed { id, length: len }) => {
            Ok(Content::Streamed { id: etag_if_set(id.as_ref())?, len })
        }
    }
}

const fn how_into(how: WriteHow) -> mesh::WriteHow {
    match how {
        WriteHow::Create => mesh::WriteHow::Create,
        WriteHow::Replace => mesh::WriteHow::Replace,
        WriteHow::Append => mesh::WriteHow::Append,
        WriteHow::Put => mesh::WriteHow::Put,
    }
}

fn how_from(how: i32) -> Result<WriteHow, Refusal> {
    match mesh::WriteHow::try_from(how) {
        Ok(mesh::WriteHow::Create) => Ok(WriteHow::Create),
        Ok(mesh::WriteHow::Replace) => Ok(WriteHow::Replace),
        Ok(mesh::WriteHow::Append) => Ok(WriteHow::Append),
        Ok(mesh::WriteHow::Put) => Ok(WriteHow::Put),
        Ok(mesh::WriteHow::Unspecified) | Err(_) => Err(missing("write.how")),
    }
}

fn expect_into(expect: Expect) -> Option<mesh::Expect> {
    use mesh::expect::Is;
    let is = match expect {
        Expect::Any => return None,
        Expect::Absent => Is::Absent(true),
        Expect::Etag(etag) => Is::Etag(etag_into(etag)),
    };
    Some(mesh::Expect { is: Some(is) })
}

/// An expectation that cannot be read is refused and never dropped: the change could lose somebody's work.
fn expect_from(expect: Option<mesh::Expect>) -> Result<Expect, Refusal> {
    use mesh::expect::Is;
    match expect {
        None => Ok(Expect::Any),
        Some(mesh::Expect { is: Some(Is::Absent(true)) }) => Ok(Expect::Absent),
        Some(mesh::Expect { is: Some(Is::Etag(etag)) }) => Ok(Expect::Etag(etag_from(&etag)?)),
        Some(mesh::Expect { is: Some(Is::Absent(false)) | None }) => Err(missing("expect")),
    }
}

fn mode_from(mode: Option<u32>) -> Result<Option<u16>, Refusal> {
    mode.map(|mode| u16::try_from(mode).map_err(|_| missing("mode"))).transpose()
}
