//! What needs other programs: tools that nobody here wrote open our archives, a killed process and
//! a full disk leave a store that is whole. It needs skopeo, umoci and a mount namespace (root, or
//! unprivileged user namespaces), and fails with what is missing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]
#![allow(clippy::disallowed_methods, reason = "these tests are about other processes")]

mod common;

use aos_package::store::{ImportError, Store};
use common::{SIMPLE, chain, directory, paths, try_build, version};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where [`importer`] finds its work.
const STORE: &str = "AOS_TEST_STORE";

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} is needed (`tests/run unit` installs it): {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn skopeo_and_umoci_open_our_archives() {
    let agentfile = format!(
        "{SIMPLE}build: {{ stages: [ {{ name: a, from: host, steps: [ {{ copy: {{ from: ., to: /app }} }}, {{ env: {{ K: v }} }} ] }} ] }}\n"
    );
    let dir = directory(&agentfile, &[("main.py", "print(1)"), ("bin/x*", "#!/bin/sh\n")]);
    let (built, bytes) = try_build(dir.path()).unwrap();
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("web.aap"), &bytes).unwrap();

    let archive = format!("oci-archive:{}", at("web.aap"));
    let inspected: serde_json::Value = serde_json::from_str(&run("skopeo", &["inspect", &archive])).unwrap();
    assert_eq!(inspected["Digest"], built.digest.to_string());
    assert_eq!(inspected["Env"], serde_json::json!(["K=v"]));
    assert_eq!(inspected["Created"], "1970-01-01T00:00:00Z");

    // Through another tool and back: still the same package.
    run("skopeo", &["copy", "--quiet", &archive, &format!("oci:{}:tag", at("layout"))]);
    let back = format!("oci-archive:{}:web:1.0.0", at("back.aap"));
    run("skopeo", &["copy", "--quiet", &format!("oci:{}:tag", at("layout")), &back]);
    let (_dir, store) = common::store();
    let imported = store.import(fs::File::open(at("back.aap")).unwrap());
    assert_eq!(imported.unwrap_or_else(|error| panic!("{}", chain(&error))).package.digest, built.digest);

    run("umoci", &["unpack", "--rootless", "--image", &format!("{}:tag", at("layout")), &at("bundle")]);
    let rootfs = work.path().join("bundle/rootfs");
    assert_eq!(paths(&rootfs), ["app", "app/bin", "app/bin/x", "app/main.py"]);
    let spec: serde_json::Value =
        serde_json::from_slice(&fs::read(work.path().join("bundle/config.json")).unwrap()).unwrap();
    assert_eq!(spec["process"]["args"], serde_json::json!(["/usr/bin/python3", "/app/main.py"]));
    assert_eq!(spec["process"]["cwd"], "/workspace");
}

/// Not a test: the process that the others kill or starve. It imports every archive in the
/// store's directory, over and over, and says what comes of each.
#[test]
#[ignore = "started by other tests"]
fn importer() {
    let Some(dir) = std::env::var_os(STORE) else { return };
    let store = Store::open(Path::new(&dir)).unwrap();
    loop {
        for n in 0..3 {
            let archive = fs::File::open(Path::new(&dir).join(format!("{n}.aap"))).unwrap();
            match store.import(archive) {
                Ok(imported) => eprintln!("{:?}", imported.change),
                Err(ImportError::NoSpace(_)) => {
                    assert!(fs::read_dir(Path::new(&dir).join("tmp")).unwrap().next().is_none());
                    eprintln!("no space");
                    return;
                }
                Err(error) => panic!("{}", chain(&error)),
            }
        }
        let list = store.list();
        for package in list {
            store.remove(&package.reference(), |_| false).unwrap();
        }
    }
}

fn archives(dir: &Path, size: usize) {
    for n in 0..3 {
        // Text that does not compress to nothing, shared in part between the packages.
        let mut state = 1_u32;
        let noise = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from((state >> 24) % 26).unwrap())
        };
        let text: String = (0..size).map(noise).collect();
        fs::write(dir.join(format!("{n}.aap")), version(&format!("1.0.{n}"), &format!("{n}{text}"))).unwrap();
    }
}

#[test]
fn a_killed_import_leaves_a_store_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    archives(dir.path(), 20_000);
    for round in 0..40_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["importer", "--exact", "--ignored", "--nocapture"])
            .env(STORE, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        // Wait until it works, then let it go on for a time that differs from round to round.
        lines.read_line(&mut String::new()).unwrap();
        std::thread::sleep(Duration::from_micros(round * 997 % 20_000));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));

        let store = Store::open(dir.path()).unwrap();
        assert!(store.damaged().is_empty(), "{:?}", store.damaged());
        let expected: usize = store.list().len();
        assert_eq!(fs::read_dir(dir.path().join("rootfs")).unwrap().count(), expected);
        for package in store.list() {
            let script = fs::read(package.rootfs.join("app/main.py")).unwrap();
            assert_eq!(script.len(), 20_001);
        }
        assert!(fs::read_dir(dir.path().join("tmp")).unwrap().next().is_none());
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    archives(dir.path(), 600_000);
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\"/small && cp \"$1\"/0.aap \"$1\"/small/ \
                  && ln -s \"$1\"/1.aap \"$1\"/2.aap \"$1\"/small/ && shift \
                  && \"$@\" && ls -1 \"$AOS_TEST_STORE\" \"$AOS_TEST_STORE\"/tmp \"$AOS_TEST_STORE\"/rootfs";
    fs::create_dir(dir.path().join("small")).unwrap();
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"])
        .arg(dir.path())
        .arg(exe)
        .args(["importer", "--exact", "--ignored", "--nocapture"])
        .env(STORE, dir.path().join("small"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("unshare (util-linux) is needed: {error}"));
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let mut listing = String::new();
    child.stdout.take().unwrap().read_to_string(&mut listing).unwrap();
    assert!(child.wait().unwrap().success(), "{errors}\n{listing}");
    assert!(errors.contains("no space"), "{errors}\n{listing}");
    assert!(!listing.contains("import-") && !listing.contains("sha256-"), "{listing}");
}
