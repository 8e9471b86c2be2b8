//! The sources of a large crate, by its name from where cargo gets crates, with all that it needs beside them
//! so that it builds without a network.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What is worked on: 1,900 files, most of them small and used by one line of another, and it builds in seconds.
const CRATE: &str = "esp32c6";
const VERSION: &str = "=0.23.2";

/// Brings them into `folder`, which is not there yet.
pub(super) fn bring(folder: &Path) -> Result<PathBuf> {
    let asking = folder.join("asking");
    std::fs::create_dir_all(asking.join("src"))?;
    std::fs::write(asking.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"asking\"\nedition = \"2021\"\n[dependencies]\n{CRATE} = \"{VERSION}\"\n[workspace]\n"
    );
    std::fs::write(asking.join("Cargo.toml"), manifest)?;
    vendor(&asking)?;
    let sources = folder.join(CRATE);
    std::fs::rename(asking.join("vendor").join(CRATE), &sources)?;
    std::fs::remove_file(sources.join(".cargo-checksum.json"))?;
    vendor(&sources)?;
    std::fs::create_dir_all(sources.join(".cargo"))?;
    let config =
        "[source.crates-io]\nreplace-with = \"vendored\"\n[source.vendored]\ndirectory = \"vendor\"\n";
    std::fs::write(sources.join(".cargo/config.toml"), config)?;
    Ok(sources)
}

/// Puts what a crate depends on into its folder `vendor`.
fn vendor(folder: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["vendor", "--quiet", "vendor"]).current_dir(folder);
    let output = cargo.output().context("cargo does not start")?;
    ensure!(output.status.success(), "cargo vendor: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
