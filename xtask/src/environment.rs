//! The reference page of environment variables, from the one list of them in the binary's sources.

use anyhow::{Context, Result, bail};

use crate::docs::cell;
use crate::repo::Repo;

/// The file with the list.
const LIST: &str = "crates/cortex/src/env.rs";
/// The page.
const PAGE: &str = "docs/guide/environment.md";

/// The page as path and text; none when there is no list.
pub(crate) fn page(repo: &Repo) -> Result<Option<(String, String)>> {
    if !repo.root.join(LIST).is_file() {
        return Ok(None);
    }
    let variables = variables(&repo.read(LIST)?)?;
    let mut text = format!(
        "<!-- Made by `cargo xtask docs` from {LIST}; edit that file. -->\n\
         # Environment variables\n\n\
         None is needed. A flag goes before a variable, a variable before `cortex.toml`.\n\n\
         | variable | meaning |\n|---|---|\n"
    );
    for (name, meaning) in &variables {
        text.push_str(&format!("| `{name}` | {} |\n", cell(meaning)));
    }
    Ok(Some((PAGE.to_owned(), text)))
}

/// Names and meanings of `VARIABLES`.
fn variables(source: &str) -> Result<Vec<(String, String)>> {
    let list = source.split("VARIABLES: &[Variable] = &[").nth(1).and_then(|rest| rest.split("];").next());
    let list = list.with_context(|| format!("find `VARIABLES` in {LIST}"))?;
    list.split("Variable {").skip(1).map(|item| variable(item, source)).collect()
}

/// One item: `name: NAME, doc: "…" },`, where the name is a text or a constant of the file.
fn variable(item: &str, source: &str) -> Result<(String, String)> {
    let (name, rest) = item.split_once(',').with_context(|| format!("read `{item}` in {LIST}"))?;
    let name = name.trim().strip_prefix("name:").map(str::trim);
    let doc = rest.split_once("doc:").and_then(|(_, doc)| doc.split('"').nth(1));
    let (Some(name), Some(doc)) = (name, doc) else { bail!("{LIST}: cannot read `{item}`") };
    let name = if name.starts_with('"') { Some(name) } else { constant(name, source) };
    let name = name.with_context(|| format!("find the name of `{item}` in {LIST}"))?;
    Ok((name.trim_matches('"').to_owned(), doc.to_owned()))
}

/// The text of `const NAME: &str = "…";`.
fn constant<'a>(name: &str, source: &'a str) -> Option<&'a str> {
    source.split(&format!("const {name}: &str = \"")).nth(1)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "const HUB: &str = \"CORTEX_HUB\";\npub(crate) const VARIABLES: &[Variable] = &[\n    Variable { name: HUB, doc: \"The hub.\" },\n    Variable {\n        name: \"HOME\",\n        doc: \"Home.\",\n    },\n];\n";

    #[test]
    fn names_are_texts_or_constants() {
        let told = variables(SOURCE).expect("a list");
        let pair = |name: &str, doc: &str| (name.to_owned(), doc.to_owned());
        assert_eq!(told, [pair("CORTEX_HUB", "The hub."), pair("HOME", "Home.")]);
    }

    #[test]
    fn an_item_that_cannot_be_read_is_an_error_and_so_is_no_list() {
        assert!(variables(&SOURCE.replace("const HUB", "const BUS")).is_err());
        assert!(variables("fn main() {}").is_err());
    }
}
