//! `aos install`: a package file into the store.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use aos_client::Client;
use clap::{Args, ValueHint};

use crate::commands::grants;
use crate::output::Output;
use crate::{package, supervisor};

/// Install a package file
///
/// Checks a package and puts it into the store. Prints its reference, NAME:VERSION, for `aos run`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// A package file, as `aos build` makes it
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// Runs `aos install`.
pub(crate) async fn run(args: &InstallArgs, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let archive = package::open_archive(&args.file)?;
    let (reference, digest) = install(&client, archive.into(), out)
        .await
        .with_context(|| format!("cannot install {}", args.file.display()))?;
    out.note(&digest);
    grants::show(&client, &reference, out).await?;
    Ok(out.line(&reference)?)
}

/// Hands an open package to the supervisor; returns its reference and digest.
pub(crate) async fn install(client: &Client, archive: OwnedFd, out: Output) -> Result<(String, String)> {
    let _step = out.step_on_terminal("installing the package");
    client.install(archive).await.map_err(supervisor::explain)
}
