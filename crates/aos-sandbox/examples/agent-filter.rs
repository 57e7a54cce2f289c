//! Prints the agent's system call filter: as the kernel's `struct sock_filter` array, or with
//! `--names` the names of the calls that are allowed or checked, one a line. For comparing other
//! sandboxes under the same filter.

use std::error::Error;
use std::io::Write;

use aos_sandbox::seccomp::{Policy, Verdict};

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    match std::env::args().nth(1).as_deref() {
        None => {
            for instruction in Policy::Agent.compile() {
                bytes.extend(instruction.code.to_le_bytes());
                bytes.extend([instruction.jump_true, instruction.jump_false]);
                bytes.extend(instruction.operand.to_le_bytes());
            }
        }
        Some("--names") => {
            for row in Policy::Agent.rows() {
                if matches!(row.verdict, Verdict::Allow | Verdict::Check(_)) {
                    bytes.extend(row.name.bytes().chain([b'\n']));
                }
            }
        }
        Some(_) => return Err("usage: agent-filter [--names]".into()),
    }
    Ok(std::io::stdout().write_all(&bytes)?)
}
