//! The event log, its hook, and the audit log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::{ConsentId, NodeId, Revision, Seq, TokenId};
use cortex_core::time::WallTime;
use cortex_store::chain::verify_chain;
use cortex_store::{AuditFilter, LoggedEvent, StoreExt, Tx, WriteError};

use crate::subject::{Subject, no};
use crate::support::{SOON, event, node_id, run_id};

fn numbers(events: &[LoggedEvent]) -> Vec<u64> {
    events.iter().map(|logged| logged.seq.0).collect()
}

pub(crate) async fn events_are_numbered_without_holes_whatever_fails_beside_them(subject: Subject) {
    let answers: Arc<Mutex<Vec<u64>>> = Arc::default();
    let writes: Vec<_> = (0..300_u32)
        .map(|index| {
            let (store, answers) = (Arc::clone(&subject.store), Arc::clone(&answers));
            tokio::spawn(async move {
                let result: Result<Seq, WriteError> = store
                    .write(SOON, move |tx| {
                        let seq = tx.append_event(&event(index.to_string()))?;
                        match index % 5 {
                            1 => no(),
                            3 if index % 25 == 3 => panic!("on purpose"),
                            _ => Ok(seq),
                        }
                    })
                    .await;
                if let Ok(seq) = result {
                    answers.lock().expect("whole").push(seq.0);
                }
            })
        })
        .collect();
    for write in writes {
        write.await.expect("no panic outside the store");
    }
    let logged = subject.get(|view| view.events(Seq(0), 1_000)).await;
    let kept = 300 - 60 - 12;
    assert_eq!(numbers(&logged), (1..=kept).collect::<Vec<_>>());
    let mut answered = answers.lock().expect("whole").clone();
    answered.sort_unstable();
    assert_eq!(answered, numbers(&logged), "each caller was told its own number");
    assert_eq!(subject.heard(), logged, "the hook heard the log, in its order");
}

pub(crate) async fn the_hook_hears_commits_in_order_and_before_the_callers(subject: Subject) {
    let late = Arc::new(AtomicU64::new(0));
    let writes: Vec<_> = (0..100)
        .map(|_| {
            let (store, heard, late) =
                (Arc::clone(&subject.store), Arc::clone(&subject.heard), Arc::clone(&late));
            tokio::spawn(async move {
                let seq = store.write(SOON, |tx| Ok(tx.append_event(&event("x"))?)).await.expect("written");
                if !heard.lock().expect("whole").iter().any(|logged| logged.seq == seq) {
                    late.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for write in writes {
        write.await.expect("no panic");
    }
    assert_eq!(late.load(Ordering::Relaxed), 0, "callers that were answered before the hook was called");
    assert_eq!(numbers(&subject.heard()), (1..=100).collect::<Vec<_>>());
}

pub(crate) async fn what_follows_a_commit_is_done_before_the_hook_hears_and_not_for_what_failed(
    subject: Subject,
) {
    let done: Arc<Mutex<Vec<(u32, usize)>>> = Arc::default();
    let writes: Vec<_> = (0..60_u32)
        .map(|index| {
            let (store, heard) = (Arc::clone(&subject.store), Arc::clone(&subject.heard));
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let result: Result<Seq, WriteError> = store
                    .write(SOON, move |tx| {
                        let seq = tx.append_event(&event(index.to_string()))?;
                        tx.after_commit(Box::new(move || {
                            let told = heard.lock().expect("whole").iter().filter(|l| l.seq == seq).count();
                            done.lock().expect("whole").push((index, told));
                            assert!(index % 10 != 5, "one of these panics on purpose");
                        }));
                        if index % 3 == 1 { no() } else { Ok(seq) }
                    })
                    .await;
                assert_eq!(result.is_ok(), index % 3 != 1);
            })
        })
        .collect();
    for write in writes {
        write.await.expect("no panic outside the store");
    }
    let mut done = done.lock().expect("whole").clone();
    done.sort_unstable();
    let kept: Vec<_> = (0..60).filter(|index| index % 3 != 1).map(|index| (index, 0)).collect();
    assert_eq!(done, kept, "once for each commit, and before its event was told");
}

async fn append(subject: &Subject, count: u32) {
    subject
        .put(move |tx| {
            (0..count)
                .try_for_each(|index| tx.append_event(&event(index.to_string())).map(drop))
                .map_err(WriteError::from)
        })
        .await;
}

pub(crate) async fn events_are_paged_by_number(subject: Subject) {
    append(&subject, 7).await;
    assert_eq!(numbers(&subject.get(|view| view.events(Seq(0), 3)).await), [1, 2, 3]);
    assert_eq!(numbers(&subject.get(|view| view.events(Seq(3), 3)).await), [4, 5, 6]);
    assert_eq!(numbers(&subject.get(|view| view.events(Seq(6), 3)).await), [7]);
    assert_eq!(subject.get(|view| view.events(Seq(7), 3)).await, []);
    assert_eq!(subject.get(|view| view.events(Seq(u64::MAX), 3)).await, []);
    assert_eq!(subject.get(|view| view.events(Seq(0), 0)).await, []);
}

pub(crate) async fn events_are_trimmed_from_the_front_in_batches(subject: Subject) {
    append(&subject, 10).await;
    let trim = |keep, batch| subject.put(move |tx| Ok(tx.trim_events(keep, batch)?));
    assert_eq!(trim(10, 5).await, 0);
    assert_eq!(trim(6, 3).await, 3);
    assert_eq!(subject.get(|view| view.events_span()).await, (Seq(4), Seq(10)));
    assert_eq!(trim(6, 3).await, 1);
    assert_eq!(trim(6, 3).await, 0);
    assert_eq!(numbers(&subject.get(|view| view.events(Seq(0), 99)).await), [5, 6, 7, 8, 9, 10]);
    assert_eq!(numbers(&subject.get(|view| view.events(Seq(6), 2)).await), [7, 8]);
}

pub(crate) async fn numbers_go_on_after_everything_was_trimmed(subject: Subject) {
    append(&subject, 4).await;
    assert_eq!(subject.put(|tx| Ok(tx.trim_events(0, 99)?)).await, 4);
    assert_eq!(subject.get(|view| view.events_span()).await, (Seq(5), Seq(4)));
    assert_eq!(subject.put(|tx| Ok(tx.append_event(&event("next"))?)).await, Seq(5));
    assert_eq!(subject.get(|view| view.events_span()).await, (Seq(5), Seq(5)));
    assert_eq!(subject.put(|tx| Ok(tx.trim_events(0, u64::MAX)?)).await, 1);
    assert_eq!(subject.put(|tx| Ok(tx.append_event(&event("after that"))?)).await, Seq(6));
}

pub(crate) async fn a_refused_trim_brings_the_events_back(subject: Subject) {
    append(&subject, 4).await;
    let before = subject.get(|view| view.events(Seq(0), 99)).await;
    subject
        .write(|tx| {
            tx.append_event(&event("five"))?;
            tx.trim_events(1, 99)?;
            tx.append_event(&event("six"))?;
            no::<()>()
        })
        .await
        .expect_err("refused");
    assert_eq!(subject.get(|view| view.events(Seq(0), 99)).await, before);
    assert_eq!(subject.get(|view| view.events_span()).await, (Seq(1), Seq(4)));
}

fn row(number: u32, node: Option<NodeId>, actor: &str) -> AuditRow {
    AuditRow {
        reason: number.is_multiple_of(2).then(|| "exec.allow".to_owned()),
        node,
        run: node.map(|_| run_id(u64::from(number))),
        policy_revision: node.map(|_| Revision(u64::from(number))),
        argv: vec!["printf".to_owned(), "\u{fc} \0".to_owned()],
        detail: Some(String::new()),
        token: number.is_multiple_of(3).then(|| TokenId::mint(u64::from(number), &[3; 10])),
        policy_hash: (number == 3).then_some([9; 32]),
        consent: (number == 6).then(|| ConsentId::mint(6, &[3; 10])),
        ..AuditRow::new(WallTime(i64::from(number)), actor, "run.start", Outcome::Denied)
    }
}

/// Rows 1 to 6: actors a, b, a, b, …; node 1 for the first three.
async fn six_rows(subject: &Subject) {
    for number in 1..=6 {
        let actor = if number % 2 == 1 { "a" } else { "b" };
        let node = (number <= 3).then(|| node_id(1));
        let seq = subject.put(move |tx| Ok(tx.append_audit(&row(number, node, actor))?)).await;
        assert_eq!(seq, Seq(u64::from(number)));
        subject
            .write(move |tx| {
                tx.append_audit(&row(99, None, "x")).map_err(WriteError::from).and_then(|_| no::<()>())
            })
            .await
            .expect_err("refused");
    }
}

pub(crate) async fn audit_rows_are_chained(subject: Subject) {
    six_rows(&subject).await;
    let rows = subject.get(|view| view.audit(&AuditFilter::default(), 99)).await;
    assert_eq!(
        rows.iter().map(|logged| logged.row.clone()).collect::<Vec<_>>()[2],
        row(3, Some(node_id(1)), "a")
    );
    assert_eq!(verify_chain(&rows), Ok(()));
    assert_eq!(verify_chain(&[]), Ok(()));

    let mut changed = rows.clone();
    changed[3].row.detail = None;
    assert_eq!(verify_chain(&changed).map_err(|(seq, _)| seq), Err(Seq(4)));
    let mut without = rows.clone();
    without.remove(1);
    assert_eq!(verify_chain(&without).map_err(|(seq, _)| seq), Err(Seq(3)));
    let mut swapped = rows.clone();
    swapped.swap(4, 5);
    assert_eq!(verify_chain(&swapped).map_err(|(seq, _)| seq), Err(Seq(6)));
    let mut moved = rows.clone();
    (moved[0].row.argv, moved[0].row.detail) = (vec!["printf".to_owned()], Some("\u{fc} \0".to_owned()));
    assert_eq!(verify_chain(&moved).map_err(|(seq, _)| seq), Err(Seq(1)));
}

pub(crate) async fn the_hook_hears_of_the_newest_audit_row(subject: Subject) {
    let write = |numbers: std::ops::Range<u32>| {
        subject.put(move |tx| {
            Ok(numbers
                .into_iter()
                .try_for_each(|number| tx.append_audit(&row(number, None, "x")).map(drop))?)
        })
    };
    write(0..3).await;
    subject.put(|tx| Ok(tx.append_event(&event("no row"))?)).await;
    let refused = |tx: &mut dyn Tx| {
        tx.append_audit(&row(9, None, "x")).map_err(WriteError::from).and_then(|_| no::<()>())
    };
    subject.write(refused).await.expect_err("refused");
    write(3..4).await;
    let heads = subject.heads();
    assert_eq!(heads.iter().map(|head| head.seq).collect::<Vec<_>>(), [Seq(3), Seq(4)]);
    assert_eq!(heads.last().copied(), Some(subject.get(|view| view.audit_head()).await));
}

pub(crate) async fn audit_rows_are_filtered(subject: Subject) {
    six_rows(&subject).await;
    let list = async |filter: AuditFilter, limit| {
        let rows = subject.get(move |view| view.audit(&filter, limit)).await;
        rows.iter().map(|logged| logged.seq.0).collect::<Vec<_>>()
    };
    let all = AuditFilter::default;
    let of_a = || AuditFilter { actor: Some("a".to_owned()), ..all() };
    let of_node = || AuditFilter { node: Some(node_id(1)), ..all() };
    assert_eq!(list(all(), 2).await, [1, 2]);
    assert_eq!(list(AuditFilter { after: Seq(4), ..all() }, 9).await, [5, 6]);
    assert_eq!(list(AuditFilter { newest: true, ..all() }, 2).await, [5, 6]);
    assert_eq!(list(of_a(), 9).await, [1, 3, 5]);
    assert_eq!(list(of_node(), 9).await, [1, 2, 3]);
    assert_eq!(list(AuditFilter { node: Some(node_id(1)), ..of_a() }, 9).await, [1, 3]);
    assert_eq!(list(AuditFilter { newest: true, after: Seq(1), ..of_a() }, 1).await, [5]);
    assert_eq!(list(AuditFilter { newest: true, after: Seq(1), ..of_node() }, 9).await, [2, 3]);
    assert_eq!(list(AuditFilter { after: Seq(u64::MAX), ..all() }, 9).await, Vec::<u64>::new());
    assert_eq!(list(AuditFilter { actor: Some("x".to_owned()), ..all() }, 9).await, Vec::<u64>::new());
}
