//! Pushing to registries: what they have, what they lose, what they refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::id::Digest;
use aos_package::oci::Descriptor;
use aos_package::repository::Origin;
use aos_registry::{PushError, Pushed, Silent};
use common::package::attachment;
use common::{Heard, Reply, Request, Server, TestStore, chain, client, full, not_found, ok};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a registry has.
#[derive(Default)]
struct Stock {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<usize, Vec<u8>>,
    next: usize,
}

/// A registry in memory that also takes things.
#[derive(Clone, Default)]
struct Registry {
    stock: Arc<Mutex<Stock>>,
    /// It keeps lists of attachments itself.
    referrers: bool,
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

fn query<'a>(request: &'a Request, name: &str) -> Option<String> {
    let query: &'a str = request.target.split_once('?')?.1;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.replace("%3A", ":").replace("%2F", "/"))
}

impl Registry {
    fn server(&self) -> Server {
        let registry = self.clone();
        Server::start(move |request| registry.answer(request))
    }

    fn answer(&self, request: &Request) -> Reply {
        let mut stock = self.stock.lock().unwrap();
        let last = request.path().rsplit('/').next().unwrap().to_owned();
        match (request.method.as_str(), request.path()) {
            ("HEAD", path) if path.contains("/blobs/") => match stock.blobs.get(&last) {
                Some(_) => full(200, &[], ""),
                None => full(404, &[], ""),
            },
            ("POST", _) => match query(request, "mount") {
                Some(digest) if stock.blobs.contains_key(&format!("{digest}@elsewhere")) => {
                    full(201, &[], "")
                }
                _ => {
                    stock.next += 1;
                    let number = stock.next;
                    stock.uploads.insert(number, Vec::new());
                    full(202, &[("location", &format!("/upload/{number}?state=x"))], "")
                }
            },
            ("PATCH", _) => {
                let upload = stock.uploads.get_mut(&last.parse().unwrap()).unwrap();
                if let Some(range) = request.header("content-range") {
                    assert_eq!(range.split('-').next().unwrap().parse::<usize>().unwrap(), upload.len());
                }
                upload.extend_from_slice(&request.body);
                let range = format!("0-{}", upload.len() - 1);
                full(202, &[("location", &request.target), ("range", &range)], "")
            }
            ("GET", path) if path.starts_with("/upload/") => {
                match stock.uploads.get(&last.parse().unwrap()) {
                    Some(upload) => {
                        let range = format!("0-{}", upload.len().max(1) - 1);
                        full(204, &[("location", &request.target), ("range", &range)], "")
                    }
                    None => not_found(),
                }
            }
            ("PUT", path) if path.starts_with("/upload/") => {
                let mut upload = stock.uploads.remove(&last.parse().unwrap()).unwrap();
                upload.extend_from_slice(&request.body);
                let digest = query(request, "digest").unwrap();
                assert_eq!(query(request, "state").as_deref(), Some("x"));
                if digest_of(&upload).to_string() != digest {
                    return full(400, &[], r#"{"errors":[{"code":"DIGEST_INVALID","message":"digest"}]}"#);
                }
                stock.blobs.insert(digest, upload);
                full(201, &[], "")
            }
            ("PUT", _) => {
                let digest = digest_of(&request.body).to_string();
                stock.manifests.insert(last, request.body.clone());
                stock.manifests.insert(digest.clone(), request.body.clone());
                let has_subject =
                    self.referrers && String::from_utf8_lossy(&request.body).contains("\"subject\"");
                let subject = has_subject.then_some(("oci-subject", "sha256:x"));
                let headers: Vec<_> =
                    subject.into_iter().chain([("docker-content-digest", digest.as_str())]).collect();
                full(201, &headers, "")
            }
            ("GET", path) if path.contains("/manifests/") => match stock.manifests.get(&last) {
                Some(bytes) => ok(bytes.clone()),
                None => not_found(),
            },
            ("GET", path) if path.contains("/blobs/") => match stock.blobs.get(&last) {
                Some(bytes) => common::ranged(request, bytes),
                None => not_found(),
            },
            _ => not_found(),
        }
    }
}

async fn push(
    server: &Server,
    store: &TestStore,
    package: &Descriptor,
    attachments: &[Descriptor],
) -> Result<Pushed, PushError> {
    let heard = Heard::default();
    let reference = server.reference("team/web:1.0.0");
    let pushed = client().push(&store.repository, package, attachments, &reference, &heard).await?;
    assert_eq!(*heard.totals.lock().unwrap(), *heard.moved.lock().unwrap());
    Ok(pushed)
}

/// The server has exactly what the store has: a pull gives the same package.
async fn assert_arrived(server: &Server, package: &Descriptor, attachments: usize) {
    let store = TestStore::new();
    let pulled = client().pull(&server.reference("team/web:1.0.0"), &store.lease, &Silent).await.unwrap();
    assert_eq!((pulled.descriptor.digest, pulled.attachments.len()), (package.digest, attachments));
}

#[tokio::test]
async fn everything_arrives_and_the_tag_comes_last() {
    for referrers in [false, true] {
        let registry = Registry { referrers, ..Registry::default() };
        let server = registry.server();
        let store = TestStore::new();
        // One blob by one request, one as a stream.
        let package = store.package(1, &[1000, 6_000_000]);
        let attached = [attachment(&store.lease, &package, "one"), attachment(&store.lease, &package, "two")];
        let pushed = push(&server, &store, &package, &attached).await.unwrap();
        assert_eq!(pushed, Pushed { digest: package.digest, uploaded: 6, mounted: 0, skipped: 0 });
        let log = server.log();
        assert_eq!(log.iter().filter(|request| request.method == "PATCH").count(), 1);
        let put = log.iter().rfind(|request| request.method == "PUT").unwrap();
        assert!(put.path().ends_with("/manifests/1.0.0"));
        let fallback = format!("sha256-{}", package.digest.hex());
        let index = registry.stock.lock().unwrap().manifests.get(&fallback).cloned();
        assert_eq!(index.is_some(), !referrers);
        if let Some(index) = index {
            let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
            assert_eq!(index["manifests"][0]["artifactType"], common::package::ENVELOPE_TYPE);
            assert_eq!(index["manifests"][0]["annotations"]["org.aos.predicate"], "one");
            assert_arrived(&server, &package, 2).await;
        }
        let again = push(&server, &store, &package, &attached).await.unwrap();
        assert_eq!(again, Pushed { digest: package.digest, uploaded: 0, mounted: 0, skipped: 6 });
    }
}

#[tokio::test]
async fn blobs_are_mounted_from_where_they_were_pushed() {
    let registry = Registry::default();
    let server = registry.server();
    let store = TestStore::new();
    let package = store.package(1, &[1000, 2000]);
    let other = server.reference("other/web:1.0.0");
    store.repository.tag(&store.lease, &other, &package, Origin::Pulled).unwrap();
    let bytes = store.repository.read_blob(&package, 1 << 20).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    registry.stock.lock().unwrap().blobs.insert(format!("{layer}@elsewhere"), Vec::new());
    let pushed = push(&server, &store, &package, &[]).await.unwrap();
    assert_eq!((pushed.mounted, pushed.uploaded), (1, 2));
    let mount = server
        .log()
        .into_iter()
        .find(|request| request.target.contains(&layer[7..]) && request.method == "POST");
    assert!(mount.unwrap().target.ends_with("from=other%2Fweb"));
    // The upload that began instead of a mount was used.
    assert_eq!(server.log().iter().filter(|request| request.method == "POST").count(), 3);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_broke() {
    let registry = Registry::default();
    let seen = AtomicUsize::new(0);
    let inner = registry.clone();
    let server = Server::start(move |request| {
        if request.method == "PATCH" && seen.fetch_add(1, Ordering::SeqCst) == 0 {
            // It keeps 5 MB, and the connection breaks.
            let part = Request { body: request.body[..5_000_000].to_vec(), ..request.clone() };
            drop(inner.answer(&part));
            return common::raw(|_| Ok(()));
        }
        inner.answer(request)
    });
    let store = TestStore::new();
    let package = store.package(1, &[8_000_000]);
    push(&server, &store, &package, &[]).await.unwrap();
    let patches: Vec<_> = server.log().into_iter().filter(|request| request.method == "PATCH").collect();
    assert_eq!(patches.len(), 2);
    assert!(patches[1].header("content-range").unwrap().starts_with("5000000-"));
    assert_eq!(patches[0].body.len(), patches[1].body.len() + 5_000_000);
    assert_arrived(&server, &package, 0).await;
}

#[tokio::test]
async fn an_upload_that_is_forgotten_begins_anew() {
    let registry = Registry::default();
    let seen = AtomicUsize::new(0);
    let inner = registry.clone();
    let server = Server::start(move |request| {
        if request.method == "PATCH" && seen.fetch_add(1, Ordering::SeqCst) == 0 {
            let number: usize = request.path().rsplit('/').next().unwrap().parse().unwrap();
            inner.stock.lock().unwrap().uploads.remove(&number);
            return full(503, &[], "");
        }
        inner.answer(request)
    });
    let store = TestStore::new();
    let package = store.package(1, &[5_000_000]);
    push(&server, &store, &package, &[]).await.unwrap();
    assert_arrived(&server, &package, 0).await;
}

#[tokio::test]
async fn bodies_that_are_too_large_go_in_chunks() {
    let registry = Registry::default();
    let inner = registry.clone();
    let server = Server::start(move |request| {
        if request.body.len() > 17 << 20 { full(413, &[], "too large") } else { inner.answer(request) }
    });
    let store = TestStore::new();
    let package = store.package(1, &[40 << 20]);
    push(&server, &store, &package, &[]).await.unwrap();
    assert_eq!(server.log().iter().filter(|request| request.method == "PATCH").count(), 4);
    assert_arrived(&server, &package, 0).await;
}

#[tokio::test]
async fn failures_of_a_registry() {
    let store = TestStore::new();
    let package = store.package(1, &[1000]);
    for (status, expected) in [(403, "denies"), (405, "405"), (500, "500")] {
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => full(404, &[], ""),
            _ => full(status, &[], "no"),
        });
        let text = chain(&push(&server, &store, &package, &[]).await.unwrap_err());
        assert!(text.contains(expected) && text.contains("no"), "{text}");
    }
    // A place for the upload that must not be used.
    for (location, expected) in [("http://10.0.0.1/x", "plain HTTP"), ("", "manifests"), ("ftp://x/", "HTTP")]
    {
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => full(404, &[], ""),
            "POST" => full(202, &[("location", location)], ""),
            _ => full(404, &[], "manifests"),
        });
        let text = chain(&push(&server, &store, &package, &[]).await.unwrap_err());
        assert!(text.contains(expected), "{location}: {text}");
    }
    // It keeps something else.
    let registry = Registry::default();
    let server = Server::start(move |request| match request.path().contains("/manifests/") {
        true => full(201, &[("docker-content-digest", "sha256:00")], ""),
        false => registry.answer(request),
    });
    let text = chain(&push(&server, &store, &package, &[]).await.unwrap_err());
    assert!(text.contains("another digest"), "{text}");
}

#[tokio::test]
async fn uploads_at_another_host_get_no_credentials() {
    let registry = Registry::default();
    let place = registry.server();
    let (inner, address) = (registry.clone(), place.address.clone());
    let server = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return full(401, &[("www-authenticate", "Basic realm=r")], "");
        }
        match inner.answer(request) {
            Reply::Full(202, headers, body) => {
                let location = headers[0].1.clone();
                Reply::Full(202, vec![("location".to_owned(), format!("http://{address}{location}"))], body)
            }
            other => other,
        }
    });
    let mut options = common::options();
    let user =
        aos_registry::Credential::Basic { user: "u".to_owned(), password: aos_registry::Secret::new("p") };
    options.credentials.insert(&server.address, user);
    let client = aos_registry::Client::new(options);
    let store = TestStore::new();
    let package = store.package(1, &[1000, 5_000_000]);
    let reference = server.reference("team/web:1.0.0");
    client.push(&store.repository, &package, &[], &reference, &Silent).await.unwrap();
    assert!(!place.log().is_empty());
    assert!(place.log().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn the_fallback_list_survives_other_writers() {
    let registry = Registry::default();
    let store = TestStore::new();
    let package = store.package(1, &[1000]);
    let [mine, theirs] = ["mine", "theirs"].map(|text| attachment(&store.lease, &package, text));
    let tag = format!("sha256-{}", package.digest.hex());
    let writes = AtomicUsize::new(0);
    let (inner, name, other) = (registry.clone(), tag.clone(), theirs.clone());
    let server = Server::start(move |request| {
        let reply = inner.answer(request);
        if request.method == "PUT"
            && request.path().ends_with(&name)
            && writes.fetch_add(1, Ordering::SeqCst) < 2
        {
            // Another writer had read the list before, and writes it now.
            let entry = serde_json::to_string(&other).unwrap();
            let media_type = aos_package::oci::INDEX_TYPE;
            let index = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{entry}]}}"#);
            inner.stock.lock().unwrap().manifests.insert(name.clone(), index.into_bytes());
        }
        reply
    });
    push(&server, &store, &package, std::slice::from_ref(&mine)).await.unwrap();
    let index = String::from_utf8(registry.stock.lock().unwrap().manifests[&tag].clone()).unwrap();
    assert!(
        index.contains(&mine.digest.to_string()) && index.contains(&theirs.digest.to_string()),
        "{index}"
    );
}

#[tokio::test]
async fn two_pushes_with_other_signatures_at_once() {
    let registry = Registry::default();
    let server = registry.server();
    let store = TestStore::new();
    let package = store.package(1, &[1000]);
    let made: Vec<_> =
        (0..4).map(|number| attachment(&store.lease, &package, &format!("n{number}"))).collect();
    let pushes = made.chunks(1).map(|one| push(&server, &store, &package, one));
    for pushed in futures_util::future::join_all(pushes).await {
        pushed.unwrap();
    }
    assert_arrived(&server, &package, 4).await;
}

#[tokio::test]
async fn what_cannot_be_pushed() {
    let server = Server::start(|_| full(500, &[], ""));
    let store = TestStore::new();
    let package = store.package(1, &[1000]);
    let other = store.package(2, &[1000]);
    let foreign = attachment(&store.lease, &other, "x");
    let refused = async |package: &Descriptor, attachments: &[Descriptor], name: &str| {
        let result =
            client().push(&store.repository, package, attachments, &server.reference(name), &Silent).await;
        chain(&result.unwrap_err())
    };
    assert!(refused(&package, &[], "web").await.contains("expected NAME:TAG"));
    assert!(refused(&package, &[], &format!("web@{}", other.digest)).await.contains("cannot name"));
    assert!(refused(&package, &[foreign], "web:1").await.contains("not to the package"));
    let absent = Descriptor::new("x", Digest::from_bytes([1; 32]), 3);
    assert!(refused(&absent, &[], "web:1").await.contains("is not in the store"));
    let local = "web:1.0.0".parse().unwrap();
    let text = chain(&client().push(&store.repository, &package, &[], &local, &Silent).await.unwrap_err());
    assert!(text.contains("names no registry"), "{text}");
    assert!(server.log().is_empty());
}
