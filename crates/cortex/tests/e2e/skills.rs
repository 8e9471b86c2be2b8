//! `cortex skill` against a real hub and node.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::files::world;
use crate::world::{Ended, World};

impl World {
    fn skill(&self, arguments: &[&str]) -> Ended {
        self.cortex(&[&["skill"], arguments].concat())
    }

    fn promotes(&self, folder: &Path, more: &[&str]) -> Ended {
        let from = format!("a:{}", folder.to_str().expect("text"));
        self.skill(&[&["promote", "build", "--from", &from], more].concat())
    }

    fn skill_json(&self, arguments: &[&str]) -> Value {
        self.skill(&[arguments, &["--json"]].concat()).expect(0).value()
    }
}

#[test]
fn a_folder_of_a_node_is_promoted_read_and_promoted_again_and_outlives_its_node_and_the_hub() {
    let (mut world, work) = world();
    let folder = work.join("مهارات/build");
    std::fs::create_dir_all(folder.join("bin")).expect("folders");
    std::fs::write(folder.join("bin/run.sh"), "#!/bin/sh\nexit 0\n").expect("a file");
    std::fs::set_permissions(folder.join("bin/run.sh"), PermissionsExt::from_mode(0o755))
        .expect("an exec bit");
    std::fs::write(folder.join("bin/noise"), [0xff, 0x00, 0x0a]).expect("a file");
    let refused = world.promotes(&folder, &[]).expect(2);
    assert!(refused.stderr.contains("SKILL.md") && refused.stderr.contains("hint"), "{}", refused.stderr);
    assert_eq!(world.skill_json(&["ls"]), serde_json::json!([]));

    std::fs::write(folder.join("SKILL.md"), "# يبني المشروع\n").expect("a file");
    let first = world.promotes(&folder, &["--json"]).expect(0).value();
    assert_eq!(
        (&first["revision"], &first["already"], &first["files"]),
        (&1.into(), &false.into(), &3.into())
    );
    let listed = world.skill_json(&["ls"]);
    assert_eq!((&listed[0]["name"], &listed[0]["revision"]), (&"build".into(), &1.into()), "{listed}");
    assert_eq!(world.skill(&["show", "build", "--text"]).expect(0).text(), "# يبني المشروع\n");
    assert_eq!(world.skill(&["show", "build", "--text", "bin/noise"]).expect(0).stdout, [0xff, 0x00, 0x0a]);
    let files = world.skill_json(&["show", "build", "--files", "bin"]);
    assert_eq!((&files[1]["name"], &files[1]["exec"]), (&"run.sh".into(), &true.into()), "{files}");

    // Times are no content.
    std::fs::write(folder.join("SKILL.md"), "# يبني المشروع\n").expect("a file");
    let again = world.promotes(&folder, &[]).expect(0);
    assert!(again.text().contains("revision 1") && again.text().contains("already"), "{}", again.text());
    let long = "سطر من النص\n".repeat(20_000);
    std::fs::write(folder.join("long.txt"), &long).expect("a file");
    let second = world.promotes(&folder, &["--expect", "1", "--json"]).expect(0).value();
    assert_eq!((&second["revision"], &second["already"]), (&2.into(), &false.into()));
    assert!(world.skill(&["show", "build", "--text", "long.txt"]).expect(0).text() == long, "part by part");
    std::fs::write(folder.join("long.txt"), "short").expect("a file");
    let stale = world.promotes(&folder, &["--expect", "1"]).expect(8);
    assert!(stale.stderr.contains("revision 2") && stale.stderr.contains("token:admin"), "{}", stale.stderr);

    symlink("/etc/passwd", folder.join("out")).expect("a link");
    let leads_out = world.promotes(&folder, &[]).expect(1);
    assert!(leads_out.stderr.contains("unsupported_entry"), "{}", leads_out.stderr);

    // The library is the hub's: neither the node nor a crash takes anything of it.
    world.stop_node("a");
    let addresses = world.kill_hub();
    world.start_hub(&addresses);
    let shown = world.skill_json(&["show", "build"]);
    let revisions: Vec<u64> = shown["revisions"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["revision"].as_u64())
        .collect();
    assert_eq!(revisions, [2, 1], "{shown}");
    assert!(world.skill(&["show", "build", "--text", "long.txt"]).expect(0).text() == long);
    world.skill(&["show", "build", "--text", "long.txt", "--revision", "1"]).expect(3);
    world.skill(&["rm", "build"]).expect(2);
    world.skill(&["rm", "build", "--yes"]).expect(0);
    world.skill(&["show", "build"]).expect(3);
    assert_eq!(world.skill_json(&["ls"]), serde_json::json!([]));
}

#[test]
fn a_mounted_folder_is_read_only_follows_the_library_and_takes_nothing_back_to_it() {
    let (world, work) = world();
    let (folder, mounted) = (work.join("source"), work.join(".skills/بناء"));
    std::fs::create_dir_all(folder.join("bin")).expect("folders");
    std::fs::write(folder.join("SKILL.md"), "one").expect("a file");
    std::fs::write(folder.join("bin/run"), "old").expect("a file");
    world.promotes(&folder, &[]).expect(0);
    let place = format!("a:{}", mounted.to_str().expect("text"));
    world.skill(&["mount", "build", &place]).expect(0);
    let stands = |state: &str, revision: u64| {
        world.eventually(state, Duration::from_secs(100), |world| {
            let shown = world.skill_json(&["show", "build"]);
            let mount = &shown["mounts"][0];
            (mount["state"] == state && mount["revision"] == revision).then_some(())
        });
    };
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let text = |name: &str| std::fs::read_to_string(mounted.join(name)).expect("it is there");
    stands("in_sync", 1);
    assert_eq!((text("SKILL.md"), text("bin/run")), ("one".to_owned(), "old".to_owned()));
    let modes = [mode(&mounted), mode(&mounted.join("bin")), mode(&mounted.join("SKILL.md"))];
    assert_eq!(modes, [0o555, 0o555, 0o444]);

    // Its owner writes there all the same.
    std::fs::set_permissions(&mounted, PermissionsExt::from_mode(0o755)).expect("his own");
    std::fs::set_permissions(mounted.join("SKILL.md"), PermissionsExt::from_mode(0o644)).expect("his own");
    std::fs::write(mounted.join("SKILL.md"), "of the node").expect("written");
    std::fs::write(folder.join("SKILL.md"), "two").expect("a file");
    std::fs::remove_file(folder.join("bin/run")).expect("removed");
    world.promotes(&folder, &[]).expect(0);
    stands("drifted", 2);
    assert_eq!(text("SKILL.md"), "two");
    assert!(!mounted.join("bin/run").exists(), "what the revision has not is gone");
    let kept: Vec<_> = std::fs::read_dir(&mounted)
        .expect("a folder")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.contains("conflict"))
        .collect();
    assert_eq!(kept.iter().map(|name| text(name)).collect::<Vec<_>>(), ["of the node"]);
    let shown = world.skill_json(&["show", "build"]);
    assert_eq!(shown["revision"], 2, "the library has what was promoted, and nothing else: {shown}");
    assert_eq!(world.skill(&["show", "build", "--text"]).expect(0).text(), "two");
    world.skill(&["rm", "build", "--yes"]).expect(8);
    world.skill(&["unmount", "build", &place]).expect(0);
    world.skill(&["rm", "build", "--yes"]).expect(0);
    assert_eq!(text("SKILL.md"), "two");
}
