//! The crate's operations as commands, for `tests/trust/run`, which compares them with those of
//! `openssl` and `cosign`.
//!
//!     attest write DIRECTORY PASSPHRASE                 a key, a manifest, its signature in all forms
//!     attest key FILE PASSPHRASE                        the id of a private key
//!     attest decide TRUST_DIRECTORY NAME VERSION MANIFEST ENVELOPE...
#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a program of the tests")]

use aos_core::id::Digest;
use aos_trust::dsse::{Envelope, pae};
use aos_trust::key::{KeyDirectory, Passphrase, PrivateKey};
use aos_trust::{policy, signature};
use base64::Engine as _;
use sha2::Digest as _;
use std::error::Error;
use std::path::Path;
use std::{fs, process};

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

fn write(directory: &Path, passphrase: &str) -> Result<(), Box<dyn Error>> {
    let passphrase = Passphrase::new(passphrase.to_owned())?;
    let keys = KeyDirectory::new(directory.join("keys"));
    let name = "release".parse()?;
    let public = keys.generate(&name, &passphrase)?;
    let key = keys.private(&name, &passphrase)?;
    let envelope = signature::sign_package(&"web".parse()?, &"1.0.0".parse()?, sha256(MANIFEST), &key)?;
    let message = pae(envelope.payload_type(), envelope.unverified_payload());
    let signature = key.sign(&message);
    fs::write(directory.join("manifest.json"), MANIFEST)?;
    fs::write(directory.join(signature::SIGNATURE_FILE), envelope.to_json()?)?;
    fs::write(directory.join("message"), &message)?;
    fs::write(directory.join("message.sig"), signature)?;
    fs::write(
        directory.join("message.sig.b64"),
        base64::engine::general_purpose::STANDARD.encode(signature),
    )?;
    println!("{}", public.id());
    Ok(())
}

fn decide(
    trust: &str,
    name: &str,
    version: &str,
    manifest: &str,
    files: &[String],
) -> Result<(), Box<dyn Error>> {
    let package = policy::Package {
        name: name.parse()?,
        version: version.parse()?,
        repository: None,
        manifest: sha256(&fs::read(manifest)?),
    };
    let parse =
        |file: &String| -> Result<Envelope, Box<dyn Error>> { Ok(Envelope::parse(&fs::read(file)?)?) };
    let envelopes = files.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let trusted = policy::decide(&[trust], &package, &envelopes)?;
    println!("trusted by {} with {:?}", trusted.rule, trusted.keys);
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["write", directory, passphrase] => write(Path::new(directory), passphrase),
        ["key", file, passphrase] => (|| {
            let passphrase = Passphrase::new((*passphrase).to_owned())?;
            let key = PrivateKey::from_pem(&fs::read_to_string(file)?, Some(&passphrase))?;
            println!("{}", key.public().id());
            Ok(())
        })(),
        ["decide", trust, name, version, manifest, ..] => {
            decide(trust, name, version, manifest, &arguments[5..])
        }
        _ => Err("usage: attest write|key|decide ...".into()),
    };
    if let Err(error) = done {
        println!("{error}");
        process::exit(4);
    }
}
