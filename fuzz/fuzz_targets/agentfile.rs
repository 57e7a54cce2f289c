//! The Agentfile in its three formats: no text makes the parser panic, and what it takes resolves
//! to a config that reads back as the same, whatever its arguments are.
#![no_main]

use aos_core::agentfile::{Agentfile, Draft, Format, Inherited, Lineage, graph};
use aos_core::config::{ResolvedAgent, RootKind};
use aos_core::text::EnvValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for format in [Format::Yaml, Format::Json, Format::Toml] {
        let Ok(draft) = Draft::parse(text, format, "fuzz") else { continue };
        // Each argument has the whole text as its value, when it is one.
        let lineage = Lineage::new("fuzz".to_owned(), draft);
        let mut arguments = lineage.arguments();
        if let Ok(value) = text.parse::<EnvValue>() {
            arguments.values_mut().for_each(|slot| *slot = value.clone());
        }
        drop(lineage.finish(&arguments));
        let Ok(file) = Agentfile::parse(text, format, "fuzz") else { continue };
        if let Some(build) = &file.build {
            assert_eq!(graph::order(build).expect("it is checked").len(), build.stages.len());
        }
        let inherited = Inherited { root: Some(RootKind::Own), ..Inherited::default() };
        if let Ok(agent) = file.resolve_with(&inherited) {
            let json = agent.to_canonical_json().expect("resolve has written it before");
            assert_eq!(ResolvedAgent::from_canonical_json(&json).expect("it is canonical"), agent);
        }
    }
});
