//! What a registry lists: tags, attachments, platforms.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::id::Digest;
use aos_package::oci::{Descriptor, MANIFEST_TYPE};
use aos_registry::Silent;
use common::{Heard, Server, Shelf, TestStore, chain, client, full, ok};
use std::collections::BTreeMap;

/// A package of one layer in a registry in memory.
fn shelf(size: usize) -> (TestStore, Descriptor, Shelf) {
    let source = TestStore::new();
    let package = source.package(7, &[size]);
    let shelf = Shelf::with(&source.repository, &package, "1.0.0");
    (source, package, shelf)
}

#[tokio::test]
async fn pages_of_tags() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/web/tags/list?n=1000" => {
            full(200, &[("link", "</v2/web/tags/list?last=b>; rel=\"next\"")], r#"{"tags":["b","a"]}"#)
        }
        "/v2/web/tags/list?last=b" => ok(format!(r#"{{"tags":["c","sha256-{}"]}}"#, "0".repeat(64))),
        "/v2/away/tags/list?n=1000" => {
            full(200, &[("link", "<http://localhost:1/x>; rel=next")], r#"{"tags":[]}"#)
        }
        "/v2/none/tags/list?n=1000" => ok(r#"{"tags":null}"#),
        "/v2/bad/tags/list?n=1000" => ok("{\"tags\":[\"\\u001b[2J\"]}"),
        other => full(200, &[("link", &format!("<{other}>; rel=next"))], r#"{"tags":["a"]}"#),
    });
    let tags = async |name: &str| {
        let tags = client().tags(&server.reference(name)).await;
        tags.map(|tags| tags.iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>())
            .map_err(|e| chain(&e))
    };
    assert_eq!(tags("web").await.unwrap(), ["a", "b", "c"]);
    assert_eq!(tags("none").await.unwrap(), [""; 0]);
    assert!(tags("away").await.unwrap_err().contains("another host"));
    assert!(tags("bad").await.unwrap_err().contains("\\u{1b}"));
    assert!(tags("endless").await.unwrap_err().contains("more than 64 pages"));
}

/// Attachments by one way or the other, good and bad ones.
#[tokio::test]
async fn attachments_come_and_bad_ones_do_not_matter() {
    for by_tag in [false, true] {
        let (source, package, mut shelf) = shelf(1000);
        let mut entries = Vec::new();
        for text in ["one", "two"] {
            let attached = common::package::attachment(&source.lease, &package, text);
            shelf.add(&source.repository, &attached, text);
            entries.push((attached.digest, attached.size));
        }
        // One that belongs to something else, one that is not there, one that is not a manifest.
        let other = source.package(9, &[10]);
        let foreign = common::package::attachment(&source.lease, &other, "three");
        shelf.add(&source.repository, &foreign, "three");
        entries.push((foreign.digest, foreign.size));
        entries.push((Digest::from_bytes([9; 32]), 10));
        entries.push((package.digest, package.size));
        let listed: Vec<_> = entries
            .iter()
            .map(|(digest, size)| {
                format!(r#"{{"mediaType":"{MANIFEST_TYPE}","digest":"{digest}","size":{size},"artifactType":"x","data":"e30="}}"#)
            })
            .collect();
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
            listed.join(",")
        );
        let fallback = format!("/manifests/sha256-{}", package.digest.hex());
        let api = format!("/referrers/{}", package.digest);
        let server = Server::start(move |request| {
            let way = if by_tag { &fallback } else { &api };
            if request.path().ends_with(way) { ok(index.clone()) } else { shelf.answer(request) }
        });
        let store = TestStore::new();
        let heard = Heard::default();
        let pulled = client().pull(&server.reference("web:1.0.0"), &store.lease, &heard).await.unwrap();
        assert_eq!(pulled.attachments.len(), 2);
        let kept = store.repository.attachments(&package.digest).unwrap();
        let kinds: BTreeMap<_, _> =
            kept.iter().map(|one| (one.descriptor.digest, one.artifact_type.as_str())).collect();
        assert_eq!(kinds.len(), 2);
        assert!(kinds.values().all(|kind| *kind == common::package::ENVELOPE_TYPE));
        assert_eq!(heard.notes.lock().unwrap().len(), 3, "{:?}", heard.notes);
    }
}

#[tokio::test]
async fn too_many_attachments_are_left_out() {
    let (source, package, mut shelf) = shelf(1000);
    let mut listed = Vec::new();
    for number in 0..40 {
        let text = format!("n{number}");
        let store = TestStore::new();
        let manifest = {
            // Made in a store of its own: one store does not take so many.
            let same = store.package(7, &[1000]);
            assert_eq!(same.digest, package.digest);
            common::package::attachment(&store.lease, &same, &text)
        };
        shelf.add(&store.repository, &manifest, &text);
        listed.push(format!(
            r#"{{"mediaType":"{MANIFEST_TYPE}","digest":"{}","size":{},"artifactType":"{}"}}"#,
            manifest.digest,
            manifest.size,
            common::package::ENVELOPE_TYPE
        ));
    }
    drop(source);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","));
    let server = Server::start(move |request| {
        if request.path().contains("/referrers/") { ok(index.clone()) } else { shelf.answer(request) }
    });
    let (store, heard) = (TestStore::new(), Heard::default());
    let pulled = client().pull(&server.reference("web:1.0.0"), &store.lease, &heard).await.unwrap();
    assert_eq!(pulled.attachments.len(), 32);
    assert!(heard.notes.lock().unwrap()[0].contains("8 of 40 attachments are left out"), "{:?}", heard.notes);
}

#[tokio::test]
async fn base_images_are_chosen_by_architecture() {
    let (source, package, mut shelf) = shelf(1000);
    let other = source.package(9, &[500]);
    shelf.add(&source.repository, &other, "other");
    let entry = |descriptor: &Descriptor, architecture: &str| {
        format!(
            r#"{{"mediaType":"{MANIFEST_TYPE}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            descriptor.digest, descriptor.size
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{},{}]}}"#,
        entry(&other, "arm64"),
        entry(&package, "amd64")
    );
    shelf.manifests.insert("all".to_owned(), (String::new(), index.into_bytes()));
    let server = Server::start(move |request| shelf.answer(request));
    let store = TestStore::new();
    let image = async |architecture: &str| {
        let reference = server.reference("base:all");
        client().pull_image(&reference, architecture, &store.lease, &Silent).await
    };
    assert_eq!(image("amd64").await.unwrap().digest, package.digest);
    let arm = image("arm64").await.unwrap();
    assert_eq!(arm.digest, other.digest);
    assert_eq!(store.repository.image(&arm).unwrap().0.layers.len(), 1);
    assert!(chain(&image("s390x").await.unwrap_err()).contains("linux/arm64, linux/amd64"));
}
