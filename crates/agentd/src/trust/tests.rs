//! The real store and the real policy: what is installed, what may be started, what is collected.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use aos_client::ErrorKind;
use aos_core::id::PackageRef;
use aos_package::oci::{CONFIG_TYPE, EMPTY, EMPTY_TYPE, MANIFEST_TYPE, Manifest, PackageConfig};
use aos_trust::key::PrivateKey;
use aos_trust::signature::sign_package;

use super::*;
use crate::packages::{Collect, Packages as _, Source};
use crate::store::DiskStore;

/// A machine: a store, a policy, and a repository elsewhere in which packages are made.
struct Bed {
    dir: tempfile::TempDir,
    key: PrivateKey,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["state", "trust.d", "builder"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let bed = Self { dir, key: PrivateKey::generate().unwrap() };
        fs::set_permissions(bed.trust(), fs::Permissions::from_mode(0o755)).unwrap();
        bed
    }

    fn trust(&self) -> PathBuf {
        self.dir.path().join("trust.d")
    }

    fn store(&self) -> DiskStore {
        DiskStore::open(&self.dir.path().join("state"), Trust::new(self.trust()), 1 << 20).unwrap()
    }

    /// Lets the bed's key sign these names.
    fn allow(&self, names: &str) {
        for (file, text) in [
            ("key.pub", self.key.public().to_pem().unwrap()),
            ("rule.toml", format!("[[allow]]\nnames = [{names:?}]\nkeys = [\"key.pub\"]\n")),
        ] {
            let path = self.trust().join(file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }

    /// An archive of `web:VERSION`, signed by the key if there is one.
    fn archive(&self, version: &str, key: Option<&PrivateKey>) -> OwnedFd {
        let repository = Repository::open(&self.dir.path().join("builder")).unwrap();
        let lease = repository.lease().unwrap();
        let json = format!(
            r#"{{"capabilities":[],"limits":{{}},"name":"web","root":"host","run":{{"entrypoint":["/usr/bin/true"],"lifecycle":"oneshot","workdir":"/workspace"}},"version":"{version}"}}"#
        );
        let agent = ResolvedAgent::from_canonical_json(json.as_bytes()).unwrap();
        let (name, number) = (agent.name.clone(), agent.version.clone());
        let config = PackageConfig { agent, diff_ids: Vec::new(), architecture: "amd64".to_owned() };
        let config = lease.put(CONFIG_TYPE, &config.to_json(0).unwrap()).unwrap();
        let manifest = Manifest::new(config, Vec::new()).to_json().unwrap();
        let manifest = lease.put(MANIFEST_TYPE, &manifest).unwrap();
        let mut attachments = Vec::new();
        if let Some(key) = key {
            let envelope = sign_package(&name, &number, manifest.digest, key).unwrap();
            let predicate = (PREDICATE_ANNOTATION.to_owned(), PACKAGE_PREDICATE.to_owned());
            lease.put(EMPTY_TYPE, EMPTY).unwrap();
            let content = lease.put(ENVELOPE_TYPE, &envelope.to_json().unwrap()).unwrap();
            let artifact =
                ArtifactManifest::new(ENVELOPE_TYPE, content, &manifest, BTreeMap::from([predicate]));
            let artifact = lease.put(MANIFEST_TYPE, &artifact.to_json().unwrap()).unwrap();
            attachments.push(repository.attach(&lease, &artifact).unwrap());
        }
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = Vec::new();
        repository.export(&manifest, &attachments, &mut bytes).unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        file.into()
    }
}

fn reference() -> PackageRef {
    "web:1.0.0".parse().unwrap()
}

#[tokio::test]
async fn what_is_not_trusted_is_not_installed() {
    let bed = Bed::new();
    let store = bed.store();
    let stranger = PrivateKey::generate().unwrap();
    let attempts = [(None, "it is not signed"), (Some(&stranger), "no key that may sign this name")];
    for (key, says) in attempts {
        bed.allow("web");
        let failure = store.install(bed.archive("1.0.0", key), Source::Elsewhere).await.unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Untrusted);
        assert!(failure.message().contains(says), "{failure}");
        assert!(failure.message().contains("aos install --local"), "{failure}");
        if let Some(key) = key {
            assert!(failure.message().contains(&key.public().id().to_string()), "{failure}");
        }
    }
    assert!(store.list().await.unwrap().is_empty());
    // Without any rule, and with one that cannot be read.
    fs::remove_file(bed.trust().join("rule.toml")).unwrap();
    let failure = store.install(bed.archive("1.0.0", Some(&bed.key)), Source::Elsewhere).await.unwrap_err();
    assert!(failure.message().contains("no rule"), "{failure}");
    bed.allow("web");
    fs::write(bed.trust().join("other.toml"), "oops").unwrap();
    let failure = store.install(bed.archive("1.0.0", Some(&bed.key)), Source::Elsewhere).await.unwrap_err();
    assert!(failure.message().contains("other.toml:1"), "{failure}");
}

#[tokio::test]
async fn a_signature_is_asked_for_again_at_each_start() {
    let bed = Bed::new();
    bed.allow("web");
    let store = bed.store();
    let (_, digest) = store.install(bed.archive("1.0.0", Some(&bed.key)), Source::Elsewhere).await.unwrap();
    store.check_trust(&reference(), &digest).await.unwrap();
    drop(store);
    let store = bed.store();
    store.check_trust(&reference(), &digest).await.unwrap();

    let rule = bed.trust().join("rule.toml");
    let text = fs::read_to_string(&rule).unwrap();
    fs::remove_file(&rule).unwrap();
    let failure = store.check_trust(&reference(), &digest).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Untrusted);
    fs::write(&rule, format!("{text}[[revoke]]\nkeys = [\"key.pub\"]\n")).unwrap();
    let failure = store.check_trust(&reference(), &digest).await.unwrap_err();
    assert!(failure.message().contains("is revoked"), "{failure}");
    fs::write(&rule, text).unwrap();
    store.check_trust(&reference(), &digest).await.unwrap();
}

#[tokio::test]
async fn a_signature_may_come_later() {
    let bed = Bed::new();
    let unsigned = "[[allow]]\nnames = [\"web\"]\nunsigned = true\n";
    fs::write(bed.trust().join("unsigned.toml"), unsigned).unwrap();
    let store = bed.store();
    let (_, digest) = store.install(bed.archive("1.0.0", None), Source::Elsewhere).await.unwrap();
    fs::remove_file(bed.trust().join("unsigned.toml")).unwrap();
    bed.allow("web");
    store.check_trust(&reference(), &digest).await.unwrap_err();
    let (_, same) = store.install(bed.archive("1.0.0", Some(&bed.key)), Source::Elsewhere).await.unwrap();
    assert_eq!(same, digest);
    store.check_trust(&reference(), &digest).await.unwrap();
    // The store has the signature: the archive need not bring it again.
    store.install(bed.archive("1.0.0", None), Source::Elsewhere).await.unwrap();
}

#[tokio::test]
async fn what_was_built_here_needs_no_signature_and_is_remembered() {
    let bed = Bed::new();
    let store = bed.store();
    let local = Source::Local { uid: 1000 };
    let (_, digest) = store.install(bed.archive("1.0.0", None), local).await.unwrap();
    store.check_trust(&reference(), &digest).await.unwrap();
    drop(store);
    let index = fs::read_to_string(bed.dir.path().join("state/store/index.json")).unwrap();
    assert!(index.contains(r#""org.aos.origin":"built""#), "{index}");
    let store = bed.store();
    store.check_trust(&reference(), &digest).await.unwrap();
    // A refused archive changes nothing about it.
    store.install(bed.archive("1.0.0", None), Source::Elsewhere).await.unwrap_err();
    store.check_trust(&reference(), &digest).await.unwrap();
    // The next build of the version is another package.
    store.install(bed.archive("1.0.1", None), Source::Elsewhere).await.unwrap_err();
    let failure = store.install(bed.archive("1.0.0+b1", None), local).await.unwrap_err();
    assert!(failure.message().contains("without `+`"), "{failure}");
}

#[tokio::test]
async fn collecting_says_and_removes_the_same_and_keeps_what_is_used() {
    let bed = Bed::new();
    let store = bed.store();
    let local = Source::Local { uid: 0 };
    let (_, digest) = store.install(bed.archive("1.0.0", None), local).await.unwrap();
    let nothing = store.collect(BTreeSet::new(), Collect::DryRun).await.unwrap();
    assert_eq!((nothing.packages.len(), nothing.bytes), (0, 0), "a name keeps it");
    // It loses its name.
    let repository = Repository::open(&bed.dir.path().join("builder")).unwrap();
    drop(repository);
    drop(store);
    let state = Repository::open_exclusively(&bed.dir.path().join("state")).unwrap();
    state.untag(&"web:1.0.0".parse().unwrap()).unwrap();
    drop(state);

    let store = bed.store();
    let kept = store.collect(BTreeSet::from([digest]), Collect::DryRun).await.unwrap();
    assert_eq!((kept.packages.len(), kept.bytes), (0, 0), "an agent uses it");
    let kept = store.collect(BTreeSet::from([digest]), Collect::Remove).await.unwrap();
    assert!(kept.packages.is_empty() && store.check_trust(&reference(), &digest).await.is_ok());
    let would = store.collect(BTreeSet::new(), Collect::DryRun).await.unwrap();
    assert_eq!(would.packages, [format!("web@{digest}").parse().unwrap()]);
    assert!(would.bytes > 0);
    assert_eq!(store.list().await.unwrap().len(), 1, "only said");
    assert_eq!(store.collect(BTreeSet::new(), Collect::Remove).await.unwrap(), would);
    assert!(store.list().await.unwrap().is_empty());
}

#[test]
fn only_small_envelopes_of_the_right_kind_are_signatures() {
    let blob = |size| Descriptor::new(ENVELOPE_TYPE, Digest::from_bytes([1; 32]), size);
    let subject = Descriptor::new(MANIFEST_TYPE, Digest::from_bytes([2; 32]), 1);
    let artifact = |kind: &str, size, predicate: Option<&str>| {
        let predicate = predicate.map(|text| (PREDICATE_ANNOTATION.to_owned(), text.to_owned()));
        ArtifactManifest::new(kind, blob(size), &subject, predicate.into_iter().collect())
    };
    let most = SIGNATURE_ENVELOPE_MAX as u64;
    for (manifest, expected) in [
        (artifact(ENVELOPE_TYPE, most, Some(PACKAGE_PREDICATE)), true),
        (artifact(ENVELOPE_TYPE, 1, None), true),
        (artifact(ENVELOPE_TYPE, most + 1, Some(PACKAGE_PREDICATE)), false),
        (artifact(ENVELOPE_TYPE, 1, Some("https://spdx.dev/Document")), false),
        (artifact("application/json", 1, None), false),
    ] {
        assert_eq!(signature_blob(&manifest).is_some(), expected, "{manifest:?}");
    }
}
