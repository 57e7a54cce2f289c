//! `aos-account`: gives agent `ID` its Unix user `aos-ID`, and takes it away again.
//!
//! Runs as root from `aos-account@ID.service` and `aos-account-remove@ID.service`; nobody else calls it. It has
//! no threads, no D-Bus, no network, and writes in two folders only:
//!
//! - `/etc/userdb/`: `aos-ID.group`, `GID.group` -> `aos-ID.group`, `UID.user` -> `aos-ID.user`, `aos-ID.user`,
//!   in this order, so that the record whose presence means "done" comes last;
//! - `/var/lib/aos-accounts/`: `next` (the next uid to try) and `lock` (one run at a time).
//!
//! Invariants: a name or number that anything else uses is never taken; a file that is not this program's own
//! record of this very agent is never changed; the counter is on disk before the uid it skips is used. A run
//! that was cut short at any point is completed by the next one.

mod accounts;
mod files;
mod fork;
mod record;

use std::process::ExitCode;

use accounts::{Accounts, Places};
use anyhow::Context as _;
use aos_core::id::AgentId;

const USAGE: &str = "usage: aos-account add|remove AGENT-ID";

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1).collect()) {
        Ok(message) => {
            #[expect(
                clippy::print_stdout,
                reason = "a one-shot unit reports to the journal by standard output"
            )]
            {
                println!("{message}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "a one-shot unit reports to the journal by standard error"
            )]
            {
                eprintln!("aos-account: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<std::ffi::OsString>) -> anyhow::Result<String> {
    let args: Vec<&str> = args.iter().map(|arg| arg.to_str()).collect::<Option<_>>().context(USAGE)?;
    let (verb, id) = match args.as_slice() {
        [verb, id] => (*verb, id.parse::<AgentId>().context(USAGE)?),
        _ => anyhow::bail!(USAGE),
    };
    let accounts = Accounts::open(&Places::default())?;
    match verb {
        "add" => {
            let uid = accounts.add(&id)?;
            Ok(format!("{} has uid {uid}", id.user_name()))
        }
        "remove" => {
            let removed = accounts.remove(&id)?;
            Ok(format!("{}: {removed}", id.user_name()))
        }
        _ => anyhow::bail!(USAGE),
    }
}
