//! Programs by their purpose: those that run text, those that start others, and those that do it when
//! nobody gives them anything. Names only; what follows from them is in the table of rules.

use super::base_name;

/// Interpreters whose arguments are as good as text to run.
pub(super) const TEXTS: &[&str] = &[
    "R",
    "awk",
    "dc",
    "elixir",
    "erl",
    "expect",
    "gawk",
    "ghci",
    "gnuplot",
    "irb",
    "java",
    "jshell",
    "julia",
    "m4",
    "mawk",
    "nawk",
    "npx",
    "osascript",
    "pwsh",
    "scala",
    "sed",
    "sqlite3",
    "tclsh",
];

/// Programs that change texts, and start others when they are told to.
pub(super) const EDITORS: &[&str] = &[
    "ed",
    "emacs",
    "ex",
    "gvim",
    "nvim",
    "rview",
    "rvim",
    "vi",
    "view",
    "vim",
    "vim.basic",
    "vim.tiny",
    "vimdiff",
];

/// Launchers that without arguments start a shell, or take commands from their standard input.
const ALONE: &[&str] = &[
    "at", "batch", "crontab", "gdb", "nsenter", "parallel", "screen", "script", "setarch", "tmux", "unshare",
];

/// Programs whose purpose is to start another one.
pub(super) const LAUNCHERS: &[&str] = &[
    "at",
    "batch",
    "busybox",
    "chroot",
    "chrt",
    "crontab",
    "env",
    "flock",
    "gdb",
    "ionice",
    "ltrace",
    "nice",
    "nohup",
    "nsenter",
    "parallel",
    "screen",
    "script",
    "setarch",
    "setsid",
    "start-stop-daemon",
    "stdbuf",
    "strace",
    "systemd-run",
    "taskset",
    "time",
    "timeout",
    "tmux",
    "toybox",
    "unshare",
    "watch",
    "xargs",
];

/// Programs that run the text that they are given. A trailing version (`python3.11`) is ignored.
pub(super) const INTERPRETERS: &[&str] = &[
    "R",
    "Rscript",
    "ash",
    "awk",
    "bash",
    "bun",
    "csh",
    "dash",
    "dc",
    "deno",
    "elixir",
    "erl",
    "expect",
    "fish",
    "gawk",
    "ghci",
    "gnuplot",
    "irb",
    "java",
    "jshell",
    "julia",
    "ksh",
    "lua",
    "luajit",
    "m4",
    "mawk",
    "mksh",
    "nawk",
    "node",
    "nodejs",
    "npx",
    "osascript",
    "perl",
    "php",
    "pwsh",
    "pypy",
    "python",
    "rbash",
    "ruby",
    "scala",
    "sed",
    "sh",
    "sqlite3",
    "tclsh",
    "tcsh",
    "zsh",
];

/// Whether a program runs its standard input when no file is named to it.
pub(super) fn runs_its_input(program: &str) -> bool {
    let (name, plain) = names(program);
    is_interpreter(program)
        || [EDITORS, ALONE].iter().any(|list| list.contains(&name) || list.contains(&plain))
}

/// Shells of one family: a `+` begins an option like a `-`, and one with `o` takes the next argument.
const SHELLS: &[&str] = &["ash", "bash", "csh", "dash", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh"];
/// Letters of options whose value may be the argument after them, by interpreter.
const VALUED: &[(&str, &str)] = &[
    ("bun", "c"),
    ("deno", "cL"),
    ("fish", "DCdfop"),
    ("luajit", "j"),
    ("node", "C"),
    ("nodejs", "C"),
    ("perl", "I"),
    ("php", "Sct"),
    ("pypy", "WX"),
    ("python", "WX"),
    ("ruby", "CEI"),
];

/// Whether an interpreter that is given these arguments runs its standard input: none of them is surely
/// a file, or one is standard input by another name.
pub(super) fn reads_commands(program: &str, args: &[String]) -> bool {
    runs_its_input(program) && (!names_file(program, args) || args.iter().any(|arg| is_of_kernel(arg)))
}

fn names_file(program: &str, args: &[String]) -> bool {
    let is_value = |at: usize| at > 0 && args.get(at - 1).is_some_and(|before| takes_next(program, before));
    args.iter().enumerate().any(|(at, arg)| !arg.starts_with(['-', '+']) && !is_value(at))
}

/// Whether the argument after this option may be its value.
fn takes_next(program: &str, option: &str) -> bool {
    let (name, plain) = names(program);
    let is_shell = SHELLS.contains(&name) || SHELLS.contains(&plain);
    let Some(letters) = option.strip_prefix(['-', '+']) else { return false };
    match letters.strip_prefix('-') {
        Some(long) => !is_shell && !long.is_empty() && !long.contains('='),
        None if is_shell => letters.contains(['o', 'O']),
        None => {
            let valued =
                VALUED.iter().find(|(of, _)| *of == name || *of == plain).map_or("", |(_, valued)| valued);
            letters.find(|letter| valued.contains(letter)).is_some_and(|at| at + 1 == letters.len())
        }
    }
}

/// `/dev/stdin`, `//proc/self/fd/0`, `../dev/fd/0`. What is relative is told by two of its parts, since
/// projects have a folder `dev` too.
fn is_of_kernel(arg: &str) -> bool {
    let parts: Vec<&str> = arg.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let own = |dir: &str, below: &str| match dir {
        "dev" => matches!(below, "fd" | "stdin" | "tty"),
        "proc" => matches!(below, "self" | "thread-self") || below.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    let rooted = arg.starts_with('/') && matches!(parts.first(), Some(&("dev" | "proc")));
    let is_own = |pair: &[&str]| matches!(pair, [dir, below] if own(dir, below));
    rooted || ((!arg.starts_with('/') || parts.contains(&"..")) && parts.windows(2).any(is_own))
}

/// The name of a program, and the same without the version at its end: `python3.11`, `gcc-12`.
pub(super) fn names(program: &str) -> (&str, &str) {
    let name = base_name(program);
    (name, name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-')))
}

/// Whether a program, by name or path, runs the text that it is given.
pub fn is_interpreter(program: &str) -> bool {
    let (name, plain) = names(program);
    INTERPRETERS.contains(&name) || INTERPRETERS.contains(&plain)
}

/// Whether a program, by name or path, has the purpose of starting another one.
pub fn is_launcher(program: &str) -> bool {
    let (name, plain) = names(program);
    LAUNCHERS.contains(&name) || LAUNCHERS.contains(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_order_and_fit_each_other() {
        for list in [TEXTS, EDITORS, LAUNCHERS, ALONE, INTERPRETERS] {
            assert!(list.is_sorted(), "{list:?}");
        }
        assert!(ALONE.iter().all(|program| LAUNCHERS.contains(program)));
        assert!(TEXTS.iter().all(|program| INTERPRETERS.contains(program)));
    }

    #[test]
    fn interpreters_are_known_by_name_path_and_version() {
        for program in ["sh", "/bin/sh", "python3", "python3.11", "/usr/bin/perl5.36", "lua5.4"] {
            assert!(is_interpreter(program), "{program}");
        }
        for program in ["cargo", "git", "shasum", "pythonic", ""] {
            assert!(!is_interpreter(program), "{program}");
        }
    }
}
