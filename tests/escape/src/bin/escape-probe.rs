//! The program inside: runs every attempt and neighbour, each in a child, and prints one line of
//! JSON for each: those of an agent, or with `--step` first those of a step of a build. `--nothing`
//! does nothing, for attempts that execute this program again.

use std::io::Write;
use std::process::ExitCode;

use aos_escape::attempts::Params;
use aos_escape::corpus::{CORPUS, STEPS};
use aos_escape::runner::probe;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(mut word) = words.next() else { return ExitCode::from(2) };
    if word == "--nothing" {
        return ExitCode::SUCCESS;
    }
    let mut corpus = CORPUS;
    if word == "--step" {
        corpus = STEPS;
        word = words.next().unwrap_or_default();
    }
    let result = serde_json::from_str::<Params>(&word)
        .map_err(|error| error.to_string())
        .and_then(|params| probe::run_all(corpus, &params));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if writeln!(std::io::stderr(), "escape-probe: {error}").is_err() {
                return ExitCode::from(3);
            }
            ExitCode::FAILURE
        }
    }
}
