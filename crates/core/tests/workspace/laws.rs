//! Random commands, right and wrong ones, on one workspace. What each may change is told from the rows
//! before and after it.

use cortex_core::error::Code;
use cortex_core::event::EventKind;
use cortex_core::files::content::TreeId;
use cortex_core::id::{LockEpoch, Revision};
use cortex_core::limits::WORKSPACE_LOCK_MS;
use cortex_core::sync::{End, Rule};
use cortex_core::workspace::{Command, Member, MemberState, Mode, Planning, Role, Source, Step, next};
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::rounds;
use super::rows::{ADA, Rows, attach, halt, halt_id, member, root, tree};

prop_state_machine! {
    #![proptest_config(Config { cases: rounds(256), failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_is_asked_for_the_laws_of_workspaces_hold(sequential 1..80 => Laws);
}

/// Which lock a writer believes to hold.
#[derive(Clone, Copy, Debug)]
enum Quote {
    None,
    Last,
    Older,
}

#[derive(Clone, Debug)]
enum Act {
    Commit {
        behind: u64,
        by: Option<u8>,
        tree: u8,
        quote: Quote,
    },
    Restore {
        n: u64,
        wrong: bool,
        quote: Quote,
    },
    Change {
        exclude: bool,
        quote: Quote,
    },
    Attach(u8, Role),
    Detach(u8),
    Observed {
        member: u8,
        tree: u8,
        other_root: bool,
    },
    Gone(u8),
    Received(u8, u8),
    Halt {
        member: u8,
        halt: u8,
        stale: bool,
        root: bool,
    },
    Merged {
        member: u8,
        stale: bool,
    },
    Settled {
        member: u8,
        stale: bool,
    },
    Begin {
        member: u8,
        stale: bool,
    },
    Applied {
        member: u8,
        tree: u8,
        stale: bool,
    },
    Accept(u8, u8),
    Resync(u8, bool),
    Lock,
    Extend(Quote),
    Unlock(Quote),
    Expire(Quote),
    Break,
    Remove(Quote),
    /// The wall clock jumps.
    Jump(i64),
}

struct Acts;

impl ReferenceStateMachine for Acts {
    type State = bool;
    type Transition = Act;

    fn init_state() -> BoxedStrategy<bool> {
        any::<bool>().boxed()
    }

    fn transitions(_: &bool) -> BoxedStrategy<Act> {
        let quote = || prop_oneof![4 => Just(Quote::None), 2 => Just(Quote::Last), 1 => Just(Quote::Older)];
        let member = || 0_u8..4;
        let tree = || 0_u8..6;
        let stale = || prop::bool::weighted(0.2);
        let role = prop::sample::select(Role::ALL.to_vec());
        let source = prop::option::weighted(0.5, member());
        prop_oneof![
            6 => (0_u64..3, source, tree(), quote())
                .prop_map(|(behind, by, tree, quote)| Act::Commit { behind: behind / 2, by, tree, quote }),
            1 => (0_u64..6, stale(), quote()).prop_map(|(n, wrong, quote)| Act::Restore { n, wrong, quote }),
            1 => (any::<bool>(), quote()).prop_map(|(exclude, quote)| Act::Change { exclude, quote }),
            4 => (member(), role).prop_map(|(member, role)| Act::Attach(member, role)),
            1 => member().prop_map(Act::Detach),
            8 => (member(), tree(), prop::bool::weighted(0.1))
                .prop_map(|(member, tree, other_root)| Act::Observed { member, tree, other_root }),
            1 => member().prop_map(Act::Gone),
            5 => (member(), tree()).prop_map(|(member, tree)| Act::Received(member, tree)),
            3 => (member(), 0_u8..3, stale(), stale())
                .prop_map(|(member, halt, stale, root)| Act::Halt { member, halt, stale, root }),
            2 => (member(), stale()).prop_map(|(member, stale)| Act::Merged { member, stale }),
            4 => (member(), stale()).prop_map(|(member, stale)| Act::Settled { member, stale }),
            4 => (member(), stale()).prop_map(|(member, stale)| Act::Begin { member, stale }),
            4 => (member(), tree(), stale())
                .prop_map(|(member, tree, stale)| Act::Applied { member, tree, stale }),
            3 => (member(), 0_u8..3).prop_map(|(member, halt)| Act::Accept(member, halt)),
            1 => (member(), any::<bool>()).prop_map(|(member, repair)| Act::Resync(member, repair)),
            2 => Just(Act::Lock),
            1 => quote().prop_map(Act::Extend),
            1 => quote().prop_map(Act::Unlock),
            1 => quote().prop_map(Act::Expire),
            1 => Just(Act::Break),
            1 => (0_u8..20, quote()).prop_map(|(rare, quote)| match rare {
                0 => Act::Remove(quote),
                _ => Act::Jump(0),
            }),
            2 => (-400_000_000_000_i64..400_000_000_000).prop_map(Act::Jump),
        ]
        .boxed()
    }

    fn apply(state: bool, _: &Act) -> bool {
        state
    }
}

struct Laws;

impl StateMachineTest for Laws {
    type SystemUnderTest = Rows;
    type Reference = Acts;

    fn init_test(is_hub: &bool) -> Rows {
        Rows::new(if *is_hub { Mode::HubPrimary } else { Mode::NodePrimary }, tree(0))
    }

    fn apply(mut rows: Rows, _: &bool, act: Act) -> Rows {
        if let Act::Jump(ms) = act {
            rows.now.0 += ms;
            return rows;
        }
        let Some(command) = command(&mut rows, &act) else { return rows };
        let before = rows.clone();
        let result = rows.decide(command);
        let code = result.as_ref().err().map(|refusal| refusal.code);
        if before.ws.removed_at.is_some() {
            assert_eq!(code, Some(Code::NotFound), "a removed workspace takes nothing: {act:?}");
        }
        if code.is_some() {
            assert_eq!(rows, before, "what is refused changes nothing");
        }
        head_moves_by_its_rules(&before, &rows, &act, code);
        locks_hold(&before, &rows, &act, code);
        halts_end_by_their_own_id(&before, &rows, &act, code);
        folders_are_told_apart(&before, &rows, &act);
        plans_count_while_they_would_be_made(&before, &rows, &act, code);
        for event in result.iter().flat_map(|decided| &decided.events) {
            let is_told_in_sync = event.detail.as_ref().is_some_and(|detail| detail.ends_with(" in_sync"));
            if event.kind == EventKind::MemberState && is_told_in_sync {
                let row =
                    rows.members.iter().find(|member| Some(member.node) == event.node).expect("a member");
                assert_eq!(row.observed.map(|observed| observed.tree), Some(rows.ws.tree), "{act:?}");
            }
        }
        rows
    }

    fn check_invariants(rows: &Rows, _: &bool) {
        assert_eq!(rows.tree_of(rows.ws.head), Some(rows.ws.tree));
        for (index, row) in rows.revisions.iter().enumerate() {
            assert_eq!(row.n, Revision(index as u64 + 1), "each number once, and none left out");
            assert_eq!(row.parent.map_or(0, |parent| parent.0), row.n.0 - 1);
            assert!(rows.proven.contains(&row.tree));
        }
        let is_lead = |member: &&Member| member.role == Role::Lead;
        assert!(rows.members.iter().filter(is_lead).count() <= 1);
        for member in &rows.members {
            assert!(member.role.fits(rows.ws.mode));
            assert!(member.intent <= rows.ws.head && member.reached <= rows.ws.head);
            if member.state(&rows.ws) == MemberState::InSync {
                let observed = member.observed.expect("it was seen");
                assert_eq!(Some(observed.tree), rows.tree_of(member.intent), "in sync with its revision");
                assert_eq!(next(&rows.ws, member, true), Step::Nothing);
            }
            let begun = member.begun.map(|begun| begun.tree);
            for held in [member.agreed, member.received, member.merged, begun].into_iter().flatten() {
                assert!(rows.proven.contains(&held), "the hub holds what its rows name");
            }
            assert!(member.halt.is_none() || member.accepted.is_none());
            assert!(member.begun.is_none() || member.received.is_none(), "written, or taken over");
            assert!(member.begun.is_none() || member.role.is_target(), "a lead is never written");
            match next(&rows.ws, member, true) {
                Step::Merge(planning) => {
                    assert_eq!((planning.to, planning.hub), (rows.ws.head, rows.ws.tree));
                    assert!(rows.proven.contains(&planning.node) && rows.ws.lock.is_none());
                }
                Step::Apply(planning) => {
                    let to = (planning.to, planning.hub);
                    let begun = member.begun.map(|begun| (begun.revision, begun.tree));
                    assert_eq!(to, begun.unwrap_or((rows.ws.head, rows.ws.tree)));
                    assert!(!planning.mode.writes(End::Hub) && member.role != Role::Lead);
                }
                Step::Send => assert!(member.role != Role::Follower && rows.ws.lock.is_none()),
                Step::Nothing | Step::Scan | Step::Wait(_) | Step::Stopped(_) => {}
            }
        }
    }
}

fn epoch(rows: &Rows, quote: Quote) -> Option<LockEpoch> {
    match quote {
        Quote::None => None,
        Quote::Last => Some(rows.ws.epoch),
        Quote::Older => Some(LockEpoch(rows.ws.epoch.0.saturating_sub(1))),
    }
}

/// What the rows say is to be planned, or something that they do not.
fn planning(rows: &Rows, number: u8, stale: bool) -> Option<Planning> {
    match next(&rows.ws, rows.member(number)?, true) {
        Step::Merge(planning) | Step::Apply(planning) if stale => {
            Some(Planning { news: planning.news + 1, ..planning })
        }
        Step::Merge(planning) | Step::Apply(planning) => Some(planning),
        Step::Nothing | Step::Scan | Step::Send | Step::Wait(_) | Step::Stopped(_) => None,
    }
}

fn command(rows: &mut Rows, act: &Act) -> Option<Command> {
    let by = ADA.to_owned();
    Some(match *act {
        Act::Commit { behind, by: source, tree: number, quote } => {
            let source = match source {
                None => Source::Edit,
                Some(id) => {
                    // What nobody planned is refused.
                    let planning = Box::new(planning(rows, id, false)?);
                    let agreed = rows.prove(planning.node);
                    Source::Member { id: member(id), planning, agreed, conflicts: 0 }
                }
            };
            let expect = Revision(rows.ws.head.0.saturating_sub(behind));
            let (complete, lock) = (rows.prove(tree(number)), epoch(rows, quote));
            Command::Commit { complete, expect, source, by, note: String::new(), lock }
        }
        Act::Restore { n, wrong, quote } => {
            let of = rows.revisions.iter().find(|row| row.n.0 == n)?.clone();
            let complete = rows.prove(if wrong { tree(99) } else { of.tree });
            Command::Restore { of, complete, by, lock: epoch(rows, quote) }
        }
        Act::Change { exclude, quote } => {
            let mut rules = rows.ws.rules.clone();
            rules.exclude = if exclude { vec!["target/".to_owned()] } else { Vec::new() };
            Command::Change { rules: Some(rules), bytes_max: None, by, lock: epoch(rows, quote) }
        }
        Act::Attach(number, role) => attach(number, role),
        Act::Detach(number) => Command::Detach { member: member(number), by },
        Act::Observed { member: number, tree: seen, other_root } => {
            let root = root(if other_root { 99 } else { number });
            let news = rows.member(number).map_or(0, |member| member.news);
            Command::Observed { member: member(number), root: Some(root), tree: tree(seen), news }
        }
        Act::Gone(number) => Command::Unavailable { member: member(number), rule: Rule::RootGone },
        Act::Received(number, sent) => {
            Command::Received { member: member(number), complete: rows.prove(tree(sent)) }
        }
        Act::Halt { member: number, halt: which, stale, root } => {
            let planning = planning(rows, number, stale)?;
            let rule = if root { Rule::RootUnavailable } else { Rule::Deletes };
            Command::Halt { member: member(number), planning, halt: halt(which, rule) }
        }
        Act::Merged { member: number, stale } => {
            let planning = planning(rows, number, stale)?;
            Command::Merged { member: member(number), planning, agreed: rows.prove(planning.node) }
        }
        Act::Begin { member: number, stale } => {
            Command::Begin { member: member(number), planning: planning(rows, number, stale)? }
        }
        Act::Settled { member: number, stale } => {
            let planning = planning(rows, number, stale)?;
            Command::Settled { member: member(number), planning, agreed: rows.prove(planning.hub) }
        }
        Act::Applied { member: number, tree: seen, stale } => {
            let planning = planning(rows, number, stale)?;
            let agreed = rows.prove(planning.hub);
            Command::Applied { member: member(number), planning, tree: tree(seen), agreed, conflicts: 0 }
        }
        Act::Accept(number, which) => Command::Accept { member: member(number), halt: halt_id(which), by },
        Act::Resync(number, repair) => Command::Resync { member: member(number), repair, by },
        Act::Lock => Command::Lock { holder: by, ttl_ms: WORKSPACE_LOCK_MS },
        Act::Extend(quote) => Command::Extend { epoch: epoch(rows, quote)? },
        Act::Unlock(quote) => Command::Unlock { epoch: epoch(rows, quote)? },
        Act::Expire(quote) => Command::Expire { epoch: epoch(rows, quote)? },
        Act::Break => Command::BreakLock { by },
        Act::Remove(quote) => Command::Remove { by, lock: epoch(rows, quote) },
        Act::Jump(_) => return None,
    })
}

const fn quoted(act: &Act) -> Option<Quote> {
    match act {
        Act::Commit { quote, .. } | Act::Restore { quote, .. } | Act::Change { quote, .. } => Some(*quote),
        Act::Extend(quote) | Act::Unlock(quote) | Act::Expire(quote) | Act::Remove(quote) => Some(*quote),
        _ => None,
    }
}

/// Whether the writer may write, told from the rows alone.
fn may_write(rows: &Rows, quote: Quote) -> bool {
    match (quote, rows.ws.lock.is_some()) {
        (Quote::None, is_locked) => !is_locked,
        (Quote::Last, is_locked) => is_locked,
        (Quote::Older, _) => false,
    }
}

/// Whether the hub is to take over what that member sent.
fn is_merged(rows: &Rows, number: u8) -> bool {
    rows.member(number).is_some_and(|member| matches!(next(&rows.ws, member, true), Step::Merge(_)))
}

fn head_moves_by_its_rules(before: &Rows, after: &Rows, act: &Act, code: Option<Code>) {
    let made = after.revisions.len() - before.revisions.len();
    assert_eq!(after.revisions[..before.revisions.len()], before.revisions[..], "history only grows");
    assert_eq!(after.ws.head.0, before.ws.head.0 + made as u64);
    let is_hubs = before.ws.mode == Mode::HubPrimary;
    let is_live = before.ws.removed_at.is_none();
    match *act {
        Act::Commit { behind, by, tree: number, quote } => {
            let may_commit = match by {
                None => is_hubs,
                Some(number) => is_merged(before, number),
            };
            let is_right = is_live && may_commit && behind == 0 && may_write(before, quote);
            assert_eq!(code.is_none(), is_right, "{code:?}");
            assert_eq!(made == 1, is_right && before.ws.tree != tree(number));
        }
        Act::Restore { wrong, quote, .. } => {
            assert_eq!(code.is_none(), is_live && is_hubs && !wrong && may_write(before, quote), "{code:?}");
        }
        _ => assert_eq!(made, 0, "nothing else makes a revision"),
    }
    if made == 1 {
        assert!(after.members.iter().all(|member| member.intent == after.ws.head));
    }
}

fn locks_hold(before: &Rows, after: &Rows, act: &Act, code: Option<Code>) {
    let is_live = before.ws.removed_at.is_none();
    let was_locked = before.ws.lock.is_some();
    if let Some(quote) = quoted(act).filter(|quote| is_live && !may_write(before, *quote)) {
        assert!(code.is_some(), "a wrong lock passes nothing");
        // Who has no lock at all is told of the lock; who has an old one that it is old.
        let is_other = [Code::InvalidArgument, Code::NotFound, Code::SyncHalted, Code::Conflict];
        let expected = if matches!(quote, Quote::None) { Code::Locked } else { Code::StaleEpoch };
        assert!(code == Some(expected) || code.is_some_and(|code| is_other.contains(&code)), "{code:?}");
    }
    let is_given = matches!(act, Act::Lock) && is_live && !was_locked;
    assert_eq!(after.ws.epoch.0, before.ws.epoch.0 + u64::from(is_given), "each lock has its own number");
    let ends = matches!(act, Act::Unlock(_) | Act::Expire(_) | Act::Break | Act::Remove(_)) && code.is_none();
    assert_eq!(after.ws.lock.is_some(), (was_locked && !ends) || is_given, "{act:?}");
    if was_locked && ends {
        assert!(after.members.iter().all(|member| member.settled.is_none()), "planned anew");
    }
}

fn halts_end_by_their_own_id(before: &Rows, after: &Rows, act: &Act, code: Option<Code>) {
    for was in &before.members {
        let Some(halt) = &was.halt else { continue };
        let Some(is) = after.members.iter().find(|member| member.id == was.id) else {
            assert!(matches!(act, Act::Detach(_) | Act::Remove(_)));
            continue;
        };
        let is_accepted = matches!(act, Act::Accept(number, which)
            if member(*number) == was.id && halt_id(*which) == halt.id);
        assert_eq!(is.halt.is_none(), is_accepted && before.ws.removed_at.is_none(), "{act:?} {code:?}");
        if is_accepted && code.is_none() {
            // Who has its revision meanwhile has no plan that the pass could be for.
            let is_needed = !matches!(is.state(&after.ws), MemberState::InSync | MemberState::Conflict);
            assert_eq!(is.accepted, is_needed.then_some(halt.id), "{is:?}");
        } else {
            assert_eq!(is.halt, was.halt, "no other halt takes its place");
        }
    }
    for is in after.members.iter().filter(|member| member.accepted.is_some()) {
        let was = before.members.iter().find(|member| member.id == is.id).expect("none is attached so");
        assert!(was.accepted == is.accepted || matches!(act, Act::Accept(..)));
    }
}

fn plans_count_while_they_would_be_made(before: &Rows, after: &Rows, act: &Act, code: Option<Code>) {
    let is_due = |number: u8, stale: bool, is_merge: bool| !stale && is_merged(before, number) == is_merge;
    match *act {
        Act::Halt { stale, .. } => assert_eq!(code.is_some(), stale),
        Act::Merged { member, stale } => assert_eq!(code.is_none(), is_due(member, stale, true)),
        Act::Settled { member, stale } | Act::Begin { member, stale } => {
            assert_eq!(code.is_none(), is_due(member, stale, false));
        }
        Act::Applied { member, .. } => {
            let was = before.member(member).and_then(|member| member.begun);
            assert_eq!(code.is_none(), was.is_some() && is_due(member, false, false), "{was:?}");
        }
        Act::Commit { by: Some(number), .. } if code.is_none() => {
            let (was, is) = (before.member(number), after.member(number));
            let (sent, agreed) = (was.and_then(|was| was.received), is.and_then(|is| is.agreed));
            assert!(agreed == sent || agreed == Some(after.ws.tree), "{was:?} {is:?}");
        }
        _ => {}
    }
    for was in &before.members {
        let after = after.members.iter().find(|member| member.id == was.id);
        let Some(is) = after.filter(|is| was.begun.is_some() && is.begun.is_none()) else { continue };
        let is_end = matches!(act, Act::Applied { .. } | Act::Settled { .. });
        assert!(
            is_end || is.agreed == was.begun.map(|begun| begun.tree),
            "{act:?}: who is written has an end"
        );
    }
}

fn folders_are_told_apart(before: &Rows, after: &Rows, act: &Act) {
    let seen = |rows: &Rows, number: u8| -> Option<(Option<TreeId>, bool)> {
        let member = rows.member(number)?;
        Some((member.observed.map(|observed| observed.tree), member.unavailable.is_some()))
    };
    if let Act::Observed { member: number, other_root, .. } = act
        && let (Some((was, _)), Some((is, unavailable))) = (seen(before, *number), seen(after, *number))
        && before.ws.removed_at.is_none()
    {
        let known = before.member(*number).and_then(|member| member.root);
        let is_other = known.is_some_and(|known| known != root(if *other_root { 99 } else { *number }));
        assert_eq!(unavailable, is_other);
        assert!(!is_other || was == is, "what another folder holds is not seen");
    }
}
