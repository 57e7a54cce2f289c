//! What is refused before anything runs.

use std::process::Stdio;

use aos_isolation::backend::Backend;
use aos_isolation::facade::{Io, StartError, start};
use aos_sandbox::plan::{Listener, Node};

use crate::bed::{Bed, programs};

fn refusal(bed: &Bed, plan: &aos_sandbox::plan::SandboxPlan) -> StartError {
    let io = Io { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null(), report: None };
    start(bed.backend, plan, io, None, &programs()).unwrap_err()
}

/// `native` takes every plan that is one; the others name what they cannot enforce.
pub(crate) fn a_step_is_refused(bed: &Bed) {
    let mut plan = bed.plan("print('ran')", &[]);
    plan.listeners.push(Listener { port: 9, name: "proxy".to_owned() });
    if bed.backend == Backend::Native {
        // Without a socket to pass them to, the launcher refuses.
        let ended = bed.run(&plan);
        assert!(ended.status == 225 && ended.out.is_empty(), "{ended:?}");
        return;
    }
    assert!(matches!(refusal(bed, &plan), StartError::Inexpressible(_)));
    plan.listeners.clear();
    plan.tree[0].node = Node::Empty;
    let error = refusal(bed, &plan).to_string();
    assert!(error.contains(bed.backend.name()) && error.contains("/etc/passwd"), "{error}");
}

pub(crate) fn a_missing_source_names_the_capability(bed: &Bed) {
    let ended = bed.run(&bed.plan("print('ran')", &["file_read: ROOT/absent/**"]));
    let capability = format!("capability `file_read: {}/**`", bed.path("absent"));
    assert!(ended.status == 226 && ended.err.contains(&capability), "{ended:?}");
    assert!(ended.out.is_empty() && ended.report.is_none(), "{ended:?}");
}
