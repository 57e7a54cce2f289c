//! Building: the same bytes from the same input, what is copied and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_build::Options;
use aos_core::config::RootKind;
use common::{SIMPLE, directory, options, refused, store, try_build, with_build, write};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

#[test]
fn the_same_input_gives_the_same_bytes() {
    let files = [("main.py", "print(1)"), ("bin/run*", "#!/bin/sh"), ("z/a", "1"), ("a.b", ""), ("a/b", "2")];
    let first = directory(SIMPLE, &files);
    let digest = |directory: &Path| try_build(directory).unwrap().digest;
    let built = digest(first.path());
    assert_eq!(digest(first.path()), built, "twice");

    // Another directory: other order of creation, times, modes.
    let second = directory(SIMPLE, &[]);
    for (name, text) in files.iter().rev() {
        write(second.path(), name, text);
        let path = second.path().join(name.trim_end_matches('*'));
        let mode = if name.ends_with('*') { 0o700 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    }
    fs::set_permissions(second.path().join("z"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(digest(second.path()), built, "another directory");

    // And each thing that matters changes them.
    write(second.path(), "main.py", "print(2)");
    assert_ne!(digest(second.path()), built, "contents");
    write(second.path(), "main.py", "print(1)");
    assert_eq!(digest(second.path()), built);
    write(second.path(), "a.b*", "");
    assert_ne!(digest(second.path()), built, "executable");
    let with = |options: Options| store().build_with(first.path(), options);
    let dated = with(Options { source_date_epoch: 1_700_000_000, ..options() }).unwrap();
    assert_ne!(dated.digest, built, "time");
    let other = with(Options { architecture: "riscv64".to_owned(), ..options() }).unwrap();
    assert_ne!(other.digest, built, "architecture");
    assert!(with(Options { source_date_epoch: u64::MAX, ..options() }).is_err());
    // Threads do not matter.
    for threads in [1, 7] {
        let threads = std::num::NonZeroUsize::new(threads).unwrap();
        assert_eq!(with(Options { threads, ..options() }).unwrap().digest, built);
    }
}

#[test]
fn without_build_the_directory_goes_to_app() {
    let dir = directory(
        SIMPLE,
        &[
            ("main.py", "x"),
            (".aosignore", "*.log\n/target/\n!keep.log\n# comment\n"),
            ("a.log", ""),
            ("keep.log", ""),
            ("sub/b.log", ""),
            ("sub/target/x", ""),
            ("target/x", ""),
            (".git/config", ""),
            ("sub/.git", "gitdir: x"),
            (".hidden", ""),
            ("old.aap", ""),
        ],
    );
    let store = store();
    let built = store.build(dir.path()).unwrap();
    assert_eq!((built.reference.to_string().as_str(), built.agent.root), ("web:1.0.0", RootKind::Host));
    let found = common::paths(store.unpack(&built).path());
    assert_eq!(
        found,
        [
            "app",
            "app/.hidden",
            "app/keep.log",
            "app/main.py",
            "app/sub",
            "app/sub/target",
            "app/sub/target/x"
        ]
    );
    assert_eq!(built.entries, found.len());
}

#[test]
fn steps_decide_what_goes_where() {
    let agentfile = with_build(
        "host",
        "{ copy: { from: src, to: /app } }, { copy: { from: one.py, to: /app/main.py } }, \
         { copy: { from: one.py, to: /opt/x/ } }, { env: { A: '1' } }, { workdir: /app }, { label: { k: v } }",
    );
    let dir = directory(
        &agentfile,
        &[("src/main.py", "old"), ("src/lib/a.py*", "a"), ("one.py", "new"), ("not", "")],
    );
    let store = store();
    let built = store.build(dir.path()).unwrap();
    let run = built.agent.run.as_ref().unwrap();
    assert_eq!((run.workdir.as_str(), run.env.len(), built.agent.labels.len()), ("/app", 1, 1));
    let root = store.unpack(&built);
    let rootfs = root.path();
    assert_eq!(
        common::paths(rootfs),
        ["app", "app/lib", "app/lib/a.py", "app/main.py", "opt", "opt/x", "opt/x/one.py"]
    );
    assert_eq!(fs::read_to_string(rootfs.join("app/main.py")).unwrap(), "new");
    let mode = |path: &str| fs::metadata(rootfs.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("app"), mode("app/lib/a.py"), mode("app/main.py")), (0o755, 0o755, 0o644));
    assert_eq!(fs::metadata(rootfs.join("app/main.py")).unwrap().mtime(), 0);
}

#[test]
fn links_are_copied_and_never_followed() {
    let dir = directory(SIMPLE, &[("main.py", "x")]);
    symlink("/etc/passwd", dir.path().join("outside")).unwrap();
    symlink("..", dir.path().join("up")).unwrap();
    symlink("/etc", dir.path().join("etc")).unwrap();
    let store = store();
    let built = store.build(dir.path()).unwrap();
    let root = store.unpack(&built);
    let app = root.path().join("app");
    assert_eq!(fs::read_link(app.join("outside")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_link(app.join("up")).unwrap(), Path::new(".."));

    for (from, says) in [
        ("outside", "is a symbolic link: name what it points to"),
        ("up/x", "a symbolic link or a file is on the way to it"),
        ("etc/ssl/openssl.cnf", "a symbolic link or a file is on the way to it"),
        ("main.py/x", "a symbolic link or a file is on the way to it"),
        ("nothing", "`nothing` does not exist"),
        ("nothing/x", "`nothing/x` does not exist"),
        (".git", "`.git` does not exist"),
    ] {
        let agentfile = with_build("host", &format!("{{ copy: {{ from: {from}, to: /app }} }}"));
        write(dir.path(), "Agentfile", &agentfile);
        let error = refused(dir.path());
        assert!(error.contains(says), "{error}");
        assert!(error.contains("/Agentfile:5:64: build.stages[0].steps[0].copy.from: "), "{error}");
    }
}

#[test]
fn targets_that_cannot_be_are_refused() {
    for (steps, says) in [
        ("{ copy: { from: ., to: / } }", "in directories, such as /app"),
        ("{ copy: { from: ., to: /proc/x } }", "`/proc` is made by the launcher"),
        ("{ copy: { from: ., to: /workspace } }", "`/workspace` is made by the launcher"),
        ("{ copy: { from: f, to: /app } }, { copy: { from: f, to: /app/x } }", "`/app` is a file already"),
        ("{ copy: { from: d, to: /app } }, { copy: { from: f, to: /app } }", "`/app` is a directory already"),
        ("{ copy: { from: f, to: /app/.wh.f } }", "mean deletion"),
    ] {
        let dir = directory(&with_build("host", steps), &[("f", ""), ("d/x", ""), ("main.py", "")]);
        let error = refused(dir.path());
        assert!(error.contains(says) && error.contains("copy.to: "), "{steps}\n{error}");
    }
    let ignored = with_build("host", "{ copy: { from: d/x, to: /app/x } }");
    let dir = directory(&ignored, &[("d/x", ""), (".aosignore", "d\n")]);
    assert!(refused(dir.path()).contains("left out by .aosignore"));
}

#[test]
fn the_entrypoint_must_be_in_the_package() {
    let run = |words: &str| SIMPLE.replace("/usr/bin/python3, /app/main.py", words);
    for (agentfile, says) in [
        (
            run("/usr/bin/python3, /app/mian.py"),
            "Agentfile:4:40: run.entrypoint[1]: `/app/mian.py` is not in the package, which has `/app/d`, `/app/loop`, `/app/main.py`, `/app/run`",
        ),
        (run("/app/nothing"), "Agentfile:4:22: run.entrypoint[0]: `/app/nothing` is not in the package"),
        (run("nothing"), "run.entrypoint[0]: `/app/nothing` is not in the package"),
        (run("/opt/x"), "run.entrypoint[0]: `/opt/x` is not in the package, which has `/app`"),
        (run("/app/main.py"), "`/app/main.py` is not executable: chmod +x it"),
        (run("/app/d"), "`/app/d` is a directory"),
        (run("/app/run/x"), "`/app/run/x` is not in the package"),
        (run("/app/loop"), "`/app/loop` is not in the package"),
        (
            run("/usr/bin/python3") + "build: { stages: [ { name: a, from: scratch } ] }\n",
            "`/usr/bin/python3` is not in the package, which has nothing",
        ),
    ] {
        let dir = directory(&agentfile, &[("main.py", ""), ("run*", ""), ("d/x*", "")]);
        symlink("loop", dir.path().join("loop")).unwrap();
        let error = refused(dir.path());
        assert!(error.contains(says), "{error}");
    }
    let granted = run("/opt/tool") + "capabilities: [ 'exec: /opt/tool' ]\n";
    for agentfile in [run("/app/run"), run("run"), run("/app/link"), run("d/up/run"), run("/bin/sh"), granted]
    {
        let dir = directory(&agentfile, &[("run*", ""), ("d/x", "")]);
        symlink("/app/d/../run", dir.path().join("link")).unwrap();
        symlink("..", dir.path().join("d/up")).unwrap();
        try_build(dir.path()).unwrap();
    }
}

#[test]
fn what_is_not_a_file_is_refused() {
    let dir = directory(SIMPLE, &[("main.py", "")]);
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert!(refused(dir.path()).contains("`socket` cannot be packed: it is neither"));
    drop(socket);
    fs::remove_file(dir.path().join("socket")).unwrap();
    for name in ["a\nb", "a\u{202e}b"] {
        write(dir.path(), name, "");
        assert!(refused(dir.path()).contains("control and invisible characters"));
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    write(dir.path(), ".aosignore", "ok\na{\n");
    assert!(refused(dir.path()).contains(".aosignore:2: "));
}

#[test]
fn the_agentfile_is_found_by_its_names() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(dir.path()).contains("expected one of Agentfile, Agentfile.yaml"));
    write(dir.path(), "main.py", "");
    for name in ["Agentfile", "Agentfile.yaml", "Agentfile.yml"] {
        write(dir.path(), name, SIMPLE);
        try_build(dir.path()).unwrap();
        write(dir.path(), "Agentfile.toml", "");
        assert!(refused(dir.path()).contains("keep one"));
        fs::remove_file(dir.path().join("Agentfile.toml")).unwrap();
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    write(dir.path(), "Agentfile.json", "{");
    assert!(refused(dir.path()).contains("Agentfile.json:1:"));
    fs::remove_file(dir.path().join("Agentfile.json")).unwrap();
    symlink("/etc/passwd", dir.path().join("Agentfile")).unwrap();
    assert!(refused(dir.path()).contains("links are not followed"));
}

#[test]
fn a_long_path_survives() {
    let deep = format!("{}/main.py", ["directory"; 30].join("/"));
    let dir = directory(SIMPLE, &[("main.py", ""), (&deep, "deep")]);
    let store = store();
    let built = store.build(dir.path()).unwrap();
    let root = store.unpack(&built);
    assert_eq!(fs::read_to_string(root.path().join("app").join(&deep)).unwrap(), "deep");
}

#[test]
fn an_agentfile_that_is_no_text_is_named_by_its_path() {
    let dir = directory(&" ".repeat(300_000), &[]);
    let error = refused(dir.path());
    let prefix = format!("{}: ", dir.path().join("Agentfile").display());
    assert_eq!(error, format!("{prefix}300000 bytes, at most 262144 are allowed"));
    fs::write(dir.path().join("Agentfile"), b"kind: \xff").unwrap();
    assert_eq!(refused(dir.path()), format!("{prefix}it is not UTF-8"));
    fs::remove_file(dir.path().join("Agentfile")).unwrap();
    fs::create_dir(dir.path().join("Agentfile")).unwrap();
    assert_eq!(refused(dir.path()), format!("{prefix}it is not a file"));
}

#[test]
fn what_no_start_here_would_take_is_found_and_does_not_change_the_bytes() {
    let found = |agentfile: &str| {
        let dir = directory(agentfile, &[("main.py", "print(1)")]);
        let built = try_build(dir.path()).unwrap();
        let origin = dir.path().join("Agentfile").display().to_string();
        built.obstacles.iter().map(|e| e.to_string().replace(&origin, "Agentfile")).collect::<Vec<_>>()
    };
    let with =
        |program: &str, rest: &str| found(&format!("{}{rest}", SIMPLE.replace("/usr/bin/python3", program)));
    // What every machine has that runs these tests.
    assert_eq!(with("/usr/bin/env", ""), [""; 0]);
    assert_eq!(
        with("/usr/bin/nope", ""),
        [
            "Agentfile:4:22: run.entrypoint[0]: `/usr/bin/nope` is not on this machine, and the package does not have it"
        ]
    );
    assert!(with("/usr/bin/env/nope", "")[0].contains("is not on this machine"));
    assert!(with("/usr/bin", "")[0].contains("`/usr/bin` is a directory on this machine"));
    assert!(with("/usr/lib/os-release", "")[0].contains("is not executable on this machine"));
    let error = with("/usr/bin/env", "capabilities: [ 'net: example.org:443', 'file_read: /etc/*.conf' ]\n");
    assert!(error[0].starts_with("Agentfile:5:17: capabilities[0]: capability `net: "), "{error:?}");
    assert!(error[1].starts_with("Agentfile:5:41: capabilities[1]: capability `file_read: "), "{error:?}");

    // The package's own program is no question to the host, and a link to the host's is.
    let agentfile = SIMPLE.replace("/usr/bin/python3, /app/main.py", "python");
    let dir = directory(&agentfile, &[]);
    std::os::unix::fs::symlink("/usr/bin/nope", dir.path().join("python")).unwrap();
    let built = try_build(dir.path()).unwrap();
    assert!(built.obstacles[0].to_string().contains("`/usr/bin/nope` is not on this machine"));
}
