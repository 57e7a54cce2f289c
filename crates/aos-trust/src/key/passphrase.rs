//! The passphrase of a private key: bounded, wiped when dropped, never shown.

use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a passphrase: `openssl` reads no more.
pub const PASSPHRASE_MAX: usize = 1023;

/// Why a text is no passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PassphraseError {
    /// The text is empty.
    #[error("the passphrase is empty")]
    Empty,
    /// The text is too long.
    #[error("the passphrase has {0} bytes, at most {PASSPHRASE_MAX} are allowed")]
    TooLong(usize),
    /// Another program would stop reading there.
    #[error("the passphrase has a NUL or a line break, where other programs stop reading it")]
    Break,
}

/// A passphrase. It has no `Debug`, no `Display` and no `Clone`.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes the text; it is wiped here also when it is refused.
    pub fn new(text: impl Into<Zeroizing<String>>) -> Result<Self, PassphraseError> {
        let text = text.into();
        match text.len() {
            0 => Err(PassphraseError::Empty),
            length if length > PASSPHRASE_MAX => Err(PassphraseError::TooLong(length)),
            _ if text.contains(['\0', '\n', '\r']) => Err(PassphraseError::Break),
            _ => Ok(Self(text)),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
