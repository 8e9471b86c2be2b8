//! The hub's pool over HTTP/1.1 connections that are kept: claims of payloads, and reports in one request.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Peer, Wire, Worker, job};
use crate::hub::Hub;

pub(crate) struct Ours {
    pub(crate) hub: Hub,
    token: String,
}

impl Ours {
    pub(crate) fn start(cortex: &Path) -> Result<Self> {
        let hub = Hub::start(cortex)?;
        let token = hub.token()?;
        Ok(Self { hub, token })
    }

    pub(crate) fn connect(&self) -> Result<Client> {
        let host = self.hub.http.trim_start_matches("http://").to_owned();
        let head =
            format!("host: {host}\r\nauthorization: Bearer {}\r\ncontent-type: application/json", self.token);
        Ok(Client { wire: Wire::connect(&host)?, head })
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "cortex"
    }

    fn batches(&self) -> bool {
        true
    }

    fn fill(&mut self, jobs: u64) -> Result<()> {
        let mut client = self.connect()?;
        let numbers: Vec<u64> = (0..jobs).collect();
        numbers.chunks(1_000).try_for_each(|some| client.submit(some))
    }

    fn worker(&self) -> Result<Box<dyn Worker>> {
        Ok(Box::new(self.connect()?))
    }
}

/// One connection.
pub(crate) struct Client {
    wire: Wire,
    head: String,
}

impl Client {
    /// Submits jobs in one request.
    pub(crate) fn submit(&mut self, numbers: &[u64]) -> Result<()> {
        let task =
            |number: &u64| json!({"kind": "bench", "payload": job(*number), "priority": 4 + number % 3});
        let tasks: Vec<Value> = numbers.iter().map(task).collect();
        let answer = self.post("/api/v1/pool/tasks", &json!(tasks).to_string())?;
        let items = answer["items"].as_array().context("items")?;
        let taken = items.iter().filter(|item| item["task"].is_object()).count();
        ensure!(taken == numbers.len(), "{taken} of {} tasks were taken: {}", numbers.len(), items[0]);
        Ok(())
    }

    /// Submits one.
    pub(crate) fn submit_one(&mut self, number: u64) -> Result<()> {
        let task = json!({"kind": "bench", "payload": job(number)}).to_string();
        self.post("/api/v1/pool/tasks", &task).map(drop)
    }

    /// Claims up to `max`, and waits that long for the first.
    pub(crate) fn claim(&mut self, max: usize, wait_s: u64) -> Result<Vec<(String, u64)>> {
        let body = format!(r#"{{"kinds":["bench"],"max":{max},"wait_s":{wait_s}}}"#);
        let answer = self.post("/api/v1/pool/claims", &body)?;
        let items = answer["items"].as_array().context("items")?.iter();
        let lease = |item: &Value| {
            let id = item["id"].as_str().context("id")?.to_owned();
            Ok((id, item["attempt"].as_u64().context("attempt")?))
        };
        items.map(lease).collect()
    }

    /// Reports claimed tasks as done.
    pub(crate) fn finish(&mut self, leases: &[(String, u64)]) -> Result<()> {
        if let [(id, attempt)] = leases {
            let path = format!("/api/v1/pool/leases/{id}/{attempt}/finish");
            let answer = self.post(&path, "{}")?;
            ensure!(answer["state"] == "done", "finish: {answer}");
            return Ok(());
        }
        let report = |(id, attempt): &(String, u64)| json!({"id": id, "attempt": attempt, "how": "finish"});
        let reports: Vec<Value> = leases.iter().map(report).collect();
        let answer = self.post("/api/v1/pool/reports", &json!(reports).to_string())?;
        let items = answer["items"].as_array().context("items")?;
        let done = items.iter().filter(|item| item["state"] == "done").count();
        ensure!(done == leases.len(), "reports: {answer}");
        Ok(())
    }

    fn post(&mut self, path: &str, body: &str) -> Result<Value> {
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\n{}\r\ncontent-length: {length}\r\n\r\n{body}", self.head);
        self.wire.send(request.as_bytes())?;
        let status = self.wire.line()?;
        let mut length = 0;
        loop {
            let line = self.wire.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let body = self.wire.exact(length)?;
        ensure!(status.contains(" 20"), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }
}

impl Worker for Client {
    fn round(&mut self, max: usize) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        let leases = self.claim(max, 0)?;
        let claim = begun.elapsed();
        if !leases.is_empty() {
            self.finish(&leases)?;
        }
        Ok((leases.len() as u64, claim))
    }
}
