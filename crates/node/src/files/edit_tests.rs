//! All of the replacements, or none.

use bytes::Bytes;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::content::ContentId;
use proptest::prelude::*;

use super::*;
use crate::files::seam::Moment;
use crate::files::support::{Meanwhile, PLAIN, Scene};

fn edit(old: &str, new: &str, all: bool) -> Edit {
    Edit { old: Bytes::copy_from_slice(old.as_bytes()), new: Bytes::copy_from_slice(new.as_bytes()), all }
}

fn applied(content: &str, edits: &[Edit]) -> Result<String, Failure> {
    apply(content.as_bytes(), edits).map(|edited| String::from_utf8(edited.content).expect("text"))
}

fn commit(scene: &Scene, edits: &[Edit], expect: Expect, dry_run: bool) -> Result<FileAnswer, Refusal> {
    prepare(&PLAIN, scene.at("f").place(), edits, expect, dry_run)?.commit(&PLAIN)
}

#[test]
fn each_edit_is_done_on_what_the_one_before_it_left() {
    assert_eq!(applied("a b c", &[edit("a", "b", false), edit("b b", "x", false)]), Ok("x c".into()));
    assert_eq!(applied("aaaa", &[edit("aa", "b", true)]), Ok("bb".into()));
    assert_eq!(applied("aaa", &[edit("aa", "b", true)]), Ok("ba".into()), "from the left, none overlaps");
    assert_eq!(applied("a", &[edit("a", "", false)]), Ok(String::new()));
    assert_eq!(applied("نص قديم", &[edit("قديم", "جديد", false)]), Ok("نص جديد".into()));
    assert_eq!(applied("\u{feff}a", &[edit("a", "b", false)]), Ok("\u{feff}b".into()), "with its mark");
    assert_eq!(applied("a\nb", &[edit("b", "c", false)]), Ok("a\nc".into()), "no line end is added");
    let bytes = Edit { old: Bytes::from_static(b"\xff\0"), new: Bytes::from_static(b"\xfe"), all: false };
    assert_eq!(apply(b"a\xff\0b", &[bytes]).map(|edited| edited.content), Ok(b"a\xfeb".to_vec()));
}

#[test]
fn a_text_that_is_missing_is_told_with_the_lines_that_come_closest() {
    let content = "fn main() {\n    let total = sum(1, 2);\n    print(total);\n}\n\nfn other() {}\n";
    let failure = applied(content, &[edit("fn", "FN", true), edit("let totals = sum(1,2);", "", false)]);
    let Err(Failure::NotFound { edit: 2, closest }) = failure else { panic!("{failure:?}") };
    assert_eq!(closest.first(), Some(&(2, "let total = sum(1, 2);".to_owned())));
    assert!(closest.len() <= CLOSEST_MAX);
    for (content, old) in [("", "a"), ("xyz", "abc"), ("\n\n", "a"), ("a", "\n")] {
        let failure = applied(content, &[edit(old, "b", false)]);
        assert_eq!(failure, Err(Failure::NotFound { edit: 1, closest: vec![] }), "{content:?} {old:?}");
    }
}

#[test]
fn a_text_that_is_there_more_than_once_is_told_with_its_lines() {
    let failure = applied("a\nb a\n\na a\n", &[edit("a", "b", false)]);
    assert_eq!(failure, Err(Failure::Ambiguous { edit: 1, count: 4, lines: vec![1, 2, 4] }));
    let many = "x\n".repeat(100);
    let failure = applied(&many, &[edit("x", "y", false)]);
    assert_eq!(failure, Err(Failure::Ambiguous { edit: 1, count: 100, lines: (1..=10).collect() }));
    assert_eq!(applied(&many, &[edit("x", "y", true)]), Ok("y\n".repeat(100)));
}

#[test]
fn line_ends_of_a_file_that_has_crlf_throughout_are_kept() {
    for (content, old, new, expected) in [
        ("a\r\nb\r\n", "a\nb\n", "c\nd\ne\n", Some(("c\r\nd\r\ne\r\n", true))),
        ("a\r\nb\r\n", "b", "c\nd", Some(("a\r\nc\r\nd\r\n", true))),
        ("a\r\nb\r\n", "b", "c", Some(("a\r\nc\r\n", false))),
        ("a\r\nb\r\n", "a\r\nb", "c\nd", Some(("c\nd\r\n", false))),
        ("a\r\nb\r\n", "\r\n", "\n", None),
        ("a\r\nb\n", "a\nb", "c", None),
        ("a\nb\n", "a\nb", "c\r\nd", Some(("c\r\nd\n", false))),
        ("a", "a", "b\nc", Some(("b\nc", false))),
    ] {
        let edited = apply(content.as_bytes(), &[edit(old, new, false)]);
        let expected = expected.map(|(text, is_converted)| (text.as_bytes().to_vec(), is_converted));
        assert_eq!(
            edited.ok().map(|edited| (edited.content, edited.is_converted)),
            expected,
            "{content:?} {old:?}"
        );
    }
    assert_eq!(
        applied("a\r\nb\r\n", &[edit("\r\n", "\n", true)]),
        Ok("a\nb\n".into()),
        "line ends are edited"
    );
}

#[test]
fn what_would_grow_beyond_the_bound_is_refused_before_memory_is_taken() {
    let content = vec![b'a'; 1 << 20];
    let grow = Edit { old: Bytes::from_static(b"a"), new: vec![b'b'; 40_000].into(), all: true };
    assert_eq!(apply(&content, &[grow]), Err(Failure::TooLarge));
}

#[test]
fn a_file_is_edited_or_stays_and_the_difference_is_told() {
    let scene = Scene::new();
    scene.write("f", "one\ntwo\nthree\n");
    let edits = [edit("two", "2", false), edit("three", "3", false)];
    let etag = Expect::Etag(ContentId::of(b"one\ntwo\nthree\n"));
    let answer = commit(&scene, &edits, etag, true).expect("told");
    let FileAnswer::Written { diff: Some(diff), dry_run: true, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((diff.added, diff.removed), (2, 2));
    assert_eq!(scene.read("f"), b"one\ntwo\nthree\n");
    let half = [edit("two", "2", false), edit("four", "4", false)];
    let refusal = commit(&scene, &half, Expect::Any, false).expect_err("not there");
    assert_eq!((refusal.code, scene.read("f")), (Code::EditNotFound, b"one\ntwo\nthree\n".to_vec()));
    let twice = commit(&scene, &[edit("t", "T", false)], Expect::Any, false).expect_err("ambiguous");
    assert_eq!(twice.code, Code::EditAmbiguous);
    assert!(twice.details.contains(&("lines", "2,3".to_owned())), "{twice:?}");
    let answer = commit(&scene, &edits, etag, false).expect("edited");
    let FileAnswer::Written { before: Some(_), diff: Some(_), created: false, dry_run: false, .. } = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!((scene.read("f"), scene.names("")), (b"one\n2\n3\n".to_vec(), vec!["f".to_owned()]));
    let stale = commit(&scene, &[edit("one", "1", false)], etag, false).expect_err("changed");
    assert_eq!(stale.code, Code::EtagMismatch);
}

#[test]
fn what_somebody_writes_while_a_file_is_edited_is_not_lost() {
    let scene = Scene::new();
    scene.write("f", "one\n");
    let seam = Meanwhile::new(Moment::TempSynced, || scene.write("f", "one\ntheirs\n"));
    let work = Work { seam: &seam, ..PLAIN };
    let at = scene.at("f");
    let prepared =
        prepare(&work, at.place(), &[edit("one", "1", false)], Expect::Any, false).expect("prepared");
    assert_eq!(prepared.commit(&work).expect_err("changed").code, Code::EtagMismatch);
    assert_eq!((scene.read("f"), scene.names("")), (b"one\ntheirs\n".to_vec(), vec!["f".to_owned()]));
}

#[test]
fn only_files_up_to_a_size_are_edited() {
    let scene = Scene::new();
    std::fs::create_dir(scene.disk("f")).expect("made");
    let refusal = commit(&scene, &[edit("a", "b", false)], Expect::Any, false).expect_err("a folder");
    assert_eq!(refusal.code, Code::UnsupportedEntry);
    std::fs::remove_dir(scene.disk("f")).expect("removed");
    let refusal = commit(&scene, &[edit("a", "b", false)], Expect::Any, false).expect_err("nothing");
    assert_eq!(refusal.code, Code::NotFound);
    let file = std::fs::File::create(scene.disk("f")).expect("made");
    file.set_len(1 << 40).expect("set");
    let refusal = commit(&scene, &[edit("a", "b", false)], Expect::Any, false).expect_err("large");
    assert_eq!(refusal.code, Code::TooLarge);
}

/// The same by the simplest means: text, and one search for each place.
fn naive(content: &str, edits: &[Edit]) -> Result<String, (usize, usize)> {
    let mut text = content.to_owned();
    for (index, edit) in edits.iter().enumerate() {
        let (old, new) = (String::from_utf8_lossy(&edit.old), String::from_utf8_lossy(&edit.new));
        match text.matches(&*old).count() {
            0 => return Err((index + 1, 0)),
            count if count > 1 && !edit.all => return Err((index + 1, count)),
            _ => text = text.replace(&*old, &new),
        }
    }
    Ok(text)
}

proptest! {
    #[test]
    fn an_edit_does_what_a_naive_replacement_does(
        content in "[abأ\n]{0,60}",
        edits in prop::collection::vec(("[abأ\n]{1,3}", "[abcأ\n]{0,4}", any::<bool>()), 1..6),
    ) {
        let edits: Vec<Edit> = edits.iter().map(|(old, new, all)| edit(old, new, *all)).collect();
        let expected = naive(&content, &edits);
        match applied(&content, &edits) {
            Ok(text) => prop_assert_eq!(Ok(text), expected),
            Err(Failure::NotFound { edit, .. }) => prop_assert_eq!(Err((edit, 0)), expected),
            Err(Failure::Ambiguous { edit, count, .. }) => prop_assert_eq!(Err((edit, count)), expected),
            Err(Failure::TooLarge) => prop_assert!(false),
        }
    }
}
