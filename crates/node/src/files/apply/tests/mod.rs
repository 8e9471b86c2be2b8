//! Tests of receiving trees into real folders.

mod flips;
mod laws;
mod power;
mod rules;
pub(crate) mod support;
