//! `/api/v1/skills`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use cortex_content::object::Node;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::Revision;
use cortex_core::name::Name;
use cortex_core::skill::{SKILL_FILE, SkillRow};
use cortex_wire::http::{
    MountRequest, MountView, Page, Problem, PromoteRequest, PromotedView, SkillDetailView, SkillEntryView,
    SkillFileView, SkillView,
};
use http::StatusCode;
use serde::Deserialize;

use crate::http::Api;
use crate::http::extract::{Args, JsonBody, PageArgs, place};
use crate::http::problem::{Failure, invalid};
use crate::http::view::time;
use crate::service::Caller;
use crate::service::skills::mounts::ShownMount;
use crate::service::skills::{FileShown, Found, Order, Part, Source};

/// Which part of what.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct FileArgs {
    /// The path in the skill; empty for the folder itself, `SKILL.md` when missing.
    path: Option<String>,
    /// The revision; the newest one when missing.
    revision: Option<u64>,
    /// From which byte of a file on.
    offset: Option<u64>,
    /// Bytes of a file, at most and by default 262,144; entries of a folder, at most and by default 1,000.
    limit: Option<usize>,
    /// `next_cursor` of the entries before.
    cursor: Option<String>,
}

/// The newest revision of each skill, by name.
#[utoipa::path(get, path = "/api/v1/skills", tag = "skills", params(PageArgs),
    responses((status = 200, body = Page<SkillView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<PageArgs>,
) -> Result<Json<Page<SkillView>>, Failure> {
    let limit = args.limit()?;
    let mut items: Vec<SkillView> = api.skills.list(&caller).await?.iter().map(view).collect();
    items.retain(|item| args.cursor.as_deref().is_none_or(|after| item.name.as_str() > after));
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.clone());
    Ok(Json(Page { items, next_cursor }))
}

/// One skill with its revisions.
#[utoipa::path(get, path = "/api/v1/skills/{skill}", tag = "skills", params(("skill" = String, Path)),
    responses((status = 200, body = SkillDetailView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<SkillDetailView>, Failure> {
    let shown = api.skills.show(&caller, &name).await?;
    Ok(Json(SkillDetailView {
        head: view(&shown.head),
        files: shown.files,
        bytes: shown.bytes,
        revisions: shown.revisions.iter().map(view).collect(),
    }))
}

/// Removes a skill. What is mounted of it is to be unmounted before.
#[utoipa::path(delete, path = "/api/v1/skills/{skill}", tag = "skills", params(("skill" = String, Path)),
    responses((status = 204)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    api.skills.remove(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a skill holds: `SKILL.md`, or what lies at another path.
#[utoipa::path(get, path = "/api/v1/skills/{skill}/files", tag = "skills",
    params(("skill" = String, Path), FileArgs), responses((status = 200, body = SkillFileView)))]
pub(super) async fn files(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Args(args): Args<FileArgs>,
) -> Result<Json<SkillFileView>, Failure> {
    let path = folder(args.path.as_deref().unwrap_or(SKILL_FILE))?;
    if args.limit == Some(0) {
        return Err(invalid("`limit` must be above 0."));
    }
    let part = Part { from: args.offset.unwrap_or(0), max: args.limit, after: args.cursor };
    let shown = api.skills.read(&caller, &name, args.revision.map(Revision), path, part).await?;
    Ok(Json(file(&shown)))
}

/// Promotes a folder to the library: a new revision, or none when the newest one has this content already.
#[utoipa::path(post, path = "/api/v1/skills/{skill}/promote", tag = "skills", request_body = PromoteRequest,
    params(("skill" = String, Path)),
    responses((status = 201, body = PromotedView), (status = 200, body = PromotedView)))]
pub(super) async fn promote(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<PromoteRequest>,
) -> Result<Response, Failure> {
    let source = match (request.from, request.workspace) {
        (Some(from), None) if request.path.is_none() => {
            let (node, path) = place(&from)?;
            Source::Node { node, path }
        }
        (None, Some(name)) => {
            Source::Workspace { name, path: folder(request.path.as_deref().unwrap_or_default())? }
        }
        (Some(_), None) => {
            return Err(invalid("`path` is for a folder in a `workspace`; `from` has its own."));
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid("Say where the folder is: either `from` (`NODE:PATH`) or `workspace`."));
        }
    };
    let order = Order { name: Name::parse(&name)?, source, expect: request.expect.map(Revision) };
    let promoted = api.skills.promote(&caller, order).await?;
    let status = if promoted.already { StatusCode::OK } else { StatusCode::CREATED };
    let told = PromotedView {
        head: view(&promoted.row),
        already: promoted.already,
        files: promoted.files,
        bytes: promoted.bytes,
    };
    Ok((status, Json(told)).into_response())
}

/// Which mount.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MountArgs {
    /// The node, by name or id.
    node: String,
    /// The folder on it.
    path: String,
}

/// Folders that follow a skill, on nodes that the caller sees.
#[utoipa::path(get, path = "/api/v1/skills/{skill}/mounts", tag = "skills", params(("skill" = String, Path)),
    responses((status = 200, body = Vec<MountView>)))]
pub(super) async fn mounts(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<MountView>>, Failure> {
    let mounts = api.skills.mounts(&caller, &name)?;
    Ok(std::future::ready(Json(mounts.iter().map(mount_view).collect())).await)
}

/// Has a folder of a node follow a skill. Nobody but the hub writes it, and nothing of it reaches the library.
#[utoipa::path(post, path = "/api/v1/skills/{skill}/mounts", tag = "skills", request_body = MountRequest,
    params(("skill" = String, Path)), responses((status = 201, body = MountView)))]
pub(super) async fn mount(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<MountRequest>,
) -> Result<Response, Failure> {
    let place = (request.node.as_str(), FilePath::parse(&request.path)?);
    let mounted = api.skills.mount(&caller, &name, place, request.revision.map(Revision)).await?;
    Ok((StatusCode::CREATED, Json(mount_view(&mounted))).into_response())
}

/// Has a folder follow a skill no more; it stays as it is.
#[utoipa::path(delete, path = "/api/v1/skills/{skill}/mounts", tag = "skills",
    params(("skill" = String, Path), MountArgs), responses((status = 204)))]
pub(super) async fn unmount(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Args(args): Args<MountArgs>,
) -> Result<StatusCode, Failure> {
    let place = (args.node.as_str(), FilePath::parse(&args.path)?);
    api.skills.unmount(&caller, &name, place).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn mount_view(shown: &ShownMount) -> MountView {
    let row = &shown.mount;
    MountView {
        skill: row.skill.to_string(),
        node: shown.node.clone(),
        path: row.path.as_str().to_owned(),
        pin: row.pin.map(|n| n.0),
        revision: row.reached.map(|(n, _)| n.0).unwrap_or_default(),
        state: shown.standing.as_str().to_owned(),
        seen_at: shown.seen_at.map(time),
        problem: shown.trouble.as_ref().map(|refusal| Problem::new(refusal, "")),
        by: row.by.clone(),
        at: time(row.at),
    }
}

/// A path in a tree, or its root.
fn folder(text: &str) -> Result<RelPath, Failure> {
    Ok(if matches!(text, "" | "." | "/") { RelPath::root() } else { RelPath::parse(text)? })
}

fn view(row: &SkillRow) -> SkillView {
    SkillView {
        name: row.name.to_string(),
        revision: row.n.0,
        root: row.tree.to_string(),
        content: row.content.to_string(),
        by: row.by.clone(),
        workspace: row.from.map(|id| id.to_string()),
        at: time(row.at),
    }
}

fn file(shown: &FileShown) -> SkillFileView {
    let mut view = SkillFileView {
        name: shown.row.name.to_string(),
        revision: shown.row.n.0,
        path: shown.path.as_str().to_owned(),
        kind: "dir".to_owned(),
        size: None,
        exec: false,
        id: None,
        offset: 0,
        text: None,
        data_base64: None,
        next_offset: None,
        entries: Vec::new(),
        next_cursor: None,
    };
    match &shown.found {
        Found::File { node, from, bytes } => {
            view.kind = "file".to_owned();
            (view.size, view.exec, view.id) = (Some(node.size), node.exec, Some(node.id.to_string()));
            let end = from.saturating_add(bytes.len() as u64);
            view.offset = *from;
            // A part may end within a letter.
            let text = whole_letters(bytes, end < node.size);
            let len = text.map_or(bytes.len(), str::len);
            match text {
                Some(text) => view.text = Some(text.to_owned()),
                None => view.data_base64 = Some(base64::engine::general_purpose::STANDARD.encode(bytes)),
            }
            let end = from.saturating_add(len as u64);
            view.next_offset = (end < node.size).then_some(end);
        }
        Found::Link(target) => {
            view.kind = "link".to_owned();
            view.text = Some(String::from_utf8_lossy(target).into_owned());
        }
        Found::Dir(listed) => {
            view.entries = listed.entries.iter().map(|(name, node)| entry(name, node)).collect();
            view.next_cursor = listed.entries.last().filter(|_| listed.more).map(|(name, _)| name.clone());
        }
    }
    view
}

/// The bytes as text. When more follow, a letter that they cut is left for the next part.
fn whole_letters(bytes: &[u8], more: bool) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if more && error.error_len().is_none() && error.valid_up_to() > 0 => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

fn entry(name: &str, node: &Node) -> SkillEntryView {
    let (kind, size, exec) = match node {
        Node::File(file) => ("file", file.size, file.exec),
        Node::Dir { totals, .. } => ("dir", totals.bytes, false),
        Node::Link { .. } => ("link", 0, false),
    };
    SkillEntryView { name: name.to_owned(), kind: kind.to_owned(), size, exec }
}
