//! `aos export`: a package of the user store into a file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aos_package::archive::EXTENSION;
use aos_package::repository::Attachment;
use aos_trust::dsse::Envelope;
use clap::{Args, ValueHint};
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::failure::hinted;
use crate::held::{Freshness, Held};
use crate::output::Output;
use crate::store::UserStore;
use crate::{package, place, signature_file, trust};

/// Write a package into a file
///
/// Writes NAME-VERSION.aap, an OCI archive with the package and what is attached to it: signatures, SBOM, provenance.
/// The same package gives the same bytes. When it is signed, signature.json is written beside it for tools that read
/// no archive.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// A package: of your store, a registry or a directory registry
    #[arg(value_name = "PACKAGE", add = completion::stored())]
    package: String,

    /// The file to write, or `-` for standard output; NAME-VERSION.aap if it is not given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Leave out what is attached, and write no signature.json
    #[arg(long)]
    bare: bool,

    #[command(flatten)]
    format: Format,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    /// `name:version`.
    reference: String,
    /// The manifest.
    digest: String,
    /// The package file.
    file: String,
    /// The signature beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// Runs `aos export`.
pub(crate) async fn run(args: &ExportArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let held = place::open(&args.package, &store, Freshness::Pulled, out).await?;
    let attachments: &[Attachment] = if args.bare { &[] } else { &held.attachments };
    if args.output.as_deref() == Some(Path::new("-")) {
        if out.is_terminal() {
            return Err(hinted("a package is no text for a terminal", "name a file, or use a pipe"));
        }
        let mut file = package::anonymous()?;
        write(&held, attachments, &mut file)?;
        return Ok(out.copy(package::rewound(file)?)?);
    }
    let agent = &held.config.agent;
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}-{}.{EXTENSION}", agent.name, agent.version)));
    package::write_whole(&path, |file| write(&held, attachments, file))?;
    let signature = match trust::envelopes(held.repository(), attachments).first() {
        Some(envelope) => Some(beside(&path, envelope, out)?),
        None => None,
    };
    let exported = Exported {
        reference: agent.reference().to_string(),
        digest: held.descriptor.digest.to_string(),
        file: path.display().to_string(),
        signature: signature.flatten().map(|path| path.display().to_string()),
    };
    if args.format.is_json() {
        return out.json(&exported);
    }
    out.note(&format!("{} {}", exported.reference, exported.digest));
    Ok(out.line(&exported.file)?)
}

/// Writes the archive.
fn write(held: &Held, attachments: &[Attachment], output: impl Write) -> Result<()> {
    let mut output = std::io::BufWriter::new(output);
    held.repository()
        .export(&held.descriptor, attachments, &mut output)
        .with_context(|| format!("cannot export {}", held.config.agent.reference()))?;
    output.flush().context("cannot write the package")
}

/// Writes the first signature beside the package, unless the signature of another package is there.
fn beside(archive: &Path, envelope: &Envelope, out: Output) -> Result<Option<PathBuf>> {
    let path = signature_file::beside(archive);
    if signature_file::is_of_another(&path, envelope) {
        out.warn(&format!(
            "{} is the signature of another package, and is kept; the one in the package counts",
            path.display()
        ));
        return Ok(None);
    }
    package::write_whole(&path, |file| Ok(file.write_all(&envelope.to_json()?)?))?;
    Ok(Some(path))
}
