//! Pushes that go well.

use super::*;

#[tokio::test]
async fn a_push_goes_to_the_nodes_that_take_it_and_the_others_are_told_as_such() {
    let world = World::new(StoreKind::Sqlite).await;
    let (one, two) = (world.mover("n1").await, world.mover("n2").await);
    let tight = world.mover("tight").await;
    world.admin(Method::PUT, "/api/v1/policies/tight", json!({"profile": "strict"})).await.ok(200);
    let away = world.mover("away").await;
    world.hub.mesh.detach(&away.link);
    let view = world.begin(push(&["n1", "n2", "tight", "away", "nobody"], 1)).await;
    let transfer = id_of(&view);
    let rows = view["nodes"].as_array().expect("rows");
    let code = |at: usize| rows[at]["error"]["code"].clone();
    assert_eq!(
        (code(0), code(1), code(2), code(3), code(4)),
        (
            Value::Null,
            Value::Null,
            "path_outside_roots".into(),
            "node_offline".into(),
            "node_not_found".into()
        ),
    );
    tight.is_left_alone().await;
    let (ask, other) = (one.ask().await, two.ask().await);
    assert_eq!((ask.id.to_string(), other.id), (transfer.clone(), ask.id));
    let first = PushMode { first: true, force: false, delete: false };
    assert_eq!((apply(&ask).target, apply(&ask).base, apply(&ask).mode), (root(1), None, Mode::Push(first)));
    assert_eq!((apply(&ask).dest.as_str(), apply(&ask).node_name.as_str()), ("/srv/مشروع", "n1"));
    let (mut a, mut b) = (one.open(&world, &ask), two.open(&world, &other));

    let (wanted, ()) = tokio::join!(world.wants(&transfer, "?wait_ms=5000"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        a.wants(&ids([1, 2])).await;
    });
    assert_eq!(wanted, (ids([1, 2]), "open".to_owned()));
    b.wants(&ids([2, 3])).await;
    assert_eq!(world.wants(&transfer, "?wait_ms=5000").await.0, ids([3]), "nothing is asked for twice");
    // Out of order, and one of them twice.
    world.send(&transfer, pack([3])).await.ok(204);
    world.send(&transfer, pack([1, 2])).await.ok(204);
    world.send(&transfer, pack([1, 2])).await.ok(204);
    assert_eq!(a.given(2).await, ids([1, 2]));
    let mut of_b = b.given(2).await;
    of_b.sort_unstable();
    let mut both = ids([2, 3]);
    both.sort_unstable();
    assert_eq!(of_b, both);
    a.say(Carry::Progress(Progress { files: 1, bytes: 9, ..Progress::default() })).await;
    a.end().await;
    let held = [(Why::Kept, 1)].into();
    let counts = cortex_core::sync::PlanCounts { same: 4, held, ..Default::default() };
    let path = RelPath::parse("ملف").expect("a path");
    let notes = vec![PathNote { path, what: Noted::Held(Why::Kept) }];
    b.say(Carry::End(Box::new(TransferEnd { counts, notes, ..all_well() }))).await;

    let view = world.over(&transfer).await;
    assert_eq!(
        (&view["state"], &view["by"]),
        (&json!("failed"), &json!("token:admin")),
        "two of them failed"
    );
    let row = |at: usize| &view["nodes"][at];
    assert_eq!((&row(0)["state"], &row(0)["end"]["written"]), (&json!("done"), &json!(2)));
    assert_eq!((&row(0)["bytes_moved"], row(0)["wire_bytes"].as_u64() > Some(2_048)), (&json!(2_048), true));
    assert_eq!(row(1)["end"]["held"], json!({"kept": 1}));
    assert_eq!(row(1)["end"]["notes"], json!([{"path": "ملف", "what": "kept"}]));
    assert_eq!(
        world.wants(&transfer, "?wait_ms=5000").await,
        (vec![], "failed".to_owned()),
        "it is told at once"
    );

    let rows = world.rows("push.start").await;
    let argv = ["@push", "/srv/مشروع", &root(1).to_string(), "3", "4096"].map(str::to_owned).to_vec();
    assert_eq!(rows.len(), 4, "the node that is not there has no row");
    assert!(rows.iter().all(|row| row.2 == argv), "{rows:?}");
    let count = |outcome: &str| rows.iter().filter(|row| row.0 == outcome).count();
    assert_eq!((count("allowed"), count("denied")), (2, 2));
    world.is_idle().await;
    let mut told = world.told_to_its_end(&transfer).await;
    told.sort();
    let started = ("transfer.started".to_owned(), "push /srv/مشروع".to_owned());
    let ended = ("transfer.ended".to_owned(), "push done".to_owned());
    assert_eq!(told, [ended.clone(), ended, started.clone(), started]);
    world.stop().await;
}

#[tokio::test]
async fn the_node_is_told_how_to_treat_what_is_there_and_knows_itself_what_was_pushed_before() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let in_sync = async |order: Value, end: TransferEnd| {
        let view = world.begin(order).await;
        let ask = node.ask().await;
        node.tells(&world, &ask, Ok(Box::new(end)));
        (world.over(&id_of(&view)).await, ask)
    };
    let (view, ask) = in_sync(push(&["n1"], 1), all_well()).await;
    assert_eq!((&view["state"], &view["nodes"][0]["state"]), (&json!("done"), &json!("in_sync")));
    assert_eq!((apply(&ask).base, apply(&ask).only.clone()), (None, None));
    let mut dry = push(&["n1"], 2);
    dry["dry_run"] = json!(true);
    let (view, _) = in_sync(dry, TransferEnd::default()).await;
    assert_eq!(view["nodes"][0]["end"]["dry_run"], json!(true));
    let mut careful = push(&["n1"], 3);
    (careful["delete"], careful["force"], careful["only"]) = (json!(true), json!(true), json!("a[1].rs"));
    let failed = PathNote { path: RelPath::parse("a").expect("a path"), what: Noted::Failed(Code::NoSpace) };
    let view = world.begin(careful).await;
    let ask = node.ask().await;
    let mode = PushMode { first: true, force: true, delete: true };
    assert_eq!((apply(&ask).base, apply(&ask).mode), (None, Mode::Push(mode)));
    assert_eq!(apply(&ask).only.as_deref(), Some("a[1].rs"));
    let clerk = node.open(&world, &ask);
    clerk.say(Carry::End(Box::new(TransferEnd { notes: vec![failed], ..all_well() }))).await;
    let view = world.over(&id_of(&view)).await;
    assert_eq!((&view["state"], &view["nodes"][0]["error"]["code"]), (&json!("failed"), &json!("no_space")));
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn what_the_caller_cannot_give_is_told_to_the_node() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let mut clerk = node.opened(&world).await;
    clerk.wants(&ids([1, 2])).await;
    assert_eq!(world.wants(&transfer, "?wait_ms=5000").await.0, ids([1, 2]));
    let admin = world.admin.clone();
    let path = format!("{API}/{transfer}/missing");
    let told = world.octets(&admin, Method::POST, &path, id(1).as_bytes().to_vec()).await;
    assert_eq!((told.status.as_u16(), told.headers["cortex-transfer"].as_bytes()), (204, &b"open"[..]));
    assert_eq!(clerk.hear().await.expect("it goes on"), Carry::Missing(ids([1])));
    assert_eq!(
        world.wants(&transfer, "?again=true&wait_ms=5000").await.0,
        ids([2]),
        "it lost what it was asked"
    );
    world.octets(&admin, Method::POST, &path, vec![0; 33]).await.refused(400, "invalid_argument");
    world.send(&transfer, pack([2])).await.ok(204);
    assert_eq!(clerk.given(1).await, ids([2]));
    clerk.end().await;
    assert_eq!(world.over(&transfer).await["state"], "done");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_link_that_is_lost_and_comes_back_goes_on_with_the_same_transfer() {
    let world = World::new(StoreKind::Memory).await;
    let mut node = world.mover("n1").await;
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let ask = node.ask().await;
    let mut clerk = node.open(&world, &ask);
    clerk.wants(&ids([1, 2])).await;
    assert_eq!(world.wants(&transfer, "?wait_ms=5000").await.0, ids([1, 2]));
    world.send(&transfer, pack([1])).await.ok(204);
    assert_eq!(clerk.given(1).await, ids([1]));
    node.link.hang_up();
    world.hub.mesh.detach(&node.link);
    clerk.is_cut().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.view(&transfer).await["nodes"][0]["state"], "queued");
    node.link = world.attach(node.id).await;
    let again = node.ask().await;
    assert_eq!((again.id, again.work == ask.work, again.ticket == ask.ticket), (ask.id, true, false));
    let mut clerk = node.open(&world, &again);
    clerk.wants(&ids([2])).await;
    assert_eq!(world.wants(&transfer, "?wait_ms=5000").await.0, ids([2]), "what it has is not asked for");
    world.send(&transfer, pack([2])).await.ok(204);
    assert_eq!(clerk.given(1).await, ids([2]));
    clerk.end().await;
    assert_eq!(world.over(&transfer).await["state"], "done");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn no_more_run_at_one_node_than_it_has_streams_for_and_the_next_takes_its_turn() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let mut open = Vec::new();
    for number in 0..4 {
        let mut order = push(&["n1"], number);
        order["dest"] = json!(format!("/srv/{number}"));
        open.push(id_of(&world.begin(order).await));
    }
    let mut clerks = Vec::new();
    for _ in 0..cortex_core::limits::TRANSFERS_RUNNING_PER_NODE_MAX {
        clerks.push(node.opened(&world).await);
    }
    node.is_left_alone().await;
    let state = world.view(&open[3]).await["nodes"][0]["state"].clone();
    assert_eq!(state, "queued");
    clerks.remove(0).end().await;
    let fourth = node.ask().await;
    assert_eq!(fourth.id.to_string(), open[3]);
    node.open(&world, &fourth).end().await;
    for clerk in clerks {
        clerk.end().await;
    }
    for id in &open {
        assert_eq!(world.over(id).await["state"], "done");
    }
    let page = world.get(&format!("{API}?limit=3")).await.ok(200);
    let listed = |page: &Value| -> Vec<String> {
        page["items"].as_array().expect("items").iter().map(id_of).collect()
    };
    let mut newest = open.clone();
    newest.sort();
    newest.reverse();
    assert_eq!(listed(&page), newest[..3]);
    let cursor = page["next_cursor"].as_str().expect("there are more");
    let rest = world.get(&format!("{API}?limit=3&cursor={cursor}")).await.ok(200);
    assert_eq!((listed(&rest), &rest["next_cursor"]), (newest[3..].to_vec(), &Value::Null));
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn who_is_named_by_labels_is_each_told_and_a_repeat_with_the_same_key_is_the_same_push() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let away = world.mover("n2").await;
    world.hub.mesh.detach(&away.link);
    let mut order = push(&[], 1);
    order.as_object_mut().expect("an object").remove("nodes");
    order["labels"] = json!("role=ci");
    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", &*bearer), ("idempotency-key", "k1")];
    let begin = async |order: &Value| world.call(Method::POST, API, &headers, Some(order.clone())).await;
    let view = begin(&order).await.ok(202);
    let rows: Vec<_> = view["nodes"].as_array().expect("rows").iter().map(|row| &row["node"]).collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(id_of(&begin(&order).await.ok(202)), id_of(&view));
    order["force"] = json!(true);
    begin(&order).await.refused(409, "conflict");
    node.opened(&world).await.end().await;
    let over = world.over(&id_of(&view)).await;
    assert_eq!(over["state"], "failed", "the one that is away is not passed over");
    node.is_left_alone().await;
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a57_one_of_twenty_nodes_that_takes_nothing_holds_up_none_of_the_others() {
    let world = World::new(StoreKind::Memory).await;
    let names: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let mut nodes = Vec::new();
    for name in &names {
        nodes.push(world.mover(name).await);
    }
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    let transfer = id_of(&world.begin(push(&targets, 1)).await);
    let mut clerks = Vec::new();
    for node in &nodes {
        clerks.push(node.opened(&world).await);
    }
    for clerk in &clerks {
        clerk.wants(&ids([1, 2, 3])).await;
    }
    let mut wanted = Vec::new();
    while wanted.len() < 3 {
        wanted.extend(world.wants(&transfer, "?wait_ms=5000").await.0);
    }
    assert_eq!(wanted, ids([1, 2, 3]), "once for all");
    for number in 1..=3 {
        world.send(&transfer, pack([number])).await.ok(204);
    }
    let mut others = clerks.split_off(1);
    for clerk in &mut others {
        let mut given = clerk.given(3).await;
        given.sort_unstable();
        let mut all = ids([1, 2, 3]);
        all.sort_unstable();
        assert_eq!(given, all);
        clerk.end().await;
    }
    let states = async || {
        let view = world.get(&format!("/api/v1/transfers/{transfer}")).await.ok(200);
        let rows = view["nodes"].as_array().expect("rows").iter();
        rows.map(|row| row["state"].as_str().expect("a state").to_owned()).collect::<Vec<_>>()
    };
    let all_done = async {
        while states().await.iter().filter(|state| *state == "done").count() < 19 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_done).await.expect("the others are done");
    let left = states().await.into_iter().filter(|state| state != "done");
    assert_eq!(left.collect::<Vec<_>>(), ["moving"], "and the slow one may go on");
    // It wakes, and all of it is there still.
    assert_eq!(clerks[0].given(3).await.len(), 3);
    clerks[0].end().await;
    assert_eq!(world.over(&transfer).await["state"], json!("done"));
    world.is_idle().await;
    world.stop().await;
}
