//! NATS JetStream, a work queue on disk that is synced at each write, a pull consumer with explicit,
//! confirmed acknowledgements. A delivery is not written; it has no priorities.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Peer, Server, Wire, Worker, job, program};

pub(crate) struct Nats(Server);

impl Nats {
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(program) = program("nats-server") else { return Ok(None) };
        let server = Server::start(tempfile::tempdir()?, |dir, port| {
            let config = dir.join("nats.conf");
            let store = dir.join("store");
            let text = format!(
                "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
                store.display().to_string()
            );
            std::fs::write(&config, text)?;
            let mut command = Command::new(program);
            command.arg("-c").arg(config);
            Ok(command)
        })?;
        let peer = Self(server);
        let mut client = peer.connect()?;
        let stream =
            json!({"name": "jobs", "subjects": ["job"], "retention": "workqueue", "storage": "file"});
        client.ask("$JS.API.STREAM.CREATE.jobs", &stream.to_string())?;
        let consumer = json!({"stream_name": "jobs", "config": {
            "durable_name": "workers", "ack_policy": "explicit", "max_ack_pending": 10_000,
            "ack_wait": 300_000_000_000_u64,
        }});
        client.ask("$JS.API.CONSUMER.DURABLE.CREATE.jobs.workers", &consumer.to_string())?;
        Ok(Some(peer))
    }

    fn connect(&self) -> Result<Client> {
        let mut wire = Wire::connect(&format!("127.0.0.1:{}", self.0.port))?;
        wire.line()?;
        wire.send(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n")?;
        let inbox = format!("_INBOX.{}", uuid());
        wire.send(format!("SUB {inbox} 1\r\nPING\r\n").as_bytes())?;
        let mut client = Client { wire, inbox };
        while client.wire.line()? != "PONG" {}
        Ok(client)
    }
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("w{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Peer for Nats {
    fn name(&self) -> &'static str {
        "NATS JetStream, sync always"
    }

    fn batches(&self) -> bool {
        false
    }

    fn fill(&mut self, jobs: u64) -> Result<()> {
        let mut client = self.connect()?;
        let numbers: Vec<u64> = (0..jobs).collect();
        for some in numbers.chunks(200) {
            let mut text = String::new();
            for number in some {
                let body = job(*number);
                text.push_str(&format!("PUB job {} {}\r\n{body}\r\n", client.inbox, body.len()));
            }
            client.wire.send(text.as_bytes())?;
            for _ in some {
                let (_, body) = client.message()?;
                ensure!(!body.contains("\"error\""), "publish: {body}");
            }
        }
        Ok(())
    }

    fn worker(&self) -> Result<Box<dyn Worker>> {
        Ok(Box::new(self.connect()?))
    }
}

struct Client {
    wire: Wire,
    inbox: String,
}

impl Client {
    fn publish(&mut self, subject: &str, body: &str) -> Result<()> {
        let text = format!("PUB {subject} {} {}\r\n{body}\r\n", self.inbox, body.len());
        self.wire.send(text.as_bytes())
    }

    fn ask(&mut self, subject: &str, body: &str) -> Result<()> {
        self.publish(subject, body)?;
        let (_, answer) = self.message()?;
        let value: Value = serde_json::from_str(&answer)?;
        ensure!(value["error"].is_null(), "{subject}: {answer}");
        Ok(())
    }

    /// The next message: whom to answer, and its text; headers are part of the text.
    fn message(&mut self) -> Result<(Option<String>, String)> {
        loop {
            let line = self.wire.line()?;
            let words: Vec<&str> = line.split(' ').collect();
            let with_reply = match words.first().copied() {
                Some("MSG") => words.len() == 5,
                Some("HMSG") => words.len() == 6,
                Some("PING") => {
                    self.wire.send(b"PONG\r\n")?;
                    continue;
                }
                Some("INFO" | "PONG" | "+OK") => continue,
                Some(_) | None => anyhow::bail!("NATS: {line}"),
            };
            let length: usize = words.last().context("length")?.parse()?;
            let body = self.wire.exact(length + 2)?;
            let reply = with_reply.then(|| words[3].to_owned());
            return Ok((reply, String::from_utf8_lossy(&body).into_owned()));
        }
    }
}

impl Worker for Client {
    fn round(&mut self, _max: usize) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        self.publish("$JS.API.CONSUMER.MSG.NEXT.jobs.workers", "{\"batch\":1,\"no_wait\":true}")?;
        let (reply, _) = self.message()?;
        let claim = begun.elapsed();
        // A status without anybody to answer: nothing waits.
        let Some(reply) = reply else { return Ok((0, claim)) };
        self.publish(&reply, "+ACK")?;
        self.message()?;
        Ok((1, claim))
    }
}
