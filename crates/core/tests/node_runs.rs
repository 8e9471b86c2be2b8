//! The node's machine of its runs, case by case.

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::id::{Epoch, Generation, NodeId, Revision, RunId, Seq};
use cortex_core::journal::Record;
use cortex_core::limits;
use cortex_core::message::{Envelope, SignedPolicy, Start, ToHub, ToNode, Welcome};
use cortex_core::node::AuditHead;
use cortex_core::node_runs::{Action, NodeRuns, Signal};
use cortex_core::policy::{Bounds, Ceiling, Document, Policy};
use cortex_core::run::{EndCause, Ended, RunSpec};
use cortex_core::sandbox::{Access, Ground, Level, Network, Place};
use cortex_core::stream::{Positions, Stream};
use cortex_core::time::{Timestamp, WallTime};

const T0: Timestamp = Timestamp(0);

fn id() -> RunId {
    RunId::mint(1, &[1; 10])
}

fn policy() -> Policy {
    Policy::strict(NodeId::mint(1, &[1; 10]), WallTime(0))
}

fn start(program: &str) -> ToNode {
    let spec = RunSpec { argv: vec![program.into()], ..RunSpec::default() };
    ToNode::Start(Start {
        run: id(),
        spec,
        caller: "a".into(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None,
        task: None,
    })
}

fn say(runs: &mut NodeRuns, epoch: u64, message: ToNode) {
    runs.handle(Envelope { epoch: Epoch(epoch), message }, T0);
}

fn welcome(runs: &mut NodeRuns, epoch: u64) {
    let welcome =
        Welcome { generation: Generation(1), name: "n1".into(), policy: policy().into(), audit_head: None };
    say(runs, epoch, ToNode::Welcome(welcome));
}

fn drain(runs: &mut NodeRuns) -> Vec<Action> {
    std::iter::from_fn(|| runs.poll_action()).collect()
}

fn ended(cause: EndCause) -> Ended {
    let output = Positions::default();
    Ended { cause, code: Some(0), signal: None, duration_ms: 1, output, diagnostic: None }
}

fn ground(level: Option<Level>) -> Ground {
    Ground { place: Place { home: "/home/u".into(), work: vec!["/w".into()] }, level }
}

fn linked(journal: Vec<Record>) -> NodeRuns {
    let mut runs = NodeRuns::restore(Generation(0), Epoch(0), journal);
    runs.stand_on(ground(Some(Level::Full)));
    welcome(&mut runs, 1);
    drain(&mut runs);
    runs
}

fn running() -> NodeRuns {
    let mut runs = linked(vec![]);
    say(&mut runs, 1, start("echo"));
    runs.journaled(id());
    runs.spawned(id(), T0);
    drain(&mut runs);
    runs
}

#[test]
fn a_process_starts_after_its_journal_row_and_once() {
    let mut runs = linked(vec![]);
    say(&mut runs, 1, start("echo"));
    say(&mut runs, 1, start("echo"));
    assert_eq!(drain(&mut runs), [Action::Journal(Record::Accepted(id()))]);
    runs.journaled(id());
    runs.journaled(id());
    assert!(matches!(drain(&mut runs)[..], [Action::Spawn { .. }]));
    say(&mut runs, 1, start("echo"));
    assert_eq!(drain(&mut runs), vec![]);
}

#[test]
fn a_command_of_an_earlier_life_is_reported_as_unknown_and_not_run_again() {
    let mut runs = linked(vec![Record::Accepted(id())]);
    say(&mut runs, 1, start("echo"));
    assert_eq!(drain(&mut runs), vec![]);
    assert_eq!(runs.poll_end(), None, "not before the hub has taken it up");
    say(&mut runs, 1, ToNode::Resume { run: id(), from: 0, granted: 9 });
    let Some(ToHub::Ended { ended, .. }) = runs.poll_end() else { panic!("an end") };
    assert_eq!(ended.cause, EndCause::UnknownOutcome);
}

#[test]
fn a_settled_command_that_comes_again_is_answered_and_not_run() {
    let mut runs = linked(vec![Record::Accepted(id()), Record::Settled(id())]);
    say(&mut runs, 1, start("echo"));
    assert!(matches!(drain(&mut runs)[..], [Action::Journal(Record::Ended(..))]));
    assert!(matches!(runs.poll_end(), Some(ToHub::Ended { .. })));
    say(&mut runs, 1, ToNode::Settled { run: id() });
    assert_eq!(runs.held(), 0);
}

#[test]
fn frames_of_another_epoch_or_before_welcome_do_nothing() {
    let messages = [
        start("echo"),
        ToNode::Cancel { run: id(), grace_ms: 1 },
        ToNode::Forget { run: id() },
        ToNode::Settled { run: id() },
        ToNode::Resume { run: id(), from: 0, granted: u64::MAX },
        ToNode::Credit { run: id(), granted: u64::MAX, durable: u64::MAX },
        ToNode::Policy(Policy { revision: Revision(9), ..policy() }.into()),
        ToNode::Goodbye { refusal: Refusal::new(Code::Internal, "x"), retry_after_ms: None },
    ];
    for message in messages {
        for epoch in [0, 2] {
            let mut runs = running();
            say(&mut runs, epoch, message.clone());
            let actions = drain(&mut runs);
            let [Action::Send(ToHub::Refused { refusal, .. })] = &actions[..] else { panic!("{actions:?}") };
            assert_eq!(refusal.code, Code::StaleEpoch);
        }
    }
    let mut early = NodeRuns::restore(Generation(0), Epoch(0), []);
    say(&mut early, 0, start("echo"));
    assert!(matches!(drain(&mut early)[..], [Action::Send(ToHub::Refused { .. })]) && early.held() == 0);
}

#[test]
fn a_welcome_with_an_old_epoch_or_generation_closes_the_link() {
    let mut runs = NodeRuns::restore(Generation(2), Epoch(5), []);
    for (generation, epoch) in [(2, 5), (2, 4), (1, 6)] {
        let welcome = Welcome {
            generation: Generation(generation),
            name: String::new(),
            policy: policy().into(),
            audit_head: None,
        };
        say(&mut runs, epoch, ToNode::Welcome(welcome));
        assert!(matches!(drain(&mut runs)[..], [Action::Close { .. }]), "{generation} {epoch}");
    }
    assert!(!runs.is_linked());
}

#[test]
fn output_flows_at_once_up_to_the_first_credit() {
    let mut runs = running();
    runs.wrote(id(), Stream::Stdout, limits::CREDIT_BYTES_START + 10);
    let mut sent = 0;
    while let Some((run, position, len)) = runs.poll_output() {
        assert_eq!((run, position), (id(), sent));
        runs.sent(run, len);
        sent += len;
    }
    assert_eq!(sent, limits::CREDIT_BYTES_START);
    say(&mut runs, 1, ToNode::Credit { run: id(), granted: sent + 10, durable: 0 });
    assert_eq!(runs.poll_output(), Some((id(), sent, 10)));
}

#[test]
fn an_end_waits_for_all_output_and_on_a_new_link_for_the_hub() {
    let mut runs = running();
    runs.wrote(id(), Stream::Stdout, 10);
    runs.ended(id(), ended(EndCause::Exited));
    assert_eq!(runs.poll_end(), None);
    runs.sent(id(), 10);
    assert!(matches!(runs.poll_end(), Some(ToHub::Ended { ended, .. }) if ended.output.stdout == 10));
    runs.disconnected();
    welcome(&mut runs, 2);
    assert_eq!((runs.poll_output(), runs.poll_end()), (None, None), "the hub may lack what was sent");
    say(&mut runs, 2, ToNode::Resume { run: id(), from: 4, granted: 100 });
    assert_eq!((runs.poll_output(), runs.poll_end()), (Some((id(), 4, 6)), None));
}

#[test]
fn output_that_was_called_durable_and_is_asked_again_is_marked_lost() {
    let mut runs = running();
    runs.wrote(id(), Stream::Stderr, 10);
    runs.sent(id(), 10);
    say(&mut runs, 1, ToNode::Credit { run: id(), granted: 100, durable: 8 });
    assert_eq!(drain(&mut runs), [Action::Trim(id(), 8)]);
    say(&mut runs, 1, ToNode::Resume { run: id(), from: 3, granted: 100 });
    let first_kept = Positions { stdout: 0, stderr: 10 };
    assert_eq!(drain(&mut runs), [Action::Send(ToHub::OutputLost { run: id(), first_kept })]);
}

#[test]
fn a_cancel_asks_then_kills_and_may_be_hurried_but_not_put_off() {
    let mut runs = running();
    say(&mut runs, 1, ToNode::Cancel { run: id(), grace_ms: 1_000 });
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Term)]);
    say(&mut runs, 1, ToNode::Cancel { run: id(), grace_ms: 9_000 });
    assert_eq!(runs.poll_timeout().map(|(at, _)| at), Some(Timestamp(1_000)));
    say(&mut runs, 1, ToNode::Cancel { run: id(), grace_ms: 10 });
    runs.handle_timeout(Timestamp(10));
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Kill)]);
    runs.ended(id(), ended(EndCause::Exited));
    assert!(
        matches!(runs.poll_end(), Some(ToHub::Ended { ended, .. }) if ended.cause == EndCause::Cancelled)
    );
}

#[test]
fn a_cut_kills_at_once_and_its_end_waits_for_no_output() {
    let mut runs = running();
    runs.wrote(id(), Stream::Stdout, limits::SPOOL_BYTES_MAX);
    assert!(!runs.may_read(id()), "the hub is far behind");
    say(&mut runs, 1, ToNode::Cut { run: id() });
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Kill)]);
    assert!(runs.may_read(id()), "what is left in the pipe is taken out, so that its end is seen");
    assert_eq!(runs.poll_output(), None);
    runs.ended(id(), ended(EndCause::Exited));
    let Some(ToHub::Ended { ended: told, .. }) = runs.poll_end() else { panic!("its end is not told") };
    assert_eq!((told.cause, told.output.stdout), (EndCause::Cancelled, limits::SPOOL_BYTES_MAX));
}

#[test]
fn a_cut_of_a_run_that_has_ended_tells_its_end_and_one_that_has_not_begun_never_begins() {
    let mut runs = running();
    runs.wrote(id(), Stream::Stdout, limits::SPOOL_BYTES_MAX);
    runs.ended(id(), ended(EndCause::Exited));
    assert_eq!(runs.poll_end(), None, "its output is not sent");
    say(&mut runs, 1, ToNode::Cut { run: id() });
    assert!(matches!(runs.poll_end(), Some(ToHub::Ended { ended, .. }) if ended.cause == EndCause::Exited));
    let mut early = linked(vec![]);
    say(&mut early, 1, start("echo"));
    say(&mut early, 1, ToNode::Cut { run: id() });
    early.journaled(id());
    assert!(!drain(&mut early).iter().any(|action| matches!(action, Action::Spawn { .. })));
}

#[test]
fn a_cancel_before_the_process_is_there_holds() {
    let cancel = ToNode::Cancel { run: id(), grace_ms: 1_000 };
    let mut early = linked(vec![]);
    say(&mut early, 1, start("echo"));
    say(&mut early, 1, cancel.clone());
    early.journaled(id());
    assert!(!drain(&mut early).iter().any(|action| matches!(action, Action::Spawn { .. })));
    let mut starting = linked(vec![]);
    say(&mut starting, 1, start("echo"));
    starting.journaled(id());
    say(&mut starting, 1, cancel);
    drain(&mut starting);
    starting.spawned(id(), T0);
    assert_eq!(drain(&mut starting)[0], Action::Signal(id(), Signal::Term));
}

#[test]
fn a_run_lasts_no_longer_than_it_or_the_policy_says() {
    for (asked, ends) in [(Some(50), 50), (None, 1_000)] {
        let mut runs = linked(vec![]);
        let document = Document { timeout_ms_max: 1_000, ..Document::strict() };
        let longest = Policy { revision: Revision(2), document, ..policy() };
        say(&mut runs, 1, ToNode::Policy(longest.into()));
        let ToNode::Start(mut command) = start("echo") else { return };
        command.spec.timeout_ms = asked;
        say(&mut runs, 1, ToNode::Start(command));
        runs.journaled(id());
        runs.spawned(id(), T0);
        drain(&mut runs);
        assert_eq!(runs.poll_timeout().map(|(at, _)| at), Some(Timestamp(ends)));
        runs.handle_timeout(Timestamp(ends));
        assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Term)]);
    }
}

#[test]
fn what_the_policy_does_not_allow_is_denied_and_never_spawned() {
    let mut runs = linked(vec![]);
    say(&mut runs, 1, start("sh"));
    assert!(!drain(&mut runs).iter().any(|action| matches!(action, Action::Spawn { .. })));
    assert!(matches!(runs.poll_end(), Some(ToHub::Ended { ended, .. }) if ended.cause == EndCause::Denied));
}

/// The end that a start of `echo` comes to, or the walls that it is spawned with.
fn started(runs: &mut NodeRuns) -> Result<Option<cortex_core::sandbox::Walls>, String> {
    say(runs, 1, start("echo"));
    runs.journaled(id());
    for action in drain(runs) {
        if let Action::Spawn { walls, .. } = action {
            return Ok(walls.map(|walls| *walls));
        }
    }
    match runs.poll_end() {
        Some(ToHub::Ended { ended, .. }) if ended.cause == EndCause::Denied => {
            Err(ended.diagnostic.expect("a reason"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_gets_the_walls_that_the_policy_had_when_it_was_taken_on() {
    let profile = |name: &str, revision| {
        Policy::from_profile(policy().node, name, Revision(revision), WallTime(0)).expect("built in")
    };
    let mut runs = linked(vec![]);
    say(&mut runs, 1, ToNode::Policy(profile("dev", 2).into()));
    say(&mut runs, 1, start("echo"));
    say(&mut runs, 1, ToNode::Policy(profile("strict", 3).into()));
    drain(&mut runs);
    runs.journaled(id());
    let actions = drain(&mut runs);
    let [Action::Spawn { walls: Some(walls), .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(walls.level, Level::Kernel);
    assert_eq!(walls.allows("/w/x"), Some((Access::Write, true)));
    assert_eq!(walls.allows("/home/u/.cargo/bin/cargo"), Some((Access::Read, true)));
    assert_eq!(walls.allows("/home/u/.cargo/credentials.toml"), None);
    assert!(matches!(walls.network, Network::Ports(_)));
}

#[test]
fn a_node_that_has_not_tried_its_layers_or_lacks_them_starts_nothing_that_needs_walls() {
    for level in [None, Some(Level::None), Some(Level::Partial)] {
        let mut runs = linked(vec![]);
        runs.stand_on(ground(level));
        let why = started(&mut runs).expect_err("refused");
        assert!(why.starts_with("sandbox_unavailable: ") && why.contains("(rule sandbox.level)"), "{why}");
        let open = Policy::from_profile(policy().node, "permissive", Revision(2), WallTime(0));
        let mut runs = linked(vec![]);
        runs.stand_on(ground(level));
        say(&mut runs, 1, ToNode::Policy(open.expect("built in").into()));
        assert_eq!(started(&mut runs), Ok(None));
    }
}

#[test]
fn the_owners_ceiling_narrows_what_the_hub_allows_and_is_named() {
    let bounds = |bounds: Bounds| vec![Ceiling::Bounds(Box::new(bounds))];
    let mut runs = linked(vec![]);
    runs.stand_under(bounds(Bounds { deny: vec!["echo".into()], ..Bounds::default() }));
    assert!(started(&mut runs).expect_err("denied").contains("(rule local.exec.deny)"));
    let mut runs = linked(vec![]);
    runs.stand_under(vec![Ceiling::Unreadable]);
    assert!(started(&mut runs).expect_err("denied").contains("(rule local.unreadable)"));
    let mut runs = linked(vec![]);
    runs.stand_under(bounds(Bounds { sandbox: Some(Level::Full), ..Bounds::default() }));
    let walls = started(&mut runs).expect("full is there").expect("walls");
    assert_eq!(walls.level, Level::Full);
}

#[test]
fn a_policy_that_cannot_be_verified_allows_nothing_and_forgets_no_revision() {
    let mut runs = linked(vec![]);
    say(&mut runs, 1, ToNode::Policy(Policy { revision: Revision(5), ..policy() }.into()));
    say(&mut runs, 1, ToNode::Policy(SignedPolicy::default()));
    let told = drain(&mut runs);
    let Some(Action::Send(ToHub::Refused { refusal, .. })) = told.last() else { panic!("{told:?}") };
    assert_eq!(refusal.code, Code::PolicyInvalid);
    assert!(started(&mut runs).expect_err("denied").contains("(rule exec.allow)"));
    say(&mut runs, 1, ToNode::Policy(Policy { revision: Revision(4), ..policy() }.into()));
    assert_eq!(runs.policy().map(|held| held.profile.as_str()), Some("unreadable"));
    say(&mut runs, 1, ToNode::Policy(Policy { revision: Revision(5), ..policy() }.into()));
    assert_eq!(runs.policy().map(|held| held.profile.as_str()), Some("strict"));
}

#[test]
fn a_policy_that_was_kept_is_not_replaced_by_an_older_one_of_the_same_generation() {
    for (generation, held) in [(1, Revision(5)), (2, Revision(1))] {
        let mut runs = NodeRuns::restore(Generation(1), Epoch(0), []);
        runs.hold(Policy { revision: Revision(5), ..policy() });
        let welcome = Welcome {
            generation: Generation(generation),
            name: "n1".into(),
            policy: policy().into(),
            audit_head: None,
        };
        say(&mut runs, 1, ToNode::Welcome(welcome));
        assert_eq!(runs.policy().map(|policy| policy.revision), Some(held), "{generation}");
    }
}

#[test]
fn an_older_policy_does_not_replace_the_one_held() {
    let mut runs = linked(vec![]);
    say(&mut runs, 1, ToNode::Policy(Policy { revision: Revision(5), ..policy() }.into()));
    drain(&mut runs);
    say(&mut runs, 1, ToNode::Policy(Policy { revision: Revision(4), ..policy() }.into()));
    assert!(matches!(drain(&mut runs)[..], [Action::Send(ToHub::Refused { run: None, .. })]));
    assert_eq!(runs.policy().map(|held| held.revision), Some(Revision(5)));
}

#[test]
fn input_before_the_process_waits_and_input_out_of_order_is_refused() {
    let input = |offset, text: &'static str| ToNode::Input {
        run: id(),
        offset,
        data: Bytes::from_static(text.as_bytes()),
        eof: false,
    };
    let mut runs = linked(vec![]);
    say(&mut runs, 1, start("echo"));
    say(&mut runs, 1, input(0, "ab"));
    runs.journaled(id());
    drain(&mut runs);
    runs.spawned(id(), T0);
    let given = |data: &'static str| Action::Input { run: id(), data: data.into(), eof: false };
    assert_eq!(drain(&mut runs)[0], given("ab"));
    say(&mut runs, 1, input(1, "bc"));
    say(&mut runs, 1, input(9, "x"));
    let actions = drain(&mut runs);
    assert_eq!(actions[0], given("c"));
    assert!(matches!(&actions[1..], [Action::Send(ToHub::Refused { .. })]));
}

#[test]
fn a_forgotten_run_is_killed_and_leaves_nothing_but_its_id() {
    let mut runs = running();
    say(&mut runs, 1, ToNode::Forget { run: id() });
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Kill)]);
    runs.ended(id(), ended(EndCause::Exited));
    assert_eq!(drain(&mut runs), [Action::Journal(Record::Settled(id())), Action::Drop(id())]);
    assert_eq!((runs.held(), runs.poll_end()), (0, None));
}

#[test]
fn a_forgotten_run_that_is_wanted_again_tells_its_end() {
    let mut runs = running();
    say(&mut runs, 1, ToNode::Forget { run: id() });
    say(&mut runs, 1, start("echo"));
    runs.ended(id(), ended(EndCause::Exited));
    assert!(
        matches!(runs.poll_end(), Some(ToHub::Ended { ended, .. }) if ended.cause == EndCause::Cancelled)
    );
}

#[test]
fn a_start_that_hangs_is_killed_after_the_grace() {
    let mut runs = linked(vec![]);
    say(&mut runs, 1, start("echo"));
    runs.journaled(id());
    drain(&mut runs);
    say(&mut runs, 1, ToNode::Cancel { run: id(), grace_ms: 100 });
    assert_eq!(drain(&mut runs), [], "there is no process to ask");
    assert_eq!(runs.poll_timeout().map(|(at, _)| at), Some(Timestamp(100)));
    runs.handle_timeout(Timestamp(100));
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Kill)]);
    runs.ended(id(), ended(EndCause::Exited));
    assert!(
        matches!(&drain(&mut runs)[..], [Action::Journal(Record::Ended(_, end))] if end.cause == EndCause::Cancelled)
    );
}

/// A start with a timeout, taken on at `at`.
fn take_on(runs: &mut NodeRuns, timeout_ms: u64, at: u64) {
    let ToNode::Start(mut command) = start("echo") else { unreachable!("it is a start") };
    command.spec.timeout_ms = Some(timeout_ms);
    let message = ToNode::Start(command);
    runs.handle(Envelope { epoch: Epoch(1), message }, Timestamp(at));
}

#[test]
fn a_start_that_hangs_is_timed_out_as_its_process_would_be() {
    let mut runs = linked(vec![]);
    take_on(&mut runs, 50, 10);
    runs.journaled(id());
    drain(&mut runs);
    assert_eq!(runs.poll_timeout().map(|(at, _)| at), Some(Timestamp(60)));
    runs.handle_timeout(Timestamp(60));
    assert_eq!(drain(&mut runs), [], "there is no process to ask");
    let kill_at = Timestamp(60).plus_ms(limits::KILL_GRACE_MS);
    assert_eq!(runs.poll_timeout().map(|(at, _)| at), Some(kill_at));
    runs.handle_timeout(kill_at);
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Kill)]);
    runs.ended(id(), ended(EndCause::Exited));
    assert!(matches!(runs.poll_end(), Some(ToHub::Ended { ended, .. }) if ended.cause == EndCause::TimedOut));
}

#[test]
fn the_time_of_a_run_counts_from_the_moment_it_is_taken_on() {
    let mut runs = linked(vec![]);
    take_on(&mut runs, 50, 10);
    runs.journaled(id());
    runs.spawned(id(), Timestamp(40));
    drain(&mut runs);
    assert_eq!(runs.poll_timeout().map(|(at, _)| at), Some(Timestamp(60)));
    runs.handle_timeout(Timestamp(60));
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Term)]);
}

#[test]
fn what_waits_for_its_journal_row_is_ended_at_once_and_never_begins() {
    let cancel = ToNode::Cancel { run: id(), grace_ms: 1_000 };
    for (wish, cause) in [(None, EndCause::TimedOut), (Some(cancel), EndCause::Cancelled)] {
        let mut runs = linked(vec![]);
        take_on(&mut runs, 50, 0);
        match wish {
            Some(wish) => say(&mut runs, 1, wish),
            None => runs.handle_timeout(Timestamp(50)),
        }
        assert!(
            matches!(runs.poll_end(), Some(ToHub::Ended { ended, .. }) if ended.cause == cause && ended.diagnostic.is_some())
        );
        drain(&mut runs);
        runs.journaled(id());
        assert_eq!((drain(&mut runs), runs.poll_timeout()), (vec![], None));
    }
}

#[test]
fn what_is_forgotten_before_its_journal_row_leaves_nothing_but_its_id() {
    let mut runs = linked(vec![]);
    take_on(&mut runs, 50, 0);
    drain(&mut runs);
    say(&mut runs, 1, ToNode::Forget { run: id() });
    assert_eq!(drain(&mut runs), [Action::Journal(Record::Settled(id())), Action::Drop(id())]);
    runs.journaled(id());
    assert_eq!((drain(&mut runs), runs.held()), (vec![], 0));
}

#[test]
fn a_forgotten_start_that_hangs_is_killed() {
    let mut runs = linked(vec![]);
    say(&mut runs, 1, start("echo"));
    runs.journaled(id());
    drain(&mut runs);
    say(&mut runs, 1, ToNode::Forget { run: id() });
    runs.handle_timeout(T0);
    assert_eq!(drain(&mut runs), [Action::Signal(id(), Signal::Kill)]);
}

#[test]
fn a_node_keeps_the_bound_of_live_runs_itself() {
    let mut runs = linked(vec![]);
    let more = |number: usize| {
        let ToNode::Start(start) = start("echo") else { unreachable!("it is a start") };
        ToNode::Start(Start { run: RunId::mint(number as u64, &[2; 10]), ..start })
    };
    for number in 0..limits::RUNS_OPEN_PER_NODE_MAX {
        say(&mut runs, 1, more(number));
    }
    assert!(drain(&mut runs).iter().all(|action| matches!(action, Action::Journal(Record::Accepted(_)))));
    say(&mut runs, 1, more(limits::RUNS_OPEN_PER_NODE_MAX));
    assert!(
        matches!(&drain(&mut runs)[..], [Action::Journal(Record::Ended(_, end))] if end.cause == EndCause::Failed)
    );
    assert_eq!(runs.live(), limits::RUNS_OPEN_PER_NODE_MAX);
}

#[test]
fn a_node_keeps_the_newest_row_of_the_audit_log_that_it_was_told_of_within_one_generation() {
    let mut runs = NodeRuns::restore(Generation(1), Epoch(0), vec![]);
    let head = |seq| Some(AuditHead { seq: Seq(seq), hash: [7; 32] });
    runs.witness(head(5));
    let mut epoch = 0;
    let mut welcome = |runs: &mut NodeRuns, generation, audit_head| {
        epoch += 1;
        let generation = Generation(generation);
        let welcome = Welcome { generation, name: "n".into(), policy: policy().into(), audit_head };
        say(runs, epoch, ToNode::Welcome(welcome));
        runs.audit_head()
    };
    assert_eq!(welcome(&mut runs, 1, head(9)), head(9));
    assert_eq!(welcome(&mut runs, 1, head(3)), head(9), "a log that lost its end is shown what it had");
    assert_eq!(welcome(&mut runs, 1, None), head(9));
    assert_eq!(welcome(&mut runs, 2, head(3)), head(3), "a restored store has another log");
}
