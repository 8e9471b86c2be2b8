//! Nodes, invites, tokens, policies, runs: each is kept to the last field, found again, and
//! conflicts are refused.

use cortex_core::id::{Attempt, Epoch, InviteId, NodeId, Revision, Seq, TaskId, TokenId};
use cortex_core::invite::Invite;
use cortex_core::limits::POLICY_REVISIONS_KEPT;
use cortex_core::name::Name;
use cortex_core::node::{AuditHead, Facts, Node, Recovery};
use cortex_core::rights::{Right, Rights};
use cortex_core::run::{Run, RunSpec, RunState};
use cortex_core::sandbox::{Layer, LayerState, Place};
use cortex_core::stream::Positions;
use cortex_core::time::WallTime;
use cortex_core::token::{NodeScope, Role, Token, TokenKind, Tool};
use cortex_store::{AuditFilter, RunFilter, StoreError, StoredPolicy, StoredProfile};

use crate::people::{consent, user};
use crate::subject::Subject;
use crate::support::{bytes, node_id, run, run_id};

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).expect("a good name")
}

pub(crate) fn node(number: u8, called: &str) -> Node {
    Node {
        id: node_id(number),
        name: name(called),
        labels: [("role".to_owned(), "ci".to_owned())].into(),
        facts: Facts {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            hostname: "h\u{e4}user".to_owned(),
            version: "0.1.0".to_owned(),
            sandbox: "kernel".to_owned(),
            cpus: 64,
            memory_bytes: u64::MAX,
            tools: vec!["cargo".to_owned(), "git".to_owned()],
            layers: vec![Layer { name: "seccomp".to_owned(), state: LayerState::Held, note: String::new() }],
            place: Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned(), "/srv/x".to_owned()] },
            slots: 3,
        },
        key_hash: [number; 32],
        epoch: Epoch(3),
        joined_at: WallTime(-1),
        last_seen_at: Some(WallTime(77)),
        quarantined: true,
        removed_at: None,
        owner: Some(user(1, "u").id),
        recovery: Some(Recovery { key: vec![number; 91], count: 2, left: 3, last: Some([7; 32]) }),
        audit_seen: Some(AuditHead { seq: Seq(4), hash: [number; 32] }),
        ceiling: Some("{}".to_owned()),
    }
}

pub(crate) fn invite(number: u8) -> Invite {
    Invite {
        id: InviteId::from_slice(&bytes(number)).expect("sixteen bytes"),
        secret_hash: [number; 32],
        labels: [("a".to_owned(), String::new())].into(),
        profile: "dev".to_owned(),
        created_by: "token:admin".to_owned(),
        created_at: WallTime(1),
        expires_at: WallTime(2),
        used_by: Some(node_id(9)),
        used_at: Some(WallTime(3)),
        revoked_at: None,
        owner: Some(user(2, "u").id),
        max_profile: Some("ci".to_owned()),
    }
}

pub(crate) fn token(number: u8, called: &str) -> Token {
    Token {
        id: TokenId::from_slice(&bytes(number)).expect("sixteen bytes"),
        name: name(called),
        role: Role::Operator,
        secret_hash: [number; 32],
        created_at: WallTime(1),
        expires_at: Some(WallTime(i64::MAX)),
        revoked_at: None,
        kind: TokenKind::Client,
        user: Some(user(3, "u").id),
        rights: Some(Rights::of(&[Right::RunsStart, Right::NodesRead])),
        nodes: Some(NodeScope::Nodes([node_id(1), node_id(2)].into())),
        tools: Some([Tool::Exec, Tool::RunGet].into()),
    }
}

pub(crate) fn policy(node: NodeId, revision: u64) -> StoredPolicy {
    StoredPolicy {
        node,
        revision: Revision(revision),
        document: vec![0, 0xff, b'{', u8::try_from(revision % 256).unwrap_or(0)],
        signature: vec![1, 2, 0],
        changed_by: "token:admin".to_owned(),
        changed_at: WallTime(5),
    }
}

pub(crate) fn profile(text: &str, document: &str) -> StoredProfile {
    StoredProfile {
        name: name(text),
        document: document.to_owned(),
        changed_by: "token:admin".to_owned(),
        changed_at: WallTime(6),
    }
}

pub(crate) fn full_run(number: u64) -> Run {
    Run {
        spec: RunSpec {
            argv: vec![
                "printf".to_owned(),
                "%s\n".to_owned(),
                "\u{1F980} \"\\ \u{1}".to_owned(),
                String::new(),
            ],
            cwd: Some("/tmp".to_owned()),
            env: vec![("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())],
            timeout_ms: Some(u64::MAX),
            stdin: true,
        },
        state: RunState::Cancelled,
        idempotency_key: Some("key".to_owned()),
        traceparent: Some("00-aa-bb-01".to_owned()),
        started_at: Some(WallTime(2_000)),
        ended_at: Some(WallTime(3_000)),
        code: Some(-1),
        signal: Some(15),
        duration_ms: Some(u64::MAX),
        output: Positions { stdout: u64::MAX, stderr: 1 },
        cancelled_by: Some("token:admin".to_owned()),
        diagnostic: Some("ended on request".to_owned()),
        token: Some(token(4, "t").id),
        user: Some(user(4, "u").id),
        sandbox: Some("full".to_owned()),
        consent: Some(consent(5).id),
        task: Some((TaskId::mint(6, &[4; 10]), Attempt(7))),
        ..run(number, 1)
    }
}

pub(crate) async fn a_new_store_is_empty_and_of_generation_one(subject: Subject) {
    subject
        .get(|view| {
            assert_eq!(view.generation()?.0, 1);
            assert!(view.nodes()?.is_empty() && view.invites(9)?.is_empty() && view.tokens()?.is_empty());
            assert!(view.policies()?.is_empty() && view.open_runs()?.is_empty());
            assert!(view.runs(&RunFilter::default(), 9)?.is_empty() && view.events(Seq(0), 9)?.is_empty());
            assert!(view.audit(&AuditFilter::default(), 9)?.is_empty());
            assert_eq!(view.events_span()?, (Seq(1), Seq(0)));
            assert_eq!((view.node(node_id(1))?, view.policy(node_id(1))?), (None, None));
            assert_eq!((view.node_named(&name("a"))?, view.run(run_id(1))?), (None, None));
            assert_eq!(view.run_by_key("token:admin", node_id(1), "key")?, None);
            assert_eq!((view.invite(invite(1).id)?, view.token(token(1, "t").id)?), (None, None));
            Ok(())
        })
        .await;
    assert_eq!(subject.heard(), []);
}

pub(crate) async fn what_is_put_is_read_back_to_the_last_field(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_node(&node(1, "a"))?;
            tx.put_invite(&invite(1))?;
            tx.put_token(&token(1, "t"))?;
            tx.put_policy(&policy(node_id(1), 4))?;
            tx.put_run(&full_run(1))?;
            tx.put_run(&run(2, 1))
        })
        .await;
    subject
        .get(|view| {
            assert_eq!(view.node(node_id(1))?, Some(node(1, "a")));
            assert_eq!(view.node_named(&name("a"))?, Some(node(1, "a")));
            assert_eq!(view.invite(invite(1).id)?, Some(invite(1)));
            assert_eq!(view.token(token(1, "t").id)?, Some(token(1, "t")));
            assert_eq!(view.policy(node_id(1))?, Some(policy(node_id(1), 4)));
            assert_eq!(view.policies()?, [policy(node_id(1), 4)]);
            assert_eq!(view.run(run_id(1))?, Some(full_run(1)));
            assert_eq!(view.run(run_id(2))?, Some(run(2, 1)));
            assert_eq!(view.run_by_key("token:admin", node_id(1), "key")?, Some(full_run(1)));
            Ok(())
        })
        .await;
}

pub(crate) async fn putting_again_replaces(subject: Subject) {
    let used = Invite { used_by: None, revoked_at: Some(WallTime(9)), ..invite(1) };
    let other = Run { idempotency_key: None, node: node_id(2), ..full_run(1) };
    let (used_again, other_again) = (used.clone(), other.clone());
    subject
        .put(move |tx| {
            tx.put_invite(&invite(1))?;
            tx.put_invite(&used_again)?;
            tx.put_run(&full_run(1))?;
            tx.put_run(&other_again)
        })
        .await;
    subject
        .get(move |view| {
            assert_eq!(view.invites(9)?, [used]);
            assert_eq!(view.runs(&RunFilter::default(), 9)?, std::slice::from_ref(&other));
            assert_eq!(view.run_by_key("token:admin", node_id(1), "key")?, None, "the key is free again");
            let of_node = |number| RunFilter { node: Some(node_id(number)), ..RunFilter::default() };
            assert_eq!(view.runs(&of_node(1), 9)?, []);
            assert_eq!(view.runs(&of_node(2), 9)?, [other]);
            Ok(())
        })
        .await;
}

pub(crate) async fn two_live_nodes_cannot_share_a_name(subject: Subject) {
    subject.put(|tx| tx.put_node(&node(1, "a"))).await;
    subject.conflicts(|tx| tx.put_node(&node(2, "a"))).await;
    subject.put(|tx| tx.put_node(&node(1, "a"))).await;
    let removed = |number| Node { removed_at: Some(WallTime(9)), ..node(number, "a") };
    subject.put(move |tx| tx.put_node(&removed(3))).await;
    subject.put(move |tx| tx.put_node(&removed(1))).await;
    subject.put(|tx| tx.put_node(&node(2, "a"))).await;
    subject.conflicts(|tx| tx.put_node(&node(1, "a"))).await;
    subject.put(|tx| tx.put_node(&node(2, "b"))).await;
    subject.put(|tx| tx.put_node(&node(1, "a"))).await;
    subject
        .get(|view| {
            assert_eq!(view.node_named(&name("a"))?.map(|node| node.id), Some(node_id(1)));
            assert_eq!(view.node_named(&name("b"))?.map(|node| node.id), Some(node_id(2)));
            Ok(())
        })
        .await;
}

pub(crate) async fn nodes_are_listed_by_name_and_without_the_removed(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_node(&node(1, "b-1"))?;
            tx.put_node(&node(2, "a"))?;
            tx.put_node(&node(3, "b"))?;
            tx.put_node(&Node { removed_at: Some(WallTime(1)), ..node(4, "0") })
        })
        .await;
    let names = subject.get(|view| Ok(view.nodes()?.into_iter().map(|node| node.name).collect::<Vec<_>>()));
    assert_eq!(names.await, [name("a"), name("b"), name("b-1")]);
    assert!(subject.get(|view| view.node(node_id(4))).await.is_some(), "a removed node stays by id");
}

pub(crate) async fn two_live_tokens_cannot_share_a_name(subject: Subject) {
    subject.put(|tx| tx.put_token(&token(1, "t"))).await;
    subject.conflicts(|tx| tx.put_token(&token(2, "t"))).await;
    let revoked = Token { revoked_at: Some(WallTime(4)), ..token(1, "t") };
    subject.put(move |tx| tx.put_token(&revoked)).await;
    subject.put(|tx| tx.put_token(&token(2, "t"))).await;
    subject.conflicts(|tx| tx.put_token(&token(1, "t"))).await;
    assert_eq!(subject.get(|view| view.tokens()).await.len(), 2);
}

pub(crate) async fn a_policy_only_moves_forward(subject: Subject) {
    subject.put(|tx| tx.put_policy(&policy(node_id(1), 5))).await;
    subject.conflicts(|tx| tx.put_policy(&policy(node_id(1), 5))).await;
    subject.conflicts(|tx| tx.put_policy(&policy(node_id(1), 4))).await;
    subject.put(|tx| tx.put_policy(&policy(node_id(1), 7))).await;
    let revision = subject.get(|view| Ok(view.policy(node_id(1))?.map(|policy| policy.revision))).await;
    assert_eq!(revision, Some(Revision(7)));
}

pub(crate) async fn the_history_of_a_policy_is_paged_newest_first_and_bounded(subject: Subject) {
    let kept = u64::try_from(POLICY_REVISIONS_KEPT).unwrap_or(u64::MAX);
    subject
        .put(move |tx| {
            tx.put_policy(&policy(node_id(2), 1))?;
            (1..=kept + 3).try_for_each(|revision| tx.put_policy(&policy(node_id(1), revision * 2)))
        })
        .await;
    subject
        .get(move |view| {
            let page = |before, limit| -> Result<Vec<u64>, StoreError> {
                let page = view.policy_history(node_id(1), before, limit)?;
                Ok(page.iter().map(|policy| policy.revision.0).collect())
            };
            assert_eq!(page(None, 2)?, [2 * kept + 6, 2 * kept + 4]);
            assert_eq!(page(Some(Revision(12)), 9)?, [10, 8], "the first three are gone");
            assert_eq!(page(Some(Revision(0)), 9)?, Vec::<u64>::new());
            assert_eq!(view.policy_history(node_id(2), None, 9)?, [policy(node_id(2), 1)]);
            assert_eq!(view.policy_history(node_id(1), None, usize::MAX)?.len(), POLICY_REVISIONS_KEPT);
            Ok(())
        })
        .await;
}

pub(crate) async fn profiles_are_replaced_and_removed_by_name(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_profile(&profile("b", "{}"))?;
            tx.put_profile(&profile("a", "{\"x\":\"\u{1F980}\"}"))?;
            Ok(tx.put_profile(&profile("b", "{ }"))?)
        })
        .await;
    let all = subject.get(|view| view.profiles()).await;
    assert_eq!(all, [profile("a", "{\"x\":\"\u{1F980}\"}"), profile("b", "{ }")]);
    subject
        .put(|tx| {
            assert!(tx.remove_profile(&name("a"))? && !tx.remove_profile(&name("a"))?);
            Ok(())
        })
        .await;
    assert_eq!(subject.get(|view| view.profiles()).await.len(), 1);
}

pub(crate) async fn policies_of_removed_nodes_are_not_listed(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_node(&node(1, "a"))?;
            tx.put_node(&Node { removed_at: Some(WallTime(1)), ..node(2, "b") })?;
            [1, 2, 3].into_iter().try_for_each(|number| tx.put_policy(&policy(node_id(number), 1)))
        })
        .await;
    let nodes = subject.get(|view| Ok(view.policies()?.iter().map(|p| p.node).collect::<Vec<_>>())).await;
    assert_eq!(nodes, [node_id(1)]);
    assert!(subject.get(|view| view.policy(node_id(2))).await.is_some());
}

pub(crate) async fn a_key_is_one_run_per_caller_and_node(subject: Subject) {
    let keyed = |number, node, caller: &str| Run {
        idempotency_key: Some("k".to_owned()),
        caller: caller.to_owned(),
        ..run(number, node)
    };
    let (first, twin) = (keyed(1, 1, "a"), keyed(2, 1, "a"));
    let (elsewhere, other) = (keyed(3, 2, "a"), keyed(4, 1, "b"));
    let again = Run { state: RunState::Running, ..first.clone() };
    subject.put(move |tx| tx.put_run(&first)).await;
    subject.conflicts(move |tx| tx.put_run(&twin)).await;
    subject.put(move |tx| tx.put_run(&elsewhere)).await;
    subject.put(move |tx| tx.put_run(&other)).await;
    subject.put(move |tx| tx.put_run(&again)).await;
    subject.put(|tx| [5, 6].into_iter().try_for_each(|number| tx.put_run(&run(number, 1)))).await;
    let found = subject.get(|view| view.run_by_key("a", node_id(1), "k")).await;
    assert_eq!(found.map(|run| (run.id, run.state)), Some((run_id(1), RunState::Running)));
    assert_eq!(subject.get(|view| view.run(run_id(2))).await, None);
}

pub(crate) async fn epochs_only_grow(subject: Subject) {
    subject.put(|tx| tx.put_node(&node(1, "a"))).await;
    for expected in [4, 5, 6] {
        assert_eq!(subject.put(|tx| Ok(tx.next_epoch(node_id(1))?)).await, Some(Epoch(expected)));
    }
    assert_eq!(subject.put(|tx| Ok(tx.next_epoch(node_id(2))?)).await, None);
    let stored = subject.get(|view| view.node(node_id(1))).await;
    assert_eq!(stored, Some(Node { epoch: Epoch(6), ..node(1, "a") }));
}

pub(crate) async fn observing_writes_the_time_and_nothing_else(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_node(&node(1, "a"))?;
            tx.put_node(&node(2, "b"))?;
            Ok(tx.observe_nodes(&[(node_id(1), WallTime(900)), (node_id(8), WallTime(901))])?)
        })
        .await;
    let nodes = subject.get(|view| view.nodes()).await;
    assert_eq!(nodes, [Node { last_seen_at: Some(WallTime(900)), ..node(1, "a") }, node(2, "b")]);
}

pub(crate) async fn invites_and_tokens_are_listed_newest_first(subject: Subject) {
    subject
        .put(|tx| {
            for number in [2, 1, 3] {
                tx.put_invite(&invite(number))?;
                tx.put_token(&token(number, &format!("t{number}")))?;
            }
            Ok(())
        })
        .await;
    assert_eq!(subject.get(|view| view.invites(2)).await, [invite(3), invite(2)]);
    assert_eq!(subject.get(|view| view.invites(0)).await, []);
    let used = Invite { used_by: Some(node_id(7)), ..invite(2) };
    let kept = used.clone();
    subject.put(move |tx| Ok(tx.put_invite(&kept)?)).await;
    assert_eq!(subject.get(|view| view.invite_of(node_id(7))).await, Some(used));
    assert_eq!(subject.get(|view| view.invite_of(node_id(8))).await, None);
    assert_eq!(subject.get(|view| view.tokens()).await, [token(3, "t3"), token(2, "t2"), token(1, "t1")]);
}

/// Runs 1 to 9: odd ones on node 1, even ones on node 2, the state by their number.
async fn nine_runs(subject: &Subject) {
    subject
        .put(|tx| {
            for (number, state) in (1..).zip(RunState::ALL) {
                let ended_at = state.is_final().then_some(WallTime(100 + number));
                let node = if number % 2 == 1 { 1 } else { 2 };
                tx.put_run(&Run { state: *state, ended_at, ..run(number.unsigned_abs(), node) })?;
            }
            Ok(())
        })
        .await;
}

async fn list(subject: &Subject, filter: RunFilter, limit: usize) -> Vec<u64> {
    let runs = subject.get(move |view| view.runs(&filter, limit)).await;
    runs.iter().map(|run| (1..=9).find(|number| run_id(*number) == run.id).unwrap_or(0)).collect()
}

pub(crate) async fn runs_are_paged_newest_first(subject: Subject) {
    nine_runs(&subject).await;
    let page = |before: Option<u64>| RunFilter { before: before.map(run_id), ..RunFilter::default() };
    assert_eq!(list(&subject, page(None), 4).await, [9, 8, 7, 6]);
    assert_eq!(list(&subject, page(Some(6)), 4).await, [5, 4, 3, 2]);
    assert_eq!(list(&subject, page(Some(2)), 4).await, [1]);
    assert_eq!(list(&subject, page(Some(1)), 4).await, Vec::<u64>::new());
    assert_eq!(list(&subject, page(None), 0).await, Vec::<u64>::new());
}

pub(crate) async fn runs_are_filtered_by_node_and_state(subject: Subject) {
    nine_runs(&subject).await;
    let filter = |node: Option<u8>, states: &[RunState], before: Option<u64>| RunFilter {
        node: node.map(node_id),
        states: states.to_vec(),
        before: before.map(run_id),
    };
    let some = [RunState::Lost, RunState::Queued, RunState::Running, RunState::Lost];
    assert_eq!(list(&subject, filter(Some(1), &[], None), 9).await, [9, 7, 5, 3, 1]);
    assert_eq!(list(&subject, filter(Some(2), &[], Some(6)), 1).await, [4]);
    assert_eq!(list(&subject, filter(None, &some, None), 9).await, [8, 2, 1]);
    assert_eq!(list(&subject, filter(None, &some, Some(8)), 1).await, [2]);
    assert_eq!(list(&subject, filter(Some(2), &some, None), 9).await, [8, 2]);
    assert_eq!(list(&subject, filter(Some(3), &some, None), 9).await, Vec::<u64>::new());
}

pub(crate) async fn a_cursor_outlives_its_run(subject: Subject) {
    nine_runs(&subject).await;
    subject.put(|tx| Ok(tx.remove_runs(&[run_id(4), run_id(5), run_id(6)])?)).await;
    let filter = RunFilter { before: Some(run_id(5)), ..RunFilter::default() };
    assert_eq!(list(&subject, filter, 9).await, [3, 2, 1]);
}

pub(crate) async fn open_runs_are_listed_oldest_first(subject: Subject) {
    nine_runs(&subject).await;
    let open = subject.get(|view| Ok(view.open_runs()?.iter().map(|run| run.id).collect::<Vec<_>>())).await;
    assert_eq!(open, [run_id(1), run_id(2), run_id(3)]);
}

pub(crate) async fn ended_runs_are_listed_by_their_end_and_only_they_are_removed(subject: Subject) {
    nine_runs(&subject).await;
    let late = Run { ended_at: Some(WallTime(500)), state: RunState::Exited, ..run(10, 1) };
    let same = Run { ended_at: Some(WallTime(104)), state: RunState::Lost, ..run(11, 1) };
    subject.put(move |tx| [&late, &same].into_iter().try_for_each(|run| tx.put_run(run))).await;
    let first = subject.get(|view| view.ended_runs(3)).await;
    assert_eq!(
        first,
        [(run_id(4), WallTime(104)), (run_id(11), WallTime(104)), (run_id(5), WallTime(105))],
        "by end, then by id"
    );
    let ended = subject.get(|view| Ok((view.ended_runs(99)?.len(), view.ended_count()?))).await;
    assert_eq!(ended, (8, 8));
    let all: Vec<_> = (1..=12).map(run_id).collect();
    assert_eq!(subject.put(move |tx| Ok(tx.remove_runs(&all)?)).await, 8, "final ones that are there");
    assert_eq!(subject.get(|view| view.ended_runs(99)).await, []);
    assert_eq!(list(&subject, RunFilter::default(), 9).await, [3, 2, 1], "open runs stay");
    let of_node = RunFilter { node: Some(node_id(1)), ..RunFilter::default() };
    assert_eq!(list(&subject, of_node, 9).await, [3, 1]);
}
