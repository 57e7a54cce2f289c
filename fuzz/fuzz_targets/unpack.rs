//! Stacks of layers, unpacked: nothing outside the root changes, whatever they say. The input is two
//! tars, cut at the place that its first two bytes name in blocks of 512.
#![no_main]

use aos_package::oci::Descriptor;
use aos_package::unpack::{Layer, Modes, Options, unpack};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Seek, Write};

fn open(tar: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(tar)?;
    file.rewind()?;
    Ok(file)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, tars)) = bytes.split_first_chunk() else { return };
    let (lower, upper) = tars.split_at(tars.len().min(usize::from(u16::from_le_bytes(*cut)) * 512));
    let place = tempfile::tempdir().expect("a directory");
    let root = place.path().join("root");
    fs::create_dir(&root).expect("a root");
    fs::write(place.path().join("victim"), "safe").expect("a victim");
    let describe = |tar: &[u8]| {
        let digest = aos_core::id::Digest::from_bytes(Sha256::digest(tar).into());
        Descriptor::new("application/vnd.oci.image.layer.v1.tar", digest, tar.len() as u64)
    };
    let descriptors = [lower, upper].map(describe);
    let openers = [lower, upper].map(|tar| move || open(tar));
    let layers: Vec<_> = (descriptors.iter().zip(&openers))
        .map(|(descriptor, open)| Layer { descriptor, diff_id: descriptor.digest, open })
        .collect();
    // Whether it is refused is not the question.
    drop(unpack(&layers, &root, Options { modes: Modes::Kept }));
    let mut names: Vec<_> = fs::read_dir(place.path())
        .expect("it is listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["root", "victim"]);
    assert_eq!(fs::read(place.path().join("victim")).expect("it is read"), b"safe");
});
