//! Stand-in for the logs of runs.

use std::path::Path;

use cortex_core::Refusal;

/// The logs of all runs.
#[derive(Clone, Debug)]
pub struct RunLogs;

impl RunLogs {
    /// Opens the logs below `dir`.
    pub fn open(dir: &Path) -> Result<Self, Refusal> {
        std::fs::create_dir_all(dir)
            .map_err(|error| Refusal::new(cortex_core::Code::Internal, error.to_string()))?;
        Ok(Self)
    }
}
