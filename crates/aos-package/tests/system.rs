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

use aos_package::oci::{ArtifactManifest, Descriptor, EMPTY, EMPTY_TYPE, MANIFEST_TYPE};
use aos_package::repository::{BlobError, Depth, GcMode, Lease, Origin, Repository, is_no_space};
use aos_package::store::{ImportError, Store};
use common::{attach, chain, gc, package_with, paths, put_package, version, web};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
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
    let agent = web("1.0.0", "host", &["/usr/bin/python3", "/app/main.py"], &[("K", "v")]);
    let bytes = package_with(agent, "print(1)");
    let (_dir, repository) = common::repository();
    let lease = repository.lease().unwrap();
    let built = repository.import_archive(&lease, bytes.as_slice()).unwrap().descriptor;
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
    assert_eq!(paths(&rootfs), ["app", "app/main.py"]);
    let spec: serde_json::Value =
        serde_json::from_slice(&fs::read(work.path().join("bundle/config.json")).unwrap()).unwrap();
    assert_eq!(spec["process"]["args"], serde_json::json!(["/usr/bin/python3", "/app/main.py"]));
    assert_eq!(spec["process"]["cwd"], "/workspace");
}

#[test]
fn skopeo_reads_the_store() {
    let (_dir, repository) = common::repository();
    let lease = repository.lease().unwrap();
    let imported = repository.import_archive(&lease, version("1.0.0", "x").as_slice()).unwrap();
    attach(&lease, &imported.descriptor, "application/vnd.dsse.envelope.v1+json", b"{}").unwrap();
    for name in ["web:1.0.0", "web:latest", "reg.example:5000/team/web:1.0.0"] {
        repository.tag(&lease, &name.parse().unwrap(), &imported.descriptor, Origin::Imported).unwrap();
        let place = format!("oci:{}:{name}", repository.layout().display());
        let inspected: serde_json::Value =
            serde_json::from_str(&run("skopeo", &["inspect", &place])).unwrap();
        assert_eq!(inspected["Digest"], imported.descriptor.digest.to_string(), "{name}");
    }
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

/// Runs an ignored test of this file in a mount namespace where `small` below the directory is a
/// small file system, and returns what it and the commands behind it printed.
fn on_a_small_disk(dir: &Path, size: &str, prepare: &str, test: &str, after: &str) -> (String, String) {
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs \"$1\"/small && cd \"$1\" && {prepare} && shift && \"$@\" && {after}"
    );
    fs::create_dir(dir.join("small")).unwrap();
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec", &script, "sh"])
        .arg(dir)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(STORE, dir.join("small"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("unshare (util-linux) is needed: {error}"));
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success(), "{errors}\n{output}");
    (output, errors)
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    archives(dir.path(), 600_000);
    let prepare = "cp 0.aap small/ && ln -s \"$1\"/1.aap \"$1\"/2.aap small/";
    let after = "ls -1 \"$AOS_TEST_STORE\" \"$AOS_TEST_STORE\"/tmp \"$AOS_TEST_STORE\"/rootfs";
    let (listing, errors) = on_a_small_disk(dir.path(), "1m", prepare, "importer", after);
    assert!(errors.contains("no space"), "{errors}\n{listing}");
    assert!(!listing.contains("import-") && !listing.contains("sha256-"), "{listing}");
}

/// Not a test: the process that works in a repository on a disk with ever more room, so that each
/// of its writes is once the one that finds none.
#[test]
#[ignore = "started by other tests"]
fn starved() {
    let Some(dir) = std::env::var_os(STORE) else { return };
    let (root, ballast) = (Path::new(&dir).join("store"), Path::new(&dir).join("ballast"));
    let repository = Repository::open(&root).unwrap();
    let archive = version("3.0.0", &"x".repeat(9_000));
    let (mut refused, mut done) = (0, 0);
    for pages in 0..60 {
        fill(&ballast, pages * 4096);
        let before: Vec<_> = repository.tags().unwrap();
        match work(&repository, &archive, pages) {
            Ok(()) => done += 1,
            Err(error) => {
                assert!(is_no_space(error.as_ref()), "{pages} pages: {}", chain(error.as_ref()));
                refused += 1;
            }
        }
        let problems = repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
        let damage: Vec<_> = problems.iter().filter(|problem| problem.is_damage()).collect();
        assert!(damage.is_empty(), "{pages} pages: {damage:?}");
        assert!(repository.tags().unwrap().len() >= before.len());
        // With room again all goes on, and garbage goes.
        fs::remove_file(&ballast).unwrap();
        gc(&repository, &[]);
        assert!(repository.check(Depth::Contents, &BTreeSet::new()).unwrap().is_empty());
    }
    assert!(fs::read_dir(root.join("tmp")).unwrap().next().is_none());
    eprintln!("{refused} refused, {done} done");
    assert!(refused > 10 && done > 10, "{refused} refused, {done} done");
}

/// Fills the disk but for some bytes.
fn fill(ballast: &Path, left: u64) {
    let mut file = fs::File::create(ballast).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let size = file.metadata().unwrap().len();
    file.set_len(size.saturating_sub(left)).unwrap();
}

/// Everything that writes.
fn work(repository: &Repository, archive: &[u8], round: u64) -> Result<(), Box<dyn std::error::Error>> {
    let lease = repository.lease()?;
    let text = format!("{round}");
    let manifest = try_put(&lease, &text)?;
    repository.tag(&lease, &"web:1.0.0".parse()?, &manifest, Origin::Built)?;
    let imported = repository.import_archive(&lease, archive)?;
    repository.tag(&lease, &"web:3.0.0".parse()?, &imported.descriptor, Origin::Imported)?;
    let bytes = vec![7; 30_000];
    let mut writer = lease.writer(Some((common::sha256(&bytes), 30_000)))?;
    writer.write_all(&bytes)?;
    writer.commit("application/x")?;
    let content = lease.put("application/x", text.as_bytes())?;
    lease.put(EMPTY_TYPE, EMPTY)?;
    let attachment = ArtifactManifest::new("application/x", content, &manifest, BTreeMap::new());
    let attachment = lease.put(MANIFEST_TYPE, &attachment.to_json()?)?;
    repository.attach(&lease, &attachment)?;
    drop(lease);
    repository.gc(&BTreeSet::new(), &BTreeSet::new(), GcMode::Collect)?;
    Ok(())
}

/// [`put_package`], with its errors.
fn try_put(lease: &Lease, text: &str) -> Result<Descriptor, BlobError> {
    // What it would put is the same as in a store with room.
    let (_dir, elsewhere) = common::repository();
    let there = elsewhere.lease().unwrap();
    let manifest = put_package(&there, text);
    let (parsed, _) = elsewhere.package(&manifest).unwrap();
    for blob in parsed.blobs().chain([&manifest]) {
        lease.put(&blob.media_type, &elsewhere.read_blob(blob, 1 << 20).unwrap())?;
    }
    Ok(manifest)
}

#[test]
fn a_full_disk_at_any_write_leaves_a_repository_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    on_a_small_disk(dir.path(), "2m", "true", "starved", "true");
}
