//! The Agentfile in its three formats: no text makes the parser panic, and what it takes resolves
//! to a config that reads back as the same.
#![no_main]

use aos_core::agentfile::{Agentfile, Format};
use aos_core::config::ResolvedAgent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for format in [Format::Yaml, Format::Json, Format::Toml] {
        if let Ok(file) = Agentfile::parse(text, format, "fuzz")
            && let Ok(agent) = file.resolve()
        {
            let json = agent.to_canonical_json().expect("resolve has written it before");
            assert_eq!(ResolvedAgent::from_canonical_json(&json).expect("it is canonical"), agent);
        }
    }
});
