//! `aos import`: a package file into the user store.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aos_core::reference::{Location, Reference};
use aos_package::repository::Origin;
use clap::{Args, ValueHint};

use crate::attachment;
use crate::cli::Format;
use crate::commands::pull::{admit, tell};
use crate::held::Held;
use crate::output::Output;
use crate::package;
use crate::signature_file;
use crate::store::UserStore;

/// Take a package file into your store
///
/// Reads a file that `aos export` or `aos build --output` wrote, with the signatures in it and in signature.json beside
/// it. Every byte is checked, and the trust policy must allow the package: see `aos verify` and docs/packages.md.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A package file, or `-` for standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// The signature's file; signature.json beside the package if it is not given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    signature: Option<PathBuf>,

    #[command(flatten)]
    format: Format,
}

/// Runs `aos import`.
pub(crate) fn run(args: &ImportArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let lease = store.lease()?;
    let imported = {
        let _step = out.step_on_terminal(&format!("reading {}", args.file.display()));
        if args.file == Path::new("-") {
            store.repository().import_archive(&lease, std::io::stdin().lock())
        } else {
            store.repository().import_archive(&lease, package::open(&args.file)?)
        }
    };
    let imported = imported.with_context(|| format!("cannot import {}", args.file.display()))?;
    let held = Held::new(Location::Archive(args.file.clone()), imported.descriptor, None, lease, None)?;
    let beside = signature_file::of(&held, args.signature.as_deref())?;
    let agent = &held.config.agent;
    let reference = Reference::local(&agent.name, &agent.version)?;
    let arrived = admit(&store, &held, &reference, Origin::Imported, beside.as_slice())?;
    if let Some(envelope) = &beside {
        attachment::attach_envelope(&held.lease, &held.descriptor, envelope)?;
    }
    tell(&arrived, args.format, out)
}
