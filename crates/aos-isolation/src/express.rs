//! What of a plan a backend cannot enforce. Such a plan is refused by name before anything starts.

use aos_sandbox::plan::{Node, Purpose, SandboxPlan};
use thiserror::Error;

use crate::backend::Backend;

/// A part of a plan that a backend cannot enforce.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Inexpressible {
    /// Steps of builds run in the launcher.
    #[error("isolation {0}: a step of a build runs natively only")]
    Step(Backend),
    /// A place of a kind that the backend lacks.
    #[error("isolation {backend}: it cannot show {path} ({cause}): {why}")]
    Place {
        /// The backend.
        backend: Backend,
        /// The place inside.
        path: String,
        /// Why it is in the plan.
        cause: String,
        /// What is missing.
        why: &'static str,
    },
    /// Sockets that leave the sandbox.
    #[error("isolation {0}: it cannot pass the plan's listeners out")]
    Listeners(Backend),
}

/// Checks a plan for a backend. `native` takes every plan.
pub fn check(backend: Backend, plan: &SandboxPlan) -> Result<(), Inexpressible> {
    if backend == Backend::Native {
        return Ok(());
    }
    if plan.purpose == Purpose::Build {
        return Err(Inexpressible::Step(backend));
    }
    if !plan.listeners.is_empty() {
        return Err(Inexpressible::Listeners(backend));
    }
    for entry in &plan.tree {
        if let Some(why) = obstacle(&entry.node) {
            let (path, cause) = (entry.path.to_string(), entry.cause.clone());
            return Err(Inexpressible::Place { backend, path, cause, why });
        }
    }
    Ok(())
}

/// What keeps the other backends from showing a place.
fn obstacle(node: &Node) -> Option<&'static str> {
    match node {
        Node::Symlink { .. }
        | Node::Generated(_)
        | Node::Bind(_)
        | Node::Copy { .. }
        | Node::Tmpfs { .. }
        | Node::Overlay { .. }
        | Node::Proc
        | Node::Devices => None,
        _ => Some("only `isolation: native` has places of this kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::tests::plan;

    #[test]
    fn every_plan_of_an_agent_is_taken_and_a_step_is_not() {
        let mut plan = plan();
        for backend in Backend::ALL {
            check(backend, &plan).unwrap();
        }
        plan.listeners.push(aos_sandbox::plan::Listener { port: 1, name: "x".to_owned() });
        assert_eq!(check(Backend::Crun, &plan), Err(Inexpressible::Listeners(Backend::Crun)));
        assert_eq!(check(Backend::Native, &plan), Ok(()));
        plan.purpose = Purpose::Build;
        assert_eq!(check(Backend::Gvisor, &plan), Err(Inexpressible::Step(Backend::Gvisor)));
    }

    #[test]
    fn a_place_of_another_kind_is_named() {
        let mut plan = plan();
        plan.tree[0].node = Node::Empty;
        let error = check(Backend::Runc, &plan).unwrap_err().to_string();
        assert!(error.starts_with("isolation oci:runc: it cannot show /etc/passwd (base): "), "{error}");
    }
}
