//! Golden configurations, and the plan that this crate's tests share.

use std::path::Path;

use aos_core::config::ResolvedAgent;
use aos_sandbox::plan::{Identity, Node, PlanInput, SandboxPlan, derive};

use super::*;
use crate::layout::Fact;

/// A plan with every kind of place of an agent, and a grant in a grant.
pub(crate) fn plan() -> SandboxPlan {
    let agent = serde_json::json!({
        "capabilities": ["file_read: /srv/data/**", "file_write: /srv/data/out/**", "exec: /opt/tool", "listen: 8080"],
        "limits": { "tasks": 16 }, "name": "test", "version": "1.0.0", "root": "host",
        "run": { "entrypoint": ["/usr/bin/python3", "-c", "pass"], "lifecycle": "oneshot", "workdir": "/workspace" },
    });
    let agent = ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap();
    derive(&PlanInput {
        agent: &agent,
        id: &"test".parse().unwrap(),
        arguments: &[],
        rootfs: &"/var/lib/aos/rootfs/x".parse().unwrap(),
        entries: &[],
        workspace: &"/var/lib/aos-agents/test".parse().unwrap(),
    })
    .unwrap()
}

/// Every source is there: of the binds, what is granted alone is a file.
pub(crate) fn facts(plan: &SandboxPlan) -> Vec<Fact> {
    let fact = |node: &Node| match node {
        Node::Bind(bind) if bind.shape == aos_sandbox::plan::Shape::File => Fact::File,
        Node::Bind(_) | Node::Overlay { .. } => Fact::Directory,
        Node::Copy { .. } => Fact::Content(b"copied".to_vec()),
        _ => Fact::Inside,
    };
    plan.tree.iter().map(|entry| fact(&entry.node)).collect()
}

pub(crate) fn identity() -> Identity {
    Identity { agent: "test".parse().unwrap(), uid: 1000, gid: 1001 }
}

fn golden(runtime: Runtime) -> String {
    let plan = plan();
    let layout = Layout::new(&plan, &facts(&plan), &identity()).unwrap();
    let directories = Directories {
        root: Path::new("/run/root"),
        sources: Path::new("/run/sources"),
        programs: Path::new("/run/programs"),
    };
    let config = config(&plan, &layout, &identity(), &directories, runtime);
    serde_json::to_string_pretty(&config).unwrap()
}

#[test]
fn a_container() {
    insta::assert_snapshot!(golden(Runtime::Container));
}

#[test]
fn a_sandbox_of_gvisor() {
    insta::assert_snapshot!(golden(Runtime::Sandbox));
}

#[test]
fn the_profile_allows_nothing_that_the_policy_refuses_but_for_the_stage() {
    use aos_sandbox::seccomp::{Policy, Verdict};
    let profile = serde_json::to_value(profile(Policy::Agent)).unwrap();
    let list = |index: usize| -> Vec<String> {
        serde_json::from_value(profile["syscalls"][index]["names"].clone()).unwrap()
    };
    let (allowed, denied) = (list(0), list(1));
    for row in Policy::Agent.rows() {
        let is_stage = super::seccomp::STAGE.contains(&row.name);
        let may_run = !matches!(row.verdict, Verdict::Deny | Verdict::Absent) || is_stage;
        assert_eq!(allowed.iter().any(|name| name == row.name), may_run, "{}", row.name);
        assert_eq!(
            denied.iter().any(|name| name == row.name),
            row.verdict == Verdict::Deny && !is_stage,
            "{}",
            row.name
        );
    }
    assert_eq!(allowed.iter().filter(|name| *name == "unshare").count(), 1);
}
