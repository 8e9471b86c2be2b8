//! What may go wrong, and what people do meanwhile, drawn from the seed.

use crate::random::Random;

/// Until when faults and new work begin, milliseconds of the world.
pub(crate) const FAULTS_MS: u64 = 60_000;

/// One step of fate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transition {
    /// Somebody asks for a run; perhaps a program that is not allowed.
    Exec { node: usize, large: bool, allowed: bool, timeout_ms: Option<u64> },
    /// Somebody asks for the end of the newest open run.
    Cancel { node: usize },
    /// An administrator changes a policy.
    SetPolicy { node: usize },
    /// An administrator locks a token, or removes the lock.
    Lock { lift: bool },
    /// An administrator changes a policy while the node attaches, and somebody runs something after.
    RacePolicy { node: usize, after: u64 },
    /// The hub process dies; with the power, what was not synced goes too.
    HubCrash { power: bool, silent: bool, down_ms: u64 },
    /// A node process dies with its processes.
    NodeCrash { node: usize, power: bool, silent: bool, down_ms: u64 },
    /// A node process dies again and again without a farewell: it looks like a clone.
    Flap { node: usize },
    /// A node process is stopped for a while.
    Freeze { node: usize, ms: u64 },
    /// A link carries nothing more, and nobody is told.
    CutSilently { node: usize },
    /// The node's end is closed at once; the hub hears of it after the link's delay.
    HangUp { node: usize },
    /// Nothing passes between a node and the hub.
    Part { node: usize, ms: u64 },
    /// New links of a node are slow.
    SlowLinks { node: usize, delay: u64, ms: u64 },
    /// Commits take that long.
    SlowStore { delay: u64, ms: u64 },
    /// The store refuses every write.
    RefusingStore { ms: u64 },
    /// Frames of older links arrive on the newest.
    Replay { node: usize },
    /// A node sends output that does not follow.
    Rude { node: usize },
    /// Somebody submits a task.
    Submit,
    /// Somebody asks for the end of a task.
    CancelTask,
    /// Somebody has a task tried again.
    RetryTask,
    /// Somebody changes a task's priority.
    BumpTask,
    /// Somebody works on files of a node.
    Edit { node: usize },
    /// Somebody's work on files of a node is ended by a lock.
    CancelEdit { node: usize },
    /// A task for which somebody works on files is given to somebody else.
    NextAttempt { task: usize },
    /// The hub's wall clock is set: so far from the time that passed.
    SetClock { ahead_ms: i64 },
}

/// The fate of a seed: moments and transitions, in order.
pub(crate) fn plan(random: &mut Random, nodes: usize) -> Vec<(u64, Transition)> {
    let mut plan = Vec::new();
    let kindness = random.between(0, 3);
    for _ in 0..random.between(6, 16) {
        plan.push((random.between(200, FAULTS_MS), work(random, nodes)));
    }
    for _ in 0..kindness * 4 {
        plan.push((random.between(200, FAULTS_MS), fault(random, nodes)));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// What an administrator does about a token that leaked: locks of some length, in a world that has
/// them at all.
pub(crate) fn locks(random: &mut Random) -> Vec<(u64, Transition)> {
    let mut plan = Vec::new();
    for _ in 0..random.between(1, 4) {
        let from = random.between(500, FAULTS_MS - 20_000);
        plan.push((from, Transition::Lock { lift: false }));
        plan.push((from + random.between(10, 20_000), Transition::Lock { lift: true }));
    }
    plan
}

/// What people do with the pool, and the clock that it looks at, in a world that has one at all.
pub(crate) fn pool(random: &mut Random) -> Vec<(u64, Transition)> {
    let mut plan = Vec::new();
    let mut some = |low, high, transition| {
        for _ in 0..random.between(low, high) {
            plan.push((random.between(300, FAULTS_MS - 500), transition));
        }
    };
    some(8, 24, Transition::Submit);
    some(0, 5, Transition::CancelTask);
    some(1, 5, Transition::RetryTask);
    some(0, 4, Transition::BumpTask);
    let jumps = if random.chance(40) { random.between(1, 3) } else { 0 };
    for _ in 0..jumps {
        let far = if random.chance(20) { 86_400_000 } else { 30_000 };
        let ms = i64::try_from(random.between(1, far)).unwrap_or(0);
        let ahead_ms = if random.chance(50) { ms } else { -ms };
        plan.push((random.between(300, FAULTS_MS - 500), Transition::SetClock { ahead_ms }));
    }
    plan
}

/// What people do with files, in a world in which they do: a while with leave, some of it in bursts.
pub(crate) fn files(random: &mut Random, nodes: usize) -> Vec<(u64, Transition)> {
    let mut plan: Vec<(u64, Transition)> =
        (0..nodes).map(|node| (400, Transition::SetPolicy { node })).collect();
    for _ in 0..random.between(4, 14) {
        let (at, node) = (random.between(600, FAULTS_MS - 500), random.index(nodes));
        for _ in 0..random.between(1, 8) {
            plan.push((at + random.between(0, 400), Transition::Edit { node }));
        }
        if random.chance(20) {
            plan.push((at + random.between(0, 400), Transition::CancelEdit { node }));
        }
        if random.chance(50) {
            let task = random.index(2);
            plan.push((at + random.between(0, 600), Transition::NextAttempt { task }));
        }
    }
    plan
}

fn work(random: &mut Random, nodes: usize) -> Transition {
    let node = random.index(nodes);
    match random.between(0, 9) {
        0 | 1 => Transition::Cancel { node },
        2 => Transition::SetPolicy { node },
        _ => Transition::Exec {
            node,
            large: random.chance(8),
            allowed: random.chance(92),
            timeout_ms: random.chance(20).then(|| random.between(100, 5_000)),
        },
    }
}

fn fault(random: &mut Random, nodes: usize) -> Transition {
    let node = random.index(nodes);
    let (power, silent) = (random.chance(50), random.chance(40));
    match random.between(0, 19) {
        0 | 1 => Transition::HubCrash { power, silent, down_ms: random.between(10, 8_000) },
        2 | 3 => Transition::NodeCrash { node, power, silent, down_ms: random.between(10, 15_000) },
        4 => Transition::Flap { node },
        5 | 6 => Transition::Freeze { node, ms: random.between(100, 25_000) },
        7 | 8 => Transition::CutSilently { node },
        9 | 10 => Transition::HangUp { node },
        11 => Transition::Part { node, ms: random.between(100, 25_000) },
        12 => Transition::SlowLinks {
            node,
            delay: random.between(100, 3_000),
            ms: random.between(1_000, 20_000),
        },
        13 => Transition::SlowStore { delay: random.between(50, 30_000), ms: random.between(100, 20_000) },
        14 => Transition::RefusingStore { ms: random.between(100, 8_000) },
        15 => Transition::Replay { node },
        16 | 17 => Transition::RacePolicy { node, after: random.between(100, 3_500) },
        _ => Transition::Rude { node },
    }
}
