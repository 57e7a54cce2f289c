//! The compiled filters against the table and against an independent statement of each check, by a
//! BPF interpreter.

use super::generate::Program;
use super::{Check, Instruction, Policy, Row, Verdict};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const X86_64: u32 = 0xc000_003e;
const ALL: [Policy; 6] =
    [Policy::Agent, Policy::Build, Policy::Init, Policy::Narrowed, Policy::Caller, Policy::Launcher];

const fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

/// `struct seccomp_data` as 32-bit words: number, architecture, instruction pointer, arguments.
fn data(arch: u32, number: u32, arguments: [u64; 6]) -> Vec<u32> {
    let mut words = vec![number, arch, 0x1234, 0];
    for argument in arguments {
        words.push(u32::try_from(argument & 0xffff_ffff).unwrap());
        words.push(u32::try_from(argument >> 32).unwrap());
    }
    words
}

/// Runs a filter. Panics on what the kernel's verifier refuses: an unknown instruction, a jump or
/// a load out of range, a program without return.
fn run(program: &[Instruction], data: &[u32]) -> u32 {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jump_true, jump_false, operand } = program[at];
        at += 1;
        let skip = |condition: bool| usize::from(if condition { jump_true } else { jump_false });
        match code {
            0x20 => {
                assert_eq!(operand % 4, 0);
                accumulator = data[usize::try_from(operand / 4).unwrap()];
            }
            0x05 => at += usize::try_from(operand).unwrap(),
            0x15 => at += skip(accumulator == operand),
            0x35 => at += skip(accumulator >= operand),
            0x45 => at += skip(accumulator & operand != 0),
            0x54 => accumulator &= operand,
            0x06 => return operand,
            other => panic!("instruction {other:#x} is not in the kernel's list for seccomp"),
        }
    }
}

fn verdict_of(policy: Policy, number: u32) -> Verdict {
    policy.rows().iter().find(|row| row.number == number).map_or(policy.otherwise(), |row| row.verdict)
}

/// What the policy says in plain words.
fn expected(policy: Policy, number: u32, arguments: [u64; 6]) -> u32 {
    if number >= 0x4000_0000 {
        return KILL;
    }
    match verdict_of(policy, number) {
        Verdict::Allow => ALLOW,
        Verdict::Deny => errno(1),
        Verdict::Absent => errno(38),
        Verdict::Pretend => errno(0),
        Verdict::Check(check) => expected_of_check(check, arguments),
    }
}

fn expected_of_check(check: Check, arguments: [u64; 6]) -> u32 {
    let low = arguments.map(|argument| u32::try_from(argument & 0xffff_ffff).unwrap());
    let unless = |bad: bool, number: u32| if bad { errno(number) } else { ALLOW };
    // NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
    let namespaces = [17, 25, 26, 27, 28, 29, 30].iter().fold(0_u32, |bits, bit| bits | 1 << bit);
    match check {
        Check::CloneFlags => unless(low[0] & namespaces != 0, 1),
        Check::UnshareFlags => unless(low[0] & (namespaces | 0x80) != 0, 1),
        Check::SocketKind => unless(
            ![1, 2, 10].contains(&low[0])
                || ![1, 2, 5].contains(&(low[1] & 0xf))
                || ![0, 6, 17].contains(&low[2]),
            1,
        ),
        Check::SocketFamily if ![1, 2, 10].contains(&low[0]) => errno(97),
        Check::SocketFamily => expected_of_check(Check::SocketKind, arguments),
        Check::SocketStream => {
            unless(![2, 10].contains(&low[0]) || low[1] & 0xf != 1 || ![0, 6].contains(&low[2]), 1)
        }
        Check::PairStream => unless(low[0] != 1 || ![1, 5].contains(&(low[1] & 0xf)) || low[2] != 0, 1),
        Check::SendFlags(index) => unless(low[index as usize] & 0x2000_0000 != 0, 1),
        Check::IoctlRequest => unless([0x5412, 0x541c, 0x5423].contains(&low[1]), 1),
        Check::MemfdFlags => unless(low[1] & 0x18 != 8, 13),
        Check::PrctlOption => unless([35, 62, 0x5961_6d61].contains(&low[0]), 1),
        Check::FileMode(index) => unless(low[index as usize] & 0o6000 != 0, 1),
        Check::CreationMode(index) => {
            let (flags, mode) = (low[index as usize], low[index as usize + 1]);
            unless(flags & 0x40_0040 != 0 && mode & 0o6000 != 0, 1)
        }
        Check::DeviceMode(index) => {
            unless([0o020_000, 0o060_000].contains(&(low[index as usize] & 0o170_000)), 0)
        }
        Check::FcntlCommand => unless(low[1] == 1026, 1),
        Check::PrlimitTarget if low[0] != 0 => errno(1),
        Check::PrlimitTarget => unless(low[1] == 4 && arguments[2] != 0, 0),
        Check::SetrlimitResource => unless(low[0] == 4, 0),
    }
}

/// Values at and around every constant of the checks, with and without high bits.
fn interesting() -> Vec<u64> {
    let mut values = vec![
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        10,
        15,
        16,
        17,
        24,
        35,
        36,
        40,
        62,
        63,
        132,
        136,
        256,
        262,
        0o4755,
        0o2755,
        0o102,
        0o020_666,
        0o060_660,
        0o010_600,
        0o100_644,
        0o140_777,
        1026,
        0x80,
        0x11,
        0x5411,
        0x5412,
        0x5413,
        0x541c,
        0x5423,
        0x5961_6d61,
        0x0008_0001,
        0x0008_0003,
        0x7fff_ffff,
        0xffff_ffff,
    ];
    values.extend((0..32).map(|bit| 1_u64 << bit));
    let high: Vec<u64> = values.iter().map(|value| value | 1 << 32).collect();
    values.extend(high);
    values
}

fn check_number(policy: Policy, program: &[Instruction], number: u32, values: &[u64]) {
    let verify = |arguments: [u64; 6]| {
        assert_eq!(
            run(program, &data(X86_64, number, arguments)),
            expected(policy, number, arguments),
            "{policy:?}: system call {number} with {arguments:x?}"
        );
    };
    verify([0; 6]);
    verify([u64::MAX; 6]);
    if matches!(verdict_of(policy, number), Verdict::Check(_)) {
        for first in values {
            for second in values {
                for third in [0, 1, 6, 17, 132, 262, 1 << 32, u64::MAX] {
                    verify([*first, *second, third, 0, 0, 0]);
                    // The same pairs one argument on: flags and mode of openat(2).
                    verify([third, *first, *second, *first, 0, 0]);
                    verify([third, 0, *first, *second, 0, 0]);
                }
            }
        }
    }
}

#[test]
fn every_number_gets_the_verdict_of_the_table() {
    let values = interesting();
    let edges = [
        513,
        1023,
        1024,
        4095,
        0xffff,
        0x1_0000,
        0x3fff_ffff,
        0x4000_0000,
        0x4000_0001,
        0x4000_003b,
        0x4000_0208,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        0xffff_ffff,
    ];
    for policy in ALL {
        let program = policy.compile();
        for number in (0..=512).chain(edges) {
            check_number(policy, program, number, &values);
        }
    }
}

#[test]
fn foreign_architectures_are_killed() {
    for policy in ALL {
        let program = policy.compile();
        // i386, arm, aarch64, x86_64 without its 64-bit flag, nothing
        for arch in [0x4000_0003, 0x4000_0028, 0xc000_00b7, 0x8000_003e, 0] {
            for number in 0..512 {
                assert_eq!(run(program, &data(arch, number, [0; 6])), KILL);
            }
        }
    }
}

#[test]
fn tables_are_sorted_and_name_each_call_once() {
    for policy in ALL {
        assert!(policy.rows().is_sorted_by(|a, b| a.number < b.number));
        let mut names: Vec<_> = policy.rows().iter().map(|row| row.name).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
    }
    for row in Policy::Init.rows().iter().chain(Policy::Launcher.rows()) {
        let agent = Policy::Agent.rows().iter().find(|other| other.number == row.number).unwrap();
        assert_eq!(agent.name, row.name);
    }
}

#[test]
fn the_tree_is_small_and_shallow() {
    let program = Policy::Agent.compile();
    assert!(program.len() < 400, "{} instructions", program.len());
    let steps = |number: u32| {
        let mut count = 0;
        let mut at = 0;
        let words = data(X86_64, number, [0; 6]);
        let mut accumulator = 0;
        while program[at].code != 0x06 {
            let step = program[at];
            count += 1;
            at += 1 + match step.code {
                0x20 => {
                    accumulator = words[usize::try_from(step.operand / 4).unwrap()];
                    0
                }
                0x05 => usize::try_from(step.operand).unwrap(),
                0x15 => {
                    usize::from(if accumulator == step.operand { step.jump_true } else { step.jump_false })
                }
                0x35 => {
                    usize::from(if accumulator >= step.operand { step.jump_true } else { step.jump_false })
                }
                _ => return count,
            };
        }
        count
    };
    let deepest = (0..512).map(steps).max().unwrap();
    assert!(deepest <= 20, "{deepest} instructions to a verdict");
}

/// What the page on builds says: the agent's table but for what is named here.
#[test]
fn a_build_differs_where_package_managers_need_it() {
    let differs: Vec<&str> = Policy::Agent
        .rows()
        .iter()
        .zip(Policy::Build.rows())
        .inspect(|(agent, build)| assert_eq!((agent.number, agent.name), (build.number, build.name)))
        .filter(|(agent, build)| agent.verdict != build.verdict)
        .map(|(_, build)| build.name)
        .collect();
    assert_eq!(
        differs,
        [
            "open",
            "socket",
            "socketpair",
            "creat",
            "chmod",
            "fchmod",
            "chown",
            "fchown",
            "lchown",
            "setuid",
            "setgid",
            "setreuid",
            "setregid",
            "setgroups",
            "setresuid",
            "setresgid",
            "setfsuid",
            "setfsgid",
            "capset",
            "mknod",
            "openat",
            "mknodat",
            "fchownat",
            "fchmodat",
            "memfd_create",
            "fchmodat2",
        ]
    );
}

/// A tree whose halves are further apart than a conditional jump reaches.
#[test]
fn long_trees_are_correct() {
    let rows: Vec<Row> = (0..4000)
        .filter(|number| number % 2 == 0)
        .map(|number| Row { number, name: "x", verdict: Verdict::Allow })
        .collect();
    let program = Program::<16_384>::compile(&rows, Verdict::Deny);
    for number in 0..4100 {
        let wanted = if number % 2 == 0 && number < 4000 { ALLOW } else { errno(1) };
        assert_eq!(run(program.as_slice(), &data(X86_64, number, [0; 6])), wanted, "{number}");
    }
}

/// What keeps a narrower call from the agent's sockets, whichever way they are reached.
#[test]
fn a_narrower_call_differs_in_sockets() {
    let differs: Vec<(&str, Verdict)> = Policy::Agent
        .rows()
        .iter()
        .zip(Policy::Narrowed.rows())
        .filter(|(agent, narrowed)| agent.verdict != narrowed.verdict)
        .map(|(_, narrowed)| (narrowed.name, narrowed.verdict))
        .collect();
    let check = Verdict::Check;
    assert_eq!(
        differs,
        [
            ("socket", check(Check::SocketStream)),
            ("sendto", check(Check::SendFlags(3))),
            ("sendmsg", check(Check::SendFlags(2))),
            ("socketpair", check(Check::PairStream)),
            ("sendmmsg", check(Check::SendFlags(3))),
        ]
    );
    let filter = Policy::Narrowed.compile();
    let verdict = |number, arguments| run(filter, &data(X86_64, number, arguments));
    assert_eq!(verdict(53, [1, 2, 0, 0, 0, 0]), errno(1));
    assert_eq!(verdict(53, [1, 1 | 0o2_000_000, 0, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(44, [3, 0, 1, 0x2000_4000, 0, 16]), errno(1));
    assert_eq!(verdict(44, [3, 0, 1, 0x4000, 0, 16]), ALLOW);
}

#[test]
fn what_the_sandbox_relies_on_is_denied() {
    for policy in [Policy::Agent, Policy::Build, Policy::Narrowed] {
        is_denied_by(policy);
    }
}

fn is_denied_by(policy: Policy) {
    let program = policy.compile();
    let named = |name: &str| policy.rows().iter().find(|row| row.name == name).unwrap().number;
    for name in [
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "setns",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsmount",
        "mount_setattr",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "io_setup",
        "keyctl",
        "add_key",
        "request_key",
        "personality",
        "modify_ldt",
        "open_by_handle_at",
        "kexec_load",
        "init_module",
        "syslog",
        "memfd_secret",
        "mbind",
        "reboot",
        "swapon",
        "acct",
        "quotactl",
        "fanotify_init",
        "settimeofday",
    ] {
        assert_eq!(run(program, &data(X86_64, named(name), [0; 6])), errno(1), "{name}");
    }
    assert_eq!(run(program, &data(X86_64, named("clone3"), [0; 6])), errno(38));
}
