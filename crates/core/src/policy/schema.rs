//! Rules on the arguments of a program, and how one is matched.
//!
//! Shapes and no regular expressions: a shape can be compared, printed and proven total. Every
//! shape errs on the side of denial: abbreviations of long options, letters in clusters, and what
//! follows `--` are matched too. The built-in table is [`known`].

mod known;
mod programs;

use std::borrow::Cow;

use crate::limits;

pub use programs::{is_interpreter, is_launcher};

/// Text that is built in, or came with a document.
type Text = Cow<'static, str>;

/// What a matching argument means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The command is refused.
    Deny,
    /// A person is asked.
    Ask,
}

impl Effect {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Ask => "ask",
        }
    }
}

/// One rule: what an argument looks like, and what that means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArgRule {
    /// What it means.
    pub effect: Effect,
    /// What it looks like.
    pub shape: Shape,
    /// Only when this word is among the arguments too.
    pub with: Option<Text>,
}

/// What an argument looks like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// `--NAME`, `--NAME=…`, and every abbreviation of it down to one letter. Without the dashes.
    Long(Text),
    /// This letter in any cluster after one dash: `-c`, `-xc`, `-cVALUE`.
    Short(char),
    /// The same, and in a first argument without a dash: `tar xIf`.
    Old(char),
    /// Exactly this.
    Exact(Text),
    /// Whatever begins so. The empty prefix is every argument.
    Prefix(Text),
    /// Exactly this, up to and including the first word. A word is an argument that is no option
    /// and does not follow one, since it could be the option's value.
    Lead(Text),
    /// The first word, when it is none of these. What follows an option before it may be the first
    /// one too, and is held to the same.
    First(Cow<'static, [Text]>),
}

impl Shape {
    /// How a rule with it is shown: `--exec-path`, `-c`, `daemon`, `ext::*`.
    pub fn shown(&self) -> String {
        match self {
            Self::Long(name) => format!("--{name}"),
            Self::Short(letter) | Self::Old(letter) => format!("-{letter}"),
            Self::Exact(text) | Self::Lead(text) => text.clone().into_owned(),
            Self::Prefix(text) => format!("{text}*"),
            Self::First(_) => "first word".to_owned(),
        }
    }

    /// Whether one of the arguments, the program not counted, looks like this.
    fn is_among(&self, args: &[String]) -> bool {
        let any = |looks: &dyn Fn(&str) -> bool| args.iter().any(|arg| looks(arg));
        match self {
            Self::Long(name) => any(&|arg| is_long(arg, name)),
            Self::Short(letter) => any(&|arg| has_letter(arg, *letter)),
            Self::Old(letter) => {
                any(&|arg| has_letter(arg, *letter))
                    || args.first().is_some_and(|arg| !arg.starts_with('-') && arg.contains(*letter))
            }
            Self::Exact(text) => any(&|arg| arg == text),
            Self::Prefix(text) => any(&|arg| arg.starts_with(text.as_ref())),
            Self::Lead(text) => lead(args).iter().any(|arg| arg == text),
            Self::First(words) => {
                let may_be = |arg: &&String| !arg.starts_with('-');
                lead(args).iter().filter(may_be).any(|arg| !words.iter().any(|word| word == arg))
            }
        }
    }
}

impl ArgRule {
    /// Whether it may stand in a document: its texts say something and are bounded.
    pub(super) fn is_sound(&self) -> bool {
        let sound = |text: &Text| !text.is_empty() && text.len() <= limits::PATH_BYTES_MAX;
        let shape = match &self.shape {
            Shape::Long(text) => sound(text) && !text.starts_with('-') && !text.contains('='),
            Shape::Exact(text) | Shape::Prefix(text) | Shape::Lead(text) => sound(text),
            Shape::Short(letter) | Shape::Old(letter) => *letter != '-' && !letter.is_control(),
            Shape::First(words) => words.len() <= limits::ARG_RULES_MAX && words.iter().all(sound),
        };
        shape && self.with.as_ref().is_none_or(sound)
    }

    fn matches(&self, args: &[String]) -> bool {
        let with = self.with.as_ref().is_none_or(|word| args.iter().any(|arg| arg == word));
        with && self.shape.is_among(args)
    }
}

/// What a rule says of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// What it means.
    pub(super) effect: Effect,
    /// The shape that matched, for people.
    pub(super) shape: String,
    /// Why the rule is there, when it is a built-in one.
    pub(super) why: Option<&'static str>,
}

/// The first rule that denies, or else the first that asks: the program's built-in ones, then its
/// own. Total over any arguments.
pub(super) fn check(program: &str, args: &[String], own: &[ArgRule]) -> Option<Hit> {
    let known = known::rules(program).map(|known| (Cow::Owned(known.rule()), Some(known.why)));
    let own = own.iter().map(|rule| (Cow::Borrowed(rule), None));
    let mut asked = None;
    for (rule, why) in known.chain(own).filter(|(rule, _)| rule.matches(args)) {
        let hit = Hit { effect: rule.effect, shape: rule.shape.shown(), why };
        match hit.effect {
            Effect::Deny => return Some(hit),
            Effect::Ask => asked = asked.or(Some(hit)),
        }
    }
    if programs::reads_commands(program, args) {
        let why = Some("without a file it runs whatever comes there");
        return Some(Hit { effect: Effect::Deny, shape: "standard input".to_owned(), why });
    }
    asked
}

/// Whether there are built-in rules on the arguments of a program.
pub(super) fn is_known(program: &str) -> bool {
    known::rules(program).next().is_some() || programs::runs_its_input(program)
}

/// The last part of a program's path.
pub(super) fn base_name(program: &str) -> &str {
    program.rsplit('/').find(|part| !part.is_empty()).unwrap_or(program)
}

/// `--exec-p` and `--exec-path=/x` are `exec-path`; `--exec-paths` is not.
fn is_long(arg: &str, name: &str) -> bool {
    let Some(given) = arg.strip_prefix("--") else { return false };
    let given = given.split_once('=').map_or(given, |(given, _)| given);
    !given.is_empty() && name.starts_with(given)
}

fn has_letter(arg: &str, letter: char) -> bool {
    arg.strip_prefix('-').is_some_and(|cluster| !cluster.starts_with('-') && cluster.contains(letter))
}

/// A `+` begins no word: `cargo +stable publish` publishes.
fn is_word(arg: &str) -> bool {
    !arg.starts_with(['-', '+'])
}

/// The arguments up to and including the first word.
fn lead(args: &[String]) -> &[String] {
    let takes_value = |arg: &String| arg.starts_with('-') && !(arg.starts_with("--") && arg.contains('='));
    let after_option = |at: usize| at > 0 && args.get(at - 1).is_some_and(takes_value);
    let end = args.iter().enumerate().position(|(at, arg)| is_word(arg) && !after_option(at));
    end.and_then(|end| args.get(..=end)).unwrap_or(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn verdict(argv: &[&str]) -> String {
        let argv = words(argv);
        match check(&argv[0], &argv[1..], &[]) {
            Some(hit) => format!("{} {}", hit.effect.as_str(), hit.shape),
            None => "ok".to_owned(),
        }
    }

    #[test]
    fn arguments_that_run_code_are_caught_in_every_spelling() {
        for (argv, answer) in [
            (&["git", "status"][..], "ok"),
            (&["git", "-C", "/w", "log", "--oneline"], "ok"),
            (&["git", "switch", "-c", "release-1.2"], "ok"),
            (&["git", "-C", "/w", "switch", "-c", "x"], "ok"),
            (&["git", "-c", "core.pager=id", "log"], "deny -c"),
            (&["git", "-C", "/w", "-c", "core.pager=id", "log"], "deny -c"),
            (&["git", "--exec-path=/tmp", "log"], "deny --exec-path"),
            (&["git", "--exec-p", "/tmp", "log"], "deny --exec-path"),
            (&["git", "fetch", "--upload-pa", "id"], "deny --upload-pack"),
            (&["git", "fetch", "--", "--upload-pack=id"], "deny --upload-pack"),
            (&["git", "clone", "-u", "id", "."], "deny -u"),
            (&["git", "push", "-u", "origin", "main"], "ok"),
            (&["git", "clone", "ext::sh -c id"], "deny ext::*"),
            (&["git", "rebase", "-x", "id", "main"], "deny -x"),
            (&["git", "rebase", "--ex=id"], "deny --exec"),
            (&["git", "submodule", "foreach", "id"], "deny foreach"),
            (&["git", "bisect", "run", "id"], "deny run"),
            (&["git", "grep", "-Oid", "x"], "deny -O"),
            (&["find", ".", "-name", "x"], "ok"),
            (&["find", ".", "-exec", "id", ";"], "deny -exec"),
            (&["find", ".", "-delete"], "ask -delete"),
            (&["find", ".", "-delete", "-exec", "id", ";"], "deny -exec"),
            (&["tar", "-cf", "x.tar", "a"], "ok"),
            (&["tar", "--to-command=id", "-xf", "x"], "deny --to-command"),
            (&["tar", "-xIid", "-f", "x"], "deny -I"),
            (&["tar", "xIf", "id", "x"], "deny -I"),
            (&["tar", "--checkpoint-act=exec=id"], "deny --checkpoint-action"),
            (&["rsync", "-avze", "sh -c id", "a", "b"], "deny -e"),
            (&["sort", "--compress-prog=id"], "deny --compress-program"),
            (&["rg", "--pre", "id", "x"], "deny --pre"),
            (&["rg", "--pretty", "x"], "ok"),
            (&["cargo", "build", "--release"], "ok"),
            (&["cargo", "--config", "x", "build"], "deny --config"),
            (&["cargo", "--offline", "publish"], "deny publish"),
            (&["cargo", "test", "publish"], "ok"),
            (&["cargo", "+stable", "publish"], "deny publish"),
            (&["cargo", "+stable", "test", "publish"], "ok"),
            (&["cargo", "--color=never", "test", "publish"], "ok"),
            (&["cargo", "install", "x"], "ask install"),
            (&["make", "SHELL=/bin/sh"], "deny SHELL*"),
            (&["gcc", "-wrapper", "id", "x.c"], "deny -wrapper"),
            (&["gcc", "@args"], "deny @*"),
            (&["go", "build", "-toolexec", "id"], "deny -toolexec*"),
            (&["ssh", "-oProxyCommand=id", "h"], "deny -o"),
            (&["/usr/bin/find", ".", "-exec", "id"], "deny -exec"),
            (&["env"], "ok"),
            (&["env", "-Ssh"], "deny *"),
            (&["timeout", "5", "sh"], "deny *"),
            (&["ls", "--exec", "-c"], "ok"),
            (&["python3", "manage.py", "test"], "ok"),
            (&["python3.11", "-Bc", "id"], "deny -c"),
            (&["python3"], "deny standard input"),
            (&["python3", "-u"], "deny standard input"),
            (&["python3", "-", "x"], "deny -"),
            (&["sh", "build.sh"], "ok"),
            (&["bash", "-xec", "id"], "deny -c"),
            (&["bash", "/dev/stdin"], "deny /dev/*"),
            (&["perl", "-ne", "id"], "deny -e"),
            (&["node", "--ev", "id"], "deny --eval"),
            (&["awk", "BEGIN{system(\"id\")}"], "deny *"),
            (&["sed", "1e id", "x"], "deny *"),
            (&["vi", "-c", "!id"], "deny *"),
            (&["vim"], "deny standard input"),
            (&["less", "+!id", "x"], "deny +*"),
            (&["unshare"], "deny standard input"),
            (&["gcc-12", "-wrapper", "id", "x.c"], "deny -wrapper"),
            (&["scp", "-D", "id", "a", "b"], "deny -D"),
            (&["git", "remote-ext", "x", "sh -c id"], "deny remote-ext"),
            (&["gcc", "--plugin=/tmp/x.so", "x.c"], "deny --plugin"),
            (&["gcc", "--prefix", "/tmp/x/", "x.c"], "deny --prefix"),
            (&["cc", "-Wl,-plugin,/tmp/x.so", "x.c"], "deny -Wl,-plugin*"),
            (&["clang", "-fpass-plugin=/tmp/x.so", "x.c"], "deny -fpass-plugin*"),
            (&["ld", "-plugin", "/tmp/x.so", "x.o"], "deny -plugin*"),
            (&["ar", "--plugin", "/tmp/x.so", "t", "x.a"], "deny --plugin"),
            (&["rustc", "-C", "linker=/tmp/x", "x.rs"], "deny linker=*"),
            (&["rustc", "-gClinker=/tmp/x", "x.rs"], "deny -gC*"),
            (&["rustc", "--codegen=linker=/tmp/x", "x.rs"], "deny --codegen=linker=*"),
            (&["rustc", "-O", "-g", "-C", "opt-level=3", "x.rs"], "ok"),
            (&["npm", "publi"], "deny publi"),
            (&["yarn", "npm", "publish"], "deny publish"),
            (&["split", "--filter=id", "x"], "deny --filter"),
            (&["fd", "-Hx", "id"], "deny -x"),
            (&["zip", "-T", "-TT", "id", "x.zip", "x"], "deny -TT*"),
        ] {
            assert_eq!(verdict(argv), answer, "{argv:?}");
        }
    }

    #[test]
    fn an_interpreter_that_is_given_no_file_is_not_started_for_its_standard_input() {
        let input = "deny standard input";
        for (argv, answer) in [
            (&["python3", "-u", "x.py"][..], "ok"),
            (&["python3", "-W", "ignore", "x.py"], "ok"),
            (&["python3", "-W", "ignore"], input),
            (&["python3", "-uX", "dev"], input),
            (&["python3", "--", "x.py"], "ok"),
            (&["python3", "-i", "x.py"], "deny -i"),
            (&["bash", "-ex", "x.sh"], "ok"),
            (&["bash", "--norc", "x.sh"], "ok"),
            (&["bash", "-o", "pipefail", "x.sh"], "ok"),
            (&["bash", "-o", "pipefail"], input),
            (&["bash", "-ox", "pipefail"], input),
            (&["bash", "+O", "extglob"], input),
            (&["bash", "+x"], input),
            (&["perl", "-I", "lib"], input),
            (&["perl", "-w", "x.pl"], "ok"),
            (&["node", "--title", "job"], input),
            (&["node", "--title=x", "x.js"], "ok"),
            (&["node", "-i"], "deny -i"),
            (&["deno", "run", "data:text/javascript,1"], "deny data:*"),
            (&["R", "x"], "deny *"),
        ] {
            assert_eq!(verdict(argv), answer, "{argv:?}");
        }
    }

    #[test]
    fn standard_input_is_no_file_however_its_path_is_spelt() {
        for path in [
            "//dev/stdin",
            "/./dev/fd/0",
            "/usr/../dev/stdin",
            "../dev/stdin",
            "a/../../proc/self/fd/0",
            "dev/stdin",
        ] {
            assert_eq!(verdict(&["bash", path]), "deny standard input", "{path}");
        }
        for path in ["dev/setup.sh", "/srv/dev/setup.sh", "../dev/setup.sh", "proc/x.sh", "./x.sh"] {
            assert_eq!(verdict(&["bash", path]), "ok", "{path}");
        }
    }

    #[test]
    fn a_word_after_an_option_may_be_the_first_one() {
        let first = [ArgRule {
            effect: Effect::Deny,
            shape: Shape::First(Cow::Owned(vec!["status".into()])),
            with: None,
        }];
        let is_hit = |argv: &[&str]| check("git", &words(argv), &first).is_some();
        assert!(!is_hit(&["status", "push"]) && !is_hit(&["--no-pager", "status"]));
        assert!(!is_hit(&["--work-tree=/w", "status", "push"]));
        assert!(is_hit(&["--no-pager", "push", "-q", "status"]), "`status` is not what is done");
        assert!(is_hit(&["+x", "status"]));
    }

    #[test]
    fn own_rules_come_beside_the_built_in_ones_and_denial_before_asking() {
        let rule = |effect, shape, with: Option<&'static str>| ArgRule {
            effect,
            shape,
            with: with.map(Cow::Borrowed),
        };
        let own = [
            rule(Effect::Ask, Shape::First(Cow::Owned(vec!["status".into(), "log".into()])), None),
            rule(Effect::Deny, Shape::Exact("--force".into()), Some("push")),
        ];
        let verdict = |argv: &[&str]| check("git", &words(argv), &own).map(|hit| (hit.effect, hit.shape));
        assert_eq!(verdict(&["status"]), None);
        assert_eq!(verdict(&["fetch"]), Some((Effect::Ask, "first word".to_owned())));
        assert_eq!(verdict(&["push", "--force"]), Some((Effect::Deny, "--force".to_owned())));
        assert_eq!(verdict(&["log", "--force"]), None);
        assert_eq!(verdict(&["-c", "x=y", "status"]), Some((Effect::Deny, "-c".to_owned())));
    }

    #[test]
    fn a_rule_without_a_meaning_may_not_be_set() {
        let sound = |shape| ArgRule { effect: Effect::Deny, shape, with: None }.is_sound();
        for shape in [
            Shape::Long("".into()),
            Shape::Long("--x".into()),
            Shape::Long("x=y".into()),
            Shape::Exact("".into()),
            Shape::Prefix("".into()),
            Shape::Short('-'),
            Shape::First(Cow::Owned(vec!["".into()])),
        ] {
            assert!(!sound(shape.clone()), "{shape:?}");
        }
        assert!(sound(Shape::Short('c')) && sound(Shape::First(Cow::Owned(vec![]))));
    }
}
