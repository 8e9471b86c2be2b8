//! The filter of system calls: compiles the table of [`super::syscalls`] to a program for the
//! kernel, and installs it. Never here: an opinion on any call.
//!
//! The program is a search tree over the numbers, since the kernel pays for its length at each
//! start of a run. Its first question is for the architecture: calls in another one's numbers
//! (`int 0x80`) are answered as if the kernel had none. Numbers above the newest known one, and so
//! all numbers of x32, likewise.

use std::io;

use cortex_core::sandbox::Network;
use nix::libc::{self, sock_filter};

use super::syscalls::{self, Rule, Test};

/// What a filter leaves open beside what it leaves to everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Which connections may be opened. The ports are Landlock's to look at.
    pub network: Network,
    /// Whether processes may be named by number, with `pidfd_open` and the calls of the scheduler.
    /// Only for a run with process numbers of its own: elsewhere they reach other runs of the same
    /// user, and the node.
    pub pidfd: bool,
}

/// A filter, ready to be installed.
#[derive(Clone)]
pub struct Program {
    code: Vec<sock_filter>,
}

/// `AUDIT_ARCH_*` of this program: machine, 64 bits wide, little-endian.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where `struct seccomp_data` has what is asked for.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
/// The farthest that a conditional jump goes.
const JUMP_MAX: usize = u8::MAX as usize;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const NOT_BELOW: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const SKIP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The filter of these walls.
pub fn program(spec: &FilterSpec) -> Program {
    let absent = refuse(libc::ENOSYS as u16);
    let mut code =
        vec![step(LOAD, ARCHITECTURE_AT), jump(EQUAL, ARCHITECTURE, 1, 0), absent, step(LOAD, NUMBER_AT)];
    code.extend(tree(&spans(spec)));
    Program { code }
}

impl Program {
    /// Puts the filter on this thread and all that it starts, for good. Needs `no_new_privs`.
    /// One system call and no allocation, so that it can be called between fork and exec.
    #[expect(unsafe_code, reason = "prctl(PR_SET_SECCOMP) has no safe form")]
    pub fn install(&self) -> io::Result<()> {
        let len = u16::try_from(self.code.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: self.code.as_ptr().cast_mut() };
        // SAFETY: the kernel copies `len` instructions from `filter`, which lives; it writes nothing.
        let done =
            unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("instructions", &self.code.len()).finish()
    }
}

/// What becomes of a run of numbers, up to where the next span begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u32,
    /// None: they are allowed.
    rule: Option<Rule>,
}

/// All numbers from 0 on, neighbours with the same answer together.
fn spans(spec: &FilterSpec) -> Vec<Span> {
    let mut spans = vec![Span { from: 0, rule: None }];
    let mut add = |from, rule| {
        match spans.last_mut() {
            // Nothing lies between two neighbours.
            Some(last) if last.from == from => last.rule = rule,
            _ => spans.push(Span { from, rule }),
        }
    };
    for row in syscalls::rows(spec) {
        add(row.number, Some(row.rule));
        add(row.number + 1, None);
    }
    add(syscalls::NEWEST + 1, Some(Rule { errno: libc::ENOSYS as u16, unless: &[] }));
    spans.dedup_by(|next, one| next.rule == one.rule);
    spans
}

/// Finds the span of the number that is loaded, and answers.
fn tree(spans: &[Span]) -> Vec<sock_filter> {
    let (below, above) = match spans {
        [] => return vec![allow()],
        [one] => return answer(one.rule),
        more => more.split_at(more.len() / 2),
    };
    let pivot = above.first().map_or(0, |span| span.from);
    let (below, above) = (tree(below), tree(above));
    let mut code = match u8::try_from(below.len()) {
        Ok(len) => vec![jump(NOT_BELOW, pivot, len, 0)],
        Err(_) => vec![jump(NOT_BELOW, pivot, 0, 1), step(SKIP, below.len() as u32)],
    };
    code.extend(below);
    code.extend(above);
    code
}

fn answer(rule: Option<Rule>) -> Vec<sock_filter> {
    let Some(rule) = rule else { return vec![allow()] };
    if rule.unless.is_empty() {
        return vec![refuse(rule.errno)];
    }
    let mut code: Vec<sock_filter> =
        rule.unless.iter().flat_map(|test| ask(test, refuse(rule.errno))).collect();
    code.push(allow());
    code
}

/// Goes on behind these instructions when the test holds, and otherwise ends with `refusal`.
fn ask(test: &Test, refusal: sock_filter) -> Vec<sock_filter> {
    // The low half; both architectures are little-endian.
    let mut code = vec![step(LOAD, ARGUMENTS_AT + 8 * u32::from(test.argument))];
    if test.mask != u32::MAX {
        code.push(step(AND, test.mask));
    }
    debug_assert!(test.values.len() < JUMP_MAX, "a test has a handful of values");
    for (index, value) in test.values.iter().enumerate() {
        // Over the values that follow and one instruction: the refusal, or the way round it.
        let match_jump = (test.values.len() - index) as u8;
        code.push(jump(EQUAL, *value, match_jump, 0));
    }
    if !test.among {
        code.push(step(SKIP, 1));
    }
    code.push(refusal);
    code
}

const fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, if_so: u8, if_not: u8) -> sock_filter {
    sock_filter { code, jt: if_so, jf: if_not, k }
}

const fn allow() -> sock_filter {
    step(RETURN, libc::SECCOMP_RET_ALLOW)
}

const fn refuse(errno: u16) -> sock_filter {
    step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
