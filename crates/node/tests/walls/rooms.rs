//! What a run sees and may do behind walls, and what it does not.

use std::path::Path;

use cortex_core::run::{EndCause, RunSpec};
use cortex_core::sandbox::{Access, Level, Limits, Network, Walls};
use cortex_node::NodeConfig;

use super::support::{LEVELS, World, as_each_user, denied, is_root, open_to_all, shell, spec, until, walls};

#[test]
fn a_run_has_no_rights_of_its_own_at_either_level() {
    as_each_user("rooms::a_run_has_no_rights_of_its_own_at_either_level", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let text = world.text(&Walls::default(), "cat /proc/self/status; ls /proc/self/fd").await;
            let line = |name: &str| {
                let found = text.lines().find_map(|line| line.strip_prefix(name));
                found.expect("it is there").split_whitespace().collect::<Vec<_>>().join(" ")
            };
            for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(line(name), "0000000000000000", "{level:?} {name}");
            }
            assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
            let user = if is_root() { "65521" } else { "65534" };
            assert_eq!(line("Uid:"), [user; 4].join(" "));
            if is_root() {
                assert_eq!((line("Groups:").as_str(), line("CapBnd:").as_str()), ("", "0000000000000000"));
            }
            assert!(text.ends_with("0\n1\n2\n3\n"), "3 is the listing's own: {text}");
            world.finish().await;
        }
    });
}

#[test]
fn a_run_at_level_full_sees_its_own_processes_and_a_bare_root() {
    as_each_user("rooms::a_run_at_level_full_sees_its_own_processes_and_a_bare_root", async {
        let world = World::new(Level::Full).await;
        let text = world.text(&Walls::default(), "ls -d /proc/[0-9]*; cat /proc/sys/kernel/hostname").await;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 5 && lines[0] == "/proc/1" && lines.last() == Some(&"trial"), "{text}");
        let hidden = "for f in /root /home /run /sys /boot /etc/shadow /etc/ssl/private /etc/pki/tls/private /etc/cortex /dev/tty /dev/vda; do \
            test -e $f && echo $f; done; ls -A /.stage /.empty 2>/dev/null; umount /proc 2>/dev/null && echo uncovered; true";
        assert_eq!(world.text(&Walls::default(), hidden).await, "");
        let mounts = world.text(&Walls::default(), "cut -d' ' -f2,4 /proc/mounts").await;
        for line in mounts.lines() {
            assert!(line.contains("nosuid"), "{line}");
            let (path, _) = line.split_once(' ').expect("two words");
            assert!(path.starts_with("/dev/") || line.contains("nodev"), "{line}");
        }
        let script =
            "touch /usr/x || touch /etc/x || touch /x || touch /dev/x || echo 1 > /proc/sys/kernel/hostname";
        assert_ne!(world.shell(&Walls::default(), script).await.ended.code, Some(0));
        world.finish().await;
    });
}

#[test]
fn certificates_of_the_machine_are_read_and_its_keys_are_not() {
    as_each_user("rooms::certificates_of_the_machine_are_read_and_its_keys_are_not", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let read = "for f in /etc/ssl/openssl.cnf /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/cert.pem; do \
                test -e $f || continue; head -c 1 $f > /dev/null || echo $f; done; \
                test -e /etc/ssl/certs && ls /etc/ssl/certs > /dev/null; ls /etc/ssl/private /etc/pki/tls/private \
                2> /dev/null; true";
            let denied = world.text(&Walls::default(), read).await;
            assert_eq!(denied, "", "{level:?}");
            // The folder above both is not granted, or what else is in it would be as well.
            let above = world.shell(&Walls::default(), "ls /etc/ssl").await;
            assert_ne!(above.ended.code, Some(0), "{level:?}");
            world.finish().await;
        }
    });
}

#[test]
fn a_run_writes_where_it_may_and_nowhere_else() {
    as_each_user("rooms::a_run_writes_where_it_may_and_nowhere_else", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let (work, read, other) =
                (world.path("work"), world.add_folder("read"), world.add_folder("other"));
            std::fs::write(read.join("text"), "to be read").expect("written");
            std::fs::write(other.join("text"), "not to be read").expect("written");
            let walls = walls(&[(&work, Access::Write, true), (&read, Access::Read, false)]);
            let (work, read, other) = (work.display(), read.display(), other.display());
            let text = world
                .text(&walls, &format!("cat {read}/text; echo hello > {work}/new; pwd; echo $HOME"))
                .await;
            assert_eq!(text, format!("to be read{work}/.home\n{work}/.home\n"), "{level:?}");
            assert_eq!(std::fs::read_to_string(world.path("work/new")).expect("written"), "hello\n");
            for script in [
                format!("cat {other}/text"),
                format!("echo > {read}/new"),
                format!("echo > {read}/text"),
                format!("rm {read}/text"),
                format!("ls {other}"),
                format!("echo > {other}/new"),
                format!("cp /bin/true {read}/true"),
            ] {
                assert_ne!(world.shell(&walls, &script).await.ended.code, Some(0), "{level:?} {script}");
            }
            assert_eq!(std::fs::read_dir(world.path("other")).expect("listed").count(), 1);
            world.finish().await;
        }
    });
}

#[test]
fn programs_run_from_where_they_may_and_nowhere_else() {
    as_each_user("rooms::programs_run_from_where_they_may_and_nowhere_else", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let (work, data) = (world.path("work"), world.add_folder("plain"));
            for folder in [&work, &data] {
                std::fs::copy("/bin/true", folder.join("tool")).expect("copied");
                std::fs::write(folder.join("script"), "#!/bin/sh\necho \"$0 $1\"\n").expect("written");
                for name in ["tool", "script"] {
                    open_to_all(&folder.join(name));
                }
            }
            let walls = walls(&[(&work, Access::Write, true), (&data, Access::Write, false)]);
            let run = |path: &Path| {
                let spec = spec(&[path.to_str().expect("text"), "word"]);
                world.trial.run(Some(&walls), spec)
            };
            assert_eq!(run(&work.join("tool")).await.ended.code, Some(0), "{level:?}");
            let outcome = run(&work.join("script")).await;
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), format!("{}/script word\n", work.display()));
            let outcome = run(&data.join("tool")).await;
            assert!(denied(&outcome).contains("roots.program"), "{outcome:?}");
            let (work, data) = (work.display(), data.display());
            assert_eq!(world.text(&walls, &format!("{work}/tool && echo ran")).await, "ran\n");
            let inside = world.shell(&walls, &format!("{data}/tool || exit 9; exit 0")).await;
            assert_eq!(inside.ended.code, Some(9), "{level:?} {inside:?}");
            world.finish().await;
        }
    });
}

#[test]
fn keys_in_a_granted_folder_are_covered_or_the_folder_is_refused() {
    as_each_user("rooms::keys_in_a_granted_folder_are_covered_or_the_folder_is_refused", async {
        let script = |folder: &Path| {
            format!(
                "cd {}; cat .ssh/id .netrc data/node.key work/x; ls -A .ssh data | wc -l; echo > .ssh/new",
                folder.display()
            )
        };
        let prepare = |world: &World| {
            let folder = world.path("work").parent().expect("it has one").to_owned();
            std::fs::create_dir(folder.join(".ssh")).expect("made");
            std::fs::write(folder.join(".ssh/id"), "SECRET").expect("written");
            std::fs::write(folder.join(".netrc"), "SECRET").expect("written");
            std::fs::write(folder.join("work/x"), "fine").expect("written");
            folder
        };
        let world = World::new(Level::Full).await;
        let folder = prepare(&world);
        let outcome = world.shell(&walls(&[(&folder, Access::Write, false)]), &script(&folder)).await;
        let text = String::from_utf8_lossy(&outcome.stdout);
        assert!(text.starts_with("fine") && !text.contains("SECRET"), "{text}");
        assert_ne!(outcome.ended.code, Some(0), "nothing is written there either");
        // Who names it gets it; nobody gets the node's own.
        let named = walls(&[(&folder, Access::Read, false), (&folder.join(".ssh"), Access::Read, false)]);
        let text = world.shell(&named, &script(&folder)).await.stdout;
        assert_eq!(String::from_utf8_lossy(&text).matches("SECRET").count(), 1);
        for (path, rule) in [
            (folder.join("data"), "roots.reserved"),
            ("/".into(), "roots.reserved"),
            ("/proc/sys".into(), "roots.reserved"),
            ("/tmp".into(), "roots.reserved"),
            (folder.join("missing"), "roots.missing"),
        ] {
            let outcome = world.shell(&walls(&[(&path, Access::Write, false)]), "true").await;
            assert!(denied(&outcome).contains(rule), "{outcome:?}");
        }
        assert_eq!(
            world.text(&walls(&[(&folder.join("missing"), Access::Read, true)]), "echo ran").await,
            "ran\n"
        );
        world.finish().await;

        let world = World::new(Level::Kernel).await;
        let folder = prepare(&world);
        let outcome = world.shell(&walls(&[(&folder, Access::Write, false)]), "true").await;
        assert!(denied(&outcome).contains("roots.reserved"), "{outcome:?}");
        world.finish().await;
    });
}

#[test]
fn what_the_node_lives_by_is_covered_in_the_base_set_too_or_nothing_runs() {
    as_each_user("rooms::what_the_node_lives_by_is_covered_in_the_base_set_too_or_nothing_runs", async {
        let reserve = |config: &mut NodeConfig| config.reserved = vec!["/usr/share".into()];
        let world = World::with(Level::Full, reserve).await;
        assert_eq!(world.text(&Walls::default(), "ls -A /usr/share; ls /usr | grep share").await, "share\n");
        world.finish().await;
        let world = World::with(Level::Kernel, reserve).await;
        let outcome = world.shell(&Walls::default(), "true").await;
        assert!(denied(&outcome).contains("`/usr/share` is where every run may read"), "{outcome:?}");
        world.finish().await;
    });
}

#[test]
fn roots_inside_of_each_other_and_behind_links_have_what_each_was_given() {
    as_each_user("rooms::roots_inside_of_each_other_and_behind_links_have_what_each_was_given", async {
        let world = World::new(Level::Full).await;
        let outer = world.add_folder("outer");
        let inner = world.add_folder("outer/inner");
        let real = world.add_folder("real");
        std::os::unix::fs::symlink(&real, world.path("link")).expect("linked");
        std::os::unix::fs::symlink(&real, outer.join("link")).expect("linked");
        let walls = walls(&[
            (&outer, Access::Read, false),
            (&inner, Access::Write, false),
            (&world.path("link"), Access::Write, false),
            (&outer.join("link"), Access::Write, false),
        ]);
        let folder = outer.parent().expect("it has one").display();
        let script = format!(
            "cd {folder}; echo 1 > outer/inner/a; echo 2 > link/b; echo 3 > real/c; echo 4 > outer/link/d; echo 5 > outer/e"
        );
        assert_ne!(world.shell(&walls, &script).await.ended.code, Some(0), "the last one is denied");
        assert!(inner.join("a").exists() && !outer.join("e").exists());
        let names = ["b", "c", "d"].map(|name| real.join(name).exists());
        assert_eq!(names, [true; 3]);
        world.finish().await;
    });
}

#[test]
fn a_root_that_a_run_made_a_link_is_refused() {
    as_each_user("rooms::a_root_that_a_run_made_a_link_is_refused", async {
        let world = World::new(Level::Full).await;
        let (work, elsewhere) = (world.path("work"), world.add_folder("elsewhere"));
        let inner = world.add_folder("work/inner");
        let walls = walls(&[(&work, Access::Write, true), (&inner, Access::Read, false)]);
        let script = format!("cd {}; rmdir inner; ln -s {} inner", work.display(), elsewhere.display());
        assert_eq!(world.text(&walls, &script).await, "");
        let outcome = world.shell(&walls, "true").await;
        assert!(denied(&outcome).contains("roots.reserved"), "{outcome:?}");
        world.finish().await;
    });
}

#[test]
fn a_root_below_a_closed_folder_can_be_used_at_level_full() {
    let world_of = async {
        let world = World::new(Level::Full).await;
        let tools = world.add_folder("closed/tools");
        std::fs::copy("/bin/echo", tools.join("tool")).expect("copied");
        use std::os::unix::fs::PermissionsExt as _;
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(world.path("closed"), closed).expect("set");
        let walls = walls(&[(&tools, Access::Read, true)]);
        let tool = tools.join("tool");
        let outcome = world.trial.run(Some(&walls), spec(&[tool.to_str().expect("text"), "ran"])).await;
        assert_eq!(outcome.stdout, b"ran\n", "{outcome:?}");
        world.finish().await;
    };
    as_each_user("rooms::a_root_below_a_closed_folder_can_be_used_at_level_full", world_of);
}

#[test]
fn a_level_that_was_not_reached_is_refused_and_nothing_runs() {
    as_each_user("rooms::a_level_that_was_not_reached_is_refused_and_nothing_runs", async {
        let world = World::new(Level::Kernel).await;
        let work = world.path("work");
        let needed = Walls { level: Level::Full, ..walls(&[(&work, Access::Write, true)]) };
        let outcome = world.shell(&needed, &format!("touch {}/ran", work.display())).await;
        assert!(denied(&outcome).contains("needs the sandbox at level full, and this node reaches kernel"));
        assert!(!work.join("ran").exists());
        world.finish().await;
    });
}

#[test]
fn the_file_that_was_looked_at_is_executed_and_no_other_that_takes_its_name() {
    as_each_user("rooms::the_file_that_was_looked_at_is_executed_and_no_other_that_takes_its_name", async {
        let world = World::new(Level::Full).await;
        let (work, closed) = (world.path("work"), world.add_folder("closed"));
        std::fs::copy("/bin/echo", work.join("good")).expect("copied");
        std::fs::copy("/bin/sleep", closed.join("bad")).expect("copied");
        let walls = walls(&[(&work, Access::Write, true), (&closed, Access::Read, false)]);
        let tool = work.join("tool");
        std::os::unix::fs::symlink(work.join("good"), &tool).expect("linked");
        let swapper = {
            let (work, bad, tool) = (work.clone(), closed.join("bad"), tool.clone());
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stopped = std::sync::Arc::clone(&stop);
            let thread = std::thread::spawn(move || {
                let (next, good) = (work.join("next"), work.join("good"));
                let mut round = 0_u32;
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    round += 1;
                    let target = if round.is_multiple_of(2) { &good } else { &bad };
                    std::os::unix::fs::symlink(target, &next).expect("linked");
                    std::fs::rename(&next, &tool).expect("renamed");
                }
            });
            (stop, thread)
        };
        let (mut ran, mut refused) = (0, 0);
        for _ in 0..60 {
            let outcome = world.trial.run(Some(&walls), spec(&[tool.to_str().expect("text"), "0"])).await;
            if outcome.ended.cause == EndCause::Exited {
                assert_eq!(outcome.stdout, b"0\n", "only `echo` prints it: {outcome:?}");
                ran += 1;
            } else {
                assert_eq!(outcome.ended.cause, EndCause::Denied, "{outcome:?}");
                refused += 1;
            }
        }
        swapper.0.store(true, std::sync::atomic::Ordering::Relaxed);
        swapper.1.join().expect("no panic");
        assert!(ran > 0 && refused > 0, "both were met: {ran} {refused}");
        world.finish().await;
    });
}

#[test]
fn names_are_looked_up_only_when_connections_may_be_opened() {
    as_each_user("rooms::names_are_looked_up_only_when_connections_may_be_opened", async {
        let world = World::new(Level::Full).await;
        let script = "test -e /etc/resolv.conf && grep -c use-vc /etc/resolv.conf; ls /proc/self/net/ >/dev/null; \
            wc -l < /proc/net/dev";
        let none = world.text(&Walls::default(), script).await;
        assert_eq!(none, "3\n", "two lines of heading and a loopback that is down");
        let ports = Walls { network: Network::Ports([443].into()), ..Walls::default() };
        assert!(
            world.text(&ports, script).await.starts_with("1\n") || !Path::new("/etc/resolv.conf").exists()
        );
        world.finish().await;
    });
}

#[test]
fn standard_input_reaches_a_run_that_has_control_groups_too() {
    as_each_user("rooms::standard_input_reaches_a_run_that_has_control_groups_too", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let limits = Limits { memory_bytes: Some(1 << 30), processes: Some(100), ..Limits::default() };
            let walls = Walls { limits, ..Walls::default() };
            let mut run = world.trial.start(Some(&walls), RunSpec { stdin: true, ..spec(&["cat"]) });
            assert!(run.started().await && run.input(b"words"));
            let outcome = run.ended().await;
            assert_eq!((outcome.ended.code, outcome.stdout.as_slice()), (Some(0), b"words".as_slice()));
            world.finish().await;
        }
    });
}

#[test]
fn what_a_run_writes_beside_its_roots_is_its_own_and_goes_with_it() {
    as_each_user("rooms::what_a_run_writes_beside_its_roots_is_its_own_and_goes_with_it", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let work = world.path("work");
            let walls = walls(&[(&work, Access::Write, false)]);
            let script = "echo word > $TMPDIR/file; echo word > $HOME/file; echo $TMPDIR > place; sleep 100";
            let spec = RunSpec { cwd: Some(work.display().to_string()), ..shell(script) };
            let mut first = world.trial.start(Some(&walls), spec);
            assert!(first.started().await);
            until("it wrote", || work.join("place").exists()).await;
            let place = std::fs::read_to_string(work.join("place")).expect("written");
            let look = format!("cat {0}/file {0}/../*/file; ls -A {0} | grep file; true", place.trim());
            assert_eq!(world.text(&Walls::default(), &look).await, "", "{level:?}");
            first.kill();
            let _ended = first.ended().await;
            assert!(!Path::new(place.trim()).join("file").exists(), "{level:?}");
            world.finish().await;
        }
    });
}

/// Cargo, a build script, the linker and the program that comes out: as much of real work as there
/// is on every machine that builds this.
#[test]
fn a_crate_is_built_and_executed_at_level_full() {
    as_each_user("rooms::a_crate_is_built_and_executed_at_level_full", async {
        let world = World::new(Level::Full).await;
        let work = world.path("work");
        let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| "/root/.cargo".to_owned());
        let (cargo, toolchains) = (Path::new(&home).join("bin"), Path::new(&home).join("../.rustup"));
        let (Ok(cargo), Ok(toolchains)) = (cargo.canonicalize(), toolchains.canonicalize()) else {
            // The second half of the test sees no home of another user.
            world.finish().await;
            return;
        };
        std::fs::create_dir_all(work.join("crate/src")).expect("made");
        let put = |name: &str, text: &str| {
            std::fs::write(work.join("crate").join(name), text).expect("written");
        };
        put("Cargo.toml", "[package]\nname = \"c\"\nedition = \"2024\"\n[workspace]\n");
        put("build.rs", "fn main() { println!(\"cargo:rustc-env=WORD=built\"); }\n");
        put("src/main.rs", "fn main() { println!(\"{}\", env!(\"WORD\")); }\n");
        for path in ["crate", "crate/src"] {
            open_to_all(&work.join(path));
        }
        let walls = walls(&[
            (&work, Access::Write, true),
            (&cargo, Access::Read, true),
            (&toolchains, Access::Read, true),
        ]);
        let script = format!(
            "cd {}/crate; export RUSTUP_HOME={} PATH={}:$PATH; cargo run --quiet --offline",
            work.display(),
            toolchains.display(),
            cargo.display()
        );
        assert_eq!(world.text(&walls, &script).await, "built\n");
        world.finish().await;
    });
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    as_each_user("rooms::a_folder_that_does_not_exist_is_named", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let spec = RunSpec { cwd: Some("/nowhere".to_owned()), ..shell("true") };
            let outcome = world.trial.run(Some(&Walls::default()), spec).await;
            assert_eq!(outcome.ended.cause, EndCause::Failed);
            let why = outcome.ended.diagnostic.expect("a reason");
            assert!(why.contains("working directory `/nowhere` was not found"), "{why}");
            world.finish().await;
        }
    });
}
