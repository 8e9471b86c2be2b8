//! Every door of the table with every kind of caller. What each is answered is worked out here from
//! the row alone, not by the code that answers.
//!
//! The calls of the node port have the same test in `tests/nodes/doors.rs`.

use std::io::Write as _;

use serde_json::json;

use super::*;
use crate::access::{self, Entry, Names, Needs};

/// A name or id of the length of the real one that nobody has.
const NOBODY: &str = "nobody";
const NO_ID: &str = "0190b2c4-0000-7000-8000-000000000000";

/// What only administrators may.
const ADMIN: &[&str] = &[
    "nodes:write",
    "policy:write",
    "invites:write",
    "tokens:write",
    "users:read",
    "users:write",
    "locks:write",
    "pool:admin",
];
/// What operators may as well, and viewers not.
const OPERATOR: &[&str] = &[
    "runs:start",
    "runs:control",
    "files:read",
    "files:write",
    "consents:answer",
    "workspaces:write",
    "skills:write",
    "tasks:submit",
    "tasks:control",
    "pool:work",
];
/// What is about the hub and not about a node.
const HUB: &[&str] = &[
    "invites:read",
    "invites:write",
    "tokens:read",
    "tokens:write",
    "users:read",
    "users:write",
    "locks:read",
    "locks:write",
    "workspaces:read",
    "workspaces:write",
    "skills:read",
    "skills:write",
    "pool:work",
    "pool:admin",
];

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    NoToken,
    Empty,
    Unknown,
    Expired,
    Revoked,
    RemovedUser,
    LoggedOut,
    Invite,
    Certificate,
    /// A token of an administrator, under a lock.
    LockedToken,
    /// A person, under a lock.
    LockedUser,
    /// An AI client with one tool, which is not that of the row.
    OtherTool,
    Viewer,
    /// A person who operates nodes of another label.
    OtherLabel,
    /// A token of an administrator, for another node.
    OtherNode,
    /// A person without any role.
    NoRole,
    /// The lowest role that reaches.
    Right,
}

/// What one is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Whatever comes behind the door.
    In,
    Unauthenticated,
    Locked,
    WrongAudience,
    Forbidden,
    /// The thing is not there, and exactly so.
    NotThere,
}

const COLUMNS: &[Column] = &[
    Column::NoToken,
    Column::Empty,
    Column::Unknown,
    Column::Expired,
    Column::Revoked,
    Column::RemovedUser,
    Column::LoggedOut,
    Column::Invite,
    Column::Certificate,
    Column::LockedToken,
    Column::LockedUser,
    Column::OtherTool,
    Column::Viewer,
    Column::OtherLabel,
    Column::OtherNode,
    Column::NoRole,
    Column::Right,
];

/// What the row says, in the words of this test.
fn expected(entry: &Entry, column: Column) -> Answer {
    let (right, everywhere) = match entry.needs {
        Needs::Nothing => return Answer::In,
        Needs::AnyToken => (None, false),
        // Each of these kinds of callers has all of the rights, the first one, or none.
        Needs::Right(right) | Needs::OneOf(right, _) => (Some(right.as_str()), false),
        Needs::Everywhere(right) => (Some(right.as_str()), true),
        Needs::Invite | Needs::NodeCertificate | Needs::RecoveryKey => panic!("{entry:?} is no route"),
    };
    match column {
        Column::NoToken
        | Column::Empty
        | Column::Unknown
        | Column::Expired
        | Column::Revoked
        | Column::RemovedUser
        | Column::LoggedOut => Answer::Unauthenticated,
        Column::Invite | Column::Certificate => Answer::WrongAudience,
        Column::LockedToken | Column::LockedUser => Answer::Locked,
        Column::Right => Answer::In,
        Column::OtherTool | Column::Viewer | Column::OtherLabel | Column::OtherNode | Column::NoRole
            if right.is_none() =>
        {
            Answer::In
        }
        Column::OtherTool => Answer::WrongAudience,
        Column::NoRole => Answer::Forbidden,
        Column::Viewer => narrowed(entry, right, everywhere, &[ADMIN, OPERATOR], false),
        Column::OtherLabel => narrowed(entry, right, everywhere, &[ADMIN], true),
        Column::OtherNode => narrowed(entry, right, everywhere, &[], true),
    }
}

/// The answer to one whose role lacks the rights of these lists, and that sees other nodes only when it is
/// `foreign`.
fn narrowed(
    entry: &Entry,
    right: Option<&str>,
    everywhere: bool,
    lacks: &[&[&str]],
    foreign: bool,
) -> Answer {
    let right = right.unwrap_or_default();
    let role_lacks = lacks.iter().any(|list| list.contains(&right));
    if role_lacks || (foreign && (everywhere || HUB.contains(&right))) {
        Answer::Forbidden
    } else if foreign && entry.names != Names::Nothing {
        Answer::NotThere
    } else {
        Answer::In
    }
}

/// The lowest role that has the right.
fn role(needs: Needs) -> Role {
    match needs {
        Needs::Right(right) | Needs::Everywhere(right) if ADMIN.contains(&right.as_str()) => Role::Admin,
        Needs::Right(right) | Needs::OneOf(right, _) | Needs::Everywhere(right)
            if OPERATOR.contains(&right.as_str()) =>
        {
            Role::Operator
        }
        Needs::Nothing
        | Needs::Invite
        | Needs::NodeCertificate
        | Needs::RecoveryKey
        | Needs::AnyToken
        | Needs::Right(_)
        | Needs::OneOf(..)
        | Needs::Everywhere(_) => Role::Viewer,
    }
}

/// Two nodes, of which one has a run, a question and an answer that lasts, and somebody of every kind.
struct Ground {
    world: World,
    run: String,
    consent: String,
    rule: String,
    /// A task of the administrator, which nobody can have.
    task: String,
    bearers: std::collections::BTreeMap<Column, String>,
    roles: [(Role, String); 3],
    /// AI clients with one tool each.
    clients: [String; 2],
}

impl Ground {
    async fn new() -> Self {
        let world = World::new(StoreKind::Memory).await;
        let mine = world.node("mine-1").await;
        let _theirs = world.labelled("others", "db").await;
        let link = world.attach(mine).await;
        let run = world.open_run("mine-1", &link, b"secret").await.to_string();
        let (consent, rule) = questions(&world).await;
        let waits = json!({"argv": ["true"], "selector": "role=nobody"});
        let task = world.admin(Method::POST, "/api/v1/pool/tasks", waits).await.ok(202)["id"].clone();
        let task = task.as_str().expect("an id").to_owned();
        let removed = world.person("removed", &[("viewer", "")]).await;
        world.admin(Method::DELETE, "/api/v1/users/removed", json!({})).await.ok(204);
        let left = world.person("left", &[("admin", "")]).await;
        world
            .call(Method::POST, "/api/v1/logout", &[("authorization", &format!("Bearer {left}"))], None)
            .await
            .ok(204);
        let made = async |body| {
            let made = world.admin(Method::POST, "/api/v1/tokens", body).await.ok(201);
            made["token"].as_str().expect("a token").to_owned()
        };
        let locked = made(json!({"name": "locked", "role": "admin"})).await;
        let locked_user = world.person("locked", &[("admin", "")]).await;
        for target in ["token:locked", "user:locked"] {
            world.admin(Method::POST, "/api/v1/locks", json!({ "target": target })).await.ok(201);
        }
        let client = async |name: &str, tool: &str| {
            made(json!({"name": name, "role": "operator", "kind": "client", "tools": [tool]})).await
        };
        let clients = [client("client-a", "fs_read").await, client("client-b", "task_get").await];
        let bearers = [
            (Column::Empty, String::new()),
            (Column::Unknown, format!("cxt_{}", "0".repeat(64))),
            (Column::Expired, world.token("expired", Role::Admin, false, true).await),
            (Column::Revoked, world.token("revoked", Role::Admin, true, false).await),
            (Column::RemovedUser, removed),
            (Column::LoggedOut, left),
            (Column::Invite, "CXI1.aa.bb.cc".to_owned()),
            (Column::Certificate, "MIIBszCCAVmgAwIBAgIU".to_owned()),
            (Column::LockedToken, locked),
            (Column::LockedUser, locked_user),
            (Column::Viewer, world.token("viewer", Role::Viewer, false, false).await),
            (Column::OtherLabel, world.person("other", &[("operator", "role=db")]).await),
            (Column::OtherNode, made(json!({"name": "narrow", "role": "admin", "nodes": ["others"]})).await),
            (Column::NoRole, world.person("nothing", &[]).await),
        ];
        let roles = [
            (Role::Viewer, world.token("v", Role::Viewer, false, false).await),
            (Role::Operator, world.person("o", &[("operator", "")]).await),
            (Role::Admin, world.admin.clone()),
        ];
        Self { run, consent, rule, task, bearers: bearers.into(), roles, clients, world }
    }

    fn bearer(&self, entry: &Entry, column: Column) -> Option<String> {
        match column {
            Column::NoToken => None,
            Column::Right => {
                let needed = role(entry.needs);
                self.roles.iter().find(|(role, _)| *role == needed).map(|(_, token)| token.clone())
            }
            Column::OtherTool => {
                let tool = entry.tool.map(cortex_core::token::Tool::as_str);
                Some(self.clients[usize::from(tool == Some("fs_read"))].clone())
            }
            Column::Empty
            | Column::Unknown
            | Column::Expired
            | Column::Revoked
            | Column::RemovedUser
            | Column::LoggedOut
            | Column::Invite
            | Column::Certificate
            | Column::LockedToken
            | Column::LockedUser
            | Column::Viewer
            | Column::OtherLabel
            | Column::OtherNode
            | Column::NoRole => Some(self.bearers[&column].clone()),
        }
    }

    /// What is asked for: things that are there, or of the same form and nobody's.
    fn path(&self, entry: &Entry, path: &str, there: bool) -> String {
        let node = if there { "mine-1" } else { NOBODY };
        let path = path
            .replace("{attempt}", "1")
            .replace("{node}", node)
            .replace("{token}", NOBODY)
            .replace("{user}", NOBODY);
        path.replace("{id}", if there { self.real(entry) } else { NO_ID })
    }

    /// The id that a path of this row names.
    fn real(&self, entry: &Entry) -> &str {
        match entry.names {
            Names::Run => &self.run,
            Names::Consent => &self.consent,
            Names::ConsentRule => &self.rule,
            Names::Task => &self.task,
            Names::Nothing | Names::Node => NO_ID,
        }
    }

    async fn ask(&self, method: &str, path: &str, bearer: Option<&str>) -> Reply {
        let value = bearer.map(|token| format!("Bearer {token}"));
        let mut headers: Vec<_> = value.iter().map(|value| ("authorization", value.as_str())).collect();
        let body = if method == "GET" { Bytes::new() } else { Bytes::from_static(body(path)) };
        if method != "GET" {
            let transfers = ["/packs", "/missing", "/wants", "/end"].iter().any(|end| path.ends_with(end));
            let raw = transfers || path.ends_with("/stdin") || (method == "PUT" && path.ends_with("/fs"));
            let kind = if raw { "application/octet-stream" } else { "application/json" };
            headers.push(("content-type", kind));
        }
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let (parts, body) = self.world.open(method, path, &headers, body).await.into_parts();
        // Some of these never end.
        let body = if parts.status.is_success() {
            Bytes::new()
        } else {
            body.collect().await.expect("a body").to_bytes()
        };
        Reply { status: parts.status, headers: parts.headers, body }
    }
}

/// A question that waits on `mine-1`, and an answer that lasts there.
async fn questions(world: &World) -> (String, String) {
    let asker = world.token("asker", Role::Operator, false, false).await;
    let ask = async |argv: &[&str]| {
        let body = json!({"nodes": ["mine-1"], "argv": argv, "ask": "why"});
        let asked = world.with_token(&asker, Method::POST, "/api/v1/runs", Some(body)).await;
        let problem = asked.refused(403, "consent_required");
        problem["details"]["consent_id"].as_str().expect("an id").to_owned()
    };
    let lasting = ask(&["true", "1"]).await;
    let path = format!("/api/v1/consents/{lasting}/approve");
    world.admin(Method::POST, &path, json!({"words": 2})).await.ok(200);
    let rules = world.get("/api/v1/consent-rules").await.ok(200);
    (ask(&["true", "2"]).await, rules["items"][0]["id"].as_str().expect("an id").to_owned())
}

/// A body that can be read, where a path names something: else a foreign thing is not asked for.
fn body(path: &str) -> &'static [u8] {
    match path.rsplit('/').next().unwrap_or_default() {
        "deny" if path.contains("/consents/") => br#"{"note":"no"}"#,
        "allow" | "deny" => br#"{"program":"harmless"}"#,
        "test" => br#"{"argv":["true"]}"#,
        "diff" => br#"{"profile":"dev"}"#,
        "recoveries" => br#"{"left":5}"#,
        "priority" => br#"{"priority":3}"#,
        // The first that is kept: what changed it was asked before.
        "rollback" => br#"{"revision":2}"#,
        _ if path.starts_with("/api/v1/policies/") => br#"{"profile":"permissive"}"#,
        _ => b"{}",
    }
}

/// An answer without what names the request and what was asked for.
fn shape(reply: &Reply, asked: &str) -> (u16, Option<String>, String) {
    let mut problem = reply.json();
    problem.as_object_mut().expect("an object").remove("request_id");
    let kind = reply.headers.get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    (reply.status.as_u16(), kind, problem.to_string().replace(asked, "(asked)"))
}

fn judge(entry: &Entry, column: Column, reply: &Reply) {
    let there = |code: &Value| {
        entry.names == Names::Nothing || !["node_not_found", "not_found"].iter().any(|not| code == not)
    };
    match expected(entry, column) {
        Answer::In => {
            let status = reply.status.as_u16();
            let code = if reply.status.is_success() { Value::Null } else { reply.json()["code"].clone() };
            let past = matches!(entry.needs, Needs::Nothing) || !matches!(status, 401 | 403);
            assert!(past && status != 405 && status < 500 && there(&code), "{entry:?} {column:?}: {reply:?}");
        }
        Answer::Unauthenticated => {
            reply.refused(401, "unauthenticated");
            assert!(reply.headers.contains_key("www-authenticate"), "{entry:?} {column:?}");
        }
        Answer::Locked => drop(reply.refused(403, "locked")),
        Answer::WrongAudience => drop(reply.refused(403, "wrong_audience")),
        Answer::Forbidden => drop(reply.refused(403, "forbidden")),
        Answer::NotThere => {
            let code = if entry.names == Names::Node { "node_not_found" } else { "not_found" };
            reply.refused(404, code);
        }
    }
}

/// What takes things away comes last, and whoever may do it comes last there; then sessions end.
fn rows() -> Vec<(&'static str, &'static str, &'static Entry)> {
    let mut rows: Vec<_> = access::routes().collect();
    let takes_away = |method: &str, path: &str| method == "DELETE" && !path.ends_with("/fs");
    rows.sort_by_key(|(method, path, _)| (path.ends_with("/logout"), takes_away(method, path)));
    rows
}

#[tokio::test]
async fn every_route_answers_every_kind_of_caller_as_its_row_says() {
    let ground = Ground::new().await;
    let (mut asked, mut foreign) = (0, 0);
    for (method, path, entry) in rows() {
        for column in COLUMNS {
            let bearer = ground.bearer(entry, *column);
            let there = ground.path(entry, path, true);
            let reply = ground.ask(method, &there, bearer.as_deref()).await;
            judge(entry, *column, &reply);
            asked += 1;
            if expected(entry, *column) == Answer::NotThere {
                let nowhere = ground.path(entry, path, false);
                let unknown = ground.ask(method, &nowhere, bearer.as_deref()).await;
                let (real, made_up) =
                    if entry.names == Names::Node { ("mine-1", NOBODY) } else { (ground.real(entry), NO_ID) };
                assert_eq!(shape(&reply, real), shape(&unknown, made_up), "{method} {path} {column:?}");
                foreign += 1;
            }
        }
    }
    assert!(asked >= 500 && foreign >= 20, "{asked} answers, {foreign} of them foreign");
    let line = format!(
        "matrix: {} routes x {} kinds of caller: {asked} answers; {foreign} foreign ids answered like unknown ones\n",
        access::routes().count(),
        COLUMNS.len(),
    );
    std::io::stdout().write_all(line.as_bytes()).expect("standard output");
    ground.world.stop().await;
}

#[test]
fn the_rights_of_this_test_are_those_of_the_roles() {
    use cortex_core::rights::Right;
    for right in Right::ALL {
        let text = right.as_str();
        let role = match (ADMIN.contains(&text), OPERATOR.contains(&text)) {
            (true, _) => Role::Admin,
            (false, true) => Role::Operator,
            (false, false) => Role::Viewer,
        };
        assert_eq!((right.role(), right.per_node()), (role, !HUB.contains(&text)), "{text}");
    }
}

#[test]
fn no_get_needs_a_right_that_changes_something() {
    for (_, path, entry) in access::routes().filter(|(method, ..)| *method == "GET") {
        let reads = match entry.needs {
            Needs::Right(right) | Needs::OneOf(right, _) | Needs::Everywhere(right) => {
                right.as_str().ends_with(":read")
            }
            Needs::Nothing | Needs::AnyToken => true,
            Needs::Invite | Needs::NodeCertificate | Needs::RecoveryKey => false,
        };
        assert!(reads, "{path}");
    }
}
