//! `cortex workspace create --from DIR`: a folder of this machine becomes the first revision of a workspace of the
//! hub, whole or not at all.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::json;

use crate::transfers::{allow, is_same, source};
use crate::workspaces::WS;
use crate::world::{Ended, World, hub};

impl World {
    fn create(&self, name: &str, from: &Path, more: &[&str]) -> Ended {
        let from = from.to_str().expect("text");
        self.cortex(&[&["workspace", "create", name, "--from", from], more].concat())
    }

    /// The names of the workspaces.
    fn workspaces(&self) -> Vec<String> {
        let all = self.cortex(&["workspace", "ls", "--json"]).expect(0).value();
        let names = all.as_array().expect("a list").iter();
        names.map(|ws| ws["name"].as_str().expect("a name").to_owned()).collect()
    }
}

#[test]
fn a_folder_of_this_machine_becomes_a_workspace_and_goes_to_its_members() {
    let world = hub().node("a").start();
    let source = source(&world);
    // What a node or a pull noted in it stays here.
    fs::create_dir(source.join(".cortex")).expect("a folder");
    fs::write(source.join(".cortex/base"), "x").expect("write");
    let made = world.create(WS, &source, &["--vcs", "--json"]).expect(0).value();
    assert_eq!((&made["mode"], &made["revision"], &made["members"]), (&json!("hub"), &json!(1), &json!([])));
    let history = world.cortex(&["workspace", "history", WS, "--json"]).expect(0).value();
    assert_eq!((&history[0]["kind"], &history[0]["files"]), (&json!("import"), &json!(406)), "{history}");
    let folder = allow(&world, "a").join("مجلد");
    let place = format!("a:{}", folder.display());
    world.cortex(&["workspace", "attach", WS, &place, "--wait", "--timeout", "50s"]).expect(0);
    is_same(&source, &folder);

    // The rules of the workspace say what of the folder it begins with.
    fs::write(source.join(".gitignore"), "long\n").expect("write");
    let named = world.create("بعض", &source, &["--exclude", "*.txt"]);
    assert_eq!(named.code, Some(2), "{}", named.stderr);
    let some = world.create("some", &source, &["--exclude", "*.txt", "--no-links-outside"]).expect(0);
    for said in [
        "Made workspace some of ",
        "the hub's copy is the source",
        "workspace: out",
        "cortex workspace attach some",
    ] {
        assert!(some.stderr.contains(said), "{said}: {}", some.stderr);
    }
    assert!(some.stdout.is_empty());
    let manifest = world.cortex(&["workspace", "status", "some", "--json"]).expect(0).value();
    assert_eq!(manifest["rules"]["exclude"], json!(["*.txt"]));
    let some = world.path("work-a").join("some");
    let place = format!("a:{}", some.display());
    world.cortex(&["workspace", "attach", "some", &place, "--wait", "--timeout", "50s"]).expect(0);
    let mut names: Vec<_> =
        fs::read_dir(&some).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    let expected = [".cortex", ".gitignore", "empty", "empty folder", "link", "run.sh", "مجلد"];
    assert_eq!(names, expected.map(OsStr::new));
}

#[test]
fn what_cannot_be_whole_is_no_workspace() {
    let world = hub().start();
    let folder = world.path("folder");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("good"), "x").expect("write");
    let bad = folder.join(OsStr::from_bytes(b"caf\xe9"));
    fs::write(&bad, "x").expect("write");
    let refused = world.create(WS, &folder, &["--json"]).expect(1);
    assert!(refused.stderr.contains("1 entry has a name that no tree takes"), "{}", refused.stderr);
    assert_eq!(refused.refusal(), "unsupported_entry");
    fs::remove_file(&bad).expect("removed");
    for (more, code) in [(&["--bytes-max", "0"][..], 1), (&["--exclude", ""], 2)] {
        let refused = world.create(WS, &folder, more);
        assert_eq!(refused.code, Some(code), "{more:?}: {}", refused.stderr);
    }
    assert_eq!(world.workspaces(), Vec::<String>::new());
    // The empty folder is one all the same.
    fs::remove_file(folder.join("good")).expect("removed");
    world.create(WS, &folder, &[]).expect(0);
    let again = world.create(WS, &folder, &["--json"]).expect(8);
    assert_eq!((again.refusal(), world.workspaces()), ("conflict".to_owned(), vec![WS.to_owned()]));
}
