//! `agentd`: arguments, logging, and the exit status. What it does is in [`agentd::run`].

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use agentd::logging;
use agentd::settings::{Limits, Places, Settings};

/// Worker threads: the work is waiting for the bus, not computing.
const WORKERS: usize = 2;
/// Threads for the package store and files; each import takes one.
const BLOCKING_THREADS: usize = 16;

/// Supervisor of AOS agents. Started by systemd; see agentd.service.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Settings file; it may be missing
    #[arg(long, value_name = "FILE", default_value = "/etc/aos/agentd.toml")]
    config: PathBuf,

    /// Id of this boot (%b in a unit); runs recorded under another one have ended
    #[arg(long, value_name = "ID")]
    boot_id: String,

    /// What is logged, in the directive syntax of Rust's `tracing`
    #[arg(long, value_name = "FILTER", default_value = logging::DEFAULT_FILTER)]
    log: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To the journal as an entry, and to standard error for whoever started it by hand.
            tracing::error!("{error:#}");
            #[expect(clippy::print_stderr, reason = "the last word of a program that cannot run")]
            {
                eprintln!("agentd: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    logging::init(&args.log).context("cannot start logging")?;
    let is_plain = args.boot_id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    anyhow::ensure!(is_plain && (1..=64).contains(&args.boot_id.len()), "--boot-id is not an id of a boot");
    let limits = Limits::read(&args.config)?;
    let settings = Settings { places: Places::default(), limits, boot_id: args.boot_id };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(agentd::run(settings))
}
