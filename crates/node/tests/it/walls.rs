//! Policies that want walls, through a whole node.

use std::os::unix::fs::PermissionsExt as _;

use cortex_core::message::ToHub;
use cortex_core::run::{EndCause, RunSpec};
use cortex_core::sandbox::Level;
use cortex_core::stream::Positions;

use super::hub::{Hub, policy, run_id};
use super::node::Node;

#[tokio::test]
async fn a_strict_policy_puts_its_runs_behind_the_walls_that_the_node_told_of() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.link().await;
    let level = Level::parse(&link.hello.facts.sandbox).expect("a level");
    link.welcome(1, policy("strict")).await;
    link.start(run_id(1), &["id", "-u"]).await;
    if level < Level::Kernel {
        let got = link.collect(run_id(1), Positions::default()).await;
        assert_eq!(got.ended().cause, EndCause::Denied, "{:?}", link.hello.facts.layers);
        return;
    }
    assert_eq!(link.next().await, ToHub::Started { run: run_id(1), level });
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!(got.ended().code, Some(0), "{:?}", got.ended());
    assert_ne!(got.text(), "0\n", "never root");
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn work_is_done_in_the_owners_folder_and_keys_are_not_seen() {
    let mut hub = Hub::start().await;
    let (node, work) = Node::start_with_work(&hub).await;
    let mut link = hub.link().await;
    link.welcome(1, policy("dev")).await;
    let spec = |argv: &[&str]| RunSpec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        cwd: Some(work.display().to_string()),
        ..RunSpec::default()
    };
    link.start_spec(run_id(1), spec(&["touch", "made"])).await;
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!(got.ended().code, Some(0), "{:?} {}", got.ended(), String::from_utf8_lossy(&got.stderr));
    assert!(work.join("made").exists());
    let mode = work.metadata().expect("made by the node").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "for the runs' user alone");
    let key = node.path("node/node.key");
    link.start_spec(run_id(2), spec(&["cat", key.to_str().expect("text")])).await;
    let got = link.collect(run_id(2), Positions::default()).await;
    assert_eq!((got.ended().code, got.stdout.len()), (Some(1), 0));
    node.stop().await.0.expect("a good end");
}
