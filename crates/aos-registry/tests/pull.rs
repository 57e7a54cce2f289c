//! Pulling from registries that fail in the middle, lie, stall or change their mind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::id::Digest;
use aos_package::oci::{CONFIG_TYPE, Descriptor, LAYER_GZIP_TYPE, MANIFEST_TYPE, Manifest};
use aos_package::repository::Origin;
use aos_registry::{Client, Options, PullError, Pulled, RequestError, Silent, Timeouts};
use common::{
    Heard, Reply, Request, Server, Shelf, TestStore, chain, client, full, hasty, ok, options, range_start,
    ranged, raw,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A package of one layer in a registry in memory.
fn shelf(size: usize) -> (TestStore, Descriptor, Shelf) {
    let source = TestStore::new();
    let package = source.package(7, &[size]);
    let shelf = Shelf::with(&source.repository, &package, "1.0.0");
    (source, package, shelf)
}

/// A server of a shelf, where a request for the largest blob is answered by `odd`.
fn odd(shelf: &Shelf, odd: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Server {
    let (shelf, (digest, bytes)) = (shelf.clone(), shelf.largest());
    Server::start(move |request| {
        if request.path().ends_with(&digest) { odd(request, &bytes) } else { shelf.answer(request) }
    })
}

async fn pull(server: &Server, store: &TestStore, client: &Client) -> Result<Pulled, PullError> {
    let pulled = client.pull(&server.reference("team/web:1.0.0"), &store.lease, &Silent).await?;
    let reference = "web:1.0.0".parse().unwrap();
    store.repository.tag(&store.lease, &reference, &pulled.descriptor, Origin::Pulled).unwrap();
    store.assert_sound();
    Ok(pulled)
}

/// What a pull that must fail says. Nothing of it is to be seen in the store.
async fn refused(server: &Server, client: &Client) -> (RequestOrOther, String, TestStore) {
    let store = TestStore::new();
    let error = pull(server, &store, client).await.unwrap_err();
    assert!(store.repository.tags().unwrap().is_empty());
    store.assert_sound();
    let text = chain(&error);
    (error.into(), text, store)
}

enum RequestOrOther {
    Request(RequestError),
    Other,
}

impl From<PullError> for RequestOrOther {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Request(error) => Self::Request(error),
            _ => Self::Other,
        }
    }
}

/// Headers of a body of `length` bytes that starts at `start`.
fn head(start: Option<usize>, total: usize, length: usize) -> String {
    match start {
        Some(start) => format!(
            "HTTP/1.1 206 X\r\ncontent-length: {length}\r\ncontent-range: bytes {start}-{}/{total}\r\n\r\n",
            total - 1
        ),
        None => format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n"),
    }
}

#[tokio::test]
async fn a_package_arrives_whole_and_once() {
    let (_source, package, shelf) = shelf(300_000);
    let server = Server::start(move |request| shelf.answer(request));
    let store = TestStore::new();
    let heard = Heard::default();
    let reference = server.reference("team/web:1.0.0");
    let pulled = client().pull(&reference, &store.lease, &heard).await.unwrap();
    assert_eq!((pulled.descriptor.digest, pulled.descriptor.size), (package.digest, package.size));
    assert_eq!(*heard.totals.lock().unwrap(), *heard.moved.lock().unwrap());
    assert_eq!(heard.totals.lock().unwrap().len(), 2);
    let asked = server.log().len();
    let again = client().pull(&reference, &store.lease, &heard).await.unwrap();
    assert_eq!(again, pulled);
    // The manifest, and the two ways to ask for attachments; no blob.
    assert_eq!(server.log().len() - asked, 3);
    assert_eq!(client().resolve(&reference).await.unwrap().digest, package.digest);
}

#[tokio::test]
async fn a_reset_resumes_and_fetches_only_the_rest() {
    let (_source, package, shelf) = shelf(3_000_000);
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let server = odd(&shelf, move |request, bytes| {
        let start = range_start(request);
        let rest = bytes[start.unwrap_or(0)..].to_vec();
        let head = head(start, bytes.len(), rest.len());
        // A third of the blob for each connection.
        let part = rest.len().min(bytes.len() / 3 + 1);
        counter.fetch_add(part, Ordering::SeqCst);
        raw(move |stream| {
            stream.write_all(head.as_bytes())?;
            stream.write_all(&rest[..part])
        })
    });
    let store = TestStore::new();
    assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, package.digest);
    let (digest, bytes) = shelf.largest();
    assert_eq!(sent.load(Ordering::SeqCst), bytes.len(), "no byte came twice");
    assert_eq!(server.count("GET", &digest), 3);
}

#[tokio::test]
async fn another_pull_goes_on_where_one_stopped() {
    let (_source, package, shelf) = shelf(2_000_000);
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let server = odd(&shelf, move |request, bytes| {
        if !switch.load(Ordering::SeqCst) {
            return ranged(request, bytes);
        }
        let start = range_start(request);
        let begun = start.unwrap_or(0);
        let head = head(start, bytes.len(), bytes.len() - begun);
        let part = bytes[begun..(begun + 100_000).min(bytes.len())].to_vec();
        raw(move |stream| {
            stream.write_all(head.as_bytes())?;
            stream.write_all(&part)
        })
    });
    let (_, text, store) = refused(&server, &client()).await;
    assert!(text.contains("broke"), "{text}");
    // Four attempts of 100,000 bytes.
    assert!(store.partials().contains(&400_000), "{:?}", store.partials());
    broken.store(false, Ordering::SeqCst);
    assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, package.digest);
    let last = server.log().into_iter().rfind(|request| request.path().contains(&shelf.largest().0)).unwrap();
    assert_eq!(last.header("range"), Some("bytes=400000-"));
    assert!(store.partials().is_empty());
}

#[tokio::test]
async fn a_partial_file_of_something_else_is_begun_anew() {
    let (_source, package, shelf) = shelf(500_000);
    let server = Server::start({
        let shelf = shelf.clone();
        move |request| shelf.answer(request)
    });
    let store = TestStore::new();
    let digest: Digest = shelf.largest().0.parse().unwrap();
    std::fs::write(store.directory.path().join("partial").join(digest.hex()), vec![1; 200_000]).unwrap();
    assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, package.digest);
    assert_eq!(server.count("GET", &digest.to_string()), 2);
}

#[tokio::test]
async fn a_server_without_ranges_serves_too() {
    let (_source, package, shelf) = shelf(1_000_000);
    let first = AtomicBool::new(true);
    let server = odd(&shelf, move |_, bytes| {
        if !first.swap(false, Ordering::SeqCst) {
            return ok(bytes);
        }
        let (head, part) = (head(None, bytes.len(), bytes.len()), bytes[..400_000].to_vec());
        raw(move |stream| {
            stream.write_all(head.as_bytes())?;
            stream.write_all(&part)
        })
    });
    let store = TestStore::new();
    assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, package.digest);
}

#[tokio::test]
async fn wrong_ranges_are_refused() {
    let (_source, _package, shelf) = shelf(100_000);
    let server = odd(&shelf, |request, bytes| match range_start(request) {
        None => {
            let (head, part) = (head(None, bytes.len(), bytes.len()), bytes[..50_000].to_vec());
            raw(move |stream| {
                stream.write_all(head.as_bytes())?;
                stream.write_all(&part)
            })
        }
        Some(start) => {
            let range = format!("bytes {}-{}/{}", start - 1, bytes.len() - 1, bytes.len());
            full(206, &[("content-range", &range)], &bytes[start..])
        }
    });
    let (_, text, _) = refused(&server, &client()).await;
    assert!(text.contains("not the range"), "{text}");
}

fn sleep(seconds: u64) -> std::io::Result<()> {
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(())
}

/// Answers that never end, by how they begin.
#[tokio::test]
async fn stalls_end() {
    let (_source, _package, shelf) = shelf(200_000);
    type Stall = fn(&[u8], &mut dyn common::Wire) -> std::io::Result<()>;
    let stalls: [(&str, Stall); 4] = [
        ("nothing comes", |_, _| sleep(60)),
        ("headers trickle", |_, stream| {
            stream.write_all(b"HTTP/1.1 200 X\r\nx: ")?;
            for _ in 0..1200 {
                stream.write_all(b"y")?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }),
        ("the body stops", |bytes, stream| {
            stream.write_all(head(None, bytes.len(), bytes.len()).as_bytes())?;
            stream.write_all(&bytes[..1000])?;
            stream.flush()?;
            sleep(60)
        }),
        ("the body trickles", |bytes, stream| {
            stream.write_all(head(None, bytes.len(), bytes.len()).as_bytes())?;
            for byte in &bytes[..1200] {
                stream.write_all(&[*byte])?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }),
    ];
    for (name, stall) in stalls {
        let server = odd(&shelf, move |_, bytes| {
            let bytes = bytes.to_vec();
            raw(move |stream| stall(&bytes, stream))
        });
        let started = Instant::now();
        let (error, text, _) = refused(&server, &hasty(Duration::from_millis(400), 2)).await;
        assert!(matches!(error, RequestOrOther::Request(RequestError::Stalled { .. })), "{name}: {text}");
        // Two attempts of 0.4 s, of an answer that takes 60 s.
        assert!(started.elapsed() < Duration::from_secs(30), "{name}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_stall_that_passes_is_survived() {
    let (_source, package, shelf) = shelf(400_000);
    let first = AtomicBool::new(true);
    let server = odd(&shelf, move |request, bytes| {
        if !first.swap(false, Ordering::SeqCst) {
            return ranged(request, bytes);
        }
        let (head, part) = (head(None, bytes.len(), bytes.len()), bytes[..200_000].to_vec());
        raw(move |stream| {
            stream.write_all(head.as_bytes())?;
            stream.write_all(&part)?;
            stream.flush()?;
            sleep(60)
        })
    });
    let store = TestStore::new();
    assert_eq!(
        pull(&server, &store, &hasty(Duration::from_secs(2), 10)).await.unwrap().descriptor.digest,
        package.digest
    );
}

#[tokio::test]
async fn the_whole_is_bounded() {
    let (_source, _package, shelf) = shelf(100_000);
    // Fast enough not to stall, too slow for the whole.
    let server = odd(&shelf, |_, bytes| {
        let (head, bytes) = (head(None, bytes.len(), bytes.len()), bytes.to_vec());
        raw(move |stream| {
            stream.write_all(head.as_bytes())?;
            for part in bytes.chunks(500) {
                stream.write_all(part)?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        })
    });
    let timeouts = Timeouts { total: Duration::from_secs(2), ..options().timeouts };
    let started = Instant::now();
    let (_, text, store) = refused(&server, &Client::new(Options { timeouts, ..options() })).await;
    assert!(text.contains("it took more than 2 s"), "{text}");
    // The blob would take 20 s.
    assert!(started.elapsed() < Duration::from_secs(15));
    // The writer's thread ends on its own; what came stays for the next pull.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.partials().iter().any(|size| *size > 0));
}

#[tokio::test]
async fn lies_about_lengths_are_refused() {
    let (_source, _package, shelf) = shelf(100_000);
    type Lie = fn(&[u8]) -> Reply;
    let lies: [(&str, Lie, &str); 5] = [
        ("more is announced", |bytes| ok([bytes, b"x"].concat()), "the manifest says"),
        ("less is announced", |bytes| ok(&bytes[1..]), "the manifest says"),
        (
            "more comes",
            |bytes| {
                let bytes = bytes.to_vec();
                raw(move |stream| {
                    stream.write_all(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n")?;
                    stream.write_all(&bytes)?;
                    stream.write_all(b"more")
                })
            },
            "sends more than",
        ),
        (
            "less comes",
            |bytes| {
                let bytes = bytes.to_vec();
                raw(move |stream| {
                    stream.write_all(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n")?;
                    stream.write_all(&bytes[..10])
                })
            },
            "before its end",
        ),
        (
            "other bytes",
            |bytes| {
                let mut bytes = bytes.to_vec();
                bytes[5000] ^= 1;
                ok(bytes)
            },
            "altered",
        ),
    ];
    for (name, lie, expected) in lies {
        let server = odd(&shelf, move |_, bytes| lie(bytes));
        let (_, text, store) = refused(&server, &client()).await;
        assert!(text.contains(expected), "{name}: {text}");
        if expected == "altered" {
            let hex = shelf.largest().0.replace("sha256:", "");
            assert!(!store.directory.path().join("partial").join(hex).exists(), "{name}");
        }
    }
}

#[tokio::test]
async fn another_manifest_for_the_digest_is_refused() {
    let (source, package, mut shelf) = shelf(1000);
    let other = source.package(9, &[500]);
    shelf.add(&source.repository, &other, "2.0.0");
    let swapped = shelf.manifests[&other.digest.to_string()].clone();
    shelf.manifests.insert(package.digest.to_string(), swapped);
    let server = Server::start(move |request| shelf.answer(request));
    let store = TestStore::new();
    let reference = server.reference(&format!("team/web@{}", package.digest));
    let text = chain(&client().pull(&reference, &store.lease, &Silent).await.unwrap_err());
    assert!(text.contains(&other.digest.to_string()) && text.contains("wrongly"), "{text}");
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn a_tag_that_moves_does_not_mix_two_packages() {
    let (source, package, mut shelf) = shelf(5000);
    let other = source.package(9, &[4000]);
    shelf.add(&source.repository, &other, "2.0.0");
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if request.path().ends_with("/manifests/1.0.0") && asked.fetch_add(1, Ordering::SeqCst) > 0 {
            let (media_type, bytes) = &shelf.manifests["2.0.0"];
            return full(200, &[("content-type", media_type)], bytes.clone());
        }
        shelf.answer(request)
    });
    let store = TestStore::new();
    assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, package.digest);
    assert_eq!(server.count("GET", "/manifests/1.0.0"), 1);
    let store = TestStore::new();
    assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, other.digest);
}

#[tokio::test]
async fn manifests_are_bounded() {
    let server = Server::start(|_| full(200, &[("content-length", "100000000")], ""));
    let (_, text, _) = refused(&server, &client()).await;
    assert!(text.contains("sends more than 4194304 bytes"), "{text}");
    let server = Server::start(|_| {
        raw(|stream| {
            stream.write_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(b"10000\r\n")?;
                stream.write_all(&[b' '; 65536])?;
                stream.write_all(b"\r\n")?;
            }
        })
    });
    let (_, text, _) = refused(&server, &client()).await;
    assert!(text.contains("sends more than 4194304 bytes"), "{text}");
}

#[tokio::test]
async fn what_is_not_a_package_is_refused() {
    let blob = |size| Descriptor::new(LAYER_GZIP_TYPE, Digest::from_bytes([1; 32]), size);
    let config = |size| Descriptor::new(CONFIG_TYPE, Digest::from_bytes([2; 32]), size);
    let text = |manifest: Manifest| String::from_utf8(manifest.to_json().unwrap()).unwrap();
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    for (manifest, expected) in [
        (text(Manifest::new(config(10), vec![blob(1 << 50)])), "at most"),
        (text(Manifest::new(config(1 << 40), vec![blob(1)])), "at most"),
        (text(Manifest::new(config(10), vec![blob(10), blob(11)])), "that it has 11"),
        (text(Manifest::new(config(10), vec![blob(1); 100])), "at most 64"),
        (index.to_owned(), "several platforms"),
        ("{}".to_owned(), "media type of a manifest"),
        ("<html>".to_owned(), "not a manifest"),
        (format!(r#"{{"mediaType":"{MANIFEST_TYPE}"}}"#), "not valid"),
    ] {
        let server = Server::start(move |_| ok(manifest.clone()));
        let (_, text, _) = refused(&server, &client()).await;
        assert!(text.contains(expected), "{expected}: {text}");
        assert_eq!(server.log().len(), 1, "{expected}");
    }
}

#[tokio::test]
async fn two_pulls_of_the_same_thing_at_once() {
    let (_source, package, shelf) = shelf(2_000_000);
    let server = odd(&shelf, |request, bytes| {
        std::thread::sleep(Duration::from_millis(50));
        ranged(request, bytes)
    });
    let store = TestStore::new();
    let lease = store.repository.lease().unwrap();
    let reference = server.reference("team/web:1.0.0");
    let (one, two) = (client(), client());
    let (first, second) =
        tokio::join!(one.pull(&reference, &store.lease, &Silent), two.pull(&reference, &lease, &Silent));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, package.digest);
    assert!(store.partials().is_empty());
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    for (status, after, least) in [(503, None, 0), (429, Some("1"), 250), (500, Some("0"), 0), (408, None, 0)]
    {
        let (_source, package, shelf) = shelf(1000);
        let seen = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            if seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                let headers: Vec<_> = after.map(|after| ("retry-after", after)).into_iter().collect();
                return full(status, &headers, "try later");
            }
            shelf.answer(request)
        });
        let started = Instant::now();
        let store = TestStore::new();
        assert_eq!(pull(&server, &store, &client()).await.unwrap().descriptor.digest, package.digest);
        assert!(started.elapsed() >= Duration::from_millis(least), "{status}");
    }
}

#[tokio::test]
async fn failures_that_stay_end() {
    let server = Server::start(|_| full(503, &[], "\x1b]0;owned\x07 never"));
    let (_, text, _) = refused(&server, &client()).await;
    assert!(
        text.contains("503") && text.contains("\\u{1b}]0;owned\\u{7} never") && !text.contains('\x1b'),
        "{text}"
    );
    assert_eq!(server.log().len(), 4);
    // An absurd wait is cut, and the number of attempts stays.
    let server = Server::start(|_| full(429, &[("retry-after", "86400")], "slow down"));
    let started = Instant::now();
    let (_, text, _) = refused(&server, &client()).await;
    assert!(text.contains("429") && started.elapsed() < Duration::from_secs(30), "{text}");
    // What does not pass is not tried again.
    for (status, expected) in [(404, "is not in"), (403, "denies"), (418, "418"), (400, "400")] {
        let server =
            Server::start(move |_| full(status, &[], r#"{"errors":[{"code":"C","message":"why"}]}"#));
        let (error, text, _) = refused(&server, &client()).await;
        assert!(text.contains(expected) && text.contains("why"), "{text}");
        assert_eq!(server.log().len(), 1);
        let RequestOrOther::Request(error) = error else { panic!() };
        assert_eq!(error.is_not_found(), status == 404);
    }
    // Nobody there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reference = format!("127.0.0.1:{port}/web:1.0.0").parse().unwrap();
    let text = chain(&client().pull(&reference, &TestStore::new().lease, &Silent).await.unwrap_err());
    assert!(text.contains("cannot connect"), "{text}");
}

#[tokio::test]
async fn error_bodies_are_bounded() {
    let server = Server::start(|_| {
        raw(|stream| {
            stream.write_all(b"HTTP/1.1 404 X\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b'a'; 65536])?;
            }
        })
    });
    let (_, text, _) = refused(&server, &client()).await;
    assert!(text.len() < 500, "{}", text.len());
}
