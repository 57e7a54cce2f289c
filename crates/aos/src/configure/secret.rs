//! A secret on its way from a person to the program that stores it.
//!
//! The text is wiped from memory when dropped, has no `Debug` or `Display` that shows it, and can be read from
//! a file, from standard input, or from a terminal without echo; never from an argument.

use std::fmt;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use zeroize::Zeroizing;

/// The most bytes a secret may have. The longest provider keys in use have a few hundred.
pub(crate) const MAX_SECRET_BYTES: usize = 8 * 1024;

/// A password or a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps text, without the line break at its end.
    pub(crate) fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        Self(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
    }

    /// The text itself, for the program that stores it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads one from a file, or from standard input for `-`.
    pub(crate) fn from_path(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Self::from_reader(std::io::stdin().lock()).context("cannot read standard input");
        }
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Self::from_reader(file).with_context(|| format!("cannot read {}", path.display()))
    }

    fn from_reader(reader: impl Read) -> Result<Self> {
        let mut text = Zeroizing::new(String::new());
        let limit = MAX_SECRET_BYTES as u64 + 1;
        reader.take(limit).read_to_string(&mut text)?;
        ensure!(text.len() <= MAX_SECRET_BYTES, "a secret has at most {MAX_SECRET_BYTES} bytes");
        Ok(Self::new(text.to_string()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_it() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret(..)");
    }

    #[test]
    fn only_the_line_break_at_the_end_goes() {
        assert_eq!(Secret::new(" a b \r\n".to_owned()).reveal(), " a b ");
    }

    #[test]
    fn an_endless_input_is_refused() {
        assert!(Secret::from_reader(std::io::repeat(b'a')).is_err());
    }
}
