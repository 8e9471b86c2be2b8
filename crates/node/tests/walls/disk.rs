//! The node's disk is full while the folders of a run are made.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cortex_core::Code;
use cortex_core::sandbox::{Access, Level};
use cortex_node::NodeConfig;
use cortex_node::trial::Trial;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

use super::support::{LEVELS, PATIENCE, World, denied, guard_exe, is_root, open_to_all, walls};

/// Set in the process that has the small disk for its temporary files.
const SMALL_DISK: &str = "CORTEX_TEST_SMALL_DISK";

#[test]
fn a_run_without_room_for_its_folders_is_refused_and_the_next_one_works() {
    let name = "disk::a_run_without_room_for_its_folders_is_refused_and_the_next_one_works";
    if std::env::var_os(SMALL_DISK).is_some() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let body = async {
            start_on_a_full_disk().await;
            for level in LEVELS {
                run_on_a_full_disk(level).await;
            }
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.expect("in time") });
        return;
    }
    if !is_root() {
        // Nobody else mounts a disk.
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    open_to_all(folder.path());
    let mut test = Command::new(std::env::current_exe().expect("it has one"));
    test.args([name, "--exact", "--nocapture"]).env(SMALL_DISK, "1").env("TMPDIR", folder.path());
    with_small_disk(&mut test, folder.path().to_owned());
    let output = test.output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Where nobody else sees it.
#[expect(unsafe_code, reason = "the mounts of the child alone are changed, so between fork and exec")]
fn with_small_disk(command: &mut Command, folder: PathBuf) {
    let mount_it = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some("size=4m,nr_inodes=64"))?;
        Ok(())
    };
    // SAFETY: system calls on paths that are short enough to need no memory of the heap.
    unsafe { command.pre_exec(mount_it) };
}

async fn run_on_a_full_disk(level: Level) {
    let world = World::new(level).await;
    let work = world.path("work");
    let walls = walls(&[(&work, Access::Write, true)]);
    let disk = std::env::temp_dir();
    let mut filling = fill(&world.add_folder("filling"));
    assert_eq!(files_free(&disk), 0);
    // The home directory in the folder for work; below level full a folder of its own as well.
    let needed = if level == Level::Full { 1 } else { 2 };
    for free in 0..needed {
        let outcome = world.shell(&walls, "true").await;
        let why = denied(&outcome);
        assert!(why.starts_with("sandbox_unavailable: "), "{level:?} {why}");
        assert!(why.contains("No space left on device") && why.contains("Free some"), "{level:?} {why}");
        assert_eq!(files_free(&disk), free, "{level:?}: nothing of it is left");
        std::fs::remove_file(filling.pop().expect("there are many")).expect("removed");
    }
    assert_eq!(world.text(&walls, "cd; pwd").await, format!("{}\n", work.join(".home").display()));
    assert_eq!(files_free(&disk), 0, "{level:?}: both are kept for the next run");
    world.finish().await;
}

async fn start_on_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = NodeConfig {
        guard_exe: guard_exe(),
        level_max: Level::Kernel,
        ..NodeConfig::new(folder.path().join("data"))
    };
    let filling = fill(folder.path());
    let refusal = Trial::new(config.clone()).await.expect_err("there is no room");
    assert_eq!(refusal.code, Code::BadConfig);
    assert!(refusal.message.contains("No space left on device"), "{refusal}");
    assert!(refusal.hint.contains("TMPDIR"), "{}", refusal.hint);
    filling.iter().for_each(|file| std::fs::remove_file(file).expect("removed"));
    Trial::new(config).await.expect("there is room").finish().await;
}

/// Makes files until there is no room for one more.
fn fill(folder: &Path) -> Vec<PathBuf> {
    let files = (0..).map(|number: u32| folder.join(number.to_string()));
    files.take_while(|file| std::fs::File::create(file).is_ok()).collect()
}

fn files_free(disk: &Path) -> u64 {
    statvfs(disk).expect("it is mounted").files_free()
}
