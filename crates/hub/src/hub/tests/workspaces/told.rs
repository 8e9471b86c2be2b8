//! What is told of a workspace: events, rows of the audit log, and how much of its history stays.

use std::collections::BTreeSet;

use cortex_core::event::EventKind;
use cortex_core::id::Revision;
use cortex_core::subscribers::{Filter, Item};
use cortex_core::transfer::LeftOut;
use cortex_core::workspace::history::Kept;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;

const KINDS: &[EventKind] = &[
    EventKind::WorkspaceCreated,
    EventKind::WorkspaceChanged,
    EventKind::WorkspaceRemoved,
    EventKind::WorkspaceRevision,
    EventKind::WorkspaceLocked,
    EventKind::WorkspaceUnlocked,
    EventKind::MemberAttached,
    EventKind::MemberDetached,
    EventKind::MemberState,
    EventKind::DriftFound,
    EventKind::DriftCleared,
    EventKind::SyncHalted,
    EventKind::SyncConflict,
];

impl World {
    /// Kinds of the events about a workspace that the API shows.
    async fn kinds_of_the_api(&self) -> BTreeSet<String> {
        let bearer = format!("Bearer {}", self.admin);
        let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.as_str()).collect();
        let path = format!("/api/v1/events?after=0&kind={}", kinds.join(","));
        let response = self.open(Method::GET, &path, &[("authorization", &bearer)], Bytes::new()).await;
        let (mut body, mut text, mut seen) = (response.into_body(), String::new(), BTreeSet::new());
        let read = async {
            while seen.len() < KINDS.len() {
                let frame = body.frame().await.expect("the stream goes on").expect("a frame");
                text.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("text"));
                seen =
                    text.lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect();
            }
        };
        let _late = tokio::time::timeout(SOON, read).await;
        seen
    }

    /// Rows of the audit log with this action.
    pub(super) async fn steps(&self, action: &str) -> Vec<Value> {
        let page = self.get("/api/v1/audit?limit=1000").await.ok(200);
        let rows = page["items"].as_array().expect("rows").iter();
        rows.filter(|row| row["action"] == action).cloned().collect()
    }
}

#[tokio::test]
async fn r16_3_whatever_happens_to_a_workspace_is_an_event_on_the_bus_and_in_the_api() {
    let world = World::new(StoreKind::Sqlite).await;
    let filter = Filter { kinds: KINDS.to_vec(), ..Filter::default() };
    let (mut bus, _head) = world.hub.context.bus.subscribe(filter).expect("a place");
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    for number in 0..5 {
        one.folder.write(&format!("f{number}"), Some(b"x"));
    }
    world.create(Mode::HubPrimary, &one).await;
    world.join(&two, Role::Follower).await;
    world.converges(&[&one, &two]).await;
    // Drift, and its end, which is a conflict as well.
    two.folder.write("f0", Some(b"its own"));
    world.shows("it drifts", |shown| state_of(shown, "two") == MemberState::Drifted).await;
    let order = Resync { members: vec!["two".to_owned()], repair: true, ..Resync::default() };
    world.hub.workspaces.resync(&world.caller(), WS, order).await.expect("asked for");
    world.shows("it is repaired", |_| two.folder.files()["f0"] == b"x").await;
    let copies: Vec<String> =
        two.folder.files().into_keys().filter(|name| !name.starts_with('f') || name.len() > 2).collect();
    copies.iter().for_each(|copy| two.folder.write(copy, None));
    // Its version was kept beside the other, which is a conflict until somebody has looked.
    let is_same =
        |shown: &Shown| two.folder.tree() == shown.ws.tree && state_of(shown, "two") == MemberState::Conflict;
    world.shows("it is the same again", is_same).await;
    let locked = world.hub.workspaces.lock(&world.caller(), WS, 60_000).await.expect("it is free");
    let epoch = Some(locked.ws.epoch);
    world.hub.workspaces.unlock(&world.caller(), WS, epoch).await.expect("held");
    world.hub.workspaces.change(&world.caller(), WS, (None, Some(1 << 30)), None).await.expect("changed");
    // An emptied folder.
    for name in one.folder.files().into_keys() {
        one.folder.write(&name, None);
    }
    world.shows("it halts", |shown| state_of(shown, "one") == MemberState::Halted).await;
    world.hub.workspaces.detach(&world.caller(), WS, "one").await.expect("it is there");
    world.hub.workspaces.remove(&world.caller(), WS, None).await.expect("removed");

    let mut seen = BTreeSet::new();
    let read = async {
        while seen.len() < KINDS.len() {
            if let Some(Item::Event(_, event)) = bus.next().await {
                assert_eq!(event.subject.as_deref(), Some(WS), "{event:?}");
                seen.insert(event.kind.as_str().to_owned());
            }
        }
    };
    let _late = tokio::time::timeout(SOON, read).await;
    let all: BTreeSet<String> = KINDS.iter().map(|kind| kind.as_str().to_owned()).collect();
    assert_eq!(seen, all, "on the bus");
    assert_eq!(world.kinds_of_the_api().await, all, "in the API");
    world.stop().await;
}

#[tokio::test]
async fn each_step_that_changes_something_or_is_stopped_has_one_row_and_looks_have_none() {
    let world = World::new(StoreKind::Sqlite).await;
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    for number in 0..5 {
        one.folder.write(&format!("سر{number}"), Some(b"secret"));
    }
    world.create(Mode::HubPrimary, &one).await;
    world.join(&two, Role::Peer).await;
    world.converges(&[&one, &two]).await;
    let (merges, applies) = (world.steps("workspace.merge").await, world.steps("workspace.apply").await);
    assert_eq!((merges.len(), applies.len()), (1, 1), "{merges:?} {applies:?}");
    let row = &merges[0];
    assert_eq!((&row["actor"], &row["outcome"]), (&json!("workspace:notes"), &json!("allowed")), "{row}");
    assert_eq!(
        (&row["argv"], &row["node"]),
        (&json!(["notes", "one:/srv/مشروع"]), &json!(one.id.to_string())),
        "{row}"
    );
    assert_eq!(row["detail"], "over revision 1: 5 paths", "{row}");
    let row = &applies[0];
    assert_eq!(
        (&row["argv"], &row["node"]),
        (&json!(["notes", "two:/srv/مشروع"]), &json!(two.id.to_string())),
        "{row}"
    );
    assert_eq!(row["detail"], "revision 2: 5 paths", "{row}");
    // Folders that are looked at all the time and do not change.
    for _ in 0..10 {
        world.hub.workspaces.look_at_all();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(world.steps("workspace.merge").await.len() + world.steps("workspace.apply").await.len(), 2);
    for number in 0..5 {
        one.folder.write(&format!("سر{number}"), None);
    }
    world.shows("it halts", |shown| state_of(shown, "one") == MemberState::Halted).await;
    let halts = world.steps("workspace.halt").await;
    assert_eq!(halts.len(), 1, "{halts:?}");
    assert_eq!((&halts[0]["outcome"], &halts[0]["node"]), (&json!("denied"), &json!(one.id.to_string())));
    assert!(halts[0]["reason"].as_str().is_some_and(|rule| !rule.is_empty()), "{halts:?}");
    assert!(!format!("{halts:?}{merges:?}{applies:?}").contains("سر"), "no path of a file");
    world.stop().await;
}

#[tokio::test]
async fn what_no_tree_has_of_a_folder_is_counted_at_its_member_until_it_is_there_no_more() {
    let world = World::new(StoreKind::Memory).await;
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    one.folder.write("a", Some(b"x"));
    let left_out = LeftOut { unnamed: 2, too_large: 1, ..LeftOut::default() };
    *one.folder.left_out.lock().expect("no panic") = left_out;
    world.create(Mode::HubPrimary, &one).await;
    world.join(&two, Role::Follower).await;
    world.converges(&[&one, &two]).await;
    let of = |shown: &Shown, name: &str| {
        shown.members.iter().find(|member| member.node == name).expect("a member").left_out
    };
    assert_eq!((of(&world.shown(), "one"), of(&world.shown(), "two")), (left_out, LeftOut::default()));
    let view = world.get(&format!("/api/v1/workspaces/{WS}")).await.ok(200);
    let told = |name: &str| {
        let members = view["members"].as_array().expect("members");
        members.iter().find(|member| member["node"] == name).expect("a member")["left_out"].clone()
    };
    let counts = json!({"unnamed": 2, "too_large": 1, "rules_unread": 0, "unreadable": 0, "unfit": 0});
    assert_eq!((told("one"), told("two")), (counts, Value::Null));
    *one.folder.left_out.lock().expect("no panic") = LeftOut::default();
    world.shows("it is there no more", |shown| of(shown, "one") == LeftOut::default()).await;
    world.stop().await;
}

#[tokio::test]
async fn of_a_long_history_the_newest_stay_the_last_of_each_day_and_what_a_member_names() {
    let world = World::new(StoreKind::Sqlite).await;
    let (one, two) = (world.plays("one").await, world.plays("two").await);
    world.create(Mode::HubPrimary, &one).await;
    world.join(&two, Role::Follower).await;
    world.converges(&[&one, &two]).await;
    let edit = async |number: u8| world.hub.workspaces.edit(WS, "a", Some(&[number])).await;
    edit(1).await;
    edit(2).await;
    world.converges(&[&one, &two]).await;
    let named = world.shown().members.iter().map(|member| member.member.reached).max().expect("members");
    for node in [&one, &two] {
        let link = world.hub.mesh.presence(node.id);
        assert!(link.is_some(), "{} is here", node.name);
    }
    world.away(&one).await;
    world.away(&two).await;
    for number in 3..20 {
        edit(number).await;
    }
    let revisions = async || -> Vec<u64> {
        let rows = world.hub.workspaces.history(&world.caller(), WS, None, 1_000).await.expect("told");
        rows.into_iter().map(|row| row.n.0).collect()
    };
    let all = revisions().await;
    let kept = Kept { max: 4, ..Kept::default() };
    let gone = world.hub.workspaces.thin(kept, &CancellationToken::new()).await.expect("thinned");
    let left = revisions().await;
    assert_eq!(left.len() + gone, all.len());
    assert_eq!(left[..4], all[..4], "the newest");
    assert_eq!(left[4], all[4], "the last of this day among the rest");
    assert!(left.contains(&named.0), "{left:?} lacks {named}, where members are");
    assert!(left.len() <= 7, "{left:?}");
    let again = world.hub.workspaces.thin(kept, &CancellationToken::new()).await.expect("thinned");
    assert_eq!((again, revisions().await), (0, left.clone()), "what was thinned is not thinned further");
    let restored = world.hub.workspaces.restore(&world.caller(), WS, Revision(left[4]), None).await;
    assert_eq!(restored.expect("it is kept").ws.head, Revision(all[0] + 1));
    let lost = world.hub.workspaces.restore(&world.caller(), WS, Revision(all[6]), None).await;
    assert_eq!(lost.expect_err("it was thinned out").code, Code::NotFound);
    // One that was removed goes when its time is over.
    let id = world.shown().ws.id;
    world.hub.workspaces.remove(&world.caller(), WS, None).await.expect("removed");
    for (kept, is_there) in [(Kept::default(), true), (Kept { ms: 0, age_after_ms: 0, ..kept }, false)] {
        world.hub.workspaces.thin(kept, &CancellationToken::new()).await.expect("thinned");
        let found = world.hub.context.view(move |view| view.workspace(id)).await.expect("readable");
        assert_eq!(found.is_some(), is_there);
    }
    world.stop().await;
}
