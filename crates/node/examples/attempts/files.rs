//! Attempts on files: outside of what was given, on devices, on the machine's own settings, and by
//! executing what should not be executed.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;

use super::sys::{act, become_program, c_path, call, own_program, reason};
use super::{Attempt, GAINED, Outcome, RAN, Scene};

const HERE: usize = libc::AT_FDCWD as usize;
/// A mode that no file of the scene has.
const NEW_MODE: u32 = 0o604;

pub(super) const ALL: &[Attempt] = &[
    ("read_outside", |scene| read(scene.path("outside", "secret")?)),
    ("read_by_symlink", |scene| read(scene.path("work", "link")?)),
    ("read_by_own_root", |scene| read(below("/proc/self/root", scene)?)),
    ("read_by_sibling_root", |scene| read(below(&of(scene, "sibling", "root")?, scene)?)),
    ("read_by_sibling_cwd", |scene| read(of(scene, "sibling", "cwd/secret")?)),
    ("read_by_handle", |scene| read_by_handle(&scene.path("outside", "secret")?)),
    ("read_node_key", |scene| read(scene.text("key")?)),
    ("read_machine_tmp", |scene| read(scene.text("tmp")?)),
    ("read_machine_shm", |scene| read(scene.text("shm")?)),
    ("read_shadow", |_| read("/etc/shadow")),
    ("list_outside", |scene| list(scene.text("outside")?)),
    ("list_root", |_| list("/root")),
    ("list_home", |_| list("/home")),
    ("stat_outside", |scene| std(fs::metadata(scene.path("outside", "secret")?))),
    ("readlink_outside", |scene| std(fs::read_link(scene.path("outside", "pointer")?))),
    ("chdir_outside", |scene| std(std::env::set_current_dir(scene.text("outside")?))),
    ("list_connections", |scene| list_connections(scene.number("tcp")?)),
    ("watch_outside", |scene| watch(Path::new(scene.text("outside")?))),
    ("watch_outside_by_fanotify", |scene| watch_by_fanotify(Path::new(scene.text("outside")?))),
    ("chmod_outside", |scene| chmod(&scene.path("outside", "chmod")?)),
    ("chown_outside", |scene| chown(&scene.path("outside", "chown")?)),
    ("utime_outside", |scene| utime(&scene.path("outside", "utime")?)),
    ("setxattr_outside", |scene| setxattr(&scene.path("outside", "setxattr")?)),
    ("link_outside", |scene| {
        std(fs::hard_link(scene.path("outside", "link")?, scene.path("work", "linked")?))
    }),
    ("link_to_outside", |scene| {
        std(fs::hard_link(scene.path("work", "own")?, scene.path("outside", "linked")?))
    }),
    ("rename_outside", |scene| {
        std(fs::rename(scene.path("outside", "rename")?, scene.path("outside", "renamed")?))
    }),
    ("rename_from_outside", |scene| {
        std(fs::rename(scene.path("outside", "move")?, scene.path("work", "moved")?))
    }),
    ("write_outside", |scene| write(&scene.path("outside", "write")?)),
    ("truncate_outside", |scene| truncate(&scene.path("outside", "truncate")?)),
    ("create_outside", |scene| std(File::create_new(scene.path("outside", "created")?))),
    ("mkdir_outside", |scene| std(fs::create_dir(scene.path("outside", "folder")?))),
    ("symlink_outside", |scene| std(std::os::unix::fs::symlink("secret", scene.path("outside", "symlink")?))),
    ("unlink_outside", |scene| std(fs::remove_file(scene.path("outside", "unlink")?))),
    ("write_etc", |_| open_to_write("/etc/passwd")),
    ("replace_own_program", |scene| replace_own_program(scene)),
    ("mknod_device", |scene| mknod(&scene.path("work", "device")?)),
    ("dev_mem", |_| open_to_read("/dev/mem")),
    ("dev_kmsg", |_| open_to_write("/dev/kmsg")),
    ("dev_disk", |_| any(&["/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/xvda", "/dev/loop0"])),
    ("dev_fuse", |_| open_to_read("/dev/fuse")),
    ("dev_tun", |_| open_to_read("/dev/net/tun")),
    ("dev_ptmx", |_| open_to_read("/dev/ptmx")),
    ("write_core_pattern", |_| write_back("/proc/sys/kernel/core_pattern")),
    ("write_proc_sys", |_| write_back("/proc/sys/vm/swappiness")),
    ("write_sysrq", |_| open_to_write("/proc/sysrq-trigger")),
    ("write_oom_score", |_| std(fs::write("/proc/self/oom_score_adj", "-1000"))),
    ("leave_cgroup", |scene| leave_cgroup(Path::new(scene.text("cgroup")?))),
    ("own_memory_by_proc", |_| own_memory_by_proc()),
    ("exec_outside", |scene| become_program(&scene.path("outside", "program")?, &[RAN])),
    ("exec_written", |scene| become_program(&copy_of_program(scene)?, &[RAN])),
    ("exec_written_by_loader", |scene| {
        let copy = copy_of_program(scene)?;
        become_program(&loader()?, &[copy.to_str().ok_or(libc::EINVAL)?, RAN])
    }),
    ("exec_memory_file", |_| exec_memory_file()),
    ("exec_setuid", |scene| become_program(Path::new(scene.text("setuid")?), &[GAINED])),
];

fn std<T>(result: io::Result<T>) -> Outcome {
    result.map(drop).map_err(|error| reason(&error))
}

fn read(path: impl AsRef<Path>) -> Outcome {
    let mut bytes = [0; 1];
    std(File::open(path).and_then(|mut file| file.read_exact(&mut bytes)))
}

fn list(path: impl AsRef<Path>) -> Outcome {
    std(fs::read_dir(path))
}

fn open_to_read(path: &str) -> Outcome {
    std(File::open(path))
}

/// Whether the machine's own listener is told.
fn list_connections(port: u32) -> Outcome {
    let text = fs::read_to_string("/proc/net/tcp").map_err(|error| reason(&error))?;
    if text.contains(&format!("0100007F:{port:04X} ")) { Ok(()) } else { Err(libc::ENODATA) }
}

/// Without writing: it would be kept.
fn open_to_write(path: &str) -> Outcome {
    std(OpenOptions::new().append(true).open(path))
}

fn any(paths: &[&str]) -> Outcome {
    paths.iter().map(|path| open_to_read(path)).reduce(|one, next| one.or(next)).unwrap_or(Err(libc::ENOENT))
}

/// The secret below another name of the root folder.
fn below(root: impl AsRef<Path>, scene: &Scene) -> Result<PathBuf, i32> {
    let secret = scene.path("outside", "secret")?;
    Ok(root.as_ref().join(secret.strip_prefix("/").map_err(|_| libc::EINVAL)?))
}

fn of(scene: &Scene, process: &str, name: &str) -> Result<PathBuf, i32> {
    Ok(PathBuf::from(format!("/proc/{}/{name}", scene.number(process)?)))
}

fn read_by_handle(path: &Path) -> Outcome {
    let folder = path.parent().ok_or(libc::EINVAL)?;
    let path = c_path(path)?;
    // The size of the handle that follows, as the first number.
    let mut handle = [0_u32; 34];
    handle[0] = 128;
    let mut mount = 0_i32;
    act(
        libc::SYS_name_to_handle_at,
        &[HERE, path.as_ptr() as usize, handle.as_mut_ptr() as usize, &raw mut mount as usize, 0],
    )?;
    // Any descriptor of that file system does.
    let folder = c_path(folder)?;
    let place = call(libc::SYS_openat, &[HERE, folder.as_ptr() as usize, libc::O_DIRECTORY as usize])?;
    act(libc::SYS_open_by_handle_at, &[place, handle.as_ptr() as usize, libc::O_RDONLY as usize])
}

fn watch(path: &Path) -> Outcome {
    let watcher = call(libc::SYS_inotify_init1, &[0])?;
    let path = c_path(path)?;
    act(libc::SYS_inotify_add_watch, &[watcher, path.as_ptr() as usize, libc::IN_ALL_EVENTS as usize])
}

fn watch_by_fanotify(path: &Path) -> Outcome {
    let watcher = call(libc::SYS_fanotify_init, &[libc::FAN_REPORT_FID as usize, 0])?;
    let path = c_path(path)?;
    let (add, modify) = (libc::FAN_MARK_ADD as usize, libc::FAN_MODIFY as usize);
    act(libc::SYS_fanotify_mark, &[watcher, add, modify, HERE, path.as_ptr() as usize])
}

fn chmod(path: &Path) -> Outcome {
    std(fs::set_permissions(path, fs::Permissions::from_mode(NEW_MODE)))?;
    let mode = fs::metadata(path).map_err(|error| reason(&error))?.mode();
    if mode & 0o777 == NEW_MODE { Ok(()) } else { Err(libc::EIO) }
}

fn chown(path: &Path) -> Outcome {
    std(std::os::unix::fs::chown(path, None, Some(nix::unistd::getgid().as_raw())))
}

fn utime(path: &Path) -> Outcome {
    let path = c_path(path)?;
    let times = [[1_i64, 0], [1, 0]];
    act(libc::SYS_utimensat, &[HERE, path.as_ptr() as usize, times.as_ptr() as usize, 0])
}

fn setxattr(path: &Path) -> Outcome {
    let (path, name) = (c_path(path)?, c"user.attempt");
    act(libc::SYS_setxattr, &[path.as_ptr() as usize, name.as_ptr() as usize, name.as_ptr() as usize, 4, 0])
}

fn write(path: &Path) -> Outcome {
    std(OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(b"more")))
}

fn truncate(path: &Path) -> Outcome {
    let path = c_path(path)?;
    act(libc::SYS_truncate, &[path.as_ptr() as usize, 0])
}

/// Puts the folder's file away and back: a running program itself cannot be written.
fn replace_own_program(_scene: &Scene) -> Outcome {
    let program = own_program()?;
    let away = program.with_extension("away");
    std(fs::rename(&program, &away))?;
    std(fs::rename(&away, &program))
}

/// A `null` of its own.
fn mknod(path: &Path) -> Outcome {
    let path = c_path(path)?;
    let (mode, device) = (libc::S_IFCHR | 0o666, libc::makedev(1, 3));
    act(libc::SYS_mknodat, &[HERE, path.as_ptr() as usize, mode as usize, device as usize])
}

/// Writes what stands there already.
fn write_back(path: &str) -> Outcome {
    let text = fs::read(path).map_err(|error| reason(&error))?;
    std(fs::write(path, text))
}

fn leave_cgroup(procs: &Path) -> Outcome {
    std(fs::write(procs, std::process::id().to_string()))
}

/// Changes memory that is not to be written, by the file that stands for it.
fn own_memory_by_proc() -> Outcome {
    use std::os::unix::fs::FileExt as _;
    static FIXED: [u8; 8] = *b"constant";
    let file = OpenOptions::new().write(true).open("/proc/self/mem").map_err(|error| reason(&error))?;
    std(file.write_at(&FIXED, FIXED.as_ptr() as u64))
}

fn copy_of_program(scene: &Scene) -> Result<PathBuf, i32> {
    let copy = scene.path("work", "copy")?;
    fs::copy(own_program()?, &copy).map_err(|error| reason(&error))?;
    std(fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)))?;
    Ok(copy)
}

/// The program that maps other programs, which needs only read them.
fn loader() -> Result<PathBuf, i32> {
    ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or(libc::ENOENT)
}

fn exec_memory_file() -> Outcome {
    let (name, nothing) = (c"attempt", c"");
    let file = call(libc::SYS_memfd_create, &[name.as_ptr() as usize, 0])?;
    let program = fs::read(own_program()?).map_err(|error| reason(&error))?;
    std(fs::write(format!("/proc/self/fd/{file}"), program))?;
    let ran = CString::new(RAN).map_err(|_| libc::EINVAL)?;
    let argv = [name.as_ptr() as usize, ran.as_ptr() as usize, 0];
    act(
        libc::SYS_execveat,
        &[file, nothing.as_ptr() as usize, argv.as_ptr() as usize, 0, libc::AT_EMPTY_PATH as usize],
    )
}
