//! Who this node is, in its data directory: key, certificate, the hub's authority, and the highest
//! numbers seen. Blocking; call it from blocking threads or before the runtime's work begins.
//!
//! The key never leaves the directory (0700, files 0600). `node.json` is written last at joining
//! and is what makes a directory enrolled; every file is replaced whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;
use cortex_core::id::{Epoch, Generation, InviteId, NodeId, Seq};
use cortex_core::invite::{from_hex, to_hex};
use cortex_core::node::AuditHead;
use cortex_core::{Code, Refusal};
use nix::fcntl::{Flock, FlockArg};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

const KEY: &str = "node.key";
const CERTIFICATE: &str = "node.crt";
const AUTHORITY: &str = "authority.crt";
/// The key of a join that was not answered.
const JOINING_KEY: &str = "joining.key";
/// The second key: it asks for another certificate when the one of `node.key` has ended.
const RECOVERY_KEY: &str = "recovery.key";
/// How often it did; `0` when the file is missing.
const RECOVERIES: &str = "recoveries";
/// The key of a recovery that was not answered.
const RECOVERING_KEY: &str = "recovering.key";
/// The file that makes a directory enrolled.
pub(crate) const IDENTITY: &str = "node.json";
const LOCK: &str = "lock";

/// A data directory that this process alone uses, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// What `node.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The enrolment.
    pub(crate) node: NodeId,
    /// The name in the hub's record when it was last heard.
    pub(crate) name: String,
    /// The hub's address for nodes: `host:port`.
    pub(crate) hub: String,
    /// Which invite was redeemed.
    pub(crate) invite: InviteId,
    /// The highest generation seen.
    pub(crate) generation: Generation,
    /// The highest epoch seen.
    pub(crate) epoch: Epoch,
    /// The newest row of the hub's audit log that it was told of.
    pub(crate) audit_head: Option<AuditHead>,
}

/// Key and certificates, as TLS takes them.
pub(crate) struct Credentials {
    /// PKCS #8 PEM.
    pub(crate) key_pem: String,
    /// The node's own first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The one authority that is trusted.
    pub(crate) authority: CertificateDer<'static>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    node_id: String,
    name: String,
    hub: String,
    invite_id: String,
    generation: u64,
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audit_head: Option<AuditHeadFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditHeadFile {
    seq: u64,
    hash: String,
}

impl DataDir {
    /// Makes the directory when it is missing, and takes it for this process.
    pub(crate) fn open(path: &Path) -> Result<Self, Refusal> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unusable(path, &error))?;
        let lock = open_private(&path.join(LOCK)).map_err(|error| unusable(path, &error))?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Refusal::new(
                Code::Conflict,
                format!("Another node process uses the data directory {}.", path.display()),
            )
            .hint("Stop that process, or start this one with another `--data-dir`.")),
            Err((_, errno)) => Err(unusable(path, &errno.into())),
        }
    }

    /// A path in the directory.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The identity; `None` when nobody has joined from here.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, Refusal> {
        let text = match std::fs::read_to_string(self.join(IDENTITY)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&self.path, &error)),
        };
        let file: IdentityFile =
            serde_json::from_str(&text).map_err(|error| self.damaged(IDENTITY, &error))?;
        Ok(Some(Identity {
            node: file.node_id.parse().map_err(|error| self.damaged(IDENTITY, &error))?,
            name: file.name,
            hub: file.hub,
            invite: file.invite_id.parse().map_err(|error| self.damaged(IDENTITY, &error))?,
            generation: Generation(file.generation),
            epoch: Epoch(file.epoch),
            audit_head: file.audit_head.map(|head| self.audit_head(&head)).transpose()?,
        }))
    }

    /// Keeps the identity; durable when this returns.
    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), Refusal> {
        let file = IdentityFile {
            node_id: identity.node.to_string(),
            name: identity.name.clone(),
            hub: identity.hub.clone(),
            invite_id: identity.invite.to_string(),
            generation: identity.generation.0,
            epoch: identity.epoch.0,
            audit_head: identity
                .audit_head
                .map(|head| AuditHeadFile { seq: head.seq.0, hash: to_hex(&head.hash) }),
        };
        let text = serde_json::to_string_pretty(&file).map_err(|error| self.damaged(IDENTITY, &error))?;
        self.replace(IDENTITY, text.as_bytes())
    }

    fn audit_head(&self, file: &AuditHeadFile) -> Result<AuditHead, Refusal> {
        let hash = from_hex(&file.hash).ok_or_else(|| self.damaged(IDENTITY, &"`audit_head.hash`"))?;
        Ok(AuditHead { seq: Seq(file.seq), hash })
    }

    /// Key, chain and authority.
    pub(crate) fn credentials(&self) -> Result<Credentials, Refusal> {
        let key_pem = std::fs::read_to_string(self.join(KEY)).map_err(|error| self.damaged(KEY, &error))?;
        Ok(Credentials { key_pem, chain: self.certificates(CERTIFICATE)?, authority: self.authority()? })
    }

    /// Keeps what joining gave, the identity last.
    pub(crate) fn write_all(&self, credentials: &Credentials, identity: &Identity) -> Result<(), Refusal> {
        self.replace(KEY, credentials.key_pem.as_bytes())?;
        self.replace(AUTHORITY, pem(std::slice::from_ref(&credentials.authority)).as_bytes())?;
        self.replace(CERTIFICATE, pem(&credentials.chain).as_bytes())?;
        self.write_identity(identity)?;
        self.forget_joining_key()
    }

    /// The one authority that is trusted.
    pub(crate) fn authority(&self) -> Result<CertificateDer<'static>, Refusal> {
        let authority = self.certificates(AUTHORITY)?.into_iter().next();
        authority.ok_or_else(|| self.damaged(AUTHORITY, &"it is empty"))
    }

    /// The key of a join that was not answered, PEM.
    pub(crate) fn joining_key(&self) -> Result<Option<String>, Refusal> {
        self.text(JOINING_KEY)
    }

    /// The recovery key, PEM.
    pub(crate) fn recovery_key(&self) -> Result<Option<String>, Refusal> {
        self.text(RECOVERY_KEY)
    }

    /// Keeps the recovery key before its public half is sent.
    pub(crate) fn write_recovery_key(&self, pem: &str) -> Result<(), Refusal> {
        self.replace(RECOVERY_KEY, pem.as_bytes())
    }

    /// How often the recovery key was used.
    pub(crate) fn recoveries(&self) -> Result<u32, Refusal> {
        let text = self.text(RECOVERIES)?;
        text.map_or(Ok(0), |text| text.trim().parse().map_err(|error| self.damaged(RECOVERIES, &error)))
    }

    /// The key of a recovery that was not answered, PEM.
    pub(crate) fn recovering_key(&self) -> Result<Option<String>, Refusal> {
        self.text(RECOVERING_KEY)
    }

    /// Keeps the key of a recovery before it is sent.
    pub(crate) fn write_recovering_key(&self, pem: &str) -> Result<(), Refusal> {
        self.replace(RECOVERING_KEY, pem.as_bytes())
    }

    /// Keeps what a recovery gave. Until the key has its place the recovery is asked for again; until it
    /// is counted, that or the next one is the same to the hub, and costs none.
    pub(crate) fn write_recovered(&self, credentials: &Credentials, count: u32) -> Result<(), Refusal> {
        self.replace(CERTIFICATE, pem(&credentials.chain).as_bytes())?;
        self.replace(KEY, credentials.key_pem.as_bytes())?;
        self.replace(RECOVERIES, count.to_string().as_bytes())?;
        self.forget(RECOVERING_KEY)
    }

    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match std::fs::read_to_string(self.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&self.path, &error)),
        }
    }

    /// Keeps the key of a join before it is sent.
    pub(crate) fn write_joining_key(&self, pem: &str) -> Result<(), Refusal> {
        self.replace(JOINING_KEY, pem.as_bytes())
    }

    /// The join was answered.
    pub(crate) fn forget_joining_key(&self) -> Result<(), Refusal> {
        self.forget(JOINING_KEY)
    }

    /// Nobody joined from here: the keys that were made for it go.
    pub(crate) fn forget_joining_keys(&self) -> Result<(), Refusal> {
        self.forget(RECOVERY_KEY)?;
        self.forget(JOINING_KEY)
    }

    fn forget(&self, name: &str) -> Result<(), Refusal> {
        match std::fs::remove_file(self.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(&self.path, &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Keeps a renewed chain.
    pub(crate) fn write_chain(&self, chain: &[Bytes]) -> Result<(), Refusal> {
        let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        self.replace(CERTIFICATE, pem(&chain).as_bytes())
    }

    fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
        let bytes = std::fs::read(self.join(name)).map_err(|error| self.damaged(name, &error))?;
        CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.damaged(name, &format!("{error:?}")))
    }

    /// Temporary file, sync, rename, sync of the directory.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let write = || {
            let fresh = self.join(&format!("{name}.new"));
            let mut file = open_private(&fresh)?;
            file.set_len(0)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&fresh, self.join(name))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| unusable(&self.path, &error))
    }

    fn damaged(&self, name: &str, why: &impl std::fmt::Display) -> Refusal {
        let path = self.join(name);
        Refusal::new(Code::BadConfig, format!("{} cannot be read: {why}.", path.display()))
            .hint("Restore the data directory, or remove it and join again with a new invite.")
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for der in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = base64::engine::general_purpose::STANDARD.encode(der);
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(64));
            text.push_str(&rest);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

pub(crate) fn unusable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(Code::BadConfig, format!("The data directory {} cannot be used: {error}.", path.display()))
        .hint("Give a directory that this user may write, with space left, as `--data-dir`.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn identity() -> Identity {
        Identity {
            node: NodeId::mint(1, &[1; 10]),
            name: "build-2".to_owned(),
            hub: "127.0.0.1:7441".to_owned(),
            invite: InviteId::mint(1, &[2; 10]),
            generation: Generation(3),
            epoch: Epoch(4),
            audit_head: Some(AuditHead { seq: Seq(9), hash: [0xab; 32] }),
        }
    }

    #[test]
    fn two_processes_never_use_one_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = DataDir::open(folder.path()).expect("free");
        let refusal = DataDir::open(folder.path()).expect_err("taken");
        assert_eq!(refusal.code, Code::Conflict);
        drop(first);
        DataDir::open(folder.path()).expect("free again");
    }

    #[test]
    fn what_joining_gave_is_read_back_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DataDir::open(&folder.path().join("node")).expect("free");
        assert_eq!(dir.identity().expect("readable"), None);
        let chain = vec![CertificateDer::from(vec![1; 100]), CertificateDer::from(vec![2; 48])];
        let credentials =
            Credentials { key_pem: "key".to_owned(), chain: chain.clone(), authority: chain[1].clone() };
        dir.write_all(&credentials, &identity()).expect("written");
        assert_eq!(dir.identity().expect("readable"), Some(identity()));
        let back = dir.credentials().expect("readable");
        assert_eq!((back.chain, back.authority), (chain.clone(), chain[1].clone()));
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(dir.path()), 0o700);
        for name in [KEY, CERTIFICATE, AUTHORITY, IDENTITY] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
    }

    /// Otherwise it would ask for another one, of which it may have none left.
    #[test]
    fn a_recovery_that_was_cut_off_before_it_was_counted_is_whole_or_asked_for_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DataDir::open(folder.path()).expect("free");
        dir.replace(KEY, b"old").expect("written");
        dir.write_recovering_key("fresh").expect("written");
        let chain = vec![CertificateDer::from(vec![1; 100])];
        let credentials = Credentials { key_pem: "fresh".to_owned(), authority: chain[0].clone(), chain };
        // Here it is cut off.
        let counting = dir.join("recoveries.new");
        std::fs::create_dir(&counting).expect("made");
        dir.write_recovered(&credentials, 1).expect_err("it cannot be counted");
        let held = || {
            let key = std::fs::read_to_string(dir.join(KEY)).expect("readable");
            (key, dir.recoveries(), dir.recovering_key())
        };
        assert_eq!(held(), ("fresh".to_owned(), Ok(0), Ok(Some("fresh".to_owned()))));
        std::fs::remove_dir(counting).expect("removed");
        dir.write_recovered(&credentials, 1).expect("written");
        assert_eq!(held(), ("fresh".to_owned(), Ok(1), Ok(None)));
    }

    #[test]
    fn a_damaged_identity_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DataDir::open(folder.path()).expect("free");
        std::fs::write(dir.join(IDENTITY), "{").expect("write");
        let refusal = dir.identity().expect_err("damaged");
        assert_eq!(refusal.code, Code::BadConfig);
        assert!(refusal.message.contains(IDENTITY));
    }
}
