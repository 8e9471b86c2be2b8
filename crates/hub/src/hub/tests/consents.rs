//! Questions to people over real connections: asked, waited for, and what comes of them in the stream that
//! asked, over both stores.

use std::collections::BTreeSet;

use cortex_core::consent::{Consent, Standing};
use cortex_core::id::ConsentId;
use cortex_core::message::{Envelope, Start, ToNode};
use cortex_core::run::{EndCause, Ended, RunSpec};
use cortex_core::sandbox::Level;
use cortex_core::stream::Positions;
use futures::future::join_all;
use serde_json::json;

use super::*;
use crate::mesh::Outgoing;

mod answers;

const BOTH: [StoreKind; 2] = [StoreKind::Memory, StoreKind::Sqlite];

/// A hub with a node that is connected, somebody who asks, and somebody who answers.
struct Scene {
    world: World,
    link: Arc<Link>,
    agent: String,
    ada: String,
}

impl Scene {
    async fn new(kind: StoreKind) -> Self {
        let world = World::new(kind).await;
        let node = world.node("n1").await;
        let link = world.attach(node).await;
        let agent = world.token("agent", Role::Operator, false, false).await;
        let ada = world.person("ada", &[("operator", "")]).await;
        Self { world, link, agent, ada }
    }

    async fn as_agent(&self, method: Method, path: &str, body: Value) -> Reply {
        self.world.with_token(&self.agent, method, path, Some(body).filter(|body| !body.is_null())).await
    }

    async fn as_ada(&self, method: Method, path: &str, body: Value) -> Reply {
        self.world.with_token(&self.ada, method, path, Some(body).filter(|body| !body.is_null())).await
    }

    /// Asks for `curl …`, which the policy does not allow. Returns the id of the question.
    async fn ask(&self, argv: &[&str]) -> String {
        let reply = self.as_agent(Method::POST, "/api/v1/runs", asking(argv)).await;
        let problem = reply.refused(403, "consent_required");
        problem["details"]["consent_id"].as_str().expect("an id").to_owned()
    }

    async fn answer(&self, id: &str, how: &str, body: Value) -> Reply {
        self.as_ada(Method::POST, &format!("/api/v1/consents/{id}/{how}"), body).await
    }

    async fn shown(&self, id: &str) -> Value {
        self.as_ada(Method::GET, &format!("/api/v1/consents/{id}"), Value::Null).await.ok(200)
    }

    async fn runs(&self) -> Vec<Value> {
        self.world.get("/api/v1/runs").await.ok(200)["items"].as_array().expect("items").clone()
    }

    async fn actions(&self) -> Vec<(String, String, String)> {
        let rows = self.world.get("/api/v1/audit?limit=1000&cursor=0").await.ok(200);
        let rows = rows["items"].as_array().expect("rows").clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = rows.iter().filter(|row| {
            let action = row["action"].as_str().unwrap_or_default();
            action.starts_with("consent.") || action == "run.start"
        });
        rows.map(|row| (text(&row["action"]), text(&row["actor"]), text(&row["outcome"]))).collect()
    }

    /// The next command that the node is given.
    async fn start(&self) -> Start {
        let next = async {
            loop {
                match std::future::poll_fn(|context| self.link.poll_out(context))
                    .await
                    .expect("the link is up")
                {
                    Outgoing::Message(Envelope { message: ToNode::Start(start), .. }) => return start,
                    Outgoing::Message(_) | Outgoing::Refused(_) => {}
                }
            }
        };
        tokio::time::timeout(SOON, next).await.expect("the node is told in time")
    }
}

fn asking(argv: &[&str]) -> Value {
    json!({"nodes": ["n1"], "argv": argv, "ask": "to see the weather"})
}

/// The lines of a stream as they come.
struct Heard {
    body: Incoming,
    rest: Vec<u8>,
}

impl Heard {
    async fn open(scene: &Scene, key: &str, body: Value) -> Self {
        let bearer = format!("Bearer {}", scene.agent);
        let headers = [
            ("authorization", bearer.as_str()),
            ("accept", "application/x-ndjson"),
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        let bytes = Bytes::from(body.to_string());
        let response = scene.world.open(Method::POST, "/api/v1/runs", &headers, bytes).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self { body: response.into_body(), rest: Vec::new() }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await.expect("a line in time");
            self.rest.extend_from_slice(&frame?.expect("a frame").into_data().expect("data"));
        }
    }

    async fn of(&mut self, kind: &str) -> Value {
        let line = self.next().await.expect("a line");
        assert_eq!(line["type"], kind, "{line}");
        line
    }
}

fn ended(run: RunId) -> ToHub {
    let output = Positions { stdout: 5, stderr: 0 };
    ToHub::Ended { run, ended: Ended { code: Some(3), output, ..Ended::new(EndCause::Exited) } }
}

#[tokio::test]
async fn what_a_person_allows_runs_in_the_stream_that_waited_for_it() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let mut lines = Heard::open(&scene, "key-1", asking(&["curl", "https://example.org"])).await;
        let asked = lines.of("asked").await;
        assert_eq!((&asked["node"], &asked["rule"]), (&json!("n1"), &json!("exec.allow")));
        let id = asked["consent_id"].as_str().expect("an id").to_owned();
        assert!(scene.runs().await.is_empty(), "nothing runs before the answer");

        let list = scene.as_ada(Method::GET, "/api/v1/consents?standing=pending", Value::Null).await.ok(200);
        assert_eq!((&list["items"][0]["id"], list["items"].as_array().map(Vec::len)), (&json!(id), Some(1)));
        let shown = scene.shown(&id).await;
        assert_eq!(
            (&shown["caller"], &shown["reason"], &shown["argv"], &shown["notes"]),
            (
                &json!("token:agent"),
                &json!("to see the weather"),
                &json!(["curl", "https://example.org"]),
                &json!(["names an address in a network"])
            )
        );
        let approved = scene.answer(&id, "approve", json!({})).await.ok(200);
        assert_eq!(
            (&approved["standing"], &approved["answered_by"]),
            (&json!("approved"), &json!("user:ada"))
        );

        let start = scene.start().await;
        assert_eq!(start.consent.map(|id| id.to_string()).as_ref(), Some(&id));
        assert_eq!(
            (start.run.to_string(), start.caller.as_str()),
            (asked["run_id"].as_str().expect("an id").to_owned(), "token:agent")
        );
        let mesh = &scene.world.hub.mesh;
        mesh.handle(&scene.link, ToHub::Started { run: start.run, level: Level::None });
        let data = Bytes::from_static(b"sunny");
        mesh.handle(
            &scene.link,
            ToHub::Output(Frame { run: start.run, stream: Stream::Stdout, position: 0, offset: 0, data }),
        );
        mesh.handle(&scene.link, ended(start.run));
        assert_eq!(lines.of("accepted").await["run_id"], asked["run_id"]);
        let (mut printed, mut code) = (String::new(), None);
        while let Some(line) = lines.next().await {
            printed.push_str(line["data"].as_str().unwrap_or_default());
            code = line["code"].as_i64().or(code);
        }
        assert_eq!((printed.as_str(), code), ("sunny", Some(3)));

        let run = scene.world.get(&format!("/api/v1/runs/{}", start.run)).await.ok(200);
        assert_eq!((&run["consent"], &run["caller"]), (&json!(id), &json!("token:agent")));
        let expected = [
            ("consent.ask", "token:agent", "allowed"),
            ("consent.approve", "user:ada", "allowed"),
            ("run.start", "token:agent", "allowed"),
        ];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(scene.actions().await, expected);
        // The same request once more is the same run.
        let mut again = Heard::open(&scene, "key-1", asking(&["curl", "https://example.org"])).await;
        assert_eq!(again.of("accepted").await["run_id"], asked["run_id"]);
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn the_note_of_a_denial_reaches_whoever_asked_and_whoever_asks_the_same_again() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let body = asking(&["curl", "x"]);
        let mut lines = Heard::open(&scene, "key-1", body.clone()).await;
        let id = lines.of("asked").await["consent_id"].as_str().expect("an id").to_owned();
        scene.answer(&id, "deny", json!({"note": " "})).await.refused(400, "invalid_argument");
        scene.answer(&id, "deny", json!({"note": "use the proxy"})).await.ok(200);
        let refused = lines.of("refused").await;
        assert_eq!(refused["error"]["code"], "consent_denied");
        assert_eq!(refused["error"]["message"], "user:ada says no: use the proxy");
        assert_eq!(lines.next().await, None);
        let mut again = Heard::open(&scene, "key-1", body.clone()).await;
        assert_eq!(
            again.of("refused").await["error"]["code"],
            "consent_denied",
            "the same key is the same question"
        );
        let own = scene.as_agent(Method::GET, &format!("/api/v1/consents/{id}"), Value::Null).await.ok(200);
        assert_eq!((&own["standing"], &own["note"]), (&json!("denied"), &json!("use the proxy")));
        assert!(scene.runs().await.is_empty());

        let other = scene.ask(&["curl", "y"]).await;
        let similar = scene.shown(&other).await["similar"].clone();
        assert_eq!(
            (&similar[0]["id"], &similar[0]["standing"]),
            (&json!(id), &json!("denied")),
            "its like is shown"
        );
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn the_same_command_is_one_question_and_a_token_has_a_bounded_number_of_them() {
    let scene = Scene::new(StoreKind::Sqlite).await;
    let first = scene.ask(&["curl", "0"]).await;
    assert_eq!(scene.ask(&["curl", "0"]).await, first);
    for n in 1..20 {
        assert_ne!(scene.ask(&["curl", &n.to_string()]).await, first);
    }
    scene.as_agent(Method::POST, "/api/v1/runs", asking(&["curl", "20"])).await.refused(429, "quota");
    assert_eq!(scene.ask(&["curl", "0"]).await, first, "one that waits is found all the same");
    let key = [("authorization", format!("Bearer {}", scene.agent)), ("idempotency-key", "k".to_owned())];
    let headers: Vec<(&str, &str)> = key.iter().map(|(name, value)| (*name, value.as_str())).collect();
    scene.answer(&first, "deny", json!({"note": "no"})).await.ok(200);
    let call = async |argv: &[&str]| {
        scene.world.call(Method::POST, "/api/v1/runs", &headers, Some(asking(argv))).await
    };
    call(&["curl", "a"]).await.refused(403, "consent_required");
    call(&["curl", "b"]).await.refused(409, "conflict");
    scene.world.stop().await;
}

#[tokio::test]
async fn a_person_lifts_what_is_not_allowed_and_nothing_that_is_denied() {
    let scene = Scene::new(StoreKind::Memory).await;
    let world = &scene.world;
    world.admin(Method::POST, "/api/v1/policies/n1/deny", json!({"program": "rm"})).await.ok(200);
    let run = async |body: Value| scene.as_agent(Method::POST, "/api/v1/runs", body).await;
    run(json!({"nodes": ["n1"], "argv": ["curl"]})).await.refused(403, "policy_denied");
    run(asking(&["rm", "x"])).await.refused(403, "policy_denied");
    run(asking(&["./curl"])).await.refused(403, "policy_denied");
    let env = json!({"nodes": ["n1"], "argv": ["curl"], "ask": "why", "env": {"LD_PRELOAD": "x"}});
    run(env).await.refused(403, "policy_denied");
    for empty in ["", "  "] {
        run(json!({"nodes": ["n1"], "argv": ["curl"], "ask": empty})).await.refused(400, "invalid_argument");
    }
    // What is allowed is asked as well, when the caller wants it so.
    let problem = run(asking(&["echo", "hi"])).await.refused(403, "consent_required");
    assert_eq!(problem["details"]["rule"], "asked");
    assert!(problem["details"]["expires_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{problem}");
    assert!(scene.runs().await.is_empty());
    scene.world.stop().await;
}

#[tokio::test]
async fn what_the_policy_lists_as_sensitive_is_asked_without_a_wish_and_denied_all_the_same_where_it_is_denied()
 {
    let scene = Scene::new(StoreKind::Memory).await;
    let put = async |document: Value| {
        let body = json!({"document": document});
        scene.world.admin(Method::PUT, "/api/v1/policies/n1", body).await.ok(200);
    };
    let sensitive = json!([{"program": "git", "words": ["push"]}, {"program": "*", "words": ["prod*"]}]);
    let programs = json!([{"name": "git"}, {"name": "make"}]);
    put(json!({"programs": programs, "sensitive": sensitive})).await;
    let run = async |argv: &[&str], ask: Option<&str>| {
        let body = json!({"nodes": ["n1"], "argv": argv, "ask": ask});
        scene.as_agent(Method::POST, "/api/v1/runs", body).await
    };
    run(&["git", "pull"], None).await.ok(202);
    let problem = run(&["git", "push"], None).await.refused(403, "consent_required");
    assert_eq!(problem["details"]["rule"], "sensitive git push", "{problem}");
    let id = problem["details"]["consent_id"].as_str().expect("an id").to_owned();
    assert_eq!(scene.shown(&id).await["reason"], "");
    let again = run(&["git", "push"], Some("to ship")).await.refused(403, "consent_required");
    assert_eq!(again["details"]["consent_id"], json!(id), "it is one question");
    let other = run(&["make", "production"], None).await.refused(403, "consent_required");
    assert_eq!(other["details"]["rule"], "sensitive * prod*");
    // No person is asked for what none may allow.
    run(&["git", "-c", "core.pager=x", "push"], Some("why")).await.refused(403, "policy_denied");
    run(&["sudo", "git", "push"], Some("why")).await.refused(403, "policy_denied");

    scene.answer(&id, "approve", json!({"words": 2})).await.ok(200);
    let started = run(&["git", "push", "-v"], None).await.ok(202);
    assert!(started["runs"][0]["consent"].is_string(), "the lasting answer: {started}");
    // A lasting answer covers no more than the policy leaves to people.
    put(json!({"programs": programs, "sensitive": sensitive, "deny": ["git"]})).await;
    run(&["git", "push", "-v"], Some("why")).await.refused(403, "policy_denied");
    scene.world.stop().await;
}

#[tokio::test]
async fn who_leaves_the_stream_leaves_the_question_and_its_run() {
    let scene = Scene::new(StoreKind::Memory).await;
    let mut lines = Heard::open(&scene, "key-1", asking(&["curl"])).await;
    let id = lines.of("asked").await["consent_id"].as_str().expect("an id").to_owned();
    drop(lines);
    assert_eq!(scene.shown(&id).await["standing"], "pending");
    scene.answer(&id, "approve", json!({})).await.ok(200);
    assert_eq!(scene.start().await.consent.map(|id| id.to_string()), Some(id));
    scene.world.stop().await;
}
