//! Random histories: the memory store and SQLite give the same answer to each transaction, and
//! hold the same in the end. Few ids, names and keys, so that they collide.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::consent::{Consent, ConsentRule, Standing};
use cortex_core::id::{NodeId, Revision, Seq};
use cortex_core::lock::{Lock, Target};
use cortex_core::node::{AuditHead, Node};
use cortex_core::run::{Run, RunState};
use cortex_core::time::WallTime;
use cortex_core::token::Token;
use cortex_core::user::{RoleGrant, User};
use cortex_store::{AuditFilter, ConsentFilter, Read, RunFilter, StoreError, Tx, WriteError};
use proptest::prelude::*;

use crate::entities::{invite, name, node, policy, profile, token};
use crate::people::{consent, grant, lock, rule, user};
use crate::subject::{Subject, no};
use crate::support::{event, node_id, run, run_id};

#[derive(Clone, Debug)]
enum Op {
    PutNode { node: u8, name: u8, removed: bool },
    NextEpoch(u8),
    Observe(u8, i64),
    PutInvite(u8),
    PutToken { token: u8, name: u8, revoked: bool },
    PutUser { user: u8, name: u8, removed: bool },
    PutGrant { grant: u8, revoked: bool },
    PutLock { lock: u8, lifted: bool },
    PutConsent { consent: u8, standing: usize, answered: Option<i64> },
    PutConsentRule { rule: u8, ended: bool },
    TrimConsents { before: i64, batch: usize },
    ListConsents { standing: Option<usize>, before: Option<u8>, limit: usize },
    ObserveAudit { node: u8, seq: u64 },
    PutPolicy { node: u8, revision: u64 },
    PolicyHistory { node: u8, before: Option<u64>, limit: usize },
    PutProfile(u8),
    RemoveProfile(u8),
    PutRun { run: u64, node: u8, state: usize, key: Option<u8>, ended: Option<i64> },
    AppendEvent(u8),
    AppendAudit(u8),
    TrimEvents { keep: u64, batch: u64 },
    RemoveRuns { runs: Vec<u64> },
    ListEnded { limit: usize },
    ListRuns { node: Option<u8>, states: Vec<usize>, before: Option<u64>, limit: usize },
    ListAudit { node: Option<u8>, actor: Option<u8>, after: u64, newest: bool, limit: usize },
    ListEvents { after: u64, limit: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let maybe_node = || prop::option::of(0..4_u8);
    prop_oneof![
        (0..4_u8, 0..3_u8, any::<bool>()).prop_map(|(node, name, removed)| Op::PutNode {
            node,
            name,
            removed
        }),
        (0..4_u8).prop_map(Op::NextEpoch),
        (0..4_u8, 0..9_i64).prop_map(|(node, at)| Op::Observe(node, at)),
        (0..4_u8).prop_map(Op::PutInvite),
        (0..4_u8, 0..3_u8, any::<bool>()).prop_map(|(token, name, revoked)| Op::PutToken {
            token,
            name,
            revoked
        }),
        (0..4_u8, 0..3_u8, any::<bool>()).prop_map(|(user, name, removed)| Op::PutUser {
            user,
            name,
            removed
        }),
        (0..4_u8, any::<bool>()).prop_map(|(grant, revoked)| Op::PutGrant { grant, revoked }),
        (0..4_u8, any::<bool>()).prop_map(|(lock, lifted)| Op::PutLock { lock, lifted }),
        (0..6_u8, 0..5_usize, prop::option::of(0..9_i64))
            .prop_map(|(consent, standing, answered)| Op::PutConsent { consent, standing, answered }),
        (0..4_u8, any::<bool>()).prop_map(|(rule, ended)| Op::PutConsentRule { rule, ended }),
        (0..9_i64, 0..4_usize).prop_map(|(before, batch)| Op::TrimConsents { before, batch }),
        (prop::option::of(0..5_usize), prop::option::of(0..6_u8), 0..6_usize)
            .prop_map(|(standing, before, limit)| Op::ListConsents { standing, before, limit }),
        (0..4_u8, 0..6_u64).prop_map(|(node, seq)| Op::ObserveAudit { node, seq }),
        (0..4_u8, 0..6_u64).prop_map(|(node, revision)| Op::PutPolicy { node, revision }),
        (0..4_u8, prop::option::of(0..6_u64), 0..6_usize)
            .prop_map(|(node, before, limit)| Op::PolicyHistory { node, before, limit }),
        (0..4_u8).prop_map(Op::PutProfile),
        (0..4_u8).prop_map(Op::RemoveProfile),
        (0..12_u64, 0..4_u8, 0..9_usize, prop::option::of(0..3_u8), prop::option::of(0..9_i64))
            .prop_map(|(run, node, state, key, ended)| Op::PutRun { run, node, state, key, ended }),
        (0..12_u64, 0..4_u8, 0..9_usize, prop::option::of(0..3_u8), prop::option::of(0..9_i64))
            .prop_map(|(run, node, state, key, ended)| Op::PutRun { run, node, state, key, ended }),
        any::<u8>().prop_map(Op::AppendEvent),
        (0..6_u8).prop_map(Op::AppendAudit),
        (0..6_u64, 0..4_u64).prop_map(|(keep, batch)| Op::TrimEvents { keep, batch }),
        prop::collection::vec(0..12_u64, 0..4).prop_map(|runs| Op::RemoveRuns { runs }),
        (0..6_usize).prop_map(|limit| Op::ListEnded { limit }),
        (maybe_node(), prop::collection::vec(0..9_usize, 0..3), prop::option::of(0..12_u64), 0..8_usize)
            .prop_map(|(node, states, before, limit)| Op::ListRuns { node, states, before, limit }),
        (maybe_node(), prop::option::of(0..2_u8), 0..6_u64, any::<bool>(), 0..6_usize).prop_map(
            |(node, actor, after, newest, limit)| Op::ListAudit { node, actor, after, newest, limit }
        ),
        (0..9_u64, 0..6_usize).prop_map(|(after, limit)| Op::ListEvents { after, limit }),
    ]
}

/// How a transaction ends after its operations.
#[derive(Clone, Copy, Debug)]
enum End {
    Keep,
    Refuse,
    /// At the first operation that is refused, as decisions do.
    StopAtRefusal,
}

fn history() -> impl Strategy<Value = Vec<(Vec<Op>, End)>> {
    let end = prop_oneof![3 => Just(End::Keep), 1 => Just(End::Refuse), 2 => Just(End::StopAtRefusal)];
    prop::collection::vec((prop::collection::vec(op(), 1..6), end), 1..25)
}

fn apply(tx: &mut dyn Tx, op: &Op) -> Result<String, WriteError> {
    let when = |flag: bool| flag.then_some(WallTime(3));
    match op {
        Op::PutNode { node: id, name, removed } => {
            let node = Node { removed_at: when(*removed), ..node(*id, &format!("n{name}")) };
            tx.put_node(&node).map(|()| String::new())
        }
        Op::NextEpoch(node) => Ok(format!("{:?}", tx.next_epoch(node_id(*node))?)),
        Op::Observe(node, at) => {
            tx.observe_nodes(&[(node_id(*node), WallTime(*at))])?;
            Ok(String::new())
        }
        Op::PutInvite(number) => Ok(tx.put_invite(&invite(*number)).map(|()| String::new())?),
        Op::PutToken { token: id, name, revoked } => {
            let token = Token { revoked_at: when(*revoked), ..token(*id, &format!("t{name}")) };
            tx.put_token(&token).map(|()| String::new())
        }
        Op::PutUser { user: id, name, removed } => {
            let user = User { removed_at: when(*removed), ..user(*id, &format!("u{name}")) };
            tx.put_user(&user).map(|()| String::new())
        }
        Op::PutGrant { grant: id, revoked } => {
            let grant = RoleGrant { revoked_at: when(*revoked), ..grant(*id) };
            Ok(tx.put_grant(&grant).map(|()| String::new())?)
        }
        Op::PutLock { lock: id, lifted } => {
            let lock = Lock { lifted_at: when(*lifted), ..lock(*id, Target::Node(node_id(*id))) };
            Ok(tx.put_lock(&lock).map(|()| String::new())?)
        }
        Op::PutConsent { consent: id, standing, answered } => {
            let (standing, answered_at) = (Standing::ALL[*standing], answered.map(WallTime));
            Ok(tx.put_consent(&Consent { standing, answered_at, ..consent(*id) }).map(|()| String::new())?)
        }
        Op::PutConsentRule { rule: id, ended } => {
            let rule = ConsentRule { ended_at: when(*ended), ..rule(*id) };
            Ok(tx.put_consent_rule(&rule).map(|()| String::new())?)
        }
        Op::TrimConsents { before, batch } => {
            Ok(format!("{:?}", tx.trim_consents(WallTime(*before), *batch)?))
        }
        Op::ListConsents { standing, before, limit } => {
            let standing = standing.map(|at| Standing::ALL[at]);
            let filter =
                ConsentFilter { standing, token: None, before: before.map(|number| consent(number).id) };
            let own = ConsentFilter { token: Some(consent(1).token), ..filter.clone() };
            let alike = tx.consents_alike(node_id(1), "rm", *limit)?;
            let keyed = tx.consent_by_key("user:ada", node_id(1), "key-3")?;
            let (all, own) = (tx.consents(&filter, *limit)?, tx.consents(&own, *limit)?);
            Ok(format!("{all:?} {own:?} {alike:?} {keyed:?} {}", tx.consents_pending()?))
        }
        Op::ObserveAudit { node, seq } => {
            tx.observe_audit(node_id(*node), AuditHead { seq: Seq(*seq), hash: [1; 32] })?;
            Ok(String::new())
        }
        Op::PutPolicy { node, revision } => {
            tx.put_policy(&policy(node_id(*node), *revision)).map(|()| String::new())
        }
        Op::PolicyHistory { node, before, limit } => {
            Ok(format!("{:?}", tx.policy_history(node_id(*node), before.map(Revision), *limit)?))
        }
        Op::PutProfile(number) => {
            Ok(tx.put_profile(&profile(&format!("p{number}"), "{}")).map(|()| String::new())?)
        }
        Op::RemoveProfile(number) => Ok(format!("{:?}", tx.remove_profile(&name(&format!("p{number}")))?)),
        Op::PutRun { run: id, node, state, key, ended } => {
            let run = Run {
                state: RunState::ALL[*state],
                idempotency_key: key.map(|key| key.to_string()),
                ended_at: ended.map(WallTime),
                ..run(*id, *node)
            };
            tx.put_run(&run).map(|()| String::new())
        }
        Op::AppendEvent(subject) => Ok(format!("{:?}", tx.append_event(&event(subject.to_string()))?)),
        Op::AppendAudit(number) => Ok(format!("{:?}", tx.append_audit(&audit_row(*number))?)),
        Op::TrimEvents { keep, batch } => Ok(format!("{:?}", tx.trim_events(*keep, *batch)?)),
        Op::RemoveRuns { runs } => {
            let runs: Vec<_> = runs.iter().copied().map(run_id).collect();
            Ok(format!("{:?}", tx.remove_runs(&runs)?))
        }
        Op::ListEnded { limit } => Ok(format!("{:?} of {}", tx.ended_runs(*limit)?, tx.ended_count()?)),
        Op::ListRuns { node, states, before, limit } => {
            let filter = RunFilter {
                node: node.map(node_id),
                states: states.iter().map(|state| RunState::ALL[*state]).collect(),
                before: before.map(run_id),
            };
            Ok(format!("{:?}", tx.runs(&filter, *limit)?))
        }
        Op::ListAudit { node, actor, after, newest, limit } => {
            let actor = actor.map(|number| number.to_string());
            let filter = AuditFilter { node: node.map(node_id), actor, after: Seq(*after), newest: *newest };
            Ok(format!("{:?}", tx.audit(&filter, *limit)?))
        }
        Op::ListEvents { after, limit } => Ok(format!("{:?}", tx.events(Seq(*after), *limit)?)),
    }
}

fn audit_row(number: u8) -> AuditRow {
    AuditRow {
        node: (number < 4).then(|| node_id(number)),
        ..AuditRow::new(WallTime(1), (number % 2).to_string(), "test", Outcome::Allowed)
    }
}

fn transaction(tx: &mut dyn Tx, ops: &[Op], end: End) -> Result<Vec<String>, WriteError> {
    let mut answers = Vec::new();
    for op in ops {
        match (apply(tx, op), end) {
            (Err(error), End::StopAtRefusal) => return Err(error),
            (answer, End::Keep | End::Refuse | End::StopAtRefusal) => answers.push(format!("{answer:?}")),
        }
    }
    match end {
        End::Keep | End::StopAtRefusal => Ok(answers),
        End::Refuse => no(),
    }
}

/// All that can be read.
fn dump(view: &dyn Read) -> Result<String, StoreError> {
    let nodes: Vec<NodeId> = (0..4).map(node_id).collect();
    let by_id = nodes.iter().map(|id| Ok((view.node(*id)?, view.policy(*id)?)));
    let by_id = by_id.collect::<Result<Vec<_>, StoreError>>()?;
    let keys = nodes.iter().flat_map(|node| ["0", "1", "2"].map(|key| (*node, key)));
    let keys = keys.map(|(node, key)| view.run_by_key("token:admin", node, key));
    let keys = keys.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(format!(
        "{by_id:#?}\n{keys:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}",
        view.generation()?,
        view.nodes()?,
        view.invites(99)?,
        view.tokens()?,
        (view.policies()?, view.profiles()?),
        view.runs(&RunFilter::default(), 99)?,
        view.open_runs()?,
        view.events(Seq(0), 999)?,
        view.events_span()?,
        view.audit(&AuditFilter::default(), 999)?,
        (
            view.users()?,
            view.grants()?,
            view.locks()?,
            view.consents(&ConsentFilter::default(), 99)?,
            view.consent_rules()?,
            view.audit_head()?,
        ),
    ))
}

async fn play(subject: &Subject, history: &[(Vec<Op>, End)]) -> (Vec<String>, String) {
    let mut answers = Vec::new();
    for (ops, end) in history.iter().cloned() {
        let answer = subject.write(move |tx| transaction(tx, &ops, end)).await;
        answers.push(format!("{answer:?}"));
    }
    (answers, subject.get(dump).await)
}

/// Histories to play; more by `CORTEX_ROUNDS`.
fn rounds() -> u32 {
    std::env::var("CORTEX_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(rounds()) })]

    #[test]
    fn memory_and_sqlite_agree_on_every_history(history in history()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (memory, sqlite) = (Subject::memory(), Subject::sqlite());
        let (expected, found) = runtime.block_on(async {
            (play(&memory, &history).await, play(&sqlite, &history).await)
        });
        for (index, (expected, found)) in expected.0.iter().zip(&found.0).enumerate() {
            prop_assert_eq!(expected, found, "transaction {}: {:?}", index, &history[index]);
        }
        prop_assert_eq!(expected.1, found.1);
        prop_assert_eq!(memory.heard(), sqlite.heard());
    }
}
