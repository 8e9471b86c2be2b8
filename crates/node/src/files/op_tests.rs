//! Every operation from its beginning to its answer.

use bytes::Bytes;
use cortex_core::files::op::{Edit, Expect, FindQuery, GrepQuery, Page, ReadRange, WriteHow};
use cortex_core::files::path::FilePath;

use super::*;
use crate::files::support::{PLAIN, Scene};

fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

const PAGE: Page = Page { limit: 9, cursor: None };

fn answer(scene: &Scene, op: &FileOp) -> Result<FileAnswer, Refusal> {
    op.check().expect("it can be carried out");
    let rel = |path: &FilePath| path.as_str().strip_prefix("/w/").unwrap_or_default().to_owned();
    let (at, source) = (scene.at(&rel(op.path())), op.source().map(|source| scene.at(&rel(source))));
    let answer = match begin(&PLAIN, op, at.place(), source.as_ref().map(|source| source.place()))? {
        Begun::Answer(answer) => answer,
        Begun::Reading(answer, mut reading) => {
            while reading.next()?.is_some() {}
            answer
        }
        Begun::Upload(upload) => panic!("{upload:?}"),
        Begun::Ready(change) => {
            let intended = change.intended();
            let answer = change.commit(&PLAIN)?;
            let written = match &answer {
                FileAnswer::Written { etag, bytes, .. } => Some((*etag, *bytes)),
                FileAnswer::Done { .. } => None,
                other @ (FileAnswer::Listing { .. }
                | FileAnswer::Meta(_)
                | FileAnswer::Content { .. }
                | FileAnswer::Streaming { .. }
                | FileAnswer::Matches { .. }) => panic!("{other:?}"),
            };
            assert_eq!(intended, written, "what was said before is what came of it");
            answer
        }
    };
    assert!(answer.is_bounded(), "{answer:?}");
    Ok(answer)
}

#[test]
fn each_operation_has_its_answer_and_a_dry_run_leaves_everything_as_it_was() {
    let scene = Scene::new();
    let (expect, f) = (Expect::Any, path("/w/d/f"));
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let write = |dry_run| FileOp::Write {
        path: f.clone(),
        content: Content::Inline(text("one\n")),
        how: WriteHow::Put,
        expect,
        mkdirs: true,
        mode: None,
        dry_run,
    };
    let edits = vec![Edit { old: text("one"), new: text("two"), all: false }];
    let edit = |dry_run| FileOp::Edit { path: f.clone(), edits: edits.clone(), expect, dry_run };
    let remove = |dry_run| FileOp::Remove { path: path("/w/d"), recursive: true, expect, dry_run };
    let read = |want| FileOp::Read { path: f.clone(), range: ReadRange::All, want, hash: true };
    let said = |op: &FileOp| match answer(&scene, op) {
        Ok(answer) => format!("{answer:?}").split([' ', '(']).next().map(str::to_owned),
        Err(refusal) => Some(refusal.code.to_string()),
    };
    let names = || (scene.names(""), scene.disk("d/f").exists().then(|| scene.read("d/f")));
    for (op, answered) in [
        (FileOp::MakeDir { path: path("/w/made"), parents: false, mode: None }, "Done"),
        (write(true), "Written"),
        (write(false), "Written"),
        (edit(true), "Written"),
        (edit(false), "Written"),
        (FileOp::Stat { path: f.clone(), hash: true }, "Meta"),
        (read(ReadAs::Inline { bytes_max: 9 }), "Content"),
        (read(ReadAs::Stream), "Content"),
        (
            FileOp::List { path: path("/w/d"), depth: 1, hidden: false, glob: None, hash: false, page: PAGE },
            "Listing",
        ),
        (FileOp::Find { path: path("/w/d"), query: FindQuery::default(), page: PAGE }, "Listing"),
        (
            FileOp::Grep {
                path: path("/w/d"),
                query: GrepQuery { pattern: "two".to_owned(), ..GrepQuery::default() },
                page: PAGE,
            },
            "Matches",
        ),
        (
            FileOp::Copy { from: f.clone(), to: path("/w/g"), recursive: false, replace: false, expect },
            "Written",
        ),
        (
            FileOp::Copy { from: path("/w/d"), to: path("/w/e"), recursive: true, replace: false, expect },
            "Done",
        ),
        (FileOp::Move { from: path("/w/g"), to: path("/w/h"), replace: false, expect }, "Done"),
        (remove(true), "Done"),
        (remove(false), "Done"),
        (remove(false), "not_found"),
    ] {
        let before = names();
        assert_eq!(said(&op).as_deref(), Some(answered), "{op:?}");
        assert!(!op.is_read() || names() == before, "{op:?}");
    }
    assert_eq!(names().0, ["e", "h", "made"]);
}
