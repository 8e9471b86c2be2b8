//! Transfers that end before their time leave nothing.

use super::*;

#[tokio::test]
async fn a_cancelled_push_leaves_nothing_and_its_node_is_told() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.mover("n1").await;
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let ask = node.ask().await;
    let mut clerk = node.open(&world, &ask);
    clerk.wants(&ids([1, 2])).await;
    world.wants(&transfer, "?wait_ms=5000").await;
    world.send(&transfer, pack([1])).await.ok(204);
    let (wanted, view) = tokio::join!(world.wants(&transfer, "?wait_ms=20000"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.admin(Method::DELETE, &format!("{API}/{transfer}"), json!({})).await.ok(200)
    });
    assert_eq!(wanted, (vec![], "cancelled".to_owned()), "who waits is told at once");
    assert_eq!((&view["state"], &view["nodes"][0]["state"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!(node.cancelled().await, ask.id);
    clerk.is_cut().await;
    let late = world.send(&transfer, pack([2])).await;
    assert_eq!((late.status.as_u16(), late.headers["cortex-transfer"].as_bytes()), (204, &b"cancelled"[..]));
    world.is_idle().await;
    let told = world.told_to_its_end(&transfer).await;
    assert_eq!(told.last().expect("it is told").1, "push cancelled");
    let again = world.admin(Method::DELETE, &format!("{API}/{transfer}"), json!({})).await.ok(200);
    assert_eq!(again["seq"], view["seq"], "an end is told once");
    world.stop().await;
}

#[tokio::test]
async fn a_caller_that_is_silent_while_it_owes_something_ends_the_push() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    world.set_patience(|patience| patience.caller = Duration::from_millis(400));
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let mut clerk = node.opened(&world).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.view(&transfer).await["state"], "open", "it owes nothing so far");
    clerk.wants(&ids([1])).await;
    let view = world.over(&transfer).await;
    assert_eq!((&view["state"], &view["nodes"][0]["error"]["code"]), (&json!("failed"), &json!("timeout")));
    clerk.is_cut().await;
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn sync_15_a_node_that_stays_away_is_waited_for_only_so_long_and_leaves_nothing() {
    let world = World::new(StoreKind::Memory).await;
    let (gone, stays) = (world.mover("n1").await, world.mover("n2").await);
    world.set_patience(|patience| patience.node = Duration::from_millis(500));
    let transfer = id_of(&world.begin(push(&["n1", "n2"], 1)).await);
    let mut clerk = gone.opened(&world).await;
    world.hub.mesh.detach(&gone.link);
    clerk.is_cut().await;
    stays.opened(&world).await.end().await;
    let view = world.over(&transfer).await;
    let rows = (&view["nodes"][0]["error"]["code"], &view["nodes"][1]["state"]);
    assert_eq!(rows, (&json!("node_offline"), &json!("done")));
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn what_a_node_refuses_or_halts_or_breaks_off_is_told() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let ask = node.ask().await;
    node.tells(&world, &ask, Err(Refusal::new(Code::Conflict, "Another transfer works there.")));
    let view = world.over(&transfer).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "conflict");
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let cause = cortex_core::sync::Cause {
        rule: cortex_core::sync::Rule::Deletes,
        end: cortex_core::sync::End::Node,
        deletes: 40,
        of: 50,
    };
    let halt = cortex_core::sync::Halt {
        id: cortex_core::sync::HaltId::new(ContentId::of(b"halt")),
        causes: vec![cause],
    };
    let clerk = node.opened(&world).await;
    clerk.say(Carry::End(Box::new(TransferEnd { halt: Some(halt), ..TransferEnd::default() }))).await;
    let view = world.over(&transfer).await;
    assert_eq!((&view["state"], &view["nodes"][0]["state"]), (&json!("failed"), &json!("halted")));
    let halt = &view["nodes"][0]["end"]["halt"];
    assert_eq!((&halt["rule"], &halt["id"]), (&json!("deletes"), &json!(ContentId::of(b"halt").to_string())));
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let clerk = node.opened(&world).await;
    clerk.say(Carry::Data(Bytes::from_static(b"x"))).await;
    let view = world.over(&transfer).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "invalid_argument", "a frame that does not belong to it");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn fifty_transfers_that_are_broken_off_anywhere_leave_nothing() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    for number in 0..50_u8 {
        let order = if number % 5 == 4 {
            json!({"kind": "pull", "node": "n1", "source": "/srv/a"})
        } else {
            push(&["n1"], number)
        };
        let transfer = id_of(&world.begin(order).await);
        let mut clerk = None;
        if number % 5 != 4 && number % 2 == 0 {
            // What was asked before is passed over: it was cancelled.
            let ask = loop {
                let ask = node.ask().await;
                if ask.id.to_string() == transfer {
                    break ask;
                }
            };
            let opened = node.open(&world, &ask);
            opened.wants(&ids([1, 2, 3])).await;
            if number % 3 == 0 {
                world.wants(&transfer, "?wait_ms=5000").await;
                world.send(&transfer, pack([1])).await.ok(204);
            }
            clerk = Some(opened);
        }
        if number % 4 == 2 {
            drop(clerk.take());
        }
        world.admin(Method::DELETE, &format!("{API}/{transfer}"), json!({})).await.ok(200);
        assert_eq!(world.over(&transfer).await["state"], "cancelled", "{number}");
    }
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_hub_that_stops_ends_what_is_open_and_a_new_one_knows_nothing_of_it() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.mover("n1").await;
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let mut clerk = node.opened(&world).await;
    clerk.wants(&ids([1])).await;
    world.hub.transfers.stop();
    let view = world.over(&transfer).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "hub_unreachable");
    clerk.is_cut().await;
    world.admin(Method::POST, API, push(&["n1"], 1)).await.refused(503, "hub_unreachable");
    world.is_idle().await;
    let World { hub, dir, admin } = world;
    hub.stop().await;
    std::fs::create_dir_all(dir.path().join("transfers/left")).expect("made");
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("it starts");
    let world = World { hub, dir, admin };
    assert!(!world.dir.path().join("transfers").exists());
    world.get(&format!("{API}/{transfer}/wants")).await.refused(404, "not_found");
    world.stop().await;
}
