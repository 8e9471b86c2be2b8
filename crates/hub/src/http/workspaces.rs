//! `/api/v1/workspaces`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_content::object::Node;
use cortex_core::files::op::Page as FilePage;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::{LockEpoch, Revision};
use cortex_core::limits::WORKSPACE_LOCK_MS;
use cortex_core::name::{Name, printable};
use cortex_core::workspace::{Mode, RevisionRow, Role, Rules};
use cortex_core::{Code, Refusal};
use cortex_wire::http::{
    DriftPathView, DriftView, HaltView, LeftOutView, ManifestView, MemberRequest, MemberView, Page, Problem,
    RestoreRequest, ResyncRequest, RevisionView, WorkspaceLockRequest, WorkspaceLockView, WorkspacePatch,
    WorkspaceRequest, WorkspaceRules, WorkspaceView,
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::http::Api;
use crate::http::extract::{Args, JsonBody, PageArgs, page_limit, parse, place};
use crate::http::file_view;
use crate::http::problem::{Failure, invalid};
use crate::http::view::time;
use crate::service::Caller;
use crate::service::workspaces::{Drift, DriftPath, New, Resync, Shown, ShownMember};

/// The lock that a writer holds: its number.
const LOCK: &str = "cortex-lock";

/// Which member.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MemberArgs {
    /// `NODE`, `NODE:PATH` or its id.
    member: String,
}

/// What to tell of drift.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct DriftArgs {
    /// `NODE`, `NODE:PATH` or its id; all when missing.
    member: Option<String>,
    /// Also tells how texts differ.
    diff: bool,
}

/// Which lock.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct UnlockArgs {
    /// The caller's own, by its number; without it whoever's it is.
    epoch: Option<u64>,
}

/// All workspaces, by name.
#[utoipa::path(get, path = "/api/v1/workspaces", tag = "workspaces", params(PageArgs),
    responses((status = 200, body = Page<WorkspaceView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<PageArgs>,
) -> Result<Json<Page<WorkspaceView>>, Failure> {
    let limit = args.limit()?;
    let mut items: Vec<WorkspaceView> = api.workspaces.list(&caller)?.iter().map(view).collect();
    items.retain(|item| args.cursor.as_deref().is_none_or(|after| item.name.as_str() > after));
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.clone());
    Ok(std::future::ready(Json(Page { items, next_cursor })).await)
}

/// Makes a workspace.
#[utoipa::path(post, path = "/api/v1/workspaces", tag = "workspaces", request_body = WorkspaceRequest,
    responses((status = 201, body = WorkspaceView)))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<WorkspaceRequest>,
) -> Result<Response, Failure> {
    let (mode, first) = match (request.lead, request.from) {
        (Some(_), Some(_)) => {
            return Err(invalid("`lead` and `from` exclude each other."));
        }
        (Some(lead), None) => (Mode::NodePrimary, Some(lead)),
        (None, from) => (Mode::HubPrimary, from),
    };
    let new = New {
        name: Name::parse(&request.name)?,
        mode,
        rules: rules(request.rules),
        bytes_max: request.bytes_max,
        first: first.map(|text| place(&text)).transpose()?,
    };
    let shown = api.workspaces.create(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(view(&shown))).into_response())
}

/// One workspace with its members.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}", tag = "workspaces",
    params(("workspace" = String, Path)), responses((status = 200, body = WorkspaceView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<WorkspaceView>, Failure> {
    let shown = api.workspaces.status(&caller, &name)?;
    Ok(std::future::ready(Json(view(&shown))).await)
}

/// Changes its rules or its bound.
#[utoipa::path(patch, path = "/api/v1/workspaces/{workspace}", tag = "workspaces", request_body = WorkspacePatch,
    params(("workspace" = String, Path), ("Cortex-Lock" = Option<u64>, Header, description = "The caller's lock.")),
    responses((status = 200, body = WorkspaceView)))]
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    JsonBody(patch): JsonBody<WorkspacePatch>,
) -> Result<Json<WorkspaceView>, Failure> {
    let what = (patch.rules.map(rules), patch.bytes_max);
    Ok(Json(view(&api.workspaces.change(&caller, &name, what, quoted(&headers)?).await?)))
}

/// Ends it; folders stay as they are.
#[utoipa::path(delete, path = "/api/v1/workspaces/{workspace}", tag = "workspaces",
    params(("workspace" = String, Path), ("Cortex-Lock" = Option<u64>, Header, description = "The caller's lock.")),
    responses((status = 204)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    api.workspaces.remove(&caller, &name, quoted(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Its members.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/members", tag = "workspaces",
    params(("workspace" = String, Path)), responses((status = 200, body = Vec<MemberView>)))]
pub(super) async fn members(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<MemberView>>, Failure> {
    let shown = api.workspaces.status(&caller, &name)?;
    Ok(std::future::ready(Json(shown.members.iter().map(member).collect())).await)
}

/// Makes a folder a member.
#[utoipa::path(post, path = "/api/v1/workspaces/{workspace}/members", tag = "workspaces", request_body = MemberRequest,
    params(("workspace" = String, Path)), responses((status = 201, body = WorkspaceView)))]
pub(super) async fn attach(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<MemberRequest>,
) -> Result<Response, Failure> {
    let role = match &request.role {
        Some(text) => {
            let unknown =
                || invalid(format!("`{}` is no role: `lead`, `peer` or `follower`.", printable(text, 40)));
            Role::parse(text).ok_or_else(unknown)?
        }
        None => match api.workspaces.status(&caller, &name)?.ws.mode {
            Mode::HubPrimary => Role::Peer,
            Mode::NodePrimary => Role::Follower,
        },
    };
    let place = (request.node.as_str(), FilePath::parse(&request.path)?);
    let shown = api.workspaces.attach(&caller, &name, place, role).await?;
    Ok((StatusCode::CREATED, Json(view(&shown))).into_response())
}

/// Makes it none any more; the folder stays as it is.
#[utoipa::path(delete, path = "/api/v1/workspaces/{workspace}/members", tag = "workspaces",
    params(("workspace" = String, Path), MemberArgs), responses((status = 200, body = WorkspaceView)))]
pub(super) async fn detach(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Args(args): Args<MemberArgs>,
) -> Result<Json<WorkspaceView>, Failure> {
    Ok(Json(view(&api.workspaces.detach(&caller, &name, &args.member).await?)))
}

/// In what members differ, as their nodes say at this moment.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/drift", tag = "workspaces",
    params(("workspace" = String, Path), DriftArgs), responses((status = 200, body = Vec<DriftView>)))]
pub(super) async fn drift(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Args(args): Args<DriftArgs>,
) -> Result<Json<Vec<DriftView>>, Failure> {
    let members: Vec<String> = args.member.into_iter().collect();
    let found = api.workspaces.drift(&caller, &name, &members, args.diff).await?;
    Ok(Json(found.iter().map(drift_view).collect()))
}

/// Takes its lock, or extends the caller's own.
#[utoipa::path(put, path = "/api/v1/workspaces/{workspace}/lock", tag = "workspaces",
    request_body = WorkspaceLockRequest, params(("workspace" = String, Path)),
    responses((status = 200, body = WorkspaceView)))]
pub(super) async fn lock(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<WorkspaceLockRequest>,
) -> Result<Json<WorkspaceView>, Failure> {
    let shown = match request.epoch {
        Some(epoch) => api.workspaces.extend(&caller, &name, LockEpoch(epoch)).await?,
        None => api.workspaces.lock(&caller, &name, request.ttl_ms.unwrap_or(WORKSPACE_LOCK_MS)).await?,
    };
    Ok(Json(view(&shown)))
}

/// Gives the caller's lock back, or breaks whoever's it is.
#[utoipa::path(delete, path = "/api/v1/workspaces/{workspace}/lock", tag = "workspaces",
    params(("workspace" = String, Path), UnlockArgs), responses((status = 200, body = WorkspaceView)))]
pub(super) async fn unlock(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Args(args): Args<UnlockArgs>,
) -> Result<Json<WorkspaceView>, Failure> {
    let epoch = args.epoch.map(LockEpoch);
    Ok(Json(view(&api.workspaces.unlock(&caller, &name, epoch).await?)))
}

/// Has members looked at anew, ends drift, or lets a halt pass.
#[utoipa::path(post, path = "/api/v1/workspaces/{workspace}/resync", tag = "workspaces",
    request_body = ResyncRequest, params(("workspace" = String, Path)),
    responses((status = 200, body = WorkspaceView)))]
pub(super) async fn resync(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<ResyncRequest>,
) -> Result<Json<WorkspaceView>, Failure> {
    let accept = request.accept.as_deref().map(|text| parse("accept", text)).transpose()?;
    let order = Resync { members: request.members, accept, repair: request.repair };
    let resynced = api.workspaces.resync(&caller, &name, order).await?;
    let mut shown = view(&resynced.shown);
    for (of, refusal) in &resynced.refused {
        let known = shown.members.iter_mut().find(|member| *of == format!("{}:{}", member.node, member.path));
        if let Some(member) = known {
            member.problem = Some(Problem::new(refusal, ""));
        }
    }
    Ok(Json(shown))
}

/// Its revisions, the newest first.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/history", tag = "workspaces",
    params(("workspace" = String, Path), PageArgs), responses((status = 200, body = Page<RevisionView>)))]
pub(super) async fn history(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Args(args): Args<PageArgs>,
) -> Result<Json<Page<RevisionView>>, Failure> {
    let limit = args.limit()?;
    let before = args.cursor.as_deref().map(|text| parse::<u64>("cursor", text)).transpose()?.map(Revision);
    let mut rows = api.workspaces.history(&caller, &name, before, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|last| last.n.to_string());
    Ok(Json(Page { items: rows.iter().map(revision).collect(), next_cursor }))
}

/// Which entries of the tree.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ManifestArgs {
    /// Of which revision; of the newest when missing.
    rev: Option<u64>,
    /// Below this folder of it, such as `src/lib`; all when missing.
    path: Option<String>,
    /// At most so many entries; 100 when missing, at most 1000.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Entries of the tree of a revision, each behind the folder that it is in. Names are relative to `path`.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/manifest", tag = "workspaces",
    params(("workspace" = String, Path), ManifestArgs), responses((status = 200, body = ManifestView)))]
pub(super) async fn manifest(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Args(args): Args<ManifestArgs>,
) -> Result<Json<ManifestView>, Failure> {
    let limit = page_limit(args.limit)?;
    let path = match args.path.as_deref().unwrap_or_default() {
        "" => RelPath::root(),
        path => RelPath::parse(path)?,
    };
    let cursor = args.cursor.as_deref().map(|text| parse::<file_view::Cursor>("cursor", text)).transpose()?;
    let page =
        FilePage { limit: u32::try_from(limit).unwrap_or(u32::MAX), cursor: cursor.map(|cursor| cursor.0) };
    let manifest = api.workspaces.manifest(&caller, &name, args.rev.map(Revision), (path, page)).await?;
    let (items, next_cursor) = file_view::manifest(&manifest.answer)?;
    Ok(Json(ManifestView {
        revision: manifest.revision.0,
        root: manifest.tree.to_string(),
        items,
        next_cursor,
    }))
}

/// The tree of an earlier revision becomes the newest one.
#[utoipa::path(post, path = "/api/v1/workspaces/{workspace}/restore", tag = "workspaces", request_body = RestoreRequest,
    params(("workspace" = String, Path), ("Cortex-Lock" = Option<u64>, Header, description = "The caller's lock.")),
    responses((status = 200, body = WorkspaceView)))]
pub(super) async fn restore(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<RestoreRequest>,
) -> Result<Json<WorkspaceView>, Failure> {
    let n = Revision(request.revision);
    Ok(Json(view(&api.workspaces.restore(&caller, &name, n, quoted(&headers)?).await?)))
}

/// The lock that the caller says to hold.
pub(super) fn quoted(headers: &HeaderMap) -> Result<Option<LockEpoch>, Refusal> {
    let Some(value) = headers.get(LOCK) else { return Ok(None) };
    let epoch = value.to_str().ok().and_then(|text| text.parse().ok());
    let unread = || {
        Refusal::new(Code::InvalidArgument, "`Cortex-Lock` is not the number of a lock.")
            .hint("Send the `epoch` that taking the lock answered with.")
    };
    epoch.map(|epoch| Some(LockEpoch(epoch))).ok_or_else(unread)
}

pub(super) fn rules(rules: WorkspaceRules) -> Rules {
    let WorkspaceRules { exclude, ignore_files, vcs, links_outside } = rules;
    Rules { exclude, ignore_files, vcs, links_outside }
}

fn view(shown: &Shown) -> WorkspaceView {
    let ws = &shown.ws;
    WorkspaceView {
        id: ws.id.to_string(),
        name: ws.name.to_string(),
        mode: ws.mode.as_str().to_owned(),
        revision: ws.head.0,
        root: ws.tree.to_string(),
        rules: WorkspaceRules {
            exclude: ws.rules.exclude.clone(),
            ignore_files: ws.rules.ignore_files,
            vcs: ws.rules.vcs,
            links_outside: ws.rules.links_outside,
        },
        bytes_max: ws.bytes_max,
        lock: ws.lock.as_ref().map(|holding| WorkspaceLockView {
            epoch: ws.epoch.0,
            holder: holding.holder.clone(),
            ttl_ms: holding.ttl_ms,
            until: time(holding.until),
        }),
        members: shown.members.iter().map(member).collect(),
        owner: ws.owner.clone(),
        created_at: time(ws.created_at),
    }
}

fn member(shown: &ShownMember) -> MemberView {
    let row = &shown.member;
    MemberView {
        id: row.id.to_string(),
        node: shown.node.clone(),
        path: row.path.as_str().to_owned(),
        role: row.role.as_str().to_owned(),
        state: shown.state.as_str().to_owned(),
        revision: row.reached.0,
        intent: row.intent.0,
        watch: if shown.is_watched { "events" } else { "scan" }.to_owned(),
        unwatched: shown.unwatched.map(|why| why.as_str().to_owned()),
        seen_at: shown.seen_at.map(time),
        drift_since: row.drift_since.map(time),
        conflicts: row.conflicts,
        halt: row.halt.as_ref().map(HaltView::of),
        problem: shown.trouble.as_ref().map(|refusal| Problem::new(refusal, "")),
        left_out: LeftOutView::of(shown.left_out),
    }
}

fn revision(row: &RevisionRow) -> RevisionView {
    RevisionView {
        revision: row.n.0,
        parent: row.parent.map(|parent| parent.0),
        root: row.tree.to_string(),
        kind: row.kind.as_str().to_owned(),
        by: row.by.clone(),
        at: time(row.at),
        files: row.files,
        bytes: row.bytes,
        note: row.note.clone(),
    }
}

fn drift_view(drift: &Drift) -> DriftView {
    DriftView {
        member: drift.member.clone(),
        revision: drift.revision.0,
        paths: drift.paths.iter().map(drift_path).collect(),
        cut: drift.is_cut,
        error: drift.error.as_ref().map(|refusal| Problem::new(refusal, "")),
    }
}

fn drift_path(path: &DriftPath) -> DriftPathView {
    let word = |node: &Node| match node {
        Node::File(file) => file.id.to_string(),
        Node::Dir { .. } => "dir".to_owned(),
        Node::Link { .. } => "link".to_owned(),
    };
    DriftPathView {
        path: path.path.as_str().to_owned(),
        hub: path.hub.as_ref().map(word),
        node: path.node.as_ref().map(word),
        diff: path.diff.as_ref().map(|diff| diff.text.clone()),
        diff_cut: path.diff.as_ref().is_some_and(|diff| diff.cut),
    }
}
