//! Joins whose first try is still on its way through a store that stalls.

use std::sync::atomic::{AtomicU64, Ordering};

use cortex_core::event::EventKind;
use cortex_core::limits::JOIN_FAILURES_MAX;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::bus::Bus;
use crate::clock::{Clock, new_invite_id};
use crate::directory::Directory;

const SOON: Duration = Duration::from_secs(10);
const SECRET: [u8; 32] = [5; 32];
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    dir: tempfile::TempDir,
    stall_ms: Arc<AtomicU64>,
    context: Context,
    invite: InviteId,
}

impl World {
    /// A hub's store with an invite that is good for a minute.
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let stall_ms = Arc::new(AtomicU64::new(0));
        let options = SqliteOptions { stall_ms: Some(Arc::clone(&stall_ms)), ..SqliteOptions::default() };
        let store = Arc::new(SqliteStore::open(dir.path(), options, None).expect("a store"));
        let clock = Clock::default();
        let context = Context {
            store,
            clock,
            directory: Directory::default(),
            bus: Bus::new(clock),
            board: crate::board::Board::new(clock),
        };
        let now = clock.wall();
        let invite = Invite {
            id: new_invite_id(&clock),
            secret_hash: secret::hash(&SECRET),
            labels: cortex_core::name::Labels::new(),
            profile: "strict".to_owned(),
            created_by: "token:admin".to_owned(),
            created_at: now,
            expires_at: now.plus_ms(60_000),
            used_by: None,
            used_at: None,
            revoked_at: None,
            owner: None,
            max_profile: None,
        };
        let id = invite.id;
        context.store.write(SOON, move |tx| Ok(tx.put_invite(&invite)?)).await.expect("an invite");
        Self { dir, stall_ms, context, invite: id }
    }

    fn enrol(&self, ahead: Duration) -> Enrol {
        let context = Context { clock: self.context.clock.ahead(ahead), ..self.context.clone() };
        Enrol::new(context, Arc::new(Authority::open_or_create(self.dir.path()).expect("an authority")))
    }

    fn joining(&self, key: &rcgen::KeyPair, name: &str) -> Joining {
        let params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        let csr = params.serialize_request(key).expect("a request");
        Joining {
            invite: Bytes::copy_from_slice(self.invite.as_bytes()),
            secret: Bytes::from_static(&SECRET),
            name: name.to_owned(),
            csr_der: Bytes::from(csr.der().to_vec()),
            protocol: PROTOCOL,
            recovery_key: None,
        }
    }

    /// A join that waits in the store's queue when this returns, as the `nth` there.
    async fn queued(&self, enrol: Enrol, joining: Joining, nth: u64) -> JoinHandle<Result<Joined, Refusal>> {
        let join = tokio::spawn(async move { enrol.join(joining, None).await });
        let waits = async {
            while self.context.store.stats().queued < nth {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, waits).await.expect("it comes to the store");
        join
    }

    /// Has the store stall in the middle of a commit.
    async fn stall(&self) {
        self.stall_ms.store(60_000, Ordering::Relaxed);
        let (begun, begins) = oneshot::channel();
        let store = Arc::clone(&self.context.store);
        drop(tokio::spawn(async move {
            let work = move |tx: &mut dyn Tx| {
                tx.append_event(&Event::new(EventKind::HubStarted, WallTime(0)))?;
                begun.send(()).expect("somebody waits");
                Ok(())
            };
            store.write(MINUTE, work).await
        }));
        tokio::time::timeout(SOON, begins).await.expect("in time").expect("the commit begins");
    }

    fn go_on(&self) {
        self.stall_ms.store(0, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_join_repeated_while_its_first_try_waits_for_the_store_is_the_same_join() {
    // The second time the invite expires in between.
    for ahead in [Duration::ZERO, 2 * MINUTE] {
        let world = World::new().await;
        let key = rcgen::KeyPair::generate().expect("a key");
        world.stall().await;
        let first = world.queued(world.enrol(Duration::ZERO), world.joining(&key, "build-1"), 1).await;
        let second = world.queued(world.enrol(ahead), world.joining(&key, "build-1"), 2).await;
        world.go_on();
        let first = first.await.expect("no panic").expect("joined");
        let second = second.await.expect("no panic").expect("the same join");
        assert_eq!((first.node, &first.name), (second.node, &second.name), "{ahead:?}");
        let told = crate::authority::identity(&second.chain_der[0]).expect("a node's certificate");
        assert_eq!(told.node, first.node, "the certificate is for the node that joined");
        assert_eq!(world.context.directory.nodes().len(), 1);
        world.context.store.close().await;
    }
}

#[tokio::test]
async fn another_key_does_not_join_behind_one_that_waits_for_the_store() {
    let world = World::new().await;
    let [one, other] = [(); 2].map(|()| rcgen::KeyPair::generate().expect("a key"));
    world.stall().await;
    let first = world.queued(world.enrol(Duration::ZERO), world.joining(&one, "build-1"), 1).await;
    let second = world.queued(world.enrol(Duration::ZERO), world.joining(&other, "build-2"), 2).await;
    world.go_on();
    first.await.expect("no panic").expect("joined");
    assert_eq!(second.await.expect("no panic").expect_err("used").code, Code::InviteUsed);
    world.context.store.close().await;
}

#[tokio::test]
async fn who_shows_an_expired_invite_again_and_again_is_slowed_down() {
    let world = World::new().await;
    let (enrol, key) = (world.enrol(2 * MINUTE), rcgen::KeyPair::generate().expect("a key"));
    let source = Some(IpAddr::from([10, 0, 0, 1]));
    let mut codes = Vec::new();
    for _ in 0..=JOIN_FAILURES_MAX {
        codes.push(enrol.join(world.joining(&key, "build-1"), source).await.expect_err("expired").code);
    }
    assert_eq!(codes.pop(), Some(Code::RateLimited));
    assert!(codes.iter().all(|code| *code == Code::InviteExpired), "{codes:?}");
    world.context.store.close().await;
}
