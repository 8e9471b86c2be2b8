//! Which package may depend on which. A package without a row here is a violation: its place has
//! to be decided first.

use anyhow::{Context, Result};

use super::Violation;
use crate::repo::{Kind, Package, Repo};

/// Package, and the packages of ours that it may depend on (DESIGN §1).
const ALLOWED: &[(&str, &[&str])] = &[
    ("cortex-core", &[]),
    ("cortex-content", &["cortex-core"]),
    ("cortex-wire", &["cortex-core"]),
    ("cortex-store", &["cortex-content", "cortex-core"]),
    ("cortex-hub", &["cortex-store", "cortex-wire", "cortex-content", "cortex-core"]),
    ("cortex-node", &["cortex-wire", "cortex-content", "cortex-core"]),
    ("cortex", &["cortex-hub", "cortex-node", "cortex-wire", "cortex-content", "cortex-core"]),
    ("cortex-sim", &["cortex-core", "cortex-store"]),
    ("cortex-bench", &["cortex-wire", "cortex-content", "cortex-core"]),
    ("xtask", &[]),
];

/// Edges that only tests may have: package, what it may use, why.
const TESTS_ONLY: &[(&str, &str, &str)] = &[];

/// What only some packages may depend on, outside of tests: dependency, packages, why.
const FENCED: &[(&str, &[&str], &str)] = &[
    ("anyhow", &["cortex", "xtask", "cortex-bench"], "libraries have error enums of their own"),
    ("rusqlite", &["cortex-store"], "SQL stays behind the store's port"),
    ("tonic", &["cortex-wire", "cortex-hub", "cortex-node", "cortex-bench"], "gRPC stays at the door"),
];

/// Judges every manifest.
pub(super) fn check(repo: &Repo) -> Result<Vec<Violation>> {
    let ours: Vec<&str> = repo.packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in &repo.packages {
        let path = repo.relative(&package.dir.join("Cargo.toml"));
        let manifest = repo.read(&path).context("read a manifest")?;
        for (name, what, remedy) in judge(package, &ours) {
            found.push(Violation::new(&path, line_of(&manifest, &name), what, remedy));
        }
    }
    Ok(found)
}

/// What is wrong with one manifest: the dependency, what, what to do.
fn judge(package: &Package, ours: &[&str]) -> Vec<(String, String, String)> {
    let name = package.name.as_str();
    let Some((_, allowed)) = ALLOWED.iter().find(|(row, _)| *row == name) else {
        let what = format!("{name} has no row in the table of crate edges");
        return vec![("name".to_owned(), what, "add one in xtask/src/tidy/edges.rs".to_owned())];
    };
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        let wanted = dependency.name.as_str();
        let for_tests = dependency.kind == Kind::Tests;
        let excepted = for_tests && TESTS_ONLY.iter().any(|(from, to, _)| *from == name && *to == wanted);
        // A package may name itself for its tests: that is how they switch a feature on.
        let itself = for_tests && wanted == name;
        if ours.contains(&wanted) && !allowed.contains(&wanted) && !excepted && !itself {
            let remedy = format!("move what you need into a crate that {name} may see, or write an ADR");
            found.push((wanted.to_owned(), format!("{name} must not depend on {wanted}"), remedy));
        }
        let fence = FENCED.iter().find(|(to, ..)| *to == wanted);
        if let Some((_, may, why)) = fence
            && !for_tests
            && !may.contains(&name)
        {
            let remedy = format!("leave it to {}", may.join(", "));
            found.push((wanted.to_owned(), format!("{name} must not depend on {wanted}: {why}"), remedy));
        }
    }
    found
}

/// The line of a manifest that begins with `name`, or the first.
fn line_of(manifest: &str, name: &str) -> usize {
    let begins = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    manifest.lines().position(begins).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::repo::Dependency;

    const OURS: &[&str] = &["cortex-core", "cortex-hub", "cortex-node", "cortex-store"];

    fn package(name: &str, dependencies: &[(&str, Kind)]) -> Package {
        Package {
            name: name.to_owned(),
            dir: PathBuf::new(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: *kind })
                .collect(),
            features: Vec::new(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn an_edge_of_the_table_is_allowed() {
        let hub = package("cortex-hub", &[("cortex-store", Kind::Product), ("axum", Kind::Product)]);
        assert_eq!(judge(&hub, OURS), []);
    }

    #[test]
    fn hub_and_node_never_see_each_other_not_even_in_tests() {
        let hub = package("cortex-hub", &[("cortex-node", Kind::Tests)]);
        let node = package("cortex-node", &[("cortex-hub", Kind::Product)]);
        assert_eq!(judge(&hub, OURS)[0].1, "cortex-hub must not depend on cortex-node");
        assert_eq!(judge(&node, OURS)[0].1, "cortex-node must not depend on cortex-hub");
    }

    #[test]
    fn a_package_without_a_row_is_told_so() {
        assert!(judge(&package("cortex-new", &[]), OURS)[0].1.contains("no row"));
    }

    #[test]
    fn a_package_may_name_itself_for_its_tests_only() {
        assert_eq!(judge(&package("cortex-store", &[("cortex-store", Kind::Tests)]), OURS), []);
        assert_eq!(judge(&package("cortex-store", &[("cortex-store", Kind::Product)]), OURS).len(), 1);
    }

    #[test]
    fn a_fenced_dependency_is_for_its_packages_and_for_tests() {
        assert_eq!(judge(&package("cortex-hub", &[("anyhow", Kind::Product)]), OURS).len(), 1);
        assert_eq!(judge(&package("cortex-hub", &[("anyhow", Kind::Tests)]), OURS), []);
        assert_eq!(judge(&package("cortex", &[("anyhow", Kind::Product)]), OURS), []);
    }

    #[test]
    fn the_line_of_a_dependency_is_found() {
        assert_eq!(
            line_of("[dependencies]\ntonic-prost.workspace = true\ntonic.workspace = true\n", "tonic"),
            3
        );
        assert_eq!(line_of("[dependencies]\n", "tonic"), 1);
    }
}
