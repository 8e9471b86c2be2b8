//! The error codes as the sources have them: the table of codes in core, and the table of their
//! surfaces in wire.
//!
//! It reads text, since it has to work on a tree that does not compile. What it cannot read is an
//! error and never skipped.

use anyhow::{Context, Result, bail};

use crate::repo::Repo;

/// The file with the table of codes.
pub(crate) const CODES: &str = "crates/core/src/error.rs";
/// The file with the table of their surfaces.
const SURFACES: &str = "crates/wire/src/error.rs";

/// One code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `PolicyDenied`.
    variant: String,
    /// `policy_denied`.
    pub(crate) code: String,
    /// The sentence above it.
    pub(crate) meaning: String,
    /// The code's own hint.
    pub(crate) hint: String,
    /// Its line in the table's file.
    pub(crate) line: usize,
    /// How the surfaces show it.
    pub(crate) surface: Surface,
}

/// How one code looks outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surface {
    /// `403`.
    pub(crate) http: String,
    /// `PERMISSION_DENIED`.
    pub(crate) grpc: String,
    /// `5`.
    pub(crate) exit: String,
    /// Whether the same request may succeed later.
    pub(crate) retryable: bool,
}

/// All codes, in the order of core's table.
pub(crate) fn read(repo: &Repo) -> Result<Vec<Entry>> {
    let mut entries = entries(&repo.read(CODES)?)?;
    let surfaces = surfaces(&repo.read(SURFACES)?)?;
    for entry in &mut entries {
        let row = surfaces.iter().find(|(variant, _)| *variant == entry.variant);
        let (_, surface) =
            row.with_context(|| format!("find {} in the table of {SURFACES}", entry.variant))?;
        entry.surface = surface.clone();
    }
    Ok(entries)
}

/// The rows of `codes! { … }`, without their surfaces.
fn entries(table: &str) -> Result<Vec<Entry>> {
    let (mut found, mut meaning, mut inside) = (Vec::new(), String::new(), false);
    for (index, line) in table.lines().enumerate() {
        let text = line.trim();
        if !inside {
            inside = line == "codes! {";
        } else if line == "}" {
            return Ok(found);
        } else if let Some(doc) = text.strip_prefix("///") {
            meaning = format!("{meaning} {}", doc.trim()).trim().to_owned();
        } else if !text.is_empty() {
            let entry = entry(text, std::mem::take(&mut meaning), index + 1);
            found.push(entry.with_context(|| format!("read {CODES}:{}: {text}", index + 1))?);
        }
    }
    bail!("{CODES}: there is no table `codes! {{ … }}`")
}

/// The row `Variant = "code", "hint";`.
fn entry(text: &str, meaning: String, line: usize) -> Option<Entry> {
    let parts: Vec<&str> = text.split('"').collect();
    let [variant, code, _, hint, ";"] = parts.as_slice() else { return None };
    let variant = variant.strip_suffix(" = ")?.to_owned();
    let (code, hint) = ((*code).to_owned(), (*hint).to_owned());
    Some(Entry { variant, code, meaning, hint, line, surface: Surface::default() })
}

/// The arms of `match code { … }`, one row for each variant.
fn surfaces(table: &str) -> Result<Vec<(String, Surface)>> {
    let inner = table.split("match code {").nth(1).and_then(|rest| rest.split("};").next());
    let inner = inner.with_context(|| format!("find `match code {{ … }};` in {SURFACES}"))?;
    let dense: String = inner.chars().filter(|c| !c.is_whitespace()).collect();
    let mut found = Vec::new();
    for arm in dense.split("),").filter(|arm| !arm.is_empty()) {
        let (variants, surface) = arm_parts(arm).with_context(|| format!("read `{arm}` in {SURFACES}"))?;
        found.extend(variants.into_iter().map(|variant| (variant, surface.clone())));
    }
    Ok(found)
}

/// The arm `Code::A|Code::B=>(403,Grpc::PermissionDenied,5,false`.
fn arm_parts(arm: &str) -> Option<(Vec<String>, Surface)> {
    let (variants, values) = arm.split_once("=>(")?;
    let values: Vec<&str> = values.split(',').collect();
    let [http, grpc, exit, retryable] = values.as_slice() else { return None };
    let name = |variant: &str| variant.strip_prefix("Code::").map(str::to_owned);
    let surface = Surface {
        http: (*http).to_owned(),
        grpc: screaming(grpc.strip_prefix("Grpc::")?),
        exit: (*exit).to_owned(),
        retryable: *retryable == "true",
    };
    Some((variants.split('|').map(name).collect::<Option<_>>()?, surface))
}

/// `PermissionDenied` as `PERMISSION_DENIED`.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

/// A code for tests, at line 4 of the table; the same again later may succeed.
#[cfg(test)]
pub(crate) fn example(code: &str, http: &str, grpc: &str, exit: &str) -> Entry {
    Entry {
        variant: code.to_uppercase(),
        code: code.to_owned(),
        meaning: "It is a|b.".to_owned(),
        hint: "Wait.".to_owned(),
        line: 4,
        surface: Surface {
            http: http.to_owned(),
            grpc: grpc.to_owned(),
            exit: exit.to_owned(),
            retryable: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_codes_is_read() {
        let table =
            "codes! {\n    /// It is\n    /// late.\n    TooLate = \"too_late\", \"Come `earlier`.\";\n}\n";
        let told = entries(table).expect("a table");
        let late = Entry {
            variant: "TooLate".to_owned(),
            code: "too_late".to_owned(),
            meaning: "It is late.".to_owned(),
            hint: "Come `earlier`.".to_owned(),
            line: 4,
            surface: Surface::default(),
        };
        assert_eq!(told, [late]);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error_and_so_is_no_table() {
        let error = entries("codes! {\n    Late = 3;\n}\n").expect_err("no row");
        assert!(error.to_string().contains("error.rs:2"), "{error}");
        assert!(entries("enum Code {}\n").is_err());
    }

    #[test]
    fn the_table_of_surfaces_is_read() {
        let table = "match code {\n  Code::A\n  | Code::B => (403, Grpc::PermissionDenied, 5, false),\n  Code::C => (409, Grpc::Ok, 7, true),\n};";
        let told = surfaces(table).expect("a table");
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B", "C"]);
        let surface = |http: &str, grpc: &str, exit: &str, retryable| Surface {
            http: http.to_owned(),
            grpc: grpc.to_owned(),
            exit: exit.to_owned(),
            retryable,
        };
        assert_eq!(told[1].1, surface("403", "PERMISSION_DENIED", "5", false));
        assert_eq!(told[2].1, surface("409", "OK", "7", true));
    }

    #[test]
    fn an_arm_that_cannot_be_read_is_an_error() {
        assert!(surfaces("match code { Code::A => other(), };").is_err());
        assert!(surfaces("fn other() {}").is_err());
    }
}
