//! `aos packages`: the packages in the store, and removing one.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::cli::Format;
use crate::completion;
use crate::output::{Output, Tone};
use crate::quantity;
use crate::shape;
use crate::supervisor;
use crate::table::{Columns, Text};

/// Show or remove installed packages
///
/// A package that an agent uses cannot be removed; `aos remove` removes the agent.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PackagesArgs {
    #[command(subcommand)]
    command: Option<PackagesCommand>,

    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum PackagesCommand {
    /// Remove packages that no agent uses
    #[command(visible_alias = "rm")]
    Remove {
        /// References of packages, NAME:VERSION
        #[arg(value_name = "REFERENCE", required = true, add = completion::packages())]
        references: Vec<String>,
    },
}

/// Runs `aos packages`.
pub(crate) async fn run(args: &PackagesArgs, out: Output) -> Result<()> {
    match &args.command {
        None => list(args.format, out).await,
        Some(PackagesCommand::Remove { references }) => remove(references, out).await,
    }
}

/// Shows the packages.
pub(crate) async fn list(format: Format, out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    let packages = client.packages().await.map_err(supervisor::explain)?;
    if format.is_json() {
        return out.json(&packages.iter().map(shape::Package::from).collect::<Vec<_>>());
    }
    if packages.is_empty() {
        out.note("no packages; `aos install FILE` or `aos run DIR` brings one");
        return Ok(());
    }
    let mut table = Columns::new(out, &["PACKAGE", "SIZE", "AGENTS", "DIGEST", "DESCRIPTION"]);
    for package in &packages {
        let digest: String = package.digest.chars().take("sha256:".len() + 12).collect();
        table.row([
            Text::toned(&package.reference, Tone::Strong),
            Text::new(quantity::bytes(package.size)),
            Text::or_dash((!package.agents.is_empty()).then(|| package.agents.join(", "))),
            Text::toned(digest, Tone::Faint),
            Text::new(&package.description),
        ]);
    }
    Ok(table.print()?)
}

async fn remove(references: &[String], out: Output) -> Result<()> {
    let client = supervisor::connect().await?;
    for reference in references {
        client
            .remove_package(reference)
            .await
            .map_err(supervisor::explain)
            .with_context(|| format!("cannot remove package {reference}"))?;
        out.note(&format!("{reference}: removed"));
    }
    Ok(())
}
