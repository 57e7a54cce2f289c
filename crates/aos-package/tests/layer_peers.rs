//! Programs that nobody here wrote read our layers: gzip, zstd, tar, skopeo and umoci. It fails with
//! what is missing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic in a helper is the test's failure report"
)]
#![allow(clippy::disallowed_methods, reason = "these tests are about other processes")]

mod common;

use aos_package::layer::write::{Compression, Header, Kind, LayerWriter};
use common::{agent, package_of, paths};
use std::fs;
use std::process::{Command, Stdio};

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).stderr(Stdio::piped()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} is needed (`tests/run unit` installs it): {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Two megabytes: text, noise, zeros.
fn contents() -> Vec<u8> {
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let mut bytes: Vec<u8> = (0..1_000_000).map(|_| b"etaoin shrdlu\n"[usize::from(noise()) % 14]).collect();
    bytes.extend((0..600_000).map(|_| noise()));
    bytes.resize(2_000_000, 0);
    bytes
}

#[test]
fn other_programs_read_our_layers() {
    let bytes = contents();
    let long = "app/".to_owned() + &"long-name/".repeat(15) + "file";
    for (compression, tool) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        let mut writer = LayerWriter::new(Vec::new(), compression).unwrap();
        let file = Kind::File { size: bytes.len() as u64 };
        for (name, kind, mode) in [
            ("app", Kind::Directory, 0o755),
            ("app/data", file, 0o644),
            ("app/hard", Kind::HardLink(&"app/data".parse().unwrap()), 0o644),
            (&long, file, 0o755),
            ("app/symlink", Kind::Symlink(&"../".repeat(50)), 0o777),
        ] {
            let header = Header { path: &name.parse().unwrap(), kind, mode, uid: 0, gid: 0, mtime: 9 };
            writer.append(&header, bytes.as_slice()).unwrap();
        }
        let written = writer.finish().unwrap();
        let work = tempfile::tempdir().unwrap();
        let at = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("blob"), &written.output).unwrap();
        let tar = Command::new(tool)
            .args(["-d", "-c"])
            .stdin(fs::File::open(at("blob")).unwrap())
            .output()
            .unwrap();
        assert!(tar.status.success(), "{tool}: {}", String::from_utf8_lossy(&tar.stderr));
        assert_eq!(common::sha256(&tar.stdout), written.diff_id);
        fs::write(at("tar"), &tar.stdout).unwrap();
        fs::create_dir(at("tree")).unwrap();
        run("tar", &["--extract", "--no-same-owner", "--file", &at("tar"), "--directory", &at("tree")]);
        let expected = paths(&work.path().join("tree"));
        assert_eq!(expected.len(), 5 + 15);
        assert_eq!(fs::read(work.path().join("tree").join(&long)).unwrap(), bytes);

        let layers = [(tar.stdout, written.output, compression.media_type())];
        fs::write(at("web.aap"), package_of(agent("host", "/usr/bin/true"), &layers)).unwrap();
        let layout = format!("oci:{}:tag", at("layout"));
        run("skopeo", &["copy", "--quiet", &format!("oci-archive:{}", at("web.aap")), &layout]);
        if compression == Compression::Gzip {
            run(
                "umoci",
                &["unpack", "--rootless", "--image", &format!("{}:tag", at("layout")), &at("bundle")],
            );
            let rootfs = work.path().join("bundle/rootfs");
            assert_eq!(paths(&rootfs), expected);
            assert_eq!(fs::read(rootfs.join("app/hard")).unwrap(), bytes);
        } else {
            // Decompressing and compressing again is how skopeo shows that it understands zstd.
            let plain = format!("dir:{}", at("plain"));
            run("skopeo", &["copy", "--quiet", "--dest-decompress", &layout, &plain]);
            assert!(
                fs::metadata(work.path().join("plain").join(written.diff_id.hex())).unwrap().len()
                    > 4_000_000
            );
        }
    }
}
