//! A run that takes all that it can get is bounded, and the node goes on (ABUSE 41).

use cortex_core::sandbox::{Level, Limits, Walls};

use super::support::{LEVELS, World, as_each_user, shell, spec};

const MIB: u64 = 1024 * 1024;

fn walls(limits: Limits) -> Walls {
    Walls { limits, ..Walls::default() }
}

#[test]
fn a_fork_bomb_is_bounded_and_other_runs_go_on() {
    as_each_user("bounds::a_fork_bomb_is_bounded_and_other_runs_go_on", async {
        let world = World::new(Level::Full).await;
        let walls = walls(Limits { processes: Some(64), ..Limits::default() });
        let bomb = "bomb() { bomb | bomb & }; bomb; sleep 100";
        let mut running = world.trial.start(Some(&walls), shell(bomb));
        assert!(running.started().await);
        for _ in 0..20 {
            assert_eq!(world.text(&walls, "echo on").await, "on\n");
        }
        running.kill();
        // Its shell may have ended before, for it could not fork either.
        let ended = running.ended().await.ended;
        assert!(ended.signal.is_some() || ended.code.is_some(), "{ended:?}");
        // 400 at once are more than either bound.
        let many = "for i in $(seq 400); do sleep 20 & done; wait";
        let outcome = world.shell(&walls, many).await;
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert!(said.contains("fork"), "{outcome:?}");
        world.finish().await;
    });
}

#[test]
fn a_memory_balloon_is_bounded() {
    as_each_user("bounds::a_memory_balloon_is_bounded", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let walls = walls(Limits { memory_bytes: Some(64 * MIB), ..Limits::default() });
            // `tail` keeps a line without an end in memory.
            let outcome = world.shell(&walls, "head -c 300000000 /dev/zero | tail -n 1 | wc -c").await;
            let printed = String::from_utf8_lossy(&outcome.stdout);
            assert!(!printed.starts_with("300000000"), "{level:?} {outcome:?}");
            assert_eq!(world.text(&walls, "echo on").await, "on\n");
            world.finish().await;
        }
    });
}

#[test]
fn a_tmp_of_its_own_is_bounded() {
    as_each_user("bounds::a_tmp_of_its_own_is_bounded", async {
        let world = World::new(Level::Full).await;
        let walls = walls(Limits { memory_bytes: Some(64 * MIB), ..Limits::default() });
        let outcome = world.shell(&walls, "head -c 200000000 /dev/zero > /tmp/file; wc -c < /tmp/file").await;
        let size: u64 = String::from_utf8_lossy(&outcome.stdout).trim().parse().unwrap_or(0);
        assert!(size <= 32 * MIB, "{outcome:?}");
        assert_eq!(world.text(&walls, "ls /tmp").await, "home\n", "the next run has its own");
        world.finish().await;
    });
}

#[test]
fn output_beyond_the_bound_ends_the_run_and_is_not_kept() {
    as_each_user("bounds::output_beyond_the_bound_ends_the_run_and_is_not_kept", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let walls = walls(Limits { output_bytes: Some(MIB), ..Limits::default() });
            let outcome = world.trial.run(Some(&walls), spec(&["yes"])).await;
            assert_eq!(outcome.stdout.len() as u64, MIB);
            assert_eq!(outcome.ended.signal, Some(9));
            assert!(
                outcome.ended.diagnostic.expect("a reason").contains("wrote more than the 1048576 bytes")
            );
            let exactly = world.shell(&walls, "head -c 1048576 /dev/zero").await;
            assert_eq!((exactly.ended.code, exactly.stdout.len() as u64), (Some(0), MIB));
            world.finish().await;
        }
    });
}

#[test]
fn files_and_their_size_are_bounded() {
    as_each_user("bounds::files_and_their_size_are_bounded", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let limits = Limits { files: Some(32), file_bytes: Some(MIB), ..Limits::default() };
            let text = world
                .text(&walls(limits), "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj")
                .await;
            assert_eq!(text, "32\n32\n0\n500\n", "{level:?}");
            // Of 0 the system thinks otherwise: a core that it pipes to a program goes there all the same.
            let core = world.text(&walls(limits), "grep core /proc/self/limits").await;
            assert!(core.split_whitespace().skip(4).eq(["1", "1", "bytes"]), "{level:?} {core}");
            let script = "head -c 3000000 /dev/zero > $TMPDIR/file; wc -c < $TMPDIR/file";
            let outcome = world.shell(&walls(limits), script).await;
            assert_eq!(
                String::from_utf8_lossy(&outcome.stdout).trim(),
                MIB.to_string(),
                "{level:?} {outcome:?}"
            );
            world.finish().await;
        }
    });
}
