//! The one judgement of an operation on files: at the hub before it is accepted, for `policy test`, and
//! again at the node. It is made of the same walls as a run's ([`Document::walls`]), so what an operation
//! may do and what a command may do there are one thing.
//!
//! The order of the rules is the order of [`judge_files`]; the first refusal is the answer. By the text of
//! the path alone: where a link leads is for the node, which opens it beneath its root.

use super::ceiling::Site;
use super::document::Document;
use super::judge::{Answer, OWNER, Rule, check_level, local_bounds, sensitive, trees};
use super::{Ceiling, Mode};
use crate::error::{Code, Refusal};
use crate::files::op::FileOp;
use crate::files::path::{FilePath, RelPath};
use crate::name::printable;
use crate::path;
use crate::sandbox::{Access, Root, Tree, Walls};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct FileQuestion<'a> {
    /// The operation.
    pub op: &'a FileOp,
    /// The node's name, for words.
    pub node: &'a str,
    /// The machine.
    pub site: &'a Site,
    /// Folders that hold what the node itself lives by, as it knows them; none at the hub. Nobody has
    /// them, whatever the policy.
    pub reserved: &'a [String],
    /// Whether a person has said yes to exactly this operation. It lifts `sensitive`, and nothing else.
    pub consent: bool,
}

/// Where a path is opened: beneath this folder, and never above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The folder, or file, that the walls give; `/` where there are none.
    pub root: String,
    /// The path below it.
    pub rest: RelPath,
    /// What is needed there, and given.
    pub access: Access,
}

/// Judges an operation.
///
/// # Errors
/// What [`FileOp::check`] says; `policy_denied`, `path_outside_roots` and `sandbox_unavailable`, with the
/// rule's name in the detail `rule`; `bad_path` for what is no path below its root.
pub fn judge_files(document: &Document, question: &FileQuestion<'_>) -> Result<Answer, Refusal> {
    let FileQuestion { op, node, site, reserved, consent } = *question;
    op.check()?;
    let needs = Needs { paths: &op.paths().collect::<Vec<_>>(), changes: changes(op), node, site, reserved };
    judge_paths(document, &needs, &op.spoken(), consent)
}

/// What is asked of a transfer of a tree.
#[derive(Clone, Copy, Debug)]
pub struct TransferQuestion<'a> {
    /// The folder of the node.
    pub path: &'a FilePath,
    /// Whether it is to become what a tree says; else it is sent.
    pub writes: bool,
    /// The node's name, for words.
    pub node: &'a str,
    /// The machine.
    pub site: &'a Site,
    /// Folders that hold what the node itself lives by, as it knows them; none at the hub.
    pub reserved: &'a [String],
    /// Whether somebody has said yes to exactly this transfer. It lifts `sensitive`, and nothing else.
    pub consent: bool,
}

/// A transfer as a command, for entries of a policy on what needs a person, and for the audit log:
/// `@push /srv/x`, `@pull /srv/x`.
pub fn spoken_transfer(path: &FilePath, writes: bool) -> Vec<String> {
    let word = if writes { "@push" } else { "@pull" };
    vec![word.to_owned(), path.as_str().to_owned()]
}

/// Judges a transfer, by the same rules as an operation on its folder: one that makes the folder what a tree
/// says has to be able to write it, one that sends it to read it.
///
/// # Errors
/// `policy_denied`, `path_outside_roots` and `sandbox_unavailable`, with the rule's name in the detail
/// `rule`; `bad_path` for what is no path below its root.
pub fn judge_transfer(document: &Document, question: &TransferQuestion<'_>) -> Result<Answer, Refusal> {
    let TransferQuestion { path, writes, node, site, reserved, consent } = *question;
    let need = if writes { Access::Write } else { Access::Read };
    let needs = Needs { paths: &[(path, need)], changes: writes, node, site, reserved };
    judge_paths(document, &needs, &spoken_transfer(path, writes), consent)
}

/// What is needed of which paths.
struct Needs<'a> {
    paths: &'a [(&'a FilePath, Access)],
    /// Whether anything may be moved or removed with them.
    changes: bool,
    node: &'a str,
    site: &'a Site,
    reserved: &'a [String],
}

fn judge_paths(
    document: &Document,
    needs: &Needs<'_>,
    spoken: &[String],
    consent: bool,
) -> Result<Answer, Refusal> {
    let Needs { node, site, .. } = *needs;
    for ceiling in &site.ceilings {
        local_bounds(ceiling, document.mode, node)?;
    }
    let walls = document.walls(&site.ground.place, &site.ceilings);
    for (path, need) in needs.paths {
        check_reserved(path, needs)?;
        check_roots(document, path, *need, needs)?;
        reach(walls.as_ref(), path, *need)?;
    }
    check_level(document, site, node)?;
    match sensitive(document, site, spoken).filter(|_| !consent) {
        Some(rule) => Ok(Answer::Ask { rule }),
        None => {
            let by = if document.mode == Mode::Permissive { "mode.permissive" } else { "roots" };
            Ok(Answer::Allowed { rule: Rule(by.to_owned()) })
        }
    }
}

/// Where a path is opened for what is needed: beneath the outermost of the trees that give it, so that a
/// tree within another hides nothing of that. Without walls it is `/`.
///
/// # Errors
/// `path_outside_roots` when no tree gives it, `bad_path` when what is left of it below the tree is none.
pub fn reach(walls: Option<&Walls>, path: &FilePath, need: Access) -> Result<Reach, Refusal> {
    let root = match walls {
        None => "/",
        Some(walls) => {
            let giving = |tree: &&Tree| tree.access >= need && path::within(path.as_str(), &tree.path);
            let outermost = walls.trees.iter().filter(giving).min_by_key(|tree| tree.path.len());
            let Some(tree) = outermost else { return Err(outside(path, need, "roots")) };
            &tree.path
        }
    };
    let rest = match path.below(root).unwrap_or_default() {
        "" => RelPath::root(),
        rest => RelPath::parse(rest)?,
    };
    Ok(Reach { root: root.to_owned(), rest, access: need })
}

fn check_reserved(path: &FilePath, question: &Needs<'_>) -> Result<(), Refusal> {
    // Nor what lies above them: it would be moved, or removed, with them.
    let is_its = |folder: &String| {
        path::within(path.as_str(), folder) || (question.changes && path::within(folder, path.as_str()))
    };
    if !question.reserved.iter().any(is_its) {
        return Ok(());
    }
    let (node, shown) = (question.node, printable(path.as_str(), 200));
    let message = format!("`{shown}` holds what the node {node} itself lives by (rule local.reserved).");
    Err(Refusal::new(Code::PathOutsideRoots, message)
        .hint("Use another folder; nobody is given this one. Do not retry unchanged.")
        .detail("rule", "local.reserved"))
}

const fn changes(op: &FileOp) -> bool {
    match op {
        FileOp::List { .. }
        | FileOp::Stat { .. }
        | FileOp::Read { .. }
        | FileOp::Find { .. }
        | FileOp::Grep { .. } => false,
        FileOp::Write { .. }
        | FileOp::Edit { .. }
        | FileOp::MakeDir { .. }
        | FileOp::Remove { .. }
        | FileOp::Move { .. }
        | FileOp::Copy { .. } => true,
    }
}

/// The roots of the policy, and then those of each ceiling: all must give the path. Together they give
/// what [`Document::walls`] does, and here the one that does not is named.
fn check_roots(
    document: &Document,
    path: &FilePath,
    need: Access,
    question: &Needs<'_>,
) -> Result<(), Refusal> {
    let place = &question.site.ground.place;
    let gives =
        |roots: &[Root]| trees(roots, place).allows(path.as_str()).is_some_and(|(access, _)| access >= need);
    let shown = |roots: &[Root]| {
        let trees = trees(roots, place).trees;
        let giving = trees.iter().filter(|tree| tree.access >= need).take(12);
        giving.map(|tree| printable(&tree.path, 200)).collect::<Vec<_>>().join(", ")
    };
    if document.mode == Mode::Strict && !gives(&document.roots) {
        let node = question.node;
        let roots = shown(&document.roots);
        let ask = format!("an administrator runs `cortex policy allow {node} --root PATH:{}`", short(need));
        let hint = if roots.is_empty() {
            format!("Ask for a folder: {ask}. Do not retry unchanged.")
        } else {
            format!("Use a path below one of: {roots}. Or {ask}. Do not retry unchanged.")
        };
        return Err(outside(path, need, &format!("roots.{}", need.as_str()))
            .hint(hint)
            .detail("roots", roots));
    }
    let ceilings = question.site.ceilings.iter().filter_map(|ceiling| match ceiling {
        Ceiling::Unreadable => None,
        Ceiling::Bounds(bounds) => bounds.roots.as_deref(),
    });
    for roots in ceilings {
        if !gives(roots) {
            let rule = format!("local.roots.{}", need.as_str());
            return Err(outside(path, need, &rule).hint(OWNER).detail("roots", shown(roots)));
        }
    }
    Ok(())
}

fn outside(path: &FilePath, need: Access, rule: &str) -> Refusal {
    let shown = printable(path.as_str(), 200);
    let what = match need {
        Access::Read => "read",
        Access::Write => "written",
    };
    let message = format!("`{shown}` is below none of the folders that may be {what} (rule {rule}).");
    Refusal::new(Code::PathOutsideRoots, message).detail("rule", rule)
}

const fn short(need: Access) -> &'static str {
    match need {
        Access::Read => "r",
        Access::Write => "rw",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::op::{Expect, Page};
    use crate::files::samples::path;
    use crate::policy::{Bounds, Sensitive};
    use crate::sandbox::{Ground, Level, Place, RootPath};

    fn root(path: &str, access: Access) -> Root {
        Root { path: RootPath::Absolute(path.to_owned()), access, exec: false }
    }

    fn document(mode: Mode, roots: &[Root]) -> Document {
        Document { mode, roots: roots.to_vec(), ..Document::profile("dev").expect("built in") }
    }

    fn site(ceilings: Vec<Ceiling>) -> Site {
        let place = Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned()] };
        Site { ground: Ground { place, level: Some(Level::Full) }, ceilings }
    }

    fn bounds(roots: &[Root]) -> Ceiling {
        Ceiling::Bounds(Box::new(Bounds { roots: Some(roots.to_vec()), ..Bounds::default() }))
    }

    fn list(at: &str) -> FileOp {
        let page = Page { limit: 1, cursor: None };
        FileOp::List { path: path(at), depth: 1, hidden: false, glob: None, hash: false, page }
    }

    fn remove(at: &str) -> FileOp {
        FileOp::Remove { path: path(at), recursive: true, expect: Expect::Any, dry_run: false }
    }

    /// The rule that answers.
    fn rule(document: &Document, site: &Site, op: &FileOp) -> String {
        let reserved = ["/var/lib/cortex".to_owned()];
        let question = FileQuestion { op, node: "n", site, reserved: &reserved, consent: false };
        match judge_files(document, &question) {
            Ok(answer) => answer.rule().to_string(),
            Err(refusal) => Rule::of(&refusal).unwrap_or(refusal.code.as_str()).to_owned(),
        }
    }

    #[test]
    fn the_first_rule_in_their_order_answers() {
        use Access::{Read, Write};
        let strict = document(Mode::Strict, &[root("/srv", Read), root("/srv/out", Write)]);
        let sensitive = vec![Sensitive { program: "@rm".to_owned(), words: vec!["/srv/out/*".to_owned()] }];
        let careful = Document { sensitive, ..strict.clone() };
        let open = document(Mode::Permissive, &[]);
        let owner = site(vec![bounds(&[root("/srv/out", Read), root("/home/u", Write)])]);
        let mode = Bounds { mode: Some(Mode::Strict), ..Bounds::default() };
        let tied = site(vec![Ceiling::Bounds(Box::new(mode))]);
        let low =
            Site { ground: Ground { level: Some(Level::None), ..site(vec![]).ground }, ceilings: vec![] };
        let free = site(vec![]);
        for (document, site, op, expected) in [
            (&strict, &site(vec![Ceiling::Unreadable]), list("/etc"), "local.unreadable"),
            (&open, &tied, list("/srv"), "local.mode"),
            (&strict, &tied, list("/srv"), "roots"),
            (&strict, &free, list("/etc"), "roots.read"),
            (&strict, &free, list("/tmp/x"), "roots.read"),
            (&strict, &free, list("/"), "roots.read"),
            (&strict, &free, list("/srvx"), "roots.read"),
            (&strict, &free, remove("/srv/a"), "roots.write"),
            (&strict, &owner, remove("/srv/a"), "roots.write"),
            (&strict, &owner, list("/srv/a"), "local.roots.read"),
            (&strict, &owner, remove("/srv/out/a"), "local.roots.write"),
            (&strict, &low, list("/etc"), "roots.read"),
            (&strict, &low, list("/srv/a"), "sandbox.level"),
            (&careful, &low, remove("/srv/out/a"), "sandbox.level"),
            (&careful, &free, remove("/srv/out/a"), "sensitive @rm /srv/out/*"),
            (&careful, &free, list("/srv/out/a"), "roots"),
            (&careful, &free, remove("/srv/a"), "roots.write"),
            (&strict, &free, remove("/srv/out/a"), "roots"),
            (&open, &free, remove("/etc/a"), "mode.permissive"),
            (&open, &owner, remove("/etc/a"), "local.roots.write"),
            (&open, &free, list("/var/lib/cortex/node.key"), "local.reserved"),
            (&open, &free, remove("/var/lib"), "local.reserved"),
            (&open, &free, list("/var/lib"), "mode.permissive"),
            (&open, &free, remove("/"), "invalid_argument"),
        ] {
            assert_eq!(rule(document, site, &op), expected, "{op:?}");
        }
    }

    #[test]
    fn both_ends_of_a_move_are_judged_and_a_copy_reads_where_it_comes_from() {
        let strict = document(Mode::Strict, &[root("/in", Access::Read), root("/out", Access::Write)]);
        let ends = |from: &str, to: &str| (path(from), path(to));
        let judged = |copy: bool, from: &str, to: &str| {
            let (from, to) = ends(from, to);
            let (expect, replace, recursive) = (Expect::Any, false, false);
            let op = if copy {
                FileOp::Copy { from, to, recursive, replace, expect }
            } else {
                FileOp::Move { from, to, replace, expect }
            };
            rule(&strict, &site(vec![]), &op)
        };
        assert_eq!(
            (judged(true, "/in/a", "/out/a"), judged(false, "/in/a", "/out/a")),
            ("roots".into(), "roots.write".into())
        );
        assert_eq!(
            (judged(true, "/out/a", "/in/a"), judged(false, "/out/a", "/out/b")),
            ("roots.write".into(), "roots".into())
        );
        assert_eq!(judged(true, "/etc/a", "/out/a"), "roots.read");
    }

    #[test]
    fn a_person_lifts_what_is_sensitive_and_nothing_else() {
        let sensitive = vec![Sensitive { program: "*".to_owned(), words: vec!["--recursive".to_owned()] }];
        let strict = Document { sensitive, ..document(Mode::Strict, &[root("/w", Access::Write)]) };
        let site = site(vec![]);
        let judged = |at: &str| {
            let op = remove(at);
            judge_files(
                &strict,
                &FileQuestion { op: &op, node: "n", site: &site, reserved: &[], consent: true },
            )
        };
        assert!(matches!(judged("/w/a"), Ok(Answer::Allowed { rule }) if rule.as_str() == "roots"));
        assert_eq!(judged("/etc/a").expect_err("outside").code, Code::PathOutsideRoots);
    }

    #[test]
    fn a_refusal_names_the_folders_that_would_do_and_the_command_that_gives_one() {
        let strict = document(Mode::Strict, &[root("/srv", Access::Read), root("/w", Access::Write)]);
        let (site, op) = (site(vec![]), remove("/srv/a"));
        let question = FileQuestion { op: &op, node: "build-2", site: &site, reserved: &[], consent: false };
        let refusal = judge_files(&strict, &question).expect_err("read only");
        assert_eq!(refusal.code, Code::PathOutsideRoots);
        assert!(
            refusal.hint.contains("below one of: /w.")
                && refusal.hint.contains("allow build-2 --root PATH:rw")
        );
        assert!(refusal.details.contains(&("roots", "/w".to_owned())), "{refusal:?}");
        let none = document(Mode::Strict, &[]);
        let refusal = judge_files(&none, &question).expect_err("no root");
        assert!(refusal.hint.starts_with("Ask for a folder"), "{}", refusal.hint);
    }

    #[test]
    fn a_path_is_opened_beneath_the_outermost_tree_that_gives_it() {
        use Access::{Read, Write};
        let walls = trees(
            &[root("/a", Read), root("/a/b", Write), root("/a/b/c", Read), root("/f", Write)],
            &Place::default(),
        );
        let at = |walls: Option<&Walls>, text: &str, need| {
            let reach = reach(walls, &path(text), need).map_err(|refusal| refusal.code)?;
            Ok((reach.root, reach.rest.as_str().to_owned()))
        };
        let found = |root: &str, rest: &str| Ok((root.to_owned(), rest.to_owned()));
        let walls = Some(&walls);
        assert_eq!(at(walls, "/a/b/c/d", Read), found("/a", "b/c/d"));
        assert_eq!(at(walls, "/a/b/c/d", Write), found("/a/b", "c/d"));
        assert_eq!(at(walls, "/a/ب", Write), Err(Code::PathOutsideRoots));
        assert_eq!((at(walls, "/a", Read), at(walls, "/f", Write)), (found("/a", ""), found("/f", "")));
        assert_eq!((at(None, "/", Write), at(None, "/x/y", Read)), (found("/", ""), found("/", "x/y")));
        assert_eq!(
            at(walls, "/a/C:", Read),
            Err(Code::BadPath),
            "a drive, to whoever reads it as a tree's path"
        );
    }

    #[test]
    fn a_transfer_is_judged_as_what_it_does_to_its_folder() {
        use Access::{Read, Write};
        let strict = document(Mode::Strict, &[root("/srv", Read), root("/srv/out", Write)]);
        let words =
            |program: &str| Sensitive { program: program.to_owned(), words: vec!["/srv/*".to_owned()] };
        let careful = Document { sensitive: vec![words("@push"), words("@pull")], ..strict.clone() };
        let owner = site(vec![bounds(&[root("/srv/out", Read)])]);
        let free = site(vec![]);
        let reserved = ["/srv/out/cortex".to_owned()];
        for (document, site, at, writes, expected) in [
            (&strict, &free, "/srv/a", false, "roots"),
            (&strict, &free, "/srv/a", true, "roots.write"),
            (&strict, &free, "/etc", false, "roots.read"),
            (&strict, &free, "/srv/out/مشروع", true, "roots"),
            (&strict, &owner, "/srv/out/a", true, "local.roots.write"),
            (&strict, &free, "/srv/out/cortex/keys", false, "local.reserved"),
            (&strict, &free, "/srv/out", true, "local.reserved"),
            (&strict, &free, "/srv/out", false, "roots"),
            (&careful, &free, "/srv/out/a", true, "sensitive @push /srv/*"),
            (&careful, &free, "/srv/a", false, "sensitive @pull /srv/*"),
        ] {
            let path = path(at);
            let question = TransferQuestion {
                path: &path,
                writes,
                node: "n",
                site,
                reserved: &reserved,
                consent: false,
            };
            let rule = match judge_transfer(document, &question) {
                Ok(answer) => answer.rule().to_string(),
                Err(refusal) => Rule::of(&refusal).unwrap_or(refusal.code.as_str()).to_owned(),
            };
            assert_eq!(rule, expected, "{at} {writes}");
            if rule.starts_with("sensitive") {
                let yes = TransferQuestion { consent: true, ..question };
                assert_eq!(
                    judge_transfer(document, &yes).expect("a person said yes").rule().to_string(),
                    "roots"
                );
            }
        }
    }
}
