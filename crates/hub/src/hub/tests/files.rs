//! Operations on files over real connections, with a node that the test plays.

use bytes::Bytes;
use cortex_core::files::answer::{
    Diff, Encoding, Ending, Entry, FileAnswer, LineFacts, Match, Meta, Note, Skipped,
};
use cortex_core::files::ask::{FileAsk, FileReport};
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::FileTask;
use cortex_core::files::op::{FileOp, Kind, Verb};
use cortex_core::id::OpId;
use cortex_core::message::ToNode;
use serde_json::json;

use super::*;

mod answered;
mod broken;
mod held;
mod refused;
mod repeated;
mod worked;

const FS: &str = "/api/v1/nodes/n1/fs";
/// `خطة`, as a URL has it.
const PLAN: &str = "%D8%AE%D8%B7%D8%A9";

/// A node that the test plays.
struct Played {
    id: NodeId,
    link: Arc<Link>,
}

impl World {
    /// A node that allows everything.
    async fn with_files(&self, name: &str) -> Played {
        let id = self.node(name).await;
        let path = format!("/api/v1/policies/{name}");
        self.admin(Method::PUT, &path, json!({"profile": "permissive"})).await.ok(200);
        Played { id, link: self.attach(id).await }
    }

    /// Calls as the administrator with these headers and this body of bytes.
    async fn fs(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let token = format!("Bearer {}", self.admin);
        let mut all = vec![("authorization", token.as_str())];
        all.extend_from_slice(headers);
        self.raw(method, path, &all, Bytes::from(body.to_owned())).await
    }

    /// Writes `body` to this path.
    async fn put(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut all = vec![("content-type", "application/octet-stream")];
        all.extend_from_slice(headers);
        self.fs(Method::PUT, &format!("{FS}?path={path}"), &all, body).await
    }

    fn answers(&self, node: &Played, op: OpId, answer: Result<FileAnswer, Refusal>) {
        self.hub.mesh.file_answered(&node.link, op, answer);
    }

    /// What the store keeps of an operation.
    async fn kept_op(&self, op: OpId) -> Option<FileTask> {
        self.hub.context.view(move |view| view.file_op(op)).await.expect("readable")
    }

    /// What it keeps once it has ended.
    async fn ended(&self, op: OpId) -> FileTask {
        let wait = async {
            loop {
                match self.kept_op(op).await {
                    Some(task) if task.end().is_some() => return task,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it ends")
    }

    /// Kind and detail of the events on this path, or of another subject.
    pub(super) async fn told_of(&self, path: &str) -> Vec<(String, String)> {
        let events = self.hub.context.view(|view| view.events(cortex_core::id::Seq(0), 1_000)).await;
        let events = events.expect("events").into_iter().map(|logged| logged.event);
        let of_it = events.filter(|event| event.subject.as_deref() == Some(path));
        of_it.map(|event| (event.kind.as_str().to_owned(), event.detail.unwrap_or_default())).collect()
    }

    /// Rows of the audit log with this action: outcome, reason and argv.
    pub(super) async fn rows(&self, action: &str) -> Vec<(String, String, Vec<String>)> {
        let page = self.get("/api/v1/audit?limit=1000").await.ok(200);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |row: &Value| {
            let argv = row["argv"].as_array().into_iter().flatten().map(text).collect();
            (text(&row["outcome"]), text(&row["reason"]), argv)
        };
        let rows = page["items"].as_array().expect("rows").iter();
        rows.filter(|row| row["action"] == action).map(row).collect()
    }
}

impl Played {
    async fn ask(&self) -> FileAsk {
        told(&self.link, |message| if let ToNode::FileAsk(ask) = message { Some(*ask) } else { None }).await
    }

    async fn cancel(&self) -> OpId {
        told(&self.link, |message| if let ToNode::FileCancel { op } = message { Some(op) } else { None })
            .await
    }

    async fn settled(&self) -> OpId {
        told(&self.link, |message| if let ToNode::FileSettled { op } = message { Some(op) } else { None })
            .await
    }

    /// Nothing is asked within a moment.
    async fn is_left_alone(&self) {
        let ask = tokio::time::timeout(Duration::from_millis(300), self.ask()).await;
        assert!(ask.is_err(), "it was asked {ask:?}");
    }

    /// It comes back with these reports.
    async fn comes_back(&mut self, world: &World, reports: Vec<FileReport>) {
        self.link = world.attach_with(self.id, |hello| hello.files = reports).await;
    }
}

fn written(content: &str) -> FileAnswer {
    FileAnswer::Written {
        etag: ContentId::of(content.as_bytes()),
        bytes: content.len() as u64,
        created: true,
        before: None,
        diff: None,
        notes: vec![Note::OwnerNotKept],
        dry_run: false,
    }
}

fn content(text: &'static str, from: u64, size: u64, complete: bool) -> FileAnswer {
    FileAnswer::Content {
        data: Bytes::from_static(text.as_bytes()),
        from,
        size,
        etag: Some(ContentId::of(b"whole")),
        lines: Some(LineFacts { total: 9, first: 1, ending: Ending::Lf, final_newline: true }),
        encoding: Encoding::Utf8,
        complete,
    }
}

fn meta() -> Meta {
    Meta {
        kind: Kind::File,
        size: 12,
        mode: 0o4755,
        mtime_ns: 1_700_000_000_123_456_789,
        uid: 1,
        gid: 2,
        links: 1,
        target: None,
        etag: Some(ContentId::of(b"whole")),
    }
}

/// Something that a node may answer to this verb.
fn sample(verb: Verb) -> FileAnswer {
    let skipped = Skipped { ignored: 3, ..Skipped::default() };
    let next = Some(Bytes::from_static(b"\xfbnext"));
    match verb {
        Verb::List | Verb::Find => {
            let entries = vec![Entry { name: "ملف".into(), meta: meta() }];
            FileAnswer::Listing { entries, next, searched: 7, skipped }
        }
        Verb::Stat => FileAnswer::Meta(meta()),
        Verb::Read => content("one\n", 0, 4, true),
        Verb::Grep => {
            let (name, text) = ("a.rs".into(), "fn ملف".into());
            let found = Match { name, line: 3, text, before: vec!["//".into()], after: vec![] };
            FileAnswer::Matches { matches: vec![found], next, searched: 7, skipped }
        }
        Verb::Write | Verb::Copy => written("one"),
        Verb::Edit => {
            let diff = Some(Diff { text: "-a\n+b\n".to_owned(), added: 1, removed: 1, cut: false });
            FileAnswer::Written {
                etag: ContentId::of(b"b"),
                bytes: 1,
                created: false,
                before: Some(ContentId::of(b"a")),
                diff,
                notes: vec![],
                dry_run: false,
            }
        }
        Verb::MakeDir | Verb::Remove | Verb::Move => {
            FileAnswer::Done { removed: 1, made: 1, notes: vec![], dry_run: false }
        }
    }
}
