//! Where a task may stand, and what its timeline tells, with their stable text forms.

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskState {
    /// It waits for a time, or for other tasks.
    Scheduled,
    /// It waits for a claim.
    Ready,
    /// Somebody works on it.
    Leased,
    /// Done.
    Done,
    /// It failed for the last time.
    Dead,
    /// Somebody asked for its end.
    Cancelled,
    /// It did not start in its time.
    Expired,
}

impl TaskState {
    /// All states.
    pub const ALL: &'static [Self] =
        &[Self::Scheduled, Self::Ready, Self::Leased, Self::Done, Self::Dead, Self::Cancelled, Self::Expired];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == text)
    }

    /// Whether nothing follows by itself; a person may still retry it.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Scheduled | Self::Ready | Self::Leased => false,
            Self::Done | Self::Dead | Self::Cancelled | Self::Expired => true,
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// What a step of a timeline tells.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum StepKind { $($(#[$doc])* $variant,)* }

        impl StepKind {
            /// All.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the text form back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// It was accepted.
    Submitted = "submitted";
    /// It waits for a time or for others.
    Scheduled = "scheduled";
    /// It waits for a claim.
    Ready = "ready";
    /// It was claimed.
    Leased = "leased";
    /// The claim ended without a result.
    Released = "released";
    /// The attempt failed.
    Failed = "failed";
    /// Done.
    Done = "done";
    /// It failed for the last time.
    Dead = "dead";
    /// Somebody asked for its end while it was worked on.
    CancelRequested = "cancel_requested";
    /// Cancelled.
    Cancelled = "cancelled";
    /// It did not start in its time.
    Expired = "expired";
    /// Its time to start was counted anew: no node could have had it.
    Postponed = "postponed";
    /// Somebody had it tried again.
    Retried = "retried";
    /// Its priority changed.
    Bumped = "bumped";
    /// A node's policy denied it; it stays away from there.
    Excluded = "excluded";
    /// An attempt that had ended reported.
    StaleReport = "stale_report";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_kind_is_read_back() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::parse(state.as_str()), Some(*state));
        }
        for kind in StepKind::ALL {
            assert_eq!(StepKind::parse(kind.as_str()), Some(*kind));
        }
        assert_eq!((TaskState::parse("gone"), StepKind::parse("")), (None, None));
    }
}
