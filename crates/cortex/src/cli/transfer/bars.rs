//! Progress for people: a bar for each node on a terminal's standard error, and nothing elsewhere.

use std::io::IsTerminal as _;

use cortex_core::name::printable;
use cortex_wire::http::{TransferNodeView, TransferView};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Widest name in front of a bar.
const NAME_CHARS_MAX: usize = 24;
/// Bars that fit under one another; beyond that the rest has none.
const BARS_MAX: usize = 24;
const STYLE: &str =
    "{prefix:.bold} {bar:24} {bytes:>11}/{total_bytes:11} {bytes_per_sec:>13} eta {eta:>4}  {msg}";
/// One line, however narrow the terminal is.
const SPINNER: &str = "{spinner} {wide_msg}";

/// The bars of one transfer.
pub(in crate::cli) struct Bars {
    all: Option<MultiProgress>,
    bars: Vec<ProgressBar>,
}

impl Bars {
    /// Bars, where somebody sees them.
    pub(in crate::cli) fn new(is_quiet: bool) -> Self {
        let seen = !is_quiet && std::io::stderr().is_terminal();
        let all = seen.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(5)));
        Self { all, bars: Vec::new() }
    }

    /// Something of unknown length goes on; it ends with what is given back.
    pub(in crate::cli) fn spinner(&self, what: &str) -> ProgressBar {
        let Some(all) = &self.all else { return ProgressBar::hidden() };
        let style =
            ProgressStyle::with_template(SPINNER).unwrap_or_else(|_| ProgressStyle::default_spinner());
        let spinner = all.add(ProgressBar::new_spinner().with_style(style).with_message(what.to_owned()));
        spinner.enable_steady_tick(std::time::Duration::from_millis(100));
        spinner
    }

    /// How it stands.
    pub(in crate::cli) fn show(&mut self, view: &TransferView) {
        let Some(all) = &self.all else { return };
        let width = view.nodes.iter().map(|node| name(node).chars().count()).max().unwrap_or(0);
        for (at, node) in view.nodes.iter().take(BARS_MAX).enumerate() {
            if self.bars.len() == at {
                let style =
                    ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = all.add(ProgressBar::new(0).with_style(style));
                bar.set_prefix(format!("{:width$}", name(node)));
                self.bars.push(bar);
            }
            let bar = &self.bars[at];
            // What moves can be more than was known before.
            bar.set_length(node.bytes_total.max(node.bytes_moved));
            bar.set_position(node.bytes_moved);
            bar.set_message(stage(node));
        }
    }

    /// Has something said above them.
    pub(in crate::cli) fn above(&self, say: impl FnOnce()) {
        match &self.all {
            Some(all) => all.suspend(say),
            None => say(),
        }
    }

    /// Takes them from the terminal, for what is said next.
    pub(in crate::cli) fn end(&mut self) {
        self.bars.drain(..).for_each(|bar| bar.finish_and_clear());
        if let Some(all) = &self.all {
            // A terminal that is gone has nothing to be cleared.
            drop(all.clear());
        }
    }
}

fn name(node: &TransferNodeView) -> String {
    printable(&node.node, NAME_CHARS_MAX)
}

/// The state, with the steps once names are given.
fn stage(node: &TransferNodeView) -> String {
    let state = printable(&node.state.replace('_', " "), 20);
    match node.state.as_str() {
        "applying" if node.steps_total > 0 => format!("{state} {}/{}", node.steps_done, node.steps_total),
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_of_a_bar_is_one_and_names_the_state() {
        for style in [STYLE, SPINNER] {
            ProgressStyle::with_template(style).expect("a template");
        }
        let node = TransferNodeView {
            node: "a".into(),
            path: "/x".into(),
            state: "in_sync".into(),
            bytes_total: 0,
            bytes_moved: 0,
            wire_bytes: 0,
            steps_total: 9,
            steps_done: 4,
            duration_ms: 0,
            error: None,
            end: None,
            left_out: None,
        };
        assert_eq!(stage(&node), "in sync");
        assert_eq!(stage(&TransferNodeView { state: "applying".into(), ..node }), "applying 4/9");
    }
}
