//! The one place of the hub where time and randomness are read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cortex_core::id::{
    ConsentId, GrantId, InviteId, LockId, MemberId, NodeId, OpId, RunId, ScheduleId, TaskId, TokenId,
    TransferId, UserId, WatchId, WorkspaceId,
};
use cortex_core::retention::Clocks;
use cortex_core::time::{Timestamp, WallTime};

/// Both clocks; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// Wall-clock time when the clock was made.
    began: SystemTime,
    /// By how much wall-clock time is ahead of the system's.
    ahead: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        Self { origin: Instant::now(), began: SystemTime::now(), ahead: Duration::ZERO }
    }
}

impl Clock {
    /// The same with its wall-clock time ahead by so much, for tests of a clock that jumps.
    #[must_use]
    pub const fn ahead(self, ahead: Duration) -> Self {
        Self { ahead, ..self }
    }

    /// Monotonic time since the clock was made.
    pub fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment of the runtime's clock that `at` names, for `sleep_until`.
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + Duration::from_millis(at.0))
    }

    /// Wall-clock time, as the system has it.
    pub fn system(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    /// Wall-clock time.
    pub fn wall(&self) -> WallTime {
        wall(self.system())
    }

    /// What both clocks say, and said when this one was made.
    pub fn both(&self) -> Clocks {
        Clocks { wall: self.wall(), began: wall(self.began), lived_ms: self.now().0 }
    }
}

fn wall(time: SystemTime) -> WallTime {
    let ms = time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis());
    WallTime(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Bytes from the system's generator.
///
/// # Panics
/// When the system has no generator: nothing safe can be done then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "without randomness no secret may be made")]
    getrandom::fill(&mut bytes).expect("the system's random generator");
    bytes
}

macro_rules! mint {
    ($($function:ident -> $id:ident;)*) => {$(
        #[doc = concat!("A fresh [`", stringify!($id), "`].")]
        pub fn $function(clock: &Clock) -> $id {
            $id::mint(clock.wall().0.unsigned_abs(), &random())
        }
    )*};
}

mint! {
    new_node_id -> NodeId;
    new_run_id -> RunId;
    new_invite_id -> InviteId;
    new_token_id -> TokenId;
    new_lock_id -> LockId;
    new_user_id -> UserId;
    new_grant_id -> GrantId;
    new_consent_id -> ConsentId;
    new_task_id -> TaskId;
    new_schedule_id -> ScheduleId;
    new_op_id -> OpId;
    new_transfer_id -> TransferId;
    new_workspace_id -> WorkspaceId;
    new_member_id -> MemberId;
    new_watch_id -> WatchId;
}
