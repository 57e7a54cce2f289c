//! Debian roots: what of mmdebstrap's tar gets into the layer, what is told, what is cached. All but
//! one test use a program that stands in for mmdebstrap.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic in a helper is the test's failure report, and tests read the environment"
)]

mod common;

use aos_build::{Local, Options, Request, build};
use aos_package::layer::read::{Item, Items, Kind};
use common::{Store, Told, chain, directory, options, store, with_build};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tar::{EntryType, Header};
use tempfile::TempDir;

/// An entry of a tar.
fn entry(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, rest: &str, owner: u64, mode: u32) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mode(mode);
    header.set_mtime(1_000_000_000);
    header.set_size(0);
    match kind {
        EntryType::Regular => {
            header.set_size(rest.len() as u64);
            tar.append_data(&mut header, path, rest.as_bytes()).unwrap();
        }
        EntryType::Symlink | EntryType::Link => tar.append_link(&mut header, path, rest).unwrap(),
        _ => tar.append_data(&mut header, path, &b""[..]).unwrap(),
    }
}

/// What mmdebstrap writes for a root, in an order that is not a layer's.
fn root() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind, path: &str, rest: &str, owner, mode| entry(&mut tar, kind, path, rest, owner, mode);
    let file = EntryType::Regular;
    add(EntryType::Directory, "./", "", 0, 0o755);
    add(EntryType::Directory, "./usr/", "", 0, 0o755);
    add(EntryType::Directory, "./usr/bin/", "", 0, 0o755);
    add(file, "./usr/bin/perl5.40", "perl", 0, 0o755);
    add(EntryType::Link, "./usr/bin/perl", "./usr/bin/perl5.40", 0, 0o755);
    add(file, "./usr/bin/passwd", "passwd", 0, 0o4755);
    add(EntryType::Symlink, "./bin", "usr/bin", 0, 0o777);
    add(file, "./etc/shadow", "root:*:", 42, 0o640);
    add(file, "./etc/machine-id", "0123", 0, 0o444);
    add(file, "./etc/hostname", "here", 0, 0o644);
    add(file, "./etc/apt/sources.list", "deb file:/srv/mirror trixie main\n", 0, 0o644);
    add(EntryType::Directory, "./dev/", "", 0, 0o755);
    add(EntryType::Char, "./dev/null", "", 0, 0o666);
    add(EntryType::Directory, "./tmp/", "", 0, 0o1777);
    add(EntryType::Directory, "./var/log/", "", 0, 0o755);
    add(file, "./var/log/dpkg.log", "today", 0, 0o644);
    add(file, "./var/lib/apt/lists/mirror_dists_trixie_InRelease", "Suite: trixie", 0, 0o644);
    add(file, "./var/lib/dpkg/status", "Package: perl", 0, 0o644);
    tar.into_inner().unwrap()
}

/// A stand-in that writes its arguments and environment to files beside it.
fn stand_in(script: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("root.tar"), root()).unwrap();
    let path = dir.path().join("mmdebstrap");
    let at = dir.path().display();
    fs::write(
        &path,
        format!("#!/bin/sh\necho \"$@\" >> {at}/arguments\n/usr/bin/env > {at}/environment\n{script}\n")
            .replace("TAR", &format!("/bin/cat {at}/root.tar")),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn with(program: &Path) -> Options {
    let debian_environment = BTreeMap::from([("PATH".to_owned(), program.display().to_string())]);
    Options { debian_environment, mirror: "https://mirror.example/debian".to_owned(), ..options() }
}

fn agentfile(from: &str) -> String {
    with_build(from, "{ copy: { from: main.py, to: /app/ } }").replace("/usr/bin/python3", "/bin/perl")
}

fn items(store: &Store, built: &aos_build::Built) -> Vec<Item> {
    let (_, config) = store.repository.package(&built.manifest).unwrap();
    let blob = store.repository.open_blob(&built.layers[0].digest).unwrap();
    Items::open(blob, &built.layers[0], config.diff_ids[0]).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_root_has_nothing_of_the_machine_or_the_day() {
    let program = stand_in("TAR; echo 'I: done' >&2");
    let dir =
        directory(&agentfile("'debian:trixie', packages: [ perl, ca-certificates ]"), &[("main.py", "")]);
    let store = store();
    let built =
        store.build_with(dir.path(), Options { source_date_epoch: 500, ..with(program.path()) }).unwrap();
    let items = items(&store, &built);
    let shown: Vec<String> = items
        .iter()
        .map(|item| {
            let kind = match &item.kind {
                Kind::Symlink(target) => format!(" -> {target}"),
                Kind::HardLink(target) => format!(" = {target}"),
                _ => String::new(),
            };
            format!("{:o} {}{kind}", item.mode, item.path.as_ref().unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "777 bin -> usr/bin",
            "755 dev",
            "644 etc/apt/sources.list",
            "640 etc/shadow",
            "1777 tmp",
            "755 usr",
            "755 usr/bin",
            "755 usr/bin/passwd",
            "755 usr/bin/perl",
            "644 usr/bin/perl5.40 = usr/bin/perl",
            "644 var/lib/dpkg/status",
            "755 var/log",
        ]
    );
    assert!(items.iter().all(|item| item.mtime <= 500));
    let root = store.unpack(&built);
    let sources = fs::read_to_string(root.path().join("etc/apt/sources.list")).unwrap();
    assert_eq!(sources, "deb http://deb.debian.org/debian trixie main\n");
    assert_eq!(built.materials.bases[0].name, "debian:trixie");
    let arguments = fs::read_to_string(program.path().join("arguments")).unwrap();
    assert_eq!(
        arguments,
        "--variant=minbase --format=tar --skip=cleanup/apt/lists,output/dev,output/mknod --architectures=amd64 \
         --include=ca-certificates,perl trixie - https://mirror.example/debian\n"
    );
    let environment = fs::read_to_string(program.path().join("environment")).unwrap();
    let mut names: Vec<_> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["DEBIAN_FRONTEND", "LC_ALL", "PATH", "SOURCE_DATE_EPOCH"]);
    assert!(environment.contains("SOURCE_DATE_EPOCH=500"));
}

#[test]
fn a_root_is_made_once() {
    let program = stand_in("TAR; echo 'I: extracting' >&2");
    let dir = directory(&agentfile("debian"), &[("main.py", "")]);
    let store = store();
    let run = |options: Options| {
        let told = Told::default();
        let built = build(&Request::new(dir.path(), options), &store.repository, &Local, &told).unwrap();
        (built, told.lines())
    };
    let base = "[app 0/1] from debian:trixie";
    let (first, told) = run(with(program.path()));
    assert_eq!(
        told[..3],
        [format!("started {base}"), format!("{base}: I: extracting"), format!("done {base}")]
    );
    let (second, told) = run(with(program.path()));
    assert_eq!(told[0], format!("cached {base}"));
    assert_eq!((second.digest, &second.materials), (first.digest, &first.materials));
    assert_eq!(fs::read_to_string(program.path().join("arguments")).unwrap().lines().count(), 1);
    // Everything that is asked for counts.
    run(Options { mirror: "file:/srv/other".to_owned(), ..with(program.path()) });
    run(Options { source_date_epoch: 1, ..with(program.path()) });
    run(Options { cache: aos_build::CacheUse::Ignore, ..with(program.path()) });
    assert_eq!(fs::read_to_string(program.path().join("arguments")).unwrap().lines().count(), 4);
}

#[test]
fn what_goes_wrong_is_told() {
    let dir = directory(&agentfile("debian"), &[("main.py", "")]);
    let refused = |options: Options| chain(&store().build_with(dir.path(), options).unwrap_err());
    let nowhere = tempfile::tempdir().unwrap();
    assert_eq!(
        refused(with(nowhere.path())),
        "mmdebstrap is not on this machine, `from: debian` needs it: apt install mmdebstrap"
    );
    let failing = stand_in("for i in 1 2 3 4 5 6 7 8; do echo \"E: line $i\" >&2; done; exit 25");
    let error = refused(with(failing.path()));
    assert_eq!(
        error,
        "mmdebstrap failed (exit status: 25): E: line 3; E: line 4; E: line 5; E: line 6; E: line 7; E: line 8"
    );
    // It fails at its end, after a whole tar.
    assert!(refused(with(stand_in("TAR; exit 1").path())).starts_with("mmdebstrap failed (exit status: 1)"));
    assert!(
        refused(with(stand_in("TAR | /usr/bin/head -c 3000").path()))
            .starts_with("cannot use what mmdebstrap makes")
    );
    assert!(refused(with(stand_in(":").path())).contains("no release file"));
    for mirror in ["ftp://x", "--hook=x", "https://x y", "file://\u{e4}"] {
        let error = refused(Options { mirror: mirror.to_owned(), ..with(failing.path()) });
        assert!(error.contains("is not valid"), "{error}");
    }
    let error = refused(Options { architecture: "wasm".to_owned(), ..with(failing.path()) });
    assert_eq!(error, "Debian has no architecture wasm");
}

#[test]
fn a_cancelled_build_ends_mmdebstrap() {
    // Writes for ever.
    let program = stand_in("while :; do TAR; done");
    let options = with(program.path());
    options.cancel.cancel();
    let dir = directory(&agentfile("debian"), &[("main.py", "")]);
    store().build_with(dir.path(), options).unwrap_err();
}

/// The real program and a real mirror: `AOS_TEST_MIRROR=http://deb.debian.org/debian`.
#[test]
#[ignore = "needs mmdebstrap, rights to use it, and a mirror in AOS_TEST_MIRROR"]
fn a_real_root_is_the_same_twice() {
    let mirror = std::env::var("AOS_TEST_MIRROR").unwrap();
    let dir =
        directory(&agentfile("'debian:trixie', packages: [ python3-minimal ]"), &[("main.py", "print(1)")]);
    let proxies = ["http_proxy", "https_proxy"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    let options = Options {
        mirror,
        debian_environment: proxies.collect(),
        source_date_epoch: 1_700_000_000,
        ..options()
    };
    let request = Request::new(dir.path(), options);
    let scratch = tempfile::tempdir().unwrap();
    let told = Told::default();
    let compared = aos_build::check_reproducible(&request, scratch.path(), &Local, &told).unwrap();
    assert_eq!(compared.difference, None, "{}", told.lines().join("\n"));
    let store = store();
    let built = build(&request, &store.repository, &Local, &told).unwrap();
    let root = store.unpack(&built);
    assert!(root.path().join("usr/bin/python3").exists());
    assert!(built.entries > 2000);
}
