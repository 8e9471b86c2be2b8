//! The reference pages of settings, from the lists in the binary's sources that the program itself
//! reads.

use anyhow::{Context, Result, bail};

use crate::docs::cell;
use crate::repo::Repo;

/// A list in the sources, and the page that is made of it.
struct Reference {
    source: &'static str,
    /// What opens the list.
    list: &'static str,
    /// What opens an item; it has the fields `name` and `doc`.
    item: &'static str,
    page: &'static str,
    title: &'static str,
    text: &'static str,
}

const REFERENCES: &[Reference] = &[
    Reference {
        source: "crates/cortex/src/env.rs",
        list: "VARIABLES: &[Variable] = &[",
        item: "Variable {",
        page: "docs/guide/environment.md",
        title: "Environment variables",
        text: "None is needed. A flag goes before a variable, a variable before `cortex.toml`.",
    },
    Reference {
        source: "crates/cortex/src/config.rs",
        list: "KEYS: &[Key] = &[",
        item: "Key {",
        page: "docs/guide/configuration.md",
        title: "Configuration keys",
        text: "None is needed. `hub.http` is `http` in the section `[hub]` of `cortex.toml`, and `CORTEX_HUB__HTTP` in the \
               environment; `cortex config show` tells the effective values and where each comes from.",
    },
];

/// The pages as path and text; none for a list whose file is not there.
pub(crate) fn pages(repo: &Repo) -> Result<Vec<(String, String)>> {
    let there = REFERENCES.iter().filter(|reference| repo.root.join(reference.source).is_file());
    there.map(|reference| page(reference, &repo.read(reference.source)?)).collect()
}

fn page(reference: &Reference, source: &str) -> Result<(String, String)> {
    let Reference { source: path, page, title, text, .. } = reference;
    let items = items(reference, source).with_context(|| format!("read the list in {path}"))?;
    let mut text = format!(
        "<!-- Made by `cargo xtask docs` from {path}; edit that file. -->\n# {title}\n\n{text}\n\n\
         | name | meaning |\n|---|---|\n"
    );
    for (name, meaning) in &items {
        text.push_str(&format!("| `{name}` | {} |\n", cell(meaning)));
    }
    Ok(((*page).to_owned(), text))
}

/// Names and meanings of the list.
fn items(reference: &Reference, source: &str) -> Result<Vec<(String, String)>> {
    let list = source.split(reference.list).nth(1).and_then(|rest| rest.split("];").next());
    let list = list.with_context(|| format!("find `{}`", reference.list))?;
    list.split(reference.item).skip(1).map(|text| item(text, source)).collect()
}

/// One item: `name: NAME, …, doc: "…" },`, where the name is a text or a constant of the file.
fn item(text: &str, source: &str) -> Result<(String, String)> {
    let (name, rest) = text.split_once(',').with_context(|| format!("read `{text}`"))?;
    let name = name.trim().strip_prefix("name:").map(str::trim);
    let doc = rest.split_once("doc:").and_then(|(_, doc)| doc.split('"').nth(1));
    let (Some(name), Some(doc)) = (name, doc) else { bail!("cannot read `{text}`") };
    let name = if name.starts_with('"') { Some(name) } else { constant(name, source) };
    let name = name.with_context(|| format!("find the name of `{text}`"))?;
    Ok((name.trim_matches('"').to_owned(), doc.to_owned()))
}

/// The text of `const NAME: &str = "…";`.
fn constant<'a>(name: &str, source: &'a str) -> Option<&'a str> {
    source.split(&format!("const {name}: &str = \"")).nth(1)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "const HUB: &str = \"CORTEX_HUB\";\npub(crate) const VARIABLES: &[Variable] = &[\n    Variable { name: HUB, doc: \"The hub.\" },\n    Variable {\n        name: \"HOME\",\n        kind: 3,\n        doc: \"Home.\",\n    },\n];\n";

    #[test]
    fn names_are_texts_or_constants() {
        let told = items(&REFERENCES[0], SOURCE).expect("a list");
        let pair = |name: &str, doc: &str| (name.to_owned(), doc.to_owned());
        assert_eq!(told, [pair("CORTEX_HUB", "The hub."), pair("HOME", "Home.")]);
    }

    #[test]
    fn an_item_that_cannot_be_read_is_an_error_and_so_is_no_list() {
        assert!(items(&REFERENCES[0], &SOURCE.replace("const HUB", "const BUS")).is_err());
        assert!(items(&REFERENCES[0], "fn main() {}").is_err());
    }

    #[test]
    fn a_page_has_a_row_for_each_item() {
        let (path, text) = page(&REFERENCES[0], SOURCE).expect("a page");
        assert_eq!(path, "docs/guide/environment.md");
        assert!(text.ends_with("| `CORTEX_HUB` | The hub. |\n| `HOME` | Home. |\n"), "{text}");
    }
}
