//! The launcher on kernels that lack something: it does not start the agent, and says which layer is
//! missing, why, and what to change.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};

use crate::place::{Place, UID, assert_fails, error};

/// Starts an agent that touches a file, with words before and after the launcher's own.
fn run(place: &Place, before: &[&str], after: &[&str]) -> Output {
    let mut words: Vec<OsString> = before.iter().map(OsString::from).collect();
    words.extend(place.words(&place.plan_of(&["/usr/bin/touch", "ran"], &[])));
    words.extend(after.iter().map(OsString::from));
    Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap()
}

fn without(place: &Place, lacks: &[&str]) -> Output {
    let mut before = vec![env!("CARGO_BIN_EXE_escape-lacking")];
    before.extend(lacks);
    before.push("--");
    run(place, &before, &["--uid", &UID.to_string()])
}

fn has_run(place: &Place) -> bool {
    place.path("workspace/ran").exists()
}

fn assert_refused(place: &Place, output: &Output, status: i32, layer: &str, says: &[&str]) {
    assert_fails(output, status, &format!("aos-launch: {layer}: "));
    for says in says {
        assert_fails(output, status, says);
    }
    assert!(!has_run(place), "the agent has run");
}

#[test]
fn the_same_start_works_on_the_whole_kernel() {
    let place = Place::new();
    let output = without(&place, &[]);
    assert!(output.status.success(), "{}", error(&output));
    assert!(has_run(&place));
}

#[test]
fn without_landlock() {
    let place = Place::new();
    let output = without(&place, &["landlock"]);
    assert_refused(&place, &output, 121, "landlock", &["`landlock`", "lsm="]);
}

#[test]
fn with_an_old_landlock() {
    let place = Place::new();
    for abi in ["1", "3", "5"] {
        let output = without(&place, &[&format!("landlock>{abi}")]);
        assert_refused(&place, &output, 121, "landlock", &["ABI 6", "6.12"]);
    }
}

#[test]
fn with_the_oldest_landlock_that_is_enough() {
    let place = Place::new();
    let output = without(&place, &["landlock>6"]);
    assert!(output.status.success(), "{}", error(&output));
    assert!(has_run(&place));
}

#[test]
fn without_seccomp() {
    let place = Place::new();
    assert_refused(&place, &without(&place, &["seccomp"]), 228, "seccomp", &["CONFIG_SECCOMP_FILTER"]);
}

#[test]
fn without_user_namespaces() {
    let place = Place::new();
    // The limit is of the user namespace that it is written in: this one is made for the test.
    let limit = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let before = ["unshare", "--user", "--map-user=1000", "--keep-caps", "sh", "-c", limit, "sh"];
    let output = run(&place, &before, &[]);
    assert_refused(&place, &output, 226, "namespace", &["user.max_user_namespaces"]);
}
