//! Side-by-side measurements of `cortex` and its peers, on this machine, in turn, in the same
//! minutes. Prints tables with medians and ratios; asserts nothing.
//!
//! See `README.md` beside this folder for how to repeat them.

mod api;
mod cases;
mod cpu;
mod hub;
mod pool;
mod report;
mod ssh;
mod swarm;
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures the link between hub and nodes.
#[derive(Parser)]
struct Args {
    /// The `cortex` binary to measure; a release build.
    #[arg(long, default_value = "target/release/cortex", global = true)]
    cortex: PathBuf,
    #[command(subcommand)]
    case: Case,
}

#[derive(Subcommand)]
enum Case {
    /// Cut, hash, pack, unpack and verify content on one core, without a hub.
    Content {
        /// Rounds of each, taken in turn.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// `true` over a kept connection, over the command line, and ssh beside it.
    Exec {
        /// Runs of each, taken in turn.
        #[arg(long, default_value_t = 200)]
        rounds: usize,
    },
    /// `true` on many nodes at once, and ssh that many times.
    Fanout {
        /// How many nodes.
        #[arg(long, default_value_t = 100)]
        nodes: usize,
        /// Rounds of each, taken in turn.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Output of one run from node to client, and ssh beside it: CPU per GB, memory of the hub, and
    /// what it does to another node's commands.
    Stdout {
        /// Bytes of one round.
        #[arg(long, default_value_t = 1_000_000_000)]
        bytes: u64,
        /// Rounds of each, taken in turn.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Memory of the hub per idle node, and what heartbeats cost, with simulated nodes.
    Idle {
        /// How many nodes; several counts are measured one after the other.
        #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
        nodes: Vec<usize>,
        /// How long each count stays idle, seconds.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// Heartbeats of simulated nodes, as many as the hub takes in.
    Heartbeats {
        /// How many nodes.
        #[arg(long, default_value_t = 200)]
        nodes: usize,
        /// How long, seconds.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// The hub's disk stops syncing: what goes on, and what is refused how soon.
    Stall {
        /// How many simulated nodes.
        #[arg(long, default_value_t = 1_000)]
        nodes: usize,
        /// How long, seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// The work pool beside PostgreSQL, beanstalkd, JetStream, BullMQ and graphile-worker: claim + complete.
    Pool {
        /// Passes, each with every pool in turn.
        #[arg(long, default_value_t = 3)]
        passes: usize,
        /// At most so long for each measurement, seconds.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
        /// Only pools whose name begins with that, such as `cortex` under a profiler.
        #[arg(long, default_value = "")]
        only: String,
        /// Only with so many workers.
        #[arg(long)]
        workers: Option<usize>,
        /// Only with so many jobs taken at once.
        #[arg(long)]
        at_once: Option<usize>,
        /// Jobs that wait before each measurement.
        #[arg(long, default_value_t = 20_000)]
        jobs: u64,
    },
    /// From the submission of a task to the claim of a worker that waits, beside beanstalkd.
    PoolIdle {
        /// Tasks of each.
        #[arg(long, default_value_t = 1_200)]
        rounds: u64,
    },
    /// A thousand beside many waiting tasks.
    PoolMany {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        tasks: u64,
        /// For each measurement, seconds.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// Commands that nodes are given and end at once, beside PostgreSQL's claim + complete.
    PoolNodes {
        /// Passes, each with both in turn.
        #[arg(long, default_value_t = 3)]
        passes: usize,
        /// At most so long for each measurement, seconds.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
        /// Only so many nodes, and so many slots of each: `16x1`.
        #[arg(long)]
        shape: Option<String>,
        /// Without the peer, such as under a profiler.
        #[arg(long)]
        alone: bool,
    },
    /// The sources of a large crate on three nodes: mirrored, refactored under a lock, built, put right.
    Real {
        /// A folder with these sources; they are fetched when it is missing.
        #[arg(long)]
        sources: Option<PathBuf>,
    },
    /// All nodes come back at once after the hub was killed.
    Reconnect {
        /// How many nodes.
        #[arg(long, default_value_t = 1_000)]
        nodes: usize,
    },
    /// Trees of SYNC's table over a wire: `cortex push` and `pull` beside rsync, scp, tar, Unison and Syncthing.
    Sync {
        /// Only these: random, text, sources, unchanged, edited, inserted.
        #[arg(long, value_delimiter = ',')]
        cases: Vec<String>,
        /// Only these ways, ours among them: rsync-ssh, unison, cortex-push, ….
        #[arg(long, value_delimiter = ',')]
        peers: Vec<String>,
        /// Passes, each with every way in turn; one more before them is thrown away.
        #[arg(long, default_value_t = 5)]
        passes: usize,
        /// Size of the one file, MiB.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
        /// Files of the tree of sources; 11,900 bytes each on average.
        #[arg(long, default_value_t = 20_000)]
        files: usize,
        /// A folder for the trees, such as on a fresh disk; without it they are in memory.
        #[arg(long)]
        on: Option<PathBuf>,
    },
    /// One file to many nodes, one of them behind a slow link.
    Broadcast {
        /// How many nodes, the slow one among them.
        #[arg(long, default_value_t = 8)]
        nodes: usize,
        /// Size of the file, MiB.
        #[arg(long, default_value_t = 256)]
        mib: u64,
        /// What the slow link lets through, bytes a second.
        #[arg(long, default_value_t = 1_000_000)]
        slow: u64,
        /// Passes, each with every way in turn; one more before them is thrown away.
        #[arg(long, default_value_t = 5)]
        passes: usize,
        /// At most so long for each copy to the fast nodes, seconds.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Without rsync.
        #[arg(long)]
        alone: bool,
        /// A folder for the trees; without it they are in memory.
        #[arg(long)]
        on: Option<PathBuf>,
    },
    /// `true` while many pushes of a tree go on.
    PushLoad {
        /// How many pushes at once.
        #[arg(long, default_value_t = 50)]
        pushes: usize,
        /// To how many nodes.
        #[arg(long, default_value_t = 4)]
        nodes: usize,
        /// Files of the tree.
        #[arg(long, default_value_t = 20_000)]
        files: usize,
        /// At most so long for each way, seconds.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// A folder for the trees; without it they are in memory.
        #[arg(long)]
        on: Option<PathBuf>,
    },
    /// A connection cut at random bytes: what is sent again.
    Resume {
        /// Cuts of each way and tree.
        #[arg(long, default_value_t = 10)]
        cuts: usize,
        /// Size of the one file, MiB.
        #[arg(long, default_value_t = 256)]
        mib: u64,
        /// Files of the tree of sources.
        #[arg(long, default_value_t = 20_000)]
        files: usize,
        /// A folder for the trees; without it they are in memory.
        #[arg(long)]
        on: Option<PathBuf>,
    },
}

impl Case {
    /// Whether it stands in namespaces of its own.
    const fn apart(&self) -> bool {
        matches!(
            self,
            Self::Sync { .. } | Self::Broadcast { .. } | Self::PushLoad { .. } | Self::Resume { .. }
        )
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.case.apart()
        && let Some(code) = sync::place::enter()?
    {
        return Ok(code);
    }
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "the TLS provider was installed before");
    let cortex = args.cortex.canonicalize()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match args.case {
            Case::Content { rounds } => cases::content::run(rounds),
            Case::Exec { rounds } => cases::exec::run(&cortex, rounds).await,
            Case::Fanout { nodes, rounds } => cases::fanout::run(&cortex, nodes, rounds).await,
            Case::Stdout { bytes, rounds } => cases::stdout::run(&cortex, bytes, rounds).await,
            Case::Idle { nodes, seconds } => cases::idle::run(&cortex, &nodes, seconds).await,
            Case::Heartbeats { nodes, seconds } => cases::heartbeats::run(&cortex, nodes, seconds).await,
            Case::Stall { nodes, seconds } => cases::stall::run(&cortex, nodes, seconds).await,
            // Threads of their own; nothing else runs on this runtime.
            Case::Pool { passes, seconds, only, workers, at_once, jobs } => {
                let load = cases::pool::Load { jobs, seconds };
                cases::pool::rates(&cortex, passes, load, &only, (workers, at_once))
            }
            Case::PoolIdle { rounds } => cases::pool::idle(&cortex, rounds),
            Case::PoolMany { tasks, seconds } => cases::pool::many(&cortex, tasks, seconds),
            Case::PoolNodes { passes, seconds, shape, alone } => {
                cases::pool_nodes::run(&cortex, passes, seconds, shape.as_deref(), alone).await
            }
            // Nothing else runs on this runtime.
            Case::Real { sources } => cases::real::run(&cortex, sources.as_deref()),
            Case::Reconnect { nodes } => cases::reconnect::run(&cortex, nodes).await,
            // Nothing else runs on this runtime.
            Case::Sync { cases, peers, passes, mib, files, on } => {
                let (bytes, on) = (mib << 20, on.as_deref());
                let choice = cases::sync::Choice { cases: &cases, ways: &peers, passes, bytes, files, on };
                cases::sync::run(&cortex, &choice)
            }
            Case::Broadcast { nodes, mib, slow, passes, seconds, alone, on } => {
                let (bytes, on) = (mib << 20, on.as_deref());
                let patience = std::time::Duration::from_secs(seconds);
                let choice = cases::broadcast::Choice { nodes, bytes, slow, passes, patience, alone, on };
                cases::broadcast::run(&cortex, &choice)
            }
            Case::PushLoad { pushes, nodes, files, seconds, on } => {
                let on = on.as_deref();
                let choice = cases::push_load::Choice { pushes, nodes, files, seconds, on };
                cases::push_load::run(&cortex, &choice).await
            }
            Case::Resume { cuts, mib, files, on } => {
                let (bytes, on) = (mib << 20, on.as_deref());
                cases::resume::run(&cortex, &cases::resume::Choice { cuts, bytes, files, on }).await
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
