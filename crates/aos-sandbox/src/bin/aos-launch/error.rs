//! How a launch fails: the library's layers under this program's name, and what helps where the kernel lacks
//! what is needed.

pub(crate) use aos_sandbox::launch::error::{Context, LaunchError, Layer, fail};

/// The kernel has no Landlock, or one below the floor: what to change.
pub(crate) const NO_LANDLOCK: &str = "the kernel offers less than Landlock ABI 6; boot Linux 6.12 or newer, with `landlock` in `lsm=` (/sys/kernel/security/lsm shows what is in force)";
/// The kernel lets this user make no namespaces: what to change.
pub(crate) const NO_NAMESPACES: &str = "cannot make the namespaces; allow unprivileged user namespaces: sysctl user.max_user_namespaces above 0 and, where they exist, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0";
/// The kernel takes no filter of system calls: what to change.
pub(crate) const NO_FILTER: &str = "cannot filter system calls; the kernel needs CONFIG_SECCOMP_FILTER";

/// Writes a line to standard error under this program's name.
pub(crate) fn print_line(text: &str) {
    aos_sandbox::launch::error::print_line("aos-launch", text);
}
