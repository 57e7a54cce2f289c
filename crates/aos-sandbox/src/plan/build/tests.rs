//! Plans of steps: golden ones, every refusal, and that nothing of them is in an agent's plan.

use std::collections::{BTreeMap, BTreeSet};

use aos_core::config::RootKind;
use aos_core::path::AbsolutePath;

use super::{BuildError, BuildInput, HOSTNAME, LOWER_MAX, Network, build};
use crate::plan::{Node, Purpose, ReadError, SandboxPlan};

fn path(text: &str) -> AbsolutePath {
    text.parse().unwrap()
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What a test varies.
struct Request {
    root: RootKind,
    lower: Vec<AbsolutePath>,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    caches: Vec<(AbsolutePath, AbsolutePath)>,
    secrets: Vec<String>,
    network: Network,
}

impl Request {
    fn new(root: RootKind) -> Self {
        Self {
            root,
            lower: vec![path("/var/cache/aos/trees/b"), path("/var/cache/aos/trees/a")],
            command: texts(&["/bin/sh", "-ec", "make install"]),
            env: BTreeMap::from([("LANG".to_owned(), "de_DE.UTF-8".to_owned())]),
            caches: vec![(path("/root/.cache/pip"), path("/var/cache/aos/mounts/pip/files"))],
            secrets: texts(&["token"]),
            network: Network::Proxy,
        }
    }

    fn build(&self) -> Result<SandboxPlan, BuildError> {
        let lower_usr = match self.root {
            RootKind::Host => vec![path("/var/cache/aos/trees/b/usr")],
            RootKind::Own => Vec::new(),
        };
        build(&BuildInput {
            root: self.root,
            lower: &self.lower,
            lower_usr: &lower_usr,
            upper: &path("/var/cache/aos/tmp/step-1/upper"),
            work: &path("/var/cache/aos/tmp/step-1/work"),
            command: &self.command,
            env: &self.env,
            cwd: &path("/app"),
            caches: &self.caches,
            secrets: &self.secrets,
            network: self.network,
        })
    }
}

#[test]
fn golden_host() {
    let plan = Request::new(RootKind::Host).build().unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&plan).unwrap());
}

#[test]
fn golden_own_offline() {
    let mut request = Request::new(RootKind::Own);
    request.network = Network::Offline;
    request.caches.clear();
    request.secrets.clear();
    insta::assert_snapshot!(serde_json::to_string_pretty(&request.build().unwrap()).unwrap());
}

#[test]
fn plans_round_trip_and_each_place_is_used_once() {
    for root in [RootKind::Host, RootKind::Own] {
        let plan = Request::new(root).build().unwrap();
        assert_eq!(SandboxPlan::parse(&plan.to_json().unwrap()).unwrap(), plan);
        assert_eq!((plan.purpose, plan.agent.as_str()), (Purpose::Build, HOSTNAME));
        let places: BTreeSet<&str> = plan.tree.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(places.len(), plan.tree.len());
        for (index, entry) in plan.tree.iter().enumerate() {
            for later in &plan.tree[index + 1..] {
                assert!(!entry.path.is_within(&later.path), "{} before {}", entry.path, later.path);
            }
        }
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let refused = |change: &dyn Fn(&mut Request), says: &str| {
        let mut request = Request::new(RootKind::Host);
        change(&mut request);
        let error = request.build().unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    };
    refused(&|request| request.command.clear(), "the command is empty");
    refused(&|request| request.command = texts(&["bin/make"]), "a relative path");
    refused(&|request| request.command = texts(&[""]), "the command is empty");
    refused(&|request| request.command.push("a\0b".into()), "an argument holds a NUL");
    for name in ["A=B", "", "A\0"] {
        refused(&|request| drop(request.env.insert(name.into(), "x".into())), "a variable holds");
    }
    for name in ["", ".hidden", "../x", "a/b", "a b", "x\ny"] {
        refused(&|request| request.secrets.push(name.into()), "a name has 1 to 64");
    }
    refused(&|request| request.secrets.push("x".repeat(65)), "a name has 1 to 64");
    for place in [
        "/",
        "/proc",
        "/dev/shm",
        "/run/secrets",
        "/tmp/x",
        "/sys",
        "/workspace/a",
        "/usr/local",
        "/bin",
        "/etc",
        "/root",
        "/root/.cache/pip/x",
    ] {
        let add = |request: &mut Request| request.caches.push((path(place), path("/var/cache/aos/mounts/x")));
        refused(&add, "is made for each step; name a directory beside it");
    }
    for source in [
        "/var/cache/aos/trees/a/x",
        "/var/cache/aos/tmp/step-1/upper",
        "/var/cache/aos/tmp",
        "/var/cache/aos/mounts/pip/files",
    ] {
        refused(&|request| request.caches.push((path("/srv/x"), path(source))), "overlap");
    }
    refused(&|request| request.lower.push(path("/var/cache/aos/trees/a")), "overlap");
    let many =
        |request: &mut Request| request.lower.extend((0..LOWER_MAX).map(|one| path(&format!("/l/{one}"))));
    refused(&many, "258 layers, at most 256");
    // What the host brings is an own root's to use.
    let mut own = Request::new(RootKind::Own);
    own.caches.push((path("/usr/local/cache"), path("/var/cache/aos/mounts/x")));
    own.build().unwrap();
}

/// The two kinds of plan do not mix, in either direction.
#[test]
fn mixed_plans_are_refused() {
    let step = Request::new(RootKind::Own).build().unwrap();
    let text = String::from_utf8(step.to_json().unwrap()).unwrap();
    let refused = |text: &str| {
        assert!(
            matches!(
                SandboxPlan::parse(text.as_bytes()),
                Err(ReadError::Mixed { .. } | ReadError::Listeners)
            ),
            "{text}"
        );
    };
    for (from, to) in [
        ("\"purpose\":\"build\",", ""),
        ("\"purpose\":\"build\",", "\"purpose\":\"agent\","),
        ("\"build-v1\"", "\"agent-v1\""),
        ("\"build-v1\"", "\"init-v1\""),
        ("\"listen\":[]", "\"listen\":[{\"port\":1,\"cause\":\"x\"}]"),
        ("\"port\":3128", "\"port\":0"),
        ("\"name\":\"proxy\"", "\"name\":\"a\\nb\""),
        ("{\"path\":\"/sys\"", "{\"path\":\"/\""),
    ] {
        assert!(text.contains(from), "{from}");
        refused(&text.replacen(from, to, 1));
    }
    let mut twice = step.clone();
    twice.tree.push(step.tree[0].clone());
    assert!(matches!(twice.to_json(), Err(ReadError::Mixed { .. })));
    let mut late = step.clone();
    late.tree.rotate_left(1);
    assert!(matches!(late.to_json(), Err(ReadError::Mixed { .. })));
    // No node of a step is accepted in an agent's plan.
    for entry in step.tree.iter().filter(|entry| entry.node.is_of_build()) {
        let mut agent = step.clone();
        (agent.purpose, agent.seccomp) = (Purpose::Agent, crate::seccomp::Policy::Agent);
        agent.tree = vec![entry.clone()];
        assert!(matches!(agent.to_json(), Err(ReadError::Mixed { .. })), "{:?}", entry.node);
        agent.tree.clear();
        agent.to_json().unwrap();
    }
}

/// A secret's content has no way into a plan.
#[test]
fn a_plan_has_names_of_secrets_only() {
    let plan = Request::new(RootKind::Own).build().unwrap();
    let nodes: Vec<&Node> = plan.tree.iter().map(|entry| &entry.node).collect();
    assert!(nodes.contains(&&Node::Secrets { names: texts(&["token"]) }));
}
