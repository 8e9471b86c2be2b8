//! `/api/v1/consents` and `/api/v1/consent-rules`: questions to people, and answers that last.

use axum::Json;
use axum::extract::{Path, State};
use cortex_core::consent::{Consent, Reply, Standing};
use cortex_core::id::ConsentId;
use cortex_core::name::printable;
use cortex_store::ConsentFilter;
use cortex_wire::http::{ConsentApprove, ConsentDeny, ConsentDetails, ConsentRuleView, ConsentView, Page};
use serde::Deserialize;

use crate::http::extract::{Args, JsonBody, page_limit, parse, path_id};
use crate::http::problem::{Failure, invalid};
use crate::http::runs::names;
use crate::http::{Api, view};
use crate::service::Caller;

/// Which questions to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListArgs {
    /// Only those that stand there: `pending`, `approved`, `denied`, `expired`, `withdrawn`.
    standing: Option<String>,
    /// At most so many; 100 when missing.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Questions, newest first. An AI client sees its own.
#[utoipa::path(get, path = "/api/v1/consents", tag = "consents", params(ListArgs),
    responses((status = 200, body = Page<ConsentView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<ListArgs>,
) -> Result<Json<Page<ConsentView>>, Failure> {
    let limit = page_limit(args.limit)?;
    let standing = args.standing.as_deref().map(|text| {
        Standing::parse(text).ok_or_else(|| {
            invalid(format!("`standing` is `{}`, which is none of a question.", printable(text, 80)))
        })
    });
    let before = args.cursor.as_deref().map(|text| parse::<ConsentId>("cursor", text)).transpose()?;
    let filter = ConsentFilter { standing: standing.transpose()?, token: None, before };
    let (consents, next) = api.consents.list(&caller, filter, limit).await?;
    let items = shown(&api, &consents).await?;
    Ok(Json(Page { items, next_cursor: next.map(|next| next.to_string()) }))
}

/// One question, with what a person should notice and what was answered to its like.
#[utoipa::path(get, path = "/api/v1/consents/{id}", tag = "consents", params(("id" = String, Path)),
    responses((status = 200, body = ConsentDetails)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ConsentDetails>, Failure> {
    let found = api.consents.show(&caller, path_id("question", &id)?).await?;
    let env = found.whole.then(|| found.consent.spec.env.iter().cloned().collect());
    let similar = shown(&api, &found.similar).await?;
    Ok(Json(ConsentDetails { consent: one(&api, &found.consent).await?, env, similar }))
}

/// Says yes: the run starts.
#[utoipa::path(post, path = "/api/v1/consents/{id}/approve", tag = "consents", params(("id" = String, Path)),
    request_body = ConsentApprove, responses((status = 200, body = ConsentView)))]
pub(super) async fn approve(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(answer): JsonBody<ConsentApprove>,
) -> Result<Json<ConsentView>, Failure> {
    let reply = match (answer.words, answer.for_ms) {
        (Some(words), for_ms) => Reply::Pattern { words, for_ms },
        (None, Some(for_ms)) => Reply::For(for_ms),
        (None, None) => Reply::Once,
    };
    let approved = api.consents.approve(&caller, path_id("question", &id)?, reply).await?;
    api.metrics.run_start(true);
    Ok(Json(one(&api, &approved).await?))
}

/// Says no, with a note for whoever asked.
#[utoipa::path(post, path = "/api/v1/consents/{id}/deny", tag = "consents", params(("id" = String, Path)),
    request_body = ConsentDeny, responses((status = 200, body = ConsentView)))]
pub(super) async fn deny(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(answer): JsonBody<ConsentDeny>,
) -> Result<Json<ConsentView>, Failure> {
    let denied = api.consents.deny(&caller, path_id("question", &id)?, answer.note).await?;
    Ok(Json(one(&api, &denied).await?))
}

/// Takes a question back. Only whoever asked may.
#[utoipa::path(delete, path = "/api/v1/consents/{id}", tag = "consents", params(("id" = String, Path)),
    responses((status = 200, body = ConsentView)))]
pub(super) async fn withdraw(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ConsentView>, Failure> {
    let withdrawn = api.consents.withdraw(&caller, path_id("question", &id)?).await?;
    Ok(Json(one(&api, &withdrawn).await?))
}

/// Answers that last, oldest first: all that hold, which are a thousand at most.
#[utoipa::path(get, path = "/api/v1/consent-rules", tag = "consents",
    responses((status = 200, body = Page<ConsentRuleView>)))]
pub(super) async fn rules(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<Page<ConsentRuleView>>, Failure> {
    let rules = api.consents.rules(&caller);
    let names = names(&api, rules.iter().map(|rule| rule.node)).await?;
    let directory = &api.context.directory;
    let items = rules.iter().map(|rule| view::consent_rule(rule, &names[&rule.node], directory)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Ends an answer that lasts.
#[utoipa::path(delete, path = "/api/v1/consent-rules/{id}", tag = "consents", params(("id" = String, Path)),
    responses((status = 200, body = ConsentRuleView)))]
pub(super) async fn forget(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ConsentRuleView>, Failure> {
    let rule = api.consents.forget(&caller, path_id("lasting answer", &id)?).await?;
    let names = names(&api, [rule.node]).await?;
    Ok(Json(view::consent_rule(&rule, &names[&rule.node], &api.context.directory)))
}

async fn one(api: &Api, consent: &Consent) -> Result<ConsentView, Failure> {
    let names = names(api, [consent.node]).await?;
    Ok(view::consent(consent, &names[&consent.node]))
}

async fn shown(api: &Api, consents: &[Consent]) -> Result<Vec<ConsentView>, Failure> {
    let names = names(api, consents.iter().map(|consent| consent.node)).await?;
    Ok(consents.iter().map(|consent| view::consent(consent, &names[&consent.node])).collect())
}
