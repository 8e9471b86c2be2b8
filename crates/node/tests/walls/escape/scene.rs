//! What attempts to get out are made on: files, sockets, processes and a terminal of the machine
//! that a run has no business with, all open to its user by the ordinary rules.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{SETUID, attempts, copy_setuid, is_root, programs};

/// Files outside that belong to the run's user, each for one attempt.
const OWN: &[&str] =
    &["chmod", "chown", "utime", "setxattr", "link", "rename", "move", "write", "truncate", "unlink"];
/// A root user's runs are another's: the number that nodes take when nothing is configured.
pub const RUN_USER: u32 = 65_521;

/// Everything that must live while attempts are made.
pub struct Scene {
    folder: tempfile::TempDir,
    elsewhere: Vec<tempfile::NamedTempFile>,
    sockets: Sockets,
    sibling: Child,
    terminal: Option<(OwnedFd, PathBuf)>,
}

struct Sockets {
    tcp: TcpListener,
    hub: TcpListener,
    node: TcpListener,
    udp: UdpSocket,
    abstract_name: String,
    _unix: (UnixListener, UnixListener, UnixListener, UnixDatagram, UnixDatagram),
}

impl Scene {
    /// For runs of this user's node.
    pub fn set() -> Self {
        let user = if is_root() { RUN_USER } else { nix::unistd::getuid().as_raw() };
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        let at = folder.path();
        set_mode(at, 0o755);
        for name in ["outside", "work", "program", "work/mount", "node"] {
            fs::create_dir(at.join(name)).expect("made");
            set_mode(&at.join(name), 0o777);
            give(&at.join(name), user);
        }
        let files = OWN.iter().map(|name| format!("outside/{name}"));
        for name in files.chain(["outside/secret", "work/secret", "work/own"].map(str::to_owned)) {
            fs::write(at.join(&name), "secret").expect("written");
            set_mode(&at.join(&name), 0o644);
            give(&at.join(&name), user);
        }
        fs::write(at.join("node/node.key"), "secret").expect("written");
        set_mode(&at.join("node/node.key"), 0o600);
        symlink(at.join("outside/secret"), at.join("work/link")).expect("linked");
        symlink("secret", at.join("outside/pointer")).expect("linked");
        for program in ["program/attempts", "outside/program"] {
            fs::copy(attempts(), at.join(program)).expect("copied");
            set_mode(&at.join(program), 0o755);
        }
        if is_root() {
            copy_setuid(&at.join("program"));
        }
        let sockets = Sockets::bind(&at.join("outside"));
        let elsewhere = ["/tmp", "/dev/shm"].map(|place| file_in(Path::new(place), user)).into();
        let sibling = sibling(user, &at.join("outside"));
        let terminal = terminal().inspect(|(_, path)| set_mode(path, 0o666));
        Self { folder, elsewhere, sockets, sibling, terminal }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a program that is handed the terminal has for standard input.
    pub fn terminal(&self) -> Stdio {
        let open = |path| File::options().read(true).write(true).open(path).expect("it is open to all");
        self.terminal.as_ref().map_or_else(Stdio::null, |(_, path)| open(path).into())
    }

    /// The port that a run may be allowed to connect to.
    pub fn port(&self) -> u16 {
        port(&self.sockets.tcp)
    }

    /// Another process of the run's user, without walls.
    pub fn sibling(&self) -> u32 {
        self.sibling.id()
    }

    /// The program with what it is to attempt on: the number of another process of its user, and a
    /// secret file of the node.
    pub fn argv(&self, sibling: u32, key: &Path) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("text").to_owned();
        let mut pairs = vec![
            ("outside", path(&self.path("outside"))),
            ("work", path(&self.path("work"))),
            ("mount", path(&self.path("work/mount"))),
            ("tmp", path(self.elsewhere[0].path())),
            ("shm", path(self.elsewhere[1].path())),
            ("key", path(key)),
            ("tcp", self.port().to_string()),
            ("node_port", port(&self.sockets.node).to_string()),
            ("hub", port(&self.sockets.hub).to_string()),
            ("udp", self.sockets.udp.local_addr().expect("bound").port().to_string()),
            ("abstract", self.sockets.abstract_name.clone()),
            ("abstract_log", format!("{}-log", self.sockets.abstract_name)),
            ("sibling", sibling.to_string()),
            ("node", std::process::id().to_string()),
            ("cgroup", cgroup().to_owned()),
        ];
        pairs.extend(self.terminal.iter().map(|(_, slave)| ("terminal", path(slave))));
        let setuid = programs().unwrap_or_else(|| self.path("program")).join(SETUID);
        pairs.push(("setuid", path(&setuid)));
        let arguments = pairs.into_iter().map(|(name, value)| format!("{name}={value}"));
        std::iter::once(path(&self.path("program/attempts"))).chain(arguments).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ended = self.sibling.kill();
        let _reaped = self.sibling.wait();
    }
}

impl Sockets {
    fn bind(folder: &Path) -> Self {
        let name = folder.to_str().expect("text").to_owned();
        let (service, agent) = (folder.join("service.sock"), folder.join("agent.sock"));
        let log = folder.join("log.sock");
        let abstract_of = |name: String| SocketAddr::from_abstract_name(name).expect("short");
        let unix = (
            UnixListener::bind(&service).expect("bound"),
            UnixListener::bind(&agent).expect("bound"),
            UnixListener::bind_addr(&abstract_of(name.clone())).expect("bound"),
            UnixDatagram::bind(&log).expect("bound"),
            UnixDatagram::bind_addr(&abstract_of(format!("{name}-log"))).expect("bound"),
        );
        [service, agent, log].iter().for_each(|path| set_mode(path, 0o666));
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self {
            tcp: listen(),
            hub: listen(),
            node: listen(),
            udp: UdpSocket::bind("127.0.0.1:0").expect("a free port"),
            abstract_name: name,
            _unix: unix,
        }
    }
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("bound").port()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

fn give(path: &Path, user: u32) {
    if is_root() {
        chown(path, Some(user), Some(user)).expect("given");
    }
}

fn file_in(folder: &Path, user: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new_in(folder).expect("a file");
    fs::write(file.path(), "secret").expect("written");
    set_mode(file.path(), 0o644);
    give(file.path(), user);
    file
}

/// Another process of the same user. Its environment is a secret, its folder too.
fn sibling(user: u32, folder: &Path) -> Child {
    let mut command = Command::new("sleep");
    command.arg("600").env("TOKEN", "secret").current_dir(folder).stdin(Stdio::null());
    if is_root() {
        command.uid(user).gid(user);
    }
    command.spawn().expect("started")
}

/// The file through which a process would leave its control group.
fn cgroup() -> &'static str {
    let known = [
        "/sys/fs/cgroup/unified/cgroup.procs",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/pids/cgroup.procs",
    ];
    known.into_iter().find(|path| Path::new(path).exists()).unwrap_or(known[1])
}

/// A terminal: the end that a person's program holds, and the path of the other.
#[expect(unsafe_code, reason = "ioctl(2) has no safe form")]
fn terminal() -> Option<(OwnedFd, PathBuf)> {
    let master = File::options().read(true).write(true).open("/dev/ptmx").ok()?;
    let (mut locked, mut number) = (0_i32, 0_i32);
    // SAFETY: the descriptor is open, and each request reads or writes one number, which lives.
    let done = unsafe {
        nix::libc::ioctl(master.as_raw_fd(), nix::libc::TIOCSPTLCK, &raw mut locked)
            | nix::libc::ioctl(master.as_raw_fd(), nix::libc::TIOCGPTN, &raw mut number)
    };
    (done == 0).then(|| (master.into(), PathBuf::from(format!("/dev/pts/{number}"))))
}

/// Opens a secret so that every program that is started from here inherits it.
pub fn leave_open(path: &Path) -> File {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let file = File::open(path).expect("it is there");
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("it is open");
    file
}

/// Hands a descriptor of a secret to a child, as a careless starter would.
#[expect(unsafe_code, reason = "what a child inherits is set between fork and exec")]
pub fn hand_down(command: &mut Command, path: &Path) {
    let file = File::open(path).expect("it is there");
    // SAFETY: dup2 is async-signal-safe, and what it gives is not closed on exec.
    unsafe {
        command.pre_exec(move || match nix::libc::dup2(file.as_raw_fd(), 77) {
            77 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}
