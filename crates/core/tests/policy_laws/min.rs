//! What two bounds leave is never more than either: judgements and walls over random documents,
//! ceilings and commands. And the machine of a node says what [`judge`] says.

use cortex_core::id::{ConsentId, Epoch, Generation, NodeId, Revision, RunId};
use cortex_core::message::{Envelope, Start, ToHub, ToNode, Welcome};
use cortex_core::node_runs::{Action, NodeRuns};
use cortex_core::policy::{Document, Mode, Policy, Question, Rule, Site, judge};
use cortex_core::run::{EndCause, RunSpec};
use cortex_core::sandbox::{Level, Walls};
use cortex_core::time::{Timestamp, WallTime};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::documents::{Leave, ceiling, document, leave, level, no_more, place, site, spec};

fn said(document: &Document, spec: &RunSpec, site: &Site, consent: bool) -> Leave {
    leave(document, spec, site, Some(WallTime(10)), consent)
}

/// A policy that bounds nothing: what is left is what a ceiling says alone.
fn open() -> Document {
    Document { always_denied: vec![], ..Document::profile("permissive").expect("built in") }
}

/// What a command comes to on a node with this policy and ceiling: the rule that refuses or asks,
/// or the walls.
fn on_a_node(
    document: &Document,
    site: &Site,
    spec: &RunSpec,
    consent: bool,
) -> Result<Option<Walls>, String> {
    let id = NodeId::mint(1, &[1; 10]);
    let policy = Policy { document: document.clone(), ..Policy::strict(id, WallTime(0)) };
    let mut runs = NodeRuns::restore(Generation(1), Epoch(0), []);
    runs.stand_on(site.ground.clone());
    runs.stand_under(site.ceilings.clone());
    let welcome =
        Welcome { generation: Generation(1), name: "n".into(), policy: policy.into(), audit_head: None };
    let run = RunId::mint(1, &[1; 10]);
    let start = Start {
        run,
        spec: spec.clone(),
        caller: "a".into(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: consent.then(|| ConsentId::mint(1, &[1; 10])),
        task: None,
    };
    for message in [ToNode::Welcome(welcome), ToNode::Start(start)] {
        runs.handle(Envelope { epoch: Epoch(1), message }, Timestamp(0));
    }
    runs.journaled(run);
    while let Some(action) = runs.poll_action() {
        if let Action::Spawn { walls, .. } = action {
            return Ok(walls.map(|walls| *walls));
        }
    }
    match runs.poll_end() {
        Some(ToHub::Ended { ended, .. }) => {
            assert_eq!(ended.cause, EndCause::Denied);
            Err(ended.diagnostic.expect("a reason"))
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(Config::with_cases(2_000))]

    #[test]
    fn policy_and_ceiling_together_allow_no_more_than_either(
        document in document(),
        ceilings in vec(ceiling(), 1..3),
        spec in spec(),
        level in level(),
        consent in any::<bool>(),
    ) {
        let both = said(&document, &spec, &site(ceilings.clone(), level), consent);
        prop_assert!(both <= said(&document, &spec, &site(vec![], level), consent));
        for ceiling in &ceilings {
            let one = site(vec![ceiling.clone()], level);
            prop_assert!(both <= said(&document, &spec, &one, consent));
            // A ceiling alone knows no STRICT of the hub, whose mode only matters to `local.mode`.
            if document.mode == Mode::Permissive {
                prop_assert!(both <= said(&open(), &spec, &one, consent));
            }
        }
    }

    #[test]
    fn a_higher_level_and_a_yes_never_turn_leave_into_refusal(
        document in document(),
        ceiling in ceiling(),
        spec in spec(),
    ) {
        let at = |level, consent| said(&document, &spec, &site(vec![ceiling.clone()], level), consent);
        for levels in Level::ALL.windows(2) {
            prop_assert!(at(levels[0], false) <= at(levels[1], false));
        }
        prop_assert!(at(Level::Full, false) <= at(Level::Full, true));
        prop_assert_ne!(at(Level::Full, true), Leave::Asked);
    }

    #[test]
    fn walls_leave_no_more_than_policy_or_ceiling(document in document(), ceilings in vec(ceiling(), 1..3)) {
        let own = document.walls(&place(), &[]);
        let both = document.walls(&place(), &ceilings);
        if let Some(own) = &own {
            no_more(both.as_ref().expect("walls do not vanish"), own)?;
        }
        for ceiling in &ceilings {
            let alone = open().walls(&place(), std::slice::from_ref(ceiling));
            if let Some(alone) = alone {
                no_more(both.as_ref().expect("the ceiling wants walls"), &alone)?;
            }
        }
        prop_assert_eq!(own.is_none(), document.mode == Mode::Permissive);
    }

    #[test]
    fn the_machine_of_a_node_decides_as_the_judgement_does(
        document in document(),
        ceilings in vec(ceiling(), 0..2),
        spec in spec(),
        level in level(),
        consent in any::<bool>(),
    ) {
        let site = site(ceilings, level);
        let question = Question { spec: &spec, node: "n", site: &site, now: None, consent };
        let said = judge(&document, &question).and_then(|answer| answer.allowed("n"));
        match (on_a_node(&document, &site, &spec, consent), said) {
            (Ok(walls), Ok(_)) => prop_assert_eq!(walls, document.walls(&site.ground.place, &site.ceilings)),
            (Err(why), Err(refusal)) => {
                prop_assert!(why.ends_with(&refusal.message), "{} / {}", why, refusal.message);
                if let Some(rule) = Rule::of(&refusal) {
                    prop_assert!(why.contains(&format!("(rule {rule})")), "{} / {}", why, rule);
                }
            }
            (node, said) => prop_assert!(false, "the node: {:?}, the judgement: {:?}", node, said),
        }
    }

}

proptest! {
    #![proptest_config(Config::with_cases(300))]

    #[test]
    fn any_text_at_all_is_judged(
        document in document(),
        argv in vec("\\PC{0,40}", 1..8),
        cwd in of("\\PC{0,40}"),
        env in vec(("\\PC{0,10}", "\\PC{0,10}"), 0..4),
    ) {
        let spec = RunSpec { argv, cwd, env, ..RunSpec::default() };
        let _answer = said(&document, &spec, &site(vec![], Level::Full), false);
    }
}
