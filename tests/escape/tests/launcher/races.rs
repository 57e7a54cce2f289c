//! Grants that change while agents start: what is mounted is what was checked, or nothing.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aos_sandbox::plan::SandboxPlan;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::place::{Place, UID, error};

const STARTS: u32 = 25;

/// The plan of an agent that lists and reads all of `granted`.
fn listing(place: &Place, capability: &str, granted: &Path) -> SandboxPlan {
    let script = format!("grep -rs . {0} ; ls -R {0}", granted.display());
    let capabilities = [
        format!("{capability}: {}/**", granted.display()),
        "exec: /usr/bin/grep".to_owned(),
        "exec: /usr/bin/ls".to_owned(),
    ];
    place.plan_of(&["/usr/bin/dash", "-c", &script], &capabilities)
}

/// Starts agents while `one` and `other` change places all the time; then once more at rest, with
/// the good one in place.
fn while_changing(place: &Place, plan: &SandboxPlan, one: &str, other: &str) {
    let (one, other) = (place.path(one), place.path(other));
    let (ends, turns) = (AtomicBool::new(false), AtomicU32::new(0));
    let exchange = || renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) || turns.load(Ordering::Relaxed) % 2 == 1 {
                exchange();
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        let outputs = (0..STARTS).map(|_| place.run(plan)).collect();
        ends.store(true, Ordering::Relaxed);
        outputs
    });
    assert!(turns.load(Ordering::Relaxed) > STARTS, "nothing changed while the agents started");
    for output in &outputs {
        let seen = String::from_utf8_lossy(&output.stdout);
        assert!(!seen.contains("secret"), "{seen}");
    }
    let output = place.run(plan);
    assert!(output.status.success(), "{}", error(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("granted-text"));
}

fn with_data() -> Place {
    let place = Place::new();
    for name in ["data/inner", "secrets", "secrets/inner"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    for name in ["data/file", "data/inner/file"] {
        fs::write(place.path(name), "granted-text\n").unwrap();
    }
    for name in ["secrets/secret", "secrets/inner/file"] {
        fs::write(place.path(name), "secret-text\n").unwrap();
    }
    place
}

#[test]
fn a_granted_folder_becomes_a_link() {
    let place = with_data();
    symlink(place.path("secrets"), place.path("link")).unwrap();
    let plan = listing(&place, "file_read", &place.path("data"));
    while_changing(&place, &plan, "data", "link");
}

#[test]
fn a_folder_above_a_grant_becomes_a_link() {
    let place = with_data();
    symlink(place.path("secrets"), place.path("link")).unwrap();
    let plan = listing(&place, "file_read", &place.path("data/inner"));
    while_changing(&place, &plan, "data", "link");
}

#[test]
fn a_granted_folder_for_writing_becomes_a_link() {
    let place = with_data();
    for name in ["data", "data/inner", "data/file", "data/inner/file"] {
        chown(place.path(name), Some(UID), Some(UID)).unwrap();
    }
    symlink(place.path("secrets"), place.path("link")).unwrap();
    let plan = listing(&place, "file_write", &place.path("data"));
    while_changing(&place, &plan, "data", "link");
}

/// A directory on the way to a grant alternates with a link to a secret: the launcher refuses or
/// grants the directory, and never what the link names.
#[test]
fn a_swapped_link_never_widens_a_grant() {
    let place = Place::new();
    let (real, swapped, secret) = (place.path("data/real"), place.path("data/swapped"), place.path("secret"));
    fs::create_dir_all(swapped.join("inner")).unwrap();
    fs::create_dir_all(secret.join("inner")).unwrap();
    fs::write(secret.join("inner/name"), "secret").unwrap();
    let link = place.path("data/link");
    symlink(&secret, &link).unwrap();
    let grant = format!("file_read: {}/inner/**", swapped.display());
    let plan = place.plan(&format!("import os; print(os.listdir('{}/inner'))", swapped.display()), &[grant]);
    let stop = AtomicBool::new(false);
    let outputs = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                swap(&real, &swapped, &link);
            }
        });
        let outputs: Vec<Output> = (0..40).map(|_| place.run(&plan)).collect();
        stop.store(true, Ordering::Relaxed);
        outputs
    });
    let granted = outputs.iter().filter(|output| output.status.success()).count();
    for output in &outputs {
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(!stdout.contains("name"), "{stdout}");
    }
    println!("{granted} of {} launches had the directory", outputs.len());
}

/// The directory away and the link in its place, and back.
fn swap(real: &Path, swapped: &Path, link: &Path) {
    fs::rename(swapped, real).unwrap();
    fs::rename(link, swapped).unwrap();
    fs::rename(swapped, link).unwrap();
    fs::rename(real, swapped).unwrap();
}
