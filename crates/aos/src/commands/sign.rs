//! `aos sign`: a signature of a package.

use anyhow::{Context, Result};
use aos_core::reference::Location;
use clap::Args;
use serde::Serialize;

use crate::attachment;
use crate::cli::Format;
use crate::completion;
use crate::failure::hinted;
use crate::held::{self, Held};
use crate::keys::{self, PassphraseArgs};
use crate::output::Output;
use crate::signature_file;
use crate::store::UserStore;

/// Sign a package
///
/// Signs exactly these bytes under the name and version that the package carries. The signature is attached to the
/// package in your store, and goes with it when it is pushed or exported. Of a package file, the signature is written
/// beside it as signature.json.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// A package of your store, or a package file
    #[arg(value_name = "PACKAGE", add = completion::stored())]
    package: String,

    /// The key: a name, as `aos key list` shows it, or a PEM file
    #[arg(long, value_name = "KEY", add = completion::keys())]
    key: String,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    format: Format,
}

/// What was signed.
#[derive(Debug, Serialize)]
struct Signed {
    /// `name:version`.
    reference: String,
    /// The manifest.
    digest: String,
    /// The key's id.
    key: String,
    /// The attachment in the store, or the file that was written.
    signature: String,
}

/// Runs `aos sign`.
pub(crate) fn run(args: &SignArgs, out: Output) -> Result<()> {
    let location = held::location(&args.package)?;
    let (held, signature, key) = match &location {
        Location::Local(reference) | Location::Registry(reference) => {
            let held = Held::of_store(&UserStore::open()?, reference)?;
            let key = keys::private(&args.key, &args.passphrase)?;
            let attached = attachment::sign(&held.lease, &held.descriptor, &key)?;
            (held, attached.descriptor.digest.to_string(), key)
        }
        Location::Archive(path) => {
            let held = Held::of_file(path)?;
            let key = keys::private(&args.key, &args.passphrase)?;
            let beside = signature_file::sign(&held, path, &key)?;
            (held, beside.display().to_string(), key)
        }
        Location::Layout { .. } => {
            return Err(hinted(
                "a package in a directory registry is signed when it is pushed there",
                "`aos push PACKAGE oci:DIR --sign KEY`",
            ));
        }
    };
    let signed = Signed {
        reference: held.config.agent.reference().to_string(),
        digest: held.descriptor.digest.to_string(),
        key: key.public().id().to_string(),
        signature,
    };
    if args.format.is_json() {
        return out.json(&signed);
    }
    out.note(&format!("{} {} is signed with {}", signed.reference, signed.digest, signed.key));
    out.line(&signed.signature).context("cannot print the result")
}
