//! Layers as they are packed: listing one ends, and never gives more than the bounds allow.
#![no_main]

use aos_core::id::Digest;
use aos_package::bounds::{FILES_MAX, RATIO_FREE};
use aos_package::layer::read::Items;
use aos_package::oci::{Descriptor, LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE};
use libfuzzer_sys::fuzz_target;
use std::io::{Seek, Write};

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, blob)) = bytes.split_first() else { return };
    let media_type = match first % 3 {
        0 => LAYER_GZIP_TYPE,
        1 => LAYER_ZSTD_TYPE,
        _ => "application/vnd.oci.image.layer.v1.tar",
    };
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(blob).and_then(|()| file.rewind()).expect("it is written");
    let layer = Descriptor::new(media_type, Digest::from_bytes([0; 32]), blob.len() as u64);
    // The digest of the tar is never this one, so every listing ends with an error.
    let items = Items::open(file, &layer, layer.digest).expect("it is opened");
    let (mut count, mut size) = (0, 0);
    let mut last = None;
    for item in items {
        if let Ok(item) = &item {
            (count, size) = (count + 1, size + item.size);
        }
        last = Some(item.is_err());
    }
    assert_eq!(last, Some(true));
    assert!(count <= FILES_MAX && size <= RATIO_FREE.max(bytes.len() as u64 * 200));
});
