//! Grants that change while agents start: what is mounted is what was checked, or nothing.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and starting the launcher is the point"
)]

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aos_core::config::ResolvedAgent;
use aos_escape::runner::{Scratch, launcher, scratch};
use aos_sandbox::plan::{PlanInput, derive};
use aos_sandbox::rootfs;
use rustix::fs::{CWD, RenameFlags, renameat_with};

const UID: u32 = 1_879_113_724;
const STARTS: u32 = 25;

/// The plan of an agent that lists and reads all of `granted`.
fn prepare(root: &Path, capability: &str, granted: &Path) {
    for name in ["rootfs", "workspace"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    chown(root.join("workspace"), Some(UID), Some(UID)).unwrap();
    let script = format!("grep -rs . {0} ; ls -R {0}", granted.display());
    let agent = serde_json::json!({
        "capabilities": [
            format!("{capability}: {}/**", granted.display()),
            "exec: /usr/bin/grep", "exec: /usr/bin/ls",
        ],
        "limits": {}, "name": "test", "version": "1.0.0", "root": "host",
        "run": { "entrypoint": ["/usr/bin/dash", "-c", script], "lifecycle": "oneshot", "workdir": "/workspace" },
    });
    let plan = derive(&PlanInput {
        agent: &ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap(),
        id: &"test".parse().unwrap(),
        arguments: &[],
        rootfs: &root.join("rootfs").to_str().unwrap().parse().unwrap(),
        entries: &rootfs::scan(&root.join("rootfs")).unwrap(),
        workspace: &root.join("workspace").to_str().unwrap().parse().unwrap(),
    })
    .unwrap();
    fs::write(root.join("plan.json"), plan.to_json().unwrap()).unwrap();
}

fn start(root: &Path) -> Output {
    let mut command = Command::new(launcher::find().unwrap());
    command.arg("--plan").arg(root.join("plan.json")).arg("--uid").arg(UID.to_string());
    command.stdin(Stdio::null()).output().unwrap()
}

/// Starts agents while `one` and `other` change places all the time; then once more at rest, with
/// the good one in place.
fn while_changing(place: &Scratch, one: &str, other: &str) {
    let root = place.path();
    let (one, other) = (root.join(one), root.join(other));
    let (ends, turns) = (AtomicBool::new(false), AtomicU32::new(0));
    let exchange = || renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) || turns.load(Ordering::Relaxed) % 2 == 1 {
                exchange();
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        let outputs = (0..STARTS).map(|_| start(root)).collect();
        ends.store(true, Ordering::Relaxed);
        outputs
    });
    assert!(turns.load(Ordering::Relaxed) > STARTS, "nothing changed while the agents started");
    for output in &outputs {
        let seen = String::from_utf8_lossy(&output.stdout);
        assert!(!seen.contains("secret"), "{seen}");
    }
    let output = start(root);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("granted-text"));
}

fn with_data() -> Scratch {
    assert!(rustix::process::geteuid().is_root(), "run as root: this test starts the launcher as root");
    let place = scratch().unwrap();
    for name in ["data", "data/inner", "secrets", "secrets/inner"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    for name in ["data/file", "data/inner/file"] {
        fs::write(place.path().join(name), "granted-text\n").unwrap();
    }
    for name in ["secrets/secret", "secrets/inner/file"] {
        fs::write(place.path().join(name), "secret-text\n").unwrap();
    }
    place
}

#[test]
fn a_granted_folder_becomes_a_link() {
    let place = with_data();
    symlink(place.path().join("secrets"), place.path().join("link")).unwrap();
    prepare(place.path(), "file_read", &place.path().join("data"));
    while_changing(&place, "data", "link");
}

#[test]
fn a_folder_above_a_grant_becomes_a_link() {
    let place = with_data();
    symlink(place.path().join("secrets"), place.path().join("link")).unwrap();
    prepare(place.path(), "file_read", &place.path().join("data/inner"));
    while_changing(&place, "data", "link");
}

#[test]
fn a_granted_folder_for_writing_becomes_a_link() {
    let place = with_data();
    for name in ["data", "data/inner", "data/file", "data/inner/file"] {
        chown(place.path().join(name), Some(UID), Some(UID)).unwrap();
    }
    symlink(place.path().join("secrets"), place.path().join("link")).unwrap();
    prepare(place.path(), "file_write", &place.path().join("data"));
    while_changing(&place, "data", "link");
}
