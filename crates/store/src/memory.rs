//! Strict reference.
