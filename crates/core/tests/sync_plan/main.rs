//! Laws of the planner over random trees, and the safety rules of SYNC one by one.

mod disk;
mod laws;
mod rules;
mod trees;
