//! What is done, one thing after the other, before a program runs; behind walls that is much. The
//! one that fails names the refusal, and the layer that is missing.

use std::path::{Path, PathBuf};

use nix::libc;

macro_rules! steps {
    ($($name:ident, $text:literal, $layer:literal;)*) => {
        /// One of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Step {
            $(#[doc = $text] $name,)*
        }

        impl Step {
            /// All, in their order.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it does, as the object of "failed at".
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The layer that is missing when it fails; empty when it is no matter of walls.
            pub(crate) const fn layer(self) -> &'static str {
                match self {
                    $(Self::$name => $layer,)*
                }
            }
        }
    };
}

steps! {
    Cwd, "entering the working directory", "";
    Exec, "starting the program", "";
    Streams, "taking its standard streams", "";
    Program, "opening the program inside its walls", "";
    Order, "reading the walls", "";
    UserNamespace, "making a user namespace", "userns";
    Ids, "mapping its user and group", "userns";
    MountNamespace, "making a mount namespace", "mount";
    IpcNamespace, "making an IPC namespace", "ipc";
    UtsNamespace, "making a host name of its own", "uts";
    NetNamespace, "making a network namespace", "net";
    ProcessNamespace, "making a process namespace", "pid";
    Root, "making a root file system", "mount";
    Base, "mounting the base set", "mount";
    Devices, "mounting the devices", "mount";
    Tree, "mounting a root of the policy", "mount";
    Mask, "covering what is secret", "mount";
    Pivot, "changing to the new root", "mount";
    Seal, "closing the new root for writing", "mount";
    HostName, "setting the host name", "uts";
    Proc, "mounting a /proc of its own", "pid";
    Scratch, "mounting a /tmp of its own", "mount";
    Cgroup, "entering its control group", "cgroup";
    Limits, "setting its limits", "cgroup";
    Capabilities, "dropping its capabilities", "caps";
    User, "changing to the run's user", "user";
    Privileges, "giving up new privileges", "no_new_privs";
    Landlock, "closing the file system by Landlock", "landlock";
    Descriptors, "closing inherited descriptors", "";
    Filter, "filtering its system calls", "seccomp";
}

impl Step {
    pub(crate) const fn to_byte(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Which.
    pub(crate) step: Step,
    /// The system's reason.
    pub(crate) errno: i32,
    /// On what, when it was a path.
    pub(crate) path: PathBuf,
}

impl Failed {
    pub(crate) fn new(step: Step, errno: i32) -> Self {
        Self { step, errno, path: PathBuf::new() }
    }

    pub(crate) fn at(step: Step, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self { step, errno: errno(&error), path: path.to_owned() }
    }

    /// For `map_err`, when there is no path to name.
    pub(crate) fn by<E: Into<std::io::Error>>(step: Step) -> impl FnOnce(E) -> Self {
        move |error| Self::new(step, errno(&error.into()))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.step.as_str())?;
        if !self.path.as_os_str().is_empty() {
            let path = self.path.to_string_lossy();
            write!(f, " `{}`", cortex_core::name::printable(&path, 200))?;
        }
        write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))
    }
}

fn errno(error: &std::io::Error) -> i32 {
    use std::io::ErrorKind;
    // Errors that were given a path have lost their number and kept their kind.
    let by_kind = [
        (ErrorKind::NotFound, libc::ENOENT),
        (ErrorKind::PermissionDenied, libc::EACCES),
        (ErrorKind::Unsupported, libc::ENOSYS),
        (ErrorKind::StaleNetworkFileHandle, libc::ESTALE),
    ];
    let found = by_kind.iter().find(|(kind, _)| *kind == error.kind()).map(|(_, number)| *number);
    error.raw_os_error().or(found).unwrap_or(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_reads_back_and_no_other_byte_is_one() {
        for step in Step::ALL {
            assert_eq!(Step::from_byte(step.to_byte()), Some(*step));
        }
        assert_eq!(Step::from_byte(u8::try_from(Step::ALL.len()).expect("few")), None);
    }

    #[test]
    fn a_failed_step_is_named_with_its_path_and_reason() {
        let failed = Failed { path: "/w".into(), ..Failed::new(Step::Tree, libc::ENOENT) };
        let text = "mounting a root of the policy `/w`: No such file or directory (os error 2)";
        assert_eq!(failed.to_string(), text);
    }
}
