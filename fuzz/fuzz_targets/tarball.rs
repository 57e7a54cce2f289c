//! The tar reader: it ends, and every name it gives is below the root.
#![no_main]

use aos_package::tarball::TarReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut tar = TarReader::new(bytes);
    while let Ok(Some(entry)) = tar.next_entry() {
        assert!(entry.path.segments().all(|name| !name.is_empty() && name != "." && name != ".."));
    }
});
