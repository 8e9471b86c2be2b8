//! What a clerk hears while it asks, and how it is refused.
use bytes::Bytes;
use cortex_core::files::content::ContentId;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::sandbox::Access;
use cortex_core::transfer::{Filters, SendAsk};
use cortex_wire::convert::transfer::news_from_bytes;

use super::super::*;

fn job() -> TransferJob {
    let source = FilePath::parse("/w/مجلد").expect("a path");
    let ask = SendAsk {
        source,
        only: None,
        base: None,
        filters: Filters::default(),
        checksum: true,
        mark: false,
        identity: None,
    };
    TransferJob {
        id: TransferId::mint(1, &[7; 10]),
        work: TransferWork::Send(Box::new(ask)),
        reach: Reach { root: "/w".to_owned(), rest: RelPath::root(), access: Access::Read },
    }
}

fn data(bytes: &'static [u8]) -> Frame {
    Frame::new(Kind::Stream, carry_to_bytes(Carry::Data(Bytes::from_static(bytes))))
}

fn word(kind: Kind) -> Frame {
    Frame::new(kind, Vec::new())
}

/// What a clerk that hears these says to whom, and what it makes of it.
fn with<T>(heard: &[Frame], work: impl FnOnce(&mut Talk<&[u8], &mut Vec<u8>>) -> T) -> (T, Vec<Frame>) {
    let mut jobs = Vec::new();
    heard.iter().for_each(|frame| frame.write_to(&mut jobs).expect("short"));
    let mut replies = Vec::new();
    let made = work(&mut Talk::new(jobs.as_slice(), &mut replies));
    let mut rest = replies.as_slice();
    let said = std::iter::from_fn(|| Frame::read_from(&mut rest).expect("frames")).collect();
    (made, said)
}

fn piped<R, W>(talk: &mut Talk<R, W>) -> Piped<'_, R, W> {
    Piped { talk, is_open: false, heard: VecDeque::new(), heard_bytes: 0, is_over: false }
}

#[test]
fn a_job_survives_its_frame_and_one_that_is_none_is_not_read() {
    let frame = job().to_frame();
    assert_eq!(TransferJob::from_frame(&frame), Some(job()));
    let body = frame.body.slice(1..);
    assert_eq!(TransferJob::from_frame(&Frame::new(Kind::Transfer, body)), None);
    assert_eq!(TransferJob::from_frame(&Frame::new(Kind::Operation, frame.body)), None);
}

#[test]
fn what_the_hub_says_while_the_node_is_asked_is_heard_after_that_and_in_order() {
    let heard = [word(Kind::Open), data(b"1"), data(b"2"), word(Kind::StreamEnd), word(Kind::Go)];
    let (got, said) = with(&heard, |talk| {
        let mut line = piped(talk);
        line.open().expect("open").expect("it may");
        line.send(Carry::Wants(vec![ContentId::of(b"x")])).expect("sent");
        line.gate().expect("asked").expect("it may");
        let next = |line: &mut Piped<'_, _, _>| line.recv().expect("heard").expect("a frame");
        [next(&mut line), next(&mut line), next(&mut line)]
    });
    let carry = |bytes: &'static [u8]| Some(Carry::Data(Bytes::from_static(bytes)));
    assert_eq!(got, [carry(b"1"), carry(b"2"), None]);
    let kinds: Vec<Kind> = said.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::Open, Kind::Stream, Kind::Gate]);
}

#[test]
fn a_no_of_the_node_has_its_reason_and_what_makes_no_sense_is_the_end() {
    let refusal = Refusal::new(Code::StaleAttempt, "old");
    let ask = |heard: &[Frame]| with(heard, |talk| piped(talk).gate()).0;
    assert_eq!(ask(&[no(refusal.clone())]).expect("answered"), Err(refusal));
    assert!(ask(&[word(Kind::Commit)]).is_err());
    assert!(ask(&[]).is_err(), "the node is gone");
    let most = Bytes::from(vec![0; limits::CARRY_DATA_BYTES_MAX]);
    let count = limits::WANTS_OPEN_BYTES_MAX as usize * 2 / most.len() + 1;
    let flood = vec![Frame::new(Kind::Stream, most); count];
    assert!(ask(&flood).is_err(), "more than was ever asked for");
}

#[test]
fn a_transfer_that_ends_before_its_stream_is_told_to_the_node() {
    let refusal = Refusal::new(Code::SandboxUnavailable, "exchanged");
    let (done, said) = with(&[], |talk| perform(talk, Err(refusal.clone()), &job()));
    done.expect("told");
    let [frame] = &said[..] else { panic!("{said:?}") };
    let news = news_from_bytes(job().id, &frame.body).expect("news");
    assert_eq!((frame.kind, news.end), (Kind::Transfer, Err(refusal)));
}
