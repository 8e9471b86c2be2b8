//! Makes packs of what is asked for, in a thread of its own, since it reads the disk. A pack is made when
//! somebody is ready to send it, so there are never more packs than senders, however long the tree is.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use cortex_content::asking::Answering;
use cortex_content::pack::{Added, PackWriter};
use cortex_core::files::content::ContentId;
use cortex_core::limits::{WANTS_MAX, WANTS_OPEN_MAX};
use cortex_core::{Code, Refusal};
use tokio::sync::{mpsc, oneshot};

use super::tree::{Paths, Tree};
use crate::error::Failure;

/// Level of compression: what is sent is read once, and this is as fast as most disks.
const LEVEL: i32 = 1;
/// Words that wait for the thread.
const WORDS_WAITING: usize = 4;
/// Ids that cannot be given which are remembered, so that their files can be named in the end.
const MISSING_KEPT_MAX: usize = 100_000;

/// What the thread is told.
enum Word {
    /// These are asked for. Answered when there is room for as many again.
    Want(Vec<ContentId>, oneshot::Sender<Result<(), Refusal>>),
    /// Somebody is ready to send.
    Next(oneshot::Sender<Result<Parcel, Refusal>>),
    /// The push begins anew: nothing is asked for.
    Reset,
    /// Which files could not be given?
    Changed(oneshot::Sender<Result<Paths, Refusal>>),
}

/// What is to be sent next.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// A whole pack.
    pub(super) pack: Option<Bytes>,
    /// These cannot be given.
    pub(super) missing: Vec<ContentId>,
}

/// The way to the thread. The thread ends with the last of them.
#[derive(Clone)]
pub(super) struct Packer(mpsc::Sender<Word>);

impl Packer {
    /// Starts the thread over a tree.
    pub(super) fn start(tree: Tree) -> Self {
        let (sender, words) = mpsc::channel(WORDS_WAITING);
        std::thread::spawn(move || Work::new(tree).serve(words));
        Self(sender)
    }

    /// Asks for these, behind what was asked for before. Waits until more may be asked for.
    pub(super) async fn want(&self, ids: Vec<ContentId>) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        self.tell(Word::Want(ids, answer)).await?;
        Ok(answered.await.map_err(|_| ended())??)
    }

    /// What is to be sent next; waits until something is asked for.
    pub(super) async fn next(&self) -> Result<Parcel, Failure> {
        let (answer, answered) = oneshot::channel();
        self.tell(Word::Next(answer)).await?;
        Ok(answered.await.map_err(|_| ended())??)
    }

    /// Forgets what was asked for.
    pub(super) async fn reset(&self) -> Result<(), Failure> {
        self.tell(Word::Reset).await
    }

    /// The files that could not be given.
    pub(super) async fn changed(&self) -> Result<Paths, Failure> {
        let (answer, answered) = oneshot::channel();
        self.tell(Word::Changed(answer)).await?;
        Ok(answered.await.map_err(|_| ended())??)
    }

    async fn tell(&self, word: Word) -> Result<(), Failure> {
        self.0.send(word).await.map_err(|_| ended())
    }
}

/// Only a fault of this program ends the thread early.
fn ended() -> Failure {
    Failure::new(Code::Internal, "The thread that reads the source ended.", "Push again, and report it.")
}

/// The thread.
struct Work {
    tree: Tree,
    asked: Answering,
    /// At most so many ids wait.
    waiting: usize,
    writer: PackWriter,
    senders: VecDeque<oneshot::Sender<Result<Parcel, Refusal>>>,
    asker: Option<oneshot::Sender<Result<(), Refusal>>>,
    missing: HashSet<ContentId>,
}

impl Work {
    fn new(tree: Tree) -> Self {
        Self {
            tree,
            asked: Answering::new(),
            waiting: 0,
            writer: PackWriter::new(LEVEL),
            senders: VecDeque::new(),
            asker: None,
            missing: HashSet::new(),
        }
    }

    fn serve(mut self, mut words: mpsc::Receiver<Word>) {
        while let Some(word) = words.blocking_recv() {
            match word {
                Word::Want(ids, answer) => self.want(&ids, answer),
                Word::Next(answer) => self.senders.push_back(answer),
                Word::Reset => {
                    (self.asked, self.waiting, self.asker) = (Answering::new(), 0, None);
                    self.senders.clear();
                }
                Word::Changed(answer) => {
                    // Whoever asked and left does not mind.
                    drop(answer.send(self.tree.files_of(&self.missing)));
                }
            }
            self.give();
        }
    }

    fn want(&mut self, ids: &[ContentId], answer: oneshot::Sender<Result<(), Refusal>>) {
        match self.asked.want(ids) {
            Ok(()) => {
                self.waiting += ids.len();
                self.asker = Some(answer);
            }
            Err(refusal) => drop(answer.send(Err(refusal))),
        }
    }

    /// Serves whoever waits, as far as that goes.
    fn give(&mut self) {
        while !self.asked.is_idle() {
            // One that left is not to take a pack with it.
            let Some(sender) = self.senders.pop_front() else { break };
            if sender.is_closed() {
                continue;
            }
            let parcel = self.parcel();
            drop(sender.send(parcel));
        }
        if self.asked.is_idle() {
            self.waiting = 0;
        }
        if self.waiting + WANTS_MAX <= WANTS_OPEN_MAX
            && let Some(asker) = self.asker.take()
        {
            drop(asker.send(Ok(())));
        }
    }

    fn parcel(&mut self) -> Result<Parcel, Refusal> {
        let batch = self.asked.next(|id| self.tree.len_of(id))?;
        self.waiting = self.waiting.saturating_sub(batch.give.len() + batch.missing.len());
        let mut missing = batch.missing;
        for id in batch.give {
            let Some(bytes) = self.tree.read(&id)? else {
                missing.push(id);
                continue;
            };
            match self.writer.add(id, &bytes) {
                Added::Yes | Added::Already => {}
                Added::Full | Added::Never => {
                    return Err(Refusal::new(Code::Internal, format!("The chunk {id} fits in no pack.")));
                }
            }
        }
        let room = MISSING_KEPT_MAX.saturating_sub(self.missing.len());
        self.missing.extend(missing.iter().take(room));
        let pack =
            self.writer.finish().map(|pack| [&pack.head.to_bytes()[..], &pack.tail[..]].concat().into());
        Ok(Parcel { pack, missing })
    }
}

#[cfg(test)]
mod tests {
    use cortex_content::packs::Stream;
    use cortex_node::local::LocalSpec;

    use super::*;

    fn started(files: u32) -> (tempfile::TempDir, Packer, ContentId) {
        let here = tempfile::tempdir().expect("a folder");
        for n in 0..files {
            std::fs::write(here.path().join(format!("ملف-{n}")), format!("content {n}")).expect("write");
        }
        let tree = Tree::open(here.path(), &LocalSpec::default(), None, None).expect("a tree");
        let root = tree.root().into();
        (here, Packer::start(tree), root)
    }

    fn ids_in(pack: Bytes) -> Vec<ContentId> {
        let mut stream = Stream::new();
        stream.push(pack).expect("a short pack");
        let mut ids = Vec::new();
        while let Some((id, _)) = stream.next_chunk().expect("verified") {
            ids.push(id);
        }
        ids
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
        let full = WANTS_OPEN_MAX / WANTS_MAX;
        for n in 0..full - 1 {
            packer.want(many((n * WANTS_MAX) as u32)).await.expect("room");
        }
        let last = packer.want(many(1 << 30));
        tokio::pin!(last);
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, &mut last).await.is_err(), "there is no room");
        assert_eq!(packer.next().await.expect("they are missing").missing.len(), WANTS_OPEN_MAX);
        last.await.expect("there is room");
        packer.want(many(0)).await.expect("room");
        packer.reset().await.expect("it lives");
        packer.want(vec![root]).await.expect("room");
        let parcel = packer.next().await.expect("something");
        assert_eq!((ids_in(parcel.pack.expect("a pack")), parcel.missing.len()), (vec![root], 0));
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
