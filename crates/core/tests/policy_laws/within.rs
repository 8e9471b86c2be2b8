//! A document that is within another allows no more, whatever is asked, wherever. And tightening one
//! keeps it within.

use std::collections::BTreeSet;

use cortex_core::policy::{Args, Ceiling, Document, Mode};
use cortex_core::sandbox::{Access, Level, Network};
use cortex_core::time::WallTime;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::documents::{ceiling, document, leave, level, no_more, place, site, spec};

/// As documents are that may be set: each program once, in order.
fn sound(mut document: Document) -> Document {
    let mut names = BTreeSet::new();
    document.programs.retain(|program| names.insert(program.name.clone()));
    document.programs.sort();
    document
}

/// Takes fields from one of two, or parts of them, by the bits of a number: such pairs are often near
/// the border.
fn mixed(base: &Document, other: Document, bits: u16) -> Document {
    let mut mixed = base.clone();
    let take = |bit: u16| bits & (1 << bit) != 0;
    macro_rules! fields {
        ($($bit:literal $field:ident),+) => { $(if take($bit) { mixed.$field = other.$field; })+ };
    }
    for (own, other) in mixed.programs.iter_mut().zip(&other.programs) {
        if take(11) {
            own.args = other.args.clone();
        }
        if take(12) {
            own.until = other.until;
        }
    }
    for (own, other) in mixed.roots.iter_mut().zip(&other.roots) {
        if take(13) {
            (own.access, own.exec) = (other.access, other.exec);
        }
        if take(14) {
            own.path = other.path.clone();
        }
    }
    if take(15) {
        mixed.programs.pop();
    }
    fields!(0 mode, 1 programs, 2 deny, 3 always_denied, 4 env, 5 roots, 6 network, 7 timeout_ms_max,
        8 limits, 9 sensitive, 10 sandbox);
    mixed
}

/// Few fields at once: most pairs that differ in many are not within each other.
fn few() -> impl Strategy<Value = u16> {
    (0..16_u16, 0..16_u16).prop_map(|(one, another)| 1 << one | 1 << another)
}

/// What every change of these keeps within.
fn tightened(mut document: Document, bits: u16) -> Document {
    let take = |bit: u16| bits & (1 << bit) != 0;
    if take(0) && document.mode == Mode::Strict {
        document.network = Network::None;
    }
    if take(1) {
        document.env.pop();
    }
    if take(2) {
        document.deny.push("find".to_owned());
    }
    if take(3) {
        document.roots.pop();
    }
    if take(4) {
        document.roots.iter_mut().for_each(|root| (root.access, root.exec) = (Access::Read, false));
    }
    if take(5) {
        document.timeout_ms_max = document.timeout_ms_max.min(1);
    }
    if take(6) {
        document.limits.processes = Some(1);
    }
    if take(7) {
        document.sandbox = Level::Full;
    }
    document
}

/// Ceilings that forbid PERMISSIVE treat the two unlike for another reason than what they allow.
fn indifferent(mut ceiling: Ceiling) -> Ceiling {
    if let Ceiling::Bounds(bounds) = &mut ceiling {
        bounds.mode = None;
    }
    ceiling
}

proptest! {
    #![proptest_config(Config { max_global_rejects: 1_000_000, ..Config::with_cases(2_000) })]

    #[test]
    fn whatever_is_allowed_within_is_allowed_outside(
        outer in document(),
        other in document(),
        bits in few(),
        commands in vec((spec(), 0..25_i64, any::<bool>()), 8),
        ceilings in vec(ceiling(), 0..2),
        level in level(),
    ) {
        let outer = sound(outer);
        let inner = sound(mixed(&outer, other, bits));
        prop_assume!(inner != outer && inner.is_within(&outer));
        let site = site(ceilings.into_iter().map(indifferent).collect(), level);
        for (spec, now, consent) in commands {
            for now in [Some(WallTime(now)), None] {
                let (less, more) = (leave(&inner, &spec, &site, now, consent), leave(&outer, &spec, &site, now, consent));
                prop_assert!(less <= more, "{:?}: {:?} within, {:?} outside", spec, less, more);
            }
        }
        match (inner.walls(&place(), &site.ceilings), outer.walls(&place(), &site.ceilings)) {
            (Some(less), Some(more)) => no_more(&less, &more)?,
            (None, more) => prop_assert_eq!(more, None),
            (Some(_), None) => {}
        }
        let (less, more) = (inner.longest_ms(&site.ceilings), outer.longest_ms(&site.ceilings));
        prop_assert!(less <= more);
    }

    #[test]
    fn what_is_tightened_stays_within(outer in document(), bits in 0..256_u16) {
        let outer = sound(outer);
        prop_assert_eq!(outer.beyond(&outer), None);
        prop_assert_eq!(tightened(outer.clone(), bits).beyond(&outer), None);
    }

    #[test]
    fn to_be_within_is_handed_on(
        outer in document(),
        others in (document(), document()),
        bits in (few(), few()),
    ) {
        let outer = sound(outer);
        let middle = sound(mixed(&outer, others.0, bits.0));
        let inner = sound(mixed(&middle, others.1, bits.1));
        prop_assume!(inner.is_within(&middle) && middle.is_within(&outer));
        prop_assert_eq!(inner.beyond(&outer), None);
    }

    #[test]
    fn any_arguments_are_never_within_those_of_a_known_program(outer in document()) {
        let mut outer = sound(outer);
        outer.mode = Mode::Strict;
        for program in &mut outer.programs {
            program.args = Args::Known;
        }
        let mut inner = outer.clone();
        let Some(program) = inner.programs.iter_mut().find(|program| program.name == "git") else { return Ok(()) };
        program.args = Args::Any;
        prop_assert_eq!(inner.beyond(&outer), Some("programs"));
    }
}
