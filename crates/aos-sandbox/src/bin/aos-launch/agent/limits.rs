//! Resource limits: upper bounds, so a lower one that is inherited stays.

use aos_sandbox::plan::{Resource, Rlimit};
use rustix::process::{Resource as Kernel, Rlimit as KernelLimit, getrlimit, setrlimit};

use crate::error::{Context, LaunchError, Layer};

const fn kernel(resource: Resource) -> Kernel {
    match resource {
        Resource::Core => Kernel::Core,
        Resource::OpenFiles => Kernel::Nofile,
        Resource::Tasks => Kernel::Nproc,
        Resource::LockedMemory => Kernel::Memlock,
        Resource::Nice => Kernel::Nice,
        Resource::RealTimePriority => Kernel::Rtprio,
    }
}

/// The hard limit in force; `None` is unlimited.
pub(crate) fn hard(resource: Resource) -> Option<u64> {
    getrlimit(kernel(resource)).maximum
}

/// Lowers every limit to the plan's, soft and hard.
pub(crate) fn apply(limits: &[Rlimit]) -> Result<(), LaunchError> {
    for limit in limits {
        let value = hard(limit.resource).map_or(limit.value, |inherited| inherited.min(limit.value));
        let both = KernelLimit { current: Some(value), maximum: Some(value) };
        setrlimit(kernel(limit.resource), both)
            .layer(Layer::Limits, format!("cannot limit {:?}", limit.resource))?;
    }
    Ok(())
}
