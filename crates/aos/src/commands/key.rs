//! `aos key`: the keys that sign packages, and those that packages are verified with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aos_trust::key::{KeyName, Private, PrivateKey, PublicKey};
use clap::{Args, Subcommand, ValueHint};
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::failure;
use crate::keys::{self, Asking, PassphraseArgs};
use crate::output::{Output, Tone};
use crate::table::{Columns, Text};

/// Make, show, export and import keys
///
/// A key pair signs packages (`aos sign`, `aos push --sign`); its public half, in a file of /etc/aos/trust.d, says whose
/// packages may be installed. Private keys are Ed25519, encrypted with a passphrase, in files that only you can read.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key pair
    ///
    /// Asks for a passphrase, and prints the key's id.
    Generate {
        /// Its name
        #[arg(value_name = "NAME")]
        name: KeyName,
        #[command(flatten)]
        passphrase: PassphraseArgs,
        #[command(flatten)]
        format: Format,
    },
    /// Show the keys
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Write a key
    ///
    /// Writes the public key (SPKI, PEM), or with --private the private key as it is stored, encrypted (PKCS#8, PEM).
    Export {
        /// Its name
        #[arg(value_name = "NAME", add = completion::keys())]
        name: KeyName,
        /// The encrypted private key
        #[arg(long)]
        private: bool,
        /// The file to write; standard output if it is not given
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Take a key from a file
    ///
    /// Takes a public key, or a private one, which is stored encrypted with its passphrase; one that has none gets one.
    Import {
        /// Its name
        #[arg(value_name = "NAME")]
        name: KeyName,
        /// A PEM file, or `-` for standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseArgs,
        #[command(flatten)]
        format: Format,
    },
}

/// A key.
#[derive(Debug, Serialize)]
struct Row {
    /// Its name.
    name: String,
    /// The SHA-256 of the public key's SPKI, in hex; absent for a file that cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// True when the private half is there: it can sign.
    private: bool,
    /// Why the key cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs `aos key`.
pub(crate) fn run(args: &KeyArgs, out: Output) -> Result<()> {
    match &args.command {
        KeyCommand::Generate { name, passphrase, format } => {
            let passphrase = passphrase.obtain(&format!("the key {name}"), Asking::New)?;
            let key = keys::directory()?.generate(name, &passphrase);
            made(
                name,
                &key.with_context(|| format!("cannot make the key {name}"))?,
                Private::Present,
                *format,
                out,
            )
        }
        KeyCommand::List { format } => list(*format, out),
        KeyCommand::Export { name, private, output } => export(name, *private, output.as_deref(), out),
        KeyCommand::Import { name, file, passphrase, format } => {
            let (key, private) =
                import(name, file, passphrase).with_context(|| format!("cannot import {name}"))?;
            made(name, &key, private, *format, out)
        }
    }
}

/// Tells of a key that is there now.
fn made(name: &KeyName, key: &PublicKey, private: Private, format: Format, out: Output) -> Result<()> {
    let id = key.id().to_string();
    if format.is_json() {
        let private = private == Private::Present;
        return out.json(&Row { name: name.to_string(), id: Some(id), private, error: None });
    }
    out.note(&format!("{name} is in {}", keys::directory()?.path().display()));
    Ok(out.line(&id)?)
}

fn list(format: Format, out: Output) -> Result<()> {
    let directory = keys::directory()?;
    let entries = directory.list().with_context(|| format!("cannot list {}", directory.path().display()))?;
    let rows: Vec<Row> = entries
        .into_iter()
        .map(|entry| {
            let private = entry.private == Private::Present;
            let (id, error) = match entry.public {
                Ok(key) => (Some(key.id().to_string()), None),
                Err(error) => (None, Some(failure::sentence(&error.into()))),
            };
            Row { name: entry.name.to_string(), id, private, error }
        })
        .collect();
    if format.is_json() {
        return out.json(&rows);
    }
    if rows.is_empty() {
        out.note("no keys; `aos key generate NAME` makes one");
        return Ok(());
    }
    let mut table = Columns::new(out, &["KEY", "CAN", "ID"]);
    for row in &rows {
        let id = match (&row.id, &row.error) {
            (Some(id), _) => Text::toned(id, Tone::Faint),
            (None, error) => Text::toned(error.clone().unwrap_or_default(), Tone::Bad),
        };
        table.row([
            Text::toned(&row.name, Tone::Strong),
            Text::new(if row.private { "sign, verify" } else { "verify" }),
            id,
        ]);
    }
    Ok(table.print()?)
}

fn export(name: &KeyName, private: bool, output: Option<&Path>, out: Output) -> Result<()> {
    let directory = keys::directory()?;
    let text = if private {
        keys::found(directory.private_pem(name))?
    } else {
        keys::found(directory.public(name))?.to_pem()?.into()
    };
    match output {
        None => Ok(out.bytes(text.as_bytes())?),
        Some(path) => write(path, text.as_bytes(), private),
    }
}

/// Writes a file that is not there yet. A private key is for its owner alone.
fn write(path: &Path, bytes: &[u8], private: bool) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mode = if private { 0o600 } else { 0o644 };
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn import(name: &KeyName, file: &Path, passphrase: &PassphraseArgs) -> Result<(PublicKey, Private)> {
    let text = keys::read_pem(file)?;
    let directory = keys::directory()?;
    if text.contains("PUBLIC KEY") {
        let key = PublicKey::from_pem(&text).with_context(|| format!("cannot use {}", file.display()))?;
        directory.import_public(name, &key)?;
        return Ok((key, Private::Absent));
    }
    if !text.contains("PRIVATE KEY") {
        bail!("{} holds no key in PEM", file.display());
    }
    let encrypted = text.contains("ENCRYPTED");
    let asking = if encrypted { Asking::Known } else { Asking::New };
    let passphrase = passphrase.obtain(&format!("the key {name}"), asking)?;
    let key = PrivateKey::from_pem(&text, encrypted.then_some(&passphrase))
        .with_context(|| format!("cannot use {}", file.display()))?;
    Ok((directory.import(name, &key, &passphrase)?, Private::Present))
}
