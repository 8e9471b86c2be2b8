//! Tokens and sessions in time: names that are given again, records that go, and how many there may be.

use cortex_core::limits::TOKENS_MAX;
use serde_json::json;

use super::*;

impl World {
    /// Changes the token of this name, in the store and for the doors.
    async fn retime(&self, name: &str, change: impl FnOnce(&mut Token)) {
        let tokens = self.hub.context.view(|view| view.tokens()).await.expect("readable");
        let mut token = tokens.into_iter().find(|token| token.name.as_str() == name).expect("it is there");
        change(&mut token);
        let kept = token.clone();
        self.write(move |tx| tx.put_token(&kept)).await;
        self.hub.context.directory.put_token(token);
    }

    async fn kept(&self) -> Vec<Token> {
        self.hub.context.view(|view| view.tokens()).await.expect("readable")
    }

    async fn made(&self, name: &str) -> String {
        let made =
            self.admin(Method::POST, "/api/v1/tokens", json!({"name": name, "role": "operator"})).await;
        made.ok(201)["token"].as_str().expect("a secret").to_owned()
    }
}

#[tokio::test]
async fn a_token_that_has_ended_by_itself_gives_its_name_away() {
    let world = World::new(StoreKind::Sqlite).await;
    let first = world.made("ci").await;
    let body = json!({"name": "ci", "role": "operator"});
    world.admin(Method::POST, "/api/v1/tokens", body).await.refused(409, "conflict");
    world.retime("ci", |token| token.expires_at = Some(WallTime(1))).await;
    let second = world.made("ci").await;
    let rows = world.get("/api/v1/audit?limit=1000&actor=token:admin").await.ok(200);
    let mut made =
        rows["items"].as_array().expect("rows").iter().filter(|row| row["action"] == "token.create");
    let by = world.caller().token.id.to_string();
    assert!(made.all(|row| row["token"] == by.as_str()), "each says with which token: {rows}");
    let see = async |token: &str| world.with_token(token, Method::GET, "/api/v1/nodes", None).await;
    see(&first).await.refused(401, "unauthenticated");
    see(&second).await.ok(200);
    world.stop().await;
}

#[tokio::test]
async fn a_name_that_is_given_again_inherits_no_run_and_a_person_has_its_own_in_another_session() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("a").await;
    let _link = world.attach(node).await;
    world.admin(Method::PUT, "/api/v1/policies/a", json!({"profile": "permissive"})).await.ok(200);
    let start = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "once")];
        let body = json!({"nodes": ["a"], "argv": ["sleep", "9"]});
        world.call(Method::POST, "/api/v1/runs", &headers, Some(body)).await
    };
    let first = world.made("ci").await;
    let run = start(&first).await.ok(202)["runs"][0]["id"].clone();
    assert_eq!(start(&first).await.ok(202)["runs"][0]["id"], run, "the same caller");
    world.admin(Method::DELETE, "/api/v1/tokens/ci", json!({})).await.ok(200);
    let second = world.made("ci").await;
    let refused = start(&second).await.refused(409, "conflict");
    assert!(!refused.to_string().contains(run.as_str().expect("an id")), "{refused}");

    let session = world.person("ada", &[("operator", "")]).await;
    let run = start(&session).await.ok(202)["runs"][0]["id"].clone();
    let login = json!({"user": "ada", "password": "the password of ada"});
    let again = world.call(Method::POST, "/api/v1/login", &[], Some(login)).await.ok(201);
    let again = again["token"].as_str().expect("a token");
    assert_eq!(start(again).await.ok(202)["runs"][0]["id"], run, "another session of the same person");
    world.stop().await;
}

#[tokio::test]
async fn a_login_removes_the_records_of_old_sessions() {
    let world = World::new(StoreKind::Sqlite).await;
    world.person("ada", &[("viewer", "")]).await;
    let old = world.kept().await.into_iter().find(|token| token.kind == TokenKind::Session).expect("hers");
    world.retime(old.name.as_str(), |token| token.expires_at = Some(WallTime(1))).await;
    world.token("api", Role::Viewer, false, true).await;
    world.person("bob", &[("viewer", "")]).await;
    let kept = world.kept().await;
    assert!(kept.iter().all(|token| token.id != old.id), "it has gone");
    assert!(kept.iter().any(|token| token.name.as_str() == "api"), "what is no session stays");
    world.stop().await;
}

#[tokio::test]
async fn a_new_password_also_ends_sessions_that_seem_to_have_ended_by_a_clock_that_is_ahead() {
    let world = World::new(StoreKind::Memory).await;
    world.person("ada", &[("viewer", "")]).await;
    let session =
        world.kept().await.into_iter().find(|token| token.kind == TokenKind::Session).expect("hers");
    world.retime(session.name.as_str(), |token| token.expires_at = Some(WallTime(1))).await;
    world.admin(Method::PATCH, "/api/v1/users/ada", json!({"password": "another good one"})).await.ok(200);
    let kept = world.kept().await.into_iter().find(|token| token.id == session.id).expect("it is kept");
    assert!(kept.revoked_at.is_some(), "it stays ended when the clock is set right");
    world.stop().await;
}

#[tokio::test]
async fn a_hub_has_a_bounded_number_of_tokens_that_are_good() {
    let world = World::new(StoreKind::Memory).await;
    world.token("last", Role::Viewer, false, false).await;
    let like = world.kept().await.remove(0);
    let fill = move |tx: &mut dyn Tx| {
        for number in 2..TOKENS_MAX as u64 {
            let (id, name) =
                (cortex_core::id::TokenId::mint(number, &[9; 10]), Name::parse(&format!("t{number}"))?);
            tx.put_token(&Token { id, name, ..like.clone() })?;
        }
        Ok(())
    };
    world.write(fill).await;
    let body = json!({"name": "more", "role": "viewer"});
    world.admin(Method::POST, "/api/v1/tokens", body.clone()).await.refused(429, "quota");
    world.admin(Method::DELETE, "/api/v1/tokens/last", json!({})).await.ok(200);
    world.admin(Method::POST, "/api/v1/tokens", body).await.ok(201);
    world.stop().await;
}
