//! docs/agentfile-reference.md is what the schema gives.

use aos_core::agentfile::{json_schema, reference_markdown};

#[test]
fn the_committed_page_is_what_the_schema_gives() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agentfile-reference.md");
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == reference_markdown(),
        "write it anew: cargo run -p aos-core --example reference > docs/agentfile-reference.md"
    );
}

#[test]
fn the_page_names_every_field_of_the_schema() {
    let page = reference_markdown();
    let schema: serde_json::Value = serde_json::from_str(&json_schema()).unwrap();
    let mut open = vec![&schema];
    let mut count = 0;
    while let Some(value) = open.pop() {
        if let Some(properties) = value.get("properties").and_then(|p| p.as_object()) {
            // Conditions name fields without describing them.
            for name in properties
                .iter()
                .filter(|(_, field)| field.get("description").is_some())
                .map(|(name, _)| name)
            {
                assert!(page.contains(&format!("| `{name}`")), "{name}");
                count += 1;
            }
        }
        match value {
            serde_json::Value::Object(map) => open.extend(map.values()),
            serde_json::Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
    assert!(count > 50, "{count}");
}
