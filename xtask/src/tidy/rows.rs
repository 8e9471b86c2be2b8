//! Requirements that have a number have a test that is named after it: `r12_7_…` shows row 12.7.
//!
//! Printed, and no violation: whether a row is shown well is for a reader to judge.

use super::source::Source;

/// The rows that are delivered so far.
const ROWS: &[&str] = &["2.2", "2.3", "2.4", "2.9", "12.2", "12.3", "12.4", "12.5", "12.6", "12.7"];

/// One line that names the rows without a test.
pub(super) fn report(sources: &[Source]) -> String {
    let shown = |row: &&&str| {
        let name = format!("fn r{}_", row.replace('.', "_"));
        sources.iter().any(|source| source.lines.iter().any(|line| line.code.contains(&name)))
    };
    let (shown, missing): (Vec<&&str>, Vec<&&str>) = ROWS.iter().partition(shown);
    let missing: Vec<&str> = missing.into_iter().copied().collect();
    let rest = if missing.is_empty() { "none".to_owned() } else { missing.join(", ") };
    format!("{} of {} rows have a test named after them; missing: {rest}", shown.len(), ROWS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_shown_by_a_test_with_its_number() {
        let text = "//! x\nasync fn r12_7_one_invite_joins_one_node() {}\n// fn r2_2_only_in_a_comment()\n";
        let told = report(&[Source::parse("c/tests/a.rs", text)]);
        let expected = "1 of 10 rows have a test named after them; missing: 2.2, 2.3, 2.4, 2.9, 12.2, 12.3, 12.4, 12.5, 12.6";
        assert_eq!(told, expected);
    }
}
