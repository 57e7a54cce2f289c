//! The examples' own tests, which are in Python like the examples, and whether the examples build.
#![expect(clippy::unwrap_used, reason = "a failure of a test's own means is a failure of the test")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap()
}

fn python(test: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples").join(test);
    Command::new("python3").arg("-B").arg(script).env("EXAMPLES", examples()).assert().success();
}

#[test]
fn sitewatch() {
    python("test_sitewatch.py");
}

#[test]
fn jailbreak() {
    python("test_jailbreak.py");
}

#[test]
fn both_build() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["sitewatch", "jailbreak"] {
        let file = folder.path().join(format!("{name}.aap"));
        Command::cargo_bin("aos")
            .unwrap()
            .arg("build")
            .env("AOS_STORE", folder.path().join("store"))
            .arg(examples().join(name))
            .arg("-o")
            .arg(&file)
            .assert()
            .success();
        assert!(file.metadata().unwrap().len() > 1000);
    }
}
