//! Links and presence against a model: connections of two processes of one node come, are
//! answered by the store in any order, and end in any order. The registry shows the newest link
//! that has not ended, and no link with a lower epoch than one before.

use std::collections::BTreeSet;

use cortex_core::id::{Epoch, LinkId, NodeId};
use cortex_core::limits::{TAKEOVER_WINDOW_MS, TAKEOVERS_MAX};
use cortex_core::registry::{Attached, Dial, Registry};
use cortex_core::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

prop_state_machine! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_newest_living_link_is_present_whatever_the_order(sequential 1..60 => Presence);
}

#[derive(Clone, Debug)]
enum Step {
    /// The link with this epoch is attached by the process with this instance.
    Attach {
        epoch: u64,
        instance: u64,
    },
    Detach {
        link: u64,
    },
    Wait {
        ms: u64,
    },
}

#[derive(Clone, Debug, Default)]
struct Model {
    now: u64,
    highest: u64,
    present: Option<(u64, u64)>,
    takeovers: Vec<u64>,
    known: BTreeSet<u64>,
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        prop_oneof![
            4 => (1_u64..30, 0_u64..2).prop_map(|(epoch, instance)| Step::Attach { epoch, instance }),
            2 => (1_u64..30).prop_map(|link| Step::Detach { link }),
            1 => (0..TAKEOVER_WINDOW_MS).prop_map(|ms| Step::Wait { ms }),
        ]
        .boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        match *step {
            Step::Attach { epoch, instance } if epoch > model.highest => {
                model.highest = epoch;
                model.known.insert(epoch);
                model.takeovers.retain(|at| at + TAKEOVER_WINDOW_MS > model.now);
                let other = model.present.is_some_and(|(_, before)| before != instance);
                if other {
                    model.takeovers.push(model.now);
                }
                let cloned = other && model.takeovers.len() >= TAKEOVERS_MAX;
                model.present = (!cloned).then_some((epoch, instance));
            }
            Step::Attach { .. } => {}
            Step::Detach { link } => model.present = model.present.filter(|(epoch, _)| *epoch != link),
            Step::Wait { ms } => model.now += ms,
        }
        model
    }
}

struct Presence;

impl StateMachineTest for Presence {
    type SystemUnderTest = (Registry, u64);
    type Reference = Model;

    fn init_test(_: &Model) -> (Registry, u64) {
        (Registry::new(), 0)
    }

    fn apply((mut registry, mut now): (Registry, u64), model: &Model, step: Step) -> (Registry, u64) {
        match step {
            Step::Attach { epoch, instance } => {
                let (link, at) = (LinkId(epoch), Timestamp(now));
                let before = registry.get(node()).map(|presence| presence.link);
                match registry.attach(node(), link, Epoch(epoch), Dial { instance, number: 0 }, at) {
                    Attached::Online { displaced } => assert_eq!(displaced, before),
                    Attached::Cloned { displaced } => assert_eq!(Some(displaced), before),
                    Attached::Stale => assert!(epoch <= model.highest),
                }
            }
            Step::Detach { link } => {
                let before = registry.get(node()).map(|presence| presence.link);
                assert_eq!(registry.detach(node(), LinkId(link)), before == Some(LinkId(link)));
            }
            Step::Wait { ms } => {
                now += ms;
                registry.handle_timeout(Timestamp(now));
            }
        }
        (registry, now)
    }

    fn check_invariants((registry, _): &(Registry, u64), model: &Model) {
        let present = registry.get(node()).map(|presence| (presence.epoch.0, presence.instance));
        assert_eq!(present, model.present);
        assert!(registry.entries() <= 2, "one presence, one count of take-overs");
    }
}

fn node() -> NodeId {
    NodeId::mint(1, &[1; 10])
}
