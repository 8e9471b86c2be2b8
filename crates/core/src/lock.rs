//! Locks: an administrator's quick no. What a lock holds on starts nothing, and what it had
//! running is ended (SECURITY, *Leaving*).

use crate::error::{Code, Refusal};
use crate::id::{LockId, NodeId, TokenId, UserId};
use crate::limits::{LOCK_MESSAGE_BYTES_MAX, LOCK_TTL_MS_MAX};
use crate::name::{Labels, check_label, printable};
use crate::time::WallTime;

/// What a lock holds on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A person, with all tokens and sessions.
    User(UserId),
    /// One token.
    Token(TokenId),
    /// One node.
    Node(NodeId),
    /// Every node with this label.
    Label(String, String),
}

/// What a lock is to hold on, as somebody wrote it: `user:ada`, `token:ci`, `node:build-2`,
/// `label:role=ci`. Names are looked up by whoever keeps the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A user's name or id.
    User(String),
    /// A token's name or id.
    Token(String),
    /// A node's name or id.
    Node(String),
    /// A label's key and value.
    Label(String, String),
}

impl Named {
    /// Reads the text form.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = || {
            let shown = printable(text, 120);
            Refusal::new(Code::InvalidArgument, format!("`{shown}` is nothing that can be locked."))
                .hint("Write user:NAME, token:NAME, node:NAME or label:KEY=VALUE.")
        };
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(wrong)?;
        match kind {
            "user" => Ok(Self::User(name.to_owned())),
            "token" => Ok(Self::Token(name.to_owned())),
            "node" => Ok(Self::Node(name.to_owned())),
            "label" => {
                let (key, value) = name.split_once('=').ok_or_else(wrong)?;
                check_label(key, value)?;
                Ok(Self::Label(key.to_owned(), value.to_owned()))
            }
            _ => Err(wrong()),
        }
    }
}

/// Refuses a message or a life that a lock cannot have.
///
/// # Errors
/// `too_large`, `invalid_argument`.
pub fn check(message: &str, ttl_ms: Option<u64>) -> Result<(), Refusal> {
    if message.len() > LOCK_MESSAGE_BYTES_MAX {
        let message = format!("The message has {} bytes; at most {LOCK_MESSAGE_BYTES_MAX}.", message.len());
        return Err(Refusal::new(Code::TooLarge, message).hint("Shorten the message."));
    }
    if ttl_ms.is_some_and(|ms| ms == 0 || ms > LOCK_TTL_MS_MAX) {
        let message = format!("`ttl_ms` must be above 0 and at most {LOCK_TTL_MS_MAX}.");
        return Err(Refusal::new(Code::InvalidArgument, message));
    }
    Ok(())
}

/// One lock as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Its id.
    pub id: LockId,
    /// What it holds on.
    pub target: Target,
    /// What whoever meets it is told.
    pub message: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: WallTime,
    /// When it stops holding by itself.
    pub expires_at: Option<WallTime>,
    /// When it was removed.
    pub lifted_at: Option<WallTime>,
    /// By whom.
    pub lifted_by: Option<String>,
}

impl Lock {
    /// Whether it holds at `now`.
    pub fn holds(&self, now: WallTime) -> bool {
        self.lifted_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// What whoever meets it is told.
    pub fn refusal(&self) -> Refusal {
        let what = match &self.target {
            Target::User(_) => "This user is locked".to_owned(),
            Target::Token(_) => "This token is locked".to_owned(),
            Target::Node(_) => "This node is locked".to_owned(),
            Target::Label(key, value) => format!("Nodes with the label `{key}={value}` are locked"),
        };
        let message = match self.message.as_str() {
            "" => format!("{what} by {}.", self.created_by),
            why => format!("{what} by {}: {}", self.created_by, printable(why, 600)),
        };
        let refusal = Refusal::new(Code::Locked, message).detail("lock", self.id.to_string());
        match self.expires_at {
            Some(end) => refusal.detail("until_ms", end.0.to_string()),
            None => refusal,
        }
    }
}

/// The locks of a hub, to be asked before everything that starts something.
#[derive(Clone, Debug, Default)]
pub struct Locks(Vec<Lock>);

impl Locks {
    /// Of these; lifted and expired ones may be among them.
    pub fn new(locks: Vec<Lock>) -> Self {
        Self(locks.into_iter().filter(|lock| lock.lifted_at.is_none()).collect())
    }

    /// How many hold.
    pub fn count(&self, now: WallTime) -> usize {
        self.holding(now).count()
    }

    /// When the next of those that hold ends by itself.
    pub fn next_end(&self, now: WallTime) -> Option<WallTime> {
        self.holding(now).filter_map(|lock| lock.expires_at).min()
    }

    /// Those that have ended by themselves and are beyond `max` in all, the first that ended first: each
    /// start of a run looks through all that were not lifted.
    pub fn beyond(&self, max: usize, now: WallTime) -> Vec<Lock> {
        let mut ended: Vec<Lock> = self.0.iter().filter(|lock| !lock.holds(now)).cloned().collect();
        ended.sort_by_key(|lock| (lock.expires_at, lock.id));
        ended.truncate(self.0.len().saturating_sub(max));
        ended
    }

    /// The lock that stops this caller.
    pub fn on_caller(&self, token: TokenId, user: Option<UserId>, now: WallTime) -> Option<&Lock> {
        self.holding(now).find(|lock| match &lock.target {
            Target::Token(locked) => *locked == token,
            Target::User(locked) => Some(*locked) == user,
            Target::Node(_) | Target::Label(..) => false,
        })
    }

    /// The lock that stops this person.
    pub fn on_user(&self, user: UserId, now: WallTime) -> Option<&Lock> {
        self.holding(now).find(|lock| lock.target == Target::User(user))
    }

    /// The lock that stops this node.
    pub fn on_node(&self, node: NodeId, labels: &Labels, now: WallTime) -> Option<&Lock> {
        self.holding(now).find(|lock| match &lock.target {
            Target::Node(locked) => *locked == node,
            Target::Label(key, value) => labels.get(key) == Some(value),
            Target::Token(_) | Target::User(_) => false,
        })
    }

    fn holding(&self, now: WallTime) -> impl Iterator<Item = &Lock> {
        self.0.iter().filter(move |lock| lock.holds(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(target: Target) -> Lock {
        Lock {
            id: LockId::mint(1, &[1; 10]),
            target,
            message: String::new(),
            created_by: "token:admin".to_owned(),
            created_at: WallTime(0),
            expires_at: Some(WallTime(100)),
            lifted_at: None,
            lifted_by: None,
        }
    }

    #[test]
    fn of_too_many_locks_those_go_that_ended_first_and_none_that_holds() {
        let ending = |n: u8, end: Option<i64>| Lock {
            id: LockId::mint(1, &[n; 10]),
            expires_at: end.map(WallTime),
            ..lock(Target::Label("role".to_owned(), "ci".to_owned()))
        };
        let all = [ending(1, None), ending(2, Some(50)), ending(3, Some(40)), ending(4, Some(900))];
        let gone = |max| {
            let beyond = Locks::new(all.to_vec()).beyond(max, WallTime(100));
            beyond.iter().map(|lock| lock.expires_at.expect("an end").0).collect::<Vec<_>>()
        };
        let next = |now| Locks::new(all.to_vec()).next_end(WallTime(now)).map(|end| end.0);
        assert_eq!((next(45), next(100), next(900)), (Some(50), Some(900), None));
        assert_eq!(gone(4), Vec::<i64>::new());
        assert_eq!((gone(3), gone(2), gone(0)), (vec![40], vec![40, 50], vec![40, 50]));
    }

    #[test]
    fn a_lock_holds_until_its_end_or_until_it_is_lifted() {
        let lock = lock(Target::Token(TokenId::mint(1, &[2; 10])));
        assert!(lock.holds(WallTime(99)) && !lock.holds(WallTime(100)));
        assert!(Lock { expires_at: None, ..lock.clone() }.holds(WallTime(i64::MAX)));
        assert!(!Lock { lifted_at: Some(WallTime(5)), ..lock }.holds(WallTime(6)));
    }

    #[test]
    fn a_lock_stops_what_it_names_and_nothing_else() {
        let (token, other) = (TokenId::mint(1, &[2; 10]), TokenId::mint(1, &[3; 10]));
        let (user, node) = (UserId::mint(1, &[4; 10]), NodeId::mint(1, &[5; 10]));
        let labels: Labels = [("role".to_owned(), "ci".to_owned())].into();
        let now = WallTime(1);
        let caller =
            |target, token, user| Locks::new(vec![lock(target)]).on_caller(token, user, now).is_some();
        assert!(
            caller(Target::Token(token), token, None) && !caller(Target::Token(token), other, Some(user))
        );
        assert!(caller(Target::User(user), other, Some(user)) && !caller(Target::User(user), other, None));
        assert!(!caller(Target::Node(node), token, Some(user)));
        let on = |target| Locks::new(vec![lock(target)]).on_node(node, &labels, now).is_some();
        let label = |value: &str| Target::Label("role".to_owned(), value.to_owned());
        assert!(on(Target::Node(node)) && on(label("ci")) && !on(label("db")) && !on(Target::Token(token)));
    }

    #[test]
    fn what_is_to_be_locked_is_read_and_nothing_else_is() {
        let read = |text: &str| Named::parse(text);
        assert_eq!(read("user:ada"), Ok(Named::User("ada".to_owned())));
        assert_eq!(read("token:ci"), Ok(Named::Token("ci".to_owned())));
        assert_eq!(read("node:build-2"), Ok(Named::Node("build-2".to_owned())));
        assert_eq!(read("label:role=ci"), Ok(Named::Label("role".to_owned(), "ci".to_owned())));
        for wrong in ["", "ada", "user:", "group:x", "label:role", "label:=ci", "label:ro le=ci", ":"] {
            assert_eq!(read(wrong).expect_err(wrong).code, Code::InvalidArgument, "{wrong:?}");
        }
    }

    #[test]
    fn a_lock_on_a_person_holds_on_what_it_shows() {
        let (user, other) = (UserId::mint(1, &[4; 10]), UserId::mint(1, &[5; 10]));
        let locks = Locks::new(vec![lock(Target::User(user))]);
        assert!(locks.on_user(user, WallTime(1)).is_some() && locks.on_user(user, WallTime(100)).is_none());
        assert!(locks.on_user(other, WallTime(1)).is_none());
    }

    #[test]
    fn the_refusal_says_who_and_why_without_hidden_characters() {
        let why = Lock {
            message: "leak?\u{202e} ask Ada".to_owned(),
            ..lock(Target::Token(TokenId::mint(1, &[2; 10])))
        };
        let refusal = why.refusal();
        assert!(refusal.message.contains("token:admin") && refusal.message.contains("ask Ada"));
        assert!(!refusal.message.contains('\u{202e}'));
        assert_eq!(refusal.code, Code::Locked);
    }
}
