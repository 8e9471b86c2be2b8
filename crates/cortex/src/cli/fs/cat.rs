//! `cortex fs cat`.

use cortex_core::limits::FILE_INLINE_BYTES_MAX;
use cortex_core::words::count;
use cortex_core::{Code, Refusal};
use cortex_wire::http::FileContentView;
use http::Method;

use super::{Files, Query, fresh};
use crate::cli::Context;
use crate::client::{Call, Content, Part};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Write the content of a file to standard output, byte for byte.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs cat build-2:/srv/app/config.toml\n  cortex fs cat build-2:/srv/app/run.log --lines 100-120"
)]
pub(super) struct Cat {
    /// The file.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// Only these lines, the first is 1: `7`, `100-120`, or `100-` up to the end.
    #[arg(long, value_name = "A-B", value_parser = lines, conflicts_with = "bytes")]
    lines: Option<Range>,
    /// Only these bytes, the first is 0: `0-511`, or `512-` up to the end.
    #[arg(long, value_name = "A-B", value_parser = bytes)]
    bytes: Option<Range>,
    #[command(flatten)]
    from: fresh::From,
}

/// Where to begin, and how many; all when missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u64,
    count: Option<u64>,
}

fn lines(text: &str) -> std::result::Result<Range, String> {
    range(text, 1)
}

fn bytes(text: &str) -> std::result::Result<Range, String> {
    range(text, 0)
}

/// `A-B`, both within, `A-` or `A`, of a row that begins with `first`.
fn range(text: &str, first: u64) -> std::result::Result<Range, String> {
    let bad = || format!("`{text}` is no range from {first} on; write {first}-9, 5- or 5");
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        if is_number { text.parse::<u64>().map_err(|_| bad()) } else { Err(bad()) }
    };
    let (from, last) = match text.split_once('-') {
        None => (number(text)?, Some(number(text)?)),
        Some((from, "")) => (number(from)?, None),
        Some((from, last)) => (number(from)?, Some(number(last)?)),
    };
    let count = match last {
        None => None,
        Some(last) => Some(last.checked_sub(from).and_then(|more| more.checked_add(1)).ok_or_else(bad)?),
    };
    if from < first { Err(bad()) } else { Ok(Range { from, count }) }
}

impl Cat {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        if context.output.json {
            return self.json(context, files).await;
        }
        let whole = self.lines.is_none() && self.bytes.is_none();
        match self.follow(context.output, files, self.asked(files.url())).await {
            // A hub that sends no long content whole sends its parts.
            Err(failure) if whole && failure.code() == Some(Code::TooLarge) => {
                self.follow(context.output, files, self.from.on(files.url().with("offset", 0))).await
            }
            ended => ended,
        }
    }

    /// As much as one answer in JSON holds.
    async fn json(self, context: &Context, files: &mut Files) -> Result {
        let url = self.asked(files.url()).with("max_bytes", FILE_INLINE_BYTES_MAX);
        let content: FileContentView = files.call(Method::GET, url, Call::default()).await?;
        context.output.json(&content)?;
        fresh::say(context.output, &content.fresh);
        if content.truncated {
            let (bytes, next) = (content.bytes, content.offset.saturating_add(content.bytes));
            let bytes = count(bytes, "byte", "bytes");
            context.output.say(&format!("The answer holds {bytes}; go on with `--bytes {next}-`."));
        }
        Ok(())
    }

    fn asked(&self, url: Query) -> Query {
        let url = self.from.on(url);
        match (self.lines, self.bytes) {
            (Some(Range { from, count }), _) => url.with("start_line", from).maybe("lines", count),
            (None, Some(Range { from, count })) => url.with("offset", from).maybe("bytes", count),
            (None, None) => url,
        }
    }

    /// Writes what is answered, and asks for the rest while an answer ends before what was asked for.
    async fn follow(&self, output: Output, files: &mut Files, first: Query) -> Result {
        let mut url = first;
        let mut wanted = Wanted {
            bytes: self.bytes.and_then(|range| range.count),
            lines: self.lines.and_then(|range| range.count),
        };
        let mut before: Option<(Option<String>, u64)> = None;
        loop {
            let call = files.of_attempt(Call::default());
            let mut content = match files.client.content(&url.0, call).await {
                Ok(content) => content,
                // What was there is there no more.
                Err(failure) if before.is_some() && failure.code() == Some(Code::InvalidArgument) => {
                    return Err(changed());
                }
                Err(failure) => return Err(failure),
            };
            if before.is_none()
                && let Some(fresh) = content.fresh.as_deref().and_then(fresh::of_header)
            {
                fresh::say(output, &fresh);
            }
            let Some(Part { end, size, .. }) = content.part else {
                return wanted.write(output, &mut content).await;
            };
            let this = (content.etag.clone(), size);
            if before.as_ref().is_some_and(|before| *before != this) {
                return Err(changed());
            }
            before = Some(this);
            wanted.write(output, &mut content).await?;
            if wanted.is_nothing() || end >= size {
                return Ok(());
            }
            url = self.from.on(files.url().with("offset", end).maybe("bytes", wanted.bytes));
        }
    }
}

/// What is still to come.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    bytes: Option<u64>,
    lines: Option<u64>,
}

impl Wanted {
    const fn is_nothing(self) -> bool {
        matches!(self.bytes, Some(0)) || matches!(self.lines, Some(0))
    }

    async fn write(&mut self, output: Output, content: &mut Content) -> Result {
        while let Some(piece) = content.piece().await? {
            output.bytes(self.take(&piece))?;
            if self.is_nothing() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What of this piece is wanted.
    fn take<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let mut piece = piece;
        if let Some(left) = &mut self.bytes {
            piece = &piece[..usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len())];
            *left -= piece.len() as u64;
        }
        if let Some(left) = &mut self.lines {
            let ends = piece.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
            for at in ends {
                *left -= 1;
                if *left == 0 {
                    return &piece[..=at];
                }
            }
        }
        piece
    }
}

fn changed() -> Failure {
    Refusal::new(
        Code::Conflict,
        "The file was changed while it was read; what was written so far is no whole.",
    )
    .hint("Read it again, once nothing writes to it.")
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_both_its_ends_within() {
        let of = |from, count| Ok(Range { from, count });
        for (text, first, expected) in [
            ("1-1", 1, of(1, Some(1))),
            ("7", 1, of(7, Some(1))),
            ("100-120", 1, of(100, Some(21))),
            ("5-", 1, of(5, None)),
            ("0-511", 0, of(0, Some(512))),
            ("0-", 0, of(0, None)),
        ] {
            assert_eq!(range(text, first), expected, "{text}");
        }
        for text in ["", "-", "-5", "0-3", "0", "9-5", "a-b", "1-2-3", "+1-2", "1:2", "99999999999999999999-"]
        {
            range(text, 1).expect_err(text);
        }
        range("0-18446744073709551615", 0).expect_err("more than there can be");
    }

    #[test]
    fn lines_are_counted_over_pieces_and_nothing_beyond_the_last_is_taken() {
        let mut wanted = Wanted { bytes: None, lines: Some(3) };
        let taken: Vec<&[u8]> =
            [&b"on"[..], b"e\ntwo\nth", b"ree\nfour\n"].map(|piece| wanted.take(piece)).to_vec();
        assert_eq!(taken.concat(), b"one\ntwo\nthree\n");
        assert!(wanted.is_nothing());
        let mut wanted = Wanted { bytes: Some(4), lines: None };
        assert_eq!(
            (wanted.take(b"ab"), wanted.take(b"cdef"), wanted.is_nothing()),
            (&b"ab"[..], &b"cd"[..], true)
        );
    }
}
