//! Policy, version 1: a mode and the programs that may be started.
//!
//! STRICT is the default and what every failure falls back to. In STRICT a command is an
//! argument vector whose program is looked up by name; no shell is started and no text is
//! parsed, so metacharacters are ordinary bytes (SECURITY, ABUSE 30 and 36).

use std::collections::BTreeSet;

use crate::error::{Code, Refusal};
use crate::id::{NodeId, Revision};
use crate::limits;
use crate::name::printable;
use crate::time::WallTime;

/// Whether the allow-list decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Only what is allowed runs.
    #[default]
    Strict,
    /// Everything runs that is not denied. An administrator's explicit act, per node.
    Permissive,
}

impl Mode {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
        }
    }

    /// Reads the text form; anything unknown is STRICT (ABUSE 37).
    pub fn parse_or_strict(text: &str) -> Self {
        if text == "permissive" { Self::Permissive } else { Self::Strict }
    }
}

/// Leave to start one program, for a time or for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// A program's name (`cargo`) or absolute path (`/opt/x/bin/tool`).
    pub program: String,
    /// When the grant ends, on the hub's clock.
    pub until: Option<WallTime>,
}

/// The policy of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose.
    pub node: NodeId,
    /// Raised by each change.
    pub revision: Revision,
    /// The profile it was last set to.
    pub profile: String,
    /// Whether the allow-list decides.
    pub mode: Mode,
    /// What may be started, beside nothing.
    pub allow: Vec<Grant>,
    /// What may not, whatever else is said.
    pub deny: Vec<String>,
    /// Environment variables that a caller may set.
    pub env: Vec<String>,
    /// Longest run, milliseconds.
    pub timeout_ms_max: u64,
    /// Last change.
    pub changed_at: WallTime,
}

/// The profiles that every hub knows.
pub const PROFILES: &[&str] = &["strict", "dev", "ci", "permissive"];

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

impl Policy {
    /// The policy of a node for which nobody has said anything: STRICT.
    pub fn strict(node: NodeId, now: WallTime) -> Self {
        Self {
            node,
            revision: Revision(1),
            profile: "strict".to_owned(),
            mode: Mode::Strict,
            allow: grants(&[STRICT_PROGRAMS]),
            deny: Vec::new(),
            env: owned(&[ENV_NAMES]),
            timeout_ms_max: limits::RUN_TIMEOUT_MS_MAX,
            changed_at: now,
        }
    }

    /// The policy as a built-in profile gives it; `None` for an unknown name.
    pub fn from_profile(node: NodeId, profile: &str, revision: Revision, now: WallTime) -> Option<Self> {
        let strict = Self::strict(node, now);
        let policy = match profile {
            "strict" => strict,
            "ci" => Self {
                allow: grants(&[STRICT_PROGRAMS, CI_PROGRAMS]),
                env: owned(&[ENV_NAMES, BUILD_ENV_NAMES]),
                ..strict
            },
            "dev" => Self {
                allow: grants(&[STRICT_PROGRAMS, CI_PROGRAMS, DEV_PROGRAMS]),
                env: owned(&[ENV_NAMES, BUILD_ENV_NAMES]),
                ..strict
            },
            "permissive" => Self { mode: Mode::Permissive, ..strict },
            _ => return None,
        };
        Some(Self { profile: profile.to_owned(), revision, ..policy })
    }

    /// Judges a command. `Ok` is the name of the rule that allows it.
    pub fn check(
        &self,
        spec: &crate::run::RunSpec,
        node_name: &str,
        now: WallTime,
    ) -> Result<&'static str, Refusal> {
        let program = spec.argv.first().map_or("", String::as_str);
        if self.deny.iter().any(|denied| denies(denied, program)) {
            return Err(self.denied(program, node_name, "exec.deny", now));
        }
        if self.mode == Mode::Permissive {
            return Ok("mode.permissive");
        }
        if !self.allow.iter().any(|grant| grant.program == program && grant.until.is_none_or(|end| now < end))
        {
            return Err(self.denied(program, node_name, "exec.allow", now));
        }
        if let Some((name, _)) = spec.env.iter().find(|(name, _)| !self.env.contains(name)) {
            return Err(Refusal::new(
                Code::PolicyDenied,
                format!(
                    "{node_name} is STRICT and the variable `{}` may not be set (rule env.allow).",
                    printable(name, 80)
                ),
            )
            .hint(format!("Leave it out; these may be set: {}. Do not retry unchanged.", self.env.join(", ")))
            .detail("rule", "env.allow"));
        }
        if spec.timeout_ms.is_some_and(|ms| ms > self.timeout_ms_max) {
            return Err(Refusal::new(
                Code::PolicyDenied,
                format!(
                    "Runs on {node_name} may last at most {} s (rule limits.timeout).",
                    self.timeout_ms_max / 1000
                ),
            )
            .hint("Give a shorter `--timeout`.")
            .detail("rule", "limits.timeout"));
        }
        Ok("exec.allow")
    }

    /// When the next grant ends: the policy has to be sent again then.
    pub fn next_expiry(&self, now: WallTime) -> Option<WallTime> {
        self.allow.iter().filter_map(|grant| grant.until).filter(|end| *end > now).min()
    }

    /// Names of what may be started at `now`, without doubles, in order.
    pub fn allowed(&self, now: WallTime) -> BTreeSet<&str> {
        self.allow
            .iter()
            .filter(|g| g.until.is_none_or(|end| now < end))
            .map(|g| g.program.as_str())
            .collect()
    }

    fn denied(&self, program: &str, node_name: &str, rule: &'static str, now: WallTime) -> Refusal {
        let program = printable(program, 80);
        let mode = self.mode.as_str().to_uppercase();
        let message =
            format!("{node_name} is {mode} and its policy does not allow `{program}` (rule {rule}).");
        let mut some: Vec<&str> = self.allowed(now).into_iter().take(12).collect();
        if some.is_empty() {
            some.push("(nothing)");
        }
        let others = match (rule, is_plain(&program)) {
            ("exec.deny", _) => {
                "It is denied whatever is allowed; only an administrator can change that.".to_owned()
            }
            (_, true) => {
                format!("Or an administrator runs `cortex policy allow {node_name} {program} --for 1h`.")
            }
            // A command to copy must not carry what somebody else put into it.
            (_, false) => "Or ask an administrator; no shell text is parsed, so give one program.".to_owned(),
        };
        Refusal::new(Code::PolicyDenied, message)
            .hint(format!("Use one of: {}. {others} Do not retry unchanged.", some.join(", ")))
            .detail("rule", rule)
    }
}

/// A denied name is meant wherever the program lies. A denied path is meant however it is spelt,
/// and by its bare name, which may be looked up to it.
fn denies(denied: &str, program: &str) -> bool {
    let (denied, program) = (components(denied), components(program));
    if denied.len() > 1 && program.len() > 1 { denied == program } else { denied.last() == program.last() }
}

/// `/usr/./bin/../bin//ls` as `["", "usr", "bin", "ls"]`; a bare name as itself.
fn components(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.starts_with('/').then_some("").into_iter().collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.len() > 1 => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts
}

/// Whether a program's text may stand in a command line that somebody copies.
fn is_plain(program: &str) -> bool {
    program.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'+' | b'-'))
        && !program.starts_with('-')
}

fn owned(lists: &[&[&str]]) -> Vec<String> {
    let names: BTreeSet<&str> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    names.into_iter().map(str::to_owned).collect()
}

fn grants(lists: &[&[&str]]) -> Vec<Grant> {
    owned(lists).into_iter().map(|program| Grant { program, until: None }).collect()
}
