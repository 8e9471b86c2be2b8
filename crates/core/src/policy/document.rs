//! What a policy says, and what makes a document one that may be set.

use std::collections::BTreeSet;

use super::schema::{ArgRule, is_interpreter};
use super::{Bounds, Ceiling, Mode};
use crate::error::{Code, Refusal};
use crate::limits;
use crate::name::printable;
use crate::path;
use crate::sandbox::{Access, Level, Limits, Network, Place, Root, RootPath, Walls};
use crate::time::WallTime;

/// What a policy says. The default is STRICT with nothing allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Whether the lists of programs and variables decide, and whether there are walls.
    pub mode: Mode,
    /// What may be started, in order of name, each name once.
    pub programs: Vec<Program>,
    /// What may not, whatever else is said.
    pub deny: Vec<String>,
    /// The same, and no `allow` takes it back.
    pub always_denied: Vec<String>,
    /// Environment variables that a caller may set.
    pub env: Vec<String>,
    /// Files beside the base set that runs may use.
    pub roots: Vec<Root>,
    /// Connections that runs may open.
    pub network: Network,
    /// Longest run, milliseconds.
    pub timeout_ms_max: u64,
    /// What one run may use at most.
    pub limits: Limits,
    /// Commands for which a person is asked.
    pub sensitive: Vec<Sensitive>,
    /// The least level; a run that cannot have it does not start.
    pub sandbox: Level,
}

/// Leave to start one program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// A name (`cargo`) or an absolute path (`/opt/x/bin/tool`).
    pub name: String,
    /// With which arguments.
    pub args: Args,
    /// When the leave ends, on the hub's clock.
    pub until: Option<WallTime>,
}

/// Which arguments a program may be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Args {
    /// Any.
    Any,
    /// Those that the built-in schema of this program lets through; any when it has none.
    #[default]
    Known,
    /// The same, and these rules beside it.
    Rules(Vec<ArgRule>),
}

/// A command for which a person is asked before it runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sensitive {
    /// A program's name or path; `*` for any.
    pub program: String,
    /// All of them must be among the arguments. A last `*` stands for whatever follows.
    pub words: Vec<String>,
}

impl Program {
    /// Leave as `cortex policy allow` gives it. An interpreter runs what it is given, so a schema
    /// would only look like a wall; everything else keeps its schema.
    pub fn granted(name: String, until: Option<WallTime>) -> Self {
        let args = if is_interpreter(&name) { Args::Any } else { Args::Known };
        Self { name, args, until }
    }

    /// Whether the leave holds; without a clock it holds until a later revision takes it away.
    pub fn holds(&self, now: Option<WallTime>) -> bool {
        self.until.is_none_or(|end| now.is_none_or(|now| now < end))
    }
}

impl Document {
    /// What this asks for at a place, as narrow as every ceiling there wants it; `None` when it is
    /// PERMISSIVE and no ceiling has a say, which is no walls at all.
    pub fn walls(&self, place: &Place, ceilings: &[Ceiling]) -> Option<Walls> {
        let own = match self.mode {
            Mode::Strict => Some(Walls::at(place, self.sandbox, &self.roots, &self.network, &self.limits)),
            Mode::Permissive => None,
        };
        ceilings.iter().filter_map(|ceiling| ceiling.walls(place)).fold(own, |walls, ceiling| {
            Some(match walls {
                Some(walls) => walls.meet(&ceiling),
                None => ceiling,
            })
        })
    }

    /// How long a run lasts that has no wish of its own, milliseconds.
    pub fn longest_ms(&self, ceilings: &[Ceiling]) -> u64 {
        let bounds = ceilings.iter().filter_map(|ceiling| match ceiling {
            Ceiling::Unreadable => Some(0),
            Ceiling::Bounds(bounds) => bounds.timeout_ms_max,
        });
        bounds.fold(self.timeout_ms_max, u64::min)
    }

    /// When the next leave ends: the policy has to be made anew then.
    pub fn next_expiry(&self, now: WallTime) -> Option<WallTime> {
        self.programs.iter().filter_map(|program| program.until).filter(|end| *end > now).min()
    }

    /// Names of what may be started at `now`, without doubles, in order.
    pub fn allowed(&self, now: Option<WallTime>) -> BTreeSet<&str> {
        self.programs.iter().filter(|p| p.holds(now)).map(|p| p.name.as_str()).collect()
    }

    /// Whether this may be set as a policy.
    ///
    /// # Errors
    /// `policy_invalid`, with the field in the message.
    pub fn check(&self) -> Result<(), Refusal> {
        check_names("programs", self.programs.iter().map(|program| program.name.as_str()))?;
        if !self.programs.is_sorted_by(|a, b| a.name < b.name) {
            return Err(invalid("`programs` must be in order of name, each name once."));
        }
        check_names("deny", self.deny.iter().map(String::as_str))?;
        check_names("always_denied", self.always_denied.iter().map(String::as_str))?;
        if self.programs.len() + self.deny.len() + self.always_denied.len() > limits::POLICY_PROGRAMS_MAX {
            let max = limits::POLICY_PROGRAMS_MAX;
            return Err(invalid(format!("The policy names more than {max} programs.")));
        }
        self.programs.iter().try_for_each(|program| program.args.check(&program.name))?;
        check_env(&self.env)?;
        check_roots(&self.roots)?;
        check_network(&self.network)?;
        check_timeout(self.timeout_ms_max)?;
        check_limits(&self.limits)?;
        check_sensitive(&self.sensitive)?;
        if self.mode == Mode::Strict && self.sandbox == Level::None {
            return Err(invalid("`sandbox` of a STRICT policy must be partial, kernel or full.")
                .hint("Choose a level; a node without walls is PERMISSIVE, and says so everywhere."));
        }
        Ok(())
    }
}

impl Bounds {
    /// Whether this may hold as a ceiling.
    ///
    /// # Errors
    /// `policy_invalid`, with the field in the message.
    pub fn check(&self) -> Result<(), Refusal> {
        let programs = self.programs.as_deref().unwrap_or_default();
        check_names("programs", programs.iter().map(|program| program.name.as_str()))?;
        programs.iter().try_for_each(|program| program.args.check(&program.name))?;
        // A node has no clock for it, and no later revision of the file takes the leave away.
        if programs.iter().any(|program| program.until.is_some()) {
            return Err(invalid("`programs` of a ceiling has an `until_ms`, which nobody would end.")
                .hint("Leave `until_ms` out, and take the program out of the file when its time is over."));
        }
        check_names("deny", self.deny.iter().map(String::as_str))?;
        if programs.len() + self.deny.len() > limits::POLICY_PROGRAMS_MAX {
            let max = limits::POLICY_PROGRAMS_MAX;
            return Err(invalid(format!("The ceiling names more than {max} programs.")));
        }
        check_env(self.env.as_deref().unwrap_or_default())?;
        check_roots(self.roots.as_deref().unwrap_or_default())?;
        self.network.as_ref().map_or(Ok(()), check_network)?;
        self.timeout_ms_max.map_or(Ok(()), check_timeout)?;
        check_limits(&self.limits)?;
        check_sensitive(&self.sensitive)
    }
}

impl Ceiling {
    /// The walls that it wants; `None` when it has no say on them.
    fn walls(&self, place: &Place) -> Option<Walls> {
        match self {
            Self::Unreadable => Some(Walls { level: Level::Full, ..Walls::default() }),
            Self::Bounds(bounds) if !bounds.narrows() => None,
            Self::Bounds(bounds) => {
                let everything =
                    [Root { path: RootPath::Absolute("/".to_owned()), access: Access::Write, exec: true }];
                let roots = bounds.roots.as_deref().unwrap_or(&everything);
                let network = bounds.network.as_ref().unwrap_or(&Network::All);
                Some(Walls::at(place, bounds.level(), roots, network, &bounds.limits))
            }
        }
    }
}

impl Args {
    fn check(&self, program: &str) -> Result<(), Refusal> {
        let Self::Rules(rules) = self else { return Ok(()) };
        let program = printable(program, 80);
        if rules.len() > limits::ARG_RULES_MAX {
            let max = limits::ARG_RULES_MAX;
            return Err(invalid(format!("`{program}` has more than {max} rules on its arguments.")));
        }
        if rules.iter().all(ArgRule::is_sound) {
            return Ok(());
        }
        Err(invalid(format!("`{program}` has a rule on its arguments that is empty or too long.")))
    }
}

/// Whether this names a program: a plain name, or an absolute path that means one thing.
///
/// # Errors
/// `invalid_argument`.
pub fn check_program(program: &str) -> Result<(), Refusal> {
    let plain =
        !program.is_empty() && program.len() <= limits::PATH_BYTES_MAX && !program.contains(char::is_control);
    let known = !program.contains('/') || path::normal(program).is_ok_and(|normal| normal == program);
    if plain && known && !matches!(program, "." | ".." | "/") {
        return Ok(());
    }
    let shown = printable(program, 80);
    let message = format!("`program` is `{shown}`, which is neither a name nor a plain absolute path.");
    Err(Refusal::new(Code::InvalidArgument, message)
        .hint("Name a program such as `cargo`, or its absolute path without `.`, `..` and doubled slashes."))
}

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::PolicyInvalid, message)
}

fn check_names<'a>(field: &str, mut names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    match names.find(|name| check_program(name).is_err()) {
        None => Ok(()),
        Some(name) => {
            let shown = printable(name, 80);
            Err(invalid(format!(
                "`{field}` has `{shown}`, which is neither a name nor a plain absolute path."
            )))
        }
    }
}

fn check_env(names: &[String]) -> Result<(), Refusal> {
    if names.len() > limits::ENV_MAX {
        let max = limits::ENV_MAX;
        return Err(invalid(format!("`env` has more than {max} names.")));
    }
    let is_bad = |name: &&String| {
        let length = name.is_empty() || name.len() > limits::LABEL_BYTES_MAX;
        length || name.contains('=') || name.contains(char::is_control) || is_reserved(name)
    };
    match names.iter().find(is_bad) {
        None => Ok(()),
        Some(name) => {
            let shown = printable(name, 80);
            Err(invalid(format!("`env` has `{shown}`, which is no variable that callers may be let set.")))
        }
    }
}

/// Variables that say what a loader or this program does: never a caller's, in either mode.
pub(super) fn is_reserved(variable: &str) -> bool {
    ["LD_", "DYLD_", "CORTEX_"].iter().any(|prefix| variable.starts_with(prefix))
}

fn check_roots(roots: &[Root]) -> Result<(), Refusal> {
    if roots.len() > limits::POLICY_ROOTS_MAX {
        let max = limits::POLICY_ROOTS_MAX;
        return Err(invalid(format!("`roots` has more than {max} entries.")));
    }
    for root in roots {
        let (text, absolute) = match &root.path {
            RootPath::Absolute(path) => (path.as_str(), path.clone()),
            RootPath::Home(below) => (below.as_str(), format!("/{below}")),
            RootPath::Work => continue,
        };
        if absolute == "/" || path::normal(&absolute).as_deref() != Ok(absolute.as_str()) {
            let shown = printable(text, 200);
            return Err(invalid(format!("`roots` has the path `{shown}`, which may not be given away.")).hint(
                "Give an absolute path other than `/`, or one below the home directory without a leading slash; no `.`, `..` or doubled slashes.",
            ));
        }
    }
    Ok(())
}

fn check_network(network: &Network) -> Result<(), Refusal> {
    /// More ports than this are meant as all of them.
    const PORTS_MAX: usize = 64;
    match network {
        Network::None | Network::All => Ok(()),
        Network::Ports(ports) if ports.is_empty() || ports.len() > PORTS_MAX || ports.contains(&0) => {
            Err(invalid(format!("`network.ports` must have 1 to {PORTS_MAX} ports above 0.")))
        }
        Network::Ports(_) => Ok(()),
    }
}

fn check_timeout(ms: u64) -> Result<(), Refusal> {
    if (1..=limits::RUN_TIMEOUT_MS_MAX).contains(&ms) {
        return Ok(());
    }
    let max = limits::RUN_TIMEOUT_MS_MAX;
    Err(invalid(format!("`timeout_ms_max` must be above 0 and at most {max}.")))
}

fn check_limits(limits: &Limits) -> Result<(), Refusal> {
    let Limits { memory_bytes, processes, output_bytes, files, file_bytes } = *limits;
    let counts = [memory_bytes, processes.map(u64::from), output_bytes, files, file_bytes];
    if counts.contains(&Some(0)) {
        return Err(invalid("`limits` has a 0, with which nothing could run.")
            .hint("Leave a limit out for no bound, or deny the programs."));
    }
    Ok(())
}

fn check_sensitive(list: &[Sensitive]) -> Result<(), Refusal> {
    let words_max = limits::ARG_RULES_MAX;
    if list.len() > words_max || list.iter().any(|one| one.words.len() > words_max) {
        return Err(invalid(format!("`sensitive` has more than {words_max} entries or words.")));
    }
    for one in list {
        let program = one.program == "*" || check_program(&one.program).is_ok();
        let words = one.words.iter().all(|word| !word.is_empty() && word.len() <= limits::PATH_BYTES_MAX);
        if !program || !words || (one.program == "*" && one.words.is_empty()) {
            let shown = printable(&one.program, 80);
            return Err(invalid(format!("`sensitive` has an entry for `{shown}` that cannot be matched.")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Document)) -> String {
        let mut document = Document::profile("dev").expect("built in");
        change(&mut document);
        let refusal = document.check().expect_err("it must be refused");
        assert_eq!(refusal.code, Code::PolicyInvalid);
        refusal.message
    }

    #[test]
    fn a_document_that_contradicts_itself_is_refused_by_field() {
        let root = |path: RootPath| Root { path, access: Access::Read, exec: false };
        let program = |name: &str| Program { name: name.to_owned(), args: Args::Any, until: None };
        for (field, message) in [
            ("programs", refused(|d| d.programs.insert(0, program("zz")))),
            ("programs", refused(|d| d.programs.insert(0, program("./x")))),
            ("deny", refused(|d| d.deny.push("/a/../b".to_owned()))),
            ("always_denied", refused(|d| d.always_denied.push(String::new()))),
            ("env", refused(|d| d.env.push("LD_PRELOAD".to_owned()))),
            ("env", refused(|d| d.env.push("A=B".to_owned()))),
            ("roots", refused(|d| d.roots.push(root(RootPath::Absolute("/".to_owned()))))),
            ("roots", refused(|d| d.roots.push(root(RootPath::Absolute("srv".to_owned()))))),
            ("roots", refused(|d| d.roots.push(root(RootPath::Home("../x".to_owned()))))),
            ("roots", refused(|d| d.roots.push(root(RootPath::Home(String::new()))))),
            ("roots", refused(|d| d.roots.push(root(RootPath::Home("/etc".to_owned()))))),
            ("network", refused(|d| d.network = Network::Ports(BTreeSet::new()))),
            ("network", refused(|d| d.network = Network::Ports([0].into()))),
            ("timeout_ms_max", refused(|d| d.timeout_ms_max = 0)),
            ("limits", refused(|d| d.limits.processes = Some(0))),
            ("sensitive", refused(|d| d.sensitive = vec![Sensitive { program: "*".into(), words: vec![] }])),
            ("sandbox", refused(|d| d.sandbox = Level::None)),
        ] {
            assert!(message.contains(field), "{field}: {message}");
        }
    }

    #[test]
    fn a_program_is_a_name_or_an_absolute_path() {
        for bad in ["", "a/b", "./x", "x\n", "x\0", "/a//b", "/a/./b", "/", "..", "/a/"] {
            assert_eq!(check_program(bad).expect_err(bad).code, Code::InvalidArgument);
        }
        for good in ["cargo", "/usr/bin/env", "c++", "..."] {
            check_program(good).expect(good);
        }
    }

    #[test]
    fn an_interpreter_is_granted_with_its_arguments_and_nothing_else_is() {
        let args = |name: &str| Program::granted(name.to_owned(), None).args;
        assert_eq!((args("python3.11"), args("/usr/bin/sh")), (Args::Any, Args::Any));
        assert_eq!((args("git"), args("env"), args("/opt/find")), (Args::Known, Args::Known, Args::Known));
    }

    #[test]
    fn a_leave_ends_at_its_moment_and_without_a_clock_by_a_later_revision() {
        let document = Document {
            programs: vec![Program { name: "make".to_owned(), args: Args::Any, until: Some(WallTime(100)) }],
            ..Document::default()
        };
        let allowed = |now: Option<i64>| document.allowed(now.map(WallTime)).contains("make");
        assert_eq!((allowed(Some(99)), allowed(Some(100)), allowed(None)), (true, false, true));
        assert_eq!(document.next_expiry(WallTime(99)), Some(WallTime(100)));
        assert_eq!(document.next_expiry(WallTime(100)), None);
    }

    #[test]
    fn leave_in_a_ceiling_has_no_end() {
        let bounds = |until| Bounds {
            programs: Some(vec![Program { name: "make".to_owned(), args: Args::Any, until }]),
            ..Bounds::default()
        };
        assert_eq!(bounds(None).check(), Ok(()));
        let refusal = bounds(Some(WallTime(9))).check().expect_err("nobody ends it");
        assert!(refusal.code == Code::PolicyInvalid && refusal.message.contains("until_ms"), "{refusal}");
    }

    #[test]
    fn permissive_has_walls_only_where_a_ceiling_wants_them() {
        let place = Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] };
        let bounds = |bounds: Bounds| [Ceiling::Bounds(Box::new(bounds))];
        let permissive = Document::profile("permissive").expect("built in");
        assert_eq!(permissive.walls(&place, &[]), None);
        let lists = Bounds { deny: vec!["rm".to_owned()], ..Bounds::default() };
        assert_eq!(permissive.walls(&place, &bounds(lists)), None);
        let roots = vec![Root { path: RootPath::Work, access: Access::Write, exec: true }];
        let walls = permissive.walls(&place, &bounds(Bounds { roots: Some(roots), ..Bounds::default() }));
        let walls = walls.expect("the owner wants walls");
        assert_eq!((walls.level, walls.network.clone(), walls.trees.len()), (Level::Kernel, Network::All, 1));
        let none = permissive.walls(&place, &[Ceiling::Unreadable]).expect("nothing is left");
        assert_eq!((none.level, none.trees.len(), none.network), (Level::Full, 0, Network::None));
    }
}
