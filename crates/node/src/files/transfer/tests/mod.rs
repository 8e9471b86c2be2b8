//! Transfers as a clerk serves them, to a hub that the test plays.

mod line;
mod pushes;
mod seals;
mod sends;
mod support;
