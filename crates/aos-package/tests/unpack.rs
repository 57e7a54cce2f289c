//! Stacks of layers against a model, and what unpacking does to the whole process: its umask, its
//! memory, its threads and descriptors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_package::layer::read::Items;
use aos_package::layer::write::{Compression, Header, Kind, LayerWriter};
use aos_package::oci::Descriptor;
use aos_package::unpack::{Layer, Modes, Options, unpack};
use common::{RawTar, chain, paths, sha256};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tests of this file look at what the whole process has, or change it.
static PROCESS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unpack_tars(tars: &[Vec<u8>], root: &Path, modes: Modes) -> Result<(), String> {
    let describe = |tar: &Vec<u8>| {
        Descriptor::new("application/vnd.oci.image.layer.v1.tar", sha256(tar), tar.len() as u64)
    };
    let descriptors: Vec<_> = tars.iter().map(describe).collect();
    let open = |tar: &[u8]| {
        let mut file = tempfile::tempfile()?;
        file.write_all(tar)?;
        file.rewind()?;
        io::Result::Ok(file)
    };
    let openers: Vec<_> = tars.iter().map(|tar| move || open(tar)).collect();
    let layers: Vec<_> = (descriptors.iter().zip(&openers))
        .map(|(descriptor, open)| Layer { descriptor, diff_id: descriptor.digest, open })
        .collect();
    unpack(&layers, root, Options { modes }).map(drop).map_err(|error| chain(&error))
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(u8),
    Directory,
    Link,
}

/// One change of a layer.
#[derive(Debug, Clone)]
enum Change {
    Put(Node),
    Hide,
    HideContents,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<u8>().prop_map(|byte| Change::Put(Node::File(byte))),
        2 => Just(Change::Put(Node::Directory)),
        1 => Just(Change::Put(Node::Link)),
        2 => Just(Change::Hide),
        1 => Just(Change::HideContents),
    ]
}

/// Few names, three deep, so that layers meet each other.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
}

type Tree = BTreeMap<String, Node>;

fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn below(path: &str, other: &str) -> bool {
    other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

/// The layer's entries that a tool could have made: nothing below what is not a directory.
fn possible(changes: BTreeMap<String, Change>) -> BTreeMap<String, Change> {
    let changes_of = changes.clone();
    let blocked = |path: &str| matches!(changes_of.get(path), Some(Change::Put(Node::File(_) | Node::Link)));
    changes.into_iter().filter(|(path, _)| !above(path).any(blocked)).collect()
}

/// What the image specification says: first all that is hidden goes, then what the layer has comes.
fn apply(tree: &mut Tree, layer: &BTreeMap<String, Change>) {
    for (path, change) in layer {
        match change {
            Change::Hide => tree.retain(|other, _| other != path && !below(path, other)),
            Change::HideContents => tree.retain(|other, _| !below(path, other)),
            Change::Put(_) => {}
        }
    }
    for (path, change) in layer {
        let Change::Put(node) = change else { continue };
        for directory in above(path) {
            tree.insert(directory.to_owned(), Node::Directory);
        }
        if *node != Node::Directory {
            tree.retain(|other, _| !below(path, other));
        }
        tree.insert(path.clone(), node.clone());
    }
}

/// True when something of the layer is below what is no directory in the layers below: a link could
/// lead anywhere, so that is refused. What is only hidden there is refused if it comes before the
/// directory that the layer puts in its place.
fn blocked(tree: &Tree, layer: &BTreeMap<String, Change>) -> bool {
    let explicit = |path: &str| matches!(layer.get(path), Some(Change::Put(Node::Directory)));
    layer.keys().any(|path| {
        let on_the_way =
            above(path).chain(matches!(layer[path], Change::HideContents).then_some(path.as_str()));
        let put = matches!(layer[path], Change::Put(_));
        let mut on_the_way = on_the_way.filter(|path| !(put && explicit(path)));
        on_the_way.any(|path| tree.get(path).is_some_and(|node| *node != Node::Directory))
    })
}

fn tar(layer: &BTreeMap<String, Change>, order: &[usize]) -> Vec<u8> {
    // Parents before what is in them, whiteouts wherever they come.
    let (puts, hides): (Vec<_>, Vec<_>) =
        layer.iter().partition(|(_, change)| matches!(change, Change::Put(_)));
    let mut entries = puts;
    for (index, hide) in hides.into_iter().enumerate() {
        let at = order.get(index).map_or(0, |order| order % (entries.len() + 1));
        entries.insert(at, hide);
    }
    let mut tar = RawTar::default();
    for (path, change) in entries {
        let (parent, name) = path
            .rsplit_once('/')
            .map_or((String::new(), path.as_str()), |(parent, name)| (format!("{parent}/"), name));
        tar = match change {
            Change::Put(Node::File(byte)) => tar.file(path, &byte.to_string()),
            Change::Put(Node::Directory) => tar.dir(path),
            Change::Put(Node::Link) => tar.symlink(path, "/etc"),
            Change::Hide => tar.file(&format!("{parent}.wh.{name}"), ""),
            Change::HideContents => tar.file(&format!("{path}/.wh..wh..opq"), ""),
        };
    }
    tar.end()
}

fn read(root: &Path) -> Tree {
    let node = |path: &str| {
        let full = root.join(path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        if metadata.is_symlink() {
            Node::Link
        } else if metadata.is_dir() {
            Node::Directory
        } else {
            Node::File(fs::read_to_string(full).unwrap().parse().unwrap())
        }
    };
    paths(root).into_iter().map(|path| (path.clone(), node(&path))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn layers_stack_as_specified(
        layers in prop::collection::vec(prop::collection::btree_map(name(), change(), 0..8), 1..4),
        order in prop::collection::vec(any::<usize>(), 8),
    ) {
        let layers: Vec<_> = layers.into_iter().map(possible).collect();
        let mut expected = Tree::new();
        let mut refused = false;
        for layer in &layers {
            refused |= blocked(&expected, layer);
            apply(&mut expected, layer);
        }
        let tars: Vec<_> = layers.iter().map(|layer| tar(layer, &order)).collect();
        let _alone = alone();
        let root = tempfile::tempdir().unwrap();
        match unpack_tars(&tars, root.path(), Modes::Plain) {
            Ok(()) => prop_assert_eq!(read(root.path()), expected),
            Err(error) => prop_assert!(refused && error.contains("is on the way"), "{}", error),
        }
    }
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let _alone = alone();
    let tar = RawTar::default().dir("d").file("d/f", "x").file("implied/f", "x").end();
    for umask in [0o000, 0o022, 0o027, 0o077, 0o777] {
        let root = tempfile::tempdir().unwrap();
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let results = [Modes::Plain, Modes::Kept].map(|modes| {
            let root = root.path().join(format!("{modes:?}"));
            fs::create_dir(&root).unwrap();
            fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
            unpack_tars(std::slice::from_ref(&tar), &root, modes)
        });
        rustix::process::umask(before);
        for (modes, result) in ["Plain", "Kept"].into_iter().zip(results) {
            result.unwrap();
            for name in ["d", "d/f", "implied", "implied/f"] {
                let metadata = fs::metadata(root.path().join(modes).join(name)).unwrap();
                assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{umask:o} {modes} {name}");
            }
        }
    }
}

/// Gives so many bytes, half of them noise.
struct Source(u64, u64);

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.0).unwrap_or(usize::MAX));
        for chunk in buffer[..count].chunks_mut(8) {
            self.1 = self.1.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = if self.1 >> 63 == 0 { self.1 | 1 } else { 0 };
            chunk.copy_from_slice(&word.to_be_bytes()[..chunk.len()]);
        }
        self.0 -= count as u64;
        Ok(count)
    }
}

/// MiB that this process has had at most since the last call.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // Documented in proc(5): 5 resets the peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    kib >> 10
}

#[test]
fn memory_does_not_depend_on_the_layer() {
    let _alone = alone();
    let work = tempfile::tempdir().unwrap();
    let blob = work.path().join("blob");
    let size = 256 << 20;
    let counted = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    for compression in [Compression::Gzip, Compression::Zstd] {
        peak();
        let before = (peak(), counted("fd"), counted("task"));
        let threads = 16.try_into().unwrap();
        let mut writer =
            LayerWriter::with_threads(File::create(&blob).unwrap(), compression, threads).unwrap();
        let path = "x".parse().unwrap();
        let kind = Kind::File { size };
        writer
            .append(&Header { path: &path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 0 }, Source(size, 1))
            .unwrap();
        let written = writer.finish().unwrap();
        drop(written.output);
        let after_writing = peak();

        let open = || File::open(&blob);
        let items = Items::open(open().unwrap(), &written.descriptor, written.diff_id).unwrap();
        assert_eq!(items.map(Result::unwrap).count(), 1);
        let after_listing = peak();

        let root = work.path().join("root");
        fs::create_dir(&root).unwrap();
        let layer = Layer { descriptor: &written.descriptor, diff_id: written.diff_id, open: &open };
        unpack(&[layer], &root, Options::default()).unwrap();
        assert_eq!(fs::metadata(root.join("x")).unwrap().len(), size);
        fs::remove_dir_all(&root).unwrap();
        for after in [after_writing, after_listing, peak()] {
            assert!(
                after.saturating_sub(before.0) <= 64,
                "{compression:?}: {} MiB before, {after} after",
                before.0
            );
        }
        assert_eq!((counted("fd"), counted("task")), (before.1, before.2));
    }
}
