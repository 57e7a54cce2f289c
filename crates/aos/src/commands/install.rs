//! `aos install`: a package into the machine's store.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aos_client::Client;
use aos_core::id::{PackageRef, Selector};
use aos_core::reference::{Reference, Tag};
use clap::{Args, ValueHint};
use serde::Serialize;

use crate::attachment;
use crate::cli::Format;
use crate::commands::grants;
use crate::completion;
use crate::held::Held;
use crate::output::Output;
use crate::package::{self, Target};
use crate::signature_file;
use crate::store::UserStore;
use crate::supervisor;

/// Install a package
///
/// Puts a package of your store, or a package file, into this machine's store, where agents are started from. The
/// supervisor checks it whole; a package that was not built here must be allowed by /etc/aos/trust.d. Prints its
/// reference, NAME:VERSION, for `aos run`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// A package of your store, or a package file
    #[arg(value_name = "PACKAGE|FILE", value_hint = ValueHint::FilePath, add = completion::stored())]
    package: String,

    /// Say that the package was built here, when your store does not say so
    #[arg(long)]
    local: bool,

    #[command(flatten)]
    format: Format,
}

/// A package that is installed.
#[derive(Debug, Serialize)]
struct Installed {
    /// `name:version`.
    reference: String,
    /// The manifest.
    digest: String,
    /// What it may do when it runs.
    capabilities: Vec<String>,
}

/// Where a package comes from, as the supervisor is told. Only who may install may say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// Built on this machine: the person at this keyboard vouches for it.
    Local,
    /// From elsewhere: the trust policy decides.
    Outside,
}

/// A package on its way to the supervisor.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The archive.
    pub(crate) archive: File,
    /// Where it comes from.
    pub(crate) provenance: Provenance,
}

/// Runs `aos install`.
pub(crate) async fn run(args: &InstallArgs, out: Output) -> Result<()> {
    let mut parcel = parcel(&args.package)?;
    if args.local {
        parcel.provenance = Provenance::Local;
    }
    let client = supervisor::connect().await?;
    let (reference, digest) =
        install(&client, parcel, out).await.with_context(|| format!("cannot install {}", args.package))?;
    if args.format.is_json() {
        let capabilities = grants::of(&client, &reference).await?.unwrap_or_default();
        return out.json(&Installed { reference, digest, capabilities });
    }
    out.note(&digest);
    grants::show(&client, &reference, out).await?;
    Ok(out.line(&reference)?)
}

/// Packs what a word names.
fn parcel(word: &str) -> Result<Parcel> {
    match Target::parse(word)? {
        Target::Archive(path) => {
            let archive = archive(&path)?;
            Ok(Parcel { archive, provenance: Provenance::Outside })
        }
        Target::Folder(folder) => {
            bail!("{} is a folder: `aos build` makes a package of it", folder.display())
        }
        Target::Named(named) => of_store(&UserStore::open()?, &local(&named)?),
        Target::Pulled(reference) => of_store(&UserStore::open()?, &reference),
    }
}

/// A package file as the supervisor gets it: as it is, or with the signature beside it put in.
pub(crate) fn archive(path: &Path) -> Result<File> {
    let plain = package::open_archive(path)?;
    if !signature_file::beside(path).is_file() {
        return Ok(plain);
    }
    let mut held = Held::of_file(path)?;
    let Some(envelope) = signature_file::of(&held, None)? else { return Ok(plain) };
    let attached = attachment::attach_envelope(&held.lease, &held.descriptor, &envelope)?;
    if held.attachments.iter().any(|other| other.descriptor.digest == attached.descriptor.digest) {
        return Ok(plain);
    }
    held.attachments.push(attached);
    packed(&held)
}

/// The name of a package in the user store.
pub(crate) fn local(named: &PackageRef) -> Result<Reference> {
    let mut reference: Reference = named.name.as_str().parse()?;
    match &named.selector {
        Selector::Newest => {}
        Selector::Version(version) => reference.tag = Some(Tag::of_version(version)),
        Selector::Digest(digest) => reference.digest = Some(*digest),
    }
    Ok(reference)
}

/// Packs a package of the user store, with its signatures.
pub(crate) fn of_store(store: &UserStore, reference: &Reference) -> Result<Parcel> {
    let held = Held::of_store(store, reference)?;
    let built_here = store.was_built_here(&held.descriptor.digest)?;
    let provenance = if built_here { Provenance::Local } else { Provenance::Outside };
    Ok(Parcel { archive: packed(&held)?, provenance })
}

/// A package and what is attached to it as an archive.
pub(crate) fn packed(held: &Held) -> Result<File> {
    let mut file = package::anonymous()?;
    {
        let mut output = std::io::BufWriter::new(&mut file);
        held.repository()
            .export(&held.descriptor, &held.attachments, &mut output)
            .with_context(|| format!("cannot read {} from your store", held.config.agent.reference()))?;
        output.flush().context("cannot write the package")?;
    }
    package::rewound(file)
}

/// Hands a package to the supervisor; returns its reference and digest.
pub(crate) async fn install(client: &Client, parcel: Parcel, out: Output) -> Result<(String, String)> {
    let _step = out.step_on_terminal("installing the package");
    let archive = OwnedFd::from(parcel.archive);
    let installed = match parcel.provenance {
        Provenance::Local => client.install_local(archive).await,
        Provenance::Outside => client.install(archive).await,
    };
    installed.map_err(supervisor::explain)
}
