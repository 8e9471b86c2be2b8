//! A whole hub in the test's process, called over real connections.

use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use cortex_core::id::{Attempt, NodeId, RunId, TaskId};
use cortex_core::limits::PROTOCOL;
use cortex_core::message::{Envelope, Frame, Hello, ToHub, ToNode};
use cortex_core::name::Name;
use cortex_core::node::{Facts, Node};
use cortex_core::pool::{Lost, desk};
use cortex_core::stream::Stream;
use cortex_core::time::WallTime;
use cortex_core::token::{Role, Token, TokenKind};
use cortex_store::{ReadFn, StoreExt as _, StoreStats, Tx, WriteError, WriteFn};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use self::through::Through;
use super::*;
use crate::clock;
use crate::mesh::{Link, Outgoing};
use crate::secret;
use crate::service::Caller;

mod audit;
mod consents;
mod door;
mod events;
mod files;
mod followers;
mod held;
mod life;
mod locks;
mod matrix;
mod people;
mod policies;
mod presence;
mod resources;
mod retention;
mod rights;
mod runs;
mod skills;
mod stale;
mod tasks;
mod through;
mod tokens;
mod transfers;
mod workspaces;

/// Nothing in these tests takes that long unless it hangs.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// A hub and the token of its administrator.
pub(super) struct World {
    pub(super) hub: Hub,
    pub(super) admin: String,
    dir: tempfile::TempDir,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The next of the messages on a link that is wanted; the others are passed over.
pub(super) async fn told<T>(link: &Link, wanted: impl Fn(ToNode) -> Option<T>) -> T {
    let next = async {
        loop {
            let out = std::future::poll_fn(|context| link.poll_out(context)).await;
            match out.expect("the link is up") {
                Outgoing::Message(Envelope { message, .. }) => {
                    if let Some(found) = wanted(message) {
                        return found;
                    }
                }
                Outgoing::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("the node is told in time")
}

pub(super) fn config(dir: &std::path::Path, store: StoreKind) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        data_dir: dir.to_owned(),
        http: any,
        grpc: any,
        public_url: Some("https://hub.lan:7440".to_owned()),
        store,
        allow_plain_http: false,
        tasks_per_owner: cortex_core::limits::TASKS_OPEN_PER_OWNER_MAX,
    }
}

impl World {
    pub(super) async fn new(kind: StoreKind) -> Self {
        Self::with(kind, |store| store).await
    }

    pub(super) async fn with(kind: StoreKind, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hub = Hub::start_with(config(dir.path(), kind), wrap).await.expect("the hub starts");
        let admin = std::fs::read_to_string(&hub.started().token_file).expect("the token file");
        Self { hub, admin: admin.trim().to_owned(), dir }
    }

    /// A node that joined in some other way.
    pub(super) async fn node(&self, name: &str) -> NodeId {
        self.labelled(name, "ci").await
    }

    /// The same with this value of the label `role`.
    pub(super) async fn labelled(&self, name: &str, role: &str) -> NodeId {
        let id = clock::new_node_id(&self.hub.context.clock);
        let node = Node {
            labels: [("role".to_owned(), role.to_owned())].into(),
            facts: Facts { os: "linux".to_owned(), ..Facts::default() },
            ..Node::joined(id, Name::parse(name).expect("a name"), [7; 32], WallTime(1_700_000_000_000))
        };
        let kept = node.clone();
        self.write(move |tx| tx.put_node(&kept)).await;
        self.hub.context.directory.put_node(node);
        id
    }

    /// A link of a node, as the node door brings it.
    pub(super) async fn attach(&self, node: NodeId) -> Arc<Link> {
        self.attach_with(node, |_| ()).await
    }

    /// The same, with more to say of itself.
    pub(super) async fn attach_with(&self, node: NodeId, change: impl FnOnce(&mut Hello)) -> Arc<Link> {
        let link = self.hub.mesh.open_link(node);
        let mut hello = Hello {
            protocol: PROTOCOL,
            instance: 1,
            dial: 0,
            generation: cortex_core::id::Generation(1),
            epoch: cortex_core::id::Epoch(0),
            facts: Facts::default(),
            ceiling: None,
            audit_head: None,
            runs: Vec::new(),
            files: Vec::new(),
        };
        change(&mut hello);
        self.hub.mesh.attach(&link, hello).await.expect("attached");
        link
    }

    /// The lease of this attempt of a task ends.
    pub(super) async fn lose(&self, (task, attempt): (TaskId, Attempt)) {
        let (board, now) = (self.hub.context.board.clone(), self.hub.context.clock.wall());
        self.write(move |tx| desk::lose(&mut board.over(tx), task, attempt, Lost::Expired, now).map(drop))
            .await;
    }

    /// The administrator, as the services know it.
    pub(super) fn caller(&self) -> Caller {
        let directory = &self.hub.context.directory;
        let token = directory.token(&secret::hash(self.admin.as_bytes())).expect("it is known");
        Caller::new(directory.who(token))
    }

    /// The use cases of policies, as the doors have them.
    pub(super) fn policies(&self) -> Policies {
        let authority = Arc::new(Authority::open(self.dir.path()).expect("the hub's authority"));
        Policies::new(self.hub.context.clone(), self.hub.mesh.clone(), authority)
    }

    /// The session of a new person with these roles, each with its selector.
    pub(super) async fn person(&self, name: &str, roles: &[(&str, &str)]) -> String {
        let password = format!("the password of {name}");
        let user = serde_json::json!({"name": name, "password": password});
        self.admin(Method::POST, "/api/v1/users", user).await.ok(201);
        for (role, selector) in roles {
            let grant = serde_json::json!({"user": name, "role": role, "selector": selector});
            self.admin(Method::POST, "/api/v1/grants", grant).await.ok(201);
        }
        let login = serde_json::json!({"user": name, "password": password});
        let begun = self.call(Method::POST, "/api/v1/login", &[], Some(login)).await.ok(201);
        begun["token"].as_str().expect("a token").to_owned()
    }

    /// Calls with this token.
    pub(super) async fn with_token(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        self.call(method, path, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    /// A token with these ends.
    pub(super) async fn token(&self, name: &str, role: Role, revoked: bool, expired: bool) -> String {
        let text = format!("cxt_{}", cortex_core::invite::to_hex(&clock::random::<32>()));
        let past = WallTime(1);
        let token = Token {
            id: clock::new_token_id(&self.hub.context.clock),
            name: Name::parse(name).expect("a name"),
            role,
            secret_hash: secret::hash(text.as_bytes()),
            created_at: past,
            expires_at: expired.then_some(past),
            revoked_at: revoked.then_some(past),
            kind: TokenKind::Api,
            user: None,
            rights: None,
            nodes: None,
            tools: None,
        };
        let kept = token.clone();
        self.write(move |tx| tx.put_token(&kept)).await;
        self.hub.context.directory.put_token(token);
        text
    }

    /// A run that has begun on this node and has this output.
    pub(super) async fn open_run(&self, node: &str, link: &Link, output: &'static [u8]) -> RunId {
        let path = format!("/api/v1/policies/{node}");
        self.admin(Method::PUT, &path, serde_json::json!({"profile": "permissive"})).await.ok(200);
        let request = serde_json::json!({"nodes": [node], "argv": ["sleep", "9"]});
        let started = self.admin(Method::POST, "/api/v1/runs", request).await.ok(202);
        let run: RunId = started["runs"][0]["id"].as_str().expect("an id").parse().expect("an id");
        self.hub.mesh.handle(link, ToHub::Started { run, level: cortex_core::sandbox::Level::None });
        let data = Bytes::from_static(output);
        let frame = Frame { run, stream: Stream::Stdout, position: 0, offset: 0, data };
        self.hub.mesh.handle(link, ToHub::Output(frame));
        run
    }

    pub(super) async fn write(
        &self,
        work: impl FnOnce(&mut dyn Tx) -> Result<(), cortex_store::WriteError> + Send + 'static,
    ) {
        self.hub.context.store.write(SOON, work).await.expect("the store writes");
    }

    /// Calls as the administrator.
    pub(super) async fn admin(&self, method: Method, path: &str, body: Value) -> Reply {
        let token = self.admin.clone();
        self.call(method, path, &[("authorization", &format!("Bearer {token}"))], Some(body)).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        let token = format!("Bearer {}", self.admin);
        self.call(Method::GET, path, &[("authorization", &token)], None).await
    }

    /// Calls with these headers beside Host and, with a body, its type.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Reply {
        let mut all = headers.to_vec();
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        let bytes = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(method, path, &all, Bytes::from(bytes)).await
    }

    pub(super) async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Reply {
        let response = self.open(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(SOON, body.collect()).await.expect("the body ends").expect("a body");
        Reply { status: parts.status, headers: parts.headers, body: body.to_bytes() }
    }

    /// The answer with its body still to be read.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> ::http::Response<Incoming> {
        let addr = self.hub.started().http;
        let stream = tokio::net::TcpStream::connect(addr).await.expect("the hub listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        let mut request = ::http::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", addr.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        tokio::time::timeout(SOON, sender.send_request(request)).await.expect("in time").expect("an answer")
    }

    pub(super) async fn stop(self) {
        tokio::time::timeout(SOON, self.hub.stop()).await.expect("the hub stops in time");
        drop(self.dir);
    }
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the form of an error and its code.
    pub(super) fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("/docs/errors/{code}"), "{problem}");
        assert_eq!(problem["request_id"], self.headers["x-request-id"].to_str().expect("text"), "{problem}");
        for member in ["title", "message", "hint"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        problem
    }

    pub(super) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert!(self.headers.contains_key("x-request-id"));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }
}
