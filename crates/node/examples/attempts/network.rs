//! Attempts by sockets. Addresses are loopback; nothing is sent to another machine.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

use super::sys::{act, call};
use super::{Attempt, Outcome};

const UNIX: i32 = libc::AF_UNIX;
const INET: i32 = libc::AF_INET;
const STREAM: i32 = libc::SOCK_STREAM;
const DGRAM: i32 = libc::SOCK_DGRAM;
const RAW: i32 = libc::SOCK_RAW;
const MPTCP: i32 = 262;
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
/// Where clouds tell a machine its secrets.
const METADATA: [u8; 4] = [169, 254, 169, 254];

pub(super) const ALL: &[Attempt] = &[
    ("tcp_loopback", |scene| tcp(INET, 0, &inet(LOOPBACK, scene.number("tcp")?))),
    ("tcp_loopback_by_ipv6", |scene| tcp(libc::AF_INET6, 0, &mapped(scene.number("tcp")?))),
    ("tcp_fast_open", |scene| fast_open(scene.number("tcp")?)),
    ("tcp_hub_port", |scene| tcp(INET, 0, &inet(LOOPBACK, scene.number("hub")?))),
    ("tcp_node_port", |scene| tcp(INET, 0, &inet(LOOPBACK, scene.number("node_port")?))),
    ("tcp_listen", |_| listen(true)),
    ("tcp_listen_without_bind", |_| listen(false)),
    ("mptcp_loopback", |scene| tcp(INET, MPTCP, &inet(LOOPBACK, scene.number("tcp")?))),
    ("udp_loopback", |scene| send_to(socket(INET, DGRAM, 0)?, &inet(LOOPBACK, scene.number("udp")?))),
    // For UDP this looks for a way there, and sends nothing.
    ("metadata_address", |_| connect(socket(INET, DGRAM, 0)?, &inet(METADATA, 80))),
    ("unix_service", |scene| unix_stream(&scene.path("outside", "service.sock")?)),
    ("unix_agent", |scene| unix_stream(&scene.path("outside", "agent.sock")?)),
    ("unix_datagram", |scene| send_to(socket(UNIX, DGRAM, 0)?, &unix(&scene.path("outside", "log.sock")?))),
    ("unix_datagram_by_pair", |scene| send_to(pair(DGRAM)?, &unix(&scene.path("outside", "log.sock")?))),
    ("unix_raw_by_pair", |scene| send_to(pair(RAW)?, &unix(&scene.path("outside", "log.sock")?))),
    ("unix_abstract", |scene| connect(socket(UNIX, STREAM, 0)?, &abstract_name(scene.text("abstract")?))),
    ("unix_abstract_by_pair", |scene| send_to(pair(DGRAM)?, &abstract_name(scene.text("abstract_log")?))),
    ("unix_bind", |scene| bind(socket(UNIX, STREAM, 0)?, &unix(&scene.path("work", "bound.sock")?))),
    ("netlink", |_| socket(libc::AF_NETLINK, RAW, libc::NETLINK_ROUTE).map(drop)),
    ("vsock", |_| socket(libc::AF_VSOCK, STREAM, 0).map(drop)),
    ("af_alg", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0).map(drop)),
    ("packet", |_| socket(libc::AF_PACKET, RAW, 0x0300).map(drop)),
    ("raw_icmp", |_| socket(INET, RAW, libc::IPPROTO_ICMP).map(drop)),
    ("x32_socket", |_| act(libc::SYS_socket | 0x4000_0000, &[INET as usize, STREAM as usize, 0])),
    ("int80_socket", |_| int80_socket()),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Result<usize, i32> {
    call(libc::SYS_socket, &[family as usize, kind as usize, protocol as usize])
}

fn pair(kind: i32) -> Result<usize, i32> {
    let mut ends = [0_i32; 2];
    act(libc::SYS_socketpair, &[UNIX as usize, kind as usize, 0, ends.as_mut_ptr() as usize])?;
    Ok(ends[0] as usize)
}

fn connect(socket: usize, address: &[u8]) -> Outcome {
    act(libc::SYS_connect, &[socket, address.as_ptr() as usize, address.len()])
}

fn bind(socket: usize, address: &[u8]) -> Outcome {
    act(libc::SYS_bind, &[socket, address.as_ptr() as usize, address.len()])
}

fn send_to(socket: usize, address: &[u8]) -> Outcome {
    send(socket, 0, address)
}

fn send(socket: usize, flags: usize, address: &[u8]) -> Outcome {
    let text = b"x";
    act(
        libc::SYS_sendto,
        &[socket, text.as_ptr() as usize, text.len(), flags, address.as_ptr() as usize, address.len()],
    )
}

fn tcp(family: i32, protocol: i32, address: &[u8]) -> Outcome {
    connect(socket(family, STREAM, protocol)?, address)
}

/// Connects by sending, without `connect`.
fn fast_open(port: u32) -> Outcome {
    send(socket(INET, STREAM, 0)?, libc::MSG_FASTOPEN as usize, &inet(LOOPBACK, port))
}

fn listen(with_bind: bool) -> Outcome {
    let socket = socket(INET, STREAM, 0)?;
    if with_bind {
        bind(socket, &inet(LOOPBACK, 0))?;
    }
    act(libc::SYS_listen, &[socket, 1])
}

fn unix_stream(path: &Path) -> Outcome {
    connect(socket(UNIX, STREAM, 0)?, &unix(path))
}

fn family(family: i32) -> Vec<u8> {
    (family as u16).to_ne_bytes().to_vec()
}

fn inet(host: [u8; 4], port: u32) -> Vec<u8> {
    let mut address = family(INET);
    address.extend((port as u16).to_be_bytes());
    address.extend(host);
    address.resize(16, 0);
    address
}

/// Loopback of IPv4 in the shape of IPv6.
fn mapped(port: u32) -> Vec<u8> {
    let mut address = family(libc::AF_INET6);
    address.extend((port as u16).to_be_bytes());
    address.extend([0; 4]);
    address.extend([0; 10]);
    address.extend([0xff, 0xff]);
    address.extend(LOOPBACK);
    address.resize(28, 0);
    address
}

fn unix(path: &Path) -> Vec<u8> {
    let mut address = family(UNIX);
    address.extend(path.as_os_str().as_bytes());
    address.push(0);
    address
}

fn abstract_name(name: &str) -> Vec<u8> {
    let mut address = family(UNIX);
    address.push(0);
    address.extend(name.as_bytes());
    address
}

/// `socket` by the door for 32-bit programs, where it has another number.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the old door is an instruction")]
fn int80_socket() -> Outcome {
    let told: i32;
    // SAFETY: `socket` takes numbers only; rbx, which the compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {family:r}", "int 0x80", "xchg rbx, {family:r}",
            family = inout(reg) i64::from(INET) => _,
            inlateout("eax") 359 => told, in("ecx") STREAM, in("edx") 0,
        );
    }
    if told >= 0 { Ok(()) } else { Err(-told) }
}

#[cfg(not(target_arch = "x86_64"))]
fn int80_socket() -> Outcome {
    Err(libc::ENOSYS)
}
