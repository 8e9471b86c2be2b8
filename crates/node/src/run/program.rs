//! Which file a run executes, and with which environment. The caller's word decides neither: the
//! path is the node's own, and nothing of the node's environment leaks but what is listed here.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cortex_core::message::Start;
use cortex_core::name::printable;
use cortex_core::run::RunSpec;
use cortex_core::sandbox::Place;

use super::protocol::Launch;
use crate::sandbox::confine::Confinement;
use crate::sandbox::program::{self, NoProgram};

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

    /// What policies name by its purpose.
    pub(crate) fn place(&self, work: &[PathBuf]) -> Place {
        let text = |path: &PathBuf| path.to_str().map(str::to_owned);
        let home = text(&self.home).filter(|home| home != "/").unwrap_or_default();
        Place { home, work: work.iter().filter_map(text).collect() }
    }

    /// The complete launch of a run without walls. `Err` is a sentence for people.
    pub(crate) fn launch(&self, start: &Start, node: &str) -> Result<Launch, String> {
        let spec = &start.spec;
        let program = self.resolve(spec.argv.first().map_or("", String::as_str), node)?;
        let mut env = vec![("PATH".into(), self.path.clone())];
        env.extend(self.variables.iter().cloned());
        let cwd = spec.cwd.as_ref().map_or_else(|| self.home.clone(), PathBuf::from);
        Ok(Launch { program, argv: argv(spec), env: with_own(env, start, node), cwd, ..Launch::default() })
    }

    /// The complete launch of a run behind walls. `Err` says why it fails or is denied.
    pub(crate) fn launch_confined(
        &self,
        start: &Start,
        node: &str,
        walls: &Confinement,
    ) -> Result<Launch, NotLaunched> {
        let spec = &start.spec;
        let name = spec.argv.first().map_or("", String::as_str);
        if name.contains('/') && !name.starts_with('/') {
            return Err(NotLaunched::Failed(relative(name)));
        }
        let found = program::find(&walls.room, &self.path, name).map_err(|why| match why {
            NoProgram::Missing => NotLaunched::Failed(format!(
                "`{}` was not found on {node} where the policy lets programs run.",
                printable(name, 80)
            )),
            NoProgram::Denied(why) => NotLaunched::Denied(why),
        })?;
        let home = walls.home().as_os_str();
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), program::search_path(&walls.room, &self.path)),
            ("HOME".into(), home.to_owned()),
            ("TMPDIR".into(), walls.scratch().as_os_str().to_owned()),
        ];
        env.extend(walls.settings(|name| self.variable(name)));
        env.extend(self.variable("LANG").map(|value| ("LANG".into(), value.to_owned())));
        for name in ["USER", "LOGNAME"] {
            let own = walls.user().map(OsString::from);
            let value = own.or_else(|| self.variable(name).map(OsStr::to_owned));
            env.extend(value.map(|value| (name.into(), value)));
        }
        let cwd = spec.cwd.as_ref().map_or_else(|| walls.home().to_owned(), PathBuf::from);
        let confined = Some(walls.confined(&found));
        Ok(Launch {
            program: found.path,
            argv: argv(spec),
            env: with_own(env, start, node),
            cwd,
            confined,
            ..Launch::default()
        })
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_os_str())
    }

    fn resolve(&self, program: &str, node: &str) -> Result<PathBuf, String> {
        let shown = printable(program, 80);
        if program.starts_with('/') {
            return Ok(PathBuf::from(program));
        }
        if program.contains('/') {
            return Err(relative(program));
        }
        find(&self.path, program)
            .ok_or_else(|| format!("`{shown}` was not found on {node}; its PATH is the node process's own."))
    }
}

/// Why a run behind walls is not even begun; a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotLaunched {
    /// It cannot be started.
    Failed(String),
    /// The walls are against it.
    Denied(String),
}

fn relative(program: &str) -> String {
    let shown = printable(program, 80);
    format!("`{shown}` is a relative path; give an absolute one or a program's name.")
}

fn argv(spec: &RunSpec) -> Vec<OsString> {
    spec.argv.iter().map(OsString::from).collect()
}

/// The caller's variables in place of those before, and the node's own last. Each name once: which
/// of two a program takes is its own affair.
fn with_own(mut env: Vec<(OsString, OsString)>, start: &Start, node: &str) -> Vec<(OsString, OsString)> {
    let asked = start.spec.env.iter().map(|(name, value)| (name.into(), value.into()));
    let mut own = vec![("CORTEX_RUN_ID", start.run.to_string()), ("CORTEX_NODE", node.to_owned())];
    if let Some((task, attempt)) = start.task {
        own.extend([("CORTEX_TASK_ID", task.to_string()), ("CORTEX_ATTEMPT", attempt.to_string())]);
    }
    let own = own.into_iter().map(|(name, value)| (OsString::from(name), value.into()));
    for (name, value) in asked.chain(own) {
        env.retain(|(held, _)| *held != name);
        env.push((name, value));
    }
    env
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
    use cortex_core::id::{Attempt, Revision, RunId, TaskId};

    use super::*;

    fn surroundings() -> Surroundings {
        let of = |name: &str| match name {
            "HOME" => Some("/root".into()),
            "CORTEX_TOKEN" => Some("secret".into()),
            _ => None,
        };
        Surroundings::new("relative:/nowhere:/usr/bin:/bin".into(), of)
    }

    fn start(argv: &[&str]) -> Start {
        let spec = RunSpec { argv: argv.iter().map(|arg| (*arg).to_owned()).collect(), ..RunSpec::default() };
        let run = RunId::mint(1, &[0; 10]);
        let (caller, policy_revision) = ("token:a".to_owned(), Revision(1));
        Start { run, spec, caller, policy_revision, traceparent: None, consent: None, task: None }
    }

    fn launch(argv: &[&str]) -> Result<Launch, String> {
        surroundings().launch(&start(argv), "build-2")
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

    #[test]
    fn an_attempt_of_a_task_is_told_which_it_is_and_the_caller_cannot_say_otherwise() {
        let mut start = start(&["env"]);
        let task = TaskId::mint(1, &[9; 10]);
        start.task = Some((task, Attempt(4)));
        start.spec.env.push(("CORTEX_ATTEMPT".into(), "5".into()));
        let launch = surroundings().launch(&start, "build-2").expect("every system has env");
        let of = |name: &str| -> Vec<OsString> {
            let named = launch.env.iter().filter(|(key, _)| key == name);
            named.map(|(_, value)| value.clone()).collect()
        };
        assert_eq!(of("CORTEX_TASK_ID"), [OsString::from(task.to_string())]);
        assert_eq!(of("CORTEX_ATTEMPT"), ["4"]);
    }
}
