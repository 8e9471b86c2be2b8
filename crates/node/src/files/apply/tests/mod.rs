//! Tests of receiving trees into real folders.

mod laws;
mod rules;
mod support;
