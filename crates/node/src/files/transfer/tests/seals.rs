//! Folders that follow the hub and that nobody has leave to write.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cortex_core::sync::{Mode, Rule, Why};
use cortex_core::transfer::ApplyAsk;

use super::super::super::support::Scene;
use super::support::{Done, FIRST, Hub, Source, apply, ask, root, tree};

fn follow(scene: &Scene, source: &Source, base: Option<cortex_core::files::content::TreeId>) -> Done {
    let tree = tree(source.path());
    let mode = Mode::FromHub { repair: true };
    let asked = ApplyAsk { mode, base, read_only: true, ..ask("t", tree.root(), FIRST) };
    apply(scene, asked, &mut Hub::of(vec![tree]))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn modes(scene: &Scene, paths: &[&str]) -> Vec<u32> {
    paths.iter().map(|path| mode(&scene.disk(path))).collect()
}

fn source() -> Source {
    let source = Source::new();
    source.write("SKILL.md", "# مهارة");
    source.write("bin/run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(source.path().join("bin/run.sh"), PermissionsExt::from_mode(0o755))
        .expect("set");
    source
}

#[test]
fn nobody_has_leave_to_write_what_came_and_the_next_one_comes_all_the_same() {
    let (scene, source) = (Scene::new(), source());
    let paths = ["t", "t/SKILL.md", "t/bin", "t/bin/run.sh"];
    let first = root(source.path());
    assert_eq!(follow(&scene, &source, None).end().root, Some(first));
    assert_eq!(modes(&scene, &paths), [0o555, 0o444, 0o555, 0o555]);
    source.write("bin/more", "x");
    source.write("SKILL.md", "# أخرى");
    std::fs::remove_file(source.path().join("bin/run.sh")).expect("removed");
    let second = root(source.path());
    assert_eq!(follow(&scene, &source, Some(first)).end().root, Some(second));
    assert_eq!(root(&scene.disk("t")), second);
    assert_eq!(modes(&scene, &["t", "t/SKILL.md", "t/bin", "t/bin/more"]), [0o555, 0o444, 0o555, 0o444]);
    // Somebody gives himself leave: it is taken again, also when he changed nothing.
    std::fs::set_permissions(scene.disk("t/SKILL.md"), PermissionsExt::from_mode(0o666)).expect("set");
    let same = follow(&scene, &source, Some(second));
    assert_eq!(
        (same.is_open, same.end().root, mode(&scene.disk("t/SKILL.md"))),
        (false, Some(second), 0o444)
    );
}

#[test]
fn what_its_owner_changed_all_the_same_is_kept_beside_and_the_content_of_the_hub_is_back() {
    let (scene, source) = (Scene::new(), source());
    let target = root(source.path());
    follow(&scene, &source, None).end();
    let file = scene.disk("t/SKILL.md");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("set");
    std::fs::write(&file, "# his own").expect("written");
    std::fs::set_permissions(scene.disk("t"), PermissionsExt::from_mode(0o755)).expect("set");
    std::fs::write(scene.disk("t/notes"), "his").expect("written");
    let end = follow(&scene, &source, Some(target)).end().clone();
    assert_ne!(end.root, Some(target), "there is more in it than the hub has");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "# مهارة");
    assert_eq!(end.counts.held.get(&Why::Drift), Some(&1), "{end:?}");
    let kept: Vec<String> = scene.names("t").into_iter().filter(|name| name.contains("conflict")).collect();
    assert_eq!(std::fs::read_to_string(scene.disk(&format!("t/{}", kept[0]))).expect("there"), "# his own");
    assert_eq!(std::fs::read_to_string(scene.disk("t/notes")).expect("there"), "his");
    assert_eq!(modes(&scene, &["t", "t/SKILL.md", "t/notes"]), [0o555, 0o444, 0o444]);
    // Without our own folder it is another one, for whoever had it before.
    std::fs::set_permissions(scene.disk("t"), PermissionsExt::from_mode(0o755)).expect("set");
    std::fs::remove_dir_all(scene.disk("t")).expect("removed");
    let gone = follow(&scene, &source, Some(target)).end().clone();
    let rules: Vec<Rule> = gone.halt.iter().flat_map(|halt| &halt.causes).map(|cause| cause.rule).collect();
    assert_eq!(rules, [Rule::RootGone], "{gone:?}");
    assert_eq!(follow(&scene, &source, None).end().root, Some(target), "it is made anew");
}

#[test]
fn the_modes_of_a_file_that_has_another_name_elsewhere_are_left_alone() {
    let (scene, source) = (Scene::new(), source());
    let first = root(source.path());
    follow(&scene, &source, None);
    let foreign = scene.disk("foreign");
    std::fs::write(&foreign, "mine").expect("written");
    std::fs::set_permissions(&foreign, PermissionsExt::from_mode(0o640)).expect("set");
    std::fs::set_permissions(scene.disk("t"), PermissionsExt::from_mode(0o755)).expect("set");
    std::fs::hard_link(&foreign, scene.disk("t/linked")).expect("linked");
    follow(&scene, &source, Some(first));
    assert_eq!(mode(&foreign), 0o640);
}
