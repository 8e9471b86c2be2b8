//! The built-in profiles. Data: each is a whole document, and nodes hold copies of it.

use std::collections::BTreeSet;

use super::Mode;
use super::document::{Args, Document, Program};
use crate::limits;
use crate::sandbox::{Access, Level, Limits, Network, Root, RootPath};

/// The profiles that every hub knows.
pub const PROFILES: &[&str] = &["strict", "dev", "ci", "permissive"];

/// Programs that raise the rights of whoever starts them. Denied in both modes unless a document
/// says otherwise.
pub const ELEVATION: &[&str] =
    &["capsh", "doas", "newgrp", "pkexec", "run0", "runuser", "setpriv", "sg", "su", "sudo", "sudoedit"];

/// Programs without effect on anything but their own output, whatever their arguments.
const STRICT_PROGRAMS: &[&str] =
    &["echo", "false", "id", "nproc", "printf", "pwd", "sleep", "true", "uname", "uptime", "whoami"];
/// Builders and their companions.
const CI_PROGRAMS: &[&str] = &[
    "ar", "c++", "cargo", "cc", "cmake", "ctest", "g++", "gcc", "git", "go", "ld", "make", "meson", "ninja",
    "npm", "pip", "pip3", "pnpm", "pytest", "rustc", "rustdoc", "yarn",
];
/// What a developer looks around with.
const DEV_PROGRAMS: &[&str] = &[
    "basename", "cat", "cmp", "cp", "cut", "date", "df", "diff", "dirname", "du", "file", "free", "grep",
    "head", "hostname", "ls", "lscpu", "mkdir", "mv", "ps", "readlink", "realpath", "rg", "rm", "rmdir",
    "rustup", "seq", "sort", "stat", "sync", "tail", "tee", "touch", "tr", "uniq", "wc", "which",
];
/// Variables that say how a program speaks, not what it runs.
const ENV_NAMES: &[&str] =
    &["CI", "COLUMNS", "LANG", "LC_ALL", "LINES", "NO_COLOR", "RUST_BACKTRACE", "TERM", "TZ"];
/// Further ones for builds.
const BUILD_ENV_NAMES: &[&str] =
    &["CARGO_INCREMENTAL", "CARGO_TARGET_DIR", "CARGO_TERM_COLOR", "RUST_LOG", "SOURCE_DATE_EPOCH"];

/// Where tools lie that a user installed for himself. Never all of `.cargo`: it holds the
/// credentials of a registry.
const TOOL_ROOTS: &[&str] = &[".cargo/bin", ".nvm/versions", ".rustup"];
/// What git reads of its user.
const GIT_ROOTS: &[&str] = &[".config/git", ".gitconfig"];
/// DNS over TCP and HTTPS: what fetching dependencies needs. Not plain HTTP: the kernel's walls see
/// ports and no addresses, and on a rented machine 169.254.169.254:80 gives out its credentials.
const FETCH_PORTS: &[u16] = &[53, 443];

const GIB: u64 = 1024 * 1024 * 1024;

impl Document {
    /// STRICT with nothing allowed, and otherwise nothing out of the ordinary.
    pub fn nothing() -> Self {
        Self {
            always_denied: owned(&[ELEVATION]),
            timeout_ms_max: limits::RUN_TIMEOUT_MS_MAX,
            ..Self::default()
        }
    }

    /// What holds where nobody has said anything.
    pub fn strict() -> Self {
        Self {
            mode: Mode::Strict,
            programs: programs(&[STRICT_PROGRAMS]),
            deny: Vec::new(),
            always_denied: owned(&[ELEVATION]),
            env: owned(&[ENV_NAMES]),
            roots: Vec::new(),
            network: Network::None,
            timeout_ms_max: limits::RUN_TIMEOUT_MS_MAX,
            limits: Limits {
                memory_bytes: Some(GIB),
                processes: Some(256),
                output_bytes: Some(GIB),
                files: None,
                file_bytes: None,
            },
            sensitive: Vec::new(),
            sandbox: Level::Kernel,
        }
    }

    /// A built-in profile; `None` for an unknown name.
    pub fn profile(name: &str) -> Option<Self> {
        match name {
            "strict" => Some(Self::strict()),
            "ci" => Some(ci()),
            "dev" => Some(dev()),
            "permissive" => Some(permissive()),
            _ => None,
        }
    }
}

fn ci() -> Document {
    let work = Root { path: RootPath::Work, access: Access::Write, exec: true };
    Document {
        programs: programs(&[STRICT_PROGRAMS, CI_PROGRAMS]),
        env: owned(&[ENV_NAMES, BUILD_ENV_NAMES]),
        roots: TOOL_ROOTS.iter().map(|below| home(below, true)).chain([work]).collect(),
        limits: Limits { processes: Some(4096), output_bytes: Some(4 * GIB), ..Limits::default() },
        ..Document::strict()
    }
}

fn dev() -> Document {
    let mut document = ci();
    document.programs = programs(&[STRICT_PROGRAMS, CI_PROGRAMS, DEV_PROGRAMS]);
    document.roots.extend(GIT_ROOTS.iter().map(|below| home(below, false)));
    document.roots.sort();
    document.network = Network::Ports(FETCH_PORTS.iter().copied().collect());
    document
}

fn permissive() -> Document {
    Document {
        mode: Mode::Permissive,
        network: Network::All,
        limits: Limits::default(),
        sandbox: Level::None,
        ..Document::strict()
    }
}

fn home(below: &str, exec: bool) -> Root {
    Root { path: RootPath::Home(below.to_owned()), access: Access::Read, exec }
}

fn owned(lists: &[&[&str]]) -> Vec<String> {
    let names: BTreeSet<&str> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    names.into_iter().map(str::to_owned).collect()
}

fn programs(lists: &[&[&str]]) -> Vec<Program> {
    owned(lists).into_iter().map(|name| Program { name, args: Args::Known, until: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;
    use crate::id::{NodeId, Revision};
    use crate::time::WallTime;

    #[test]
    fn every_profile_is_a_document_that_may_be_set() {
        let node = NodeId::mint(1, &[1; 10]);
        for name in PROFILES {
            let policy = Policy::from_profile(node, name, Revision(2), WallTime(0)).expect("built in");
            assert_eq!((policy.profile.as_str(), policy.document.check()), (*name, Ok(())));
        }
        assert_eq!(Document::profile("STRICT"), None);
    }

    #[test]
    fn no_strict_profile_reaches_the_port_of_the_clouds_metadata() {
        for name in ["strict", "ci", "dev"] {
            let network = Document::profile(name).expect("built in").network;
            let reached = match &network {
                Network::None => false,
                Network::Ports(ports) => ports.contains(&80),
                Network::All => true,
            };
            assert!(!reached, "{name}: {network:?}");
        }
    }

    #[test]
    fn no_profile_has_a_program_that_starts_others_or_raises_rights() {
        for name in PROFILES {
            let document = Document::profile(name).expect("built in");
            for program in &document.programs {
                assert!(!super::super::is_interpreter(&program.name), "{}", program.name);
                assert!(!super::super::is_launcher(&program.name), "{}", program.name);
                assert!(!ELEVATION.contains(&program.name.as_str()), "{}", program.name);
            }
            assert!(ELEVATION.iter().all(|denied| document.always_denied.iter().any(|d| d == denied)));
        }
    }
}
