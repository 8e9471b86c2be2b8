//! The HTTP door: API, health, metrics. Handlers translate between `cortex_wire::http` and
//! `service`; what may be done is decided there. One file per resource.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};
use futures::FutureExt as _;
use http::StatusCode;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::service::audit::Audit;
use crate::service::consents::Consents;
use crate::service::events::Events;
use crate::service::files::Files;
use crate::service::invites::Invites;
use crate::service::locks::Locks;
use crate::service::nodes::Nodes;
use crate::service::policies::Policies;
use crate::service::pool::Pool;
use crate::service::runs::Runs;
use crate::service::sessions::Sessions;
use crate::service::skills::Skills;
use crate::service::standing::{Place, Standing};
use crate::service::tokens::Tokens;
use crate::service::transfers::Transfers;
use crate::service::users::Users;
use crate::service::workspaces::Workspaces;
use crate::service::{Caller, Context};
use crate::transfer::chunks::Chunks;
use crate::workers::supervisor::Supervisor;

mod audit;
mod breaking;
mod consents;
mod events;
pub mod export;
mod extract;
mod file_view;
mod files;
mod guard;
mod health;
mod invites;
mod locks;
mod login;
mod nodes;
mod output;
mod pace;
mod policies;
mod pool;
mod problem;
mod profiles;
mod run_stream;
mod runs;
mod schedules;
mod server;
mod shut_out;
mod skills;
mod status;
mod task_view;
mod tasks;
mod text;
mod tokens;
mod transfer_view;
mod transfers;
mod users;
mod view;
mod workspaces;

pub use guard::Door;
pub use problem::Failure;
pub use server::{bind, serve};

/// What the handlers work with. One pointer, since every layer of a route holds a copy, and all of them are
/// copied for each request.
#[derive(Clone)]
pub struct Api(Arc<ApiParts>);

impl Deref for Api {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.0
    }
}

impl From<ApiParts> for Api {
    fn from(parts: ApiParts) -> Self {
        Self(Arc::new(parts))
    }
}

/// The parts of [`Api`].
pub struct ApiParts {
    /// The hub's parts.
    pub context: Context,
    /// Links.
    pub mesh: Mesh,
    /// Use cases of nodes.
    pub nodes: Nodes,
    /// Use cases of invites.
    pub invites: Invites,
    /// Use cases of locks.
    pub locks: Locks,
    /// Use cases of tokens.
    pub tokens: Tokens,
    /// Use cases of users.
    pub users: Users,
    /// Use cases of sessions.
    pub sessions: Sessions,
    /// Use cases of policies.
    pub policies: Policies,
    /// Use cases of the audit log.
    pub audit: Audit,
    /// Use cases of events.
    pub events: Events,
    /// Use cases of the work pool.
    pub pool: Pool,
    /// Use cases of runs.
    pub runs: Runs,
    /// Use cases of operations on files.
    pub files: Files,
    /// Use cases of transfers.
    pub transfers: Transfers,
    /// The chunk store.
    pub(crate) chunks: Chunks,
    /// Use cases of workspaces.
    pub workspaces: Workspaces,
    /// Use cases of the library of skills.
    pub skills: Skills,
    /// Use cases of questions to people.
    pub consents: Consents,
    /// Counters.
    pub metrics: Metrics,
    /// Workers, for their figures.
    pub workers: Supervisor,
    /// Under which names this hub may be called.
    pub door: Door,
    /// What is told of the hub itself.
    pub about: Arc<About>,
    /// Ends streams when the hub stops.
    pub shutdown: CancellationToken,
}

impl Api {
    /// The caller's right there, for an answer that stays open.
    fn standing(&self, caller: &Caller, right: Right, place: Place) -> Standing {
        Standing::new(&self.context, caller, right, place)
    }
}

/// What does not change while the hub lives.
#[derive(Clone, Debug)]
pub struct About {
    /// `sqlite` or `memory`.
    pub store: &'static str,
    /// Where nodes dial, as it is told to people.
    pub join_addr: String,
    /// Where the gRPC listener is bound.
    pub grpc: SocketAddr,
    /// When the hub started.
    pub began: Instant,
}

/// All that is served: the routes, behind what every request passes.
#[derive(Clone)]
pub struct App {
    api: Api,
    routes: Router,
}

impl App {
    /// Of a hub.
    pub fn new(api: Api) -> Self {
        Self { routes: routes(api.clone()), api }
    }

    /// Answers a request, also one whose handler panics.
    pub async fn answer(self, request: Request) -> Response {
        let answer = |request| caught(self.routes.oneshot(request));
        guard::observe(&self.api, request, answer).await
    }
}

/// The answer, or that of a handler that panicked.
async fn caught(answer: impl Future<Output = Result<Response, Infallible>>) -> Response {
    let Ok(response) = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(panicked);
    response
}

fn routes(api: Api) -> Router {
    let (router, document) = resources().split_for_parts();
    let document: Arc<str> = document.to_json().unwrap_or_default().into();
    router
        .route("/api/v1/openapi.json", axum::routing::get(move || health::openapi(Arc::clone(&document))))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_route)
        .layer(from_fn_with_state(api.clone(), guard::authorise))
        .with_state(api)
}

/// All routes that the document describes.
fn resources() -> OpenApiRouter<Api> {
    let info = utoipa::openapi::InfoBuilder::new()
        .title("Cortex Hub")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Nodes, runs, tasks, policies and events of one hub. Additions only."));
    let document = utoipa::openapi::OpenApiBuilder::new().info(info.build()).build();
    OpenApiRouter::with_openapi(document)
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(status::stats))
        .routes(routes!(status::whoami))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get, nodes::change, nodes::remove))
        .routes(routes!(nodes::recoveries, nodes::allow_recoveries))
        .routes(routes!(files::look, files::write, files::change, files::remove))
        .routes(routes!(files::search))
        .routes(routes!(transfers::list, transfers::begin))
        .routes(routes!(transfers::get, transfers::cancel))
        .routes(routes!(transfers::wants, transfers::ask))
        .routes(routes!(transfers::packs))
        .routes(routes!(transfers::missing))
        .routes(routes!(transfers::content))
        .routes(routes!(transfers::end))
        .routes(routes!(workspaces::list, workspaces::create))
        .routes(routes!(workspaces::get, workspaces::change, workspaces::remove))
        .routes(routes!(workspaces::members, workspaces::attach, workspaces::detach))
        .routes(routes!(workspaces::drift))
        .routes(routes!(workspaces::lock, workspaces::unlock))
        .routes(routes!(workspaces::resync))
        .routes(routes!(workspaces::history))
        .routes(routes!(workspaces::manifest))
        .routes(routes!(workspaces::restore))
        .routes(routes!(skills::list))
        .routes(routes!(skills::get, skills::remove))
        .routes(routes!(skills::files))
        .routes(routes!(skills::promote))
        .routes(routes!(skills::mounts, skills::mount, skills::unmount))
        .routes(routes!(invites::list, invites::create))
        .routes(routes!(invites::revoke))
        .routes(routes!(locks::list, locks::create))
        .routes(routes!(locks::remove))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(login::login))
        .routes(routes!(login::logout))
        .routes(routes!(login::password))
        .routes(routes!(users::list, users::add))
        .routes(routes!(users::get, users::change, users::remove))
        .routes(routes!(users::grants, users::grant))
        .routes(routes!(users::ungrant))
        .routes(routes!(policies::list))
        .routes(routes!(policies::get, policies::set))
        .routes(routes!(policies::allow))
        .routes(routes!(policies::deny))
        .routes(routes!(policies::test))
        .routes(routes!(policies::rollback))
        .routes(routes!(policies::diff))
        .routes(routes!(policies::history))
        .routes(routes!(profiles::list))
        .routes(routes!(profiles::get, profiles::put, profiles::remove))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::verify))
        .routes(routes!(events::follow))
        .routes(routes!(consents::list))
        .routes(routes!(consents::get, consents::withdraw))
        .routes(routes!(consents::approve))
        .routes(routes!(consents::deny))
        .routes(routes!(consents::rules))
        .routes(routes!(consents::forget))
        .routes(routes!(runs::list, runs::start))
        .routes(routes!(runs::get))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::rerun))
        .routes(routes!(runs::input))
        .routes(routes!(output::output))
        .routes(routes!(tasks::list, tasks::submit))
        .routes(routes!(tasks::get))
        .routes(routes!(tasks::explain))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(tasks::priority))
        .routes(routes!(pool::stats))
        .routes(routes!(pool::claim))
        .routes(routes!(pool::reports))
        .routes(routes!(pool::extend))
        .routes(routes!(pool::finish))
        .routes(routes!(pool::fail))
        .routes(routes!(pool::release))
        .routes(routes!(schedules::list, schedules::add))
        .routes(routes!(schedules::switch, schedules::remove))
        .routes(routes!(schedules::pauses, schedules::pause))
        .routes(routes!(schedules::resume))
}

async fn wrong_method(method: http::Method) -> problem::Failure {
    let refusal = Refusal::new(Code::InvalidArgument, format!("This path has no method {method}."))
        .hint("Use one of the methods that the Allow header names; `/api/v1/openapi.json` lists all routes.");
    std::future::ready(problem::Failure::with_status(refusal, StatusCode::METHOD_NOT_ALLOWED)).await
}

async fn unknown_route() -> problem::Failure {
    let refusal = Refusal::new(Code::NotFound, "There is no such path.")
        .hint("Use one of the paths that `/api/v1/openapi.json` lists.");
    std::future::ready(problem::Failure::from(refusal)).await
}

fn panicked(_panic: Box<dyn Any + Send>) -> Result<Response, Infallible> {
    tracing::error!("a handler panicked");
    let refusal = Refusal::new(Code::Internal, "The request met a defect of the hub.");
    Ok(problem::Failure::from(refusal).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_for() {
        let broken = async || -> &'static str { panic!("a defect") };
        let router: Router = Router::new().route("/", axum::routing::get(broken));
        let request = Request::new(axum::body::Body::empty());
        let response = caught(router.oneshot(request)).await;
        let failure = response.extensions().get::<problem::Failure>().expect("a failure");
        assert_eq!(failure.refusal.code, Code::Internal);
    }
}
