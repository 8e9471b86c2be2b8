//! The filter against an interpreter of its instructions: every number, every argument that is
//! looked at, and random calls against the table read line by line.

use super::*;
use proptest::prelude::*;

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = refused(libc::EPERM);
const EACCES: u32 = refused(libc::EACCES);
const ENOSYS: u32 = refused(libc::ENOSYS);
/// The bit that makes a number one of x32.
const X32: u32 = 0x4000_0000;
/// Upper halves that the kernel does not look at.
const GARBAGE: &[u64] = &[0, 0xffff_ffff_0000_0000, 0xdead_beef_0000_0000, 1 << 32];

const fn refused(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// What the kernel hands to a filter.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    architecture: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, at: u32) -> u32 {
        match at {
            NUMBER_AT => self.number,
            ARCHITECTURE_AT => self.architecture,
            16..64 => {
                let argument = self.arguments[(at as usize - 16) / 8];
                (if at.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
            }
            _ => panic!("a load from {at}"),
        }
    }
}

/// Runs a filter as the kernel does; panics where the kernel would not have taken it.
fn run(program: &Program, call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program.code[at];
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1;
        match code {
            LOAD => accumulator = call.word(k),
            AND => accumulator &= k,
            EQUAL => at += jump(accumulator == k),
            NOT_BELOW => at += jump(accumulator >= k),
            SKIP => at += k as usize,
            RETURN => return k,
            _ => panic!("an unknown instruction {code:#x}"),
        }
    }
}

/// The table, read from top to bottom.
fn table(rows: &[syscalls::Row], call: &Call) -> u32 {
    if call.architecture != ARCHITECTURE || call.number > syscalls::NEWEST {
        return ENOSYS;
    }
    let holds = |test: &Test| {
        let looked_at = call.arguments[usize::from(test.argument)] as u32 & test.mask;
        test.values.contains(&looked_at) == test.among
    };
    match rows.iter().find(|row| row.number == call.number) {
        None => ALLOWED,
        Some(row) if !row.rule.unless.is_empty() && row.rule.unless.iter().all(holds) => ALLOWED,
        Some(row) => refused(i32::from(row.rule.errno)),
    }
}

fn none() -> FilterSpec {
    FilterSpec::default()
}

fn ports() -> FilterSpec {
    FilterSpec { network: Network::Ports([53, 443].into()), pidfd: false }
}

fn all() -> FilterSpec {
    FilterSpec { network: Network::All, pidfd: false }
}

fn own_numbers(spec: FilterSpec) -> FilterSpec {
    FilterSpec { pidfd: true, ..spec }
}

fn specs() -> Vec<FilterSpec> {
    [none(), ports(), all()].into_iter().flat_map(|spec| [spec.clone(), own_numbers(spec)]).collect()
}

fn call(number: i64, arguments: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Call { number: number as u32, architecture: ARCHITECTURE, arguments: all }
}

/// Asserts the answer, whatever stands in the upper halves and in arguments behind those given.
fn expect(spec: &FilterSpec, number: i64, arguments: &[u64], answer: u32) {
    let program = program(spec);
    for garbage in GARBAGE {
        let mut call = call(number, arguments);
        call.arguments.iter_mut().for_each(|argument| *argument |= garbage);
        assert_eq!(run(&program, &call), answer, "{spec:?} {call:x?}");
        call.arguments[arguments.len()..].fill(u64::MAX);
        assert_eq!(run(&program, &call), answer, "{spec:?} {call:x?}");
    }
}

#[test]
fn every_number_of_every_architecture_is_answered_as_the_table_says() {
    // Native, i386, arm, the other one of ours, none.
    let architectures = [ARCHITECTURE, 0x4000_0003, 0x4000_0028, ARCHITECTURE ^ (0x3e ^ 0xb7), 0];
    let numbers = (0..=600).chain([X32 - 1, u32::MAX - 1, u32::MAX, 0x8000_0000]);
    let numbers: Vec<u32> = numbers.flat_map(|number| [number, number | X32]).collect();
    for spec in specs() {
        let (program, rows) = (program(&spec), syscalls::rows(&spec));
        for architecture in architectures {
            for number in &numbers {
                for arguments in [[0; 6], [u64::MAX; 6], [1; 6], [2; 6]] {
                    let call = Call { number: *number, architecture, arguments };
                    let answer = run(&program, &call);
                    assert_eq!(answer, table(&rows, &call), "{spec:?} {call:x?}");
                    let is_foreign = architecture != ARCHITECTURE || number & X32 != 0 || *number > 469;
                    assert!(!is_foreign || answer == ENOSYS, "{call:x?}");
                }
            }
        }
    }
}

/// Calls that no argument makes good, by their own numbers and not by the table's.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_is_refused_is_refused_by_its_number() {
    let eperm = [
        101, 310, 311, 312, 438, 440, 448, // other processes
        272, 308, 165, 166, 155, 161, 429, 428, 467, 430, 431, 432, 433, 442, 457, 458, 167,
        168, // walls
        321, 298, 323, 246, 320, 175, 313, 176, 172, 173, 154, 212, 103, 163, 179, 443, 134, 136, 139, 180,
        153, 164, 227, 159, 305, 170, 171, 169, // surface, clock, names
        248, 249, 250, 304, 303, 300, // keyrings, handles
        29, 30, 31, 67, 64, 65, 220, 66, 68, 69, 70, 71, 240, 241, 242, 243, 244, 245, // shared memory
    ];
    let enosys = [425, 426, 427, 435, 319, 447];
    for spec in specs() {
        for arguments in [[0; 6], [u64::MAX; 6], [1; 6]] {
            eperm.iter().for_each(|number| expect(&spec, *number, &arguments, EPERM));
            enosys.iter().for_each(|number| expect(&spec, *number, &arguments, ENOSYS));
        }
    }
    // What stands beside them by number or by purpose goes through: read, write, open, mmap, brk, fork,
    // vfork, execve, kill, execveat, prctl, openat2, close_range, seccomp, landlock, inotify, eventfd,
    // chmod, utimensat, futex_waitv, getrandom, set_mempolicy_home_node, file_getattr.
    let open = [
        0, 1, 2, 9, 12, 57, 58, 59, 62, 322, 157, 437, 436, 317, 444, 445, 446, 254, 290, 90, 280, 449, 318,
        450, 468, 100, 102, 309, 271, 273, 324, 439, 441,
    ];
    for spec in specs() {
        open.iter().for_each(|number| expect(&spec, *number, &[], ALLOWED));
    }
}

#[test]
fn without_a_network_there_is_no_socket_but_a_pair() {
    let (socket, pair) = (libc::SYS_socket, libc::SYS_socketpair);
    for spec in [none(), own_numbers(none())] {
        for family in 0..46 {
            for kind in 0..11 {
                expect(&spec, socket, &[family, kind, 0], EACCES);
                let is_bound = family == 1 && [1, 5].contains(&kind);
                expect(&spec, pair, &[family, kind, 0], if is_bound { ALLOWED } else { EACCES });
            }
        }
        // SOCK_CLOEXEC and SOCK_NONBLOCK are no kind.
        expect(&spec, pair, &[1, 1 | 0o2_000_000 | 0o4_000, 0], ALLOWED);
        expect(&spec, pair, &[1, 2 | 0o2_000_000 | 0o4_000, 0], EACCES);
        for number in [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen] {
            expect(&spec, number, &[3], EACCES);
        }
        for number in [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_shutdown] {
            expect(&spec, number, &[3, 0, 0, 0], ALLOWED);
        }
    }
}

#[test]
fn with_ports_there_is_tcp_and_it_is_opened_by_connect_alone() {
    let spec = ports();
    let socket = libc::SYS_socket;
    for family in 0..46 {
        for kind in 0..11 {
            for protocol in [0, 1, 6, 17, 58, 132, 136, 255, 256, 262] {
                let is_tcp = [2, 10].contains(&family) && kind == 1 && [0, 6].contains(&protocol);
                let answer = if is_tcp { ALLOWED } else { EACCES };
                expect(&spec, socket, &[family, kind | 0o2_000_000, protocol], answer);
            }
        }
    }
    let fast_open = 0x2000_0000;
    for (number, flags_at) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        let mut arguments = vec![3, 0x7fff_0000_1000, 0x7fff_0000_2000, 0x7fff_0000_3000];
        for (flags, answer) in
            [(0, ALLOWED), (0x4000, ALLOWED), (fast_open, EACCES), (fast_open | 0x4000, EACCES)]
        {
            arguments.truncate(flags_at);
            arguments.push(flags);
            expect(&spec, number, &arguments, answer);
        }
    }
    expect(&spec, libc::SYS_listen, &[3, 128], EACCES);
    // TCP_NODELAY and TCP_FASTOPEN_CONNECT go through; another protocol on top does not.
    for (option, answer) in [(1, ALLOWED), (30, ALLOWED), (31, EACCES)] {
        expect(&spec, libc::SYS_setsockopt, &[3, 6, option], answer);
    }
    expect(&spec, libc::SYS_connect, &[3], ALLOWED);
}

#[test]
fn with_all_of_the_network_there_is_tcp_and_udp_and_no_way_into_the_machine() {
    let socket = libc::SYS_socket;
    for family in 0..46 {
        for kind in 0..11 {
            for protocol in [0, 1, 6, 15, 17, 58, 255, 262] {
                let is_internet = [2, 10].contains(&family) && [1, 2].contains(&kind);
                let answer = if is_internet && [0, 6, 17].contains(&protocol) { ALLOWED } else { EACCES };
                expect(&all(), socket, &[family, kind | 0o4_000, protocol], answer);
            }
        }
    }
    expect(&all(), libc::SYS_listen, &[3, 128], ALLOWED);
    expect(&all(), libc::SYS_socketpair, &[1, 2, 0], EACCES);
}

#[test]
fn a_clone_makes_threads_and_processes_and_no_namespaces() {
    // CSIGNAL, a thread of glibc, vfork, a parent's child.
    for flags in [0, 17, 0x3d_0f00, 0x4111, 0x8011, 0x01ff_ff11 & !0x2_0000] {
        expect(&none(), libc::SYS_clone, &[flags, 0x7fff_0000_0000], ALLOWED);
    }
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        for rest in [0, 17, 0x3d_0f00] {
            expect(&none(), libc::SYS_clone, &[rest | 1 << bit, 0], EPERM);
        }
    }
}

#[test]
fn no_ioctl_puts_words_into_a_terminal() {
    for request in [0x5412, 0x541c, 0x5423] {
        expect(&none(), libc::SYS_ioctl, &[0, request, 0x7fff_0000_0000], EPERM);
    }
    // TCGETS, its neighbours of the refused ones, FIONREAD, FICLONE.
    for request in [0x5401, 0x5411, 0x5413, 0x541b, 0x541d, 0x5422, 0x5424, 0x541b, 0x4004_9409] {
        expect(&none(), libc::SYS_ioctl, &[0, request, 0x7fff_0000_0000], ALLOWED);
    }
}

#[test]
fn a_process_is_asked_about_by_number_only_where_numbers_are_its_own() {
    let by_number = [
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
    ];
    for (spec, elsewhere) in [(none(), EPERM), (own_numbers(none()), ALLOWED)] {
        for number in by_number {
            expect(&spec, number, &[0, 8], ALLOWED);
            expect(&spec, number, &[1, 8], elsewhere);
            expect(&spec, number, &[0xffff_ffff, 8], elsewhere);
        }
        expect(&spec, libc::SYS_pidfd_open, &[1, 0], elsewhere);
        // PRIO_PROCESS, PRIO_PGRP, PRIO_USER; IOPRIO_WHO_* begin with 1.
        for (number, first) in [(libc::SYS_setpriority, 0), (libc::SYS_ioprio_set, 1)] {
            for kind in [first, first + 1] {
                expect(&spec, number, &[kind, 0, 5], ALLOWED);
                expect(&spec, number, &[kind, 77, 5], elsewhere);
            }
            for who in [0, 77] {
                expect(&spec, number, &[first + 2, who, 5], EPERM);
            }
        }
        for number in [libc::SYS_prlimit64, libc::SYS_move_pages, libc::SYS_migrate_pages] {
            expect(&spec, number, &[0, 4], ALLOWED);
            expect(&spec, number, &[1, 4], EPERM);
            expect(&spec, number, &[0x8000_0000, 4], EPERM);
        }
    }
}

#[test]
fn the_personality_is_asked_for_and_not_changed() {
    for (persona, answer) in
        [(0, ALLOWED), (0xffff_ffff, ALLOWED), (8, EPERM), (0x4_0000, EPERM), (0xffff_fffe, EPERM)]
    {
        expect(&none(), libc::SYS_personality, &[persona], answer);
    }
}

/// The most questions that a number is asked before its arguments are looked at.
fn depth(program: &Program, call: &Call) -> usize {
    let (mut at, mut steps) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program.code[at];
        at += 1;
        match code {
            EQUAL if at == 2 => at += 1,
            NOT_BELOW => at += usize::from(if call.number >= k { jt } else { jf }),
            SKIP => at += k as usize,
            LOAD if at < 5 => {}
            _ => return steps,
        }
        steps += 1;
    }
}

#[test]
fn the_program_is_short_and_its_paths_are_shorter() {
    for spec in specs() {
        let program = program(&spec);
        let deepest = (0..=470).map(|number| depth(&program, &call(number, &[]))).max();
        assert!(program.code.len() <= 300, "{spec:?}: {}", program.code.len());
        assert!(deepest <= Some(10), "{spec:?}: {deepest:?}");
    }
}

/// A call made of random words: mostly numbers and arguments at which something is decided.
fn call_of(words: [u64; 8]) -> Call {
    const KNOWN: &[u64] = &[0x5412, 0x541c, 0x5423, 262, 0xffff_ffff, 0x2000_0000, 31, 0x80001];
    let [number, architecture, arguments @ ..] = words;
    let choice = number >> 32;
    let known = (number % 480) as u32;
    let number = match choice % 8 {
        0 => number as u32,
        1 => known | X32,
        _ => known,
    };
    let architecture = if architecture % 10 == 0 { (architecture >> 8) as u32 } else { ARCHITECTURE };
    let arguments = arguments.map(|word| {
        let low = match word % 8 {
            0..4 => word >> 8 & 15,
            4 => 1 << (word >> 8 & 31),
            5 => KNOWN[(word >> 8) as usize % KNOWN.len()],
            6 => 17 | 1 << (word >> 8 & 31),
            _ => word,
        };
        low | GARBAGE[(word >> 40) as usize % GARBAGE.len()]
    });
    Call { number, architecture, arguments }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_random_call_is_answered_as_the_table_says(words in prop::collection::vec(any::<[u64; 8]>(), 500)) {
        let calls: Vec<Call> = words.into_iter().map(call_of).collect();
        for spec in specs() {
            let (program, rows) = (program(&spec), syscalls::rows(&spec));
            for call in &calls {
                prop_assert_eq!(run(&program, call), table(&rows, call), "{:?} {:x?}", spec, call);
            }
        }
    }

    /// Random tables too: trees of any size and shape, with jumps too far for one instruction.
    #[test]
    fn a_random_tree_finds_its_span(
        cuts in prop::collection::btree_set(1..2_000u32, 0..400),
        numbers in prop::collection::vec(0..2_100u32, 50),
    ) {
        const TESTS: &[Test] = &[Test { argument: 0, mask: u32::MAX, values: &[1, 2, 3], among: true }];
        let spans: Vec<Span> = std::iter::once(0).chain(cuts).enumerate().map(|(index, from)| {
            let rule = Rule { errno: index as u16 + 1, unless: if index % 3 == 0 { TESTS } else { &[] } };
            Span { from, rule: Some(rule) }
        }).collect();
        let mut code = vec![step(LOAD, NUMBER_AT)];
        code.extend(tree(&spans));
        let program = Program { code };
        for number in numbers {
            let span = spans.iter().rfind(|span| span.from <= number).and_then(|span| span.rule);
            let errno = span.map_or(0, |rule| i32::from(rule.errno));
            prop_assert_eq!(run(&program, &call(i64::from(number), &[])), refused(errno));
        }
    }
}
