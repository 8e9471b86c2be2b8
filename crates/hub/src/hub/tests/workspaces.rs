//! Workspaces of a whole hub, with nodes that the test plays: their folders are trees in memory, and they plan
//! with the planner of all nodes.

use cortex_core::files::path::FilePath;
use cortex_core::limits::WORKSPACE_LOCK_MS_MIN;
use cortex_core::sync::RootState;
use cortex_core::transfer::{Noted, PathNote, TransferEnd, TransferNews, TransferWork};
use cortex_core::workspace::{MemberState, Mode, Role, Rules};
use cortex_store::blobs::{Root, Rules as Sweeping, Sweep};

use super::*;
use crate::service::workspaces::{New, Resync, Shown};
use crate::transfer::played::{Folder, open};

mod mirror;
mod told;
pub(super) mod watches;

/// Nothing here takes that long unless it hangs.
const LONG: Duration = Duration::from_secs(60);
const WS: &str = "notes";

/// A node with one folder.
pub(super) struct Played {
    name: &'static str,
    id: NodeId,
    pub(super) folder: Arc<Folder>,
}

impl Played {
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }
}

impl World {
    pub(super) async fn plays(&self, name: &'static str) -> Played {
        // One that a hub before this one knew has its policy.
        let id = match self.hub.context.directory.node_named(&Name::parse(name).expect("a name")) {
            Some(node) => node.id,
            None => {
                let id = self.node(name).await;
                let path = format!("/api/v1/policies/{name}");
                self.admin(Method::PUT, &path, serde_json::json!({"profile": "permissive"})).await.ok(200);
                id
            }
        };
        let played = Played { name, id, folder: Folder::new() };
        self.up(&played).await;
        played
    }

    /// The node dials.
    pub(super) async fn up(&self, played: &Played) -> Arc<Link> {
        let (link, mesh, folder) =
            (self.attach(played.id).await, self.hub.mesh.clone(), Arc::clone(&played.folder));
        let dialled = Arc::clone(&link);
        tokio::spawn(async move {
            while let Some(Outgoing::Message(Envelope { message, .. })) =
                std::future::poll_fn(|context| link.poll_out(context)).await
            {
                let ToNode::TransferAsk(ask) = message else { continue };
                let (link, mesh, folder) = (Arc::clone(&link), mesh.clone(), Arc::clone(&folder));
                tokio::spawn(async move { answer(&mesh, &link, &folder, *ask).await });
            }
        });
        dialled
    }

    /// The node goes.
    async fn away(&self, played: &Played) {
        let link = self.up(played).await;
        self.hub.mesh.detach(&link);
    }

    fn new_ws(&self, mode: Mode, first: &Played) -> New {
        let path = FilePath::parse("/srv/مشروع").expect("a path");
        New {
            name: Name::parse(WS).expect("a name"),
            mode,
            rules: Rules::default(),
            bytes_max: None,
            first: Some((first.name.to_owned(), path)),
        }
    }

    async fn create(&self, mode: Mode, first: &Played) {
        self.hub.workspaces.create(&self.caller(), self.new_ws(mode, first)).await.expect("made");
    }

    async fn join(&self, played: &Played, role: Role) {
        let path = FilePath::parse("/srv/مشروع").expect("a path");
        let place = (played.name, path);
        self.hub.workspaces.attach(&self.caller(), WS, place, role).await.expect("attached");
    }

    fn shown(&self) -> Shown {
        self.hub.workspaces.status(&self.caller(), WS).expect("it is there")
    }

    /// Until `is_so` holds; folders are looked at all the time.
    async fn shows(&self, what: &str, is_so: impl Fn(&Shown) -> bool) -> Shown {
        let wait = async {
            loop {
                self.hub.workspaces.look_at_all();
                tokio::time::sleep(Duration::from_millis(50)).await;
                let shown = self.shown();
                if is_so(&shown) {
                    return shown;
                }
            }
        };
        let waited = tokio::time::timeout(LONG, wait).await;
        waited.unwrap_or_else(|_| panic!("{what}: {:#?}", self.shown()))
    }

    /// Until all members have what the hub has, as their folders say and not only the rows.
    async fn converges(&self, nodes: &[&Played]) {
        let same = |shown: &Shown| {
            let trees = nodes.iter().all(|node| node.folder.tree() == shown.ws.tree);
            trees && shown.members.iter().all(|member| member.state == MemberState::InSync)
        };
        self.shows("it converges", same).await;
        let files = self.hub.workspaces.files(WS);
        for node in nodes {
            assert_eq!(node.folder.files(), files, "{}", node.name);
        }
    }
}

async fn answer(mesh: &Mesh, link: &Link, folder: &Arc<Folder>, ask: cortex_core::transfer::TransferAsk) {
    if let TransferWork::Apply(apply) = &ask.work
        && apply.target == folder.tree()
    {
        let end = TransferEnd { root: Some(apply.target), ..TransferEnd::default() };
        mesh.transfer_news(link, TransferNews { id: ask.id, end: Ok(Box::new(end)) });
        return;
    }
    // One that is asked by a hub that is gone finds its ticket gone.
    let Ok(redeemed) = mesh.redeem(ask.ticket, link.node(), link.epoch()) else { return };
    let (give, stream, clerk) = open(redeemed);
    if give.send(stream).is_err() {
        return;
    }
    match &ask.work {
        TransferWork::Send(_) => folder.send(clerk).await,
        TransferWork::Apply(apply) => drop(folder.apply(clerk, apply).await),
    }
}

fn state_of(shown: &Shown, node: &str) -> MemberState {
    shown.members.iter().find(|member| member.node == node).expect("a member").state
}

#[tokio::test]
async fn hub_and_two_peers_become_the_same_whoever_writes_what() {
    let world = World::new(StoreKind::Memory).await;
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    one.folder.write("src/أ.rs", Some(b"of one"));
    world.create(Mode::HubPrimary, &one).await;
    two.folder.write("readme", Some(b"of two"));
    world.join(&two, Role::Peer).await;
    world.converges(&[&one, &two]).await;
    assert_eq!(one.folder.files().len(), 2);
    for round in 0_u8..6 {
        one.folder.write(&format!("src/{round}"), Some(&[round; 100]));
        two.folder.write("readme", Some(&[round, 2]));
        world.hub.workspaces.edit(WS, &format!("hub/{}", round % 2), Some(&[round; 9])).await;
        if round % 3 == 2 {
            two.folder.write("src/0", None);
        }
        if round % 2 == 0 {
            world.hub.workspaces.look_at_all();
            tokio::time::sleep(Duration::from_millis(30 * u64::from(round))).await;
            one.folder.write("src/أ.rs", Some(&[round, 1]));
        }
        world.converges(&[&one, &two]).await;
    }
    let files = one.folder.files();
    assert_eq!(files["readme"], [5, 2]);
    assert_eq!(files["src/أ.rs"], [4, 1]);
    assert_eq!(files["hub/1"], [5; 9]);
    assert!(!files.contains_key("src/0"));
    // Both change one path: neither version is lost.
    one.folder.write("readme", Some(b"one says"));
    two.folder.write("readme", Some(b"two says"));
    let both = |shown: &Shown| {
        let is_same = [&one, &two].iter().all(|node| node.folder.tree() == shown.ws.tree);
        let settled = |state| matches!(state, MemberState::InSync | MemberState::Conflict);
        is_same
            && shown.members.iter().all(|member| settled(member.state))
            && one.folder.files().len() > files.len()
    };
    world.shows("both are kept", both).await;
    let kept: Vec<Vec<u8>> = one.folder.files().into_values().collect();
    assert!(kept.contains(&b"one says".to_vec()) && kept.contains(&b"two says".to_vec()));
    world.stop().await;
}

#[tokio::test]
async fn what_the_lead_changes_reaches_followers_and_what_they_change_is_drift_until_it_is_repaired() {
    let world = World::new(StoreKind::Memory).await;
    let (lead, follower) = (world.plays("lead").await, world.plays("follower").await);
    lead.folder.write("a/b", Some(b"first"));
    lead.folder.write("c", Some(b"c"));
    world.create(Mode::NodePrimary, &lead).await;
    world.join(&follower, Role::Follower).await;
    world.converges(&[&lead, &follower]).await;
    lead.folder.write("a/b", Some(b"second"));
    world.converges(&[&lead, &follower]).await;
    assert_eq!(follower.folder.files()["a/b"], b"second");

    follower.folder.write("a/b", Some(b"its own\n"));
    world.shows("it drifts", |shown| state_of(shown, "follower") == MemberState::Drifted).await;
    let drift = world.hub.workspaces.drift(&world.caller(), WS, &["follower".to_owned()], true).await;
    let drift = drift.expect("told").pop().expect("one member");
    assert_eq!(drift.error, None);
    assert_eq!(drift.paths.iter().map(|path| path.path.as_str()).collect::<Vec<_>>(), ["a/b"]);
    let diff = drift.paths[0].diff.as_ref().expect("both are text");
    assert!(diff.text.contains("-second") && diff.text.contains("+its own"), "{}", diff.text);
    lead.folder.write("c", Some(b"changed"));
    world.shows("the rest goes on", |_| follower.folder.files()["c"] == b"changed").await;
    assert_eq!(follower.folder.files()["a/b"], b"its own\n", "what it changed stays");
    assert_eq!(lead.folder.files()["a/b"], b"second", "and reaches nobody");

    let order = Resync { members: vec!["follower".to_owned()], repair: true, ..Resync::default() };
    world.hub.workspaces.resync(&world.caller(), WS, order).await.expect("asked for");
    world.shows("it is repaired", |_| follower.folder.files()["a/b"] == b"second").await;
    let copies = follower.folder.files();
    assert!(copies.values().any(|content| content == b"its own\n"), "its own is kept beside: {copies:?}");
    world.stop().await;
}

#[tokio::test]
async fn an_emptied_folder_halts_and_goes_on_when_somebody_lets_it_pass() {
    let world = World::new(StoreKind::Memory).await;
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    for number in 0..5 {
        one.folder.write(&format!("f{number}"), Some(b"x"));
    }
    world.create(Mode::HubPrimary, &one).await;
    world.join(&two, Role::Peer).await;
    world.converges(&[&one, &two]).await;
    for number in 0..5 {
        one.folder.write(&format!("f{number}"), None);
    }
    let shown = world.shows("it halts", |shown| state_of(shown, "one") == MemberState::Halted).await;
    assert_eq!(two.folder.files().len(), 5, "nothing was removed elsewhere");
    let halt = shown.members.iter().find_map(|member| member.member.halt.clone()).expect("a halt");
    let order = |halt| Resync { accept: Some(halt), ..Resync::default() };
    world.hub.workspaces.resync(&world.caller(), WS, order(halt.id)).await.expect("it is its id");
    // What the hub has is empty now: each node that is to follow asks by itself.
    let shown = world.shows("the other halts", |shown| state_of(shown, "two") == MemberState::Halted).await;
    assert_eq!(two.folder.files().len(), 5);
    let other = shown.members.iter().find_map(|member| member.member.halt.clone()).expect("a halt");
    world.hub.workspaces.resync(&world.caller(), WS, order(halt.id)).await.expect_err("it was let pass");
    world.hub.workspaces.resync(&world.caller(), WS, order(other.id)).await.expect("it is its id");
    world.converges(&[&one, &two]).await;
    assert!(two.folder.files().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_folder_that_is_gone_or_cannot_be_read_is_never_taken_for_an_empty_one() {
    let world = World::new(StoreKind::Memory).await;
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    one.folder.write("keep/me", Some(b"x"));
    one.folder.write("other", Some(b"y"));
    world.create(Mode::HubPrimary, &one).await;
    world.join(&two, Role::Peer).await;
    world.converges(&[&one, &two]).await;
    let path = cortex_core::files::path::RelPath::parse("keep/me").expect("a path");
    let blocked = Noted::Held(cortex_core::sync::Why::Blocked(cortex_core::sync::Problem::Unreadable));
    *one.folder.held.lock().expect("no panic") = vec![PathNote { path, what: blocked }];
    one.folder.write("keep/me", None);
    one.folder.write("other", Some(b"changed"));
    world.shows("the rest goes on", |_| two.folder.files()["other"] == b"changed").await;
    assert!(two.folder.files().contains_key("keep/me"), "unreadable is not absent");
    *one.folder.state.lock().expect("no panic") = RootState::Missing;
    world.shows("it is gone", |shown| state_of(shown, "one") == MemberState::Unavailable).await;
    assert_eq!(two.folder.files().len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_peer_whose_folder_is_not_there_yet_gets_what_the_workspace_has() {
    let world = World::new(StoreKind::Memory).await;
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    one.folder.write("أ/ب", Some(b"x"));
    world.create(Mode::HubPrimary, &one).await;
    world.converges(&[&one]).await;
    *two.folder.state.lock().expect("no panic") = RootState::Missing;
    world.join(&two, Role::Peer).await;
    world.shows("it is made", |_| two.folder.files() == one.folder.files()).await;
    *two.folder.state.lock().expect("no panic") = RootState::Dir;
    world.converges(&[&one, &two]).await;
    assert_eq!(one.folder.files().len(), 1, "nothing was removed");
    world.stop().await;
}

#[tokio::test]
async fn under_a_lock_nothing_of_the_lead_is_taken_over_and_the_lock_ends_by_itself() {
    let world = World::new(StoreKind::Memory).await;
    let (lead, follower) = (world.plays("lead").await, world.plays("follower").await);
    lead.folder.write("a", Some(b"1"));
    world.create(Mode::NodePrimary, &lead).await;
    world.join(&follower, Role::Follower).await;
    world.converges(&[&lead, &follower]).await;
    let caller = world.caller();
    let ttl = WORKSPACE_LOCK_MS_MIN * 2;
    let locked = world.hub.workspaces.lock(&caller, WS, ttl).await.expect("it is free");
    let refused = world.hub.workspaces.lock(&caller, WS, ttl).await.expect_err("it is held");
    assert_eq!(refused.code, Code::Locked);
    lead.folder.write("a", Some(b"2"));
    let until = tokio::time::Instant::now() + Duration::from_millis(ttl / 2);
    while tokio::time::Instant::now() < until {
        world.hub.workspaces.look_at_all();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(world.shown().ws.head, locked.ws.head);
    }
    world.shows("it ends", |shown| shown.ws.lock.is_none()).await;
    let stale = world.hub.workspaces.extend(&caller, WS, locked.ws.epoch).await.expect_err("it is over");
    assert_eq!(stale.code, Code::StaleEpoch);
    world.converges(&[&lead, &follower]).await;
    assert_eq!(follower.folder.files()["a"], b"2");
    world.stop().await;
}

#[tokio::test]
async fn r16_1_a_hub_that_ends_in_the_middle_of_a_wave_goes_on_with_it() {
    let world = World::new(StoreKind::Sqlite).await;
    let (lead, follower) = (world.plays("lead").await, world.plays("follower").await);
    for number in 0..40_u32 {
        let mut content = vec![0; 400_000];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut content);
        lead.folder.write(&format!("f{number}"), Some(&content));
    }
    // The link of the lead breaks again and again, until after the restart.
    *lead.folder.breaks.lock().expect("no panic") = Some(2);
    world.create(Mode::NodePrimary, &lead).await;
    world.join(&follower, Role::Follower).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let World { hub, admin, dir } = world;
    tokio::time::timeout(SOON, hub.stop()).await.expect("the hub stops in time");
    *lead.folder.breaks.lock().expect("no panic") = None;
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts");
    let world = World { hub, admin, dir };
    assert_eq!(world.shown().members.len(), 2, "who is a member is in the rows");
    world.up(&lead).await;
    world.up(&follower).await;
    world.converges(&[&lead, &follower]).await;
    assert_eq!(follower.folder.files().len(), 40);
    world.stop().await;
}

#[tokio::test]
async fn a_collection_takes_nothing_of_a_live_workspace() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("a", Some(b"first"));
    world.create(Mode::HubPrimary, &one).await;
    world.converges(&[&one]).await;
    one.folder.write("a", Some(b"second"));
    world.converges(&[&one]).await;
    let chunks = &world.hub.chunks;
    let (rules, now) = (Sweeping { young_ms: 0, condemned_ms: 0, ..Sweeping::default() }, WallTime(1 << 42));
    for _ in 0..3 {
        let since = chunks.blobs().begin().expect("begun");
        let roots = world.hub.context.view(|view| {
            let mut roots = Vec::new();
            view.each_root(&mut |tree| {
                roots.push(Root { tree, content: true });
                Ok(())
            })?;
            Ok(roots)
        });
        let roots = roots.await.expect("read");
        let swept = chunks.blobs().collect(Sweep { since, roots: &roots, now, rules }).expect("swept");
        assert_eq!(swept.missing, 0);
    }
    let restored = world.hub.workspaces.history(&world.caller(), WS, None, 10).await.expect("told");
    for revision in restored {
        assert!(
            chunks.whole(revision.tree, &chunks.pin().expect("a pin")).is_ok(),
            "revision {}",
            revision.n
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn who_may_not_touch_the_files_of_a_node_attaches_none_of_them() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    world.admin(Method::PUT, "/api/v1/policies/one", serde_json::json!({"profile": "strict"})).await.ok(200);
    let refused = world.hub.workspaces.create(&world.caller(), world.new_ws(Mode::HubPrimary, &one)).await;
    let refused = refused.expect_err("its policy gives no folder");
    assert!(matches!(refused.code, Code::PathOutsideRoots | Code::PolicyDenied), "{refused:?}");
    assert!(world.hub.workspaces.list(&world.caller()).expect("told").is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_workspace_is_made_looked_at_locked_and_removed_over_http() {
    const API: &str = "/api/v1/workspaces";
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    one.folder.write("a", Some(b"1"));
    let request = serde_json::json!({"name": WS, "from": "one:/srv/مشروع"});
    world.admin(Method::POST, API, request.clone()).await.ok(201);
    world.admin(Method::POST, API, request).await.refused(409, "conflict");
    world.converges(&[&one]).await;
    let status = world.get(&format!("{API}/{WS}")).await.ok(200);
    assert_eq!((&status["name"], &status["mode"]), (&WS.into(), &"hub".into()), "{status}");
    let member = &status["members"][0];
    let told = [&member["node"], &member["path"], &member["state"], &member["role"], &member["watch"]];
    assert_eq!(told, ["one", "/srv/مشروع", "in_sync", "peer", "scan"], "{status}");
    assert_eq!(member["revision"], status["revision"]);
    let history = world.get(&format!("{API}/{WS}/history")).await.ok(200);
    assert_eq!(history["items"][0]["kind"], "sync", "{history}");
    let drift = world.get(&format!("{API}/{WS}/drift?diff=true")).await.ok(200);
    assert_eq!(drift[0]["paths"], serde_json::json!([]), "{drift}");

    let lock = format!("{API}/{WS}/lock");
    let held = world.admin(Method::PUT, &lock, serde_json::json!({"ttl_ms": 60_000})).await.ok(200);
    let epoch = held["lock"]["epoch"].as_u64().expect("a number");
    let restore = (format!("{API}/{WS}/restore"), serde_json::json!({"revision": 1}));
    world.admin(Method::POST, &restore.0, restore.1.clone()).await.refused(403, "locked");
    let bearer = format!("Bearer {}", world.admin);
    let quoted = epoch.to_string();
    let headers = [("authorization", &*bearer), ("cortex-lock", &*quoted)];
    world.call(Method::POST, &restore.0, &headers, Some(restore.1)).await.ok(200);
    world.admin(Method::PUT, &lock, serde_json::json!({"epoch": epoch})).await.ok(200);
    world.call(Method::DELETE, &format!("{lock}?epoch={epoch}"), &headers[..1], None).await.ok(200);
    world.call(Method::DELETE, &lock, &headers[..1], None).await.refused(409, "conflict");

    world.get(&format!("{API}/nothing")).await.refused(404, "not_found");
    world.call(Method::DELETE, &format!("{API}/{WS}/members?member=one"), &headers[..1], None).await.ok(200);
    world.call(Method::DELETE, &format!("{API}/{WS}"), &headers[..1], None).await.ok(204);
    world.get(&format!("{API}/{WS}")).await.refused(404, "not_found");
    world.stop().await;
}
