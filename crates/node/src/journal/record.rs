//! One record as bytes: length, checksum, body. Never here: files.
//!
//! A body that its checksum vouches for was written whole. When this build cannot read it all the
//! same, a later one wrote it: it is kept as it is, and is no torn tail.

mod files;

use cortex_core::id::RunId;
use cortex_core::journal::Record;
use cortex_core::run::{EndCause, Ended};
use cortex_core::stream::Positions;

/// Length and checksum in front of each body.
const HEAD_BYTES: usize = 4 + 8;
/// A body beyond this cannot have been written here, nor by a later build: kinds to come keep to it.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a diagnostic that are kept.
const DIAGNOSTIC_BYTES_MAX: usize = 4 * 1024;

/// What is at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<'a> {
    /// A record, and how long it is in bytes.
    Record(Record, usize),
    /// Whole, and of a kind that this build does not know: all its bytes.
    Unknown(&'a [u8]),
    /// Not whole, or damaged.
    Torn,
}

/// Adds a record at the end of `out`.
pub(super) fn write(out: &mut Vec<u8>, record: &Record) {
    let mut body = Vec::with_capacity(64);
    match record {
        Record::Accepted(run) => put_run(&mut body, b'A', *run),
        Record::Ended(run, ended) => {
            put_run(&mut body, b'E', *run);
            put_ended(&mut body, ended);
        }
        Record::Settled(run) => put_run(&mut body, b'S', *run),
        Record::FileAccepted(accepted) => files::put_accepted(&mut body, accepted),
        Record::FileIntended(op, etag) => files::put_intended(&mut body, *op, etag),
        Record::FileEnded(op, end) => files::put_end(&mut body, *op, end),
        Record::FileSettled(op) => files::put_settled(&mut body, *op),
        Record::Attempt(task, attempt) => files::put_attempt(&mut body, *task, *attempt),
    }
    frame(out, &body);
}

/// Adds a body with its length and checksum in front.
pub(super) fn frame(out: &mut Vec<u8>, body: &[u8]) {
    // A body is far below `BODY_BYTES_MAX`.
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(checksum(body));
    out.extend(body);
}

/// Reads what is at the front of `bytes`, which may be none.
pub(super) fn read(bytes: &[u8]) -> Read<'_> {
    let Some((body, len)) = whole_body(bytes) else { return Read::Torn };
    match parse(body) {
        Some(record) => Read::Record(record, len),
        None => Read::Unknown(&bytes[..len]),
    }
}

/// The body that the checksum in front of it vouches for, and the length of all.
fn whole_body(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if len > BODY_BYTES_MAX {
        return None;
    }
    let body = bytes.get(HEAD_BYTES..HEAD_BYTES + len)?;
    (bytes.get(4..HEAD_BYTES)? == checksum(body)).then_some((body, HEAD_BYTES + len))
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(body);
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    [a, b, c, d, e, f, g, h]
}

fn put_run(body: &mut Vec<u8>, kind: u8, run: RunId) {
    body.push(kind);
    body.extend(run.as_bytes());
}

fn put_ended(body: &mut Vec<u8>, ended: &Ended) {
    let cause = ended.cause.as_str();
    body.push(cause.len() as u8);
    body.extend(cause.as_bytes());
    for number in [ended.code, ended.signal] {
        body.push(u8::from(number.is_some()));
        body.extend(number.unwrap_or(0).to_le_bytes());
    }
    for number in [ended.duration_ms, ended.output.stdout, ended.output.stderr] {
        body.extend(number.to_le_bytes());
    }
    body.push(u8::from(ended.diagnostic.is_some()));
    let text = ended.diagnostic.as_deref().unwrap_or("");
    body.extend(&text.as_bytes()[..text.floor_char_boundary(DIAGNOSTIC_BYTES_MAX)]);
}

fn parse(body: &[u8]) -> Option<Record> {
    let rest = &mut &*body;
    let kind = take(rest, 1)?[0];
    if let Some(record) = files::parse(kind, rest) {
        return Some(record);
    }
    let run = RunId::from_slice(take(rest, 16)?)?;
    match kind {
        b'A' => Some(Record::Accepted(run)),
        b'S' => Some(Record::Settled(run)),
        b'E' => Some(Record::Ended(run, parse_ended(rest)?)),
        _ => None,
    }
}

fn parse_ended(rest: &mut &[u8]) -> Option<Ended> {
    let len = usize::from(take(rest, 1)?[0]);
    let cause = EndCause::parse(std::str::from_utf8(take(rest, len)?).ok()?)?;
    let (code, signal) = (optional(rest)?, optional(rest)?);
    let (duration_ms, stdout, stderr) = (long(rest)?, long(rest)?, long(rest)?);
    let told = take(rest, 1)?[0] != 0;
    let diagnostic = if told { Some(std::str::from_utf8(rest).ok()?.to_owned()) } else { None };
    Some(Ended { cause, code, signal, duration_ms, output: Positions { stdout, stderr }, diagnostic })
}

fn optional(rest: &mut &[u8]) -> Option<Option<i32>> {
    let there = take(rest, 1)?[0] != 0;
    let number = i32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    Some(there.then_some(number))
}

fn long(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(len)?;
    *rest = back;
    Some(front)
}

#[cfg(test)]
pub(super) mod samples {
    use cortex_core::files::op::Verb;
    use cortex_core::files::path::FilePath;
    use cortex_core::id::{Attempt, OpId, TaskId};
    use cortex_core::journal::FileAccepted;
    use cortex_core::{Code, Refusal};

    pub(crate) fn op(n: u8) -> OpId {
        OpId::mint(u64::from(n), &[n; 10])
    }

    /// The row of an operation; every second one is done for a task.
    pub(crate) fn accepted(n: u8) -> FileAccepted {
        let task = TaskId::mint(u64::from(n), &[n; 10]);
        let attempt = n.is_multiple_of(2).then_some((task, Attempt(u64::from(n) + 1)));
        let path = FilePath::parse("/srv/بيانات/a").expect("a path");
        FileAccepted { op: op(n), attempt, verb: Verb::Write, path, source: None }
    }

    pub(crate) fn refused() -> Refusal {
        Refusal::new(Code::EtagMismatch, "Changed.")
            .hint("Read it again.")
            .detail("etag", "af13")
            .detail("size", "7")
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::files::content::ContentId;
    use cortex_core::files::entity::kept;
    use cortex_core::files::op::Verb;
    use cortex_core::files::path::FilePath;
    use cortex_core::files::samples::any_end;
    use cortex_core::id::{Attempt, OpId, TaskId};
    use cortex_core::journal::FileAccepted;
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let id = || any::<[u8; 16]>();
        let op = || id().prop_map(|bytes| OpId::from_slice(&bytes).expect("sixteen"));
        let task = || id().prop_map(|bytes| TaskId::from_slice(&bytes).expect("sixteen"));
        let of_task = || (task(), any::<u64>().prop_map(Attempt));
        let path = || {
            let parts = prop::collection::vec("[a-zب-ي ]{1,200}", 1..20);
            parts.prop_filter_map("a path", |parts| FilePath::parse(&format!("/{}", parts.join("/"))).ok())
        };
        let verb = prop::sample::select(Verb::ALL.to_vec());
        prop_oneof![
            (op(), prop::option::of(of_task()), verb, path(), prop::option::of(path())).prop_map(
                |(op, attempt, verb, path, source)| {
                    Record::FileAccepted(FileAccepted { op, attempt, verb, path, source })
                }
            ),
            (op(), any::<[u8; 32]>()).prop_map(|(op, hash)| Record::FileIntended(op, ContentId::new(hash))),
            (op(), any_end()).prop_map(|(op, end)| Record::FileEnded(op, end)),
            op().prop_map(Record::FileSettled),
            of_task().prop_map(|(task, attempt)| Record::Attempt(task, attempt)),
        ]
    }

    proptest! {
        #[test]
        fn a_record_on_files_is_read_back_and_an_end_is_bounded(record in any_record(), after in any::<[u8; 3]>()) {
            let mut bytes = Vec::new();
            write(&mut bytes, &record);
            let len = bytes.len();
            prop_assert!(!matches!(record, Record::FileEnded(..)) || len <= 1_100, "{len} bytes");
            prop_assert!(len <= HEAD_BYTES + BODY_BYTES_MAX);
            let expected = if let Record::FileEnded(op, Err(refusal)) = &record {
                Record::FileEnded(*op, Err(kept(refusal)))
            } else {
                record
            };
            bytes.extend(after);
            prop_assert_eq!(read(&bytes), Read::Record(expected, len));
            prop_assert_eq!(read(&bytes[..len - 1]), Read::Torn);
        }

        // A body that is whole is never torn, whatever is in it.
        #[test]
        fn whatever_a_later_build_writes_is_passed_over_whole(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Vec::new();
            frame(&mut bytes, &body);
            let len = bytes.len();
            match read(&bytes) {
                Read::Record(_, read) => prop_assert_eq!(read, len),
                Read::Unknown(whole) => prop_assert_eq!(whole, &bytes[..]),
                Read::Torn => prop_assert!(false, "torn: {body:?}"),
            }
        }

        #[test]
        fn a_known_kind_cut_anywhere_or_with_other_bytes_is_read_or_passed_over(
            record in any_record(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            write(&mut bytes, &record);
            let mut body = bytes.split_off(HEAD_BYTES);
            let at = at.index(body.len());
            if cut { body.truncate(at) } else { body[at] = byte }
            let mut whole = Vec::new();
            frame(&mut whole, &body);
            prop_assert_ne!(read(&whole), Read::Torn);
        }
    }
}
