//! `/api/v1/nodes/{node}/fs`: read, search, write, edit and remove files of one node.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{
    Content, Edit, FileOp, FindQuery, Glob, GrepQuery, Kind, Page, ReadAs, ReadRange, WriteHow,
};
use cortex_core::files::path::FilePath;
use cortex_core::limits::{
    FILE_INLINE_BYTES_MAX, FILE_OP_MS_MAX, LIST_ENTRIES_PAGE_DEFAULT, MATCHES_PAGE_DEFAULT,
};
use cortex_core::name::printable;
use cortex_wire::http::{
    EntriesView, EntryView, FileContentView, FileDoneView, FilePatch, FileWrittenView, MatchesView,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::http::extract::{Args, FileBody, JsonBody, parse};
use crate::http::problem::{Failure, invalid};
use crate::http::{Api, file_view};
use crate::service::Caller;
use crate::service::files::Body;

use args::{ChangeArgs, LookArgs, RemoveArgs, SearchArgs, WriteArgs};
pub(super) use order::attempt;
use order::{Order, read_from};

mod args;
mod conditions;
mod order;
mod range;

/// Bytes of a part of a file in JSON when the caller does not say.
const TEXT_BYTES: u32 = 16 * 1024;

/// Reads a part of a file, lists a folder, or tells of one entry.
///
/// With `Accept: application/octet-stream` a read answers with the bytes, however many; `Range` names a part of
/// them. A file that changes while it is read breaks the answer off. With `max_bytes`, and of lines, the answer
/// may be a shorter one, as its `Content-Range` says.
///
/// While the node is away, a path in a folder of a workspace is answered from the hub's copy of that, as `fresh`
/// and the header `Cortex-Fresh` say. Such an answer has no owners, and nothing that the rules of the workspace
/// leave out.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/fs", tag = "files", params(("node" = String, Path), LookArgs,
        ("Range" = Option<String>, Header, description = "`bytes=0-1023`, of a read that answers with bytes."),
        ("If-None-Match" = Option<String>, Header, description = "Answer 304 when the file has this etag."),
        ("Cortex-Attempt" = Option<String>, Header, description = "`TASK/N`: refused once that attempt is over.")),
    responses((status = 200, body = FileContentView), (status = 200, body = EntriesView, description = "Of a list."),
        (status = 200, body = EntryView, description = "Of `stat`."), (status = 206, description = "A part, as bytes."),
        (status = 304, description = "It has this etag.")))]
pub(super) async fn look(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    headers: HeaderMap,
    Args(args): Args<LookArgs>,
) -> Result<Response, Failure> {
    let from = read_from(args.from.as_deref())?;
    let order = Order::new(&api, &caller, &node, &headers, args.timeout_ms)?.answered_by(from);
    match args.view.as_deref().unwrap_or("read") {
        "read" => read(&api, &order, &headers, &args).await,
        "list" => {
            let of_read = [args.start_line, args.lines, args.offset, args.bytes];
            refuse_foreign(of_read.iter().any(Option::is_some) || args.max_bytes.is_some(), "read")?;
            let page = page(args.limit, args.cursor.as_deref(), LIST_ENTRIES_PAGE_DEFAULT)?;
            let op = FileOp::List {
                path: path(args.path.as_deref())?,
                depth: args.depth.unwrap_or(1),
                hidden: args.hidden,
                glob: glob(args.glob.as_deref())?,
                hash: args.hash,
                page,
            };
            let reply = order.perform(&api, op).await?;
            let fresh = file_view::fresh_header(&reply);
            Ok(with_fresh(Json(file_view::entries(reply)?).into_response(), fresh))
        }
        "stat" => {
            let shown = args.path.clone().unwrap_or_default();
            let hash = args.hash || headers.contains_key(header::IF_NONE_MATCH);
            let reply = order.perform(&api, FileOp::Stat { path: path(args.path.as_deref())?, hash }).await?;
            let FileAnswer::Meta(meta) = &reply.answer else { return Err(file_view::another().into()) };
            if conditions::is_known(&headers, meta.etag) {
                return Ok(conditions::not_modified(meta.etag));
            }
            let entry = file_view::entry_of(shown.rsplit('/').next().unwrap_or_default().as_bytes(), meta);
            let entry = EntryView { fresh: Some(file_view::fresh(&reply)), ..entry };
            let response = with_etag(Json(entry).into_response(), meta.etag);
            Ok(with_fresh(response, file_view::fresh_header(&reply)))
        }
        other => {
            let shown = printable(other, 80);
            Err(invalid(format!("`view` is `{shown}`; it must be read, list or stat.")))
        }
    }
}

/// Finds lines in files, or entries. While the node is away, in the hub's copy of a folder of a workspace.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/fs/search", tag = "files", params(("node" = String, Path), SearchArgs,
        ("Cortex-Attempt" = Option<String>, Header, description = "`TASK/N`: refused once that attempt is over.")),
    responses((status = 200, body = MatchesView), (status = 200, body = EntriesView, description = "Without `pattern`.")))]
pub(super) async fn search(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    headers: HeaderMap,
    Args(args): Args<SearchArgs>,
) -> Result<Response, Failure> {
    let from = read_from(args.from.as_deref())?;
    let order = Order::new(&api, &caller, &node, &headers, args.timeout_ms)?.answered_by(from);
    let at = path(args.path.as_deref())?;
    let (hidden, ignored) = (args.hidden, args.ignored);
    let sizes = args.size_min.is_some() || args.size_max.is_some() || args.changed_within_ms.is_some();
    let Some(pattern) = args.pattern else {
        let of_lines = args.literal || args.ignore_case || args.glob.is_some() || args.context.is_some();
        refuse_foreign(of_lines, "a search with `pattern`")?;
        let query = FindQuery {
            name: glob(args.name.as_deref())?,
            kind: args.r#type.as_deref().map(kind).transpose()?,
            size_min: args.size_min,
            size_max: args.size_max,
            changed_within_ms: args.changed_within_ms,
            hidden,
            ignored,
        };
        let page = page(args.limit, args.cursor.as_deref(), LIST_ENTRIES_PAGE_DEFAULT)?;
        let reply = order.perform(&api, FileOp::Find { path: at, query, page }).await?;
        let fresh = file_view::fresh_header(&reply);
        return Ok(with_fresh(Json(file_view::entries(reply)?).into_response(), fresh));
    };
    refuse_foreign(sizes || args.name.is_some() || args.r#type.is_some(), "a search without `pattern`")?;
    let query = GrepQuery {
        pattern,
        literal: args.literal,
        ignore_case: args.ignore_case,
        glob: glob(args.glob.as_deref())?,
        context: args.context.unwrap_or(0),
        hidden,
        ignored,
    };
    let page = page(args.limit, args.cursor.as_deref(), MATCHES_PAGE_DEFAULT)?;
    let reply = order.perform(&api, FileOp::Grep { path: at, query, page }).await?;
    let fresh = file_view::fresh_header(&reply);
    Ok(with_fresh(Json(file_view::matches(reply)?).into_response(), fresh))
}

/// Writes a file, whose content is the body, or makes a folder. Nobody sees half of a file, and a body that
/// breaks off changes nothing.
#[utoipa::path(put, path = "/api/v1/nodes/{node}/fs", tag = "files", params(("node" = String, Path), WriteArgs,
        ("If-Match" = Option<String>, Header, description = "The etag that the file must have; `*`: it must be there."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: nothing may be there."),
        ("Cortex-Content-Id" = Option<String>, Header, description = "blake3 of the body, in hex: other bytes change nothing."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key on the same node is the same operation."),
        ("Cortex-Attempt" = Option<String>, Header, description = "`TASK/N`: refused once that attempt is over."),
        ("Cortex-Lock" = Option<u64>, Header, description = "The caller's lock of the workspace that is written.")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = FileWrittenView), (status = 201, body = FileWrittenView, description = "It is new."),
        (status = 200, body = FileDoneView, description = "Of a folder.")))]
pub(super) async fn write(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    headers: HeaderMap,
    Args(args): Args<WriteArgs>,
    body: FileBody,
) -> Result<Response, Failure> {
    // What takes its time to come has it.
    let time = match body {
        FileBody::Pieces { .. } => args.timeout_ms.or(Some(FILE_OP_MS_MAX)),
        FileBody::Whole(_) => args.timeout_ms,
    };
    let order = Order::new(&api, &caller, &node, &headers, time)?;
    let at = path(args.path.as_deref())?;
    let mode = args.perm.as_deref().map(permissions).transpose()?;
    let op = match args.kind.as_deref().unwrap_or("file") {
        "file" => {
            let how = match args.mode.as_deref().unwrap_or("put") {
                "put" => WriteHow::Put,
                "create" => WriteHow::Create,
                "replace" => WriteHow::Replace,
                "append" => WriteHow::Append,
                other => {
                    let shown = printable(other, 80);
                    let message = format!("`mode` is `{shown}`; it must be put, create, replace or append.");
                    return Err(invalid(message));
                }
            };
            let (how, expect) = conditions::of_write(&headers, how)?;
            let (mkdirs, dry_run) = (args.mkdirs, args.dry_run);
            let (content, pieces) = content(&headers, body)?;
            let op = FileOp::Write { path: at, content, how, expect, mkdirs, mode, dry_run };
            return changed(&api, &order, op, pieces).await;
        }
        "dir" => {
            if !matches!(&body, FileBody::Whole(bytes) if bytes.is_empty()) {
                return Err(invalid("A folder has no content: send no body."));
            }
            if args.dry_run || args.mode.is_some() {
                return Err(invalid("`mode` and `dry_run` are for files."));
            }
            conditions::none(&headers, "a folder")?;
            FileOp::MakeDir { path: at, parents: args.mkdirs, mode }
        }
        other => {
            let shown = printable(other, 80);
            return Err(invalid(format!("`kind` is `{shown}`; it must be file or dir.")));
        }
    };
    changed(&api, &order, op, None).await
}

/// Replaces text in a file, or gives an entry another path, or copies it. All of it is done, or nothing.
#[utoipa::path(patch, path = "/api/v1/nodes/{node}/fs", tag = "files", params(("node" = String, Path), ChangeArgs,
        ("If-Match" = Option<String>, Header, description = "The etag that the file must have."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key on the same node is the same operation."),
        ("Cortex-Attempt" = Option<String>, Header, description = "`TASK/N`: refused once that attempt is over."),
        ("Cortex-Lock" = Option<u64>, Header, description = "The caller's lock of the workspace that is written.")),
    request_body = FilePatch, responses((status = 200, body = FileWrittenView),
        (status = 201, body = FileWrittenView, description = "Of a copy that is new."),
        (status = 200, body = FileDoneView, description = "Of what is no single file.")))]
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    headers: HeaderMap,
    Args(args): Args<ChangeArgs>,
    JsonBody(patch): JsonBody<FilePatch>,
) -> Result<Response, Failure> {
    let order = Order::new(&api, &caller, &node, &headers, args.timeout_ms)?;
    let (at, expect) = (path(args.path.as_deref())?, conditions::of_change(&headers)?);
    let FilePatch { edits, move_to, copy_to, recursive, replace, dry_run } = patch;
    let op = match (edits.is_empty(), move_to, copy_to) {
        (false, None, None) => {
            refuse_foreign(recursive || replace, "a move or a copy")?;
            let edits = edits.into_iter();
            let edits = edits.map(|edit| Edit { old: edit.old.into(), new: edit.new.into(), all: edit.all });
            FileOp::Edit { path: at, edits: edits.collect(), expect, dry_run }
        }
        (true, Some(to), None) => {
            refuse_foreign(recursive, "a copy")?;
            refuse_foreign(dry_run, "edits")?;
            FileOp::Move { from: at, to: FilePath::parse(&to)?, replace, expect }
        }
        (true, None, Some(to)) => {
            refuse_foreign(dry_run, "edits")?;
            FileOp::Copy { from: at, to: FilePath::parse(&to)?, recursive, replace, expect }
        }
        _ => return Err(invalid("The body must have just one of `edits`, `move_to` and `copy_to`.")),
    };
    changed(&api, &order, op, None).await
}

/// Removes an entry; of a link the link.
#[utoipa::path(delete, path = "/api/v1/nodes/{node}/fs", tag = "files", params(("node" = String, Path), RemoveArgs,
        ("If-Match" = Option<String>, Header, description = "The etag that the file must have."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key on the same node is the same operation."),
        ("Cortex-Attempt" = Option<String>, Header, description = "`TASK/N`: refused once that attempt is over."),
        ("Cortex-Lock" = Option<u64>, Header, description = "The caller's lock of the workspace that is written.")),
    responses((status = 200, body = FileDoneView)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    headers: HeaderMap,
    Args(args): Args<RemoveArgs>,
) -> Result<Response, Failure> {
    let order = Order::new(&api, &caller, &node, &headers, args.timeout_ms)?;
    let (at, expect) = (path(args.path.as_deref())?, conditions::of_change(&headers)?);
    let (recursive, dry_run) = (args.recursive, args.dry_run);
    changed(&api, &order, FileOp::Remove { path: at, recursive, expect, dry_run }, None).await
}

async fn read(api: &Api, order: &Order, headers: &HeaderMap, args: &LookArgs) -> Result<Response, Failure> {
    let of_list = args.depth.is_some() || args.hidden || args.glob.is_some() || args.limit.is_some();
    refuse_foreign(of_list || args.cursor.is_some(), "list")?;
    let shown = path(args.path.as_deref())?;
    let as_bytes = wants_bytes(headers);
    let asked = range::of(args, headers, as_bytes)?;
    let hash = args.hash || headers.contains_key(header::IF_NONE_MATCH);
    // Where lines begin and end only the answer says, which holds them.
    let by_lines = matches!(asked.range, ReadRange::Lines { .. });
    let streams = as_bytes && args.max_bytes.is_none() && !by_lines;
    let inline = if as_bytes { u32::try_from(FILE_INLINE_BYTES_MAX).unwrap_or(u32::MAX) } else { TEXT_BYTES };
    let bytes_max = args.max_bytes.unwrap_or(inline);
    let want = if streams { ReadAs::Stream } else { ReadAs::Inline { bytes_max } };
    let op = FileOp::Read { path: shown.clone(), range: asked.range, want, hash };
    let (reply, download) = order.exchange(api, op, None).await?;
    let etag = match &reply.answer {
        FileAnswer::Content { etag, .. } | FileAnswer::Streaming { etag, .. } => *etag,
        FileAnswer::Listing { .. }
        | FileAnswer::Meta(_)
        | FileAnswer::Matches { .. }
        | FileAnswer::Written { .. }
        | FileAnswer::Done { .. } => return Err(file_view::another().into()),
    };
    let fresh = file_view::fresh_header(&reply);
    if conditions::is_known(headers, etag) {
        return Ok(with_fresh(conditions::not_modified(etag), fresh));
    }
    if as_bytes {
        let body = || download.map(|download| order.body(api, download));
        let answered = range::answer(reply, &asked, body)?;
        return Ok(with_fresh(with_etag(answered, etag), fresh));
    }
    let response = Json(file_view::content(shown.as_str(), reply)?).into_response();
    Ok(with_fresh(with_etag(response, etag), fresh))
}

/// What a write is about: all of it, or that it comes. With the hash that the caller declares.
fn content(headers: &HeaderMap, body: FileBody) -> Result<(Content, Option<Body>), Failure> {
    let declared = headers.get("cortex-content-id").map(|value| {
        let bad = || invalid("`Cortex-Content-Id` is not the blake3 hash of the content: 64 hex digits.");
        value.to_str().ok().and_then(|text| text.trim().parse::<ContentId>().ok()).ok_or_else(bad)
    });
    let declared = declared.transpose()?;
    match body {
        FileBody::Whole(bytes) => {
            if declared.is_some_and(|id| id != ContentId::of(&bytes)) {
                return Err(invalid(
                    "The content is not what `Cortex-Content-Id` says; nothing was changed.",
                ));
            }
            Ok((Content::Inline(bytes), None))
        }
        FileBody::Pieces { len, body } => Ok((Content::Streamed { id: declared, len }, Some(body))),
    }
}

/// Does a change and shows what came of it.
async fn changed(api: &Api, order: &Order, op: FileOp, body: Option<Body>) -> Result<Response, Failure> {
    let (at, name) = (op.path().as_str().to_owned(), order.node.name.to_string());
    let (reply, _none) = order.exchange(api, op, body).await?;
    let op = reply.op.map(|op| op.to_string());
    let mut response = match reply.answer {
        FileAnswer::Written { etag, created, dry_run, .. } => {
            let status = if created && !dry_run { StatusCode::CREATED } else { StatusCode::OK };
            let view = file_view::written(&name, &at, reply)?;
            with_etag((status, Json(view)).into_response(), (!dry_run).then_some(etag))
        }
        FileAnswer::Done { .. } => Json(file_view::done(&name, &at, reply)?).into_response(),
        FileAnswer::Listing { .. }
        | FileAnswer::Meta(_)
        | FileAnswer::Content { .. }
        | FileAnswer::Streaming { .. }
        | FileAnswer::Matches { .. } => return Err(file_view::another().into()),
    };
    if let Some(value) = op.and_then(|op| HeaderValue::from_str(&op).ok()) {
        response.headers_mut().insert("cortex-op-id", value);
    }
    Ok(response)
}

fn wants_bytes(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| kind.split(';').next().unwrap_or("").trim() == "application/octet-stream")
}

fn path(text: Option<&str>) -> Result<FilePath, Failure> {
    let text = text.ok_or_else(|| invalid("`path` is missing: name a file or folder of the node."))?;
    Ok(FilePath::parse(text)?)
}

fn glob(text: Option<&str>) -> Result<Option<Glob>, Failure> {
    Ok(text.map(Glob::parse).transpose()?)
}

fn kind(text: &str) -> Result<Kind, Failure> {
    let bad =
        || invalid(format!("`type` is `{}`; it must be file, dir, link or other.", printable(text, 80)));
    Kind::parse(text).ok_or_else(bad)
}

fn permissions(text: &str) -> Result<u16, Failure> {
    let bad = || invalid(format!("`perm` is `{}`; it must be octal, such as 0644.", printable(text, 80)));
    let is_octal = (1..=5).contains(&text.len()) && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    if !is_octal {
        return Err(bad());
    }
    u16::from_str_radix(text, 8).map_err(|_| bad())
}

fn page(limit: Option<u32>, cursor: Option<&str>, default: u32) -> Result<Page, Failure> {
    let cursor = cursor.map(|text| parse::<file_view::Cursor>("cursor", text)).transpose()?;
    Ok(Page { limit: limit.unwrap_or(default), cursor: cursor.map(|cursor| cursor.0) })
}

/// Refuses what belongs to something else than what was asked for.
fn refuse_foreign(is_there: bool, whose: &str) -> Result<(), Failure> {
    if is_there { Err(invalid(format!("The request has a part that is only of {whose}."))) } else { Ok(()) }
}

fn with_fresh(mut response: Response, fresh: HeaderValue) -> Response {
    response.headers_mut().insert("cortex-fresh", fresh);
    response
}

fn with_etag(mut response: Response, etag: Option<cortex_core::files::content::ContentId>) -> Response {
    let headers = response.headers_mut();
    if let Some(value) = etag.and_then(|etag| HeaderValue::from_str(&format!("\"{etag}\"")).ok()) {
        headers.insert(header::ETAG, value);
    }
    response
}
