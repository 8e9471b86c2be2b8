//! Which file a run executes, and with which environment. The caller's word decides neither: the
//! path is the node's own, and nothing of the node's environment leaks but what is listed here.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cortex_core::id::RunId;
use cortex_core::name::printable;
use cortex_core::run::RunSpec;

use super::protocol::Launch;

/// What a run may see of the node's own environment, when it is set there.
const PASSED_ON: &[&str] = &["HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "CARGO_HOME", "RUSTUP_HOME"];

/// The surroundings of every run of one node, taken once at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// The folders in which programs are looked up.
    pub(crate) path: OsString,
    /// Home directory, where a run starts when it names no other.
    pub(crate) home: PathBuf,
    variables: Vec<(OsString, OsString)>,
}

impl Surroundings {
    /// From the variables of this process.
    pub(crate) fn new(path: OsString, of: impl Fn(&str) -> Option<OsString>) -> Self {
        let variables = PASSED_ON.iter().filter_map(|name| Some((OsString::from(name), of(name)?))).collect();
        let home = of("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        Self { path, home, variables }
    }

    /// The complete launch of a run. `Err` is a sentence for people.
    pub(crate) fn launch(&self, run: RunId, spec: &RunSpec, node: &str) -> Result<Launch, String> {
        let program = self.resolve(spec.argv.first().map_or("", String::as_str), node)?;
        let mut env = vec![("PATH".into(), self.path.clone())];
        env.extend(self.variables.iter().cloned());
        env.extend(spec.env.iter().map(|(name, value)| (name.into(), value.into())));
        env.push(("CORTEX_RUN_ID".into(), run.to_string().into()));
        env.push(("CORTEX_NODE".into(), node.into()));
        Ok(Launch {
            program,
            argv: spec.argv.iter().map(OsString::from).collect(),
            env,
            cwd: spec.cwd.as_ref().map_or_else(|| self.home.clone(), PathBuf::from),
        })
    }

    fn resolve(&self, program: &str, node: &str) -> Result<PathBuf, String> {
        let shown = printable(program, 80);
        if program.starts_with('/') {
            return Ok(PathBuf::from(program));
        }
        if program.contains('/') {
            return Err(format!("`{shown}` is a relative path; give an absolute one or a program's name."));
        }
        find(&self.path, program)
            .ok_or_else(|| format!("`{shown}` was not found on {node}; its PATH is the node process's own."))
    }
}

/// The first executable file of that name.
pub(crate) fn find(path: &OsString, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings() -> Surroundings {
        let of = |name: &str| match name {
            "HOME" => Some("/root".into()),
            "CORTEX_TOKEN" => Some("secret".into()),
            _ => None,
        };
        Surroundings::new("relative:/nowhere:/usr/bin:/bin".into(), of)
    }

    fn launch(argv: &[&str]) -> Result<Launch, String> {
        let spec = RunSpec { argv: argv.iter().map(|arg| (*arg).to_owned()).collect(), ..RunSpec::default() };
        surroundings().launch(RunId::mint(1, &[0; 10]), &spec, "build-2")
    }

    #[test]
    fn a_name_is_looked_up_in_the_nodes_own_path() {
        let launch = launch(&["env"]).expect("every system has env");
        assert!(launch.program.is_absolute() && launch.program.ends_with("env"));
        assert_eq!(launch.cwd, PathBuf::from("/root"));
    }

    #[test]
    fn a_name_that_is_not_there_is_named_with_the_node() {
        let why = launch(&["no-such-program"]).expect_err("it is not there");
        assert!(why.contains("`no-such-program` was not found on build-2"), "{why}");
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(launch(&["./tool"]).expect_err("relative").contains("relative"));
    }

    #[test]
    fn nothing_else_of_the_environment_is_passed_on() {
        let launch = launch(&["env"]).expect("every system has env");
        let names: Vec<_> = launch.env.iter().map(|(name, _)| name.to_str().expect("plain")).collect();
        assert_eq!(names, ["PATH", "HOME", "CORTEX_RUN_ID", "CORTEX_NODE"]);
    }
}
