//! Who may call what: one row per route. A route without a row is refused to everybody, and
//! fails a test.

use cortex_core::token::Role;

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its method.
    pub method: &'static str,
    /// Its pattern, as the router has it.
    pub path: &'static str,
    /// What a caller needs; `None` is open to all.
    pub needs: Option<Role>,
}

const fn open(method: &'static str, path: &'static str) -> Route {
    Route { method, path, needs: None }
}

const fn viewer(method: &'static str, path: &'static str) -> Route {
    Route { method, path, needs: Some(Role::Viewer) }
}

const fn operator(method: &'static str, path: &'static str) -> Route {
    Route { method, path, needs: Some(Role::Operator) }
}

const fn admin(method: &'static str, path: &'static str) -> Route {
    Route { method, path, needs: Some(Role::Admin) }
}

/// All routes.
pub const ROUTES: &[Route] = &[
    open("GET", "/healthz"),
    open("GET", "/readyz"),
    open("GET", "/metrics"),
    open("GET", "/api/v1/openapi.json"),
    viewer("GET", "/api/v1/stats"),
    viewer("GET", "/api/v1/whoami"),
    viewer("GET", "/api/v1/nodes"),
    viewer("GET", "/api/v1/nodes/{node}"),
    admin("PATCH", "/api/v1/nodes/{node}"),
    admin("DELETE", "/api/v1/nodes/{node}"),
    viewer("GET", "/api/v1/invites"),
    admin("POST", "/api/v1/invites"),
    admin("DELETE", "/api/v1/invites/{id}"),
    viewer("GET", "/api/v1/locks"),
    admin("POST", "/api/v1/locks"),
    admin("DELETE", "/api/v1/locks/{id}"),
    viewer("GET", "/api/v1/tokens"),
    admin("POST", "/api/v1/tokens"),
    admin("DELETE", "/api/v1/tokens/{token}"),
    viewer("GET", "/api/v1/policies"),
    viewer("GET", "/api/v1/policies/{node}"),
    admin("PUT", "/api/v1/policies/{node}"),
    admin("POST", "/api/v1/policies/{node}/allow"),
    admin("POST", "/api/v1/policies/{node}/deny"),
    viewer("POST", "/api/v1/policies/{node}/test"),
    viewer("GET", "/api/v1/audit"),
    viewer("GET", "/api/v1/audit/export"),
    viewer("GET", "/api/v1/events"),
    viewer("GET", "/api/v1/runs"),
    operator("POST", "/api/v1/runs"),
    viewer("GET", "/api/v1/runs/{id}"),
    viewer("GET", "/api/v1/runs/{id}/output"),
    operator("POST", "/api/v1/runs/{id}/cancel"),
    operator("POST", "/api/v1/runs/{id}/rerun"),
    operator("POST", "/api/v1/runs/{id}/stdin"),
];

/// The row of a route. HEAD is GET without the body.
pub fn row(method: &str, path: &str) -> Option<&'static Route> {
    let method = if method == "HEAD" { "GET" } else { method };
    ROUTES.iter().find(|route| route.method == method && route.path == path)
}
