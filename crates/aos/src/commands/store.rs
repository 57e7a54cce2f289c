//! `aos store check`: whether the user store is whole.

use anyhow::{Context, Result};
use aos_package::repository::{Depth, Problem};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Format;
use crate::commands::gc;
use crate::failure::hinted;
use crate::output::{Output, Tone};
use crate::screen;
use crate::store::UserStore;

/// Check your package store
///
/// The store is a directory: AOS_STORE, else /var/lib/aos-packages for root and ~/.local/share/aos for everybody else.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Check that the store is whole
    ///
    /// Reads and hashes everything that the store has. Exits with 1 when something that is needed is damaged; what is
    /// only garbage, `aos gc` removes.
    Check {
        /// Read the index, the manifests and the sizes only
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Print where the store is
    Path {
        #[command(flatten)]
        format: Format,
    },
}

/// Where the store is.
#[derive(Debug, Serialize)]
struct PlaceView {
    store: String,
}

/// What was found.
#[derive(Debug, Serialize)]
struct View {
    /// Where the store is.
    store: String,
    /// True when nothing that is needed is damaged.
    whole: bool,
    /// What is not as it should be.
    problems: Vec<ProblemView>,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    /// True for damage, false for garbage.
    damage: bool,
    message: String,
}

/// Runs `aos store`.
pub(crate) fn run(args: &StoreArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    match args.command {
        StoreCommand::Path { format } if format.is_json() => {
            out.json(&PlaceView { store: store.root().display().to_string() })
        }
        StoreCommand::Path { .. } => Ok(out.line(&store.root().display().to_string())?),
        StoreCommand::Check { quick, format } => check(&store, quick, format, out),
    }
}

fn check(store: &UserStore, quick: bool, format: Format, out: Output) -> Result<()> {
    let depth = if quick { Depth::Names } else { Depth::Contents };
    let roots = gc::cached(store)?;
    let problems = {
        let _step = out.step_on_terminal("checking the store");
        store.repository().check(depth, &roots)
    };
    let problems: Vec<Problem> = problems.context("cannot check the store")?;
    let damaged = problems.iter().filter(|problem| problem.is_damage()).count();
    let place = store.root().display().to_string();
    let outcome = match damaged {
        0 => Ok(()),
        damaged => Err(hinted(
            format!("{damaged} things in {place} are damaged"),
            "`aos remove` what is named and pull or build it again; `aos gc` removes what nothing needs",
        )),
    };
    if format.is_json() {
        let view = |problem: &Problem| ProblemView { damage: problem.is_damage(), message: words(problem) };
        out.json(&View { store: place, whole: damaged == 0, problems: problems.iter().map(view).collect() })?;
        return outcome;
    }
    for problem in &problems {
        let tone = if problem.is_damage() { Tone::Bad } else { Tone::Faint };
        out.line(&out.paint(tone, &screen::one_line(&words(problem))))?;
    }
    outcome?;
    match problems.len() {
        0 => out.line(&format!("{place} is whole"))?,
        count => {
            out.line(&format!("{place} is whole; `aos gc` would remove {count} things that nothing needs"))?
        }
    }
    Ok(())
}

/// A problem with its causes.
fn words(problem: &Problem) -> String {
    let mut text = problem.to_string();
    let mut cause = std::error::Error::source(problem);
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}
