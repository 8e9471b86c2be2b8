//! One command behind walls on this machine, without a hub, a journal or a policy: what runs get, for
//! tests, measurements and whoever wants to know what a machine can do. Never here: anything that a
//! run of a node does not have.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cortex_core::Refusal;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::op::FileOp;
use cortex_core::id::{OpId, Revision, RunId, TransferId};
use cortex_core::message::Start;
use cortex_core::policy::reach;
use cortex_core::run::{Ended, RunSpec};
use cortex_core::sandbox::{Access, Layer, Level, Walls};
use cortex_core::stream::Stream;
use cortex_core::transfer::{Carry, TransferNews, TransferWork};
use cortex_core::watch::{Sight, WatchAsk};
use cortex_wire::convert::transfer::{carry_from_bytes, carry_to_bytes, news_from_bytes};
use tokio::sync::{mpsc, watch};

use crate::NodeConfig;
use crate::enrol::blocking;
use crate::files::clerk::Job;
use crate::files::clerks::{Clerks, Hired};
use crate::files::errand::{self, Done};
use crate::files::frame::{Frame, Kind};
use crate::files::lookout::{Lookout, Told};
use crate::files::relay;
use crate::files::transfer::TransferJob;
use crate::files::watching::WatchJob;
use crate::run::guards::Guards;
use crate::run::input::Input;
use crate::run::program::Surroundings;
use crate::run::protocol::Order;
use crate::run::spool::{Read, Spool};
use crate::run::worker::{Event, Worker};
use crate::sandbox::confine::Sandbox;
use crate::sandbox::identity::RunUser;
use crate::sandbox::probe::{Wishes, probe, unmade};

/// Events of one run that wait.
const EVENTS_MAX: usize = 64;

/// The sandbox of this machine, tried.
#[derive(Debug)]
pub struct Trial {
    sandbox: Arc<Sandbox>,
    guards: Arc<Guards>,
    surroundings: Arc<Surroundings>,
    clerks: Arc<Clerks>,
    spools: PathBuf,
    runs: AtomicU64,
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// What is seen of a folder that is watched.
#[derive(Debug)]
pub struct Sights {
    news: mpsc::Receiver<Sight>,
    _lookout: Lookout,
}

impl Sights {
    /// The next one; `None` when nobody watches any more.
    pub async fn next(&mut self) -> Option<Sight> {
        self.news.recv().await
    }
}

/// A command under way. It is ended when this is dropped.
#[derive(Debug)]
pub struct Running {
    events: mpsc::Receiver<Event>,
    orders: watch::Sender<Option<Order>>,
    _may_read: watch::Sender<bool>,
    input: Arc<Input>,
    spool: Arc<Spool>,
}

impl Trial {
    /// Tries the walls, as a node with this configuration does at its start.
    ///
    /// # Errors
    ///
    /// `bad_config` when the user for runs cannot be used, or the system refuses what is no wall.
    pub async fn new(config: NodeConfig) -> Result<Self, Refusal> {
        let configured = config.run_user.clone();
        let user = blocking(move || RunUser::find(configured.as_deref())).await?;
        let surroundings = Surroundings::new(config.path.clone(), |name| std::env::var_os(name));
        let guards = Arc::new(Guards::new(config.guard_exe.clone().into()));
        let reserved = config.reserved.iter().chain([&config.data_dir]).cloned().collect();
        let wishes = Wishes {
            user,
            place: surroundings.place(&config.work),
            reserved,
            level_max: config.level_max,
            host: "trial".to_owned(),
        };
        let sandbox = Arc::new(probe(&guards, wishes).await.map_err(|error| unmade(&error))?);
        let clerks = Arc::new(Clerks::new(Arc::clone(&guards), Arc::clone(&sandbox), "trial".to_owned()));
        Ok(Self {
            sandbox,
            clerks,
            guards,
            surroundings: Arc::new(surroundings),
            spools: config.data_dir.join("spool"),
            runs: AtomicU64::new(0),
        })
    }

    /// The level that was reached.
    pub fn level(&self) -> Level {
        self.sandbox.level()
    }

    /// The layers as they were found.
    pub fn layers(&self) -> &[Layer] {
        &self.sandbox.layers
    }

    /// Runs a command to its end, and until nothing of it is left.
    pub async fn run(&self, walls: Option<&Walls>, spec: RunSpec) -> Outcome {
        self.start(walls, spec).ended().await
    }

    /// Does one operation on files, as a node does it that allows whatever the walls do. A change is shown to
    /// others unless `may_go_on` says no.
    ///
    /// # Errors
    /// Those of the operation, and `path_outside_roots` for a path that the walls do not give.
    pub async fn files(
        &self,
        walls: Option<&Walls>,
        op: FileOp,
        may_go_on: impl AsyncFnOnce() -> Result<(), Refusal>,
    ) -> Result<FileAnswer, Refusal> {
        let reach = op.paths().map(|(path, access)| reach(walls, path, access)).collect::<Result<_, _>>()?;
        let id = OpId::mint(u64::from(std::process::id()), &self.number());
        let job = Job { id, op, reach, recovery: None };
        let mut clerk = self.clerks.hire(walls).await?;
        let done = errand::perform(&mut clerk, &job, None, async |_etag| may_go_on().await).await;
        if matches!(done, Done::Answered(_)) {
            clerk.give_back();
        }
        done.into_answer(id)
    }

    /// Does one transfer, as a node does it that allows whatever the walls do. `hub` is the other end: it is
    /// given the stream when the clerk opens one. What is told without a stream; `None` when all was said on it.
    ///
    /// # Errors
    /// `path_outside_roots` for a path that the walls do not give; `internal` when the clerk ends, whatever it
    /// had said before.
    pub async fn transfer(
        &self,
        walls: Option<&Walls>,
        work: TransferWork,
        hub: impl AsyncFnOnce(mpsc::Sender<Carry>, mpsc::Receiver<Carry>),
    ) -> Result<Option<TransferNews>, Refusal> {
        let access = if matches!(work, TransferWork::Apply(_)) { Access::Write } else { Access::Read };
        let reach = reach(walls, work.path(), access)?;
        let id = TransferId::mint(u64::from(std::process::id()), &self.number());
        let mut clerk = self.clerks.hire(walls).await?;
        let moved = move_over(&mut clerk, &TransferJob { id, work, reach }, hub).await;
        clerk.end().await;
        moved.map_err(|error| relay::lost(&error))
    }

    /// Watches a folder, as a node does it that allows whatever the walls do. What is seen; it ends when the process
    /// that watches does, and is ended by letting it go.
    ///
    /// # Errors
    /// `path_outside_roots` for a path that the walls do not give.
    pub fn watch(&self, walls: Option<&Walls>, ask: WatchAsk) -> Result<Sights, Refusal> {
        let reach = reach(walls, &ask.path, Access::Read)?;
        let (told, news) = mpsc::channel(EVENTS_MAX);
        let told = std::sync::Mutex::new(Some(told));
        let tell = move |seen| -> futures::future::BoxFuture<'static, ()> {
            let mut open = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let sender = match seen {
                Told::Seen(_) => open.clone(),
                Told::Lost => open.take(),
            };
            Box::pin(async move {
                if let (Told::Seen(news), Some(sender)) = (seen, sender) {
                    // Whoever hears no more has heard enough.
                    let _heard = sender.send(news.sight).await;
                }
            })
        };
        let lookout = Lookout::begin(Arc::clone(&self.clerks), walls.cloned(), Box::new(tell));
        lookout.watch(WatchJob { ask, reach });
        Ok(Sights { news, _lookout: lookout })
    }

    /// Processes that work on files, idle ones among them.
    pub fn clerks(&self) -> usize {
        self.clerks.count()
    }

    /// Ends those of them that are idle behind other walls than these.
    pub fn end_clerks_but(&self, walls: Option<&Walls>) {
        self.clerks.end_idle(Some(walls));
    }

    fn number(&self) -> [u8; 10] {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_le_bytes());
        random
    }

    /// Starts a command.
    pub fn start(&self, walls: Option<&Walls>, spec: RunSpec) -> Running {
        let run = RunId::mint(u64::from(std::process::id()), &self.number());
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let (orders, orders_in) = watch::channel(None);
        let (may_read, may_read_in) = watch::channel(true);
        let spool = Arc::new(Spool::new(self.spools.join(run.to_string())));
        let input = Arc::<Input>::default();
        let worker = Worker {
            start: Start {
                run,
                spec,
                caller: "trial".to_owned(),
                policy_revision: Revision(0),
                traceparent: None,
                consent: None,
                task: None,
            },
            walls: walls.cloned(),
            sandbox: Arc::clone(&self.sandbox),
            node: "trial".to_owned(),
            surroundings: Arc::clone(&self.surroundings),
            guards: Arc::clone(&self.guards),
            spool: Arc::clone(&spool),
            events: events_in,
            orders: orders_in,
            may_read: may_read_in,
            input: Arc::clone(&input),
        };
        drop(tokio::spawn(worker.live()));
        Running { events, orders, _may_read: may_read, input, spool }
    }

    /// Lets go of every room but those of live runs, as when a policy changes.
    pub async fn forget_rooms(&self) {
        let guards = Arc::clone(&self.guards);
        // It does nothing that could panic.
        let _done = tokio::task::spawn_blocking(move || guards.keep_only(None)).await;
    }

    /// Ends everything that was started for it.
    pub async fn finish(self) {
        self.clerks.finish();
        self.guards.finish().await;
    }
}

/// What a node does between a clerk and its hub.
async fn move_over(
    clerk: &mut Hired,
    job: &TransferJob,
    hub: impl AsyncFnOnce(mpsc::Sender<Carry>, mpsc::Receiver<Carry>),
) -> io::Result<Option<TransferNews>> {
    let senseless = || io::Error::from(io::ErrorKind::InvalidData);
    let news = |frame: &Frame| news_from_bytes(job.id, &frame.body).map_err(|_| senseless());
    clerk.tell(&job.to_frame()).await?;
    let first = clerk.hear().await?;
    if first.kind == Kind::Transfer {
        return news(&first).map(Some);
    } else if first.kind != Kind::Open {
        return Err(senseless());
    }
    clerk.tell(&Frame::new(Kind::Open, Vec::new())).await?;
    let (to_clerk, mut for_clerk) = mpsc::channel(8);
    let (to_hub, for_hub) = mpsc::channel(8);
    let (say, mut words) = mpsc::channel(1);
    let (jobs, replies) = clerk.pipes()?;
    let (moved, ()) = tokio::join!(
        async {
            let moved: io::Result<_> = {
                let up = async {
                    loop {
                        let frame =
                            Frame::receive_from(replies).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                        match frame.kind {
                            Kind::Stream => {
                                let carry =
                                    carry_from_bytes(frame.body).ok().flatten().ok_or_else(senseless)?;
                                // Whoever hears no more has heard enough.
                                let _heard = to_hub.send(carry).await;
                            }
                            Kind::Gate => {
                                let _said = say.send(Frame::new(Kind::Go, Vec::new())).await;
                            }
                            Kind::Transfer if frame.body.is_empty() => return Ok(None),
                            Kind::Transfer => return news(&frame).map(Some),
                            Kind::Operation
                            | Kind::Recovery
                            | Kind::Prepared
                            | Kind::Commit
                            | Kind::Abort
                            | Kind::Open
                            | Kind::StreamEnd
                            | Kind::Go
                            | Kind::Watch
                            | Kind::Unwatch => return Err(senseless()),
                        }
                    }
                };
                let down = async {
                    let mut is_over = false;
                    loop {
                        let frame = tokio::select! {
                            biased;
                            Some(word) = words.recv() => word,
                            carry = for_clerk.recv(), if !is_over => match carry {
                                Some(carry) => Frame::new(Kind::Stream, carry_to_bytes(carry)),
                                None => {
                                    is_over = true;
                                    Frame::new(Kind::StreamEnd, Vec::new())
                                }
                            },
                        };
                        frame.send_to(jobs).await?;
                    }
                };

                tokio::select! { moved = up => moved, failed = down => failed }
            };
            drop((to_hub, for_clerk));
            moved
        },
        hub(to_clerk, for_hub),
    );
    moved
}

impl Running {
    /// Waits until its process is there. Whether it came to that.
    pub async fn started(&mut self) -> bool {
        matches!(self.events.recv().await, Some(Event::Spawned { .. }))
    }

    /// Gives it standard input to its end. Whether that is not too much at once.
    pub fn input(&self, data: &[u8]) -> bool {
        self.input.push(&bytes::Bytes::copy_from_slice(data), true)
    }

    /// Asks it to end.
    pub fn term(&self) {
        self.orders.send_replace(Some(Order::Term));
    }

    /// Ends it.
    pub fn kill(&self) {
        self.orders.send_replace(Some(Order::Kill));
    }

    /// Waits for its end, and until nothing of it is left.
    pub async fn ended(mut self) -> Outcome {
        let mut ended = Ended::new(cortex_core::run::EndCause::UnknownOutcome);
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Ended { ended: told, .. } => ended = told,
                Event::Gone { .. } => break,
                Event::Spawned { .. }
                | Event::Wrote { .. }
                | Event::InputTaken { .. }
                | Event::Loaded { .. } => {}
            }
        }
        let (stdout, stderr) = self.output().await;
        self.spool.remove();
        Outcome { ended, stdout, stderr }
    }

    async fn output(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut stdout, mut stderr, mut position) = (Vec::new(), Vec::new(), 0);
        loop {
            match self.spool.read(position, u64::MAX) {
                Read::Here(stream, _, data) => {
                    position += data.len() as u64;
                    match stream {
                        Stream::Stdout => stdout.extend(data),
                        Stream::Stderr => stderr.extend(data),
                    }
                }
                Read::OnDisk => {
                    if self.spool.load(position).await.is_err() {
                        break;
                    }
                }
                Read::Nothing => break,
            }
        }
        (stdout, stderr)
    }
}
