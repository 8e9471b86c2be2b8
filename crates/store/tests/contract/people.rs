//! Users, grants, locks, questions and their lasting answers.

use cortex_core::consent::{Consent, ConsentRule, Pattern, Standing};
use cortex_core::id::{ConsentId, GrantId, LockId, Seq, UserId};
use cortex_core::lock::{Lock, Target};
use cortex_core::name::Selector;
use cortex_core::node::{AuditHead, Node};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_core::token::{NodeScope, Role, Token, TokenKind};
use cortex_core::user::{PasswordHash, RoleGrant, Subject as Holder, User};
use cortex_store::ConsentFilter;
use cortex_store::chain::CHAIN_START;

use crate::entities::{name, node, token};
use crate::subject::Subject;
use crate::support::{bytes, node_id, run_id};

pub(crate) fn user(number: u8, called: &str) -> User {
    User {
        id: UserId::from_slice(&bytes(number)).expect("sixteen bytes"),
        name: name(called),
        password: Some(PasswordHash::new(format!("$argon2id$v=19${number}"))),
        groups: [name("ops"), name("dev")].into(),
        created_at: WallTime(1),
        removed_at: None,
    }
}

pub(crate) fn grant(number: u8) -> RoleGrant {
    RoleGrant {
        id: GrantId::from_slice(&bytes(number)).expect("sixteen bytes"),
        subject: if number.is_multiple_of(2) {
            Holder::Group(name("ops"))
        } else {
            Holder::User(user(1, "u").id)
        },
        role: Role::Operator,
        selector: Selector::parse("role=ci,os=linux").expect("a good selector"),
        created_by: "token:admin".to_owned(),
        created_at: WallTime(2),
        revoked_at: None,
    }
}

pub(crate) fn lock(number: u8, target: Target) -> Lock {
    Lock {
        id: LockId::from_slice(&bytes(number)).expect("sixteen bytes"),
        target,
        message: "\u{fc}: ask \"Ada\"".to_owned(),
        created_by: "user:ada".to_owned(),
        created_at: WallTime(1),
        expires_at: Some(WallTime(9)),
        lifted_at: None,
        lifted_by: None,
    }
}

pub(crate) fn consent(number: u8) -> Consent {
    Consent {
        id: ConsentId::from_slice(&bytes(number)).expect("sixteen bytes"),
        run: run_id(u64::from(number)),
        node: node_id(1),
        caller: "user:ada".to_owned(),
        token: token(1, "t").id,
        user: Some(user(1, "u").id),
        spec: RunSpec {
            argv: vec!["rm".to_owned(), "\u{1F980} \"\\ \u{1}".to_owned()],
            cwd: Some("/tmp".to_owned()),
            env: vec![("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())],
            timeout_ms: Some(u64::MAX),
            stdin: true,
        },
        key: Some(format!("key-{number}")),
        traceparent: Some("00-aa-bb-01".to_owned()),
        reason: "to see \u{1F980}".to_owned(),
        rule: "sensitive rm".to_owned(),
        notes: vec!["removes files".to_owned()],
        standing: Standing::Pending,
        answered_by: None,
        note: None,
        created_at: WallTime(1),
        expires_at: WallTime(2),
        answered_at: None,
    }
}

pub(crate) fn rule(number: u8) -> ConsentRule {
    ConsentRule {
        id: ConsentId::from_slice(&bytes(number)).expect("sixteen bytes"),
        node: node_id(1),
        token: token(1, "t").id,
        pattern: Pattern(vec!["git".to_owned(), "push".to_owned()]),
        exact: true,
        cwd: Some("/srv".to_owned()),
        env: vec![("B".to_owned(), "2".to_owned())],
        stdin: true,
        until: Some(WallTime(7)),
        made_by: "user:ada".to_owned(),
        made_at: WallTime(3),
        ended_at: None,
    }
}

fn answered(number: u8, standing: Standing, at: i64) -> Consent {
    Consent {
        standing,
        answered_by: Some("user:bob".to_owned()),
        note: Some("no".to_owned()),
        answered_at: Some(WallTime(at)),
        spec: RunSpec { argv: vec!["ls".to_owned()], ..RunSpec::default() },
        user: None,
        ..consent(number)
    }
}

pub(crate) async fn people_and_what_concerns_them_are_read_back_to_the_last_field(subject: Subject) {
    let targets = [
        Target::User(user(1, "u").id),
        Target::Token(token(1, "t").id),
        Target::Node(node_id(1)),
        Target::Label("a".to_owned(), "b:c=d".to_owned()),
    ];
    let locks: Vec<Lock> = (1..).zip(targets).map(|(number, target)| lock(number, target)).collect();
    let kept = locks.clone();
    subject
        .put(move |tx| {
            tx.put_user(&user(1, "ada"))?;
            tx.put_grant(&grant(1))?;
            tx.put_grant(&grant(2))?;
            for lock in &kept {
                tx.put_lock(lock)?;
            }
            tx.put_consent(&consent(1))?;
            tx.put_consent(&answered(2, Standing::Denied, 5))?;
            tx.put_consent_rule(&rule(1))?;
            let scoped = NodeScope::Selector(Selector::parse("role=ci").expect("a good selector"));
            tx.put_token(&Token { nodes: Some(scoped), ..token(1, "t") })
        })
        .await;
    subject
        .get(move |view| {
            assert_eq!(view.user(user(1, "u").id)?, Some(user(1, "ada")));
            assert_eq!(view.user_named(&name("ada"))?, Some(user(1, "ada")));
            assert_eq!(view.grants()?, [grant(1), grant(2)]);
            assert_eq!((view.locks()?, view.lock(locks[3].id)?), (locks.clone(), Some(locks[3].clone())));
            assert_eq!(view.consent(consent(1).id)?, Some(consent(1)));
            assert_eq!(view.consent(consent(2).id)?, Some(answered(2, Standing::Denied, 5)));
            assert_eq!(view.consent_rules()?, [rule(1)]);
            let scoped = view.token(token(1, "t").id)?.and_then(|token| token.nodes);
            assert_eq!(scoped, Some(NodeScope::Selector(Selector::parse("role=ci").expect("a selector"))));
            Ok(())
        })
        .await;
}

pub(crate) async fn two_live_users_cannot_share_a_name(subject: Subject) {
    subject.put(|tx| tx.put_user(&user(1, "ada"))).await;
    subject.conflicts(|tx| tx.put_user(&user(2, "ada"))).await;
    subject
        .put(|tx| {
            tx.put_user(&User { removed_at: Some(WallTime(4)), ..user(1, "ada") })?;
            tx.put_user(&user(2, "ada"))
        })
        .await;
    subject
        .get(|view| {
            assert_eq!(view.user_named(&name("ada"))?.map(|user| user.id), Some(user(2, "u").id));
            assert_eq!(view.users()?.len(), 1, "without the removed one");
            assert!(view.user(user(1, "u").id)?.is_some_and(|user| user.removed_at.is_some()));
            Ok(())
        })
        .await;
}

pub(crate) async fn what_was_ended_is_not_listed(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_grant(&grant(1))?;
            tx.put_grant(&RoleGrant { revoked_at: Some(WallTime(3)), ..grant(1) })?;
            let held = lock(1, Target::Node(node_id(1)));
            tx.put_lock(&held)?;
            tx.put_lock(&Lock { lifted_at: Some(WallTime(3)), lifted_by: Some("hub".to_owned()), ..held })?;
            tx.put_consent_rule(&rule(1))?;
            Ok(tx.put_consent_rule(&ConsentRule { ended_at: Some(WallTime(3)), ..rule(1) })?)
        })
        .await;
    subject
        .get(|view| {
            assert!(
                view.grants()?.is_empty() && view.locks()?.is_empty() && view.consent_rules()?.is_empty()
            );
            let lifted = view.lock(lock(1, Target::Node(node_id(1))).id)?;
            assert_eq!(lifted.and_then(|lock| lock.lifted_by).as_deref(), Some("hub"));
            Ok(())
        })
        .await;
}

pub(crate) async fn sessions_that_have_ended_go_and_nothing_else_does(subject: Subject) {
    let ending = |number: u8, kind, expires: i64, revoked: Option<i64>| Token {
        kind,
        expires_at: Some(WallTime(expires)),
        revoked_at: revoked.map(WallTime),
        ..token(number, &format!("t{number}"))
    };
    subject
        .put(move |tx| {
            tx.put_token(&ending(1, TokenKind::Session, 50, None))?;
            tx.put_token(&ending(2, TokenKind::Session, 90, Some(40)))?;
            tx.put_token(&ending(3, TokenKind::Session, 60, None))?;
            tx.put_token(&ending(4, TokenKind::Session, 90, Some(60)))?;
            tx.put_token(&ending(5, TokenKind::Api, 50, Some(40)))?;
            tx.put_token(&ending(6, TokenKind::Session, 55, None))?;
            tx.put_token(&ending(7, TokenKind::Client, 50, None))
        })
        .await;
    let left = async || {
        let names = |tokens: Vec<Token>| -> Vec<String> {
            tokens.iter().map(|token| token.name.to_string()).collect()
        };
        subject.get(move |view| view.tokens().map(names)).await
    };
    assert_eq!(subject.put(|tx| Ok(tx.trim_sessions(WallTime(60), 1)?)).await, 1);
    assert_eq!(left().await, ["t7", "t6", "t5", "t4", "t3", "t2"], "the oldest went first");
    assert_eq!(subject.put(|tx| Ok(tx.trim_sessions(WallTime(60), 9)?)).await, 2);
    assert_eq!(left().await, ["t7", "t5", "t4", "t3"], "what ends then has not ended before");
    subject.put(|tx| tx.put_token(&token(8, "t1"))).await;
}

pub(crate) async fn questions_are_paged_newest_first_and_trimmed_by_their_answer(subject: Subject) {
    subject
        .put(|tx| {
            tx.put_consent(&consent(1))?;
            tx.put_consent(&answered(2, Standing::Approved, 50))?;
            tx.put_consent(&answered(3, Standing::Denied, 40))?;
            tx.put_consent(&answered(4, Standing::Expired, 60))?;
            Ok(tx.put_consent(&consent(5))?)
        })
        .await;
    let ids = |consents: Vec<Consent>| -> Vec<u64> {
        consents.iter().map(|one| (1..=5).find(|n| run_id(*n) == one.run).unwrap_or(0)).collect()
    };
    subject
        .get(move |view| {
            let list = |standing, before: Option<u8>, limit| {
                let before = before.map(|number| consent(number).id);
                view.consents(&ConsentFilter { standing, before, token: None }, limit).map(ids)
            };
            assert_eq!(list(None, None, 9)?, [5, 4, 3, 2, 1]);
            assert_eq!(list(None, Some(4), 2)?, [3, 2]);
            assert_eq!(list(Some(Standing::Pending), None, 9)?, [5, 1]);
            assert_eq!(list(Some(Standing::Pending), Some(5), 9)?, [1]);
            Ok(())
        })
        .await;
    assert_eq!(subject.put(|tx| Ok(tx.trim_consents(WallTime(60), 1)?)).await, 1);
    let left = subject.get(move |view| view.consents(&ConsentFilter::default(), 9).map(ids)).await;
    assert_eq!(left, [5, 4, 2, 1], "the oldest answer went first");
    assert_eq!(subject.put(|tx| Ok(tx.trim_consents(WallTime(60), 9)?)).await, 1, "what waits stays");
}

pub(crate) async fn questions_are_found_by_their_token_key_and_program(subject: Subject) {
    let other =
        |number| Consent { token: token(2, "o").id, key: Some("key-1".to_owned()), ..consent(number) };
    let ls = |number, standing| Consent {
        spec: RunSpec { argv: vec!["ls".to_owned(), "rm".to_owned()], ..RunSpec::default() },
        node: node_id(if number == 7 { 2 } else { 1 }),
        ..answered(number, standing, 5)
    };
    subject
        .put(move |tx| {
            tx.put_consent(&consent(1))?;
            tx.put_consent(&other(2))?;
            tx.put_consent(&Consent { key: None, ..consent(3) })?;
            tx.put_consent(&ls(4, Standing::Approved))?;
            tx.put_consent(&ls(5, Standing::Denied))?;
            tx.put_consent(&ls(6, Standing::Expired))?;
            Ok(tx.put_consent(&ls(7, Standing::Denied))?)
        })
        .await;
    subject
        .get(move |view| {
            let own = |standing, number| {
                let filter = ConsentFilter { standing, token: Some(token(number, "x").id), before: None };
                Ok(view.consents(&filter, 9)?.iter().map(|one| one.id).collect::<Vec<_>>())
            };
            let ids = |numbers: &[u8]| numbers.iter().map(|number| consent(*number).id).collect::<Vec<_>>();
            assert_eq!(own(Some(Standing::Pending), 1)?, ids(&[3, 1]));
            assert_eq!(own(None, 1)?, ids(&[7, 6, 5, 4, 3, 1]));
            assert_eq!(own(None, 2)?, ids(&[2]));
            assert_eq!(view.consents_pending()?, 3);
            let keyed = |caller: &str, number, key: &str| view.consent_by_key(caller, node_id(number), key);
            assert_eq!(keyed("user:ada", 1, "key-1")?, Some(other(2)), "the newest of that key");
            assert_eq!((keyed("user:ada", 1, "key-3")?, keyed("user:ada", 2, "key-1")?), (None, None));
            assert_eq!(keyed("user:bob", 1, "key-1")?, None);
            let alike = |program: &str, limit| view.consents_alike(node_id(1), program, limit);
            assert_eq!(alike("ls", 9)?, [ls(5, Standing::Denied), ls(4, Standing::Approved)]);
            assert_eq!(alike("ls", 1)?, [ls(5, Standing::Denied)]);
            assert_eq!((alike("rm", 9)?, alike("l", 9)?), (Vec::new(), Vec::new()));
            Ok(())
        })
        .await;
}

pub(crate) async fn a_witness_of_the_audit_log_only_moves_forward(subject: Subject) {
    let head = |seq| AuditHead { seq: Seq(seq), hash: [u8::try_from(seq).unwrap_or(0); 32] };
    subject
        .put(move |tx| {
            tx.put_node(&Node { audit_seen: None, ..node(1, "a") })?;
            tx.observe_audit(node_id(1), head(5))?;
            tx.observe_audit(node_id(1), head(4))?;
            Ok(tx.observe_audit(node_id(9), head(4))?)
        })
        .await;
    subject
        .get(move |view| {
            assert_eq!(view.node(node_id(1))?, Some(Node { audit_seen: Some(head(5)), ..node(1, "a") }));
            assert_eq!(view.audit_head()?, AuditHead { seq: Seq(0), hash: CHAIN_START });
            Ok(())
        })
        .await;
}
