//! Programs that work on files: they read, write what nobody else writes, write only what they know, move
//! and remove; some for a task, of which an attempt may be over by then. They ask again, by the same key,
//! when nobody answers or nobody knows.

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::FileAsk;
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{Content, Expect, FileOp, ReadAs, ReadRange, WriteHow};
use cortex_core::files::path::FilePath;
use cortex_core::id::{Attempt, OpId, Revision};
use cortex_core::limits;

use crate::check::Happened;
use crate::faults::FAULTS_MS;
use crate::hub::Hub;
use crate::net::{Context, Wake};

/// How often a request is sent.
const TRIES: u32 = 8;
/// Until when one is sent again: it must have an end before the world is looked at.
const UNTIL_MS: u64 = FAULTS_MS + 20_000;
/// Where they work; nobody may be in the last one.
const PATHS: &[&str] = &["/w/a", "/w/ب", "/w/d/x", "/w/d/y", "/w/d/e/z", "/etc/z"];

#[derive(Clone, Debug)]
struct Request {
    node: usize,
    ask: FileAsk,
    key: Option<String>,
    at: u64,
    tries: u32,
    answered: bool,
}

#[derive(Default)]
pub(crate) struct Editors {
    requests: Vec<Request>,
    /// What was read last of each path of each node.
    read: Vec<(usize, FilePath, ContentId)>,
    minted: u64,
}

impl Editors {
    /// Somebody wants something done to the files of a node.
    pub(crate) fn work(&mut self, node: usize, hub: &mut Hub, cx: &mut Context) {
        self.minted += 1;
        let Some(op) = self.op(node, cx) else { return };
        let random = &mut cx.random;
        let attempt = random.chance(45).then(|| {
            let number = random.index(hub.attempts.len());
            let attempt = hub.attempts[number];
            // Somebody may not have heard that its attempt is over.
            let zombie = random.chance(15) && attempt.0 > 1;
            (Hub::file_task(number), if zombie { Attempt(attempt.0 - 1) } else { attempt })
        });
        let short = random.chance(30);
        let ask = FileAsk {
            id: self.mint(cx),
            op,
            caller: "token:editor".to_owned(),
            policy_revision: Revision(1),
            traceparent: None,
            consent: None,
            attempt,
            deadline_ms: if short { cx.random.between(50, 6_000) } else { limits::FILE_OP_MS },
            lock: None,
            ticket: None,
        };
        let key = (!ask.op.is_read() && cx.random.chance(70)).then(|| format!("key-{}", self.minted));
        self.requests.push(Request { node, ask, key, at: cx.now, tries: 0, answered: false });
        self.ask(self.requests.len() - 1, hub, cx);
    }

    fn mint(&mut self, cx: &mut Context) -> OpId {
        self.minted += 1;
        OpId::mint(1_800_000_000_000 + self.minted, &cx.random.bytes())
    }

    fn op(&mut self, node: usize, cx: &mut Context) -> Option<FileOp> {
        let random = &mut cx.random;
        let mut pick = || {
            let last = if random.chance(4) { PATHS.len() } else { PATHS.len() - 1 };
            FilePath::parse(PATHS[random.index(last)]).ok()
        };
        let (path, other) = (pick()?, pick()?);
        let content = Content::Inline(Bytes::from(format!("نص {}", self.minted)));
        let (mkdirs, mode, dry_run) = (true, None, false);
        let write = |how, expect| FileOp::Write {
            path: path.clone(),
            content: content.clone(),
            how,
            expect,
            mkdirs,
            mode,
            dry_run,
        };
        let known = self.read.iter().find(|(at, read, _)| *at == node && *read == path);
        Some(match cx.random.between(0, 99) {
            0..=29 => {
                let want = ReadAs::Inline { bytes_max: 1_000 };
                FileOp::Read { path, range: ReadRange::All, want, hash: true }
            }
            30..=59 => write(WriteHow::Put, Expect::Any),
            60..=69 => write(WriteHow::Create, Expect::Any),
            70..=79 => write(WriteHow::Put, known.map_or(Expect::Any, |(_, _, etag)| Expect::Etag(*etag))),
            80..=87 if path != other => {
                FileOp::Move { from: path, to: other, replace: true, expect: Expect::Any }
            }
            88..=92 => {
                let path = FilePath::parse("/w/d").ok()?;
                FileOp::Remove { path, recursive: true, expect: Expect::Any, dry_run }
            }
            _ => FileOp::Remove { path, recursive: true, expect: Expect::Any, dry_run },
        })
    }

    fn ask(&mut self, request: usize, hub: &mut Hub, cx: &mut Context) {
        let id = self.mint(cx);
        let one = &mut self.requests[request];
        one.tries += 1;
        // The id is the hub's; only the key is the caller's.
        one.ask.id = id;
        one.at = cx.now;
        let Request { node, ask, key, .. } = one.clone();
        let patience = ask.deadline_ms + cx.random.between(500, 5_000);
        hub.edit(request, node, ask, key, cx);
        cx.after(patience, Wake::Editor { request });
    }

    /// The time of a request is over: what may be sent twice is sent again.
    pub(crate) fn impatient(&mut self, request: usize, hub: &mut Hub, cx: &mut Context) {
        let one = &self.requests[request];
        let may_ask = one.tries < TRIES && cx.now < UNTIL_MS;
        if !one.answered && may_ask && (one.key.is_some() || one.ask.op.is_read()) {
            self.ask(request, hub, cx);
        }
    }

    pub(crate) fn answered(&mut self, request: usize, answer: Result<FileAnswer, Refusal>, cx: &mut Context) {
        let one = &mut self.requests[request];
        if one.answered {
            return;
        }
        if let FileOp::Read { path, .. } = &one.ask.op {
            let etag = match &answer {
                Ok(FileAnswer::Content { etag, .. }) => *etag,
                Err(refusal) if refusal.code == Code::NotFound => None,
                Ok(_) | Err(_) => {
                    // It is asked again by whoever waits.
                    return;
                }
            };
            let (node, since) = (one.node, one.at);
            cx.note(Happened::FileRead { node, path: path.as_str().to_owned(), etag, since });
            self.read.retain(|(at, read, _)| *at != node || read != path);
            self.read.extend(etag.map(|etag| (node, path.clone(), etag)));
            one.answered = true;
            return;
        }
        let again = [Code::UnknownOutcome, Code::NodeOffline, Code::StoreUnavailable, Code::Timeout];
        let is_over = match &answer {
            Ok(_) => true,
            Err(refusal) => one.key.is_none() || !again.contains(&refusal.code),
        };
        one.answered = is_over;
    }
}
