//! How long ended tasks are kept.

use cortex_core::retention::Kept;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::service::pool::Pool;

#[tokio::test]
async fn ended_tasks_beyond_the_bound_go_and_one_that_others_wait_for_stays() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mut all = Vec::new();
        for number in 0..5 {
            all.push(world.submit(json!({"argv": ["true"], "labels": {"n": number.to_string()}})).await);
        }
        let waiting = world.submit(json!({"argv": ["true"], "after": [id(&all[0])]})).await;
        for task in &all[..4] {
            world.post(&of(task, "/cancel"), json!({})).await.ok(202);
        }
        let pool = Pool::new(world.hub.context.clone(), world.hub.mesh.clone());
        let kept = |max| Kept { ms: u64::MAX / 4, max, age_after_ms: 0 };
        let stop = CancellationToken::new();
        pool.retain(kept(4), &stop).await.expect("the store answers");
        assert_eq!(world.get(TASKS).await.ok(200)["items"].as_array().map(Vec::len), Some(6));
        pool.retain(kept(1), &stop).await.expect("the store answers");
        let left = world.get(TASKS).await.ok(200);
        let left: Vec<String> = left["items"].as_array().expect("items").iter().map(id).collect();
        // The first three were due; the very first is waited for.
        assert_eq!(left, [&waiting, &all[4], &all[3], &all[0]].map(id));
        world.get(&of(&all[1], "")).await.refused(404, "not_found");
        world.stop().await;
    }
}
