//! Placeholder.

/// Placeholder.
#[derive(Debug)]
pub struct Config;
/// Placeholder.
#[derive(Debug)]
pub struct Hub;
/// Placeholder.
#[derive(Debug)]
pub struct Started;
