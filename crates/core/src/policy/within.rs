//! Whether one document allows no more than another, on every machine, for every command.
//!
//! The answer errs on the side of no: where it would depend on a machine (whether a folder lies in
//! one for work), the one goes beyond the other. Both are documents that [`Document::check`] lets be
//! set.

use super::Mode;
use super::document::{Args, Document, Program, Sensitive};
use super::judge::components;
use super::schema::{self, ArgRule, Effect};
use crate::path;
use crate::sandbox::{Root, RootPath};

impl Document {
    /// Whether nothing is allowed or left open by this that `outer` does not allow or leave open.
    /// What `outer` asks a person for, this may ask for or deny.
    pub fn is_within(&self, outer: &Self) -> bool {
        self.beyond(outer).is_none()
    }

    /// The first field in which this allows more than `outer`.
    pub fn beyond(&self, outer: &Self) -> Option<&'static str> {
        let both_strict = self.mode == Mode::Strict && outer.mode == Mode::Strict;
        let rows = [
            ("mode", self.mode == Mode::Strict || outer.mode == Mode::Permissive),
            ("deny", self.denies_all_of(outer)),
            ("timeout_ms_max", self.timeout_ms_max <= outer.timeout_ms_max),
            ("sensitive", outer.sensitive.iter().all(|one| self.sensitive.iter().any(|own| own.covers(one)))),
            // The rest has no say under PERMISSIVE.
            ("programs", !both_strict || self.starts_no_more(outer)),
            ("env", !both_strict || self.env.iter().all(|name| outer.env.contains(name))),
            ("roots", !both_strict || self.roots.iter().all(|root| is_given(root, &outer.roots))),
            ("network", !both_strict || self.network.meet(&outer.network) == self.network),
            ("limits", !both_strict || self.limits.meet(&outer.limits) == self.limits),
            ("sandbox", !both_strict || self.sandbox >= outer.sandbox),
        ];
        rows.into_iter().find(|(_, holds)| !holds).map(|(field, _)| field)
    }

    fn denies_all_of(&self, outer: &Self) -> bool {
        let mut denied = outer.deny.iter().chain(&outer.always_denied);
        let own = || self.deny.iter().chain(&self.always_denied);
        denied.all(|name| own().any(|own| denies_more(own, name)))
    }

    fn starts_no_more(&self, outer: &Self) -> bool {
        let find = |list: &[Program], name: &str| list.iter().position(|program| program.name == name);
        let of = |list: &'_ [Program], name: &str| find(list, name).and_then(|at| list.get(at).cloned());
        let given = self.programs.iter().all(|own| {
            of(&outer.programs, &own.name).is_some_and(|other| {
                let lasts = other.until.is_none_or(|end| own.until.is_some_and(|own| own <= end));
                lasts && own.args.are_within(&other.args, &own.name)
            })
        });
        // A person's yes lets a program run that has no entry; an entry that holds it to less than
        // that would must be there for as long.
        let held = outer.programs.iter().all(|other| {
            let by_consent = Program::granted(other.name.clone(), None).args;
            by_consent.are_within(&other.args, &other.name)
                || of(&self.programs, &other.name).is_some_and(|own| own.until == other.until)
        });
        given && held
    }
}

impl Args {
    /// Whether these let no more through than others of the same program.
    fn are_within(&self, outer: &Self, program: &str) -> bool {
        match (self, outer) {
            (_, Self::Any) => true,
            (Self::Any, Self::Known) => !schema::is_known(program),
            (Self::Any, Self::Rules(rules)) => rules.is_empty() && !schema::is_known(program),
            (Self::Known | Self::Rules(_), Self::Known) => true,
            (Self::Known, Self::Rules(rules)) => rules.is_empty(),
            (Self::Rules(own), Self::Rules(rules)) => {
                rules.iter().all(|rule| own.iter().any(|own| own.covers(rule)))
            }
        }
    }
}

impl ArgRule {
    /// Whether it catches all that the other catches, and lets no more of it through.
    fn covers(&self, other: &Self) -> bool {
        let effect = self.effect == Effect::Deny || other.effect == Effect::Ask;
        effect && self.shape == other.shape && (self.with.is_none() || self.with == other.with)
    }
}

impl Sensitive {
    /// Whether a person is asked by it wherever the other would ask.
    fn covers(&self, other: &Self) -> bool {
        let program =
            self.program == "*" || (other.program != "*" && denies_more(&self.program, &other.program));
        program && self.words.iter().all(|word| other.words.contains(word))
    }
}

/// Whether everything that one entry of `deny` means is meant by another: a name means every path
/// that ends so.
fn denies_more(own: &str, other: &str) -> bool {
    let (own, other) = (components(own), components(other));
    own == other || (own.len() == 1 && own.last() == other.last())
}

/// Whether the roots together give what this one does.
fn is_given(root: &Root, roots: &[Root]) -> bool {
    let around = roots.iter().filter(|outer| lies_in(&root.path, &outer.path));
    let rights = around.map(|outer| (outer.access, outer.exec));
    let all = rights.reduce(|(access, exec), (other, also)| (access.max(other), exec || also));
    all.is_some_and(|(access, exec)| root.access <= access && (!root.exec || exec))
}

/// By the text alone. A root that names what is hidden in another (`.ssh`) shows it, so that one is
/// not in the other.
fn lies_in(inner: &RootPath, outer: &RootPath) -> bool {
    let below = |inner: &str, outer: &str| {
        let rest = path::within(inner, outer).then(|| inner.get(outer.len()..)).flatten();
        rest.is_some_and(|rest| !rest.split('/').any(|part| part.starts_with('.')))
    };
    match (inner, outer) {
        (RootPath::Absolute(inner), RootPath::Absolute(outer)) => below(inner, outer),
        (RootPath::Home(inner), RootPath::Home(outer)) => below(&format!("/{inner}"), &format!("/{outer}")),
        (RootPath::Work, RootPath::Work) => true,
        (RootPath::Absolute(_), RootPath::Home(_) | RootPath::Work)
        | (RootPath::Home(_), RootPath::Absolute(_) | RootPath::Work)
        | (RootPath::Work, RootPath::Absolute(_) | RootPath::Home(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Shape;
    use crate::sandbox::{Access, Level, Limits, Network};
    use crate::time::WallTime;

    fn profile(name: &str) -> Document {
        Document::profile(name).expect("built in")
    }

    #[test]
    fn the_profiles_are_in_order_and_each_is_within_itself() {
        let order = ["strict", "ci", "dev", "permissive"];
        for (at, inner) in order.iter().enumerate() {
            for (bound, outer) in order.iter().enumerate() {
                let is = profile(inner).is_within(&profile(outer));
                assert_eq!(is, at <= bound, "{inner} in {outer}");
            }
        }
    }

    #[test]
    fn whatever_is_loosened_goes_beyond_and_is_named() {
        let dev = profile("dev");
        let root = |path, access, exec| Root { path, access, exec };
        let home = |below: &str| RootPath::Home(below.to_owned());
        let absolute = |path: &str| RootPath::Absolute(path.to_owned());
        let with = |root: Root| Document { roots: [dev.roots.clone(), vec![root]].concat(), ..dev.clone() };
        let any = |name: &str| {
            let mut document = dev.clone();
            let program = document.programs.iter_mut().find(|program| program.name == name);
            program.expect("allowed").args = Args::Any;
            document
        };
        let mut more = dev.clone();
        more.programs.push(Program { name: "zsh".to_owned(), args: Args::Known, until: Some(WallTime(9)) });
        for (document, field) in [
            (Document { mode: Mode::Permissive, ..dev.clone() }, Some("mode")),
            (Document { always_denied: vec!["sudo".to_owned()], ..dev.clone() }, Some("deny")),
            (Document { timeout_ms_max: dev.timeout_ms_max + 1, ..dev.clone() }, Some("timeout_ms_max")),
            (more, Some("programs")),
            (any("git"), Some("programs")),
            // No argument of it is known to do harm, so any is no more.
            (any("ls"), None),
            (Document { env: vec!["PATH".to_owned()], ..dev.clone() }, Some("env")),
            (with(root(home(".rustup/toolchains"), Access::Read, true)), None),
            (with(root(home(".rustup"), Access::Write, true)), Some("roots")),
            (with(root(home(".gitconfig"), Access::Read, true)), Some("roots")),
            (with(root(home(".rustup/.ssh"), Access::Read, false)), Some("roots")),
            (with(root(home(".rustupx"), Access::Read, false)), Some("roots")),
            (with(root(absolute("/srv"), Access::Read, false)), Some("roots")),
            (Document { network: Network::All, ..dev.clone() }, Some("network")),
            (Document { network: Network::Ports([22].into()), ..dev.clone() }, Some("network")),
            (Document { network: Network::Ports([443].into()), ..dev.clone() }, None),
            (Document { limits: Limits { processes: None, ..dev.limits }, ..dev.clone() }, Some("limits")),
            (Document { sandbox: Level::Partial, ..dev.clone() }, Some("sandbox")),
            (Document { sandbox: Level::Full, ..dev.clone() }, None),
        ] {
            assert_eq!(document.beyond(&dev), field);
        }
    }

    #[test]
    fn a_question_a_rule_and_a_denial_of_the_bound_are_kept() {
        let word = |text: &str| vec![text.to_owned()];
        let push = Sensitive { program: "git".to_owned(), words: word("push") };
        let rule = ArgRule { effect: Effect::Ask, shape: Shape::Exact("push".into()), with: None };
        let mut outer = profile("dev");
        outer.sensitive = vec![push.clone()];
        outer.deny = vec!["/opt/tool".to_owned()];
        let git = |args| Program { name: "git".to_owned(), args, until: None };
        outer.programs = vec![git(Args::Rules(vec![rule.clone()]))];
        let inner = |change: &dyn Fn(&mut Document)| {
            let mut document = outer.clone();
            change(&mut document);
            document.beyond(&outer)
        };
        assert_eq!(inner(&|_| {}), None);
        assert_eq!(inner(&|it| it.sensitive.clear()), Some("sensitive"));
        assert_eq!(inner(&|it| it.sensitive[0].program = "*".to_owned()), None);
        assert_eq!(inner(&|it| it.sensitive[0].words.push("x".to_owned())), Some("sensitive"));
        assert_eq!(inner(&|it| it.deny = vec!["tool".to_owned()]), None);
        assert_eq!(inner(&|it| it.deny = vec!["/srv/tool".to_owned()]), Some("deny"));
        assert_eq!(inner(&|it| it.programs[0].args = Args::Known), Some("programs"));
        let denies = ArgRule { effect: Effect::Deny, ..rule.clone() };
        assert_eq!(inner(&|it| it.programs[0].args = Args::Rules(vec![denies.clone()])), None);
        // A person's yes would let it run without that rule.
        assert_eq!(inner(&|it| it.programs.clear()), Some("programs"));
    }
}
