//! beanstalkd with a binlog that is synced at each write (`-b -f0`). A reservation is not written.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Peer, Server, Wire, Worker, job, program};

pub(crate) struct Beanstalkd(Server);

impl Beanstalkd {
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(program) = program("beanstalkd") else { return Ok(None) };
        let server = Server::start(tempfile::tempdir()?, |dir, port| {
            let mut command = Command::new(program);
            command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-f0", "-b"]).arg(dir);
            Ok(command)
        })?;
        Ok(Some(Self(server)))
    }

    pub(crate) fn connect(&self) -> Result<Client> {
        Ok(Client(Wire::connect(&format!("127.0.0.1:{}", self.0.port))?))
    }
}

impl Peer for Beanstalkd {
    fn name(&self) -> &'static str {
        "beanstalkd -b -f0"
    }

    fn batches(&self) -> bool {
        false
    }

    fn fill(&mut self, jobs: u64) -> Result<()> {
        let mut client = self.connect()?;
        let numbers: Vec<u64> = (0..jobs).collect();
        for some in numbers.chunks(200) {
            client.put(some)?;
        }
        Ok(())
    }

    fn worker(&self) -> Result<Box<dyn Worker>> {
        Ok(Box::new(self.connect()?))
    }
}

/// One connection.
pub(crate) struct Client(Wire);

impl Client {
    /// Puts jobs, all sent before the first answer is read.
    pub(crate) fn put(&mut self, numbers: &[u64]) -> Result<()> {
        let mut text = String::new();
        for number in numbers {
            let body = job(*number);
            write!(text, "put {} 0 300 {}\r\n{body}\r\n", number % 3, body.len())?;
        }
        self.0.send(text.as_bytes())?;
        for _ in numbers {
            let answer = self.0.line()?;
            ensure!(answer.starts_with("INSERTED"), "put: {answer}");
        }
        Ok(())
    }

    /// Reserves one, and waits for it that long.
    pub(crate) fn reserve(&mut self, seconds: u64) -> Result<Option<String>> {
        self.0.send(format!("reserve-with-timeout {seconds}\r\n").as_bytes())?;
        let answer = self.0.line()?;
        if answer == "TIMED_OUT" {
            return Ok(None);
        }
        let mut words = answer.split(' ').skip(1);
        let (id, length) = (words.next().context("id")?.to_owned(), words.next().context("length")?);
        self.0.exact(length.parse::<usize>()? + 2)?;
        Ok(Some(id))
    }

    pub(crate) fn delete(&mut self, id: &str) -> Result<()> {
        self.0.send(format!("delete {id}\r\n").as_bytes())?;
        let answer = self.0.line()?;
        ensure!(answer == "DELETED", "delete: {answer}");
        Ok(())
    }
}

impl Worker for Client {
    fn round(&mut self, _max: usize) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        let Some(id) = self.reserve(0)? else { return Ok((0, begun.elapsed())) };
        let claim = begun.elapsed();
        self.delete(&id)?;
        Ok((1, claim))
    }
}
