//! A power cut while a machine joins.

use serde_json::Value;

use crate::world::hub;
use crate::{arm, restart, rounds, wait_for_kill};

/// Every point on the way of a join.
const POINTS: &[&str] = &[
    "hub::after_accept",
    "hub::enrol_before_commit",
    "hub::enrol_after_commit",
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
];

fn found(list: &Value, id: &Value) -> Value {
    let items = list.as_array().expect("a list");
    items.iter().find(|item| item["id"] == *id).cloned().unwrap_or(Value::Null)
}

#[test]
fn a_power_cut_at_any_point_of_a_join_leaves_one_node_or_none_for_the_invite() {
    let mut world = hub().node("a").start();
    for round in 0..rounds() {
        for (number, point) in POINTS.iter().enumerate() {
            let name = format!("n{round}-{number}");
            let (created, file) = world.invite(&[]);
            let armed = arm(&world, point);
            let first = world.join_only(&file, &name);
            wait_for_kill(point, &armed);
            restart(&mut world, point);
            let invites = world.cortex(&["invite", "ls", "--json"]).expect(0).value();
            let nodes = world.cortex(&["node", "ls", "--json"]).expect(0).value();
            let invite = found(&invites, &created["id"]);
            match invite["state"].as_str() {
                Some("open") => assert_ne!(first.code, Some(0), "{point}: it was told that it joined"),
                Some("used") => {
                    let node = found(&nodes, &invite["used_by"]);
                    assert_eq!(node["name"], name.as_str(), "{point}: used without a node: {invite}");
                }
                other => panic!("{point}: the invite is {other:?}"),
            }
            let again = world.join_only(&file, &name);
            let nodes = world.cortex(&["node", "ls", "--json"]).expect(0).value();
            let named = nodes.as_array().expect("a list").iter().filter(|node| node["name"] == name.as_str());
            assert_eq!(named.count(), 1, "{point}: one node after the second try: {nodes}");
            again.expect(0);
        }
    }
}
