//! Makes packs of what is asked for. A pack is made when somebody is ready to send it, so there are never more
//! packs than senders, however long the tree is, beside those that were made while the source was read.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_content::asking::Answering;
use cortex_content::pack::{Added, Pack, PackWriter};
use cortex_core::files::content::ContentId;
use cortex_core::limits::WANTS_OPEN_MAX;
use cortex_core::{Code, Refusal};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::ready::Ready;
use super::tree::{Paths, Tree};
use crate::error::Failure;

/// Level of compression: what is sent is read once, and this is as fast as most disks.
pub(super) const LEVEL: i32 = 1;
/// So long a pack of which a part is asked for waits for the rest to be asked for.
const REST_AWAITED: Duration = Duration::from_millis(30);
/// Ids that cannot be given which are remembered, so that their files can be named in the end.
const MISSING_KEPT_MAX: usize = 100_000;

/// What is to be sent next.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// A pack.
    pub(super) pack: Option<Pack>,
    /// These cannot be given.
    pub(super) missing: Vec<ContentId>,
}

/// Answers what is asked for, out of a tree. Cheap to clone.
#[derive(Clone)]
pub(in crate::cli) struct Packer(Arc<Shared>);

struct Shared {
    state: Arc<Mutex<State>>,
    /// Those that fill no pack. Under a lock of their own: whoever has the other one may be work that waits for the
    /// thread that gives a writer back.
    writers: std::sync::Mutex<Vec<PackWriter>>,
    /// Something was asked for, or given.
    news: Notify,
}

struct State {
    tree: Tree,
    /// What is asked for and in no pack that is ready.
    asked: Answering,
    ready: Ready,
    /// When something was asked for, or given.
    moved: Instant,
    /// So long a pack waits for its rest.
    rest_awaited: Duration,
    missing: HashSet<ContentId>,
}

/// What can be done for a sender.
enum Turn {
    /// This is ready.
    Give(Pack),
    /// A pack is to be made.
    Make,
    /// Nothing, until there is news, or until then.
    Wait(Option<Instant>),
}

impl Packer {
    /// Over a tree, of which these packs are made already.
    pub(in crate::cli) fn new(tree: Tree, ready: Ready) -> Self {
        Self::awaiting(REST_AWAITED, tree, ready)
    }

    fn awaiting(rest_awaited: Duration, tree: Tree, ready: Ready) -> Self {
        let (asked, missing, moved) = (Answering::new(), HashSet::new(), Instant::now());
        let state = Arc::new(Mutex::new(State { tree, asked, ready, moved, rest_awaited, missing }));
        Self(Arc::new(Shared { state, writers: std::sync::Mutex::default(), news: Notify::new() }))
    }

    /// Asks for these, behind what was asked for before. Waits until there is room for them.
    pub(super) async fn want(&self, ids: Vec<ContentId>) -> Result<(), Failure> {
        loop {
            let news = self.0.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let mut state = self.lock().await;
            if state.waiting() + ids.len() <= WANTS_OPEN_MAX {
                state.want(&ids)?;
                self.0.news.notify_waiters();
                return Ok(());
            }
            drop(state);
            news.await;
        }
    }

    /// What is to be sent next; waits until something is asked for. Whoever leaves before there is something takes
    /// nothing with it.
    pub(super) async fn next(&self) -> Result<Parcel, Failure> {
        loop {
            let news = self.0.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let mut state = self.lock().await;
            match state.turn()? {
                Turn::Give(pack) => {
                    self.0.news.notify_waiters();
                    return Ok(Parcel { pack: Some(pack), missing: Vec::new() });
                }
                Turn::Make => {
                    let shared = Arc::clone(&self.0);
                    let made = spawn_blocking(move || shared.make(state)).await;
                    return Ok(made.map_err(|_panic| ended())??);
                }
                Turn::Wait(until) => {
                    drop(state);
                    match until {
                        None => news.await,
                        Some(until) => tokio::select! {
                            () = news => {}
                            () = sleep_until(until) => {}
                        },
                    }
                }
            }
        }
    }

    /// Forgets what was asked for.
    pub(super) async fn reset(&self) {
        let mut state = self.lock().await;
        state.asked = Answering::new();
        state.ready.reset();
        self.0.news.notify_waiters();
    }

    /// The files that could not be given.
    pub(in crate::cli) async fn changed(&self) -> Result<Paths, Failure> {
        let mut state = self.lock().await;
        let found = spawn_blocking(move || {
            let State { tree, missing, .. } = &mut *state;
            tree.files_of(missing)
        });
        Ok(found.await.map_err(|_panic| ended())??)
    }

    async fn lock(&self) -> OwnedMutexGuard<State> {
        Arc::clone(&self.0.state).lock_owned().await
    }
}

/// Only a fault of this program does that.
fn ended() -> Failure {
    Failure::new(Code::Internal, "Reading the source failed.", "Push again, and report it.")
}

impl Shared {
    /// Reads and packs what was asked for first. Others go on meanwhile as soon as it is read.
    fn make(&self, mut state: OwnedMutexGuard<State>) -> Result<Parcel, Refusal> {
        let mut writer = self.writers().pop().unwrap_or_else(|| PackWriter::new(LEVEL));
        let missing = state.fill(&mut writer);
        drop(state);
        self.news.notify_waiters();
        let missing = missing?;
        let pack = writer.finish();
        self.writers().push(writer);
        Ok(Parcel { pack, missing })
    }

    fn writers(&self) -> MutexGuard<'_, Vec<PackWriter>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.asked.waiting() + self.ready.waiting()
    }

    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        let Self { tree, ready, .. } = self;
        let is_loose = |id: &&ContentId| tree.len_of(id).is_none_or(|len| !ready.want(**id, len));
        let loose: Vec<ContentId> = ids.iter().filter(is_loose).copied().collect();
        self.moved = Instant::now();
        self.asked.want(&loose)
    }

    fn turn(&mut self) -> Result<Turn, Refusal> {
        if let Some(pack) = self.ready.next() {
            self.moved = Instant::now();
            return Ok(Turn::Give(pack));
        }
        if !self.asked.is_idle() {
            return Ok(Turn::Make);
        }
        if self.ready.waiting() == 0 {
            return Ok(Turn::Wait(None));
        }
        // What is asked for next may be the rest of it.
        let until = self.moved + self.rest_awaited;
        if Instant::now() < until {
            return Ok(Turn::Wait(Some(until)));
        }
        let parts = self.ready.give_up();
        self.asked.want(&parts)?;
        Ok(Turn::Make)
    }

    /// Fills a pack with what was asked for first, and says what cannot be given.
    fn fill(&mut self, writer: &mut PackWriter) -> Result<Vec<ContentId>, Refusal> {
        let Self { tree, asked, .. } = self;
        let batch = asked.next(|id| tree.len_of(id))?;
        let mut missing = batch.missing;
        for id in batch.give {
            let len = tree.len_of(&id).unwrap_or_default() as usize;
            let mut read = Ok(());
            let added = writer.add_with(id, len, |room| {
                let is_there = tree.read_into(&id, room);
                is_there.unwrap_or_else(|refusal| {
                    read = Err(refusal);
                    false
                })
            });
            read?;
            match added {
                None => missing.push(id),
                Some(Added::Yes | Added::Already) => {}
                Some(Added::Full | Added::Never) => {
                    return Err(Refusal::new(Code::Internal, format!("The chunk {id} fits in no pack.")));
                }
            }
        }
        let room = MISSING_KEPT_MAX.saturating_sub(self.missing.len());
        self.missing.extend(missing.iter().take(room));
        self.moved = Instant::now();
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::limits::WANTS_MAX;
    use cortex_node::local::LocalSpec;

    use super::super::ready::Making;
    use super::super::ready::tests::{chunk, ids_in};
    use super::*;

    fn started(files: u32) -> (tempfile::TempDir, Packer, ContentId) {
        let here = tempfile::tempdir().expect("a folder");
        for n in 0..files {
            std::fs::write(here.path().join(format!("ملف-{n}")), format!("content {n}")).expect("write");
        }
        let tree = Tree::open(here.path(), &LocalSpec::default(), None, None, None).expect("a tree");
        let root = tree.root().into();
        (here, Packer::new(tree, Ready::default()), root)
    }

    #[tokio::test]
    async fn what_is_asked_for_comes_in_one_pack_in_its_order_and_what_is_not_there_is_said() {
        let (_here, packer, root) = started(3);
        let (one, none) = (ContentId::of(b"content 1"), ContentId::of(b"none"));
        packer.want(vec![root, none, one, ContentId::of(b"content 0")]).await.expect("room");
        let parcel = packer.next().await.expect("something");
        assert_eq!(ids_in(parcel.pack.expect("a pack")), [root, one, ContentId::of(b"content 0")]);
        assert_eq!(parcel.missing, [none]);
    }

    #[tokio::test]
    async fn a_file_that_changed_since_it_was_read_is_missing_and_named_in_the_end() {
        let (here, packer, root) = started(2);
        std::fs::write(here.path().join("ملف-1"), "other").expect("change it");
        std::fs::remove_file(here.path().join("ملف-0")).expect("remove it");
        let gone = [ContentId::of(b"content 1"), ContentId::of(b"content 0")];
        packer.want(vec![gone[0], root, gone[1]]).await.expect("room");
        let parcel = packer.next().await.expect("something");
        assert_eq!(ids_in(parcel.pack.expect("a pack")), [root]);
        assert_eq!(parcel.missing, gone);
        assert_eq!(packer.changed().await.expect("known").first, ["ملف-0", "ملف-1"]);
    }

    #[tokio::test]
    async fn more_is_not_asked_for_before_there_is_room_and_a_reset_forgets_all() {
        let (_here, packer, root) = started(1);
        let many =
            |from: u32| (0..WANTS_MAX as u32).map(|n| ContentId::of(&(from + n).to_le_bytes())).collect();
        for n in 0..WANTS_OPEN_MAX / WANTS_MAX {
            packer.want(many((n * WANTS_MAX) as u32)).await.expect("room");
        }
        let last = packer.want(many(1 << 30));
        tokio::pin!(last);
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, &mut last).await.is_err(), "there is no room");
        assert_eq!(packer.next().await.expect("they are missing").missing.len(), WANTS_OPEN_MAX);
        last.await.expect("there is room");
        packer.want(many(0)).await.expect("room");
        packer.reset().await;
        packer.want(vec![root]).await.expect("room");
        let parcel = packer.next().await.expect("something");
        assert_eq!((ids_in(parcel.pack.expect("a pack")), parcel.missing.len()), (vec![root], 0));
    }

    /// Three files of a mebibyte, of which a pack is made while they are read, and a fourth that came later.
    #[tokio::test]
    async fn what_was_packed_while_it_was_read_is_given_as_it_is_or_in_part_when_no_more_is_asked_for() {
        let here = tempfile::tempdir().expect("a folder");
        let file = |n: u64| {
            let (id, bytes) = chunk(n);
            std::fs::write(here.path().join(n.to_string()), &bytes).expect("write");
            id
        };
        let ids: Vec<ContentId> = (0..7).map(file).collect();
        let making = Making::new();
        let take = |id, bytes: &[u8]| making.take(id, bytes);
        let tree = Tree::open(here.path(), &LocalSpec::default(), None, None, Some(&take)).expect("a tree");
        let packer = Packer::awaiting(Duration::from_millis(500), tree, making.end());
        // What is ready is not read again.
        (0..6).for_each(|n| std::fs::remove_file(here.path().join(n.to_string())).expect("removed"));
        packer.want(ids[..2].to_vec()).await.expect("room");
        {
            let early = packer.next();
            tokio::pin!(early);
            let soon = Duration::from_millis(20);
            assert!(tokio::time::timeout(soon, &mut early).await.is_err(), "the rest may be asked for");
            packer.want(vec![ids[2], ids[6]]).await.expect("room");
            assert_eq!(ids_in(early.await.expect("most").pack.expect("a pack")), ids[..3]);
        }
        let rest = packer.next().await.expect("a part of the last pack");
        assert_eq!((ids_in(rest.pack.expect("read again")), rest.missing.len()), (vec![ids[6]], 0));
        packer.want(ids[3..6].to_vec()).await.expect("room");
        packer.reset().await;
        packer.want(vec![ids[3]]).await.expect("room");
        let lost = packer.next().await.expect("given up after a while");
        assert_eq!((lost.pack, lost.missing), (None, vec![ids[3]]));
        assert_eq!(packer.changed().await.expect("known").first, ["3"]);
    }

    #[tokio::test]
    async fn two_senders_are_served_at_once_and_each_chunk_goes_once() {
        let (_here, packer, root) = started(2_000);
        let all: Vec<ContentId> =
            (0..2_000).map(|n| ContentId::of(format!("content {n}").as_bytes())).collect();
        packer.want([&[root], &all[..1_000]].concat()).await.expect("room");
        let other = packer.clone();
        let (one, two) = tokio::join!(packer.next(), async {
            packer.want(all[1_000..].to_vec()).await.expect("room");
            other.next().await
        });
        let mut ids = Vec::new();
        for parcel in [one, two] {
            ids.extend(ids_in(parcel.expect("something").pack.expect("a pack")));
        }
        ids.sort_unstable();
        let mut expected = [&[root], &all[..]].concat();
        expected.sort_unstable();
        assert_eq!(ids, expected);
    }

    /// As at the limit of processes of a user.
    #[test]
    fn two_senders_are_served_where_one_thread_does_all_the_work() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        let here = tempfile::tempdir().expect("a folder");
        // So much that it takes a while to compress it.
        let file = |n: u64| {
            let (id, bytes) = chunk(n);
            std::fs::write(here.path().join(n.to_string()), bytes).expect("write");
            id
        };
        let all: Vec<ContentId> = (0..6).map(file).collect();
        let tree = || Tree::open(here.path(), &LocalSpec::default(), None, None, None).expect("a tree");
        let serve = async {
            for _ in 0..10 {
                let packer = Packer::new(tree(), Ready::default());
                packer.want(all[..3].to_vec()).await.expect("room");
                let other = packer.clone();
                let (one, two) = tokio::join!(packer.next(), async {
                    other.want(all[3..].to_vec()).await.expect("room");
                    other.next().await
                });
                let packs = [one, two].map(|parcel| parcel.expect("something").pack.expect("a pack"));
                assert_eq!(packs.into_iter().flat_map(ids_in).collect::<HashSet<_>>().len(), 6);
            }
        };
        let in_time = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), serve).await });
        runtime.shutdown_background();
        in_time.expect("it stands still");
    }

    #[tokio::test]
    async fn a_sender_that_left_takes_nothing_with_it() {
        let (_here, packer, root) = started(1);
        {
            let left = packer.next();
            tokio::pin!(left);
            let soon = std::time::Duration::from_millis(50);
            assert!(tokio::time::timeout(soon, &mut left).await.is_err(), "nothing is asked for");
        }
        packer.want(vec![root]).await.expect("room");
        assert!(packer.next().await.expect("something").pack.is_some());
    }
}
