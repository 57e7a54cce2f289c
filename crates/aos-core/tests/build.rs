//! The section `build`: bases, steps, arguments, and the graph of the stages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

use aos_core::agentfile::{
    Agentfile, Arguments, Base, Build, Command, Copy, CopyOrigin, Draft, Format, Lineage, RunStep, Step,
    graph,
};
use aos_core::config::{PackageKind, RootKind};
use proptest::prelude::*;

/// A valid file with this section `build` from line 5.
fn file(build: &str) -> String {
    format!(
        "apiVersion: aos/v1\nkind: Agent\nmetadata: {{ name: web, version: 1.0.0 }}\nrun: {{ entrypoint: [ /bin/true ] }}\n{build}\n"
    )
}

fn parse(build: &str) -> Result<Agentfile, String> {
    Agentfile::parse(&file(build), Format::Yaml, "Agentfile").map_err(|error| error.to_string())
}

fn build(text: &str) -> Build {
    parse(text).unwrap().build.unwrap()
}

/// One stage from scratch with these steps.
fn steps(steps: &str) -> Result<Vec<Step>, String> {
    let text = format!("build: {{ stages: [ {{ name: a, from: scratch, steps: [ {steps} ] }} ] }}");
    parse(&text).map(|file| file.build.unwrap().stages.remove(0).steps)
}

const FULL: &str = r#"
dependencies:
  - { skill: pdf, version: ^2 }
build:
  args: { SUITE: trixie, PORT: 8080 }
  stages:
    - name: deps
      from: debian:${SUITE}
      packages: [ python3, "python3-venv=3.13.5-1" ]
      steps:
        - run: python3 -m venv /venv
        - run: [ /venv/bin/pip, install, "-r", /src/requirements.txt ]
        - run:
            command: make $HOME
            net: [ "pypi.org:443", "*.pythonhosted.org:443" ]
            cache: [ /root/.cache/pip ]
            secrets: [ pip.conf ]
            timeout: 10m
    - { name: docs, from: "registry.example/tools/mkdocs:1.6", dependsOn: [ deps ] }
    - name: app
      from: stage:deps
      steps:
        - copy: { from: [ src, "lib/*.py" ], to: /app/, owner: "1000:1000", mode: 0755, exclude: [ "*.pyc", "**/test" ] }
        - copy: { from: /site/html, to: /app/html, stage: docs }
        - copy: { from: /, to: /skills/pdf, package: pdf }
        - env: { PORT: "${PORT}", PRICE: "$${PORT}" }
        - workdir: /app
        - expose: [ "${PORT}", 53/udp ]
        - label: { port: "p${PORT}" }
"#;

#[test]
fn everything_at_once() {
    let file = parse(FULL).unwrap();
    let build = file.build.as_ref().unwrap();
    let [deps, docs, app] = build.stages.as_slice() else { panic!("three stages") };
    assert_eq!(deps.from, Base::Debian("trixie".parse().unwrap()));
    assert_eq!((deps.packages[1].name(), deps.packages[1].version()), ("python3-venv", Some("3.13.5-1")));
    assert_eq!(docs.from.to_string(), "registry.example/tools/mkdocs:1.6");
    assert_eq!(docs.depends_on[0].as_str(), "deps");
    let Step::Run(RunStep { command: Command::Program(words), .. }) = &deps.steps[1] else {
        panic!("a list")
    };
    assert_eq!(words.len(), 4);
    let Step::Run(run) = &deps.steps[2] else { panic!("a mapping") };
    assert_eq!(run.command.argv(), ["/bin/sh", "-c", "make $HOME"]);
    assert_eq!(run.net[1].to_string(), "*.pythonhosted.org:443");
    assert_eq!((run.cache[0].as_str(), run.secrets[0].as_str()), ("/root/.cache/pip", "pip.conf"));
    assert_eq!(run.timeout.unwrap().seconds(), 600);

    let copies: Vec<&Copy> = app
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Copy(copy) => Some(copy),
            _ => None,
        })
        .collect();
    assert_eq!((copies[0].owner.uid, copies[0].mode.unwrap().of_file()), (1000, 0o755));
    assert!(
        copies[0].is_excluded("a/b/x.pyc")
            && copies[0].is_excluded("a/test")
            && !copies[0].is_excluded("test.py")
    );
    assert_eq!(copies[1].origin, CopyOrigin::Stage("docs".parse().unwrap()));
    assert_eq!(copies[1].from[0].to_string(), "site/html");
    assert_eq!(
        (copies[2].origin.clone(), copies[2].from[0].to_string()),
        (CopyOrigin::Package("pdf".parse().unwrap()), ".".to_owned())
    );
    let Step::Env(env) = &app.steps[3] else { panic!("env") };
    let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("PORT", "8080"), ("PRICE", "${PORT}")]);

    let names: Vec<&str> =
        graph::order(build).unwrap().into_iter().map(|i| build.stages[i].name.as_str()).collect();
    assert_eq!(names, ["deps", "docs", "app"]);
    assert_eq!(build.foundation(), Some(&deps.from));
    assert_eq!(build.needed().len(), 3);
}

#[test]
fn arguments_replace_defaults() {
    let draft = Draft::parse(&file(FULL), Format::Yaml, "Agentfile").unwrap();
    let lineage = Lineage::new("a".to_owned(), draft);
    assert_eq!(lineage.arguments().len(), 2);
    let args = |list: &[(&str, &str)]| -> Arguments {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    };
    let build = lineage.clone().finish(&args(&[("SUITE", "bookworm")])).unwrap().build.unwrap();
    assert_eq!(build.stages[0].from.to_string(), "debian:bookworm");
    let values: Vec<&str> = build.args.values().map(|value| value.as_str()).collect();
    assert_eq!(values, ["8080", "bookworm"]);
    for (list, says) in [
        (
            args(&[("SUIT", "x")]),
            "Agentfile:9:3: build.args: `SUIT` is not declared, declared are: PORT, SUITE",
        ),
        (args(&[("SUITE", "x y")]), "Agentfile:12:13: build.stages[0].from: suite `x y` is not valid"),
        (args(&[("SUITE", "trixie\n  steps: []")]), "build.stages[0].from: suite `trixie\\n  steps: []`"),
        (args(&[("PORT", "0")]), "build.stages[2].steps[5].expose[0]: port `0` is not valid"),
        (args(&[("PORT", "80, 81")]), "expose[0]: port `80, 81`"),
        (args(&[("PORT", "a\nb")]), "steps[5].expose[0]: port `a\\nb`"),
    ] {
        let error = lineage.clone().finish(&list).unwrap_err().to_string();
        assert!(error.contains(says), "{says}\n{error}");
    }
}

#[test]
fn what_an_argument_holds_stays_in_its_value() {
    let text = file(
        "build: { args: { A: x }, stages: [ { name: a, from: scratch, steps: [ { run: [ echo, \"${A}\" ] }, { env: { E: \"${A}\" } } ] } ] }",
    );
    let lineage = Lineage::new("a".to_owned(), Draft::parse(&text, Format::Yaml, "f").unwrap());
    let hostile = "x ] }, { run: evil } ]\n        - run: evil\n${A} $$ \" ' # : ";
    let args: Arguments = [("A".parse().unwrap(), hostile.parse().unwrap())].into();
    let build = lineage.finish(&args).unwrap().build.unwrap();
    assert_eq!(build.stages[0].steps.len(), 2);
    let Step::Run(run) = &build.stages[0].steps[0] else { panic!("a run step") };
    assert_eq!(run.command.argv(), ["echo", hostile]);
    let Step::Env(env) = &build.stages[0].steps[1] else { panic!("env") };
    assert_eq!(env.values().next().unwrap().as_str(), hostile);
}

#[test]
fn arguments_cannot_grow_without_bound() {
    let long = "x".repeat(8000);
    let many = "${A}".repeat(1000);
    let error = parse(&format!(
        "build: {{ args: {{ A: {long} }}, stages: [ {{ name: a, from: scratch, steps: [ {{ run: \"{many}\" }} ] }} ] }}"
    ))
    .unwrap_err();
    assert!(error.contains("more than 524288 bytes"), "{error}");
    let step = format!("{{ label: {{ a: \"{}\" }} }}, ", "${A}".repeat(50));
    let error = parse(&format!(
        "build: {{ args: {{ A: {long} }}, stages: [ {{ name: a, from: scratch, steps: [ {} ] }} ] }}",
        step.repeat(100)
    ))
    .unwrap_err();
    assert!(error.contains("with its build arguments the build has more than 524288 bytes"), "{error}");
}

#[test]
fn bases() {
    for (text, root) in [
        ("host", RootKind::Host),
        ("scratch", RootKind::Own),
        ("debian", RootKind::Own),
        ("debian:sid", RootKind::Own),
        ("registry.example/python:3.13", RootKind::Own),
        ("localhost/x:1", RootKind::Own),
        (
            "host:5000/x@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            RootKind::Own,
        ),
    ] {
        let file = parse(&format!("build: {{ stages: [ {{ name: a, from: \"{text}\" }} ] }}")).unwrap();
        assert_eq!(file.resolve().unwrap().root, root, "{text}");
        let printed = file.build.unwrap().stages[0].from.to_string();
        assert_eq!(printed, if text == "debian" { "debian:trixie" } else { text });
    }
    for (bad, says) in [
        (
            "ubuntu",
            "`ubuntu` is not a base, expected host, scratch, debian[:SUITE], stage:NAME, aap:REF, HOST/PATH:TAG",
        ),
        ("python:3.13", "is not a base"),
        ("library/python:3.13", "is not a base"),
        ("Host", "is not a base"),
        ("", "is not a base"),
        ("debian:", "suite `` is not valid"),
        ("debian:12", "suite `12`"),
        ("debian:a b", "suite `a b`"),
        ("debian:../x", "suite `../x`"),
        ("debian:trixie --x", "suite"),
        ("stage:", "stage name ``"),
        ("aap:web", "`web` has no tag and no digest"),
        ("aap:", "reference is empty"),
        ("aap:../x:1", "registry `..`"),
        ("registry.example/x", "has no tag and no digest"),
        ("docker://registry.example/x:1", "leave it out"),
        ("oci:/srv/x:1", "registry `oci:`"),
    ] {
        let error = parse(&format!("build: {{ stages: [ {{ name: a, from: \"{bad}\" }} ] }}")).unwrap_err();
        assert!(error.starts_with("Agentfile:5:37: build.stages[0].from: "), "{bad}: {error}");
        assert!(error.contains(says), "{bad}: {error}");
    }
    let error =
        parse("build: { stages: [ { name: a, from: aap:web:1.0.0 } ] }").unwrap().resolve().unwrap_err();
    assert!(error.to_string().contains("`web:1.0.0` is not known yet"), "{error}");
}

#[test]
fn wrong_steps_are_named() {
    for (step, says) in [
        ("{ run: '' }", "steps[0].run: empty, expected a text for the shell"),
        ("{ run: '  ' }", "steps[0].run: empty"),
        ("{ run: [] }", "steps[0].run: empty"),
        ("{ run: [ '', x ] }", "steps[0].run: empty"),
        ("{ run: \"a\\0b\" }", "steps[0].run: argument `a\\u{0}b` has U+0000"),
        ("{ run: { net: [] } }", "steps[0].run.command: missing"),
        (
            "{ run: { command: x, shell: y } }",
            "steps[0].run.shell: unknown field `shell`, known are command, net, cache, secrets, timeout",
        ),
        (
            "{ run: { command: x, net: [ pypi.org ] } }",
            "steps[0].run.net[0]: capability `net`: `pypi.org` has not the form HOST:PORT",
        ),
        ("{ run: { command: x, net: [ \"10.0.0.1:80\" ] } }", "looks like an address"),
        (
            "{ run: { command: x, net: \"a.org:1\" } }",
            "steps[0].run.net: expected a list of HOST:PORT, found text",
        ),
        ("{ run: { command: x, cache: [ rel ] } }", "steps[0].run.cache[0]: path `rel` is not absolute"),
        ("{ run: { command: x, cache: [ / ] } }", "`/` is the stage itself"),
        ("{ run: { command: x, cache: [ /a, /a/b ] } }", "`/a/b` lies in `/a`"),
        ("{ run: { command: x, cache: [ /a, /a ] } }", "steps[0].run.cache[1]: `/a` appears twice"),
        ("{ run: { command: x, secrets: [ ../x ] } }", "secret name `../x`"),
        ("{ run: { command: x, secrets: [ .x ] } }", "secret name `.x`"),
        ("{ run: { command: x, timeout: 10 } }", "steps[0].run.timeout: duration `10` is not valid"),
        ("{ copy: { from: [], to: / } }", "steps[0].copy.from: empty"),
        (
            "{ copy: { from: [ a, b ], to: /x } }",
            "steps[0].copy.to: several sources go into a directory: write `/x/`",
        ),
        ("{ copy: { from: 'a*', to: /x } }", "write `/x/`"),
        ("{ copy: { from: '[', to: /x/ } }", "a set is written"),
        ("{ copy: { from: 'a**', to: /x/ } }", "`**` stands alone"),
        ("{ copy: { from: '../*', to: /x/ } }", "segment `..`"),
        ("{ copy: { from: '/etc/*', to: /x/ } }", "is absolute"),
        (
            "{ copy: { from: a, to: /x, stage: b, package: c } }",
            "steps[0].copy.package: stands beside `stage`",
        ),
        (
            "{ copy: { from: /, to: /x, package: c } }",
            "steps[0].copy.package: `c` is not a package of `dependencies`",
        ),
        ("{ copy: { from: a, to: /x, owner: root } }", "owner `root` is not valid"),
        ("{ copy: { from: a, to: /x, owner: \"4294967295:0\" } }", "owner"),
        ("{ copy: { from: a, to: /x, mode: 4755 } }", "mode `4755` is not valid"),
        ("{ copy: { from: a, to: /x, mode: 789 } }", "mode `789`"),
        ("{ copy: { from: a, to: /x, exclude: [ '' ] } }", "steps[0].copy.exclude[0]: path is empty"),
        ("{ copy: { from: a, to: /x, exclude: [ 'a\\b*' ] } }", "backslash"),
        ("{ expose: [ 0 ] }", "steps[0].expose[0]: port `0`"),
        ("{ expose: 80 }", "steps[0].expose: expected a list of ports"),
        ("{ expose: [ 99999999999999999999 ] }", "port `99999999999999999999`"),
        (
            "{ env: { A: '${B}' } }",
            "Agentfile:5:67: build.stages[0].steps[0].env.A: `${B}` is not a build argument, declared in build.args: none",
        ),
        ("{ env: { A: '${B' } }", "not closed"),
        ("{ install: x }", "`install` is not supported"),
        ("{ plugin: x }", "`plugin` is not supported"),
    ] {
        let error = steps(step).unwrap_err();
        assert!(error.contains(says), "{step}\n{says}\n{error}");
    }
    // Keys are not values.
    assert!(steps("{ env: { '${B}': x } }").unwrap_err().contains("environment variable name"));
    for (stage, says) in [
        (
            "name: a, from: scratch, packages: [ x ]",
            "only a stage from debian has packages, and this one is from scratch",
        ),
        ("name: a, from: debian, packages: [ -x ]", "Debian package `-x`"),
        ("name: a, from: debian, packages: [ '?x' ]", "Debian package"),
        ("name: a, from: debian, packages: [ 'python3-' ]", "Debian package `python3-`"),
        ("name: a, from: debian, packages: [ python3/sid ]", "Debian package"),
        ("name: a, from: debian, packages: [ aa, aa ]", "packages[1]: `aa` appears twice"),
        ("name: a, from: debian, packages: [ aa= ]", "Debian package `aa=`"),
    ] {
        let error = parse(&format!("build: {{ stages: [ {{ {stage} }} ] }}")).unwrap_err();
        assert!(error.contains(says), "{stage}\n{error}");
    }
    let error = parse("build: { args: { 1A: x }, stages: [ { name: a, from: host } ] }").unwrap_err();
    assert!(error.contains("build.args.1A: environment variable name"), "{error}");
}

#[test]
fn the_graph_is_checked() {
    for (stages, says) in [
        (
            "{ name: a, from: stage:b }",
            "Agentfile:5:31: build.stages[0].from: there is no stage `b`, stages are a",
        ),
        ("{ name: a, from: stage:a }", "build.stages[0].from: stage `a` needs itself"),
        ("{ name: a, from: host, dependsOn: [ a ] }", "build.stages[0].dependsOn[0]: stage `a` needs itself"),
        (
            "{ name: a, from: host, steps: [ { copy: { from: ., to: /x, stage: a } } ] }",
            "build.stages[0].steps[0].copy.stage: stage `a` needs itself",
        ),
        (
            "{ name: c, from: stage:b }, { name: a, from: stage:c }, { name: b, from: host, dependsOn: [ a ] }",
            "build.stages[1].from: the stages need each other in a circle: `a` needs `c` needs `b` needs `a`",
        ),
        (
            "{ name: a, from: host }, { name: a, from: host }",
            "build.stages[1].name: two stages have the name `a`",
        ),
    ] {
        let error = parse(&format!("build: {{ stages: [ {stages} ] }}")).unwrap_err();
        assert!(error.contains(says), "{stages}\n{error}");
    }
    let build = build(
        "build: { stages: [ { name: z, from: host }, { name: y, from: host, dependsOn: [ z ] }, { name: b, from: host }, { name: a, from: stage:z } ] }",
    );
    let order: Vec<&str> =
        graph::order(&build).unwrap().into_iter().map(|i| build.stages[i].name.as_str()).collect();
    assert_eq!(order, ["b", "z", "a", "y"]);
    assert_eq!(build.output().unwrap().name.as_str(), "a");
    assert_eq!(build.needed().into_iter().collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn settings_come_from_the_stages_below() {
    let file = parse(
        "build: { stages: [ { name: x, from: scratch, steps: [ { env: { A: x, B: x, C: x } }, { workdir: /x }, { expose: [ 1 ] }, { label: { l: x } } ] }, { name: y, from: stage:x, steps: [ { env: { B: y } }, { expose: [ 2/udp, 1 ] } ] } ] }",
    )
    .unwrap();
    let agent = file.resolve().unwrap();
    let run = agent.run().unwrap();
    let env: Vec<_> = run.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=x", "B=y", "C=x"]);
    assert_eq!((run.workdir.as_str(), agent.root), ("/x", RootKind::Own));
    let ports: Vec<String> = agent.expose.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["1/tcp", "2/udp"]);
    assert_eq!(agent.labels.len(), 1);
}

#[test]
fn kinds() {
    let text = |kind: &str, rest: &str| {
        let text =
            format!("apiVersion: aos/v1\nkind: {kind}\nmetadata: {{ name: web, version: 1.0.0 }}\n{rest}\n");
        Agentfile::parse(&text, Format::Yaml, "f").map_err(|error| error.to_string())
    };
    let run = "run: { entrypoint: [ /bin/true ] }";
    let skill = text("Skill", "").unwrap();
    assert_eq!((skill.kind, skill.default_directory()), (PackageKind::Skill, "/skill"));
    let agent = skill.resolve().unwrap();
    let says = agent.run().unwrap_err().to_string();
    assert_eq!(says, "web:1.0.0 is of kind Skill: it has nothing to start");
    let json = String::from_utf8(agent.to_canonical_json().unwrap()).unwrap();
    assert_eq!(
        json,
        r#"{"capabilities":[],"kind":"Skill","limits":{},"name":"web","root":"host","version":"1.0.0"}"#
    );
    let server = text("McpServer", run).unwrap();
    assert_eq!((server.kind, server.default_directory()), (PackageKind::McpServer, "/app"));
    for (kind, rest, says) in [
        ("Skill", run, "f:4:6: run: a Skill is never started, so that it has none: remove it"),
        ("Skill", "capabilities: []", "capabilities: a Skill is never started"),
        ("Skill", "limits: {}", "limits: a Skill is never started"),
        ("McpServer", "", "f:1:1: run: missing"),
        ("Agent", "", "f:1:1: run: missing"),
        ("Agent", "run: { workdir: / }", "f:4:1: run.entrypoint: missing"),
    ] {
        let error = text(kind, rest).unwrap_err();
        assert!(error.contains(says), "{kind} {rest}\n{error}");
    }
}

proptest! {
    #[test]
    fn stage_graphs_have_an_order_or_a_reason(edges in prop::collection::vec((0..5_usize, 0..5_usize), 0..8)) {
        let needs = |stage: usize| -> String {
            let names: std::collections::BTreeSet<String> =
                edges.iter().filter(|(from, _)| *from == stage).map(|(_, to)| format!("s{to}")).collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        };
        let stages: Vec<String> =
            (0..5).map(|stage| format!("{{ name: s{stage}, from: host, dependsOn: [ {} ] }}", needs(stage))).collect();
        match parse(&format!("build: {{ stages: [ {} ] }}", stages.join(", "))) {
            Ok(file) => {
                let build = file.build.unwrap();
                let order = graph::order(&build).unwrap();
                prop_assert_eq!(order.len(), 5);
                let place = |stage: usize| order.iter().position(|&other| other == stage);
                for &(from, to) in &edges {
                    prop_assert!(place(to) < place(from));
                }
            }
            Err(error) => prop_assert!(error.contains("needs itself") || error.contains("in a circle"), "{}", error),
        }
    }
}
