//! The trust policy: no text makes the reader panic, and no policy trusts an unsigned package
//! unless it says so.
#![no_main]

use aos_core::id::Digest;
use aos_trust::policy::{Package, Policy};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &[u8]| {
    // Keys by path lead nowhere, so that no run depends on this machine's files.
    if let Ok(policy) = Policy::parse(Path::new("/nonexistent/fuzz.toml"), text) {
        let package = Package {
            name: "web".parse().expect("it is a name"),
            version: "1.0.0".parse().expect("it is a version"),
            repository: None,
            manifest: Digest::from_bytes([0; 32]),
        };
        let trusted = policy.decide(&package, &[]).is_ok();
        // A quoted name may be written with escapes.
        let says = text.contains(&b'\\') || text.windows(8).any(|word| word == b"unsigned");
        assert!(!trusted || says);
    }
});
