//! Claims of workers that are stored when nobody waits for them any more: the worker had gone, or its
//! wait was over, while they stood in the queue of the store.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use super::worked::{CLAIMS, claim_bytes, scene};
use super::*;

/// A store that callers wait for only so long, and whose queue is full for some writes.
fn hurried_store(
    inner: Arc<dyn Store>,
    wait_ms: Arc<AtomicU64>,
    full_for: Arc<AtomicUsize>,
) -> Arc<dyn Store> {
    Through::writes(inner, move |inner, work, deadline| {
        let one_less = |count: usize| count.checked_sub(1);
        let is_full = full_for.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        let wait = Duration::from_millis(wait_ms.load(Ordering::Relaxed));
        async move {
            if is_full {
                return Err(StoreError::Full.into());
            }
            inner.write_boxed(work, deadline.min(wait)).await
        }
    })
}

/// Stands in the store's only door until it is dropped: what comes after it waits in the queue.
struct Held {
    _open: std::sync::mpsc::SyncSender<()>,
}

impl World {
    async fn hold_the_store(&self) -> Held {
        let ((tell, told), (open, wait)) = (oneshot::channel(), std::sync::mpsc::sync_channel(1));
        let store = Arc::clone(&self.hub.context.store);
        tokio::spawn(async move {
            let stands = move |_: &mut dyn Tx| {
                tell.send(()).ok();
                wait.recv_timeout(SOON).ok();
                Ok(())
            };
            drop(store.write(SOON, stands).await);
        });
        told.await.expect("the store has begun with it");
        Held { _open: open }
    }

    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("in time: {what}"));
    }

    /// A claim of a worker that goes away when the claim is in the store's queue.
    async fn claims_and_goes(&self, token: &str, max: usize) {
        let (addr, before) = (self.hub.started().http, self.hub.context.store.stats().queued);
        let mut stream = tokio::net::TcpStream::connect(addr).await.expect("the hub listens");
        let body = json!({"kinds": ["resize"], "max": max});
        stream.write_all(&claim_bytes(addr, &format!("Bearer {token}"), &body)).await.expect("sent");
        self.until("it is queued", |world| world.hub.context.store.stats().queued > before).await;
        assert_eq!(self.hub.context.board.asking("resize"), 1);
        drop(stream);
        self.until("it has gone", |world| world.hub.context.board.asking("resize") == 0).await;
    }

    /// The task was leased, and came back as if that had not been.
    async fn comes_back(&self, task: &Value) {
        let is_back = |story: &Value| story["state"] == "ready" && steps(story).contains(&"leased");
        let back = self.task_once(task, is_back).await;
        assert_eq!(
            (&back["tries"], &back["timeline"][3]["detail"]),
            (&json!(0), &json!("given_back")),
            "{back}"
        );
    }
}

async fn hurried() -> (World, String, String, Arc<AtomicU64>, Arc<AtomicUsize>) {
    let (wait_ms, full_for) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicUsize::new(0)));
    let (wait, full) = (Arc::clone(&wait_ms), Arc::clone(&full_for));
    let world = World::with(StoreKind::Sqlite, move |inner| hurried_store(inner, wait, full)).await;
    let a = world.token("worker-a", Role::Operator, false, false).await;
    let b = world.token("worker-b", Role::Operator, false, false).await;
    (world, a, b, wait_ms, full_for)
}

#[tokio::test]
async fn a_claim_whose_worker_went_while_it_stood_in_the_queue_is_given_back_when_it_is_stored() {
    let (world, a, b) = scene(StoreKind::Sqlite).await;
    let submit = || world.submit(json!({"kind": "resize", "attempts": 1}));
    let tasks = [submit().await, submit().await, submit().await];
    let held = world.hold_the_store().await;
    world.claims_and_goes(&a, 3).await;
    drop(held);
    for task in &tasks {
        world.comes_back(task).await;
    }
    assert_eq!(world.hub.context.board.leases(), 0);
    let claimed = world.claim(&b, json!({"kinds": ["resize"], "max": 9})).await;
    assert_eq!(claimed.iter().map(|task| task["attempt"].as_u64()).collect::<Vec<_>>(), [Some(2); 3]);
    world.stop().await;
}

#[tokio::test]
async fn a_claim_whose_wait_for_the_store_was_over_is_given_back_when_it_is_stored() {
    let (world, a, b, wait_ms, _) = hurried().await;
    let task = world.submit(json!({"kind": "resize", "attempts": 1})).await;
    let held = world.hold_the_store().await;
    wait_ms.store(50, Ordering::Relaxed);
    let refused = world.with_token(&a, Method::POST, CLAIMS, Some(json!({"kinds": ["resize"]}))).await;
    refused.refused(503, "store_unavailable");
    wait_ms.store(u64::MAX, Ordering::Relaxed);
    // Another one waits in the meantime, and is told.
    let other = async {
        let claimed = world.claim_one(&b).await;
        assert_eq!((&claimed["id"], &claimed["attempt"]), (&task["id"], &json!(2)));
        claimed
    };
    let opens = async {
        world.until("both are queued", |world| world.hub.context.store.stats().queued == 2).await;
        drop(held);
    };
    let (claimed, ()) = tokio::join!(other, opens);
    assert_eq!(claimed["tries"], 0);
    assert_eq!(world.hub.context.board.leases(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_give_back_that_the_store_has_no_room_for_is_tried_again() {
    let (world, a, b, _, full_for) = hurried().await;
    let task = world.submit(json!({"kind": "resize", "attempts": 1})).await;
    let held = world.hold_the_store().await;
    world.claims_and_goes(&a, 1).await;
    full_for.store(2, Ordering::Relaxed);
    drop(held);
    world.comes_back(&task).await;
    assert_eq!(full_for.load(Ordering::Relaxed), 0, "it was refused before");
    assert_eq!(world.claim_one(&b).await["attempt"], 2);
    world.stop().await;
}
