//! The task of one run: start, output, input, signals, end. It tells the node's actor by events
//! and outlives every link. Never here: journal, hub, policy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cortex_core::id::RunId;
use cortex_core::message::Start;
use cortex_core::run::Ended;
use cortex_core::sandbox::Walls;
use cortex_core::stream::Stream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ends::{
    OUT_OF_MEMORY, denied_with, ended_by, failed, guard_failed, hung, no_walls, not_launched, refused,
    unseen, wrote_too_much,
};
use super::guards::{Guards, NoGuard};
use super::input::Input;
use super::output::Output;
use super::process::{Exit, NotStarted, Process};
use super::program::Surroundings;
use super::protocol::{Launch, Order};
use super::spool::Spool;
use crate::sandbox::confine::{Confinement, Sandbox};

/// Time that a start has after the wish to kill it, before its guard is killed.
const START_GRACE: Duration = Duration::from_millis(500);

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// The process is there.
    Spawned {
        /// Which run.
        run: RunId,
    },
    /// The spool has this much more.
    Wrote {
        /// Which run.
        run: RunId,
        /// Which stream.
        stream: Stream,
        /// Bytes.
        len: u64,
    },
    /// The process took standard input up to here.
    InputTaken {
        /// Which run.
        run: RunId,
        /// Bytes in all.
        upto: u64,
    },
    /// The main process ended and its output is in the spool.
    Ended {
        /// Which run.
        run: RunId,
        /// How.
        ended: Ended,
    },
    /// Nothing of the run's tree is left.
    Gone {
        /// Which run.
        run: RunId,
    },
    /// Bytes of the spool that were on disk are in memory, or could not be read.
    Loaded {
        /// Which run.
        run: RunId,
        /// The failure.
        error: Option<std::io::Error>,
    },
}

/// A run that has its guard, and what was made for it.
struct Begun {
    process: Process,
    confinement: Option<Confinement>,
}

impl Begun {
    /// Lets go of the guard, and then of what was made.
    async fn end(self, nothing_is_left: bool) {
        drop(self.process);
        if let Some(confinement) = self.confinement {
            confinement.end(nothing_is_left).await;
        }
    }
}

/// The task's own ends of everything.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What to do.
    pub(crate) start: Start,
    /// Behind which walls; `None` without any.
    pub(crate) walls: Option<Walls>,
    /// What the node found of its sandbox.
    pub(crate) sandbox: Arc<Sandbox>,
    /// The node's name.
    pub(crate) node: String,
    /// Path and variables.
    pub(crate) surroundings: Arc<Surroundings>,
    /// Where guards come from.
    pub(crate) guards: Arc<Guards>,
    /// Where output goes.
    pub(crate) spool: Arc<Spool>,
    /// Who is told.
    pub(crate) events: mpsc::Sender<Event>,
    /// What to do with the tree; the last word counts.
    pub(crate) orders: watch::Receiver<Option<Order>>,
    /// Whether more output may be read.
    pub(crate) may_read: watch::Receiver<bool>,
    /// Standard input.
    pub(crate) input: Arc<Input>,
}

impl Worker {
    /// From start to the last process of the tree.
    pub(crate) async fn live(mut self) {
        let run = self.start.run;
        let begun = Instant::now();
        match self.begin().await {
            Ok(Begun { mut process, confinement }) => {
                fail::fail_point!("node::after_spawn");
                self.tell(Event::Spawned { run }).await;
                let over = CancellationToken::new();
                let exit = self.attend(&mut process, &over).await;
                let mut ended = ended_by(exit.0, exit.1.duration_since(begun).as_millis());
                if over.is_cancelled() {
                    ended.diagnostic = Some(wrote_too_much(self.output_bytes_max()));
                } else if confinement.as_ref().is_some_and(Confinement::ran_out_of_memory) {
                    ended.diagnostic.get_or_insert_with(|| OUT_OF_MEMORY.to_owned());
                }
                self.tell(Event::Ended { run, ended }).await;
                let nothing_is_left = process.gone().await;
                Begun { process, confinement }.end(nothing_is_left).await;
            }
            Err(ended) => self.tell(Event::Ended { run, ended }).await,
        }
        self.tell(Event::Gone { run }).await;
    }

    /// Looks the program up, gets a guard and lets it start the program. Each of these may hang
    /// (a file system that does not answer) and is given up when the run is to be killed.
    async fn begin(&self) -> Result<Begun, Ended> {
        let killed = self.killed();
        tokio::pin!(killed);
        let (mut begun, launch) = tokio::select! {
            prepared = self.prepare() => prepared?,
            // What the thread still brings about is dropped with it: a guard that was told nothing.
            () = &mut killed => return Err(hung()),
        };
        let started = tokio::select! {
            // A guard that is gone is never killed by its number.
            biased;
            started = begun.process.start(&launch) => started,
            () = &mut killed => {
                self.give_up(&mut begun.process).await;
                begun.end(false).await;
                return Err(hung());
            }
        };
        let ended = match started {
            Ok(pid) => {
                tracing::debug!(run = %self.start.run, pid, "process started");
                return Ok(begun);
            }
            Err(NotStarted::Guard(error)) if begun.process.has_guard() => unseen(&error),
            Err(NotStarted::Guard(error)) => guard_failed(&error),
            Err(NotStarted::Refused(why)) => refused(&why, &launch.program, &launch.cwd, &self.node),
        };
        begun.end(false).await;
        Err(ended)
    }

    /// Ends a start that hangs.
    async fn give_up(&self, process: &mut Process) {
        if process.has_guard() {
            process.kill_guard();
        } else {
            let (guards, nursery) = (Arc::clone(&self.guards), process.nursery());
            drop(tokio::task::spawn_blocking(move || guards.give_up(&nursery)));
        }
        // One that never came, or that the system holds on to, finds its socket closed later.
        let _gone = tokio::time::timeout(START_GRACE, process.gone()).await;
    }

    /// A guard, and what it is to start.
    async fn prepare(&self) -> Result<(Begun, Launch), Ended> {
        let (surroundings, guards) = (Arc::clone(&self.surroundings), Arc::clone(&self.guards));
        let (sandbox, walls) = (Arc::clone(&self.sandbox), self.walls.clone());
        let (start, node) = (self.start.clone(), self.node.clone());
        let begun = tokio::task::spawn_blocking(move || {
            let made = walls.map(|walls| Confinement::new(&sandbox, &walls, &start.run.to_string(), &node));
            let mut confinement =
                made.transpose().map_err(|refusal| denied_with(refusal.code, &refusal.message))?;
            let launch = match &confinement {
                None => surroundings.launch(&start, &node).map_err(failed)?,
                Some(confinement) => {
                    surroundings.launch_confined(&start, &node, confinement).map_err(not_launched)?
                }
            };
            let groups = confinement.as_mut().map(Confinement::take_entrances).unwrap_or_default();
            let room = confinement.as_ref().map(|confinement| &confinement.room);
            let process =
                Process::begin(&guards, room, start.spec.stdin, groups).map_err(|why| match why {
                    NoGuard::System(error) => guard_failed(&error),
                    NoGuard::Walls(why) => no_walls(&why),
                })?;
            Ok((Begun { process, confinement }, launch))
        });
        begun.await.map_err(|error| failed(error.to_string()))?
    }

    fn output_bytes_max(&self) -> Option<u64> {
        self.walls.as_ref().and_then(|walls| walls.limits.output_bytes)
    }

    /// The run is to be killed, and a start that is only slow had its time: it is told, and its
    /// tree is ended in order.
    async fn killed(&self) {
        let mut orders = self.orders.clone();
        // An actor that is gone can decide no more: that is a kill as well.
        let _gone = orders.wait_for(|order| *order == Some(Order::Kill)).await.is_err();
        tokio::time::sleep(START_GRACE).await;
    }

    /// Until the main process ended and what it wrote is kept.
    async fn attend(&mut self, process: &mut Process, over: &CancellationToken) -> (Exit, Instant) {
        let run = self.start.run;
        let exited = CancellationToken::new();
        let output = Output {
            run,
            spool: Arc::clone(&self.spool),
            events: self.events.clone(),
            may_read: self.may_read.clone(),
            bytes_max: self.output_bytes_max(),
            over: over.clone(),
            stdout: process.stdout.take(),
            stderr: process.stderr.take(),
        };
        let stdin = process.stdin.take();
        let events = &self.events;
        let taken = |upto| async move {
            // The receiver is gone only when the node process ends.
            let _told = events.send(Event::InputTaken { run, upto }).await;
        };
        let orders = &mut self.orders;
        let control = async {
            let exit = obey(process, orders, over).await;
            exited.cancel();
            (exit, Instant::now())
        };
        let input = exited.run_until_cancelled(self.input.pump(stdin, taken));
        let (exit, (), _) = tokio::join!(control, output.pump(&exited), input);
        exit
    }

    async fn tell(&self, event: Event) {
        // The receiver is gone only when the node process ends.
        let _told = self.events.send(event).await;
    }
}

/// Passes orders on until the main process has ended, and kills it when it is `over` its bound.
async fn obey(
    process: &mut Process,
    orders: &mut watch::Receiver<Option<Order>>,
    over: &CancellationToken,
) -> Exit {
    let mut may_be_over = true;
    loop {
        tokio::select! {
            exit = process.ended() => return exit,
            () = over.cancelled(), if may_be_over => {
                may_be_over = false;
                process.order(Order::Kill).await;
            }
            changed = orders.changed() => {
                let order = *orders.borrow_and_update();
                match (changed, order) {
                    (Ok(()), Some(order)) => process.order(order).await,
                    (Ok(()), None) => {}
                    (Err(_), _) => {
                        // Nobody can decide any more.
                        process.order(Order::Kill).await;
                        return process.ended().await;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use cortex_core::id::Revision;
    use cortex_core::run::{EndCause, RunSpec};
    use cortex_core::sandbox::{Level, Place};

    use super::super::ends::SIGKILL;
    use super::*;
    use crate::sandbox::cgroup::Cgroups;
    use crate::sandbox::host::Host;

    #[tokio::test]
    async fn a_guard_that_hangs_in_the_start_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let guard_exe = folder.path().join("guard");
        std::fs::write(&guard_exe, "#!/bin/sh\nexec sleep 600\n").expect("written");
        std::fs::set_permissions(&guard_exe, std::fs::Permissions::from_mode(0o700)).expect("executable");
        let run = RunId::mint(1, &[0; 10]);
        let spec = RunSpec { argv: vec!["/bin/true".to_owned()], ..RunSpec::default() };
        let start = Start {
            run,
            spec,
            caller: "a".to_owned(),
            policy_revision: Revision(1),
            traceparent: None,
            consent: None,
            task: None,
        };
        let (events, mut told) = mpsc::channel(8);
        let (orders, orders_in) = watch::channel(None);
        let (_may_read, may_read) = watch::channel(true);
        let host = Host::new(Level::None, None, Place::default(), &[]);
        let sandbox = Sandbox::new(host, Vec::new(), Cgroups::default()).expect("made");
        let worker = Worker {
            start,
            walls: None,
            sandbox: Arc::new(sandbox),
            node: "n1".to_owned(),
            surroundings: Arc::new(Surroundings::new("/usr/bin:/bin".into(), |_| None)),
            guards: Arc::new(Guards::new(guard_exe.into())),
            spool: Arc::new(Spool::new(folder.path().join("spool"))),
            events,
            orders: orders_in,
            may_read,
            input: Arc::default(),
        };
        let life = tokio::spawn(worker.live());
        orders.send_replace(Some(Order::Kill));
        let first = tokio::time::timeout(Duration::from_secs(10), told.recv()).await.expect("in time");
        let Some(Event::Ended { ended, .. }) = first else { panic!("{first:?}") };
        assert_eq!((ended.cause, ended.signal), (EndCause::Exited, Some(SIGKILL)));
        assert!(matches!(told.recv().await, Some(Event::Gone { .. })));
        life.await.expect("no panic");
    }
}
