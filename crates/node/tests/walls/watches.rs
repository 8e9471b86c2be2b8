//! Folders that are watched behind walls: what a run may read is watched, its process is held as a clerk is,
//! and what it costs is little.

use std::path::Path;
use std::time::Duration;

use cortex_core::files::path::FilePath;
use cortex_core::id::WatchId;
use cortex_core::sandbox::{Access, Level};
use cortex_core::transfer::Filters;
use cortex_core::watch::{Blind, Sight, WatchAsk};
use cortex_node::trial::Sights;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clerks::clerks;
use super::support::{LEVELS, PATIENCE, World, as_each_user, open_to_all, status, until, walls};

fn ask(path: &Path) -> WatchAsk {
    let path = FilePath::parse(path.to_str().expect("text")).expect("a path");
    let filters = Filters { exclude: vec!["target/".to_owned()], ..Filters::default() };
    WatchAsk { id: WatchId::mint(1, &[1; 10]), path, filters }
}

async fn next(sights: &mut Sights) -> Option<Sight> {
    tokio::time::timeout(PATIENCE / 3, sights.next()).await.expect("in time")
}

#[test]
fn a_folder_is_watched_behind_walls_without_being_one_of_the_clerks() {
    as_each_user("watches::a_folder_is_watched_behind_walls_without_being_one_of_the_clerks", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let work = world.path("work");
            let deep = work.join("مجلد/deep");
            for made in [work.join("مجلد"), deep.clone(), work.join("target")] {
                std::fs::create_dir(&made).expect("made");
                open_to_all(&made);
            }
            let given = walls(&[(&work, Access::Read, false)]);
            let mut sights = world.trial.watch(Some(&given), ask(&work)).expect("given");
            assert_eq!(next(&mut sights).await, Some(Sight::Watching), "{level:?}");
            let [clerk] = clerks()[..] else { panic!("{:?}", clerks()) };
            assert_eq!(status(clerk, "Seccomp").as_deref(), Some("2"), "{level:?}");
            assert_eq!(world.trial.clerks(), 0, "it is not one of those that work");
            std::fs::write(deep.join("x"), "x").expect("written");
            assert_eq!(next(&mut sights).await, Some(Sight::Changed), "{level:?}");
            std::fs::write(work.join("target/x"), "x").expect("written");
            let quiet = tokio::time::timeout(Duration::from_millis(400), sights.next()).await;
            assert!(quiet.is_err(), "{level:?}: {quiet:?}");
            assert!(world.trial.watch(Some(&given), ask(&world.path("data"))).is_err(), "not given");
            drop(sights);
            until("it is gone", || clerks().is_empty()).await;
            world.finish().await;
        }
    });
}

#[test]
fn one_that_is_killed_is_missed_and_one_whose_folder_goes_says_so() {
    as_each_user("watches::one_that_is_killed_is_missed_and_one_whose_folder_goes_says_so", async {
        let world = World::new(Level::Full).await;
        let work = world.path("work");
        let given = walls(&[(&work, Access::Read, false)]);
        let mut sights = world.trial.watch(Some(&given), ask(&work)).expect("given");
        assert_eq!(next(&mut sights).await, Some(Sight::Watching));
        kill(Pid::from_raw(clerks()[0]), Signal::SIGKILL).expect("it lives");
        assert_eq!(next(&mut sights).await, None);
        let below = work.join("below");
        std::fs::create_dir(&below).expect("made");
        let mut sights = world.trial.watch(Some(&given), ask(&below)).expect("given");
        assert_eq!(next(&mut sights).await, Some(Sight::Watching));
        std::fs::remove_dir(&below).expect("removed");
        assert_eq!(next(&mut sights).await, Some(Sight::Blind(Blind::Moved)));
        world.finish().await;
    });
}
