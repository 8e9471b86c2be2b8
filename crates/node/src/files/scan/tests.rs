//! Scans of real folders, rule by rule.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use cortex_content::object::{FileNode, Node, Object, read_object};
use cortex_core::files::content::ContentId;
use cortex_core::sync::Problem;

use super::super::beneath::Follow;
use super::super::support::{Scene, on_small_disk, rel};
use super::*;

pub(super) mod changes;
mod crew;
mod identity;
mod source;
mod writers;

pub(super) const PLAIN: fn() -> ScanSpec = || ScanSpec { vcs: true, ..ScanSpec::default() };
const IGNORING: fn() -> ScanSpec = || ScanSpec { ignore_files: true, ..ScanSpec::default() };

pub(super) fn open(scene: &Scene) -> Dir {
    scene.root.dir(&RelPath::root(), Follow::Never).expect("a folder")
}

/// With nothing known.
pub(super) fn look(scene: &Scene, spec: &ScanSpec) -> Scanned {
    again(scene, spec, &mut Cache::default())
}

pub(super) fn again(scene: &Scene, spec: &ScanSpec, cache: &mut Cache) -> Scanned {
    scan_telling(&open(scene), spec, cache, None, &HashMap::new(), &|_, _| {}).expect("scanned")
}

/// All entries by path.
pub(super) fn entries(scanned: &Scanned) -> BTreeMap<String, Node> {
    let (mut found, mut next) = (BTreeMap::new(), vec![(ContentId::from(scanned.root), String::new())]);
    while let Some((id, above)) = next.pop() {
        match read_object(scanned.objects.get(&id).expect("every object is there")).expect("an object") {
            Object::Dir(entries) => {
                for entry in entries {
                    let path = format!("{above}{}", std::str::from_utf8(&entry.name).expect("text"));
                    if let Node::Dir { id, .. } = &entry.node {
                        next.push(((*id).into(), format!("{path}/")));
                    }
                    found.insert(path, entry.node);
                }
            }
            Object::DirIndex { parts, .. } => next.extend(parts.iter().map(|part| (part.id, above.clone()))),
            Object::Map(_) | Object::MapIndex { .. } => panic!("no folder"),
        }
    }
    found
}

pub(super) fn file(scanned: &Scanned, path: &str) -> FileNode {
    match entries(scanned).remove(path) {
        Some(Node::File(file)) => file,
        other => panic!("{path}: {other:?}"),
    }
}

fn names(scanned: &Scanned) -> Vec<String> {
    entries(scanned).into_keys().collect()
}

fn left_out(scanned: &Scanned) -> Vec<(&str, Seen)> {
    scanned.left_out.iter().map(|(path, seen)| (path.as_str(), seen.clone())).collect()
}

/// Until the disk's clock has stepped.
pub(super) fn settle() {
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn a_tree_has_what_is_there_and_its_root_depends_on_nothing_else() {
    let scene = Scene::new();
    let empty = look(&scene, &PLAIN());
    assert_eq!((empty.totals, empty.counts), (Totals::default(), SideCounts::default()));
    assert_eq!(empty.objects.len(), 1);
    let long: String = "ل".repeat(127);
    scene.write("ملفات/مرحبا.txt", "أهلا");
    scene.write(&format!("{long}x"), "");
    scene.write("run.sh", "#!");
    scene.write("big", vec![7; 3_000_000]);
    fs::set_permissions(scene.disk("run.sh"), Permissions::from_mode(0o755)).expect("set");
    fs::create_dir(scene.disk("empty")).expect("made");
    symlink("../elsewhere", scene.disk("ملفات/link")).expect("made");
    // Ours at the top is no part of it, of the same name below it is.
    scene.write(".cortex/staging", "x");
    scene.write("ملفات/.cortex", "x");
    let found = look(&scene, &PLAIN());
    let expected = [
        "big",
        "empty",
        "run.sh",
        "ملفات",
        "ملفات/.cortex",
        "ملفات/link",
        "ملفات/مرحبا.txt",
        &format!("{long}x"),
    ];
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(names(&found), expected);
    assert_eq!(found.counts, SideCounts { files: 6, root_entries: 5 });
    assert_eq!((found.totals.entries, found.totals.depth), (8, 1));
    assert_eq!(found.hashed, found.totals.bytes);
    assert!(found.left_out.is_empty() && found.unnamed == 0);
    let (run, big, hello) = (file(&found, "run.sh"), file(&found, "big"), file(&found, "ملفات/مرحبا.txt"));
    assert!(run.exec && !big.exec && run.map.is_none() && big.map.is_some());
    assert_eq!(hello.id, ContentId::of("أهلا".as_bytes()));
    assert_eq!(big.id, ContentId::of(&vec![7; 3_000_000]));
    assert!(found.objects.get(&big.map.expect("a map")).is_some());
    assert_eq!(look(&scene, &PLAIN()).root, found.root);
}

#[test]
fn sync_16_setuid_devices_and_fifos_are_reported_and_exec_and_links_kept() {
    let scene = Scene::new();
    scene.write("tool", "x");
    fs::set_permissions(scene.disk("tool"), Permissions::from_mode(0o4755)).expect("set");
    symlink("/etc/passwd", scene.disk("out")).expect("made");
    symlink("a/../../x", scene.disk("up")).expect("made");
    symlink("tool", scene.disk("in")).expect("made");
    let found = look(&scene, &PLAIN());
    assert!(file(&found, "tool").exec && found.notes.masked == 1);
    assert_eq!(names(&found), ["in", "out", "tool", "up"]);
    let refusing = look(&scene, &ScanSpec { links: Links::Refuse, ..PLAIN() });
    assert_eq!(names(&refusing), ["in", "tool"]);
    let outside = Seen::Blocked(Problem::LinkOutside);
    assert_eq!(left_out(&refusing), [("out", outside.clone()), ("up", outside)]);
}

#[test]
fn a48_hard_links_to_outside_fifos_and_sockets_are_left_out_and_told() {
    let scene = Scene::new();
    fs::write(scene.outside("secret"), "secret").expect("written");
    fs::hard_link(scene.outside("secret"), scene.disk("stolen")).expect("linked");
    scene.write("a/one", "one");
    scene.write("b/else", "else");
    fs::hard_link(scene.disk("a/one"), scene.disk("b/two")).expect("linked");
    nix::unistd::mkfifo(&scene.disk("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(scene.disk("socket")).expect("bound");
    let mut cache = Cache::default();
    settle();
    for hashed in [10, 0] {
        let found = again(&scene, &PLAIN(), &mut cache);
        assert_eq!(names(&found), ["a", "a/one", "b", "b/else", "b/two"]);
        let blocked = |path| (path, Seen::Blocked(Problem::Unsupported));
        assert_eq!(left_out(&found), [blocked("pipe"), blocked("socket"), blocked("stolen")]);
        assert_eq!(found.hashed, hashed, "what is not taken is not read, and what is known neither");
    }
    // One name of it leaves the tree.
    fs::rename(scene.disk("a/one"), scene.outside("one")).expect("moved");
    let found = again(&scene, &PLAIN(), &mut cache);
    assert_eq!(names(&found), ["a", "b", "b/else"]);
    assert_eq!(found.left_out.get(&rel("b/two")), Some(&Seen::Blocked(Problem::Unsupported)));
    // All of its names are in the tree again.
    fs::remove_file(scene.outside("one")).expect("removed");
    assert_eq!(names(&again(&scene, &PLAIN(), &mut cache)), ["a", "b", "b/else", "b/two"]);
}

#[test]
fn names_that_are_no_path_are_counted_and_left_out() {
    let scene = Scene::new();
    for name in [&b"caf\xe9"[..], b"a\\b", b"line\nbreak"] {
        fs::write(scene.disk("").join(OsStr::from_bytes(name)), "x").expect("written");
    }
    fs::create_dir(scene.disk("").join(OsStr::from_bytes(b"\xff"))).expect("made");
    scene.write("ok", "x");
    let found = look(&scene, &PLAIN());
    assert_eq!((names(&found), found.unnamed, found.hashed), (vec!["ok".to_owned()], 4, 1));
}

#[test]
fn sync_09_what_is_ignored_is_not_in_the_tree_and_listed_and_rules_that_change_count_at_once() {
    let scene = Scene::new();
    scene.write(".gitignore", "*.log\n/build/\n");
    scene.write(".cortexignore", "!keep.log\nsecret*\n");
    scene.write("a.log", "x");
    scene.write("keep.log", "x");
    scene.write("build/deep/out", "x");
    scene.write("src/build/in", "x");
    scene.write("src/.gitignore", "local\n");
    scene.write("src/local", "x");
    scene.write("secrets/key", "x");
    scene.write(".git/HEAD", "x");
    let mut cache = Cache::default();
    let found = again(&scene, &IGNORING(), &mut cache);
    let ignored =
        |paths: &[&'static str]| paths.iter().map(|path| (*path, Seen::Ignored)).collect::<Vec<_>>();
    assert_eq!(left_out(&found), ignored(&[".git", "a.log", "build", "secrets", "src/local"]));
    assert_eq!(
        names(&found),
        [".cortexignore", ".gitignore", "keep.log", "src", "src/.gitignore", "src/build", "src/build/in"]
    );
    assert_eq!(found.counts.files, 5);
    scene.write("src/.gitignore", "in\n");
    scene.write(".cortexignore", "");
    let found = again(&scene, &IGNORING(), &mut cache);
    assert_eq!(left_out(&found), ignored(&[".git", "a.log", "build", "keep.log", "src/build/in"]));
    // Without rules all is there, and what the caller leaves out is not.
    let spec = ScanSpec { excludes: vec!["src/**/in".to_owned(), "secrets/".to_owned()], ..PLAIN() };
    let found = again(&scene, &spec, &mut cache);
    assert_eq!(left_out(&found), ignored(&["secrets", "src/build/in"]));
    let spec = ScanSpec { excludes: vec!["!a.log".to_owned()], ..IGNORING() };
    assert!(names(&again(&scene, &spec, &mut cache)).contains(&"a.log".to_owned()));
    let wrong = ScanSpec { excludes: vec!["[a".to_owned()], ..PLAIN() };
    assert_eq!(wrong.check().map_err(|refusal| refusal.code), Err(cortex_core::Code::InvalidArgument));
}

#[test]
fn sync_09_a_folder_whose_rules_cannot_be_read_is_left_out_as_a_whole() {
    let scene = Scene::new();
    scene.write("a/.gitignore", vec![b'x'; 300 * 1024]);
    scene.write("a/secret", "x");
    scene.write("b/ok", "x");
    let found = look(&scene, &IGNORING());
    assert_eq!((names(&found), found.notes.rules_unread), (vec!["b".to_owned(), "b/ok".to_owned()], 1));
    assert_eq!(left_out(&found), [("a", Seen::Blocked(Problem::Unreadable))]);
    scene.write(".gitignore", vec![b'x'; 300 * 1024]);
    assert!(scan(&open(&scene), &IGNORING(), &mut Cache::default(), None).is_err());
    // As git does, nothing is read through a link.
    fs::remove_file(scene.disk(".gitignore")).expect("removed");
    fs::write(scene.outside("rules"), "*").expect("written");
    symlink(scene.outside("rules"), scene.disk(".gitignore")).expect("made");
    assert_eq!(names(&look(&scene, &IGNORING())), [".gitignore", "b", "b/ok"]);
}

#[test]
fn sync_11_what_cannot_be_read_freezes_itself_and_all_below() {
    let scene = Scene::new();
    scene.write("shut/in", "x");
    scene.write("closed", "x");
    scene.write("open", "x");
    fs::set_permissions(scene.disk("shut"), Permissions::from_mode(0o000)).expect("set");
    fs::set_permissions(scene.disk("closed"), Permissions::from_mode(0o000)).expect("set");
    let dir = open(&scene);
    let found = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            if nix::unistd::geteuid().is_root() {
                // Of this thread alone; it goes with it.
                as_nobody();
            }
            scan(&dir, &PLAIN(), &mut Cache::default(), None)
        });
        asked.join().expect("no panic").expect("scanned")
    });
    fs::set_permissions(scene.disk("shut"), Permissions::from_mode(0o700)).expect("set");
    let blocked = |path| (path, Seen::Blocked(Problem::Unreadable));
    assert_eq!(left_out(&found), [blocked("closed"), blocked("shut")]);
    assert_eq!(names(&found), ["open"]);
}

/// Files are opened by this thread as by nobody.
fn as_nobody() {
    let _was = nix::unistd::setfsgid(nix::unistd::Gid::from_raw(65_534));
    let _was = nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
}

#[test]
fn another_file_system_is_told_and_not_looked_into() {
    on_small_disk("1m", |scene| {
        scene.write("a/x", "x");
        fs::create_dir(scene.disk("a/mnt")).expect("made");
        let options = Some("size=1m");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &scene.disk("a/mnt"), Some("tmpfs"), flags, options)
            .expect("mounted");
        scene.write("a/mnt/secret", "x");
        let found = look(scene, &PLAIN());
        assert_eq!(left_out(&found), [("a/mnt", Seen::Blocked(Problem::OtherFileSystem))]);
        assert_eq!(names(&found), ["a", "a/x"]);
        nix::mount::umount2(&scene.disk("a/mnt"), nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
    });
}

#[test]
fn a_file_that_is_one_hole_is_told_at_once() {
    let scene = Scene::new();
    File::create(scene.disk("hole")).expect("made").set_len(1 << 40).expect("set");
    scene.write("x", "x");
    let begun = std::time::Instant::now();
    let found = look(&scene, &PLAIN());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(left_out(&found), [("hole", Seen::Blocked(Problem::Unsupported))]);
    assert_eq!((found.notes.too_large, found.hashed), (1, 1));
}

#[test]
fn a_tree_of_more_levels_than_a_path_has_parts_is_read_as_deep_as_paths_go() {
    let scene = Scene::new();
    let mut dir = open(&scene);
    for _ in 0..600 {
        dir.make_dir(b"d", nix::sys::stat::Mode::S_IRWXU).expect("made");
        dir = dir.dir(b"d").expect("opened");
    }
    let found = look(&scene, &PLAIN());
    assert_eq!((found.totals.entries, found.unnamed), (512, 1));
}

#[test]
fn times_stay_where_content_does_and_come_from_the_base_where_it_is_the_same() {
    let scene = Scene::new();
    scene.write("d/a", "a");
    scene.write("b", "b");
    symlink("x", scene.disk("l")).expect("made");
    let mut cache = Cache::default();
    let first = again(&scene, &PLAIN(), &mut cache);
    let touch = |path: &str, seconds| {
        let file = File::options().write(true).open(scene.disk(path)).expect("opened");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("set");
    };
    touch("d/a", 1_000);
    assert_eq!(again(&scene, &PLAIN(), &mut cache).root, first.root, "a touch is no change");
    scene.write("b", "c");
    touch("b", 2_000);
    let second = again(&scene, &PLAIN(), &mut cache);
    assert_eq!(file(&second, "b").mtime_ns, 2_000_000_000_000);
    // Without a cache the disk's times are told, or those of the base.
    let fresh = look(&scene, &PLAIN());
    assert_eq!(file(&fresh, "d/a").mtime_ns, 1_000_000_000_000);
    assert_ne!(fresh.root, second.root);
    let base = Base { root: second.root, objects: &second.objects };
    let sticky = |cache: &mut Cache, base: &Base<'_>| {
        let wrote = HashMap::new();
        scan_telling(&open(&scene), &PLAIN(), cache, Some(base), &wrote, &|_, _| {}).expect("scanned")
    };
    let mut new = Cache::default();
    let based = sticky(&mut new, &base);
    assert_eq!(based.root, second.root);
    assert_eq!(again(&scene, &PLAIN(), &mut new).root, second.root, "and they are kept");
    // A base of which nothing is here gives nothing.
    let nothing = Base { root: second.root, objects: &Objects::default() };
    let found = sticky(&mut Cache::default(), &nothing);
    assert_eq!(found.root, fresh.root);
}

#[test]
fn what_is_read_is_given_with_its_hash_and_what_is_known_is_not() {
    let scene = Scene::new();
    let long: Vec<u8> =
        (0..1_200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    scene.write("d/a", "a");
    scene.write("empty", "");
    fs::write(scene.disk("طويل"), &long).expect("written");
    settle();
    let mut cache = Cache::default();
    let given = |cache: &mut Cache| {
        let given = std::sync::Mutex::new(Vec::new());
        let take = |id, bytes: &[u8]| {
            assert_eq!(id, ContentId::of(bytes));
            given.lock().expect("no panic").push(bytes.to_vec());
        };
        scan(&open(&scene), &PLAIN(), cache, Some(&take)).expect("scanned");
        given.into_inner().expect("no panic")
    };
    let all = given(&mut cache);
    // Files are read by several threads, each of them from its beginning to its end.
    let (short, parts): (Vec<_>, Vec<_>) = all.iter().partition(|bytes| *bytes == b"a");
    assert_eq!(short.len(), 1);
    assert!(parts.len() > 2 && parts.into_iter().cloned().collect::<Vec<_>>().concat() == long);
    scene.write("d/a", "other");
    assert!(given(&mut cache) == [b"other"]);
}

#[test]
fn one_file_is_a_tree_of_one_entry() {
    let scene = Scene::new();
    scene.write("a", "a");
    scene.write("b", "b");
    fs::hard_link(scene.disk("a"), scene.outside("a")).expect("linked");
    let found = single(&open(&scene), b"a", None).expect("read");
    assert_eq!(
        (names(&found), found.counts),
        (vec!["a".to_owned()], SideCounts { files: 1, root_entries: 1 })
    );
    fs::create_dir(scene.disk("d")).expect("made");
    assert_eq!(
        single(&open(&scene), b"d", None).map(drop),
        Err(Fault::Unfit(cortex_core::files::op::Kind::Dir))
    );
    assert_eq!(fs::metadata(scene.disk("a")).expect("there").nlink(), 2);
}
