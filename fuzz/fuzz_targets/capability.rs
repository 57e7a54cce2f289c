//! The capability grammar: what parses prints and parses back, and each line covers itself.
#![no_main]

use aos_core::capability::Capability;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(capability) = text.parse::<Capability>() {
        let printed = capability.to_string();
        assert_eq!(printed.parse::<Capability>().expect("what is printed parses"), capability);
        assert!(!printed.contains(['\n', '\r', '\0']));
        assert!(capability.covers(&capability));
    }
});
