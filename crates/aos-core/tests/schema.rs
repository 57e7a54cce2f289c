//! docs/agentfile.schema.json is what the decoder's tables give, takes the examples, and judges as the
//! decoder does.
#![expect(clippy::unwrap_used, reason = "a panic is the failure report of a test")]

use std::fs;
use std::path::{Path, PathBuf};

use aos_core::agentfile::{Agentfile, Draft, Format, json_schema};
use assert_cmd::Command;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What the validator says of each document; `ok` when it is valid.
fn verdicts(documents: &[Value]) -> Vec<String> {
    let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema/validate.py");
    let mut python = Command::new("python3");
    python.arg("-B").arg(script).arg(root().join("docs/agentfile.schema.json")).write_stdin(lines);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_committed_file_is_what_the_tables_give() {
    let committed = fs::read_to_string(root().join("docs/agentfile.schema.json")).unwrap();
    assert!(
        committed == json_schema(),
        "write it anew: cargo run -p aos-core --example reference schema > docs/agentfile.schema.json"
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
    assert_eq!(texts.len(), 6);
    let documents: Vec<Value> = texts.iter().map(|text| serde_saphyr::from_str(text).unwrap()).collect();
    assert_eq!(verdicts(&documents), ["ok"; 6]);
}

/// A good document with one value in a place.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = json!({
        "apiVersion": "aos/v1", "kind": "Agent",
        "metadata": { "name": "web", "version": "1.0.0", "description": "d", "labels": { "a/b": "c" } },
        "build": { "stages": [{ "name": "app", "from": "host", "steps": [
            { "copy": { "from": "src", "to": "/app/" } }, { "env": { "A": "1" } }, { "workdir": "/app" },
            { "label": { "a": "b" } }, { "run": { "command": "x" } }, { "expose": [1] }] }] },
        "dependencies": [{ "skill": "pdf", "version": "^1" }],
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
        ("/kind", texts(&["Agent", "McpServer", "Skill", "World"])),
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
        (
            "/build/stages/0/from",
            texts(&[
                "host",
                "scratch",
                "debian",
                "debian:sid",
                "debian:12",
                "debian:",
                "ubuntu",
                "python:3.13",
                "reg.example/python:3.13",
                "reg.example:5000/a/b:1",
                "localhost/a:1",
                "reg.example/python",
                "team/python:3.13",
                "Reg.example/a:1",
                "reg.example:0/a:1",
                "reg.example:70000/a:1",
                "reg.example/A:1",
                "reg.example/a:",
                "reg.example/a:.x",
                "[::1]:5000/a:1",
                "aap:web:1.0.0",
                "aap:reg.example/t/web:1.0.0",
                "aap:web",
                "aap:../web:1",
                "aap:a_b.c/d:1",
                "stage:a b",
                "https://reg.example/a:1",
                "oci:/a:1",
                "a..b/c:1",
                "-a.b/c:1",
                "",
            ]),
        ),
        ("/build/stages/0/packages", vec![json!(["x"]), json!([])]),
        (
            "/build/stages/0",
            vec![
                json!({ "name": "a", "from": "debian", "packages": ["python3", "g++=4:12.2.0-3"] }),
                json!({ "name": "a", "from": "debian:sid", "packages": ["-x"] }),
                json!({ "name": "a", "from": "debian", "packages": ["x y"] }),
                json!({ "name": "a", "from": "debian", "packages": ["p-"] }),
                json!({ "name": "a", "from": "debian", "packages": ["p1="] }),
                json!({ "name": "a", "from": "scratch", "packages": ["p1"] }),
                json!({ "name": "a", "from": "debian", "packages": ["p1", "p1"] }),
            ],
        ),
        (
            "/build/stages/-",
            vec![
                json!({ "name": "b", "from": "stage:app" }),
                json!({ "name": "b", "from": "host", "dependsOn": ["app"] }),
                json!({ "name": "b", "from": "host", "dependsOn": "app" }),
                json!({ "name": "b", "from": "host", "dependsOn": ["app", "app"] }),
            ],
        ),
        (
            "/build/args",
            vec![
                json!({ "A": "x" }),
                json!({ "1A": "x" }),
                json!({ "A": 1 }),
                json!({ "A": "\0" }),
                json!([]),
            ],
        ),
        (
            "/build",
            vec![
                json!({ "args": { "S": "host" }, "stages": [{ "name": "a", "from": "${S}" }] }),
                json!({ "args": { "S": "a" }, "stages": [{ "name": "${S}", "from": "debian:${S}", "packages": ["x${S}"],
                    "steps": [{ "copy": { "from": "${S}", "to": "/${S}/", "mode": "0644", "owner": "1:1" } },
                        { "run": "x ${S} $$" }, { "env": { "A": "${S}" } }] }] }),
                json!({ "args": {} }),
            ],
        ),
        (
            "/build/stages/0/steps/0/copy",
            vec![
                json!({ "from": ["a", "b*"], "to": "/x/" }),
                json!({ "from": [], "to": "/x/" }),
                json!({ "from": ["a", 1], "to": "/x/" }),
                json!({ "from": ["a", "/b"], "to": "/x/" }),
                json!({ "from": "src/**/[a-z]?.py", "to": "/x/" }),
                json!({ "from": "a", "to": "/x", "owner": "1000:1000", "mode": "0755", "exclude": ["*.pyc", "**/t"] }),
                json!({ "from": "a", "to": "/x", "owner": "root" }),
                json!({ "from": "a", "to": "/x", "owner": "01:1" }),
                json!({ "from": "a", "to": "/x", "mode": "4755" }),
                json!({ "from": "a", "to": "/x", "mode": 755 }),
                json!({ "from": "a", "to": "/x", "exclude": "*.pyc" }),
                json!({ "from": "a", "to": "/x", "exclude": ["/a"] }),
                json!({ "from": "/", "to": "/x", "package": "pdf" }),
                json!({ "from": "/a/b", "to": "/x", "package": "pdf" }),
                json!({ "from": "/a/", "to": "/x", "package": "pdf" }),
                json!({ "from": "a", "to": "/x", "package": "pdf", "stage": "app" }),
                json!({ "from": "a", "to": "/x", "chown": "1:1" }),
            ],
        ),
        (
            "/build/stages/0/steps/4/run",
            vec![
                json!("make"),
                json!(""),
                json!(" \n"),
                json!("a\nb"),
                json!("a\0"),
                json!(["a", ""]),
                json!([""]),
                json!([]),
                json!(7),
            ],
        ),
        ("/build/stages/0/steps/4/run/command", vec![json!(["a"]), json!([]), json!({})]),
        (
            "/build/stages/0/steps/4/run/net",
            vec![
                json!(["pypi.org:443"]),
                json!(["*.a.org:1"]),
                json!(["pypi.org"]),
                json!(["10.0.0.1:1"]),
                json!("a.org:1"),
            ],
        ),
        (
            "/build/stages/0/steps/4/run/cache",
            vec![json!(["/a", "/b"]), json!(["a"]), json!(["/a/"]), json!(["/a", "/a"])],
        ),
        (
            "/build/stages/0/steps/4/run/secrets",
            vec![json!(["a.b-c"]), json!([".a"]), json!(["a/b"]), json!([""])],
        ),
        ("/build/stages/0/steps/4/run/timeout", texts(&["10m", "10", "0s"])),
        ("/build/stages/0/steps/4/run/shell", texts(&["x"])),
        (
            "/build/stages/0/steps/5/expose",
            vec![
                json!([80, "53/udp", "1"]),
                json!([0]),
                json!(["0"]),
                json!([65536]),
                json!(["80/sctp"]),
                json!(80),
                json!([]),
            ],
        ),
        (
            "/dependencies/-",
            vec![
                json!({ "agent": "a" }),
                json!({ "agent": "a", "version": ">=1.2, <3" }),
                json!({ "agent": "a", "version": "~1.2" }),
                json!({ "agent": "a", "version": "=1.2.3-rc.1" }),
                json!({ "agent": "a", "version": "*" }),
                json!({ "agent": "a", "version": "1.x" }),
                json!({ "agent": "a", "version": "" }),
                json!({ "agent": "a", "version": "latest" }),
                json!({ "agent": "a", "version": "^^1" }),
                json!({ "agent": "a", "version": 1 }),
                json!({ "mcp": "a", "from": "reg.example/t/a" }),
                json!({ "mcp": "a", "from": "reg.example/t/a:1" }),
                json!({ "mcp": "a", "from": "t/a" }),
                json!({ "mcp": "a", "from": "oci:/srv/r" }),
                json!({ "mcp": "a", "from": "oci:" }),
                json!({ "mcp": "a", "from": "oci:/r:web" }),
                json!({ "service": "db", "version": "^14" }),
                json!({ "service": "db", "from": "reg.example/db" }),
                json!({ "volume": "v", "size": "10G" }),
                json!({ "volume": "v", "size": 10 }),
                json!({ "volume": "v" }),
                json!({ "volume": "v", "size": "0" }),
                json!({ "volume": "v", "size": "1G", "version": "1" }),
                json!({ "agent": "a", "size": "1G" }),
                json!({ "agent": "a", "mcp": "b" }),
                json!({ "agents": "a" }),
                json!({ "agent": "../a" }),
                json!({}),
                json!("a"),
            ],
        ),
        (
            "/build/stages/0/steps/0/copy/from",
            texts(&["a/b", ".", "..", "./a", "a/", "/a", "a//b", "...", ".a/..b", ""]),
        ),
        ("/build/stages/0/steps/0/copy/to", texts(&["/", "/a", "/a/", "//", "a", "/a/../b", "/..a", "/a\n"])),
        (
            "/build/stages/0/steps/-",
            vec![
                json!({}),
                json!({ "run": "x" }),
                json!({ "plugin": "x" }),
                json!({ "env": {}, "workdir": "/" }),
            ],
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
        ("/limits/disk", vec![json!("1G"), json!(1024), json!(0), json!("1GB")]),
        ("/limits/io_weight", vec![json!(1), json!("10000"), json!(10_001), json!(0)]),
        ("/limits/gpu", vec![json!(1)]),
        ("/run/workspace", texts(&["persistent", "transactional", "overlay"])),
        (
            "/run/isolation",
            texts(&["native", "oci", "oci:crun", "oci:runc", "gvisor", "vm", "oci:youki", ""]),
        ),
        ("/isolation", texts(&["vm"])),
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
        "tool: mcp.github.*",
        "tool: x..y",
        "tool: **",
        "inference: fast",
        "inference: Fast",
        "memory: read",
        "memory: readwrite",
        "message: *",
        "message: reviewer",
        "message: a.b",
        "message: -a",
        "spawn: a.b",
        "spawn: *",
        "spawn: a..b",
        "skill: pdf",
        "skill: pdf*",
        "secret: T_1.a@api.github.com",
        "secret: t@*.github.com",
        "secret: t@1.2.3.4",
        "secret: t@7",
        "secret: t",
        "secret: @a.org",
        "device: gpu",
        "device: /dev/gpu",
        "listen: 90 [max_calls=3]",
        "listen: 90 [approval=once, max_bytes=1K,expires=2027-01-31T18:00:00Z]",
        "listen: 90 [ max_calls=3 ]",
        "listen: 90  [max_calls=3]",
        "listen: 90[max_calls=3]",
        "listen: 90 [max_calls=3",
        "listen: 90 []",
        "listen: 90 [max_calls=0]",
        "listen: 90 [approval=maybe]",
        "listen: 90 [expires=2027-13-31T18:00:00Z]",
        "listen: 90 [calls=3]",
        "file_read: /a/.. [max_calls=3]",
        "file_read: /a/..  [max_calls=3]",
        "file_read: /c/** [max_calls=3]",
        "file_read: /a/**x [max_calls=3]",
        "file_read: /** [max_calls=3]",
        "file_read: /**/** [max_calls=3]",
        "skill: * [approval=plan]",
        "net: [2001:db8::1]:443",
        "net: [2001:db8::1]:443 [max_calls=3]",
        "net: [2001:DB8::1]:443",
        "net: 256.0.0.1:80",
        "net: 01.2.3.4:80",
        "net: 1.2.3:80",
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
        json!({ "exec": "/a", "approval": "never" }),
        json!({ "exec": "/a", "max_calls": 3, "max_bytes": "1M", "expires": "2027-01-31T18:00:00Z" }),
        json!({ "exec": "/a [max_calls=3]", "max_bytes": 4096 }),
        json!({ "exec": "/a", "max_calls": 0 }),
        json!({ "exec": "/a", "max_calls": "3" }),
        json!({ "exec": "/a", "max_calls": 1_000_000_001 }),
        json!({ "exec": "/a", "max_bytes": "1MB" }),
        json!({ "exec": "/a", "expires": "2027-01-31" }),
        json!({ "exec": "/a", "calls": 3 }),
        json!({ "approval": "once" }),
        json!({ "tool": "mcp.*.x" }),
        json!({ "tool": "mcp.x*" }),
        json!({ "memory": "write" }),
        json!({ "memory": "all" }),
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
    assert!(both[0] > 150 && both[1] > 80, "{both:?}");
}

#[test]
fn the_schema_knows_skills_and_variants() {
    let head =
        json!({ "apiVersion": "aos/v1", "kind": "Skill", "metadata": { "name": "a", "version": "1.0.0" } });
    let less = |fields: Value| {
        let mut document = head.clone();
        let map = document.as_object_mut().unwrap();
        map.extend(fields.as_object().unwrap().clone());
        document
    };
    let documents = [
        less(json!({})),
        less(json!({ "run": { "entrypoint": ["a"] } })),
        less(json!({ "limits": {} })),
        less(json!({ "kind": "Agent" })),
        less(json!({ "kind": "Agent", "extends": "./base" })),
        less(json!({ "kind": "Agent", "extends": "base:1.0.0", "run": {}, "build": { "args": {} } })),
        less(json!({ "kind": "Agent", "extends": "reg.example/team/base:1" })),
        less(json!({ "kind": "Agent", "extends": "base" })),
        less(json!({ "kind": "Agent", "extends": "." })),
        less(json!({ "kind": "Agent", "extends": "..." })),
        less(json!({ "kind": "Agent", "extends": "/a/../b" })),
        less(json!({ "kind": "Agent", "extends": "./a\nb" })),
        less(json!({ "kind": "Agent", "run": {} })),
    ];
    for (document, verdict) in documents.iter().zip(verdicts(&documents)) {
        // What a parent may bring is missing only in the end.
        let draft = Draft::parse(&document.to_string(), Format::Json, "f");
        let alone = draft.as_ref().is_ok_and(|draft| draft.extends().is_none());
        let whole = Agentfile::parse(&document.to_string(), Format::Json, "f");
        let good = draft.is_ok() && (!alone || whole.is_ok());
        assert_eq!(verdict == "ok", good, "{document}\nschema: {verdict}\ndecoder: {:?}", whole.err());
    }
}

#[test]
fn required_fields_are_those_of_the_decoder() {
    let mut documents = vec![with("/kind", json!("Agent"))];
    for pointer in [
        "",
        "/metadata",
        "/build",
        "/build/stages/0",
        "/build/stages/0/steps/0/copy",
        "/build/stages/0/steps/4/run",
        "/dependencies/0",
        "/run",
        "/limits",
    ] {
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
