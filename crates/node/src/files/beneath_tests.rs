//! What is found beneath a root, and what is not.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cortex_core::error::Code;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::files::support::{Scene, open, rel, rounds};

fn names(names: &[Box<[u8]>]) -> Vec<&[u8]> {
    names.iter().map(AsRef::as_ref).collect()
}

#[test]
fn a47_a_link_swapped_1e5_times_is_never_followed_out() {
    let scene = Scene::new();
    let secret = scene.outside("secret");
    std::fs::create_dir(&secret).expect("made");
    std::fs::write(secret.join("f"), "secret").expect("written");
    scene.write("real/f", "ours");
    symlink(&secret, scene.disk("out")).expect("linked");
    symlink("../secret", scene.disk("up")).expect("linked");
    std::fs::rename(scene.disk("real"), scene.disk("swapped")).expect("renamed");
    let inside = std::fs::metadata(scene.disk("swapped")).expect("there").ino();
    let swaps = rounds(20_000, 100_000);
    let (is_over, looked) = (AtomicBool::new(false), AtomicU32::new(0));
    let root = &scene.root;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let here = root.dir(&RelPath::root(), Follow::Within).expect("the root");
            for swap in 0..swaps {
                let link: &[u8] = if swap % 2 == 0 { b"out" } else { b"up" };
                here.exchange(b"swapped", &here, link).expect("exchanged");
                here.exchange(b"swapped", &here, link).expect("exchanged back");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let (path, folder) = (rel("swapped/f"), rel("swapped"));
        let (mut found, mut refused) = (0, 0);
        while !is_over.load(Ordering::Relaxed) {
            looked.fetch_add(1, Ordering::Relaxed);
            for follow in [Follow::Within, Follow::Never] {
                match root.regular(&path, follow) {
                    Ok(file) => {
                        let mut content = [0; 6];
                        let read = std::os::unix::fs::FileExt::read_at(&file, &mut content, 0).expect("read");
                        assert_eq!(&content[..read], b"ours");
                        found += 1;
                    }
                    Err(fault) => {
                        assert!(matches!(fault, Fault::Outside | Fault::Restless), "{fault:?}");
                        refused += 1;
                    }
                }
                match root.dir(&folder, follow) {
                    Ok(dir) => {
                        assert_eq!(dir.stat_self().expect("open").id.ino, inside);
                        let made = dir.create(b"new").map(drop);
                        assert_eq!(made.and_then(|()| dir.unlink(b"new")), Ok(()));
                    }
                    // Of a link that is no folder the kernel says so first.
                    Err(fault) => {
                        let is_link = fault == Fault::Sys(Errno::ENOTDIR);
                        assert!(is_link || matches!(fault, Fault::Outside | Fault::Restless), "{fault:?}");
                    }
                }
            }
        }
        assert!(found > 0 && refused > 0, "{found} found, {refused} refused: it was in both states");
    });
    assert_eq!(std::fs::read_dir(&secret).expect("there").count(), 1, "nothing was made outside");
}

#[test]
fn sync_08_no_link_leads_out_and_one_that_stays_is_followed_where_that_is_meant() {
    let scene = Scene::new();
    scene.write("in/f", "ours");
    std::fs::write(scene.outside("f"), "secret").expect("written");
    let absolute = scene.disk("in");
    for (name, target) in [
        ("near", "in"),
        ("near2", "in/../in"),
        ("up", ".."),
        ("far", "../f"),
        ("etc", "/etc"),
        ("absolute", absolute.to_str().expect("text")),
        ("proc", "/proc/self/root"),
        ("loop", "loop"),
    ] {
        symlink(target, scene.disk(name)).expect("linked");
    }
    for (path, within) in [
        ("in/f", Ok(())),
        ("near/f", Ok(())),
        ("near2/f", Ok(())),
        ("up/f", Err(Fault::Outside)),
        ("far", Err(Fault::Outside)),
        ("etc/passwd", Err(Fault::Outside)),
        ("absolute/f", Err(Fault::Outside)),
        ("proc/etc/passwd", Err(Fault::Outside)),
        ("loop", Err(Fault::Outside)),
        ("loop/f", Err(Fault::Outside)),
        ("none", Err(Fault::Sys(Errno::ENOENT))),
        ("in/f/x", Err(Fault::Sys(Errno::ENOTDIR))),
        ("in", Err(Fault::Unfit(Kind::Dir))),
    ] {
        assert_eq!(scene.root.regular(&rel(path), Follow::Within).map(drop), within, "{path}");
        let is_link = !path.starts_with("in") && path != "none";
        let never = match scene.root.regular(&rel(path), Follow::Never) {
            // At the end the link itself is found.
            Err(Fault::Unfit(Kind::Link)) if !path.contains('/') => Err(Fault::Outside),
            other => other.map(drop),
        };
        assert_eq!(never, if is_link { Err(Fault::Outside) } else { within }, "{path}");
    }
    let at = scene.at("absolute/f");
    let refusal = at.place().refusal(Fault::Outside);
    assert_eq!(refusal.code, Code::PathOutsideRoots);
    assert!(refusal.hint.contains(absolute.to_str().expect("text")), "{}", refusal.hint);
    let (found, target) = scene.root.stat_entry(&rel("etc")).expect("itself");
    assert_eq!((found.kind, target.as_deref()), (Kind::Link, Some(&b"/etc"[..])));
}

#[test]
fn a48_hard_links_to_outside_fifos_devices_sockets_and_magic_links_are_unsupported_entry() {
    let scene = Scene::new();
    mkfifo(&scene.disk("fifo"), Mode::from_bits_truncate(0o600)).expect("made");
    let _socket = UnixListener::bind(scene.disk("socket")).expect("bound");
    let mut others = vec!["fifo", "socket"];
    if nix::unistd::geteuid().is_root() {
        let device = nix::sys::stat::makedev(1, 5);
        let mode = Mode::from_bits_truncate(0o600);
        nix::sys::stat::mknod(&scene.disk("zero"), SFlag::S_IFCHR, mode, device).expect("made");
        others.push("zero");
    }
    symlink("fifo", scene.disk("link-to-fifo")).expect("linked");
    for name in &others {
        for follow in [Follow::Within, Follow::Never] {
            let fault = scene.root.regular(&rel(name), follow).expect_err(name);
            assert_eq!(fault, Fault::Unfit(Kind::Other), "{name}");
            assert_eq!(fault.refusal(name).code, Code::UnsupportedEntry);
        }
        assert_eq!(scene.root.stat(&rel(name), Follow::Never).expect("seen").kind, Kind::Other);
    }
    assert_eq!(
        scene.root.regular(&rel("link-to-fifo"), Follow::Within).map(drop),
        Err(Fault::Unfit(Kind::Other))
    );
    // Magic links lead where no text says; beneath /proc they are all there is.
    let proc = open(Path::new("/proc"));
    for path in ["self/fd/0", "self/exe", "self/root", "self/cwd"] {
        let pid = path.replace("self", &std::process::id().to_string());
        assert_eq!(proc.stat(&rel(&pid), Follow::Within), Err(Fault::Outside), "{path}");
    }
    // What a further name of a file outside holds cannot be told apart by name; it is said, and a write
    // leaves the other name as it was (see the tests of writing).
    std::fs::write(scene.outside("f"), "secret").expect("written");
    std::fs::hard_link(scene.outside("f"), scene.disk("hard")).expect("linked");
    assert_eq!(scene.root.stat(&rel("hard"), Follow::Never).expect("seen").links, 2);
}

#[test]
fn each_call_takes_one_name() {
    let scene = Scene::new();
    scene.write("a/b", "x");
    let root = scene.root.dir(&RelPath::root(), Follow::Within).expect("opened");
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"../x", b"a/"] {
        let invalid = Fault::Sys(Errno::EINVAL);
        assert_eq!(root.stat(name), Err(invalid));
        assert_eq!(root.regular(name).map(drop), Err(invalid));
        assert_eq!(root.dir(name).map(drop), Err(invalid));
        assert_eq!(root.create(name).map(drop), Err(invalid));
        assert_eq!(root.unlink(name), Err(invalid));
        assert_eq!(root.rename(b"a", &root, name), Err(invalid));
        assert_eq!(root.exchange(name, &root, b"a"), Err(invalid));
        assert_eq!(root.make_dir(name, Mode::S_IRWXU), Err(invalid));
    }
    assert_eq!(root.stat(b"a\0b"), Err(Fault::Sys(Errno::EINVAL)));
}

#[test]
fn names_come_in_byte_order_in_parts_that_fit_together() {
    let scene = Scene::new();
    let root = scene.root.dir(&RelPath::root(), Follow::Within).expect("opened");
    assert_eq!(root.names(Bound::Unbounded, 10).expect("read").names.len(), 0, "an empty folder");
    let longest = "م".repeat(127) + "a";
    let mut all: Vec<Vec<u8>> =
        ["b", "a", "ملف", "a.b", "A", " ", &longest].map(|n| n.as_bytes().to_vec()).into();
    all.push(b"caf\xe9".to_vec());
    for name in &all {
        root.create(name).expect("made");
    }
    all.sort();
    for step in 1..=all.len() + 1 {
        let mut found: Vec<Vec<u8>> = Vec::new();
        loop {
            let from = found.last().map_or(Bound::Unbounded, |last| Bound::Excluded(last.as_slice()));
            let part = root.names(from, step).expect("read");
            assert!(part.names.len() <= step);
            found.extend(names(&part.names).iter().map(|name| name.to_vec()));
            if !part.more {
                break;
            }
        }
        assert_eq!(found, all, "in steps of {step}");
    }
}

#[test]
fn a_root_that_is_one_file_is_read_and_nothing_else() {
    let scene = Scene::new();
    scene.write("f", "text");
    let root = open(&scene.disk("f"));
    let file = root.regular(&RelPath::root(), Follow::Never).expect("read");
    assert_eq!(Stat::of_open(&file).expect("open").id, root.id());
    assert_eq!(Stat::of_open(&file).expect("open").size, 4);
    assert_eq!(root.dir(&RelPath::root(), Follow::Within).map(drop), Err(Fault::Sys(Errno::ENOTDIR)));
    scene.write("g", "other");
    std::fs::rename(scene.disk("g"), scene.disk("f")).expect("renamed");
    assert_eq!(root.regular(&RelPath::root(), Follow::Never).map(drop), Err(Fault::Restless));
}

#[test]
fn a_name_that_is_taken_is_not_given_again_and_two_are_exchanged() {
    let scene = Scene::new();
    scene.write("a", "1");
    scene.write("b", "2");
    let root = scene.root.dir(&RelPath::root(), Follow::Within).expect("opened");
    assert_eq!(root.rename_new(b"a", &root, b"b"), Err(Fault::Sys(Errno::EEXIST)));
    root.exchange(b"a", &root, b"b").expect("exchanged");
    assert_eq!((scene.read("a"), scene.read("b")), (b"2".to_vec(), b"1".to_vec()));
    root.rename_new(b"a", &root, b"c").expect("renamed");
    assert_eq!(scene.names(""), ["b", "c"]);
}
