//! `/api/v1/policies`.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::files::op::{
    Content, Edit, Expect, FileOp, FindQuery, GrepQuery, Page as FilePage, ReadAs, ReadRange, Verb, WriteHow,
};
use cortex_core::files::path::FilePath;
use cortex_core::id::Revision;
use cortex_core::node::Node;
use cortex_core::policy::{Answer, Document, Policy, Rule};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Level, Network, Root};
use cortex_wire::error::Problem;
use cortex_wire::http::{
    FileTest, Page, PolicyCompare, PolicyDifference, PolicyGrant, PolicyRevision, PolicyRollback, PolicySet,
    PolicyTest, PolicyVerdict, PolicyView,
};
use http::header;
use http::request::Parts;

use crate::http::extract::{Args, JsonBody, PageArgs, if_match};
use crate::http::problem::{Failure, invalid};
use crate::http::{Api, view};
use crate::service::Caller;
use crate::service::policies::{Against, Change, Past, Terms, Verdict};

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
    async fn to(self, change: Change, kill: bool) -> Result<Response, Failure> {
        let terms = Terms { expected: self.revision, kill };
        let (node, policy) = self.api.policies.change(&self.caller, &self.node, change, terms).await?;
        Ok(answer(&node, &policy))
    }
}

/// Sets a node's policy to a profile or a document, or its network, or its least level.
#[utoipa::path(put, path = "/api/v1/policies/{node}", tag = "policies", params(("node" = String, Path)),
    request_body = PolicySet, responses((status = 200, body = PolicyView)))]
pub(super) async fn set(changing: Changing, JsonBody(set): JsonBody<PolicySet>) -> Result<Response, Failure> {
    let kill = set.kill;
    let change = match set {
        PolicySet { profile: Some(name), document: None, network: None, sandbox: None, .. } => {
            Change::Profile(name)
        }
        PolicySet { profile: None, document: Some(text), network: None, sandbox: None, .. } => {
            Change::Document(Box::new(Document::try_from(text)?))
        }
        PolicySet { profile: None, document: None, network: Some(text), sandbox: None, .. } => {
            Change::Network(Network::from(text))
        }
        PolicySet { profile: None, document: None, network: None, sandbox: Some(level), .. } => {
            let parsed = Level::parse(&level);
            Change::Sandbox(parsed.ok_or_else(|| invalid("`sandbox` must be partial, kernel or full."))?)
        }
        PolicySet { .. } => {
            return Err(invalid("Give exactly one of `profile`, `document`, `network` and `sandbox`."));
        }
    };
    changing.to(change, kill).await
}

/// Gives leave: to start a program, to use files, to connect to a port.
#[utoipa::path(post, path = "/api/v1/policies/{node}/allow", tag = "policies", params(("node" = String, Path)),
    request_body = PolicyGrant, responses((status = 200, body = PolicyView)))]
pub(super) async fn allow(
    changing: Changing,
    JsonBody(grant): JsonBody<PolicyGrant>,
) -> Result<Response, Failure> {
    if grant.kill {
        return Err(invalid("`kill` goes with `deny`: what is allowed ends no run."));
    }
    let PolicyGrant { program, for_ms, any_arguments, root, port, kill: _ } = grant;
    let of_program = for_ms.is_some() || any_arguments;
    let change = match (program, root, port) {
        (Some(program), None, None) => Change::Allow { program, for_ms, any_arguments },
        (None, Some(root), None) if !of_program => Change::AllowRoot(Root::from(root)),
        (None, None, Some(port)) if !of_program => Change::AllowPort(port),
        (_, _, _) => return Err(one_of()),
    };
    changing.to(change, false).await
}

/// Takes leave, whatever else is said.
#[utoipa::path(post, path = "/api/v1/policies/{node}/deny", tag = "policies", params(("node" = String, Path)),
    request_body = PolicyGrant, responses((status = 200, body = PolicyView)))]
pub(super) async fn deny(
    changing: Changing,
    JsonBody(grant): JsonBody<PolicyGrant>,
) -> Result<Response, Failure> {
    if grant.for_ms.is_some() || grant.any_arguments {
        return Err(invalid("`for_ms` and `any_arguments` go with `allow` only: a denial has no end."));
    }
    let PolicyGrant { program, root, port, kill, .. } = grant;
    let change = match (program, root, port) {
        (Some(program), None, None) => Change::Deny(program),
        (None, Some(root), None) => Change::DenyRoot(Root::from(root)),
        (None, None, Some(port)) => Change::DenyPort(port),
        (_, _, _) => return Err(one_of()),
    };
    changing.to(change, kill).await
}

fn one_of() -> Failure {
    invalid("Give exactly one of `program`, `root` and `port`; a time and `any_arguments` go with a program.")
}

/// Makes what an earlier revision said hold again, as a new revision.
#[utoipa::path(post, path = "/api/v1/policies/{node}/rollback", tag = "policies",
    params(("node" = String, Path)), request_body = PolicyRollback,
    responses((status = 200, body = PolicyView)))]
pub(super) async fn rollback(
    changing: Changing,
    JsonBody(back): JsonBody<PolicyRollback>,
) -> Result<Response, Failure> {
    changing.to(Change::Rollback(Revision(back.revision)), back.kill).await
}

/// What setting a node to a profile, a document or an earlier revision would change.
#[utoipa::path(post, path = "/api/v1/policies/{node}/diff", tag = "policies", params(("node" = String, Path)),
    request_body = PolicyCompare, responses((status = 200, body = PolicyDifference)))]
pub(super) async fn diff(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    JsonBody(compare): JsonBody<PolicyCompare>,
) -> Result<Json<PolicyDifference>, Failure> {
    let against = match compare {
        PolicyCompare { profile: Some(name), document: None, revision: None } => Against::Profile(name),
        PolicyCompare { profile: None, document: Some(text), revision: None } => {
            Against::Document(Box::new(Document::try_from(text)?))
        }
        PolicyCompare { profile: None, document: None, revision: Some(revision) } => {
            Against::Revision(Revision(revision))
        }
        PolicyCompare { .. } => {
            return Err(invalid("Give exactly one of `profile`, `document` and `revision`."));
        }
    };
    Ok(Json(PolicyDifference { lines: api.policies.diff(&caller, &node, against).await? }))
}

/// The revisions of a policy, newest first. The cursor is a revision.
#[utoipa::path(get, path = "/api/v1/policies/{node}/history", tag = "policies",
    params(("node" = String, Path), PageArgs), responses((status = 200, body = Page<PolicyRevision>)))]
pub(super) async fn history(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    Args(page): Args<PageArgs>,
) -> Result<Json<Page<PolicyRevision>>, Failure> {
    let limit = page.limit()?;
    let before = page.cursor.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| invalid("The cursor is not a revision."))?.map(Revision);
    let mut found = api.policies.history(&caller, &node, before, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|past| past.stored.revision.to_string());
    let items = found.into_iter().map(past).collect();
    Ok(Json(Page { items, next_cursor }))
}

/// What would be said to a command, or to an operation on files. Changes nothing.
#[utoipa::path(post, path = "/api/v1/policies/{node}/test", tag = "policies", params(("node" = String, Path)),
    request_body = PolicyTest, responses((status = 200, body = PolicyVerdict)))]
pub(super) async fn test(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    JsonBody(test): JsonBody<PolicyTest>,
) -> Result<Json<PolicyVerdict>, Failure> {
    let PolicyTest { argv, file, cwd, env, timeout_ms } = test;
    let Verdict { answer, level } = match file {
        None => {
            let spec = RunSpec { argv, cwd, env: env.into_iter().collect(), timeout_ms, stdin: false };
            api.policies.test(&caller, &node, &spec)?
        }
        Some(file) => {
            let of_command = !argv.is_empty() || cwd.is_some() || !env.is_empty() || timeout_ms.is_some();
            if of_command {
                return Err(invalid("`file` stands in place of a command: leave out what belongs to one."));
            }
            api.policies.test_file(&caller, &node, &operation(&file)?)?
        }
    };
    let (allowed, ask, rule, error) = match answer {
        Ok(Answer::Allowed { rule }) => (true, false, rule.to_string(), None),
        Ok(Answer::Ask { rule }) => {
            let refusal = Answer::Ask { rule: rule.clone() }.allowed(&node).err();
            (false, true, rule.to_string(), refusal)
        }
        Err(refusal) => (false, false, Rule::of(&refusal).unwrap_or_default().to_owned(), Some(refusal)),
    };
    let by = if rule.starts_with("local.") { "local" } else { "hub" }.to_owned();
    let error = error.map(|refusal| Problem::new(&refusal, ""));
    let level = level.map(|level| level.as_str().to_owned());
    std::future::ready(Ok(Json(PolicyVerdict { allowed, ask, rule, by, level, error }))).await
}

/// An operation of this kind on these paths. The policy looks at nothing else of one.
fn operation(test: &FileTest) -> Result<FileOp, Failure> {
    let FileTest { verb: named, path, to, recursive } = test;
    let verb = Verb::parse(named).ok_or_else(|| {
        let shown = cortex_core::name::printable(named, 80);
        let verbs = Verb::ALL.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(", ");
        invalid(format!("`verb` is `{shown}`; it must be one of {verbs}."))
    })?;
    let path = FilePath::parse(path)?;
    let to = to.as_deref().map(FilePath::parse).transpose()?;
    if to.is_some() != matches!(verb, Verb::Move | Verb::Copy) {
        return Err(invalid("`to` belongs to `mv` and `cp`, which need it, and to nothing else."));
    }
    if *recursive && !matches!(verb, Verb::Remove | Verb::Copy) {
        return Err(invalid("`recursive` belongs to `rm` and `cp`."));
    }
    let (recursive, replace, dry_run, expect) = (*recursive, false, false, Expect::Any);
    let page = FilePage { limit: 1, cursor: None };
    Ok(match (verb, to) {
        (Verb::List, _) => FileOp::List { path, depth: 1, hidden: false, glob: None, hash: false, page },
        (Verb::Stat, _) => FileOp::Stat { path, hash: false },
        (Verb::Read, _) => {
            let want = ReadAs::Inline { bytes_max: 1 };
            FileOp::Read { path, range: ReadRange::All, want, hash: false }
        }
        (Verb::Find, _) => FileOp::Find { path, query: FindQuery::default(), page },
        (Verb::Grep, _) => {
            let query = GrepQuery { pattern: "x".to_owned(), ..GrepQuery::default() };
            FileOp::Grep { path, query, page }
        }
        (Verb::Edit, _) => {
            let edits = vec![Edit { old: "x".into(), new: "y".into(), all: false }];
            FileOp::Edit { path, edits, expect, dry_run }
        }
        (Verb::MakeDir, _) => FileOp::MakeDir { path, parents: false, mode: None },
        (Verb::Remove, _) => FileOp::Remove { path, recursive, expect, dry_run },
        (Verb::Move, Some(to)) => FileOp::Move { from: path, to, replace, expect },
        (Verb::Copy, Some(to)) => FileOp::Copy { from: path, to, recursive, replace, expect },
        (Verb::Write | Verb::Move | Verb::Copy, _) => {
            let (content, how) = (Content::Inline(bytes::Bytes::new()), WriteHow::Put);
            FileOp::Write { path, content, how, expect, mkdirs: false, mode: None, dry_run }
        }
    })
}

fn past(past: Past) -> PolicyRevision {
    let Past { stored, policy, words } = past;
    PolicyRevision {
        revision: stored.revision.0,
        profile: policy.as_ref().map(|policy| policy.profile.clone()),
        mode: policy.as_ref().map(|policy| policy.document.mode.as_str().to_owned()),
        changed_by: stored.changed_by,
        changed_at: view::time(stored.changed_at),
        changes: words,
        hash: blake3::hash(&stored.document).to_hex().to_string(),
    }
}

fn answer(node: &Node, policy: &Policy) -> Response {
    let etag = format!("\"{}\"", policy.revision);
    ([(header::ETAG, etag)], Json(view::policy(node, policy))).into_response()
}
