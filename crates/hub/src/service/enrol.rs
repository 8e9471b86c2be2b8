//! Stand-in for the use case of joining.

use std::sync::Arc;

use crate::authority::Authority;
use crate::service::Context;

/// Joining.
#[derive(Clone)]
pub struct Enrol;

impl Enrol {
    /// The use case.
    pub fn new(_context: Context, _authority: Arc<Authority>) -> Self {
        Self
    }
}
