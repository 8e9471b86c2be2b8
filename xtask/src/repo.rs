//! The checkout: where it is, its files, its packages as cargo sees them.
//!
//! It only reads. It knows no rule.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Folders of the checkout that hold Rust sources of ours.
const SOURCE_FOLDERS: &[&str] = &["crates", "xtask", "bench"];

/// An opened checkout.
pub(crate) struct Repo {
    /// Its top folder.
    pub(crate) root: PathBuf,
    /// The packages of the workspace.
    pub(crate) packages: Vec<Package>,
}

/// One package of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    /// `cortex-core`.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// What its manifest asks for.
    pub(crate) dependencies: Vec<Dependency>,
    /// Its features.
    pub(crate) features: Vec<String>,
    /// The root file of each target: library, binaries, tests, benches, examples, build script.
    pub(crate) targets: Vec<PathBuf>,
}

/// One line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The package asked for.
    pub(crate) name: String,
    /// For what.
    pub(crate) kind: Kind,
}

/// For what a dependency is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The product itself, or its build script.
    Product,
    /// Tests only.
    Tests,
}

impl Repo {
    /// Opens the checkout that cargo runs this program in.
    pub(crate) fn open() -> Result<Self> {
        let here =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("xtask"), PathBuf::from);
        let root = here.parent().context("find the checkout above xtask")?.to_owned();
        let told = output(cargo(&root).args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let packages = packages(&serde_json::from_str(&told).context("read cargo's metadata")?)?;
        Ok(Self { root, packages })
    }

    /// Every `.rs` file of ours, by path relative to the root with `/` in it, in order.
    pub(crate) fn sources(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for folder in SOURCE_FOLDERS {
            collect(&self.root.join(folder), &mut found)?;
        }
        let mut paths: Vec<String> = found.iter().map(|path| self.relative(path)).collect();
        paths.sort();
        Ok(paths)
    }

    /// The text of a file by its relative path.
    pub(crate) fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("read {path}"))
    }

    /// `path` as it is shown: relative to the root.
    pub(crate) fn relative(&self, path: &Path) -> String {
        let inner = path.strip_prefix(&self.root).unwrap_or(path);
        inner.to_string_lossy().replace('\\', "/")
    }

    /// `package/feature` for each package that has the feature.
    pub(crate) fn with_feature(&self, feature: &str) -> Vec<String> {
        let has = |package: &&Package| package.features.iter().any(|name| name == feature);
        self.packages.iter().filter(has).map(|package| format!("{}/{feature}", package.name)).collect()
    }
}

/// The cargo that runs us, in the folder `root`.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root);
    command
}

/// What `command` prints. An error when it fails, with what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("start {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    String::from_utf8(done.stdout).with_context(|| format!("read what {command:?} prints"))
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = metadata["packages"].as_array().context("find `packages` in cargo's metadata")?;
    list.iter().map(package).collect()
}

fn package(value: &Value) -> Result<Package> {
    let manifest = PathBuf::from(value["manifest_path"].as_str().context("find `manifest_path`")?);
    Ok(Package {
        name: value["name"].as_str().context("find `name`")?.to_owned(),
        dir: manifest.parent().context("find the package's folder")?.to_owned(),
        dependencies: items(&value["dependencies"]).filter_map(dependency).collect(),
        features: value["features"].as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default(),
        targets: items(&value["targets"]).filter_map(|t| t["src_path"].as_str()).map(PathBuf::from).collect(),
    })
}

fn dependency(value: &Value) -> Option<Dependency> {
    let kind = if value["kind"].as_str() == Some("dev") { Kind::Tests } else { Kind::Product };
    Some(Dependency { name: value["name"].as_str()?.to_owned(), kind })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_metadata_becomes_packages() {
        let told = serde_json::json!({"packages": [{
            "name": "cortex-store",
            "manifest_path": "/r/crates/store/Cargo.toml",
            "dependencies": [
                {"name": "cortex-core", "kind": null},
                {"name": "prost-build", "kind": "build"},
                {"name": "proptest", "kind": "dev"},
            ],
            "features": {"failpoints": ["fail/failpoints"]},
            "targets": [{"src_path": "/r/crates/store/src/lib.rs"}],
        }]});
        let all = packages(&told).expect("well-formed metadata");
        let [store] = all.as_slice() else { panic!("one package, not {all:?}") };
        let kinds: Vec<Kind> = store.dependencies.iter().map(|d| d.kind).collect();
        assert_eq!(kinds, [Kind::Product, Kind::Product, Kind::Tests]);
        assert_eq!(store.dir, Path::new("/r/crates/store"));
        assert_eq!(store.features, ["failpoints"]);
        assert_eq!(store.targets, [Path::new("/r/crates/store/src/lib.rs")]);
    }

    #[test]
    fn metadata_without_packages_is_an_error() {
        assert!(packages(&serde_json::json!({})).is_err());
    }

    #[test]
    fn only_packages_with_the_feature_are_named() {
        let package = |name: &str, features: &[&str]| Package {
            name: name.to_owned(),
            dir: PathBuf::new(),
            dependencies: Vec::new(),
            features: features.iter().map(|f| (*f).to_owned()).collect(),
            targets: Vec::new(),
        };
        let packages = vec![package("cortex-store", &["failpoints"]), package("cortex-core", &[])];
        let repo = Repo { root: PathBuf::new(), packages };
        assert_eq!(repo.with_feature("failpoints"), ["cortex-store/failpoints"]);
    }

    #[test]
    fn a_failing_command_is_an_error_with_its_complaint() {
        let error = output(Command::new("cargo").arg("no-such-subcommand")).expect_err("it fails");
        assert!(error.to_string().contains("no-such-subcommand"), "{error}");
    }
}
