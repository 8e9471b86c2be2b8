//! Whoever hears that a node is here, away or removed finds it so.

use cortex_core::event::EventKind;
use cortex_core::subscribers::{Filter, Item};
use serde_json::json;

use super::*;
use crate::bus::Subscription;

const ROUNDS: usize = 200;

/// A hub whose store answers writes late: events are heard well before their writer hears that they
/// are stored.
async fn late_world() -> Arc<World> {
    let late = Duration::from_millis(5);
    Arc::new(World::with(StoreKind::Sqlite, |inner| Through::late(inner, late)).await)
}

async fn hear(events: &mut Subscription) -> EventKind {
    match tokio::time::timeout(SOON, events.next()).await.expect("an event in time") {
        Some(Item::Event(_, event)) => event.kind,
        other => panic!("no event: {other:?}"),
    }
}

fn listen(world: &World) -> Subscription {
    let kinds = vec![EventKind::NodeOnline, EventKind::NodeOffline, EventKind::NodeRemoved];
    world.hub.context.bus.subscribe(Filter { kinds, ..Filter::default() }).expect("room").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hears_that_a_node_came_or_went_finds_it_so() {
    let world = late_world().await;
    let node = world.node("n1").await;
    let mut events = listen(&world);
    for round in 0..ROUNDS {
        let attaching = tokio::spawn({
            let world = Arc::clone(&world);
            async move { world.attach(node).await }
        });
        assert_eq!(hear(&mut events).await, EventKind::NodeOnline);
        assert!(world.hub.mesh.presence(node).is_some(), "round {round}: it is told of before it is here");
        assert_eq!(world.get("/api/v1/nodes/n1").await.ok(200)["state"], "online", "round {round}");
        let link = attaching.await.expect("attached");
        let leaving = tokio::spawn({
            let world = Arc::clone(&world);
            async move { world.hub.mesh.detach(&link) }
        });
        assert_eq!(hear(&mut events).await, EventKind::NodeOffline);
        assert!(world.hub.mesh.presence(node).is_none(), "round {round}: it is told of and still here");
        assert_eq!(world.get("/api/v1/nodes/n1").await.ok(200)["state"], "offline", "round {round}");
        leaving.await.expect("detached");
    }
    drop(events);
    Arc::into_inner(world).expect("the last one").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hears_that_a_node_was_removed_does_not_find_it() {
    let world = late_world().await;
    let mut events = listen(&world);
    for round in 0..ROUNDS / 4 {
        let node = world.node("n1").await;
        let _link = world.attach(node).await;
        assert_eq!(hear(&mut events).await, EventKind::NodeOnline);
        let removing = tokio::spawn({
            let world = Arc::clone(&world);
            async move { world.admin(Method::DELETE, "/api/v1/nodes/n1", json!({})).await.status }
        });
        assert_eq!(hear(&mut events).await, EventKind::NodeRemoved);
        assert!(world.hub.mesh.presence(node).is_none(), "round {round}: removed, and still here");
        world.get("/api/v1/nodes/n1").await.refused(404, "node_not_found");
        assert_eq!(removing.await.expect("no panic"), 204);
    }
    drop(events);
    Arc::into_inner(world).expect("the last one").stop().await;
}
