//! Schedules and pauses of the pool: kept to the last field, named once per party, due in their order.

use std::sync::Arc;

use cortex_core::id::{ScheduleId, TokenId};
use cortex_core::name::{Name, Selector};
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::schedule::{Missed, Schedule};
use cortex_core::pool::{Backoff, Concurrency, Kind, Owner, Priority, TaskSpec, Work};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;

use crate::people::user;
use crate::subject::{Subject, no};
use crate::support::node_id;

fn schedule(number: u64, name: &str, next_at: Option<i64>) -> Schedule {
    let run = RunSpec {
        argv: vec!["backup".to_owned(), "a b\n".to_owned()],
        cwd: Some("/w".to_owned()),
        env: vec![("LANG".to_owned(), "C".to_owned())],
        timeout_ms: Some(u64::MAX),
        stdin: false,
    };
    let spec = TaskSpec {
        selector: Selector::parse("role=ci").expect("a selector"),
        prefer: Selector::parse("zone=a").expect("a selector"),
        attempts_max: 7,
        backoff: Backoff { initial_ms: 1, factor_percent: 150, max_ms: 2, jitter_percent: 3 },
        start_within_ms: Some(9),
        start_within_pauses: true,
        lease_ms: 11_000,
        concurrency: Some(Concurrency { key: "db \u{e4}".to_owned(), limit: 2 }),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..TaskSpec::new(Work::Command(run))
    };
    Schedule {
        id: ScheduleId::mint(number, &[4; 10]),
        name: Name::parse(name).expect("a name"),
        owner: Owner { token: Some(TokenId::mint(1, &[5; 10])), user: Some(user(1, "u").id) },
        caller: "token:ci".to_owned(),
        cron: "0 3 * * *".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        missed: Missed::Skip,
        spec: Arc::new(spec),
        priority: Priority::URGENT,
        is_on: true,
        next_at: next_at.map(WallTime),
        last_at: Some(WallTime(-1)),
        created_at: WallTime(5),
    }
}

fn payload(number: u64) -> Schedule {
    let kind = Name::parse("resize").and_then(Kind::payload).expect("a kind");
    let work = Work::Payload { kind, bytes: vec![0, 255, 10] };
    Schedule { spec: Arc::new(TaskSpec::new(work)), ..schedule(number, "pictures", None) }
}

pub(crate) async fn a_schedule_is_read_back_to_the_last_field_and_removed(subject: Subject) {
    let (nightly, pictures) = (schedule(1, "nightly", Some(100)), payload(2));
    let kept = [nightly.clone(), pictures.clone()];
    subject.put(move |tx| kept.iter().try_for_each(|one| tx.put_schedule(one))).await;
    let (first, second) = (nightly.clone(), pictures.clone());
    subject
        .get(move |view| {
            assert_eq!(view.schedule(first.id)?, Some(first.clone()));
            assert_eq!(view.schedules()?, [first, second]);
            Ok(())
        })
        .await;
    let moved = Schedule { next_at: Some(WallTime(200)), is_on: false, ..nightly.clone() };
    let put = moved.clone();
    subject.put(move |tx| tx.put_schedule(&put)).await;
    let gone = pictures.id;
    subject
        .put(move |tx| {
            assert!(tx.remove_schedule(gone)?);
            assert!(!tx.remove_schedule(gone)?);
            Ok(())
        })
        .await;
    subject
        .get(move |view| {
            assert_eq!((view.schedules()?, view.schedule(gone)?), (vec![moved], None));
            Ok(())
        })
        .await;
}

pub(crate) async fn a_name_is_one_schedule_per_party(subject: Subject) {
    subject.put(|tx| tx.put_schedule(&schedule(1, "nightly", None))).await;
    subject.conflicts(|tx| tx.put_schedule(&schedule(2, "nightly", None))).await;
    // Another token of the same person is the same party; another person is not.
    let same = Owner { token: None, user: Some(user(1, "u").id) };
    subject
        .conflicts(move |tx| tx.put_schedule(&Schedule { owner: same, ..schedule(2, "nightly", None) }))
        .await;
    let other = Owner { token: None, user: Some(user(2, "v").id) };
    subject.put(move |tx| tx.put_schedule(&Schedule { owner: other, ..schedule(2, "nightly", None) })).await;
}

pub(crate) async fn schedules_are_due_in_the_order_of_their_ticks(subject: Subject) {
    subject
        .put(|tx| {
            for (number, next_at) in [(1, Some(300)), (2, Some(100)), (3, None), (4, Some(200))] {
                tx.put_schedule(&schedule(number, &format!("s{number}"), next_at))?;
            }
            tx.put_schedule(&Schedule { is_on: false, ..schedule(5, "off", Some(50)) })
        })
        .await;
    subject
        .get(|view| {
            let due = |now, limit| -> Result<Vec<String>, _> {
                Ok(view.schedules_due(WallTime(now), limit)?.iter().map(|one| one.name.to_string()).collect())
            };
            assert_eq!(view.next_tick()?, Some(WallTime(100)));
            assert_eq!(due(99, 9)?, [""; 0]);
            assert_eq!(due(200, 9)?, ["s2", "s4"]);
            assert_eq!(due(i64::MAX, 2)?, ["s2", "s4"]);
            Ok(())
        })
        .await;
}

pub(crate) async fn pauses_are_kept_and_removed_by_what_they_stop(subject: Subject) {
    let pause = |part: Part| Pause {
        part,
        by: "user:ada".to_owned(),
        since: WallTime(3),
        message: Some("moving racks".to_owned()),
        drained_at: Some(WallTime(9)),
    };
    let parts = [
        Part::Kind(Kind::command()),
        Part::Label("role".to_owned(), "ci".to_owned()),
        Part::Node(node_id(1)),
    ];
    let all = parts.clone().map(pause);
    let kept = all.clone();
    subject.put(move |tx| Ok(kept.iter().try_for_each(|one| tx.put_pause(one))?)).await;
    let expected = all.clone();
    subject
        .get(move |view| {
            assert_eq!(view.pauses()?, expected);
            Ok(())
        })
        .await;
    let refused = subject.write(move |tx| {
        assert!(tx.remove_pause(&parts[0])?);
        tx.put_pause(&Pause { message: None, ..pause(parts[1].clone()) })?;
        no::<()>()
    });
    refused.await.expect_err("it is given up");
    let expected = all.clone();
    subject
        .get(move |view| {
            assert_eq!(view.pauses()?, expected);
            Ok(())
        })
        .await;
    subject
        .put(move |tx| {
            assert!(
                tx.remove_pause(&Part::Kind(Kind::command()))?
                    && !tx.remove_pause(&Part::Kind(Kind::command()))?
            );
            tx.put_pause(&Pause { drained_at: None, message: None, ..all[1].clone() })?;
            assert_eq!(tx.pauses()?[0].message, None);
            assert_eq!(tx.pauses()?.len(), 2);
            Ok(())
        })
        .await;
}
