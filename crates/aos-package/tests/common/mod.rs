//! Packages made by hand, well or badly.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of what all share")]

use aos_core::config::ResolvedAgent;
use aos_core::id::Digest;
use aos_package::archive::{self, BlobSource};
use aos_package::oci::{
    ArtifactManifest, CONFIG_TYPE, Descriptor, EMPTY as EMPTY_CONFIG, EMPTY_TYPE, LAYER_GZIP_TYPE,
    MANIFEST_TYPE, Manifest, PackageConfig,
};
use aos_package::repository::{AttachError, Attachment, Collected, GcMode, Lease, Repository};
use aos_package::store::Store;
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Writes a file below a directory.
pub fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
}

/// The archive of a package of one script.
pub fn simple(script: &str) -> Vec<u8> {
    version("1.0.0", script)
}

/// The same package in another version.
pub fn version(version: &str, script: &str) -> Vec<u8> {
    package_with(web(version, "host", &["/usr/bin/python3", "/app/main.py"], &[]), script)
}

/// An archive of an agent whose layer has this script.
pub fn package_with(agent: ResolvedAgent, script: &str) -> Vec<u8> {
    let tar = RawTar::default().dir("app").file("app/main.py", script).end();
    package_of(agent, &[(tar.clone(), gzip(&tar), LAYER_GZIP_TYPE)])
}

/// An error with its causes.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A store in a directory of its own.
pub fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// A repository in a directory of its own.
pub fn repository() -> (TempDir, Repository) {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open(dir.path()).unwrap();
    (dir, repository)
}

/// Puts a package with one layer, of which only the contents of a file differ by `text`.
pub fn put_package(lease: &Lease, text: &str) -> Descriptor {
    let tar = RawTar::default().file("app/x", text).end();
    let layer = lease.put(LAYER_GZIP_TYPE, &gzip(&tar)).unwrap();
    put_manifest(lease, text, vec![layer])
}

/// Puts the config and the manifest of a package of these layers.
pub fn put_manifest(lease: &Lease, text: &str, layers: Vec<Descriptor>) -> Descriptor {
    let diff_ids = vec![sha256(text.as_bytes()); layers.len()];
    let agent = agent("host", "/usr/bin/true");
    let config = PackageConfig { agent, diff_ids, architecture: "amd64".to_owned() };
    let config = lease.put(CONFIG_TYPE, &config.to_json(0).unwrap()).unwrap();
    lease.put(MANIFEST_TYPE, &Manifest::new(config, layers).to_json().unwrap()).unwrap()
}

/// The manifest of an attachment, whose blobs are put.
pub fn artifact(lease: &Lease, subject: &Descriptor, kind: &str, content: &[u8]) -> ArtifactManifest {
    lease.put(EMPTY_TYPE, EMPTY_CONFIG).unwrap();
    let content = lease.put(kind, content).unwrap();
    ArtifactManifest::new(kind, content, subject, BTreeMap::new())
}

/// Attaches something to a manifest.
pub fn attach(
    lease: &Lease,
    subject: &Descriptor,
    kind: &str,
    content: &[u8],
) -> Result<Attachment, AttachError> {
    let manifest = artifact(lease, subject, kind, content);
    let descriptor = lease.put(MANIFEST_TYPE, &manifest.to_json().unwrap()).unwrap();
    lease.repository().attach(lease, &descriptor)
}

/// Collects all but what has a tag, is pinned or is kept.
pub fn gc(repository: &Repository, keep: &[Digest]) -> Collected {
    repository.gc(&keep.iter().copied().collect(), &BTreeSet::new(), GcMode::Collect).unwrap()
}

/// All paths below, sorted.
pub fn paths(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, top: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path().strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), top, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// What must be in a store that holds nothing.
pub const EMPTY: [&str; 10] = [
    "leases",
    "partial",
    "rootfs",
    "store",
    "store.lock",
    "store/blobs",
    "store/blobs/sha256",
    "store/index.json",
    "store/oci-layout",
    "tmp",
];

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An agent whose root is its own package, or the host's.
pub fn agent(root: &str, program: &str) -> ResolvedAgent {
    web("1.0.0", root, &[program], &[])
}

/// The agent `web` with this entrypoint and environment.
pub fn web(version: &str, root: &str, entrypoint: &[&str], env: &[(&str, &str)]) -> ResolvedAgent {
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    let env = if env.is_empty() { String::new() } else { format!(r#","env":{}"#, serde_json::json!(env)) };
    let json = format!(
        r#"{{"capabilities":[],"limits":{{}},"name":"web","root":"{root}","run":{{"entrypoint":{entrypoint}{env},"lifecycle":"oneshot","workdir":"/workspace"}},"version":"{version}"}}"#,
        entrypoint = serde_json::json!(entrypoint)
    );
    ResolvedAgent::from_canonical_json(json.as_bytes()).unwrap()
}

/// An archive of these layers, each its tar and its blob, for a program of the host.
pub fn package(layers: &[(Vec<u8>, Vec<u8>, &str)]) -> Vec<u8> {
    package_of(agent("host", "/usr/bin/true"), layers)
}

pub fn package_of(agent: ResolvedAgent, layers: &[(Vec<u8>, Vec<u8>, &str)]) -> Vec<u8> {
    let name = agent.reference().to_string();
    let config = PackageConfig {
        agent,
        diff_ids: layers.iter().map(|(tar, _, _)| sha256(tar)).collect(),
        architecture: "amd64".to_owned(),
    };
    let config = config.to_json(0).unwrap();
    let mut blobs = BTreeMap::new();
    let mut add = |media_type: &str, bytes: Vec<u8>| {
        let descriptor = Descriptor::new(media_type, sha256(&bytes), bytes.len() as u64);
        blobs.insert(descriptor.digest, (descriptor.size, BlobSource::Bytes(bytes)));
        descriptor
    };
    let config = add(CONFIG_TYPE, config);
    let layers = layers.iter().map(|(_, blob, media_type)| add(media_type, blob.clone())).collect();
    let manifest = add(MANIFEST_TYPE, Manifest::new(config, layers).to_json().unwrap());
    let mut bytes = Vec::new();
    archive::write(&mut bytes, &name, &manifest, blobs).unwrap();
    bytes
}

/// An archive of gzip layers, from their tars.
pub fn package_of_tars(tars: &[Vec<u8>]) -> Vec<u8> {
    let layers: Vec<_> = tars.iter().map(|tar| (tar.clone(), gzip(tar), LAYER_GZIP_TYPE)).collect();
    package(&layers)
}

/// A raw tar, entry by entry, with names that the library would refuse to write.
#[derive(Default)]
pub struct RawTar(Vec<u8>);

impl RawTar {
    pub fn entry(mut self, kind: u8, name: &str, link: &str, contents: &[u8]) -> Self {
        self.0.extend(header(kind, name, link, contents.len() as u64).as_bytes());
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn header(mut self, header: &tar::Header) -> Self {
        self.0.extend(header.as_bytes());
        self
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        self.entry(b'0', name, "", text.as_bytes())
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"")
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    pub fn cut(self) -> Vec<u8> {
        self.0
    }
}

pub fn header(kind: u8, name: &str, link: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.as_ustar_mut().unwrap().typeflag = [kind];
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_uid(1234);
    header.set_gid(1234);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

/// Layers with an entry that no package may have, and what is said of each. `far` is a folder
/// outside of the store, which some of them want to reach.
pub fn hostile_layers(far: &str) -> Vec<(Vec<u8>, &'static str)> {
    let raw = RawTar::default;
    let layers = [
        (raw().file("/etc/passwd", "x"), "`/etc/passwd` is absolute"),
        (raw().file("../x", "x"), "segment `..`"),
        (raw().file("a/../../x", "x"), "segment `..`"),
        (raw().file("a//x", "x"), "empty segment"),
        (raw().file("a\nb", "x"), "U+000A"),
        (raw().entry(b'3', "dev/sda", "", b""), "is a device"),
        (raw().entry(b'4', "dev/sda", "", b""), "is a device"),
        (raw().entry(b'6', "fifo", "", b""), "is a fifo"),
        (raw().entry(b'S', "sparse", "", b""), "is a sparse file"),
        (raw().entry(b'Z', "odd", "", b""), "of an unknown kind"),
        (raw().entry(b'2', "a/link", "x", b"contents"), "contents of something that is not a file"),
        (
            raw().dir("a").symlink("a/l", far).file("a/l/victim", "bad"),
            "a symbolic link or a file is on the way",
        ),
        (raw().dir("a").symlink("a/l", "..").file("a/l/x", "bad"), "a symbolic link or a file is on the way"),
        (
            raw().dir("a").symlink("a/l", far).file("a/l/sub/x", "bad"),
            "a symbolic link or a file is on the way",
        ),
        (
            raw().dir("a").symlink("a/l", far).file("a/l/new/x", "bad"),
            "a symbolic link or a file is on the way",
        ),
        (
            raw().dir("a").symlink("a/s", far).hard_link("a/l", "a/s/sub/victim"),
            "is not a file of the package",
        ),
        (raw().file("a/f", "x").file("a/f/x", "bad"), "a symbolic link or a file is on the way"),
        (raw().hard_link("a/l", "/etc/passwd"), "`/etc/passwd` is absolute"),
        (raw().hard_link("a/l", "../../etc/passwd"), "segment `..`"),
        (raw().hard_link("a/l", "a/nothing"), "is not a file of the package"),
        (raw().dir("a").hard_link("a/l", "a"), "is not a file of the package"),
        (
            raw().dir("a").symlink("a/s", &format!("{far}/victim")).hard_link("a/l", "a/s"),
            "is not a file of the package",
        ),
        (raw().dir("a").symlink("a/s", far).hard_link("a/l", "a/s/victim"), "is not a file of the package"),
        (raw().file("a/f", "x").hard_link("a/f", "a/f"), "is not a file of the package"),
        (raw().file("a/.wh..", ""), "is not a valid whiteout"),
        (raw().file("a/.wh.", ""), "is not a valid whiteout"),
        (raw().file("a/.wh.x/y", ""), "is not a valid whiteout"),
        (raw().file("a/.wh.x", "contents"), "is not a valid whiteout"),
        (raw().dir("a/.wh.x"), "is not a valid whiteout"),
        (raw().file("top", "x"), "`/top` is not a directory"),
        (raw().symlink("app", far), "`/app` is not a directory"),
    ];
    layers.into_iter().map(|(tar, says)| (tar.end(), says)).collect()
}

/// Layers that are small to send and large to keep.
pub fn bombs() -> Vec<(Vec<u8>, &'static str)> {
    // A header that promises ten gigabytes.
    let promise = RawTar::default().header(&header(b'0', "a/x", "", 10 << 30)).cut();
    // Zeros, a thousand times smaller when they are packed.
    let zeros = RawTar::default().entry(b'0', "a/x", "", &vec![0; 80 << 20]).end();
    vec![(promise, "unpacks to more than"), (zeros, "which is too much for its packed size")]
}

/// The store's only root.
pub fn only_root(store: &Path) -> PathBuf {
    let mut roots = fs::read_dir(store.join("rootfs")).unwrap();
    let root = roots.next().unwrap().unwrap().path();
    assert!(roots.next().is_none());
    root
}
