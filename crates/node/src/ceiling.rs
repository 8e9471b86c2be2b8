//! The owner's ceiling files: what this machine allows at most, whatever the hub says. A file that is
//! there and cannot be read, or that others may change, allows nothing.

use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use cortex_core::limits::POLICY_BYTES_MAX;
use cortex_core::policy::Ceiling;
use cortex_wire::policy;

/// The file in the node's data directory.
const OWN: &str = "ceiling.json";
/// The machine's, which belongs to root alone.
const MACHINE: &str = "/etc/cortex/ceiling.json";
/// What the hub is told of a ceiling that cannot be read: no text of a ceiling.
const UNREADABLE: &str = "unreadable";

/// The ceilings of a machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ceilings {
    /// Each is judged.
    pub(crate) judged: Vec<Ceiling>,
    /// What the hub is told, so that it gives the same answers; `None` when there are none.
    pub(crate) told: Option<String>,
}

/// Reads the ceilings of this machine. Blocking.
pub(crate) fn read(data_dir: &Path) -> Ceilings {
    let owner = nix::unistd::geteuid().as_raw();
    read_from(&[(&data_dir.join(OWN), &[0, owner]), (Path::new(MACHINE), &[0])])
}

fn read_from(files: &[(&Path, &[u32])]) -> Ceilings {
    let mut texts = Vec::new();
    for (path, owners) in files {
        match read_one(path, owners) {
            Ok(text) => texts.extend(text),
            Err(why) => {
                tracing::error!(path = %path.display(), %why, "the ceiling cannot be read: nothing is allowed");
                return Ceilings { judged: vec![Ceiling::Unreadable], told: Some(UNREADABLE.to_owned()) };
            }
        }
    }
    let told = policy::join_ceilings(&texts);
    match told.as_deref().map(|text| policy::read_ceilings(text.as_bytes())) {
        None => Ceilings { judged: Vec::new(), told: None },
        Some(Ok(all)) => {
            let judged = all.into_iter().map(|bounds| Ceiling::Bounds(Box::new(bounds))).collect();
            Ceilings { judged, told }
        }
        Some(Err(refusal)) => {
            tracing::error!(%refusal, "the ceiling cannot be read: nothing is allowed");
            Ceilings { judged: vec![Ceiling::Unreadable], told: Some(UNREADABLE.to_owned()) }
        }
    }
}

/// The text of a file; `None` when there is none.
fn read_one(path: &Path, owners: &[u32]) -> Result<Option<String>, String> {
    // What is no file must not keep the node waiting for somebody at its other end.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC | nix::libc::O_NOCTTY;
    let mut file = match std::fs::File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        // A link to what is not there (a disk that is not mounted) stands for a ceiling nevertheless.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    check(&metadata, owners)?;
    let mut text = String::new();
    let bound = u64::try_from(POLICY_BYTES_MAX).unwrap_or(u64::MAX);
    file.by_ref().take(bound + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    // Each alone, so that two texts cannot mend each other.
    let read = policy::read_ceilings(text.as_bytes()).map_err(|refusal| refusal.message)?;
    if read.len() != 1 {
        return Err("it must be one JSON object".to_owned());
    }
    Ok(Some(text))
}

fn check(metadata: &Metadata, owners: &[u32]) -> Result<(), String> {
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    if !owners.contains(&metadata.uid()) {
        return Err(format!("it belongs to user {}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err("others than its owner may change it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read_texts(texts: &[Option<&str>], mode: u32) -> Ceilings {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let me = nix::unistd::geteuid().as_raw();
        let paths: Vec<_> = (0..texts.len()).map(|at| folder.path().join(at.to_string())).collect();
        for (path, text) in paths.iter().zip(texts) {
            if let Some(text) = text {
                std::fs::write(path, text).expect("written");
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
            }
        }
        let owners = [me];
        let files: Vec<(&Path, &[u32])> = paths.iter().map(|path| (path.as_path(), &owners[..])).collect();
        read_from(&files)
    }

    #[test]
    fn each_file_that_is_there_is_a_ceiling_and_the_hub_is_told_the_same() {
        assert_eq!(read_texts(&[None, None], 0o600), Ceilings { judged: vec![], told: None });
        let one = read_texts(&[Some("{\"deny\":[\"rm\"]}"), None], 0o644);
        assert_eq!((one.judged.len(), one.told.as_deref()), (1, Some("{\"deny\":[\"rm\"]}")));
        let two = read_texts(&[Some("{\"deny\":[\"rm\"]}"), Some("{\"mode\":\"strict\"}")], 0o644);
        let told = policy::read_ceilings(two.told.expect("told").as_bytes()).expect("readable");
        let told: Vec<Ceiling> = told.into_iter().map(|bounds| Ceiling::Bounds(Box::new(bounds))).collect();
        assert_eq!((two.judged.len(), two.judged), (2, told));
    }

    #[test]
    fn a_file_that_cannot_be_trusted_or_read_allows_nothing() {
        let nothing = Ceilings { judged: vec![Ceiling::Unreadable], told: Some(UNREADABLE.to_owned()) };
        for text in ["", "{", "[{}]", "{\"denny\":[]}", "{},{}"] {
            assert_eq!(read_texts(&[Some("{}"), Some(text)], 0o600), nothing, "{text}");
        }
        assert_eq!(read_texts(&[Some("{}")], 0o622), nothing);
        assert_eq!(read_texts(&[Some("{}")], 0o660), nothing);
        assert!(policy::read_ceilings(UNREADABLE.as_bytes()).is_err());
        let folder = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(read_from(&[(folder.path(), &[nix::unistd::geteuid().as_raw()])]), nothing);
    }

    #[test]
    fn a_link_that_leads_nowhere_allows_nothing() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("ceiling.json");
        std::os::unix::fs::symlink(folder.path().join("not-mounted/ceiling.json"), &path).expect("linked");
        let read = read_from(&[(&path, &[nix::unistd::geteuid().as_raw()])]);
        assert_eq!(read.judged, [Ceiling::Unreadable]);
    }

    #[test]
    fn a_pipe_in_place_of_a_ceiling_allows_nothing_and_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("ceiling.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let me = nix::unistd::geteuid().as_raw();
        assert_eq!(read_one(&path, &[me]), Err("it is no file".to_owned()));
    }
}
