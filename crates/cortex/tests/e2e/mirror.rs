//! Folders of workspaces seen by who works on files: a lock keeps others out, and the hub's copy answers while
//! their node is away.

use serde_json::{Value, json};

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::files::world;
use crate::world::{DEADLINE, World};

impl World {
    /// Calls with a body of JSON.
    fn asks(&self, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("content-type", "application/json")];
        self.api(method, path, &headers, body.to_string().as_bytes()).ok()
    }
}

/// A workspace with a folder of the node in this role.
fn member(world: &World, work: &Path, mode: &Value, role: &str) -> PathBuf {
    let folder = work.join("ملاحظات");
    std::fs::create_dir_all(&folder).expect("a folder");
    for folder in [work, &folder] {
        // Runs have another user when the node is root.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    world.asks("POST", "/workspaces", mode);
    let member = json!({"node": "a", "path": folder, "role": role});
    world.asks("POST", "/workspaces/notes/members", &member);
    folder
}

#[test]
fn a_locked_folder_takes_writes_and_pushes_of_the_holder_alone() {
    let (world, work) = world();
    let folder = member(&world, &work, &json!({"name": "notes"}), "follower");
    let held = world.asks("PUT", "/workspaces/notes/lock", &json!({"ttl_ms": 600_000}));
    let epoch = held["lock"]["epoch"].to_string();
    let place = |name: &str| format!("a:{}", folder.join(name).display());
    let (file, dir) = (place("f"), place("d"));
    let source = world.path("f");
    std::fs::write(&source, "one\n").expect("write");
    let from = source.to_str().expect("text");
    let changes: &[&[&str]] = &[
        &["fs", "mkdir", &dir],
        &["fs", "write", &file, from],
        &["fs", "edit", &file, "--old", "one", "--new", "two"],
        &["push", from, &file],
    ];
    for change in changes {
        let refused = world.cortex(change);
        assert_ne!(refused.code, Some(0), "{change:?}");
        assert!(refused.stderr.contains("--lock"), "{change:?}: {}", refused.stderr);
    }
    assert!(!folder.join("d").exists() && !folder.join("f").exists(), "nothing was written");
    for change in changes {
        world.cortex(&[change, &["--lock", &epoch][..]].concat()).expect(0);
    }
    let refused = world.cortex(&["fs", "rm", &file, "--lock", "99"]);
    assert!(refused.stderr.contains("cortex workspace lock"), "{}", refused.stderr);
    world.cortex(&["fs", "cat", &file]).expect(0);
    world.asks("DELETE", &format!("/workspaces/notes/lock?epoch={epoch}"), &json!({}));
    world.cortex(&["fs", "rm", &file]).expect(0);
}

#[test]
fn a_folder_of_a_node_that_was_killed_is_read_from_the_copy_which_says_how_old_it_is() {
    let (mut world, work) = world();
    let folder = member(&world, &work, &json!({"name": "notes"}), "peer");
    let long: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    let place = |name: &str| format!("a:{}", folder.join(name).display());
    world.cortex_with_input(&["fs", "write", &place("ملف.txt")], b"one\ntwo\n".to_vec()).expect(0);
    world.cortex_with_input(&["fs", "write", &place("d/long"), "--mkdirs"], long.clone()).expect(0);
    for (name, content) in [("d/.gitignore", "*.log\n"), ("d/x.log", "two\n"), ("e.txt", "TWO\nthree\n")] {
        world.cortex_with_input(&["fs", "write", &place(name)], content.as_bytes().to_vec()).expect(0);
    }
    let files = |world: &World| {
        let history = world.api("GET", "/workspaces/notes/history", &[], b"").ok();
        (history["items"][0]["files"] == 4).then_some(())
    };
    world.eventually("the copy of both files", DEADLINE, files);
    let asked = world.cortex(&["fs", "cat", &place("ملف.txt"), "--mirror"]).expect(0);
    assert_eq!(asked.text(), "one\ntwo\n");
    assert!(asked.stderr.contains("This is the hub's copy at revision"), "{}", asked.stderr);
    let asked = world.cortex(&["fs", "cat", &place("ملف.txt")]).expect(0);
    assert!(!asked.stderr.contains("copy"), "the node itself: {}", asked.stderr);

    // Searches find the same in both.
    let root = format!("a:{}", folder.display());
    let searches: &[&[&str]] = &[
        &["fs", "find", &root],
        &["fs", "find", &root, "--name", "*.txt", "--type", "f"],
        &["fs", "find", &root, "--size", "+1M"],
        &["fs", "find", &place("d")],
        &["fs", "grep", "-i", "two", &root],
        &["fs", "grep", "t", &root, "-C", "1", "--glob", "*.txt"],
        &["fs", "grep", "-F", "nothing.", &root],
        &["fs", "grep", "two", &place("ملف.txt")],
    ];
    for search in searches {
        let (there, copy) = (world.cortex(search), world.cortex(&[search, &["--mirror"][..]].concat()));
        assert_eq!((there.code, there.text()), (copy.code, copy.text()), "{search:?}: {}", copy.stderr);
        assert!(copy.stderr.contains("This is the hub's copy"), "{}", copy.stderr);
    }

    world.kill_node("a");
    world.node_reaches("a", "offline", DEADLINE);
    let found = world.cortex(&["fs", "grep", "three", &root]).expect(0);
    assert_eq!(found.text(), format!("{}/e.txt:2:three\n", folder.display()));
    let read = world.cortex(&["fs", "cat", &place("d/long")]).expect(0);
    assert!(read.stdout == long, "byte for byte");
    assert!(read.stderr.contains("compared with the node's folder"), "{}", read.stderr);
    let lines = world.cortex(&["fs", "cat", &place("ملف.txt"), "--lines", "2-2"]).expect(0);
    assert_eq!(lines.text(), "two\n");
    let listed = world.cortex(&["fs", "ls", &format!("a:{}", folder.display()), "--depth", "2"]).expect(0);
    assert_eq!(listed.text(), "d\nd/long\ne.txt\nملف.txt\n");
    assert!(listed.stderr.contains("This is the hub's copy"), "{}", listed.stderr);
    let entry = world.cortex(&["fs", "stat", &place("d/long"), "--json"]).expect(0).value();
    assert_eq!((&entry["size"], &entry["fresh"]["from"]), (&json!(long.len()), &json!("mirror")));
    let outside = world.cortex(&["fs", "cat", &format!("a:{}", work.join("other").display())]);
    assert_eq!(outside.code, Some(7), "no copy of it: {}", outside.stderr);
    let logs = world.logs();
    for kind in ["workspace.created", "workspace.revision", "member.attached"] {
        assert!(logs.contains(kind), "{kind} is in the log");
    }
}
