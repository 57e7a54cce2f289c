//! Manifests of other systems: no text makes an importer panic, and what it gives is an Agentfile
//! that grants nothing when the manifest has no capabilities.
#![no_main]

use aos_core::agentfile::{Agentfile, Format};
use aos_core::foreign::System;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for origin in ["m.yaml", "m.json"] {
        drop(System::of_manifest(text, origin));
        for (_, system) in System::ALL {
            if let Ok(converted) = system.convert(text, origin) {
                let file = Agentfile::parse(&converted.agentfile, Format::Yaml, "fuzz");
                let file = file.expect("the importer has parsed it");
                assert!(file.capabilities.is_empty() || text.contains("capabilities"));
            }
        }
    }
});
