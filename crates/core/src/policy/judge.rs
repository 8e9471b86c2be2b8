//! The one judgement of a command: at the hub before it is accepted, for `policy test`, and again
//! at the node. Equal questions have equal answers, down to the name of the rule.
//!
//! The order of the rules is the order of [`judge`]; the first refusal is the answer. A denial comes
//! before a question to a person, so that nobody is asked for what no person may allow.

use std::fmt;

use super::ceiling::{Bounds, Ceiling, Site};
use super::document::{Args, Document, Program, Sensitive, is_reserved};
use super::schema::{self, Effect, base_name};
use super::{Mode, is_interpreter};
use crate::error::{Code, Refusal};
use crate::name::printable;
use crate::path;
use crate::run::RunSpec;
use crate::sandbox::{Level, Limits, Network, Place, Root, Walls};
use crate::time::WallTime;

/// Folders that every room has, beside `/` itself: where a run may be started whatever its roots.
const BASE: &[&str] = &["/bin", "/lib", "/lib32", "/lib64", "/opt", "/sbin", "/tmp", "/usr"];

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The command.
    pub spec: &'a RunSpec,
    /// The node's name, for words.
    pub node: &'a str,
    /// The machine.
    pub site: &'a Site,
    /// The hub's clock. A node has none: there a leave ends by the revision that takes it away.
    pub now: Option<WallTime>,
    /// Whether a person has said yes to exactly this command. It lifts `sensitive`, rules on
    /// arguments that ask, and `exec.allow`; nothing else.
    pub consent: bool,
}

/// Leave, or the need of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may run.
    Allowed {
        /// By which rule.
        rule: Rule,
    },
    /// It may run when a person says so.
    Ask {
        /// By which rule.
        rule: Rule,
    },
}

/// The name of a rule: `exec.allow`, `exec.args git -c`, `local.roots.cwd`. What stands after a
/// blank is for people and free of control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule(pub(super) String);

impl Rule {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The rule behind a refusal; `None` when no policy made it.
    pub fn of(refusal: &Refusal) -> Option<&str> {
        refusal.details.iter().find(|(name, _)| *name == "rule").map(|(_, rule)| rule.as_str())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Answer {
    /// The rule that gave it.
    pub const fn rule(&self) -> &Rule {
        match self {
            Self::Allowed { rule } | Self::Ask { rule } => rule,
        }
    }

    /// The rule that allows it.
    ///
    /// # Errors
    /// `consent_required` when a person has to answer first.
    pub fn allowed(self, node: &str) -> Result<Rule, Refusal> {
        match self {
            Self::Allowed { rule } => Ok(rule),
            Self::Ask { rule } => {
                let message = format!("A person has to allow this command on {node} (rule {rule}).");
                Err(Refusal::new(Code::ConsentRequired, message).detail("rule", rule.0))
            }
        }
    }
}

/// Judges a command.
///
/// # Errors
/// What [`RunSpec::check`] says; `policy_denied` and `sandbox_unavailable`, with the rule's name in
/// the detail `rule`.
pub fn judge(document: &Document, question: &Question<'_>) -> Result<Answer, Refusal> {
    let Question { spec, site, consent, .. } = *question;
    spec.check()?;
    let mut asked = None;
    let hub = Side::hub(document);
    let by = hub.judge(question, consent, &mut asked)?;
    for ceiling in &site.ceilings {
        Side::local(ceiling, document.mode, question.node)?.judge(question, false, &mut asked)?;
    }
    check_level(document, site, question.node)?;
    let asked = asked.or_else(|| sensitive(document, site, &spec.argv));
    match asked.filter(|_| !consent) {
        Some(rule) => Ok(Answer::Ask { rule }),
        None => Ok(Answer::Allowed { rule: Rule(by.to_owned()) }),
    }
}

/// The entry on commands that need a person which these words match, of the document before those of the
/// ceilings.
pub(super) fn sensitive(document: &Document, site: &Site, argv: &[String]) -> Option<Rule> {
    let bounds = site.ceilings.iter().filter_map(Ceiling::bounds);
    let local = bounds.flat_map(|bounds| bounds.sensitive.iter().map(|one| ("local.", one)));
    let mut all = document.sensitive.iter().map(|one| ("", one)).chain(local);
    let (prefix, one) = all.find(|(_, one)| one.matches(argv))?;
    Some(Rule(format!("{prefix}sensitive {}", one.shown())))
}

/// What a ceiling says, when it can be read and lets the policy be what it is.
pub(super) fn local_bounds<'a>(ceiling: &'a Ceiling, hub: Mode, node: &str) -> Result<&'a Bounds, Refusal> {
    let Some(bounds) = ceiling.bounds() else {
        let message = format!(
            "The ceiling file of {node} cannot be read, so nothing is allowed (rule local.unreadable)."
        );
        return Err(Refusal::new(Code::PolicyDenied, message)
            .hint("Ask the owner of that machine to mend its ceiling file and to start the node again.")
            .detail("rule", "local.unreadable"));
    };
    if bounds.mode == Some(Mode::Strict) && hub == Mode::Permissive {
        let message =
            format!("{node} is set to PERMISSIVE, which its owner does not allow (rule local.mode).");
        return Err(Refusal::new(Code::PolicyDenied, message)
            .hint(format!("Ask an administrator for `cortex policy set {node} strict`."))
            .detail("rule", "local.mode"));
    }
    Ok(bounds)
}

/// Those parts of a document or of a ceiling that judge a command. `None` bounds nothing.
struct Side<'a> {
    /// `local.` for a ceiling.
    prefix: &'static str,
    mode: Mode,
    always_denied: &'a [String],
    deny: &'a [String],
    programs: Option<&'a [Program]>,
    roots: Option<&'a [Root]>,
    env: Option<&'a [String]>,
    timeout_ms_max: Option<u64>,
}

impl<'a> Side<'a> {
    fn hub(document: &'a Document) -> Self {
        let strict = document.mode == Mode::Strict;
        Self {
            prefix: "",
            mode: document.mode,
            always_denied: &document.always_denied,
            deny: &document.deny,
            programs: strict.then_some(&document.programs),
            roots: strict.then_some(&document.roots),
            env: strict.then_some(&document.env),
            timeout_ms_max: Some(document.timeout_ms_max),
        }
    }

    fn local(ceiling: &'a Ceiling, hub: Mode, node: &str) -> Result<Self, Refusal> {
        let bounds = local_bounds(ceiling, hub, node)?;
        Ok(Self {
            prefix: "local.",
            mode: hub,
            always_denied: &[],
            deny: &bounds.deny,
            programs: bounds.programs.as_deref(),
            roots: bounds.roots.as_deref(),
            env: bounds.env.as_deref(),
            timeout_ms_max: bounds.timeout_ms_max,
        })
    }

    /// The rules in their order; returns the one that allows.
    fn judge(
        &self,
        question: &Question<'_>,
        consent: bool,
        asked: &mut Option<Rule>,
    ) -> Result<&'static str, Refusal> {
        let spec = question.spec;
        let program = spec.argv.first().map_or("", String::as_str);
        let denies = |list: &[String]| list.iter().any(|denied| denies(denied, program));
        if denies(self.always_denied) {
            return Err(self.denied(question, "exec.always_denied"));
        }
        if denies(self.deny) {
            return Err(self.denied(question, "exec.deny"));
        }
        let by = match self.programs {
            None => "mode.permissive",
            Some(programs) => {
                let found = self.find(programs, question)?;
                let args = match found {
                    Some(program) => program.args.clone(),
                    None if consent => Program::granted(program.to_owned(), None).args,
                    None => return Err(self.denied(question, "exec.allow")),
                };
                self.check_args(&args, question, asked)?;
                if found.is_some() { "exec.allow" } else { "consent" }
            }
        };
        self.check_cwd(question)?;
        self.check_env(question)?;
        self.check_timeout(question)?;
        Ok(by)
    }

    fn find<'p>(
        &self,
        programs: &'p [Program],
        question: &Question<'_>,
    ) -> Result<Option<&'p Program>, Refusal> {
        let name = question.spec.argv.first().map_or("", String::as_str);
        if name.contains('/') && !name.starts_with('/') {
            return Err(self.denied(question, "exec.path"));
        }
        Ok(programs.iter().find(|program| program.name == name && program.holds(question.now)))
    }

    fn check_args(
        &self,
        args: &Args,
        question: &Question<'_>,
        asked: &mut Option<Rule>,
    ) -> Result<(), Refusal> {
        let own = match args {
            Args::Any => return Ok(()),
            Args::Known => &[][..],
            Args::Rules(rules) => rules.as_slice(),
        };
        let Some((program, args)) = question.spec.argv.split_first() else { return Ok(()) };
        let Some(hit) = schema::check(program, args, own) else { return Ok(()) };
        let rule = format!(
            "{}exec.args {} {}",
            self.prefix,
            printable(base_name(program), 80),
            printable(&hit.shape, 80)
        );
        match hit.effect {
            Effect::Ask => {
                asked.get_or_insert(Rule(rule));
                Ok(())
            }
            Effect::Deny => {
                let why = hit.why.map(|why| format!(": it {why}")).unwrap_or_default();
                let message = format!(
                    "{} does not let `{}` be given `{}`{} (rule {rule}).",
                    question.node,
                    printable(program, 80),
                    printable(&hit.shape, 80),
                    why.replace(": it it ", ": it "),
                );
                let hint = if !self.prefix.is_empty() {
                    OWNER.to_owned()
                } else if is_plain(program) {
                    let node = question.node;
                    format!(
                        "Leave the argument out, or ask an administrator for `cortex policy allow {node} {program} --any-arguments`. Do not retry unchanged."
                    )
                } else {
                    "Leave the argument out, or ask an administrator. Do not retry unchanged.".to_owned()
                };
                Err(Refusal::new(Code::PolicyDenied, message).hint(hint).detail("rule", rule))
            }
        }
    }

    fn check_cwd(&self, question: &Question<'_>) -> Result<(), Refusal> {
        let (Some(roots), Some(cwd)) = (self.roots, question.spec.cwd.as_deref()) else { return Ok(()) };
        if is_within(cwd, roots, &question.site.ground.place) {
            return Ok(());
        }
        let rule = format!("{}roots.cwd", self.prefix);
        let (node, shown) = (question.node, printable(cwd, 200));
        let message =
            format!("`{shown}` is below none of the folders that runs on {node} have (rule {rule}).");
        let hint = if self.prefix.is_empty() {
            format!(
                "Use one of: {}. Or an administrator runs `cortex policy allow {node} --root PATH:rw`.",
                roots_shown(roots, &question.site.ground.place)
            )
        } else {
            OWNER.to_owned()
        };
        Err(Refusal::new(Code::PolicyDenied, message).hint(hint).detail("rule", rule))
    }

    fn check_env(&self, question: &Question<'_>) -> Result<(), Refusal> {
        let mut env = question.spec.env.iter().map(|(name, _)| name);
        let refuse = |name: &str, rule: &str, hint: String| {
            let rule = format!("{}{rule}", self.prefix);
            let (node, shown) = (question.node, printable(name, 80));
            let mode = self.mode.as_str().to_uppercase();
            let message =
                format!("{node} is {mode} and the variable `{shown}` may not be set (rule {rule}).");
            Err(Refusal::new(Code::PolicyDenied, message).hint(hint).detail("rule", rule))
        };
        if let Some(name) = env.clone().find(|name| is_reserved(name)) {
            let hint = "Leave it out; what a loader or cortex itself reads is nobody's to set. Do not retry unchanged.";
            return refuse(name, "env.reserved", hint.to_owned());
        }
        let Some(allowed) = self.env else { return Ok(()) };
        match env.find(|name| !allowed.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let those = listed(allowed.iter().map(String::as_str));
                let hint = format!("Leave it out; these may be set: {those}. Do not retry unchanged.");
                refuse(name, "env.allow", hint)
            }
        }
    }

    fn check_timeout(&self, question: &Question<'_>) -> Result<(), Refusal> {
        let (Some(max), Some(ms)) = (self.timeout_ms_max, question.spec.timeout_ms) else { return Ok(()) };
        if ms <= max {
            return Ok(());
        }
        let rule = format!("{}limits.timeout", self.prefix);
        let message = format!("Runs on {} may last at most {} s (rule {rule}).", question.node, max / 1000);
        Err(Refusal::new(Code::PolicyDenied, message)
            .hint("Give a shorter `--timeout`.")
            .detail("rule", rule))
    }

    fn denied(&self, question: &Question<'_>, rule: &str) -> Refusal {
        let node = question.node;
        let program = printable(question.spec.argv.first().map_or("", String::as_str), 80);
        let rule = format!("{}{rule}", self.prefix);
        let message = if self.prefix.is_empty() {
            let mode = self.mode.as_str().to_uppercase();
            format!("{node} is {mode} and its policy does not allow `{program}` (rule {rule}).")
        } else {
            format!("The owner of {node} does not allow `{program}` (rule {rule}).")
        };
        let hint = self.hint(question, &rule, &program);
        Refusal::new(Code::PolicyDenied, message).hint(hint).detail("rule", rule)
    }

    fn hint(&self, question: &Question<'_>, rule: &str, program: &str) -> String {
        let node = question.node;
        let holds = |program: &&Program| program.holds(question.now);
        let allowed = self.programs.unwrap_or_default().iter().filter(holds);
        let some = listed(allowed.map(|program| program.name.as_str()));
        let what = match rule {
            _ if !self.prefix.is_empty() => OWNER.to_owned(),
            "exec.always_denied" | "exec.deny" => {
                "It is denied whatever is allowed; only an administrator can change that. Do not retry unchanged.".to_owned()
            }
            // A command to copy must not carry what somebody else put into it.
            _ if !is_plain(program) => {
                "Or ask an administrator; no shell text is parsed, so give one program. Do not retry unchanged.".to_owned()
            }
            _ if is_interpreter(program) => format!(
                "Or an administrator runs `cortex policy allow {node} {program} --for 1h`, which lets it run any code that it is given. Do not retry unchanged."
            ),
            _ => format!(
                "Or an administrator runs `cortex policy allow {node} {program} --for 1h`. Do not retry unchanged."
            ),
        };
        if self.programs.is_none() { what } else { format!("Use one of: {some}. {what}") }
    }
}

/// Some of these names. They come from a policy, or from what a node says of its ceiling: nothing hides
/// in them, and they are no text of their own.
fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let some: Vec<String> = names.take(12).map(|name| printable(name, 80)).collect();
    if some.is_empty() { "(nothing)".to_owned() } else { some.join(", ") }
}

/// What to do about a rule of a ceiling.
pub(super) const OWNER: &str = "Ask the owner of that machine: its own ceiling file says so, and no policy of the hub lifts it. Do not retry unchanged.";

pub(super) fn check_level(document: &Document, site: &Site, node: &str) -> Result<(), Refusal> {
    // The hub does not guess for a node that was never there; the node always knows.
    let Some(level) = site.ground.level else { return Ok(()) };
    let own = if document.mode == Mode::Strict { document.sandbox } else { Level::None };
    let bounds = site.ceilings.iter().filter_map(Ceiling::bounds);
    let local = bounds.map(Bounds::level).max().unwrap_or(Level::None);
    let (needed, rule) = if level < own { (own, "sandbox.level") } else { (local, "local.sandbox.level") };
    if level >= needed {
        return Ok(());
    }
    let (level, needed) = (level.as_str(), needed.as_str());
    let message = format!("{node} reaches the sandbox level `{level}` and needs `{needed}` (rule {rule}).");
    Err(Refusal::new(Code::SandboxUnavailable, message)
        .hint(format!(
            "Look at the layers with `cortex node get {node}` and mend the first that is missing; nothing is started with less."
        ))
        .detail("rule", rule))
}

impl Ceiling {
    fn bounds(&self) -> Option<&Bounds> {
        match self {
            Self::Unreadable => None,
            Self::Bounds(bounds) => Some(bounds),
        }
    }
}

impl Sensitive {
    fn matches(&self, argv: &[String]) -> bool {
        let Some((program, args)) = argv.split_first() else { return false };
        let is_there = |word: &String| match word.strip_suffix('*') {
            Some(prefix) => args.iter().any(|arg| arg.starts_with(prefix)),
            None => args.contains(word),
        };
        (self.program == "*" || denies(&self.program, program)) && self.words.iter().all(is_there)
    }

    fn shown(&self) -> String {
        let words = self.words.iter().map(|word| format!(" {}", printable(word, 40)));
        printable(&self.program, 80) + &words.collect::<String>()
    }
}

/// Whether a run may be started there, by the text of the path alone.
fn is_within(cwd: &str, roots: &[Root], place: &Place) -> bool {
    let Ok(cwd) = path::normal(cwd) else { return false };
    if cwd == "/" || BASE.iter().any(|base| path::within(&cwd, base)) {
        return true;
    }
    trees(roots, place).allows(&cwd).is_some()
}

pub(super) fn trees(roots: &[Root], place: &Place) -> Walls {
    Walls::at(place, Level::None, roots, &Network::None, &Limits::default())
}

fn roots_shown(roots: &[Root], place: &Place) -> String {
    let trees = trees(roots, place).trees;
    let some: Vec<String> = trees.iter().take(12).map(|tree| printable(&tree.path, 200)).collect();
    if some.is_empty() { "/tmp".to_owned() } else { some.join(", ") }
}

/// A denied name is meant wherever the program lies. A denied path is meant however it is spelt,
/// and by its bare name, which may be looked up to it.
fn denies(denied: &str, program: &str) -> bool {
    let (denied, program) = (components(denied), components(program));
    if denied.len() > 1 && program.len() > 1 { denied == program } else { denied.last() == program.last() }
}

/// `/usr/./bin/../bin//ls` as `["", "usr", "bin", "ls"]`; a bare name as itself.
pub(super) fn components(path: &str) -> Vec<&str> {
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
