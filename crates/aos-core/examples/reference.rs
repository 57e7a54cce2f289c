//! Prints the Agentfile's reference page, as it is in docs/agentfile-reference.md; with `schema` the
//! JSON Schema, as it is in docs/agentfile.schema.json.
#![expect(clippy::print_stdout, reason = "it prints")]

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("schema") => print!("{}", aos_core::agentfile::json_schema()),
        _ => print!("{}", aos_core::agentfile::reference_markdown()),
    }
}
