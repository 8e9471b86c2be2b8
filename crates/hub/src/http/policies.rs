//! `/api/v1/policies`.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::id::Revision;
use cortex_core::node::Node;
use cortex_core::policy::Policy;
use cortex_core::run::RunSpec;
use cortex_wire::error::Problem;
use cortex_wire::http::{Page, PolicyGrant, PolicySet, PolicyTest, PolicyVerdict, PolicyView};
use http::header;
use http::request::Parts;

use crate::http::extract::{Args, JsonBody, PageArgs, if_match};
use crate::http::problem::{Failure, invalid};
use crate::http::{Api, view};
use crate::service::Caller;
use crate::service::policies::Change;

/// Policies by the names of their nodes.
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies", params(PageArgs),
    responses((status = 200, body = Page<PolicyView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(page): Args<PageArgs>,
) -> Result<Json<Page<PolicyView>>, Failure> {
    let limit = page.limit()?;
    let mut found = api.policies.list(&caller, page.cursor.as_deref(), limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|(node, _)| node.name.to_string());
    let items = found.iter().map(|(node, policy)| view::policy(node, policy)).collect();
    std::future::ready(Ok(Json(Page { items, next_cursor }))).await
}

/// The policy of a node. Its ETag is the revision.
#[utoipa::path(get, path = "/api/v1/policies/{node}", tag = "policies", params(("node" = String, Path)),
    responses((status = 200, body = PolicyView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<Response, Failure> {
    let (node, policy) = api.policies.get(&caller, &node)?;
    std::future::ready(Ok(answer(&node, &policy))).await
}

/// Who changes the policy of which node, and at which revision.
pub(super) struct Changing {
    api: Api,
    caller: Caller,
    node: String,
    revision: Option<Revision>,
}

impl FromRequestParts<Api> for Changing {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Failure> {
        let caller = Caller::from_request_parts(parts, api).await?;
        let node = Path::<String>::from_request_parts(parts, api).await;
        let Path(node) = node.map_err(|_| invalid("The name of the node cannot be read."))?;
        Ok(Self { api: api.clone(), caller, node, revision: if_match(&parts.headers)? })
    }
}

impl Changing {
    async fn to(self, change: Change) -> Result<Response, Failure> {
        let (node, policy) =
            self.api.policies.change(&self.caller, &self.node, change, self.revision).await?;
        Ok(answer(&node, &policy))
    }
}

/// Sets a node's policy to a profile.
#[utoipa::path(put, path = "/api/v1/policies/{node}", tag = "policies", params(("node" = String, Path)),
    request_body = PolicySet, responses((status = 200, body = PolicyView)))]
pub(super) async fn set(changing: Changing, JsonBody(set): JsonBody<PolicySet>) -> Result<Response, Failure> {
    changing.to(Change::Profile(set.profile)).await
}

/// Gives leave to start a program.
#[utoipa::path(post, path = "/api/v1/policies/{node}/allow", tag = "policies", params(("node" = String, Path)),
    request_body = PolicyGrant, responses((status = 200, body = PolicyView)))]
pub(super) async fn allow(
    changing: Changing,
    JsonBody(grant): JsonBody<PolicyGrant>,
) -> Result<Response, Failure> {
    changing.to(Change::Allow(grant.program, grant.for_ms)).await
}

/// Takes leave to start a program, whatever else is said.
#[utoipa::path(post, path = "/api/v1/policies/{node}/deny", tag = "policies", params(("node" = String, Path)),
    request_body = PolicyGrant, responses((status = 200, body = PolicyView)))]
pub(super) async fn deny(
    changing: Changing,
    JsonBody(grant): JsonBody<PolicyGrant>,
) -> Result<Response, Failure> {
    if grant.for_ms.is_some() {
        return Err(invalid("`for_ms` goes with `allow` only: a denial has no end."));
    }
    changing.to(Change::Deny(grant.program)).await
}

/// What would be said to a command. Changes nothing.
#[utoipa::path(post, path = "/api/v1/policies/{node}/test", tag = "policies", params(("node" = String, Path)),
    request_body = PolicyTest, responses((status = 200, body = PolicyVerdict)))]
pub(super) async fn test(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    JsonBody(test): JsonBody<PolicyTest>,
) -> Result<Json<PolicyVerdict>, Failure> {
    let spec = RunSpec { argv: test.argv, ..RunSpec::default() };
    let verdict = match api.policies.test(&caller, &node, &spec)? {
        Ok(rule) => PolicyVerdict { allowed: true, rule: rule.to_owned(), error: None },
        Err(refusal) => {
            let rule = refusal.details.iter().find(|(name, _)| *name == "rule").map(|(_, rule)| rule.clone());
            let error = Some(Problem::new(&refusal, ""));
            PolicyVerdict { allowed: false, rule: rule.unwrap_or_default(), error }
        }
    };
    std::future::ready(Ok(Json(verdict))).await
}

fn answer(node: &Node, policy: &Policy) -> Response {
    let etag = format!("\"{}\"", policy.revision);
    ([(header::ETAG, etag)], Json(view::policy(node, policy))).into_response()
}
