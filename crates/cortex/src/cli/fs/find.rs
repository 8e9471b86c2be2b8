//! `cortex fs find`.

use std::result::Result as Either;

use clap::ValueEnum;
use cortex_core::limits::LIST_ENTRIES_PAGE_MAX;

use super::ls::Listed;
use super::pages::Pages;
use super::show::Columns;
use super::{Files, fresh};
use crate::cli::{Context, args};
use crate::error::Result;

/// Find files and folders by what they are. What ignore files leave out is left out here too.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs find build-2:/srv/app --name '*.rs' --newer 2h\n  cortex fs find build-2:/var/log/app --type f --size +10M"
)]
pub(super) struct Find {
    /// The folder.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// Only these names, such as '*.rs' or 'src/**/mod.rs'.
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Only files (f), folders (d) or links (l).
    #[arg(long, value_name = "f|d|l")]
    r#type: Option<Type>,
    /// Only files of at least (+N), at most (-N) or just (N) so many bytes; k, M and G multiply by 1024.
    #[arg(long, value_name = "+N|-N", value_parser = sizes, allow_hyphen_values = true)]
    size: Option<Sizes>,
    /// Only what changed within this time, such as 2h.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    newer: Option<u64>,
    #[command(flatten)]
    beyond: Beyond,
    #[command(flatten)]
    from: fresh::From,
    #[command(flatten)]
    how: Listed,
}

/// What a search looks at beyond the usual.
#[derive(clap::Args, Debug)]
pub(super) struct Beyond {
    /// Names that begin with a dot too.
    #[arg(short, long)]
    all: bool,
    /// What ignore files leave out too.
    #[arg(long)]
    ignored: bool,
}

impl Beyond {
    pub(super) fn on(&self, url: super::Query) -> super::Query {
        url.flag("hidden", self.all).flag("ignored", self.ignored)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    #[value(name = "f", alias = "file")]
    File,
    #[value(name = "d", alias = "dir")]
    Dir,
    #[value(name = "l", alias = "link")]
    Link,
}

impl Type {
    const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Link => "link",
        }
    }
}

/// The bounds of a size, both within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    min: Option<u64>,
    max: Option<u64>,
}

/// `+10M`, `-4k`, `0`.
fn sizes(text: &str) -> Either<Sizes, String> {
    let bad = || format!("`{text}` is no size; write +10M, -4k or 0");
    let (sign, rest) = match text.split_at_checked(1) {
        Some((sign @ ("+" | "-"), rest)) => (sign, rest),
        _ => ("", text),
    };
    let (digits, unit) = match rest.bytes().last() {
        Some(b'k' | b'K') => (&rest[..rest.len() - 1], 1 << 10),
        Some(b'M') => (&rest[..rest.len() - 1], 1 << 20),
        Some(b'G') => (&rest[..rest.len() - 1], 1 << 30),
        _ => (rest, 1_u64),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(bad());
    }
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(bad)?;
    Ok(match sign {
        "+" => Sizes { min: Some(bytes), max: None },
        "-" => Sizes { min: None, max: Some(bytes) },
        _ => Sizes { min: Some(bytes), max: Some(bytes) },
    })
}

impl Find {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let Sizes { min, max } = self.size.unwrap_or(Sizes { min: None, max: None });
        let url = files.search_url().maybe("name", self.name).maybe("type", self.r#type.map(Type::as_str));
        let url = url.maybe("size_min", min).maybe("size_max", max).maybe("changed_within_ms", self.newer);
        let prefix = format!("{}/", files.place.path.trim_end_matches('/'));
        let pages =
            Pages::new(files, self.from.on(self.beyond.on(url)), LIST_ENTRIES_PAGE_MAX, self.how.limit());
        let found = self.how.show(context, pages, Columns { long: false, hash: false }, &prefix).await?;
        if found == 0 && !context.output.json {
            context.output.say("Nothing was found.");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_bound_with_its_unit() {
        for (text, min, max) in [
            ("+10M", Some(10 << 20), None),
            ("-4k", None, Some(4096)),
            ("0", Some(0), Some(0)),
            ("+1G", Some(1 << 30), None),
            ("12", Some(12), Some(12)),
        ] {
            assert_eq!(sizes(text), Ok(Sizes { min, max }), "{text}");
        }
        for text in
            ["", "+", "-", "M", "+M", "+-1", "1.5M", "1T", "99999999999999999999", "17179869184G", "٣"]
        {
            sizes(text).expect_err(text);
        }
    }
}
