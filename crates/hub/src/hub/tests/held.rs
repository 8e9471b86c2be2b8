//! A workspace that is locked, for tests of what is written below its folders.

use serde_json::json;

use super::*;

const WS: &str = "/api/v1/workspaces/notes";

impl World {
    /// A workspace `notes` with this folder of the node `n1`.
    pub(super) async fn follows(&self, folder: &str) {
        self.admin(Method::POST, "/api/v1/workspaces", json!({"name": "notes"})).await.ok(201);
        let member = json!({"node": "n1", "path": folder, "role": "follower"});
        self.admin(Method::POST, &format!("{WS}/members"), member).await.ok(201);
    }

    /// The administrator takes its lock, and gets its number.
    pub(super) async fn hold(&self, ttl_ms: u64) -> u64 {
        let body = json!({"ttl_ms": ttl_ms});
        let held = self.admin(Method::PUT, &format!("{WS}/lock"), body).await.ok(200);
        held["lock"]["epoch"].as_u64().expect("a number")
    }

    /// And gives it back.
    pub(super) async fn let_go(&self, epoch: u64) {
        self.admin(Method::DELETE, &format!("{WS}/lock?epoch={epoch}"), json!({})).await.ok(200);
    }
}
