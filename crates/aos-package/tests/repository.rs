//! The repository: blobs, tags, attachments, leases, collection, checking, archives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::oci::{ARTIFACT_TYPE, Descriptor, LAYER_GZIP_TYPE, MANIFEST_TYPE};
use aos_package::repository::{
    AttachError, BlobError, Depth, GcMode, Lease, Origin, Problem, Repository, RepositoryError, ResolveError,
    TagError,
};
use common::{attach, chain, gc, paths, put_package, repository, sha256, simple};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn set(digests: &[Digest]) -> BTreeSet<Digest> {
    digests.iter().copied().collect()
}

fn tag(lease: &Lease, name: &str, text: &str) -> Descriptor {
    let manifest = put_package(lease, text);
    lease.repository().tag(lease, &reference(name), &manifest, Origin::Built).unwrap();
    manifest
}

fn problems(repository: &Repository) -> Vec<String> {
    let found = repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
    found.iter().map(|problem| chain(problem)).collect()
}

fn blob_path(repository: &Repository, digest: &Digest) -> std::path::PathBuf {
    repository.layout().join("blobs/sha256").join(digest.hex())
}

#[test]
fn tags_move_and_are_found() {
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let (old, new) = (put_package(&lease, "old"), put_package(&lease, "new"));
    let web = reference("web:1.0.0");
    let remote = reference("reg.example:5000/team/web:1.0.0");
    assert_eq!(repository.tag(&lease, &web, &old, Origin::Built).unwrap(), None);
    assert_eq!(repository.tag(&lease, &web, &old, Origin::Built).unwrap(), None);
    assert_eq!(repository.tag(&lease, &remote, &old, Origin::Pulled).unwrap(), None);
    assert_eq!(repository.tag(&lease, &web, &new, Origin::Imported).unwrap(), Some(old.digest));

    let tags = repository.tags().unwrap();
    let seen: Vec<_> =
        tags.iter().map(|t| (t.reference.to_string(), t.descriptor.digest, t.origin.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("reg.example:5000/team/web:1.0.0".to_owned(), old.digest, "pulled"),
            ("web:1.0.0".to_owned(), new.digest, "imported")
        ]
    );
    assert_eq!(tags[0].descriptor.artifact_type.as_deref(), Some(ARTIFACT_TYPE));
    assert_eq!(repository.resolve(&web).unwrap().digest, new.digest);
    assert_eq!(repository.resolve(&reference(&format!("web@{}", old.digest))).unwrap().digest, old.digest);
    let both = reference(&format!("web:1.0.0@{}", old.digest));
    assert_eq!(repository.resolve(&both).unwrap().digest, old.digest);
    assert_eq!(repository.package(&repository.resolve(&web).unwrap()).unwrap().1.agent.name.as_str(), "web");

    assert_eq!(repository.untag(&web).unwrap(), Some(new.digest));
    assert_eq!(repository.untag(&web).unwrap(), None);
    let error = repository.resolve(&web).unwrap_err();
    assert_eq!(error.to_string(), "web:1.0.0 is not in the store");
    let error = repository.resolve(&reference("reg.example:5000/team/web:2")).unwrap_err();
    assert!(matches!(&error, ResolveError::NotFound { known, .. } if known.len() == 1), "{error}");
    // Still there, until it is collected.
    let listed = repository.listed().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|l| l.descriptor.digest == new.digest && l.names.is_empty()));
    drop(lease);
    assert_eq!(gc(&repository, &[]).manifests, [new.digest]);
    assert!(problems(&repository).is_empty());
}

#[test]
fn a_name_alone_means_its_highest_version() {
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    for name in ["web:1.9.0", "web:1.10.0", "web:latest", "web:1.10.0-rc.1", "r.example/web:3.0.0"] {
        tag(&lease, name, name);
    }
    let highest = repository.resolve(&reference("web:1.10.0")).unwrap();
    assert_eq!(repository.resolve(&reference("web")).unwrap(), highest);
    assert!(repository.resolve(&reference("other")).is_err());
}

#[test]
fn only_what_is_complete_gets_a_tag() {
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let manifest = put_package(&lease, "x");
    let tag =
        |text: &str, manifest: &Descriptor| repository.tag(&lease, &reference(text), manifest, Origin::Built);
    for text in ["web", &format!("web:1@{}", manifest.digest), &format!("web@{}", manifest.digest)] {
        assert!(matches!(tag(text, &manifest), Err(TagError::Reference(_))), "{text}");
    }
    let other = Descriptor { media_type: LAYER_GZIP_TYPE.to_owned(), ..manifest.clone() };
    assert!(matches!(tag("web:1", &other), Err(TagError::MediaType(_))));
    let longer = Descriptor { size: manifest.size + 1, ..manifest.clone() };
    assert!(matches!(
        tag("web:1", &longer),
        Err(TagError::Incomplete { source: BlobError::Size { .. }, .. })
    ));
    let absent = Descriptor::new(MANIFEST_TYPE, sha256(b"absent"), 6);
    assert!(matches!(tag("web:1", &absent), Err(TagError::Incomplete { source: BlobError::Missing(_), .. })));
    let (parsed, _) = repository.package(&manifest).unwrap();
    let layer = blob_path(&repository, &parsed.layers[0].digest);
    let bytes = fs::read(&layer).unwrap();
    fs::write(&layer, &bytes[1..]).unwrap();
    assert!(matches!(
        tag("web:1", &manifest),
        Err(TagError::Incomplete { source: BlobError::Size { .. }, .. })
    ));
    fs::remove_file(&layer).unwrap();
    assert!(matches!(
        tag("web:1", &manifest),
        Err(TagError::Incomplete { source: BlobError::Missing(_), .. })
    ));
    let json = lease.put(MANIFEST_TYPE, b"[]").unwrap();
    assert!(matches!(tag("web:1", &json), Err(TagError::Incomplete { source: BlobError::Json { .. }, .. })));
    assert!(repository.listed().unwrap().is_empty());
    // What comes again has a tag.
    tag("web:1", &put_package(&lease, "x")).unwrap();
}

#[test]
fn a_lease_keeps_what_is_put_found_and_named() {
    let (dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let other = Repository::open(dir.path()).unwrap();
    let manifest = put_package(&lease, "x");
    let loose = lease.put("text/plain", b"loose").unwrap();
    let before = paths(&repository.layout().join("blobs"));
    assert_eq!(gc(&other, &[]).blobs, []);
    assert_eq!(paths(&repository.layout().join("blobs")), before);

    // A second lease that only names the manifest keeps all of it when the first ends.
    let named = other.lease().unwrap();
    assert_eq!(named.pin(manifest.digest).unwrap(), Some(manifest.size));
    assert_eq!(named.pin(sha256(b"nothing")).unwrap(), None);
    drop(lease);
    assert_eq!(gc(&repository, &[]).blobs, [loose.digest]);
    assert!(repository.package(&manifest).is_ok());
    let clone = named.clone();
    drop(named);
    assert_eq!(gc(&repository, &[]).blobs, []);
    // Also roots that the caller knows of.
    drop(clone);
    let dry = repository.gc(&set(&[]), &set(&[]), GcMode::DryRun).unwrap();
    assert_eq!(dry.blobs.len(), 3);
    assert!(dry.bytes > manifest.size);
    let extra = repository.gc(&set(&[]), &set(&[manifest.digest]), GcMode::Collect).unwrap();
    assert_eq!(extra.blobs, []);
    let kept = repository.gc(&set(&[manifest.digest]), &set(&[]), GcMode::Collect).unwrap();
    assert_eq!(kept.blobs, []);
    let gone = gc(&repository, &[]);
    assert_eq!(gone, dry);
    assert_eq!(fs::read_dir(dir.path().join("leases")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_layer_that_is_another_package_s_manifest_hides_nothing() {
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let inner = tag(&lease, "inner:1.0.0", "inner");
    // Its digest must sort before the other's for the trap to work, so try until it does.
    let outer = (0..64)
        .map(|n| {
            let as_layer = Descriptor::new(LAYER_GZIP_TYPE, inner.digest, inner.size);
            common::put_manifest(&lease, &format!("outer {n}"), vec![as_layer])
        })
        .find(|outer| outer.digest < inner.digest);
    let outer = outer.expect("one of 64");
    repository.tag(&lease, &reference("outer:1.0.0"), &outer, Origin::Pulled).unwrap();
    drop(lease);
    gc(&repository, &[]);
    assert!(problems(&repository).is_empty(), "{:?}", problems(&repository));
    assert!(repository.package(&inner).is_ok());
}

#[test]
fn writers_resume_where_the_last_one_stopped() {
    let (dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected = (sha256(&bytes), bytes.len() as u64);
    let mut writer = lease.writer(Some(expected)).unwrap();
    assert_eq!(writer.offset(), 0);
    writer.write_all(&bytes[..700_000]).unwrap();

    // While somebody writes it, another writer works for itself, and a collection leaves both.
    let mut second = lease.writer(Some(expected)).unwrap();
    assert_eq!(second.offset(), 0);
    assert_eq!(gc(&repository, &[]).leftovers, 0);
    second.write_all(&bytes).unwrap();
    let descriptor = second.commit(LAYER_GZIP_TYPE).unwrap();
    assert_eq!((descriptor.digest, descriptor.size), expected);
    fs::remove_file(blob_path(&repository, &expected.0)).unwrap();

    drop(writer);
    let mut writer = lease.writer(Some(expected)).unwrap();
    assert_eq!(writer.offset(), 700_000);
    let error = writer.write_all(&[&bytes[700_000..], b"x"].concat()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    assert_eq!(writer.offset(), 700_000);
    // The stream ends early: what is there stays.
    let cut = writer.commit(LAYER_GZIP_TYPE).unwrap_err();
    assert!(matches!(cut, BlobError::Size { found: 700_000, .. }), "{cut}");
    let mut writer = lease.writer(Some(expected)).unwrap();
    assert_eq!(writer.offset(), 700_000);
    writer.write_all(&bytes[700_000..]).unwrap();
    writer.commit(LAYER_GZIP_TYPE).unwrap();
    assert_eq!(fs::read(blob_path(&repository, &expected.0)).unwrap(), bytes);
    assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_writer_takes_only_what_was_expected() {
    let (dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let expected = (sha256(b"right"), 5);
    let partial = dir.path().join("partial").join(expected.0.hex());
    let mut writer = lease.writer(Some(expected)).unwrap();
    writer.write_all(b"wrong").unwrap();
    let error = writer.commit("text/plain").unwrap_err();
    assert!(matches!(error, BlobError::Altered { .. }), "{error}");
    assert!(!partial.exists());
    assert_eq!(repository.blob_size(&expected.0).unwrap(), None);
    // Left by somebody: too long, complete but wrong, complete, a beginning of something else.
    for (left, offset) in [("too long", 0), ("wrong", 0), ("right", 5), ("ri", 2), ("wr", 2)] {
        fs::write(&partial, left).unwrap();
        let mut writer = lease.writer(Some(expected)).unwrap();
        assert_eq!(writer.offset(), offset, "{left}");
        writer.write_all(&b"right"[usize::try_from(offset).unwrap()..]).unwrap();
        assert_eq!(writer.commit("text/plain").is_ok(), left != "wr");
        assert!(!partial.exists(), "{left}");
    }
    let writer = lease.writer(Some(expected)).unwrap();
    writer.discard().unwrap();
    assert!(!partial.exists());
    // One that nobody continues goes with a collection.
    drop(lease.writer(Some(expected)).unwrap());
    assert!(partial.exists());
    assert_eq!(gc(&repository, &[]).leftovers, 1);
    assert!(!partial.exists());
}

#[test]
fn altered_blobs_are_told_and_replaced() {
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let manifest = tag(&lease, "web:1.0.0", "x");
    let layer = repository.package(&manifest).unwrap().0.layers[0].clone();
    let path = blob_path(&repository, &layer.digest);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[10] ^= 1;
    fs::write(&path, &bad).unwrap();
    assert!(matches!(repository.read_blob(&layer, 1 << 20), Err(BlobError::Altered { .. })));
    let mut sink = Vec::new();
    assert!(repository.verified_blob(&layer).unwrap().read_to_end(&mut sink).is_err());
    // Also for who reads no further than the last byte.
    let exact = repository.verified_blob(&layer).unwrap().take(layer.size).read_to_end(&mut sink);
    assert!(exact.is_err());
    let short = Descriptor { size: layer.size - 1, ..layer.clone() };
    assert!(repository.verified_blob(&short).unwrap().read_to_end(&mut sink).is_err());
    assert!(matches!(repository.read_blob(&short, 1 << 20), Err(BlobError::Size { .. })));
    assert!(matches!(repository.read_blob(&layer, 10), Err(BlobError::TooLarge { .. })));
    assert!(repository.export(&manifest, &[], Vec::new()).is_err());

    assert!(repository.check(Depth::Names, &BTreeSet::new()).unwrap().is_empty());
    let found = repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
    assert!(matches!(found.as_slice(), [Problem::Altered { expected, .. }] if *expected == layer.digest));
    assert!(found[0].is_damage());
    lease.put(LAYER_GZIP_TYPE, &good).unwrap();
    assert!(problems(&repository).is_empty());
    fs::write(&path, &bad).unwrap();
    assert!(repository.discard_altered(&layer.digest).unwrap());
    assert!(!repository.discard_altered(&layer.digest).unwrap());
    assert!(!repository.discard_altered(&manifest.digest).unwrap());
    let text = problems(&repository).join("\n");
    assert!(text.contains("web:1.0.0 is damaged: the blob"), "{text}");
}

#[test]
fn attachments_live_with_their_subject() {
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let web = tag(&lease, "web:1.0.0", "x");
    let other = tag(&lease, "other:1.0.0", "y");
    let signature = attach(&lease, &web, "application/vnd.dsse.envelope.v1+json", b"signature").unwrap();
    let again = repository.attach(&lease, &signature.descriptor).unwrap();
    assert_eq!(again, signature);
    let of_signature = attach(&lease, &signature.descriptor, "application/x", b"of the signature").unwrap();
    attach(&lease, &other, "application/spdx+json", b"sbom").unwrap();
    // One whose subject nothing lists: it goes although somebody pins it.
    let loose = put_package(&lease, "loose");
    let of_loose = attach(&lease, &loose, "a/b", b"loose").unwrap();
    assert!(problems(&repository).is_empty());
    drop(lease);
    let lease = repository.lease().unwrap();
    lease.pin(of_loose.descriptor.digest).unwrap();
    assert_eq!(gc(&repository, &[]).manifests, [of_loose.descriptor.digest]);
    assert!(!problems(&repository).iter().any(|text| text.contains("damaged")));
    drop(lease);
    gc(&repository, &[]);
    assert_eq!(repository.attachments(&web.digest).unwrap(), std::slice::from_ref(&signature));
    assert_eq!(repository.attachments(&signature.descriptor.digest).unwrap(), [of_signature]);
    assert_eq!(repository.tags().unwrap().len(), 2);
    assert_eq!(gc(&repository, &[]).blobs, []);
    assert!(problems(&repository).is_empty());

    // A subject without a tag that is kept keeps its attachments; one that goes takes them along.
    repository.untag(&reference("web:1.0.0")).unwrap();
    assert_eq!(gc(&repository, &[web.digest]).manifests, []);
    assert_eq!(repository.attachments(&web.digest).unwrap().len(), 1);
    assert_eq!(gc(&repository, &[]).manifests.len(), 3);
    assert!(repository.attachments(&web.digest).unwrap().is_empty());
    assert!(problems(&repository).is_empty());
    let left = repository.attachments(&other.digest).unwrap();
    assert!(repository.detach(&left[0].descriptor.digest).unwrap());
    assert!(!repository.detach(&left[0].descriptor.digest).unwrap());
    let lease = repository.lease().unwrap();
    attach(&lease, &other, "application/spdx+json", b"sbom").unwrap();
    repository.forget(&set(&[other.digest])).unwrap();
    drop(lease);
    assert_eq!(gc(&repository, &[]).manifests, []);
    assert_eq!(paths(&repository.layout().join("blobs")), ["sha256"]);
}

#[test]
fn attachments_that_are_none_are_refused() {
    let (_dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let web = tag(&lease, "web:1.0.0", "x");
    let absent = Descriptor::new(MANIFEST_TYPE, sha256(b"absent"), 6);
    let error = attach(&lease, &absent, "a/b", b"x").unwrap_err();
    assert!(matches!(error, AttachError::Subject { .. }), "{error}");
    let longer = Descriptor { size: web.size + 1, ..web.clone() };
    assert!(matches!(attach(&lease, &longer, "a/b", b"x"), Err(AttachError::Subject { .. })));
    let layer = repository.package(&web).unwrap().0.layers[0].clone();
    assert!(matches!(attach(&lease, &layer, "a/b", b"x"), Err(AttachError::Subject { .. })));
    let error = repository.attach(&lease, &web).unwrap_err();
    assert!(matches!(error, AttachError::Attachment { source: BlobError::Json { .. }, .. }), "{error}");

    let good = String::from_utf8(common::artifact(&lease, &web, "a/b", b"x").to_json().unwrap()).unwrap();
    let many = format!(r#""layers":[{}"#, r#"{"mediaType":"a/b","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1},"#.repeat(4));
    for (from, to, says) in [
        ("\"size\":1}", "\"size\":33554433}", "attachment's size is \"33554433\""),
        ("\"layers\":[", many.as_str(), "number of contents is \"5\""),
        ("\"a/b\",\"config\"", "\"\",\"config\"", "attachment's artifactType"),
        ("\"subject\"", "\"subjekt\"", "missing field `subject`"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let bad = lease.put(MANIFEST_TYPE, bad.as_bytes()).unwrap();
        let error = chain(&repository.attach(&lease, &bad).unwrap_err());
        assert!(error.contains(says), "{says}\n{error}");
    }
    for n in 0..32 {
        attach(&lease, &web, "a/b", format!("{n}").as_bytes()).unwrap();
    }
    let error = attach(&lease, &web, "a/b", b"more").unwrap_err();
    assert!(matches!(error, AttachError::TooMany { max: 32, .. }), "{error}");
    assert_eq!(repository.attachments(&web.digest).unwrap().len(), 32);
}

#[test]
fn archives_bring_and_take_everything() {
    let (_dir, repository) = common::repository();
    let lease = repository.lease().unwrap();
    let imported = repository.import_archive(&lease, simple("x").as_slice()).unwrap();
    assert!(repository.listed().unwrap().is_empty());
    let web = reference("web:1.0.0");
    repository.tag(&lease, &web, &imported.descriptor, Origin::Imported).unwrap();
    let one = attach(&lease, &imported.descriptor, "a/one", b"one").unwrap();
    let two = attach(&lease, &imported.descriptor, "a/two", b"two").unwrap();
    let export = |attachments: &[_]| {
        let mut bytes = Vec::new();
        repository.export(&imported.descriptor, attachments, &mut bytes).unwrap();
        bytes
    };
    // Without attachments it is what the build wrote, byte for byte.
    assert_eq!(export(&[]), simple("x"));
    let both = export(&[one.clone(), two.clone()]);
    assert_eq!(both, export(&[two.clone(), one.clone()]));

    let (_dir, second) = common::repository();
    let lease = second.lease().unwrap();
    let back = second.import_archive(&lease, both.as_slice()).unwrap();
    assert_eq!(back.descriptor, imported.descriptor);
    assert_eq!(back.attachments.len(), 2);
    second.tag(&lease, &web, &back.descriptor, Origin::Imported).unwrap();
    drop(lease);
    gc(&second, &[]);
    assert_eq!(second.attachments(&back.descriptor.digest).unwrap().len(), 2);
    assert!(problems(&second).is_empty());

    // The machine's store takes them too, also when they come later.
    let (_dir, store) = common::store();
    store.import(simple("x").as_slice()).unwrap();
    assert!(store.repository().attachments(&back.descriptor.digest).unwrap().is_empty());
    let mut seen = 0;
    store
        .import_if(both.as_slice(), |archive| {
            seen = archive.attachments.len();
            let content = archive.attachments[0].1.layers[0].clone();
            assert_eq!(archive.read_blob(&content, 100).unwrap().len(), 3);
            assert!(archive.read_blob(&content, 2).is_err());
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, 2);
    assert_eq!(store.repository().attachments(&back.descriptor.digest).unwrap().len(), 2);
    let error = store.import_if(simple("y").as_slice(), |_| Err("not signed".to_owned())).unwrap_err();
    assert_eq!(error.to_string(), "the package is refused: not signed");
    assert_eq!(store.list().len(), 1);
    store.remove(&"web".parse().unwrap(), |_| false).unwrap();
    assert!(store.repository().attachments(&back.descriptor.digest).unwrap().is_empty());
}

#[test]
fn check_finds_what_is_wrong() {
    let (dir, repository) = repository();
    let lease = repository.lease().unwrap();
    let web = tag(&lease, "web:1.0.0", "x");
    let signature = attach(&lease, &web, "a/b", b"signature").unwrap();
    drop(lease);
    assert!(problems(&repository).is_empty());
    let index = repository.layout().join("index.json");
    let good = fs::read_to_string(&index).unwrap();
    let with = |from: &str, to: &str| {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        fs::write(&index, bad).unwrap();
        let found = repository.check(Depth::Names, &BTreeSet::new()).unwrap();
        fs::write(&index, &good).unwrap();
        let damage = found.iter().any(Problem::is_damage);
        (found.iter().map(|problem| chain(problem)).collect::<Vec<_>>().join("\n"), damage)
    };
    let web_hex = web.digest.hex();
    let entries: serde_json::Value = serde_json::from_str(&good).unwrap();
    let entry = entries["manifests"].as_array().unwrap();
    let named = entry.iter().find(|e| e["digest"] == web.digest.to_string()).unwrap().to_string();
    let attached = entry.iter().find(|e| e["digest"] != web.digest.to_string()).unwrap().to_string();
    for (from, to, says) in [
        ("\"manifests\":[", format!("\"manifests\":[{named},"), "each tag once"),
        ("\"manifests\":[", format!("\"manifests\":[{attached},"), "it is there twice"),
        ("web:1.0.0", "we b".to_owned(), "is not a name and a tag"),
        ("\"schemaVersion\":2", "\"schemaVersion\":1".to_owned(), "index.json` is damaged"),
        ("\"manifests\"", "\"x\":1,\"manifests\"".to_owned(), "index.json` is damaged"),
        (
            &format!("\"org.aos.subject\":\"sha256:{web_hex}"),
            format!("\"org.aos.subject\":\"sha256:{}", "0".repeat(64)),
            "attachment's subject in the index",
        ),
    ] {
        let (found, damage) = with(from, &to);
        assert!(damage && found.contains(says), "{says}\n{found}");
    }
    // A tag that means nothing.
    let (found, damage) =
        with(&format!("sha256:{web_hex}\",\"size\""), &format!("sha256:{}\",\"size\"", "0".repeat(64)));
    assert!(damage && found.contains("is not in the store"), "{found}");

    let blobs = repository.layout().join("blobs/sha256");
    common::write(&blobs, "README", "x");
    common::write(&blobs, &sha256(b"orphan").hex(), "orphan");
    common::write(dir.path(), "tmp/old/x", "12345");
    common::write(dir.path(), "leases/1-dead", "x\n");
    common::write(dir.path(), &format!("partial/{}", "a".repeat(64)), "half");
    let found = repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
    assert_eq!(found.iter().filter(|problem| problem.is_damage()).count(), 1, "{found:?}");
    assert_eq!(found.len(), 5, "{found:?}");
    let collected = gc(&repository, &[]);
    assert_eq!((collected.blobs, collected.leftovers), (vec![sha256(b"orphan")], 3));
    assert_eq!(collected.bytes, 6 + 5 + 2 + 4);
    fs::remove_file(blobs.join("README")).unwrap();
    assert!(problems(&repository).is_empty());

    // The signature's content goes, then its subject.
    fs::remove_file(blobs.join(signature.manifest.layers[0].digest.hex())).unwrap();
    assert!(problems(&repository)[0].contains("is not in the store"));
    fs::remove_file(blobs.join(&web_hex)).unwrap();
    assert_eq!(problems(&repository).len(), 2);
    // What a damaged package needs is not known: nothing is removed.
    common::write(&blobs, &sha256(b"orphan").hex(), "orphan");
    let collected = gc(&repository, &[]);
    assert_eq!((collected.damaged, collected.blobs), (vec![web.digest], vec![]));
    repository.forget(&set(&[web.digest])).unwrap();
    gc(&repository, &[]);
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);
}

#[test]
fn two_stores_of_one_directory_see_each_other() {
    let (dir, one) = repository();
    let two = Repository::open(dir.path()).unwrap();
    let lease = one.lease().unwrap();
    let manifest = tag(&lease, "web:1.0.0", "x");
    assert_eq!(two.resolve(&reference("web:1.0.0")).unwrap().digest, manifest.digest);
    two.untag(&reference("web:1.0.0")).unwrap();
    assert!(one.tags().unwrap().is_empty());
    // Alone means alone.
    let (dir, store) = common::store();
    assert!(matches!(Repository::open_exclusively(dir.path()), Err(RepositoryError::Locked(_))));
    drop(store);
    drop(Repository::open_exclusively(dir.path()).unwrap());
}

#[test]
fn threads_and_collections_at_once_lose_nothing() {
    let (dir, repository) = repository();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let repository = Repository::open(dir.path()).unwrap();
                scope.spawn(move || {
                    for round in 0..60 {
                        let lease = repository.lease().unwrap();
                        // The same contents again and again: put by one, found by the others.
                        let text = format!("{}", round % 4);
                        let manifest = tag(&lease, &format!("w{worker}:{round}.0.0"), &text);
                        attach(&lease, &manifest, "a/b", format!("{}", round % 3).as_bytes()).unwrap();
                        drop(lease);
                        assert!(repository.package(&manifest).is_ok());
                        if round % 2 == 0 {
                            repository.untag(&reference(&format!("w{worker}:{round}.0.0"))).unwrap();
                        }
                    }
                })
            })
            .collect();
        let collector = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                gc(&repository, &[]);
            }
        });
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        collector.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
    gc(&repository, &[]);
    assert_eq!(repository.tags().unwrap().len(), 90);
    assert!(problems(&repository).is_empty(), "{:?}", problems(&repository));
}
