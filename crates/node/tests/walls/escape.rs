//! The escape probe: the program `attempts` without walls, behind Landlock and seccomp alone, and
//! behind the walls of a node at each level; as the administrator's node and as an ordinary user's.

mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Access, Level, Network, Walls};
use cortex_node::NodeConfig;
use cortex_node::sandbox::filter::{self, FilterSpec};
use cortex_node::sandbox::landlock::{self, Rule, RuleAccess};
use cortex_node::trial::Trial;

use self::scene::{RUN_USER, Scene, hand_down, leave_open};
use super::support::{as_each_user, guard_exe, is_root, programs, walls};

/// What Landlock and seccomp leave open, since neither can look at it: names and attributes of
/// files outside can be seen and, of own files, changed; processes and connections of the machine
/// are seen in /proc; and the system's loader maps a program that may be read and not executed.
const OPEN_BEHIND_KERNEL: &[&str] = &[
    "chdir_outside",
    "chmod_outside",
    "chown_outside",
    "cmdline_of_node",
    "cmdline_of_sibling",
    "exec_written_by_loader",
    "list_connections",
    "readlink_outside",
    "setxattr_outside",
    "stat_outside",
    "utime_outside",
    "watch_outside",
];

/// With a port, what connects to it, and who is connected at all.
const OPEN_BY_A_PORT: &[&str] = &["list_connections", "tcp_loopback", "tcp_loopback_by_ipv6"];

/// With all of the network, what is TCP or UDP.
const OPEN_BY_THE_NETWORK: &[&str] = &[
    "list_connections",
    "metadata_address",
    "tcp_fast_open",
    "tcp_hub_port",
    "tcp_listen",
    "tcp_listen_without_bind",
    "tcp_loopback",
    "tcp_loopback_by_ipv6",
    "tcp_node_port",
    "udp_loopback",
];

/// By name: nothing when it was open, or the system's reason.
type Told = BTreeMap<String, Option<i32>>;

fn read(output: &str) -> Told {
    let line = |line: &str| {
        let mut words = line.split('\t');
        let name = words.next().expect("a name").to_owned();
        match (words.next(), words.next()) {
            (Some("open"), None) => (name, None),
            (Some("denied"), Some(errno)) => (name, Some(errno.parse().expect("a number"))),
            other => panic!("{name}: {other:?}"),
        }
    };
    output.lines().map(line).collect()
}

fn open(told: &Told) -> BTreeSet<&str> {
    told.iter().filter(|(_, errno)| errno.is_none()).map(|(name, _)| name.as_str()).collect()
}

/// A command that makes all attempts on a scene, and is handed a descriptor.
fn attempts_on(scene: &Scene) -> Command {
    let argv = scene.argv(scene.sibling(), &scene.path("outside/secret"));
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).env_clear().current_dir(scene.path("work"));
    command.stdin(scene.terminal()).stderr(Stdio::inherit());
    hand_down(&mut command, &scene.path("outside/secret"));
    command
}

fn told_by(mut command: Command) -> Told {
    let output = command.output().expect("it ran");
    assert!(output.status.success(), "{:?}", output.status);
    read(std::str::from_utf8(&output.stdout).expect("text"))
}

/// What a run is given: the base set, its program, and a folder for its work.
fn rules(scene: &Scene) -> Vec<Rule> {
    let rule = |path: &Path, access| Rule { path: path.to_owned(), access, file: None };
    let mut rules: Vec<Rule> = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt"]
        .into_iter()
        .map(Path::new)
        .filter(|path| path.exists())
        .map(|path| rule(path, RuleAccess::ReadExec))
        .collect();
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        rules.push(rule(Path::new(device), RuleAccess::Device));
    }
    rules.push(rule(Path::new("/proc"), RuleAccess::ProcRead));
    rules.push(rule(&scene.path("program"), RuleAccess::ReadExec));
    rules.push(rule(&scene.path("work"), RuleAccess::Write));
    rules.extend(programs().map(|folder| rule(&folder, RuleAccess::ReadExec)));
    rules
}

/// Puts Landlock and the filter around a command, as the start of a run does.
#[expect(unsafe_code, reason = "walls are taken on between fork and exec")]
fn wall_in(command: &mut Command, scene: &Scene, network: &Network) {
    let ruleset = landlock::ruleset(&rules(scene), network).expect("a ruleset");
    let filter = filter::program(&FilterSpec { network: network.clone(), pidfd: false });
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_no_new_privs()?;
            ruleset.restrict()?;
            nix::libc::syscall(nix::libc::SYS_close_range, 3, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC);
            filter.install()
        });
    }
    if is_root() {
        command.uid(RUN_USER).gid(RUN_USER);
    }
}

/// The walls of a policy that gives a run its program and a folder for its work.
fn walls_of(scene: &Scene, level: Level, network: &Network) -> Walls {
    let (program, work) = (scene.path("program"), scene.path("work"));
    let mut trees = vec![(program.as_path(), Access::Read, true), (work.as_path(), Access::Write, false)];
    let programs = programs();
    trees.extend(programs.iter().map(|folder| (folder.as_path(), Access::Read, true)));
    Walls { level, network: network.clone(), ..walls(&trees) }
}

/// The number, out here, of the process that has this argument.
fn process_of(argument: &str) -> u32 {
    let has_it = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').any(|word| word == argument)
    };
    let entries = std::fs::read_dir("/proc").expect("it is there").flatten();
    let mut all = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.find(has_it).expect("it runs")
}

/// Makes all attempts as a run of a node that may put up walls up to this level, beside another run
/// behind the same walls.
async fn told_by_a_run(scene: &Scene, level: Level, network: &Network) -> Told {
    let mut config = NodeConfig::new(scene.path("node"));
    config.guard_exe = guard_exe();
    config.work = vec![scene.path("work")];
    config.level_max = level;
    let _careless = leave_open(&scene.path("outside/secret"));
    let trial = Trial::new(config).await.expect("the sandbox is tried");
    assert_eq!(trial.level(), level, "{:#?}", trial.layers());
    let walls = walls_of(scene, level, network);
    let cwd = Some(scene.path("work").to_str().expect("text").to_owned());
    let spec = |argv| RunSpec { argv, cwd: cwd.clone(), ..RunSpec::default() };
    // Unlike any other process of this machine.
    let asleep = format!("600.{}", std::process::id());
    let mut sibling = trial.start(Some(&walls), spec(vec!["/bin/sleep".to_owned(), asleep.clone()]));
    assert!(sibling.started().await, "the sibling runs");
    let argv = scene.argv(process_of(&asleep), &scene.path("node/node.key"));
    let outcome = trial.run(Some(&walls), spec(argv)).await;
    sibling.kill();
    assert_eq!(sibling.ended().await.ended.signal, Some(9), "no attempt ended it");
    trial.finish().await;
    let text = String::from_utf8(outcome.stdout.clone()).expect("text");
    assert_eq!(outcome.ended.code, Some(0), "{outcome:?}");
    read(&text)
}

/// With no network, with one port and with all of it: open must be `always`, and what is reached;
/// as far as this machine has it open without walls.
async fn in_each_network(always: &[&str], tell: impl AsyncFn(&Scene, &Network) -> Told) {
    let without_walls = told_by(attempts_on(&Scene::set()));
    let possible = open(&without_walls);
    for (index, reached) in [&[][..], OPEN_BY_A_PORT, OPEN_BY_THE_NETWORK].iter().enumerate() {
        let scene = Scene::set();
        let networks = [Network::None, Network::Ports([scene.port()].into()), Network::All];
        let told = tell(&scene, &networks[index]).await;
        let expected = always.iter().chain(*reached).copied().filter(|name| possible.contains(name));
        assert_eq!(open(&told), expected.collect(), "{:?} {told:?}", networks[index]);
        assert_eq!(told.len(), without_walls.len(), "{told:?}");
    }
}

#[test]
fn without_walls_most_attempts_are_open() {
    as_each_user("escape::without_walls_most_attempts_are_open", async {
        let told = told_by(attempts_on(&Scene::set()));
        let open = open(&told);
        println!("{} of {} attempts are open: {told:?}", open.len(), told.len());
        assert!(open.len() >= if is_root() { 100 } else { 80 }, "only {}: {told:?}", open.len());
    });
}

#[test]
fn the_kernels_two_layers_leave_open_what_is_documented() {
    as_each_user("escape::the_kernels_two_layers_leave_open_what_is_documented", async {
        in_each_network(OPEN_BEHIND_KERNEL, async |scene, network| {
            let mut command = attempts_on(scene);
            wall_in(&mut command, scene, network);
            told_by(command)
        })
        .await;
    });
}

#[test]
fn a_run_at_level_kernel_leaves_open_what_is_documented() {
    as_each_user("escape::a_run_at_level_kernel_leaves_open_what_is_documented", async {
        let tell =
            async |scene: &Scene, network: &Network| told_by_a_run(scene, Level::Kernel, network).await;
        in_each_network(OPEN_BEHIND_KERNEL, tell).await;
    });
}

#[test]
fn every_attempt_is_denied_in_a_run_at_level_full() {
    as_each_user("escape::every_attempt_is_denied_in_a_run_at_level_full", async {
        let tell = async |scene: &Scene, network: &Network| told_by_a_run(scene, Level::Full, network).await;
        in_each_network(&[], tell).await;
    });
}
