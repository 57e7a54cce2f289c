//! The plan's policy as a profile of the OCI runtime specification.
//!
//! It is the policy's list by name, and what the stage inside needs to start; argument checks and the
//! stage's own calls are then decided by the stage's exact filter. Of two filters the kernel takes the
//! stricter word, so nothing that the policy refuses is allowed by this profile.

use aos_sandbox::seccomp::{Policy, Verdict};
use serde::Serialize;

/// What `aos-launch --inside` calls before its own filter, and the policy refuses or restricts: a user
/// namespace of its own, leaving the session keyring, resetting the execution domain, opening paths without following
/// links.
pub(super) const STAGE: [&str; 4] = ["keyctl", "openat2", "personality", "unshare"];
/// `ENOSYS` of errno.h: what the policy answers for what it does not know.
const ENOSYS: u32 = 38;

/// `linux.seccomp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    default_action: &'static str,
    default_errno_ret: u32,
    architectures: [&'static str; 1],
    syscalls: [Calls; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    names: Vec<&'static str>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
}

/// The profile of a policy.
pub fn profile(policy: Policy) -> Seccomp {
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for row in policy.rows() {
        match row.verdict {
            _ if STAGE.contains(&row.name) => {}
            Verdict::Allow | Verdict::Check(_) | Verdict::Pretend => allowed.push(row.name),
            Verdict::Deny => denied.push(row.name),
            Verdict::Absent => {}
        }
    }
    allowed.extend(STAGE);
    Seccomp {
        default_action: "SCMP_ACT_ERRNO",
        default_errno_ret: ENOSYS,
        architectures: ["SCMP_ARCH_X86_64"],
        syscalls: [
            Calls { names: allowed, action: "SCMP_ACT_ALLOW", errno_ret: None },
            // EPERM of errno.h.
            Calls { names: denied, action: "SCMP_ACT_ERRNO", errno_ret: Some(1) },
        ],
    }
}
