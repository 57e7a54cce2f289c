//! What is recorded of an agent that somebody watches to learn what it needs: the calls that name a
//! file or an address, what their arguments mean, and the filter that asks about them.
//!
//! The filter never refuses anything. A filter's refusal comes before another filter's question
//! (seccomp(2)), so it asks only about calls that the agent's own filter lets pass, and what the
//! kernel's other layers say of them stays theirs to say.
//!
//! Numbers come from the kernel's arch/x86/entry/syscalls/syscall_64.tbl. openat2(2) is not here,
//! since no agent has it; sendmsg(2) and sendmmsg(2) are not, since their addresses lie behind two
//! pointers and every write to a stream would be asked about.

use aos_sys::notify::{ASK, PASS};

use crate::seccomp::Instruction;

/// A path among the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The argument with the directory that a relative path starts from; `None` is the working
    /// directory.
    pub directory: Option<u8>,
    /// The argument with the path.
    pub path: u8,
}

/// What is wanted of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// To know whether it is there, and its attributes.
    Look,
    /// Its content.
    Read,
    /// To run it.
    Execute,
    /// To change its content or attributes.
    Write,
    /// To make or remove it in its directory.
    Entry,
}

/// What the arguments of a call mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// One use of one path.
    Path(Named, Want),
    /// A use that the flags of open(2) in an argument say.
    Open(Named, u8),
    /// A use that the mode of access(2) in an argument says.
    Access(Named, u8),
    /// Two paths, whose entries both change or come to be.
    Two(Named, Named),
    /// An address to talk to: the arguments with the socket, the address and its length.
    Connect(u8, u8, u8),
    /// An address to listen on, in the same arguments.
    Bind(u8, u8, u8),
}

/// When a call is not asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unless {
    /// It always is.
    Never,
    /// These bits of an argument are set: a call about an open file.
    Bits(u8, u32),
    /// An argument is a null pointer.
    Null(u8),
}

/// One recorded call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number on x86_64.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What its arguments mean.
    pub meaning: Meaning,
    unless: Unless,
}

/// `AT_EMPTY_PATH` of linux/fcntl.h: glibc's fstat(3) is such a call.
const AT_EMPTY_PATH: u32 = 0x1000;

const fn named(path: u8) -> Named {
    Named { directory: None, path }
}

const fn at(directory: u8, path: u8) -> Named {
    Named { directory: Some(directory), path }
}

const fn call(number: u32, name: &'static str, meaning: Meaning) -> Call {
    Call { number, name, meaning, unless: Unless::Never }
}

const fn unless(number: u32, name: &'static str, meaning: Meaning, unless: Unless) -> Call {
    Call { number, name, meaning, unless }
}

/// Every recorded call, in the order of its number.
#[rustfmt::skip]
pub static CALLS: &[Call] = {
    use Meaning::{Access, Bind, Connect, Open, Path, Two};
    use Want::{Entry, Execute, Look, Write};
    &[
        call(2, "open", Open(named(0), 1)),
        call(4, "stat", Path(named(0), Look)),
        call(6, "lstat", Path(named(0), Look)),
        call(21, "access", Access(named(0), 1)),
        call(42, "connect", Connect(0, 1, 2)),
        unless(44, "sendto", Connect(0, 4, 5), Unless::Null(4)),
        call(49, "bind", Bind(0, 1, 2)),
        call(59, "execve", Path(named(0), Execute)),
        call(76, "truncate", Path(named(0), Write)),
        call(80, "chdir", Path(named(0), Look)),
        call(82, "rename", Two(named(0), named(1))),
        call(83, "mkdir", Path(named(0), Entry)),
        call(84, "rmdir", Path(named(0), Entry)),
        call(85, "creat", Path(named(0), Write)),
        call(86, "link", Two(named(0), named(1))),
        call(87, "unlink", Path(named(0), Entry)),
        call(88, "symlink", Path(named(1), Entry)),
        call(89, "readlink", Path(named(0), Look)),
        call(90, "chmod", Path(named(0), Write)),
        call(92, "chown", Path(named(0), Write)),
        call(94, "lchown", Path(named(0), Write)),
        call(132, "utime", Path(named(0), Write)),
        call(133, "mknod", Path(named(0), Entry)),
        call(137, "statfs", Path(named(0), Look)),
        call(188, "setxattr", Path(named(0), Write)),
        call(189, "lsetxattr", Path(named(0), Write)),
        call(235, "utimes", Path(named(0), Write)),
        call(257, "openat", Open(at(0, 1), 2)),
        call(258, "mkdirat", Path(at(0, 1), Entry)),
        call(259, "mknodat", Path(at(0, 1), Entry)),
        call(260, "fchownat", Path(at(0, 1), Write)),
        unless(261, "futimesat", Path(at(0, 1), Write), Unless::Null(1)),
        unless(262, "newfstatat", Path(at(0, 1), Look), Unless::Bits(3, AT_EMPTY_PATH)),
        call(263, "unlinkat", Path(at(0, 1), Entry)),
        call(264, "renameat", Two(at(0, 1), at(2, 3))),
        call(265, "linkat", Two(at(0, 1), at(2, 3))),
        call(266, "symlinkat", Path(at(1, 2), Entry)),
        call(267, "readlinkat", Path(at(0, 1), Look)),
        call(268, "fchmodat", Path(at(0, 1), Write)),
        call(269, "faccessat", Access(at(0, 1), 2)),
        unless(280, "utimensat", Path(at(0, 1), Write), Unless::Null(1)),
        call(316, "renameat2", Two(at(0, 1), at(2, 3))),
        call(322, "execveat", Path(at(0, 1), Execute)),
        unless(332, "statx", Path(at(0, 1), Look), Unless::Bits(2, AT_EMPTY_PATH)),
        call(439, "faccessat2", Access(at(0, 1), 2)),
        call(452, "fchmodat2", Path(at(0, 1), Write)),
    ]
};

/// The recorded call of a number.
pub fn find(number: u32) -> Option<&'static Call> {
    let index = CALLS.binary_search_by_key(&number, |call| call.number).ok()?;
    CALLS.get(index)
}

// linux/bpf_common.h and linux/audit.h; offsets are those of `struct seccomp_data`.
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;
const WORD_BYTES: u32 = 4;
const X86_64: u32 = 0xc000_003e;

const fn step(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

/// A jump that goes on with the next instruction when it holds, and skips some when it does not.
const fn branch(code: u16, operand: u32, skip: u8) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: skip, operand }
}

/// The low word of an argument.
fn argument_at(index: u8) -> u32 {
    ARGUMENTS_AT + u32::from(index) * ARGUMENT_BYTES
}

/// The filter: asks about every call of [`CALLS`], and lets all else pass.
pub fn filter() -> Vec<Instruction> {
    let mut program = vec![
        step(LOAD_WORD, ARCHITECTURE_AT),
        Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, operand: X86_64 },
        step(RETURN, PASS),
        step(LOAD_WORD, NUMBER_AT),
    ];
    for call in CALLS {
        let body = match call.unless {
            Unless::Never => vec![step(RETURN, ASK)],
            Unless::Bits(index, bits) => vec![
                step(LOAD_WORD, argument_at(index)),
                branch(JUMP_BITS, bits, 1),
                step(RETURN, PASS),
                step(RETURN, ASK),
            ],
            Unless::Null(index) => vec![
                step(LOAD_WORD, argument_at(index)),
                branch(JUMP_EQUAL, 0, 3),
                step(LOAD_WORD, argument_at(index) + WORD_BYTES),
                branch(JUMP_EQUAL, 0, 1),
                step(RETURN, PASS),
                step(RETURN, ASK),
            ],
        };
        program.push(branch(JUMP_EQUAL, call.number, u8::try_from(body.len()).unwrap_or(u8::MAX)));
        program.extend(body);
    }
    program.push(step(RETURN, PASS));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::Policy;

    /// What the filter says of a call.
    fn verdict(architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut words = vec![number, architecture, 0, 0];
        for argument in arguments {
            words.push(u32::try_from(argument & 0xffff_ffff).unwrap());
            words.push(u32::try_from(argument >> 32).unwrap());
        }
        let program = filter();
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let one = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { one.jump_true } else { one.jump_false });
            match one.code {
                LOAD_WORD => accumulator = words[usize::try_from(one.operand / 4).unwrap()],
                JUMP_EQUAL => at += jump(accumulator == one.operand),
                JUMP_BITS => at += jump(accumulator & one.operand != 0),
                RETURN => return one.operand,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn it_asks_about_the_table_and_nothing_else() {
        for number in 0..600 {
            let expected = if find(number).is_some() { ASK } else { PASS };
            assert_eq!(verdict(X86_64, number, [1, 1, 1, 1, 1, 1]), expected, "{number}");
        }
        for architecture in [0x4000_0003, 0xc000_00b7, 0] {
            assert_eq!(verdict(architecture, 2, [1; 6]), PASS);
        }
    }

    #[test]
    fn calls_about_open_files_pass() {
        let arguments = |index: usize, value: u64| {
            let mut arguments = [1; 6];
            arguments[index] = value;
            arguments
        };
        for (number, index, value, expected) in [
            (262, 3, 0x1000, PASS),
            (262, 3, 0x1100, PASS),
            (262, 3, 0x100, ASK),
            (332, 2, 0x1000, PASS),
            (44, 4, 0, PASS),
            (44, 4, 1 << 32, ASK),
            (280, 1, 0, PASS),
        ] {
            assert_eq!(verdict(X86_64, number, arguments(index, value)), expected, "{number} {value:#x}");
        }
    }

    /// The table has the agent's own names and numbers, and no call that its filter refuses.
    #[test]
    fn the_table_is_of_the_agents() {
        assert!(CALLS.is_sorted_by(|a, b| a.number < b.number));
        for call in CALLS {
            let row = Policy::Agent.rows().iter().find(|row| row.number == call.number).unwrap();
            assert_eq!(row.name, call.name);
            assert!(!matches!(row.verdict, crate::seccomp::Verdict::Deny | crate::seccomp::Verdict::Absent));
        }
    }
}
