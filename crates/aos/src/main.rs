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

mod attachment;
mod attest;
mod build_progress;
mod builder;
mod cli;
mod commands;
mod completion;
mod configure;
mod contents;
mod dependencies;
mod environment;
mod exit;
mod failure;
mod follow;
mod held;
mod journal;
mod keys;
mod manual;
mod output;
mod package;
mod place;
mod process;
mod progress;
mod quantity;
mod remote;
mod screen;
mod shape;
mod signature_file;
mod store;
mod supervisor;
mod table;
mod trust;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap_complete::CompleteEnv;
use tokio::runtime::Runtime;

use cli::Command;
use commands::agents::{self, Action};
use commands::{
    backends, build, cache, capability, checkpoint, convert, diff, exec, explain, export, gc, generate,
    import, inspect, install, key, learn, list, lock, logs, packages, pull, push, run, sign, status,
    store as stores, tag, unpack, verify, workspace,
};
use exit::Exit;
use output::Output;

/// `aos run` or `aos exec` failed before or beside the agent, as podman-run(1) has it: an agent may well exit with 1.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    CompleteEnv::with_factory(cli::command).var(completion::VARIABLE).bin("aos").completer("aos").complete();
    let out = Output::detect();
    let command = cli::parse().command;
    let is_run = matches!(command, Command::Run(_) | Command::Exec(_));
    match dispatch(command, out) {
        Ok(code) => ExitCode::from(code),
        Err(error) if follow::is_broken_pipe(&error) => ExitCode::from(Exit::ReaderGone.code()),
        Err(error) => {
            out.error(&error);
            ExitCode::from(if is_run { OWN_FAILURE } else { Exit::of(&error).code() })
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
        Command::Exec(args) => return exec::follow(wait(exec::ask(&args))?, &args, out),
        Command::Capability(args) => wait(capability::run(&args, out))?,
        Command::Start(ids) => wait(agents::run(&ids, Action::Start, out))?,
        Command::Stop(ids) => wait(agents::run(&ids, Action::Stop, out))?,
        Command::Restart(ids) => wait(agents::run(&ids, Action::Restart, out))?,
        Command::Pause(ids) => wait(agents::run(&ids, Action::Pause, out))?,
        Command::Resume(ids) => wait(agents::run(&ids, Action::Resume, out))?,
        Command::Enable(ids) => wait(agents::run(&ids, Action::Enable, out))?,
        Command::Disable(ids) => wait(agents::run(&ids, Action::Disable, out))?,
        Command::Remove(args) => wait(agents::remove(&args, out))?,
        Command::Packages(args) => wait(packages::run(&args, out))?,
        Command::Pull(args) => wait(pull::run(&args, out))?,
        Command::Push(args) => wait(push::run(&args, out))?,
        Command::Inspect(args) => wait(inspect::run(&args, out))?,
        Command::Tag(args) => tag::run(&args, out)?,
        Command::Export(args) => wait(export::run(&args, out))?,
        Command::Import(args) => import::run(&args, out)?,
        Command::Unpack(args) => wait(unpack::run(&args, out))?,
        Command::Sign(args) => sign::run(&args, out)?,
        Command::Verify(args) => wait(verify::run(&args, out))?,
        Command::Key(args) => key::run(&args, out)?,
        Command::Lock(args) => lock::run(&args, out)?,
        Command::Learn(args) => learn::run(&args, out)?,
        Command::Diff(args) => wait(diff::run(&args, out))?,
        Command::Commit(args) => wait(workspace::commit(&args, out))?,
        Command::Discard(args) => wait(workspace::discard(&args, out))?,
        Command::Snapshot(args) => wait(workspace::snapshot(&args, out))?,
        Command::Fork(args) => wait(workspace::fork(&args, out))?,
        Command::Checkpoint(args) => wait(checkpoint::checkpoint(&args, out))?,
        Command::Checkpoints(args) => wait(checkpoint::list(&args, out))?,
        Command::Restore(args) => wait(checkpoint::restore(&args, out))?,
        Command::Gc(args) => wait(gc::run(&args, out))?,
        Command::Cache(args) => cache::run(&args, out)?,
        Command::Store(args) => stores::run(&args, out)?,
        Command::Backends(args) => backends::run(&args, out)?,
        Command::Convert(args) => convert::run(&args, out)?,
        Command::Configure(args) => configure::run(&args, out)?,
        Command::Completions(args) => generate::completions(&args, out)?,
        Command::GenMan(args) => generate::gen_man(&args)?,
        Command::GenCompletions(args) => generate::gen_completions(&args)?,
        Command::GenSchema => generate::gen_schema(out)?,
    }
    Ok(Exit::Done.code())
}

/// Runs an asynchronous command.
fn wait<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(command)
}

/// A small runtime. Two threads: the one that prints may be held up by its reader.
fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start the asynchronous runtime")
}
