//! Images of other tools as bases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_build::{BaseError, Bases, Request, Silent, Wanted, build};
use aos_core::config::RootKind;
use aos_core::id::Digest;
use aos_package::oci::{CONFIG_TYPE, Descriptor, LAYER_GZIP_TYPE, MANIFEST_TYPE};
use aos_package::repository::{Lease, Repository};
use common::{Store, chain, directory, options, paths, store, with_build};
use sha2::Digest as _;
use std::fs;
use std::io::Write;
use std::sync::Mutex;

/// An image in the repository, brought whatever is wanted; writes down what was.
struct One {
    manifest: Descriptor,
    wanted: Mutex<Vec<(String, Option<Digest>)>>,
}

impl Bases for One {
    fn bring(
        &self,
        wanted: &Wanted,
        locked: Option<Digest>,
        _: &Repository,
        lease: &Lease,
    ) -> Result<Descriptor, BaseError> {
        self.wanted.lock().unwrap().push((wanted.to_string(), locked));
        lease.pin(self.manifest.digest)?;
        Ok(self.manifest.clone())
    }
}

/// A tar of files, directories (closing slash), links (`name -> target`), whiteouts.
fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if name.ends_with('*') || name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(0);
        if let Some((name, target)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, target).unwrap();
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, name, &b""[..]).unwrap();
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name.trim_end_matches('*'), text.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

fn image(store: &Store, architecture: &str, config: &str, layers: &[Vec<u8>]) -> One {
    let lease = store.repository.lease().unwrap();
    let mut blobs = Vec::new();
    let mut diff_ids = Vec::new();
    for tar in layers {
        diff_ids.push(Digest::from_bytes(sha2::Sha256::digest(tar).into()).to_string());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).unwrap();
        let blob = lease.put(LAYER_GZIP_TYPE, &gzip.finish().unwrap()).unwrap();
        blobs.push(serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": blob.digest, "size": blob.size
        }));
    }
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":{}}},"history":[{{"empty_layer":true}}]}}"#,
        serde_json::json!(diff_ids)
    );
    let config = lease.put(CONFIG_TYPE, config.as_bytes()).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "digest": config.digest, "size": config.size },
        "layers": blobs
    });
    let manifest = lease.put(MANIFEST_TYPE, manifest.to_string().as_bytes()).unwrap();
    One { manifest, wanted: Mutex::new(Vec::new()) }
}

const CONFIG: &str = r#"{"Env":["PATH=/usr/bin:/bin","LANG=C.UTF-8"],"WorkingDir":"/srv","Cmd":["sh"]}"#;

fn usual(store: &Store) -> One {
    let lower = layer(&[
        ("./", ""),
        ("usr/", ""),
        ("usr/bin/python3*", "old"),
        ("bin -> usr/bin", ""),
        ("srv/old", ""),
        ("etc/x", ""),
    ]);
    let upper =
        layer(&[("usr/bin/python3*", "new"), ("srv/.wh.old", ""), ("etc/.wh..wh..opq", ""), ("etc/y", "")]);
    image(store, options().architecture.as_str(), CONFIG, &[lower, upper])
}

fn agentfile() -> String {
    with_build(
        "registry.example/python:3.13",
        "{ copy: { from: main.py, to: /app/ } }, { copy: { from: tool, to: /bin/tool } }, { env: { MORE: '1' } }",
    )
}

#[test]
fn an_image_brings_its_files_and_settings() {
    let store = store();
    let bases = usual(&store);
    let dir = directory(&agentfile(), &[("main.py", ""), ("tool*", "")]);
    let built = build(&Request::new(dir.path(), options()), &store.repository, &bases, &Silent).unwrap();
    assert_eq!(bases.wanted.lock().unwrap()[0], ("registry.example/python:3.13".to_owned(), None));
    assert_eq!((built.layers.len(), built.agent.root), (4, RootKind::Own));
    let root = store.unpack(&built);
    assert_eq!(
        paths(root.path()),
        [
            "app",
            "app/main.py",
            "bin",
            "etc",
            "etc/y",
            "srv",
            "usr",
            "usr/bin",
            "usr/bin/python3",
            "usr/bin/tool"
        ]
    );
    assert_eq!(fs::read_to_string(root.path().join("usr/bin/python3")).unwrap(), "new");
    assert_eq!(built.entries, 10);
    let run = built.agent.run.as_ref().unwrap();
    let env: Vec<String> =
        run.env.iter().map(|(name, value)| format!("{}={}", name.as_str(), value.as_str())).collect();
    assert_eq!(env, ["LANG=C.UTF-8", "MORE=1", "PATH=/usr/bin:/bin"]);
    assert_eq!(run.workdir.as_str(), "/srv");
    assert_eq!(built.materials.bases[0].digest, bases.manifest.digest);
    let files: Vec<&str> = built.files.iter().map(|(path, _, _)| path).collect();
    assert_eq!(files, ["app/main.py", "etc/y", "usr/bin/python3", "usr/bin/tool"]);
    // It is a package that can be read back as every other.
    store.repository.package(&built.manifest).unwrap();
}

#[test]
fn an_image_that_cannot_be_a_base_is_refused() {
    let dir = directory(&agentfile(), &[("main.py", ""), ("tool*", "")]);
    let refused = |store: &Store, bases: &One| {
        chain(&build(&Request::new(dir.path(), options()), &store.repository, bases, &Silent).unwrap_err())
    };
    let files = || layer(&[("usr/bin/python3*", "")]);
    let with = store();
    let other = image(&with, "s390x", CONFIG, &[files()]);
    assert_eq!(
        refused(&with, &other),
        format!(
            "`registry.example/python:3.13` cannot be used: it is for s390x, expected {}",
            options().architecture
        )
    );
    let with = store();
    let bad = image(&with, &options().architecture, r#"{"Env":["A B=1"]}"#, &[files()]);
    assert!(refused(&with, &bad).contains("its variable \"A B=1\" is not one that a package can have"));
    // Altered in the store.
    let with = store();
    let good = usual(&with);
    let blob = with.repository.image(&good.manifest).unwrap().0.layers[0].digest;
    let path = with.repository.layout().join("blobs/sha256").join(blob.hex());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mode = fs::metadata(&path).unwrap().permissions();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, mode).unwrap();
    assert!(refused(&with, &good).contains("is refused"));
}

#[test]
fn what_is_brought_must_be_what_is_locked() {
    let store = store();
    let bases = usual(&store);
    let wrong = Digest::from_bytes([7; 32]);
    let agentfile = agentfile().replace("registry.example/python:3.13", &format!("'aap:base@{wrong}'"));
    let dir = directory(&agentfile, &[("main.py", ""), ("tool*", "")]);
    let error = build(&Request::new(dir.path(), options()), &store.repository, &bases, &Silent).unwrap_err();
    assert_eq!(bases.wanted.lock().unwrap()[0].1, Some(wrong));
    assert!(
        error.to_string().contains(&format!("is {}, Agentfile.lock says {wrong}", bases.manifest.digest)),
        "{error}"
    );
}

/// Layers as other tools make them that no package can have.
#[test]
fn layers_that_a_package_cannot_have_are_written_anew() {
    let store = store();
    let architecture = options().architecture;
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, text: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(7);
        header.set_size(text.len() as u64);
        if kind.is_hard_link() {
            header.set_size(0);
            tar.append_link(&mut header, name, text).unwrap();
        } else {
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
    };
    let file = tar::EntryType::Regular;
    add(file, "./usr/bin/z*", "program", 0o4755);
    add(tar::EntryType::Link, "./usr/bin/python3", "./usr/bin/z*", 0o755);
    add(tar::EntryType::Char, "./dev/console", "", 0o600);
    add(tar::EntryType::Fifo, "./run/pipe", "", 0o600);
    add(file, "./etc/x", "x", 0o644);
    let devices = tar.into_inner().unwrap();
    let bases = image(&store, &architecture, CONFIG, &[layer(&[("etc/.wh.x", ""), ("bin/", "")]), devices]);
    let dir = directory(&agentfile(), &[("main.py", ""), ("tool*", "")]);
    let request = Request::new(dir.path(), options());
    let built = build(&request, &store.repository, &bases, &Silent).unwrap();
    assert_eq!(
        paths(store.unpack(&built).path()),
        [
            "app",
            "app/main.py",
            "bin",
            "bin/tool",
            "etc",
            "etc/x",
            "usr",
            "usr/bin",
            "usr/bin/python3",
            "usr/bin/z*"
        ]
    );
    let again = build(&request, &store.repository, &bases, &Silent).unwrap();
    assert_eq!(again.digest, built.digest);
    // What it was made of is checked.
    let (manifest, config) = store.repository.image(&bases.manifest).unwrap();
    assert_eq!(built.layers[0], manifest.layers[0]);
    assert_ne!(built.layers[1], manifest.layers[1]);
    assert_ne!(store.repository.package(&built.manifest).unwrap().1.diff_ids[1], config.diff_ids[1]);
}
