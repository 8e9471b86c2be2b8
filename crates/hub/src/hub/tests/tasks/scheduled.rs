//! Schedules: made, seen, switched, removed, and what their ticks make.

use cortex_core::pool::schedule::Schedule;
use cortex_core::time::WallTime;
use cortex_store::{StoreExt as _, Tx};

use super::*;

const SCHEDULES: &str = "/api/v1/pool/schedules";

fn nightly() -> Value {
    json!({"name": "nightly", "cron": "30 3 * * *", "zone": "Europe/Berlin", "task": {"argv": ["backup"], "priority": 3}})
}

impl World {
    async fn schedule(&self, named: &str) -> Value {
        let all = self.get(SCHEDULES).await.ok(200);
        let all = all["items"].as_array().expect("items").clone();
        all.into_iter().find(|one| one["name"] == named).unwrap_or_else(|| panic!("no {named}"))
    }

    /// Moves the next tick of a schedule, as if the hub had not looked since, and has the timers look.
    async fn tick_was(&self, schedule: &Value, ms_ago: i64) {
        let id = schedule["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let at = WallTime(self.hub.context.clock.wall().0 - ms_ago);
        let work = move |tx: &mut dyn Tx| {
            let schedule = tx.schedule(id)?.expect("it is there");
            tx.put_schedule(&Schedule { next_at: Some(at), ..schedule })
        };
        self.hub.context.store.write(SOON, work).await.expect("written");
        self.hub.context.board.wake_timers();
    }

    async fn all_tasks(&self) -> Vec<Value> {
        self.get(TASKS).await.ok(200)["items"].as_array().expect("items").clone()
    }
}

#[tokio::test]
async fn a_schedule_is_made_listed_switched_and_removed() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let made = world.post(SCHEDULES, nightly()).await.ok(201);
        for (field, expected) in [
            ("name", json!("nightly")),
            ("zone", json!("Europe/Berlin")),
            ("missed", json!("once")),
            ("on", json!(true)),
            ("argv", json!(["backup"])),
            ("kind", json!("command")),
            ("priority", json!(3)),
            ("caller", json!("token:admin")),
            ("last_at", Value::Null),
        ] {
            assert_eq!(made[field], expected, "{field}");
        }
        assert!(
            made["next_at"].as_str().is_some_and(|at| at.ends_with(":30:00Z") || at.contains(":30:00.")),
            "{made}"
        );
        world.post(SCHEDULES, nightly()).await.refused(409, "conflict");
        let off =
            world.admin(Method::PATCH, &format!("{SCHEDULES}/nightly"), json!({"on": false})).await.ok(200);
        assert_eq!((&off["on"], &off["next_at"]), (&json!(false), &Value::Null));
        let id = made["id"].as_str().expect("an id");
        let on = world.admin(Method::PATCH, &format!("{SCHEDULES}/{id}"), json!({"on": true})).await.ok(200);
        assert_eq!(on["next_at"], made["next_at"]);
        let gone = world.admin(Method::DELETE, &format!("{SCHEDULES}/NIGHTLY"), Value::Null).await;
        assert_eq!(gone.status, 204);
        assert_eq!(world.get(SCHEDULES).await.ok(200)["items"], json!([]));
        world
            .admin(Method::DELETE, &format!("{SCHEDULES}/nightly"), Value::Null)
            .await
            .refused(404, "not_found");
        world.stop().await;
    }
}

#[tokio::test]
async fn a_tick_makes_one_task_however_often_it_is_looked_at() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let schedule = world.post(SCHEDULES, nightly()).await.ok(201);
        world.tick_was(&schedule, 1_000).await;
        let wait = async {
            while world.all_tasks().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it ticks");
        for _ in 0..5 {
            world.hub.context.board.wake_timers();
            tokio::task::yield_now().await;
        }
        let made = world.all_tasks().await;
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!((&made[0]["argv"], &made[0]["priority"]), (&json!(["backup"]), &json!(3)));
        let after = world.schedule("nightly").await;
        assert!(after["last_at"].is_string() && after["next_at"] == schedule["next_at"], "{after}");
        world.stop().await;
    }
}

#[tokio::test]
async fn ticks_that_passed_while_the_hub_was_away_make_one_task_or_none() {
    for (missed, tasks) in [("once", 1), ("skip", 0)] {
        let world = World::new(StoreKind::Sqlite).await;
        let mut asked = nightly();
        asked["missed"] = json!(missed);
        let schedule = world.post(SCHEDULES, asked).await.ok(201);
        world.tick_was(&schedule, 10 * 24 * 3_600 * 1_000).await;
        let wait = async {
            while world.schedule("nightly").await["next_at"] != schedule["next_at"] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it moves on");
        assert_eq!(world.all_tasks().await.len(), tasks, "{missed}");
        world.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_a_schedule_is_refused_and_others_schedules_are_not_there() {
    let world = World::new(StoreKind::Sqlite).await;
    let with = |field: &str, value: Value| {
        let mut asked = nightly();
        asked[field] = value;
        asked
    };
    for asked in [
        with("cron", json!("61 * * * *")),
        with("cron", json!("0 0 30 2 *")),
        with("zone", json!("Mars/Olympus")),
        with("missed", json!("twice")),
        with("name", json!("a b")),
        with("task", json!({})),
        with("task", json!({"argv": ["true"], "key": "k"})),
        with("task", json!({"argv": ["true"], "not_before": "2030-01-01T00:00:00Z"})),
        with("task", json!({"argv": ["true"], "after": [NO_ID]})),
    ] {
        let refused = world.post(SCHEDULES, asked.clone()).await.refused(400, "invalid_argument");
        assert!(!refused["hint"].as_str().unwrap_or_default().is_empty(), "{asked}");
    }
    world.post(SCHEDULES, nightly()).await.ok(201);
    let ops = world.person("olga", &[("operator", "role=ci")]).await;
    let listed = world.with_token(&ops, Method::GET, SCHEDULES, None).await.ok(200);
    assert_eq!(listed["items"], json!([]));
    let path = format!("{SCHEDULES}/nightly");
    world.with_token(&ops, Method::DELETE, &path, None).await.refused(404, "not_found");
    let body = Some(json!({"on": false}));
    world.with_token(&ops, Method::PATCH, &path, body).await.refused(404, "not_found");
    // The name is free for one's own.
    world.with_token(&ops, Method::POST, SCHEDULES, Some(nightly())).await.ok(201);
    let urgent = json!({"name": "x", "cron": "@daily", "task": {"argv": ["true"], "priority": 9}});
    world.with_token(&ops, Method::POST, SCHEDULES, Some(urgent)).await.refused(403, "forbidden");
    world.stop().await;
}
