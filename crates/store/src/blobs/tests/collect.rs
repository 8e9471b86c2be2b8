//! SYNC, safety rule 18: collection takes nothing that a root or a live transfer names, whatever comes in
//! between, and takes all else in the end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::blobs::{Completeness, Pin};

/// Trees of the test: each has a few of the files, some of them in a directory that others have too.
const TREES: u16 = 12;

fn tree(number: u16) -> (Made, TreeId) {
    let mut made = Made::default();
    let shared = number % 3;
    let files = (0..3).map(|file| made.file(shared * 3 + file)).collect();
    let sub = made.sub("shared", files);
    let own = (0..1 + number % 4).map(|file| made.file(100 + number * 2 + file)).collect::<Vec<_>>();
    let (id, _) = made.dir([vec![sub], own].concat());
    (made, id)
}

#[derive(Clone, Debug)]
enum Step {
    /// A transfer begins.
    Begin,
    /// The newest transfer but so many asks what is there of a tree, and puts the rest.
    Bring(usize, u16),
    /// A transfer ends: with its trees kept, if they are whole, or not.
    End(usize, bool),
    /// A root is given up.
    Drop(usize),
    Collect,
    /// A root is read before its collection begins, and another transfer ends in between.
    CollectLate(usize),
    Scrub,
    /// A kill in a step of a collection, or of a sync.
    CrashCollecting(usize),
    CrashSyncing(usize, u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Begin),
        8 => (0..3_usize, 0..TREES).prop_map(|(who, tree)| Step::Bring(who, tree)),
        4 => (0..3_usize, any::<bool>()).prop_map(|(who, keep)| Step::End(who, keep)),
        3 => (0..6_usize).prop_map(Step::Drop),
        6 => Just(Step::Collect),
        2 => (0..3_usize).prop_map(Step::CollectLate),
        1 => Just(Step::Scrub),
        1 => (0..12_usize).prop_map(Step::CrashCollecting),
        1 => (0..12_usize, 0..TREES).prop_map(|(at, tree)| Step::CrashSyncing(at, tree)),
    ];
    prop::collection::vec(step, 1..40)
}

/// A transfer: what it has brought or found.
struct Transfer {
    pin: Pin,
    trees: BTreeSet<u16>,
    chunks: BTreeMap<ContentId, Bytes>,
}

#[derive(Default)]
struct Model {
    transfers: Vec<Transfer>,
    roots: Vec<u16>,
}

impl Model {
    fn roots(&self) -> Vec<Root> {
        self.roots.iter().map(|number| root(tree(*number).1)).collect()
    }

    fn who(&self, number: usize) -> Option<usize> {
        number.checked_rem(self.transfers.len())
    }

    /// A transfer asks and puts what is not there.
    fn bring(&mut self, blobs: &dyn Blobs, who: usize, number: u16) {
        let Some(who) = self.who(who) else { return };
        let transfer = &mut self.transfers[who];
        let (made, _) = tree(number);
        let ids: Vec<ContentId> = made.chunks.iter().map(|(id, _)| *id).collect();
        let have = blobs.have(&ids, &transfer.pin).expect("an index");
        let missing = made.chunks.iter().zip(have).filter(|(_, here)| !here).map(|(chunk, _)| chunk.clone());
        put_all(blobs, &Made { chunks: missing.collect() }, &transfer.pin);
        transfer.chunks.extend(made.chunks);
        transfer.trees.insert(number);
    }

    fn end(&mut self, blobs: &dyn Blobs, who: usize, keep: bool) {
        let Some(who) = self.who(who) else { return };
        let transfer = self.transfers.remove(who);
        if keep {
            blobs.sync(&transfer.pin).expect("a disk");
            for number in transfer.trees {
                let whole = blobs.complete(&root(tree(number).1), &transfer.pin).expect("a walk");
                assert_eq!(whole, Completeness::Whole, "tree {number}");
                self.roots.push(number);
            }
        }
    }

    fn check(&self, blobs: &dyn Blobs) {
        let roots = self.roots.iter().flat_map(|number| tree(*number).0.chunks);
        let held = self.transfers.iter().flat_map(|transfer| transfer.chunks.clone());
        let all: BTreeMap<ContentId, Bytes> = roots.chain(held).collect();
        for (id, bytes) in all {
            assert_eq!(blobs.chunk(&id).expect("nothing is damaged").as_ref(), Some(&bytes), "{id}");
        }
    }
}

fn run(mut subject: Subject, steps: &[Step]) {
    let mut model = Model::default();
    for step in steps {
        let blobs = subject.blobs();
        match step {
            Step::Begin if model.transfers.len() < 3 => {
                let pin = blobs.pin().expect("pins");
                let (trees, chunks) = (BTreeSet::new(), BTreeMap::new());
                model.transfers.push(Transfer { pin, trees, chunks });
            }
            Step::Begin => {}
            Step::Bring(who, number) => model.bring(blobs, *who, *number),
            Step::End(who, keep) => model.end(blobs, *who, *keep),
            Step::Drop(which) => {
                if let Some(which) = which.checked_rem(model.roots.len()) {
                    model.roots.remove(which);
                }
            }
            Step::Collect => {
                collect(blobs, &model.roots(), AT_ONCE);
            }
            Step::CollectLate(who) => {
                let since = blobs.begin().expect("pins");
                let roots = model.roots();
                model.end(blobs, *who, true);
                let sweep = Sweep { since, roots: &roots, now: WallTime(0), rules: AT_ONCE };
                blobs.collect(sweep).expect("a whole graph");
            }
            Step::Scrub => assert_eq!(blobs.scrub(u64::MAX).expect("a disk").damaged, []),
            Step::CrashCollecting(at) => {
                let roots = model.roots();
                // A crash ends every transfer.
                model.transfers.clear();
                subject = subject.crash_in(*at, |blobs| {
                    collect(blobs, &roots, AT_ONCE);
                    collect(blobs, &roots, AT_ONCE);
                });
            }
            Step::CrashSyncing(at, number) => {
                model.transfers.clear();
                subject = subject.crash_in(*at, |blobs| {
                    let pin = blobs.pin().expect("pins");
                    put_all(blobs, &tree(*number).0, &pin);
                    blobs.sync(&pin).expect("a disk");
                });
            }
        }
        model.check(subject.blobs());
    }
    // In the end all goes that nothing names.
    model.transfers.clear();
    let blobs = subject.blobs();
    for _ in 0..3 {
        collect(blobs, &model.roots(), AT_ONCE);
    }
    model.check(blobs);
    model.roots.clear();
    for _ in 0..3 {
        collect(blobs, &[], AT_ONCE);
    }
    let figures = blobs.figures().expect("figures");
    assert_eq!(
        (figures.packs, figures.bytes, figures.chunks, figures.condemned, figures.pins),
        (0, 0, 0, 0, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn sync_18_collection_takes_nothing_that_a_manifest_or_a_live_transfer_names(steps in steps()) {
        for subject in Subject::all() {
            run(subject, &steps);
        }
    }
}

/// Counts a thread that has ended, however it did.
struct Ended<'c>(&'c AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Transfers of several threads beside a collection that never ends.
#[test]
fn sync_18_transfers_beside_collections_keep_what_they_were_told_is_there() {
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let roots = std::sync::Mutex::new(Vec::new());
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..3_u16 {
                let (roots, done) = (&roots, &done);
                scope.spawn(move || {
                    let _ended = Ended(done);
                    for round in 0..15_u16 {
                        let mut model = Model::default();
                        let pin = blobs.pin().expect("pins");
                        let (trees, chunks) = (BTreeSet::new(), BTreeMap::new());
                        model.transfers.push(Transfer { pin, trees, chunks });
                        let number = (thread + round * 5) % TREES;
                        model.bring(blobs, 0, number);
                        model.check(blobs);
                        let transfer = &model.transfers[0];
                        blobs.sync(&transfer.pin).expect("a disk");
                        let tree = root(tree(number).1);
                        let whole = blobs.complete(&tree, &transfer.pin).expect("a walk");
                        assert_eq!(whole, Completeness::Whole, "tree {number}");
                        roots.lock().expect("roots").push(tree);
                        model.transfers.clear();
                        model.roots.push(number);
                        model.check(blobs);
                        // Given up by whoever kept it.
                        let mut roots = roots.lock().expect("roots");
                        let at = roots.iter().position(|root| *root == tree).expect("it is there");
                        roots.remove(at);
                    }
                });
            }
            while done.load(Ordering::SeqCst) < 3 {
                let since = blobs.begin().expect("pins");
                let roots = roots.lock().expect("roots").clone();
                let sweep = Sweep { since, roots: &roots, now: WallTime(0), rules: AT_ONCE };
                blobs.collect(sweep).expect("a whole graph");
            }
        });
    }
}
