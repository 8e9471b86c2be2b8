//! `/api/v1/transfers`: trees to nodes and back. What is wanted and what is sent are bytes; how it stands is
//! told as JSON.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::TransferId;
use cortex_core::limits::{TRANSFER_WAIT_MS_MAX, WANTS_MAX, WORKSPACE_BYTES_MAX};
use cortex_core::name::{Name, printable};
use cortex_core::transfer::Filters;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{self as wire, Page, TransferOrder, TransferView};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use crate::http::extract::{Args, JsonBody, PackBody, PageArgs, RawBody, parse, path_id};
use crate::http::files::attempt;
use crate::http::problem::{Failure, invalid};
use crate::http::runs::{idempotency_key, traceparent};
use crate::http::workspaces::{quoted, rules};
use crate::http::{Api, transfer_view};
use crate::service::Caller;
use crate::service::transfers::{Asking, ImportOrder, Order, PullOrder, PushOrder, Standing, Targets};

/// What is told of the transfer with every answer about its content.
const STATE: &str = "cortex-transfer";
const BYTES: &str = "application/octet-stream";

/// How long to wait for news.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct NewsArgs {
    /// Wait until `seq` is above this.
    after: Option<u64>,
    /// At most so long, milliseconds; at most 25000.
    wait_ms: Option<u64>,
}

/// What to ask of the caller of a push.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WantsArgs {
    /// Ask again for what was asked for and has not come: the caller lost it.
    again: bool,
    /// Wait so long for something, milliseconds; at most 25000.
    wait_ms: Option<u64>,
}

/// Transfers of the caller, the newest first; for who may lock anybody all of them.
#[utoipa::path(get, path = "/api/v1/transfers", tag = "transfers", params(PageArgs),
    responses((status = 200, body = Page<TransferView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<PageArgs>,
) -> Result<Json<Page<TransferView>>, Failure> {
    let limit = args.limit()?;
    let before = args.cursor.as_deref().map(|text| parse::<TransferId>("cursor", text)).transpose()?;
    let mut shown = api.transfers.list(&caller, limit + 1, before);
    let is_more = shown.len() > limit;
    shown.truncate(limit);
    let next_cursor = shown.last().filter(|_| is_more).map(|last| last.id.to_string());
    let items = shown.iter().map(transfer_view::transfer).collect();
    Ok(std::future::ready(Json(Page { items, next_cursor })).await)
}

/// Begins a push, a pull or an import. A node that refuses it, or is away, is told as such in the answer; what
/// an import is refused for is the answer.
#[utoipa::path(post, path = "/api/v1/transfers", tag = "transfers", request_body = TransferOrder, params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key is the same transfer."),
        ("Cortex-Attempt" = Option<String>, Header, description = "`TASK/N`: refused once that attempt is over."),
        ("Cortex-Lock" = Option<u64>, Header, description = "The caller's lock of the workspace that a push writes.")),
    responses((status = 202, body = TransferView)))]
pub(super) async fn begin(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(order): JsonBody<TransferOrder>,
) -> Result<Response, Failure> {
    let asking = Asking {
        key: idempotency_key(&headers)?,
        attempt: attempt(&headers)?,
        lock: quoted(&headers)?,
        traceparent: traceparent(&headers),
    };
    let shown = match order {
        TransferOrder::Push(order) => {
            api.transfers.begin(&caller, Order::Push(Box::new(push(order)?)), asking).await?
        }
        TransferOrder::Pull(order) => {
            api.transfers.begin(&caller, Order::Pull(Box::new(pull(order)?)), asking).await?
        }
        TransferOrder::Import(order) => api.workspaces.import(&caller, import(order)?, asking).await?,
    };
    let place = format!("/api/v1/transfers/{}", shown.id);
    let view = Json(transfer_view::transfer(&shown));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], view).into_response())
}

/// How a transfer stands. With `after` the answer waits for news. What came of it is told for an hour.
#[utoipa::path(get, path = "/api/v1/transfers/{id}", tag = "transfers", params(("id" = String, Path), NewsArgs),
    responses((status = 200, body = TransferView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Args(args): Args<NewsArgs>,
) -> Result<Json<TransferView>, Failure> {
    let (id, wait) = (transfer_id(&id)?, wait(args.wait_ms)?);
    let shown = tokio::select! {
        shown = api.transfers.get(&caller, id, args.after, wait) => shown?,
        // The rest is what would have been told without `after`.
        () = api.shutdown.cancelled() => api.transfers.get(&caller, id, None, Duration::ZERO).await?,
    };
    Ok(Json(transfer_view::transfer(&shown)))
}

/// Ends a transfer. What was put stays.
#[utoipa::path(delete, path = "/api/v1/transfers/{id}", tag = "transfers", params(("id" = String, Path)),
    responses((status = 200, body = TransferView)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<TransferView>, Failure> {
    let shown = api.transfers.cancel(&caller, transfer_id(&id)?).await?;
    Ok(Json(transfer_view::transfer(&shown)))
}

/// What a push or an import wants next of its caller: ids of 32 bytes one after the other, in the order in which they are
/// to be sent. Nothing is asked for before a node, or the hub, lacks it.
#[utoipa::path(get, path = "/api/v1/transfers/{id}/wants", tag = "transfers", params(("id" = String, Path), WantsArgs),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>,
        headers(("Cortex-Transfer" = String, description = "How the transfer stands: `open`, `done`, `failed`, `cancelled`."))),
        (status = 204, description = "Nothing is wanted at the moment, or ever, as `Cortex-Transfer` says.")))]
pub(super) async fn wants(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Args(args): Args<WantsArgs>,
) -> Result<Response, Failure> {
    let (id, wait) = (transfer_id(&id)?, wait(args.wait_ms)?);
    let wanted = api.transfers.wants(&caller, id, args.again, wait).await?;
    if wanted.ids.is_empty() {
        return Ok(told(wanted.standing, StatusCode::NO_CONTENT.into_response()));
    }
    let ids = transfer_view::ids_to_bytes(&wanted.ids);
    Ok(told(wanted.standing, ([(header::CONTENT_TYPE, BYTES)], ids).into_response()))
}

/// Sends one pack of a push or an import. The answer comes when there is room for the next one.
#[utoipa::path(put, path = "/api/v1/transfers/{id}/packs", tag = "transfers", params(("id" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "It was taken, or nobody wants it.",
        headers(("Cortex-Transfer" = String, description = "How the transfer stands.")))))]
pub(super) async fn packs(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    body: PackBody,
) -> Result<Response, Failure> {
    let upload = api.transfers.upload(&caller, transfer_id(&id)?).await?;
    let pack = body.read().await?;
    let standing = upload.take(pack).await?;
    Ok(told(standing, StatusCode::NO_CONTENT.into_response()))
}

/// Says what the caller of a push or an import was asked for and cannot give: ids one after the other. An import
/// ends with that.
#[utoipa::path(post, path = "/api/v1/transfers/{id}/missing", tag = "transfers", params(("id" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, headers(("Cortex-Transfer" = String, description = "How the transfer stands.")))))]
pub(super) async fn missing(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    RawBody(body): RawBody,
) -> Result<Response, Failure> {
    let standing = api.transfers.missing(&caller, transfer_id(&id)?, &ids(&body)?)?;
    Ok(std::future::ready(told(standing, StatusCode::NO_CONTENT.into_response())).await)
}

/// Reads what a pull brings: frames of a kind, the length of the body in four bytes (little-endian), and the
/// body. `T`: the tree, as JSON, first. `N`: paths that it says nothing of, as JSON. `P`: the next bytes of
/// packs. `M`: ids that cannot be given. `E`: the end, empty, or a problem as JSON; one that may be tried
/// again is a reason to read anew, from the tree on.
#[utoipa::path(get, path = "/api/v1/transfers/{id}/content", tag = "transfers", params(("id" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
pub(super) async fn content(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let frames = api.transfers.read(&caller, transfer_id(&id)?)?;
    let next = |mut frames: tokio::sync::mpsc::Receiver<_>| async {
        frames.recv().await.map(|frame| (frame, frames))
    };
    let stop = api.shutdown.clone().cancelled_owned();
    let bytes = stream::unfold(frames, next)
        .map(|frame| Ok::<_, Infallible>(transfer_view::frame(frame)))
        .take_until(stop);
    let response = ([(header::CONTENT_TYPE, BYTES)], Body::from_stream(bytes)).into_response();
    Ok(std::future::ready(response).await)
}

/// Asks for content of a pull while it is read: ids one after the other.
#[utoipa::path(post, path = "/api/v1/transfers/{id}/wants", tag = "transfers", params(("id" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, headers(("Cortex-Transfer" = String, description = "How the transfer stands.")))))]
pub(super) async fn ask(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    RawBody(body): RawBody,
) -> Result<Response, Failure> {
    let (id, ids) = (transfer_id(&id)?, ids(&body)?);
    let standing = api.transfers.ask(&caller, id, ids, Duration::from_millis(TRANSFER_WAIT_MS_MAX)).await?;
    Ok(told(standing, StatusCode::NO_CONTENT.into_response()))
}

/// Says that the reader of a pull has all of it.
#[utoipa::path(post, path = "/api/v1/transfers/{id}/end", tag = "transfers", params(("id" = String, Path)),
    responses((status = 200, body = TransferView)))]
pub(super) async fn end(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<TransferView>, Failure> {
    let shown = api.transfers.taken(&caller, transfer_id(&id)?).await?;
    Ok(Json(transfer_view::transfer(&shown)))
}

fn push(order: wire::PushOrder) -> Result<PushOrder, Failure> {
    let targets = match (order.nodes.is_empty(), order.labels) {
        (false, None) => Targets::Named(order.nodes),
        (true, Some(labels)) => Targets::Labelled(labels),
        _ => return Err(invalid("The push must have just one of `nodes` and `labels`.")),
    };
    let (exclude, ignore_files, vcs) = (order.exclude, order.ignore_files, order.vcs);
    Ok(PushOrder {
        targets,
        dest: FilePath::parse(&order.dest)?,
        only: order.only.map(one_name).transpose()?,
        root: tree(&order.root)?,
        entries: order.entries,
        bytes: order.bytes,
        dry_run: order.dry_run,
        delete: order.delete,
        force: order.force,
        checksum: order.checksum,
        filters: Filters { exclude, ignore_files, vcs, links_outside: true },
        accept: order.accept.as_deref().map(|text| hash("accept", text)).transpose()?.map(halt_id),
        rate_max: order.rate_max,
    })
}

fn pull(order: wire::PullOrder) -> Result<PullOrder, Failure> {
    let wire::PullOrder { node, source, exclude, ignore_files, vcs, rate_max } = order;
    let filters = Filters { exclude, ignore_files, vcs, links_outside: true };
    Ok(PullOrder { node, source: FilePath::parse(&source)?, filters, rate_max })
}

fn import(order: wire::ImportOrder) -> Result<ImportOrder, Failure> {
    Ok(ImportOrder {
        workspace: Name::parse(&order.workspace)?,
        rules: rules(order.rules),
        bytes_max: order.bytes_max.unwrap_or(WORKSPACE_BYTES_MAX),
        root: tree(&order.root)?,
        entries: order.entries,
        bytes: order.bytes,
    })
}

fn tree(root: &str) -> Result<TreeId, Failure> {
    hash("root", root).map(|id| TreeId::new(*id.as_bytes()))
}

fn halt_id(hash: ContentId) -> cortex_core::sync::HaltId {
    cortex_core::sync::HaltId::new(hash)
}

fn one_name(only: String) -> Result<String, Failure> {
    let is_name = RelPath::parse(&only).is_ok_and(|path| !path.is_root() && !only.contains('/'));
    if is_name {
        return Ok(only);
    }
    let shown = printable(&only, 200);
    Err(invalid(format!("`only` is `{shown}`; it must be the name of one entry.")))
}

fn hash(field: &str, text: &str) -> Result<ContentId, Failure> {
    let bad = || invalid(format!("`{field}` is `{}`; it must be 64 hex digits.", printable(text, 80)));
    text.parse().map_err(|_| bad())
}

fn ids(body: &[u8]) -> Result<Vec<ContentId>, Failure> {
    let (ids, rest) = body.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(invalid("The body is not ids of 32 bytes one after the other."));
    }
    if ids.len() > WANTS_MAX {
        let message = format!("The body has {} ids; at most {WANTS_MAX} go at once.", ids.len());
        return Err(Refusal::new(Code::TooLarge, message).hint("Send them in several requests.").into());
    }
    Ok(ids.iter().map(|id| ContentId::new(*id)).collect())
}

fn transfer_id(text: &str) -> Result<TransferId, Failure> {
    path_id("transfer", text)
}

fn wait(wait_ms: Option<u64>) -> Result<Duration, Failure> {
    match wait_ms.unwrap_or(0) {
        ms if ms <= TRANSFER_WAIT_MS_MAX => Ok(Duration::from_millis(ms)),
        _ => Err(invalid(format!("`wait_ms` must be at most {TRANSFER_WAIT_MS_MAX}."))),
    }
}

fn told(standing: Standing, mut response: Response) -> Response {
    response.headers_mut().insert(STATE, HeaderValue::from_static(standing.as_str()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_is_a_name_and_no_path() {
        for good in ["خطة.md", "a[1]*? {b}"] {
            assert_eq!(one_name(good.to_owned()).ok().as_deref(), Some(good));
        }
        for bad in ["", ".", "..", "a/b", "/a", "a\\"] {
            assert!(one_name(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_whole_and_not_too_many() {
        assert_eq!(ids(&[7; 64]).expect("two"), [ContentId::new([7; 32]); 2]);
        assert!(ids(&[7; 33]).is_err() && ids(&vec![0; (WANTS_MAX + 1) * 32]).is_err());
        assert_eq!(ids(&[]).expect("none"), []);
    }
}
