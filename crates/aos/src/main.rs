//! `aos`, the operator's command: a client of the supervisor, and the first-boot wizard.
//!
//! It parses its arguments, runs one command and sets the exit status. Commands that talk to the supervisor run on
//! a small asynchronous runtime; `aos configure` is sequential and brings its own.
//!
//! | module | owns |
//! |---|---|
//! | `cli`, `manual` | the grammar, and what help and manual pages say |
//! | `commands` | one module per command |
//! | `configure` | setting up the machine |
//! | `follow`, `journal` | one run of an agent, its output and its end |
//! | `supervisor` | the connection and its errors |
//! | `package` | what `aos run` is pointed at, and building it |
//! | `output`, `table`, `shape`, `screen`, `quantity` | what is printed |
//! | `environment`, `process`, `failure`, `completion` | the environment, other programs, errors, the Tab key |

mod cli;
mod commands;
mod completion;
mod configure;
mod environment;
mod failure;
mod follow;
mod journal;
mod manual;
mod output;
mod package;
mod process;
mod quantity;
mod screen;
mod shape;
mod supervisor;
mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap_complete::CompleteEnv;

use cli::Command;
use commands::agents::Action;
use commands::{agents, build, explain, generate, install, list, logs, packages, run, status};
use output::Output;

/// Any command failed.
const FAILURE: u8 = 1;
/// `aos run` failed before or beside the agent, as podman-run(1) has it: an agent may well exit with 1.
const OWN_FAILURE: u8 = 125;
/// Nobody reads what we write: 128 + SIGPIPE, as a shell shows it for other programs.
const READER_GONE: u8 = 141;

fn main() -> ExitCode {
    CompleteEnv::with_factory(cli::command).var(completion::VARIABLE).bin("aos").completer("aos").complete();
    let out = Output::detect();
    let command = cli::parse().command;
    let failure = if matches!(command, Command::Run(_)) { OWN_FAILURE } else { FAILURE };
    match dispatch(command, out) {
        Ok(code) => ExitCode::from(code),
        Err(error) if follow::is_broken_pipe(&error) => ExitCode::from(READER_GONE),
        Err(error) => {
            out.error(&error);
            ExitCode::from(failure)
        }
    }
}

/// Runs a command and returns its exit status.
fn dispatch(command: Command, out: Output) -> Result<u8> {
    match command {
        Command::Run(args) => return wait(run::run(args, out)),
        Command::Build(args) => build::run(&args, out)?,
        Command::Install(args) => wait(install::run(&args, out))?,
        Command::List(args) => wait(list::run(&args, out))?,
        Command::Status(args) => wait(status::run(&args, out))?,
        Command::Logs(args) => wait(logs::run(&args, out))?,
        Command::Explain(args) => wait(explain::run(&args, out))?,
        Command::Start(ids) => wait(agents::run(&ids, Action::Start, out))?,
        Command::Stop(ids) => wait(agents::run(&ids, Action::Stop, out))?,
        Command::Restart(ids) => wait(agents::run(&ids, Action::Restart, out))?,
        Command::Enable(ids) => wait(agents::run(&ids, Action::Enable, out))?,
        Command::Disable(ids) => wait(agents::run(&ids, Action::Disable, out))?,
        Command::Remove(args) => {
            let (ids, action) = args.action();
            wait(agents::run(&ids, action, out))?;
        }
        Command::Packages(args) => wait(packages::run(&args, out))?,
        Command::Configure(args) => configure::run(&args, out)?,
        Command::Completions(args) => generate::completions(&args, out)?,
        Command::GenMan(args) => generate::gen_man(&args)?,
        Command::GenCompletions(args) => generate::gen_completions(&args)?,
        Command::GenSchema => generate::gen_schema(out)?,
    }
    Ok(0)
}

/// Runs an asynchronous command. Two threads: the one that prints may be held up by its reader.
fn wait<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(command)
}
