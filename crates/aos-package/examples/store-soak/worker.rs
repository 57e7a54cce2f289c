//! A worker: does one thing after another with the store until it is killed.

use super::common::{attach, gc, put_package, version};
use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::oci::{Descriptor, LAYER_GZIP_TYPE};
use aos_package::repository::{AttachError, GcMode, Lease, Origin, Repository};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

/// Packages that all workers share: one puts what another finds.
const PACKAGES: u64 = 6;
/// Tags of each worker.
const NAMES: u64 = 4;
/// Bytes of a blob that is written in pieces.
const LARGE: usize = 300_000;

/// Numbers that depend on the seed alone (Knuth's MMIX generator; the low bits are weak).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.below(2);
        random
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Worker {
    repository: Repository,
    random: Random,
    slot: u32,
    archives: Vec<Vec<u8>>,
}

/// Works in the store of `root` for ever.
pub(crate) fn run(root: &Path, slot: u32, seed: u64) -> ! {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string().replace(['\n', ' '], "_");
        say("panic", &text, None);
    }));
    let repository = Repository::open(root).unwrap();
    let archives = (0..2).map(|n| version(&format!("{n}.0.0"), "x")).collect();
    let mut worker = Worker { repository, random: Random::new(seed), slot, archives };
    loop {
        say("next", "operation", None);
        match worker.random.below(10) {
            0..=2 => worker.tag(),
            3 => worker.untag(),
            4 => worker.attach(),
            5 => worker.collect(),
            6 => worker.import(),
            7..=8 => worker.resume(),
            _ => worker.hold(),
        }
    }
}

/// Said in one write, so that a kill cannot cut it.
fn say(verb: &str, name: &str, digest: Option<Digest>) {
    let digest = digest.map_or("-".to_owned(), |digest| digest.to_string());
    std::io::stdout().write_all(format!("{verb} {name} {digest}\n").as_bytes()).unwrap();
}

/// All of a package is there, and is what it should be.
fn verify(lease: &Lease, manifest: &Descriptor) {
    let (parsed, _) = lease.repository().package(manifest).unwrap();
    for blob in parsed.blobs() {
        let mut reader = lease.repository().verified_blob(blob).unwrap();
        reader.read_to_end(&mut Vec::new()).unwrap();
    }
}

impl Worker {
    fn name(&mut self) -> String {
        format!("w{}:{}.0.0", self.slot, self.random.below(NAMES))
    }

    fn text(&mut self) -> String {
        format!("package {}", self.random.below(PACKAGES)).repeat(2_000)
    }

    fn give_tag(&mut self, lease: &Lease, manifest: &Descriptor, origin: Origin) {
        let name = self.name();
        let reference: Reference = name.parse().unwrap();
        say("begin", &name, Some(manifest.digest));
        self.repository.tag(lease, &reference, manifest, origin).unwrap();
        say("done", &name, Some(manifest.digest));
        assert_eq!(self.repository.resolve(&reference).unwrap().digest, manifest.digest);
        verify(lease, manifest);
    }

    /// Puts a package, which others may collect, put or find meanwhile, and tags it.
    fn tag(&mut self) {
        let lease = self.repository.lease().unwrap();
        let text = self.text();
        let manifest = put_package(&lease, &text);
        self.give_tag(&lease, &manifest, Origin::Built);
    }

    fn untag(&mut self) {
        let name = self.name();
        say("begin", &name, None);
        self.repository.untag(&name.parse().unwrap()).unwrap();
        say("done", &name, None);
    }

    /// Attaches something to a package, which stays attached while the package has a lease.
    fn attach(&mut self) {
        let lease = self.repository.lease().unwrap();
        let text = self.text();
        let manifest = put_package(&lease, &text);
        let content = format!("content {}", self.random.below(40));
        match attach(&lease, &manifest, "application/x", content.as_bytes()) {
            Ok(attachment) => {
                let found = self.repository.attachments(&manifest.digest).unwrap();
                assert!(found.contains(&attachment), "an attachment is lost");
            }
            Err(AttachError::TooMany { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn collect(&mut self) {
        if self.random.below(3) == 0 {
            self.repository.gc(&BTreeSet::new(), &BTreeSet::new(), GcMode::DryRun).unwrap();
        }
        gc(&self.repository, &[]);
    }

    fn import(&mut self) {
        let lease = self.repository.lease().unwrap();
        let index = usize::try_from(self.random.below(self.archives.len() as u64)).unwrap();
        let imported = self.repository.import_archive(&lease, self.archives[index].as_slice()).unwrap();
        self.give_tag(&lease, &imported.descriptor, Origin::Imported);
        self.repository.export(&imported.descriptor, &imported.attachments, std::io::sink()).unwrap();
    }

    /// Writes a large blob in pieces, going on where it, or another worker, stopped.
    fn resume(&mut self) {
        let lease = self.repository.lease().unwrap();
        let which = u8::try_from(self.random.below(2)).unwrap();
        let bytes: Vec<u8> = (0..LARGE).map(|n| which ^ u8::try_from(n % 251).unwrap()).collect();
        let expected = (super::common::sha256(&bytes), bytes.len() as u64);
        let mut writer = lease.writer(Some(expected)).unwrap();
        let rest = &bytes[usize::try_from(writer.offset()).unwrap()..];
        for piece in rest.chunks(16 << 10) {
            writer.write_all(piece).unwrap();
            std::thread::yield_now();
        }
        let blob = writer.commit(LAYER_GZIP_TYPE).unwrap();
        self.repository.verified_blob(&blob).unwrap().read_to_end(&mut Vec::new()).unwrap();
    }

    /// Finds what somebody else has a tag for, and keeps it from going.
    fn hold(&mut self) {
        let lease = self.repository.lease().unwrap();
        let tags = self.repository.tags().unwrap();
        if tags.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(tags.len() as u64)).unwrap();
        let manifest = &tags[index].descriptor;
        if lease.pin(manifest.digest).unwrap() != Some(manifest.size) {
            // It lost its tag and went between being found and being pinned.
            return;
        }
        match self.repository.package(manifest) {
            Ok(_) => verify(&lease, manifest),
            // Collected in part: only a tag proves that all is there, and it has none any more.
            Err(_) => assert!(!self.repository.tags().unwrap().iter().any(|t| t.descriptor == *manifest)),
        }
    }
}
