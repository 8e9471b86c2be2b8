//! What this machine says of itself. Shown and searched by people; rights never rest on it.

use std::ffi::OsString;

use cortex_core::node::Facts;
use cortex_core::sandbox::{Level, Place};

use crate::run::program::find;
use crate::sandbox::confine::Sandbox;

/// Tools that are worth knowing of, when they are on the node's path.
const TOOLS: &[&str] = &[
    "bash",
    "cargo",
    "cc",
    "clang",
    "cmake",
    "docker",
    "gcc",
    "git",
    "go",
    "java",
    "make",
    "node",
    "npm",
    "nvidia-smi",
    "podman",
    "python3",
    "rustc",
    "uv",
];
/// Looks around. Reads files: for a blocking thread.
pub(crate) fn discover(path: &OsString, version: &str) -> Facts {
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let tools = TOOLS.iter().filter(|tool| find(path, tool).is_some());
    Facts {
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        hostname: hostname.unwrap_or_default(),
        version: version.to_owned(),
        sandbox: Level::None.as_str().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes().unwrap_or(0),
        tools: tools.map(|tool| (*tool).to_owned()).collect(),
        layers: Vec::new(),
        place: Place::default(),
        slots: 0,
    }
}

/// With what was found of the walls around runs.
pub(crate) fn with_sandbox(facts: Facts, sandbox: &Sandbox) -> Facts {
    Facts {
        sandbox: sandbox.level().as_str().to_owned(),
        layers: sandbox.layers.clone(),
        place: sandbox.host.place.clone(),
        ..facts
    }
}

fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let facts = discover(&"/usr/bin:/bin".into(), "1.2.3");
        assert!(facts.cpus > 0 && facts.memory_bytes > 0);
        assert_eq!((facts.version.as_str(), facts.sandbox.as_str()), ("1.2.3", "none"));
    }
}
