//! Stages: bases, copies between them, patterns, owners, arguments, parents, many layers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_build::{Local, Request, Silent, StepState, build, plan};
use aos_core::agentfile::Arguments;
use aos_core::config::RootKind;
use aos_package::layer::read::{Items, Kind};
use common::{SIMPLE, directory, options, paths, refused, store, with_build, write};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// `SIMPLE` with these stages.
fn with_stages(stages: &str) -> String {
    format!("{SIMPLE}build:\n  stages:\n{stages}")
}

/// The paths of a package that is built from one stage on the host.
fn built_paths(steps: &str, files: &[(&str, &str)]) -> Vec<String> {
    let dir = directory(
        &with_build("host", &format!("{{ copy: {{ from: main.py, to: /app/ }} }}, {steps}")),
        files,
    );
    write(dir.path(), "main.py", "");
    let store = store();
    let built = store.build(dir.path()).unwrap();
    paths(store.unpack(&built).path()).into_iter().filter(|path| path.contains("x")).collect()
}

#[test]
fn patterns_take_what_matches_and_keep_its_path() {
    let files = [
        ("src/a.py", ""),
        ("src/b.txt", ""),
        ("src/sub/c.py", ""),
        ("src/sub/deep/d.py", ""),
        ("src/sub.py/e", ""),
        ("src.py", ""),
    ];
    for (from, to, expected) in [
        ("src/*.py", "/x/", vec!["x", "x/a.py", "x/sub.py", "x/sub.py/e"]),
        (
            "src/**/*.py",
            "/x/",
            vec![
                "x",
                "x/a.py",
                "x/sub",
                "x/sub.py",
                "x/sub.py/e",
                "x/sub/c.py",
                "x/sub/deep",
                "x/sub/deep/d.py",
            ],
        ),
        ("'s*.py'", "/x/", vec!["x", "x/src.py"]),
        ("'src/su[b]'", "/x/", vec!["x", "x/sub", "x/sub/c.py", "x/sub/deep", "x/sub/deep/d.py"]),
        ("[src/a.py, src/sub]", "/x/", vec!["x", "x/a.py", "x/c.py", "x/deep", "x/deep/d.py"]),
        (
            "src",
            "/x",
            vec![
                "x",
                "x/a.py",
                "x/b.txt",
                "x/sub",
                "x/sub.py",
                "x/sub.py/e",
                "x/sub/c.py",
                "x/sub/deep",
                "x/sub/deep/d.py",
            ],
        ),
    ] {
        let steps = format!("{{ copy: {{ from: {from}, to: {to} }} }}");
        assert_eq!(built_paths(&steps, &files), expected, "{from}");
    }
    let without = "{ copy: { from: src, to: /x, exclude: ['*.py', sub/deep] } }";
    assert_eq!(built_paths(without, &files), ["x", "x/b.txt", "x/sub"]);
    let nothing = with_build("host", "{ copy: { from: 'src/*.rs', to: /x/ } }");
    let error = refused(directory(&nothing, &files).path());
    assert!(error.contains("steps[0].copy.from: nothing matches `src/*.rs`"), "{error}");
    let nothing = with_build("host", "{ copy: { from: [src, 'none/*'], to: /x/ } }");
    let error = refused(directory(&nothing, &files).path());
    assert!(error.contains("steps[0].copy.from[1]: `none` does not exist"), "{error}");
}

#[test]
fn owners_and_modes_are_what_the_step_says() {
    let steps = "{ copy: { from: src, to: /app, owner: '7:8', mode: '0640' } }, { copy: { from: src/run, to: /bin/run } }";
    let agentfile = with_build("host", steps).replace("/app/main.py", "/app/run");
    let dir = directory(&agentfile, &[("src/run*", ""), ("src/d/f", "")]);
    symlink("run", dir.path().join("src/link")).unwrap();
    let store = store();
    let built = store.build(dir.path()).unwrap();
    assert_eq!(built.layers.len(), 2);
    let root = store.unpack(&built);
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("app"), mode("app/d"), mode("app/run"), mode("bin/run")), (0o750, 0o750, 0o640, 0o755));
    // The numbers of the owner are in the layer, and not on disk.
    let blob = store.repository.open_blob(&built.layers[0].digest).unwrap();
    let (_, config) = store.repository.package(&built.manifest).unwrap();
    let items: Vec<_> =
        Items::open(blob, &built.layers[0], config.diff_ids[0]).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(items.iter().filter(|item| matches!(item.kind, Kind::File(_))).count(), 2);
    let other =
        store.build(directory(&agentfile.replace("7:8", "7:9"), &[("src/run*", ""), ("src/d/f", "")]).path());
    assert_ne!(other.unwrap().digest, built.digest);
}

#[test]
fn stages_take_from_each_other() {
    let agentfile = with_stages(
        "    - { name: lib, from: scratch, steps: [ { copy: { from: lib, to: /out } } ] }
    - { name: more, from: 'stage:lib', steps: [ { copy: { from: more, to: /out } }, { env: { A: '1' } } ] }
    - name: app
      from: scratch
      steps:
        - copy: { stage: more, from: out/bin, to: /app/bin }
        - copy: { stage: more, from: link/tool, to: /app/tool }
        - copy: { stage: lib, from: 'out/**/*.txt', to: /app/ }
",
    )
    .replace("[ /usr/bin/python3, /app/main.py ]", "[ /app/tool ]");
    let dir = directory(
        &agentfile,
        &[("lib/bin/tool*", "old"), ("lib/a.txt", ""), ("more/bin/tool*", "new"), ("more/x/b.txt", "")],
    );
    fs::create_dir(dir.path().join("lib/links")).unwrap();
    symlink("../bin", dir.path().join("lib/links/bin")).unwrap();
    let store = store();
    // `link` is not there.
    let error = common::chain(&store.build(dir.path()).unwrap_err());
    assert!(error.contains("steps[1].copy.from: `link/tool` does not exist there"), "{error}");
    write(dir.path(), "Agentfile", &agentfile.replace("link/tool", "out/links/bin/tool"));
    let built = store.build(dir.path()).unwrap();
    assert_eq!(built.agent.root, RootKind::Own);
    assert!(built.agent.run.as_ref().unwrap().env.is_empty(), "nothing is taken but files");
    let root = store.unpack(&built);
    assert_eq!(paths(root.path()), ["app", "app/a.txt", "app/bin", "app/bin/tool", "app/tool"]);
    assert_eq!(fs::read_to_string(root.path().join("app/tool")).unwrap(), "new");
    assert_eq!((built.steps, built.cached_steps), (5, 3), "the first attempt came that far");
    let again = store.build(dir.path()).unwrap();
    assert_eq!((again.digest, again.steps, again.cached_steps), (built.digest, 5, 5));
}

#[test]
fn a_stage_starts_from_another_one_or_from_a_package() {
    let base = with_build(
        "scratch",
        "{ copy: { from: ., to: /app } }, { env: { A: '1', B: '1' } }, { workdir: /app }",
    )
    .replace("name: web", "name: base")
    .replace("/usr/bin/python3, /app/main.py", "/app/main.py");
    let dir = directory(&base, &[("main.py*", "base"), ("old", "")]);
    let store = store();
    let base = store.build(dir.path()).unwrap();
    let child = with_stages(
        "    - { name: one, from: 'aap:base:1.0.0', steps: [ { copy: { from: new, to: /app/ } }, { env: { B: '2' } } ] }
    - { name: two, from: 'stage:one' }
",
    )
    .replace("/usr/bin/python3, /app/main.py", "/app/main.py");
    let dir = directory(&child, &[("new", "")]);
    let built = store.build(dir.path()).unwrap();
    assert_eq!(built.layers.len(), 2);
    assert_eq!(built.layers[0], base.layers[0]);
    let run = built.agent.run.as_ref().unwrap();
    let env: Vec<_> =
        run.env.iter().map(|(name, value)| format!("{}={}", name.as_str(), value.as_str())).collect();
    assert_eq!((env, run.workdir.as_str()), (vec!["A=1".to_owned(), "B=2".to_owned()], "/app"));
    assert_eq!(built.agent.root, RootKind::Own);
    assert_eq!(paths(store.unpack(&built).path()), ["app", "app/main.py", "app/new", "app/old"]);
    assert_eq!(built.materials.bases[0].name, "aap:base:1.0.0");
    assert_eq!(built.materials.bases[0].digest, base.digest);
    // The listing of the base is known from the first time.
    fs::write(dir.path().join("Agentfile"), child.replace("base:1.0.0", "base:2.0.0")).unwrap();
    let error = common::chain(&store.build(dir.path()).unwrap_err());
    assert!(error.starts_with("cannot get `aap:base:2.0.0`: "), "{error}");
}

#[test]
fn links_of_a_base_are_followed_on_the_way_to_a_target() {
    let base = with_build("scratch", "{ copy: { from: ., to: / } }")
        .replace("name: web", "name: base")
        .replace("/usr/bin/python3, /app/main.py", "/bin/sh");
    let dir = directory(&base, &[("usr/bin/sh*", "")]);
    symlink("usr/bin", dir.path().join("bin")).unwrap();
    fs::create_dir(dir.path().join("opt")).unwrap();
    let store = store();
    store.build(dir.path()).unwrap();
    let child = with_build(
        "'aap:base:1.0.0'",
        "{ copy: { from: ., to: / } }, { copy: { from: bin/tool, to: /bin/more } }",
    )
    .replace("/usr/bin/python3, /app/main.py", "/bin/tool");
    let dir = directory(&child, &[("bin/tool*", ""), ("opt/x", "")]);
    let built = store.build(dir.path()).unwrap();
    let root = store.unpack(&built);
    assert_eq!(
        paths(root.path()),
        ["bin", "opt", "opt/x", "usr", "usr/bin", "usr/bin/more", "usr/bin/sh", "usr/bin/tool"]
    );
    assert!(fs::symlink_metadata(root.path().join("bin")).unwrap().is_symlink());
}

#[test]
fn what_is_wrong_with_stages_is_named_with_its_place() {
    for (stages, says) in [
        (
            "    - { name: a, from: 'stage:b' }\n    - { name: b, from: 'stage:c' }\n    - { name: c, from: scratch, dependsOn: [a] }\n",
            "Agentfile:7:18: build.stages[0].from: the stages need each other in a circle: `a` needs `b` needs `c` needs `a`",
        ),
        (
            "    - { name: a, from: 'stage:b' }\n",
            "Agentfile:7:18: build.stages[0].from: there is no stage `b`",
        ),
        ("    - { name: a, from: scratch, dependsOn: [a] }\n", "stage `a` needs itself"),
    ] {
        let dir = directory(&with_stages(stages), &[("main.py", "")]);
        let error = refused(dir.path());
        assert!(error.contains(says), "{error}");
    }
    let dependency = with_build("host", "{ copy: { package: pdf, from: ., to: /app } }");
    let error = refused(directory(&dependency, &[]).path());
    assert!(error.contains("pdf"), "{error}");
}

#[test]
fn arguments_and_names_are_those_of_the_request() {
    let agentfile = format!(
        "{SIMPLE}build: {{ args: {{ WHAT: a }}, stages: [ {{ name: app, from: host, steps: [ {{ copy: {{ from: '${{WHAT}}', to: /app }} }} ] }} ] }}\n"
    );
    let dir = directory(&agentfile, &[("a/main.py", "a"), ("b/main.py", "b")]);
    let store = store();
    let usual = store.build(dir.path()).unwrap();
    let mut request = Request::new(dir.path(), options());
    request.arguments = Arguments::from([("WHAT".parse().unwrap(), "b".parse().unwrap())]);
    request.name = Some("other".parse().unwrap());
    request.version = Some("2.0.0".parse().unwrap());
    let other = build(&request, &store.repository, &Local, &Silent).unwrap();
    assert_eq!(other.reference.to_string(), "other:2.0.0");
    assert_eq!(fs::read_to_string(store.unpack(&other).path().join("app/main.py")).unwrap(), "b");
    assert_ne!(other.layers, usual.layers);
    assert_eq!(other.materials.arguments["WHAT"], "b");
    assert!(store.repository.resolve(&"other:2.0.0".parse().unwrap()).is_ok());
    let unknown = Arguments::from([("WHO".parse().unwrap(), "x".parse().unwrap())]);
    let error =
        build(&Request { arguments: unknown, ..request }, &store.repository, &Local, &Silent).unwrap_err();
    assert!(error.to_string().contains("WHO"), "{error}");
}

#[test]
fn another_agentfile_may_be_named() {
    let dir =
        directory(SIMPLE, &[("main.py", ""), ("other.yaml", &SIMPLE.replace("name: web", "name: other"))]);
    let store = store();
    let path = dir.path().join("other.yaml");
    let request = Request { agentfile: Some(&path), ..Request::new(dir.path(), options()) };
    let built = build(&request, &store.repository, &Local, &Silent).unwrap();
    assert_eq!(built.agent.name.to_string(), "other");
    // It is no part of the package, and the one with the usual name is.
    assert_eq!(paths(store.unpack(&built).path()), ["app", "app/Agentfile", "app/main.py"]);
    let missing = dir.path().join("none.yaml");
    let request = Request { agentfile: Some(&missing), ..request };
    let error = build(&request, &store.repository, &Local, &Silent).unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}

#[test]
fn a_file_or_a_package_may_be_extended() {
    let dir = directory(SIMPLE, &[("main.py", "")]);
    let parent = with_build("host", "{ copy: { from: main.py, to: /app/ } }, { env: { A: '1' } }");
    write(dir.path(), "templates/parent.yaml", &parent);
    write(
        dir.path(),
        "Agentfile",
        "apiVersion: aos/v1\nkind: Agent\nextends: ./templates/parent.yaml\nmetadata: { name: child, version: 1.0.0 }\n",
    );
    let store = store();
    let built = store.build(dir.path()).unwrap();
    assert_eq!(built.reference.to_string(), "child:1.0.0");
    assert_eq!(paths(store.unpack(&built).path()), ["app", "app/main.py"]);
    // An error in the parent is named with the parent's file.
    fs::remove_file(dir.path().join("main.py")).unwrap();
    let error = common::chain(&store.build(dir.path()).unwrap_err());
    assert!(error.contains("templates/parent.yaml:5:"), "{error}");
    write(
        dir.path(),
        "Agentfile",
        "apiVersion: aos/v1\nkind: Agent\nextends: child:1.0.0\nmetadata: { name: grandchild, version: 1.0.0 }\n",
    );
    let grandchild = store.build(dir.path()).unwrap();
    assert_eq!(grandchild.layers, built.layers);
    assert_eq!(grandchild.agent.run, built.agent.run);
}

#[test]
fn a_skill_has_its_file() {
    let agentfile = "apiVersion: aos/v1\nkind: Skill\nmetadata: { name: pdf, version: 1.0.0 }\n";
    let dir = directory(agentfile, &[("SKILL.md", "# pdf"), ("x/y", "")]);
    let store = store();
    let built = store.build(dir.path()).unwrap();
    assert_eq!(paths(store.unpack(&built).path()), ["skill", "skill/SKILL.md", "skill/x", "skill/x/y"]);
    fs::remove_file(dir.path().join("SKILL.md")).unwrap();
    let error = common::chain(&store.build(dir.path()).unwrap_err());
    assert!(error.contains("Agentfile:2:1: kind: a skill has the file `/skill/SKILL.md`"), "{error}");
}

/// More steps than a package has layers.
#[test]
fn many_layers_become_fewer() {
    let step = |n: usize| format!("{{ copy: {{ from: f{}, to: /app/x{n} }} }}", n % 2);
    let steps: Vec<String> = (0..70).map(step).collect();
    let dir = directory(
        &with_build("host", &steps.join(", ")).replace("main.py", "x3"),
        &[("f0", "zero"), ("f1", "one")],
    );
    let store = store();
    let built = store.build(dir.path()).unwrap();
    assert_eq!((built.layers.len(), built.entries), (64, 71));
    let root = store.unpack(&built);
    assert_eq!(paths(root.path()).len(), 71);
    for n in 0..70 {
        let text = fs::read_to_string(root.path().join(format!("app/x{n}"))).unwrap();
        assert_eq!(text, ["zero", "one"][n % 2]);
    }
    let again = store.build(dir.path()).unwrap();
    assert_eq!((again.digest, again.cached_steps), (built.digest, again.steps));
}

#[test]
fn a_plan_says_what_would_be_done() {
    let agentfile = with_stages(
        "    - { name: z, from: scratch, steps: [ { copy: { from: lib, to: /out } }, { run: 'true' }, { copy: { from: lib, to: /more } } ] }
    - { name: a, from: scratch, steps: [ { copy: { from: lib, to: /out } }, { label: { k: v } } ] }
    - name: app
      from: host
      steps:
        - copy: { stage: a, from: ., to: /app }
        - copy: { stage: z, from: ., to: /app }
",
    );
    let dir = directory(&agentfile, &[("lib/f", "")]);
    let store = store();
    let of = |dir: &Path| plan(&Request::new(dir, options()), &store.repository, &Local).unwrap();
    let planned = of(dir.path());
    let stages: Vec<_> = planned.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!((planned.package.as_str(), stages), ("web:1.0.0", vec!["a", "z", "app"]));
    let states = |plan: &aos_build::Plan| -> Vec<StepState> {
        plan.stages.iter().flat_map(|stage| stage.steps.iter().map(|step| step.state)).collect()
    };
    use StepState::{Build, Cached, Later, Setting};
    assert_eq!(states(&planned), [Build, Setting, Build, Later, Later, Build, Later]);
    assert_eq!(planned.stages[2].needs, ["a", "z"]);
    let row = &planned.rows()[0];
    assert_eq!(
        (row[0].as_str(), row[1].as_str(), row[2].as_str(), row[4].as_str()),
        ("a", "1", "copy lib /out", "build")
    );
    assert_eq!(row[3].len(), 12);
    assert!(serde_json::to_string(&planned).unwrap().contains("\"state\":\"later\""));

    // Without the step that runs, all of it can be known.
    write(dir.path(), "Agentfile", &agentfile.replace("{ run: 'true' }, ", "").replace("main.py", "out/f"));
    assert_eq!(states(&of(dir.path())), [Build, Setting, Build, Build, Build, Build]);
    store.build(dir.path()).unwrap();
    assert_eq!(states(&of(dir.path())), [Cached, Setting, Cached, Cached, Cached, Cached]);
}

#[test]
fn files_of_a_locked_dependency_are_copied() {
    let skill = "apiVersion: aos/v1\nkind: Skill\nmetadata: { name: pdf, version: 1.2.0 }\n";
    let store = store();
    let pdf = store.build(directory(skill, &[("SKILL.md", "# pdf"), ("scripts/x", "x")]).path()).unwrap();
    let agentfile = format!(
        "{}dependencies: [ {{ skill: pdf, version: ^1 }} ]\n",
        with_build(
            "host",
            "{ copy: { package: pdf, from: skill, to: /app/pdf } }, { copy: { from: main.py, to: /app/ } }"
        )
    );
    let dir = directory(&agentfile, &[("main.py", "")]);
    let error = common::chain(&store.build(dir.path()).unwrap_err());
    assert!(error.contains("not locked"), "{error}");
    let lock = |digest: &str| {
        format!(
            "version = 1\n\n[[package]]\nkind = \"skill\"\nname = \"pdf\"\nversion = \"1.2.0\"\ndigest = \"{digest}\"\nsource = \"local\"\n"
        )
    };
    write(dir.path(), "Agentfile.lock", &lock(&pdf.digest.to_string()));
    let built = store.build(dir.path()).unwrap();
    let root = store.unpack(&built);
    assert_eq!(
        paths(root.path()),
        ["app", "app/main.py", "app/pdf", "app/pdf/SKILL.md", "app/pdf/scripts", "app/pdf/scripts/x"]
    );
    assert_eq!(built.agent.dependencies[0].digest, Some(pdf.digest));
    assert_eq!(
        (built.materials.bases[0].name.as_str(), built.materials.bases[0].digest),
        ("skill pdf", pdf.digest)
    );
    // Another content under the same name is not taken.
    write(dir.path(), "Agentfile.lock", &lock(&built.digest.to_string()));
    let error = common::chain(&store.build(dir.path()).unwrap_err());
    assert_eq!(error, format!("`skill pdf` cannot be used: {} is Agent web", built.digest));
    write(dir.path(), "Agentfile.lock", &lock(&format!("sha256:{}", "0".repeat(64))));
    assert!(common::chain(&store.build(dir.path()).unwrap_err()).contains("cannot get `skill pdf`"));
    write(dir.path(), "Agentfile.lock", "version = 2\n");
    let error = common::chain(&store.build(dir.path()).unwrap_err());
    assert!(error.contains("Agentfile.lock: ") && error.contains("aos lock"), "{error}");
}
