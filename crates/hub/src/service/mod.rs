//! The use cases. HTTP, gRPC and later MCP only translate; what may be done, and by whom, is here.

use std::sync::Arc;

use cortex_core::token::{Role, Token};
use cortex_core::{Code, Refusal};
use cortex_store::{Store, StoreError, WriteError};

use crate::bus::Bus;
use crate::clock::Clock;
use crate::directory::Directory;

/// What every use case needs. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Clock,
    /// What is known without the store.
    pub directory: Directory,
    /// Where committed events go.
    pub bus: Bus,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token that was shown.
    pub token: Arc<Token>,
}

impl Caller {
    /// The name in audit rows: `token:<name>`.
    pub fn actor(&self) -> String {
        format!("token:{}", self.token.name)
    }

    /// Whether the caller may do what needs `role`.
    pub fn require(&self, role: Role) -> Result<(), Refusal> {
        self.token.require(role)
    }
}

/// A failed store as callers see it. The details go to the log, where it is handled.
pub fn store_refusal(error: StoreError) -> Refusal {
    tracing::error!(%error, "store failed");
    Refusal::new(
        Code::StoreUnavailable,
        "The hub's store did not do its work in time; nothing was changed, or it cannot be told whether it was.",
    )
}

/// The refusal of a write, or its failed store.
pub fn write_refusal(error: WriteError) -> Refusal {
    match error {
        WriteError::Refused(refusal) => refusal,
        WriteError::Store(error) => store_refusal(error),
    }
}
