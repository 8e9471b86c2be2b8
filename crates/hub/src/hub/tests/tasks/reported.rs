//! Reports of many attempts in one request: each is answered on its own.

use super::*;

const REPORTS: &str = "/api/v1/pool/reports";

fn report(task: &Value, how: &str) -> Value {
    json!({"id": task["id"], "attempt": task["attempt"], "how": how})
}

#[tokio::test]
async fn reports_of_many_attempts_are_taken_in_one_request_and_one_that_is_refused_holds_up_no_other() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let a = world.token("worker-a", Role::Operator, false, false).await;
        let b = world.token("worker-b", Role::Operator, false, false).await;
        let mut tasks = Vec::new();
        for _ in 0..4 {
            tasks.push(world.submit(json!({"kind": "resize", "payload": "x"})).await);
        }
        let claim = json!({"kinds": ["resize"], "max": 4});
        let claimed = world.with_token(&a, Method::POST, "/api/v1/pool/claims", Some(claim)).await.ok(200);
        let claimed = claimed["items"].as_array().expect("items").clone();
        assert_eq!(claimed.len(), 4);

        let body = json!([report(&claimed[0], "finish")]);
        let foreign = world.with_token(&b, Method::POST, REPORTS, Some(body)).await.ok(200);
        assert_eq!(foreign["items"][0]["error"]["code"], "not_found");

        let done = json!({"id": claimed[0]["id"], "attempt": 1, "how": "finish", "result": {"output": "y"}});
        let failed = json!({"id": claimed[1]["id"], "attempt": 1, "how": "fail", "result": {"final": true}});
        let body = json!([done, report(&claimed[0], "finish"), failed, report(&claimed[2], "release")]);
        let answers = world.with_token(&a, Method::POST, REPORTS, Some(body)).await.ok(200);
        assert_eq!(
            (&answers["items"][0]["state"], &answers["items"][2]["state"], &answers["items"][3]["state"]),
            (&json!("done"), &json!("dead"), &json!("ready"))
        );
        assert_eq!(answers["items"][1]["error"]["code"], "stale_attempt");
        assert_eq!(world.story(&claimed[0]).await["result"]["output"], "y");

        // What cannot be read takes none of them.
        for bad in [
            json!([report(&claimed[3], "finish"), report(&claimed[3], "lose")]),
            json!([report(&claimed[3], "finish"), {"id": claimed[3]["id"], "attempt": 1, "how": "finish", "result": {"final": true}}]),
            json!([]),
            Value::Array(vec![report(&claimed[3], "finish"); 257]),
        ] {
            world.with_token(&a, Method::POST, REPORTS, Some(bad)).await.refused(400, "invalid_argument");
        }
        assert_eq!(world.story(&claimed[3]).await["state"], "leased");
        world.stop().await;
    }
}
