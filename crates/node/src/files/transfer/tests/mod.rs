//! Transfers as a clerk serves them, to a hub that the test plays.

mod line;
mod pushes;
mod sends;
mod support;
