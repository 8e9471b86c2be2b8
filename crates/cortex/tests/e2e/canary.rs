//! Every world is a canary (RELIABILITY I10): whatever it issued or keeps as a secret is looked for
//! in all that it says: output of commands, logs, the audit log, metrics, arguments of processes,
//! and every file that is not meant to hold one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// Shorter ones would be found by chance.
const SECRET_BYTES_MIN: usize = 8;
/// Files whose purpose is a secret, by a part of their name.
const KEEPERS: &[&str] = &["admin.token", ".key"];

/// What must not be said, and where it came from.
#[derive(Debug, Default)]
pub(crate) struct Canary(Mutex<BTreeMap<String, String>>);

impl Canary {
    /// From here on this is a secret.
    pub(crate) fn learn(&self, from: &str, secret: &str) {
        let secret = secret.trim();
        if secret.len() >= SECRET_BYTES_MIN {
            self.known().insert(secret.to_owned(), from.to_owned());
        }
    }

    /// What a command printed. Only one that is for it may print a secret, and only a fresh one.
    pub(crate) fn heard(&self, arguments: &[String], stdout: &[u8], stderr: &str) {
        let what = format!("the output of `cortex {}`", arguments.join(" "));
        let stdout = String::from_utf8_lossy(stdout);
        self.search(&what, stdout.as_bytes());
        self.search(&what, stderr.as_bytes());
        for secret in tokens(&stdout).chain(tokens(stderr)) {
            assert!(issues(arguments), "a secret that nobody asked for is in {what}");
            self.learn(&what, secret);
        }
    }

    /// The keys that lie in this folder are secrets.
    pub(crate) fn learn_keys(&self, folder: &Path) {
        for path in files(folder).into_iter().filter(|path| path.to_string_lossy().ends_with(".key")) {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter(|line| !line.starts_with("-----"));
            lines.for_each(|line| self.learn(&path.display().to_string(), line));
        }
    }

    /// No secret is in there.
    pub(crate) fn search(&self, what: &str, bytes: &[u8]) {
        // Secrets are text, which stands there whole whatever is around it; the search of texts is fast also in
        // a test that is not optimised.
        let text = String::from_utf8_lossy(bytes);
        for (secret, from) in self.known().iter() {
            assert!(!text.contains(secret.as_str()), "a secret of {from} is in {what}");
        }
    }

    /// No secret is in any file below this folder, but in those that are for it.
    pub(crate) fn search_files(&self, folder: &Path) {
        for path in files(folder) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !KEEPERS.iter().any(|part| name.contains(part)) {
                self.search(&path.display().to_string(), &std::fs::read(&path).unwrap_or_default());
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether a command prints a secret by design.
fn issues(arguments: &[String]) -> bool {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["token", "create", ..] | ["login", ..] => true,
        ["invite", rest @ ..] => !matches!(rest.first(), Some(&"ls" | &"revoke")),
        _ => false,
    }
}

/// Secrets in a text, by how ours begin: API and session tokens, and the last part of invites.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')));
    words.filter_map(|word| match word.strip_prefix("CXI1.") {
        Some(_) => word.rsplit('.').next(),
        None => (word.starts_with("cxt_") || word.starts_with("cxs_")).then_some(word),
    })
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}

/// The metrics of a hub at `http://host:port`; nothing when it does not answer.
pub(crate) fn metrics(http: &str) -> String {
    let authority = http.trim_start_matches("http://");
    let Ok(mut connection) = TcpStream::connect(authority) else { return String::new() };
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    if connection.write_all(request.as_bytes()).is_ok() {
        drop(connection.read_to_string(&mut answer));
    }
    answer
}

#[test]
fn a_secret_is_found_wherever_it_is_said() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let canary = Canary::default();
    let token = format!("cxt_{}", "ab".repeat(32));
    let invite = format!("CXI1.{}.0198a1c2-0000-7000-8000-000000000000.{}", "a".repeat(64), "cd".repeat(32));
    canary.heard(&words("token create x --json"), format!("{{\"token\":\"{token}\"}}").as_bytes(), "");
    canary.heard(&words("invite --json"), format!("{{\"invite\":\"{invite}\"}}").as_bytes(), "");
    let says = |what: &str, text: &str| {
        let (canary, what, text) = (std::panic::AssertUnwindSafe(&canary), words(what), text.to_owned());
        std::panic::catch_unwind(move || canary.heard(&what, text.as_bytes(), "")).is_err()
    };
    assert!(says("token ls", &token) && says("audit export", &format!("x{}y", "cd".repeat(32))));
    assert!(says("run ls", &format!("cxs_{}", "0f".repeat(32))), "one that nobody had seen");
    assert!(!says("node ls", "cxt and CXI1 are words"));
}
