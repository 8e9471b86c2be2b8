//! Packages that nothing of ours may pull in, however deep. `deny.toml` has the full list of what
//! is allowed; these are held on every commit.

use anyhow::Result;

use super::Violation;
use crate::repo::{Repo, cargo, output};

/// Package, and why not.
const BANNED: &[(&str, &str)] = &[
    ("ring", "one cryptographic library: aws-lc-rs"),
    ("openssl-sys", "one cryptographic library: aws-lc-rs"),
    ("native-tls", "one TLS library: rustls"),
    ("sqlx", "it fights with rusqlite over libsqlite3-sys"),
];

/// Judges what the workspace really builds on this platform.
pub(super) fn check(repo: &Repo) -> Result<Vec<Violation>> {
    let tree = output(cargo(&repo.root).args(["tree", "--workspace", "--prefix", "none", "--locked"]))?;
    let violation = |(name, why): &(&str, &str)| {
        let remedy = format!("{why}; see `cargo tree --workspace -i {name}`");
        Violation::new("Cargo.lock", 1, format!("{name} is built"), remedy)
    };
    Ok(built(&tree).map(violation).collect())
}

fn built(tree: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let has = move |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    BANNED.iter().filter(move |(name, _)| has(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_package_is_found_and_a_longer_name_is_not() {
        let names = |tree: &str| built(tree).map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names("cortex v0.1.0 (/r)\nring v0.17.0\nring v0.17.0 (*)\n"), ["ring"]);
        assert_eq!(names("cortex v0.1.0 (/r)\nring-buffer v1.0.0\n"), [""; 0]);
    }
}
