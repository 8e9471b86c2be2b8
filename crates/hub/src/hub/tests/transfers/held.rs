//! Pushes into folders of a workspace that is locked.

use super::*;

impl World {
    async fn begin_under(&self, order: Value, epoch: &str) -> Value {
        let bearer = format!("Bearer {}", self.admin);
        let headers = [("authorization", bearer.as_str()), ("cortex-lock", epoch)];
        self.call(Method::POST, API, &headers, Some(order)).await.ok(202)
    }
}

/// The next ask that is none of the workspace's own.
async fn pushed(node: &Played) -> TransferAsk {
    loop {
        let ask = node.ask().await;
        if ask.caller == "token:admin" {
            return ask;
        }
    }
}

#[tokio::test]
async fn a_push_into_above_or_below_a_locked_folder_needs_its_lock_and_others_go_on() {
    let world = World::new(StoreKind::Sqlite).await;
    let (one, two) = (world.mover("n1").await, world.mover("n2").await);
    world.follows("/srv/مشروع").await;
    let epoch = world.hold(60_000).await;
    let to = |dest: &str| json!({"dest": dest});
    let order = |change: Value| {
        let mut order = push(&["n1"], 1);
        let of = change.as_object().expect("fields").clone();
        order.as_object_mut().expect("fields").extend(of);
        order
    };
    for dest in ["/srv", "/srv/مشروع", "/srv/مشروع/a"] {
        let view = world.begin(order(to(dest))).await;
        assert_eq!(view["nodes"][0]["error"]["code"], "locked", "{dest}: {view}");
        let view = world.begin_under(order(to(dest)), &(epoch + 1).to_string()).await;
        assert_eq!(view["nodes"][0]["error"]["code"], "stale_epoch", "{dest}: {view}");
    }
    let view = world.begin(order(json!({"dest": "/srv", "only": "مشروع"}))).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "locked", "{view}");
    // One entry beside it, what is only tried, and what is pulled.
    for free in [json!({"dest": "/srv", "only": "other"}), json!({"dry_run": true})] {
        let view = world.begin(order(free)).await;
        assert_eq!(view["nodes"][0]["error"], Value::Null, "{view}");
        assert_eq!(pushed(&one).await.lock, None);
        world.admin(Method::DELETE, &format!("{API}/{}", id_of(&view)), json!({})).await.ok(200);
    }
    let view = world.begin(json!({"kind": "pull", "node": "n1", "source": "/srv/مشروع"})).await;
    assert_eq!(view["nodes"][0]["error"], Value::Null, "{view}");
    world.admin(Method::DELETE, &format!("{API}/{}", id_of(&view)), json!({})).await.ok(200);

    let view = world.begin(push(&["n1", "n2"], 1)).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "locked");
    assert_eq!(two.ask().await.lock, None);
    let view = world.begin_under(push(&["n1"], 2), &epoch.to_string()).await;
    assert_eq!(view["nodes"][0]["error"], Value::Null, "{view}");
    let ask = loop {
        let ask = pushed(&one).await;
        if ask.id.to_string() == id_of(&view) {
            break ask;
        }
    };
    assert_eq!(ask.lock.map(|(_, epoch)| epoch.0), Some(epoch), "the node fences it as well");
    world.let_go(epoch).await;
    let view = world.over(&id_of(&view)).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "stale_epoch", "its lock is over: {view}");
    world.stop().await;
}

#[tokio::test]
async fn a_push_that_is_under_way_ends_when_its_folder_is_locked() {
    let world = World::new(StoreKind::Memory).await;
    let (one, two) = (world.mover("n1").await, world.mover("n2").await);
    world.follows("/srv/مشروع").await;
    let view = world.begin(push(&["n1", "n2"], 1)).await;
    let (mut clerk, other) = (one.open(&world, &pushed(&one).await), two.open(&world, &two.ask().await));
    let epoch = world.hold(60_000).await;
    clerk.is_cut().await;
    let view_of = async {
        loop {
            let view = world.view(&id_of(&view)).await;
            if !view["nodes"][0]["error"].is_null() {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let view = tokio::time::timeout(SOON, view_of).await.expect("it ends there");
    assert_eq!(view["nodes"][0]["error"]["code"], "locked", "{view}");
    assert_eq!(view["nodes"][1]["error"], Value::Null, "the other is none of the workspace's");
    other.end().await;
    let view = world.over(&id_of(&view)).await;
    assert_eq!(view["nodes"][1]["state"], "done", "{view}");
    world.let_go(epoch).await;
    world.stop().await;
}
