//! Where a run may stand, and why it may have ended, with their stable text forms.

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    /// Accepted, durable, on its way to the node.
    Queued,
    /// Its process runs.
    Running,
    /// Its node is away and has some time to come back.
    Disconnected,
    /// Its process ended by itself, with whatever code.
    Exited,
    /// Its process could not be started.
    Failed,
    /// It was ended because somebody asked.
    Cancelled,
    /// It was ended at its deadline.
    TimedOut,
    /// Its end was not seen: the node did not come back, or came back without it.
    Lost,
    /// The node's own check of the policy refused it.
    Denied,
}

impl RunState {
    /// All states.
    pub const ALL: &'static [Self] = &[
        Self::Queued,
        Self::Running,
        Self::Disconnected,
        Self::Exited,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Lost,
        Self::Denied,
    ];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Disconnected => "disconnected",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Denied => "denied",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == text)
    }

    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Disconnected => false,
            Self::Exited | Self::Failed | Self::Cancelled | Self::TimedOut | Self::Lost | Self::Denied => {
                true
            }
        }
    }
}

/// Why a run ended, as its node saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndCause {
    /// The process ended by itself.
    Exited,
    /// The process could not be started.
    Failed,
    /// Ended on request.
    Cancelled,
    /// Ended at the deadline.
    TimedOut,
    /// The node's policy refused it.
    Denied,
    /// The node process restarted while it ran: what became of it is not known.
    UnknownOutcome,
}

impl EndCause {
    /// All causes.
    pub const ALL: &'static [Self] =
        &[Self::Exited, Self::Failed, Self::Cancelled, Self::TimedOut, Self::Denied, Self::UnknownOutcome];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Denied => "denied",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.as_str() == text)
    }

    /// The state in which this leaves the run.
    pub const fn state(self) -> RunState {
        match self {
            Self::Exited => RunState::Exited,
            Self::Failed => RunState::Failed,
            Self::Cancelled => RunState::Cancelled,
            Self::TimedOut => RunState::TimedOut,
            Self::Denied => RunState::Denied,
            Self::UnknownOutcome => RunState::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_causes_are_read_back_from_their_text() {
        assert!(RunState::ALL.iter().all(|state| RunState::parse(state.as_str()) == Some(*state)));
        assert!(EndCause::ALL.iter().all(|cause| EndCause::parse(cause.as_str()) == Some(*cause)));
        assert_eq!((RunState::parse("Exited"), EndCause::parse("")), (None, None));
        assert!(EndCause::ALL.iter().all(|cause| cause.state().is_final()));
    }
}
