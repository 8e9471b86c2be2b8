//! Tests of receiving trees into real folders.

mod flips;
mod laws;
mod mapped;
mod power;
mod rules;
pub(crate) mod support;
