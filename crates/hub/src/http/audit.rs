//! `/api/v1/audit`.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cortex_core::id::Seq;
use cortex_core::limits::PAGE_ITEMS_MAX;
use cortex_core::rights::Right;
use cortex_store::AuditFilter;
use cortex_wire::error::{ErrorBody, Problem};
use cortex_wire::http::{AuditVerdictView, AuditView, Page};
use futures::stream;
use http::header;
use serde::Deserialize;

use crate::http::breaking::broken_off_by;
use crate::http::extract::{Args, page_limit, parse};
use crate::http::guard::RequestId;
use crate::http::problem::Failure;
use crate::http::shut_out::until_shut_out;
use crate::http::{Api, view};
use crate::service::standing::Place;
use crate::service::{Caller, targets};

/// Which rows to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListArgs {
    /// Only of this node, by name or id.
    node: Option<String>,
    /// Only of this actor: `token:admin`.
    actor: Option<String>,
    /// The newest rows, which is the default without a cursor.
    newest: Option<bool>,
    /// At most so many; 100 when missing.
    limit: Option<usize>,
    /// `next_cursor` of the page before, or the number of a row; 0 begins at the first.
    cursor: Option<String>,
}

/// Rows of the audit log, oldest first; without a cursor the newest ones.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(ListArgs),
    responses((status = 200, body = Page<AuditView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<ListArgs>,
) -> Result<Json<Page<AuditView>>, Failure> {
    let limit = page_limit(args.limit)?;
    let filter = filter(&api, &caller, &args)?;
    // A full page may have a next one; following it to an empty one is harmless.
    let (rows, next) = api.audit.list(&caller, filter, limit).await?;
    let next_cursor = next.map(|next| next.to_string());
    Ok(Json(Page { items: rows.iter().map(view::audit).collect(), next_cursor }))
}

/// All rows as NDJSON, oldest first.
///
/// A hub that stops breaks the answer off: an export that lacks its last rows looks whole. So does a
/// caller that is locked meanwhile, after a line with the error object.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", params(ListArgs),
    responses((status = 200, body = AuditView, content_type = "application/x-ndjson")))]
pub(super) async fn export(
    State(api): State<Api>,
    caller: Caller,
    Extension(id): Extension<RequestId>,
    Args(args): Args<ListArgs>,
) -> Result<Response, Failure> {
    let first = AuditFilter { newest: false, ..filter(&api, &caller, &args)? };
    let (shutdown, open) = (api.shutdown.clone(), api.standing(&caller, Right::AuditRead, Place::Everywhere));
    let pages = stream::try_unfold(Some(first), move |filter| {
        let (api, caller) = (api.clone(), caller.clone());
        async move {
            let Some(filter) = filter else { return Ok::<_, std::io::Error>(None) };
            let page = api.audit.list(&caller, filter.clone(), PAGE_ITEMS_MAX).await;
            let (rows, next) = page.map_err(std::io::Error::other)?;
            let lines: String = rows
                .iter()
                .filter_map(|row| serde_json::to_string(&view::audit(row)).ok())
                .map(|line| line + "\n")
                .collect();
            let next = next.map(|after| AuditFilter { after, ..filter });
            Ok(Some((Bytes::from(lines), next)))
        }
    });
    let pages = until_shut_out(open, pages, move |refusal| {
        let body = ErrorBody { error: Problem::new(&refusal, id.0.as_str()) };
        let line = serde_json::to_string(&body).unwrap_or_default() + "\n";
        // The answer ends well, since one that breaks off takes along what was not sent yet: this line.
        vec![Ok(Bytes::from(line))]
    });
    let pages = broken_off_by(shutdown.cancelled_owned(), pages);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pages)).into_response())
}

/// Reads the whole log: its chain from the first row on, the anchor, and what nodes saw.
///
/// The answer is 200 also when it is broken; `ok` says so.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "audit",
    responses((status = 200, body = AuditVerdictView)))]
pub(super) async fn verify(State(api): State<Api>) -> Result<Json<AuditVerdictView>, Failure> {
    Ok(Json(view::verdict(&api.audit.verify().await?)))
}

fn filter(api: &Api, caller: &Caller, args: &ListArgs) -> Result<AuditFilter, Failure> {
    let node = args.node.as_deref().map(|text| targets::id_of(&api.context.directory, caller, text));
    let after = args.cursor.as_deref().map(|text| parse::<u64>("cursor", text)).transpose()?;
    Ok(AuditFilter {
        node: node.transpose()?,
        actor: args.actor.clone(),
        after: Seq(after.unwrap_or(0)),
        newest: args.newest.unwrap_or(after.is_none()),
    })
}
