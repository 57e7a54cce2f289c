//! Packages that want more than to be installed: all are refused, and nothing of them stays.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_package::oci::{LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE};
use common::{
    EMPTY, RawTar, agent, bombs, chain, gzip, header, hostile_layers, package, package_of, package_of_tars,
    paths, simple, store,
};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// Imports into an empty store; the error, after checking that nothing stayed.
fn refused(bytes: impl Read) -> String {
    let (dir, store) = store();
    let error = chain(&store.import(bytes).expect_err("must be refused"));
    assert_eq!(paths(dir.path()), EMPTY, "{error}");
    error
}

#[test]
fn entries_that_a_package_must_not_have() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    fs::write(outside.path().join("sub/victim"), "safe").unwrap();
    let far = outside.path().to_str().unwrap();
    for (tar, says) in hostile_layers(far) {
        let error = refused(package_of_tars(&[tar]).as_slice());
        assert!(error.contains(says), "{says}\n{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
        assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(outside.path().join("sub/victim")).unwrap().nlink(), 1);
        assert_eq!(paths(outside.path()), ["sub", "sub/victim", "victim"]);
    }
}

#[test]
fn links_between_layers_lead_nowhere_either() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    fs::write(outside.path().join("sub/victim"), "safe").unwrap();
    let far = outside.path().to_str().unwrap();
    let below = RawTar::default().dir("a").symlink("a/l", far).end();
    for above in [
        RawTar::default().file("a/l/victim", "bad"),
        RawTar::default().file("a/l/.wh.victim", ""),
        RawTar::default().file("a/l/.wh..wh..opq", ""),
        RawTar::default().file("a/l/sub/.wh.victim", ""),
        RawTar::default().file("a/l/sub/.wh..wh..opq", ""),
        RawTar::default().file("a/l/.wh.sub", ""),
        RawTar::default().dir("a/l/x"),
    ] {
        let error = refused(package_of_tars(&[below.clone(), above.end()]).as_slice());
        assert!(error.contains("a symbolic link or a file is on the way"), "{error}");
        for name in ["victim", "sub/victim"] {
            assert_eq!(fs::read_to_string(outside.path().join(name)).unwrap(), "safe");
        }
    }
}

#[test]
fn special_bits_and_owners_are_not_taken_over_and_layers_stack() {
    let layers = [
        RawTar::default()
            .dir("app")
            .file("app/gone", "1")
            .file("app/old", "1")
            .file("app/dir/a", "1")
            .file("app/dir/b", "1")
            .file("app/file", "1")
            .symlink("app/link", "old")
            .dir("app/becomes-file")
            .file("app/becomes-file/x", "1")
            .end(),
        RawTar::default()
            .dir("./app/")
            .file("app/old", "2")
            .file("app/dir/c", "2")
            // The whiteouts come last and still hide only what is below this layer.
            .file("app/dir/.wh..wh..opq", "")
            .file("app/.wh.gone", "")
            .file("app/.wh.never", "")
            .file("no/where/.wh.x", "")
            .file("app/link", "a file now")
            .file("app/becomes-file", "2")
            .hard_link("app/hard", "app/file")
            .end(),
    ];
    let (dir, store) = store();
    store.import(package_of_tars(&layers).as_slice()).unwrap();
    let root = common::only_root(dir.path());
    assert_eq!(
        paths(&root),
        ["app", "app/becomes-file", "app/dir", "app/dir/c", "app/file", "app/hard", "app/link", "app/old"]
    );
    assert_eq!(fs::read_to_string(root.join("app/old")).unwrap(), "2");
    assert_eq!(fs::read_to_string(root.join("app/link")).unwrap(), "a file now");
    let own = fs::metadata(dir.path()).unwrap().uid();
    for path in paths(&root) {
        let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o755, own), "{path}");
    }
}

#[test]
fn bombs_are_refused_early() {
    let started = Instant::now();
    for (layer, says) in bombs() {
        let error = refused(package_of_tars(&[layer]).as_slice());
        assert!(error.contains(says), "{says}\n{error}");
    }

    // A gigabyte of headers that name nothing, in a megabyte or less: only the stream is long.
    let comment = RawTar::default().entry(
        b'g',
        "x",
        "",
        &[b"60000 comment=".as_slice(), &[b'x'; 59_985], b"\n"].concat(),
    );
    let comment = comment.cut();
    for media_type in [LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE] {
        let mut blob = Vec::new();
        let repeats = (1 << 30) / comment.len();
        if media_type == LAYER_ZSTD_TYPE {
            let mut encoder = zstd::stream::write::Encoder::new(&mut blob, 1).unwrap();
            (0..repeats).for_each(|_| encoder.write_all(&comment).unwrap());
            encoder.finish().unwrap();
        } else {
            let mut encoder = flate2::write::GzEncoder::new(&mut blob, flate2::Compression::new(6));
            (0..repeats).for_each(|_| encoder.write_all(&comment).unwrap());
            encoder.finish().unwrap();
        }
        assert!(blob.len() < 4 << 20, "{}", blob.len());
        let error = refused(package(&[(vec![], blob, media_type)]).as_slice());
        assert!(error.contains("which is too much for its packed size"), "{error}");
    }
    // Most of this time is spent on making the bombs.
    assert!(started.elapsed() < Duration::from_secs(60));

    let deep = ["d"; 65].join("/");
    let deep = RawTar::default().entry(b'L', "x", "", deep.as_bytes()).dir("x").end();
    assert!(refused(package_of_tars(&[deep]).as_slice()).contains("at most 64"));
    let long = RawTar::default().entry(b'L', "x", "", ["n"; 600].join("/").as_bytes()).file("x", "").end();
    assert!(refused(package_of_tars(&[long]).as_slice()).contains("at most 1024"));
    let name = RawTar::default().header(&header(b'L', "x", "", 4 << 20)).cut();
    assert!(refused(package_of_tars(&[name]).as_slice()).contains("at most 65536"));
    let pax = RawTar::default().header(&header(b'x', "x", "", 4 << 20)).cut();
    assert!(refused(package_of_tars(&[pax]).as_slice()).contains("at most 65536"));
}

#[test]
fn no_byte_can_be_changed() {
    let good = simple("print(1)");
    let (dir, store) = store();
    for at in 0..good.len() {
        // Each of the eight bits in turn, and all of them.
        let flip = [1, 2, 4, 8, 16, 32, 64, 128, 255][at % 9];
        let mut bad = good.clone();
        bad[at] ^= flip;
        assert!(store.import(bad.as_slice()).is_err(), "byte {at} of {} flipped by {flip:#x}", good.len());
    }
    assert_eq!(paths(dir.path()), EMPTY);
    store.import(good.as_slice()).unwrap();
}

#[test]
fn no_byte_can_be_missing_or_more() {
    let good = simple("print(1)");
    let (dir, store) = store();
    for length in (0..good.len()).filter(|n| n % 7 == 0 || n + 1100 > good.len()) {
        assert!(store.import(&good[..length]).is_err(), "cut to {length}");
    }
    for more in [vec![1], vec![0; 2 << 20], good.clone(), [vec![0; 512], vec![1]].concat()] {
        assert!(store.import([good.clone(), more].concat().as_slice()).is_err());
    }
    assert_eq!(paths(dir.path()), EMPTY);
    // Zeros up to a full record are how tar pads.
    store.import([good, vec![0; 10_240]].concat().as_slice()).unwrap();
}

/// The entries of an archive, to be put together differently.
fn entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    tar.entries().unwrap().map(read).collect()
}

fn join(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let tar = entries.iter().fold(RawTar::default(), |tar, (name, bytes)| tar.entry(b'0', name, "", bytes));
    tar.end()
}

#[test]
fn archives_that_are_not_exactly_a_package() {
    let good = entries(&simple("print(1)"));
    assert_eq!(good.len(), 5);
    let (_dir, store) = store();
    store.import(join(&good).as_slice()).unwrap();
    // The order does not matter.
    store.import(join(&good.iter().rev().cloned().collect::<Vec<_>>()).as_slice()).unwrap();

    for (index, (name, _)) in good.iter().enumerate() {
        let mut less = good.clone();
        less.remove(index);
        let error = refused(join(&less).as_slice());
        assert!(error.contains("is missing"), "{name}: {error}");
        let twice = [good.clone(), vec![good[index].clone()]].concat();
        assert!(refused(join(&twice).as_slice()).contains("appears twice"), "{name}");
    }
    let with = |name: &str, bytes: &[u8]| {
        let more = [good.clone(), vec![(name.to_owned(), bytes.to_vec())]].concat();
        refused(join(&more).as_slice())
    };
    assert!(with("README", b"").contains("`README` is not part of an image layout"));
    assert!(with("blobs/sha512/x", b"").contains("is not part of an image layout"));
    let extra = format!("blobs/sha256/{}", common::sha256(b"extra").hex());
    assert!(with(&extra, b"extra").contains("nothing refers to the blob"));
    assert!(with(&extra, b"other").contains("is altered"));
    assert!(with("index.json/../x", b"").contains("segment `..`"));

    let index = String::from_utf8(good[1].1.clone()).unwrap();
    for (from, to, says) in [
        ("web:1.0.0", "web:1.0.1", "its config says \"web:1.0.0\""),
        ("org.opencontainers.image.ref.name", "x", "the index calls the package \"x=web:1.0.0\""),
        ("application/vnd.aos.agent.v1", "application/x", "expected application/vnd.aos.agent.v1"),
        ("\"manifests\":[", "\"manifests\":[],\"x\":[", "the index is not valid"),
    ] {
        let mut changed = good.clone();
        changed[1].1 = index.replace(from, to).into_bytes();
        let error = refused(join(&changed).as_slice());
        assert!(error.contains(says), "{to}: {error}");
    }
    let mut none = good.clone();
    none[1].1 = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
    assert!(refused(join(&none).as_slice()).contains("0 manifests, expected 1"));
    let mut plain = good.clone();
    plain[1].1 =
        index.replace(r#","annotations":{"org.opencontainers.image.ref.name":"web:1.0.0"}"#, "").into_bytes();
    assert_ne!(plain[1].1, good[1].1);
    store.import(join(&plain).as_slice()).unwrap();

    assert!(refused(&b""[..]).contains("the tar is cut off"));
    assert!(refused(&[0; 10_240][..]).contains("`oci-layout` is missing"));
    assert!(refused(std::io::repeat(b'x').take(1 << 20)).contains("a tar header is damaged"));
    assert!(refused(gzip(&simple("x")).as_slice()).contains("a tar header is damaged"));
}

#[test]
fn configs_that_disagree_are_refused() {
    let tar = RawTar::default().file("app/x", "1").end();
    let blob = gzip(&tar);
    // The digest of other contents.
    let error = refused(package(&[(b"other".to_vec(), blob.clone(), LAYER_GZIP_TYPE)]).as_slice());
    assert!(error.contains("the unpacked layer has digest"), "{error}");
    // Compressed otherwise than declared, and cut inside.
    let error = refused(package(&[(tar.clone(), blob.clone(), LAYER_ZSTD_TYPE)]).as_slice());
    assert!(error.contains("cannot read the layer"), "{error}");
    let cut = blob[..blob.len() - 9].to_vec();
    refused(package(&[(tar.clone(), cut, LAYER_GZIP_TYPE)]).as_slice());
    let mut junk = blob.clone();
    junk.write_all(b"junk").unwrap();
    refused(package(&[(tar.clone(), junk, LAYER_GZIP_TYPE)]).as_slice());
    // A program that is not there.
    for (agent, says) in [
        (agent("own", "/usr/bin/true"), "its entrypoint `/usr/bin/true` is not a program in it"),
        (agent("own", "/app"), "its entrypoint `/app` is not a program in it"),
        (agent("host", "/app/nothing"), "its entrypoint `/app/nothing` is not a program in it"),
    ] {
        let layers = [(tar.clone(), blob.clone(), LAYER_GZIP_TYPE)];
        let error = refused(package_of(agent, &layers).as_slice());
        assert!(error.contains(says), "{error}");
    }
    let zstd = zstd::stream::encode_all(tar.as_slice(), 3).unwrap();
    let (_dir, store) = store();
    let layers = [(tar.clone(), blob, LAYER_GZIP_TYPE), (tar, zstd, LAYER_ZSTD_TYPE)];
    store.import(package_of(agent("own", "/app/x"), &layers).as_slice()).unwrap();
}

#[test]
fn a_link_in_an_own_root_is_followed_inside_it() {
    let tar = RawTar::default().dir("usr/bin").file("usr/bin/x", "1").symlink("bin", "/usr/bin").end();
    let layers = [(tar.clone(), gzip(&tar), LAYER_GZIP_TYPE)];
    let (_dir, store) = store();
    store.import(package_of(agent("own", "/bin/x"), &layers).as_slice()).unwrap();
}
