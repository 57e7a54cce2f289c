//! Archives with attachments that are not what they should be: all are refused, whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_package::oci::{EMPTY, EMPTY_TYPE, MANIFEST_TYPE};
use common::{EMPTY as NOTHING, RawTar, chain, paths, repository, sha256, simple, store};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

/// An archive in parts, to be put together differently.
#[derive(Clone)]
struct Parts {
    index: Value,
    blobs: BTreeMap<String, Vec<u8>>,
}

fn parts(archive: &[u8]) -> Parts {
    let mut parts = Parts { index: Value::Null, blobs: BTreeMap::new() };
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (name, mut bytes) = (entry.path().unwrap().to_str().unwrap().to_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        match name.as_str() {
            "oci-layout" => {}
            "index.json" => parts.index = serde_json::from_slice(&bytes).unwrap(),
            _ => drop(parts.blobs.insert(name, bytes)),
        }
    }
    parts
}

impl Parts {
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        self.blobs.insert(format!("blobs/sha256/{}", digest.hex()), bytes.to_vec());
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    fn package(&self) -> Value {
        let entry = &self.index["manifests"][0];
        json!({"mediaType": entry["mediaType"], "digest": entry["digest"], "size": entry["size"]})
    }

    /// The manifest of an attachment, to be changed before it is listed.
    fn manifest(&mut self, content: &[u8]) -> Value {
        let config = self.blob(EMPTY_TYPE, EMPTY);
        let content = self.blob("application/x", content);
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": "application/x",
            "config": config, "layers": [content], "subject": self.package(),
        })
    }

    /// Lists a manifest; returns its entry.
    fn list(&mut self, manifest: &Value) -> &mut Value {
        let mut entry = self.blob(MANIFEST_TYPE, manifest.to_string().as_bytes());
        entry["artifactType"] = manifest["artifactType"].clone();
        let manifests = self.index["manifests"].as_array_mut().unwrap();
        manifests.push(entry);
        manifests.last_mut().unwrap()
    }

    fn archive(&self) -> Vec<u8> {
        let index = self.index.to_string();
        let tar = RawTar::default().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).entry(
            b'0',
            "index.json",
            "",
            index.as_bytes(),
        );
        self.blobs.iter().fold(tar, |tar, (name, bytes)| tar.entry(b'0', name, "", bytes)).end()
    }
}

/// Neither store takes it, and nothing of it stays.
fn refused(parts: &Parts, says: &str) {
    let archive = parts.archive();
    let (dir, store) = store();
    let error = chain(&store.import(archive.as_slice()).expect_err(says));
    assert!(error.contains(says), "{says}\n{error}");
    assert_eq!(paths(dir.path()), NOTHING);
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let error = chain(&repository.import_archive(&lease, archive.as_slice()).expect_err(says));
    assert!(error.contains(says), "{says}\n{error}");
    assert_eq!(paths(&repository.layout().join("blobs")), ["sha256"]);
}

fn accepted(parts: &Parts) {
    let (_dir, store) = store();
    store.import(parts.archive().as_slice()).unwrap_or_else(|error| panic!("{}", chain(&error)));
}

#[test]
fn subjects_must_be_the_package() {
    let good = parts(&simple("x"));
    let mut fine = good.clone();
    let manifest = fine.manifest(b"signature");
    fine.list(&manifest);
    accepted(&fine);

    let changed = |key: &str, value: Value, says: &str| {
        let mut bad = good.clone();
        let mut manifest = bad.manifest(b"signature");
        manifest["subject"][key] = value;
        bad.list(&manifest);
        refused(&bad, says);
    };
    let other = format!("sha256:{}", "0".repeat(64));
    changed("digest", json!(other), "its subject is sha256:0000");
    changed("size", json!(1), "of 1 bytes");
    changed("mediaType", json!("application/x"), "its subject is");
    changed("digest", json!("sha512:0"), "is not an attachment of its package");
    let mut none = good.clone();
    let mut manifest = none.manifest(b"signature");
    manifest.as_object_mut().unwrap().remove("subject");
    none.list(&manifest);
    refused(&none, "is not an attachment of its package");
    // The signature of something else that is in the archive: its own config.
    let mut config = good.clone();
    let mut manifest = config.manifest(b"signature");
    manifest["subject"] = manifest["config"].clone();
    config.list(&manifest);
    refused(&config, "its subject is");
}

#[test]
fn the_index_must_say_what_is_there() {
    let good = parts(&simple("x"));
    let with = |change: &dyn Fn(&mut Value), says: &str| {
        let mut bad = good.clone();
        let manifest = bad.manifest(b"signature");
        change(bad.list(&manifest));
        refused(&bad, says);
    };
    with(&|entry| entry["artifactType"] = json!("application/y"), "the index calls it application/y");
    with(&|entry| entry["size"] = json!(1), "bytes, expected 1");
    with(&|entry| entry["mediaType"] = json!("application/x"), "is not the media type of a manifest");
    with(&|entry| entry["annotations"] = json!({"a": "b"}), "the index has annotations for it");
    with(&|entry| entry["digest"] = json!(format!("sha256:{}", "0".repeat(64))), "is missing");
    with(&|entry| entry["x"] = json!(1), "the index is not valid");

    let mut twice = good.clone();
    let manifest = twice.manifest(b"signature");
    twice.list(&manifest);
    twice.list(&manifest);
    refused(&twice, "appears twice");
    let mut again = good.clone();
    let package = again.index["manifests"][0].clone();
    again.index["manifests"].as_array_mut().unwrap().push(package);
    refused(&again, "is not an attachment of its package");
    // The package comes first.
    let mut order = good.clone();
    let manifest = order.manifest(b"signature");
    order.list(&manifest);
    order.index["manifests"].as_array_mut().unwrap().reverse();
    refused(&order, "manifest's artifactType");
    // Two packages.
    let mut two = good.clone();
    let other = parts(&simple("y"));
    two.blobs.extend(other.blobs);
    two.index["manifests"].as_array_mut().unwrap().push(other.index["manifests"][0].clone());
    refused(&two, "is not an attachment of its package");
}

#[test]
fn attachments_are_bounded_and_complete() {
    let good = parts(&simple("x"));
    let mut many = good.clone();
    for n in 0..32 {
        let manifest = many.manifest(format!("{n}").as_bytes());
        many.list(&manifest);
    }
    accepted(&many);
    let manifest = many.manifest(b"one more");
    many.list(&manifest);
    refused(&many, "at most 32");

    let with = |change: &dyn Fn(&mut Value), says: &str| {
        let mut bad = good.clone();
        let mut manifest = bad.manifest(b"signature");
        change(&mut manifest);
        bad.list(&manifest);
        refused(&bad, says);
    };
    let repeat = |manifest: &mut Value| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = json!(vec![layer; 5]);
    };
    with(&repeat, "number of contents is \"5\"");
    with(&|manifest| manifest["layers"][0]["size"] = json!(33_554_433), "attachment's size");
    with(&|manifest| manifest["layers"][0]["size"] = json!(1), "bytes, expected 1");
    with(&|manifest| manifest["layers"] = json!([]), "nothing refers to the blob");
    with(&|manifest| manifest["artifactType"] = json!("x".repeat(256)), "attachment's artifactType");
    with(&|manifest| manifest["schemaVersion"] = json!(1), "schemaVersion");
    // What other tools add is passed over: the digest covers it.
    let mut oras = good.clone();
    let mut manifest = oras.manifest(b"sbom");
    manifest["config"]["data"] = json!("e30=");
    manifest["annotations"] = json!({"org.opencontainers.image.created": "2026-01-01T00:00:00Z"});
    oras.list(&manifest);
    accepted(&oras);

    let mut absent = good.clone();
    let manifest = absent.manifest(b"signature");
    absent.list(&manifest);
    absent.blobs.remove(&format!("blobs/sha256/{}", sha256(b"signature").hex()));
    refused(&absent, "is missing");
    let mut large = good.clone();
    let mut manifest = large.manifest(b"signature");
    manifest["annotations"] = json!({"a": "x".repeat(1 << 20)});
    large.list(&manifest);
    refused(&large, "at most 1048576");
    // A bomb of entries in the index alone.
    let mut entries = good.clone();
    let entry =
        json!({"mediaType": MANIFEST_TYPE, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1});
    entries.index["manifests"].as_array_mut().unwrap().extend(vec![entry; 1000]);
    refused(&entries, "at most");
}
