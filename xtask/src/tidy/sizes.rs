//! The longest functions and files, printed so that they are judged. Not a limit: code is not
//! chopped to a number.

use super::source::Source;

const SHOWN: usize = 10;

/// The report as text. Tests are left out of it.
pub(super) fn report(sources: &[Source]) -> String {
    let files: Vec<(usize, String)> = sources
        .iter()
        .filter(|source| !source.path.contains("/tests/"))
        .map(|source| (source.tests_from() - 1, source.path.clone()))
        .collect();
    let functions: Vec<(usize, String)> = sources
        .iter()
        .filter(|source| !source.path.contains("/tests/"))
        .flat_map(|source| {
            let until = source.tests_from();
            let outside = source.functions().into_iter().filter(move |f| f.line < until);
            outside.map(|f| (f.length, format!("{}:{} {}", source.path, f.line, f.name)))
        })
        .collect();
    format!("{}{}", table("functions", functions), table("files", files))
}

/// Count, median, 95th percentile, and the longest.
fn table(what: &str, mut rows: Vec<(usize, String)>) -> String {
    rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let at = |percent: usize| rows.get(rows.len() * (100 - percent) / 100).map_or(0, |row| row.0);
    let mut text =
        format!("{} {what}, lines: half {}, 95 % at most {}. Longest:\n", rows.len(), at(50), at(95));
    for (length, name) in rows.iter().take(SHOWN) {
        text.push_str(&format!("{length:>6}  {name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_come_first_and_tests_are_left_out() {
        let long = "//! x\nfn long() {\n    a\n}\nfn short() {}\n#[cfg(test)]\nmod tests {\n    fn t() {\n\n\n\n    }\n}\n";
        let sources = [Source::parse("c/src/a.rs", long), Source::parse("c/tests/b.rs", "fn t() {\n}\n")];
        let expected = "\
2 functions, lines: half 1, 95 % at most 3. Longest:
     3  c/src/a.rs:2 long
     1  c/src/a.rs:5 short
1 files, lines: half 5, 95 % at most 5. Longest:
     5  c/src/a.rs
";
        assert_eq!(report(&sources), expected);
    }

    #[test]
    fn nothing_is_reported_as_nothing() {
        assert!(report(&[]).starts_with("0 functions, lines: half 0"));
    }
}
