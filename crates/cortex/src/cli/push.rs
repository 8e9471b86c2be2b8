//! `cortex push`: a folder or file of this machine to nodes.

mod known;
pub(super) mod packer;
mod ready;
pub(super) mod serve;
mod target;
pub(super) mod tree;
mod upload;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cortex_core::Code;
use cortex_core::name::printable;
use cortex_node::local::{LocalSpec, give_way};
use cortex_wire::error::Problem;
use cortex_wire::http::{HaltView, LeftOutView, PushOrder, TransferNodeView, TransferOrder};

use self::packer::Packer;
use self::serve::{changed, list};
use self::target::{FileTarget, Target};
use self::tree::Tree;
use super::interrupt::Interrupt;
use super::transfer::bars::Bars;
use super::transfer::ended::{self, Telling, Told, Ways};
use super::{Context, args};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Copy a folder or file of this machine to nodes. What they have is not sent again.
///
/// A folder: DEST becomes its copy. What DEST has beside it stays, unless --delete says otherwise; what was
/// changed there since the last push stays and is told, unless --force says otherwise. A file: DEST is its
/// new name, or with a `/` at the end the folder that gets it. Everything is sent, hidden files and `.git`
/// too; links are sent as links. With one node the exit status is that of its refusal, with several 1 when
/// any failed, and 8 when a rule halted one or both sides changed a file.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex push site build-1,build-2:/srv/www\n  cortex push app.conf build-2:/etc/app/\n  cortex push src -l role=ci:/srv/src --delete --exclude target --dry-run"
)]
pub(crate) struct Push {
    /// The folder or file here. A link is followed.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The nodes, with commas between them, and the path on each.
    #[arg(
        value_name = "NODE[,NODE]:DEST",
        required_unless_present = "selector",
        conflicts_with = "selector"
    )]
    target: Option<String>,
    /// All nodes with these labels, and the path on each.
    #[arg(short = 'l', long, value_name = "SEL:DEST")]
    selector: Option<String>,
    /// Only show what would be done; nothing is sent or changed.
    #[arg(long)]
    dry_run: bool,
    /// Remove what an earlier push brought and SRC has no more; with --force whatever SRC lacks.
    #[arg(long)]
    delete: bool,
    /// Replace what was changed there as well.
    #[arg(long)]
    force: bool,
    /// Let this halt pass; the command that a halt shows has its id.
    #[arg(long, value_name = "HALT")]
    accept: Option<String>,
    /// The lock of the workspace whose folder DEST is or lies in, by its number; it has to be your own.
    #[arg(long, value_name = "EPOCH")]
    lock: Option<u64>,
    #[command(flatten)]
    what: What,
    /// Print nothing but what went wrong.
    #[arg(short, long)]
    quiet: bool,
}

/// What of a folder moves, and how fast.
#[derive(clap::Args, Debug)]
pub(super) struct What {
    /// Leave this out, as a line of an ignore file says it; may be repeated. It is left alone there too.
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// Leave out what `.gitignore` and `.cortexignore` files name.
    #[arg(long)]
    pub(super) exclude_ignored: bool,
    /// Leave out `.git` and its like.
    #[arg(long)]
    pub(super) exclude_vcs: bool,
    /// Read every file again on both sides, whatever its times say.
    #[arg(long)]
    pub(super) checksum: bool,
    /// At most so many bytes per second for each node, such as 500k or 5M.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) limit: Option<u64>,
}

/// Bytes per second: `500k`, `5M`, `1G`.
fn rate(text: &str) -> std::result::Result<u64, String> {
    const RATE_MIN: u64 = 1024;
    let bad = || format!("`{}` is no rate; write 500k, 5M or 1G, at least 1k", printable(text, 40));
    args::bytes(text).filter(|rate| *rate >= RATE_MIN).ok_or_else(bad)
}

impl What {
    pub(super) fn spec(&self) -> LocalSpec {
        LocalSpec {
            excludes: self.exclude.clone(),
            ignore_files: self.exclude_ignored,
            vcs: !self.exclude_vcs,
            refuse_links_out: false,
            full: self.checksum,
        }
    }

    /// As arguments.
    pub(super) fn argv(&self) -> Vec<String> {
        let mut argv: Vec<String> = Vec::new();
        for glob in &self.exclude {
            argv.extend(["--exclude".to_owned(), glob.clone()]);
        }
        let flags = [
            ("--exclude-ignored", self.exclude_ignored),
            ("--exclude-vcs", self.exclude_vcs),
            ("--checksum", self.checksum),
        ];
        argv.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag.to_owned()));
        argv.extend(self.limit.iter().flat_map(|rate| ["--limit".to_owned(), rate.to_string()]));
        argv
    }
}

impl Push {
    pub(crate) async fn run(self, context: &Context) -> Result {
        // A priority that cannot be lowered is no reason to send nothing.
        let _urgent = give_way();
        let target = Target::parse(self.target.as_deref(), self.selector.as_deref())?;
        let file = file_target(&self.source, &target)?;
        let client = context.client()?;
        let mut interrupt = Interrupt::new()?;
        let mut bars = Bars::new(self.quiet);
        let name = file.as_ref().map(|file| file.name.clone());
        let (tree, ready) = tokio::select! {
            tree = serve::read(&self.source, self.what.spec(), name, self.dry_run, &bars) => tree?,
            status = interrupt.wait() => {
                bars.end();
                context.output.say("Nothing was sent.");
                return Err(Failure::Exit(status));
            }
        };
        let unread = self.left_out(context.output, &tree)?;
        let order = TransferOrder::Push(self.order(&target, file, &tree));
        let packer = Packer::new(tree, ready);
        let (command, ways) = (|node: &_, halt: Option<&_>| self.argv(&target, node, halt), ways);
        let told = Told { done: "pushed to", command: &command, ways: &ways };
        let mut telling = Telling::new(context.output, self.quiet, told);
        let mut sending = serve::Sending {
            context,
            order: &order,
            lock: self.lock,
            packer: &packer,
            telling: Some(&mut telling),
            is_quiet: self.quiet,
            is_anew: false,
        };
        let view = sending.run(client, &mut bars, &mut interrupt).await?;
        let status = telling.end(&view)?;
        let changed = changed(context.output, &packer.changed().await?, "push again");
        ended::end(if status == 0 && (unread || changed) { 1 } else { status })
    }

    fn order(&self, target: &Target, file: Option<FileTarget>, tree: &Tree) -> PushOrder {
        let (dest, only) = match file {
            Some(FileTarget { folder, name }) => (folder, Some(name)),
            None => (target.path.clone(), None),
        };
        PushOrder {
            nodes: target.nodes.clone(),
            labels: target.labels.clone(),
            dest,
            only,
            root: tree.root().to_string(),
            entries: tree.entries(),
            bytes: tree.bytes(),
            dry_run: self.dry_run,
            delete: self.delete,
            force: self.force,
            checksum: self.what.checksum,
            exclude: self.what.exclude.clone(),
            ignore_files: self.what.exclude_ignored,
            vcs: !self.what.exclude_vcs,
            accept: self.accept.clone(),
            rate_max: self.what.limit,
        }
    }

    /// Tells what is not in the tree, and whether that is more than a remark.
    fn left_out(&self, output: Output, tree: &Tree) -> Result<bool> {
        let (unread, unfit, notes) = (tree.unread(), tree.unfit(), tree.notes());
        // What nobody knows anything of is not gone (SYNC rule 11).
        if self.delete && !(unread.is_empty() && unfit.is_empty()) {
            list(output, "cannot be read", &unread);
            list(output, "no file, folder or link", &unfit);
            return Err(ended::unknown_is_not_gone(unread.len() + unfit.len(), "push").into());
        }
        list(output, "cannot be read", &unread);
        let counts = LeftOutView {
            unnamed: notes.unnamed,
            too_large: notes.too_large,
            rules_unread: notes.rules_unread,
            ..LeftOutView::default()
        };
        if !self.quiet {
            list(output, "no file, folder or link", &unfit);
            ended::left_out(&counts).for_each(|what| output.say(&format!("left out: {what}")));
        }
        Ok(!unread.is_empty() || ended::is_partial(&counts))
    }

    /// This command for one node.
    fn argv(&self, target: &Target, node: &TransferNodeView, halt: Option<&HaltView>) -> Vec<String> {
        let mut argv = vec!["cortex".to_owned(), "push".to_owned()];
        argv.push(self.source.display().to_string());
        argv.push(target.at(&node.node));
        let flags = [("--delete", self.delete), ("--force", self.force)];
        argv.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag.to_owned()));
        argv.extend(self.what.argv());
        argv.extend(self.lock.iter().flat_map(|epoch| ["--lock".to_owned(), epoch.to_string()]));
        argv.extend(halt.iter().flat_map(|halt| ["--accept".to_owned(), halt.id.clone()]));
        argv
    }
}

/// Where the file goes; `None` for a folder.
fn file_target(source: &Path, target: &Target) -> Result<Option<FileTarget>> {
    let shown = printable(&source.to_string_lossy(), 300);
    let about = std::fs::metadata(source).map_err(|error| {
        Failure::usage(
            format!("{shown} cannot be pushed: {error}."),
            "Give the path of a folder or file on this machine that you may read.",
        )
    })?;
    if about.is_dir() {
        return Ok(None);
    }
    if !about.is_file() {
        return Err(Failure::new(
            Code::UnsupportedEntry,
            format!("{shown} is neither a folder nor a file."),
            "Give a folder or file; content from a pipe goes with `cortex fs write NODE:PATH`.",
        ));
    }
    // The name it was given by, also when that is a link.
    let name = source.file_name().and_then(OsStr::to_str);
    let name = name.or(if target.is_into { None } else { Some("") }).ok_or_else(|| {
        Failure::usage(
            format!("The name of {shown} is no text that a node takes."),
            "Give it another name there: `NODE:/FOLDER/NAME`.",
        )
    })?;
    target.of_file(name).map(Some)
}

/// What lifts a refusal at a node.
fn ways(node: &TransferNodeView, problem: &Problem) -> Ways {
    let (TransferNodeView { node, path, .. }, code) = (node, problem.code());
    if [Code::PathOutsideRoots, Code::PolicyDenied].contains(&code) {
        let root = args::whole_argv(&[format!("{path}:rw")]);
        vec![("allow it", format!("cortex policy allow {node} --root {root} --for 1h"))]
    } else if code == Code::NodeNotFound {
        vec![("names", "cortex node ls".to_owned())]
    } else if code == Code::NodeOffline {
        vec![("when it is back", "push again; what others have is not sent again".to_owned())]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_unit_or_are_bytes_and_are_never_so_slow_that_nothing_moves() {
        for (text, expected) in
            [("5M", 5 << 20), ("500k", 500 << 10), ("1G", 1 << 30), ("2048", 2048), ("1K", 1024)]
        {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "0", "100", "-5M", "5 M", "5MB", "1.5M", "99999999999999999999G"] {
            rate(text).expect_err(text);
        }
    }
}
