//! Tables with medians, and the machine they were made on.
#![expect(clippy::print_stdout, reason = "the tables are the result")]

/// Samples of one figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds those of another measurement.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The value below which a share of the samples lies; 0 without samples.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
    }

    /// All of them, in their order.
    pub(crate) fn each(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Prints a heading with the machine's size and load, which every figure must be read with.
pub(crate) fn heading(title: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\n## {title}\n{cores} cores, load before: {}\n", load.trim());
}

/// Prints one line of a table.
pub(crate) fn row(cells: &[&str]) {
    println!("| {} |", cells.join(" | "));
}

/// Prints the head of a table.
pub(crate) fn head(cells: &[&str]) {
    row(cells);
    row(&vec!["---"; cells.len()]);
}

/// Prints a sentence.
pub(crate) fn note(text: &str) {
    println!("{text}");
}
