//! Setting up the machine: `aos configure`.
//!
//! Three sources of answers (a person, flags, credentials) give one [`changes::Changes`], which is applied in one
//! place to a [`system::System`]. Nothing is changed before all answers are valid.
//!
//! | module | owns |
//! |---|---|
//! | `wizard`, `terminal`, `tty`, `consoles` | asking a person |
//! | `flags` | answers on the command line |
//! | `credentials`, `stick`, `first_boot` | answers without a person, and the first boot |
//! | `hostname`, `timezone`, `access`, `network`, `provider` | what is valid, and the question |
//! | `changes`, `system`, `host`, `files` | applying it |

mod access;
mod changes;
mod consoles;
mod credentials;
#[cfg(test)]
mod fake;
mod files;
mod first_boot;
mod flags;
mod host;
mod hostname;
mod network;
mod provider;
pub(crate) mod secret;
mod stick;
mod system;
pub(crate) mod terminal;
mod timezone;
pub(crate) mod tty;
mod wizard;

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;

use anyhow::{Context, Result, bail};

use crate::failure::{HintExt, hinted};
use crate::output::Output;
use changes::{Applied, Changes};
pub(crate) use flags::ConfigureArgs;
use host::Host;
use system::System;
use terminal::Questions;
use tty::Tty;
use wizard::{Section, WhenConnected};

/// Only one setup at a time.
const LOCK: &str = "/run/aos-configure.lock";

/// Runs `aos configure`.
pub(crate) fn run(args: &ConfigureArgs, out: Output) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(hinted("only root can set up the machine", "sudo aos configure"));
    }
    let _lock = lock()?;
    if args.first_boot {
        return first_boot::run(out);
    }
    let mut host = Host::new()?;
    if args.has_answers() {
        let changes = args.changes(&host, ask_key)?;
        if let Some(change) = &changes.provider
            && change.exposes_key(&host.provider(&change.name)?)
        {
            out.warn(&format!("--provider {}: {}", change.name.as_str(), provider::EXPOSED));
        }
        return apply(&changes, &mut host, out);
    }
    if args.non_interactive {
        return Err(hinted(
            "nothing to change was given",
            "name a setting, such as --hostname NAME; `aos configure --help` lists them",
        ));
    }
    converse(args, &mut host)
}

fn lock() -> Result<File> {
    let file = File::create(LOCK).with_context(|| format!("cannot open {LOCK}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(hinted("another setup is under way", "it may be waiting on the machine's console"))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {LOCK}")),
    }
}

/// Applies answers that came by flags.
fn apply(changes: &Changes, host: &mut Host, out: Output) -> Result<()> {
    let applied = changes::apply(changes, host);
    for step in &applied {
        out.line(&step.line())?;
    }
    if applied.iter().any(Applied::failed) {
        bail!("not all changes could be made");
    }
    Ok(())
}

/// Runs the wizard on the caller's terminal.
fn converse(args: &ConfigureArgs, host: &mut Host) -> Result<()> {
    let mut terminal = own_terminal()?;
    let mut ask = Questions::new(&mut terminal);
    let whole = args.section.is_empty();
    let (sections, when_connected) = if whole {
        (Section::ALL.to_vec(), WhenConnected::Skip)
    } else {
        (args.section.clone(), WhenConnected::Ask)
    };
    let changes = wizard::run(&mut ask, host, &sections, when_connected)?;
    let applied = changes::apply(&changes, host);
    wizard::conclude(&mut ask, host, &applied)?;
    if applied.iter().any(Applied::failed) {
        bail!("not all changes could be made");
    }
    if whole { host.finish() } else { Ok(()) }
}

/// The terminal that the caller sits at, which is not necessarily standard input.
fn own_terminal() -> Result<Tty> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .hint("without a terminal, give the answers as flags: aos configure --help")
        .context("there is no terminal to ask on")?;
    if !device.is_terminal() {
        bail!("/dev/tty is no terminal");
    }
    Tty::new(device).context("cannot use the terminal")
}

/// Asks for a provider's key on the caller's terminal.
fn ask_key(label: &str) -> Result<secret::Secret> {
    let mut terminal = own_terminal().context("the provider needs a key")?;
    Ok(Questions::new(&mut terminal).secret(label, provider::check_key)?)
}
