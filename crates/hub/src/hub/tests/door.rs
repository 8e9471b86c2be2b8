//! What is refused before anything is looked up: hosts, origins, secrets in URLs, forms of bodies.

use serde_json::json;

use super::*;

#[tokio::test]
async fn other_hosts_and_other_origins_are_refused() {
    let world = World::new(StoreKind::Memory).await;
    let own = world.hub.started().http.to_string();
    let call = async |headers: &[(&str, &str)]| world.call(Method::GET, "/healthz", headers, None).await;
    call(&[("host", "evil.example")]).await.refused(403, "forbidden");
    call(&[("host", "evil.example:7440")]).await.refused(403, "forbidden");
    call(&[("origin", "http://evil.example")]).await.refused(403, "forbidden");
    call(&[("origin", "null")]).await.refused(403, "forbidden");
    call(&[("origin", "http://127.0.0.1:1")]).await.refused(403, "forbidden");
    assert_eq!(call(&[("origin", &format!("http://{own}"))]).await.status, 200);
    assert_eq!(call(&[("host", "localhost:9")]).await.status, 200);
    assert_eq!(call(&[("host", "hub.lan:7440"), ("origin", "https://hub.lan:7440")]).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_secret_in_a_url_is_refused_even_when_it_is_good() {
    let world = World::new(StoreKind::Memory).await;
    let token = world.admin.clone();
    let paths = [
        format!("/api/v1/nodes?token={token}"),
        format!("/api/v1/nodes?access_token={token}"),
        format!("/api/v1/nodes?q={token}"),
        format!("/api/v1/nodes/{token}"),
        "/api/v1/invites/CXI1.a.b.c".to_owned(),
    ];
    for path in paths {
        let reply = world.get(&path).await;
        let problem = reply.refused(400, "invalid_argument");
        assert!(problem["hint"].as_str().expect("a hint").contains("Authorization"));
        assert!(!String::from_utf8_lossy(&reply.body).contains(&token), "the secret comes back");
    }
    world.stop().await;
}

#[tokio::test]
async fn unknown_paths_methods_and_bodies_have_the_form_of_every_error() {
    let world = World::new(StoreKind::Memory).await;
    world.get("/nowhere").await.refused(404, "not_found");
    world.get("/api/v1/nowhere").await.refused(404, "not_found");
    let reply = world.admin(Method::DELETE, "/api/v1/nodes", json!({})).await;
    reply.refused(405, "invalid_argument");
    assert!(reply.headers.contains_key("allow"));

    let bearer = format!("Bearer {}", world.admin);
    let post = async |kind: &str, body: Bytes| {
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        world.raw(Method::POST, "/api/v1/tokens", &headers, body).await
    };
    let json_type = "application/json";
    post("text/plain", Bytes::from_static(b"{}")).await.refused(415, "invalid_argument");
    post(json_type, Bytes::from_static(b"{\"name\":")).await.refused(400, "invalid_argument");
    post(json_type, Bytes::from(vec![b' '; cortex_core::limits::BODY_BYTES_MAX + 1]))
        .await
        .refused(413, "too_large");
    let wrong = post(json_type, Bytes::from_static(b"{\"name\":\"x\",\"role\":7}")).await;
    let problem = wrong.refused(400, "invalid_argument");
    assert!(problem["message"].as_str().expect("a message").contains("role"), "{problem}");
    let extra = post(json_type, Bytes::from_static(b"{\"name\":\"x\",\"role\":\"admin\",\"rank\":1}")).await;
    assert!(extra.refused(400, "invalid_argument")["message"].to_string().contains("rank"));
    let missing = post(json_type, Bytes::from_static(b"{\"name\":\"x\"}")).await;
    assert!(missing.refused(400, "invalid_argument")["message"].to_string().contains("role"));

    for query in ["limit=0", "limit=x", "nonsense=1", "selector=a", "state=asleep"] {
        world.get(&format!("/api/v1/nodes?{query}")).await.refused(400, "invalid_argument");
    }
    world.stop().await;
}

#[tokio::test]
async fn an_unfinished_head_holds_up_nobody_and_a_request_without_host_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new(StoreKind::Memory).await;
    let mut silent = tokio::net::TcpStream::connect(world.hub.started().http).await.expect("connected");
    silent.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").await.expect("sent");
    assert_eq!(world.get("/healthz").await.status, 200, "it holds up nobody");
    let mut none = tokio::net::TcpStream::connect(world.hub.started().http).await.expect("connected");
    none.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut answer = vec![0; 512];
    let read = tokio::time::timeout(SOON, none.read(&mut answer)).await.expect("answered").expect("read");
    assert!(answer[..read].starts_with(b"HTTP/1.1 400"), "a request without Host");
    drop(silent);
    world.stop().await;
}
