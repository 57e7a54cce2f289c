//! `aos unpack`: a package's files into a folder.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aos_package::unpack::{Modes, Options};
use clap::{Args, ValueHint};
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::contents;
use crate::held::Freshness;
use crate::output::Output;
use crate::place;
use crate::quantity;
use crate::store::UserStore;

/// Unpack a package's files into a folder
///
/// For looking at them: nothing is run. Owners and set-user-id bits are not taken over; everything belongs to you.
#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    /// A package: of your store, a registry, a directory registry, or a file
    #[arg(value_name = "PACKAGE", add = completion::stored())]
    package: String,

    /// The folder, which must be empty or absent
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    #[command(flatten)]
    format: Format,
}

/// What was unpacked.
#[derive(Debug, Serialize)]
struct Unpacked {
    /// `name:version`.
    reference: String,
    /// The manifest.
    digest: String,
    /// The folder.
    folder: String,
    /// Entries of all layers.
    entries: u64,
    /// Bytes of all layers, unpacked.
    bytes: u64,
}

/// Runs `aos unpack`.
pub(crate) async fn run(args: &UnpackArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let held = place::open(&args.package, &store, Freshness::Pulled, out).await?;
    let made = prepare(&args.folder)?;
    let summary = {
        let _step = out.step_on_terminal(&format!("unpacking {}", held.config.agent.reference()));
        contents::unpack(
            held.repository(),
            &held.manifest.layers,
            &held.config,
            &args.folder,
            Options { modes: Modes::Kept },
        )
    };
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            clear(&args.folder, made).context("cannot remove what was unpacked in part")?;
            return Err(error);
        }
    };
    let unpacked = Unpacked {
        reference: held.config.agent.reference().to_string(),
        digest: held.descriptor.digest.to_string(),
        folder: args.folder.display().to_string(),
        entries: summary.entries,
        bytes: summary.bytes,
    };
    if args.format.is_json() {
        return out.json(&unpacked);
    }
    out.note(&format!(
        "{} {}: {} entries, {}",
        unpacked.reference,
        unpacked.digest,
        unpacked.entries,
        quantity::bytes(unpacked.bytes)
    ));
    Ok(out.line(&unpacked.folder)?)
}

/// Whether the folder was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Here,
    Before,
}

/// Makes the folder, or sees that it is empty. It is closed to others while it is filled.
fn prepare(folder: &Path) -> Result<Made> {
    use std::os::unix::fs::DirBuilderExt as _;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(Made::Here),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
    }
    let mut entries =
        fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty", folder.display());
    }
    // Somebody else who may change the folder could lead us out of it while it is filled.
    let found =
        fs::symlink_metadata(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    let is_ours =
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if !is_ours {
        bail!(
            "{} can be changed by others: name a folder that does not exist, or one of your own",
            folder.display()
        );
    }
    Ok(Made::Before)
}

/// Removes what was unpacked in part.
fn clear(folder: &Path, made: Made) -> io::Result<()> {
    if made == Made::Here {
        return fs::remove_dir_all(folder);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
