//! Plans: golden ones, every refusal with what it says, and properties over many declarations.

use aos_core::config::ResolvedAgent;
use aos_core::path::AbsolutePath;
use proptest::prelude::*;

use super::{
    Access, BindAccess, Links, Node, PLAN_MAX_BYTES, PlanError, PlanInput, ReadError, SandboxPlan, derive,
};
use crate::rootfs::{EntryKind, RootfsEntry};

fn agent(root: &str, entrypoint: &[&str], capabilities: &[&str], limits: serde_json::Value) -> ResolvedAgent {
    let agent = serde_json::json!({
        "capabilities": capabilities, "limits": limits, "name": "web", "version": "1.2.0", "root": root,
        "run": {
            "entrypoint": entrypoint, "env": { "GREETING": "hello", "LANG": "de_DE.UTF-8" },
            "lifecycle": "persistent", "workdir": "/app",
        },
    });
    ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap()
}

fn entries(directories: &[&str]) -> Vec<RootfsEntry> {
    let entry = |path: &&str| RootfsEntry { path: path.parse().unwrap(), kind: EntryKind::Directory };
    directories.iter().map(entry).collect()
}

/// Where the package and the workspace lie on an installed system.
const INSTALLED: (&str, &str) = ("/var/lib/aos/rootfs/sha256-00", "/var/lib/aos-agents/web-1");

fn derived(agent: &ResolvedAgent, entries: &[RootfsEntry]) -> Result<SandboxPlan, PlanError> {
    derived_at(INSTALLED, agent, entries)
}

fn derived_at(
    (rootfs, workspace): (&str, &str),
    agent: &ResolvedAgent,
    entries: &[RootfsEntry],
) -> Result<SandboxPlan, PlanError> {
    derive(&PlanInput {
        agent,
        id: &"web-1".parse().unwrap(),
        arguments: &["--once".to_owned()],
        rootfs: &rootfs.parse().unwrap(),
        entries,
        workspace: &workspace.parse().unwrap(),
    })
}

/// A plan for the usual package with these capabilities.
fn with(capabilities: &[&str]) -> Result<SandboxPlan, PlanError> {
    let agent = agent("host", &["/usr/bin/python3", "/app/main.py"], capabilities, serde_json::json!({}));
    derived(&agent, &entries(&["app"]))
}

fn pretty(plan: &SandboxPlan) -> String {
    serde_json::to_string_pretty(plan).unwrap()
}

#[test]
fn golden_host() {
    let limits = serde_json::json!({ "memory": "256M", "cpu": "50%", "tasks": 64, "runtime": "10m", "open_files": 128, "disk": "2G" });
    let capabilities = [
        "file_read: /srv/data/**",
        "file_read: /srv/data/public/index.html",
        "file_write: /srv/data/out/**",
        "file_read: /usr/lib/git-core/**",
        "exec: /usr/bin/git",
        "exec: /opt/tool/bin/**",
        "listen: 8080",
    ];
    let agent = agent("host", &["/usr/bin/python3", "/app/main.py"], &capabilities, limits);
    insta::assert_snapshot!(pretty(&derived(&agent, &entries(&["app"])).unwrap()));
}

#[test]
fn golden_host_with_unions() {
    let agent = agent("host", &["/usr/bin/tool"], &["file_read: /etc/mime.types"], serde_json::json!({}));
    let mut entries = entries(&[
        "etc",
        "opt",
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/lib/tool",
        "usr/local",
        "usr/local/bin",
        "usr/local/share",
        "usr/share",
        "run",
        "tmp",
    ]);
    entries
        .push(RootfsEntry { path: "bin".parse().unwrap(), kind: EntryKind::Symlink("usr/bin".to_owned()) });
    entries.push(RootfsEntry { path: "link".parse().unwrap(), kind: EntryKind::Symlink("opt/x".to_owned()) });
    entries.push(RootfsEntry { path: "LICENSE".parse().unwrap(), kind: EntryKind::File });
    insta::assert_snapshot!(pretty(&derived(&agent, &entries).unwrap()));
}

#[test]
fn golden_own() {
    let agent = agent("own", &["/bin/server"], &["file_write: /srv/state/**"], serde_json::json!({}));
    let entries = entries(&[
        "bin",
        "etc",
        "lib",
        "lib64",
        "proc",
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/lib/x",
        "usr/libexec",
        "usr/local",
        "usr/local/lib",
        "var",
    ]);
    insta::assert_snapshot!(pretty(&derived(&agent, &entries).unwrap()));
}

#[test]
fn refusals_say_what_to_write() {
    for (capability, says) in [
        (
            "net: api.github.com:443",
            "capability `net: api.github.com:443` needs aos-broker, which this version does not have; remove it",
        ),
        ("file_read: /srv/*.txt", "write `/srv/**`"),
        ("file_read: /srv/*/x/**", "write `/srv/**`"),
        ("exec: /usr/bin/python3*", "write `/usr/bin/**`"),
        ("file_read: /", "names the whole file system"),
        ("file_read: /**", "names the whole file system"),
        ("file_read: /proc/sys/**", "/proc belongs to the system"),
        ("file_write: /sys/fs/cgroup/**", "/sys belongs"),
        ("file_write: /dev/sda", "/dev belongs"),
        ("file_read: /run/**", "/run belongs"),
        ("file_read: /var/run/docker.sock", "/var/run belongs"),
        ("file_read: /var/lib/aos/state.sqlite", "/var/lib/aos belongs"),
        ("file_read: /var/lib/aos-agents/other/**", "/var/lib/aos-agents belongs"),
        ("file_read: /var/lib/aos-changes/web-1/upper/**", "/var/lib/aos-changes belongs"),
        ("file_read: /etc/credstore.encrypted/**", "/etc/credstore.encrypted belongs"),
        ("file_read: /var/lock/x", "/var/lock belongs"),
        (
            "file_read: /var/**",
            "contains /var/run, /var/lock, /var/lib/aos, /var/lib/aos-accounts, /var/lib/aos-agents, /var/lib/aos-changes, never granted to an agent; name the folders that the agent needs, each by its own capability such as `file_read: /var/FOLDER/**`",
        ),
        ("file_read: /var", "contains /var/run"),
        (
            "file_write: /var/lib/**",
            "contains /var/lib/aos, /var/lib/aos-accounts, /var/lib/aos-agents, /var/lib/aos-changes, never",
        ),
        ("exec: /var/lib/**", "such as `exec: /var/lib/FOLDER/**`"),
        ("file_read: /tmp/x", "grant a directory elsewhere"),
        ("file_read: /etc/**", "name the other files of /etc"),
        ("file_read: /etc/passwd", "name the other files of /etc"),
        ("exec: /workspace/bin/**", "put the program in the package"),
        ("file_write: /usr/local/**", "/usr is read-only for every agent"),
        ("file_write: /bin/x", "/bin is read-only"),
        ("file_write: /app/cache/**", "/app is read-only"),
        ("file_write: /proc", "/proc belongs"),
    ] {
        let error = with(&[capability]).unwrap_err().to_string();
        assert!(error.contains(says), "{capability}: {error}");
        assert!(error.contains(capability), "{capability}: {error}");
    }
}

#[test]
fn reserved_names_are_whole_segments() {
    for fine in [
        "file_read: /devices/**",
        "file_read: /running/x",
        "file_read: /var/lib/aos-data/**",
        "file_read: /etc/passwords",
        "file_read: /tmpfiles/**",
        "file_write: /workspace/out/**",
        "exec: /usr/bin/**",
    ] {
        assert!(with(&[fine]).is_ok(), "{fine}");
    }
}

#[test]
fn nothing_writable_is_executable() {
    for [exec, write] in [
        ["exec: /srv/x/tool", "file_write: /srv/x/**"],
        ["exec: /srv/x/**", "file_write: /srv/x/data/**"],
        ["exec: /srv/x", "file_write: /srv/x"],
    ] {
        let error = with(&[exec, write]).unwrap_err();
        assert_eq!(error, PlanError::WritableProgram { exec: exec.to_owned(), write: write.to_owned() });
    }
    assert!(with(&["exec: /srv/x/**", "file_write: /srv/xy/**"]).is_ok());
}

/// Wherever they lie: the agent would have them a second time, with other rights.
#[test]
fn package_and_workspace_are_never_granted() {
    let at = |capability: &str| {
        let agent = agent("host", &["/app/run"], &[capability], serde_json::json!({}));
        derived_at(("/srv/pack/root", "/srv/work/web-1"), &agent, &entries(&["app"]))
    };
    for usage in ["file_read", "file_write", "exec"] {
        for (path, says) in [
            ("/srv/**", "contains /srv/pack/root, /srv/work/web-1, never granted"),
            ("/srv/work/**", "contains /srv/work/web-1, never granted"),
            ("/srv/pack/**", "contains /srv/pack/root, never granted"),
            ("/srv/work/web-1/**", "/srv/work/web-1 belongs to the system"),
            ("/srv/work/web-1/bin/tool", "/srv/work/web-1 belongs to the system"),
            ("/srv/pack/root/app/run", "/srv/pack/root belongs to the system"),
        ] {
            let error = at(&format!("{usage}: {path}")).unwrap_err().to_string();
            assert!(error.contains(says), "{usage}: {path}: {error}");
        }
        at(&format!("{usage}: /srv/work/web-10/**")).unwrap();
        at(&format!("{usage}: /srv/other/**")).unwrap();
    }
}

#[test]
fn one_mount_for_each_place_with_the_widest_use() {
    let access = |plan: &SandboxPlan, path: &str| {
        let entry = plan.tree.iter().filter(|entry| entry.path.as_str() == path).collect::<Vec<_>>();
        match entry.as_slice() {
            [] => None,
            [one] => match &one.node {
                Node::Bind(bind) => Some(bind.access),
                other => panic!("{other:?}"),
            },
            more => panic!("{} mounts at {path}", more.len()),
        }
    };
    let plan = with(&["file_read: /srv/a/**", "file_write: /srv/a/**", "file_read: /srv/a/b/**"]).unwrap();
    assert_eq!(access(&plan, "/srv/a"), Some(BindAccess::Write));
    assert_eq!(access(&plan, "/srv/a/b"), None);
    let plan = with(&["exec: /opt/a/**", "file_read: /opt/a/**", "file_read: /opt/a/b/**"]).unwrap();
    assert_eq!(access(&plan, "/opt/a"), Some(BindAccess::ReadExecute));
    assert_eq!(access(&plan, "/opt/a/b"), None);
    let plan = with(&["file_read: /opt/a/**", "exec: /opt/a/b", "file_write: /opt/a/c/**"]).unwrap();
    assert_eq!(access(&plan, "/opt/a"), Some(BindAccess::Read));
    assert_eq!(access(&plan, "/opt/a/b"), Some(BindAccess::ReadExecute));
    assert_eq!(access(&plan, "/opt/a/c"), Some(BindAccess::Write));
}

#[test]
fn entrypoints_are_where_programs_are() {
    let entry = |program: &str, capabilities: &[&str]| {
        let agent = agent("host", &[program], capabilities, serde_json::json!({}));
        derived(&agent, &entries(&["app"]))
    };
    for fine in ["/app/run", "/usr/bin/true", "/bin/true"] {
        assert_eq!(entry(fine, &[]).unwrap().programs[0].links, Links::Follow, "{fine}");
    }
    for bad in ["/workspace/run", "/tmp/run", "/opt/run", "/dev/shm/run", "/etc/run", "/proc/self/exe"] {
        assert_eq!(entry(bad, &[]).unwrap_err(), PlanError::EntrypointNotExecutable(bad.to_owned()));
    }
    assert_eq!(entry("/opt/run", &["exec: /opt/**"]).unwrap().programs[0].links, Links::Refuse);
}

#[test]
fn packages_beside_the_host_keep_its_layout() {
    let agent = agent("host", &["/app/run"], &[], serde_json::json!({}));
    let error = derived(&agent, &entries(&["app", "lib"])).unwrap_err();
    assert_eq!(error, PlanError::MergedUsr("/lib".to_owned()));
}

#[test]
fn arguments_hold_no_nul() {
    let agent = agent("host", &["/app/run"], &[], serde_json::json!({}));
    let input = PlanInput {
        agent: &agent,
        id: &"a".parse().unwrap(),
        arguments: &["a\0b".to_owned()],
        rootfs: &AbsolutePath::root(),
        entries: &entries(&["app"]),
        workspace: &AbsolutePath::root(),
    };
    assert_eq!(derive(&input).unwrap_err(), PlanError::Nul(1));
}

#[test]
fn plans_round_trip_and_bad_ones_are_refused() {
    let plan = with(&["file_read: /srv/**"]).unwrap();
    let json = plan.to_json().unwrap();
    assert_eq!(SandboxPlan::parse(&json).unwrap(), plan);
    let text = String::from_utf8(json).unwrap();
    assert!(matches!(SandboxPlan::parse(&vec![b' '; PLAN_MAX_BYTES + 1]), Err(ReadError::TooLarge(_))));
    for (from, to) in [
        ("\"version\":1", "\"version\":1,\"x\":1"),
        ("\"access\":\"read\"", "\"access\":\"all\""),
        ("\"links\":\"refuse\"", "\"links\":\"refuse\",\"x\":1"),
        ("\"seccomp\":\"agent-v1\"", "\"seccomp\":\"agent\""),
        ("\"/srv\"", "\"/srv/../etc\""),
        ("\"/srv\"", "\"srv\""),
        ("\"resource\":\"core\"", "\"resource\":\"cpu\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(SandboxPlan::parse(text.replace(from, to).as_bytes()).is_err(), "{to}");
    }
}

fn capabilities() -> impl Strategy<Value = Vec<String>> {
    let kind = prop_oneof![Just("file_read"), Just("file_write"), Just("exec")];
    let path = "(/(srv|opt|usr|app|etc|workspace|tmp|proc)){1}(/(a|b|run)){0,2}(/\\*\\*)?";
    let line = (kind, path).prop_map(|(kind, path)| format!("{kind}: {path}"));
    prop::collection::btree_set(line, 0..6).prop_map(|lines| lines.into_iter().collect())
}

/// Declarations around the places where a system and these packages keep things.
fn nested_capabilities() -> impl Strategy<Value = Vec<String>> {
    let kind = prop_oneof![Just("file_read"), Just("file_write"), Just("exec")];
    let path = "(/(srv|var)){1}(/(lib|a|b)){0,1}(/(aos|aos-agents|aos-accounts|a|b)){0,1}(/(web-1|rootfs|a)){0,1}(/\\*\\*)?";
    let line = (kind, path).prop_map(|(kind, path)| format!("{kind}: {path}"));
    prop::collection::btree_set(line, 1..5).prop_map(|lines| lines.into_iter().collect())
}

/// Every mount of the host's files: source, place inside, access.
fn host_mounts(plan: &SandboxPlan) -> Vec<(AbsolutePath, AbsolutePath, BindAccess)> {
    let mut mounts = Vec::new();
    for entry in &plan.tree {
        match &entry.node {
            Node::Bind(bind) => mounts.push((bind.source.clone(), entry.path.clone(), bind.access)),
            Node::Overlay { lower, .. } => {
                let lower = lower.iter().cloned();
                mounts.extend(lower.map(|source| (source, entry.path.clone(), BindAccess::ReadExecute)));
            }
            _ => {}
        }
    }
    mounts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// What can be written is at one place inside, with one access: no second mount shows it, or
    /// something of it, or something around it, at another place or executable.
    #[test]
    fn nothing_writable_is_mounted_twice(
        lines in nested_capabilities(),
        places in prop_oneof![Just(INSTALLED), Just(("/srv/a/rootfs", "/srv/b/a/web-1"))],
    ) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let agent = agent("host", &["/app/run"], &lines, serde_json::json!({}));
        let Ok(plan) = derived_at(places, &agent, &entries(&["app", "etc"])) else { return Ok(()) };
        let mounts = host_mounts(&plan);
        for (index, (source, path, access)) in mounts.iter().enumerate() {
            if *access != BindAccess::Write {
                continue;
            }
            for (other, (other_source, other_path, other_access)) in mounts.iter().enumerate() {
                let overlap = source.is_within(other_source) || other_source.is_within(source);
                if other == index || !overlap {
                    continue;
                }
                prop_assert!(*other_access != BindAccess::ReadExecute, "{source} can be executed at {other_path}");
                // Both at their own names: the inner mount covers what the outer one shows.
                prop_assert!(source == path && other_source == other_path, "{source} is at {path} and {other_path}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_declared_the_plan_holds(lines in capabilities()) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let Ok(plan) = with(&lines) else { return Ok(()) };
        let caused = |cause: &str| lines.contains(&cause) || ["base", "package", "entrypoint"].contains(&cause);
        prop_assert!(plan.tree.iter().all(|entry| caused(&entry.cause)));
        prop_assert!(plan.landlock.iter().all(|rule| caused(&rule.cause)));
        prop_assert!(plan.programs.iter().all(|rule| caused(&rule.cause)));
        // Parents come before what is in them, and each place is used once.
        for (index, entry) in plan.tree.iter().enumerate() {
            for later in &plan.tree[index + 1..] {
                prop_assert!(!entry.path.is_within(&later.path), "{} before {}", entry.path, later.path);
            }
        }
        for entry in &plan.tree {
            let Node::Bind(bind) = &entry.node else { continue };
            // Only grants for writing and the workspace can be changed.
            let may_write = entry.cause.starts_with("file_write: ") || entry.path.as_str() == "/workspace";
            prop_assert!(bind.access != BindAccess::Write || may_write);
            // No program lies in a writable mount.
            let executable = |path: &AbsolutePath| path.is_within(&entry.path);
            if bind.access == BindAccess::Write {
                prop_assert!(!plan.programs.iter().any(|rule| executable(&rule.path)));
            }
        }
        for rule in &plan.landlock {
            let may_write = rule.cause.starts_with("file_write: ") || rule.cause == "base";
            prop_assert!(rule.access != Access::Write || may_write);
            prop_assert!(rule.access != Access::WriteOwn || rule.cause == "base");
        }
        prop_assert_eq!(SandboxPlan::parse(&plan.to_json().unwrap()).unwrap(), plan);
    }
}

#[test]
fn a_narrower_plan_has_rules_of_its_own_capabilities_only() {
    let plan =
        with(&["file_read: /srv/data/**", "file_write: /srv/out/**", "exec: /opt/tool/**", "listen: 80"])
            .unwrap();
    let narrowed = |lines: &[&str]| {
        let set = aos_core::capability::CapabilitySet::parse(lines.iter().copied()).unwrap();
        plan.narrowed(&set)
    };
    let causes = |plan: &SandboxPlan| -> Vec<String> {
        let paths = plan.landlock.iter().map(|rule| (&rule.cause, rule.is_common()));
        let programs = plan.programs.iter().map(|rule| (&rule.cause, rule.cause == "entrypoint"));
        let ports = plan.listen.iter().map(|rule| (&rule.cause, false));
        paths
            .chain(programs)
            .chain(ports)
            .filter(|(_, common)| !common)
            .map(|(cause, _)| cause.clone())
            .collect()
    };
    let none = narrowed(&[]).unwrap();
    assert_eq!(causes(&none), Vec::<String>::new());
    assert_eq!(none.seccomp, crate::seccomp::Policy::Narrowed);
    // The tree stays: what is in it is for the rules to refuse.
    assert_eq!(none.tree, plan.tree);
    assert_eq!(none.landlock.len(), plan.landlock.len() - 2);
    // Reading a part of what may be written, with the links rule of the grant that covers it.
    let read = narrowed(&["file_read: /srv/out/a/**", "exec: /opt/tool/x", "listen: 80"]).unwrap();
    assert_eq!(causes(&read), ["file_read: /srv/out/a/**", "exec: /opt/tool/x", "listen: 80"]);
    let rule = read.landlock.last().unwrap();
    assert_eq!((rule.path.as_str(), rule.access, rule.links), ("/srv/out/a", Access::Read, Links::Refuse));
    // The workspace is the agent's in any case.
    assert_eq!(causes(&narrowed(&["listen: 80"]).unwrap()), ["listen: 80"]);
    for wider in [
        "file_write: /srv/data/**",
        "file_read: /srv/**",
        "exec: /opt/**",
        "listen: 81",
        "file_read: /etc/shadow",
    ] {
        assert!(matches!(narrowed(&[wider]), Err(super::NarrowError::Wider(_))), "{wider}");
    }
    let places: Vec<String> = plan.granted_places().iter().map(ToString::to_string).collect();
    assert_eq!(places, ["/opt/tool", "/srv/data", "/srv/out"]);
}
