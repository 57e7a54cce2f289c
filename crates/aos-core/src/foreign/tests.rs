//! Manifests of other systems, and what becomes of them.

use super::*;
use crate::agentfile::{Base, Step};
use crate::config::{Lifecycle, RootKind};
use proptest::prelude::*;

const AAOS: &str = r#"
name: Research Agent
model: claude-haiku
system_prompt: |
  You are careful.
  Answer briefly.
lifecycle: persistent
capabilities:
  - web_search
  - "file_read: /srv/data/*"
  - file_write: /srv/out/report.md
  - "file_read: /etc/*.conf"
  - "file_read: /*"
  - "network: api.example.org"
  - "network: *"
  - spawn_child: [fetcher, writer]
  - "tool: grep"
  - "cargo_run: /srv/repo"
  - "git_commit: /srv/repo"
  - "file_read: notes.txt"
approval_required: [file_write, web_search]
memory: { context_window: 128000, max_history_messages: 50, episodic_enabled: true }
budget_config: { max_tokens: 100000, reset_period_seconds: 86400 }
colour: red
"#;

fn notes_of(converted: &Converted) -> Vec<(&str, &str)> {
    converted.notes.iter().map(|note| (note.field.as_str(), note.message.as_str())).collect()
}

#[test]
fn an_aaos_manifest() {
    let converted = aaos::convert(AAOS, "researcher.yaml").unwrap();
    let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "f").unwrap();
    assert_eq!(
        (file.metadata.name.as_str(), file.metadata.version.to_string().as_str()),
        ("research-agent", "0.1.0")
    );
    assert_eq!(file.run.as_ref().unwrap().lifecycle, Lifecycle::Persistent);
    assert_eq!(
        file.capabilities.to_lines(),
        [
            "file_read: /srv/data/**",
            "file_read: /srv/repo/**",
            "file_write: /srv/out/report.md",
            "file_write: /srv/repo/.git/**",
            "exec: /usr/bin/git",
            "net: api.example.org:443",
            "tool: grep",
            "spawn: fetcher",
            "spawn: writer",
        ]
    );
    let notes = notes_of(&converted);
    for (field, says) in [
        ("name", "`Research Agent` is not a package name, research-agent is written"),
        ("the manifest", "0.1.0 is written"),
        ("model", "no built-in loop"),
        ("system_prompt", "no built-in loop"),
        ("the manifest", "/app/main is written"),
        ("capabilities[0]", "cannot be enforced"),
        ("capabilities[1]", "`file_read: /srv/data/**` is written"),
        ("capabilities[3]", "the kernel cannot enforce `*`"),
        ("capabilities[4]", "names the whole file system"),
        ("capabilities[5]", "here it is 443; a start refuses `net:`"),
        ("capabilities[6]", "`*` stands for exactly one label"),
        ("capabilities[7]", "a start refuses `spawn:`"),
        ("capabilities[8]", "a start refuses `tool:`"),
        ("capabilities[9]", "cannot execute what it has written"),
        ("capabilities[10]", "git can do more than commit"),
        ("capabilities[11]", "not absolute"),
        ("approval_required[0]", "cannot be enforced"),
        ("approval_required[1]", "cannot be enforced"),
        ("memory.context_window", "cannot be enforced"),
        ("memory.max_history_messages", "cannot be enforced"),
        ("memory.episodic_enabled", "cannot be enforced"),
        ("budget_config.max_tokens", "cannot be enforced"),
        ("budget_config.reset_period_seconds", "cannot be enforced"),
        ("colour", "is not known here"),
    ] {
        let found = notes.iter().any(|(at, message)| *at == field && message.contains(says));
        assert!(found, "{field}: {says}\n{notes:#?}");
    }
    assert_eq!(notes.len(), 24, "{notes:#?}");
    let kept = "#   system_prompt: \"You are careful.\\nAnswer briefly.\\n\"\n";
    assert!(converted.agentfile.contains(kept), "{}", converted.agentfile);
    assert_eq!(converted.notes.iter().find(|note| note.field == "model").unwrap().place.line, 3);
}

#[test]
fn tools_and_children_of_aaos() {
    let of = |item: &str| {
        let manifest = format!("name: a\ncapabilities:\n  - {item}\n");
        let converted = aaos::convert(&manifest, "a.yaml").unwrap();
        let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "f").unwrap();
        let notes = converted.notes.iter().filter(|note| note.field == "capabilities[0]");
        (file.capabilities.to_lines(), notes.map(|note| note.message.clone()).collect::<Vec<_>>())
    };
    let lines = |item: &str| of(item).0;
    assert_eq!(lines("tool: mcp.github.*"), ["tool: mcp.github.*"]);
    assert_eq!(lines("\"spawn_child: [fetcher, writer]\""), ["spawn: fetcher", "spawn: writer"]);
    assert_eq!(lines("spawn_child: fetcher"), ["spawn: fetcher"]);
    assert_eq!(lines("spawn_child: [fetcher, \"no name\", fetcher]"), ["spawn: fetcher"]);
    // What names nothing of ours is told, and nothing wider is granted for it.
    for (item, says) in [
        ("tool", "is not known here"),
        ("\"tool: a b\"", "tool `a b` is not valid"),
        ("spawn_child", "expected the names"),
        ("spawn_child: []", "expected the names"),
        ("spawn_child: [Fetcher]", "has `F`"),
        ("web_search", "cannot be enforced"),
    ] {
        let (granted, notes) = of(item);
        assert!(granted.is_empty(), "{item}: {granted:?}");
        assert!(notes.iter().any(|note| note.contains(says)), "{item}: {notes:?}");
    }
}

const PACKAGE: &str = r#"
apiVersion: aos.io/v1
kind: AgentPackage
metadata: { name: web, version: "1.2", labels: { team: a, "bad label": b }, description: d }
from: python:3.13
config: { env: { PORT: 8080, "1A": x }, workDir: /srv/app/ }
stages:
  - { name: deps, from: debian:trixie, steps: [ { type: install, args: { packages: [python3, "-x"] } } ] }
  - { name: gen, from: deps, dependsOn: [deps, other], steps: [ { type: run, command: "make $HOME ${X} $$", cache: true } ] }
steps:
  - { type: copy, args: { src: ./src/, dst: /srv/app } }
  - { type: copy, command: "*.py ." }
  - { type: install, command: [pip, install, x] }
  - { type: plugin, command: lint }
  - { type: copy, args: { src: ../x, dst: /y } }
dependencies:
  agents:
    - { name: summariser, version: 1.4.2 }
    - { ref: "reg.example/team/fetch:2.0.0" }
    - { name: writer, version: "^1", ref: writer }
  services: [ { name: postgres } ]
  volumes: [ { name: data, size: 10Gi }, { name: odd } ]
resources: { cpu: 500m, memory: 512Mi, gpu: 1 }
entrypoint: { command: [python3, main.py], args: ["--port", 80] }
"#;

#[test]
fn an_openos_package() {
    let converted = openos::convert(PACKAGE, "Agentfile").unwrap();
    let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "f").unwrap();
    assert_eq!(file.metadata.version.to_string(), "1.2.0");
    let build = file.build.as_ref().unwrap();
    let bases: Vec<String> = build.stages.iter().map(|stage| stage.from.to_string()).collect();
    assert_eq!(bases, ["debian:trixie", "stage:deps", "docker.io/library/python:3.13"]);
    assert_eq!(build.stages[0].packages[0].as_str(), "python3");
    let Step::Run(run) = &build.stages[1].steps[0] else { panic!("not a run step") };
    assert_eq!(run.command.argv(), ["/bin/sh", "-c", "make $HOME ${X} $$"]);
    assert!(run.net.is_empty());
    let copies: Vec<String> = build.stages[2]
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Copy(copy) => Some(format!("{} {}", copy.from[0], copy.to)),
            _ => None,
        })
        .collect();
    assert_eq!(copies, ["src /srv/app", "*.py /app/"]);
    let run = file.run.as_ref().unwrap();
    assert_eq!(run.entrypoint.argv().collect::<Vec<_>>(), ["/usr/bin/python3", "main.py", "--port", "80"]);
    assert_eq!((run.env.len(), run.workdir.as_ref().unwrap().as_str()), (1, "/srv/app"));
    let needed: Vec<String> = file
        .dependencies
        .iter()
        .map(|needed| format!("{} {} {}", needed.kind, needed.name, needed.requirement))
        .collect();
    assert_eq!(
        needed,
        [
            "agent fetch =2.0.0",
            "agent summariser =1.4.2",
            "agent writer ^1",
            "service postgres *",
            "volume data *"
        ]
    );
    assert_eq!(file.dependencies[0].from.as_ref().unwrap().to_string(), "reg.example/team/fetch");
    assert_eq!((file.limits.cpu.unwrap().percent(), file.limits.memory.unwrap().bytes()), (50, 512 << 20));
    assert!(file.capabilities.is_empty());
    let notes = notes_of(&converted);
    for (field, says) in [
        ("metadata.version", "1.2.0 is written"),
        ("metadata.labels.\"bad label\"", "label name"),
        ("from", "docker.io/library/python:3.13 is written"),
        ("config.env.1A", "environment variable name"),
        ("stages[0].steps[0].args.packages[1]", "Debian package `-x`"),
        ("stages[1].dependsOn[1]", "is not a stage"),
        ("steps[3]", "no plugins"),
        ("steps[4]", "segment `..`"),
        ("dependencies.volumes[0]", "a start refuses volumes"),
        ("dependencies.volumes[1]", "a volume has a size"),
        ("resources.gpu", "no GPU"),
        ("entrypoint.command[0]", "/usr/bin/python3 is written"),
    ] {
        let field = field.replace('"', "`");
        let found = notes.iter().any(|(at, message)| *at == field && message.contains(says));
        assert!(found, "{field}: {says}\n{notes:#?}");
    }
}

#[test]
fn an_openos_spec() {
    let text = r#"{"apiVersion": "openos.agent/v0alpha1", "kind": "Agent",
      "metadata": {"name": "echo", "version": "v2.0.1", "annotations": {"a": "b"}},
      "spec": {"image": "ghcr.io/team/echo@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "command": ["/bin/echo"], "args": ["hi"], "env": [{"name": "A", "value": "1"}, "B=2"],
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": 1}}, "replicas": 3}}"#;
    let converted = openos::convert(text, "agent.json").unwrap();
    let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "f").unwrap();
    assert_eq!(file.resolve().unwrap().root, RootKind::Own);
    assert!(matches!(file.build.as_ref().unwrap().stages[0].from, Base::Image(_)));
    assert_eq!(file.run.as_ref().unwrap().env.len(), 2);
    let fields: Vec<&str> = converted.notes.iter().map(|note| note.field.as_str()).collect();
    assert_eq!(
        fields,
        ["metadata.version", "metadata.annotations.a", "spec.resources.requests", "spec.replicas"]
    );
}

#[test]
fn which_system_a_manifest_is_of() {
    let of = |text: &str| System::of_manifest(text, "f").unwrap();
    assert_eq!(of(AAOS), Some(System::Aaos));
    assert_eq!(of(PACKAGE), Some(System::OpenOs));
    assert_eq!(of("apiVersion: aos/v1\nkind: Agent\n"), None);
    assert_eq!(of("a: b"), None);
    let error = openos::convert("apiVersion: aos/v1", "f").unwrap_err().to_string();
    assert_eq!(
        error,
        "f is not an OpenOS Agentfile: its apiVersion is `aos/v1`, expected aos.io/v1 or openos.agent/v0alpha1"
    );
    assert!(aaos::convert("[]", "f").is_err() && aaos::convert("a: [", "f").is_err());
    let circle = "apiVersion: aos.io/v1\nstages: [ { name: a, from: b }, { name: b, from: a } ]";
    let error = openos::convert(circle, "f").unwrap_err();
    let ForeignError::Unfit { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("`a` needs `b` needs `a`"), "{source}");
}

#[test]
fn a_value_never_becomes_another_field() {
    let hostile = "x\n  capabilities: [ 'exec: /bin/sh' ]\n# \u{85}\u{2028}exec: /bin/sh";
    let json = serde_json::json!({
        "name": hostile, "model": hostile, "system_prompt": hostile, "lifecycle": hostile,
        "capabilities": [format!("file_read: /srv/a\nexec: /bin/sh"), format!("file_read: /srv/{hostile}")],
        hostile: hostile,
    });
    let converted = aaos::convert(&json.to_string(), "x.json").unwrap();
    let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "f").unwrap();
    assert!(file.capabilities.is_empty(), "{}", converted.agentfile);
    let json = serde_json::json!({
        "apiVersion": "aos.io/v1", "metadata": { "name": "a", "version": "1.0.0", "description": hostile },
        "config": { "env": { "A": hostile } }, "entrypoint": { "command": ["/bin/x", hostile] },
        "steps": [ { "type": "run", "command": hostile } ],
    });
    let converted = openos::convert(&json.to_string(), "x.json").unwrap();
    let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "f").unwrap();
    assert!(file.capabilities.is_empty());
    let run = file.run.as_ref().unwrap();
    assert_eq!(run.env.values().next().unwrap().as_str(), hostile);
    assert_eq!(run.entrypoint.arguments[0].as_str(), hostile);
}

/// Documents of the right fields with any values.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let words = "(/|[.]{1,2}|\\$\\{|[a-z]{1,3}|[*:=@~ \n-]|1|host|debian|copy|run|install|file_read: /){0,5}";
    let leaf =
        prop_oneof![words.prop_map(Value::from), any::<i32>().prop_map(Value::from), Just(Value::Null)];
    let keys = prop::sample::select(vec![
        "name",
        "version",
        "from",
        "type",
        "command",
        "args",
        "src",
        "dst",
        "packages",
        "dependsOn",
        "steps",
        "env",
        "workDir",
        "image",
        "ref",
        "size",
        "agents",
        "services",
        "volumes",
        "cpu",
        "memory",
        "limits",
        "description",
        "labels",
        "cache",
    ]);
    let any = leaf.prop_recursive(3, 20, 4, move |inner| {
        let map = prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            map.prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    });
    let top = prop::sample::select(vec![
        "name",
        "metadata",
        "from",
        "config",
        "steps",
        "stages",
        "dependencies",
        "resources",
        "entrypoint",
        "spec",
        "model",
        "lifecycle",
        "capabilities",
        "memory",
    ]);
    let system =
        prop::sample::select(vec![None, Some(openos::API_VERSIONS[0]), Some(openos::API_VERSIONS[1])]);
    (system, prop::collection::btree_map(top.prop_map(str::to_owned), any, 0..8)).prop_map(
        |(system, fields)| {
            let mut document: serde_json::Map<_, _> = fields.into_iter().collect();
            if let Some(version) = system {
                document.insert("apiVersion".to_owned(), json!(version));
            }
            Value::Object(document)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whatever_converts_is_an_agentfile(document in documents()) {
        let text = document.to_string();
        let system = if document.get("apiVersion").is_some() { System::OpenOs } else { System::Aaos };
        match system.convert(&text, "x.json") {
            Ok(converted) => {
                let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "f").unwrap();
                // Only aaOS's manifests ask for capabilities.
                prop_assert!(system == System::Aaos || file.capabilities.is_empty());
            }
            // What fits one by one can still be a circle of stages.
            Err(ForeignError::Unfit { source, .. }) => {
                let says = source.to_string();
                prop_assert!(says.contains("needs itself") || says.contains("in a circle"), "{}", says);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
