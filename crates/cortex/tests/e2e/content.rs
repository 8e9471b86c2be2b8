//! Content of files that travels on a stream of its own, over the real program: as much as comes, as fast
//! as the slower end takes it, and nothing left behind when either end goes away.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use cortex_core::files::content::ContentId;
use serde_json::json;

use crate::files::{OCTETS, at, world};
use crate::transfers::noise;
use crate::world::{World, canary};

const MIB: usize = 1024 * 1024;
const SOON: Duration = Duration::from_secs(30);

impl World {
    /// A connection on which this head was sent; the body is the caller's.
    pub(crate) fn begin(&self, method: &str, query: &str, len: u64) -> TcpStream {
        let address = self.hub().http.trim_start_matches("http://");
        let token = std::fs::read_to_string(&self.hub().token_file).expect("the token");
        let mut stream = TcpStream::connect(address).expect("the port listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
        let head = format!(
            "{method} /api/v1/nodes/{query} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-length: {len}\r\ncontent-type: {OCTETS}\r\naccept: {OCTETS}\r\n\r\n",
            token.trim()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream
    }

    /// A figure of the hub.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let text = canary::metrics(&self.hub().http);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cortex_{name} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Waits until nothing of any content is left: no ticket, no stream, no operation, no file of ours.
    fn is_quiet(&self, work: &Path) {
        self.eventually("quiet", SOON, |world| {
            let open = ["tickets", "streams", "file_ops_open"].map(|name| world.figure(name));
            (open == [0, 0, 0] && ours(work).is_empty()).then_some(())
        });
    }
}

/// Names that an operation gives to what is not finished.
pub(crate) fn ours(work: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(work).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".cortex-")).collect()
}

/// Bytes of memory that a process holds.
pub(crate) fn memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

#[test]
fn a_large_file_goes_up_and_down_whole_while_commands_go_on() {
    let (world, work) = world();
    let target = work.join("كبير.bin");
    let sent = noise(40 * MIB, 7);
    let id = ContentId::of(&sent).to_string();
    let before = memory(world.hub().pid());
    let mut grown = 0;
    let (written, execs) = std::thread::scope(|scope| {
        let upload = scope.spawn(|| {
            let headers = [("content-type", OCTETS), ("cortex-content-id", id.as_str())];
            world.fs("PUT", &at("a", &target, "&mkdirs=true"), &headers, &sent).ok()
        });
        let mut execs = Vec::new();
        while !upload.is_finished() {
            let began = Instant::now();
            world.cortex(&["exec", "a", "--", "cat", "/dev/null"]).expect(0);
            execs.push(began.elapsed());
            grown = grown.max(memory(world.hub().pid()).saturating_sub(before));
        }
        (upload.join().expect("it goes up"), execs)
    });
    assert_eq!((&written["etag"], &written["bytes"]), (&json!(id), &json!(sent.len())), "{written}");
    println!("commands beside 40 MiB going up took {execs:?}; the hub grew by {} KiB", grown / 1024);
    assert!(grown < 24 * MIB, "the hub holds what it only passes on: {grown} bytes more");
    let began = Instant::now();
    let read = world.fs("GET", &at("a", &target, ""), &[("accept", OCTETS)], b"");
    println!("40 MiB came down in {:?}", began.elapsed());
    assert_eq!(read.status, 200, "{}", read.head);
    assert!(read.head.contains(&format!("content-length: {}", sent.len())), "{}", read.head);
    assert!(read.head.contains(&format!("etag: \"{id}\"")), "{}", read.head);
    assert!(read.body == sent, "it is the same");
    // A part, of which the end lies beyond the file.
    let from = 39 * MIB + 5;
    let range = format!("bytes={from}-999999999");
    let part = world.fs("GET", &at("a", &target, ""), &[("accept", OCTETS), ("range", &range)], b"");
    let told = format!("content-range: bytes {from}-{}/{}", sent.len() - 1, sent.len());
    assert!(part.status == 206 && part.head.contains(&told), "{}", part.head);
    assert!(part.body == sent[from..]);
    // Whoever has it is told so, and the stream goes as it came.
    let known = [("accept", OCTETS), ("if-none-match", &format!("\"{id}\"") as &str)];
    assert_eq!(world.fs("GET", &at("a", &target, ""), &known, b"").status, 304);
    let json = world.fs("GET", &at("a", &target, ""), &[("accept", "application/json")], b"").ok();
    assert_eq!((&json["truncated"], &json["size"]), (&json!(true), &json!(sent.len())));
    world.is_quiet(&work);
    // It need not be searched for secrets.
    std::fs::remove_file(&target).expect("removed");
}

#[test]
fn what_is_sent_must_be_what_was_declared_and_fit_and_be_expected() {
    let (world, work) = world();
    let target = work.join("a");
    let sent = noise(MIB, 3);
    let put = |more: &str, headers: &[(&str, &str)], body: &[u8]| {
        world.fs("PUT", &at("a", &target, more), &[&[("content-type", OCTETS)], headers].concat(), body)
    };
    let other = ContentId::of(b"other").to_string();
    put("", &[("cortex-content-id", &other)], &sent).refused(400, "invalid_argument");
    assert!(!target.exists());
    let first = put("", &[("idempotency-key", "k")], &sent).ok();
    // The same again is the same operation, and other content under the same key is none.
    let again = put("", &[("idempotency-key", "k")], &sent).ok();
    assert_eq!(again["op"], first["op"]);
    put("", &[("idempotency-key", "k")], &noise(MIB, 4)).refused(409, "conflict");
    put("", &[("if-match", &format!("\"{other}\""))], &sent).refused(412, "etag_mismatch");
    put("&mode=create", &[], &sent).refused(409, "conflict");
    let dry = put("&dry_run=true", &[], &noise(MIB, 5)).ok();
    assert_eq!(dry["dry_run"], json!(true));
    let appended = put("&mode=append", &[], &noise(MIB, 6)).ok();
    assert_eq!(appended["bytes"], json!(2 * MIB));
    let whole = [sent, noise(MIB, 6)].concat();
    assert!(std::fs::read(&target).expect("there") == whole);
    // Nothing of the body is asked for.
    let mut stream = world.begin("PUT", &at("a", &target, ""), 64 * MIB as u64 + 1);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"), "{answer}");
    world.is_quiet(&work);
}

#[test]
fn what_either_end_breaks_off_leaves_nothing() {
    let (mut world, work) = world();
    let target = work.join("large");
    std::fs::write(&target, noise(40 * MIB, 9)).expect("written");
    // A reader goes away in the middle.
    let mut stream = world.begin("GET", &at("a", &target, ""), 0);
    let mut some = vec![0; MIB];
    stream.read_exact(&mut some).expect("a part");
    assert_eq!(world.figure("streams"), 1, "the slow reader holds it");
    drop(stream);
    world.is_quiet(&work);
    // A writer goes away in the middle.
    let other = work.join("other");
    let mut stream = world.begin("PUT", &at("a", &other, ""), 20 * MIB as u64);
    stream.write_all(&noise(5 * MIB, 1)).expect("sent");
    world.eventually("a file on its way", SOON, |_| (!ours(&work).is_empty()).then_some(()));
    drop(stream);
    world.is_quiet(&work);
    assert!(!other.exists());
    // The node dies in the middle.
    let mut stream = world.begin("PUT", &at("a", &other, ""), 20 * MIB as u64);
    stream.write_all(&noise(5 * MIB, 1)).expect("sent");
    world.eventually("a file on its way", SOON, |_| (!ours(&work).is_empty()).then_some(()));
    world.kill_node("a");
    world.start_node("a");
    let mut answer = String::new();
    // What of the body is still sent, or not, makes no difference.
    let _sent = stream.write_all(&noise(5 * MIB, 2));
    let _ended = stream.shutdown(std::net::Shutdown::Write);
    let _read = stream.read_to_string(&mut answer);
    println!("the writer was told: {}", answer.lines().next().unwrap_or_default());
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    world.is_quiet(&work);
    assert!(!other.exists());
    assert!(std::fs::read(&target).expect("there") == noise(40 * MIB, 9));
    // It need not be searched for secrets.
    std::fs::remove_file(&target).expect("removed");
}
