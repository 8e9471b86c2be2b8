//! The decisions: who may answer a question, what an answer makes of it, and how it ends without
//! one. A question that was answered, or has ended, is never touched again.

use super::{Consent, ConsentRule, Pattern, Standing, risks};
use crate::error::{Code, Refusal};
use crate::id::{ConsentId, TokenId, UserId};
use crate::limits::{
    CONSENT_RULE_MS_MAX, CONSENT_TEXT_BYTES_MAX, CONSENT_TTL_MS, CONSENTS_OPEN_MAX,
    CONSENTS_OPEN_PER_TOKEN_MAX,
};
use crate::name::printable;
use crate::time::WallTime;
use crate::token::TokenKind;

/// What somebody says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Yes, this once.
    Once,
    /// Yes, and to exactly this command for so many milliseconds.
    For(u64),
    /// Yes, and to every command that begins with so many words of this one.
    Pattern {
        /// How many: the program is the first.
        words: usize,
        /// For so many milliseconds; `None` until somebody ends it.
        for_ms: Option<u64>,
    },
    /// No.
    Deny {
        /// Why, for whoever asked.
        note: String,
    },
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answerer {
    /// `user:<name>` or `token:<name>`.
    pub actor: String,
    /// With which token.
    pub token: TokenId,
    /// For which user, when the token is one's.
    pub user: Option<UserId>,
    /// What the token is for.
    pub kind: TokenKind,
}

/// What an answer made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The question, answered.
    pub consent: Consent,
    /// The answer for questions to come, when it is one.
    pub lasting: Option<ConsentRule>,
}

/// A question as it is about to be written. `open` are those that wait at this moment: in all, and of
/// this token.
///
/// # Errors
/// `quota`.
pub fn ask(draft: Consent, open: (usize, usize), now: WallTime) -> Result<Consent, Refusal> {
    let (all, own) = open;
    if own >= CONSENTS_OPEN_PER_TOKEN_MAX {
        let message = format!("`{}` has {own} questions that wait, the most it may have.", draft.caller);
        return Err(Refusal::new(Code::Quota, message)
            .hint("Wait for an answer, or take one back with `cortex consent withdraw ID`."));
    }
    if all >= CONSENTS_OPEN_MAX {
        let message = format!("{all} questions wait, the most that this hub keeps open.");
        return Err(Refusal::new(Code::Quota, message)
            .hint("Answer some with `cortex consent approve` or `cortex consent deny`, then ask again."));
    }
    Ok(Consent {
        notes: risks(&draft.spec).into_iter().map(str::to_owned).collect(),
        standing: Standing::Pending,
        answered_by: None,
        note: None,
        created_at: now,
        expires_at: now.plus_ms(CONSENT_TTL_MS),
        answered_at: None,
        ..draft
    })
}

/// Refuses a reason that says nothing, or too much.
///
/// # Errors
/// `invalid_argument`, `too_large`.
pub fn check_reason(reason: &str) -> Result<(), Refusal> {
    check_text("reason", "Say in a few words what the command is for.", reason)
}

/// Answers a question. `lasting` is the id of the answer that lasts, when it is one.
///
/// # Errors
/// `forbidden` for the token of an AI client, and for whoever asked; `conflict` when the question was
/// answered, or has ended; `invalid_argument`, `too_large`.
pub fn answer(
    consent: &Consent,
    reply: &Reply,
    by: &Answerer,
    lasting: ConsentId,
    now: WallTime,
) -> Result<Answered, Refusal> {
    check_answerer(consent, by)?;
    check_open(consent)?;
    if consent.expires_at <= now {
        let message = format!("Question {} has waited too long; it was not answered in time.", consent.id);
        return Err(Refusal::new(Code::Conflict, message).hint("Let the caller ask again."));
    }
    let by = by.actor.as_str();
    let yes = |lasting| Answered {
        consent: settled(consent, Standing::Approved, by.to_owned(), None, now),
        lasting,
    };
    match reply {
        Reply::Once => Ok(yes(None)),
        Reply::For(ms) => {
            let whole = (consent.spec.argv.len(), true);
            Ok(yes(Some(rule(consent, whole, Some(*ms), by, (lasting, now))?)))
        }
        Reply::Pattern { words, for_ms } => {
            Ok(yes(Some(rule(consent, (*words, false), *for_ms, by, (lasting, now))?)))
        }
        Reply::Deny { note } => {
            check_text("note", "Give a few words for whoever asked with `--note`.", note)?;
            let note = Some(note.trim().to_owned());
            let consent = settled(consent, Standing::Denied, by.to_owned(), note, now);
            Ok(Answered { consent, lasting: None })
        }
    }
}

/// The answer for questions to come: to commands that begin with so many words of this one, and to
/// nothing longer when it is `exact`.
fn rule(
    consent: &Consent,
    (words, exact): (usize, bool),
    for_ms: Option<u64>,
    by: &str,
    (id, now): (ConsentId, WallTime),
) -> Result<ConsentRule, Refusal> {
    check_span(for_ms)?;
    if words == 0 || words > consent.spec.argv.len() {
        let message =
            format!("The command has {} words; {words} of them is no pattern.", consent.spec.argv.len());
        return Err(Refusal::new(Code::InvalidArgument, message)
            .hint("Choose how many of its first words must stay the same, the program among them."));
    }
    Ok(ConsentRule {
        id,
        node: consent.node,
        token: consent.token,
        pattern: Pattern(consent.spec.argv[..words].to_vec()),
        exact,
        cwd: consent.spec.cwd.clone(),
        env: consent.spec.env.clone(),
        stdin: consent.spec.stdin,
        until: for_ms.map(|ms| now.plus_ms(ms)),
        made_by: by.to_owned(),
        made_at: now,
        ended_at: None,
    })
}

/// Ends a question whose time is over; `None` when it is not, or was answered.
pub fn expire(consent: &Consent, now: WallTime) -> Option<Consent> {
    let due = consent.standing == Standing::Pending && consent.expires_at <= now;
    due.then(|| settled(consent, Standing::Expired, "hub".to_owned(), None, now))
}

/// Takes a question back: whoever asked, or the hub when that one may not ask any more.
///
/// # Errors
/// `conflict` when it was answered, or has ended.
pub fn withdraw(
    consent: &Consent,
    by: String,
    note: Option<String>,
    now: WallTime,
) -> Result<Consent, Refusal> {
    check_open(consent)?;
    Ok(settled(consent, Standing::Withdrawn, by, note, now))
}

fn settled(consent: &Consent, to: Standing, by: String, note: Option<String>, now: WallTime) -> Consent {
    Consent { standing: to, answered_by: Some(by), note, answered_at: Some(now), ..consent.clone() }
}

/// An answer never comes through what the asker controls.
fn check_answerer(consent: &Consent, by: &Answerer) -> Result<(), Refusal> {
    let forbidden = |message: String| {
        Err(Refusal::new(Code::Forbidden, message)
            .hint("Ask another person who has the right consents:answer."))
    };
    if by.kind == TokenKind::Client {
        return forbidden(format!("`{}` is an AI client's; it answers no questions.", by.actor));
    }
    if by.token == consent.token || (by.user.is_some() && by.user == consent.user) {
        return forbidden(format!("`{}` asked this itself; another one has to answer.", by.actor));
    }
    Ok(())
}

fn check_open(consent: &Consent) -> Result<(), Refusal> {
    if consent.standing == Standing::Pending {
        return Ok(());
    }
    let by =
        consent.answered_by.as_deref().map(|by| format!(" by {}", printable(by, 100))).unwrap_or_default();
    let message = format!("Question {} is {}{by} already.", consent.id, consent.standing.as_str());
    Err(Refusal::new(Code::Conflict, message)
        .hint(format!("Look at it with `cortex consent show {}`.", consent.id))
        .detail("standing", consent.standing.as_str()))
}

fn check_span(for_ms: Option<u64>) -> Result<(), Refusal> {
    if for_ms.is_some_and(|ms| ms == 0 || ms > CONSENT_RULE_MS_MAX) {
        let message = format!("`for_ms` must be above 0 and at most {CONSENT_RULE_MS_MAX}.");
        return Err(Refusal::new(Code::InvalidArgument, message).hint("Give a time of at most 30 days."));
    }
    Ok(())
}

fn check_text(what: &str, hint: &'static str, text: &str) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::new(Code::InvalidArgument, format!("The {what} is empty.")).hint(hint));
    }
    if text.len() > CONSENT_TEXT_BYTES_MAX {
        let message = format!("The {what} has {} bytes; at most {CONSENT_TEXT_BYTES_MAX}.", text.len());
        return Err(Refusal::new(Code::TooLarge, message).hint("Say it in fewer words."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::id::{NodeId, RunId};
    use crate::run::RunSpec;

    const NOW: WallTime = WallTime(1_000);
    const HOUR: u64 = 3_600_000;

    fn id(n: u8) -> ConsentId {
        ConsentId::mint(1, &[n; 10])
    }

    fn token(n: u8) -> TokenId {
        TokenId::mint(1, &[n; 10])
    }

    fn user(n: u8) -> Option<UserId> {
        Some(UserId::mint(1, &[n; 10]))
    }

    fn spec(argv: &[&str]) -> RunSpec {
        RunSpec { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..RunSpec::default() }
    }

    fn draft() -> Consent {
        Consent {
            id: id(1),
            run: RunId::mint(1, &[1; 10]),
            node: NodeId::mint(1, &[1; 10]),
            caller: "token:agent".to_owned(),
            token: token(1),
            user: user(1),
            spec: spec(&["git", "push", "origin"]),
            key: None,
            traceparent: None,
            reason: "to ship".to_owned(),
            rule: "sensitive git push".to_owned(),
            notes: Vec::new(),
            standing: Standing::Pending,
            answered_by: None,
            note: None,
            created_at: WallTime(0),
            expires_at: WallTime(0),
            answered_at: None,
        }
    }

    fn asked() -> Consent {
        ask(draft(), (0, 0), WallTime(0)).expect("there is room")
    }

    fn ada() -> Answerer {
        Answerer { actor: "user:ada".to_owned(), token: token(2), user: user(2), kind: TokenKind::Session }
    }

    fn deny(note: &str) -> Reply {
        Reply::Deny { note: note.to_owned() }
    }

    fn code(consent: &Consent, reply: &Reply, by: &Answerer, now: WallTime) -> Option<Code> {
        answer(consent, reply, by, id(9), now).err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_question_waits_its_time_and_names_what_a_person_should_notice() {
        let asked = asked();
        assert_eq!(
            (asked.standing, asked.expires_at),
            (Standing::Pending, WallTime(0).plus_ms(CONSENT_TTL_MS))
        );
        assert_eq!(asked.notes, ["sends something away: it pushes, publishes or copies to another machine"]);
        assert_eq!(asked.told(NOW).kind, EventKind::ConsentAsked);
    }

    #[test]
    fn one_more_than_the_bounds_is_not_asked() {
        let code = |open| ask(draft(), open, NOW).err().map(|refusal| refusal.code);
        assert_eq!(code((CONSENTS_OPEN_MAX - 1, CONSENTS_OPEN_PER_TOKEN_MAX - 1)), None);
        assert_eq!(code((CONSENTS_OPEN_MAX, 0)), Some(Code::Quota));
        assert_eq!(code((20, CONSENTS_OPEN_PER_TOKEN_MAX)), Some(Code::Quota));
    }

    #[test]
    fn nobody_answers_for_itself_and_no_client_answers_at_all() {
        let asked = asked();
        let with = |change: fn(&mut Answerer)| {
            let mut by = ada();
            change(&mut by);
            by
        };
        let forbidden = [
            with(|by| by.token = token(1)),
            with(|by| by.user = user(1)),
            with(|by| by.kind = TokenKind::Client),
        ];
        for by in forbidden {
            for reply in [Reply::Once, Reply::For(HOUR), deny("no")] {
                assert_eq!(code(&asked, &reply, &by, NOW), Some(Code::Forbidden), "{by:?} {reply:?}");
            }
        }
        assert_eq!(code(&asked, &Reply::Once, &with(|by| by.user = None), NOW), None);
        let nobodys = Consent { user: None, ..asked };
        assert_eq!(code(&nobodys, &Reply::Once, &with(|by| by.user = None), NOW), None, "both are nobody's");
    }

    #[test]
    fn an_answer_is_the_first_and_comes_in_time() {
        for standing in Standing::ALL.iter().filter(|standing| **standing != Standing::Pending) {
            let settled = Consent { standing: *standing, ..asked() };
            assert_eq!(code(&settled, &Reply::Once, &ada(), NOW), Some(Code::Conflict), "{standing:?}");
            assert_eq!(code(&settled, &deny("no"), &ada(), NOW), Some(Code::Conflict), "{standing:?}");
            assert!(withdraw(&settled, "hub".to_owned(), None, NOW).is_err(), "{standing:?}");
            assert_eq!(expire(&settled, WallTime(i64::MAX)), None, "{standing:?}");
        }
        let end = asked().expires_at;
        assert_eq!(code(&asked(), &Reply::Once, &ada(), WallTime(end.0 - 1)), None);
        assert_eq!(code(&asked(), &Reply::Once, &ada(), end), Some(Code::Conflict));
        assert_eq!(expire(&asked(), WallTime(end.0 - 1)), None);
        let expired = expire(&asked(), end).expect("its time is over");
        assert_eq!((expired.standing, expired.answered_at), (Standing::Expired, Some(end)));
    }

    #[test]
    fn each_reply_makes_what_it_says_and_no_more() {
        let made = |reply| answer(&asked(), &reply, &ada(), id(9), NOW).expect("a good answer");
        let once = made(Reply::Once);
        assert_eq!((once.consent.standing, once.lasting), (Standing::Approved, None));
        assert_eq!(once.consent.answered_by.as_deref(), Some("user:ada"));
        let hour = made(Reply::For(HOUR)).lasting.expect("it lasts");
        assert_eq!((hour.exact, hour.until), (true, Some(NOW.plus_ms(HOUR))));
        assert_eq!(hour.pattern.0, ["git", "push", "origin"]);
        let pattern = made(Reply::Pattern { words: 2, for_ms: None }).lasting.expect("it lasts");
        assert_eq!((pattern.exact, pattern.until, pattern.id), (false, None, id(9)));
        assert_eq!(pattern.pattern.0, ["git", "push"]);
        let denied = made(deny(" use a branch "));
        assert_eq!((denied.consent.standing, denied.lasting), (Standing::Denied, None));
        assert_eq!(denied.consent.note.as_deref(), Some("use a branch"));
        assert_eq!(denied.consent.told(NOW).detail.as_deref(), Some("denied"));
    }

    #[test]
    fn an_answer_out_of_bounds_is_refused() {
        let long = "x".repeat(CONSENT_TEXT_BYTES_MAX + 1);
        for (reply, expected) in [
            (Reply::For(0), Code::InvalidArgument),
            (Reply::For(CONSENT_RULE_MS_MAX + 1), Code::InvalidArgument),
            (Reply::Pattern { words: 0, for_ms: None }, Code::InvalidArgument),
            (Reply::Pattern { words: 4, for_ms: None }, Code::InvalidArgument),
            (Reply::Pattern { words: 1, for_ms: Some(0) }, Code::InvalidArgument),
            (deny(" "), Code::InvalidArgument),
            (deny(&long), Code::TooLarge),
        ] {
            assert_eq!(code(&asked(), &reply, &ada(), NOW), Some(expected), "{reply:?}");
        }
        assert!(check_reason("why").is_ok() && check_reason(" ").is_err() && check_reason(&long).is_err());
    }

    #[test]
    fn a_lasting_answer_covers_its_token_node_words_and_surroundings_for_its_time() {
        let made =
            |reply| answer(&asked(), &reply, &ada(), id(9), NOW).expect("good").lasting.expect("it lasts");
        let (exact, pattern) = (made(Reply::For(HOUR)), made(Reply::Pattern { words: 2, for_ms: None }));
        let (node, own) = (asked().node, token(1));
        let both = |node, token, spec: &RunSpec, now| {
            (exact.covers(node, token, spec, now), pattern.covers(node, token, spec, now))
        };
        let (same, more) = (spec(&["git", "push", "origin"]), spec(&["git", "push", "origin", "-f"]));
        assert_eq!(both(node, own, &same, NOW), (true, true));
        assert_eq!(both(node, own, &more, NOW), (false, true));
        assert_eq!(both(node, own, &spec(&["git", "pull"]), NOW), (false, false));
        assert_eq!(both(node, token(2), &same, NOW), (false, false));
        assert_eq!(both(NodeId::mint(1, &[2; 10]), own, &same, NOW), (false, false));
        assert_eq!(both(node, own, &same, NOW.plus_ms(HOUR)), (false, true));
        for other in [
            RunSpec { cwd: Some("/srv".to_owned()), ..same.clone() },
            RunSpec { env: vec![("GIT_SSH".to_owned(), "x".to_owned())], ..same.clone() },
            RunSpec { stdin: true, ..same.clone() },
        ] {
            assert_eq!(both(node, own, &other, NOW), (false, false), "{other:?}");
        }
        let timed = RunSpec { timeout_ms: Some(5), ..same.clone() };
        assert_eq!(both(node, own, &timed, NOW), (true, true), "it is ended sooner, and does the same");
        let ended = ConsentRule { ended_at: Some(NOW), ..pattern };
        assert!(!ended.covers(node, own, &same, NOW));
    }

    #[test]
    fn a_question_that_was_taken_back_says_by_whom_and_why() {
        let note = Some("the token was revoked".to_owned());
        let back = withdraw(&asked(), "hub".to_owned(), note.clone(), NOW).expect("it was open");
        assert_eq!((back.standing, &back.note, back.answered_at), (Standing::Withdrawn, &note, Some(NOW)));
        let event = back.told(NOW);
        assert_eq!((event.kind, event.detail.as_deref()), (EventKind::ConsentEnded, Some("withdrawn")));
    }
}
