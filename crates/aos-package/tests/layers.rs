//! Layers that are written and read back: the bytes are the same on every machine, other programs
//! read them, and what is unpacked is what was put in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]

mod common;

use aos_core::path::RelativePath;
use aos_package::layer::read::{Item, Items, Kind as Listed};
use aos_package::layer::write::{Compression, Header, Kind, LayerWriter, WriteError, Written};
use aos_package::unpack::{Layer, Modes, Options, Summary, unpack};
use common::{chain, paths, sha256};
use proptest::prelude::*;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

fn path(text: &str) -> RelativePath {
    text.parse().unwrap()
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn entry<'a>(path: &'a RelativePath, kind: Kind<'a>, mode: u32) -> Header<'a> {
    Header { path, kind, mode, uid: 7, gid: 8, mtime: 1_700_000_000 }
}

/// One entry of a test's layer.
#[derive(Debug, Clone)]
enum Made {
    File(Vec<u8>),
    Directory,
    Symlink(&'static str),
    HardLink(&'static str),
    Whiteout,
    Opaque,
}

fn write(entries: &[(&str, u32, Made)], compression: Compression, count: usize) -> Written<Vec<u8>> {
    let mut writer = LayerWriter::with_threads(Vec::new(), compression, threads(count)).unwrap();
    for (name, mode, made) in entries {
        let target;
        let (kind, contents) = match made {
            Made::File(bytes) => (Kind::File { size: bytes.len() as u64 }, bytes.as_slice()),
            Made::Directory => (Kind::Directory, &[][..]),
            Made::Symlink(target) => (Kind::Symlink(target), &[][..]),
            Made::HardLink(name) => {
                target = path(name);
                (Kind::HardLink(&target), &[][..])
            }
            Made::Whiteout => (Kind::Whiteout, &[][..]),
            Made::Opaque => (Kind::Opaque, &[][..]),
        };
        writer.append(&entry(&path(name), kind, *mode), contents).unwrap();
    }
    writer.finish().unwrap()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn list(written: &Written<Vec<u8>>) -> Vec<Item> {
    let items = Items::open(file_of(&written.output), &written.descriptor, written.diff_id).unwrap();
    items.map(|item| item.unwrap_or_else(|error| panic!("{}", chain(&error)))).collect()
}

fn unpack_all(layers: &[Written<Vec<u8>>], root: &Path, modes: Modes) -> Summary {
    let openers: Vec<_> = layers.iter().map(|layer| || io::Result::Ok(file_of(&layer.output))).collect();
    let layers: Vec<_> = layers
        .iter()
        .zip(&openers)
        .map(|(layer, open)| Layer { descriptor: &layer.descriptor, diff_id: layer.diff_id, open })
        .collect();
    unpack(&layers, root, Options { modes }).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// Contents of pieces of different kinds: noise, text, zeros, and noise that repeats itself.
fn contents(pieces: &[(u8, usize)]) -> Vec<u8> {
    let mut state = 1_u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let mut bytes = Vec::new();
    for &(kind, length) in pieces {
        match kind {
            0 => bytes.extend((0..length).map(|_| noise())),
            1 => bytes.extend((0..length).map(|_| b"etaoin shrdlu\n"[usize::from(noise()) % 14])),
            2 => bytes.resize(bytes.len() + length, 0),
            _ => {
                let word: Vec<u8> = (0..1000).map(|_| noise()).collect();
                bytes.extend(word.iter().cycle().take(length));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_bytes_do_not_depend_on_the_threads(
        pieces in prop::collection::vec((0..4_u8, 0..700_000_usize), 1..6),
        cut in 0..2_000_000_usize,
    ) {
        let bytes = contents(&pieces);
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let entries = [("a", 0o644, Made::File(first.to_vec())), ("b", 0o755, Made::File(second.to_vec()))];
        for compression in BOTH {
            let one = write(&entries, compression, 1);
            for count in [2, 5] {
                let many = write(&entries, compression, count);
                prop_assert_eq!(&one.descriptor, &many.descriptor);
                prop_assert!(one.output == many.output);
                prop_assert_eq!(one.diff_id, many.diff_id);
            }
            prop_assert_eq!(one.descriptor.digest, sha256(&one.output));
            prop_assert_eq!(one.descriptor.size, one.output.len() as u64);
            let listed: Vec<_> = list(&one).into_iter().map(|item| item.kind).collect();
            prop_assert_eq!(listed, [first, second].map(|bytes| Listed::File(sha256(bytes))));
        }
    }
}

/// Gives a few bytes at a time, a different number each time, and is interrupted now and then.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(7) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let count = (self.1 * 7919 % 5000 + 1).min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn the_bytes_do_not_depend_on_how_contents_are_read() {
    let bytes = contents(&[(1, 300_000), (0, 300_000), (3, 600_000)]);
    let header = Header {
        path: &path("x"),
        kind: Kind::File { size: 1_200_000 },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 0,
    };
    for compression in BOTH {
        let mut writer = LayerWriter::new(Vec::new(), compression).unwrap();
        writer.append(&header, bytes.as_slice()).unwrap();
        let at_once = writer.finish().unwrap();
        let mut writer = LayerWriter::new(Vec::new(), compression).unwrap();
        writer.append(&header, Slow(&bytes, 0)).unwrap();
        assert!(at_once.output == writer.finish().unwrap().output);
    }
}

/// The format is promised to stay: a change of these digests makes every layer that was built
/// before another one, and needs a new version of the format.
#[test]
fn the_bytes_are_the_same_on_every_machine_and_day() {
    let long = "long/".to_owned() + &"n".repeat(120);
    let entries = [
        ("bin", 0o755, Made::Directory),
        ("bin/data", 0o644, Made::File(contents(&[(1, 400_000), (0, 400_000), (2, 100_000), (3, 300_000)]))),
        ("bin/hard", 0o644, Made::HardLink("bin/data")),
        ("bin/link", 0o777, Made::Symlink("data")),
        ("etc", 0o755, Made::Directory),
        ("etc", 0, Made::Opaque),
        ("gone", 0, Made::Whiteout),
        (&long, 0o600, Made::File(b"x".to_vec())),
    ];
    let gzip = write(&entries, Compression::Gzip, 2);
    let zstd = write(&entries, Compression::Zstd, 2);
    assert_eq!(gzip.diff_id, zstd.diff_id);
    assert_eq!((gzip.entries, gzip.unpacked % 512), (8, 0));
    let digests =
        [gzip.diff_id, gzip.descriptor.digest, zstd.descriptor.digest].map(|digest| digest.to_string());
    assert_eq!(
        digests,
        [
            "sha256:360361e5fdd8fcae683fe02fc9bffe265de54c60fdbb386e95f6ecfa0607ea58",
            "sha256:b07ca82581248bd52fbc112a74173b2f394a95260d617cdb959a8ad1df446fc9",
            "sha256:c93fd2cada6a6b1281c197e71a4340c21ac3ec99426e5103296e6a40b7f54737",
        ]
    );
}

#[test]
fn what_is_written_is_read() {
    let long = "d/".to_owned() + &"long-name/".repeat(20) + "end";
    let target: &'static str = Box::leak("../".repeat(60).into_boxed_str());
    let lower = write(
        &[
            ("d", 0o755, Made::Directory),
            ("d/opaque", 0o755, Made::Directory),
            ("d/opaque/old", 0o644, Made::File(b"old".to_vec())),
            ("gone", 0o644, Made::File(b"gone".to_vec())),
        ],
        Compression::Gzip,
        2,
    );
    let big = contents(&[(1, 3_000_000)]);
    for compression in BOTH {
        let upper = write(
            &[
                ("d", 0o1777, Made::Directory),
                ("d/a-file", 0o4755 & 0o777, Made::File(big.clone())),
                ("d/empty", 0o000, Made::File(Vec::new())),
                ("d/hard", 0o755, Made::HardLink("d/a-file")),
                (&long, 0o640, Made::File(b"deep".to_vec())),
                ("d/opaque", 0o700, Made::Directory),
                ("d/opaque", 0, Made::Opaque),
                ("d/opaque/new", 0o444, Made::File(b"new".to_vec())),
                ("d/symlink", 0o777, Made::Symlink(target)),
                ("gone", 0, Made::Whiteout),
                ("ünï", 0o644, Made::File(b"name".to_vec())),
            ],
            compression,
            2,
        );
        let kinds: Vec<_> =
            list(&upper).into_iter().map(|item| (item.path.unwrap().to_string(), item.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("d", Listed::Directory),
                ("d/a-file", Listed::File(sha256(&big))),
                ("d/empty", Listed::File(sha256(b""))),
                ("d/hard", Listed::HardLink(path("d/a-file"))),
                (&long, Listed::File(sha256(b"deep"))),
                ("d/opaque", Listed::Directory),
                ("d/opaque", Listed::Opaque),
                ("d/opaque/new", Listed::File(sha256(b"new"))),
                ("d/symlink", Listed::Symlink(target.to_owned())),
                ("gone", Listed::Whiteout),
                ("ünï", Listed::File(sha256(b"name"))),
            ]
            .map(|(path, kind)| (path.to_owned(), kind))
        );
        for (modes, expected) in [
            (Modes::Plain, [0o755, 0o755, 0o644, 0o755, 0o644]),
            (Modes::Kept, [0o1777, 0o755, 0o400, 0o700, 0o640]),
        ] {
            let root = tempfile::tempdir().unwrap();
            let again = write(&[("gone", 0o644, Made::File(b"gone".to_vec()))], compression, 1);
            let lower =
                Written { output: lower.output.clone(), descriptor: lower.descriptor.clone(), ..lower };
            let upper =
                Written { output: upper.output.clone(), descriptor: upper.descriptor.clone(), ..upper };
            let summary = unpack_all(&[again, lower, upper], root.path(), modes);
            // 1 + 4 + 11 entries, and 20 directories on the way to the long name.
            assert_eq!(summary.entries, 36);
            let root = root.path();
            assert_eq!(fs::read(root.join("d/a-file")).unwrap(), big);
            assert_eq!(fs::metadata(root.join("d/hard")).unwrap().nlink(), 2);
            assert_eq!(fs::read(root.join(&long)).unwrap(), b"deep");
            assert_eq!(fs::read_link(root.join("d/symlink")).unwrap(), Path::new(target));
            assert_eq!(paths(&root.join("d/opaque")), ["new"]);
            assert!(!root.join("gone").exists());
            assert_eq!(fs::metadata(root.join("d/a-file")).unwrap().mtime(), 1_700_000_000);
            let found = ["d", "d/a-file", "d/empty", "d/opaque", &long]
                .map(|name| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777);
            assert_eq!(found, expected, "{modes:?}");
        }
    }
}

#[test]
fn wrong_entries_are_not_written() {
    let file = Kind::File { size: 3 };
    let hard = path("z");
    let deep = ["n"; 64].join("/");
    let deeper = ["n"; 65].join("/");
    let long = "n".repeat(252);
    let longer = ["n".repeat(200).as_str(); 6].join("/");
    for (name, (kind, mode), contents, says) in [
        (deep.as_str(), (file, 0o644), "abc", ""),
        (&deep, (Kind::Opaque, 0), "", "too many segments"),
        (&deeper, (file, 0o644), "abc", "too many segments"),
        (&long, (Kind::Symlink(".."), 0o777), "", ""),
        (&long, (Kind::Whiteout, 0), "", "its name is too long"),
        (&longer, (file, 0o644), "abc", "its path is too long"),
        ("m", (file, 0o644), "abc", ""),
        ("n", (Kind::Opaque, 0), "", ""),
        ("l", (file, 0o644), "abc", "comes after `m`"),
        ("m", (Kind::Directory, 0o755), "", "comes after `m`"),
        ("m/.wh.x", (file, 0o644), "abc", "mean deletion"),
        (".wh.x/y", (file, 0o644), "abc", "mean deletion"),
        ("n", (file, 0o4755), "abc", "special bits"),
        ("n", (file, 0o1755), "abc", "special bits"),
        ("n", (Kind::Directory, 0o2755), "", "special bits"),
        ("n", (Kind::Symlink(""), 0o777), "", "not a path"),
        ("n", (Kind::Symlink("a\0b"), 0o777), "", "not a path"),
        ("n", (Kind::HardLink(&hard), 0o644), "", "does not come before"),
        ("n", (file, 0o644), "ab", "`n` has not the 3 bytes"),
        ("n", (file, 0o644), "abcd", "`n` has not the 3 bytes"),
        ("n", (Kind::File { size: u64::MAX }, 0o644), "", "more than 4294967296 bytes"),
    ] {
        let mut writer = LayerWriter::new(Vec::new(), Compression::Gzip).unwrap();
        let (first, path) = (path("m"), path(name));
        if name != "m" || !says.is_empty() {
            writer.append(&entry(&first, file, 0o644), &b"abc"[..]).unwrap();
        }
        let result = writer.append(&entry(&path, kind, mode), contents.as_bytes());
        match result {
            Ok(()) => assert_eq!(says, "", "{name} {kind:?}"),
            Err(error) => {
                assert!(!says.is_empty() && error.to_string().contains(says), "{says}: {error}");
                // What comes after an error cannot be a layer.
                assert!(matches!(writer.finish(), Err(WriteError::Spoilt)));
            }
        }
    }
}

#[test]
fn what_nobody_would_unpack_is_not_written() {
    let size = 80 << 20;
    for compression in BOTH {
        let mut writer = LayerWriter::new(io::sink(), compression).unwrap();
        let name = path("zeros");
        writer.append(&entry(&name, Kind::File { size }, 0o644), io::repeat(0)).unwrap_err();
        let mut writer = LayerWriter::new(io::sink(), compression).unwrap();
        writer.append(&entry(&name, Kind::File { size }, 0o644), io::repeat(0).take(size)).unwrap();
        assert!(matches!(writer.finish(), Err(WriteError::Ratio { unpacked, .. }) if unpacked > size));
    }
}

/// Takes so many bytes and is full then.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_and_ends_the_threads() {
    let bytes = contents(&[(0, 4 << 20)]);
    let count = || fs::read_dir("/proc/self/task").unwrap().count();
    for room in [0, 5, 100, 1 << 20, 4 << 20] {
        let write = || {
            let mut writer = LayerWriter::new(Full(room), Compression::Gzip)?;
            writer.append(&entry(&path("x"), Kind::File { size: 4 << 20 }, 0o644), bytes.as_slice())?;
            writer.finish().map(drop)
        };
        let Err(WriteError::Output(error)) = write() else { panic!("{room} bytes are enough") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    // Other tests of this file have threads, too; a thousand writers would show.
    for _ in 0..1000 {
        drop(LayerWriter::new(Full(0), Compression::Gzip));
        drop(LayerWriter::new(Full(10), Compression::Gzip).unwrap());
    }
    assert!(count() < 500, "{}", count());
}
