//! The access list of a file, taken over by the file that replaces it.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::libc;

/// Where Linux keeps it, from `linux/xattr.h`.
const NAME: &CStr = c"system.posix_acl_access";
/// The largest value of an attribute, from `linux/limits.h`.
const BYTES_MAX: usize = 64 * 1024;

/// Copies it; whether `to` has afterwards what `from` has. A file without one, and a file system
/// without them, have nothing to copy.
pub(crate) fn copy(from: &File, to: &File) -> bool {
    match get(from) {
        Ok(list) => set(to, &list).is_ok(),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => true,
        Err(_) => false,
    }
}

#[expect(unsafe_code, reason = "fgetxattr(2) has no safe form")]
fn get(file: &File) -> Result<Vec<u8>, Errno> {
    let mut list = vec![0_u8; BYTES_MAX];
    // SAFETY: the name is a C string, and the buffer is as long as is said; both outlive the call.
    let len =
        unsafe { libc::fgetxattr(file.as_raw_fd(), NAME.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let len = Errno::result(len)?;
    list.truncate(len.unsigned_abs());
    Ok(list)
}

#[expect(unsafe_code, reason = "fsetxattr(2) has no safe form")]
fn set(file: &File, list: &[u8]) -> Result<(), Errno> {
    // SAFETY: the name is a C string, and the value is as long as is said; both outlive the call.
    let set =
        unsafe { libc::fsetxattr(file.as_raw_fd(), NAME.as_ptr(), list.as_ptr().cast(), list.len(), 0) };
    Errno::result(set).map(drop)
}
