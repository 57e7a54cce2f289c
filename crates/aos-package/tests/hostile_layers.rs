//! Layers that are wrong or want too much, each unpacked and listed on its own: all are refused,
//! early and in bounded memory, and nothing outside the root is touched.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::id::Digest;
use aos_package::layer::read::Items;
use aos_package::oci::{Descriptor, LAYER_GZIP_TYPE, LAYER_ZSTD_TYPE};
use aos_package::unpack::{Layer, Modes, Options, unpack};
use common::{RawTar, bombs, chain, gzip, header, hostile_layers, paths, sha256};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The media type of a layer that is not compressed; foreign images have them.
const LAYER_TAR_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// A directory in memory if there is one: making and removing 200,000 entries takes minutes on a
/// busy disk.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// A blob, its media type and what its tar should be.
struct Blob {
    bytes: Vec<u8>,
    media_type: &'static str,
    diff_id: Digest,
}

impl Blob {
    fn plain(tar: &[u8]) -> Self {
        Self { bytes: tar.to_vec(), media_type: LAYER_TAR_TYPE, diff_id: sha256(tar) }
    }

    fn gzip(bytes: Vec<u8>, tar: &[u8]) -> Self {
        Self { bytes, media_type: LAYER_GZIP_TYPE, diff_id: sha256(tar) }
    }

    fn zstd(bytes: Vec<u8>, tar: &[u8]) -> Self {
        Self { bytes, media_type: LAYER_ZSTD_TYPE, diff_id: sha256(tar) }
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type, sha256(&self.bytes), self.bytes.len() as u64)
    }
}

/// What unpacking into a directory says.
fn try_unpack(blobs: &[Blob], root: &Path, modes: Modes) -> Result<(), String> {
    let descriptors: Vec<_> = blobs.iter().map(Blob::descriptor).collect();
    let openers: Vec<_> = blobs.iter().map(|blob| || io::Result::Ok(file_of(&blob.bytes))).collect();
    let layers: Vec<_> = (blobs.iter().zip(&descriptors).zip(&openers))
        .map(|((blob, descriptor), open)| Layer { descriptor, diff_id: blob.diff_id, open })
        .collect();
    unpack(&layers, root, Options { modes }).map(drop).map_err(|error| chain(&error))
}

fn refused(blobs: &[Blob]) -> String {
    try_unpack(blobs, directory().path(), Modes::Plain).expect_err("must be refused")
}

fn accepted(blobs: &[Blob]) -> TempDir {
    let root = directory();
    try_unpack(blobs, root.path(), Modes::Plain).unwrap();
    root
}

fn listed(blob: &Blob) -> Result<usize, String> {
    let mut count = 0;
    let items = Items::open(file_of(&blob.bytes), &blob.descriptor(), blob.diff_id);
    for item in items.map_err(|error| chain(&error))? {
        item.map_err(|error| chain(&error))?;
        count += 1;
    }
    Ok(count)
}

#[test]
fn no_entry_reaches_outside() {
    let outside = directory();
    fs::create_dir(outside.path().join("sub")).unwrap();
    for name in ["victim", "sub/victim"] {
        fs::write(outside.path().join(name), "safe").unwrap();
    }
    let far = outside.path().to_str().unwrap();
    // What only a package's check of its root refuses.
    let whole = |says: &&str| says.contains("is not a directory");
    for (tar, says) in hostile_layers(far).into_iter().filter(|(_, says)| !whole(says)) {
        for modes in [Modes::Plain, Modes::Kept] {
            let root = directory();
            let error = try_unpack(&[Blob::plain(&tar)], root.path(), modes).unwrap_err();
            assert!(error.contains(says), "{says}\n{error}");
        }
        // The same, on top of another layer.
        let below = Blob::plain(&RawTar::default().dir("a").file("a/other", "x").end());
        let error = refused(&[below, Blob::plain(&tar)]);
        assert!(error.contains(says), "{says}\n{error}");
        for name in ["victim", "sub/victim"] {
            assert_eq!(fs::read_to_string(outside.path().join(name)).unwrap(), "safe");
            assert_eq!(fs::metadata(outside.path().join(name)).unwrap().nlink(), 1);
        }
        assert_eq!(paths(outside.path()), ["sub", "sub/victim", "victim"]);
    }
}

#[test]
fn nothing_comes_twice_in_a_layer() {
    let raw = RawTar::default;
    let below = || Blob::plain(&raw().dir("a").file("a/f", "below").symlink("a/l", "f").end());
    for tar in [
        raw().file("a/f", "1").file("a/f", "2"),
        raw().file("a/f", "1").file("./a/f", "2"),
        raw().file("a/f", "1").symlink("a/f", "2"),
        raw().file("a/f", "1").dir("a/f"),
        raw().symlink("a/l", "1").file("a/l", "2"),
        raw().symlink("a/l", "1").symlink("a/l", "2"),
        raw().symlink("a/l", "..").dir("a/l"),
        raw().dir("a/d").file("a/d", "1"),
        raw().file("a/d/x", "1").file("a/d", "1"),
        raw().file("a/d/x", "1").symlink("a/d", "/"),
        raw().file("a/f", "1").file("a/g", "1").hard_link("a/g", "a/f"),
        raw().file("a/f", "1").hard_link("a/h", "a/f").file("a/h", "through a link"),
    ] {
        let tar = tar.end();
        assert!(refused(&[Blob::plain(&tar)]).contains("the layer has it twice"));
        assert!(refused(&[below(), Blob::plain(&tar)]).contains("the layer has it twice"));
    }
    // Directories may: tools write them once for each thing that they add.
    accepted(&[Blob::plain(&raw().dir("a").file("a/f", "1").dir("a").dir("./a/").end())]);
}

#[test]
fn an_upper_layer_does_not_write_through_what_is_below() {
    let raw = RawTar::default;
    let below = Blob::plain(
        &raw().file("a/f", "below").hard_link("a/h", "a/f").symlink("a/l", "f").symlink("d", "a").end(),
    );
    let above = Blob::plain(&raw().file("a/f", "above").file("a/l", "file").dir("d").file("d/x", "1").end());
    let root = accepted(&[below, above]);
    assert_eq!(paths(root.path()), ["a", "a/f", "a/h", "a/l", "d", "d/x"]);
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!([read("a/f"), read("a/h"), read("a/l")], ["above", "below", "file"]);
}

#[test]
fn privileges_and_owners_are_not_taken_over() {
    let tar = RawTar::default().dir("d").file("d/f", "x").end();
    for modes in [Modes::Plain, Modes::Kept] {
        let root = directory();
        try_unpack(&[Blob::plain(&tar)], root.path(), modes).unwrap();
        let own = fs::metadata(root.path()).unwrap().uid();
        for name in ["d", "d/f"] {
            // The header says 4755 and 1234.
            let metadata = fs::metadata(root.path().join(name)).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o755, own), "{name}");
        }
    }
}

#[test]
fn names_that_are_not_text() {
    let mut raw = header(b'0', "a/x", "", 0);
    raw.as_old_mut().name[2] = 0xff;
    raw.set_cksum();
    let pax = [&b"13 path=a/\xff\xfe\n"[..], b"16 mtime=123456\n"].concat();
    for tar in [
        RawTar::default().header(&raw).end(),
        RawTar::default().entry(b'L', "x", "", b"a/\xff\xfe").file("x", "").end(),
        RawTar::default().entry(b'x', "x", "", &pax).file("x", "").end(),
        RawTar::default().entry(b'K', "x", "", b"a/\xff").symlink("x", "y").end(),
    ] {
        assert!(refused(&[Blob::plain(&tar)]).contains("is not UTF-8"));
        assert!(listed(&Blob::plain(&tar)).unwrap_err().contains("is not UTF-8"));
    }
}

#[test]
fn what_unpacks_to_too_much() {
    for (tar, says) in bombs() {
        let packed = [Blob::gzip(gzip(&tar), &tar), Blob::zstd(zstd::encode_all(&tar[..], 3).unwrap(), &tar)];
        for blob in packed {
            let error = refused(std::slice::from_ref(&blob));
            assert!(error.contains(says), "{says}\n{error}");
            assert!(listed(&blob).unwrap_err().contains(says));
        }
    }
    // More than a layer may have, in a blob of that size: a file with a hole.
    let mut blob = tempfile::tempfile().unwrap();
    blob.write_all(header(b'0', "a/x", "", (4 << 30) + 1).as_bytes()).unwrap();
    blob.set_len((4 << 30) + 4096).unwrap();
    blob.rewind().unwrap();
    let zero = sha256(b"");
    let descriptor = Descriptor::new(LAYER_TAR_TYPE, zero, (4 << 30) + 4096);
    let error = Items::open(blob, &descriptor, zero).unwrap().map(Result::unwrap_err).next().unwrap();
    assert_eq!(chain(&error), "the layer unpacks to more than 4294967296 bytes, the bound of one layer");
    // A descriptor that says that there was more to unpack, so that the ratio is smaller.
    let tar = &bombs()[1].0;
    let blob = gzip(tar);
    let descriptor = Descriptor::new(LAYER_GZIP_TYPE, zero, 1 << 30);
    let Err(error) = Items::open(file_of(&blob), &descriptor, sha256(tar)) else { panic!("must be refused") };
    assert!(chain(&error).contains("its descriptor says 1073741824"), "{}", chain(&error));
}

/// A million entries in a file with few bytes: `name` makes the path of each.
fn a_million(name: impl Fn(u32) -> String) -> Blob {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    for n in 0..1_000_000 {
        encoder.write_all(header(b'5', &name(n), "", 0).as_bytes()).unwrap();
    }
    // It is refused before its end matters.
    Blob::zstd(encoder.finish().unwrap(), b"")
}

#[test]
fn a_million_entries() {
    let flat = a_million(|n| format!("a{n}"));
    let started = Instant::now();
    assert!(refused(std::slice::from_ref(&flat)).contains("more than 200000 files"));
    assert!(listed(&flat).unwrap_err().contains("more than 200000 files"));
    // Directories that are only on the way to others count, too.
    let ways = a_million(|n| format!("{n}/b/c/d/e/f/g/h/i/j"));
    assert!(refused(&[ways]).contains("more than 200000 files"));
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
}

#[test]
fn every_cut_is_noticed() {
    let tar = RawTar::default().file("a/x", &"text ".repeat(500)).file("a/y", "").end();
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    let packed = gzip(&tar);
    for length in 0..packed.len() {
        refused(&[Blob::gzip(packed[..length].to_vec(), &tar)]);
    }
    for length in 0..zstd.len() {
        refused(&[Blob::zstd(zstd[..length].to_vec(), &tar)]);
    }
    for length in (0..tar.len()).step_by(41) {
        refused(&[Blob { bytes: tar[..length].to_vec(), media_type: LAYER_TAR_TYPE, diff_id: sha256(&tar) }]);
    }
}

#[test]
fn members_and_frames_may_follow_each_other_and_nothing_else() {
    let tar = RawTar::default().file("a/x", &"text ".repeat(500)).end();
    let (first, second) = tar.split_at(700);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let skipped = [&0x184d_2a50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"note"].concat();
    accepted(&[Blob::gzip([gzip(first), gzip(b""), gzip(second)].concat(), &tar)]);
    accepted(&[Blob::zstd([zstd(first), skipped, zstd(b""), zstd(second)].concat(), &tar)]);
    // A great many empty ones: they cost what reading them costs.
    accepted(&[Blob::gzip([gzip(&tar), gzip(b"").repeat(50_000)].concat(), &tar)]);
    for more in [&b"x"[..], b"junk junk junk junk", &[0; 512], &[0x1f, 0x8b], &[0x1f, 0x8b, 8, 0, 0]] {
        refused(&[Blob::gzip([gzip(&tar), more.to_vec()].concat(), &tar)]);
        refused(&[Blob::zstd([zstd(&tar), more.to_vec()].concat(), &tar)]);
    }
    // After the tar's end only zeros, and few of them.
    let more = |bytes: &[u8]| [tar.clone(), bytes.to_vec()].concat();
    accepted(&[Blob::plain(&more(&[0; 10_240]))]);
    assert!(refused(&[Blob::plain(&more(&vec![0; 2 << 20]))]).contains("at most 1048576"));
    assert!(refused(&[Blob::plain(&more(&tar))]).contains("data where there must be none"));
    assert!(refused(&[Blob::gzip([gzip(&tar), gzip(&tar)].concat(), &more(&tar))]).contains("must be none"));
}

#[test]
fn a_window_larger_than_its_bound() {
    let tar = RawTar::default().file("a/x", &"text ".repeat(500)).end();
    for (log, fits) in [(25, true), (26, false), (27, false), (30, false)] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&tar).unwrap();
        let blob = Blob::zstd(encoder.finish().unwrap(), &tar);
        if fits {
            accepted(&[blob]);
        } else {
            let error = refused(&[blob]);
            assert!(error.contains("cannot read the layer"), "{error}");
        }
    }
}

#[test]
fn a_gzip_header_may_not_be_endless() {
    // The flag of a file name, which ends with the first NUL.
    let blob = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255][..], &vec![b'n'; 8 << 20]].concat();
    assert!(refused(&[Blob::gzip(blob, b"")]).contains("cannot read the layer"));
}

#[test]
fn whoever_stops_reading_stops_the_threads() {
    let tar = RawTar::default().entry(b'0', "a/x", "", &vec![7; 32 << 20]).end();
    let blob = Blob::plain(&tar);
    for _ in 0..200 {
        let mut items =
            Items::open(file_of(b""), &Descriptor::new(LAYER_TAR_TYPE, blob.diff_id, 0), blob.diff_id);
        drop(items.as_mut().unwrap().next());
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&blob.bytes[..1 << 20], 0).unwrap();
        drop(
            Items::open(file, &Descriptor::new(LAYER_TAR_TYPE, blob.diff_id, 1 << 20), blob.diff_id).unwrap(),
        );
    }
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    assert!(threads < 100, "{threads}");
}

#[test]
fn a_blob_that_cannot_be_read() {
    let directory = directory();
    let blob = Blob::plain(b"");
    let descriptor = blob.descriptor();
    let open = || File::open(directory.path().join("nothing"));
    let layer = Layer { descriptor: &descriptor, diff_id: blob.diff_id, open: &open };
    let error = chain(&unpack(&[layer], directory.path(), Options::default()).unwrap_err());
    assert!(error.contains("cannot read the layer: No such file"), "{error}");
    let text = Descriptor::new("text/plain", blob.diff_id, 0);
    let error = Items::open(file_of(b""), &text, blob.diff_id).map(drop).unwrap_err();
    assert_eq!(chain(&error), "text/plain is not the media type of a layer");
}
