//! `Agentfile.lock`: what is read is written as a text that reads back as the same.
#![no_main]

use aos_core::lock::Lockfile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(lock) = Lockfile::parse(text) {
        let written = lock.to_toml().expect("it was read");
        assert_eq!(Lockfile::parse(&written).expect("it was written"), lock);
        lock.order().expect("a lock has no circle");
    }
});
