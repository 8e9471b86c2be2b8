//! Folders whose nodes tell of changes: looks follow from what is told, and from time only where nothing is.

use std::sync::Mutex;

use cortex_core::id::WatchId;
use cortex_core::limits::{LOOK_PAUSE_MS_MIN, LOOK_SETTLE_MS, PROTOCOL_WATCH};
use cortex_core::watch::{Blind, Sight, WatchAsk, WatchNews};

use super::*;

/// What it was asked to watch, in order; `None` for the end of one.
type Asked = Arc<Mutex<Vec<(WatchId, Option<WatchAsk>)>>>;

/// A node with one folder, which counts how often it is asked for that and says of watches what the test wants.
pub(in crate::hub::tests) struct Seeing {
    pub(in crate::hub::tests) played: Played,
    asked: Asked,
    looks: Arc<Mutex<u64>>,
}

impl Seeing {
    pub(in crate::hub::tests) fn looks(&self) -> u64 {
        *self.looks.lock().expect("no panic")
    }

    /// The watches that it has.
    pub(in crate::hub::tests) fn watches(&self) -> Vec<WatchId> {
        let mut watches = Vec::new();
        for (id, ask) in &*self.asked.lock().expect("no panic") {
            watches.retain(|watched| watched != id);
            if ask.is_some() {
                watches.push(*id);
            }
        }
        watches
    }
}

impl World {
    pub(in crate::hub::tests) async fn sees(&self, name: &'static str, protocol: u32) -> (Seeing, Arc<Link>) {
        let played = self.plays(name).await;
        let seeing = Seeing { played, asked: Arc::default(), looks: Arc::default() };
        let link = self.sees_again(&seeing, protocol).await;
        (seeing, link)
    }

    /// The node dials.
    async fn sees_again(&self, seeing: &Seeing, protocol: u32) -> Arc<Link> {
        let link = self.attach_with(seeing.played.id, |hello| hello.protocol = protocol).await;
        let (mesh, folder) = (self.hub.mesh.clone(), Arc::clone(&seeing.played.folder));
        let (asked, looks) = (Arc::clone(&seeing.asked), Arc::clone(&seeing.looks));
        asked.lock().expect("no panic").clear();
        let dialled = Arc::clone(&link);
        tokio::spawn(async move {
            while let Some(Outgoing::Message(Envelope { message, .. })) =
                std::future::poll_fn(|context| link.poll_out(context)).await
            {
                if let ToNode::Watch(ask) = message {
                    asked.lock().expect("no panic").push((ask.id, Some(*ask)));
                } else if let ToNode::Unwatch { id } = message {
                    asked.lock().expect("no panic").push((id, None));
                } else if let ToNode::TransferAsk(ask) = message {
                    *looks.lock().expect("no panic") += 1;
                    let (link, mesh, folder) = (Arc::clone(&link), mesh.clone(), Arc::clone(&folder));
                    tokio::spawn(async move { answer(&mesh, &link, &folder, *ask).await });
                }
            }
        });
        dialled
    }

    pub(in crate::hub::tests) fn tells(&self, link: &Link, id: WatchId, sight: Sight) {
        self.hub.mesh.watch_news(link, WatchNews { id, sight });
    }

    pub(in crate::hub::tests) async fn soon(&self, what: &str, is_so: impl Fn() -> bool) {
        let wait = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    /// Until the member is told of to be watched, or why it is not.
    async fn watch_stands(&self, is_watched: bool, why: Option<&str>) {
        self.soon(&format!("watched {is_watched}, {why:?}"), || {
            let member = &self.shown().members[0];
            (member.is_watched, member.unwatched.map(|why| why.as_str())) == (is_watched, why)
        })
        .await;
    }
}

/// So long nothing happens that is to happen.
pub(in crate::hub::tests) async fn rest() {
    tokio::time::sleep(Duration::from_millis(LOOK_SETTLE_MS + 2 * LOOK_PAUSE_MS_MIN - 100)).await;
}

#[tokio::test]
async fn a_change_that_is_told_is_looked_at_and_a_folder_at_rest_is_not() {
    let world = World::new(StoreKind::Memory).await;
    let (one, link) = world.sees("one", PROTOCOL_WATCH).await;
    one.played.folder.write("a", Some(b"1"));
    world.create(Mode::HubPrimary, &one.played).await;
    world.soon("it is asked to watch", || one.watches().len() == 1).await;
    let id = one.watches()[0];
    {
        let asked = one.asked.lock().expect("no panic");
        let ask = asked[0].1.as_ref().expect("asked");
        assert_eq!((ask.path.as_str(), ask.filters.ignore_files), ("/srv/مشروع", true));
    }
    world.watch_stands(false, None).await;
    world.tells(&link, id, Sight::Watching);
    world.watch_stands(true, None).await;
    let status = world.get(&format!("/api/v1/workspaces/{WS}")).await.ok(200);
    assert_eq!(status["members"][0]["watch"], "events", "{status}");
    rest().await;
    let before = one.looks();
    rest().await;
    assert_eq!(one.looks(), before, "at rest");
    one.played.folder.write("a", Some(b"2"));
    world.tells(&link, id, Sight::Changed);
    world.soon("it is seen", || world.hub.workspaces.files(WS).get("a").is_some_and(|a| a == b"2")).await;
    rest().await;
    assert_eq!(one.looks() - before, 1, "one change, one look");
    // All the time: bounded work.
    let before = one.looks();
    for _ in 0..60 {
        world.tells(&link, id, Sight::Changed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(one.looks() - before <= 2, "{}", one.looks() - before);
    let (watched, news) = world.hub.mesh.watches();
    assert!(watched == 1 && news > 60, "{watched} {news}");
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_watched_says_why_and_is_asked_for_again() {
    let world = World::new(StoreKind::Memory).await;
    let (one, link) = world.sees("one", PROTOCOL_WATCH).await;
    world.create(Mode::HubPrimary, &one.played).await;
    world.soon("it is asked to watch", || one.watches().len() == 1).await;
    let first = one.watches()[0];
    world.tells(&link, first, Sight::Watching);
    world.watch_stands(true, None).await;
    rest().await;
    let before = one.looks();
    world.tells(&link, first, Sight::Blind(Blind::Overflow));
    world.watch_stands(false, Some("overflow")).await;
    world.soon("a look follows", || one.looks() > before).await;
    world.soon("it is asked again", || one.watches().last().is_some_and(|id| *id != first)).await;
    let second = *one.watches().last().expect("asked");
    // What comes late of the first says nothing of the second.
    world.tells(&link, first, Sight::Watching);
    world.watch_stands(false, Some("overflow")).await;
    world.tells(&link, second, Sight::Blind(Blind::Limit));
    world.watch_stands(false, Some("limit")).await;
    let status = world.get(&format!("/api/v1/workspaces/{WS}")).await.ok(200);
    let member = &status["members"][0];
    assert_eq!((&member["watch"], &member["unwatched"]), (&"scan".into(), &"limit".into()), "{member}");
    world.stop().await;
}

#[tokio::test]
async fn a_watch_ends_with_its_link_its_rules_and_its_member() {
    let world = World::new(StoreKind::Memory).await;
    let (one, link) = world.sees("one", PROTOCOL_WATCH).await;
    world.create(Mode::HubPrimary, &one.played).await;
    world.soon("it is asked to watch", || one.watches().len() == 1).await;
    world.tells(&link, one.watches()[0], Sight::Watching);
    world.watch_stands(true, None).await;
    let before = one.looks();
    world.hub.mesh.detach(&link);
    world.watch_stands(false, None).await;
    let link = world.sees_again(&one, PROTOCOL_WATCH).await;
    world.soon("a node that comes is looked at", || one.looks() > before).await;
    world.soon("and asked anew", || one.watches().len() == 1).await;
    let by_rules = one.watches()[0];
    world.tells(&link, by_rules, Sight::Watching);
    world.watch_stands(true, None).await;
    let rules = Rules { exclude: vec!["target/".to_owned()], ..Rules::default() };
    world.hub.workspaces.change(&world.caller(), WS, (Some(rules), None), None).await.expect("changed");
    world.soon("by its new rules", || one.watches().len() == 1 && one.watches()[0] != by_rules).await;
    let asked = one.asked.lock().expect("no panic").last().cloned().expect("asked");
    assert_eq!(asked.1.map(|ask| ask.filters.exclude), Some(vec!["target/".to_owned()]));
    world.hub.workspaces.remove(&world.caller(), WS, None).await.expect("removed");
    world.until_none(&one).await;
    world.stop().await;
}

impl World {
    async fn until_none(&self, one: &Seeing) {
        let wait = async {
            while !one.watches().is_empty() || self.hub.mesh.watches().0 > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("nothing of it is watched");
    }
}

#[tokio::test]
async fn an_older_node_is_asked_for_nothing_and_says_why() {
    let world = World::new(StoreKind::Memory).await;
    let (one, _link) = world.sees("one", PROTOCOL_WATCH - 1).await;
    one.played.folder.write("a", Some(b"1"));
    world.create(Mode::HubPrimary, &one.played).await;
    world.watch_stands(false, Some("version")).await;
    world.converges(&[&one.played]).await;
    assert!(one.asked.lock().expect("no panic").is_empty(), "it would not understand");
    world.stop().await;
}

#[tokio::test]
async fn a_lock_that_nobody_extends_ends_without_a_tick() {
    let world = World::new(StoreKind::Memory).await;
    let one = world.plays("one").await;
    world.create(Mode::HubPrimary, &one).await;
    rest().await;
    world.hub.workspaces.lock(&world.caller(), WS, WORKSPACE_LOCK_MS_MIN).await.expect("it is free");
    let wait = async {
        while world.shown().ws.lock.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(2 * WORKSPACE_LOCK_MS_MIN), wait).await.expect("it ends");
    world.stop().await;
}
