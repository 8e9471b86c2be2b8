//! The content of a push between a caller and nodes that the test plays. Never here: HTTP, streams.

use cortex_content::pack::Added;
use tempfile::TempDir;

use super::*;
use crate::transfer::io::Io;

const NOT_LONG: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

struct Bench {
    push: Arc<Push>,
    _io: Io,
    _dir: TempDir,
}

fn bench(seats: usize) -> Bench {
    let (io, dir) = (Io::start(1).expect("a thread"), tempfile::tempdir().expect("a folder"));
    let push = Arc::new(Push::new(seats, dir.path().join("push"), io.lane(), Memory::default()));
    Bench { push, _io: io, _dir: dir }
}

/// Chunks of 1 KiB that do not compress.
fn chunk(number: u32) -> (ContentId, Bytes) {
    let mut bytes = vec![0; 1024];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (ContentId::of(&bytes), bytes.into())
}

fn id(number: u32) -> ContentId {
    chunk(number).0
}

fn pack(numbers: impl IntoIterator<Item = u32>) -> Bytes {
    let mut writer = PackWriter::new(LEVEL);
    for number in numbers {
        let (id, bytes) = chunk(number);
        assert_eq!(writer.add(id, &bytes), Added::Yes);
    }
    let pack = writer.finish().expect("it has chunks");
    [&pack.head.to_bytes()[..], &pack.tail[..]].concat().into()
}

/// Where a pack is held.
fn place(push: &Push, pack: PackNo) -> Option<Place> {
    push.lock().spool.as_ref().and_then(|spool| spool.place(pack))
}

/// What a pack holds, verified.
fn held(pack: &Bytes) -> Vec<ContentId> {
    let (head, len) = PackHead::read(pack).expect("a pack").expect("all of its head");
    let mut unpack = Unpack::new(head).expect("memory");
    unpack.push(pack.slice(len..)).expect("no more than it says");
    let mut ids = Vec::new();
    while let Some((id, _)) = unpack.next_chunk().expect("it is right") {
        ids.push(id);
    }
    unpack.finish().expect("it is whole");
    ids
}

async fn given(push: &Push, seat: Seat) -> Vec<ContentId> {
    match tokio::time::timeout(LONG, push.next(seat)).await.expect("in time").expect("it can be read") {
        Give::Pack(bytes, _) => held(&bytes),
        Give::Missing(ids) => panic!("{ids:?} are missing"),
    }
}

#[tokio::test]
async fn nothing_is_asked_of_the_caller_before_a_node_asks_and_nothing_twice() {
    let Bench { push, .. } = &bench(2);
    assert_eq!(push.wants(false, NOT_LONG).await, []);
    push.want(0, &[id(1), id(2)]).expect("few");
    push.want(1, &[id(2), id(3)]).expect("few");
    assert_eq!(push.wants(false, LONG).await, [id(1), id(2), id(3)]);
    assert_eq!(push.wants(false, NOT_LONG).await, []);
    assert_eq!(push.wants(true, LONG).await, [id(1), id(2), id(3)], "it lost them");
}

#[tokio::test]
async fn a_caller_that_waits_is_told_as_soon_as_something_is_wanted() {
    let Bench { push, .. } = &bench(1);
    let waiting = tokio::spawn({
        let push = Arc::clone(push);
        async move { push.wants(false, LONG).await }
    });
    tokio::task::yield_now().await;
    push.want(0, &[id(1)]).expect("few");
    assert_eq!(waiting.await.expect("it was told"), [id(1)]);
}

#[tokio::test]
async fn several_nodes_get_the_very_packs_that_came_and_one_that_wants_little_gets_that() {
    let Bench { push, .. } = &bench(3);
    let all: Vec<ContentId> = (0..10).map(id).collect();
    push.want(0, &all).expect("few");
    push.want(1, &all[..8]).expect("few");
    push.want(2, &all[4..5]).expect("few");
    let sent = pack(0..10);
    push.take(sent.clone()).await.expect("taken");
    for seat in [0, 1] {
        let Ok(Give::Pack(bytes, _)) = push.next(seat).await else { panic!("no pack") };
        assert_eq!(bytes, sent, "it wants three quarters or more of it");
    }
    assert_eq!(given(push, 2).await, [id(4)]);
    push.want(2, &[id(4), id(9)]).expect("a node may ask again");
    assert_eq!(given(push, 2).await, [id(4), id(9)]);
}

#[tokio::test]
async fn what_a_node_asks_for_while_the_pack_that_has_it_waits_comes_with_that_pack() {
    let Bench { push, .. } = &bench(1);
    push.want(0, &[id(1), id(3)]).expect("few");
    push.wants(false, LONG).await;
    push.take(pack([1, 2])).await.expect("taken");
    push.take(pack([3])).await.expect("taken");
    push.want(0, &[id(2)]).expect("few");
    assert_eq!(push.wants(false, NOT_LONG).await, [], "it is here");
    assert_eq!(given(push, 0).await, [id(1), id(2)]);
    assert_eq!(given(push, 0).await, [id(3)]);
    push.want(0, &[id(4)]).expect("few");
    push.take(pack([4])).await.expect("taken");
    assert_eq!((given(push, 0).await, push.open(0)), (vec![id(4)], 0));
}

#[tokio::test]
async fn a_push_to_one_node_forgets_a_pack_once_it_was_given() {
    let Bench { push, .. } = &bench(1);
    push.want(0, &[id(1), id(2)]).expect("few");
    push.wants(false, LONG).await;
    push.take(pack([1, 2])).await.expect("taken");
    assert_eq!(given(push, 0).await, [id(1), id(2)]);
    assert_eq!(place(push, 0), None);
    push.want(0, &[id(2)]).expect("a clerk that began anew");
    assert_eq!(push.wants(false, LONG).await, [id(2)], "it is asked for again");
}

#[tokio::test]
async fn what_a_node_asks_for_while_a_pack_with_it_waits_comes_with_that_and_holds_up_nothing() {
    let Bench { push, .. } = &bench(1);
    push.want(0, &[id(1), id(2), id(3)]).expect("few");
    // It was made before anybody asked, and holds more.
    push.take(pack([1, 2, 3, 4])).await.expect("taken");
    push.want(0, &[id(5)]).expect("few");
    push.take(pack([5])).await.expect("taken");
    push.want(0, &[id(4), id(6)]).expect("few");
    assert_eq!(given(push, 0).await, [id(1), id(2), id(3), id(4)]);
    assert_eq!(given(push, 0).await, [id(5)]);
    assert_eq!(push.wants(false, LONG).await, [id(6)]);
    push.take(pack([6])).await.expect("taken");
    assert_eq!((given(push, 0).await, push.open(0)), (vec![id(6)], 0));
}

#[tokio::test]
async fn a_pack_is_forgotten_when_every_node_that_is_still_there_has_it() {
    let Bench { push, .. } = &bench(3);
    push.leave(2);
    push.want(0, &[id(1), id(2)]).expect("few");
    push.want(1, &[id(2), id(1)]).expect("few");
    push.take(pack([1, 2])).await.expect("taken");
    assert_eq!(given(push, 0).await, [id(1), id(2)]);
    assert!(place(push, 0).is_some(), "another waits for it");
    assert_eq!(given(push, 1).await, [id(1), id(2)]);
    assert_eq!(place(push, 0), None);
    // One that came back asks, and so does the caller's next poll.
    push.want(2, &[id(1)]).expect("few");
    push.wants(false, LONG).await;
    push.want(2, &[id(2)]).expect("few");
    assert_eq!(push.wants(false, LONG).await, [id(2)]);
}

#[tokio::test]
async fn what_was_forgotten_while_a_node_waited_for_it_is_asked_for_again() {
    let Bench { push, .. } = &bench(2);
    push.want(0, &[id(1)]).expect("few");
    push.want(1, &[id(1)]).expect("few");
    assert_eq!(push.wants(false, LONG).await, [id(1)]);
    push.take(pack([1])).await.expect("taken");
    assert_eq!(given(push, 0).await, [id(1)]);
    // A clerk that began anew takes it twice, and is counted twice.
    push.want(0, &[id(1)]).expect("few");
    assert_eq!(given(push, 0).await, [id(1)]);
    assert_eq!(place(push, 0), None);
    let waits = tokio::spawn({
        let push = Arc::clone(push);
        async move { given(&push, 1).await }
    });
    assert_eq!(push.wants(false, LONG).await, [id(1)]);
    push.take(pack([1])).await.expect("taken");
    assert_eq!(waits.await.expect("no panic"), [id(1)]);
}

#[tokio::test]
async fn what_came_twice_or_unasked_is_passed_over_and_what_is_no_pack_refused() {
    let Bench { push, .. } = &bench(2);
    push.take(pack([7])).await.expect("passed over");
    assert_eq!(place(push, 0), None);
    push.want(0, &[id(1)]).expect("few");
    push.take(pack([1])).await.expect("taken");
    push.take(pack([1])).await.expect("passed over");
    assert_eq!(place(push, 1), None);
    let whole = pack([2]);
    for bad in [Bytes::new(), Bytes::from_static(b"CXP1"), whole.slice(..whole.len() - 1)] {
        assert_eq!(push.take(bad).await.expect_err("no pack").code, Code::InvalidArgument);
    }
    let longer = Bytes::from([&whole[..], b"x"].concat());
    assert_eq!(push.take(longer).await.expect_err("more than a pack").code, Code::InvalidArgument);
}

#[tokio::test]
async fn what_the_caller_cannot_give_is_told_to_the_nodes() {
    let Bench { push, .. } = &bench(2);
    push.want(0, &[id(1), id(2)]).expect("few");
    push.missing(&[id(1)]);
    let Ok(Give::Missing(ids)) = push.next(0).await else { panic!("it is missing") };
    assert_eq!(ids, [id(1)]);
    push.want(1, &[id(1)]).expect("few");
    assert!(matches!(push.next(1).await, Ok(Give::Missing(_))));
}

#[tokio::test]
async fn a_node_has_no_more_open_than_a_receiver_may() {
    let Bench { push, .. } = &bench(1);
    let many: Vec<ContentId> = (0..16).map(id).cycle().take(WANTS_OPEN_MAX).collect();
    push.want(0, &many).expect("as many as may be");
    assert_eq!(push.want(0, &[id(1)]).expect_err("one more").code, Code::TooLarge);
    push.leave(0);
    push.want(0, &[id(1)]).expect("it began anew");
    assert_eq!(push.wants(false, LONG).await, [id(1)]);
}

#[tokio::test]
async fn sync_15_a_slow_node_reads_from_the_disk_what_the_others_have_long_had() {
    let Bench { push, .. } = &bench(2);
    let big = |number: u32| {
        let mut bytes = vec![0; 1024 * 1024];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        (ContentId::of(&bytes), bytes)
    };
    let mut ids = Vec::new();
    for number in 0..14 {
        let mut writer = PackWriter::new(LEVEL);
        let chunks: Vec<_> = (0..3).map(|part| big(number * 3 + part)).collect();
        let of: Vec<ContentId> = chunks.iter().map(|(id, _)| *id).collect();
        for (id, bytes) in &chunks {
            assert_eq!(writer.add(*id, bytes), Added::Yes);
        }
        let pack = writer.finish().expect("it has chunks");
        push.want(0, &of).expect("few");
        push.take([&pack.head.to_bytes()[..], &pack.tail[..]].concat().into()).await.expect("taken");
        assert_eq!(given(push, 0).await, of);
        ids.extend(of);
    }
    let is_on_disk = matches!(place(push, 0), Some(Place::File(_)));
    assert!(is_on_disk, "42 MiB are more than the memory takes");
    push.want(1, &ids).expect("few");
    let mut got = Vec::new();
    while got.len() < ids.len() {
        got.extend(given(push, 1).await);
    }
    assert_eq!(got, ids);
}

#[tokio::test]
async fn a_push_that_is_over_holds_nothing_and_takes_nothing() {
    let Bench { push, .. } = &bench(1);
    push.want(0, &[id(1), id(2)]).expect("few");
    push.take(pack([1])).await.expect("taken");
    let waiting = tokio::spawn({
        let push = Arc::clone(push);
        async move { (push.wants(false, LONG).await, push.wants(false, LONG).await) }
    });
    tokio::task::yield_now().await;
    push.close();
    let (first, second) = tokio::time::timeout(LONG, waiting).await.expect("it is told").expect("no panic");
    assert!(first == [id(2)] || first.is_empty(), "{first:?}");
    assert_eq!((second, push.silence()), (vec![], None));
    push.take(pack([2])).await.expect("passed over");
    assert_eq!((place(push, 0), push.open(0)), (None, 0));
}

#[tokio::test]
async fn a_pack_for_one_node_that_had_to_leave_the_memory_is_read_before_it_is_forgotten() {
    let Bench { push, .. } = &bench(1);
    let mut asked = Vec::new();
    for number in 0..12 {
        let mut bytes = vec![0; 3 * 1024 * 1024];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
        let mut writer = PackWriter::new(LEVEL);
        for part in bytes.chunks(1024 * 1024) {
            assert_eq!(writer.add(ContentId::of(part), part), Added::Yes);
        }
        let first = ContentId::of(&bytes[..1024 * 1024]);
        push.want(0, &[first]).expect("few");
        let pack = writer.finish().expect("it has chunks");
        push.take([&pack.head.to_bytes()[..], &pack.tail[..]].concat().into()).await.expect("taken");
        asked.push(first);
    }
    assert!(matches!(place(push, 0), Some(Place::File(_))), "36 MiB are more than the memory takes");
    for first in asked {
        assert!(given(push, 0).await.contains(&first));
    }
    assert_eq!((place(push, 0), place(push, 11)), (None, None));
}
