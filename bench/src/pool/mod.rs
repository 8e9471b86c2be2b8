//! Work pools under the same load: each hands out jobs to workers that complete them, with one
//! acknowledged round trip for the claim and one for the completion.
//!
//! Raw sockets and one thread for each worker, so that the client is not the limit. What a pool cannot
//! have here is left out with a word.

pub(crate) mod beanstalkd;
pub(crate) mod js;
pub(crate) mod nats;
pub(crate) mod ours;
pub(crate) mod postgres;

use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::report::Samples;

/// Bytes of a job.
pub(crate) const JOB_BYTES: usize = 100;

/// A running pool. Ended when dropped.
pub(crate) trait Peer {
    /// For the table.
    fn name(&self) -> &'static str;

    /// Whether a worker may take many at once.
    fn batches(&self) -> bool;

    /// Adds that many waiting jobs, of three priorities where there are any.
    fn fill(&mut self, jobs: u64) -> Result<()>;

    /// A worker with a connection of its own.
    fn worker(&self) -> Result<Box<dyn Worker>>;
}

/// One connection.
pub(crate) trait Worker: Send {
    /// Claims up to `max` jobs and completes them: how many, none when nothing waits; and how long the
    /// claim took.
    fn round(&mut self, max: usize) -> Result<(u64, Duration)>;
}

/// What came of some seconds of work.
pub(crate) struct Worked {
    /// Claimed and completed.
    pub(crate) jobs: u64,
    /// Of them per second.
    pub(crate) rate: f64,
    /// Of the claims, milliseconds.
    pub(crate) claim_ms: Samples,
}

/// Lets workers work until nothing waits or the time is over.
pub(crate) fn work(peer: &dyn Peer, workers: usize, max: usize, limit: Duration) -> Result<Worked> {
    let connected = (0..workers).map(|_| peer.worker()).collect::<Result<Vec<_>>>()?;
    let (begin, over, jobs) = (&Barrier::new(workers + 1), &AtomicBool::new(false), &AtomicU64::new(0));
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for mut worker in connected {
            threads.push(scope.spawn(move || -> Result<Samples> {
                let mut claims = Samples::default();
                begin.wait();
                while !over.load(Ordering::Relaxed) {
                    let (done, claim) = worker.round(max)?;
                    if done == 0 {
                        break;
                    }
                    claims.push(claim.as_secs_f64() * 1e3);
                    jobs.fetch_add(done, Ordering::Relaxed);
                }
                Ok(claims)
            }));
        }
        begin.wait();
        let begun = Instant::now();
        while begun.elapsed() < limit && threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(2));
        }
        over.store(true, Ordering::Relaxed);
        let mut claim_ms = Samples::default();
        for thread in threads {
            claim_ms.extend(thread.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        let jobs = jobs.load(Ordering::Relaxed);
        Ok(Worked { jobs, rate: jobs as f64 / begun.elapsed().as_secs_f64(), claim_ms })
    })
}

/// A server on loopback in a directory of its own. Ended when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    process: Child,
    /// Removed after the process has ended.
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts what `command` says for a directory and a port, and waits until the port is open.
    pub(crate) fn start(
        dir: tempfile::TempDir,
        command: impl FnOnce(&std::path::Path, u16) -> Result<Command>,
    ) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = std::fs::File::create(dir.path().join("server.log"))?;
        let mut command = command(dir.path(), port)?;
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let server = Self { port, process, _dir: dir };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            anyhow::ensure!(Instant::now() < until, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // PostgreSQL ends its other programs itself when it is asked to.
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The program of that name: in the folder of `peers/install`, or where Debian has it.
pub(crate) fn program(name: &str) -> Option<std::path::PathBuf> {
    let folder = peers();
    let places = [
        folder.join("root/usr/bin").join(name),
        folder.join("py/bin").join(name),
        std::path::Path::new("/usr/bin").join(name),
        std::path::Path::new("/usr/lib/postgresql/15/bin").join(name),
    ];
    places.into_iter().find(|place| place.exists())
}

/// The folder of `peers/install`, from `CORTEX_BENCH_PEERS`.
pub(crate) fn peers() -> std::path::PathBuf {
    std::env::var_os("CORTEX_BENCH_PEERS").unwrap_or_else(|| "target/peers".into()).into()
}

/// A connection whose answers are read by line and by length.
pub(crate) struct Wire {
    reader: std::io::BufReader<std::net::TcpStream>,
}

impl Wire {
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { reader: std::io::BufReader::with_capacity(256 * 1024, stream) })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(std::io::Write::write_all(self.reader.get_mut(), bytes)?)
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = std::io::BufRead::read_line(&mut self.reader, &mut line)?;
        anyhow::ensure!(length > 0, "the server closed the connection");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    pub(crate) fn exact(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        std::io::Read::read_exact(&mut self.reader, &mut bytes).context("an answer ended early")?;
        Ok(bytes)
    }
}

/// The bytes of a job.
pub(crate) fn job(number: u64) -> String {
    format!("{number:0>JOB_BYTES$}")
}
