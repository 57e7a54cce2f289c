//! The Agentfile in its three formats, and every way in which it can be wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

use aos_core::agentfile::{
    AGENTFILE_MAX_BYTES, Agentfile, Base, Copy, CopySource, CopyTarget, Format, Owner, Step,
};
use aos_core::config::{Lifecycle, ResolvedAgent, RootKind};
use proptest::prelude::*;

const YAML: &str = r#"# A full example.
apiVersion: aos/v1
kind: Agent
metadata:
  name: sitewatch
  version: 1.2.0
  description: watches a site
  labels: { org.example/team: "7" }
build:
  stages:
    - name: spare
      from: scratch
    - name: app
      from: host
      steps:
        - copy: { from: src, to: /app }
        - copy: { from: ., to: /app/all/ }
        - env: { A: build, B: build }
        - workdir: /app
        - label: { stage: app }
run:
  entrypoint: [ /usr/bin/python3, main.py, 8080 ]
  env: { B: run }
  lifecycle: persistent
capabilities:
  - "file_read: /data/**"
  - file_write: /data/out/**
  - exec: /usr/bin/git
  - net: api.github.com:443
  - listen: 8080
limits: { memory: 256M, cpu: 50%, tasks: 64, runtime: 10m, open_files: 1024 }
"#;

const JSON: &str = r#"{
  "apiVersion": "aos/v1", "kind": "Agent",
  "metadata": {"name": "sitewatch", "version": "1.2.0", "description": "watches a site",
    "labels": {"org.example/team": "7"}},
  "build": {"stages": [
    {"name": "spare", "from": "scratch"},
    {"name": "app", "from": "host", "steps": [
      {"copy": {"from": "src", "to": "/app"}}, {"copy": {"from": ".", "to": "/app/all/"}},
      {"env": {"A": "build", "B": "build"}}, {"workdir": "/app"}, {"label": {"stage": "app"}}]}]},
  "run": {"entrypoint": ["/usr/bin/python3", "main.py", "8080"], "env": {"B": "run"}, "lifecycle": "persistent"},
  "capabilities": ["file_read: /data/**", {"file_write": "/data/out/**"}, "exec: /usr/bin/git",
    "net: api.github.com:443", {"listen": 8080}],
  "limits": {"memory": "256M", "cpu": "50%", "tasks": 64, "runtime": "10m", "open_files": 1024}
}"#;

const TOML: &str = r#"
apiVersion = "aos/v1"
kind = "Agent"
capabilities = ["file_read: /data/**", "file_write: /data/out/**", "exec: /usr/bin/git",
  "net: api.github.com:443", { listen = 8080 }]
[metadata]
name = "sitewatch"
version = "1.2.0"
description = "watches a site"
labels = { "org.example/team" = "7" }
[[build.stages]]
name = "spare"
from = "scratch"
[[build.stages]]
name = "app"
from = "host"
steps = [ { copy = { from = "src", to = "/app" } }, { copy = { from = ".", to = "/app/all/" } },
  { env = { A = "build", B = "build" } }, { workdir = "/app" }, { label = { stage = "app" } } ]
[run]
entrypoint = ["/usr/bin/python3", "main.py", "8080"]
env = { B = "run" }
lifecycle = "persistent"
[limits]
memory = "256M"
cpu = "50%"
tasks = 64
runtime = "10m"
open_files = 1024
"#;

fn yaml(text: &str) -> Result<Agentfile, String> {
    Agentfile::parse(text, Format::Yaml, "Agentfile").map_err(|error| error.to_string())
}

/// The ways to write qualifiers mean the same in each format.
#[test]
fn qualifiers_in_each_format() {
    let head = "apiVersion: aos/v1\nkind: Agent\nmetadata: { name: a, version: 1.0.0 }\nrun: { entrypoint: [ /x ] }\n";
    let lines = |text: &str, format| {
        Agentfile::parse(text, format, "f").unwrap().resolve().unwrap().capabilities.to_lines()
    };
    let expected = "net: a.org:443 [approval=once, max_calls=10, max_bytes=1M, expires=2027-01-31T18:00:00Z]";
    for written in [
        "capabilities:\n  - net: a.org:443\n    approval: once\n    max_calls: 10\n    max_bytes: 1M\n    expires: 2027-01-31T18:00:00Z\n",
        "capabilities: [ { net: 'a.org:443', expires: '2027-01-31T18:00:00Z', max_calls: '10', approval: once, max_bytes: 1048576 } ]",
        "capabilities:\n  - net: a.org:443 [approval=once, max_calls=10, max_bytes=1M, expires=2027-01-31T18:00:00Z]\n",
        "capabilities:\n  - 'net: a.org:443 [expires=2027-01-31T18:00:00Z,max_bytes=1M,max_calls=10,approval=once]'\n",
        "capabilities:\n  - net: a.org:443 [approval=once, max_calls=10]\n    max_bytes: 1M\n    expires: 2027-01-31T18:00:00Z\n",
    ] {
        assert_eq!(lines(&format!("{head}{written}"), Format::Yaml), [expected], "{written}");
    }
    let head = "apiVersion = 'aos/v1'\nkind = 'Agent'\nmetadata = { name = 'a', version = '1.0.0' }\nrun = { entrypoint = ['/x'] }\n";
    for expires in ["2027-01-31T18:00:00Z", "'2027-01-31T18:00:00Z'"] {
        let written = format!(
            "{head}[[capabilities]]\nnet = 'a.org:443'\nmax_calls = 10\nmax_bytes = '1M'\napproval = 'once'\nexpires = {expires}\n"
        );
        assert_eq!(lines(&written, Format::Toml), [expected], "{written}");
    }
    let json = r#"{"apiVersion":"aos/v1","kind":"Agent","metadata":{"name":"a","version":"1.0.0"},"run":{"entrypoint":["/x"]},
        "capabilities":[{"net":"a.org:443","approval":"once","max_calls":10,"max_bytes":"1M","expires":"2027-01-31T18:00:00Z"}]}"#;
    assert_eq!(lines(json, Format::Json), [expected]);
}

/// Ten thousand entries are one error, at the list.
#[test]
fn a_capability_list_has_a_bound() {
    let list: Vec<String> = (1..=10_000).map(|port| format!("'listen: {port}'")).collect();
    let text = format!(
        "apiVersion: aos/v1\nkind: Agent\nmetadata: {{ name: a, version: 1.0.0 }}\nrun: {{ entrypoint: [ /x ] }}\ncapabilities: [ {} ]",
        list.join(", ")
    );
    let error = Agentfile::parse(&text, Format::Yaml, "f").unwrap_err().to_string();
    assert_eq!(error, "f:5:15: capabilities: 10000 elements, at most 256 are allowed");
}

#[test]
fn the_three_formats_mean_the_same() {
    let resolved = |text, format| -> ResolvedAgent {
        Agentfile::parse(text, format, "Agentfile").unwrap().resolve().unwrap()
    };
    let from_yaml = resolved(YAML, Format::Yaml);
    assert_eq!(resolved(JSON, Format::Json), from_yaml);
    assert_eq!(resolved(TOML, Format::Toml), from_yaml);

    assert_eq!(from_yaml.root, RootKind::Host);
    assert_eq!(from_yaml.run().unwrap().lifecycle, Lifecycle::Persistent);
    assert_eq!(from_yaml.run().unwrap().workdir.as_str(), "/app");
    let env: Vec<_> = from_yaml.run().unwrap().env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("A", "build"), ("B", "run")]);
    assert_eq!(from_yaml.labels.len(), 2);
    assert_eq!(
        from_yaml.run().unwrap().entrypoint.argv().collect::<Vec<_>>(),
        ["/usr/bin/python3", "main.py", "8080"]
    );
    assert_eq!(
        from_yaml.capabilities.to_lines(),
        [
            "file_read: /data/**",
            "file_write: /data/out/**",
            "exec: /usr/bin/git",
            "net: api.github.com:443",
            "listen: 8080"
        ]
    );
    let json = from_yaml.to_canonical_json().unwrap();
    assert_eq!(ResolvedAgent::from_canonical_json(&json).unwrap(), from_yaml);
}

#[test]
fn stages_and_places() {
    let file = yaml(YAML).unwrap();
    let stage = file.output_stage().unwrap();
    assert_eq!((stage.name.as_str(), &stage.from), ("app", &Base::Host));
    let Step::Copy(copy) = &stage.steps[0] else { panic!("not a copy") };
    assert_eq!(copy.from, [CopySource::Path("src".parse().unwrap())]);
    assert_eq!(copy.to, CopyTarget::As("/app".parse().unwrap()));
    assert_eq!((copy.owner, copy.mode, copy.exclude.len()), (Owner::default(), None, 0));
    let Step::Copy(Copy { from, to: CopyTarget::Into(_), .. }) = &stage.steps[1] else { panic!("not all") };
    assert_eq!(*from, [CopySource::All]);

    let error = file.error_at("build.stages[1].steps[0].copy.from", "`src` does not exist").to_string();
    assert_eq!(error, "Agentfile:16:19: build.stages[1].steps[0].copy.from: `src` does not exist");
    assert_eq!(file.place("run.workdir"), file.place("run"));
    assert_eq!(file.place("nothing").line, 2);
    for (text, format, line) in [(JSON, Format::Json, 10), (TOML, Format::Toml, 20)] {
        let file = Agentfile::parse(text, format, "x").unwrap();
        assert_eq!(file.place("run.entrypoint[0]").line, line, "{format:?}");
    }
}

#[test]
fn a_relative_program_is_taken_under_app() {
    let file = yaml(&minimal("run: { entrypoint: [ bin/start ] }")).unwrap();
    assert_eq!(file.run.as_ref().unwrap().entrypoint.program.as_str(), "/app/bin/start");
    assert!(file.build.is_none());
    let resolved = file.resolve().unwrap();
    assert_eq!((resolved.root, resolved.run().unwrap().workdir.as_str()), (RootKind::Host, "/workspace"));
}

/// A valid head, and `rest` from line 4.
fn minimal(rest: &str) -> String {
    format!("apiVersion: aos/v1\nkind: Agent\nmetadata: {{ name: web, version: 1.0.0 }}\n{rest}\n")
}

const RUN: &str = "run: { entrypoint: [ /bin/true ] }";

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (rest, expected) in [
        (
            "runn: {}",
            "Agentfile:4:1: runn: unknown field `runn`, known are apiVersion, kind, extends, metadata, build, run, dependencies, capabilities, limits",
        ),
        ("", "Agentfile:1:1: run: missing, expected a mapping with entrypoint"),
        (
            "run: { entrypoint: [] }",
            "Agentfile:4:20: run.entrypoint: empty, expected the program and its arguments",
        ),
        (
            "run: { entrypoint: /bin/true }",
            "Agentfile:4:20: run.entrypoint: expected a list: the program and its arguments, found text",
        ),
        ("run: {}", "Agentfile:4:1: run.entrypoint: missing"),
        ("run: { entrypoint: [ '' ] }", "run.entrypoint[0]: path is empty"),
        ("run: { entrypoint: [ /a/../b ] }", "run.entrypoint[0]: path `/a/../b` has a segment `..`"),
        ("run: { entrypoint: [ ../b ] }", "run.entrypoint[0]: path `/app/../b` has a segment `..`"),
        ("run: { entrypoint: [ /bin/x, \"a\\0b\" ] }", "run.entrypoint[1]: argument `a\\u{0}b` has U+0000"),
        (
            "run: { entrypoint: [ /bin/x, [] ] }",
            "run.entrypoint[1]: expected text (a number is written in quotes), found a list",
        ),
        ("run: { entrypoint: [ /bin/x ], workdir: app }", "run.workdir: path `app` is not absolute"),
        (
            "run: { entrypoint: [ /bin/x ], env: { 1A: x } }",
            "run.env.1A: environment variable name `1A` has U+0031 at position 1",
        ),
        ("run: { entrypoint: [ /bin/x ], env: { A: } }", "run.env.A: expected text, found nothing"),
        ("run: { entrypoint: [ /bin/x ], env: { A: \"\\0\" } }", "run.env.A: environment variable value"),
        (
            "run: { entrypoint: [ /bin/x ], lifecycle: forever }",
            "run.lifecycle: expected oneshot or persistent",
        ),
        (
            "run: { entrypoint: [ /bin/x ], lifecycle: { schedule: daily } }",
            "run.lifecycle: `schedule` is not supported by this version",
        ),
        (
            "run: { entrypoint: [ /bin/x ], model: fast }",
            "run.model: `model` is not supported by this version",
        ),
        (
            "run: { entrypoint: [ /bin/x ], shell: true }",
            "run.shell: unknown field `shell`, known are entrypoint, env, workdir, lifecycle, workspace, isolation",
        ),
        (
            "run: { entrypoint: [ /bin/x ], workspace: overlay }",
            "run.workspace: expected persistent or transactional",
        ),
        (
            "run: { entrypoint: [ /bin/x ], isolation: docker }",
            "run.isolation: expected native, oci, oci:crun, oci:runc, gvisor or vm",
        ),
    ] {
        let error = yaml(&minimal(rest)).unwrap_err();
        assert!(error.contains(expected), "{rest}\n{error}");
    }
}

/// Sections beside a valid `run`, and what is said of them.
const WRONG_SECTIONS: &[(&str, &str)] = &[
    ("budget: { tokens: 1 }", "Agentfile:5:1: budget: `budget` is not supported by this version of AOS"),
    ("approval_required: []", "approval_required: `approval_required` is not supported"),
    ("memory: {}", "memory: `memory` is not supported"),
    ("limits: { gpu: 1 }", "Agentfile:5:11: limits.gpu: `gpu` is not supported"),
    ("limits: { disk: 0 }", "limits.disk: size `0` is out of range"),
    (
        "limits: { io_weight: 10001 }",
        "limits.io_weight: I/O weight `10001` is out of range, allowed is 1 to 10000",
    ),
    ("isolation: vm", "isolation: unknown field `isolation`, known are apiVersion"),
    (
        "limits: { memory: 1.5G }",
        "limits.memory: size `1.5G` is not valid, expected bytes or a number with K, M, G or T",
    ),
    ("limits: { memory: 0 }", "limits.memory: size `0` is out of range"),
    ("limits: { cpu: 50 }", "limits.cpu: CPU share `50` is not valid, expected whole percent"),
    ("limits: { runtime: 10 }", "limits.runtime: duration `10` is not valid"),
    ("limits: { tasks: 1e3 }", "limits.tasks: task count `1e3` is not valid"),
    ("capabilities: 'file_read: /x'", "capabilities: expected a list of capabilities, found text"),
    (
        "capabilities: [ 'file_raed: /x' ]",
        "Agentfile:5:17: capabilities[0]: unknown capability `file_raed`, known are",
    ),
    ("capabilities: [ 'listen: 1', 'listen: 1' ]", "capabilities[1]: capability `listen: 1` appears twice"),
    (
        "capabilities:\n  - file_read: /a/**/b",
        "Agentfile:6:5: capabilities[0]: capability `file_read`: pattern `/a/**/b`",
    ),
    (
        "capabilities:\n  - file_read: /a\n    approval: never",
        "Agentfile:7:5: capabilities[0].approval: capability `file_read: /a`: qualifier `approval`: expected always, once or plan",
    ),
    (
        "capabilities:\n  - file_read: /a\n    aproval: once",
        "Agentfile:7:5: capabilities[0].aproval: unknown qualifier `aproval`, known are approval, max_calls, max_bytes, expires",
    ),
    (
        "capabilities:\n  - file_read: /a [max_calls=1]\n    max_calls: 2",
        "Agentfile:7:5: capabilities[0].max_calls: capability `file_read: /a`: qualifier `max_calls` appears twice",
    ),
    ("capabilities:\n  - { max_calls: 2 }", "capabilities[0]: expected one capability"),
    ("capabilities:\n  - { listen: 1, expires: 1h }", "capabilities[0].expires: capability `listen: 1`"),
    (
        "capabilities: [ 'listen: 1', 'listen: 1 [max_calls=2]' ]",
        "capabilities[1]: capability `listen: 1` appears twice",
    ),
    ("capabilities:\n  - file_read: /a\n    exec: /b", "capabilities[0]: expected one capability"),
    ("capabilities: [ \"file_read: /a\\nexec: /bin/sh\" ]", "U+000A at position 3"),
    ("capabilities: [ 'inference: Fast' ]", "capability `inference`: model alias has `F` at position 1"),
    (
        "capabilities:\n  - net: *.example.org:443",
        "(a value that starts with `*` or `&` is written in quotes)",
    ),
    ("build: {}", "build.stages: missing, expected a list of stages"),
    ("build: { stages: [] }", "build.stages: expected at least one stage"),
    (
        "build: { stages: [ { name: a, from: host, steps: [ { copy: { from: ../x, to: /app } } ] } ] }",
        "steps[0].copy.from: path `../x` has a segment `..`",
    ),
    (
        "build: { stages: [ { name: a, from: host, steps: [ { copy: { from: /etc, to: /app } } ] } ] }",
        "steps[0].copy.from: path `/etc` is absolute",
    ),
    (
        "build: { stages: [ { name: a, from: host, steps: [ { copy: { from: x, to: app } } ] } ] }",
        "steps[0].copy.to: path `app` is not absolute",
    ),
    (
        "build: { stages: [ { name: a, from: host, steps: [ { copy: { from: x, to: // } } ] } ] }",
        "steps[0].copy.to: path `//` ends with",
    ),
    (
        "build: { stages: [ { name: a, from: host, steps: [ { env: {}, workdir: / } ] } ] }",
        "expected a mapping with one of copy, run, env, workdir, expose, label, found 2",
    ),
    (
        "build: { stages: [ { name: a, from: host }, { name: a, from: host } ] }",
        "build.stages[1].name: two stages have the name `a`",
    ),
    (
        "build: { stages: [ { name: A b, from: host } ] }",
        "build.stages[0].name: stage name `A b` is not valid",
    ),
];

#[test]
fn wrong_sections_are_named() {
    for (rest, expected) in WRONG_SECTIONS {
        let error = yaml(&minimal(&format!("{RUN}\n{rest}"))).unwrap_err();
        assert!(error.contains(expected), "{rest}\n{error}");
    }
}

#[test]
fn wrong_names_and_heads() {
    let long = "x".repeat(300);
    for name in ["a/b", "..", "a..b", "\"a\\nb\"", "A", "''", &long] {
        let text =
            format!("apiVersion: aos/v1\nkind: Agent\nmetadata:\n  name: {name}\n  version: 1.0.0\n{RUN}\n");
        let error = yaml(&text).unwrap_err();
        assert!(error.starts_with("Agentfile:4:9: metadata.name: package name"), "{error}");
    }
    for (from, to, expected) in [
        ("aos/v1", "aos.io/v1", "apiVersion: expected aos/v1, found `aos.io/v1`"),
        (
            "Agent\n",
            "World\n",
            "kind: kind `World` is not supported by this version of AOS, expected Agent, Skill or McpServer",
        ),
        ("Agent\n", "AgentPackage\n", "kind: expected Agent, Skill or McpServer, found `AgentPackage`"),
        ("1.0.0", "1.0", "metadata.version: version `1.0` is not of the form MAJOR.MINOR.PATCH"),
        ("1.0.0", "1", "metadata.version: version `1` is not of the form"),
        ("version: 1.0.0", "version: 1.0.0, labels: { a: \"\\e\" }", "metadata.labels.a: label value"),
    ] {
        let text = minimal(RUN).replacen(from, to, 1);
        let error = yaml(&text).unwrap_err();
        assert!(error.contains(expected), "{to}\n{error}");
    }
}

#[test]
fn duplicate_keys_in_each_format() {
    let error = yaml(&minimal(&format!("{RUN}\n{RUN}"))).unwrap_err();
    assert_eq!(error, "Agentfile:5:1: the key `run` is written twice");
    let error = yaml(&minimal(RUN).replacen("name: web,", "name: web, name: web,", 1)).unwrap_err();
    assert_eq!(error, "Agentfile:3:24: the key `name` is written twice");
    let json = JSON.replacen("\"kind\": \"Agent\",", "\"kind\": \"Agent\", \"kind\": \"Agent\",", 1);
    let error = Agentfile::parse(&json, Format::Json, "f").unwrap_err().to_string();
    assert_eq!(error, "f:2:44: the key `kind` is written twice");
    let toml = TOML.replacen("kind = \"Agent\"", "kind = \"Agent\"\nkind = \"Agent\"", 1);
    let error = Agentfile::parse(&toml, Format::Toml, "f").unwrap_err().to_string();
    assert_eq!(error, "f:4:1: the key `kind` is written twice");
    for (from, to, says) in [
        ("[limits]", "[limits]\n[limits]", "f:24:2: the key `limits` is written twice"),
        ("cpu = \"50%\"", "cpu = \"50%\"\n\"cpu\" = \"50%\"", "f:26:1: the key `cpu` is written twice"),
        ("{ A = \"build\",", "{ A = \"x\", A = \"build\",", "the key `A` is written twice"),
    ] {
        let error = Agentfile::parse(&TOML.replacen(from, to, 1), Format::Toml, "f").unwrap_err().to_string();
        assert!(error.ends_with(says), "{error}");
    }
    let json = JSON.replacen("\"cpu\": \"50%\",", "\"cpu\": \"50%\", \"cpu\": \"50%\",", 1);
    let error = Agentfile::parse(&json, Format::Json, "f").unwrap_err().to_string();
    assert_eq!(error, "f:13:46: the key `cpu` is written twice");
}

#[test]
fn what_no_start_can_enforce_has_its_place() {
    let file = yaml(&minimal(&format!(
        "{RUN}\ncapabilities:\n  - net: example.org:443\n  - file_read: /srv/**\n  - \"exec: /usr/bin/*\""
    )))
    .unwrap();
    let found: Vec<String> = file.not_enforceable().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "Agentfile:6:5: capabilities[0]: capability `net: example.org:443` needs aos-broker, which this version does not have; remove it",
            "Agentfile:8:5: capabilities[2]: capability `exec: /usr/bin/*`: the kernel cannot enforce `*` inside a path; name each file, or write `/usr/bin/**` for everything beneath that directory",
        ]
    );
}

#[test]
fn syntax_errors_have_places() {
    for (text, format, expected) in [
        ("a: [1, 2", Format::Yaml, "not valid YAML"),
        ("a: b: c", Format::Yaml, "f:1:"),
        ("{\"a\": }", Format::Json, "f:1:7: not valid JSON"),
        ("{} {}", Format::Json, "f:1:4: not valid JSON"),
        ("{\"a\": \"\\ud800\"}", Format::Json, "not valid JSON"),
        ("a = ", Format::Toml, "f:1:5: not valid TOML"),
        ("", Format::Yaml, "f:"),
        ("", Format::Json, "f:1:1: not valid JSON"),
        ("", Format::Toml, "f:1:1: apiVersion: missing"),
        ("[]", Format::Yaml, "expected a mapping"),
        ("---\na: b\n---\nc: d\n", Format::Yaml, "f:"),
        ("<<: { a: b }", Format::Yaml, "f:1:"),
        ("!!python/object a: b", Format::Yaml, "f:1:"),
    ] {
        let error = Agentfile::parse(text, format, "f").unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}\n{error}");
        // The place stands in front.
        assert!(!error.contains(" at line "), "{text:?}\n{error}");
    }
}

#[test]
fn everything_is_bounded() {
    let large = " ".repeat(AGENTFILE_MAX_BYTES + 1);
    for format in [Format::Yaml, Format::Json, Format::Toml] {
        let error = Agentfile::parse(&large, format, "f").unwrap_err().to_string();
        assert!(error.contains("at most 262144 are allowed"), "{error}");
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{a=", "}"), ("{a: ", "}")] {
            let deep = format!("{}{}{}", open.repeat(5000), 1, close.repeat(5000));
            assert!(Agentfile::parse(&deep, format, "f").is_err());
            assert!(Agentfile::parse(&format!("a = {deep}"), format, "f").is_err());
        }
    }
    let list = |n: usize, item: &str| vec![item; n].join(", ");
    for (rest, expected) in [
        (format!("run: {{ entrypoint: [ {} ] }}", list(257, "/x")), "257 elements, at most 256"),
        (format!("{RUN}\ncapabilities: [ {} ]", list(257, "x")), "257 elements, at most 256"),
        (format!("{RUN}\nbuild: {{ stages: [ {} ] }}", list(17, "{}")), "17 elements, at most 16"),
        (
            format!(
                "{RUN}\nbuild: {{ stages: [ {{ name: a, from: host, steps: [ {} ] }} ] }}",
                list(129, "{}")
            ),
            "129 elements, at most 128",
        ),
        (format!("run: {{ entrypoint: [ /x, {} ] }}", "y".repeat(17_000)), "at most 16384 are allowed"),
        (format!("{RUN}\ncapabilities: [ {} ]", list(20_000, "[]")), "f"),
    ] {
        let error = yaml(&minimal(&rest)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let env: String = (0..257).map(|n| format!("A{n}: x, ")).collect();
    let error = yaml(&minimal(&format!("run: {{ entrypoint: [ /x ], env: {{ {env} }} }}"))).unwrap_err();
    assert!(error.contains("257 entries, at most 256"), "{error}");
}

#[test]
fn alias_bombs_are_refused_and_a_shared_list_is_not() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let error = yaml(&bomb).unwrap_err();
    assert!(error.contains("not valid YAML"), "{error}");

    let shared = minimal(
        "run: { entrypoint: [ /x ], env: &env { A: 1 } }\nbuild:\n  stages: [ { name: a, from: host, steps: [ { env: *env } ] } ]",
    );
    assert_eq!(yaml(&shared).unwrap().resolve().unwrap().run().unwrap().env.len(), 1);
}

#[test]
fn yaml_scalars_keep_their_text() {
    let file = yaml(&minimal(
        "run: { entrypoint: [ /x, 1.10, 0x10, no, 010, +1, 2020-01-01, ~x, .5 ], env: { A: 1.10, B: off, C: true, \"D\": 1_000 } }",
    ))
    .unwrap();
    let words: Vec<_> = file.run.as_ref().unwrap().entrypoint.argv().skip(1).collect();
    assert_eq!(words, ["1.10", "0x10", "no", "010", "+1", "2020-01-01", "~x", ".5"]);
    let env: Vec<_> = file.run.as_ref().unwrap().env.values().map(|v| v.as_str().to_owned()).collect();
    assert_eq!(env, ["1.10", "off", "true", "1_000"]);
    // The other formats have a type for text.
    let json = JSON.replacen("\"8080\"", "8080", 1);
    let error = Agentfile::parse(&json, Format::Json, "f").unwrap_err().to_string();
    assert!(
        error.contains("run.entrypoint[2]: expected text (a number is written in quotes), found an integer"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            prop_assert!(Agentfile::parse(&text, format, "f").is_err());
        }
    }

    #[test]
    fn no_change_of_a_character_panics(index in 0..900_usize, c in any::<char>()) {
        for (text, format) in [(YAML, Format::Yaml), (JSON, Format::Json), (TOML, Format::Toml)] {
            let changed: String = text.chars().enumerate().map(|(i, old)| if i == index { c } else { old }).collect();
            if let Ok(file) = Agentfile::parse(&changed, format, "f") {
                let json = file.resolve().unwrap().to_canonical_json().unwrap();
                prop_assert!(ResolvedAgent::from_canonical_json(&json).is_ok());
            }
        }
    }
}
