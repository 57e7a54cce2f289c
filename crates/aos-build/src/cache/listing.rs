//! What layers list, so that no layer is read again to know its files.
//!
//! ```text
//! number of items u32 | item: path u16 + bytes | kind u8 | of the kind:
//!   0 directory, 1 file (size u64, SHA-256), 2 symbolic link (target u16 + bytes), each with
//!   mode u32, uid u32, gid u32;  3 hard link (target u16 + bytes);  4 whiteout;  5 opaque
//! ```

use super::{Cache, Layer};
use crate::key::Key;
use crate::tree::{Entry, Item, Listing, Node};
use aos_core::id::Digest;
use std::io;
use std::time::SystemTime;

pub(super) const LISTING: &[u8; 8] = b"AOSLIST1";

/// The key of a layer's listing. The blob belongs to it: an image may say that it has the contents
/// of another one.
fn key(layer: &Layer) -> Digest {
    Key::of("listing").digest(&layer.blob.digest).digest(&layer.diff_id).finish()
}

impl Cache {
    /// What a layer lists, if that is known.
    pub(crate) fn listing(&self, layer: &Layer, now: SystemTime) -> Option<Listing> {
        decode(&self.get(&key(layer), LISTING, now)?)
    }

    /// Keeps what a layer lists; `now` is when it was used last.
    pub(crate) fn put_listing(&self, layer: &Layer, listing: &Listing, now: SystemTime) -> io::Result<()> {
        self.put(&key(layer), LISTING, &encode(listing)?, now)
    }
}

fn encode(listing: &Listing) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        let length = u16::try_from(text.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        io::Result::Ok(())
    };
    bytes.extend_from_slice(&u32::try_from(listing.len()).map_err(io::Error::other)?.to_le_bytes());
    for (path, item) in listing {
        text(&mut bytes, path)?;
        match item {
            Item::Entry(entry) => {
                match &entry.node {
                    Node::Directory => bytes.push(0),
                    Node::File { size, digest } => {
                        bytes.push(1);
                        bytes.extend_from_slice(&size.to_le_bytes());
                        bytes.extend_from_slice(digest.as_bytes());
                    }
                    Node::Symlink(target) => {
                        bytes.push(2);
                        text(&mut bytes, target)?;
                    }
                }
                for number in [entry.mode, entry.uid, entry.gid] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
            Item::HardLink(target) => {
                bytes.push(3);
                text(&mut bytes, target)?;
            }
            Item::Whiteout => bytes.push(4),
            Item::Opaque => bytes.push(5),
        }
    }
    Ok(bytes)
}

/// Takes fields from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<Box<str>> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest): (&'a [u8], _) = self.0.split_at_checked(length)?;
        self.0 = rest;
        str::from_utf8(text).ok().map(Box::from)
    }

    fn item(&mut self) -> Option<Item> {
        let node = match self.take()? {
            [0] => Node::Directory,
            [1] => {
                let size = u64::from_le_bytes(self.take()?);
                Node::File { size, digest: Digest::from_bytes(self.take()?) }
            }
            [2] => Node::Symlink(self.text()?),
            [3] => return self.text().map(Item::HardLink),
            [4] => return Some(Item::Whiteout),
            [5] => return Some(Item::Opaque),
            _ => return None,
        };
        let (mode, uid, gid) = (self.number()?, self.number()?, self.number()?);
        Some(Item::Entry(Entry { node, mode, uid, gid }))
    }
}

fn decode(bytes: &[u8]) -> Option<Listing> {
    let mut reader = Reader(bytes);
    let count = reader.number()?;
    let mut listing = Listing::new();
    for _ in 0..count {
        let path = reader.text()?;
        listing.push((path, reader.item()?));
    }
    reader.0.is_empty().then_some(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item() -> impl Strategy<Value = Item> {
        let node = prop_oneof![
            Just(Node::Directory),
            (any::<u64>(), any::<[u8; 32]>())
                .prop_map(|(size, bytes)| Node::File { size, digest: Digest::from_bytes(bytes) }),
            "[a-z/.]{1,9}".prop_map(|text| Node::Symlink(text.into())),
        ];
        let entry = (node, any::<u32>(), any::<u32>(), any::<u32>())
            .prop_map(|(node, mode, uid, gid)| Item::Entry(Entry { node, mode, uid, gid }));
        prop_oneof![
            entry,
            "[a-z]{1,9}".prop_map(|text| Item::HardLink(text.into())),
            Just(Item::Whiteout),
            Just(Item::Opaque)
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(listing in prop::collection::vec(("[a-z/]{0,9}".prop_map(Box::from), item()), 0..9)) {
            let bytes = encode(&listing).unwrap();
            prop_assert_eq!(decode(&bytes), Some(listing));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            decode(&bytes);
        }
    }
}
