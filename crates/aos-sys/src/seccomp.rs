//! Installing a seccomp filter.

use std::io;

use crate::checked;

/// One instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip if a condition holds.
    pub jump_true: u8,
    /// How many instructions to skip if it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// `struct sock_fprog` of linux/filter.h.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Adds a filter to the calling thread, for good. The kernel verifies the program; it demands
/// `no_new_privs` or `CAP_SYS_ADMIN`.
pub fn install(instructions: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(instructions.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the filter has over 65535 instructions"))?;
    let program = Program { length, instructions: instructions.as_ptr() };
    // SAFETY: the kernel copies `length` instructions, which are valid for reading, during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program))
    };
    checked(result).map(drop)
}
