//! `signature.json`: the signature beside a package file.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aos_core::reference::Location;
use aos_trust::dsse::Envelope;
use aos_trust::key::PrivateKey;
use aos_trust::signature::{SIGNATURE_ENVELOPE_MAX, SIGNATURE_FILE, sign_package};

use crate::failure::hinted;
use crate::held::Held;
use crate::package;

/// The file beside a package file.
pub(crate) fn beside(archive: &Path) -> PathBuf {
    archive.with_file_name(SIGNATURE_FILE)
}

/// The signature of a package in hand that is a file: in the file that is named, which must be there, or beside it,
/// where there may be none, or another package's.
pub(crate) fn of(held: &Held, named: Option<&Path>) -> Result<Option<Envelope>> {
    if let Some(path) = named {
        let envelope = read(path)?;
        return envelope.with_context(|| format!("there is no signature in {}", path.display())).map(Some);
    }
    let Location::Archive(archive) = &held.location else { return Ok(None) };
    if archive == Path::new("-") {
        return Ok(None);
    }
    let envelope = read(&beside(archive))?;
    Ok(envelope.filter(|envelope| is_about(envelope, held)))
}

/// Whether an envelope claims to be about a package. It is a hint which file belongs to which package, no more: what
/// is claimed counts only after the signature is verified.
fn is_about(envelope: &Envelope, held: &Held) -> bool {
    let digest = held.descriptor.digest.hex();
    let claim = String::from_utf8_lossy(envelope.unverified_payload());
    claim.contains(&digest)
}

/// True when a file has a signature of something else than this one is about, or is none.
pub(crate) fn is_of_another(path: &Path, envelope: &Envelope) -> bool {
    match read(path) {
        Ok(None) => false,
        Ok(Some(found)) => found.unverified_payload() != envelope.unverified_payload(),
        Err(_) => true,
    }
}

/// Reads an envelope; `None` when there is no file.
fn read(path: &Path) -> Result<Option<Envelope>> {
    let file = match package::open_plain(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut bytes = Vec::new();
    let read = file.take(SIGNATURE_ENVELOPE_MAX as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() <= SIGNATURE_ENVELOPE_MAX,
        "{} has more than {SIGNATURE_ENVELOPE_MAX} bytes",
        path.display()
    );
    let envelope = Envelope::parse(&bytes).with_context(|| format!("{} is no signature", path.display()))?;
    Ok(Some(envelope))
}

/// Signs a package file: writes the signature beside it, or adds it to the one that is there.
pub(crate) fn sign(held: &Held, archive: &Path, key: &PrivateKey) -> Result<PathBuf> {
    let agent = &held.config.agent;
    let new = sign_package(&agent.name, &agent.version, held.descriptor.digest, key)?;
    let path = beside(archive);
    let envelope = match read(&path)? {
        None => new,
        Some(mut old) if old.unverified_payload() == new.unverified_payload() => {
            old.add_signature(key)?;
            old
        }
        Some(_) => {
            return Err(hinted(
                format!("{} is the signature of another package", path.display()),
                "move the package, or that file, to another folder",
            ));
        }
    };
    package::write_whole(&path, |file| Ok(std::io::Write::write_all(file, &envelope.to_json()?)?))?;
    Ok(path)
}
