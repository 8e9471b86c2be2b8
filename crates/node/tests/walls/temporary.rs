//! Roots in the folders for temporary files, which a run at level full has for itself.

use std::path::Path;

use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Access, Level};

use super::support::{LEVELS, World, as_each_user, denied, open_to_all, walls};

/// A folder of this test's own in another, and what is in that.
fn folder(parent: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(parent).expect("a folder");
    open_to_all(folder.path());
    std::fs::write(folder.path().join("text"), parent).expect("written");
    folder
}

#[test]
fn roots_below_both_folders_are_there_and_what_a_run_writes_stays() {
    as_each_user("temporary::roots_below_both_folders_are_there_and_what_a_run_writes_stays", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let (lasting, short) = (folder("/var/tmp"), folder("/tmp"));
            let inner = lasting.path().join("a/b");
            std::fs::create_dir_all(&inner).expect("made");
            open_to_all(&inner);
            let granted = [lasting.path(), short.path()].map(|path| (path, Access::Write, true));
            let walls = walls(&[granted[0], granted[1], (&inner, Access::Write, true)]);
            for path in [lasting.path(), short.path(), inner.as_path()] {
                let spec = RunSpec {
                    cwd: Some(path.display().to_string()),
                    ..super::support::shell(
                        "set -e; pwd; echo here > new; cp /bin/true tool; ./tool; f=$(mktemp); rm $f",
                    )
                };
                let outcome = world.trial.run(Some(&walls), spec).await;
                assert_eq!(
                    outcome.ended.code,
                    Some(0),
                    "{level:?} {}",
                    String::from_utf8_lossy(&outcome.stderr)
                );
                assert_eq!(
                    std::fs::read_to_string(path.join("new")).expect("it stayed"),
                    "here\n",
                    "{level:?}"
                );
            }
            let read = |path: &Path| format!("cat {}/text", path.display());
            let script = format!("{}; {}", read(lasting.path()), read(short.path()));
            assert_eq!(world.text(&walls, &script).await, "/var/tmp/tmp", "{level:?}");
            world.finish().await;
        }
    });
}

#[test]
fn a_root_that_would_have_the_place_of_another_is_refused_at_level_full() {
    as_each_user("temporary::a_root_that_would_have_the_place_of_another_is_refused_at_level_full", async {
        let world = World::new(Level::Full).await;
        let lasting = folder("/var/tmp");
        let short = Path::new("/tmp").join(lasting.path().file_name().expect("a name"));
        let inner = short.join("inner");
        std::fs::create_dir_all(&inner).expect("made");
        for other in [&short, &inner] {
            let walls = walls(&[(lasting.path(), Access::Write, true), (other, Access::Read, false)]);
            let outcome = world.shell(&walls, "true").await;
            assert!(denied(&outcome).contains("(roots.reserved)"), "{outcome:?}");
        }
        let whole = walls(&[(Path::new("/var/tmp"), Access::Write, true)]);
        assert!(denied(&world.shell(&whole, "true").await).contains("(roots.reserved)"));
        std::fs::remove_dir_all(&short).expect("removed");
        world.finish().await;
    });
}
