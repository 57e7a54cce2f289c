//! Steps that run: what they change becomes a layer, and is made once.
//!
//! They need `aos-launch`, which `cargo build -p aos-sandbox` makes, or `AOS_LAUNCH` names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic in a helper is the test's failure report, and tests read the environment"
)]

mod common;

use aos_build::run::Secret;
use aos_build::{Local, Options, Request, build};
use common::{Store, Told, chain, directory, options, paths, store, with_build, write};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn launcher() -> PathBuf {
    if let Some(path) = std::env::var_os("AOS_LAUNCH") {
        return path.into();
    }
    // The test is target/PROFILE/deps/NAME.
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("aos-launch");
    assert!(path.exists(), "{} is missing: cargo build -p aos-sandbox", path.display());
    path
}

fn with_launcher() -> Options {
    Options { launcher: launcher(), ..options() }
}

/// A store that the user of steps that root starts can reach.
fn reachable() -> Store {
    let store = store();
    fs::set_permissions(store.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(store.repository.root(), fs::Permissions::from_mode(0o711)).unwrap();
    store
}

fn run(store: &Store, dir: &Path) -> (aos_build::Built, Vec<String>) {
    let told = Told::default();
    let built = build(&Request::new(dir, with_launcher()), &store.repository, &Local, &told);
    match built {
        Ok(built) => (built, told.lines()),
        Err(error) => panic!("{}\n{}", chain(&error), told.lines().join("\n")),
    }
}

#[test]
fn changes_become_a_layer_and_are_made_once() {
    let steps = "{ copy: { from: src, to: /app } }, { workdir: /app }, { env: { WHO: you } }, \
        { run: 'echo hello $WHO; rm old; mkdir -p made/sub; echo $WHO > made/sub/f; chmod 755 main.py; ln main.py hard; ln -s main.py soft; mv d e' }, \
        { copy: { from: src/old, to: /app/made/ } }, { run: 'cat made/old made/sub/f > both' }";
    let dir =
        directory(&with_build("host", steps), &[("src/main.py", "x"), ("src/old", "old"), ("src/d/f", "")]);
    let store = reachable();
    let (built, told) = run(&store, dir.path());
    assert!(told.iter().any(|line| line.ends_with(": hello you")), "{told:?}");
    assert_eq!((built.layers.len(), built.steps, built.cached_steps), (4, 4, 0));
    let root = store.unpack(&built);
    assert_eq!(
        paths(root.path()),
        [
            "app",
            "app/both",
            "app/e",
            "app/e/f",
            "app/hard",
            "app/made",
            "app/made/old",
            "app/made/sub",
            "app/made/sub/f",
            "app/main.py",
            "app/soft"
        ]
    );
    assert_eq!(built.entries, 11);
    assert_eq!(fs::read_to_string(root.path().join("app/both")).unwrap(), "oldyou\n");
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("app/main.py"), mode("app/made/sub/f")), (0o755, 0o644));

    let (again, _) = run(&store, dir.path());
    assert_eq!((again.digest, again.cached_steps), (built.digest, 4));
    // A file that no command reads: its own layer, and what stands on it.
    write(dir.path(), "src/new", "");
    assert_eq!(run(&store, dir.path()).0.cached_steps, 1, "only the copy in between is the same");
    // Elsewhere it is the same.
    let other = reachable();
    fs::remove_file(dir.path().join("src/new")).unwrap();
    assert_eq!(run(&other, dir.path()).0.digest, built.digest);
}

#[test]
fn a_stage_that_compiles_leaves_no_tools_behind() {
    let agentfile = format!(
        "{}build:
  stages:
    - name: tools
      from: host
      steps:
        - copy: {{ from: src, to: /src }}
        - run: [ /bin/sh, -c, 'tr a-z A-Z < /src/in > /src/out' ]
    - name: app
      from: host
      steps:
        - copy: {{ stage: tools, from: src/out, to: /app/main.py }}
",
        common::SIMPLE
    );
    let dir = directory(&agentfile, &[("src/in", "loud")]);
    let store = reachable();
    let (built, _) = run(&store, dir.path());
    let root = store.unpack(&built);
    assert_eq!(paths(root.path()), ["app", "app/main.py"]);
    assert_eq!(fs::read_to_string(root.path().join("app/main.py")).unwrap(), "LOUD");
    // The same output of another input: what stands on the output is the same.
    write(dir.path(), "src/in", "LOUD");
    let (again, _) = run(&store, dir.path());
    assert_eq!((again.digest, again.steps, again.cached_steps), (built.digest, 3, 1));
}

#[test]
fn a_step_that_changes_nothing_makes_no_layer() {
    let steps = "{ copy: { from: main.py, to: /app/ } }, { run: 'test -e /app/main.py && touch /app/x && rm /app/x' }";
    let dir = directory(&with_build("host", steps), &[("main.py", "")]);
    let store = reachable();
    let (built, _) = run(&store, dir.path());
    assert_eq!((built.layers.len(), built.cached_steps), (1, 0));
    assert_eq!(run(&store, dir.path()).0.cached_steps, 2);
}

#[test]
fn a_failure_is_told_with_its_place() {
    let steps = "{ copy: { from: main.py, to: /app/ } }, { run: 'echo because >&2; exit 3' }";
    let dir = directory(&with_build("host", steps), &[("main.py", "")]);
    let store = reachable();
    let told = Told::default();
    let request = Request::new(dir.path(), with_launcher());
    let error = build(&request, &store.repository, &Local, &told).unwrap_err();
    let origin = dir.path().join("Agentfile");
    let expected = format!(
        "{}:5:96: [app 2/2] run echo because >&2; exit 3 failed: the step ended with status 3",
        origin.display()
    );
    assert_eq!(chain(&error), expected);
    let lines = told.lines();
    assert!(lines.iter().any(|line| line.ends_with(": because")), "{lines:?}");
    assert_eq!(lines.last().unwrap(), &format!("failed [app 2/2] run echo because >&2; exit 3: {expected}"));
    assert_eq!(fs::read_dir(store.repository.root().join("cache/scratch")).unwrap().count(), 0);
}

#[test]
fn caches_and_secrets_are_in_no_layer() {
    let steps = "{ copy: { from: main.py, to: /app/ } }, \
        { run: { command: 'cat /run/secrets/token >> /var/cache/x/seen; cp /var/cache/x/seen /app/n; wc -c < /app/n', cache: [ /var/cache/x ], secrets: [ token ] } }";
    let agentfile = with_build("host", steps);
    let dir = directory(&agentfile, &[("main.py", "")]);
    let store = reachable();
    let missing =
        build(&Request::new(dir.path(), with_launcher()), &store.repository, &Local, &Told::default());
    assert!(chain(&missing.unwrap_err()).contains("secrets[0]: no value was given for the secret `token`"));
    let run = |value: &str, agentfile: &str| {
        write(dir.path(), "Agentfile", agentfile);
        let mut options = with_launcher();
        let secret = Secret { name: "token".to_owned(), value: value.as_bytes().to_vec().into() };
        options.secrets.insert("token".parse().unwrap(), secret);
        let told = Told::default();
        let built = build(&Request::new(dir.path(), options), &store.repository, &Local, &told);
        built.unwrap_or_else(|error| panic!("{}\n{}", chain(&error), told.lines().join("\n")))
    };
    let first = run("12345", &agentfile);
    let root = store.unpack(&first);
    assert_eq!(paths(root.path()), ["app", "app/main.py", "app/n"]);
    assert_eq!(first.materials.secrets.iter().collect::<Vec<_>>(), ["token"]);
    // Another value is no other step; another command is, and finds the cache as it was left.
    assert_eq!(run("67890", &agentfile).digest, first.digest);
    let second = run("67890", &agentfile.replace("wc -c", "wc  -c"));
    assert_eq!(fs::read_to_string(store.unpack(&second).path().join("app/n")).unwrap(), "1234567890");
}
