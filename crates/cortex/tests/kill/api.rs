//! The HTTP API as a client with many threads has it: a call is answered, or it is not known what came
//! of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::SOON;
use crate::world::World;

const JSON: (&str, &str) = ("content-type", "application/json");
/// Between two calls of a hub that is not there.
const AGAIN: Duration = Duration::from_millis(10);
/// How long a stream of events is silent after its last one.
const SILENCE: Duration = Duration::from_millis(500);

/// Calls one hub, which may be started again where it was.
#[derive(Clone)]
pub(crate) struct Api {
    address: String,
    token: String,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The code of the refusal that it is.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.body["code"].as_str().filter(|_| self.status >= 400)
    }
}

impl Api {
    pub(crate) fn of(world: &World) -> Self {
        let hub = world.hub();
        let token = std::fs::read_to_string(&hub.token_file).expect("the token");
        Self { address: hub.http.trim_start_matches("http://").to_owned(), token: token.trim().to_owned() }
    }

    pub(crate) fn get(&self, path: &str) -> Option<Answer> {
        self.call("GET", path, &[JSON], "")
    }

    /// `None` when the connection ended before the answer was whole.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        self.call("POST", path, &[JSON], &body.to_string())
    }

    /// The same with bytes under an idempotency key.
    pub(crate) fn put_once(&self, path: &str, key: &str, body: &str) -> Option<Answer> {
        self.call(
            "PUT",
            path,
            &[("content-type", "application/octet-stream"), ("idempotency-key", key)],
            body,
        )
    }

    /// Asks again until it is answered. What is asked for must be harmless when it is done twice.
    pub(crate) fn surely(&self, mut ask: impl FnMut(&Self) -> Option<Answer>) -> Answer {
        let until = Instant::now() + 2 * SOON;
        loop {
            // A hub that just started may say that it is not ready yet.
            if let Some(answer) = ask(self).filter(|answer| answer.status < 500) {
                return answer;
            }
            assert!(Instant::now() < until, "the hub does not answer");
            std::thread::sleep(AGAIN);
        }
    }

    /// All events of a kind: waits for so many, and then until no more come.
    pub(crate) fn events(&self, kind: &str, at_least: usize) -> Vec<Value> {
        let path = format!("/events?after=0&kind={kind}");
        let mut lines = BufReader::new(self.ask("GET", &path, &[JSON], "").expect("the hub listens"));
        let mut events = Vec::new();
        loop {
            let silence = if events.len() < at_least { SOON } else { SILENCE };
            lines.get_ref().set_read_timeout(Some(silence)).expect("a deadline");
            let mut line = String::new();
            match lines.read_line(&mut line) {
                Ok(1..) => {}
                // The end of the stream, or of the time.
                Ok(0) | Err(_) => return events,
            }
            let data = line.strip_prefix("data: ");
            events.extend(data.map(|data| serde_json::from_str::<Value>(data).expect("an event")));
        }
    }

    fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let mut bytes = Vec::new();
        self.ask(method, path, headers, body).ok()?.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        // One that was cut off is no answer.
        Some(Answer { status, body: serde_json::from_str(body).ok()? })
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(2 * SOON))?;
        let mut head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
            self.address, self.token
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())?;
        Ok(stream)
    }
}
