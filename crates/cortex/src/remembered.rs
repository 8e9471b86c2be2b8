//! Where the hub of a data directory listens: `hub.json` beside its store, written when the ports
//! listen, so that commands on the same machine find it whatever ports it took. The running hub
//! holds a lock on the file: one that was killed leaves a file that nobody believes. It never
//! holds a secret.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Name of the file.
const FILE: &str = "hub.json";
/// More than any such file has.
const BYTES_MAX: u64 = 4096;

/// The file of a hub that runs; gone when this is dropped.
pub(crate) struct Remembered {
    path: PathBuf,
    /// Held for its lock.
    _locked: File,
}

impl Remembered {
    /// Writes it, locked before it has its name: nobody ever sees it without its lock.
    pub(crate) fn write(data_dir: &Path, http: SocketAddr, grpc: SocketAddr) -> std::io::Result<Self> {
        let path = data_dir.join(FILE);
        let fresh = data_dir.join(format!("{FILE}.new"));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.lock()?;
        let text = json!({"http": url(http), "grpc": grpc.to_string(), "pid": std::process::id()});
        file.write_all(format!("{text}\n").as_bytes())?;
        std::fs::rename(&fresh, &path)?;
        Ok(Self { path, _locked: file })
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "hub.json stays behind; without its lock nobody believes it");
        }
    }
}

/// A hub that runs, as its file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file, which it holds locked.
    pub(crate) path: PathBuf,
    /// Its API address.
    pub(crate) http: String,
    /// Its process.
    pub(crate) pid: Option<u64>,
}

/// The hub of that data directory, when it runs.
pub(crate) fn running(data_dir: &Path) -> Option<Found> {
    let path = data_dir.join(FILE);
    let file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    Some(Found { path, http: value["http"].as_str()?.to_owned(), pid: value["pid"].as_u64() })
}

/// The address by which this machine reaches a listener.
pub(crate) fn url(listens: SocketAddr) -> String {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listens.port()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn remember(dir: &Path) -> Remembered {
        let listens = "0.0.0.0:7440".parse().expect("an address");
        Remembered::write(dir, listens, "127.0.0.1:7441".parse().expect("an address")).expect("written")
    }

    #[test]
    fn a_running_hub_is_found_and_a_stopped_one_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(running(dir.path()), None);
        let hub = remember(dir.path());
        let Found { path, http, pid } = running(dir.path()).expect("it runs");
        assert_eq!((http.as_str(), pid), ("http://127.0.0.1:7440", Some(u64::from(std::process::id()))));
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(hub);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_a_hub_that_was_killed_is_not_believed_and_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(FILE), r#"{"http":"http://127.0.0.1:1"}"#).expect("write");
        assert_eq!(running(dir.path()), None);
        let _hub = remember(dir.path());
        assert!(running(dir.path()).is_some());
    }
}
