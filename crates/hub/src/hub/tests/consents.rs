//! Questions to people over real connections: asked, waited for, answered, ended, by whom and by whom
//! not, over both stores.

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
async fn nobody_answers_its_own_question_and_what_one_does_not_see_is_not_there() {
    let scene = Scene::new(StoreKind::Memory).await;
    let world = &scene.world;
    let made = json!({"name": "client", "role": "operator", "kind": "client", "tools": ["exec", "run_get"]});
    let client = world.admin(Method::POST, "/api/v1/tokens", made).await.ok(201);
    let client = client["token"].as_str().expect("a token").to_owned();
    let viewer = world.token("viewer", Role::Viewer, false, false).await;
    let other = world.person("other", &[("operator", "role=db")]).await;
    let id = scene.ask(&["curl"]).await;
    let own = world.with_token(&client, Method::POST, "/api/v1/runs", Some(asking(&["curl"]))).await;
    let clients =
        own.refused(403, "consent_required")["details"]["consent_id"].as_str().expect("an id").to_owned();

    for (how, body) in
        [("approve", json!({})), ("approve", json!({"words": 1})), ("deny", json!({"note": "n"}))]
    {
        let path = format!("/api/v1/consents/{id}/{how}");
        let call = async |token: &str| world.with_token(token, Method::POST, &path, Some(body.clone())).await;
        call(&scene.agent).await.refused(403, "forbidden");
        call(&viewer).await.refused(403, "forbidden");
        call(&client).await.refused(403, "wrong_audience");
        call(&other).await.refused(404, "not_found");
        let path = format!("/api/v1/consents/{clients}/{how}");
        world
            .with_token(&client, Method::POST, &path, Some(body.clone()))
            .await
            .refused(403, "wrong_audience");
    }
    let get = async |token: &str, id: &str| {
        world.with_token(token, Method::GET, &format!("/api/v1/consents/{id}"), None).await
    };
    get(&client, &clients).await.ok(200);
    get(&client, &id).await.refused(404, "not_found");
    get(&other, &id).await.refused(404, "not_found");
    let list = world.with_token(&client, Method::GET, "/api/v1/consents", None).await.ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    let list = world.with_token(&other, Method::GET, "/api/v1/consents", None).await.ok(200);
    assert_eq!(list["items"], json!([]));

    // A person is the same with another token.
    let bob = world.person("bob", &[("operator", "")]).await;
    let asked = world.with_token(&bob, Method::POST, "/api/v1/runs", Some(asking(&["curl", "b"]))).await;
    let asked =
        asked.refused(403, "consent_required")["details"]["consent_id"].as_str().expect("an id").to_owned();
    let session = json!({"user": "bob", "password": "the password of bob"});
    let session = world.call(Method::POST, "/api/v1/login", &[], Some(session)).await.ok(201);
    let session = session["token"].as_str().expect("a session").to_owned();
    let path = format!("/api/v1/consents/{asked}/approve");
    world.with_token(&session, Method::POST, &path, Some(json!({}))).await.refused(403, "forbidden");
    let denied = scene
        .actions()
        .await
        .into_iter()
        .filter(|(action, _, outcome)| action == "consent.answer" && outcome == "denied");
    let actors: BTreeSet<String> = denied.map(|(_, actor, _)| actor).collect();
    assert!(actors.contains("token:agent") && actors.contains("user:bob"), "{actors:?}");
    assert!(scene.runs().await.is_empty());
    scene.world.stop().await;
}

#[tokio::test]
async fn an_answer_that_lasts_is_given_at_once_to_what_it_covers_until_it_ends() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let id = scene.ask(&["git", "push", "origin"]).await;
        scene.answer(&id, "approve", json!({"words": 4})).await.refused(400, "invalid_argument");
        scene.answer(&id, "approve", json!({"words": 2})).await.ok(200);
        let exact = scene.ask(&["curl", "x"]).await;
        scene.answer(&exact, "approve", json!({"for_ms": 60_000})).await.ok(200);
        let rules = scene.as_ada(Method::GET, "/api/v1/consent-rules", Value::Null).await.ok(200);
        let rules = rules["items"].as_array().expect("rules").clone();
        let words: Vec<_> =
            rules.iter().map(|rule| (rule["pattern"].clone(), rule["exact"].clone())).collect();
        assert_eq!(words, [(json!(["git", "push"]), json!(false)), (json!(["curl", "x"]), json!(true))]);

        let run = async |argv: &[&str]| scene.as_agent(Method::POST, "/api/v1/runs", asking(argv)).await;
        let started = run(&["git", "push", "--force"]).await.ok(202);
        assert_eq!(started["runs"][0]["consent"], rules[0]["id"]);
        run(&["curl", "x"]).await.ok(202);
        run(&["curl", "x", "y"]).await.refused(403, "consent_required");
        run(&["git", "pull"]).await.refused(403, "consent_required");
        // Without asking the policy alone decides.
        let plain = json!({"nodes": ["n1"], "argv": ["git", "push"]});
        scene.as_agent(Method::POST, "/api/v1/runs", plain).await.refused(403, "policy_denied");
        let rows = scene.world.get("/api/v1/audit?limit=1000&cursor=0").await.ok(200);
        let by = format!("by the lasting answer {} of user:ada", rules[0]["id"].as_str().expect("an id"));
        assert!(
            rows["items"].as_array().expect("rows").iter().any(|row| row["detail"] == json!(by)),
            "{rows}"
        );

        let path = format!("/api/v1/consent-rules/{}", rules[0]["id"].as_str().expect("an id"));
        scene.as_agent(Method::DELETE, &path, Value::Null).await.ok(200);
        scene.as_ada(Method::DELETE, &path, Value::Null).await.refused(404, "not_found");
        run(&["git", "push", "--force"]).await.refused(403, "consent_required");
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn an_approval_asks_anew_what_the_asker_and_the_policy_are() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let world = &scene.world;

        // The node is away: the question waits on.
        let waits = scene.ask(&["curl", "1"]).await;
        world.hub.mesh.detach(&scene.link);
        scene.answer(&waits, "approve", json!({})).await.refused(409, "node_offline");
        assert_eq!(scene.shown(&waits).await["standing"], "pending");
        let node = world.hub.context.directory.nodes()[0].id;
        let _link = world.attach(node).await;

        // The policy denies it meanwhile.
        let denied = scene.ask(&["wget"]).await;
        world.admin(Method::POST, "/api/v1/policies/n1/deny", json!({"program": "wget"})).await.ok(200);
        scene.answer(&denied, "approve", json!({})).await.refused(409, "conflict");
        let shown = scene.shown(&denied).await;
        assert_eq!((&shown["standing"], &shown["answered_by"]), (&json!("withdrawn"), &json!("hub")));
        assert!(shown["note"].as_str().is_some_and(|note| note.contains("exec.deny")), "{shown}");

        // A lock on the node leaves the question, one on whoever asked does not.
        let lock = async |target: &str| {
            let made = world
                .admin(Method::POST, "/api/v1/locks", json!({"target": target, "message": "look"}))
                .await;
            made.ok(201)["id"].as_str().expect("an id").to_owned()
        };
        let on_node = lock("node:n1").await;
        scene.answer(&waits, "approve", json!({})).await.refused(403, "locked");
        assert_eq!(scene.shown(&waits).await["standing"], "pending");
        world.admin(Method::DELETE, &format!("/api/v1/locks/{on_node}"), json!({})).await;
        let locked = scene.ask(&["curl", "3"]).await;
        let on_token = lock("token:agent").await;
        scene.answer(&locked, "approve", json!({})).await.refused(409, "conflict");
        assert_eq!(scene.shown(&locked).await["standing"], "withdrawn");
        world.admin(Method::DELETE, &format!("/api/v1/locks/{on_token}"), json!({})).await;

        // The token that asked was revoked.
        let orphan = scene.ask(&["curl", "2"]).await;
        world.admin(Method::DELETE, "/api/v1/tokens/agent", json!({})).await.ok(200);
        let problem = scene.answer(&orphan, "approve", json!({})).await.refused(409, "conflict");
        assert_eq!(problem["details"]["standing"], "withdrawn", "{problem}");
        assert_eq!(scene.shown(&orphan).await["note"], "The token was revoked.");
        scene.answer(&waits, "approve", json!({})).await.refused(409, "conflict");
        assert!(scene.runs().await.is_empty());
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn of_several_who_answer_at_once_one_wins_and_the_others_are_told() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let mut approved = 0;
        for round in 0..12 {
            let id = scene.ask(&["curl", &round.to_string()]).await;
            let yes = || scene.answer(&id, "approve", json!({}));
            let no = || scene.answer(&id, "deny", json!({"note": "no"}));
            let path = format!("/api/v1/consents/{id}");
            let (a, b, c, d) = if round % 2 == 0 {
                tokio::join!(yes(), no(), yes(), scene.as_agent(Method::DELETE, &path, Value::Null))
            } else {
                tokio::join!(no(), yes(), yes(), scene.as_agent(Method::DELETE, &path, Value::Null))
            };
            let replies = [a, b, c, d];
            let won = replies.iter().filter(|reply| reply.status == StatusCode::OK).count();
            assert_eq!(won, 1, "{replies:?}");
            replies
                .iter()
                .filter(|reply| reply.status != StatusCode::OK)
                .for_each(|reply| drop(reply.refused(409, "conflict")));
            approved += usize::from(scene.shown(&id).await["standing"] == "approved");
        }
        assert_eq!(scene.runs().await.len(), approved, "as many runs as approvals");
        for _ in 0..approved {
            scene.start().await;
        }
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn an_approval_and_the_revocation_of_the_token_that_asked_come_in_some_order() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let world = &scene.world;
        let mut started = 0;
        for round in 0..8 {
            let name = format!("agent-{round}");
            let agent = world.token(&name, Role::Operator, false, false).await;
            let asked =
                world.with_token(&agent, Method::POST, "/api/v1/runs", Some(asking(&["curl", &name]))).await;
            let id = asked.refused(403, "consent_required")["details"]["consent_id"]
                .as_str()
                .expect("an id")
                .to_owned();
            let path = format!("/api/v1/tokens/{name}");
            let (approval, revoked) = tokio::join!(
                scene.answer(&id, "approve", json!({})),
                world.admin(Method::DELETE, &path, json!({}))
            );
            revoked.ok(200);
            let standing = scene.shown(&id).await["standing"].clone();
            if approval.status == StatusCode::OK {
                assert_eq!(standing, "approved");
                started += 1;
            } else {
                approval.refused(409, "conflict");
                assert_eq!(standing, "withdrawn");
            }
        }
        assert_eq!(scene.runs().await.len(), started);
        scene.world.stop().await;
    }
}

/// A question that ends so many milliseconds from this moment.
async fn short(scene: &Scene, number: u8, ms: i64) -> ConsentId {
    let context = &scene.world.hub.context;
    let token = context.directory.token(&secret::hash(scene.agent.as_bytes())).expect("it is known");
    let now = context.clock.wall();
    let consent = Consent {
        id: clock::new_consent_id(&context.clock),
        run: clock::new_run_id(&context.clock),
        node: scene.link.node(),
        caller: "token:agent".to_owned(),
        token: token.id,
        user: None,
        spec: RunSpec { argv: vec!["curl".to_owned(), number.to_string()], ..RunSpec::default() },
        key: None,
        traceparent: None,
        reason: "soon".to_owned(),
        rule: "asked".to_owned(),
        notes: Vec::new(),
        standing: Standing::Pending,
        answered_by: None,
        note: None,
        created_at: now,
        expires_at: WallTime(now.0 + ms),
        answered_at: None,
    };
    let kept = consent.clone();
    scene.world.write(move |tx| Ok(tx.put_consent(&kept)?)).await;
    context.directory.put_consent(&consent);
    consent.id
}

#[tokio::test]
async fn a_question_ends_with_its_time_and_an_answer_at_that_moment_is_one_or_the_other() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let consents = Consents::new(
            scene.world.hub.context.clone(),
            scene.world.hub.mesh.clone(),
            Runs::new(
                scene.world.hub.context.clone(),
                scene.world.hub.mesh.clone(),
                RunLogs::open(&scene.world.dir.path().join(RUNS)).expect("logs"),
                scene.world.dir.path(),
            ),
        );
        let ids = join_all((0..10_u8).map(|number| short(&scene, number, 150 + i64::from(number) * 5))).await;
        let until = clock::Clock::default().wall().0 + 160;
        let mut approved = 0;
        for id in &ids {
            let wait = u64::try_from(until - scene.world.hub.context.clock.wall().0).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let reply = scene.answer(&id.to_string(), "approve", json!({})).await;
            let settled = tokio::time::timeout(SOON, consents.settled(*id))
                .await
                .expect("in time")
                .expect("it is kept");
            if reply.status == StatusCode::OK {
                assert_eq!(settled.standing, Standing::Approved);
                approved += 1;
            } else {
                reply.refused(409, "conflict");
                assert_eq!(settled.standing, Standing::Expired, "the worker ends it");
            }
        }
        assert_eq!(scene.runs().await.len(), approved);
        assert!(approved < ids.len(), "some were too late");
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn whoever_asked_takes_it_back_and_nobody_else_does() {
    let scene = Scene::new(StoreKind::Memory).await;
    let mut lines = Heard::open(&scene, "key-1", asking(&["curl"])).await;
    let id = lines.of("asked").await["consent_id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/consents/{id}");
    scene.as_ada(Method::DELETE, &path, Value::Null).await.refused(403, "forbidden");
    let back = scene.as_agent(Method::DELETE, &path, Value::Null).await.ok(200);
    assert_eq!(back["standing"], "withdrawn");
    assert_eq!(lines.of("refused").await["error"]["code"], "consent_denied");
    scene.as_agent(Method::DELETE, &path, Value::Null).await.refused(409, "conflict");
    scene.answer(&id, "approve", json!({})).await.refused(409, "conflict");
    scene.world.stop().await;
}

#[tokio::test]
async fn questions_and_lasting_answers_outlive_the_hub() {
    let scene = Scene::new(StoreKind::Sqlite).await;
    let lasting = scene.ask(&["git", "push"]).await;
    scene.answer(&lasting, "approve", json!({"words": 2})).await.ok(200);
    let waits = scene.ask(&["curl"]).await;
    let Scene { world, agent, ada, .. } = scene;
    let (dir, token_file) = (world.dir, world.hub.started().token_file.clone());
    world.hub.stop().await;

    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts again");
    let admin = std::fs::read_to_string(token_file).expect("the token file").trim().to_owned();
    let world = World { hub, admin, dir };
    let node = world.hub.context.directory.nodes()[0].id;
    let link = world.attach(node).await;
    let scene = Scene { world, link, agent, ada };
    let body = asking(&["git", "push", "-v"]);
    scene.as_agent(Method::POST, "/api/v1/runs", body).await.ok(202);
    assert_eq!(scene.ask(&["curl"]).await, waits);
    scene.answer(&waits, "approve", json!({})).await.ok(200);
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
