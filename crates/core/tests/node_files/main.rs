//! The node's machine of operations on files and of transfers, case by case.

mod ends;
mod operations;
mod restarts;
mod transfers;

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::ask::FileAsk;
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::FileOutcome;
use cortex_core::files::op::{Content, Expect, FileOp, WriteHow};
use cortex_core::files::path::FilePath;
use cortex_core::id::{Attempt, Epoch, Generation, NodeId, OpId, Revision, TaskId};
use cortex_core::journal::{FileAccepted, Record};
use cortex_core::limits;
use cortex_core::message::{Envelope, SignedPolicy, ToHub, ToNode, Welcome};
use cortex_core::node_files::{Action, NodeFiles};
use cortex_core::node_runs::NodeRuns;
use cortex_core::policy::{Document, Policy};
use cortex_core::sandbox::{Access, Ground, Level, Place, Root, RootPath};
use cortex_core::time::{Timestamp, WallTime};

const T0: Timestamp = Timestamp(0);
const DONE: FileOutcome = FileOutcome::Done { removed: 0, made: 1 };

/// The machine behind the gate of a node whose policy gives `/w`.
struct Node {
    runs: NodeRuns,
    files: NodeFiles,
    now: Timestamp,
}

impl Node {
    fn after(journal: Vec<Record>) -> Self {
        let mut runs = NodeRuns::restore(Generation(0), Epoch(0), []);
        let place = Place { home: "/home/u".into(), work: vec!["/w".into()] };
        runs.stand_on(Ground { place, level: Some(Level::Full) });
        let roots = vec![Root { path: RootPath::Absolute("/w".into()), access: Access::Write, exec: false }];
        let strict = Policy::strict(NodeId::mint(1, &[1; 10]), WallTime(0));
        let policy = Policy { document: Document { roots, ..strict.document.clone() }, ..strict };
        let policy: SignedPolicy = policy.into();
        let welcome = Welcome { generation: Generation(1), name: "n1".into(), policy, audit_head: None };
        runs.handle(Envelope { epoch: Epoch(1), message: ToNode::Welcome(welcome) }, T0);
        let mut node = Self { runs, files: NodeFiles::restore(journal, T0), now: T0 };
        node.files.welcomed();
        node
    }

    fn new() -> Self {
        Self::after(vec![])
    }

    fn hear(&mut self, message: ToNode) -> Vec<String> {
        let gate = self.runs.gate(Epoch(1)).expect("its own epoch");
        self.files.handle(message, &gate, self.now);
        self.says()
    }

    fn ask(&mut self, ask: FileAsk) -> Vec<String> {
        self.hear(ToNode::FileAsk(Box::new(ask)))
    }

    /// One whose row is durable by now.
    fn begin(&mut self, ask: FileAsk) -> Vec<String> {
        let op = ask.id;
        self.ask(ask);
        self.files.journaled(op);
        self.says()
    }

    /// One that is past the point of return.
    fn commit(&mut self, ask: FileAsk) {
        let op = ask.id;
        self.begin(ask);
        self.files.prepared(op, Some(etag()), self.now);
        assert_eq!(self.says(), [format!("row intended {op}"), format!("commit {op}")]);
    }

    fn prepared(&mut self, n: u8) -> Vec<String> {
        self.files.prepared(op(n), None, self.now);
        self.says()
    }

    fn performed(&mut self, n: u8) -> Vec<String> {
        self.files.performed(op(n), Ok(DONE.answer()));
        self.says()
    }

    fn lost(&mut self, n: u8) -> Vec<String> {
        self.files.lost(op(n), self.now);
        self.says()
    }

    fn says(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.files.poll_action()).map(|action| said(&action)).collect()
    }
}

fn word(end: Result<(), &Refusal>) -> String {
    end.map_or_else(|refusal| refusal.code.to_string(), |()| "done".to_owned())
}

/// What an action says, in short.
fn said(action: &Action) -> String {
    match action {
        Action::Send(ToHub::FileAnswered { op, answer }) => {
            format!("answer {op} {}", word(answer.as_ref().map(drop)))
        }
        Action::Send(ToHub::TransferNews(news)) => {
            format!("news {} {}", news.id, word(news.end.as_ref().map(drop)))
        }
        Action::Send(other) => format!("{other:?}"),
        Action::Journal(Record::FileAccepted(accepted)) => format!("row accepted {}", accepted.op),
        Action::Journal(Record::FileIntended(op, _)) => format!("row intended {op}"),
        Action::Journal(Record::FileEnded(op, end)) => {
            format!("row ended {op} {}", word(end.as_ref().map(drop)))
        }
        Action::Journal(Record::FileSettled(op)) => format!("row settled {op}"),
        Action::Journal(Record::Attempt(_, attempt)) => format!("row attempt {attempt}"),
        Action::Journal(other) => format!("{other:?}"),
        Action::Perform { ask, .. } => format!("perform {}", ask.id),
        Action::Commit(op) => format!("commit {op}"),
        Action::Abort(op) => format!("abort {op}"),
        Action::Transfer { ask, leave } => format!("transfer {} at {}", ask.id, leave.reach[0].root),
        Action::EndTransfer(id) => format!("end {id}"),
        Action::Watch { ask, leave } => format!("watch {} at {}", ask.id, leave.reach[0].root),
        Action::Unwatch(id) => format!("unwatch {id}"),
        Action::Recover { accepted, intended } => {
            format!("recover {} {}", accepted.op, intended.map_or("nothing", |_| "content"))
        }
    }
}

/// Words in which `$n` is the id of an operation.
fn lines(texts: &[&str]) -> Vec<String> {
    let with_ids = |text: &&str| {
        (0..10).fold((*text).to_owned(), |text, n| text.replace(&format!("${n}"), &op(n).to_string()))
    };
    texts.iter().map(with_ids).collect()
}

fn op(n: u8) -> OpId {
    OpId::mint(u64::from(n), &[n; 10])
}

fn task() -> TaskId {
    TaskId::mint(1, &[1; 10])
}

fn etag() -> ContentId {
    ContentId::of(b"x")
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

fn ask(n: u8, what: FileOp) -> FileAsk {
    FileAsk {
        id: op(n),
        op: what,
        caller: "token:a".to_owned(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None,
        attempt: None,
        deadline_ms: 1_000,
        lock: None,
        ticket: None,
    }
}

fn write(n: u8, at: &str) -> FileAsk {
    let content = Content::Inline(Bytes::from_static(b"x"));
    let (path, how, expect) = (path(at), WriteHow::Put, Expect::Any);
    ask(n, FileOp::Write { path, content, how, expect, mkdirs: false, mode: None, dry_run: false })
}

fn remove(n: u8, at: &str) -> FileAsk {
    ask(n, FileOp::Remove { path: path(at), recursive: true, expect: Expect::Any, dry_run: false })
}

fn stat(n: u8, at: &str) -> FileAsk {
    ask(n, FileOp::Stat { path: path(at), hash: false })
}

fn of_attempt(attempt: u64, ask: FileAsk) -> FileAsk {
    FileAsk { attempt: Some((task(), Attempt(attempt))), ..ask }
}

fn accepted(n: u8) -> FileAccepted {
    let ask = write(n, "/w/a");
    FileAccepted::of(ask.id, &ask.op, None)
}
