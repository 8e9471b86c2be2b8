//! The hub's machine of a node's runs, case by case.

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::event::{Event, EventKind};
use cortex_core::hub_runs::{Action, Decision, Decisions, HubRuns};
use cortex_core::id::{LinkId, Revision, RunId};
use cortex_core::limits;
use cortex_core::message::{Frame, RunReport, Start, ToHub, ToNode};
use cortex_core::run::{Command, EndCause, Ended, RunSpec};
use cortex_core::sandbox::Level;
use cortex_core::stream::{Positions, Stream};
use cortex_core::time::{Timestamp, WallTime};

const LINK: LinkId = LinkId(1);
const T0: Timestamp = Timestamp(0);

fn id() -> RunId {
    RunId::mint(1, &[1; 10])
}

fn start() -> Start {
    Start {
        run: id(),
        spec: RunSpec::default(),
        caller: "token:a".into(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None,
        task: None,
    }
}

fn end_at(stdout: u64) -> Ended {
    let output = Positions { stdout, stderr: 0 };
    Ended { cause: EndCause::Exited, code: Some(0), signal: None, duration_ms: 1, output, diagnostic: None }
}

fn output(position: u64, len: usize) -> ToHub {
    let data = Bytes::from(vec![7; len]);
    ToHub::Output(Frame { run: id(), stream: Stream::Stdout, position, offset: position, data })
}

fn report(started: bool) -> RunReport {
    RunReport { run: id(), started: started.then_some(Level::Full), ended: None, kept_from: 0, end: 0 }
}

fn drain(runs: &mut HubRuns) -> Vec<Action> {
    std::iter::from_fn(|| runs.poll_action()).collect()
}

/// One run, sent and started on the first link.
fn running() -> HubRuns {
    let mut runs = HubRuns::new();
    runs.attached(LINK, vec![]);
    runs.submit(start(), T0);
    runs.handle(LINK, ToHub::Started { run: id(), level: Level::Full });
    drain(&mut runs);
    runs
}

#[test]
fn a_run_is_settled_at_the_node_only_after_store_and_log_keep_it() {
    for store_first in [true, false] {
        let mut runs = running();
        runs.handle(LINK, output(0, 10));
        runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(10) });
        drain(&mut runs);
        let steps: [fn(&mut HubRuns); 2] = [|runs| runs.settled(id()), |runs| runs.synced(id(), 10)];
        let order = if store_first { [0, 1] } else { [1, 0] };
        steps[order[0]](&mut runs);
        assert_eq!((drain(&mut runs), runs.len()), (vec![], 1));
        steps[order[1]](&mut runs);
        let done = vec![Action::Send(ToNode::Settled { run: id() }), Action::Closed(id())];
        assert_eq!((drain(&mut runs), runs.len()), (done, 0));
    }
}

#[test]
fn decisions_keep_their_order_and_only_the_last_word_about_a_link() {
    let mut decisions = Decisions::default();
    let event = |kind| Decision::Event(Event::new(kind, WallTime(0)));
    let of = |command| Decision::Run(id(), command);
    assert!(decisions.is_empty() && !decisions.is_urgent());
    for decision in [
        of(Command::Start(Level::Full)),
        of(Command::Disconnect),
        event(EventKind::NodeOffline),
        of(Command::Reattach),
        event(EventKind::NodeOnline),
        of(Command::Disconnect),
        event(EventKind::NodeOffline),
        of(Command::End(end_at(1))),
    ] {
        decisions.push(decision);
    }
    assert!(decisions.is_urgent());
    let taken = decisions.take();
    assert_eq!(taken.iter().filter_map(Decision::ends).collect::<Vec<_>>(), [id()]);
    let last = [
        of(Command::Start(Level::Full)),
        of(Command::Disconnect),
        event(EventKind::NodeOffline),
        of(Command::End(end_at(1))),
    ];
    assert_eq!(taken, last);
    assert!(decisions.is_empty());
}

#[test]
fn a_node_that_left_with_nothing_but_an_end_to_settle_has_no_grace_once_that_is_settled() {
    let mut runs = running();
    runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(0) });
    runs.detached(LINK, T0);
    assert!(runs.poll_timeout().is_some());
    runs.settled(id());
    assert_eq!((runs.len(), runs.poll_timeout()), (0, None));
}

#[test]
fn a_loss_is_told_to_the_node_only_after_the_store_keeps_it() {
    let mut runs = running();
    runs.detached(LINK, T0);
    runs.handle_timeout(Timestamp(limits::GRACE_MS));
    drain(&mut runs);
    runs.attached(LinkId(2), vec![report(true)]);
    assert_eq!(drain(&mut runs), vec![], "a hub that crashes here takes the run up again");
    runs.settled(id());
    assert_eq!(drain(&mut runs), [Action::Send(ToNode::Forget { run: id() }), Action::Closed(id())]);
}

#[test]
fn a_node_within_its_grace_goes_on_and_one_beyond_it_loses_its_runs_once() {
    let mut runs = running();
    runs.detached(LINK, T0);
    assert_eq!(drain(&mut runs), [Action::Decide(id(), Command::Disconnect)]);
    runs.handle_timeout(Timestamp(limits::GRACE_MS - 1));
    assert_eq!(drain(&mut runs), vec![]);
    runs.handle_timeout(Timestamp(limits::GRACE_MS));
    let lost = drain(&mut runs);
    assert!(matches!(lost[..], [Action::Finish(_), Action::Decide(_, Command::Lose { .. })]), "{lost:?}");
    runs.handle_timeout(Timestamp(limits::GRACE_MS * 2));
    assert_eq!(drain(&mut runs), vec![]);
}

#[test]
fn a_run_that_started_unseen_is_running_when_its_node_comes_back() {
    let mut runs = HubRuns::new();
    runs.attached(LINK, vec![]);
    runs.submit(start(), T0);
    runs.detached(LINK, T0);
    drain(&mut runs);
    runs.attached(LinkId(2), vec![report(true)]);
    let decided: Vec<Action> =
        drain(&mut runs).into_iter().filter(|action| matches!(action, Action::Decide(..))).collect();
    let expected =
        [Command::Reattach, Command::Start(Level::Full)].map(|command| Action::Decide(id(), command));
    assert_eq!(decided, expected);
}

#[test]
fn a_run_that_never_arrived_is_sent_again_and_one_that_started_is_lost() {
    for started in [false, true] {
        let mut runs = HubRuns::new();
        runs.restore(start(), started, Positions::default(), true);
        runs.attached(LINK, vec![]);
        let actions = drain(&mut runs);
        let sent = actions.contains(&Action::Send(ToNode::Start(start())));
        let cancelled = actions.iter().any(|a| matches!(a, Action::Send(ToNode::Cancel { .. })));
        assert_eq!((sent, cancelled), (!started, !started), "{actions:?}");
    }
}

#[test]
fn a_frame_or_farewell_of_another_link_does_nothing() {
    let mut runs = running();
    runs.attached(LinkId(2), vec![report(true)]);
    drain(&mut runs);
    runs.handle(LINK, output(0, 10));
    runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(0) });
    runs.detached(LINK, T0);
    assert_eq!((drain(&mut runs), runs.link()), (vec![], Some(LinkId(2))));
}

#[test]
fn the_first_end_stands() {
    let mut runs = running();
    runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(0) });
    drain(&mut runs);
    runs.handle(LINK, output(0, 10));
    runs.handle(LINK, ToHub::Ended { run: id(), ended: Ended { code: Some(9), ..end_at(0) } });
    assert_eq!(drain(&mut runs), vec![]);
}

#[test]
fn the_end_of_a_node_that_forgot_its_output_does_not_shorten_it() {
    let mut runs = running();
    runs.handle(LINK, output(0, 10));
    drain(&mut runs);
    runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(0) });
    assert_eq!(drain(&mut runs), [Action::Finish(id()), Action::Decide(id(), Command::End(end_at(10)))]);
}

#[test]
fn output_that_never_came_is_marked() {
    let mut runs = running();
    runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(10) });
    let to = Positions { stdout: 10, stderr: 0 };
    assert!(drain(&mut runs).contains(&Action::Mark { run: id(), to }));
}

#[test]
fn a_node_that_contradicts_itself_loses_its_link() {
    let beyond = usize::try_from(limits::CREDIT_BYTES_START).expect("small") + 1;
    let back = ToHub::OutputLost { run: id(), first_kept: Positions { stdout: 1, stderr: u64::MAX } };
    for bad in [output(0, beyond), output(u64::MAX, 1), back] {
        let mut runs = running();
        runs.handle(LINK, output(0, 5));
        drain(&mut runs);
        runs.handle(LINK, bad.clone());
        let actions = drain(&mut runs);
        assert!(matches!(actions[..], [Action::CloseLink(_)]), "{bad:?}");
    }
}

#[test]
fn a_wish_to_end_a_run_outlives_links_and_overtaken_commands() {
    let mut runs = HubRuns::new();
    runs.attached(LINK, vec![]);
    runs.submit(start(), T0);
    runs.cancel(id(), 5);
    drain(&mut runs);
    let cancel = Action::Send(ToNode::Cancel { run: id(), grace_ms: 5 });
    runs.handle(LINK, ToHub::Started { run: id(), level: Level::Full });
    assert!(drain(&mut runs).contains(&cancel));
    runs.detached(LINK, T0);
    drain(&mut runs);
    runs.attached(LinkId(2), vec![report(true)]);
    assert!(drain(&mut runs).contains(&cancel));
}

#[test]
fn a_cut_outlives_links_and_comes_before_the_output_is_resumed() {
    let mut runs = HubRuns::new();
    runs.attached(LINK, vec![]);
    runs.submit(start(), T0);
    runs.cut(id());
    runs.cancel(id(), 60_000);
    let cut = Action::Send(ToNode::Cut { run: id() });
    let sent = drain(&mut runs);
    assert_eq!(sent.iter().filter(|action| **action == cut).count(), 2, "a later cancel does not soften it");
    runs.detached(LINK, T0);
    drain(&mut runs);
    runs.attached(LinkId(2), vec![report(true)]);
    let actions = drain(&mut runs);
    let at = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted).expect("it is sent");
    assert!(
        at(&|action| *action == cut) < at(&|action| matches!(action, Action::Send(ToNode::Resume { .. })))
    );
}

#[test]
fn input_is_bounded_by_what_the_process_has_taken() {
    let mut runs = running();
    let max = limits::INPUT_BYTES_MAX;
    let data = Bytes::from(vec![0; usize::try_from(max).expect("small")]);
    assert!(runs.input(id(), 0, data, false).is_ok());
    let more = |runs: &mut HubRuns| runs.input(id(), max, Bytes::from_static(b"x"), false);
    assert_eq!(more(&mut runs).expect_err("full").code, Code::Quota);
    runs.handle(LINK, ToHub::InputTaken { run: id(), upto: 1 });
    assert!(more(&mut runs).is_ok());
    runs.detached(LINK, T0);
    assert_eq!(more(&mut runs).expect_err("away").code, Code::NodeOffline);
}

#[test]
fn what_the_hub_does_not_know_is_let_go() {
    let mut runs = HubRuns::new();
    let forget = Action::Send(ToNode::Forget { run: id() });
    runs.attached(LINK, vec![report(true)]);
    runs.handle(LINK, output(0, 1));
    runs.handle(LINK, ToHub::Started { run: id(), level: Level::Full });
    runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(1) });
    let settled = Action::Send(ToNode::Settled { run: id() });
    let late = Action::Decide(id(), Command::End(end_at(1)));
    assert_eq!(drain(&mut runs), [forget.clone(), forget.clone(), forget, late, settled]);
}

#[test]
fn how_a_run_ended_that_was_given_up_is_told_to_the_store_and_changes_nothing_here() {
    let late = Action::Decide(id(), Command::End(end_at(1)));
    // The node comes back with the end: the loss waits for its commit, or is settled.
    for is_settled in [false, true] {
        let mut runs = running();
        runs.give_up(id(), "gone");
        if is_settled {
            runs.settled(id());
        }
        drain(&mut runs);
        runs.attached(LinkId(9), vec![RunReport { ended: Some(end_at(1)), ..report(true) }]);
        let expected = if is_settled {
            vec![late.clone(), Action::Send(ToNode::Forget { run: id() })]
        } else {
            vec![late.clone()]
        };
        assert_eq!(drain(&mut runs), expected, "settled: {is_settled}");
    }
    // On the link that was there all the time.
    let mut runs = running();
    runs.give_up(id(), "gone");
    drain(&mut runs);
    runs.handle(LINK, ToHub::Ended { run: id(), ended: end_at(1) });
    assert_eq!(drain(&mut runs), [late]);
}

#[test]
fn a_stale_epoch_ends_the_link_and_refused_input_does_not() {
    for (code, closes) in [(Code::StaleEpoch, true), (Code::InvalidArgument, false)] {
        let mut runs = running();
        runs.handle(LINK, ToHub::Refused { run: Some(id()), refusal: Refusal::new(code, "no") });
        assert_eq!(!drain(&mut runs).is_empty(), closes);
    }
}

#[test]
fn there_is_a_most_of_open_runs() {
    let mut runs = HubRuns::new();
    for n in 0..limits::RUNS_OPEN_PER_NODE_MAX as u64 {
        runs.admit().expect("room");
        runs.submit(Start { run: RunId::mint(n, &[0; 10]), ..start() }, T0);
    }
    assert_eq!(runs.admit().expect_err("full").code, Code::Quota);
}
