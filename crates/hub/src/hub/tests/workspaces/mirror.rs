//! Reads that the hub's copy of a folder answers.

use serde_json::json;

use super::*;

/// `path` in an address.
fn encoded(path: &str) -> String {
    path.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl World {
    async fn looked_at(&self, path: &str, more: &str) -> Reply {
        self.get(&format!("/api/v1/nodes/one/fs?path={}{more}", encoded(path))).await
    }

    async fn octets_of(&self, path: &str, range: Option<&str>) -> Reply {
        let bearer = format!("Bearer {}", self.admin);
        let mut headers = vec![("authorization", bearer.as_str()), ("accept", "application/octet-stream")];
        headers.extend(range.map(|range| ("range", range)));
        let path = format!("/api/v1/nodes/one/fs?path={}", encoded(path));
        self.raw(Method::GET, &path, &headers, Bytes::new()).await
    }

    /// What all pages of a search in the copy find, and what they left out in all.
    async fn searched(&self, path: &str, more: &str) -> (Vec<String>, Value) {
        let (mut found, mut cursor, mut ignored, mut binary) = (Vec::new(), String::new(), 0, 0);
        loop {
            let url = format!("/api/v1/nodes/one/fs/search?path={}{more}{cursor}", encoded(path));
            let page = self.get(&url).await.ok(200);
            assert_eq!(page["fresh"]["from"], "mirror", "{page}");
            let shown = |item: &Value| match item["file"].as_str() {
                Some(file) => format!("{file}:{}:{}", item["line"], item["text"].as_str().expect("a line")),
                None => item["name"].as_str().expect("a name").to_owned(),
            };
            found.extend(page["items"].as_array().expect("items").iter().map(shown));
            ignored += page["skipped"]["ignored"].as_u64().expect("a count");
            binary += page["skipped"]["binary"].as_u64().expect("a count");
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (found, json!({"ignored": ignored, "binary": binary})),
            }
        }
    }

    /// Names of all pages of a list.
    async fn listed(&self, path: &str, more: &str) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.looked_at(path, &format!("&view=list{more}{cursor}")).await.ok(200);
            assert_eq!(page["fresh"]["from"], "mirror", "{page}");
            let items = page["items"].as_array().expect("items").iter();
            names.extend(items.map(|item| item["name"].as_str().expect("a name").to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return names,
            }
        }
    }
}

/// A workspace with these files of a node, which is in sync.
async fn synced(world: &World, files: &[(&str, &[u8])]) -> Played {
    let one = world.plays("one").await;
    files.iter().for_each(|(path, content)| one.folder.write(path, Some(content)));
    world.create(Mode::HubPrimary, &one).await;
    world.converges(&[&one]).await;
    one
}

fn noise(len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    content
}

#[tokio::test]
async fn while_a_node_is_away_its_folder_is_read_from_the_copy_which_says_so_with_its_age() {
    let world = World::new(StoreKind::Sqlite).await;
    let long = noise(3_000_000);
    let files: &[(&str, &[u8])] = &[
        ("notes/خطة.md", "one\nاثنان\nthree\n".as_bytes()),
        (".hidden/x", b"x"),
        ("a", b""),
        ("a.b", b"no end"),
        ("long", &long),
    ];
    let one = synced(&world, files).await;
    world.away(&one).await;
    let head = world.shown().ws.head.0;
    let reply = world.looked_at("/srv/مشروع/notes/خطة.md", "&start_line=2&lines=1").await;
    let header = reply.headers["cortex-fresh"].to_str().expect("text").to_owned();
    let content = reply.ok(200);
    assert_eq!((&content["text"], &content["start_line"]), (&json!("اثنان\n"), &json!(2)), "{content}");
    assert_eq!((&content["total_lines"], &content["encoding"]), (&json!(3), &json!("utf-8")), "{content}");
    assert_eq!(content["etag"], blake3::hash(files[0].1).to_hex().to_string());
    let fresh = &content["fresh"];
    assert_eq!((&fresh["from"], &fresh["revision"]), (&json!("mirror"), &json!(head)), "{fresh}");
    assert!(fresh["differs"].is_null() && fresh["verified_at"].is_string(), "{fresh}");
    let verified = fresh["verified_at"].as_str().expect("a moment");
    assert_eq!(header, format!("mirror; revision={head}; verified_at=\"{verified}\""));
    // Bytes, all of them and a part.
    let whole = world.octets_of("/srv/مشروع/long", None).await;
    assert_eq!((whole.status.as_u16(), whole.body[..] == long[..]), (200, true));
    assert!(whole.headers["cortex-fresh"].to_str().expect("text").starts_with("mirror"));
    for (first, last) in [(0, 0), (1_048_570, 1_048_590), (100, 2_999_999)] {
        let part = world.octets_of("/srv/مشروع/long", Some(&format!("bytes={first}-{last}"))).await;
        assert_eq!(part.status.as_u16(), 206);
        assert!(part.body[..] == long[first..=last], "{first}-{last}");
    }
    let none = world.octets_of("/srv/مشروع/a", None).await;
    assert_eq!((none.status.as_u16(), none.body.len()), (200, 0));
    // Lists, and what one entry is.
    assert_eq!(world.listed("/srv/مشروع", "").await, ["a", "a.b", "long", "notes"]);
    let all = ["a", "a.b", "long", "notes", "notes/خطة.md"];
    for limit in 1..7 {
        assert_eq!(world.listed("/srv/مشروع", &format!("&depth=3&limit={limit}")).await, all, "{limit}");
    }
    let hidden = world.listed("/srv/مشروع", "&depth=3&hidden=true&limit=2").await;
    assert_eq!(hidden[..2], [".hidden", ".hidden/x"]);
    assert_eq!(hidden.len(), all.len() + 2);
    for limit in 1..3 {
        let named = world.listed("/srv/مشروع", &format!("&depth=3&glob=*.md&limit={limit}")).await;
        assert_eq!(named, ["notes/خطة.md"], "{limit}");
    }
    let entry = world.looked_at("/srv/مشروع/a.b", "&view=stat").await.ok(200);
    assert_eq!(
        (&entry["type"], &entry["size"], &entry["fresh"]["from"]),
        (&json!("file"), &json!(6), &json!("mirror"))
    );
    let entry = world.looked_at("/srv/مشروع", "&view=stat").await.ok(200);
    assert_eq!((&entry["type"], &entry["name"]), (&json!("dir"), &json!("مشروع")));
    // What the copy cannot answer.
    for (path, more, status, code) in [
        ("/srv/مشروع/none", "", 409, "node_offline"),
        ("/srv/مشروع/none", "&from=mirror", 404, "not_found"),
        ("/srv/مشروع/a/b", "&from=mirror", 404, "not_found"),
        ("/srv/مشروع/a", "&from=node", 409, "node_offline"),
        ("/srv/مشروع/a", "&from=moon", 400, "invalid_argument"),
        ("/srv/مشروع2/a", "", 409, "node_offline"),
        ("/srv/مشروع2/a", "&from=mirror", 404, "not_found"),
        ("/srv", "&view=list&from=mirror", 404, "not_found"),
        ("/srv/مشروع", "&view=list&from=mirror&glob=%5Ba", 400, "invalid_argument"),
        ("/srv/مشروع", "&view=list&from=mirror&cursor=AAAA", 400, "invalid_argument"),
        ("/srv/مشروع", "&from=mirror", 422, "unsupported_entry"),
        ("/srv/مشروع/a", "&view=list&from=mirror", 422, "unsupported_entry"),
    ] {
        let reply = world.looked_at(path, more).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["code"]),
            (status, &json!(code)),
            "{path} {more} {reply:?}"
        );
    }
    let rows = world.steps("fs.cat").await;
    let copied =
        rows.iter().filter(|row| row["detail"].as_str().is_some_and(|said| said.contains("the hub's copy")));
    assert!(copied.count() >= 6, "{rows:?}");
    // It outlives the hub.
    let World { hub, admin, dir } = world;
    tokio::time::timeout(SOON, hub.stop()).await.expect("the hub stops in time");
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts");
    let world = World { hub, admin, dir };
    let content = world.looked_at("/srv/مشروع/a.b", "").await.ok(200);
    assert_eq!((&content["text"], &content["fresh"]["revision"]), (&json!("no end"), &json!(head)));
    world.stop().await;
}

#[tokio::test]
async fn while_a_node_is_away_its_folder_is_searched_in_the_copy_in_pages_of_any_length() {
    let world = World::new(StoreKind::Memory).await;
    let files: &[(&str, &[u8])] = &[
        ("a/one.rs", b"fn a() {}\nlet x = 1;\nfn b() {}\n"),
        ("a/ملف.rs", "fn ج() {}\n".as_bytes()),
        ("a.rs", b"FN none\r\n"),
        ("b/.gitignore", b"*.log\n"),
        ("b/out.log", b"fn hidden by rules() {}\n"),
        ("b/deep/in.txt", b"fn deep() {}"),
        (".dot/x.rs", b"fn dot() {}\n"),
        ("bin.rs", b"fn \0 binary\n"),
    ];
    let one = synced(&world, files).await;
    one.folder.link("b/way", "deep");
    world.converges(&[&one]).await;
    world.away(&one).await;
    let root = "/srv/مشروع";
    // Each folder before what is in it, siblings in byte order, as at the node.
    let all = ["a", "a/one.rs", "a/ملف.rs", "a.rs", "b", "b/deep", "b/deep/in.txt", "b/way", "bin.rs"];
    let lines = [
        "a/one.rs:1:fn a() {}",
        "a/one.rs:3:fn b() {}",
        "a/ملف.rs:1:fn ج() {}",
        "b/deep/in.txt:1:fn deep() {}",
    ];
    for limit in 1..12 {
        let (found, left) = world.searched(root, &format!("&limit={limit}")).await;
        assert_eq!(found, all, "{limit}");
        assert!(left["ignored"].as_u64() >= Some(1), "{left}");
        let (found, left) = world.searched(root, &format!("&pattern=fn%20&limit={limit}")).await;
        assert_eq!(found, lines, "{limit}");
        assert!(left["binary"].as_u64() >= Some(1), "{left}");
    }
    for (more, expected) in [
        ("&name=*.rs&type=file", &["a/one.rs", "a/ملف.rs", "a.rs", "bin.rs"][..]),
        ("&name=*.rs&hidden=true", &[".dot/x.rs", "a/one.rs", "a/ملف.rs", "a.rs", "bin.rs"]),
        ("&name=*.log&ignored=true", &["b/out.log"]),
        ("&type=link", &["b/way"]),
        ("&type=file&size_min=20", &["a/one.rs"]),
        ("&type=file&changed_within_ms=1", &[]),
        ("&pattern=fn%20none&ignore_case=true", &["a.rs:1:FN none"]),
        ("&pattern=()&literal=true&glob=b/**/*.txt", &["b/deep/in.txt:1:fn deep() {}"]),
    ] {
        assert_eq!(world.searched(root, more).await.0, expected, "{more}");
    }
    // Below a folder the rules of those above it count; one file is searched by itself.
    assert_eq!(world.searched(&format!("{root}/b"), "").await.0, ["deep", "deep/in.txt", "way"]);
    assert_eq!(world.searched(&format!("{root}/a/one.rs"), "&pattern=x").await.0, [":2:let x = 1;"]);
    for (path, more, status, code) in [
        (format!("{root}/a.rs"), "", 422, "unsupported_entry"),
        (format!("{root}/b/way"), "&pattern=x", 422, "unsupported_entry"),
        (format!("{root}/none"), "&pattern=x", 409, "node_offline"),
        (root.to_owned(), "&pattern=(", 400, "invalid_argument"),
        (root.to_owned(), "&name=%5Ba", 400, "invalid_argument"),
        (root.to_owned(), "&cursor=AAAA", 400, "invalid_argument"),
        (root.to_owned(), "&from=node", 409, "node_offline"),
    ] {
        let reply = world.get(&format!("/api/v1/nodes/one/fs/search?path={}{more}", encoded(&path))).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (status, &json!(code)), "{path} {more}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_is_here_is_asked_itself_unless_the_copy_is_and_one_that_differs_is_told() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    let two = world.plays("two").await;
    two.folder.write("a", Some(b"agreed"));
    world.create(Mode::HubPrimary, &two).await;
    world.join(&one, Role::Follower).await;
    world.converges(&[&one, &two]).await;
    world.looked_at("/srv/مشروع/a", "&timeout_ms=200").await.refused(504, "timeout");
    let content = world.looked_at("/srv/مشروع/a", "&from=mirror").await.ok(200);
    assert_eq!((&content["text"], &content["fresh"]["differs"]), (&json!("agreed"), &Value::Null));
    one.folder.write("a", Some(b"its own"));
    world.shows("it drifts", |shown| state_of(shown, "one") == MemberState::Drifted).await;
    let reply = world.looked_at("/srv/مشروع/a", "&from=mirror").await;
    assert!(reply.headers["cortex-fresh"].to_str().expect("text").ends_with("; differs"));
    let content = reply.ok(200);
    assert_eq!((&content["text"], &content["fresh"]["differs"]), (&json!("agreed"), &json!(true)));
    world.stop().await;
}

#[tokio::test]
async fn the_copy_is_for_those_alone_whom_the_node_would_answer_at_this_moment() {
    let world = World::new(StoreKind::Memory).await;
    let one = synced(&world, &[("a", b"secret")]).await;
    let path = format!("/api/v1/nodes/one/fs?path={}&from=mirror", encoded("/srv/مشروع/a"));
    let manifest = format!("/api/v1/workspaces/{WS}/manifest");
    let viewer = world.person("vera", &[("viewer", "")]).await;
    let foreign = world.person("emil", &[("operator", "role=db")]).await;
    let operator = world.person("olaf", &[("operator", "role=ci")]).await;
    let everywhere = world.person("oma", &[("operator", "")]).await;
    let get = async |token: &str, path: &str| world.with_token(token, Method::GET, path, None).await;
    for _ in 0..2 {
        get(&viewer, &path).await.refused(403, "forbidden");
        get(&viewer, &manifest).await.refused(403, "forbidden");
        get(&foreign, &path).await.refused(404, "node_not_found");
        for token in [&foreign, &operator] {
            get(token, &manifest).await.refused(403, "forbidden");
        }
        assert_eq!(get(&operator, &path).await.ok(200)["text"], "secret");
        assert_eq!(get(&everywhere, &manifest).await.ok(200)["items"][0]["path"], "a");
        // And while it is away.
        world.away(&one).await;
    }
    world.admin(Method::PUT, "/api/v1/policies/one", json!({"profile": "strict"})).await.ok(200);
    get(&operator, &path).await.refused(403, "path_outside_roots");
    let away = path.replace("&from=mirror", "");
    get(&operator, &away).await.refused(403, "path_outside_roots");
    world.admin(Method::PUT, "/api/v1/policies/one", json!({"profile": "permissive"})).await.ok(200);
    let lock = world.admin(Method::POST, "/api/v1/locks", json!({"target": "node:one"})).await.ok(201);
    get(&operator, &path).await.refused(403, "locked");
    let lock = format!("/api/v1/locks/{}", lock["id"].as_str().expect("an id"));
    world.admin(Method::DELETE, &lock, json!({})).await.ok(200);
    get(&operator, &path).await.ok(200);
    // One that is no member any more has no copy.
    world.hub.workspaces.detach(&world.caller(), WS, "one").await.expect("it is there");
    get(&operator, &path).await.refused(404, "not_found");
    get(&operator, &away).await.refused(409, "node_offline");
    world.stop().await;
}

#[tokio::test]
async fn the_tree_of_each_revision_is_told_in_pages() {
    let world = World::new(StoreKind::Memory).await;
    let _one = synced(&world, &[("a/b", b"1"), ("a/c/d", b"22"), ("e", b"333")]).await;
    let before = world.shown().ws.head.0;
    world.hub.workspaces.edit(WS, "z", Some(b"new")).await;
    let pages = async |query: &str| -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/workspaces/{WS}/manifest?limit=2{query}{cursor}");
            let page = world.get(&path).await.ok(200);
            items.extend(page["items"].as_array().expect("items").clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    };
    let paths = |items: &[Value]| -> Vec<String> {
        items.iter().map(|item| item["path"].as_str().expect("a path").to_owned()).collect()
    };
    let all = pages("").await;
    assert_eq!(paths(&all), ["a", "a/b", "a/c", "a/c/d", "e", "z"]);
    let file = json!({"path": "a/c/d", "type": "file", "size": 2, "exec": false,
        "etag": blake3::hash(b"22").to_hex().to_string()});
    assert_eq!(all[3], file);
    assert_eq!(paths(&pages(&format!("&rev={before}")).await), ["a", "a/b", "a/c", "a/c/d", "e"]);
    assert_eq!(paths(&pages("&path=a").await), ["b", "c", "c/d"]);
    let base = format!("/api/v1/workspaces/{WS}/manifest");
    world.get(&format!("{base}?rev=99")).await.refused(404, "not_found");
    world.get(&format!("{base}?path=none")).await.refused(404, "not_found");
    world.get(&format!("{base}?path=e")).await.refused(422, "unsupported_entry");
    world.get(&format!("{base}?path=../x")).await.refused(400, "bad_path");
    world.get(&format!("{base}?limit=0")).await.refused(400, "invalid_argument");
    let first = world.get(&format!("{base}?limit=1")).await.ok(200);
    let cursor = first["next_cursor"].as_str().expect("there is more");
    // A cursor is of one tree: pages of two would not fit together.
    world.get(&format!("{base}?rev={before}&cursor={cursor}")).await.refused(400, "invalid_argument");
    world.stop().await;
}
