//! A folder that took the place of another is not it.

use std::fs;

use cortex_core::sync::RootState;

use super::super::super::support::open as root_at;
use super::*;

#[test]
fn sync_02_a_root_whose_marker_or_inode_changed_is_unavailable_and_deletes_nothing() {
    let scene = Scene::new();
    let dir = open(&scene);
    assert_eq!(Identity::read(&dir), Ok(None));
    let made = Identity::make(&dir).expect("made");
    assert_eq!(Identity::make(&dir), Ok(made), "a marker is never made anew");
    assert_eq!((Identity::read(&dir), Identity::check(&made.root(), &dir)), (Ok(Some(made)), RootState::Dir));
    assert_eq!(scene.names(".cortex"), ["root"]);
    let unavailable =
        |why: &str| assert_eq!(Identity::check(&made.root(), &open(&scene)), RootState::Unavailable, "{why}");
    // The marker in another folder.
    fs::create_dir_all(scene.outside("other/.cortex")).expect("made");
    fs::copy(scene.disk(".cortex/root"), scene.outside("other/.cortex/root")).expect("copied");
    let other = root_at(&scene.outside("other")).dir(&RelPath::root(), Follow::Never).expect("a folder");
    assert_eq!(Identity::check(&made.root(), &other), RootState::Unavailable, "another inode");
    // Another marker, half of one, none, and none to be read.
    let marker = fs::read(scene.disk(".cortex/root")).expect("read");
    let write = |content: &[u8]| {
        let _was = fs::remove_file(scene.disk(".cortex/root"));
        fs::write(scene.disk(".cortex/root"), content).expect("written");
    };
    write(&[b'0'; 64]);
    unavailable("another marker");
    write(&marker[..20]);
    unavailable("half a marker");
    assert!(Identity::make(&dir).is_err(), "and what stands there is not written over");
    write(&[b'a'; 4096]);
    unavailable("too long");
    write(&marker);
    assert_eq!(Identity::check(&made.root(), &dir), RootState::Dir, "the old one back");
    fs::rename(scene.disk(".cortex"), scene.outside("elsewhere")).expect("moved");
    unavailable("no marker");
    std::os::unix::fs::symlink(scene.outside("elsewhere"), scene.disk(".cortex")).expect("made");
    unavailable("a link to a marker");
}

#[test]
fn sync_02_another_disk_over_the_folder_is_another_folder() {
    on_small_disk("1m", |scene| {
        let made = Identity::make(&open(scene)).expect("made");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &scene.disk(""), Some("tmpfs"), flags, Some("size=1m"))
            .expect("mounted");
        let above = root_at(&scene.disk("")).dir(&RelPath::root(), Follow::Never).expect("a folder");
        assert_eq!(Identity::check(&made.root(), &above), RootState::Unavailable);
        nix::mount::umount2(&scene.disk(""), nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
        assert_eq!(Identity::check(&made.root(), &open(scene)), RootState::Dir);
    });
}

#[test]
fn of_two_who_mark_a_folder_at_once_both_get_one_marker() {
    for _ in 0..20 {
        let scene = Scene::new();
        let barrier = std::sync::Barrier::new(4);
        let dirs: Vec<Dir> = (0..4).map(|_| open(&scene)).collect();
        let made: Vec<Identity> = std::thread::scope(|scope| {
            let threads: Vec<_> = dirs
                .iter()
                .map(|dir| {
                    scope.spawn(|| {
                        barrier.wait();
                        Identity::make(dir).expect("made")
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(made.iter().all(|one| *one == made[0]));
        assert_eq!(scene.names(".cortex"), ["root"]);
    }
}
