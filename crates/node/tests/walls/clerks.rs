//! Processes that work on files: what holds them, what they keep of the processes that they come from,
//! and that nothing of them is left.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::op::{Content, Expect, FileOp, ReadAs, ReadRange, WriteHow};
use cortex_core::files::path::FilePath;
use cortex_core::limits::CLERKS_MAX;
use cortex_core::sandbox::{Access, Level, Walls};
use cortex_core::{Code, Refusal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{LEVELS, World, as_each_user, is_root, processes, status, until, walls};

fn path(path: &Path) -> FilePath {
    FilePath::parse(path.to_str().expect("text")).expect("a path")
}

fn write(to: &Path, content: &str) -> FileOp {
    FileOp::Write {
        path: path(to),
        content: Content::Inline(content.to_owned().into()),
        how: WriteHow::Put,
        expect: Expect::Any,
        mkdirs: true,
        mode: None,
        dry_run: false,
    }
}

fn read(from: &Path) -> FileOp {
    FileOp::Read {
        path: path(from),
        range: ReadRange::All,
        want: ReadAs::Inline { bytes_max: 1_000 },
        hash: true,
    }
}

/// Clerks that come from this process.
pub fn clerks() -> Vec<i32> {
    let own = std::process::id().to_string();
    let is_ours = |pid: &i32| {
        let mut above = status(*pid, "PPid");
        // Nursery, guard.
        for _ in 0..3 {
            if above.as_ref() == Some(&own) {
                return true;
            }
            above = above.and_then(|pid| status(pid.parse().ok()?, "PPid"));
        }
        false
    };
    let is_clerk = |pid: &i32| status(*pid, "Name").is_some_and(|name| name == "cortex-clerk");
    processes().filter(is_clerk).filter(is_ours).collect()
}

/// What is in a folder beside the home directory of runs.
fn names(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.into_string().expect("text")).filter(|name| name != ".home").collect()
}

impl World {
    async fn file(&self, walls: Option<&Walls>, op: FileOp) -> Result<FileAnswer, Refusal> {
        self.trial.files(walls, op, async || Ok(())).await
    }

    async fn reads(&self, walls: Option<&Walls>, from: &Path) -> Result<Vec<u8>, Code> {
        match self.file(walls, read(from)).await {
            Ok(FileAnswer::Content { data, .. }) => Ok(data.to_vec()),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code),
        }
    }
}

#[test]
fn files_are_written_and_read_where_a_run_may_and_nowhere_else() {
    as_each_user("clerks::files_are_written_and_read_where_a_run_may_and_nowhere_else", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let (work, closed) = (world.path("work"), world.add_folder("closed"));
            let inside = walls(&[(&work, Access::Write, true), (&closed, Access::Read, false)]);
            let given = Some(&inside);
            let target = work.join("مجلد/ملف");
            let written = world.file(given, write(&target, "first")).await.expect("written");
            assert!(matches!(written, FileAnswer::Written { created: true, bytes: 5, .. }), "{written:?}");
            assert_eq!(world.reads(given, &target).await, Ok(b"first".to_vec()));
            // It is there for runs of the same walls, and belongs to their user.
            let script = format!("cat {0}; test -O {0} && echo mine", target.display());
            assert_eq!(world.text(&inside, &script).await, "firstmine\n");
            let outside = world.path("data/node.key");
            assert_eq!(world.reads(given, &outside).await, Err(Code::PathOutsideRoots));
            let refused = world.file(given, write(&closed.join("x"), "x")).await.expect_err("read only");
            assert_eq!(refused.code, Code::PathOutsideRoots);
            // A link of a run to what the node keeps for itself.
            std::os::unix::fs::symlink(&outside, work.join("way")).expect("linked");
            assert_eq!(world.reads(given, &work.join("way")).await, Err(Code::PathOutsideRoots));
            assert!(std::fs::read_dir(&closed).expect("read").next().is_none());
            world.finish().await;
        }
    });
}

#[test]
fn a_clerk_is_held_as_a_run_is_and_keeps_nothing_of_its_nursery() {
    as_each_user("clerks::a_clerk_is_held_as_a_run_is_and_keeps_nothing_of_its_nursery", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let work = world.path("work");
            let given = walls(&[(&work, Access::Write, true)]);
            world.file(Some(&given), write(&work.join("a"), "a")).await.expect("written");
            let [clerk] = clerks()[..] else { panic!("{:?}", clerks()) };
            let is = |field: &str| status(clerk, field).unwrap_or_default();
            for (field, wanted) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", "0000000000000000")] {
                assert_eq!(is(field), wanted, "{level:?} {field}");
            }
            let (own, its) = (nix::unistd::geteuid().as_raw(), is("Uid"));
            let user = its.split_whitespace().next().and_then(|uid| uid.parse::<u32>().ok());
            // As an ordinary user the node has no other for its runs.
            assert_eq!(user == Some(own), !is_root(), "{level:?}: {its}");
            // Not dumpable: what the system shows of it is root's.
            let shown = std::fs::metadata(format!("/proc/{clerk}/mem")).expect("it lives");
            assert_eq!(shown.uid(), 0, "{level:?}");
            if is_root() {
                let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{clerk}/fd"))
                    .expect("readable for root")
                    .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                    .collect();
                open.sort();
                assert_eq!(open, ["0", "1", "2"], "{level:?}");
            }
            world.finish().await;
        }
    });
}

#[test]
fn clerks_are_used_again_behind_the_same_walls_and_end_with_them() {
    as_each_user("clerks::clerks_are_used_again_behind_the_same_walls_and_end_with_them", async {
        let world = World::new(Level::Full).await;
        let work = world.path("work");
        let given = walls(&[(&work, Access::Write, true)]);
        let other = walls(&[(&work, Access::Read, false)]);
        for _ in 0..3 {
            world.file(Some(&given), write(&work.join("a"), "a")).await.expect("written");
        }
        let first = clerks();
        assert_eq!((first.len(), world.trial.clerks()), (1, 1));
        world.reads(Some(&other), &work.join("a")).await.expect("read");
        world.reads(None, &work.join("a")).await.expect("read, without walls");
        assert_eq!((clerks().len(), world.trial.clerks()), (3, 3));
        world.trial.end_clerks_but(Some(&given));
        until("the others are gone", || clerks() == first).await;
        assert_eq!(world.trial.clerks(), 1);
        world.finish().await;
        until("nothing is left", || clerks().is_empty()).await;
    });
}

#[test]
fn what_is_given_up_before_its_end_is_not_done_and_its_clerk_is_gone() {
    as_each_user("clerks::what_is_given_up_before_its_end_is_not_done_and_its_clerk_is_gone", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let work = world.path("work");
            let target = work.join("a");
            let given = walls(&[(&work, Access::Write, true)]);
            world.file(Some(&given), write(&target, "old")).await.expect("written");
            // Refused when all was ready: the clerk goes on.
            let no = async || Err(Refusal::new(Code::StaleAttempt, "It has ended."));
            let refused = world.trial.files(Some(&given), write(&target, "new"), no).await;
            assert_eq!(refused.expect_err("refused").code, Code::StaleAttempt);
            assert_eq!(names(&work), ["a"], "nothing half-made is left");
            let before = clerks();
            assert_eq!(before.len(), 1);
            // Given up at that moment: the clerk ends, and what it had not shown nobody sees.
            let never = async || std::future::pending().await;
            let given_up = world.trial.files(Some(&given), write(&target, "new"), never);
            let late = tokio::time::timeout(std::time::Duration::from_millis(300), given_up).await;
            assert!(late.is_err());
            until("the clerk is gone", || !clerks().contains(&before[0])).await;
            assert_eq!(world.reads(Some(&given), &target).await, Ok(b"old".to_vec()));
            world.finish().await;
        }
    });
}

#[test]
fn a_clerk_that_is_killed_fails_one_operation_and_the_next_gets_another() {
    as_each_user("clerks::a_clerk_that_is_killed_fails_one_operation_and_the_next_gets_another", async {
        let world = World::new(Level::Full).await;
        let work = world.path("work");
        let target = work.join("a");
        let given = walls(&[(&work, Access::Write, true)]);
        world.file(Some(&given), write(&target, "old")).await.expect("written");
        let killed = async || {
            let pid = clerks()[0];
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
            until("it is gone", || clerks().is_empty()).await;
            Ok(())
        };
        let lost = world.trial.files(Some(&given), write(&target, "new"), killed).await;
        assert_eq!(lost.expect_err("lost").code, Code::UnknownOutcome, "it was told to commit");
        assert_eq!(world.reads(Some(&given), &target).await, Ok(b"old".to_vec()));
        world.finish().await;
    });
}

#[test]
fn a_clerk_that_is_killed_while_it_waits_is_replaced_and_nobody_hears_of_it() {
    as_each_user("clerks::a_clerk_that_is_killed_while_it_waits_is_replaced_and_nobody_hears_of_it", async {
        let world = World::new(Level::Full).await;
        let work = world.path("work");
        let target = work.join("a");
        let given = walls(&[(&work, Access::Write, true)]);
        world.file(Some(&given), write(&target, "old")).await.expect("written");
        kill(Pid::from_raw(clerks()[0]), Signal::SIGKILL).expect("it lives");
        until("it is gone", || clerks().is_empty()).await;
        world.file(Some(&given), write(&work.join("b"), "new")).await.expect("written");
        assert_eq!(world.reads(Some(&given), &target).await, Ok(b"old".to_vec()));
        world.finish().await;
    });
}

#[test]
fn more_operations_than_clerks_wait_their_turn_and_no_more_processes_come() {
    as_each_user("clerks::more_operations_than_clerks_wait_their_turn_and_no_more_processes_come", async {
        let world = World::new(Level::Kernel).await;
        let work = world.path("work");
        let given = walls(&[(&work, Access::Write, true)]);
        let one = |number: usize| {
            let (world, work, given) = (&world, &work, &given);
            async move {
                world.file(Some(given), write(&work.join(number.to_string()), "x")).await.expect("written");
                assert!(world.trial.clerks() <= CLERKS_MAX);
            }
        };
        futures::future::join_all((0..40).map(one)).await;
        assert_eq!(names(&work).len(), 40);
        assert!(clerks().len() <= CLERKS_MAX);
        world.finish().await;
    });
}
