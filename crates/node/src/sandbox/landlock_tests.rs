//! Rules as a child meets them that has taken them on: the kernel is the judge.

use super::*;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;

/// What `sh` and the core utilities need to run at all.
const BASE: &[(&str, RuleAccess)] = &[
    ("/usr", RuleAccess::ReadExec),
    ("/bin", RuleAccess::ReadExec),
    ("/lib", RuleAccess::ReadExec),
    ("/lib64", RuleAccess::ReadExec),
    ("/dev/null", RuleAccess::Device),
    ("/proc", RuleAccess::ProcRead),
];

fn base() -> Vec<Rule> {
    let exists = |path: &&(&str, RuleAccess)| Path::new(path.0).exists();
    BASE.iter().filter(exists).map(|(path, access)| rule(Path::new(path), *access)).collect()
}

fn rule(path: &Path, access: RuleAccess) -> Rule {
    Rule { path: path.to_owned(), access, file: None }
}

/// A child behind `ruleset` that does `first` before its program.
#[expect(unsafe_code, reason = "a child takes its walls on between fork and exec")]
fn behind(
    ruleset: Ruleset,
    mut command: Command,
    first: impl Fn() -> nix::Result<()> + Send + Sync + 'static,
) -> Command {
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_no_new_privs()?;
            ruleset.restrict()?;
            Ok(first()?)
        });
    }
    command
}

/// Whether a script ends well behind these rules.
fn succeeds(rules: Vec<Rule>, folder: &Path, script: &str) -> bool {
    let ruleset = ruleset(&rules, &Network::None).expect("a ruleset");
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", script]).env_clear().env("PATH", "/usr/bin:/bin").env("HERE", folder);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    behind(ruleset, command, || Ok(())).status().expect("it ran").success()
}

/// How the act of a child behind a ruleset ends.
fn act(ruleset: Ruleset, act: impl Fn() -> nix::Result<()> + Send + Sync + 'static) -> Result<(), Errno> {
    match behind(ruleset, Command::new("/bin/true"), act).status() {
        Ok(_) => Ok(()),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(0))),
    }
}

/// A folder with what the scripts use, and one beside it.
fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for below in ["in/sub", "out"] {
        std::fs::create_dir_all(folder.path().join(below)).expect("made");
    }
    for file in ["in/file", "in/sub/file", "out/file"] {
        std::fs::write(folder.path().join(file), "text").expect("written");
    }
    std::fs::copy("/bin/true", folder.path().join("in/program")).expect("copied");
    std::os::unix::fs::symlink(folder.path().join("out/file"), folder.path().join("in/link"))
        .expect("linked");
    folder
}

#[test]
fn a_rule_allows_what_it_says_and_nothing_beside_it() {
    use RuleAccess::{Read, ReadExec, Write, WriteExec};
    let read = [Read, ReadExec, Write, WriteExec];
    let write = [Write, WriteExec];
    let table: &[(&str, &[RuleAccess])] = &[
        ("cat $HERE/in/file", &read),
        ("ls $HERE/in $HERE/in/sub", &read),
        ("cat <$HERE/in/sub/file", &read),
        ("echo more >>$HERE/in/file", &write),
        ("echo anew >$HERE/in/file", &write),
        ("truncate -s 1 $HERE/in/file", &write),
        ("echo new >$HERE/in/new", &write),
        ("rm $HERE/in/file", &write),
        ("mkdir $HERE/in/folder && rmdir $HERE/in/folder", &write),
        ("mv $HERE/in/file $HERE/in/sub/moved", &write),
        ("ln $HERE/in/file $HERE/in/sub/linked", &write),
        ("ln -s file $HERE/in/pointer", &write),
        ("mkfifo $HERE/in/pipe", &write),
        ("mknod $HERE/in/device c 1 3", &[]),
        ("mknod $HERE/in/device b 7 0", &[]),
        ("$HERE/in/program", &[ReadExec, WriteExec]),
        ("cat $HERE/in/link", &[]),
        ("cat $HERE/in/../out/file", &[]),
        ("cat $HERE/out/file", &[]),
        ("ls $HERE/out", &[]),
        ("ls $HERE", &[]),
        ("echo more >>$HERE/out/file", &[]),
        ("mv $HERE/in/file $HERE/out/moved", &[]),
        ("ln $HERE/out/file $HERE/in/linked", &[]),
        ("rm $HERE/out/file", &[]),
        ("ls /", &[]),
        ("cat /etc/passwd", &[]),
        ("echo more >>/usr/new-file-of-a-test", &[]),
    ];
    for (script, allowed) in table {
        for access in read {
            let scene = scene();
            let mut rules = base();
            rules.push(rule(&scene.path().join("in"), access));
            let expected = allowed.contains(&access);
            assert_eq!(succeeds(rules, scene.path(), script), expected, "{access:?}: {script}");
        }
    }
}

#[test]
fn a_rule_on_a_file_is_about_that_file() {
    let scene = scene();
    let rules = |access| [base(), vec![rule(&scene.path().join("in/file"), access)]].concat();
    for access in [RuleAccess::Read, RuleAccess::ReadExec, RuleAccess::Write, RuleAccess::WriteExec] {
        let writes = matches!(access, RuleAccess::Write | RuleAccess::WriteExec);
        assert!(succeeds(rules(access), scene.path(), "cat $HERE/in/file"), "{access:?}");
        assert!(!succeeds(rules(access), scene.path(), "cat $HERE/in/sub/file"), "{access:?}");
        assert_eq!(succeeds(rules(access), scene.path(), "echo >$HERE/in/file"), writes, "{access:?}");
        assert!(!succeeds(rules(access), scene.path(), "rm $HERE/in/file"), "{access:?}");
    }
}

#[test]
fn devices_are_written_and_proc_is_not() {
    let scene = scene();
    let base = base();
    for (script, expected) in [
        ("echo >/dev/null; echo >>/dev/null; cat /dev/null", true),
        ("head -c 1 /dev/zero", false),
        ("cat /proc/self/status", true),
        ("ls /proc/self", true),
        ("echo name >/proc/self/comm", false),
        ("echo 1000 >/proc/self/oom_score_adj", false),
    ] {
        assert_eq!(succeeds(base.clone(), scene.path(), script), expected, "{script}");
    }
}

#[test]
fn a_path_that_leads_to_nothing_allows_nothing_and_other_failures_are_told() {
    let scene = scene();
    let looped = scene.path().join("loop");
    std::os::unix::fs::symlink(&looped, &looped).expect("linked");
    let nothing = [Path::new("/no/such/path"), &looped, Path::new("/dev/null/below")];
    let mut rules = base();
    rules.extend(nothing.map(|path| rule(path, RuleAccess::Write)));
    assert!(succeeds(rules, scene.path(), "true"));
    let long = format!("/{}", "x".repeat(300));
    let error = ruleset(&[rule(Path::new(&long), RuleAccess::Read)], &Network::None);
    let error = error.expect_err("no name is that long");
    assert!(error.to_string().starts_with("/xxx") && error.to_string().contains(": File name"), "{error}");
}

/// `connect` or `bind`.
type OnAddress = unsafe extern "C" fn(i32, *const libc::sockaddr, libc::socklen_t) -> i32;

/// Makes a TCP socket and does `call` with a loopback port.
#[expect(unsafe_code, reason = "nix has no addresses here, and std would do more than one call")]
fn on_loopback(call: OnAddress, port: u16) -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the address lives and has this length.
    Errno::result(unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

#[test]
fn only_the_ports_of_the_network_are_connected_to() {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (one, other) = (listen(), listen());
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("bound").port();
    let (one, other) = ((port(&one), one), (port(&other), other));
    let only_one = Network::Ports([one.0].into());
    for (network, port, expected) in [
        (&Network::None, one.0, Err(Errno::EACCES)),
        (&only_one, one.0, Ok(())),
        (&only_one, other.0, Err(Errno::EACCES)),
        (&Network::All, other.0, Ok(())),
    ] {
        let ruleset = ruleset(&base(), network).expect("a ruleset");
        assert_eq!(act(ruleset, move || on_loopback(libc::connect, port)), expected, "{network:?} to {port}");
    }
}

#[test]
fn no_port_is_bound() {
    for (network, expected) in [
        (Network::None, Err(Errno::EACCES)),
        (Network::Ports([443].into()), Err(Errno::EACCES)),
        (Network::All, Ok(())),
    ] {
        let ruleset = ruleset(&base(), &network).expect("a ruleset");
        assert_eq!(act(ruleset, || on_loopback(libc::bind, 0)), expected, "{network:?}");
    }
}

#[test]
fn signals_stay_among_the_processes_behind_the_walls() {
    use nix::sys::signal::{Signal, kill};
    let outside = nix::unistd::getpid();
    let ruleset_of_none = || ruleset(&base(), &Network::None).expect("a ruleset");
    // Ignored where nobody asks for it.
    assert_eq!(act(ruleset_of_none(), move || kill(outside, Signal::SIGURG)), Err(Errno::EPERM));
    assert_eq!(act(ruleset_of_none(), || kill(nix::unistd::getpid(), Signal::SIGURG)), Ok(()));
}

#[test]
fn an_older_kernel_gets_the_rules_that_it_has_or_is_refused() {
    let rules = base();
    for abi in 1..=abi().expect("this machine has it").0.min(ABI_MAX) {
        ruleset_of(abi, &rules, &Network::None).expect("files are known from the first version on");
        let ports = ruleset_of(abi, &rules, &Network::Ports([443].into()));
        let expected = (abi < ABI_NETWORK).then_some(io::ErrorKind::Unsupported);
        assert_eq!(ports.err().map(|error| error.kind()), expected, "version {abi}");
    }
}
