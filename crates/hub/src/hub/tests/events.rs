//! Server-sent events: live, resumed, trimmed, filtered, and with a reader that stalls.

use cortex_core::event::{Event, EventKind};
use cortex_core::limits::SUBSCRIBER_STALL_MS_MAX;
use serde_json::json;

use super::*;

/// A stream of events that is read one block at a time.
struct Sse {
    body: Incoming,
    text: String,
}

impl Sse {
    async fn open(world: &World, query: &str, last: Option<&str>) -> Self {
        let bearer = format!("Bearer {}", world.admin);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(last.map(|last| ("last-event-id", last)));
        let response =
            world.open(Method::GET, &format!("/api/v1/events{query}"), &headers, Bytes::new()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// Kind and number of the next event, and its data.
    async fn next(&mut self) -> (String, u64, Value) {
        tokio::time::timeout(SOON, async {
            loop {
                if let Some((block, rest)) =
                    self.text.split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned()))
                {
                    self.text = rest;
                    let field = |name: &str| {
                        block
                            .lines()
                            .find_map(|line| line.strip_prefix(name))
                            .unwrap_or_default()
                            .trim()
                            .to_owned()
                    };
                    let data = serde_json::from_str(&field("data:")).expect("JSON");
                    return (field("event:"), field("id:").parse().expect("a number"), data);
                }
                let frame = self.body.frame().await.expect("the stream goes on").expect("a frame");
                let data = frame.into_data().expect("data");
                self.text.push_str(std::str::from_utf8(&data).expect("text"));
            }
        })
        .await
        .expect("an event in time")
    }
}

async fn publish(world: &World, kind: EventKind, count: u64) {
    let event = Event::new(kind, WallTime(1));
    world
        .write(move |tx| {
            for _ in 0..count {
                tx.append_event(&event)?;
            }
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn events_come_live_and_a_resumed_stream_misses_and_doubles_nothing() {
    let world = World::new(StoreKind::Sqlite).await;
    let head = world.hub.context.bus.head().0;
    let mut live = Sse::open(&world, "", None).await;
    publish(&world, EventKind::NodeOnline, 3).await;
    for number in head + 1..=head + 3 {
        let (kind, seq, data) = live.next().await;
        assert_eq!((kind.as_str(), seq, &data["seq"]), ("node.online", number, &json!(number)));
    }
    drop(live);
    // More than one page is missed, and more comes while it is read.
    publish(&world, EventKind::NodeOffline, 1_200).await;
    let mut resumed = Sse::open(&world, "", Some(&(head + 2).to_string())).await;
    publish(&world, EventKind::RunEnded, 10).await;
    for number in head + 3..=head + 1_213 {
        assert_eq!(resumed.next().await.1, number);
    }
    drop(resumed);
    world.stop().await;
}

#[tokio::test]
async fn a_trimmed_log_and_an_unknown_number_are_told_as_a_gap() {
    let world = World::new(StoreKind::Memory).await;
    publish(&world, EventKind::NodeOnline, 20).await;
    let head = world.hub.context.bus.head().0;
    let events = crate::service::events::Events::new(world.hub.context.clone());
    assert_eq!(events.trim(5, 1_000).await.expect("trimmed"), head - 5);
    let mut trimmed = Sse::open(&world, "?after=1", None).await;
    let (kind, id, data) = trimmed.next().await;
    assert_eq!((kind.as_str(), id, data), ("gap", head - 5, json!({"from": 2, "to": head - 4})));
    assert_eq!(trimmed.next().await.1, head - 4);
    let mut ahead = Sse::open(&world, "", Some("999999")).await;
    assert_eq!(ahead.next().await.2, json!({"from": 1_000_000, "to": head + 1}));
    publish(&world, EventKind::NodeOnline, 1).await;
    assert_eq!(ahead.next().await.1, head + 1);
    drop((trimmed, ahead));
    world.stop().await;
}

#[tokio::test]
async fn filters_hold_for_the_log_and_for_what_comes_live() {
    let world = World::new(StoreKind::Memory).await;
    publish(&world, EventKind::NodeOnline, 2).await;
    publish(&world, EventKind::RunEnded, 1).await;
    let mut ended = Sse::open(&world, "?after=0&kind=run.ended,run.denied", None).await;
    assert_eq!(ended.next().await.0, "run.ended");
    publish(&world, EventKind::NodeOnline, 1).await;
    publish(&world, EventKind::RunDenied, 1).await;
    assert_eq!(ended.next().await.0, "run.denied");
    drop(ended);
    for bad in ["?kind=nonsense", "?after=x", "?run=x"] {
        world.get(&format!("/api/v1/events{bad}")).await.refused(400, "invalid_argument");
    }
    world.get("/api/v1/events?node=nobody").await.refused(404, "node_not_found");
    world.stop().await;
}

#[tokio::test]
async fn a_reader_that_stalls_is_pruned_with_its_connection_and_the_others_go_on() {
    let world = World::new(StoreKind::Memory).await;
    let stalled = Sse::open(&world, "", None).await;
    let mut reader = Sse::open(&world, "", None).await;
    let bus = world.hub.context.bus.clone();
    assert_eq!(bus.listeners(), 2);
    // Enough to fill every buffer on the way to the one that does not read.
    let text = "x".repeat(64 * 1024);
    let event = Event::new(EventKind::NodeChanged, WallTime(1)).detail(text);
    for _ in 0..400 {
        let event = event.clone();
        world.write(move |tx| Ok(tx.append_event(&event).map(|_| ())?)).await;
        reader.next().await;
    }
    let clock = world.hub.context.clock;
    assert_eq!(bus.prune(clock.now().plus_ms(SUBSCRIBER_STALL_MS_MAX)), 1);
    assert_eq!(bus.listeners(), 1);
    // The connection is closed: what was under way is read, and then it breaks off.
    let rest = tokio::time::timeout(SOON, stalled.body.collect()).await.expect("the connection ends");
    assert!(rest.is_err(), "the stream did not end by itself");
    publish(&world, EventKind::NodeOnline, 1).await;
    assert_eq!(reader.next().await.0, "node.online");
    drop(reader);
    world.stop().await;
}

#[tokio::test]
async fn a_listener_that_goes_away_leaves_nothing_behind() {
    let world = World::new(StoreKind::Memory).await;
    for _ in 0..50 {
        drop(Sse::open(&world, "", None).await);
    }
    let bus = world.hub.context.bus.clone();
    let gone = async {
        while bus.listeners() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("all listeners go");
    world.stop().await;
}
