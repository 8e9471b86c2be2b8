//! The node's machine of operations on files, case by case.

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::ask::{FileAsk, Ticket};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::entity::{FileEnd, FileOutcome};
use cortex_core::files::op::{Content, Expect, FileOp, WriteHow};
use cortex_core::files::path::FilePath;
use cortex_core::id::{
    Attempt, Epoch, Generation, LockEpoch, NodeId, OpId, Revision, RunId, TaskId, TransferId, WorkspaceId,
};
use cortex_core::journal::{FileAccepted, Record};
use cortex_core::limits;
use cortex_core::message::{Envelope, SignedPolicy, Start, ToHub, ToNode, Welcome};
use cortex_core::node_files::{Action, Found, NodeFiles};
use cortex_core::node_runs::NodeRuns;
use cortex_core::policy::{Document, Policy};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Access, Ground, Level, Place, Root, RootPath};
use cortex_core::sync::{DeleteLimits, Mode, Push};
use cortex_core::time::{Timestamp, WallTime};
use cortex_core::transfer::{ApplyAsk, Filters, SendAsk, TransferAsk, TransferWork};

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

#[test]
fn a_change_is_written_down_prepared_and_written_down_again_before_it_is_answered() {
    let mut node = Node::new();
    assert_eq!(node.ask(write(1, "/w/ملف")), lines(&["row accepted $1"]));
    node.files.journaled(op(1));
    assert_eq!(node.says(), lines(&["perform $1"]));
    node.files.prepared(op(1), Some(etag()), T0);
    assert_eq!(node.says(), lines(&["row intended $1", "commit $1"]));
    assert_eq!(node.performed(1), lines(&["row ended $1 done", "answer $1 done"]));
    assert_eq!((node.files.held(), node.files.live(), node.files.poll_timeout()), (1, 0, None));
    assert_eq!(node.hear(ToNode::FileSettled { op: op(1) }), lines(&["row settled $1"]));
    assert_eq!(node.files.held(), 0);
}

#[test]
fn a_read_is_done_at_once_and_leaves_nothing() {
    let mut node = Node::new();
    assert_eq!(node.ask(stat(1, "/w/a")), lines(&["perform $1"]));
    assert_eq!(node.files.reports(), []);
    assert_eq!(node.performed(1), lines(&["answer $1 done"]));
    assert_eq!(node.files.held(), 0);
}

#[test]
fn a_frame_of_another_epoch_passes_no_gate() {
    let mut node = Node::new();
    for epoch in [0, 2] {
        assert_eq!(node.runs.gate(Epoch(epoch)).expect_err("another link").code, Code::StaleEpoch);
    }
    node.runs.disconnected();
    assert_eq!(node.runs.gate(Epoch(1)).expect_err("no link").code, Code::StaleEpoch);
}

#[test]
fn one_that_comes_again_is_not_done_again() {
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    assert_eq!(node.ask(write(1, "/w/a")), [""; 0]);
    node.files.journaled(op(1));
    node.says();
    assert_eq!(node.ask(write(1, "/w/a")), [""; 0]);
    node.prepared(1);
    node.performed(1);
    assert_eq!(node.ask(write(1, "/w/a")), lines(&["answer $1 done"]), "from what was kept");
    node.hear(ToNode::FileSettled { op: op(1) });
    assert_eq!(node.ask(write(1, "/w/a")), lines(&["answer $1 unknown_outcome"]));
    assert_eq!(node.files.reports().len(), 1, "told until it is settled");
}

#[test]
fn what_the_policy_refuses_is_not_begun_when_it_comes_again_either() {
    let mut node = Node::new();
    for _ in 0..2 {
        assert_eq!(node.ask(write(1, "/etc/a")), lines(&["answer $1 path_outside_roots"]));
    }
    assert_eq!(node.ask(stat(2, "/etc/a")), lines(&["answer $2 path_outside_roots"]));
    assert_eq!((node.files.held(), node.files.live()), (1, 0));
    node.hear(ToNode::FileSettled { op: op(1) });
    assert_eq!(node.ask(write(1, "/etc/a")), lines(&["answer $1 unknown_outcome"]));
    node.files.reserve(vec!["/w/own".to_owned()]);
    assert_eq!(node.ask(stat(3, "/w/own/key")), lines(&["answer $3 path_outside_roots"]));
}

#[test]
fn beyond_the_bound_nothing_is_taken_on() {
    let mut node = Node::new();
    for n in 0..limits::FILE_OPS_OPEN_PER_NODE_MAX {
        let id = OpId::mint(n as u64, &[77; 10]);
        node.ask(FileAsk { id, ..stat(1, "/w/a") });
    }
    assert_eq!(node.ask(write(1, "/w/b")), lines(&["answer $1 quota"]));
    node.files.disconnected();
    for n in 0..limits::FILE_OPS_OPEN_PER_NODE_MAX {
        node.files.lost(OpId::mint(n as u64, &[77; 10]), T0);
    }
    node.files.welcomed();
    assert_eq!(node.files.held(), 0);
    node.says();
    assert_eq!(node.ask(write(1, "/w/b")), lines(&["answer $1 unknown_outcome"]), "it was refused before");
}

#[test]
fn changes_whose_paths_touch_follow_one_another() {
    for (first, second, waits) in [
        ("/w/a", "/w/a", true),
        ("/w/a", "/w/a/b", true),
        ("/w/a/b", "/w/a", true),
        ("/w/a", "/w/ab", false),
        ("/w/a/b", "/w/a/c", false),
    ] {
        let mut node = Node::new();
        assert_eq!(node.begin(write(1, first)), lines(&["perform $1"]));
        let begun = node.begin(remove(2, second));
        assert_eq!(begun.is_empty(), waits, "{first} and {second}");
        assert_eq!(node.ask(stat(3, first)), lines(&["perform $3"]), "a read waits for none");
        node.prepared(1);
        let after = node.performed(1);
        assert_eq!(after.contains(&format!("perform {}", op(2))), waits);
    }
}

#[test]
fn changes_begin_in_the_order_in_which_they_came_and_not_in_that_of_their_rows() {
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    assert_eq!(node.begin(write(2, "/w/a")), [""; 0]);
    let copied = |n| {
        let (from, to) = (path("/w/a"), path("/w/c"));
        ask(n, FileOp::Copy { from, to, recursive: false, replace: true, expect: Expect::Any })
    };
    assert_eq!(node.begin(copied(3)), [""; 0], "what it reads is being changed");
    node.files.journaled(op(1));
    assert_eq!(node.says(), lines(&["perform $1"]));
    node.files.performed(op(1), Err(Refusal::new(Code::NoSpace, "full")));
    assert_eq!(node.says(), lines(&["row ended $1 no_space", "answer $1 no_space", "perform $2"]));
    assert_eq!(node.performed(2), lines(&["row ended $2 done", "answer $2 done", "perform $3"]));
}

#[test]
fn a_zombie_attempt_changes_nothing_once_a_newer_one_was_heard_of() {
    let fence = ToNode::AttemptFence { task: task(), attempt: Attempt(2) };
    let start = ToNode::Start(Start {
        run: RunId::mint(1, &[1; 10]),
        spec: RunSpec::default(),
        caller: "a".into(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None,
        task: Some((task(), Attempt(2))),
    });
    for newer in [fence, start, ToNode::FileAsk(Box::new(of_attempt(2, stat(9, "/w/b"))))] {
        // One that waits for its row, one that waits for another, one that a clerk has, a read.
        let mut node = Node::new();
        node.begin(of_attempt(1, write(1, "/w/a")));
        node.begin(of_attempt(1, write(2, "/w/a")));
        node.ask(of_attempt(1, write(3, "/w/c")));
        node.ask(of_attempt(1, stat(4, "/w/c")));
        let after = node.hear(newer.clone());
        let expected = lines(&[
            "row attempt 2",
            "abort $4",
            "row ended $3 stale_attempt",
            "answer $3 stale_attempt",
            "row ended $2 stale_attempt",
            "answer $2 stale_attempt",
            "abort $1",
        ]);
        assert_eq!(after[..expected.len()], expected, "{newer:?}");
        assert_eq!(node.prepared(1), [""; 0], "it was too late");
        assert_eq!(node.lost(1), lines(&["recover $1 nothing"]));
        node.files.recovered(op(1), Some(Found { etag: etag(), bytes: 1 }));
        assert_eq!(node.says(), lines(&["row ended $1 stale_attempt", "answer $1 stale_attempt"]));
        assert_eq!(node.ask(of_attempt(1, write(5, "/w/a"))), lines(&["answer $5 stale_attempt"]));
    }
}

#[test]
fn a_newer_attempt_waits_for_what_an_older_one_cannot_take_back() {
    let mut node = Node::new();
    node.commit(of_attempt(1, write(1, "/w/a")));
    assert_eq!(node.ask(of_attempt(2, stat(2, "/w/b"))), lines(&["row attempt 2"]));
    assert_eq!(node.begin(of_attempt(2, write(3, "/w/b"))), [""; 0]);
    assert_eq!(
        node.performed(1),
        lines(&["row ended $1 done", "answer $1 done", "perform $2", "perform $3"])
    );
}

#[test]
fn a_lock_that_followed_ends_what_was_done_under_the_one_before() {
    let workspace = WorkspaceId::mint(1, &[1; 10]);
    let under = |lock, ask| FileAsk { lock: Some((workspace, LockEpoch(lock))), ..ask };
    let mut node = Node::new();
    node.begin(under(1, write(1, "/w/a")));
    node.files.lock(workspace, LockEpoch(2));
    assert_eq!(node.says(), lines(&["abort $1"]));
    assert_eq!(node.ask(under(1, write(2, "/w/b"))), lines(&["answer $2 stale_epoch"]));
    assert_eq!(node.begin(under(2, write(3, "/w/b"))), lines(&["perform $3"]));
}

#[test]
fn a_cancel_ends_it_unless_it_is_past_the_point_of_return() {
    let cancel = |node: &mut Node, n| node.hear(ToNode::FileCancel { op: op(n) });
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    assert_eq!(cancel(&mut node, 1), lines(&["row ended $1 timeout", "answer $1 timeout"]));
    node.files.journaled(op(1));
    assert_eq!(node.says(), [""; 0], "its row came too late");

    node.begin(write(2, "/w/a"));
    assert_eq!(cancel(&mut node, 2), lines(&["abort $2"]));
    assert_eq!(cancel(&mut node, 2), [""; 0]);
    assert_eq!(node.performed(2), lines(&["row ended $2 timeout", "answer $2 timeout"]));

    node.commit(write(3, "/w/a"));
    assert_eq!(cancel(&mut node, 3), [""; 0]);
    assert_eq!(node.performed(3), lines(&["row ended $3 done", "answer $3 done"]));

    // A tree goes entry by entry: somebody who sees that it is the wrong one can stop it.
    node.begin(remove(4, "/w"));
    assert_eq!(node.prepared(4), lines(&["commit $4"]));
    assert_eq!(cancel(&mut node, 4), lines(&["abort $4"]));
    assert_eq!(node.lost(4), lines(&["recover $4 nothing"]));
    node.files.recovered(op(4), None);
    assert_eq!(node.says(), lines(&["row ended $4 unknown_outcome", "answer $4 unknown_outcome"]));

    node.ask(stat(5, "/w"));
    assert_eq!(cancel(&mut node, 5), lines(&["abort $5"]));
    assert_eq!(node.lost(5), [""; 0], "the hub has let it go");
}

#[test]
fn its_time_ends_it_wherever_it_is() {
    let mut node = Node::new();
    let late = Timestamp(1_000);
    node.ask(write(1, "/w/a"));
    node.begin(write(2, "/w/b"));
    node.begin(write(3, "/w/b"));
    assert_eq!(node.files.poll_timeout(), Some((late, "an operation's deadline")));
    node.files.handle_timeout(late);
    let expected = [
        "row ended $3 timeout",
        "answer $3 timeout",
        "abort $2",
        "row ended $1 timeout",
        "answer $1 timeout",
    ];
    assert_eq!(node.says(), lines(&expected));
    node.now = late;
    node.lost(2);
    node.files.handle_timeout(Timestamp(1_000 + limits::FILE_OP_MS));
    assert_eq!(node.says(), lines(&["row ended $2 timeout", "answer $2 timeout"]), "nobody could look");

    // What takes effect is given a while, and then looked up.
    let mut node = Node::new();
    node.now = Timestamp(999);
    node.commit(write(1, "/w/a"));
    node.files.handle_timeout(Timestamp(1_500));
    assert_eq!(node.says(), [""; 0]);
    node.files.handle_timeout(Timestamp(999 + limits::KILL_GRACE_MS));
    assert_eq!(node.says(), lines(&["abort $1"]));
    assert_eq!(node.lost(1), lines(&["recover $1 content"]));
    node.files.recovered(op(1), Some(Found { etag: etag(), bytes: 1 }));
    assert_eq!(node.says(), lines(&["row ended $1 done", "answer $1 done"]));

    // What is prepared too late does not take effect.
    let mut node = Node::new();
    node.begin(write(1, "/w/a"));
    node.now = late;
    assert_eq!(node.prepared(1), lines(&["abort $1"]));
}

#[test]
fn without_a_journal_nothing_begins() {
    let mut node = Node::new();
    node.ask(write(1, "/w/a"));
    node.files.unjournaled(op(1), "no space");
    assert_eq!(node.says(), lines(&["row ended $1 internal", "answer $1 internal"]));
    node.files.journaled(op(1));
    assert_eq!(node.says(), [""; 0]);
}

#[test]
fn a_link_that_ends_takes_reads_along_and_leaves_changes_to_be_told() {
    let mut node = Node::new();
    node.ask(stat(1, "/w/a"));
    node.begin(write(2, "/w/a"));
    node.prepared(2);
    node.files.disconnected();
    assert_eq!(node.says(), lines(&["abort $1"]));
    assert_eq!(node.lost(1), [""; 0]);
    let ends =
        |node: &mut Node| node.files.reports().into_iter().map(|report| report.end).collect::<Vec<_>>();
    assert_eq!(ends(&mut node), [None]);
    // It ends after Hello and before Welcome.
    assert_eq!(node.performed(2), lines(&["row ended $2 done"]));
    node.files.welcomed();
    assert_eq!(node.says(), lines(&["answer $2 done"]));
    node.files.disconnected();
    assert_eq!(ends(&mut node), [Some(Ok(DONE))]);
    node.files.welcomed();
    assert_eq!(node.says(), [""; 0], "Hello said it");
}

#[test]
fn what_the_hub_does_not_know_ends_in_silence() {
    let mut node = Node::new();
    node.begin(write(1, "/w/a"));
    assert_eq!(node.hear(ToNode::FileSettled { op: op(1) }), lines(&["abort $1"]));
    assert_eq!(node.files.reports(), []);
    node.lost(1);
    node.files.recovered(op(1), None);
    assert_eq!((node.says(), node.files.held()), (lines(&["row settled $1"]), 0));
}

#[test]
fn what_a_node_process_left_open_is_looked_up_and_done_or_unknown() {
    let found = |etag| Some(Found { etag, bytes: 7 });
    let written = FileOutcome::Written { etag: etag(), bytes: 7, created: false };
    for (intended, found, is_done) in [
        (Some(etag()), found(etag()), true),
        (Some(etag()), found(ContentId::of(b"other")), false),
        (Some(etag()), None, false),
        (None, found(etag()), false),
    ] {
        let mut journal = vec![Record::FileAccepted(accepted(1))];
        journal.extend(intended.map(|etag| Record::FileIntended(op(1), etag)));
        let mut node = Node::after(journal);
        let content = intended.map_or("nothing", |_| "content");
        assert_eq!(node.says(), [format!("recover {} {content}", op(1))]);
        assert_eq!(node.begin(write(2, "/w/a")), [""; 0], "its path is not free so far");
        node.files.recovered(op(1), found);
        let end: Option<FileEnd> = node.files.reports().into_iter().find_map(|report| report.end);
        match is_done {
            true => assert_eq!(end, Some(Ok(written))),
            false => assert_eq!(end.expect("an end").expect_err("unknown").code, Code::UnknownOutcome),
        }
        assert!(node.says().contains(&format!("perform {}", op(2))));
    }
}

#[test]
fn a_restarted_node_knows_ends_settled_ids_and_fences() {
    let attempt = Record::Attempt(task(), Attempt(3));
    let ended = [Record::FileAccepted(accepted(1)), Record::FileEnded(op(1), Ok(DONE))];
    let settled = [Record::FileAccepted(accepted(2)), Record::FileSettled(op(2))];
    let mut node = Node::after([vec![attempt], ended.to_vec(), settled.to_vec()].concat());
    assert_eq!(node.says(), lines(&["answer $1 done"]));
    assert_eq!((node.files.held(), node.files.live()), (1, 0));
    assert_eq!(node.ask(write(1, "/w/a")), lines(&["answer $1 done"]));
    assert_eq!(node.ask(write(2, "/w/a")), lines(&["answer $2 unknown_outcome"]));
    assert_eq!(node.ask(of_attempt(2, write(3, "/w/a"))), lines(&["answer $3 stale_attempt"]));
}

#[test]
fn an_end_of_an_earlier_life_that_is_settled_takes_no_turn_from_another() {
    let mut node = Node::after(vec![Record::FileAccepted(accepted(1)), Record::FileEnded(op(1), Ok(DONE))]);
    node.ask(write(2, "/w/a"));
    node.hear(ToNode::FileSettled { op: op(1) });
    assert_eq!((node.files.held(), node.files.live()), (1, 1));
    node.files.journaled(op(2));
    assert_eq!(node.says(), lines(&["perform $2"]));
}

fn transfer_id(n: u8) -> TransferId {
    TransferId::mint(1, &[n; 10])
}

fn apply(n: u8, dest: &str, attempt: Option<(TaskId, Attempt)>) -> ToNode {
    let work = ApplyAsk {
        dest: FilePath::parse(dest).expect("a path"),
        only: None,
        target: TreeId::of(b"t"),
        base: None,
        mode: Mode::Push(Push::default()),
        limits: DeleteLimits::default(),
        accepted: None,
        filters: Filters::default(),
        checksum: false,
        dry_run: false,
        read_only: false,
        node_name: "n1".to_owned(),
        revision: Revision(1),
        identity: None,
    };
    transfer(n, TransferWork::Apply(Box::new(work)), attempt)
}

fn send(n: u8, source: &str) -> ToNode {
    let source = FilePath::parse(source).expect("a path");
    let work = SendAsk {
        source,
        only: None,
        base: None,
        filters: Filters::default(),
        checksum: false,
        mark: false,
        identity: None,
    };
    transfer(n, TransferWork::Send(Box::new(work)), None)
}

fn transfer(n: u8, work: TransferWork, attempt: Option<(TaskId, Attempt)>) -> ToNode {
    ToNode::TransferAsk(Box::new(TransferAsk {
        id: transfer_id(n),
        ticket: Ticket::new([n; 16]),
        work,
        caller: "token:admin".to_owned(),
        policy_revision: Revision(1),
        attempt,
        lock: None,
        deadline_ms: 1_000,
        traceparent: None,
    }))
}

/// What is said of the transfer `n`.
fn of(n: u8, text: &str) -> Vec<String> {
    vec![text.replace("$", &transfer_id(n).to_string())]
}

#[test]
fn a_transfer_is_judged_like_an_operation_and_only_one_changes_a_folder() {
    let mut node = Node::new();
    assert_eq!(node.hear(apply(1, "/etc/x", None)), of(1, "news $ path_outside_roots"));
    assert_eq!(node.hear(apply(2, "/w/a", None)), of(2, "transfer $ at /w"));
    assert_eq!(node.hear(apply(2, "/w/a", None)), [""; 0], "a repeat changes nothing");
    assert_eq!(node.hear(send(3, "/w/a/b")), of(3, "news $ conflict"));
    assert_eq!(node.hear(apply(4, "/w", None)), of(4, "news $ conflict"));
    assert_eq!(node.hear(send(5, "/w/other")), of(5, "transfer $ at /w"));
    assert_eq!(node.hear(send(6, "/w/other")), of(6, "transfer $ at /w"), "reading is for all");
    assert_eq!(node.files.may_change(transfer_id(2)), Ok(()));
    node.files.transferred(transfer_id(2), None);
    assert!(node.files.may_change(transfer_id(2)).is_err(), "it is over");
    assert_eq!(node.hear(apply(7, "/w/a/b", None)), of(7, "transfer $ at /w"));
}

#[test]
fn what_ends_an_operation_ends_a_transfer_before_its_next_change() {
    let (mut node, task) = (Node::new(), TaskId::mint(1, &[8; 10]));
    let of_attempt = |n, dest, attempt| apply(n, dest, Some((task, Attempt(attempt))));
    assert_eq!(node.hear(of_attempt(1, "/w/a", 1)).last(), of(1, "transfer $ at /w").last());
    let fenced = node.hear(ToNode::AttemptFence { task, attempt: Attempt(2) });
    assert_eq!(fenced.last(), of(1, "end $").last());
    assert_eq!(
        node.files.may_change(transfer_id(1)).map_err(|refusal| refusal.code),
        Err(Code::StaleAttempt)
    );
    node.files.transferred(transfer_id(1), None);
    assert_eq!(node.says(), of(1, "news $ stale_attempt"));
    assert_eq!(node.hear(of_attempt(2, "/w/a", 1)), of(2, "news $ stale_attempt"));
    node.hear(apply(3, "/w/a", None));
    assert_eq!(node.hear(ToNode::TransferCancel { id: transfer_id(3) }), of(3, "end $"));
    assert!(node.files.may_change(transfer_id(3)).is_err());
    node.hear(apply(4, "/w/b", None));
    node.now = T0.plus_ms(1_000);
    assert!(node.files.poll_timeout().is_some_and(|(at, _)| at <= node.now));
    node.files.handle_timeout(node.now);
    assert_eq!(node.says(), of(4, "end $"));
    node.files.transferred(transfer_id(4), None);
    assert_eq!(node.says(), of(4, "news $ timeout"));
    node.hear(apply(5, "/w/c", None));
    node.files.disconnected();
    assert_eq!(node.says(), of(5, "end $"), "its link is gone");
    for n in [3, 5] {
        node.files.transferred(transfer_id(n), None);
    }
    assert_eq!((node.says().len(), node.files.transfers()), (0, 0), "nobody is told, and nothing is left");
}

#[test]
fn more_transfers_than_may_be_open_are_refused() {
    let mut node = Node::new();
    let id = |n: usize| TransferId::mint(u64::try_from(n).expect("small"), &[0; 10]);
    for n in 0..=limits::TRANSFERS_OPEN_PER_NODE_MAX {
        let ToNode::TransferAsk(ask) = send(1, "/w/a") else { unreachable!() };
        let said = node.hear(ToNode::TransferAsk(Box::new(TransferAsk { id: id(n), ..*ask })));
        let is_last = n == limits::TRANSFERS_OPEN_PER_NODE_MAX;
        assert_eq!(said == [format!("news {} quota", id(n))], is_last, "{said:?}");
    }
}
