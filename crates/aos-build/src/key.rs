//! Keys: what a result depends on, as one SHA-256.
//!
//! Each key starts with a domain, and every field is preceded by its length: no two lists of fields
//! give the same bytes. Numbers are little-endian.

use aos_core::id::Digest;
use sha2::{Digest as _, Sha256};

/// Raised whenever the same fields would give another result, so that what an older version has
/// cached is not found.
pub(crate) const FORMAT: u64 = 1;
/// Hashed at once: many small fields are collected first.
const BUFFER: usize = 16 << 10;

/// A key that is being made.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    hash: Sha256,
    buffer: Vec<u8>,
}

impl Key {
    /// A key of one domain. A domain's fields have one order and meaning.
    pub(crate) fn of(domain: &str) -> Self {
        let key = Self { hash: Sha256::new(), buffer: Vec::with_capacity(BUFFER) };
        key.text("aos-build").text(domain).number(FORMAT)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.add(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn digest(self, digest: &Digest) -> Self {
        self.bytes(digest.as_bytes())
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// A list: the number of its elements, then each.
    pub(crate) fn list<T>(self, list: &[T], each: impl Fn(Self, &T) -> Self) -> Self {
        list.iter().fold(self.number(list.len() as u64), each)
    }

    /// One field without taking the key, for long loops.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if self.buffer.len() + 8 + bytes.len() > BUFFER {
            self.hash.update(&self.buffer);
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(bytes);
    }

    pub(crate) fn finish(mut self) -> Digest {
        self.hash.update(&self.buffer);
        Digest::from_bytes(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(domain: &str, fields: &[Vec<u8>]) -> Digest {
        fields.iter().fold(Key::of(domain), |key, field| key.bytes(field)).finish()
    }

    #[test]
    fn long_fields_are_hashed_whole() {
        let long = vec![7; 3 * BUFFER];
        let mut other = long.clone();
        *other.last_mut().unwrap() = 8;
        assert_ne!(key("a", &[long]), key("a", &[other]));
    }

    proptest! {
        #[test]
        fn other_fields_give_another_key(
            one in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..5),
            two in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..5),
        ) {
            prop_assert_eq!(key("a", &one) == key("a", &two), one == two);
            prop_assert_ne!(key("a", &one), key("b", &one));
        }

        /// The same bytes, divided into fields in another way.
        #[test]
        fn borders_count(bytes in prop::collection::vec(any::<u8>(), 1..20), at in 0_usize..20) {
            let at = at.min(bytes.len());
            let (left, right) = bytes.split_at(at);
            prop_assert_ne!(key("a", &[left.to_vec(), right.to_vec()]), key("a", std::slice::from_ref(&bytes)));
        }
    }
}
