//! Trees that come whole, in parts, spoilt, or with what was never asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cortex_content::pack::{Added, PackWriter};
use cortex_core::time::WallTime;
use cortex_store::blobs::{FolderBlobs, Rules, SpaceRules, Sweep};
use proptest::prelude::*;

use super::super::io::Io;
use super::super::played::{Folder, QUOTA, files, pair, store};
use super::super::push::Push;
use super::super::spool::Memory;
use super::*;

async fn received(hub: &Chunks, folder: &Arc<Folder>, scope: Vec<TreeId>, hold: Hold) -> Kept {
    received_for(true, hub, folder, scope, hold).await
}

async fn received_for(
    is_repeated: bool,
    hub: &Chunks,
    folder: &Arc<Folder>,
    scope: Vec<TreeId>,
    hold: Hold,
) -> Kept {
    let (stream, clerk) = pair();
    let sender = Arc::clone(folder);
    let node = tokio::spawn(async move { sender.send(clerk).await });
    let super::super::TransferStream { sending, mut receiving } = stream;
    let told = receiving.recv().await.expect("it goes on").expect("a frame");
    let Carry::Tree(told) = told else { panic!("{told:?}") };
    let order = Order { root: told.root, quota: QUOTA, content: Content::All, scope, is_repeated };
    let kept = receive(hub, order, hold, &sending, &mut receiving).await.expect("no panic");
    drop((sending, receiving));
    node.await.expect("no panic");
    kept
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_tree_is_taken_in_whole_and_the_next_one_brings_only_what_changed() {
    let (hub, folder) = (store(), Folder::new());
    let long = noise(1, 6 << 20);
    folder.write("مشروع/طويل", Some(&long));
    for number in 0..300_u64 {
        folder.write(&format!("src/{}/f{number}", number % 7), Some(&noise(number, 40)));
    }
    folder.write("empty", Some(b""));
    let hold = Hold::new(&hub).expect("a pin");
    let kept = received(&hub, &folder, Vec::new(), hold).await;
    kept.result.expect("whole");
    let first = folder.tree();
    let complete = hub.complete(first, kept.came.pin()).expect("walked").expect("whole");
    assert_eq!((complete.files(), complete.bytes()), (302, (6 << 20) + 300 * 40));
    assert_eq!(files(&hub, first), folder.files());

    folder.sent.lock().expect("no panic").clear();
    let mut changed = long;
    changed.splice(3 << 20..3 << 20, noise(7, 1_000));
    folder.write("مشروع/طويل", Some(&changed));
    folder.write("src/3/f3", Some(b"new"));
    let kept = received(&hub, &folder, vec![first], Hold::new(&hub).expect("a pin")).await;
    kept.result.expect("whole");
    let sent = folder.sent.lock().expect("no panic").len();
    assert!(sent < 30, "{sent} of more than 400 were sent");
    assert!(hub.complete(folder.tree(), kept.came.pin()).expect("walked").is_some());
    assert_eq!(files(&hub, folder.tree()), folder.files());
}

#[tokio::test]
async fn what_the_hub_has_of_others_is_asked_for_all_the_same() {
    let (hub, one, other) = (store(), Folder::new(), Folder::new());
    one.write("secret", Some(b"known by its hash to others"));
    other.write("stolen", Some(b"known by its hash to others"));
    let first = received(&hub, &one, Vec::new(), Hold::new(&hub).expect("a pin")).await;
    first.result.expect("whole");
    let second = received(&hub, &other, Vec::new(), Hold::new(&hub).expect("a pin")).await;
    second.result.expect("whole");
    let id = ContentId::of(b"known by its hash to others");
    assert!(other.sent.lock().expect("no panic").contains(&id));
}

#[tokio::test]
async fn a_transfer_that_was_cut_off_goes_on_with_what_came() {
    let (hub, folder) = (store(), Folder::new());
    for number in 0..40_u64 {
        folder.write(&format!("f{number}"), Some(&noise(number, 500_000)));
    }
    *folder.breaks.lock().expect("no panic") = Some(3);
    let cut = received(&hub, &folder, Vec::new(), Hold::new(&hub).expect("a pin")).await;
    assert_eq!(cut.result.expect_err("it broke").code, Code::NodeOffline);
    let before = cut.came.ids.len();
    assert!(before > 8, "{before}");
    *folder.breaks.lock().expect("no panic") = None;
    folder.sent.lock().expect("no panic").clear();
    let kept = received(&hub, &folder, Vec::new(), cut.came).await;
    kept.result.expect("whole");
    let sent = folder.sent.lock().expect("no panic").len();
    assert!(sent <= 41 - before, "{sent} more after {before}");
    assert_eq!(files(&hub, folder.tree()), folder.files());
}

#[tokio::test]
async fn who_has_to_do_it_again_is_told_so_when_a_folder_changes_and_nobody_else_is() {
    let (hub, folder) = (store(), Folder::new());
    folder.write("ملف", Some(b"it is another one when it is asked for"));
    let file = ContentId::of(b"it is another one when it is asked for");
    for gone in [file, folder.tree().into()] {
        *folder.gone.lock().expect("no panic") = [gone].into();
        let mut told = Vec::new();
        for is_repeated in [true, false] {
            let hold = Hold::new(&hub).expect("a pin");
            let kept = received_for(is_repeated, &hub, &folder, Vec::new(), hold).await;
            let refusal = kept.result.expect_err("it is not whole");
            assert_eq!(refusal.code, Code::Conflict);
            told.push((
                refusal.message.contains("it is looked at again"),
                refusal.hint.contains("Do it again"),
            ));
        }
        assert_eq!(told, [(true, false), (false, true)]);
    }
}

#[tokio::test]
async fn a_tree_above_its_quota_is_refused_by_its_first_object() {
    let (hub, folder) = (store(), Folder::new());
    folder.write("f", Some(&noise(1, 1_000)));
    let (stream, clerk) = pair();
    let sender = Arc::clone(&folder);
    let node = tokio::spawn(async move { sender.send(clerk).await });
    let super::super::TransferStream { sending, mut receiving } = stream;
    let _told = receiving.recv().await.expect("it goes on");
    let quota = TreeQuota { bytes: 999, ..QUOTA };
    let order =
        Order { root: folder.tree(), quota, content: Content::All, scope: Vec::new(), is_repeated: true };
    let hold = Hold::new(&hub).expect("a pin");
    let kept = receive(&hub, order, hold, &sending, &mut receiving).await.expect("no panic");
    assert_eq!(kept.result.expect_err("too much").code, Code::Quota);
    drop((sending, receiving));
    node.await.expect("no panic");
}

/// Gives what is asked for, as a caller does, until nothing is wanted for long or it is not taken.
async fn give(push: &Push, folder: &Folder) {
    loop {
        let ids = push.wants(false, Duration::from_secs(20)).await;
        let mut rest = &ids[..];
        while let Some(first) = rest.first() {
            let mut writer = PackWriter::new(1);
            while let Some(id) = rest.first() {
                if writer.add(*id, &folder.chunks.chunk(id).expect("its own")) == Added::Full {
                    break;
                }
                rest = &rest[1..];
            }
            let pack = writer.finish().expect("it has chunks");
            let taken = push.take([&pack.head.to_bytes()[..], &pack.tail[..]].concat().into()).await;
            taken.unwrap_or_else(|refusal| panic!("{first}: {refusal:?}"));
        }
        assert!(!ids.is_empty(), "nothing is wanted");
    }
}

#[tokio::test]
async fn of_a_callers_tree_for_which_the_disk_has_no_room_nothing_is_left_and_it_comes_when_there_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let of = Arc::clone(&left);
    let space =
        SpaceRules { room: Arc::new(move || Ok(of.load(Ordering::SeqCst))), ..SpaceRules::unbounded() };
    let (blobs, _) = FolderBlobs::open_with(&dir.path().join("chunks"), space).expect("opened");
    let hub = Chunks::new(Arc::new(blobs), Io::start(1).expect("a thread"));
    let folder = Folder::new();
    (0..30_u64).for_each(|n| folder.write(&format!("ملف-{n}"), Some(&noise(n, 700_000))));
    let receive = async |room_ends_with: usize| {
        let push = Push::new(1, dir.path().join("push"), hub.lane(), Memory::default());
        let (root, packs) = (folder.tree(), std::cell::Cell::new(0));
        let order =
            Order { root, quota: QUOTA, content: Content::All, scope: Vec::new(), is_repeated: false };
        let moved = |_, _| {
            packs.set(packs.get() + 1);
            if packs.get() == room_ends_with {
                left.store(0, Ordering::SeqCst);
            }
        };
        let hold = Hold::new(&hub).expect("a pin");
        tokio::select! {
            received = caller::receive(&hub, order, hold, (&push, 0), moved) => received,
            () = give(&push, &folder) => panic!("it goes on for ever"),
        }
    };
    let bytes = || hub.blobs().figures().expect("told").bytes;
    let refusal = receive(4).await.err().expect("no room");
    assert_eq!(refusal.code, Code::NoSpace);
    assert!(refusal.hint.contains("Free space on the hub's disk"), "{refusal:?}");
    assert!(bytes() > 0, "some of it had come");
    for _ in 0..3 {
        let since = hub.blobs().begin().expect("begun");
        let rules = Rules { young_ms: 0, condemned_ms: 0, ..Rules::default() };
        hub.blobs().collect(Sweep { since, roots: &[], now: WallTime(1 << 42), rules }).expect("swept");
    }
    assert_eq!(bytes(), 0, "nothing of it is left");
    left.store(u64::MAX, Ordering::SeqCst);
    let hold = receive(usize::MAX).await.expect("there is room");
    assert!(hub.complete(folder.tree(), hold.pin()).expect("walked").is_some());
    assert_eq!(files(&hub, folder.tree()), folder.files());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    /// Whatever one tree is made of the other, with one as the scope of the next.
    #[test]
    fn any_tree_comes_whole_whatever_came_before(
        steps in prop::collection::vec((0_usize..12, 0_u8..6, any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let (hub, folder) = (store(), Folder::new());
            let mut scope = Vec::new();
            let mut holds = Vec::new();
            for (round, part) in steps.chunks(5).enumerate() {
                for (name, content, is_there) in part {
                    let path = ["a", "b/c", "b/d", "b/e/f", "ملف", "b/e/g"][name % 6];
                    let content = noise(u64::from(*content), 30 * usize::from(*content));
                    folder.write(path, is_there.then_some(&content[..]));
                }
                let known = if round % 2 == 0 { scope.clone() } else { Vec::new() };
                let kept = received(&hub, &folder, known, Hold::new(&hub).expect("a pin")).await;
                kept.result.expect("whole");
                assert!(hub.complete(folder.tree(), kept.came.pin()).expect("walked").is_some());
                assert_eq!(files(&hub, folder.tree()), folder.files());
                scope = vec![folder.tree()];
                holds.push(kept.came);
            }
        });
    }
}
