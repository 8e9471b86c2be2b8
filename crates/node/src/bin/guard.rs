//! A guard and nothing else, for the tests of this crate. The `cortex` program is its own guard.

fn main() {
    cortex_node::run_if_guard();
}
