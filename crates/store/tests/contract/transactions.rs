//! All or nothing, one after another, answered in every case.

use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::Seq;
use cortex_core::time::WallTime;
use cortex_store::{AuditFilter, RunFilter, StoreError, StoreExt, Tx, WriteError};

use crate::entities::{invite, name, node, policy, token};
use crate::subject::{Subject, assert_conflict, no};
use crate::support::{SOON, event, node_id, run, run_id};

/// One of each write.
fn everything(tx: &mut dyn Tx) -> Result<(), WriteError> {
    tx.put_node(&node(1, "a"))?;
    tx.next_epoch(node_id(1))?;
    tx.observe_nodes(&[(node_id(1), WallTime(55))])?;
    tx.put_invite(&invite(1))?;
    tx.put_token(&token(1, "t"))?;
    tx.put_policy(&policy(node_id(1), 1))?;
    tx.put_run(&run(1, 1))?;
    tx.append_event(&event("one"))?;
    tx.append_audit(&AuditRow::new(WallTime(1), "hub", "test", Outcome::Allowed))?;
    Ok(())
}

/// How many rows of each kind there are.
async fn count(subject: &Subject) -> [usize; 8] {
    subject
        .get(|view| {
            Ok([
                view.nodes()?.len(),
                view.invites(99)?.len(),
                view.tokens()?.len(),
                view.policies()?.len(),
                view.runs(&RunFilter::default(), 99)?.len(),
                view.open_runs()?.len(),
                view.events(Seq(0), 99)?.len(),
                view.audit(&AuditFilter::default(), 99)?.len(),
            ])
        })
        .await
}

pub(crate) async fn a_transaction_sees_its_own_writes(subject: Subject) {
    subject
        .put(|tx| {
            everything(tx)?;
            assert_eq!(
                tx.node_named(&name("a"))?.map(|node| (node.epoch.0, node.last_seen_at)),
                Some((4, Some(WallTime(55))))
            );
            assert_eq!(tx.open_runs()?, [run(1, 1)]);
            assert_eq!(tx.events_span()?, (Seq(1), Seq(1)));
            assert_eq!(tx.append_event(&event("two"))?, Seq(2));
            assert_eq!(tx.events(Seq(1), 9)?.len(), 1);
            assert_eq!(tx.audit(&AuditFilter::default(), 9)?.len(), 1);
            assert_conflict(tx.put_node(&node(2, "a")));
            Ok(())
        })
        .await;
}

pub(crate) async fn a_refusal_leaves_nothing(subject: Subject) {
    let refused = subject.write(|tx| everything(tx).and_then(|()| no::<()>())).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    let failed = subject.write(|tx| {
        everything(tx)?;
        Err::<(), _>(StoreError::Failed("as a read inside might".to_owned()).into())
    });
    assert!(matches!(failed.await, Err(WriteError::Store(StoreError::Failed(_)))));
    assert_eq!(count(&subject).await, [0; 8]);
    assert_eq!(subject.heard(), []);
    subject.put(everything).await;
    assert_eq!(count(&subject).await, [1; 8], "and nothing of it is in the way");
    subject
        .write(|tx| {
            tx.trim_events(0, 9)?;
            tx.put_node(&node(1, "b"))?;
            tx.put_run(&run(2, 1))?;
            no::<()>()
        })
        .await
        .expect_err("refused");
    assert_eq!(count(&subject).await, [1; 8]);
    assert!(subject.get(|view| view.node_named(&name("b"))).await.is_none());
    assert!(subject.get(|view| view.node_named(&name("a"))).await.is_some());
}

pub(crate) async fn a_panic_leaves_nothing_and_harms_nobody(subject: Subject) {
    let panicked = subject.write(|tx| -> Result<(), WriteError> {
        everything(tx)?;
        panic!("a defect in a closure, on purpose")
    });
    assert!(
        matches!(panicked.await, Err(WriteError::Store(StoreError::Failed(why))) if why.contains("panicked"))
    );
    assert_eq!(count(&subject).await, [0; 8]);
    subject.put(everything).await;
    assert_eq!(count(&subject).await, [1; 8]);
}

pub(crate) async fn a_conflict_inside_a_transaction_can_be_survived(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_node(&node(1, "a"))?;
            assert_conflict(tx.put_node(&node(2, "a")));
            tx.put_node(&node(2, "b"))?;
            tx.append_event(&event("after")).map(drop)?;
            Ok(())
        })
        .await;
    let names = subject.get(|view| Ok(view.nodes()?.into_iter().map(|node| node.name).collect::<Vec<_>>()));
    assert_eq!(names.await, [name("a"), name("b")]);
}

pub(crate) async fn a_read_sees_what_was_answered(subject: Subject) {
    for number in 1..50 {
        subject.put(move |tx| tx.put_run(&run(number, 1))).await;
        assert!(subject.get(move |view| view.run(run_id(number))).await.is_some(), "run {number}");
    }
}

pub(crate) async fn a_read_that_panics_harms_nobody(subject: Subject) {
    for _ in 0..4 {
        let panicked = subject.store.read(SOON, |_| -> Result<(), StoreError> { panic!("on purpose") });
        assert!(matches!(panicked.await, Err(StoreError::Failed(_))));
    }
    assert_eq!(count(&subject).await, [0; 8]);
}

pub(crate) async fn values_come_back_from_closures(subject: Subject) {
    assert_eq!(subject.put(|_| Ok("written")).await, "written");
    assert_eq!(subject.get(|_| Ok(vec![1, 2])).await, [1, 2]);
}

pub(crate) async fn a_closed_store_says_so(subject: Subject) {
    subject.put(everything).await;
    subject.store.close().await;
    let write = subject.write(everything).await;
    assert!(matches!(write, Err(WriteError::Store(StoreError::Closed))), "{write:?}");
    let read = subject.store.read(SOON, |view| view.nodes()).await;
    assert!(matches!(read, Err(StoreError::Closed)), "{read:?}");
    tokio::time::timeout(Duration::from_secs(5), subject.store.close())
        .await
        .expect("closing twice ends too");
}

pub(crate) async fn accepted_writes_are_answered_before_it_closes(subject: Subject) {
    let writes: Vec<_> = (1..=200)
        .map(|number| {
            let store = std::sync::Arc::clone(&subject.store);
            tokio::spawn(async move { store.write(SOON, move |tx| tx.put_run(&run(number, 1))).await })
        })
        .collect();
    tokio::task::yield_now().await;
    subject.store.close().await;
    for write in writes {
        match write.await.expect("no panic") {
            Ok(()) | Err(WriteError::Store(StoreError::Closed)) => {}
            Err(other) => panic!("answered or told that it is closed: {other}"),
        }
    }
}
