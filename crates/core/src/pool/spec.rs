//! What is submitted, and the bounds of it.

use std::fmt;

use crate::error::{Code, Refusal};
use crate::id::TaskId;
use crate::limits;
use crate::name::{Labels, Name, Selector, check_labels};
use crate::run::RunSpec;

/// How soon: 0 to 8, and 9, which is the administration's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// What a task has that does not say.
    pub const DEFAULT: Self = Self(5);
    /// The highest that waiting leads to, and that one may ask for without being an administrator.
    pub const ORDINARY_MAX: Self = Self(8);
    /// Before everything else.
    pub const URGENT: Self = Self(9);

    /// Refuses what is above 9.
    pub fn new(number: u8) -> Result<Self, Refusal> {
        if number > Self::URGENT.0 {
            let message = format!("The priority {number} is not one of 0 to 9.");
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Choose 0 (last) to 8 (first); 9 is for administrators."));
        }
        Ok(Self(number))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What sort of work it is: `command` for nodes, any other name for workers that ask for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Name);

impl Kind {
    /// That of commands.
    pub const COMMAND: &'static str = "command";

    /// A kind of payloads. `command` is refused: nodes have those, and within their policies.
    pub fn payload(name: Name) -> Result<Self, Refusal> {
        if name.as_str() == Self::COMMAND {
            let message = "The kind `command` is that of tasks with a command, which nodes work on.";
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Choose another name for the kind of your payloads."));
        }
        Ok(Self(name))
    }

    /// That of commands.
    pub fn command() -> Self {
        Self(Name::parse(Self::COMMAND).unwrap_or_else(|_| unreachable!("it is a name")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether nodes work on it.
    pub fn is_command(&self) -> bool {
        self.as_str() == Self::COMMAND
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A command, on a node and within its policy.
    Command(RunSpec),
    /// Bytes that a worker of this kind understands.
    Payload {
        /// Which workers.
        kind: Kind,
        /// At most [`limits::PAYLOAD_BYTES_MAX`].
        bytes: Vec<u8>,
    },
}

impl Work {
    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Command(_) => Kind::command(),
            Self::Payload { kind, .. } => kind.clone(),
        }
    }
}

/// The wait before the next attempt: `initial × factor^(tries - 1)`, at most `max`, and of that a
/// random part less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure, milliseconds.
    pub initial_ms: u64,
    /// Percent by which each wait is that of the one before: 200 doubles it.
    pub factor_percent: u32,
    /// At most, milliseconds.
    pub max_ms: u64,
    /// Up to so many percent of a wait are taken off by chance, so that what failed together is not
    /// tried again together.
    pub jitter_percent: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_ms: limits::RETRY_MS, factor_percent: 200, max_ms: 5 * 60_000, jitter_percent: 20 }
    }
}

impl Backoff {
    /// The wait after so many failures, milliseconds; `chance` is any number.
    pub fn wait_ms(&self, tries: u32, chance: u64) -> u64 {
        let mut wait = self.initial_ms.min(self.max_ms);
        for _ in 1..tries {
            let next = (wait.saturating_mul(u64::from(self.factor_percent)) / 100).min(self.max_ms);
            if next <= wait {
                break;
            }
            wait = next;
        }
        let most = wait * u64::from(self.jitter_percent.min(100)) / 100;
        wait - chance % (most + 1)
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.initial_ms > self.max_ms || self.max_ms > limits::RETRY_MS_MAX {
            let message = format!(
                "The wait between attempts begins at {} ms and goes up to {} ms; the bound is {} ms.",
                self.initial_ms,
                self.max_ms,
                limits::RETRY_MS_MAX
            );
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        if !(100..=10_000).contains(&self.factor_percent) || self.jitter_percent > 100 {
            let message =
                "The factor of the waits is 1 to 100, and the part left to chance 0 to 100 percent.";
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        Ok(())
    }
}

/// So many tasks with this key are worked on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// The key, among the tasks of all owners.
    pub key: String,
    /// How many.
    pub limit: u32,
}

/// What is submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// What.
    pub work: Work,
    /// Labels that a node must have.
    pub selector: Selector,
    /// Labels of nodes that are asked first.
    pub prefer: Selector,
    /// Attempts in all.
    pub attempts_max: u32,
    /// Waits between them.
    pub backoff: Backoff,
    /// It must start in that time, counted from when it is due.
    pub start_within_ms: Option<u64>,
    /// That time does not pass while no node is enrolled that could have it.
    pub start_within_pauses: bool,
    /// Length of its lease.
    pub lease_ms: u64,
    /// Tasks that must be done before.
    pub after: Vec<TaskId>,
    /// How many of its sort at once.
    pub concurrency: Option<Concurrency>,
    /// For people and lists.
    pub labels: Labels,
}

impl TaskSpec {
    /// A task with nothing but its work.
    pub fn new(work: Work) -> Self {
        Self {
            work,
            selector: Selector::default(),
            prefer: Selector::default(),
            attempts_max: limits::ATTEMPTS_DEFAULT,
            backoff: Backoff::default(),
            start_within_ms: None,
            start_within_pauses: false,
            lease_ms: limits::LEASE_MS,
            after: Vec::new(),
            concurrency: None,
            labels: Labels::new(),
        }
    }

    /// Checks lengths and counts.
    pub fn check(&self) -> Result<(), Refusal> {
        match &self.work {
            Work::Command(run) => {
                run.check()?;
                if run.stdin {
                    let message = "A task's command has no standard input: nobody may be there to send it.";
                    return Err(Refusal::new(Code::InvalidArgument, message)
                        .hint("Give what it needs as arguments or in a file."));
                }
            }
            Work::Payload { bytes, .. } if bytes.len() > limits::PAYLOAD_BYTES_MAX => {
                let message = format!(
                    "The payload has {} bytes; the bound is {}.",
                    bytes.len(),
                    limits::PAYLOAD_BYTES_MAX
                );
                return Err(Refusal::new(Code::TooLarge, message)
                    .hint("Put the data where the worker finds it, and submit its name."));
            }
            Work::Payload { .. } => {}
        }
        within("attempts", u64::from(self.attempts_max), 1, u64::from(limits::ATTEMPTS_MAX))?;
        within("lease in milliseconds", self.lease_ms, limits::LEASE_MS_MIN, limits::LEASE_MS_MAX)?;
        if let Some(ms) = self.start_within_ms {
            within("time to start in milliseconds", ms, 1, limits::RUN_TIMEOUT_MS_MAX)?;
        }
        if let Some(Concurrency { key, limit }) = &self.concurrency {
            let key_max = limits::CONCURRENCY_KEY_BYTES_MAX as u64;
            within("bytes of the concurrency key", key.len() as u64, 1, key_max)?;
            within("tasks of one key at once", u64::from(*limit), 1, u64::from(limits::CONCURRENCY_MAX))?;
        }
        within("tasks to wait for", self.after.len() as u64, 0, limits::TASK_AFTER_MAX as u64)?;
        self.backoff.check()?;
        check_labels(&self.labels)
    }
}

fn within(what: &str, number: u64, min: u64, max: u64) -> Result<(), Refusal> {
    if (min..=max).contains(&number) {
        return Ok(());
    }
    let message = format!("The number of {what} is {number}; it must be {min} to {max}.");
    Err(Refusal::new(Code::InvalidArgument, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> TaskSpec {
        TaskSpec::new(Work::Command(RunSpec { argv: vec!["true".into()], ..RunSpec::default() }))
    }

    #[test]
    fn a_plain_command_is_good_and_each_bound_is_named() {
        command().check().expect("plain");
        let key = |bytes: usize, limit| Some(Concurrency { key: "k".repeat(bytes), limit });
        for (spec, word) in [
            (TaskSpec { attempts_max: 0, ..command() }, "attempts"),
            (TaskSpec { attempts_max: 101, ..command() }, "attempts"),
            (TaskSpec { lease_ms: 9_999, ..command() }, "lease"),
            (TaskSpec { lease_ms: u64::MAX, ..command() }, "lease"),
            (TaskSpec { start_within_ms: Some(0), ..command() }, "time to start"),
            (TaskSpec { concurrency: key(0, 1), ..command() }, "key"),
            (TaskSpec { concurrency: key(129, 1), ..command() }, "key"),
            (TaskSpec { concurrency: key(1, 0), ..command() }, "at once"),
            (TaskSpec { after: vec![TaskId::mint(1, &[0; 10]); 65], ..command() }, "wait for"),
            (
                TaskSpec { backoff: Backoff { initial_ms: 9, max_ms: 8, ..Backoff::default() }, ..command() },
                "wait",
            ),
            (
                TaskSpec { backoff: Backoff { factor_percent: 99, ..Backoff::default() }, ..command() },
                "factor",
            ),
        ] {
            let refusal = spec.check().expect_err(word);
            assert_eq!(refusal.code, Code::InvalidArgument);
            assert!(refusal.message.contains(word), "{word}: {}", refusal.message);
        }
        let stdin = RunSpec { argv: vec!["cat".into()], stdin: true, ..RunSpec::default() };
        assert!(TaskSpec::new(Work::Command(stdin)).check().is_err());
    }

    #[test]
    fn a_payload_has_a_bound_and_a_kind_that_is_not_of_commands() {
        let kind = |text: &str| Name::parse(text).and_then(Kind::payload);
        let of =
            |len| TaskSpec::new(Work::Payload { kind: kind("resize").expect("a kind"), bytes: vec![0; len] });
        of(0).check().expect("empty");
        of(limits::PAYLOAD_BYTES_MAX).check().expect("as large as may be");
        assert_eq!(of(limits::PAYLOAD_BYTES_MAX + 1).check().expect_err("too large").code, Code::TooLarge);
        assert!(kind("command").is_err() && kind("Command").is_err());
    }

    #[test]
    fn waits_double_up_to_their_bound_and_chance_only_shortens_them() {
        let backoff = Backoff { initial_ms: 100, factor_percent: 200, max_ms: 1_000, jitter_percent: 0 };
        let waits: Vec<u64> = [1, 2, 3, 4, 5, u32::MAX].map(|tries| backoff.wait_ms(tries, 7)).to_vec();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        let chancy = Backoff { jitter_percent: 20, ..backoff };
        for chance in 0..1_000 {
            assert!((320..=400).contains(&chancy.wait_ms(3, chance)));
        }
        assert_eq!(Backoff { factor_percent: 100, ..backoff }.wait_ms(u32::MAX, 0), 100);
        assert_eq!(Backoff { initial_ms: 0, ..backoff }.wait_ms(9, u64::MAX), 0);
    }

    #[test]
    fn a_priority_is_one_of_ten() {
        assert_eq!(Priority::new(9).expect("the highest"), Priority::URGENT);
        assert!(Priority::new(10).is_err() && Priority::new(255).is_err());
    }
}
