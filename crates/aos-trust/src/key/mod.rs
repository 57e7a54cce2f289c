//! Ed25519 keys (RFC 8032) and their text forms (RFC 8410, RFC 7468).
//!
//! A public key is an SPKI PEM (`PUBLIC KEY`), a private key a PKCS#8 PEM that is encrypted
//! (`ENCRYPTED PRIVATE KEY`): both are what `openssl pkey` reads and writes. A key is named by its
//! [`KeyId`], the SHA-256 of its SPKI DER, which `openssl pkey -pubin -outform DER | sha256sum`
//! prints. Secrets are wiped from memory when they are dropped and have no `Debug`.

mod directory;
mod encrypted;
mod passphrase;

pub use directory::{Entry, KeyDirectory, KeyDirectoryError, KeyName, KeyNameError, Private};
pub use passphrase::{PASSPHRASE_MAX, Passphrase, PassphraseError};

use aos_core::id::Digest;
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use pkcs8::LineEnding;
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a signature.
pub const SIGNATURE_LENGTH: usize = 64;
/// Bytes of a key's PEM text. An Ed25519 key needs less than 600.
pub const PEM_MAX: usize = 8 << 10;

/// Why a key cannot be made, read or written.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The text is longer than a key is.
    #[error("the key has {0} bytes, at most {PEM_MAX} are allowed")]
    TooLong(usize),
    /// The text is not what was expected.
    #[error("the text is not an Ed25519 {expected} ({found})")]
    Form {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// The public key is one for which everybody can sign.
    #[error("the public key is weak: it is a point of small order")]
    Weak,
    /// The public key in a private key's file is another key's.
    #[error("the private key and the public key beside it are not a pair")]
    Mismatch,
    /// The private key is encrypted and no passphrase was given.
    #[error("the private key is encrypted: a passphrase is needed")]
    PassphraseNeeded,
    /// Nothing came out of the decryption.
    #[error("the passphrase is wrong, or the private key is damaged")]
    Passphrase,
    /// The file asks for more work than a key file needs.
    #[error("the private key's {what} is {found}, at most {max} is allowed")]
    Cost {
        /// Which parameter.
        what: &'static str,
        /// What the file asks for.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// The file's encryption is not one that is read.
    #[error("the private key's encryption is not supported: only PBES2 with scrypt or PBKDF2, and AES-CBC")]
    Encryption,
    /// The kernel gives no random bytes.
    #[error("cannot get random bytes")]
    Random(#[source] std::io::Error),
    /// The key cannot be encoded; this does not depend on what anybody wrote.
    #[error("cannot encode the key")]
    Encode,
}

/// The name of a key: the SHA-256 of its SPKI DER. Its text is 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Digest);

/// Why a text is not a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key id is the 64 lowercase hex digits of a SHA-256, with or without `sha256:` before them")]
pub struct KeyIdError;

impl KeyId {
    /// The id of a key whose SPKI DER is `der`.
    fn of(der: &[u8]) -> Self {
        Self(Digest::from_bytes(sha2::Sha256::digest(der).into()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        format!("sha256:{hex}").parse().map(Self).map_err(|_| KeyIdError)
    }
}

/// A public key, and its id.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
}

impl PublicKey {
    fn new(key: VerifyingKey) -> Result<Self, KeyError> {
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        let der = key.to_public_key_der().map_err(|_| KeyError::Encode)?;
        Ok(Self { key, id: KeyId::of(der.as_bytes()) })
    }

    /// Reads an SPKI PEM: one `PUBLIC KEY` block.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let expected = "public key";
        let (label, der) = encrypted::decode_pem(pem, expected)?;
        if label != "PUBLIC KEY" {
            return Err(KeyError::Form { expected, found: encrypted::known_label(label) });
        }
        let found = "its DER is of another kind or damaged";
        let key = VerifyingKey::from_public_key_der(der.as_bytes())
            .map_err(|_| KeyError::Form { expected, found })?;
        Self::new(key)
    }

    /// The SPKI PEM.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.key.to_public_key_pem(LineEnding::LF).map_err(|_| KeyError::Encode)
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// True when `signature` is this key's over `message`. Signatures have one valid form: a
    /// scalar that is not reduced, and a point that is not canonical or of small order, are
    /// refused.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        <[u8; SIGNATURE_LENGTH]>::try_from(signature)
            .is_ok_and(|bytes| self.key.verify_strict(message, &Signature::from_bytes(&bytes)).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

/// A private key. It is wiped when dropped, and has neither `Debug` nor `Clone`.
pub struct PrivateKey {
    key: SigningKey,
    public: PublicKey,
}

impl PrivateKey {
    /// A new key from the kernel's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        fill_random(seed.as_mut())?;
        Self::from_seed(&seed)
    }

    /// The key of a seed (RFC 8032 calls it the private key).
    fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = SigningKey::from_bytes(seed);
        let public = PublicKey::new(key.verifying_key())?;
        Ok(Self { key, public })
    }

    /// Reads a PKCS#8 PEM. An encrypted one needs its passphrase; a plain one (`PRIVATE KEY`) is
    /// read too, so that a key made by other tools can be imported.
    pub fn from_pem(pem: &str, passphrase: Option<&Passphrase>) -> Result<Self, KeyError> {
        encrypted::read(pem, passphrase)
    }

    /// The encrypted PKCS#8 PEM, with a new salt: the text differs each time.
    pub fn to_pem(&self, passphrase: &Passphrase) -> Result<Zeroizing<String>, KeyError> {
        encrypted::write(self, passphrase)
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs the message; the same message gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.key.sign(message).to_bytes()
    }
}

/// Fills the buffer with the kernel's random bytes.
fn fill_random(buffer: &mut [u8]) -> Result<(), KeyError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(KeyError::Random(error.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
