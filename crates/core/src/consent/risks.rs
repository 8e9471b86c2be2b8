//! What a person should notice about a command before answering. Words beside the command, by the
//! look of it alone: they decide nothing, and a command without notes is not a harmless one.

use crate::path;
use crate::policy::{is_interpreter, is_launcher};
use crate::run::RunSpec;

/// One note, and how it is seen.
type Risk = (&'static str, fn(&RunSpec) -> bool);

/// In the order in which they are shown.
const RISKS: &[Risk] = &[
    ("runs whatever code it is given: it is a shell or an interpreter", interprets),
    ("starts another program: the policy judges only the first one", launches),
    ("reads standard input, which is not shown here", |spec| spec.stdin),
    ("deletes or overwrites", deletes),
    ("sends something away: it pushes, publishes or copies to another machine", sends),
    ("names an address in a network", names_address),
    ("names a path outside its working directory", leaves_directory),
    ("an argument or variable looks like a secret", shows_secret),
    ("sets variables", |spec| !spec.env.is_empty()),
];

const DELETERS: &[&str] = &[
    "blkdiscard",
    "dd",
    "fdisk",
    "mkfs",
    "mv",
    "parted",
    "rm",
    "rmdir",
    "shred",
    "truncate",
    "unlink",
    "wipefs",
];
/// Arguments by which others delete.
const DELETING: &[&str] = &[
    "--delete",
    "--force",
    "--hard",
    "--purge",
    "-D",
    "-delete",
    "-exec",
    "-execdir",
    "clean",
    "delete",
    "destroy",
    "drop",
    "prune",
    "purge",
    "remove",
    "rm",
    "uninstall",
];
const SENDERS: &[&str] =
    &["ftp", "mail", "nc", "ncat", "rclone", "rsync", "scp", "sendmail", "sftp", "ssh", "twine"];
/// Arguments by which others send.
const SENDING: &[&str] =
    &["--upload-file", "-T", "deploy", "publish", "push", "release", "send-email", "sync", "upload"];
/// How tokens of well-known services begin, and our own.
const SECRET_PREFIXES: &[&str] = &[
    "-----BEGIN",
    "AKIA",
    "ASIA",
    "CXI1.",
    "cxs_",
    "cxt_",
    "eyJ",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "npm_",
    "pypi-",
    "sk-",
    "xoxb-",
    "xoxp-",
];
const SECRET_NAMES: &[&str] =
    &["apikey", "api_key", "api-key", "credential", "passphrase", "passwd", "password", "secret", "token"];

/// What a person should notice about this command.
pub fn risks(spec: &RunSpec) -> Vec<&'static str> {
    RISKS.iter().filter(|(_, sees)| sees(spec)).map(|(note, _)| *note).collect()
}

/// The program's bare name.
fn program(spec: &RunSpec) -> &str {
    let program = spec.argv.first().map_or("", String::as_str);
    program.rsplit('/').next().unwrap_or(program)
}

fn arguments(spec: &RunSpec) -> impl Iterator<Item = &str> {
    spec.argv.iter().skip(1).map(String::as_str)
}

fn interprets(spec: &RunSpec) -> bool {
    spec.argv.first().is_some_and(|program| is_interpreter(program))
}

fn launches(spec: &RunSpec) -> bool {
    spec.argv.first().is_some_and(|program| is_launcher(program))
}

fn deletes(spec: &RunSpec) -> bool {
    let name = program(spec).split('.').next().unwrap_or_default();
    DELETERS.contains(&name) || arguments(spec).any(|argument| DELETING.contains(&argument))
}

fn sends(spec: &RunSpec) -> bool {
    SENDERS.contains(&program(spec)) || arguments(spec).any(|argument| SENDING.contains(&argument))
}

fn names_address(spec: &RunSpec) -> bool {
    let addressed = |text: &str| text.contains("://") || text.starts_with("git@");
    arguments(spec).any(addressed)
}

fn leaves_directory(spec: &RunSpec) -> bool {
    arguments(spec).any(|argument| {
        // `--out=/etc/x` names a path as `/etc/x` does.
        let value = argument.split_once('=').map_or(argument, |(_, value)| value);
        [argument, value].into_iter().any(|text| is_outside(text, spec.cwd.as_deref()))
    })
}

fn is_outside(text: &str, cwd: Option<&str>) -> bool {
    if text.starts_with('~') || text == ".." || text.starts_with("../") || text.contains("/..") {
        return true;
    }
    if !text.starts_with('/') {
        return false;
    }
    let inside = |cwd: &str| Some(path::within(&path::normal(text).ok()?, &path::normal(cwd).ok()?));
    !cwd.and_then(inside).unwrap_or(false)
}

fn shows_secret(spec: &RunSpec) -> bool {
    let pairs = arguments(spec).zip(arguments(spec).skip(1));
    arguments(spec).any(is_secret)
        || pairs
            .into_iter()
            .any(|(name, value)| name.starts_with('-') && names_secret(name) && !value.starts_with('-'))
        || spec.env.iter().any(|(name, value)| (names_secret(name) && !value.is_empty()) || is_secret(value))
}

fn is_secret(text: &str) -> bool {
    let in_address = || {
        let authority = text.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        authority.and_then(|part| part.split_once('@')).is_some_and(|(user, _)| user.contains(':'))
    };
    let named = || text.split_once('=').is_some_and(|(name, value)| !value.is_empty() && names_secret(name));
    let value = text.split_once('=').map_or(text, |(_, value)| value);
    let known =
        |text: &str| text.len() >= 12 && SECRET_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    known(text) || known(value) || named() || in_address() || text.contains("Bearer ")
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(cwd: Option<&str>, argv: &[&str]) -> Vec<&'static str> {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        risks(&RunSpec { argv, cwd: cwd.map(str::to_owned), ..RunSpec::default() })
    }

    /// The first words of the notes, in their order.
    fn short(cwd: Option<&str>, argv: &[&str]) -> Vec<&'static str> {
        notes(cwd, argv).into_iter().map(|note| note.split([' ', ':']).next().unwrap_or_default()).collect()
    }

    #[test]
    fn each_command_has_the_notes_that_it_should() {
        let here = Some("/srv/app");
        for (argv, expected) in [
            (&["cargo", "test"][..], &[][..]),
            (&["ls", "-l", "src"], &[]),
            (&["git", "pull"], &[]),
            (&["bash", "build.sh"], &["runs"]),
            (&["/usr/bin/python3.11", "-c", "print(1)"], &["runs"]),
            (&["pythonic"], &[]),
            (&["xargs", "ls"], &["starts"]),
            (&["env", "ls"], &["starts"]),
            (&["rm", "-r", "build"], &["deletes"]),
            (&["mkfs.ext4", "disk"], &["deletes"]),
            (&["git", "reset", "--hard"], &["deletes"]),
            (&["find", ".", "-delete"], &["deletes"]),
            (&["git", "push"], &["sends"]),
            (&["cargo", "publish"], &["sends"]),
            (&["scp", "a", "host:b"], &["sends"]),
            (&["curl", "https://example.org"], &["names"]),
            (&["git", "clone", "git@example.org:a/b"], &["names"]),
            (&["cat", "/etc/passwd"], &["names"]),
            (&["cat", "/srv/app/Cargo.toml"], &[]),
            (&["cat", "/srv/application"], &["names"]),
            (&["cat", "/srv/app/../x"], &["names"]),
            (&["cat", "../x"], &["names"]),
            (&["cat", "~/.ssh/id_ed25519"], &["names"]),
            (&["tool", "--out=/etc/x"], &["names"]),
            (&["tool", "--password=x"], &["an"]),
            (&["tool", "--password", "x"], &["an"]),
            (&["tool", "--password", "--quiet"], &[]),
            (&["tool", "ghp_0123456789abcdef"], &["an"]),
            (&["curl", "https://ada:pass@example.org/"], &["names", "an"]),
            (&["curl", "-H", "Authorization: Bearer abc"], &["an"]),
            (&["rm", "/"], &["deletes", "names"]),
        ] {
            assert_eq!(short(here, argv), expected, "{argv:?}");
        }
        assert_eq!(
            short(None, &["cat", "/srv/app/x"]),
            ["names"],
            "without a directory every path is outside"
        );
    }

    #[test]
    fn variables_and_standard_input_are_noticed() {
        let env = |name: &str, value: &str| RunSpec {
            argv: vec!["ls".to_owned()],
            env: vec![(name.to_owned(), value.to_owned())],
            ..RunSpec::default()
        };
        assert_eq!(risks(&env("LANG", "C")), ["sets variables"]);
        let secret = "an argument or variable looks like a secret";
        assert_eq!(risks(&env("GITHUB_TOKEN", "x")), [secret, "sets variables"]);
        assert_eq!(risks(&env("X", "sk-0123456789abcdef")), [secret, "sets variables"]);
        let fed = RunSpec { argv: vec!["tee".to_owned()], stdin: true, ..RunSpec::default() };
        assert_eq!(risks(&fed), ["reads standard input, which is not shown here"]);
    }

    #[test]
    fn a_command_of_nothing_has_no_notes() {
        assert_eq!(risks(&RunSpec::default()), Vec::<&str>::new());
    }

    #[test]
    fn the_lists_are_in_order_so_that_a_double_is_seen() {
        for list in [DELETERS, DELETING, SENDERS, SENDING] {
            assert!(list.is_sorted(), "{list:?}");
        }
    }
}
