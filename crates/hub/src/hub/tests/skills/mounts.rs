//! Folders of played nodes that follow a skill.

use cortex_core::limits::PROTOCOL_WATCH;
use cortex_core::watch::Sight;

use super::*;
use crate::hub::tests::workspaces::watches::rest;
use crate::service::skills::mounts::{ShownMount, Standing};
use crate::transfer::played::Folder;

const PATH: &str = "/srv/.skills/بناء";

impl World {
    async fn mounts(&self, node: &Played, pin: Option<u64>) -> Result<ShownMount, Refusal> {
        let place = (node.name(), FilePath::parse(PATH).expect("a path"));
        self.hub.skills.mount(&self.caller(), "build", place, pin.map(Revision)).await
    }

    /// Until the only mount on this node stands so.
    async fn mount_stands(
        &self,
        node: &Played,
        what: &str,
        is_so: impl Fn(&ShownMount) -> bool,
    ) -> ShownMount {
        let wait = async {
            loop {
                self.hub.skills.look_at_all();
                tokio::time::sleep(Duration::from_millis(50)).await;
                let shown = self.hub.skills.mounts(&self.caller(), "build").expect("told");
                if let Some(mount) = shown.into_iter().find(|mount| mount.node == node.name() && is_so(mount))
                {
                    return mount;
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        waited.unwrap_or_else(|_| panic!("{what}: {:#?}", self.hub.skills.mounts(&self.caller(), "build")))
    }

    async fn is_at(&self, node: &Played, n: u64) -> ShownMount {
        let is_so = |mount: &ShownMount| {
            mount.standing == Standing::InSync && mount.mount.reached.is_some_and(|(at, _)| at.0 == n)
        };
        self.mount_stands(node, &format!("at {n}"), is_so).await
    }
}

fn text(folder: &Folder) -> Vec<u8> {
    folder.files()["SKILL.md"].clone()
}

#[tokio::test]
async fn a_mounted_folder_follows_the_newest_revision_or_stays_at_one() {
    let world = World::new(StoreKind::Memory).await;
    let (author, follower, pinned) =
        (world.plays("author").await, world.plays("follower").await, world.plays("pinned").await);
    assert_eq!(world.mounts(&follower, None).await.expect_err("no such skill").code, Code::NotFound);
    author.folder.write("SKILL.md", Some(b"one"));
    author.folder.write("old", Some(b"goes"));
    world.promote(&author, None).await.expect("promoted");
    assert_eq!(world.mounts(&pinned, Some(2)).await.expect_err("no such revision").code, Code::NotFound);
    world.mounts(&pinned, Some(1)).await.expect("mounted");
    world.mounts(&follower, None).await.expect("mounted");
    world.is_at(&follower, 1).await;
    world.is_at(&pinned, 1).await;
    assert_eq!(follower.folder.files(), author.folder.files());
    author.folder.write("SKILL.md", Some(b"two"));
    author.folder.write("old", None);
    world.promote(&author, None).await.expect("promoted");
    world.is_at(&follower, 2).await;
    assert_eq!(follower.folder.files(), author.folder.files(), "what is no part of it goes");
    assert_eq!(text(&pinned.folder), b"one");
    // While a folder follows it the skill stays, and no two write one folder.
    let refused = world.hub.skills.remove(&world.caller(), "build").await.expect_err("it is mounted");
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(world.mounts(&follower, None).await.expect_err("twice").code, Code::Conflict);
    let first = Some(("follower".to_owned(), FilePath::parse("/srv").expect("a path")));
    let name = Name::parse("notes").expect("a name");
    let new = New { name, mode: Mode::HubPrimary, rules: Rules::default(), bytes_max: None, first };
    let refused =
        world.hub.workspaces.create(&world.caller(), new).await.expect_err("it has the mount in it");
    assert_eq!(refused.code, Code::Conflict);
    for node in [&follower, &pinned] {
        let place = (node.name(), FilePath::parse(PATH).expect("a path"));
        world.hub.skills.unmount(&world.caller(), "build", place.clone()).await.expect("unmounted");
        world.hub.skills.unmount(&world.caller(), "build", place).await.expect_err("once");
    }
    assert!(follower.folder.files().contains_key("SKILL.md"), "the folder stays");
    world.hub.skills.remove(&world.caller(), "build").await.expect("nothing follows it");
    world.stop().await;
}

#[tokio::test]
async fn what_a_node_changes_in_a_mount_never_reaches_the_library_and_is_drift() {
    let world = World::new(StoreKind::Memory).await;
    let (author, follower) = (world.plays("author").await, world.plays("follower").await);
    author.folder.write("SKILL.md", Some(b"of the library"));
    world.promote(&author, None).await.expect("promoted");
    let kinds = vec![EventKind::DriftFound, EventKind::DriftCleared];
    let (mut heard, _) =
        world.hub.context.bus.subscribe(Filter { kinds, ..Filter::default() }).expect("room");
    world.mounts(&follower, None).await.expect("mounted");
    world.is_at(&follower, 1).await;
    let before = world.hub.skills.show(&world.caller(), "build").await.expect("it is there");
    follower.folder.sent.lock().expect("no panic").clear();
    follower.folder.write("SKILL.md", Some(b"of the node"));
    follower.folder.write("more", Some(b"x"));
    world.mount_stands(&follower, "it drifts", |mount| mount.standing == Standing::Drifted).await;
    assert_eq!(text(&follower.folder), b"of the library", "what it was is back");
    let kept = follower.folder.files();
    assert!(kept.values().any(|content| content == b"of the node"), "and its own is kept beside: {kept:?}");
    let Some(Item::Event(_, event)) = tokio::time::timeout(SOON, heard.next()).await.expect("in time") else {
        panic!("no event")
    };
    let told = (event.kind, event.subject.as_deref(), event.detail.as_deref(), event.node);
    let id =
        world.hub.context.directory.node_named(&Name::parse("follower").expect("a name")).expect("known").id;
    assert_eq!(told, (EventKind::DriftFound, Some("build"), Some(PATH), Some(id)));
    let mine: Vec<String> = kept.keys().filter(|path| *path != "SKILL.md").cloned().collect();
    mine.iter().for_each(|path| follower.folder.write(path, None));
    world.is_at(&follower, 1).await;
    // A file that is removed comes back, and that is told as well.
    follower.folder.write("SKILL.md", None);
    let back = async {
        while !follower.folder.files().contains_key("SKILL.md") {
            world.hub.skills.look_at_all();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("in time");
    world.is_at(&follower, 1).await;
    let after = world.hub.skills.show(&world.caller(), "build").await.expect("it is there");
    assert_eq!(after, before, "nothing of it reached the library");
    assert!(follower.folder.sent.lock().expect("no panic").is_empty(), "nothing of it was ever asked for");
    world.stop().await;
}

#[tokio::test]
async fn a_mount_goes_on_after_a_restart_and_needs_the_policy_of_its_node() {
    let world = World::new(StoreKind::Sqlite).await;
    let (author, follower) = (world.plays("author").await, world.plays("follower").await);
    author.folder.write("SKILL.md", Some(b"one"));
    world.promote(&author, None).await.expect("promoted");
    world.mounts(&follower, None).await.expect("mounted");
    let World { hub, admin, dir } = world;
    tokio::time::timeout(SOON, hub.stop()).await.expect("the hub stops in time");
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts");
    let world = World { hub, admin, dir };
    let waits = world.hub.skills.mounts(&world.caller(), "build").expect("told");
    assert_eq!(waits.iter().map(|mount| mount.standing).collect::<Vec<_>>(), [Standing::Offline]);
    world.up(&follower).await;
    world.is_at(&follower, 1).await;
    // Nothing is written any more once the policy does not allow it.
    let strict = serde_json::json!({"profile": "strict"});
    world.admin(Method::PUT, "/api/v1/policies/follower", strict).await.ok(200);
    world.up(&author).await;
    author.folder.write("SKILL.md", Some(b"two"));
    world.promote(&author, None).await.expect("promoted");
    let refused = |mount: &ShownMount| {
        let codes = [Code::PolicyDenied, Code::PathOutsideRoots];
        mount.trouble.as_ref().is_some_and(|refusal| codes.contains(&refusal.code))
    };
    world.mount_stands(&follower, "it is refused", refused).await;
    assert_eq!(text(&follower.folder), b"one");
    world.stop().await;
}

#[tokio::test]
async fn a_mount_is_made_shown_and_given_up_over_http() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("SKILL.md", Some(TEXT));
    world.promote(&one, None).await.expect("promoted");
    let mounts = format!("{API}/build/mounts");
    let body = serde_json::json!({"node": "one", "path": PATH});
    let made = world.admin(Method::POST, &mounts, body.clone()).await.ok(201);
    assert_eq!((&made["node"], &made["path"], &made["revision"]), (&"one".into(), &PATH.into(), &0.into()));
    world.admin(Method::POST, &mounts, body).await.refused(409, "conflict");
    world.is_at(&one, 1).await;
    let shown = world.get(&mounts).await.ok(200);
    assert_eq!((&shown[0]["state"], &shown[0]["revision"]), (&"in_sync".into(), &1.into()), "{shown}");
    let viewer = world.person("vi", &[("viewer", "")]).await;
    let body = serde_json::json!({"node": "one", "path": "/x"});
    world.with_token(&viewer, Method::POST, &mounts, Some(body)).await.refused(403, "forbidden");
    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", &*bearer)];
    let gone = format!("{mounts}?node=one&path=/srv/.skills/%D8%A8%D9%86%D8%A7%D8%A1");
    world.call(Method::DELETE, &gone, &headers, None).await.ok(204);
    world.call(Method::DELETE, &gone, &headers, None).await.refused(404, "not_found");
    assert_eq!(world.get(&mounts).await.ok(200), serde_json::json!([]));
    let audit = world.get("/api/v1/audit?limit=1000").await.ok(200);
    let rows = audit["items"].as_array().expect("rows").iter();
    let told: Vec<&Value> = rows
        .map(|row| &row["action"])
        .filter(|action| action.as_str().is_some_and(|a| a.contains("mount")))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_mount_is_watched_put_right_when_a_change_is_told_and_not_looked_at_while_it_rests() {
    let world = World::new(StoreKind::Memory).await;
    let author = world.plays("author").await;
    author.folder.write("SKILL.md", Some(b"of the library"));
    world.promote(&author, None).await.expect("promoted");
    let (follower, link) = world.sees("follower", PROTOCOL_WATCH).await;
    world.mounts(&follower.played, None).await.expect("mounted");
    world.soon("it is asked to watch", || follower.watches().len() == 1).await;
    let id = follower.watches()[0];
    world.tells(&link, id, Sight::Watching);
    rest().await;
    let before = follower.looks();
    rest().await;
    assert_eq!(follower.looks(), before, "at rest");
    follower.played.folder.write("SKILL.md", Some(b"of the node"));
    world.tells(&link, id, Sight::Changed);
    world.soon("it is put right", || text(&follower.played.folder) == b"of the library").await;
    let place = ("follower", FilePath::parse(PATH).expect("a path"));
    world.hub.skills.unmount(&world.caller(), "build", place).await.expect("unmounted");
    world.soon("it is watched no more", || follower.watches().is_empty()).await;
    world.stop().await;
}
