//! The plan's grants in words, each with its cause. What every agent has is left out: it is in the layers.

use aos_client::explanation::Grant;
use aos_sandbox::plan::{Access, BindAccess, CAUSE_BASE, Node, Part, Reach, SandboxPlan};

/// One row for each thing that a capability, the package or the entrypoint brings.
pub(super) fn grants(plan: &SandboxPlan) -> Vec<Grant> {
    let mounts = plan.tree.iter().filter_map(|entry| {
        let what = match &entry.node {
            Node::Bind(bind) => format!("{} = {} {}", entry.path, bind.source, bind_word(bind.access)),
            Node::Overlay { lower, .. } => {
                format!("{} = union of {} directories, read only", entry.path, lower.len())
            }
            _ => return None,
        };
        grant("mount", what, &entry.cause)
    });
    let paths = plan.landlock.iter().filter_map(|rule| {
        let suffix = match &rule.part {
            Part::All => String::new(),
            Part::Prefixed(prefix) => format!("/{prefix}*"),
        };
        grant("landlock", format!("{}{suffix} {}", rule.path, access_word(rule.access)), &rule.cause)
    });
    let programs = plan.programs.iter().filter_map(|rule| {
        let what = match rule.reach {
            Reach::File => rule.path.to_string(),
            Reach::Subtree => format!("{}/**", rule.path),
        };
        grant("execute", what, &rule.cause)
    });
    let ports =
        plan.listen.iter().filter_map(|rule| grant("listen", format!("TCP port {}", rule.port), &rule.cause));
    mounts.chain(paths).chain(programs).chain(ports).collect()
}

fn grant(layer: &str, what: String, cause: &str) -> Option<Grant> {
    (cause != CAUSE_BASE).then(|| Grant { layer: layer.to_owned(), what, cause: cause.to_owned() })
}

const fn bind_word(access: BindAccess) -> &'static str {
    match access {
        BindAccess::Read => "read only, nothing executed",
        BindAccess::ReadExecute => "read only",
        BindAccess::Write => "read and write, nothing executed",
    }
}

const fn access_word(access: Access) -> &'static str {
    match access {
        Access::List => "list",
        Access::Read => "read",
        Access::Write | Access::WriteOwn => "read and write",
        Access::Device => "device",
    }
}
