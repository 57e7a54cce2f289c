//! The escape corpus as tests: one for each situation that the calling user can make.

#![allow(clippy::unwrap_used, reason = "a panic is the failure report of a test")]

use std::path::Path;

use aos_escape::runner::{self, Situation, launcher};
use aos_escape::table;

fn run(situation: Situation) {
    // A test that cannot run has failed.
    assert!(
        Situation::possible().contains(&situation),
        "run as root: only root can start an agent {}",
        situation.name()
    );
    let launch = launcher::find().unwrap();
    let probe = Path::new(env!("CARGO_BIN_EXE_escape-probe"));
    let judged = runner::run(&launch, probe, situation, runner::scratch().unwrap()).unwrap();
    assert!(judged.iter().all(|one| one.ok), "{}", table::plain(situation, &judged));
}

#[test]
fn nothing_escapes_a_launch_by_root() {
    run(Situation::Root);
}

#[test]
fn nothing_escapes_a_launch_by_a_user() {
    run(Situation::User);
}

#[test]
fn nothing_escapes_a_step_of_root() {
    run(Situation::StepOfRoot);
}

#[test]
fn nothing_escapes_a_step_of_a_user() {
    run(Situation::StepOfUser);
}

#[test]
fn the_page_is_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/escape-corpus.md");
    let written = std::fs::read_to_string(page).unwrap();
    assert_eq!(written, table::markdown(), "run `cargo run -p aos-escape -- --write-docs`");
}
