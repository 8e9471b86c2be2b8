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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunSpec;

    fn node() -> NodeId {
        NodeId::mint(1, &[1; 10])
    }

    fn profile(name: &str) -> Policy {
        Policy::from_profile(node(), name, Revision(2), WallTime(0)).expect("a built-in profile")
    }

    fn spec(argv: &[&str]) -> RunSpec {
        RunSpec { argv: argv.iter().map(|arg| (*arg).to_owned()).collect(), ..RunSpec::default() }
    }

    fn rule(policy: &Policy, spec: &RunSpec) -> String {
        match policy.check(spec, "n1", WallTime(0)) {
            Ok(rule) => rule.to_owned(),
            Err(refusal) => {
                assert_eq!(refusal.code, Code::PolicyDenied);
                format!("no: {}", refusal.details[0].1)
            }
        }
    }

    #[test]
    fn each_profile_allows_what_it_says_and_no_more() {
        for (name, program, answer) in [
            ("strict", "echo", "exec.allow"),
            ("strict", "ls", "no: exec.allow"),
            ("strict", "cargo", "no: exec.allow"),
            ("strict", "sh", "no: exec.allow"),
            ("ci", "cargo", "exec.allow"),
            ("ci", "ls", "no: exec.allow"),
            ("dev", "ls", "exec.allow"),
            ("dev", "bash", "no: exec.allow"),
            ("dev", "python3", "no: exec.allow"),
            ("permissive", "bash", "mode.permissive"),
        ] {
            assert_eq!(rule(&profile(name), &spec(&[program])), answer, "{name} {program}");
        }
        assert_eq!(Policy::from_profile(node(), "STRICT", Revision(1), WallTime(0)), None);
        assert!(PROFILES.iter().all(|name| profile(name).profile == *name));
    }

    #[test]
    fn an_allowed_name_is_no_path_and_no_other_spelling() {
        for program in ["/tmp/ls", "./ls", "/bin/ls", "LS", "ls ", " ls", "ls\n", "ｌｓ", ""] {
            assert_eq!(rule(&profile("dev"), &spec(&[program])), "no: exec.allow", "{program:?}");
        }
    }

    #[test]
    fn deny_beats_allow_and_permissive_in_every_spelling() {
        for (denied, program, answer) in [
            ("ls", "ls", "no: exec.deny"),
            ("ls", "/bin/ls", "no: exec.deny"),
            ("ls", "/tmp/x/../ls", "no: exec.deny"),
            ("ls", "/bin/ls/", "no: exec.deny"),
            ("/bin/ls", "ls", "no: exec.deny"),
            ("/bin/ls", "/bin//ls", "no: exec.deny"),
            ("/bin/ls", "/usr/../bin/./ls", "no: exec.deny"),
            ("/bin/ls", "/opt/ls", "mode.permissive"),
            ("ls", "lsblk", "mode.permissive"),
        ] {
            let policy = Policy { deny: vec![denied.to_owned()], ..profile("permissive") };
            assert_eq!(rule(&policy, &spec(&[program])), answer, "deny {denied}, run {program}");
        }
        let policy = Policy { deny: vec!["ls".to_owned()], ..profile("dev") };
        assert_eq!(rule(&policy, &spec(&["ls"])), "no: exec.deny");
    }

    #[test]
    fn every_metacharacter_in_every_position_is_an_ordinary_byte() {
        let metas = [
            "; id", "&& id", "| sh", "$(id)", "`id`", "\n id", "\r id", "> f", "< f", "& id", "{a,b}", "~",
            "$IFS", "* ?",
        ];
        let strict = profile("strict");
        for meta in metas {
            for position in 1..4 {
                let mut argv = vec!["echo", "a", "b", "c"];
                argv[position] = meta;
                let spec = spec(&argv);
                assert_eq!(spec.check(), Ok(()), "{meta:?}");
                assert_eq!(rule(&strict, &spec), "exec.allow", "{meta:?} at {position}");
            }
            let joined = format!("echo {meta}");
            assert_eq!(rule(&strict, &spec(&[&joined])), "no: exec.allow", "{meta:?} in the program");
        }
        assert_eq!(spec(&["echo", "a\0b"]).check().expect_err("NUL").code, Code::InvalidArgument);
    }

    #[test]
    fn variables_that_are_not_listed_are_refused_in_strict() {
        let set = |name: &str| RunSpec { env: vec![(name.to_owned(), "x".to_owned())], ..spec(&["echo"]) };
        assert_eq!(rule(&profile("strict"), &set("TERM")), "exec.allow");
        for name in ["LD_PRELOAD", "PATH", "term", "TERM ", "GIT_SSH_COMMAND"] {
            assert_eq!(rule(&profile("strict"), &set(name)), "no: env.allow", "{name}");
        }
    }

    #[test]
    fn a_run_may_ask_for_the_longest_time_and_no_more() {
        let policy = Policy { timeout_ms_max: 1_000, ..profile("strict") };
        for (ms, answer) in [(1_000, "exec.allow"), (1_001, "no: limits.timeout")] {
            let spec = RunSpec { timeout_ms: Some(ms), ..spec(&["echo"]) };
            assert_eq!(rule(&policy, &spec), answer);
        }
    }

    #[test]
    fn a_grant_ends_at_its_moment() {
        let mut policy = profile("strict");
        policy.allow.push(Grant { program: "make".to_owned(), until: Some(WallTime(100)) });
        let at = |now| policy.check(&spec(&["make"]), "n1", WallTime(now)).is_ok();
        assert_eq!((at(99), at(100), at(101)), (true, false, false));
        assert_eq!(policy.next_expiry(WallTime(99)), Some(WallTime(100)));
        assert_eq!(policy.next_expiry(WallTime(100)), None);
        assert!(
            policy.allowed(WallTime(99)).contains("make") && !policy.allowed(WallTime(100)).contains("make")
        );
    }

    #[test]
    fn an_unknown_mode_is_strict() {
        for text in ["", "Permissive", "permissive ", "strict", "open", "\0"] {
            assert_eq!(Mode::parse_or_strict(text), Mode::Strict, "{text:?}");
        }
        assert_eq!(Mode::parse_or_strict("permissive"), Mode::Permissive);
    }

    #[test]
    fn a_hint_never_carries_the_callers_text_into_a_command_to_copy() {
        let hint = |program: &str| {
            profile("strict").check(&spec(&[program]), "n1", WallTime(0)).expect_err("denied").hint
        };
        assert!(hint("cargo").contains("`cortex policy allow n1 cargo --for 1h`"));
        for program in ["x; rm -rf ~", "$(id)", "a`b", "-rf", "x y"] {
            assert!(!hint(program).contains(program), "{}", hint(program));
        }
    }
}
