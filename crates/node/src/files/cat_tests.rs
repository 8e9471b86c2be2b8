//! Parts of files by bytes and by lines.

use cortex_core::files::answer::Ending;

use super::*;
use crate::files::support::Scene;

const ALL: ReadRange = ReadRange::All;

/// Data, offset, whether that is all, and the first line.
fn read(scene: &Scene, range: ReadRange, max: u32) -> (Vec<u8>, u64, bool, Option<u64>) {
    let answer = inline(&scene.at("f").place(), range, max, false).expect("read");
    let FileAnswer::Content { data, from, complete, lines, .. } = answer else { panic!("{answer:?}") };
    (data.to_vec(), from, complete, lines.map(|lines| lines.first))
}

#[test]
fn a_part_is_read_with_what_is_known_of_the_whole() {
    let scene = Scene::new();
    let content = "one\r\nاثنان\r\nthree\r\n";
    scene.write("f", content);
    let answer = inline(&scene.at("f").place(), ReadRange::Lines { from: 2, count: 1 }, 1000, false);
    assert_eq!(
        answer,
        Ok(FileAnswer::Content {
            data: Bytes::from_static("اثنان\r\n".as_bytes()),
            from: 5,
            size: content.len() as u64,
            etag: Some(ContentId::of(content.as_bytes())),
            lines: Some(LineFacts { total: 3, first: 2, ending: Ending::CrLf, final_newline: true }),
            encoding: Encoding::Utf8,
            complete: true,
        })
    );
    let bytes = |from, len| ReadRange::Bytes { from, len };
    let lines = |from, count| ReadRange::Lines { from, count };
    scene.write("f", "a\nbb\n\nc");
    for (range, max, expected) in [
        (ALL, 100, (&b"a\nbb\n\nc"[..], 0, true, Some(1))),
        (ALL, 3, (b"a\nb", 0, false, Some(1))),
        (bytes(2, 2), 100, (b"bb", 2, true, Some(2))),
        (bytes(6, 100), 100, (b"c", 6, true, Some(4))),
        (bytes(7, 1), 100, (b"", 7, true, Some(4))),
        (bytes(100, 1), 100, (b"", 7, true, Some(4))),
        (lines(1, 2), 100, (b"a\nbb\n", 0, true, Some(1))),
        (lines(3, 1), 100, (b"\n", 5, true, Some(3))),
        (lines(4, u64::MAX - 4), 100, (b"c", 6, true, Some(4))),
        (lines(5, 1), 100, (b"", 7, true, Some(4))),
        (lines(2, 3), 4, (b"bb\n\n", 2, false, Some(2))),
    ] {
        let (data, from, complete, first) = expected;
        assert_eq!(read(&scene, range, max), (data.to_vec(), from, complete, first), "{range:?} {max}");
    }
    scene.write("f", "");
    assert_eq!(read(&scene, ALL, 10), (vec![], 0, true, Some(1)));
    assert_eq!(read(&scene, lines(1, 1), 10), (vec![], 0, true, Some(1)));
}

#[test]
fn a_text_is_cut_between_characters_and_bytes_anywhere() {
    let scene = Scene::new();
    scene.write("f", "ملف");
    assert_eq!(read(&scene, ALL, 3), ("م".as_bytes().to_vec(), 0, false, Some(1)));
    assert_eq!(read(&scene, ALL, 1).0, b"\xd9", "less than a character is still something");
    scene.write("f", b"\xd9\x85\xd9\0");
    assert_eq!(read(&scene, ALL, 3), (b"\xd9\x85\xd9".to_vec(), 0, false, None));
    scene.write("f", b"\xef\xbb\xbfa");
    let FileAnswer::Content { data, encoding: Encoding::Utf8Bom, .. } =
        inline(&scene.at("f").place(), ALL, 9, false).expect("read")
    else {
        panic!("it has a mark")
    };
    assert_eq!(&data[..], b"\xef\xbb\xbfa");
}

#[test]
fn a_sparse_file_of_1_tib_is_told_and_read_in_parts_without_being_hashed() {
    let scene = Scene::new();
    let size = 1_u64 << 40;
    std::fs::File::create(scene.disk("f")).expect("made").set_len(size).expect("set");
    let at = scene.at("f");
    let FileAnswer::Meta(meta) = stat(&at.place(), false).expect("told") else { panic!("of an entry") };
    assert_eq!((meta.size, meta.etag), (size, None));
    for range in [ALL, ReadRange::Bytes { from: size - 5, len: 100 }, ReadRange::Lines { from: 1, count: 9 }]
    {
        let answer = inline(&at.place(), range, 64, false).expect("read");
        let FileAnswer::Content { data, etag: None, lines: None, encoding: Encoding::Binary, .. } = answer
        else {
            panic!("{answer:?}")
        };
        assert!(data.iter().all(|byte| *byte == 0) && !data.is_empty());
    }
    let few = stream(&at.place(), ReadRange::Bytes { from: 1 << 39, len: 9 }, false).expect("opened");
    let Streamed::Inline(FileAnswer::Content { data, complete: true, .. }) = few else { panic!("{few:?}") };
    assert_eq!(data.len(), 9);
    let len = PIECE_BYTES as u64 + 1;
    let (answer, mut reading) = pieces(&at, ReadRange::Bytes { from: 1 << 39, len }, false);
    assert!(matches!(answer, FileAnswer::Streaming { etag: None, .. }), "{answer:?}");
    let lens: Vec<usize> =
        std::iter::from_fn(|| reading.next().expect("read").map(|piece| piece.len())).collect();
    assert_eq!(lens, [PIECE_BYTES, 1]);
    let (answer, mut reading) = pieces(&at, ALL, false);
    assert!(matches!(answer, FileAnswer::Streaming { size, .. } if size > 1 << 39), "{answer:?}");
    assert_eq!(reading.next().expect("read").map(|piece| piece.len()), Some(PIECE_BYTES));
}

fn pieces(at: &crate::files::support::At, range: ReadRange, hash: bool) -> (FileAnswer, Reading) {
    match stream(&at.place(), range, hash).expect("opened") {
        Streamed::Pieces(answer, reading) => (answer, reading),
        Streamed::Inline(answer) => panic!("{answer:?}"),
    }
}

#[test]
fn a_log_that_grows_while_it_is_streamed_is_given_as_far_as_it_went_unless_its_etag_was_asked_for() {
    let scene = Scene::new();
    let content = vec![b'x'; PIECE_BYTES + 1];
    scene.write("f", &content);
    let at = scene.at("f");
    let (_, mut reading) = pieces(&at, ALL, false);
    // As one whose etag is not known.
    reading.is_named = false;
    reading.next().expect("read").expect("some");
    scene.write("f", [&content[..], b"more"].concat());
    assert_eq!(reading.next().expect("read").map(|piece| piece.len()), Some(1));
    assert_eq!(reading.next(), Ok(None));
}

#[test]
fn a_stream_ends_with_a_refusal_when_the_file_changed_meanwhile() {
    let scene = Scene::new();
    let content = vec![b'x'; PIECE_BYTES * 2 + 1];
    for meddle in ["", "grows", "shrinks"] {
        scene.write("f", &content);
        let at = scene.at("f");
        let (answer, mut reading) = pieces(&at, ALL, true);
        let etag = Some(ContentId::of(&content));
        assert_eq!(answer, FileAnswer::Streaming { size: content.len() as u64, etag });
        let mut got = reading.next().expect("read").expect("some").to_vec();
        match meddle {
            "grows" => scene.write("f", [&content[..], b"y"].concat()),
            "shrinks" => scene.write("f", "y"),
            _ => {}
        }
        let end = loop {
            match reading.next() {
                Ok(Some(piece)) => got.extend_from_slice(&piece),
                Ok(None) => break None,
                Err(refusal) => break Some(refusal.code),
            }
        };
        assert_eq!(end, (!meddle.is_empty()).then_some(Code::Conflict), "{meddle}");
        assert!(!meddle.is_empty() || got == content);
    }
}

#[test]
fn an_entry_is_told_as_it_is_and_a_folder_is_not_read() {
    let scene = Scene::new();
    scene.write("f", "x");
    std::os::unix::fs::symlink("/etc/passwd", scene.disk("link")).expect("linked");
    let told = |name: &str, hash| match stat(&scene.at(name).place(), hash) {
        Ok(FileAnswer::Meta(meta)) => Ok((meta.kind, meta.target, meta.etag)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    };
    assert_eq!(told("f", true), Ok((Kind::File, None, Some(ContentId::of(b"x")))));
    assert_eq!(told("f", false), Ok((Kind::File, None, None)));
    assert_eq!(told("link", true), Ok((Kind::Link, Some(Bytes::from_static(b"/etc/passwd")), None)));
    assert_eq!(told("", true), Ok((Kind::Dir, None, None)));
    assert_eq!(told("none", false), Err(Code::NotFound));
    for (name, code) in
        [("", Code::UnsupportedEntry), ("link", Code::PathOutsideRoots), ("none", Code::NotFound)]
    {
        let refusal = inline(&scene.at(name).place(), ALL, 9, false).expect_err(name);
        assert_eq!(refusal.code, code, "{name}");
    }
}

#[test]
fn a_file_that_is_written_all_the_time_is_read_or_refused_but_never_mixed() {
    let scene = Scene::new();
    let (a, b) = (vec![b'a'; 300_000], vec![b'b'; 300_000]);
    scene.write("f", &a);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..200 {
                // It is emptied first, so each moment is the beginning of one of them.
                let content = if turn % 2 == 0 { &b } else { &a };
                std::fs::write(scene.disk("f"), content).expect("written");
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            match inline(&scene.at("f").place(), ALL, 48_000, true) {
                Ok(FileAnswer::Content { etag: Some(etag), size, .. }) => {
                    let of = |content: &[u8]| ContentId::of(&content[..size as usize]);
                    assert!(etag == of(&a) || etag == of(&b), "a mixture of {size} bytes");
                }
                Ok(other) => panic!("{other:?}"),
                Err(refusal) => assert_eq!(refusal.code, Code::Conflict),
            }
        }
    });
}
