//! Files that extend others, dependencies, and locks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

use aos_core::agentfile::{
    Agentfile, AgentfileError, Arguments, Draft, EXTENDS_DEPTH_MAX, Extends, Format, Inherited, Lineage,
    Settings,
};
use aos_core::config::{Isolation, Lifecycle, ResolvedAgent, RootKind, Workspace};
use aos_core::dependency::DependencyKind;
use aos_core::lock::{LockedPackage, Lockfile, Source};

fn draft(name: &str, rest: &str) -> Draft {
    try_draft(name, rest).unwrap()
}

fn try_draft(name: &str, rest: &str) -> Result<Draft, AgentfileError> {
    let text =
        format!("apiVersion: aos/v1\nkind: Agent\nmetadata: {{ name: {name}, version: 1.0.0 }}\n{rest}\n");
    Draft::parse(&text, Format::Yaml, name)
}

/// A file of another name than its package.
fn draft_in(origin: &str, rest: &str) -> Draft {
    let text = format!("apiVersion: aos/v1\nkind: Agent\nmetadata: {{ name: a, version: 1.0.0 }}\n{rest}\n");
    Draft::parse(&text, Format::Yaml, origin).unwrap()
}

fn join(files: Vec<Draft>) -> Result<Agentfile, String> {
    let mut files = files.into_iter();
    let child = files.next().unwrap();
    let mut lineage = Lineage::new(child.origin().to_owned(), child);
    for file in files {
        assert!(lineage.wanted().is_some());
        lineage.push_file(file.origin().to_owned(), file).map_err(|error| error.to_string())?;
    }
    lineage.finish(&Arguments::new()).map_err(|error| error.to_string())
}

const PARENT: &str = r#"
build:
  args: { SUITE: trixie, LEVEL: low }
  stages:
    - { name: base, from: "debian:${SUITE}", steps: [ { env: { LEVEL: "${LEVEL}", X: parent } }, { copy: { from: shared, to: /shared } } ] }
run: { entrypoint: [ /bin/parent, x ], env: { A: parent, B: parent }, workdir: /p, lifecycle: persistent }
dependencies: [ { skill: pdf, version: ^1 }, { agent: helper } ]
capabilities: [ "file_read: /srv/a/**", "exec: /usr/bin/git" ]
limits: { memory: 1G, cpu: 50% }
"#;

const CHILD: &str = r#"
extends: ../parent
build:
  args: { LEVEL: high }
  stages: [ { name: app, from: stage:base, steps: [ { env: { X: "${SUITE}" } }, { copy: { from: own, to: /own } } ] } ]
run: { entrypoint: [ /bin/child ], env: { B: child } }
dependencies: [ { skill: pdf, version: ^2 } ]
capabilities: [ "listen: 80", "exec: /usr/bin/git", "file_read: /srv/*" ]
limits: { memory: 2G, tasks: 4 }
"#;

#[test]
fn a_child_over_its_parent() {
    let file = join(vec![draft("child", CHILD), draft("parent", PARENT)]).unwrap();
    assert_eq!(file.metadata.name.as_str(), "child");
    let build = file.build.as_ref().unwrap();
    let names: Vec<&str> = build.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["base", "app"]);
    assert_eq!(build.stages[0].from.to_string(), "debian:trixie");
    assert_eq!(build.args.len(), 2);
    let run = file.run.as_ref().unwrap();
    assert_eq!(run.entrypoint.argv().collect::<Vec<_>>(), ["/bin/child"]);
    assert_eq!((run.lifecycle, run.workdir.as_ref().unwrap().as_str()), (Lifecycle::Persistent, "/p"));
    assert_eq!(
        file.capabilities.to_lines(),
        ["file_read: /srv/*", "file_read: /srv/a/**", "exec: /usr/bin/git", "listen: 80"]
    );
    assert_eq!((file.limits.memory.unwrap().bytes(), file.limits.cpu.unwrap().percent()), (2 << 30, 50));
    let needed: Vec<String> =
        file.dependencies.iter().map(|d| format!("{} {} {}", d.kind, d.name, d.requirement)).collect();
    assert_eq!(needed, ["agent helper *", "skill pdf ^2"]);

    // Each field stands in the file that has it.
    for (field, place) in [
        ("build.stages[0].steps[1].copy.from", "parent:8:115: build.stages[0].steps[1].copy.from: x"),
        ("build.stages[1].steps[1].copy.from", "child:8:91: build.stages[0].steps[1].copy.from: x"),
        ("run.entrypoint[0]", "child:9:22: run.entrypoint[0]: x"),
        ("run.lifecycle", "parent:9:79: run.lifecycle: x"),
        ("dependencies[0]", "parent:10:42: dependencies[1]: x"),
        ("dependencies[1]", "child:10:17: dependencies[0]: x"),
        ("capabilities[1]", "parent:11:41: capabilities[1]: x"),
        ("capabilities[3]", "child:11:55: capabilities[2]: x"),
        ("limits.cpu", "parent:12:23: limits.cpu: x"),
    ] {
        let error = file.error_at(field, "x").to_string();
        let (line, says) = (place.split(':').nth(1).unwrap(), place.split_once(": ").unwrap().1);
        assert!(
            error.starts_with(&format!("{}:{line}:", place.split(':').next().unwrap())),
            "{field}: {error}"
        );
        assert!(error.ends_with(says), "{field}: {error}");
    }
    let refused: Vec<String> = file.not_enforceable().iter().map(ToString::to_string).collect();
    assert!(refused[0].starts_with("child:") && refused[0].contains("capabilities[2]"), "{refused:?}");
}

#[test]
fn without_a_build_the_parents_is_used() {
    let child = "extends: ./p\nmetadata2: x";
    assert!(try_draft("child", child).is_err());
    let file = join(vec![draft("child", "extends: ./p"), draft("parent", PARENT)]).unwrap();
    assert_eq!(file.build.as_ref().unwrap().stages.len(), 1);
    assert_eq!(file.run.as_ref().unwrap().entrypoint.program.as_str(), "/bin/parent");
    let only_args = "extends: ./p\nbuild: { args: { LEVEL: top } }";
    let file = join(vec![draft("child", only_args), draft("parent", PARENT)]).unwrap();
    let settings = {
        let mut settings = Settings::default();
        file.build.as_ref().unwrap().stages[0].steps.iter().for_each(|step| settings.apply(step));
        settings
    };
    assert_eq!(settings.env.values().next().unwrap().as_str(), "top");
    let error =
        join(vec![draft("child", only_args), draft("parent", "run: { entrypoint: [ /x ] }")]).unwrap_err();
    assert!(error.starts_with("child:5:") && error.contains("build.stages: missing"), "{error}");
}

#[test]
fn what_does_not_fit_together() {
    let run = "run: { entrypoint: [ /x ] }";
    let parent = || draft("parent", PARENT);
    for (child, says) in [
        (
            "extends: ./p\nbuild: { stages: [ { name: base, from: host } ] }",
            "child:5:22: build.stages[0].name: two stages have the name `base`",
        ),
        (
            "extends: ./p\nbuild: { stages: [ { name: a, from: stage:bas } ] }",
            "child:5:31: build.stages[0].from: there is no stage `bas`, stages are base, a",
        ),
        (
            "extends: ./p\nbuild: { stages: [ { name: a, from: host, steps: [ { run: \"${NO}\" } ] } ] }",
            "declared in build.args: LEVEL, SUITE",
        ),
    ] {
        let error = join(vec![draft("child", child), parent()]).unwrap_err();
        assert!(error.contains(says), "{child}\n{error}");
    }
    let alone = Agentfile::parse(
        &format!(
            "apiVersion: aos/v1\nkind: Agent\nextends: base:1.0.0\nmetadata: {{ name: a, version: 1.0.0 }}\n{run}\n"
        ),
        Format::Yaml,
        "f",
    );
    assert_eq!(alone.unwrap_err().to_string(), "f:3:1: extends: `base:1.0.0` is not loaded");
    for (bad, says) in [
        ("base", "`base` has no tag and no digest (a path starts with ./, ../ or /)"),
        ("Base.yaml", "starts with ./, ../ or /"),
        ("''", "reference is empty"),
        ("\"./a\\nb\"", "path `./a\\nb` is not valid"),
        ("[]", "expected a path or a package, found a list"),
    ] {
        let error = try_draft("child", &format!("extends: {bad}")).unwrap_err().to_string();
        assert!(error.starts_with("child:4:10: extends: ") && error.contains(says), "{bad}\n{error}");
    }
    let skill = "apiVersion: aos/v1\nkind: Skill\nmetadata: { name: s, version: 1.0.0 }\n";
    let skill = Draft::parse(skill, Format::Yaml, "skill").unwrap();
    let error = join(vec![draft("child", "extends: ./s"), skill]).unwrap_err();
    assert_eq!(error, "child:4:1: extends: that is of kind Skill, expected Agent");
}

#[test]
fn circles_and_depth() {
    let mut lineage = Lineage::new("/a".to_owned(), draft_in("a/Agentfile", "extends: ../b"));
    lineage.push_file("/b".to_owned(), draft_in("b/Agentfile", "extends: ../c")).unwrap();
    lineage.push_file("/c".to_owned(), draft_in("c/Agentfile", "extends: ../b")).unwrap();
    let (wanted, by) = lineage.wanted().unwrap();
    assert_eq!((wanted, by.origin()), (&Extends::Path("../b".into()), "c/Agentfile"));
    let error = lineage.push_file("/b".to_owned(), draft_in("b/Agentfile", "extends: ../c")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "c/Agentfile:4:1: extends: the files extend each other in a circle: `b/Agentfile` extends `c/Agentfile` extends `b/Agentfile`"
    );
    let mut lineage = Lineage::new("0".to_owned(), draft("a", "extends: ./x"));
    for number in 1..=EXTENDS_DEPTH_MAX {
        lineage.push_file(number.to_string(), draft("a", "extends: ./x")).unwrap();
    }
    let error = lineage.push_file("9".to_owned(), draft("a", "")).unwrap_err().to_string();
    assert!(error.contains("a file has at most 8 parents"), "{error}");
}

/// A right that both have is there with the child's qualifiers, at the child's place; what holds a parent
/// in holds its child in, unless the child says otherwise.
#[test]
fn qualifiers_isolation_and_workspace_of_the_child() {
    let parent = "run: { entrypoint: [ /x ], isolation: vm, workspace: transactional }\ncapabilities: [ 'listen: 1', 'listen: 2 [max_calls=9]', 'listen: 3' ]\nlimits: { disk: 1G, io_weight: 10 }";
    let child = "extends: ../parent\nrun: { isolation: gvisor }\ncapabilities: [ { listen: 2, max_calls: 3 }, 'listen: 4' ]\nlimits: { disk: 2G }";
    let file = join(vec![draft("child", child), draft("parent", parent)]).unwrap();
    assert_eq!(
        file.capabilities.to_lines(),
        ["listen: 1", "listen: 2 [max_calls=3]", "listen: 3", "listen: 4"]
    );
    for (field, place) in [
        ("capabilities[1]", "child:6:17: capabilities[0]: x"),
        ("capabilities[2]", "parent:5:57: capabilities[2]: x"),
        ("capabilities[3]", "child:6:46: capabilities[1]: x"),
    ] {
        assert_eq!(file.error_at(field, "x").to_string(), place);
    }
    let refused: Vec<String> = file.not_enforceable().iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "child:6:17: capabilities[0]: capability `listen: 2 [max_calls=3]`: the kernel cannot count uses, so that `max_calls` needs aos-broker, which this version does not have; remove it"
        ]
    );
    let run = file.run.as_ref().unwrap();
    assert_eq!((run.isolation, run.workspace), (Isolation::Gvisor, Workspace::Transactional));
    assert_eq!((file.limits.disk.unwrap().bytes(), file.limits.io_weight.unwrap().get()), (2 << 30, 10));
}

/// A package as its config has it.
fn package(json: &str) -> ResolvedAgent {
    ResolvedAgent::from_canonical_json(json.as_bytes()).unwrap()
}

const PACKAGE: &str = r#"{"capabilities":["listen: 90"],"description":"of the package","expose":["90/tcp"],"labels":{"l":"package"},"limits":{"tasks":9},"name":"base","root":"own","run":{"entrypoint":["/bin/base"],"env":{"A":"package","B":"package","C":"package"},"lifecycle":"persistent","workdir":"/base"},"version":"1.0.0"}"#;

#[test]
fn a_package_as_parent() {
    let child = "extends: base:1.0.0\nbuild: { stages: [ { name: app, from: stage:parent, steps: [ { env: { B: step } } ] } ] }\nrun: { env: { C: child } }\ncapabilities: [ 'listen: 80' ]";
    let mut lineage = Lineage::new("/a".to_owned(), draft("child", child));
    let Some((Extends::Package(reference), _)) = lineage.wanted() else { panic!("a package") };
    let reference = reference.clone();
    lineage.push_package(reference, package(PACKAGE)).unwrap();
    assert!(lineage.wanted().is_none());
    let file = lineage.finish(&Arguments::new()).unwrap();
    assert_eq!(file.build.as_ref().unwrap().foundation().unwrap().to_string(), "aap:base:1.0.0");
    let agent = file.resolve_with(&Inherited { root: Some(RootKind::Own), ..Inherited::default() }).unwrap();
    let run = agent.run().unwrap();
    let env: Vec<String> = run.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=package", "B=step", "C=child"]);
    assert_eq!((run.lifecycle, run.workdir.as_str()), (Lifecycle::Persistent, "/base"));
    assert_eq!(agent.capabilities.to_lines(), ["listen: 80", "listen: 90"]);
    assert_eq!(agent.description.as_ref().unwrap().as_str(), "of the package");
    assert_eq!((agent.expose.len(), agent.labels.len(), agent.limits.tasks.unwrap().get()), (1, 1, 9));
    // What only the package has is blamed on what names it.
    assert!(file.error_at("capabilities[0]", "x").to_string().starts_with("child:4:1: extends: x"));
}

const NEEDS: &str = r#"
run: { entrypoint: [ /x ] }
dependencies:
  - { skill: pdf, version: "^2.1", from: registry.example/team/pdf }
  - { mcp: github }
  - { service: postgres, version: ">=14, <18" }
  - { volume: data, size: 10G }
  - { agent: pdf, version: ~1.2, from: oci:../registry }
"#;

fn locked(kind: DependencyKind, name: &str, version: &str, needs: &[&str]) -> LockedPackage {
    LockedPackage {
        kind,
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
        source: Source::Local,
        dependencies: needs.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

#[test]
fn dependencies_are_locked() {
    let file = join(vec![draft("a", NEEDS)]).unwrap();
    let lock = |version: &str| {
        Lockfile::new([
            locked(DependencyKind::Skill, "pdf", version, &[]),
            locked(DependencyKind::Mcp, "github", "1.0.0", &["skill pdf 2.3.0"]),
            locked(DependencyKind::Agent, "pdf", "1.2.9", &[]),
        ])
    };
    let with = |lock: Lockfile| file.resolve_with(&Inherited { lock, ..Inherited::default() });
    let agent = with(lock("2.3.0").unwrap()).unwrap();
    let found: Vec<String> = agent
        .dependencies
        .iter()
        .map(|d| format!("{} {} {} {:?}", d.kind, d.name, d.req, d.version.as_ref().map(ToString::to_string)))
        .collect();
    assert_eq!(
        found,
        [
            "agent pdf ~1.2 Some(\"1.2.9\")",
            "skill pdf ^2.1 Some(\"2.3.0\")",
            "mcp github * Some(\"1.0.0\")",
            "service postgres >=14, <18 None",
            "volume data * None",
        ]
    );
    let json = agent.to_canonical_json().unwrap();
    assert_eq!(ResolvedAgent::from_canonical_json(&json).unwrap(), agent);
    assert!(
        String::from_utf8(json)
            .unwrap()
            .contains(r#"{"kind":"volume","name":"data","req":"*","size":"10G"}"#)
    );

    let error = file.resolve().unwrap_err().to_string();
    assert_eq!(error, "a:11:5: dependencies[4]: `agent pdf` is not locked: run `aos lock`");
    assert!(
        lock("2.0.0")
            .unwrap_err()
            .to_string()
            .contains("`mcp github` needs `skill pdf 2.3.0`, which is not in it")
    );
    let old = Lockfile::new([
        locked(DependencyKind::Skill, "pdf", "2.0.0", &[]),
        locked(DependencyKind::Mcp, "github", "1.0.0", &[]),
        locked(DependencyKind::Agent, "pdf", "1.2.9", &[]),
    ]);
    let error = with(old.unwrap()).unwrap_err().to_string();
    assert!(error.contains("`skill pdf` is locked at 2.0.0, which is not in ^2.1"), "{error}");
    let obstacles: Vec<String> = file.not_enforceable().iter().map(ToString::to_string).collect();
    assert_eq!(
        obstacles,
        ["a:10:5: dependencies[3]: volume `data`: this version of AOS cannot enforce its size; remove it"]
    );
}

#[test]
fn wrong_dependencies_are_named() {
    for (dependency, says) in [
        (
            "{}",
            "dependencies[0]: expected a mapping with one of agent, skill, mcp, service, volume, found 0 of them",
        ),
        ("{ agent: a, skill: b }", "found 2 of them"),
        ("{ agents: a }", "dependencies[0].agents: unknown field `agents`"),
        ("{ agent: ../a }", "dependencies[0].agent: package name"),
        ("{ agent: a, version: newest }", "dependencies[0].version: version range `newest` is not valid"),
        ("{ agent: a, version: '' }", "version range `` is not valid"),
        ("{ agent: a, size: 1G }", "dependencies[0].size: a dependency of kind agent has no size"),
        ("{ agent: a, from: x }", "dependencies[0].from: `x` is not a repository"),
        ("{ agent: a, from: registry.example/x:1 }", "is not a repository, expected one without a tag"),
        ("{ agent: a, from: 'oci:/r:web' }", "is not a repository"),
        ("{ agent: a, from: ./x.aap }", "is not a repository"),
        ("{ service: a, from: registry.example/x }", "a dependency of kind service has no from"),
        ("{ volume: a }", "dependencies[0].size: missing"),
        ("{ volume: a, size: 0 }", "size `0` is out of range"),
        ("{ volume: a, size: 1G, version: '1' }", "kind volume has no version"),
        ("{ agent: a }, { agent: a, version: ^1 }", "dependencies[1]: `agent a` appears twice"),
        ("a", "dependencies[0]: expected a mapping"),
    ] {
        let error = try_draft("a", &format!("dependencies: [ {dependency} ]")).unwrap_err().to_string();
        assert!(error.contains(says), "{dependency}\n{error}");
    }
    let long = "1, ".repeat(200);
    let error =
        try_draft("a", &format!("dependencies: [ {{ agent: a, version: \"{long}\" }} ]")).unwrap_err();
    assert!(error.to_string().contains("at most 256 are allowed"), "{error}");
}
