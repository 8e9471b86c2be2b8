//! Callers that were good when they asked: what waited in between, and what stays open, ends with
//! their token, their user, their role, their sight of a node.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::name::Selector;
use cortex_core::policy::Document;
use cortex_core::run::{EndCause, Ended};
use cortex_core::sandbox::Level;
use cortex_core::stream::Positions;
use serde_json::json;

use super::*;
use crate::service::invites::{Invites, NewInvite};
use crate::service::locks::Locks;
use crate::service::nodes::{NodeChange, Nodes};
use crate::service::policies::{Change, Terms};
use crate::service::tokens::{NewToken, Tokens};
use crate::service::users::passwords::Passwords;
use crate::service::users::{Grantee, UserChange, Users};

impl World {
    /// The caller behind this secret, as it is at this moment.
    fn caller_of(&self, secret: &str) -> Caller {
        let directory = &self.hub.context.directory;
        let token = directory.token(&secret::hash(secret.as_bytes())).expect("it is known");
        Caller::new(directory.who(token))
    }

    /// Takes back the roles of this person that hold on `selector`.
    async fn take_back(&self, user: &str, selector: &str) {
        let grants = self.get("/api/v1/grants").await.ok(200);
        let (user, mut taken) = (format!("user:{user}"), 0);
        for grant in grants["items"].as_array().expect("grants") {
            if grant["subject"] == user.as_str() && grant["selector"] == selector {
                let path = format!("/api/v1/grants/{}", grant["id"].as_str().expect("an id"));
                self.admin(Method::DELETE, &path, json!({})).await.ok(204);
                taken += 1;
            }
        }
        assert_ne!(taken, 0, "{grants}");
    }

    async fn lines(&self, token: &str, body: Value) -> Lines {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("accept", "application/x-ndjson"),
            ("content-type", "application/json"),
        ];
        let answer = self.open(Method::POST, "/api/v1/runs", &headers, Bytes::from(body.to_string())).await;
        assert_eq!(answer.status(), StatusCode::OK);
        Lines { body: answer.into_body(), rest: Vec::new() }
    }
}

/// The lines of a stream as they come.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line of this kind.
    async fn of(&mut self, kind: &str) -> Value {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                let line: Value = serde_json::from_slice(&line).expect("a line is JSON");
                if line["type"] == kind {
                    return line;
                }
                continue;
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await.expect("a line in time");
            let frame = frame.unwrap_or_else(|| panic!("no line of the kind {kind}"));
            self.rest.extend_from_slice(&frame.expect("a frame").into_data().expect("data"));
        }
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// What this caller still can change: the names of what was not refused.
async fn changes_of(world: &World, caller: &Caller, number: usize) -> Vec<&'static str> {
    let (context, mesh) = (world.hub.context.clone(), world.hub.mesh.clone());
    let authority = Arc::new(Authority::open(world.dir.path()).expect("the hub's authority"));
    let users = Users::new(context.clone(), Passwords::default());
    let (tokens, nodes) = (Tokens::new(context.clone()), Nodes::new(context.clone(), mesh.clone()));
    let (locks, invites) = (Locks::new(context.clone(), mesh), Invites::new(context, authority));
    let policies = world.policies();
    let own = |what: &str| name(&format!("{what}-{number}"));
    let new = NewToken {
        name: own("token"),
        role: Role::Viewer,
        kind: TokenKind::Api,
        rights: None,
        nodes: Vec::new(),
        selector: None,
        tools: None,
        ttl_ms: None,
    };
    let label = NodeChange { name: None, labels: BTreeMap::from([(own("l").to_string(), None)]) };
    let rename = NodeChange { name: Some(own("n1")), labels: BTreeMap::new() };
    let nobody = Grantee::Group(own("group"));
    let (dev, terms) = (Change::Profile("dev".to_owned()), Terms::default());
    let strict = Document::profile("strict").expect("built in");
    let to_remove = format!("spare-{number}");
    let done = [
        ("user.add", users.add(caller, own("user"), None, BTreeSet::new()).await.map(drop)),
        ("user.change", users.change(caller, "bob", UserChange::default()).await.map(drop)),
        ("user.remove", users.remove(caller, &to_remove).await.map(drop)),
        ("user.grant", users.grant(caller, nobody, Role::Viewer, Selector::default()).await.map(drop)),
        ("token.create", tokens.create(caller, new).await.map(drop)),
        ("token.revoke", tokens.revoke(caller, &to_remove).await.map(drop)),
        ("node.label", nodes.change(caller, "n1", label).await.map(drop)),
        ("invite.create", invites.create(caller, NewInvite::default()).await.map(drop)),
        ("lock.create", locks.put(caller, "user:bob", String::new(), Some(1_000)).await.map(drop)),
        ("policy.set", policies.change(caller, "n1", dev, terms).await.map(drop)),
        ("profile.put", policies.put_profile(caller, own("profile").as_str(), strict).await.map(drop)),
        ("profile.rm", policies.remove_profile(caller, &to_remove).await.map(drop)),
        ("node.recoveries", nodes.allow_recoveries(caller, "n1", 3).await.map(drop)),
        ("node.change", nodes.change(caller, "n1", rename).await.map(drop)),
        ("node.remove", nodes.remove(caller, &to_remove).await.map(drop)),
    ];
    done.into_iter().filter(|(_, done)| done.is_ok()).map(|(what, _)| what).collect()
}

#[tokio::test]
async fn whoever_ended_after_it_was_let_in_changes_nothing() {
    let world = World::new(StoreKind::Sqlite).await;
    let id = world.node("n1").await;
    world.person("bob", &[("viewer", "")]).await;
    let recovery = cortex_core::node::Recovery { key: vec![1], count: 0, left: 1, last: None };
    let record = world.hub.context.directory.node(id).expect("it is there");
    let record = Node { recovery: Some(recovery), ..Node::clone(&record) };
    let kept = record.clone();
    world.write(move |tx| tx.put_node(&kept)).await;
    world.hub.context.directory.put_node(record);
    for (number, how) in ["revoke", "ungrant", "remove", "lock"].into_iter().enumerate() {
        let (ada, spare) = (format!("ada-{number}"), format!("spare-{number}"));
        let session = world.person(&ada, &[("admin", "")]).await;
        world.person(&spare, &[("viewer", "")]).await;
        world.token(&spare, Role::Viewer, false, false).await;
        world.node(&spare).await;
        let strict = Document::profile("strict").expect("built in");
        world.policies().put_profile(&world.caller(), &spare, strict).await.expect("kept");
        let caller = world.caller_of(&session);
        match how {
            "revoke" => drop(
                Tokens::new(world.hub.context.clone())
                    .revoke(&world.caller(), &caller.token.id.to_string())
                    .await
                    .expect("revoked"),
            ),
            "ungrant" => world.take_back(&ada, "").await,
            "remove" => {
                drop(world.admin(Method::DELETE, &format!("/api/v1/users/{ada}"), json!({})).await.ok(204))
            }
            _ => {
                let lock = json!({"target": format!("user:{ada}"), "message": "no"});
                world.admin(Method::POST, "/api/v1/locks", lock).await.ok(201);
            }
        }
        assert_eq!(changes_of(&world, &caller, number).await, Vec::<&str>::new(), "{how}");
    }
    let all = changes_of(&world, &world.caller(), 0).await;
    assert_eq!(all.len(), 15, "whoever is good can do all of it: {all:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_is_held_back_is_not_started_for_who_lost_its_role_there_meanwhile() {
    let world = World::new(StoreKind::Memory).await;
    let (a, b) = (world.labelled("a", "ci").await, world.labelled("b", "db").await);
    let (link, _other) = (world.attach(a).await, world.attach(b).await);
    let ada = world.person("ada", &[("operator", "role=ci"), ("operator", "role=db")]).await;
    for node in ["a", "b"] {
        let path = format!("/api/v1/policies/{node}");
        world.admin(Method::PUT, &path, json!({"profile": "permissive"})).await.ok(200);
    }
    let body = json!({"nodes": ["a", "b"], "argv": ["sleep", "9"], "parallel": 1});
    let mut lines = world.lines(&ada, body).await;
    let first = lines.of("accepted").await;
    let run: RunId = first["run_id"].as_str().expect("an id").parse().expect("an id");
    world.hub.mesh.handle(&link, ToHub::Started { run, level: Level::None });
    world.take_back("ada", "role=db").await;
    let ended = Ended { code: Some(0), output: Positions::default(), ..Ended::new(EndCause::Exited) };
    world.hub.mesh.handle(&link, ToHub::Ended { run, ended });
    let refused = lines.of("refused").await;
    assert_eq!((&refused["node"], &refused["error"]["code"]), (&json!("b"), &json!("node_not_found")));
    let runs = world.get("/api/v1/runs").await.ok(200);
    assert_eq!(runs["items"].as_array().expect("runs").len(), 1, "{runs}");
    world.stop().await;
}

#[tokio::test]
async fn a_lock_by_label_holds_on_a_node_that_was_held_back_and_labelled_meanwhile() {
    let world = World::new(StoreKind::Memory).await;
    let (a, b) = (world.labelled("a", "ci").await, world.labelled("b", "ci").await);
    let (link, _other) = (world.attach(a).await, world.attach(b).await);
    for node in ["a", "b"] {
        let path = format!("/api/v1/policies/{node}");
        world.admin(Method::PUT, &path, json!({"profile": "permissive"})).await.ok(200);
    }
    let body = json!({"nodes": ["a", "b"], "argv": ["sleep", "9"], "parallel": 1});
    let mut lines = world.lines(&world.admin, body).await;
    let first = lines.of("accepted").await;
    let run: RunId = first["run_id"].as_str().expect("an id").parse().expect("an id");
    world.hub.mesh.handle(&link, ToHub::Started { run, level: Level::None });
    let lock = json!({"target": "label:role=db", "message": "no"});
    world.admin(Method::POST, "/api/v1/locks", lock).await.ok(201);
    world.admin(Method::PATCH, "/api/v1/nodes/b", json!({"labels": {"role": "db"}})).await.ok(200);
    let ended = Ended { code: Some(0), output: Positions::default(), ..Ended::new(EndCause::Exited) };
    world.hub.mesh.handle(&link, ToHub::Ended { run, ended });
    assert_eq!(lines.of("refused").await["error"]["code"], "locked");
    world.stop().await;
}

#[tokio::test]
async fn the_output_of_a_started_run_ends_with_the_role_on_its_node_whatever_else_is_left() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.labelled("a", "ci").await;
    let _link = world.attach(node).await;
    world.admin(Method::PUT, "/api/v1/policies/a", json!({"profile": "permissive"})).await.ok(200);
    world.labelled("b", "db").await;
    let ada = world.person("ada", &[("operator", "role=ci"), ("operator", "role=db")]).await;
    let mut lines = world.lines(&ada, json!({"nodes": ["a"], "argv": ["sleep", "9"]})).await;
    lines.of("accepted").await;
    world.take_back("ada", "role=ci").await;
    let refused = lines.of("refused").await;
    assert_eq!((&refused["node"], &refused["error"]["code"]), (&json!("a"), &json!("forbidden")));
    world.stop().await;
}

#[tokio::test]
async fn what_is_followed_by_label_ends_when_the_node_has_it_no_more_or_is_gone() {
    let world = World::new(StoreKind::Memory).await;
    for (name, how) in [("a", Method::PATCH), ("b", Method::DELETE)] {
        let node = world.labelled(name, "ci").await;
        let link = world.attach(node).await;
        let run = world.open_run(name, &link, b"so far").await;
        let viewer = world.person(&format!("viewer-{name}"), &[("viewer", "role=ci")]).await;
        let bearer = format!("Bearer {viewer}");
        let path = format!("/api/v1/runs/{run}/output?follow=true");
        let output = world.open(Method::GET, &path, &[("authorization", &bearer)], Bytes::new()).await;
        let mut output = output.into_body();
        let first = tokio::time::timeout(SOON, output.frame()).await.expect("in time");
        assert!(first.is_some_and(|frame| frame.is_ok()), "there is output");
        let labels = json!({"labels": {"role": "db"}});
        let changed = world.admin(how, &format!("/api/v1/nodes/{name}"), labels).await;
        assert!(changed.status.is_success(), "{changed:?}");
        tokio::time::timeout(SOON, output.collect())
            .await
            .expect("it does not stay open")
            .expect_err("what is broken off is no whole answer");
    }
    world.stop().await;
}

#[tokio::test]
async fn an_export_of_the_audit_log_ends_when_its_caller_sees_some_nodes_only() {
    let world = World::new(StoreKind::Memory).await;
    let ada = world.person("ada", &[("viewer", ""), ("viewer", "role=ci")]).await;
    // More than connections hold, so that the export is under way when the role goes.
    for _ in 0..20 {
        let fill = move |tx: &mut dyn Tx| {
            for _ in 0..1_000 {
                let row = AuditRow::new(WallTime(1), "hub", "test.fill", Outcome::Allowed);
                tx.append_audit(&AuditRow { detail: Some("x".repeat(1_000)), ..row })?;
            }
            Ok(())
        };
        world.write(fill).await;
    }
    let bearer = format!("Bearer {ada}");
    let (path, headers) = ("/api/v1/audit/export", [("authorization", bearer.as_str())]);
    let export = world.open(Method::GET, path, &headers, Bytes::new()).await.into_body();
    world.take_back("ada", "").await;
    let all = tokio::time::timeout(SOON, export.collect()).await.expect("it ends").expect("text").to_bytes();
    let last = all.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().expect("a line");
    let last: Value = serde_json::from_slice(last).expect("JSON");
    assert_eq!(last["error"]["code"], "forbidden", "{last}");
    world.stop().await;
}
