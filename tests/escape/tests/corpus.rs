//! The escape corpus as tests: one for each situation that the calling user can make.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and what is not tested is told"
)]

use std::path::Path;

use aos_escape::runner::{self, Situation, launcher};
use aos_escape::table;
use aos_isolation::backend::Backend;
use aos_isolation::probe::probe;

fn run(situation: Situation) {
    // A test that cannot run has failed.
    assert!(
        Situation::possible().contains(&situation) || rustix::process::geteuid().is_root(),
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

/// A backend that is not there is told, and has failed if `AOS_ISOLATION_REQUIRED` names it.
fn run_in(backend: Backend) {
    let programs = launcher::programs(&launcher::find().unwrap());
    if let Err(why) = probe(backend, &programs) {
        let required = std::env::var("AOS_ISOLATION_REQUIRED").unwrap_or_default();
        assert!(!required.split(',').any(|name| name == backend.name()), "{backend} does not work: {why}");
        eprintln!("missing: {backend} does not work here: {why}");
        return;
    }
    run(Situation::Backend(backend));
}

#[test]
fn nothing_escapes_crun() {
    run_in(Backend::Crun);
}

#[test]
fn nothing_escapes_runc() {
    run_in(Backend::Runc);
}

#[test]
fn nothing_escapes_gvisor() {
    run_in(Backend::Gvisor);
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
