//! The library of skills of a whole hub, with nodes that the test plays.

use cortex_core::Refusal;
use cortex_core::event::EventKind;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::Revision;
use cortex_core::limits::{SKILL_FILES_MAX, SKILL_TEXT_BYTES_MAX};
use cortex_core::subscribers::{Filter, Item};
use cortex_core::sync::{Problem, RootState, Why};
use cortex_core::transfer::{Noted, PathNote};
use cortex_core::workspace::{Mode, Rules};
use cortex_store::blobs::Rules as Sweeping;

use super::workspaces::Played;
use super::*;
use crate::service::skills::{Found, Order, Part, Promoted, Source};
use crate::service::workspaces::New;
use crate::workers::chunks::collect_once;

#[cfg(feature = "failpoints")]
mod kill;
mod mounts;

const API: &str = "/api/v1/skills";
const TEXT: &[u8] = "# يبني المشروع\n".as_bytes();

fn order(node: &str, expect: Option<u64>) -> Order {
    let path = FilePath::parse("/srv/مهارة").expect("a path");
    Order {
        name: Name::parse("build").expect("a name"),
        source: Source::Node { node: node.to_owned(), path },
        expect: expect.map(Revision),
    }
}

impl World {
    async fn promote(&self, node: &Played, expect: Option<u64>) -> Result<Promoted, Refusal> {
        self.hub.skills.promote(&self.caller(), order(node.name(), expect)).await
    }

    /// The content of a file of the newest revision.
    async fn text(&self, path: &str) -> Vec<u8> {
        let path = RelPath::parse(path).expect("a path");
        let read = self.hub.skills.read(&self.caller(), "build", None, path, Part::default()).await;
        match read.expect("it is there").found {
            Found::File { bytes, .. } => bytes,
            other @ (Found::Dir(_) | Found::Link(_)) => panic!("{other:?}"),
        }
    }

    /// A collection that spares nothing that no row names.
    async fn collect(&self) {
        let rules = Sweeping { young_ms: 0, condemned_ms: 0, live_percent_min: 100, ..Sweeping::default() };
        for _ in 0..3 {
            collect_once(&self.hub.context, &self.hub.chunks, rules).await.expect("collected");
        }
    }
}

#[tokio::test]
async fn a_folder_with_a_skill_md_becomes_a_revision_and_the_same_content_makes_none() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("SKILL.md", Some(TEXT));
    one.folder.write("bin/ابن.sh", Some(b"make"));
    let first = world.promote(&one, None).await.expect("promoted");
    assert_eq!(
        (first.row.n, first.already, first.files, first.bytes),
        (Revision(1), false, 2, 4 + TEXT.len() as u64)
    );
    assert_eq!(world.text("SKILL.md").await, TEXT);
    let again = world.promote(&one, Some(0)).await.expect("it is there");
    assert_eq!((again.row.n, again.already), (Revision(1), true));
    one.folder.write("bin/ابن.sh", Some(b"make all"));
    let second = world.promote(&one, Some(1)).await.expect("promoted");
    assert_eq!((second.row.n, second.already), (Revision(2), false));
    let late = world.promote(&one, Some(0)).await.expect("the content of the newest one");
    assert!(late.already);
    one.folder.write("bin/ابن.sh", Some(b"other"));
    let refused = world.promote(&one, Some(1)).await.expect_err("it saw another one");
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.message.contains("revision 2") && refused.message.contains("token:admin"), "{refused:?}");
    world.stop().await;
}

#[tokio::test]
async fn what_the_newest_revision_has_at_its_place_is_not_sent_again() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    let mut large = vec![0; 900_000];
    blake3::Hasher::new().finalize_xof().fill(&mut large);
    one.folder.write("SKILL.md", Some(TEXT));
    one.folder.write("large", Some(&large));
    world.promote(&one, None).await.expect("promoted");
    one.folder.sent.lock().expect("no panic").clear();
    one.folder.write("SKILL.md", Some(b"another"));
    world.promote(&one, None).await.expect("promoted");
    let sent = one.folder.sent.lock().expect("no panic").clone();
    assert!(!sent.contains(&cortex_core::files::content::ContentId::of(&large)), "{sent:?}");
    assert_eq!(world.text("large").await.len(), SKILL_TEXT_BYTES_MAX, "an answer is bounded");
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_skill_is_refused_with_a_reason_and_a_way_on() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    let mut refused = Vec::new();
    let mut hear = async |what: &str| {
        let refusal = world.promote(&one, None).await.expect_err(what);
        assert!(!refusal.hint.is_empty(), "{what}: {refusal:?}");
        refused.push(refusal.code);
    };
    one.folder.write("readme", Some(b"x"));
    hear("no SKILL.md").await;
    one.folder.write("SKILL.md", Some(b"caf\xe9"));
    hear("no text").await;
    one.folder.write("SKILL.md", Some(&vec![b'a'; SKILL_TEXT_BYTES_MAX + 1]));
    hear("a long text").await;
    one.folder.write("SKILL.md", None);
    one.folder.write("SKILL.md/SKILL.md", Some(b"x"));
    hear("a folder").await;
    one.folder.write("SKILL.md", None);
    one.folder.write("SKILL.md", Some(TEXT));
    one.folder.link("out", "../secret");
    hear("a link that leads out").await;
    one.folder.write("out", None);
    let path = RelPath::parse("hidden").expect("a path");
    let what = Noted::Held(Why::Blocked(Problem::Unreadable));
    *one.folder.held.lock().expect("no panic") = vec![PathNote { path: path.clone(), what }];
    hear("a file that cannot be read").await;
    *one.folder.state.lock().expect("no panic") = RootState::Missing;
    hear("nothing there").await;
    *one.folder.state.lock().expect("no panic") = RootState::OtherKind;
    hear("a file").await;
    *one.folder.state.lock().expect("no panic") = RootState::Dir;
    let invalid = Code::InvalidArgument;
    let expected = [
        invalid,
        invalid,
        Code::TooLarge,
        invalid,
        Code::UnsupportedEntry,
        Code::UnsupportedEntry,
        Code::NotFound,
        invalid,
    ];
    assert_eq!(refused, expected);
    assert!(world.hub.skills.list(&world.caller()).await.expect("told").is_empty(), "nothing came of it");
    // What its owner has ignored is no part of it, and no reason against it.
    *one.folder.held.lock().expect("no panic") = vec![PathNote { path, what: Noted::Held(Why::Ignored) }];
    assert_eq!(world.promote(&one, None).await.expect("promoted").row.n, Revision(1));
    world.stop().await;
}

#[tokio::test]
async fn who_promotes_a_folder_that_changes_on_the_way_is_told_to_do_it_again() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("SKILL.md", Some(TEXT));
    *one.folder.gone.lock().expect("no panic") = [cortex_core::files::content::ContentId::of(TEXT)].into();
    let refused = world.promote(&one, None).await.expect_err("it changed");
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.hint.contains("Do it again"), "{refused:?}");
    assert!(!refused.message.contains("looked at again"), "nobody looks by itself: {refused:?}");
    one.folder.gone.lock().expect("no panic").clear();
    assert_eq!(world.promote(&one, None).await.expect("promoted").row.n, Revision(1));
    world.stop().await;
}

#[tokio::test]
async fn a_tree_of_too_many_files_is_refused_before_it_is_sent() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("SKILL.md", Some(TEXT));
    one.folder.many(SKILL_FILES_MAX);
    let refused = world.promote(&one, None).await.expect_err("too many");
    assert_eq!(refused.code, Code::TooLarge);
    assert!(one.folder.sent.lock().expect("no panic").is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_folder_of_a_workspace_is_promoted_as_its_newest_revision_has_it() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("skills/build/SKILL.md", Some(TEXT));
    one.folder.write("other", Some(b"x"));
    let first = Some(("one".to_owned(), FilePath::parse("/srv/مشروع").expect("a path")));
    let name = Name::parse("notes").expect("a name");
    let new = New { name, mode: Mode::HubPrimary, rules: Rules::default(), bytes_max: None, first };
    let made = world.hub.workspaces.create(&world.caller(), new).await.expect("made");
    let has_all = async {
        while world.hub.workspaces.files("notes").len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, has_all).await.expect("in time");
    let promote = async |path: &str| {
        let path = if path.is_empty() { RelPath::root() } else { RelPath::parse(path).expect("a path") };
        let source = Source::Workspace { name: "notes".to_owned(), path };
        world.hub.skills.promote(&world.caller(), Order { source, ..order("one", None) }).await
    };
    let promoted = promote("skills/build").await.expect("promoted");
    assert_eq!((promoted.row.n, promoted.row.from), (Revision(1), Some(made.ws.id)));
    for (path, code) in [
        ("", Code::InvalidArgument),
        ("skills", Code::InvalidArgument),
        ("other", Code::InvalidArgument),
        ("nothing", Code::NotFound),
    ] {
        assert_eq!(promote(path).await.expect_err(path).code, code, "{path}");
    }
    // The workspace ends, and all that nothing names: the skill stays whole.
    world.hub.workspaces.remove(&world.caller(), "notes", None).await.expect("removed");
    let id = made.ws.id;
    world.write(move |tx| Ok(tx.remove_workspace(id).map(drop)?)).await;
    world.collect().await;
    assert_eq!(world.text("SKILL.md").await, TEXT);
    world.stop().await;
}

#[tokio::test]
async fn a_collection_keeps_every_revision_that_is_listed_and_a_removed_skill_begins_anew() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    for round in 0..3_u8 {
        one.folder.write("SKILL.md", Some(&[b'a' + round; 2_000]));
        world.promote(&one, None).await.expect("promoted");
    }
    world.collect().await;
    let shown = world.hub.skills.show(&world.caller(), "build").await.expect("it is there");
    assert_eq!(shown.revisions.iter().map(|row| row.n.0).collect::<Vec<_>>(), [3, 2, 1]);
    for row in &shown.revisions {
        let pin = world.hub.chunks.pin().expect("a pin");
        world.hub.chunks.whole(row.tree, &pin).expect("whole");
    }
    let before = world.hub.chunks.blobs().figures().expect("told").chunks;
    world.hub.skills.remove(&world.caller(), "build").await.expect("removed");
    world.hub.skills.remove(&world.caller(), "build").await.expect_err("once");
    world.hub.skills.show(&world.caller(), "build").await.expect_err("it is gone");
    world.collect().await;
    assert!(world.hub.chunks.blobs().figures().expect("told").chunks < before, "its content goes");
    let anew = world.promote(&one, Some(0)).await.expect("promoted");
    assert_eq!((anew.row.n, anew.already), (Revision(4), false));
    // What was before may be gone, and is not listed; the next collections do not stumble over it.
    world.collect().await;
    let shown = world.hub.skills.show(&world.caller(), "build").await.expect("it is there");
    assert_eq!(shown.revisions.iter().map(|row| row.n.0).collect::<Vec<_>>(), [4]);
    world.stop().await;
}

#[tokio::test]
async fn r16_3_promotion_and_removal_are_events_on_the_bus_in_the_store_and_in_the_audit_log() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("SKILL.md", Some(TEXT));
    let kinds = vec![EventKind::SkillPromoted, EventKind::SkillRemoved];
    let (mut heard, _) =
        world.hub.context.bus.subscribe(Filter { kinds, ..Filter::default() }).expect("room");
    world.promote(&one, None).await.expect("promoted");
    world.promote(&one, None).await.expect("already, and no event");
    world.hub.skills.remove(&world.caller(), "build").await.expect("removed");
    for (kind, detail) in [(EventKind::SkillPromoted, "1"), (EventKind::SkillRemoved, "1")] {
        let next = tokio::time::timeout(SOON, heard.next()).await.expect("in time");
        let Some(Item::Event(_, event)) = next else { panic!("{next:?}") };
        let told = (event.kind, event.subject.as_deref(), event.detail.as_deref());
        assert_eq!(told, (kind, Some("build"), Some(detail)));
        assert_eq!(event.actor.as_deref(), Some("token:admin"));
    }
    let audit = world.get("/api/v1/audit?limit=1000").await.ok(200);
    let rows = audit["items"].as_array().expect("rows").iter();
    let skills: Vec<_> =
        rows.filter(|row| row["action"].as_str().is_some_and(|a| a.starts_with("skill."))).collect();
    assert_eq!(skills.len(), 3, "{skills:?}");
    assert_eq!(skills.iter().filter(|row| row["argv"][1] == "one:/srv/مهارة").count(), 2, "{skills:?}");
    world.stop().await;
}

#[tokio::test]
async fn who_may_not_read_the_folder_promotes_nothing_of_it() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("SKILL.md", Some(TEXT));
    let body = serde_json::json!({"from": "one:/srv/مهارة"});
    let path = format!("{API}/build/promote");
    let viewer = world.person("vi", &[("viewer", "")]).await;
    world.with_token(&viewer, Method::POST, &path, Some(body.clone())).await.refused(403, "forbidden");
    // She operates other nodes.
    let other = world.person("ada", &[("operator", "role=other")]).await;
    world.with_token(&other, Method::POST, &path, Some(body.clone())).await.refused(403, "forbidden");
    world.admin(Method::PUT, "/api/v1/policies/one", serde_json::json!({"profile": "strict"})).await.ok(200);
    let refused = world.admin(Method::POST, &path, body).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    let audit = world.get("/api/v1/audit?limit=1000").await.ok(200);
    let denied = |row: &&Value| row["action"] == "skill.promote" && row["outcome"] == "denied";
    assert_eq!(audit["items"].as_array().expect("rows").iter().filter(denied).count(), 1, "{audit}");
    assert!(one.folder.sent.lock().expect("no panic").is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_skill_is_promoted_listed_read_and_removed_over_http() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("SKILL.md", Some(TEXT));
    one.folder.write("bin/run", Some(b"\xff\x00"));
    assert_eq!(world.get(API).await.ok(200)["items"], serde_json::json!([]));
    let promote = format!("{API}/build/promote");
    let from = serde_json::json!({"from": "one:/srv/مهارة", "expect": 0});
    let told = world.admin(Method::POST, &promote, from.clone()).await.ok(201);
    assert_eq!((&told["revision"], &told["already"], &told["files"]), (&1.into(), &false.into(), &2.into()));
    assert_eq!(world.admin(Method::POST, &promote, from).await.ok(200)["already"], true);
    for bad in [
        serde_json::json!({}),
        serde_json::json!({"from": "one"}),
        serde_json::json!({"from": "one:/x", "path": "y"}),
        serde_json::json!({"from": "one:/x", "workspace": "y"}),
        serde_json::json!({"from": "one:x"}),
    ] {
        let refused = world.admin(Method::POST, &promote, bad.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad}: {refused:?}");
    }
    let bad_name = format!("{API}/a%20b/promote");
    let body = serde_json::json!({"from": "one:/x"});
    assert_eq!(world.admin(Method::POST, &bad_name, body).await.status, StatusCode::BAD_REQUEST);
    let list = world.get(API).await.ok(200);
    assert_eq!(
        (&list["items"][0]["name"], &list["items"][0]["by"]),
        (&"build".into(), &"token:admin".into())
    );
    let shown = world.get(&format!("{API}/build")).await.ok(200);
    assert_eq!(
        (&shown["revisions"][0]["revision"], &shown["bytes"]),
        (&1.into(), &(TEXT.len() + 2).into()),
        "{shown}"
    );
    let files = format!("{API}/build/files");
    let text = world.get(&files).await.ok(200);
    assert_eq!((&text["path"], &text["text"]), (&"SKILL.md".into(), &"# يبني المشروع\n".into()), "{text}");
    // A part ends with a whole letter.
    let part = world.get(&format!("{files}?limit=3")).await.ok(200);
    assert_eq!((&part["text"], &part["next_offset"]), (&"# ".into(), &2.into()), "{part}");
    let binary = world.get(&format!("{files}?path=bin/run")).await.ok(200);
    assert_eq!((&binary["data_base64"], &binary["text"]), (&"/wA=".into(), &Value::Null), "{binary}");
    let dir = world.get(&format!("{files}?path=&limit=1")).await.ok(200);
    assert_eq!((&dir["entries"][0]["name"], &dir["next_cursor"]), (&"SKILL.md".into(), &"SKILL.md".into()));
    let rest = world.get(&format!("{files}?path=&cursor=SKILL.md")).await.ok(200);
    assert_eq!((&rest["entries"][0]["name"], &rest["next_cursor"]), (&"bin".into(), &Value::Null), "{rest}");
    world.get(&format!("{files}?path=../x")).await.refused(400, "bad_path");
    world.get(&format!("{files}?path=none")).await.refused(404, "not_found");
    world.get(&format!("{files}?revision=9")).await.refused(404, "not_found");
    world.get(&format!("{API}/none")).await.refused(404, "not_found");
    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", &*bearer)];
    world.call(Method::DELETE, &format!("{API}/build"), &headers, None).await.ok(204);
    world.call(Method::DELETE, &format!("{API}/build"), &headers, None).await.refused(404, "not_found");
    world.get(&files).await.refused(404, "not_found");
    world.stop().await;
}
