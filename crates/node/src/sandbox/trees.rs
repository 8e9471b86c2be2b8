//! Copies of mounts that are nowhere yet, by the calls of the kernel that have no safe form. Never
//! here: what is copied, and where it goes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::libc;

/// From `linux/mount.h`.
pub(super) const RDONLY: u64 = 0x1;
pub(super) const NOSUID: u64 = 0x2;
pub(super) const NODEV: u64 = 0x4;
pub(super) const NOEXEC: u64 = 0x8;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_BOTH_EMPTY: u32 = 0x4 | 0x40;
const AT_RECURSIVE: u32 = 0x8000;

/// A detached copy of what is mounted at a path and below it, with these flags on all of it.
pub(super) fn copy_of(path: &Path, flags: u64) -> io::Result<OwnedFd> {
    let copy = copy_at(AT_FDCWD, path, AT_RECURSIVE)?;
    if flags != 0 {
        let below = AT_RECURSIVE | libc::AT_EMPTY_PATH.cast_unsigned();
        set_flags(copy.as_fd(), Path::new(""), flags, below)?;
    }
    Ok(copy)
}

/// The same for what is mounted just there; `how` adds flags of the call.
pub(super) fn copy_at(folder: BorrowedFd<'_>, path: &Path, how: u32) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let empty = if path.as_os_str().is_empty() { libc::AT_EMPTY_PATH.cast_unsigned() } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | how | empty;
    #[expect(unsafe_code, reason = "open_tree(2) has no safe form")]
    // SAFETY: the name is a C string that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, folder.as_raw_fd(), name.as_ptr(), flags) };
    check(fd)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the system gives the new descriptor as a number")]
    // SAFETY: it was opened just now, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Adds flags to mounts. Never takes one away.
pub(super) fn set_flags(folder: BorrowedFd<'_>, path: &Path, flags: u64, how: u32) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes { set: flags, clear: 0, propagation: 0, user_namespace: 0 };
    #[expect(unsafe_code, reason = "mount_setattr(2) has no safe form")]
    // SAFETY: the name is a C string and the attributes have the layout that their size says; both
    // outlive the call.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            folder.as_raw_fd(),
            name.as_ptr(),
            how,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    check(set)
}

/// Mounts a copy on a folder or file.
pub(super) fn attach(copy: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "move_mount(2) has no safe form")]
    // SAFETY: both descriptors are open, and the names are empty strings that outlive the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            copy.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_BOTH_EMPTY,
        )
    };
    check(moved)
}

fn check(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
