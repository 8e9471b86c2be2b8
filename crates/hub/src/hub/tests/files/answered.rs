//! What is asked, as the node hears it, and what is answered, as the caller sees it.

use super::*;

#[tokio::test]
async fn each_operation_reaches_the_node_and_its_answer_the_caller() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let octets = ("content-type", "application/octet-stream");
    let of_json = ("content-type", "application/json");
    let at = |rest: &str| format!("{FS}?path=/srv/{PLAN}{rest}");
    let edit = r#"{"edits":[{"old":"a","new":"b"}]}"#;
    for (verb, method, path, kind, body, expected) in [
        (
            Verb::Read,
            Method::GET,
            at(""),
            octets,
            "",
            json!({"text": "one\n", "encoding": "utf-8", "total_lines": 9}),
        ),
        (
            Verb::List,
            Method::GET,
            at("&view=list"),
            octets,
            "",
            json!({"searched": 7, "next_cursor": "-25leHQ"}),
        ),
        (
            Verb::Stat,
            Method::GET,
            at("&view=stat"),
            octets,
            "",
            json!({"name": "خطة", "mode": "4755", "type": "file"}),
        ),
        (
            Verb::Find,
            Method::GET,
            format!("{FS}/search?path=/srv/{PLAN}&name=*.rs&cursor=-25leHQ"),
            octets,
            "",
            json!({"searched": 7}),
        ),
        (
            Verb::Grep,
            Method::GET,
            format!("{FS}/search?path=/srv/{PLAN}&pattern=fn"),
            octets,
            "",
            json!({"searched": 7}),
        ),
        (
            Verb::Write,
            Method::PUT,
            at("&mkdirs=true&perm=0755"),
            octets,
            "one",
            json!({"bytes": 3, "created": true}),
        ),
        (Verb::MakeDir, Method::PUT, at("&kind=dir"), octets, "", json!({"made": 1, "path": "/srv/خطة"})),
        (
            Verb::Edit,
            Method::PATCH,
            at(""),
            of_json,
            edit,
            json!({"added": 1, "removed": 1, "diff": "-a\n+b\n"}),
        ),
        (
            Verb::Move,
            Method::PATCH,
            at(""),
            of_json,
            r#"{"move_to":"/srv/b"}"#,
            json!({"path": "/srv/b", "removed": 1}),
        ),
        (
            Verb::Copy,
            Method::PATCH,
            at(""),
            of_json,
            r#"{"copy_to":"/srv/b"}"#,
            json!({"path": "/srv/b", "bytes": 3}),
        ),
        (
            Verb::Remove,
            Method::DELETE,
            at("&recursive=true"),
            octets,
            "",
            json!({"removed": 1, "node": "n1"}),
        ),
    ] {
        let kinds = [kind];
        let played = async {
            let ask = node.ask().await;
            world.answers(&node, ask.id, Ok(sample(verb)));
            ask
        };
        let (reply, ask) = tokio::join!(world.fs(method, &path, &kinds, body), played);
        assert_eq!((ask.op.verb(), ask.caller.as_str()), (verb, "token:admin"), "{reply:?}");
        assert!(ask.op.paths().any(|(path, _)| path.as_str() == "/srv/خطة"), "{ask:?}");
        let shown = reply.ok(if matches!(verb, Verb::Write | Verb::Copy) { 201 } else { 200 });
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(&shown[field], value, "{verb}: {shown}");
        }
        if ask.op.is_read() {
            assert_eq!((world.kept_op(ask.id).await, shown["op"].as_str()), (None, None));
        } else {
            let op = ask.id.to_string();
            assert_eq!(shown["op"], op);
            assert_eq!(reply.headers["cortex-op-id"], op);
            assert!(world.kept_op(ask.id).await.expect("it is kept").end().is_some_and(Result::is_ok));
            assert_eq!(node.settled().await, ask.id);
        }
    }
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    let told = world.told_of("/srv/خطة").await;
    let changed: Vec<&str> = told.iter().map(|(_, detail)| detail.as_str()).collect();
    assert_eq!(changed, ["write", "mkdir", "edit", "mv", "rm"], "a copy changes where it leads to");
    let figures = world.get("/metrics").await;
    let figures = String::from_utf8_lossy(&figures.body).into_owned();
    for figure in [
        r#"cortex_file_ops_total{verb="cat",code="ok"} 1"#,
        r#"cortex_file_op_seconds_count{verb="write"} 1"#,
        "cortex_file_ops_open 0",
    ] {
        assert!(figures.contains(figure), "{figure}: {figures}");
    }
    world.stop().await;
}

#[tokio::test]
async fn bytes_come_with_their_etag_and_a_range_says_what_it_is() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let whole = format!("\"{}\"", ContentId::of(b"whole"));
    let accept = ("accept", "application/octet-stream");
    let read = async |headers: &[(&str, &str)], answer: FileAnswer| {
        let played = async {
            let ask = node.ask().await;
            world.answers(&node, ask.id, Ok(answer));
            ask.op
        };
        let path = format!("{FS}?path=/a");
        tokio::join!(world.fs(Method::GET, &path, headers, ""), played)
    };
    let (all, op) = read(&[accept], content("one\n", 0, 4, true)).await;
    assert_eq!((all.status.as_u16(), &all.body[..]), (200, &b"one\n"[..]));
    assert_eq!(all.headers["etag"], whole);
    assert_eq!(all.headers["cortex-fresh"], "node");
    assert!(matches!(op, FileOp::Read { hash: false, .. }));
    let (part, op) = read(&[accept, ("range", "bytes=1-900000")], content("ne", 1, 90, false)).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.headers["content-range"], "bytes 1-2/90");
    let range = cortex_core::files::op::ReadRange::Bytes { from: 1, len: 900_000 };
    assert!(matches!(op, FileOp::Read { range: asked, .. } if asked == range), "{op:?}");
    let (known, op) = read(&[accept, ("if-none-match", &whole)], content("one\n", 0, 4, true)).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    assert!(matches!(op, FileOp::Read { hash: true, .. }));
    let (other, _) = read(&[accept, ("if-none-match", "\"af13\"")], content("one\n", 0, 4, true)).await;
    assert_eq!(other.status, 200);
    let (large, _) = read(&[accept], content("one\n", 0, 90_000, false)).await;
    assert_eq!(large.refused(413, "too_large")["details"]["size"], "90000");
    let (beyond, _) = read(&[accept, ("range", "bytes=90-")], content("", 90, 90, true)).await;
    beyond.refused(416, "invalid_argument");
    let (json, _) = read(&[], content("one\n", 0, 90_000, false)).await;
    let json = json.ok(200);
    assert_eq!(
        (&json["truncated"], &json["size"], &json["fresh"]["from"]),
        (&json!(true), &json!(90_000), &json!("node"))
    );
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_and_reaches_no_node() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let octets = ("content-type", "application/octet-stream");
    let of_json = ("content-type", "application/json");
    let (long, other) = ("x".repeat(48 * 1024 + 1), ContentId::of(b"other").to_string());
    for (method, rest, headers, body, status, code) in [
        (Method::GET, "", vec![], "", 400, "invalid_argument"),
        (Method::GET, "?path=a", vec![], "", 400, "bad_path"),
        (Method::GET, "?path=/a/../b", vec![], "", 400, "bad_path"),
        (Method::GET, "?path=/a/%252e%252e/b", vec![], "", 400, "bad_path"),
        (Method::GET, "?path=/a&view=all", vec![], "", 400, "invalid_argument"),
        (Method::GET, "?path=/a&lines=1&offset=1", vec![], "", 400, "invalid_argument"),
        (Method::GET, "?path=/a&depth=1", vec![], "", 400, "invalid_argument"),
        (Method::GET, "?path=/a&view=list&cursor=*", vec![], "", 400, "invalid_argument"),
        (Method::GET, "?path=/a&timeout_ms=0", vec![], "", 400, "invalid_argument"),
        (Method::GET, "?path=/a&max_bytes=49153", vec![], "", 413, "too_large"),
        (Method::GET, "/search?path=/a&pattern=a&name=b", vec![], "", 400, "invalid_argument"),
        (Method::GET, "/search?path=/a&type=pipe", vec![], "", 400, "invalid_argument"),
        (Method::GET, "?path=/a", vec![("cortex-attempt", "a/b")], "", 400, "invalid_argument"),
        (Method::PUT, "?path=/a", vec![of_json], "{}", 415, "invalid_argument"),
        (Method::PUT, "?path=/a", vec![octets, ("cortex-content-id", "af13")], "x", 400, "invalid_argument"),
        (Method::PUT, "?path=/a", vec![octets, ("cortex-content-id", &*other)], "x", 400, "invalid_argument"),
        (Method::PUT, "?path=/a", vec![of_json], &long, 415, "invalid_argument"),
        (Method::PUT, "?path=/a&kind=dir", vec![octets], &long, 400, "invalid_argument"),
        (Method::PUT, "?path=/a&perm=4755", vec![octets], "", 400, "invalid_argument"),
        (Method::PUT, "?path=/a&perm=999", vec![octets], "", 400, "invalid_argument"),
        (Method::PUT, "?path=/a&kind=dir", vec![octets], "x", 400, "invalid_argument"),
        (Method::PUT, "?path=/a&mode=create", vec![octets, ("if-match", "*")], "", 400, "invalid_argument"),
        (Method::PUT, "?path=/", vec![octets], "", 400, "invalid_argument"),
        (Method::PATCH, "?path=/a", vec![of_json], "{}", 400, "invalid_argument"),
        (Method::PATCH, "?path=/a", vec![of_json], r#"{"move_to":"/a/b"}"#, 400, "invalid_argument"),
        (
            Method::PATCH,
            "?path=/a",
            vec![of_json],
            r#"{"move_to":"/b","recursive":true}"#,
            400,
            "invalid_argument",
        ),
        (Method::DELETE, "?path=/a", vec![("if-none-match", "*")], "", 400, "invalid_argument"),
    ] {
        let reply = world.fs(method, &format!("{FS}{rest}"), &headers, body).await;
        reply.refused(status, code);
    }
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn what_the_node_refuses_is_answered_with_its_details() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let etag = format!("\"{}\"", ContentId::of(b"mine"));
    let played = async {
        let ask = node.ask().await;
        let now = ContentId::of(b"theirs").to_string();
        let refusal = Refusal::new(Code::EtagMismatch, "It is another by now.").detail("etag", now);
        world.answers(&node, ask.id, Err(refusal));
        ask.id
    };
    let headers = [("if-match", &*etag)];
    let (reply, op) = tokio::join!(world.put("/a", &headers, "x"), played);
    let problem = reply.refused(412, "etag_mismatch");
    assert_eq!(problem["details"]["etag"], ContentId::of(b"theirs").to_string());
    assert!(matches!(world.kept_op(op).await.expect("kept").end(), Some(Err(_))));
    assert_eq!(world.told_of("/a").await, [], "nothing changed");
    world.stop().await;
}
