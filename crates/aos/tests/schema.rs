//! docs/agentfile.schema.json is what the decoder's tables give, takes the examples, and judges as the decoder does.
#![expect(clippy::unwrap_used, reason = "a panic is the failure report of a test")]

use std::fs;
use std::path::{Path, PathBuf};

use aos_core::agentfile::{Agentfile, Format};
use assert_cmd::Command;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What the validator says of each document; `ok` when it is valid.
fn verdicts(documents: &[Value]) -> Vec<String> {
    let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples/validate.py");
    let mut python = Command::new("python3");
    python.arg("-B").arg(script).arg(root().join("docs/agentfile.schema.json")).write_stdin(lines);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_committed_file_is_what_the_command_prints() {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("aos")).arg("gen-schema").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let committed = fs::read_to_string(root().join("docs/agentfile.schema.json")).unwrap();
    assert!(
        printed == committed,
        "write it anew: cargo run -p aos -- gen-schema > docs/agentfile.schema.json"
    );
}

#[test]
fn the_examples_and_the_manuals_example_are_valid() {
    let manual = fs::read_to_string(root().join("docs/agentfile.md")).unwrap();
    let shown = manual.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    let mut texts = vec![shown];
    for example in fs::read_dir(root().join("examples")).unwrap() {
        let file = example.unwrap().path().join("Agentfile.yaml");
        texts.extend(fs::read_to_string(file));
    }
    assert_eq!(texts.len(), 3);
    let documents: Vec<Value> = texts.iter().map(|text| serde_saphyr::from_str(text).unwrap()).collect();
    assert_eq!(verdicts(&documents), ["ok", "ok", "ok"]);
}

/// A good document with one value in a place.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = json!({
        "apiVersion": "aos/v1", "kind": "Agent",
        "metadata": { "name": "web", "version": "1.0.0", "description": "d", "labels": { "a/b": "c" } },
        "build": { "stages": [{ "name": "app", "from": "host", "steps": [
            { "copy": { "from": "src", "to": "/app/" } }, { "env": { "A": "1" } }, { "workdir": "/app" },
            { "label": { "a": "b" } }] }] },
        "run": { "entrypoint": ["main", "-x"], "env": { "B": "" }, "workdir": "/", "lifecycle": "oneshot" },
        "capabilities": ["file_read:/a/**", { "listen": 80 }],
        "limits": { "memory": 1, "cpu": "1%", "tasks": "1", "runtime": "1h30m", "open_files": 1 },
    });
    let (above, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(above).unwrap() {
        Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
        Value::Array(items) => match name.parse::<usize>() {
            Ok(at) => *items.get_mut(at).unwrap() = value,
            Err(_) => items.push(value),
        },
        other => panic!("{pointer} is in {other}"),
    }
    document
}

/// Values for places, good and bad.
fn values() -> Vec<(&'static str, Vec<Value>)> {
    let texts = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect::<Vec<_>>();
    let long = |count: usize| json!("x".repeat(count));
    let mut table = vec![
        ("/apiVersion", texts(&["aos/v1", "aos/v2"])),
        ("/kind", texts(&["Agent", "World"])),
        ("/budget", texts(&["x"])),
        ("/metadata/name", texts(&["a", "a.b-c_d", "a..b", "A", "-a", "a-", "", "a\n"])),
        (
            "/metadata/version",
            texts(&["1.0.0", "1.0", "1.0.0-rc.1+b", "01.0.0", "1.0.0-01", "v1.0.0", "1.0.0 "]),
        ),
        ("/metadata/description", texts(&["", "a\nb", "a\tb", "\u{1b}[2J", "\u{202e}"])),
        (
            "/metadata/labels",
            vec![json!({}), json!({ ".a": "b" }), json!({ "a": "b\nc" }), json!({ "a": 1 }), json!([])],
        ),
        (
            "/build/stages",
            vec![json!([]), json!([{ "name": "a" }]), json!([{ "name": "a b", "from": "host" }])],
        ),
        ("/build/stages/0/from", texts(&["host", "scratch", "debian"])),
        ("/build/stages/0/dependsOn", texts(&["x"])),
        (
            "/build/stages/0/steps/0/copy/from",
            texts(&["a/b", ".", "..", "./a", "a/", "/a", "a//b", "...", ".a/..b", ""]),
        ),
        ("/build/stages/0/steps/0/copy/to", texts(&["/", "/a", "/a/", "//", "a", "/a/../b", "/..a", "/a\n"])),
        (
            "/build/stages/0/steps/-",
            vec![json!({}), json!({ "run": "x" }), json!({ "env": {}, "workdir": "/" })],
        ),
        (
            "/run/entrypoint",
            vec![
                json!([]),
                json!([""]),
                json!(["/"]),
                json!(["a/"]),
                json!(["/a/./b"]),
                json!(["../a"]),
                json!(["a", "\0"]),
                json!(["a", 1]),
                json!(["a", "b\nc"]),
                json!("a"),
            ],
        ),
        (
            "/run/env",
            vec![json!({ "1A": "" }), json!({ "A": "\0" }), json!({ "A": 1 }), json!({ "_": "\n" })],
        ),
        ("/run/workdir", texts(&["/", "/a", "a", "/a/"])),
        ("/run/lifecycle", texts(&["oneshot", "persistent", "forever"])),
        ("/run/model", texts(&["x"])),
        ("/capabilities", vec![json!([]), json!(["listen: 1", "listen: 1"]), json!({})]),
        (
            "/limits/memory",
            vec![json!("256M"), json!("1.5G"), json!("0"), json!(0), json!("01"), json!("1m"), json!(1.5)],
        ),
        ("/limits/cpu", texts(&["200%", "50", "0%", "1.5%"])),
        ("/limits/tasks", vec![json!(4_194_304), json!(4_194_305), json!(0), json!("64"), json!("-1")]),
        ("/limits/runtime", texts(&["10m", "1d2h3m4s", "10", "1m1h", "0s", "", "0d5m", "05m", "1h1h"])),
        ("/limits/open_files", vec![json!(1_048_576), json!(1_048_577), json!("1024")]),
        ("/limits/disk", texts(&["1G"])),
    ];
    for good_or_bad in [
        "file_read: /a",
        "file_read: /**",
        "file_read: /",
        "file_read:   /a b",
        "exec: /usr/*/x*y",
        "file_write: a",
        "file_read: /a/**/b",
        "file_read: /a**",
        "file_read: /a/***",
        "file_read: /a/",
        "file_read: /a/../b",
        "file_read: /a?",
        "file_read: /[a]",
        "file_read: /{a}",
        "file_read: /a\\b",
        "file_read: /a\nb",
        "file_read:",
        "file_read /a",
        "FILE_READ: /a",
        "tool: x",
        "net: a.example:443",
        "net: *.a.example:443",
        "net: a.example",
        "net: a.example:0",
        "net: a.example:65535",
        "net: a.example:65536",
        "net: 127.0.0.1:80",
        "net: a.0x1:80",
        "net: -a.example:80",
        "net: A.example:80",
        "net: *:80",
        "net: a..b:80",
        "net: [::1]:80",
        "listen: 8080",
        "listen: 08080",
        "listen: 70000",
        "listen: x",
        "listen:",
    ] {
        table.push(("/capabilities/-", vec![json!(good_or_bad)]));
    }
    for entry in [
        json!({ "file_read": "/a/*" }),
        json!({ "listen": 0 }),
        json!({ "listen": "81" }),
        json!({ "net": "x" }),
        json!({ "exec": "/a", "file_read": "/b" }),
        json!({}),
        json!({ "exec": "/a", "approval": "once" }),
        json!(7),
    ] {
        table.push(("/capabilities/-", vec![entry]));
    }
    for (pointer, bound) in [("/metadata/name", 63), ("/metadata/description", 1024), ("/run/env/B", 8192)] {
        table.push((pointer, vec![long(bound), long(bound + 1)]));
    }
    table
}

#[test]
fn the_schema_and_the_decoder_agree() {
    let documents: Vec<Value> = values()
        .into_iter()
        .flat_map(|(pointer, values)| values.into_iter().map(move |value| with(pointer, value)))
        .collect();
    let mut both = [0, 0];
    for (document, verdict) in documents.iter().zip(verdicts(&documents)) {
        let decoded = Agentfile::parse(&document.to_string(), Format::Json, "f");
        assert_eq!(
            verdict == "ok",
            decoded.is_ok(),
            "{document}\nschema: {verdict}\ndecoder: {:?}",
            decoded.err()
        );
        both[usize::from(decoded.is_ok())] += 1;
    }
    assert!(both[0] > 80 && both[1] > 40, "{both:?}");
}

#[test]
fn required_fields_are_those_of_the_decoder() {
    let mut documents = vec![with("/kind", json!("Agent"))];
    for pointer in
        ["", "/metadata", "/build", "/build/stages/0", "/build/stages/0/steps/0/copy", "/run", "/limits"]
    {
        let whole = with("/kind", json!("Agent"));
        for name in whole.pointer(pointer).unwrap().as_object().unwrap().keys() {
            let mut less = whole.clone();
            less.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name);
            documents.push(less);
        }
    }
    for (document, verdict) in documents.iter().zip(verdicts(&documents)) {
        let decoded = Agentfile::parse(&document.to_string(), Format::Json, "f");
        assert_eq!(
            verdict == "ok",
            decoded.is_ok(),
            "{document}\nschema: {verdict}\ndecoder: {:?}",
            decoded.err()
        );
    }
}
