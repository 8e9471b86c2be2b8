//! What every room has, whatever its policy: the programs and libraries of the system, the few
//! files of `/etc` that they read, and devices that hold nothing. Never here: secrets.

/// Folders of programs and libraries; links among them are copied. What is executed lies in one of
/// them or in a root of the policy.
pub(crate) const FOLDERS: &[&str] = &["/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Files of `/etc`, copied: who replaces one of them gives it to the next room.
pub(crate) const FILES: &[&str] = &[
    GROUP,
    "/etc/gitconfig",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    PASSWD,
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// Gets a line for the run's user.
pub(crate) const PASSWD: &str = "/etc/passwd";

/// Gets a line for its group.
pub(crate) const GROUP: &str = "/etc/group";

/// How names are looked up; there only when connections may be opened.
pub(crate) const RESOLV: &str = "/etc/resolv.conf";

/// Largest file that is copied.
pub(crate) const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Folders of `/etc`. Of those for TLS the parts with certificates: beside them are the machine's keys,
/// which a node's own user may be able to read.
pub(crate) const ETC_FOLDERS: &[&str] = &[
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.conf.d",
    "/etc/pki/ca-trust",
    "/etc/pki/java",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/terminfo",
];

/// Devices.
pub(crate) const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Links below `/dev`, with what they lead to.
pub(crate) const DEVICE_LINKS: &[(&str, &str)] = &[
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/shm", "/tmp/.shm"),
    ("var/tmp", "/tmp"),
];

/// Names that hold keys and passwords, directly in a root or in a home directory.
pub(crate) const SECRETS: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".git-credentials",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gcloud",
    ".config/gh",
];
