//! Directory registries: several names, several pushers, damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::reference::Reference;
use aos_registry::layout::{self, LayoutError};
use aos_registry::{Pushed, Silent};
use common::package::{attachment, package};
use common::{Heard, TestStore, chain};
use std::fs;
use std::path::Path;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn names(path: &Path) -> Vec<String> {
    layout::tags(path).unwrap().into_iter().map(|named| named.name).collect()
}

#[test]
fn packages_and_attachments_go_and_come() {
    let (store, directory) = (TestStore::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("new/registry");
    let one = store.package(1, &[1000, 300_000]);
    let signed = [attachment(&store.lease, &one, "a"), attachment(&store.lease, &one, "b")];
    let heard = Heard::default();
    let pushed = layout::push(&store.repository, &one, &signed, &path, &name("web:1.0.0"), &heard).unwrap();
    assert_eq!(pushed, Pushed { digest: one.digest, uploaded: 6, mounted: 0, skipped: 0 });
    assert_eq!(*heard.totals.lock().unwrap(), *heard.moved.lock().unwrap());
    let again =
        layout::push(&store.repository, &one, &signed, &path, &name("reg.example/x/web:1"), &Silent).unwrap();
    assert_eq!((again.uploaded, again.skipped), (0, 6));
    let two = package(&store.lease, "web", "1.2.0", 5, &[2000]);
    layout::push(&store.repository, &two, &[], &path, &name("web:1.2.0"), &Silent).unwrap();
    assert_eq!(names(&path), ["reg.example/x/web:1", "web:1.0.0", "web:1.2.0"]);

    let other = TestStore::new();
    let pull = |text: Option<&str>| {
        let heard = Heard::default();
        let pulled = layout::pull(&path, text.map(name).as_ref(), &other.lease, &heard)?;
        assert_eq!(*heard.totals.lock().unwrap(), *heard.moved.lock().unwrap());
        Ok::<_, LayoutError>(pulled)
    };
    let pulled = pull(Some("web:1.0.0")).unwrap();
    assert_eq!((pulled.descriptor.digest, pulled.attachments.len()), (one.digest, 2));
    assert_eq!(other.repository.attachments(&one.digest).unwrap().len(), 2);
    assert_eq!(pull(Some("web")).unwrap().descriptor.digest, two.digest, "the highest version");
    assert_eq!(pull(Some(&format!("web@{}", one.digest))).unwrap().descriptor.digest, one.digest);
    assert!(chain(&pull(None).unwrap_err()).contains("several names"));
    let missing = pull(Some("web:3.0.0")).unwrap_err();
    assert!(missing.is_not_found() && chain(&missing).contains("web:1.2.0"), "{missing}");
    other.assert_sound();

    // A name moves; nothing else does.
    layout::push(&store.repository, &two, &[], &path, &name("web:1.0.0"), &Silent).unwrap();
    assert_eq!(pull(Some("web:1.0.0")).unwrap().descriptor.digest, two.digest);
    assert_eq!(names(&path).len(), 3);
}

#[test]
fn concurrent_pushers_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::thread::scope(|scope| {
        for pusher in 0..4_u64 {
            scope.spawn(move || {
                let store = TestStore::new();
                for round in 0..5_u64 {
                    let made = store.package(pusher * 100 + round, &[500]);
                    // One layer that all have.
                    let shared = store.package(7777, &[4000]);
                    let signed = [attachment(&store.lease, &made, &format!("{pusher}-{round}"))];
                    let own = name(&format!("web:{pusher}.{round}.0"));
                    layout::push(&store.repository, &made, &signed, path, &own, &Silent).unwrap();
                    layout::push(&store.repository, &shared, &[], path, &name("shared:1.0.0"), &Silent)
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(names(path).len(), 21);
    let store = TestStore::new();
    for text in names(path) {
        let pulled = layout::pull(path, Some(&name(&text)), &store.lease, &Silent).unwrap();
        assert_eq!(pulled.attachments.len(), usize::from(text.starts_with("web")));
    }
    store.assert_sound();
    let left: Vec<_> =
        fs::read_dir(path.join(".aos")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn what_a_killed_pusher_left_goes() {
    let (store, directory) = (TestStore::new(), tempfile::tempdir().unwrap());
    let made = store.package(1, &[500]);
    layout::push(&store.repository, &made, &[], directory.path(), &name("web:1"), &Silent).unwrap();
    fs::write(directory.path().join(".aos/.tmpabc"), "half").unwrap();
    layout::push(&store.repository, &made, &[], directory.path(), &name("web:2"), &Silent).unwrap();
    assert!(!directory.path().join(".aos/.tmpabc").exists());
}

#[test]
fn damage_is_named() {
    let store = TestStore::new();
    let made = store.package(1, &[5000]);
    let signed = attachment(&store.lease, &made, "signature");
    let largest = |path: &Path| {
        let entries = fs::read_dir(path.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
        entries.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
    };
    type Damage = (&'static str, fn(&Path, &Path));
    let damages: [Damage; 9] = [
        ("is altered", |_, blob| {
            let mut bytes = fs::read(blob).unwrap();
            bytes[100] ^= 1;
            fs::write(blob, bytes).unwrap();
        }),
        ("expected", |_, blob| fs::write(blob, "short").unwrap()),
        ("has no blob", |_, blob| fs::remove_file(blob).unwrap()),
        ("it is not a file", |_, blob| {
            fs::remove_file(blob).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, blob, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
                .unwrap();
        }),
        ("is not an OCI image layout", |path, _| fs::write(path.join("index.json"), "{}").unwrap()),
        ("is not an OCI image layout", |path, _| fs::write(path.join("oci-layout"), "{}").unwrap()),
        ("oci-layout", |path, _| fs::remove_file(path.join("oci-layout")).unwrap()),
        ("more than 16777216 bytes", |path, _| {
            fs::File::options().write(true).open(path.join("index.json")).unwrap().set_len(17 << 20).unwrap();
        }),
        ("more than 1048576 bytes", |path, _| {
            let text = fs::read_to_string(path.join("index.json")).unwrap();
            let start = text.find("\"size\":").unwrap();
            let end = text[start..].find([',', '}']).unwrap();
            fs::write(
                path.join("index.json"),
                format!("{}\"size\":99999999{}", &text[..start], &text[start + end..]),
            )
            .unwrap();
        }),
    ];
    for (expected, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        layout::push(&store.repository, &made, &[], path, &name("web:1.0.0"), &Silent).unwrap();
        damage(path, &largest(path));
        let other = TestStore::new();
        let text = chain(&layout::pull(path, Some(&name("web:1.0.0")), &other.lease, &Silent).unwrap_err());
        assert!(text.contains(expected), "{expected}: {text}");
        other.assert_sound();
    }
    // A damaged attachment is left out, and said.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    layout::push(&store.repository, &made, std::slice::from_ref(&signed), path, &name("web:1.0.0"), &Silent)
        .unwrap();
    fs::write(path.join("blobs/sha256").join(signed.digest.hex()), "x").unwrap();
    let (other, heard) = (TestStore::new(), Heard::default());
    assert_eq!(layout::pull(path, None, &other.lease, &heard).unwrap().attachments, []);
    assert!(heard.notes.lock().unwrap()[0].contains("is left out"), "{:?}", heard.notes);
}

#[test]
fn entries_of_other_tools_stay() {
    let (store, directory) = (TestStore::new(), tempfile::tempdir().unwrap());
    let path = directory.path();
    fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let entry = format!(
        r#"{{"mediaType":"x/y","digest":"sha256:{}","size":3,"platform":{{"os":"plan9"}},"annotations":{{"org.opencontainers.image.ref.name":"theirs"}}}}"#,
        "0".repeat(64)
    );
    fs::write(path.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)).unwrap();
    let made = store.package(1, &[500]);
    layout::push(&store.repository, &made, &[], path, &name("web:1.0.0"), &Silent).unwrap();
    assert!(fs::read_to_string(path.join("index.json")).unwrap().contains("plan9"));
    assert_eq!(names(path), ["theirs", "web:1.0.0"]);
}
