//! `cortex pull`: a folder or file of a node to this machine.

mod frames;
mod peer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::limits::WANTS_MAX;
use cortex_core::name::printable;
use cortex_core::sync::{DeleteLimits, Push as How, Why};
use cortex_core::transfer::{Progress, TransferEnd};
use cortex_core::{Code, Refusal};
use cortex_node::local::{LocalAsk, LocalFolder, LocalHeard, give_way};
use cortex_wire::http::{
    EntryView, HaltView, LeftOutView, PullOrder, PullTreeView, TransferEndView, TransferNodeView,
    TransferNoteView, TransferOrder, TransferView,
};
use http::Method;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, interval};

use self::frames::{Frame, Frames};
use self::peer::Peer;
use super::args::{self, Place};
use super::interrupt::Interrupt;
use super::push::What;
use super::transfer::bars::Bars;
use super::transfer::ended::{self, Telling, Told};
use super::transfer::follow;
use super::watch::Patience;
use super::{Context, ask};
use crate::client::{Call, Client, encode};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Lists of ids that wait to be sent, and pieces of packs that wait to be taken.
const WAITING_MAX: usize = 4;
/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

/// Copy a folder or file of a node to this machine. What is here already is not sent.
///
/// A folder: DEST becomes its copy. What DEST has beside it stays, unless --delete says otherwise; what was
/// changed here since the last pull stays and is told, unless --force says otherwise. A file: DEST is its
/// new name, or with a `/` at the end the folder that gets it. Each file here is as it was or as it is to be,
/// whatever breaks; the same pull again goes on where this one stopped.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex pull build-2:/srv/www site\n  cortex pull build-2:/var/log/app.log logs/\n  cortex pull build-2:/srv/src src --delete --exclude target --dry-run"
)]
pub(crate) struct Pull {
    /// The folder or file there.
    #[arg(value_name = "NODE:SRC")]
    source: String,
    /// The folder or file here.
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// Only show what would be done; nothing is changed here.
    #[arg(long)]
    dry_run: bool,
    /// Remove what an earlier pull brought and SRC has no more; with --force whatever SRC lacks.
    #[arg(long)]
    delete: bool,
    /// Replace what was changed here as well.
    #[arg(long)]
    force: bool,
    /// Let this halt pass; the command that a halt shows has its id.
    #[arg(long, value_name = "HALT")]
    accept: Option<cortex_core::sync::HaltId>,
    #[command(flatten)]
    what: What,
    /// Print nothing but what went wrong.
    #[arg(short, long)]
    quiet: bool,
}

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Goal {
    folder: PathBuf,
    /// The one entry, for a file.
    only: Option<String>,
}

impl Pull {
    pub(crate) async fn run(self, context: &Context) -> Result {
        // A priority that cannot be lowered is no reason to fetch nothing.
        let _urgent = give_way();
        let place = args::place(&self.source)?;
        let mut client = context.client()?;
        let mut interrupt = Interrupt::new()?;
        let mut bars = Bars::new(self.quiet);
        let goal = match goal(&mut client, &place, &self.dest).await {
            Ok(goal) => goal,
            Err(failure) => return Err(ask::with_nearest(failure, &client, &place.node).await),
        };
        let order = TransferOrder::Pull(PullOrder {
            node: place.node.clone(),
            source: place.path.clone(),
            exclude: self.what.exclude.clone(),
            ignore_files: self.what.exclude_ignored,
            vcs: !self.what.exclude_vcs,
            rate_max: self.what.limit,
        });
        let began = Instant::now();
        let view =
            follow::begin(&mut client, &order, None, false, (context.output, self.quiet, &mut interrupt))
                .await?;
        if let Some(problem) = view.nodes.iter().find_map(|node| node.error.clone()) {
            return Err(ask::with_nearest(problem.into(), &client, &place.node).await);
        }
        let received = tokio::select! {
            received = self.receive(context.output, &client, &view, &goal, &mut bars) => received,
            status = interrupt.wait() => {
                bars.end();
                let leaving = follow::give_up(context.output, &mut client, &view.id, &mut interrupt, status);
                return Err(leaving.await);
            }
        };
        bars.end();
        let received = match received {
            Ok(received) => received,
            Err(failure) => {
                // Nobody reads it any more. A hub that is away ends it by itself.
                if !failure.is_transport() {
                    drop(follow::cancel(&mut client, &view.id).await);
                }
                return Err(failure);
            }
        };
        self.tell(context.output, view, &place, &received, began)
    }

    /// Reads the tree and takes it in, again and again while the connection breaks: what came is not asked
    /// for twice.
    async fn receive(
        &self,
        output: Output,
        client: &Client,
        view: &TransferView,
        goal: &Goal,
        bars: &mut Bars,
    ) -> Result<Received> {
        let mut patience = Patience::new(client.target().reconnect_max);
        let mut wire = 0;
        loop {
            let before = wire;
            let failure = match self.once(output, client, view, goal, bars, &mut wire).await {
                Ok((end, left_out)) => return Ok(Received { end, wire, left_out }),
                Err(failure) => failure,
            };
            if !is_worth_another(&failure) || !patience.wait(wire > before).await {
                return Err(failure);
            }
        }
    }

    async fn once(
        &self,
        output: Output,
        client: &Client,
        view: &TransferView,
        goal: &Goal,
        bars: &mut Bars,
        wire: &mut u64,
    ) -> Result<(TransferEnd, Option<LeftOutView>)> {
        let (mut reading, mut asking) = (client.another(), client.another());
        let path = follow::path(&view.id);
        let mut frames = Frames::new(reading.body(&format!("{path}/content")).await?);
        let tree = tree(&mut frames, view).await?;
        let (wants, mut wanted) = mpsc::channel::<Vec<ContentId>>(WAITING_MAX);
        let (hear, heard) = mpsc::channel(WAITING_MAX);
        let progress = Arc::new(Mutex::new(Progress::default()));
        let peer = Peer::new(wants, heard, Arc::clone(&progress));
        let (ask, folder) = (self.ask(&tree, goal)?, goal.folder.clone());
        let unknown = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&unknown);
        let mut taking = tokio::task::spawn_blocking(move || take(&folder, ask, peer, &told));
        let asking = async {
            // Whoever asks leaves when it has all.
            while let Some(ids) = wanted.recv().await {
                for some in ids.chunks(WANTS_MAX) {
                    let body: Bytes = some.iter().flat_map(|id| *id.as_bytes()).collect();
                    asking.answer(Method::POST, &format!("{path}/wants"), Call::bytes(body)).await?;
                }
            }
            std::future::pending::<Result<std::convert::Infallible>>().await
        };
        let hearing = async {
            loop {
                let said = match frames.next().await? {
                    Some(Frame::Pack(bytes)) => {
                        *wire += bytes.len() as u64;
                        LocalHeard::Pack(bytes)
                    }
                    Some(Frame::Missing(ids)) => LocalHeard::Missing(ids),
                    Some(Frame::Notes(notes)) => {
                        notes.iter().for_each(|note| output.say(&left_out(note)));
                        let is_unknown = |note: &&TransferNoteView| note.what != Why::Ignored.as_str();
                        unknown.fetch_add(notes.iter().filter(is_unknown).count(), Ordering::Release);
                        continue;
                    }
                    Some(Frame::Tree(_)) => continue,
                    Some(Frame::End(Some(problem))) => return Err((*problem).into()),
                    Some(Frame::End(None)) | None => return Err(peer::lost().into()),
                };
                if hear.send(said).await.is_err() {
                    return std::future::pending::<Result<std::convert::Infallible>>().await;
                }
            }
        };
        let showing = async {
            let mut tick = interval(TICK);
            loop {
                tick.tick().await;
                let now = *progress.lock().unwrap_or_else(PoisonError::into_inner);
                bars.show(&moving(view, &tree, now));
            }
        };
        let failure = tokio::select! {
            taken = &mut taking => return Ok((done(client, &path, taken).await?, tree.left_out)),
            Err(failure) = asking => failure,
            Err(failure) = hearing => failure,
            () = showing => Failure::Exit(1),
        };
        // The thread hears that the connection is gone, and has left the folder when the next try begins.
        drop((hear, wanted));
        match taking.await {
            // All was there by then.
            Ok(Ok(end)) => Ok((done(client, &path, Ok(Ok(end))).await?, tree.left_out)),
            Ok(Err(refusal)) if refusal.code != Code::HubUnreachable => Err(refusal.into()),
            Ok(Err(_)) | Err(_) => Err(failure),
        }
    }

    fn ask(&self, tree: &PullTreeView, goal: &Goal) -> Result<LocalAsk> {
        let root = tree.root.parse::<ContentId>().map_err(|_| {
            Failure::new(
                Code::VersionUnsupported,
                "The hub names a tree that is none.",
                "Update `cortex` here.",
            )
        })?;
        Ok(LocalAsk {
            target: TreeId::new(*root.as_bytes()),
            only: goal.only.clone(),
            push: How { first: true, force: self.force, delete: self.delete },
            limits: DeleteLimits::default(),
            accepted: self.accept,
            spec: self.what.spec(),
            dry_run: self.dry_run,
        })
    }

    fn tell(
        &self,
        output: Output,
        view: TransferView,
        place: &Place,
        received: &Received,
        began: Instant,
    ) -> Result {
        let end = TransferEndView::of(&received.end, self.dry_run);
        let state = match (&end.halt, end.written) {
            (Some(_), _) => "halted",
            (None, 0) if received.wire == 0 => "in_sync",
            (None, _) => "done",
        };
        let node = TransferNodeView {
            node: place.node.clone(),
            path: place.path.clone(),
            state: state.to_owned(),
            bytes_total: view.bytes,
            bytes_moved: end.bytes,
            wire_bytes: received.wire,
            steps_total: 0,
            steps_done: 0,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            error: None,
            end: Some(end),
            left_out: received.left_out,
        };
        let told =
            Told { done: "pulled from", command: &|_, halt| self.argv(halt), ways: &|_, _| Vec::new() };
        let view = TransferView { nodes: vec![node], ..view };
        ended::end(Telling::new(output, self.quiet, told).end(&view)?)
    }

    fn argv(&self, halt: Option<&HaltView>) -> Vec<String> {
        let mut argv = vec!["cortex".to_owned(), "pull".to_owned(), self.source.clone()];
        argv.push(self.dest.display().to_string());
        let flags = [("--delete", self.delete), ("--force", self.force)];
        argv.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag.to_owned()));
        argv.extend(self.what.argv());
        argv.extend(halt.iter().flat_map(|halt| ["--accept".to_owned(), halt.id.clone()]));
        argv
    }
}

/// What came.
struct Received {
    end: TransferEnd,
    /// Bytes of packs.
    wire: u64,
    /// What the folder there has and its tree has not.
    left_out: Option<LeftOutView>,
}

/// Where it goes: the node says whether it is a file.
async fn goal(client: &mut Client, place: &Place, dest: &Path) -> Result<Goal> {
    let stat = format!("/nodes/{}/fs?path={}&view=stat", encode(&place.node), encode(&place.path));
    let entry: EntryView = client.get(&stat).await?;
    goal_of(entry.kind == "file", place.name(), dest)
}

fn goal_of(is_file: bool, name: &str, dest: &Path) -> Result<Goal> {
    if !is_file {
        return Ok(Goal { folder: dest.to_owned(), only: None });
    }
    let text = dest.to_str().filter(|text| !text.is_empty()).ok_or_else(|| {
        Failure::usage("DEST is no text (UTF-8).", "Give a name of letters, such as `app.log` or `logs/`.")
    })?;
    // As `cp` does: into a folder that is there.
    if text.ends_with('/') || dest.is_dir() {
        return Ok(Goal { folder: dest.to_owned(), only: Some(name.to_owned()) });
    }
    let (folder, only) = text.rsplit_once('/').unwrap_or((".", text));
    let folder = if folder.is_empty() { "/" } else { folder };
    Ok(Goal { folder: folder.into(), only: Some(only.to_owned()) })
}

/// The tree that the node found.
async fn tree(frames: &mut Frames, view: &TransferView) -> Result<PullTreeView> {
    let tree = loop {
        match frames.next().await? {
            Some(Frame::Tree(tree)) => break tree,
            Some(Frame::End(Some(problem))) => return Err((*problem).into()),
            Some(Frame::Notes(_) | Frame::Pack(_) | Frame::Missing(_)) => {}
            Some(Frame::End(None)) | None => return Err(peer::lost().into()),
        }
    };
    let path = view.nodes.first().map(|node| format!("{}:{}", node.node, node.path)).unwrap_or_default();
    let path = printable(&path, 300);
    match tree.state.as_str() {
        "dir" => Ok(tree),
        "missing" => Err(Failure::new(
            Code::NotFound,
            format!("There is nothing at {path}."),
            "Look with `cortex fs ls` in the folder above.",
        )),
        _ => Err(Failure::new(
            Code::UnsupportedEntry,
            format!("{path} is no folder or file that can be pulled."),
            "Look with `cortex fs stat` what it is.",
        )),
    }
}

/// Takes the tree in. Blocks. `unknown` counts what of the source nobody knows anything of; all of that is
/// told before the first content comes.
fn take(
    folder: &Path,
    mut ask: LocalAsk,
    mut peer: Peer,
    unknown: &AtomicUsize,
) -> std::result::Result<TransferEnd, Refusal> {
    if ask.push.delete && ask.only.is_none() {
        peer.object(&ask.target.into())?;
        match unknown.load(Ordering::Acquire) {
            0 => {}
            count => return Err(ended::unknown_is_not_gone(count, "pull")),
        }
    }
    if let Some(name) = ask.only.clone() {
        ask.target = peer.rename(ask.target, &name)?;
    }
    LocalFolder::at(folder)?.receive(&ask, &mut peer)
}

type Taken = std::result::Result<std::result::Result<TransferEnd, Refusal>, tokio::task::JoinError>;

/// Says that all was taken.
async fn done(client: &Client, path: &str, taken: Taken) -> Result<TransferEnd> {
    let failed = |error: tokio::task::JoinError| {
        Failure::new(
            Code::Internal,
            format!("Taking the files in failed: {error}."),
            "Pull again, and report it.",
        )
    };
    let end = taken.map_err(failed)??;
    // All is here: that the hub did not hear of it is no failure.
    drop(client.another().done(Method::POST, &format!("{path}/end"), Call::default()).await);
    Ok(end)
}

/// Whether the same can go well when it is tried again: the way to the hub, or its way to the node, broke.
fn is_worth_another(failure: &Failure) -> bool {
    failure.is_transport() || matches!(failure, Failure::Refused(refused) if refused.problem.retryable)
}

fn left_out(note: &TransferNoteView) -> String {
    format!("left out: {} ({})", printable(&note.path, usize::MAX), printable(&note.what, 40))
}

/// How it stands, for a bar.
fn moving(view: &TransferView, tree: &PullTreeView, now: Progress) -> TransferView {
    let mut view = view.clone();
    for node in &mut view.nodes {
        node.state = "moving".to_owned();
        node.bytes_moved = now.bytes;
        node.bytes_total = if now.bytes_total == 0 { tree.bytes } else { now.bytes_total };
    }
    view
}

#[cfg(test)]
mod tests {
    use cortex_wire::error::Problem;

    use super::*;

    #[test]
    fn a_file_gets_the_name_of_dest_and_a_folder_that_is_there_gets_it() {
        let here = tempfile::tempdir().expect("a folder");
        let there = here.path().to_str().expect("text");
        let of = |is_file, dest: &str| {
            let goal = goal_of(is_file, "سجل.log", Path::new(dest)).expect("a goal");
            (goal.folder.display().to_string(), goal.only)
        };
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(of(false, "site/"), ("site/".into(), None));
        assert_eq!(of(true, "logs/"), ("logs/".into(), name("سجل.log")));
        assert_eq!(of(true, there), (there.to_owned(), name("سجل.log")));
        assert_eq!(of(true, "x.log"), (".".into(), name("x.log")));
        assert_eq!(of(true, "/x.log"), ("/".into(), name("x.log")));
        assert_eq!(of(true, "a/b.log"), ("a".into(), name("b.log")));
    }

    #[test]
    fn only_what_can_go_well_the_next_time_is_tried_again() {
        let failure = |code| Failure::from(Problem::new(&Refusal::new(code, "why"), ""));
        for (code, expected) in [
            (Code::HubUnreachable, true),
            (Code::NodeOffline, true),
            (Code::NotFound, false),
            (Code::Conflict, false),
            (Code::PathOutsideRoots, false),
        ] {
            assert_eq!(is_worth_another(&failure(code)), expected, "{code}");
        }
    }
}
