//! A test of whole processes that goes on as an ordinary user, and the home directory that its nodes
//! have then: with the Rust toolchain of this machine where everybody may read it.

use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{PROGRAM, cortex};

/// Set in the second half of a test, which is an ordinary user: the folder of what it needs.
const AS_USER: &str = "CORTEX_TEST_AS_USER";
const NOBODY: u32 = 65_534;
/// The toolchain's name in that home directory.
const TOOLCHAIN: &str = "of-the-tests";
/// In the folder that both halves share.
const NO_TOOLCHAIN: &str = "no-toolchain";

/// A home directory of the user of node processes, as rustup leaves one.
pub(crate) struct Home {
    folder: PathBuf,
}

/// Runs a test, and again as an ordinary user when this is root. `name` is that of the test.
pub(crate) fn as_each_user(name: &str, body: impl Fn(&Home)) {
    if let Some(folder) = std::env::var_os(AS_USER) {
        return body(&Home { folder: folder.into() });
    }
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home { folder: folder.path().to_owned() };
    home.open(folder.path());
    home.furnish();
    body(&home);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    println!("as an ordinary user:");
    let test = std::env::current_exe().expect("it has one");
    for (from, to) in [(test, "test"), (cortex(), "cortex")] {
        link(&from, &folder.path().join(to)).expect("the program where the user may read it");
    }
    let mut command = Command::new(folder.path().join("test"));
    command.args([name, "--exact", "--nocapture"]).env(AS_USER, folder.path());
    command.env(PROGRAM, folder.path().join("cortex")).env("HOME", "/tmp");
    let status = command.uid(NOBODY).gid(NOBODY).current_dir("/").output().expect("started");
    let text = String::from_utf8_lossy(&status.stdout);
    println!("{text}");
    assert!(text.contains("1 passed"), "as a user: {}", String::from_utf8_lossy(&status.stderr));
}

impl Home {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// What a node of this user looks programs up in.
    pub(crate) fn search_path(&self) -> String {
        format!("{}:/usr/local/bin:/usr/bin:/bin", self.path().join(".cargo/bin").display())
    }

    /// Lets other users pass: below level full the mode of what lies above a root counts.
    #[expect(clippy::unused_self, reason = "it belongs to whoever runs as several users")]
    pub(crate) fn open(&self, folder: &Path) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("set");
    }

    /// Why there is no toolchain in it.
    pub(crate) fn no_toolchain(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.join(NO_TOOLCHAIN)).ok()
    }

    /// The layout that rustup makes: names in `.cargo/bin` that lead to it, the toolchain in
    /// `.rustup`. Linked, since a toolchain has a gigabyte.
    fn furnish(&self) {
        let sysroot = Path::new(env!("CARGO")).ancestors().nth(2).expect("cargo lies in a folder `bin`");
        std::fs::create_dir(self.path()).expect("made");
        if sysroot.starts_with("/usr") {
            return;
        }
        let made = self.link_toolchain(sysroot);
        if let Err(error) = made {
            let reason = format!("{} cannot be linked into a home directory: {error}", sysroot.display());
            std::fs::write(self.folder.join(NO_TOOLCHAIN), reason).expect("written");
        }
    }

    fn link_toolchain(&self, sysroot: &Path) -> io::Result<()> {
        let (bin, rustup) = (self.path().join(".cargo/bin"), self.path().join(".rustup"));
        std::fs::create_dir_all(&bin)?;
        std::fs::hard_link(rustup_exe()?, bin.join("rustup"))?;
        for name in ["cargo", "rustc", "rustdoc"] {
            symlink("rustup", bin.join(name))?;
        }
        for part in ["bin", "lib"] {
            link_tree(&sysroot.join(part), &rustup.join("toolchains").join(TOOLCHAIN).join(part))?;
        }
        let settings =
            format!("version = \"12\"\ndefault_toolchain = \"{TOOLCHAIN}\"\nprofile = \"minimal\"\n");
        std::fs::write(rustup.join("settings.toml"), settings)
    }
}

fn rustup_exe() -> io::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    home.unwrap_or_default().join("bin/rustup").canonicalize()
}

fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = (entry?, to.to_owned());
        let to = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // The sources of the library, when they are there, are of no use here.
            if entry.file_name() != "src" {
                link_tree(&entry.path(), &to)?;
            }
        } else if kind.is_symlink() {
            symlink(std::fs::read_link(entry.path())?, to)?;
        } else {
            std::fs::hard_link(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The same file, or a copy of it.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop))
}
