//! The limit on the disk: it must be in force for the agent's own directories before anything is started.

use aos_sandbox::disk;
use aos_sandbox::plan::SandboxPlan;

use crate::error::{LaunchError, Layer, fail};

/// Refuses a launch whose directories lack the limit of the plan. As the agent's user: the project is its number.
pub(crate) fn check(plan: &SandboxPlan) -> Result<(), LaunchError> {
    match disk::check(plan) {
        Ok(()) => Ok(()),
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            fail(Layer::Limits, format!("{error}{cause}"))
        }
    }
}
