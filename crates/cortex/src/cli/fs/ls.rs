//! `cortex fs ls`.

use cortex_core::limits::LIST_ENTRIES_PAGE_MAX;
use cortex_wire::http::EntryView;

use super::pages::Pages;
use super::show::{self, Columns};
use super::{Files, fresh};
use crate::cli::Context;
use crate::error::Result;

/// List a folder, one name a line.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs ls build-2:/srv/app\n  cortex fs ls build-2:/srv/app -l --depth 3"
)]
pub(super) struct Ls {
    /// The folder.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// With permissions, size and time; of a link where it leads.
    #[arg(short, long)]
    long: bool,
    /// Names that begin with a dot too.
    #[arg(short, long)]
    all: bool,
    /// How many levels, 1 to 8.
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: u8,
    /// Only these names, such as '*.rs'.
    #[arg(long, value_name = "GLOB")]
    glob: Option<String>,
    /// The etag of each file.
    #[arg(long)]
    hash: bool,
    #[command(flatten)]
    from: fresh::From,
    #[command(flatten)]
    how: Listed,
}

/// How long a list may be, and in which form.
#[derive(clap::Args, Debug)]
pub(super) struct Listed {
    /// At most so many; all when missing.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// With --json one object a line, as they come, in place of an array.
    #[arg(long, requires = "json")]
    stream: bool,
}

impl Ls {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let url = files.url().with("view", "list").with("depth", self.depth).flag("hidden", self.all);
        let url = self.from.on(url.maybe("glob", self.glob).flag("hash", self.hash));
        let columns = Columns { long: self.long, hash: self.hash };
        let pages = Pages::new(files, url, LIST_ENTRIES_PAGE_MAX, self.how.limit);
        let found = self.how.show(context, pages, columns, "").await?;
        if found == 0 && !context.output.json {
            let hidden = if self.all { "" } else { " With -a names that begin with a dot are shown too." };
            context.output.say(&format!("Nothing is listed.{hidden}"));
        }
        Ok(())
    }
}

impl Listed {
    /// The limit.
    pub(super) const fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Shows all pages of entries, and gives their number.
    pub(super) async fn show(
        &self,
        context: &Context,
        mut pages: Pages<'_>,
        columns: Columns,
        prefix: &str,
    ) -> Result<usize> {
        let output = context.output;
        if output.json && !self.stream {
            let items = pages.all::<EntryView>().await?;
            output.json(&items)?;
            pages.tell_rest(output);
            return Ok(items.len());
        }
        let mut found = 0;
        while let Some(items) = pages.next::<EntryView>().await? {
            found += items.len();
            if output.json {
                items.iter().try_for_each(|entry| output.json(entry))?;
            } else {
                output.bytes(show::entries(&items, columns, prefix, output).as_bytes())?;
            }
        }
        pages.tell_rest(output);
        Ok(found)
    }
}
