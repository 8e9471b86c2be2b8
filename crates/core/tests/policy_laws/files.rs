//! An operation on files may do what a command may do at the same path: neither more nor less.

use cortex_core::Code;
use cortex_core::files::op::{Content, Expect, FileOp, WriteHow};
use cortex_core::files::path::FilePath;
use cortex_core::policy::{Ceiling, FileQuestion, judge_files, reach};
use cortex_core::sandbox::{Access, Level};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::documents::{ceiling, document, place, site};

const PATHS: &[&str] = &[
    "/",
    "/w",
    "/w/a",
    "/w/a/b",
    "/w/ab",
    "/wx",
    "/home/u",
    "/home/u/x/y",
    "/home/u/.cargo",
    "/srv",
    "/srv/ب",
    "/etc",
];

fn path() -> impl Strategy<Value = FilePath> {
    select(PATHS).prop_map(|text| FilePath::parse(text).expect("a path"))
}

fn op(path: FilePath, access: Access) -> FileOp {
    match access {
        Access::Read => FileOp::Stat { path, hash: false },
        Access::Write => FileOp::Write {
            path,
            content: Content::Inline(bytes::Bytes::new()),
            how: WriteHow::Put,
            expect: Expect::Any,
            mkdirs: false,
            mode: None,
            dry_run: false,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_operation_may_do_what_the_walls_of_a_run_allow(
        document in document(),
        ceilings in vec(ceiling(), 0..3),
        path in path(),
        access in select(vec![Access::Read, Access::Write]),
        consent in any::<bool>(),
    ) {
        // The top of the file system itself is changed by nobody.
        prop_assume!(path.as_str() != "/" || access == Access::Read);
        let (site, op) = (site(ceilings, Level::Full), op(path.clone(), access));
        let walls = document.walls(&place(), &site.ceilings);
        let allowed = walls.as_ref().is_none_or(|walls| {
            walls.allows(path.as_str()).is_some_and(|(given, _)| given >= access)
        });
        let question = FileQuestion { op: &op, node: "n", site: &site, reserved: &[], consent };
        let judged = judge_files(&document, &question);
        // What a ceiling says of the policy as a whole comes first, and denies runs as well.
        let refused = judged.as_ref().err().map(|refusal| refusal.code);
        if refused != Some(Code::PolicyDenied) {
            prop_assert_eq!(refused, (!allowed).then_some(Code::PathOutsideRoots), "{:?}", judged);
            prop_assert!(!site.ceilings.contains(&Ceiling::Unreadable));
        }
        prop_assert_eq!(reach(walls.as_ref(), &path, access).is_ok(), allowed);
    }

    // What is opened is what was judged: the root is a tree that gives it, and root and rest are the path.
    #[test]
    fn what_is_reached_is_the_path_beneath_a_tree_that_gives_it(
        document in document(),
        ceilings in vec(ceiling(), 0..3),
        path in path(),
        access in select(vec![Access::Read, Access::Write]),
    ) {
        let walls = document.walls(&place(), &ceilings);
        let Ok(reach) = reach(walls.as_ref(), &path, access) else { return Ok(()) };
        let root = FilePath::parse(&reach.root).expect("a path");
        prop_assert_eq!(root.join(&reach.rest), Ok(path));
        if let Some(walls) = walls {
            let tree = walls.trees.iter().find(|tree| tree.path == reach.root).expect("one of them");
            prop_assert!(tree.access >= access && reach.access == access);
        }
    }
}
