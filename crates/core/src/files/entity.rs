//! An operation that changes files, as the hub keeps it: accepted, and then one end, which is final.
//! Reads are not kept. Also what a node remembers of its end, so that a repeat is answered without doing
//! it again.
//!
//! Never here: content of files, the arguments of an edit, or a difference.

use super::answer::FileAnswer;
use super::content::ContentId;
use super::op::{FileOp, Verb};
use super::path::FilePath;
use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::id::{Attempt, NodeId, OpId, Revision, TaskId, TokenId};
use crate::limits;
use crate::time::WallTime;

/// One operation that changes files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTask {
    /// Its id, and the command id on the node.
    pub id: OpId,
    /// Where.
    pub node: NodeId,
    /// What.
    pub verb: Verb,
    /// The path that is changed; of a move or a copy where that leads to.
    pub path: FilePath,
    /// Where a move or a copy comes from.
    pub source: Option<FilePath>,
    /// The exact operation, see [`FileOp::digest`].
    pub digest: ContentId,
    /// Who asked: `token:<name>`.
    pub caller: String,
    /// With which token.
    pub token: Option<TokenId>,
    /// The caller's key: the same key on the same node is the same operation.
    pub key: Option<String>,
    /// The attempt of a task for which it is done.
    pub attempt: Option<(TaskId, Attempt)>,
    /// The policy revision by which it was allowed.
    pub policy_revision: Revision,
    /// Where it stands.
    pub state: FileState,
    /// When it was accepted, on the hub's clock.
    pub at: WallTime,
    /// When its end was settled, on the hub's clock.
    pub ended_at: Option<WallTime>,
}

/// Where an operation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Accepted, durable, on its way to the node or under way there.
    Accepted,
    /// Over, for good.
    Ended(FileEnd),
}

/// How an operation ended: what came of it, or why nothing did. A refusal `unknown_outcome` says that it
/// may have been done.
pub type FileEnd = Result<FileOutcome, Refusal>;

/// What came of an operation that was done: what a repeat is answered with. Never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOutcome {
    /// A file was written.
    Written {
        /// What it holds.
        etag: ContentId,
        /// Bytes of it.
        bytes: u64,
        /// Whether it was not there before.
        created: bool,
    },
    /// Entries were removed or made.
    Done {
        /// Entries that are gone.
        removed: u64,
        /// Entries that are new.
        made: u64,
    },
}

impl FileOutcome {
    /// What is kept of an answer; `None` of one to a read, to which a dry run belongs.
    pub const fn of(answer: &FileAnswer) -> Option<Self> {
        match answer {
            FileAnswer::Written { etag, bytes, created, dry_run: false, .. } => {
                Some(Self::Written { etag: *etag, bytes: *bytes, created: *created })
            }
            FileAnswer::Done { removed, made, dry_run: false, .. } => {
                Some(Self::Done { removed: *removed, made: *made })
            }
            FileAnswer::Listing { .. }
            | FileAnswer::Meta(_)
            | FileAnswer::Content { .. }
            | FileAnswer::Streaming { .. }
            | FileAnswer::Matches { .. }
            | FileAnswer::Written { .. }
            | FileAnswer::Done { .. } => None,
        }
    }

    /// The answer to a repeat: without the difference and the remarks of the first one.
    pub const fn answer(self) -> FileAnswer {
        match self {
            Self::Written { etag, bytes, created } => FileAnswer::Written {
                etag,
                bytes,
                created,
                before: None,
                diff: None,
                notes: Vec::new(),
                dry_run: false,
            },
            Self::Done { removed, made } => {
                FileAnswer::Done { removed, made, notes: Vec::new(), dry_run: false }
            }
        }
    }
}

/// The end of an operation that may have been done, with what to do about it.
pub fn unknown_outcome(op: OpId, why: &str) -> Refusal {
    Refusal::new(Code::UnknownOutcome, format!("Nobody knows whether operation {op} was done: {why}."))
        .hint("Read what is there, or repeat it with the same idempotency key: it happens at most once.")
        .detail("op", op.to_string())
}

/// What is kept of a refusal: each text cut to [`limits::FILE_REFUSAL_BYTES_MAX`], and of the known
/// details those that fit in as much.
#[must_use]
pub fn kept(refusal: &Refusal) -> Refusal {
    let max = limits::FILE_REFUSAL_BYTES_MAX;
    let cut = |text: &str| text[..text.floor_char_boundary(max)].to_owned();
    let mut left = max;
    let bare = Refusal::new(refusal.code, cut(&refusal.message)).hint(cut(&refusal.hint));
    refusal.details.iter().fold(bare, |kept, (name, value)| {
        let Some(rest) = left.checked_sub(name.len() + value.len()) else { return kept };
        left = rest;
        kept.detail_named(name, value.as_str())
    })
}

impl FileTask {
    /// An operation at the moment of its acceptance. Token, key and attempt are set by whoever knows them.
    pub fn accepted(
        id: OpId,
        node: NodeId,
        op: &FileOp,
        caller: String,
        policy_revision: Revision,
        now: WallTime,
    ) -> Self {
        Self {
            id,
            node,
            verb: op.verb(),
            path: op.path().clone(),
            source: op.source().cloned(),
            digest: op.digest(),
            caller,
            token: None,
            key: None,
            attempt: None,
            policy_revision,
            state: FileState::Accepted,
            at: now,
            ended_at: None,
        }
    }

    /// How it ended, if it has.
    pub const fn end(&self) -> Option<&FileEnd> {
        match &self.state {
            FileState::Accepted => None,
            FileState::Ended(end) => Some(end),
        }
    }

    /// Refuses `conflict` another operation under the key of this one.
    pub fn check_repeat(&self, op: &FileOp) -> Result<(), Refusal> {
        if self.digest == op.digest() {
            return Ok(());
        }
        let message = format!("The idempotency key was used for another operation: {}.", self.id);
        Err(Refusal::new(Code::Conflict, message)
            .hint("Choose another key for another operation; a repeat must be the same in everything.")
            .detail("op", self.id.to_string()))
    }
}

/// Ends an operation. A second end is refused `conflict` and changes nothing.
pub fn decide(task: &FileTask, end: FileEnd, now: WallTime) -> Result<(FileTask, Vec<Event>), Refusal> {
    if task.end().is_some() {
        return Err(Refusal::new(Code::Conflict, format!("Operation {} has ended.", task.id))
            .hint("Read its result; a final state is final."));
    }
    let end = end.map_err(|refusal| kept(&refusal));
    let events = events(task, &end, now);
    let next = FileTask { state: FileState::Ended(end), ended_at: Some(now), ..task.clone() };
    Ok((next, events))
}

/// One event per path that changed, or may have; one when a rule refused it; none when nothing happened.
fn events(task: &FileTask, end: &FileEnd, now: WallTime) -> Vec<Event> {
    let event = |kind, path: &FilePath, detail: String| {
        Event::new(kind, now).node(task.node).actor(&*task.caller).subject(path.as_str()).detail(detail)
    };
    let changed = |detail: String| {
        // What is copied stays as it was.
        let gone = task.source.as_ref().filter(|_| task.verb == Verb::Move);
        let paths = gone.into_iter().chain([&task.path]);
        paths.map(|path| event(EventKind::FileChanged, path, detail.clone())).collect()
    };
    let denials = [Code::PolicyDenied, Code::PathOutsideRoots, Code::Forbidden, Code::Locked];
    match end {
        Ok(_) => changed(task.verb.to_string()),
        Err(refusal) if refusal.code == Code::UnknownOutcome => {
            changed(format!("{} {}", task.verb, refusal.code))
        }
        Err(refusal) if denials.contains(&refusal.code) => {
            vec![event(EventKind::FileDenied, &task.path, format!("{} {}", task.verb, refusal.code))]
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::op::Expect;
    use crate::files::samples::{every, path};

    fn task(op: &FileOp) -> FileTask {
        let (id, node) = (OpId::mint(1, &[1; 10]), NodeId::mint(1, &[2; 10]));
        FileTask::accepted(id, node, op, "token:a".to_owned(), Revision(3), WallTime(100))
    }

    fn a_move() -> FileOp {
        FileOp::Move { from: path("/w/a"), to: path("/w/ب"), replace: false, expect: Expect::Any }
    }

    const DONE: FileOutcome = FileOutcome::Done { removed: 1, made: 1 };

    fn ends() -> Vec<FileEnd> {
        let refused = Code::ALL.iter().map(|code| Err(Refusal::new(*code, "no")));
        [Ok(DONE)].into_iter().chain(refused).collect()
    }

    #[test]
    fn an_operation_has_one_end() {
        for end in ends() {
            let accepted = task(&a_move());
            let (ended, _) = decide(&accepted, end.clone(), WallTime(200)).expect("its first end");
            assert_eq!((ended.end(), ended.ended_at), (Some(&end), Some(WallTime(200))));
            let rest = FileTask { state: FileState::Accepted, ended_at: None, ..ended.clone() };
            assert_eq!(rest, accepted, "nothing else changes");
            for other in ends() {
                let refusal = decide(&ended, other, WallTime(300)).expect_err("a second end");
                assert_eq!(refusal.code, Code::Conflict);
            }
        }
    }

    #[test]
    fn what_changed_or_may_have_is_told_by_path_and_verb_and_what_a_rule_refused_too() {
        let told = |op: &FileOp, end: FileEnd| -> Vec<(EventKind, String, String)> {
            let (_, events) = decide(&task(op), end, WallTime(5)).expect("its first end");
            let of = |event: Event| {
                assert_eq!((event.actor.as_deref(), event.at), (Some("token:a"), WallTime(5)));
                (event.kind, event.subject.expect("a path"), event.detail.expect("a verb"))
            };
            events.into_iter().map(of).collect()
        };
        let row = |kind, path: &str, detail: &str| (kind, path.to_owned(), detail.to_owned());
        let refused = |code| Err(Refusal::new(code, "no"));
        let changed = EventKind::FileChanged;
        assert_eq!(told(&a_move(), Ok(DONE)), [row(changed, "/w/a", "mv"), row(changed, "/w/ب", "mv")]);
        assert_eq!(
            told(&a_move(), refused(Code::UnknownOutcome)),
            [row(changed, "/w/a", "mv unknown_outcome"), row(changed, "/w/ب", "mv unknown_outcome")]
        );
        let (from, to) = (path("/a"), path("/b"));
        let copy = FileOp::Copy { from, to, recursive: true, replace: false, expect: Expect::Any };
        assert_eq!(told(&copy, Ok(DONE)), [row(changed, "/b", "cp")]);
        for code in [Code::PolicyDenied, Code::PathOutsideRoots] {
            let detail = format!("mv {code}");
            assert_eq!(told(&a_move(), refused(code)), [row(EventKind::FileDenied, "/w/ب", &detail)]);
        }
        for code in [Code::EtagMismatch, Code::NoSpace, Code::NodeOffline] {
            assert_eq!(told(&a_move(), refused(code)), [], "{code}");
        }
    }

    #[test]
    fn what_is_kept_of_a_refusal_is_bounded_and_whole_when_it_is_short() {
        let short =
            Refusal::new(Code::EtagMismatch, "ب").hint("Read.").detail("etag", "x").detail("size", "3");
        assert_eq!(kept(&short), short);
        let max = limits::FILE_REFUSAL_BYTES_MAX;
        let long = Refusal::new(Code::EditNotFound, "ب".repeat(max)).hint("x".repeat(max + 1));
        let long = long.detail("closest", "x".repeat(max)).detail("edit", "2").detail("unheard", "of");
        let kept = kept(&long);
        assert_eq!((kept.message.len(), kept.hint.len()), (max, max));
        assert_eq!(kept.details, [("edit", "2".to_owned())]);
        assert_eq!(super::kept(&kept), kept, "cut once is cut");
    }

    #[test]
    fn a_repeat_gets_what_came_of_it() {
        for outcome in [DONE, FileOutcome::Written { etag: ContentId::of(b"x"), bytes: 1, created: true }] {
            assert_eq!(FileOutcome::of(&outcome.answer()), Some(outcome));
        }
        let dry = FileAnswer::Done { removed: 1, made: 0, notes: vec![], dry_run: true };
        assert_eq!(FileOutcome::of(&dry), None);
    }

    #[test]
    fn a_key_is_one_operations_alone() {
        for op in every() {
            let kept = task(&op);
            for other in every() {
                let refused = kept.check_repeat(&other).map_err(|refusal| refusal.code);
                assert_eq!(refused, if other == op { Ok(()) } else { Err(Code::Conflict) });
            }
        }
    }
}
