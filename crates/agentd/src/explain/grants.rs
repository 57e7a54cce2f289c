//! The plan's grants, each with its cause. What every agent has is left out: it is in the layers.

use aos_client::explanation::Grant;
use aos_sandbox::plan::{CAUSE_BASE, Node, Outline, Row, SandboxPlan};

/// One row for each thing that a capability, the package or the entrypoint brings.
pub(super) fn grants(plan: &SandboxPlan) -> Vec<Grant> {
    let Outline { mounts, paths, programs, ports, .. } = Outline::of(plan);
    let is_of_host = |row: &Row| {
        let is_host = |node: &Node| !matches!(node, Node::Symlink { .. } | Node::Copy { .. });
        plan.tree.iter().any(|entry| entry.path.as_str() == row.what && is_host(&entry.node))
    };
    let mounts = mounts.into_iter().filter(is_of_host).map(|row| ("mount", row));
    let paths = paths.into_iter().map(|row| ("landlock", row));
    let programs = programs.into_iter().map(|row| ("execute", row));
    let ports =
        ports.into_iter().map(|row| ("listen", Row { what: format!("TCP port {}", row.what), ..row }));
    let rows = mounts.chain(paths).chain(programs).chain(ports);
    rows.filter(|(_, row)| row.cause != CAUSE_BASE).map(|(layer, row)| grant(layer, row)).collect()
}

fn grant(layer: &str, row: Row) -> Grant {
    let what = match layer {
        "mount" => format!("{} = {}", row.what, row.how),
        "landlock" => format!("{} {}", row.what, row.how),
        _ => row.what,
    };
    Grant { layer: layer.to_owned(), what, cause: row.cause }
}
