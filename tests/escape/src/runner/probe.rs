//! The inside of a run: each attempt and neighbour in a process of its own.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::attempts::{Params, Step};
use crate::corpus::Attempt;
use crate::outcome::Outcome;
use crate::raw::{self, Side};

/// One line of the probe's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The place in the corpus.
    pub index: usize,
    /// Whether it is the neighbour.
    pub is_neighbour: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// Runs a whole table and prints a line for each part.
pub fn run_all(corpus: &[Attempt], params: &Params) -> Result<(), String> {
    for (index, attempt) in corpus.iter().enumerate() {
        run_one(params, index, false, attempt.run)?;
        run_one(params, index, true, attempt.neighbour)?;
    }
    Ok(())
}

fn run_one(
    params: &Params,
    index: usize,
    is_neighbour: bool,
    body: fn(&Params) -> Step,
) -> Result<(), String> {
    match raw::fork().map_err(|error| format!("fork: {error}"))? {
        Side::Child => {
            // The child prints its own end, so that no descriptor but the standard ones is open.
            let printed = print(&Line { index, is_neighbour, outcome: body(params).into() });
            raw::exit(i32::from(printed.is_err()))
        }
        Side::Parent(pid) => {
            let status = raw::wait(pid).map_err(|error| format!("wait: {error}"))?;
            if libc::WIFSIGNALED(status) {
                let outcome = Outcome::Killed(libc::WTERMSIG(status));
                return print(&Line { index, is_neighbour, outcome });
            }
            if status == 0 { Ok(()) } else { Err(format!("attempt {index} ended with status {status}")) }
        }
    }
}

fn print(line: &Line) -> Result<(), String> {
    let mut text = serde_json::to_string(line).map_err(|error| error.to_string())?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}
