//! Tests of what is open at a time.

use proptest::prelude::*;

use super::*;

fn id(number: usize) -> ContentId {
    ContentId::of(&number.to_le_bytes())
}

#[test]
fn each_id_is_asked_for_once_and_in_order() {
    let mut asking = Asking::new();
    assert!(asking.is_idle());
    assert!(asking.push(id(1), 10) && asking.push(id(2), 10) && !asking.push(id(1), 10));
    assert_eq!(asking.next(1), [id(1)]);
    assert_eq!((asking.next(9), asking.next(9)), (vec![id(2)], vec![]));
    assert_eq!(
        (asking.came(id(2)), asking.came(id(2)), asking.came(id(3))),
        (Came::Wanted, Came::Extra, Came::Extra)
    );
    assert!(!asking.push(id(2), 10) && !asking.is_idle());
    assert!(asking.missing(id(1)) && !asking.missing(id(1)) && asking.is_idle());
}

#[test]
fn what_comes_before_it_was_asked_for_is_taken_and_not_asked_for() {
    let mut asking = Asking::new();
    (1..5).for_each(|number| assert!(asking.push(id(number), 10)));
    assert_eq!(asking.next(1), [id(1)]);
    assert!(!asking.missing(id(2)), "nobody can lack what was not asked for");
    for (number, came) in [(3, Came::Wanted), (3, Came::Extra), (2, Came::Wanted), (9, Came::Extra)] {
        assert_eq!(asking.came(id(number)), came, "{number}");
    }
    assert_eq!((asking.next(9), asking.open_ids(), asking.open_bytes()), (vec![id(4)], 2, 20));
    assert_eq!((asking.came(id(1)), asking.came(id(4))), (Came::Wanted, Came::Wanted));
    assert!(asking.is_idle() && asking.next(9).is_empty());
}

#[test]
fn no_more_is_open_than_the_window_whatever_lengths_are_told() {
    let mut asking = Asking::new();
    for number in 0..100 {
        asking.push(id(number), u32::MAX);
    }
    let chunks = WANTS_OPEN_BYTES_MAX as usize / CHUNK_WHOLE_BYTES_MAX;
    assert_eq!((asking.next(usize::MAX).len(), asking.next(1).len()), (chunks, 0));
    assert_eq!(asking.came(id(0)), Came::Wanted);
    assert_eq!(asking.next(usize::MAX), [id(chunks)]);
    let mut asking = Asking::new();
    for number in 0..WANTS_OPEN_MAX + 10 {
        asking.push(id(number), 0);
    }
    assert_eq!(asking.next(usize::MAX).len(), WANTS_OPEN_MAX);
    assert_eq!((asking.next(1).len(), asking.open_ids()), (0, WANTS_OPEN_MAX));
}

#[test]
fn a_sender_refuses_more_than_a_receiver_may_have_open_and_keeps_what_it_has() {
    let mut answering = Answering::new();
    let ids: Vec<ContentId> = (0..WANTS_OPEN_MAX).map(id).collect();
    answering.want(&ids).expect("it fits");
    let refusal = answering.want(&[id(usize::MAX)]).expect_err("one too many");
    assert_eq!(refusal.code, Code::TooLarge);
    assert!(!refusal.hint.is_empty());
    let mut given = Vec::new();
    while !answering.is_idle() {
        given.extend(answering.next(|_| Some(1)).expect("a batch").give);
    }
    assert_eq!(given, ids);
}

#[test]
fn a_batch_is_one_pack_and_says_what_is_missing() {
    let mut answering = Answering::new();
    answering.want(&[id(0), id(1), id(1), id(2), id(3), id(4), id(5)]).expect("it fits");
    let len = |asked: &ContentId| (*asked != id(1)).then_some(CHUNK_LEN_MAX);
    let batch = answering.next(len).expect("a batch");
    assert_eq!(batch, Batch { give: vec![id(0), id(2), id(3)], missing: vec![id(1)] });
    assert_eq!(answering.next(len).expect("a batch").give, [id(4), id(5)]);
    assert!(answering.is_idle());
    answering.want(&[id(6), id(7)]).expect("it fits");
    assert_eq!(answering.next(|_| Some(u32::MAX)).expect_err("no chunk").code, Code::Internal);
    assert_eq!(answering.next(|_| None).expect("a batch").missing, [id(6), id(7)]);
    assert_eq!(answering.next(len).expect("a batch"), Batch::default());
}

proptest! {
    /// Whatever arrives in whatever order, with repeats and things that nobody asked for: the window holds,
    /// every id is asked for once and in order, and it ends.
    #[test]
    fn asking_ends_and_never_opens_more_than_its_window(
        lens in proptest::collection::vec(0_u32..3_000_000, 0..200),
        order in proptest::collection::vec((any::<u16>(), 0_u8..6), 1..2_000),
        max in 1_usize..70,
    ) {
        let mut asking = Asking::new();
        for (number, len) in lens.iter().enumerate() {
            asking.push(id(number), *len);
            asking.push(id(number / 2), *len);
        }
        let (mut asked, mut open): (Vec<ContentId>, Vec<ContentId>) = (Vec::new(), Vec::new());
        let mut early: Vec<ContentId> = Vec::new();
        let mut order = order.iter().cycle();
        for _ in 0..10_000 {
            let next = asking.next(max);
            prop_assert!(next.len() <= max);
            asked.extend(&next);
            open.extend(&next);
            prop_assert!(asking.open_bytes() <= WANTS_OPEN_BYTES_MAX && asking.open_ids() == open.len());
            let (at, what) = order.next().copied().unwrap_or_default();
            if asking.is_idle() {
                break;
            }
            prop_assert!(!open.is_empty(), "it waits for nothing");
            let one = open[usize::from(at) % open.len()];
            match what {
                0 => prop_assert_eq!(asking.came(id(100_000)), Came::Extra),
                1 => {
                    prop_assert!(asking.missing(one));
                    open.retain(|open| *open != one);
                    prop_assert_eq!(asking.came(one), Came::Extra);
                }
                // The last of all comes with something else, before anybody asked for it.
                2 if asked.len() + early.len() < lens.len() => {
                    let last = (0..lens.len()).rev().map(id).find(|id| !early.contains(id));
                    let last = last.filter(|id| !asked.contains(id));
                    if let Some(last) = last {
                        prop_assert_eq!(asking.came(last), Came::Wanted);
                        prop_assert_eq!(asking.came(last), Came::Extra);
                        early.push(last);
                    }
                }
                _ => {
                    prop_assert_eq!(asking.came(one), Came::Wanted);
                    open.retain(|open| *open != one);
                    prop_assert_eq!(asking.came(one), Came::Extra);
                }
            }
        }
        prop_assert!(asking.is_idle() && asking.open_bytes() == 0);
        asked.extend(early.iter().rev());
        prop_assert_eq!(asked, (0..lens.len()).map(id).collect::<Vec<_>>());
    }

    /// Each id that was asked for is answered once, in order, in packs that a pack writer takes.
    #[test]
    fn what_is_answered_fits_in_packs(lens in proptest::collection::vec(proptest::option::of(1_u32..=CHUNK_LEN_MAX), 0..200)) {
        let mut answering = Answering::new();
        let ids: Vec<ContentId> = (0..lens.len()).map(id).collect();
        answering.want(&ids).expect("it fits");
        let len = |asked: &ContentId| ids.iter().position(|id| id == asked).and_then(|at| lens[at]);
        let (mut give, mut missing) = (Vec::new(), Vec::new());
        while !answering.is_idle() {
            let batch = answering.next(len).expect("a batch");
            prop_assert!(!batch.give.is_empty() || !batch.missing.is_empty());
            let plain: usize = batch.give.iter().filter_map(len).map(|len| len as usize).sum();
            prop_assert!(HEAD_BYTES_MIN + ROW_BYTES * batch.give.len() + plain <= PACK_BYTES_MAX);
            give.extend(batch.give);
            missing.extend(batch.missing);
        }
        let (there, gone): (Vec<_>, Vec<_>) = ids.iter().copied().partition(|id| len(id).is_some());
        prop_assert_eq!((give, missing), (there, gone));
    }
}
