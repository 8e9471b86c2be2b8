//! PostgreSQL as a queue: `FOR UPDATE SKIP LOCKED` over a partial index, prepared statements, everything
//! synced. A completed job is deleted, which is its cheapest end there.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{JOB_BYTES, Peer, Server, Wire, Worker, program};

const TABLE: &str = "CREATE TABLE job (id bigserial PRIMARY KEY, priority int NOT NULL, \
    state smallint NOT NULL DEFAULT 0, attempt int NOT NULL DEFAULT 0, claimed_at timestamptz, \
    payload text NOT NULL); CREATE INDEX waiting ON job (priority, id) WHERE state = 0";
const PREPARE: &str = "PREPARE claim (int) AS UPDATE job SET state = 1, attempt = attempt + 1, \
    claimed_at = now() WHERE id = ANY(ARRAY(SELECT id FROM job WHERE state = 0 ORDER BY priority, id \
    LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING id, attempt, payload; \
    PREPARE done (bigint[]) AS DELETE FROM job WHERE id = ANY($1) AND state = 1";

pub(crate) struct Postgres(Server);

impl Postgres {
    pub(crate) fn start() -> Result<Option<Self>> {
        let (Some(initdb), Some(postgres)) = (program("initdb"), program("postgres")) else {
            return Ok(None);
        };
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let mut init = Command::new(initdb);
        init.args(["-A", "trust", "-U", "postgres", "-D"]).arg(&data);
        as_its_user(&mut init, dir.path())?;
        let made = init.output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let server = Server::start(dir, |dir, port| {
            let mut command = Command::new(postgres);
            command.args(["-p", &port.to_string(), "-k", "", "-c", "listen_addresses=127.0.0.1"]);
            command.args(["-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "max_connections=100"]);
            command.arg("-D").arg(&data);
            as_its_user(&mut command, dir)?;
            Ok(command)
        })?;
        let peer = Self(server);
        let until = Instant::now() + Duration::from_secs(10);
        while peer.connect().is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        peer.connect()?.query(TABLE)?;
        Ok(Some(peer))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    fn connect(&self) -> Result<Client> {
        Client::connect(self.0.port)
    }
}

/// It refuses to run as root.
fn as_its_user(command: &mut Command, dir: &Path) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres")?.context("no user `postgres`")?;
        nix::unistd::chown(dir, Some(user.uid), Some(user.gid))?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Ok(())
}

impl Peer for Postgres {
    fn name(&self) -> &'static str {
        "PostgreSQL 15, SKIP LOCKED"
    }

    fn batches(&self) -> bool {
        true
    }

    fn fill(&mut self, jobs: u64) -> Result<()> {
        let mut client = self.connect()?;
        client.query(&format!(
            "INSERT INTO job (priority, payload) SELECT i % 3, lpad(i::text, {JOB_BYTES}, '0') \
             FROM generate_series(1, {jobs}) i"
        ))?;
        client.query("VACUUM ANALYZE job")?;
        Ok(())
    }

    fn worker(&self) -> Result<Box<dyn Worker>> {
        let mut client = self.connect()?;
        client.query(PREPARE)?;
        // The plan for any arguments, made once.
        client.query("SET plan_cache_mode = force_generic_plan")?;
        Ok(Box::new(client))
    }
}

struct Client(Wire);

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let mut wire = Wire::connect(&format!("127.0.0.1:{port}"))?;
        let words = b"user\0postgres\0database\0postgres\0\0";
        let mut hello = u32::try_from(words.len() + 8)?.to_be_bytes().to_vec();
        hello.extend_from_slice(&196_608_u32.to_be_bytes());
        hello.extend_from_slice(words);
        wire.send(&hello)?;
        let mut client = Self(wire);
        client.answers()?;
        Ok(client)
    }

    /// Runs statements; the first column of each row.
    fn query(&mut self, sql: &str) -> Result<Vec<String>> {
        let mut message = vec![b'Q'];
        message.extend_from_slice(&u32::try_from(sql.len() + 5)?.to_be_bytes());
        message.extend_from_slice(sql.as_bytes());
        message.push(0);
        self.0.send(&message)?;
        self.answers()
    }

    fn answers(&mut self) -> Result<Vec<String>> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let head = self.0.exact(5)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let body = self.0.exact(length.saturating_sub(4))?;
            match head[0] {
                b'D' => {
                    let length = body.get(2..6).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                    let length = u32::from_be_bytes(length.context("a row")?) as usize;
                    let value = body.get(6..6 + length).context("a row")?;
                    rows.push(String::from_utf8_lossy(value).into_owned());
                }
                b'E' => error = Some(String::from_utf8_lossy(&body).into_owned()),
                b'Z' => break,
                _ => {}
            }
        }
        if let Some(error) = error {
            bail!("PostgreSQL: {error}");
        }
        Ok(rows)
    }
}

impl Worker for Client {
    fn round(&mut self, max: usize) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        let ids = self.query(&format!("EXECUTE claim({max})"))?;
        let claim = begun.elapsed();
        if !ids.is_empty() {
            self.query(&format!("EXECUTE done('{{{}}}')", ids.join(",")))?;
        }
        Ok((ids.len() as u64, claim))
    }
}
