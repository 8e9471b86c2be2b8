//! Imports: a workspace of the hub that begins with a tree of a caller, which the test plays.

use cortex_core::limits::TREE_ENTRIES_MAX;
use cortex_store::blobs::{Rules as Sweeping, Sweep};

use super::*;
use crate::transfer::played::Folder;

const WS: &str = "notes";
const SMALL: &[u8] = b"a short file that is not given";
const WORKSPACES: &str = "/api/v1/workspaces";

fn import(name: &str, folder: &Folder) -> Value {
    let tree = folder.tree();
    let (entries, bytes) = folder.chunks.sums(tree).expect("whole");
    json!({"kind": "import", "workspace": name, "root": tree.to_string(), "entries": entries, "bytes": bytes})
}

fn with(mut order: Value, member: &str, value: Value) -> Value {
    order[member] = value;
    order
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A folder with some of everything.
fn filled() -> Arc<Folder> {
    let folder = Folder::new();
    folder.write("مشروع/طويل", Some(&noise(1, 5 << 20)));
    for number in 0..100_u64 {
        folder.write(&format!("src/{}/f{number}", number % 7), Some(&noise(number, 40)));
    }
    folder.write("empty", Some(b""));
    folder.write("صغير", Some(SMALL));
    folder
}

impl World {
    /// A pack of these, as the caller makes it.
    fn packed(folder: &Folder, ids: &[ContentId]) -> Vec<Bytes> {
        let (mut packs, mut writer) = (Vec::new(), PackWriter::new(1));
        let mut end = |writer: &mut PackWriter| {
            let pack = writer.finish().expect("it has chunks");
            packs.push(Bytes::from([&pack.head.to_bytes()[..], &pack.tail[..]].concat()));
        };
        for id in ids {
            let bytes = folder.chunks.chunk(id).expect("its own");
            if writer.add(*id, &bytes) == Added::Full {
                end(&mut writer);
                assert_eq!(writer.add(*id, &bytes), Added::Yes);
            }
        }
        end(&mut writer);
        packs
    }

    /// Gives what is asked for, `turns` times or until it is over; what was asked for.
    async fn gives(&self, transfer: &str, folder: &Folder, turns: usize) -> Vec<ContentId> {
        let mut asked = Vec::new();
        for _ in 0..turns {
            let (ids, state) = self.wants(transfer, "?wait_ms=5000").await;
            if state != "open" {
                break;
            }
            for pack in if ids.is_empty() { Vec::new() } else { Self::packed(folder, &ids) } {
                self.send(transfer, pack).await.ok(204);
            }
            asked.extend(ids);
        }
        asked
    }

    /// Gives all but one short file, until the hub has kept the most of it.
    async fn gives_all_but_one(&self, transfer: &str, folder: &Folder) {
        let last = ContentId::of(SMALL);
        loop {
            let (ids, state) = self.wants(transfer, "?wait_ms=300").await;
            assert_eq!(state, "open");
            if ids.is_empty() {
                break;
            }
            let rest: Vec<ContentId> = ids.into_iter().filter(|id| *id != last).collect();
            for pack in if rest.is_empty() { Vec::new() } else { Self::packed(folder, &rest) } {
                self.send(transfer, pack).await.ok(204);
            }
        }
        let kept = async {
            while !self.keeps(folder) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, kept).await.expect("the first pack of it is put");
    }

    /// Whether anything is left of it once all was collected that nothing names or holds.
    fn keeps(&self, folder: &Folder) -> bool {
        let blobs = self.hub.chunks.blobs();
        let (rules, now) =
            (Sweeping { young_ms: 0, condemned_ms: 0, ..Sweeping::default() }, WallTime(1 << 42));
        for _ in 0..3 {
            let since = blobs.begin().expect("begun");
            blobs.collect(Sweep { since, roots: &[], now, rules }).expect("swept");
        }
        let pin = self.hub.chunks.pin().expect("a pin");
        blobs.have(&[folder.tree().into()], &pin).expect("told") == [true]
    }

    async fn imports(&self, name: &str, folder: &Folder) -> Value {
        let transfer = id_of(&self.begin(import(name, folder)).await);
        self.gives(&transfer, folder, usize::MAX).await;
        self.over(&transfer).await
    }

    /// The code for which nothing came of it.
    async fn fails(&self, transfer: &str) -> Value {
        let view = self.over(transfer).await;
        assert_eq!(view["state"], "failed", "{view}");
        view["nodes"][0]["error"]["code"].clone()
    }

    async fn has_no_workspace(&self) {
        assert_eq!(self.get(WORKSPACES).await.ok(200)["items"], json!([]));
        assert_eq!(self.rows("workspace.create").await, []);
    }
}

#[tokio::test]
async fn a_tree_of_a_caller_becomes_the_first_revision_and_goes_to_members() {
    let world = World::new(StoreKind::Sqlite).await;
    let folder = filled();
    let order = with(import(WS, &folder), "rules", json!({"exclude": ["target/"]}));
    let begun = world.begin(order.clone()).await;
    let row = &begun["nodes"][0];
    assert_eq!((&begun["kind"], &row["node"], &row["path"]), (&json!("import"), &json!("hub"), &json!(WS)));
    let transfer = id_of(&begun);
    world.gives(&transfer, &folder, 2).await;
    world.get(&format!("{WORKSPACES}/{WS}")).await.refused(404, "not_found");
    world.gives(&transfer, &folder, usize::MAX).await;
    let view = world.over(&transfer).await;
    let end = &view["nodes"][0]["end"];
    assert_eq!(
        (&view["state"], &end["written"], &end["bytes"]),
        (&json!("done"), &json!(103), &order["bytes"])
    );
    assert!(view["nodes"][0]["wire_bytes"].as_u64() > Some(5 << 20), "{view}");

    let made = world.get(&format!("{WORKSPACES}/{WS}")).await.ok(200);
    assert_eq!((&made["mode"], &made["revision"], &made["root"]), (&json!("hub"), &json!(1), &order["root"]));
    assert_eq!((&made["rules"]["exclude"], &made["owner"]), (&json!(["target/"]), &json!("token:admin")));
    assert_eq!(world.hub.workspaces.files(WS), folder.files());
    let history = world.get(&format!("{WORKSPACES}/{WS}/history")).await.ok(200);
    let first = &history["items"][0];
    assert_eq!(
        (&first["kind"], &first["by"], &first["files"]),
        (&json!("import"), &json!("token:admin"), &json!(103))
    );
    let said = |of: &Value| of.as_str().map_or_else(|| of.to_string(), str::to_owned);
    let argv = [&json!(WS), &order["root"], &order["entries"], &order["bytes"]].map(said);
    assert_eq!(world.rows("workspace.import").await[0].2, argv);
    assert_eq!(world.rows("workspace.create").await[0].2, argv[..2]);

    let peer = world.plays("peer").await;
    let member = json!({"node": "peer", "path": "/srv/x"});
    world.admin(Method::POST, &format!("{WORKSPACES}/{WS}/members"), member).await.ok(201);
    let follows = async {
        while peer.folder.tree() != folder.tree() {
            world.hub.workspaces.look_at_all();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, follows).await.expect("the member has it");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn to_know_a_hash_is_no_way_to_what_others_brought() {
    let world = World::new(StoreKind::Memory).await;
    let folder = Folder::new();
    folder.write("secret", Some(b"known by its hash to others"));
    assert_eq!(world.imports(WS, &folder).await["state"], "done");
    let transfer = id_of(&world.begin(import("stolen", &folder)).await);
    assert_eq!(world.wants(&transfer, "?wait_ms=5000").await.0, [ContentId::from(folder.tree())]);
    let asked = world.gives(&transfer, &folder, 0).await;
    assert_eq!(asked, []);
    for pack in World::packed(&folder, &[folder.tree().into()]) {
        world.send(&transfer, pack).await.ok(204);
    }
    let content = ContentId::of(b"known by its hash to others");
    assert_eq!(world.wants(&transfer, "?wait_ms=5000").await.0, [content], "the hub has it, and asks");
    let path = format!("{API}/{transfer}/missing");
    world.octets(&world.admin, Method::POST, &path, content.as_bytes().to_vec()).await.ok(204);
    assert_eq!(world.fails(&transfer).await, "conflict");
    world.get(&format!("{WORKSPACES}/stolen")).await.refused(404, "not_found");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn of_two_that_bring_one_name_the_first_that_is_whole_has_it_and_a_third_is_told_at_once() {
    let world = World::new(StoreKind::Memory).await;
    let (one, other) = (Folder::new(), Folder::new());
    one.write("أ", Some(b"of one"));
    other.write("أ", Some(b"of the other"));
    let [slow, fast] =
        [id_of(&world.begin(import(WS, &one)).await), id_of(&world.begin(import(WS, &other)).await)];
    world.gives(&slow, &one, 1).await;
    world.gives(&fast, &other, usize::MAX).await;
    assert_eq!(world.over(&fast).await["state"], "done");
    world.gives(&slow, &one, usize::MAX).await;
    assert_eq!(world.fails(&slow).await, "conflict");
    assert_eq!(world.hub.workspaces.files(WS), other.files());
    world.admin(Method::POST, API, import(WS, &one)).await.refused(409, "conflict");
    world.admin(Method::POST, WORKSPACES, json!({"name": WS})).await.refused(409, "conflict");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn an_order_that_cannot_be_is_refused_before_anything_is_sent() {
    let world = World::new(StoreKind::Memory).await;
    let folder = Folder::new();
    folder.write("f", Some(&noise(1, 1_000)));
    let order = import(WS, &folder);
    for (member, value, status, code) in [
        ("bytes_max", json!(999), 429, "quota"),
        ("bytes", json!((64_u64 << 30) + 1), 429, "quota"),
        ("entries", json!(TREE_ENTRIES_MAX + 1), 413, "too_large"),
        ("workspace", json!("a/b"), 400, "invalid_argument"),
        ("root", json!("abc"), 400, "invalid_argument"),
        ("rules", json!({"exclude": [""]}), 400, "invalid_argument"),
        ("nodes", json!(["n1"]), 400, "invalid_argument"),
    ] {
        let refused = world.admin(Method::POST, API, with(order.clone(), member, value)).await;
        refused.refused(status, code);
    }
    let bearer = format!("Bearer {}", world.admin);
    let lock = [("authorization", &*bearer), ("cortex-lock", "1")];
    world.call(Method::POST, API, &lock, Some(order.clone())).await.refused(400, "invalid_argument");
    let viewer = world.token("viewer", Role::Viewer, false, false).await;
    world.with_token(&viewer, Method::POST, API, Some(order.clone())).await.refused(403, "forbidden");
    let made = json!({"name": "files", "role": "admin", "rights": ["files:read", "files:write"]});
    let made = world.admin(Method::POST, "/api/v1/tokens", made).await.ok(201);
    let files = made["token"].as_str().expect("a token").to_owned();
    let refused =
        world.with_token(&files, Method::POST, API, Some(order.clone())).await.refused(403, "forbidden");
    assert!(refused.to_string().contains("workspaces:write"), "{refused}");
    assert_eq!(world.rows("workspace.import").await, [], "none was begun");

    // One that says less than there is.
    let order = with(with(order, "bytes", json!(1)), "bytes_max", json!(999));
    let transfer = id_of(&world.begin(order).await);
    let asked = world.gives(&transfer, &folder, usize::MAX).await;
    assert_eq!(world.fails(&transfer).await, "quota");
    assert_eq!(asked, [ContentId::from(folder.tree())], "its list tells, and no content is asked for");
    world.has_no_workspace().await;
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_token_for_workspaces_alone_imports_and_moves_nothing_else() {
    let mut world = World::new(StoreKind::Memory).await;
    let _node = world.mover("n1").await;
    let token = async |name: &str, rights: Value| {
        let made = json!({"name": name, "role": "operator", "rights": rights});
        let made = world.admin(Method::POST, "/api/v1/tokens", made).await.ok(201);
        made["token"].as_str().expect("a token").to_owned()
    };
    let alone = token("workspaces", json!(["workspaces:read", "workspaces:write"])).await;
    let [reads, writes] =
        [token("reads", json!(["files:read"])).await, token("writes", json!(["files:write"])).await];
    let pull = json!({"kind": "pull", "node": "n1", "source": "/srv/x"});
    for (token, order, lacks) in [
        (&alone, push(&["n1"], 1), "files:write"),
        (&alone, pull.clone(), "files:read"),
        (&reads, push(&["n1"], 1), "files:write"),
        (&writes, pull.clone(), "files:read"),
        (&writes, import(WS, &filled()), "workspaces:write"),
    ] {
        let refused = world.with_token(token, Method::POST, API, Some(order)).await.refused(403, "forbidden");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(lacks)), "{refused}");
    }
    assert_eq!(world.get(API).await.ok(200)["items"], json!([]), "none was begun");

    let admin = std::mem::replace(&mut world.admin, alone);
    let (folder, other) = (filled(), filled());
    assert_eq!(world.imports(WS, &folder).await["state"], "done");
    assert_eq!(world.hub.workspaces.files(WS), folder.files());
    let left = id_of(&world.begin(import("other", &other)).await);
    world.gives(&left, &other, 1).await;
    let path = format!("{API}/{left}");
    assert_eq!(world.get(API).await.ok(200)["items"].as_array().map(Vec::len), Some(2));
    // What belongs to pulls is no door of its.
    for (method, of) in [(Method::GET, "content"), (Method::POST, "wants"), (Method::POST, "end")] {
        let bearer = world.admin.clone();
        world.octets(&bearer, method, &format!("{path}/{of}"), Vec::new()).await.refused(403, "forbidden");
    }
    let gone = other.tree().as_bytes().to_vec();
    let bearer = world.admin.clone();
    world.octets(&bearer, Method::POST, &format!("{path}/missing"), gone).await.ok(204);
    world.admin(Method::DELETE, &path, Value::Null).await.ok(200);
    world.admin = admin;
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn one_that_is_cancelled_or_left_or_may_not_go_on_leaves_nothing() {
    let world = World::new(StoreKind::Memory).await;
    let folder = filled();
    let begin = async |token: &str| {
        let begun = world.with_token(token, Method::POST, API, Some(import(WS, &folder))).await.ok(202);
        id_of(&begun)
    };
    let admin = world.admin.clone();
    let cancelled = begin(&admin).await;
    world.gives_all_but_one(&cancelled, &folder).await;
    let view = world.admin(Method::DELETE, &format!("{API}/{cancelled}"), Value::Null).await.ok(200);
    assert_eq!((&view["state"], &view["nodes"][0]["state"]), (&json!("cancelled"), &json!("cancelled")));
    world.is_idle().await;
    assert!(!world.keeps(&folder), "nothing holds it");

    world.set_patience(|patience| patience.caller = Duration::from_millis(600));
    // It owes the content of the folder.
    let left = begin(&admin).await;
    world.gives(&left, &folder, 1).await;
    assert_eq!(world.fails(&left).await, "timeout");
    world.is_idle().await;
    world.set_patience(|_| ());

    let made = json!({"name": "maker", "role": "admin"});
    let made = world.admin(Method::POST, "/api/v1/tokens", made).await.ok(201);
    let (secret, token) = (made["token"].as_str().expect("a token"), id_of(&made["record"]));
    let revoked = begin(secret).await;
    let revoke = format!("/api/v1/tokens/{token}");
    assert!(world.with_token(&admin, Method::DELETE, &revoke, None).await.status.is_success());
    assert_eq!(world.fails(&revoked).await, "unauthenticated");
    world.has_no_workspace().await;
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn the_same_key_is_the_same_import_also_when_the_workspace_is_made() {
    let world = World::new(StoreKind::Memory).await;
    // The empty folder.
    let folder = Folder::new();
    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", &*bearer), ("idempotency-key", "once")];
    let begun = world.call(Method::POST, API, &headers, Some(import(WS, &folder))).await.ok(202);
    let transfer = id_of(&begun);
    world.gives(&transfer, &folder, usize::MAX).await;
    assert_eq!(world.over(&transfer).await["state"], "done");
    let again = world.call(Method::POST, API, &headers, Some(import(WS, &folder))).await.ok(202);
    assert_eq!((id_of(&again), &again["state"]), (transfer, &json!("done")));
    world.call(Method::POST, API, &headers, Some(import("other", &folder))).await.refused(409, "conflict");
    assert!(world.hub.workspaces.files(WS).is_empty());
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_hub_that_ends_in_the_middle_has_no_workspace_and_one_that_ends_afterwards_has_all_of_it() {
    let world = World::new(StoreKind::Sqlite).await;
    let folder = filled();
    let cut = id_of(&world.begin(import(WS, &folder)).await);
    world.gives_all_but_one(&cut, &folder).await;
    let restart = async |world: World| {
        let World { hub, admin, dir } = world;
        tokio::time::timeout(SOON, hub.stop()).await.expect("the hub stops in time");
        let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts");
        World { hub, admin, dir }
    };
    let world = restart(world).await;
    world.has_no_workspace().await;
    world.get(&format!("{API}/{cut}")).await.refused(404, "not_found");
    assert_eq!(world.imports(WS, &folder).await["state"], "done");
    let world = restart(world).await;
    assert_eq!(world.hub.workspaces.files(WS), folder.files());
    world.is_idle().await;
    world.stop().await;
}
