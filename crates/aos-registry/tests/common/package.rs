//! Packages made by hand, in a store.

use aos_core::config::ResolvedAgent;
use aos_package::oci::{
    ArtifactManifest, CONFIG_TYPE, Descriptor, EMPTY, EMPTY_TYPE, LAYER_GZIP_TYPE, MANIFEST_TYPE, Manifest,
    PackageConfig,
};
use aos_package::repository::Lease;
use flate2::{Compression, GzBuilder};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::io::Write;

/// Media type of a signature.
pub const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// Bytes that do not compress, the same for the same seed (xorshift).
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A gzip tar of one file, and the digest of the tar.
pub fn layer(name: &str, contents: &[u8]) -> (Vec<u8>, aos_core::id::Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, format!("app/{name}"), contents).unwrap();
    let tar = tar.into_inner().unwrap();
    let diff_id = aos_core::id::Digest::from_bytes(sha2::Sha256::digest(&tar).into());
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::none());
    gzip.write_all(&tar).unwrap();
    (gzip.finish().unwrap(), diff_id)
}

/// A package `NAME:VERSION` with one layer for each size; the bytes depend on the seed.
pub fn package(lease: &Lease, name: &str, version: &str, seed: u64, sizes: &[usize]) -> Descriptor {
    let agent = format!(
        r#"{{"capabilities":[],"limits":{{}},"name":"{name}","root":"own","run":{{"entrypoint":["/app/0"],"lifecycle":"persistent","workdir":"/"}},"version":"{version}"}}"#
    );
    let agent = ResolvedAgent::from_json(agent.as_bytes()).unwrap();
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (index, size) in sizes.iter().enumerate() {
        let (bytes, diff_id) = layer(&index.to_string(), &noise(seed + index as u64, *size));
        layers.push(lease.put(LAYER_GZIP_TYPE, &bytes).unwrap());
        diff_ids.push(diff_id);
    }
    let config = PackageConfig { agent, diff_ids, architecture: "amd64".to_owned() };
    let config = lease.put(CONFIG_TYPE, &config.to_json(0).unwrap()).unwrap();
    lease.put(MANIFEST_TYPE, &Manifest::new(config, layers).to_json().unwrap()).unwrap()
}

/// Something attached to a package.
pub fn attachment(lease: &Lease, subject: &Descriptor, text: &str) -> Descriptor {
    lease.put(EMPTY_TYPE, EMPTY).unwrap();
    let content = lease.put(ENVELOPE_TYPE, text.as_bytes()).unwrap();
    let annotations = BTreeMap::from([("org.aos.predicate".to_owned(), text.to_owned())]);
    let manifest = ArtifactManifest::new(ENVELOPE_TYPE, content, subject, annotations);
    let descriptor = lease.put(MANIFEST_TYPE, &manifest.to_json().unwrap()).unwrap();
    lease.repository().attach(lease, &descriptor).unwrap().descriptor
}
