//! The PKCS#8 text of a private key: encrypted with PBES2 (RFC 8018), scrypt (RFC 7914) and
//! AES-256-CBC, and bounded when read.
//!
//! Key files come from other people too (`aos key import`). The file says how much memory and time
//! its own decryption takes, so those numbers are checked before any of it is spent.

use super::{KeyError, PEM_MAX, Passphrase, PrivateKey, fill_random};
use ed25519_dalek::pkcs8::KeypairBytes;
use pkcs8::der::{Decode as _, Encode as _};
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{self, Kdf, Salt, ScryptParams};
use pkcs8::{
    DecodePrivateKey as _, EncodePrivateKey as _, EncryptedPrivateKeyInfoOwned, EncryptedPrivateKeyInfoRef,
    LineEnding, SecretDocument,
};
use zeroize::Zeroizing;

/// scrypt's N. With r = 8 it takes 16 MiB; `openssl` refuses a file that takes 32 MiB or more.
const SCRYPT_N: u64 = 1 << 14;
/// scrypt's block size r, as RFC 7914 recommends.
const SCRYPT_R: u16 = 8;
/// scrypt's p: OWASP's Password Storage Cheat Sheet pairs N = 2^14, r = 8 with p = 5.
const SCRYPT_P: u16 = 5;

/// Bytes that scrypt may take (128 * N * r) when a file is read: what `openssl` allows.
const SCRYPT_MEMORY_MAX: u64 = 32 << 20;
/// Work that scrypt may take (128 * N * r * p): ten times what is written here, some seconds.
const SCRYPT_WORK_MAX: u64 = 800 << 20;
/// Rounds of PBKDF2 when a file is read: OWASP recommends 600,000; this is some seconds.
const PBKDF2_ROUNDS_MAX: u64 = 10_000_000;

const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
const PLAIN_LABEL: &str = "PRIVATE KEY";

/// Decodes a text that is one PEM block to its label and DER, which is wiped.
pub(super) fn decode_pem<'p>(
    pem: &'p str,
    expected: &'static str,
) -> Result<(&'p str, SecretDocument), KeyError> {
    if pem.len() > PEM_MAX {
        return Err(KeyError::TooLong(pem.len()));
    }
    SecretDocument::from_pem(pem)
        .map_err(|_| KeyError::Form { expected, found: "it is no PEM text of a key" })
}

/// What a label says, in words that are ours.
pub(super) fn known_label(label: &str) -> &'static str {
    match label {
        "PUBLIC KEY" => "it is a public key",
        PLAIN_LABEL => "it is a private key",
        ENCRYPTED_LABEL => "it is an encrypted private key",
        "CERTIFICATE" => "it is a certificate",
        "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => "it is cosign's own format",
        "OPENSSH PRIVATE KEY" => "it is OpenSSH's own format",
        _ => "its PEM label is another",
    }
}

const EXPECTED: &str = "private key in PKCS#8";

fn form(found: &'static str) -> KeyError {
    KeyError::Form { expected: EXPECTED, found }
}

/// Reads a private key, encrypted or plain.
pub(super) fn read(pem: &str, passphrase: Option<&Passphrase>) -> Result<PrivateKey, KeyError> {
    let (label, der) = decode_pem(pem, EXPECTED)?;
    match label {
        PLAIN_LABEL => from_pkcs8(der.as_bytes()).ok_or(form("its DER is of another kind or damaged"))?,
        ENCRYPTED_LABEL => {
            let damaged = || form("its DER is damaged, or encrypted in a way that is not supported");
            let info = EncryptedPrivateKeyInfoRef::from_der(der.as_bytes()).map_err(|_| damaged())?;
            check_cost(&info.encryption_algorithm)?;
            let passphrase = passphrase.ok_or(KeyError::PassphraseNeeded)?;
            let plain = info.decrypt(passphrase.as_bytes()).map_err(|_| KeyError::Passphrase)?;
            from_pkcs8(plain.as_bytes()).ok_or(KeyError::Passphrase)?
        }
        other => Err(form(known_label(other))),
    }
}

/// The key in a PKCS#8 DER; `None` when there is none, an error when there is one that is wrong.
fn from_pkcs8(der: &[u8]) -> Option<Result<PrivateKey, KeyError>> {
    let pair = KeypairBytes::from_pkcs8_der(der).ok()?;
    Some(PrivateKey::from_seed(&pair.secret_key).and_then(|key| match &pair.public_key {
        Some(public) if public.to_bytes() != key.public.key.to_bytes() => Err(KeyError::Mismatch),
        _ => Ok(key),
    }))
}

fn at_most(what: &'static str, found: u64, max: u64) -> Result<(), KeyError> {
    if found > max { Err(KeyError::Cost { what, found, max }) } else { Ok(()) }
}

/// Refuses a file that asks for more than a key's decryption needs.
fn check_cost(scheme: &EncryptionScheme) -> Result<(), KeyError> {
    match scheme.pbes2().map(|parameters| &parameters.kdf) {
        Some(Kdf::Scrypt(scrypt)) => {
            let n = scrypt.cost_parameter;
            if n < 2 || !n.is_power_of_two() {
                return Err(form("its scrypt N is no power of two"));
            }
            let memory = n.saturating_mul(u64::from(scrypt.block_size)).saturating_mul(128);
            at_most("scrypt memory in bytes", memory, SCRYPT_MEMORY_MAX)?;
            let work = memory.saturating_mul(u64::from(scrypt.parallelization));
            at_most("scrypt work in bytes", work, SCRYPT_WORK_MAX)
        }
        Some(Kdf::Pbkdf2(pbkdf2)) => {
            at_most("PBKDF2 round count", u64::from(pbkdf2.iteration_count), PBKDF2_ROUNDS_MAX)
        }
        _ => Err(KeyError::Encryption),
    }
}

/// Writes the key, encrypted.
pub(super) fn write(key: &PrivateKey, passphrase: &Passphrase) -> Result<Zeroizing<String>, KeyError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    fill_random(&mut salt)?;
    fill_random(&mut iv)?;
    let scrypt = ScryptParams {
        salt: Salt::new(salt).map_err(|_| KeyError::Encode)?,
        cost_parameter: SCRYPT_N,
        block_size: SCRYPT_R,
        parallelization: SCRYPT_P,
        key_length: None,
    };
    let scheme =
        pbes2::Parameters { kdf: scrypt.into(), encryption: pbes2::EncryptionScheme::Aes256Cbc { iv } };
    // Version 1 of PKCS#8, without the public key: OpenSSL 3.0 reads no other.
    let pair = KeypairBytes { secret_key: key.key.to_bytes(), public_key: None };
    let plain = pair.to_pkcs8_der().map_err(|_| KeyError::Encode)?;
    let encrypted = scheme.encrypt(passphrase.as_bytes(), plain.as_bytes()).map_err(|_| KeyError::Encode)?;
    let info = EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: scheme.into(),
        encrypted_data: pkcs8::der::asn1::OctetString::new(encrypted).map_err(|_| KeyError::Encode)?,
    };
    let der = info.to_der().map_err(|_| KeyError::Encode)?;
    let document = SecretDocument::try_from(der).map_err(|_| KeyError::Encode)?;
    document.to_pem(ENCRYPTED_LABEL, LineEnding::LF).map_err(|_| KeyError::Encode)
}
