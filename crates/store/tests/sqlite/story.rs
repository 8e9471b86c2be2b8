//! The disk says no to the Nth sync of a story of the pool, for each N until the whole story passes
//! untouched. After each the store is opened anew and compared with the memory store, which was told
//! what was acknowledged and nothing else.

use std::path::Path;

use cortex_core::id::{LaneId, Seq};
use cortex_core::time::WallTime;
use cortex_store::memory::MemoryStore;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{Read, Store, StoreError, StoreExt, TaskFilter, WriteError};
use tempfile::TempDir;

use crate::child::{Said, child, open, say};
use crate::faults::{EIO, compile_shim, fault};
use crate::steps::{KEY, STORY};
use crate::support::SOON;

const DIR: &str = "CORTEX_STORE_STORY";
const ENDS: &str = "CORTEX_STORE_STORY_ENDS";
/// The end of the loop, should the story never pass.
const SYNCS_MAX: u64 = 1_000;

#[test]
fn a_story_of_the_pool_is_told_again_from_any_sync_that_fails_and_comes_out_the_same() {
    at_each_sync(
        "story::a_story_of_the_pool_is_told_again_from_any_sync_that_fails_and_comes_out_the_same",
        false,
    );
}

#[test]
fn a_process_that_ends_when_any_sync_fails_leaves_the_story_as_it_was_acknowledged() {
    at_each_sync(
        "story::a_process_that_ends_when_any_sync_fails_leaves_the_story_as_it_was_acknowledged",
        true,
    );
}

/// Fails each sync in turn. `ends` says that the process ends with the first step that is refused;
/// otherwise it is tried again until it is acknowledged, as the hub does.
#[expect(clippy::print_stdout, reason = "how far it went belongs to a test's output")]
fn at_each_sync(test: &str, ends: bool) {
    serve_if_child();
    let tools = TempDir::new().expect("a temporary directory");
    let shim = compile_shim(tools.path());
    drop(told(STORY.len() as u64));
    let (mut refused, mut nth) = (0, 0);
    loop {
        nth += 1;
        let said = live(test, &shim, nth, ends);
        refused += usize::from(!said.failed.is_empty());
        if said.word("fault").is_none() {
            break;
        }
        assert!(nth < SYNCS_MAX, "the story never passes");
    }
    println!(
        "the story of {} steps passed untouched at N = {nth}; {refused} faults refused a step",
        STORY.len()
    );
    assert!(nth > STORY.len() as u64, "each step is synced: {nth}");
    assert!(refused >= STORY.len(), "each step was refused once: {refused}");
}

/// One telling of the story, in a process whose `nth` sync fails.
fn live(test: &str, shim: &Path, nth: u64, ends: bool) -> Said {
    let dir = TempDir::new().expect("a temporary directory");
    let mut command = child(test);
    command.env(DIR, dir.path()).env(ENDS, ends.to_string()).envs(fault(shim, "sync", EIO, nth, 1));
    // Thousands of syncs: nobody cuts the power of the machine here, and only what they answer counts.
    command.env("SHIM_LAZY", "1");
    let mut child = command.spawn().expect("the child starts");
    let said = Said::read(&mut child, |_, _| {});
    let status = child.wait().expect("it ended");
    let whole = STORY.len() as u64;
    let is_cut = ends && !said.failed.is_empty();
    assert_eq!(status.success(), !is_cut, "sync {nth}: {status}; {said:?}");
    let acked = said.acked.len() as u64;
    assert_eq!(acked == whole, !is_cut, "sync {nth}: {said:?}");
    let found = reopened(dir.path());
    // A step that was refused may be there as a whole when the process ended before the disk took
    // another write.
    let may_be = if is_cut { acked..=acked + 1 } else { whole..=whole };
    let is_one = may_be.clone().any(|steps| found == told(steps));
    let name = |number: u64| STORY.get(number as usize).map_or("the end", |(name, _)| name);
    assert!(is_one, "sync {nth}, at `{}`: {found:#?}\nexpected: {:#?}", name(acked), told(acked));
    said
}

/// In a child: tells the story and ends the process. In the parent: nothing.
#[expect(clippy::disallowed_methods, reason = "the child is a test binary, whose main is not ours")]
fn serve_if_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let ends = std::env::var(ENDS).is_ok_and(|ends| ends == "true");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = open(Path::new(&dir)).await;
        for (number, (_, step)) in STORY.iter().enumerate() {
            while let Err(error) = store.write(SOON, step).await {
                say("failed", number as u64);
                // What the story itself has wrong is no fault of the disk.
                if ends || matches!(error, WriteError::Refused(_)) {
                    std::process::abort();
                }
            }
            say("acked", number as u64);
        }
        store.close().await;
    });
    std::process::exit(0);
}

/// What a store holds after the first steps, by the strict reference.
fn told(steps: u64) -> Vec<String> {
    let store = MemoryStore::new(None);
    for (name, step) in STORY.iter().take(steps as usize) {
        store.write_now(step).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    store.read_now(dump).expect("it reads")
}

fn reopened(dir: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = SqliteStore::open(dir, SqliteOptions::default(), None).expect("it opens after whatever");
        let found = store.read(SOON, dump).await.expect("it reads");
        store.close().await;
        found
    })
}

/// All that can be read of the pool, and the events.
fn dump(view: &dyn Read) -> Result<Vec<String>, StoreError> {
    let mut all = Vec::new();
    for task in view.tasks(&TaskFilter::default(), usize::MAX)? {
        let id = task.id;
        all.push(format!(
            "{:?}",
            (task, view.task_steps(id)?, view.task_evidence(id)?, view.waiting_for(id)?)
        ));
    }
    let ids: Vec<LaneId> = (0..99).map(LaneId).collect();
    all.push(format!("{:?} {:?}", view.lanes()?, view.heads(&ids)?));
    all.push(format!("{:?} {:?}", view.working(KEY)?, view.parked(KEY)?));
    let later = WallTime(i64::MAX / 2);
    all.push(format!("{:?} {:?}", view.tasks_due(later, 99)?, view.tasks_expiring(later, 99)?));
    all.push(format!("{:?} {:?}", view.next_due()?, view.next_expiry()?));
    all.push(format!("{:?} {:?}", view.leased_tasks()?, view.ended_tasks(99)?));
    all.push(format!("{:?} {:?}", view.open_tasks(None)?, view.task_counts()?));
    all.push(format!("{:?}", view.events(Seq(0), usize::MAX)?));
    Ok(all)
}
