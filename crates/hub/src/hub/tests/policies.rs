//! Policies over real connections: documents, history, profiles, who may open a node; and that a
//! test of a command is what the node's own machine decides.

use cortex_core::id::{ConsentId, Epoch, Generation, Revision};
use cortex_core::message::{Envelope, SignedPolicy, Start, ToNode, Welcome};
use cortex_core::node_runs::{Action, NodeRuns};
use cortex_core::policy::{Ceiling, Rule};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Ground, Level, Place};
use cortex_core::time::Timestamp;
use cortex_core::token::NodeScope;
use cortex_wire::policy as text;
use serde_json::json;

use super::*;
use crate::mesh::Outgoing;

#[tokio::test]
async fn a_document_is_set_whole_compared_kept_in_history_and_brought_back() {
    let world = World::new(StoreKind::Sqlite).await;
    world.node("n1").await;
    let document = json!({
        "programs": [{"name": "git", "args": {"rules": [{"effect": "ask", "match": {"exact": "push"}}]}}],
        "roots": [{"path": "/srv/app", "access": "write"}],
        "network": {"ports": [443]},
        "sandbox": "full",
    });
    let compare = json!({"document": document});
    let lines = world.admin(Method::POST, "/api/v1/policies/n1/diff", compare).await.ok(200);
    let lines = lines["lines"].to_string();
    for part in ["! sandbox kernel → full", "! network none → ports 443", "+ roots /srv/app:write", "- allow"]
    {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    let set = world.admin(Method::PUT, "/api/v1/policies/n1", json!({"document": document})).await.ok(200);
    assert_eq!((&set["revision"], &set["profile"]), (&json!(2), &json!("own")));
    assert_eq!(set["document"]["network"], json!({"ports": [443]}));
    let rolled =
        world.admin(Method::POST, "/api/v1/policies/n1/rollback", json!({"revision": 2})).await.ok(200);
    assert_eq!((&rolled["revision"], &rolled["document"]), (&json!(3), &set["document"]));
    world
        .admin(Method::POST, "/api/v1/policies/n1/rollback", json!({"revision": 9}))
        .await
        .refused(404, "not_found");
    let history = world.get("/api/v1/policies/n1/history?limit=1").await.ok(200);
    assert_eq!((&history["items"][0]["revision"], &history["next_cursor"]), (&json!(3), &json!("3")));
    let older = world.get("/api/v1/policies/n1/history?limit=1&cursor=3").await.ok(200);
    assert_eq!(older["items"][0]["revision"], 2);
    assert_eq!(older["next_cursor"], Value::Null, "the first STRICT of a node has no row");
    assert_ne!(older["items"][0]["hash"], history["items"][0]["hash"]);
    for (field, body) in [
        ("unknown", json!({"document": {"rootz": []}})),
        ("root", json!({"document": {"roots": [{"path": "/", "access": "read"}]}})),
        ("sandbox", json!({"sandbox": "none"})),
    ] {
        let reply = world.admin(Method::PUT, "/api/v1/policies/n1", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{field}: {reply:?}");
    }
    let both = json!({"profile": "dev", "sandbox": "full"});
    world.admin(Method::PUT, "/api/v1/policies/n1", both).await.refused(400, "invalid_argument");
    world.stop().await;
}

#[tokio::test]
async fn roots_ports_network_and_level_are_changed_one_by_one() {
    let world = World::new(StoreKind::Memory).await;
    world.node("n1").await;
    let root = json!({"root": {"path": "/srv/app", "access": "write"}});
    for (path, body, action) in [
        ("allow", root.clone(), "policy.allow"),
        ("allow", json!({"port": 443}), "policy.allow"),
        ("allow", json!({"program": "env", "any_arguments": true}), "policy.allow"),
        ("deny", json!({"port": 443}), "policy.deny"),
        ("deny", root, "policy.deny"),
    ] {
        world.admin(Method::POST, &format!("/api/v1/policies/n1/{path}"), body).await.ok(200);
        let rows = world.get("/api/v1/audit?node=n1&limit=1").await.ok(200);
        assert_eq!(rows["items"][0]["action"], action, "{rows}");
    }
    for body in [json!({}), json!({"program": "a", "port": 1}), json!({"port": 1, "for_ms": 5})] {
        let reply = world.admin(Method::POST, "/api/v1/policies/n1/allow", body).await;
        reply.refused(400, "invalid_argument");
    }
    let kill = json!({"program": "ls", "kill": true});
    world.admin(Method::POST, "/api/v1/policies/n1/allow", kill).await.refused(400, "invalid_argument");
    let lower = world.admin(Method::PUT, "/api/v1/policies/n1", json!({"sandbox": "partial"})).await.ok(200);
    assert_eq!(lower["document"]["sandbox"], "partial");
    let open = world.admin(Method::PUT, "/api/v1/policies/n1", json!({"network": "all"})).await.ok(200);
    assert_eq!(open["document"]["network"], "all");
    world.stop().await;
}

#[tokio::test]
async fn a_profile_is_kept_copied_and_removed_without_changing_a_node() {
    let world = World::new(StoreKind::Sqlite).await;
    world.node("n1").await;
    let document = json!({"programs": [{"name": "make"}]});
    world.admin(Method::PUT, "/api/v1/profiles/web", document).await.ok(200);
    world.admin(Method::PUT, "/api/v1/profiles/dev", json!({})).await.refused(409, "conflict");
    world.admin(Method::PUT, "/api/v1/profiles/x", json!({"x": 1})).await.refused(400, "invalid_argument");
    let names = world.get("/api/v1/profiles").await.ok(200);
    let names: Vec<&str> =
        names["items"].as_array().expect("items").iter().filter_map(|item| item["name"].as_str()).collect();
    assert_eq!(names, ["strict", "dev", "ci", "permissive", "web"]);
    let set = world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "web"})).await.ok(200);
    assert_eq!((&set["profile"], &set["allow"]), (&json!("web"), &json!([{"program": "make"}])));
    world.admin(Method::PUT, "/api/v1/profiles/web", json!({"programs": []})).await.ok(200);
    assert_eq!(world.get("/api/v1/policies/n1").await.ok(200)["allow"], json!([{"program": "make"}]));
    let gone = world.admin(Method::DELETE, "/api/v1/profiles/web", json!({})).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    world.get("/api/v1/profiles/web").await.refused(404, "not_found");
    world.admin(Method::DELETE, "/api/v1/profiles/ci", json!({})).await.refused(409, "conflict");
    world.stop().await;
}

#[tokio::test]
async fn a_token_with_limits_opens_no_node_and_the_act_has_its_own_audit_row() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let limited = world.token("limited", Role::Admin, false, false).await;
    let directory = &world.hub.context.directory;
    let token = directory.token(&secret::hash(limited.as_bytes())).expect("it is known");
    let nodes = Some(NodeScope::Nodes([node].into()));
    let token = Token { nodes, ..Token::clone(&token) };
    let kept = token.clone();
    world.write(move |tx| tx.put_token(&kept)).await;
    directory.put_token(token);
    let permissive = Some(json!({"profile": "permissive"}));
    let path = "/api/v1/policies/n1";
    world.with_token(&limited, Method::PUT, path, permissive.clone()).await.refused(403, "forbidden");
    world.with_token(&limited, Method::PUT, path, Some(json!({"profile": "dev"}))).await.ok(200);
    let document = Some(json!({"document": {"mode": "permissive", "sandbox": "none"}}));
    world.with_token(&limited, Method::PUT, path, document).await.refused(403, "forbidden");
    world.admin(Method::PUT, path, json!({"profile": "permissive"})).await.ok(200);
    let rows = world.get("/api/v1/audit?node=n1&limit=1").await.ok(200);
    assert_eq!(rows["items"][0]["action"], "policy.permissive");
    let rights = json!({"name": "policies", "role": "admin", "rights": ["policy:write", "invites:write"]});
    let made = world.admin(Method::POST, "/api/v1/tokens", rights).await.ok(201);
    let bound = made["token"].as_str().expect("a secret");
    world.node("n2").await;
    let other = "/api/v1/policies/n2";
    world.with_token(bound, Method::PUT, other, permissive.clone()).await.refused(403, "forbidden");
    world.with_token(bound, Method::PUT, other, Some(json!({"profile": "dev"}))).await.ok(200);
    world.with_token(bound, Method::POST, "/api/v1/invites", permissive).await.refused(403, "forbidden");
    world.with_token(bound, Method::POST, "/api/v1/invites", Some(json!({"profile": "dev"}))).await.ok(201);
    let back = Some(json!({"revision": 3}));
    let rollback = format!("{path}/rollback");
    world.with_token(&limited, Method::POST, &rollback, back).await.refused(403, "forbidden");
    world.stop().await;
}

#[tokio::test]
async fn a_tightening_ends_live_runs_that_it_refuses_when_that_is_asked() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let link = world.attach(node).await;
    let run = world.open_run("n1", &link, b"x").await;
    let cancelled = async || {
        let view = world.get(&format!("/api/v1/runs/{run}")).await.ok(200);
        view["cancelled_by"].as_str().map(str::to_owned)
    };
    world.admin(Method::POST, "/api/v1/policies/n1/deny", json!({"program": "sleep"})).await.ok(200);
    assert_eq!(cancelled().await, None, "a run keeps the policy that it began with");
    let kill = json!({"program": "sleep", "kill": true});
    world.admin(Method::POST, "/api/v1/policies/n1/deny", kill).await.ok(200);
    let told = async {
        loop {
            let next = std::future::poll_fn(|context| link.poll_out(context)).await;
            let Some(Outgoing::Message(envelope)) = next else { panic!("the link ended: {next:?}") };
            if let ToNode::Cancel { run: ended, grace_ms } = envelope.message {
                return (ended, grace_ms);
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, told).await.expect("the node is asked"), (run, 0));
    let by = async {
        loop {
            if let Some(by) = cancelled().await {
                return by;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(tokio::time::timeout(SOON, by).await.expect("it is kept"), "policy:4");
    world.stop().await;
}

/// A command, in every way that a policy or a ceiling may object to it.
fn commands() -> Vec<RunSpec> {
    let argv = |list: &[&str]| RunSpec {
        argv: list.iter().map(|arg| (*arg).to_owned()).collect(),
        ..RunSpec::default()
    };
    let with_env = |name: &str| RunSpec { env: vec![(name.to_owned(), "x".to_owned())], ..argv(&["echo"]) };
    let at = |cwd: &str| RunSpec { cwd: Some(cwd.to_owned()), ..argv(&["echo"]) };
    vec![
        argv(&["echo", "a"]),
        argv(&["ls"]),
        argv(&["./ls"]),
        argv(&["sudo", "id"]),
        argv(&["git", "-c", "a=b", "log"]),
        argv(&["git", "push"]),
        argv(&["cargo", "install", "x"]),
        argv(&["python3", "-c", "1"]),
        with_env("TERM"),
        with_env("PATH"),
        with_env("LD_PRELOAD"),
        at("/w/a"),
        at("/etc"),
        at("/home/u/.rustup"),
        RunSpec { timeout_ms: Some(5_000), ..argv(&["echo"]) },
        argv(&[""]),
    ]
}

const CEILINGS: &[Option<&str>] = &[
    None,
    Some("{}"),
    Some("unreadable"),
    Some(r#"{"mode":"strict"}"#),
    Some(r#"{"deny":["git"]}"#),
    Some(r#"{"programs":[{"name":"echo"},{"name":"git"},{"name":"cargo"}],"env":["TERM"]}"#),
    Some(r#"{"roots":[{"path":"/w/a","access":"read"}],"network":"none"}"#),
    Some(r#"{"sandbox":"full","timeout_ms_max":1000}"#),
    Some(r#"[{"deny":["ls"]},{"sensitive":[{"program":"git","words":["push"]}]}]"#),
];

/// What the node's machine makes of a command: the rule that refuses or asks; `None` when it starts.
fn on_the_node(
    ground: &Ground,
    ceiling: Option<&str>,
    signed: &SignedPolicy,
    spec: &RunSpec,
) -> Option<String> {
    let mut runs = NodeRuns::restore(Generation(1), Epoch(0), []);
    runs.stand_on(ground.clone());
    runs.stand_under(match ceiling.map(|ceiling| text::read_ceilings(ceiling.as_bytes())) {
        None => Vec::new(),
        Some(Ok(all)) => all.into_iter().map(|bounds| Ceiling::Bounds(Box::new(bounds))).collect(),
        Some(Err(_)) => vec![Ceiling::Unreadable],
    });
    // As the node reads it: out of the bytes.
    let (policy, _) = text::read(&signed.document).expect("a policy");
    let policy = SignedPolicy { policy: Some(Box::new(policy)), ..signed.clone() };
    let welcome = Welcome { generation: Generation(1), name: "n1".to_owned(), policy, audit_head: None };
    let run = RunId::mint(1, &[1; 10]);
    let start = Start {
        run,
        spec: spec.clone(),
        caller: String::new(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None::<ConsentId>,
        task: None,
    };
    for message in [ToNode::Welcome(welcome), ToNode::Start(start)] {
        runs.handle(Envelope { epoch: Epoch(1), message }, Timestamp(0));
    }
    runs.journaled(run);
    while let Some(action) = runs.poll_action() {
        if matches!(action, Action::Spawn { .. }) {
            return None;
        }
    }
    let Some(ToHub::Ended { ended, .. }) = runs.poll_end() else { panic!("neither started nor ended") };
    Some(ended.diagnostic.expect("a reason"))
}

/// `cortex policy test` and reality agree, and name one rule: over profiles, ceilings, levels and
/// commands, with all that lies between them (bytes, Hello, the hub's record).
#[tokio::test]
async fn a_test_of_a_command_is_what_its_node_decides() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let (policies, caller) = (world.policies(), world.caller());
    let place = Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] };
    let mut counted = 0;
    for profile in ["strict", "ci", "dev", "permissive"] {
        world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": profile})).await.ok(200);
        for ceiling in CEILINGS {
            for level in Level::ALL {
                let facts =
                    Facts { sandbox: level.as_str().to_owned(), place: place.clone(), ..Facts::default() };
                let ceiling = ceiling.map(str::to_owned);
                let told = ceiling.clone();
                let link = world
                    .attach_with(node, move |hello| {
                        (hello.facts, hello.ceiling) = (facts, told);
                        hello.instance = 7;
                    })
                    .await;
                let ground = Ground { place: place.clone(), level: Some(*level) };
                let signed = world.hub.context.directory.signed_policy(node);
                for spec in commands() {
                    let node_says = on_the_node(&ground, ceiling.as_deref(), &signed, &spec);
                    let hub_says = match policies.test(&caller, "n1", &spec) {
                        Ok(verdict) => verdict.answer.and_then(|answer| answer.allowed("n1")),
                        Err(refusal) => Err(refusal),
                    };
                    let (where_, argv) = ((profile, &ceiling, level), &spec.argv);
                    match (hub_says, node_says) {
                        (Ok(_), None) => {}
                        (Err(refusal), Some(why)) => {
                            assert!(
                                why.ends_with(&refusal.message),
                                "{where_:?} {argv:?}: {why} / {refusal}"
                            );
                            if let Some(rule) = Rule::of(&refusal) {
                                assert!(
                                    why.contains(&format!("(rule {rule})")),
                                    "{where_:?} {argv:?}: {why}"
                                );
                            }
                        }
                        (hub, node) => panic!("{where_:?} {argv:?}: hub {hub:?}, node {node:?}"),
                    }
                    counted += 1;
                }
                world.hub.mesh.detach(&link);
            }
        }
    }
    assert_eq!(counted, 4 * CEILINGS.len() * Level::ALL.len() * commands().len());
    world.stop().await;
}

#[tokio::test]
async fn policies_are_settled_at_the_start_and_a_damaged_one_allows_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let start = || Hub::start(config(dir.path(), StoreKind::Sqlite));
    let hub = start().await.expect("the hub starts");
    let admin = std::fs::read_to_string(&hub.started().token_file).expect("the token file");
    let folder = tempfile::tempdir().expect("another one");
    let world = World { hub, admin: admin.trim().to_owned(), dir: folder };
    let (good, bad, new) = (world.node("good").await, world.node("bad").await, world.node("new").await);
    for node in ["good", "bad"] {
        world
            .admin(Method::PUT, &format!("/api/v1/policies/{node}"), json!({"profile": "dev"}))
            .await
            .ok(200);
    }
    world
        .write(move |tx| {
            let mut stored = tx.policy(bad)?.expect("it has one");
            stored.revision = stored.revision.next();
            tx.put_policy(&stored)
        })
        .await;
    world.stop().await;
    let hub = start().await.expect("the hub starts");
    let held = |node| hub.context.directory.policy(node, WallTime(0));
    assert_eq!(held(good).profile, "dev");
    let damaged = held(bad);
    assert_eq!((damaged.profile.as_str(), damaged.document.programs.len()), ("unreadable", 0));
    assert_eq!((held(new).profile.as_str(), held(new).revision), ("strict", Revision(1)));
    assert!(!hub.context.directory.signed_policy(new).signature.is_empty());
    hub.stop().await;
}
