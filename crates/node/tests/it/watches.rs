//! Folders that a hub has watched, through a whole node: what it is told, and what ends it.

use std::path::Path;

use cortex_core::files::path::FilePath;
use cortex_core::id::{Revision, WatchId};
use cortex_core::limits::WATCHES_MAX;
use cortex_core::message::{ToHub, ToNode};
use cortex_core::policy::Policy;
use cortex_core::transfer::Filters;
use cortex_core::watch::{Blind, Sight, WatchAsk, WatchNews};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hub::{Hub, Link, policy};
use super::node::Node;

fn id(n: u8) -> WatchId {
    WatchId::mint(1, &[n; 10])
}

impl Link {
    async fn watch(&self, n: u8, folder: &Path) {
        let path = FilePath::parse(folder.to_str().expect("text")).expect("a path");
        self.send(ToNode::Watch(Box::new(WatchAsk { id: id(n), path, filters: Filters::default() }))).await;
    }

    async fn sees(&mut self) -> (WatchId, Sight) {
        let ToHub::WatchNews(WatchNews { id, sight }) = self.next().await else { panic!("news") };
        (id, sight)
    }
}

/// Processes of this test that watch.
fn lookouts() -> Vec<i32> {
    let field = |pid: i32, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim_matches([':', '\t']).to_owned())
    };
    let is_ours = |pid: &i32| {
        let above = |pid: i32| field(pid, "PPid").and_then(|above| above.parse().ok()).unwrap_or(0);
        let own = i32::try_from(std::process::id()).expect("a number");
        // The nursery, and its guard, stand between.
        [1, 2, 3].iter().any(|times| (0..*times).fold(*pid, |pid, _| above(pid)) == own)
    };
    let pids = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_clerk = |pid: &i32| field(*pid, "Name").is_some_and(|name| name == "cortex-clerk");
    pids.filter(is_clerk).filter(is_ours).collect()
}

async fn until_none_watches() {
    for _ in 0..1_000 {
        if lookouts().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{:?}", lookouts());
}

#[tokio::test]
async fn a_hub_is_told_of_changes_until_it_wants_no_more_or_its_link_ends() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let (one, two) = (node.path("one"), node.path("مجلد"));
    for folder in [&one, &two] {
        std::fs::create_dir(folder).expect("made");
    }
    link.watch(1, &one).await;
    assert_eq!(link.sees().await, (id(1), Sight::Watching));
    link.watch(2, &two).await;
    assert_eq!(link.sees().await, (id(2), Sight::Watching));
    assert_eq!(lookouts().len(), 1, "one process for all of them");
    std::fs::write(two.join("x"), "x").expect("written");
    assert_eq!(link.sees().await, (id(2), Sight::Changed));
    link.watch(3, &node.path("nothing")).await;
    assert_eq!(link.sees().await, (id(3), Sight::Blind(Blind::Moved)));
    link.watch(4, Path::new("/proc/1")).await;
    // A folder of the node's own is given to nobody, whatever the policy says.
    link.watch(5, &node.path("node")).await;
    let mut seen = [link.sees().await, link.sees().await];
    seen.sort_by_key(|(id, _)| *id);
    assert_eq!(seen[1], (id(5), Sight::Blind(Blind::Denied)), "{seen:?}");
    for n in [1, 2, 4] {
        link.send(ToNode::Unwatch { id: id(n) }).await;
    }
    until_none_watches().await;
    link.watch(6, &one).await;
    assert_eq!(link.sees().await, (id(6), Sight::Watching));
    drop(link);
    until_none_watches().await;
    let mut link = hub.welcomed(2, "permissive").await;
    std::fs::write(one.join("x"), "x").expect("written");
    link.watch(7, &one).await;
    assert_eq!(link.sees().await, (id(7), Sight::Watching), "of the link before nothing is left");
    node.stop().await.0.expect("a good end");
    until_none_watches().await;
}

#[tokio::test]
async fn another_policy_or_the_end_of_whoever_watches_is_told_and_it_can_be_asked_for_anew() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let folder = node.path("one");
    std::fs::create_dir(&folder).expect("made");
    link.watch(1, &folder).await;
    assert_eq!(link.sees().await, (id(1), Sight::Watching));
    kill(Pid::from_raw(lookouts()[0]), Signal::SIGKILL).expect("it lives");
    assert_eq!(link.sees().await, (id(1), Sight::Blind(Blind::Ended)));
    link.watch(2, &folder).await;
    assert_eq!(link.sees().await, (id(2), Sight::Watching));
    std::fs::write(folder.join("x"), "x").expect("written");
    assert_eq!(link.sees().await, (id(2), Sight::Changed));
    let strict = Policy { revision: Revision(2), ..policy("strict") };
    link.send(ToNode::Policy(link.signed(&strict))).await;
    assert_eq!(link.sees().await, (id(2), Sight::Blind(Blind::Ended)));
    until_none_watches().await;
    link.watch(3, &folder).await;
    assert_eq!(link.sees().await, (id(3), Sight::Blind(Blind::Denied)));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn more_folders_than_a_node_watches_are_told_so_and_the_others_go_on() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let folder = |n: u8| node.path(&format!("f{n}"));
    let last = u8::try_from(WATCHES_MAX).expect("few");
    let mut blind = Vec::new();
    for n in 0..=last {
        std::fs::create_dir(folder(n)).expect("made");
        link.watch(n, &folder(n)).await;
    }
    for _ in 0..=last {
        let (id, sight) = link.sees().await;
        if sight != Sight::Watching {
            blind.push((id, sight));
        }
    }
    assert_eq!(blind, [(id(last), Sight::Blind(Blind::Many))]);
    std::fs::write(folder(last - 1).join("x"), "x").expect("written");
    assert_eq!(link.sees().await, (id(last - 1), Sight::Changed));
    node.stop().await.0.expect("a good end");
}
