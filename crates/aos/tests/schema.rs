//! `aos gen-schema` prints docs/agentfile.schema.json.

use std::fs;
use std::path::Path;

use assert_cmd::Command;

#[test]
fn the_committed_file_is_what_the_command_prints() {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("aos")).arg("gen-schema").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let committed =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/agentfile.schema.json"))
            .unwrap();
    assert!(
        printed == committed,
        "write it anew: cargo run -p aos -- gen-schema > docs/agentfile.schema.json"
    );
}
