//! A plan for another isolation than this program's own: it becomes `aos-isolate`, which lies beside it,
//! before any layer is applied. Started again by that inside a container (`--inside`), this program applies
//! what a runtime does not.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use aos_core::config::Isolation;
use aos_sandbox::plan::SandboxPlan;
use aos_sys::process;

use crate::error::{Context, LaunchError, Layer, fail};
use crate::options::{Options, Surroundings};

/// The program, beside this one.
const PROGRAM: &str = "aos-isolate";

/// Whether somebody else applies the plan.
pub(crate) fn is_asked(plan: &SandboxPlan, options: &Options) -> bool {
    plan.isolation != Isolation::Native && options.surroundings() == Surroundings::Own
}

/// Becomes `aos-isolate`. The unit's limits are checked by now; they hold for all that it starts.
pub(crate) fn become_it(plan: &SandboxPlan, options: &Options) -> Result<Infallible, LaunchError> {
    let what = || format!("cannot start {PROGRAM} for `isolation: {}`", plan.isolation.as_str());
    let Some(words) = options.for_isolate() else {
        return fail(
            Layer::Plan,
            format!("{}: a plan, report, secrets or socket by a descriptor is for `native` only", what()),
        );
    };
    let own = std::fs::read_link("/proc/self/exe").layer(Layer::Exec, what())?;
    let program = own.with_file_name(PROGRAM);
    let text = |bytes: &[u8]| CString::new(bytes).layer(Layer::Exec, what());
    let program = text(program.as_os_str().as_bytes())?;
    let mut arguments = vec![program.clone()];
    for word in &words {
        arguments.push(text(word.as_bytes())?);
    }
    process::exec(&program, &arguments, &environment()?).layer(Layer::Exec, what())
}

/// The service manager's socket, and nothing else.
#[allow(
    clippy::disallowed_methods,
    reason = "the service manager's protocol passes the socket in this variable; it is passed on once"
)]
fn environment() -> Result<Vec<CString>, LaunchError> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(Vec::new()) };
    let variable = [b"NOTIFY_SOCKET=".as_slice(), socket.as_bytes()].concat();
    Ok(vec![CString::new(variable).layer(Layer::Notify, "NOTIFY_SOCKET")?])
}
