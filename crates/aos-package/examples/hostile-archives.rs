//! Writes the hostile packages of the tests into a folder, for tests of an installed system:
//! `hostile-archives DIR`. Prints one line for each, its file name, a tab, and what a refusal says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program of the tests: a panic is its failure report, and its output is its result"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{bombs, hostile_layers, package_of_tars};
use std::path::PathBuf;

/// A folder that a machine has and no package may reach.
const FAR: &str = "/etc";

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("usage: hostile-archives DIR"));
    std::fs::create_dir_all(&folder).unwrap();
    for (number, (layer, says)) in hostile_layers(FAR).into_iter().chain(bombs()).enumerate() {
        let name = format!("hostile-{number:02}.aap");
        std::fs::write(folder.join(&name), package_of_tars(&[layer])).unwrap();
        println!("{name}\t{says}");
    }
}
