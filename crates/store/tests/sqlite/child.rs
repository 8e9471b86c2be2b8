//! The process that is killed: this test binary again, told by the environment to write and to
//! say on standard output what was acknowledged. And what its parent makes of that.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::EventKind;
use cortex_core::id::{RunId, Seq};
use cortex_core::time::WallTime;
use cortex_store::chain::verify_chain;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{AuditFilter, LoggedEvent, RunFilter, Store, StoreError, StoreExt, Tx, WriteError};

use crate::pool;
use crate::support::{SOON, event, run, run_id};

const DIR: &str = "CORTEX_STORE_CHILD";
const FIRST: &str = "CORTEX_STORE_CHILD_FIRST";
const COUNT: &str = "CORTEX_STORE_CHILD_COUNT";
const CALLERS: &str = "CORTEX_STORE_CHILD_CALLERS";

/// Kills or faults per test; more by the environment.
pub(crate) fn rounds(default: u64) -> u64 {
    std::env::var("CORTEX_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

/// The runs `first..first + count` written into `dir` by some callers at once.
pub(crate) struct Task<'t> {
    pub(crate) dir: &'t Path,
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) callers: u64,
}

impl Task<'_> {
    /// Starts a child in the test `name`, which must call [`serve_if_child`] first.
    pub(crate) fn start(&self, name: &str, environment: &[(&str, String)]) -> Child {
        let mut child = child(name);
        child
            .env(DIR, self.dir)
            .env(FIRST, self.first.to_string())
            .env(COUNT, self.count.to_string())
            .env(CALLERS, self.callers.to_string())
            .envs(environment.iter().map(|(name, value)| (*name, value)));
        child.spawn().expect("the child starts")
    }
}

/// This test binary again, in the test `name`, with its output for [`Said::read`].
pub(crate) fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args(["--exact", name, "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// What a child said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Runs whose writes were answered Ok.
    pub(crate) acked: BTreeSet<u64>,
    /// Runs whose writes were answered with an error.
    pub(crate) failed: BTreeSet<u64>,
    /// Runs of whose writes the hook heard.
    pub(crate) heard: BTreeSet<u64>,
    /// Further words, such as those of the shim.
    pub(crate) words: Vec<(String, u64)>,
}

impl Said {
    /// Reads to the end of the child's output; `each` is called after each word.
    pub(crate) fn read(child: &mut Child, mut each: impl FnMut(&mut Child, &Self)) -> Self {
        let output = child.stdout.take().expect("it is piped");
        let mut said = Self::default();
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            let Some((word, number)) = line.split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            match word {
                "acked" => drop(said.acked.insert(number)),
                "failed" => drop(said.failed.insert(number)),
                "heard" => drop(said.heard.insert(number)),
                other => said.words.push((other.to_owned(), number)),
            }
            each(child, &said);
        }
        said
    }

    pub(crate) fn word(&self, word: &str) -> Option<u64> {
        self.words.iter().find(|(said, _)| said == word).map(|(_, number)| *number)
    }
}

/// In a child: does its work and ends the process. In the parent: nothing.
#[expect(clippy::disallowed_methods, reason = "the child is a test binary, whose main is not ours")]
pub(crate) fn serve_if_child(prepare: impl FnOnce()) {
    let Some(dir) = std::env::var_os(DIR) else { return };
    prepare();
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok()).expect("the parent says");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(write_all(
        Path::new(&dir),
        number(FIRST),
        number(COUNT),
        number(CALLERS),
    ));
    std::process::exit(0);
}

async fn write_all(dir: &Path, first: u64, count: u64, callers: u64) {
    let store = Arc::new(open(dir).await);
    let next = Arc::new(AtomicU64::new(first));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (store, next) = (Arc::clone(&store), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count {
                        return;
                    }
                    let result = store.write(SOON, move |tx| write_one(tx, number)).await;
                    say(if result.is_ok() { "acked" } else { "failed" }, number);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    store.close().await;
}

/// A fault may hit the opening too; then it is opened again.
pub(crate) async fn open(dir: &Path) -> SqliteStore {
    for _ in 0..10 {
        let hook: cortex_store::CommitHook = Arc::new(|commit| {
            commit.events.iter().filter_map(number_of).for_each(|number| say("heard", number))
        });
        // Small, so that faults also meet the copying of the log into the database.
        let options = SqliteOptions { checkpoint_pages: 16, ..SqliteOptions::default() };
        match SqliteStore::open(dir, options, Some(hook)) {
            Ok(store) => return store,
            Err(_) => say("unopened", 1),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the store does not open any more")
}

fn write_one(tx: &mut dyn Tx, number: u64) -> Result<(), WriteError> {
    tx.append_audit(&AuditRow::new(WallTime(0), number.to_string(), "run.start", Outcome::Allowed))?;
    tx.append_event(&event(number.to_string()))?;
    tx.put_run(&run(number, 1))?;
    pool::write(tx, number)
}

/// The run of whose write an event tells; none of one that the pool tells.
fn number_of(logged: &LoggedEvent) -> Option<u64> {
    let own = Some(&logged.event).filter(|event| event.kind == EventKind::NodeChanged);
    own?.subject.as_deref().map(|number| number.parse().expect("a number"))
}

/// One line, written at once: what is said is out of the process.
pub(crate) fn say(word: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{word} {number}\n").as_bytes())
        .and_then(|()| out.flush())
        .expect("the parent reads");
}

/// Opens what children left, and checks that it is sound: every write whole, logs without holes,
/// the audit chain closed. Returns the numbers of the runs.
pub(crate) fn stored(dir: &Path) -> BTreeSet<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = SqliteStore::open(dir, SqliteOptions::default(), None).expect("it opens after whatever");
        let (runs, events, audit, tasks) = store
            .read(SOON, |view| {
                let all = usize::MAX;
                Ok((
                    view.runs(&RunFilter::default(), all)?,
                    view.events(Seq(0), all)?,
                    view.audit(&AuditFilter::default(), all)?,
                    pool::Found::read(view)?,
                ))
            })
            .await
            .expect("it reads");
        let seqs: Vec<u64> = events.iter().map(|logged| logged.seq.0).collect();
        assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "events without holes");
        assert_eq!(verify_chain(&audit), Ok(()));
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let told: Vec<u64> = events.iter().filter_map(number_of).collect();
        let of_events: BTreeSet<u64> = told.iter().copied().collect();
        let of_audit: BTreeSet<u64> = audit.iter().map(|logged| number(&logged.row.actor)).collect();
        let ids: BTreeSet<RunId> = runs.iter().map(|run| run.id).collect();
        assert_eq!(of_events, of_audit, "a write is whole");
        assert_eq!(of_events.iter().map(|number| run_id(*number)).collect::<BTreeSet<_>>(), ids);
        assert_eq!((of_events.len(), of_audit.len()), (told.len(), audit.len()), "and happened once");
        tasks.check(&of_events);
        store
            .write(SOON, |tx| {
                tx.append_event(&event("0"))?;
                Err::<(), _>(StoreError::Closed.into())
            })
            .await
            .expect_err("it takes writes, and this one is taken back");
        store.close().await;
        of_events
    })
}
