//! From a table to BPF.
//!
//! Numbers with the same verdict in a row form one range; a balanced binary search finds the range.
//! The depth is the logarithm of the number of ranges, and every path ends in a return.
//!
//! All of it runs in the compiler, so that a launcher has the filters as they are installed.

#![expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]

use aos_sys::seccomp::Instruction;

use super::policy::{Check, Row, Verdict};

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const ARCH_X86_64: u32 = 0xc000_003e;
/// `__X32_SYSCALL_BIT` of asm/unistd.h: at and above it are x32 calls and numbers that no ABI has.
const X32_BIT: u32 = 0x4000_0000;

// linux/seccomp.h: offsets into struct seccomp_data, and actions.
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGUMENTS: u32 = 16;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

// linux/filter.h and linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

// errno.h
const SUCCESS: u32 = 0;
const EPERM: u32 = 1;
const EACCES: u32 = 13;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// All `CLONE_NEW*` flags of linux/sched.h but the one for time, which clone(2) cannot take: its
/// bit is part of the exit signal there.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// `CLONE_NEWTIME`, for unshare(2).
const UNSHARE_TIME: u32 = 0x80;

/// `S_ISUID` and `S_ISGID` of linux/stat.h.
const SET_ID_BITS: u32 = 0o6000;
/// `S_IFMT`, `S_IFCHR` and `S_IFBLK` of linux/stat.h.
const FILE_TYPE: u32 = 0o170_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;
/// `O_CREAT` and `__O_TMPFILE` of asm-generic/fcntl.h: with either, open(2) has a mode.
const CREATING_FLAGS: u32 = 0o100 | 0o20_000_000;

/// A program for a whole policy, of at most `N` instructions. The compiler makes those of the named
/// policies, and refuses to when one is longer.
pub(super) struct Program<const N: usize> {
    instructions: [Instruction; N],
    length: usize,
}

impl<const N: usize> Program<N> {
    /// Makes the program. `rows` is in ascending order of number.
    pub(super) const fn compile(rows: &[Row], otherwise: Verdict) -> Self {
        let mut program = Self { instructions: [ret(RET_KILL_PROCESS); N], length: 0 };
        program.extend(&[
            load(DATA_ARCH),
            branch(JUMP_EQUAL, ARCH_X86_64, 1, 0),
            ret(RET_KILL_PROCESS),
            load(DATA_NUMBER),
            branch(JUMP_AT_LEAST, X32_BIT, 0, 1),
            ret(RET_KILL_PROCESS),
        ]);
        let ranges = Ranges::<N>::of(rows, otherwise);
        program.tree(ranges.as_slice());
        program
    }

    /// The instructions.
    pub(super) const fn as_slice(&self) -> &[Instruction] {
        self.instructions.split_at(self.length).0
    }

    const fn push(&mut self, instruction: Instruction) {
        self.instructions[self.length] = instruction;
        self.length += 1;
    }

    const fn extend(&mut self, instructions: &[Instruction]) {
        let mut index = 0;
        while index < instructions.len() {
            self.push(instructions[index]);
            index += 1;
        }
    }

    /// A search over ranges, with the number in the accumulator.
    const fn tree(&mut self, ranges: &[Range]) {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let Some(pivot) = high.first() else { return };
        if low.is_empty() {
            return self.leaf(pivot.verdict);
        }
        let at = self.length;
        self.push(ret(RET_KILL_PROCESS));
        self.tree(low);
        let over = self.length - at - 1;
        if over <= u8::MAX as usize {
            self.instructions[at] = branch(JUMP_AT_LEAST, pivot.start, over as u8, 0);
        } else {
            // A conditional jump reaches 255 instructions; a plain one reaches all.
            self.push(ret(RET_KILL_PROCESS));
            let mut index = self.length - 1;
            while index > at + 1 {
                self.instructions[index] = self.instructions[index - 1];
                index -= 1;
            }
            self.instructions[at] = branch(JUMP_AT_LEAST, pivot.start, 0, 1);
            self.instructions[at + 1] = instruction(JUMP, 0, 0, over as u32);
        }
        self.tree(high);
    }

    /// The instructions of one verdict.
    const fn leaf(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Allow => self.push(ret(RET_ALLOW)),
            Verdict::Deny => self.push(errno(EPERM)),
            Verdict::Absent => self.push(errno(ENOSYS)),
            Verdict::Pretend => self.push(errno(SUCCESS)),
            Verdict::Check(check) => self.leaf_of_check(check),
        }
    }

    const fn leaf_of_check(&mut self, check: Check) {
        match check {
            Check::CloneFlags => self.deny_bits(0, CLONE_NAMESPACES),
            Check::UnshareFlags => self.deny_bits(0, CLONE_NAMESPACES | UNSHARE_TIME),
            Check::SocketKind => self.socket_kind(EPERM),
            Check::SocketFamily => self.socket_kind(EAFNOSUPPORT),
            Check::SocketStream => self.socket_stream(),
            Check::PairStream => self.pair_stream(),
            // MSG_FASTOPEN of linux/socket.h.
            Check::SendFlags(flags) => self.deny_bits(flags, 0x2000_0000),
            // TIOCSTI, TIOCLINUX, TIOCSETD of asm-generic/ioctls.h; the kernel takes 32 bits of it.
            Check::IoctlRequest => self.deny_values(1, &[0x5412, 0x541c, 0x5423]),
            Check::MemfdFlags => self.memfd_flags(),
            // PR_SET_MM, PR_SCHED_CORE, PR_SET_PTRACER of linux/prctl.h.
            Check::PrctlOption => self.deny_values(0, &[35, 62, 0x5961_6d61]),
            Check::FileMode(mode) => self.deny_bits(mode, SET_ID_BITS),
            Check::CreationMode(flags) => self.creation_mode(flags),
            Check::DeviceMode(mode) => self.device_mode(mode),
            // F_NOTIFY of linux/fcntl.h.
            Check::FcntlCommand => self.deny_values(1, &[1026]),
            Check::PrlimitTarget => self.prlimit_target(),
            // RLIMIT_CORE is 4.
            Check::SetrlimitResource => {
                self.extend(&[load(argument_low(0)), branch(JUMP_EQUAL, 4, 0, 1), errno(SUCCESS)]);
                self.push(ret(RET_ALLOW));
            }
        }
    }

    const fn creation_mode(&mut self, flags: u32) {
        self.extend(&[load(argument_low(flags)), branch(JUMP_ANY_BIT, CREATING_FLAGS, 1, 0), ret(RET_ALLOW)]);
        self.deny_bits(flags + 1, SET_ID_BITS);
    }

    const fn device_mode(&mut self, mode: u32) {
        self.extend(&[
            load(argument_low(mode)),
            instruction(AND, 0, 0, FILE_TYPE),
            branch(JUMP_EQUAL, CHARACTER_DEVICE, 1, 0),
            branch(JUMP_EQUAL, BLOCK_DEVICE, 0, 1),
            errno(SUCCESS),
            ret(RET_ALLOW),
        ]);
    }

    const fn deny_bits(&mut self, argument: u32, bits: u32) {
        self.extend(&[load(argument_low(argument)), branch(JUMP_ANY_BIT, bits, 0, 1), errno(EPERM)]);
        self.push(ret(RET_ALLOW));
    }

    const fn deny_values(&mut self, argument: u32, values: &[u32]) {
        self.push(load(argument_low(argument)));
        let mut index = 0;
        while index < values.len() {
            self.extend(&[branch(JUMP_EQUAL, values[index], 0, 1), errno(EPERM)]);
            index += 1;
        }
        self.push(ret(RET_ALLOW));
    }

    /// Goes on with the instruction after the group if the accumulator is one of three values; the
    /// error otherwise.
    const fn require_one_of(&mut self, values: [u32; 3], error: u32) {
        let [first, second, third] = values;
        self.extend(&[
            branch(JUMP_EQUAL, first, 3, 0),
            branch(JUMP_EQUAL, second, 2, 0),
            branch(JUMP_EQUAL, third, 1, 0),
            errno(error),
        ]);
    }

    const fn socket_kind(&mut self, other_family: u32) {
        // AF_UNIX, AF_INET, AF_INET6
        self.push(load(argument_low(0)));
        self.require_one_of([1, 2, 10], other_family);
        // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET without the flags above the low four bits
        self.extend(&[load(argument_low(1)), instruction(AND, 0, 0, 0xf)]);
        self.require_one_of([1, 2, 5], EPERM);
        // the default, IPPROTO_TCP, IPPROTO_UDP
        self.push(load(argument_low(2)));
        self.require_one_of([0, 6, 17], EPERM);
        self.push(ret(RET_ALLOW));
    }

    const fn socket_stream(&mut self) {
        // AF_INET, AF_INET6; SOCK_STREAM; the default, IPPROTO_TCP
        self.push(load(argument_low(0)));
        self.require_one_of([2, 10, 10], EPERM);
        self.extend(&[load(argument_low(1)), instruction(AND, 0, 0, 0xf)]);
        self.require_one_of([1, 1, 1], EPERM);
        self.push(load(argument_low(2)));
        self.require_one_of([0, 6, 6], EPERM);
        self.push(ret(RET_ALLOW));
    }

    const fn pair_stream(&mut self) {
        // AF_UNIX; SOCK_STREAM, SOCK_SEQPACKET; the default
        self.push(load(argument_low(0)));
        self.require_one_of([1, 1, 1], EPERM);
        self.extend(&[load(argument_low(1)), instruction(AND, 0, 0, 0xf)]);
        self.require_one_of([1, 5, 5], EPERM);
        self.push(load(argument_low(2)));
        self.require_one_of([0, 0, 0], EPERM);
        self.push(ret(RET_ALLOW));
    }

    const fn memfd_flags(&mut self) {
        // MFD_NOEXEC_SEAL is 8, MFD_EXEC is 16.
        self.extend(&[
            load(argument_low(1)),
            branch(JUMP_ANY_BIT, 8, 1, 0),
            errno(EACCES),
            branch(JUMP_ANY_BIT, 16, 0, 1),
            errno(EACCES),
            ret(RET_ALLOW),
        ]);
    }

    const fn prlimit_target(&mut self) {
        self.extend(&[
            load(argument_low(0)),
            branch(JUMP_EQUAL, 0, 1, 0),
            errno(EPERM),
            load(argument_low(1)),
            branch(JUMP_EQUAL, 4, 1, 0),
            ret(RET_ALLOW),
            // A null pointer to the new limit only reads: both halves are zero.
            load(argument_low(2)),
            branch(JUMP_EQUAL, 0, 0, 2),
            load(argument_low(2) + 4),
            branch(JUMP_EQUAL, 0, 1, 0),
            errno(SUCCESS),
            ret(RET_ALLOW),
        ]);
    }
}

/// The verdict from a number on, until the next range starts.
#[derive(Clone, Copy)]
struct Range {
    start: u32,
    verdict: Verdict,
}

/// The ranges from 0 up, neighbours with one verdict merged.
struct Ranges<const N: usize> {
    ranges: [Range; N],
    length: usize,
}

impl<const N: usize> Ranges<N> {
    const fn of(rows: &[Row], otherwise: Verdict) -> Self {
        let mut ranges = Self { ranges: [Range { start: 0, verdict: otherwise }; N], length: 0 };
        let (mut next, mut index) = (0, 0);
        while index < rows.len() {
            let row = rows[index];
            if row.number > next {
                ranges.push(next, otherwise);
            }
            ranges.push(row.number, row.verdict);
            next = row.number + 1;
            index += 1;
        }
        ranges.push(next, otherwise);
        ranges
    }

    const fn push(&mut self, start: u32, verdict: Verdict) {
        if self.length == 0 || !self.ranges[self.length - 1].verdict.is(verdict) {
            self.ranges[self.length] = Range { start, verdict };
            self.length += 1;
        }
    }

    const fn as_slice(&self) -> &[Range] {
        self.ranges.split_at(self.length).0
    }
}

/// Offset of the low 32 bits of an argument, on a little-endian machine.
const fn argument_low(index: u32) -> u32 {
    DATA_ARGUMENTS + 8 * index
}

const fn instruction(code: u16, jump_true: u8, jump_false: u8, operand: u32) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

const fn load(offset: u32) -> Instruction {
    instruction(LOAD_WORD, 0, 0, offset)
}

const fn branch(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    instruction(code, jump_true, jump_false, operand)
}

const fn ret(action: u32) -> Instruction {
    instruction(RETURN, 0, 0, action)
}

const fn errno(number: u32) -> Instruction {
    ret(RET_ERRNO | number)
}
