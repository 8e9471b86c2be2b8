//! The built-in rules: arguments by which a program of another purpose starts code of the
//! caller's choosing, each with the reason. Tools whose purpose is to run code (`cargo`, `make`,
//! `npm`, `pytest`) are held by the sandbox and not by a table; their rows close what would choose
//! another tool, or publish.

use std::borrow::Cow;

use super::programs::{EDITORS, LAUNCHERS, TEXTS, names};
use super::{ArgRule, Effect, Shape};

/// A built-in rule.
#[derive(Debug)]
pub(super) struct Known {
    effect: Effect,
    shape: Like,
    with: Option<&'static str>,
    /// Why, in the words of the program's manual where it has some. It is part of the refusal.
    pub(super) why: &'static str,
}

/// [`Shape`] as it stands in the table.
#[derive(Clone, Copy, Debug)]
enum Like {
    Long(&'static str),
    Short(char),
    Old(char),
    Exact(&'static str),
    Prefix(&'static str),
    Lead(&'static str),
}

/// The rules of one or more programs.
struct Schema {
    programs: &'static [&'static str],
    rules: &'static [Known],
}

impl Known {
    pub(super) fn rule(&self) -> ArgRule {
        let shape = match self.shape {
            Like::Long(text) => Shape::Long(Cow::Borrowed(text)),
            Like::Short(letter) => Shape::Short(letter),
            Like::Old(letter) => Shape::Old(letter),
            Like::Exact(text) => Shape::Exact(Cow::Borrowed(text)),
            Like::Prefix(text) => Shape::Prefix(Cow::Borrowed(text)),
            Like::Lead(text) => Shape::Lead(Cow::Borrowed(text)),
        };
        ArgRule { effect: self.effect, shape, with: self.with.map(Cow::Borrowed) }
    }

    const fn asking(self) -> Self {
        Self { effect: Effect::Ask, ..self }
    }

    const fn with(self, word: &'static str) -> Self {
        Self { with: Some(word), ..self }
    }
}

const fn deny(shape: Like, why: &'static str) -> Known {
    Known { effect: Effect::Deny, shape, with: None, why }
}

const fn long(name: &'static str, why: &'static str) -> Known {
    deny(Like::Long(name), why)
}

const fn short(letter: char, why: &'static str) -> Known {
    deny(Like::Short(letter), why)
}

const fn exact(text: &'static str, why: &'static str) -> Known {
    deny(Like::Exact(text), why)
}

const fn prefix(text: &'static str, why: &'static str) -> Known {
    deny(Like::Prefix(text), why)
}

const fn lead(text: &'static str, why: &'static str) -> Known {
    deny(Like::Lead(text), why)
}

static SCHEMAS: &[Schema] = &[
    Schema {
        programs: &["git"],
        rules: &[
            lead("-c", "sets any configuration, and with it programs such as core.pager"),
            long("config-env", "sets any configuration from the environment"),
            long("exec", "names a program: of the other side, or of each step of a rebase"),
            long("exec-path", "names the folder where git's own programs are"),
            long("upload-pack", "names the program that is started for the other side"),
            long("receive-pack", "names the program that is started for the other side"),
            long("extcmd", "names the program that shows differences"),
            long("open-files-in-pager", "names the program that opens what was found"),
            long("template", "names a folder with hooks"),
            long("config", "sets any configuration of the new repository").with("clone"),
            short('c', "sets any configuration of the new repository").with("clone"),
            short('u', "names the program that is started for the other side").with("clone"),
            short('x', "names a program for each step").with("rebase"),
            short('O', "names the program that opens what was found").with("grep"),
            exact("run", "starts a program at each step").with("bisect"),
            exact("foreach", "starts a shell command in each submodule").with("submodule"),
            prefix("ext::", "a transport that is any command"),
            prefix("fd::", "a transport over descriptors of somebody else"),
            lead("daemon", "serves the network"),
            lead("difftool", "starts a program of the configuration"),
            lead("filter-branch", "starts shell commands"),
            lead("instaweb", "starts a web server and a browser"),
            lead("mergetool", "starts a program of the configuration"),
            lead("remote-ext", "starts any command as a transport"),
            lead("remote-fd", "is a transport over descriptors of somebody else"),
            lead("send-email", "starts a mail program"),
            lead("shell", "starts what it is sent"),
        ],
    },
    Schema {
        programs: &["find"],
        rules: &[
            exact("-exec", "starts a program"),
            exact("-execdir", "starts a program"),
            exact("-ok", "starts a program"),
            exact("-okdir", "starts a program"),
            exact("-fls", "writes any file"),
            exact("-fprint", "writes any file"),
            exact("-fprint0", "writes any file"),
            exact("-fprintf", "writes any file"),
            exact("-delete", "removes what it finds").asking(),
        ],
    },
    Schema {
        programs: &["tar", "bsdtar", "gtar"],
        rules: &[
            long("to-command", "pipes each file to a program"),
            long("use-compress-program", "starts a program"),
            long("checkpoint-action", "may start a program"),
            long("rsh-command", "starts a program"),
            long("rmt-command", "starts a program"),
            long("new-volume-script", "starts a program"),
            long("info-script", "starts a program"),
            deny(Like::Old('I'), "starts a program to compress"),
            deny(Like::Old('F'), "starts a program at the end of a tape"),
        ],
    },
    Schema {
        programs: &["rsync"],
        rules: &[
            long("rsh", "names the remote shell"),
            long("rsync-path", "names the program at the other side"),
            long("config", "names a file that may start programs"),
            short('e', "names the remote shell"),
        ],
    },
    Schema { programs: &["sort"], rules: &[long("compress-program", "starts a program")] },
    Schema {
        programs: &["rg"],
        rules: &[long("pre", "starts a program for each file"), long("hostname-bin", "starts a program")],
    },
    Schema {
        programs: &["ssh", "scp", "sftp"],
        rules: &[
            short('o', "sets any option, and with it ProxyCommand"),
            short('F', "names a file that may set ProxyCommand"),
            short('S', "names the program that connects, or a socket of somebody else"),
            short('J', "starts ssh with another host"),
            short('D', "names the program that serves (scp, sftp), or opens a port"),
            short('I', "loads a library"),
        ],
    },
    Schema {
        programs: &["make", "gmake"],
        rules: &[
            prefix("SHELL", "names the shell of every recipe"),
            prefix(".SHELL", "names the options of that shell"),
            long("eval", "is text of a makefile"),
            short('E', "is text of a makefile"),
        ],
    },
    Schema {
        programs: &["cargo"],
        rules: &[
            long("config", "names compilers, linkers and runners"),
            prefix("+/", "names a toolchain by its folder"),
            prefix("+.", "names a toolchain by its folder"),
            lead("login", "keeps a credential"),
            lead("logout", "removes a credential"),
            lead("owner", "changes who may publish"),
            lead("publish", "publishes"),
            lead("yank", "publishes"),
            lead("install", "installs programs for every later command").asking(),
        ],
    },
    Schema { programs: &["split"], rules: &[long("filter", "starts a shell for each piece")] },
    Schema {
        programs: &["fd", "fdfind"],
        rules: &[
            long("exec", "starts a program for each file"),
            long("exec-batch", "starts a program"),
            short('x', "starts a program for each file"),
            short('X', "starts a program"),
        ],
    },
    Schema {
        programs: &["zip"],
        rules: &[
            prefix("-TT", "starts a program to test the archive"),
            long("unzip-command", "starts a program to test the archive"),
        ],
    },
    Schema {
        programs: &["npm", "pnpm", "yarn"],
        rules: &[
            long("node-options", "loads code into every script"),
            long("script-shell", "names the shell of every script"),
            lead("adduser", "keeps a credential"),
            lead("login", "keeps a credential"),
            // npm takes the beginning of a command for the command, and yarn has it below `npm`.
            exact("pu", "publishes"),
            exact("pub", "publishes"),
            exact("publ", "publishes"),
            exact("publi", "publishes"),
            exact("publis", "publishes"),
            exact("publish", "publishes"),
            prefix("unp", "publishes"),
        ],
    },
    Schema {
        programs: &["pip", "pip3"],
        rules: &[lead("config", "changes where packages come from"), long("python", "names an interpreter")],
    },
    Schema {
        programs: &["go"],
        rules: &[
            prefix("-toolexec", "starts a program for each tool"),
            prefix("-exec", "starts a program for each test"),
            prefix("-vettool", "starts a program"),
            long("toolexec", "starts a program for each tool"),
            long("exec", "starts a program for each test"),
            long("vettool", "starts a program"),
        ],
    },
    Schema {
        programs: &["cc", "c++", "gcc", "g++", "clang", "clang++"],
        rules: &[
            exact("-wrapper", "starts a program for each step"),
            prefix("-fplugin", "loads code into the compiler"),
            prefix("-fpass-plugin", "loads code into the compiler"),
            prefix("-iplugindir", "names the folder of code for the compiler"),
            exact("-load", "loads code into the compiler"),
            // What begins with two dashes is the same as with `-f`.
            long("plugin", "loads code into the compiler"),
            prefix("-plugin", "loads code into the linker"),
            prefix("-Wl,-plugin", "loads code into the linker"),
            prefix("-Wl,--plugin", "loads code into the linker"),
            prefix("-fuse-ld=/", "names the linker"),
            prefix("-fuse-ld=.", "names the linker"),
            long("ld-path", "names the linker"),
            prefix("-specs", "names a file that says which programs are started"),
            long("specs", "names a file that says which programs are started"),
            prefix("-B", "names the folder where the compiler's programs are"),
            long("prefix", "names the folder where the compiler's programs are"),
            prefix("@", "names a file with further arguments, which nobody has judged"),
        ],
    },
    Schema {
        programs: &["ar", "ld", "nm", "ranlib"],
        rules: &[
            prefix("-plugin", LOADS),
            long("plugin", LOADS),
            prefix("@", "names a file with further arguments, which nobody has judged"),
        ],
    },
    Schema {
        programs: &["rustc", "rustdoc"],
        rules: &[
            prefix("linker=", LINKER),
            prefix("-Clinker=", LINKER),
            prefix("--codegen=linker=", LINKER),
            // Letters before it in a cluster.
            prefix("-gC", LINKER),
            prefix("-OC", LINKER),
            prefix("-vC", LINKER),
            prefix("-gO", LINKER),
            prefix("-Og", LINKER),
            prefix("@", "names a file with further arguments, which nobody has judged"),
            long("test-runtool", "starts a program for each test"),
        ],
    },
    Schema {
        programs: &["rustup"],
        rules: &[
            lead("run", "starts a program"),
            lead("self", "changes the program itself"),
            exact("link", "names a toolchain by its folder").with("toolchain"),
        ],
    },
    Schema {
        programs: &["ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh"],
        rules: &[
            short('c', "is text that it runs"),
            short('s', "makes it run its standard input"),
            short('C', "is text that it runs first (fish)"),
            long("command", "is text that it runs (fish)"),
            long("init-command", "is text that it runs first (fish)"),
            long("init-file", "names a file that it runs first"),
            long("rcfile", "names a file that it runs first"),
            exact("-", STDIN),
            prefix("/dev/", STDIN),
            prefix("/proc/", STDIN),
        ],
    },
    Schema {
        programs: &["pypy", "python"],
        rules: &[
            short('c', "is text that it runs"),
            short('m', "runs a module, some of which run text"),
            short('i', "makes it run its standard input after the file"),
            exact("-", STDIN),
            prefix("/dev/", STDIN),
            prefix("/proc/", STDIN),
        ],
    },
    Schema {
        programs: &["lua", "luajit", "perl", "php", "Rscript", "ruby"],
        rules: &[
            short('e', "is text that it runs"),
            short('E', "is text that it runs"),
            short('M', "loads a module, and is text that it runs (perl)"),
            short('m', "loads a module, and is text that it runs (perl)"),
            short('r', "is text that it runs (php), or loads a library (ruby)"),
            short('l', "loads a library (lua)"),
            short('B', "is text that it runs first (php)"),
            short('a', "makes it run its standard input (php)"),
            short('i', "makes it run its standard input after the file (lua)"),
            short('z', "loads a library (php)"),
            long("interactive", "makes it run its standard input (php)"),
            short('R', "is text that it runs for each line (php)"),
            short('d', "sets any configuration (php), or starts a debugger"),
            long("run", "is text that it runs (php)"),
            long("process-begin", "is text that it runs first (php)"),
            long("process-code", "is text that it runs for each line (php)"),
            long("process-end", "is text that it runs last (php)"),
            exact("-", STDIN),
            prefix("/dev/", STDIN),
            prefix("/proc/", STDIN),
        ],
    },
    Schema {
        programs: &["bun", "deno", "node", "nodejs"],
        rules: &[
            short('e', "is text that it runs"),
            short('p', "is text that it runs"),
            short('r', "loads a module first"),
            short('i', STDIN),
            long("interactive", STDIN),
            prefix("data:", "is text that it runs"),
            lead("exec", "is followed by text that it runs (bun)"),
            long("eval", "is text that it runs"),
            long("print", "is text that it runs"),
            long("require", "loads a module first"),
            long("import", "loads a module first"),
            long("loader", "loads a module first"),
            long("experimental-loader", "loads a module first"),
            long("preload", "loads a module first (bun)"),
            lead("eval", "is followed by text that it runs (deno)"),
            lead("repl", STDIN),
            lead("x", "starts a program of a package (bun)"),
            exact("-", STDIN),
            prefix("/dev/", STDIN),
            prefix("/proc/", STDIN),
        ],
    },
    Schema {
        programs: &["less", "more", "most"],
        rules: &[
            prefix("+", "is a command of the pager, which starts programs"),
            short('k', "names a file that may start programs"),
            long("lesskey", "names a file that may start programs"),
            long("lesskey-src", "names a file that may start programs"),
            long("lesskey-content", "is a text that may start programs"),
            long("cmd", "is a command of the pager, which starts programs"),
        ],
    },
    Schema { programs: TEXTS, rules: &[prefix("", "it runs the text that it is given")] },
    Schema {
        programs: EDITORS,
        rules: &[prefix("", "it starts any program that its script or its keys name")],
    },
    Schema { programs: LAUNCHERS, rules: &[prefix("", "it starts whatever it is given")] },
];

const LINKER: &str = "names the linker";
const LOADS: &str = "loads code into the program";
const STDIN: &str = "makes it run what nobody has judged";

/// The built-in rules of a program, by name or path.
pub(super) fn rules(program: &str) -> impl Iterator<Item = &'static Known> {
    let (name, plain) = names(program);
    let is_of = move |list: &[&str]| list.contains(&name) || list.contains(&plain);
    SCHEMAS.iter().filter(move |schema| is_of(schema.programs)).flat_map(|schema| schema.rules)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::programs::INTERPRETERS;
    use super::*;

    #[test]
    fn every_row_has_a_reason_and_every_program_one_schema() {
        let mut seen = BTreeSet::new();
        for schema in SCHEMAS {
            assert!(schema.programs.iter().all(|program| seen.insert(*program)), "{:?}", schema.programs);
            assert!(schema.rules.iter().all(|rule| rule.why.len() > 8));
        }
        // An interpreter that no row is about would be held to nothing.
        assert!(INTERPRETERS.iter().all(|program| seen.contains(program)), "{seen:?}");
    }
}
