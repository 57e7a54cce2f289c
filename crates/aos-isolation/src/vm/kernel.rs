//! The kernel that a machine boots: one that Debian installs, with the modules that it needs to see the host's
//! files.
//!
//! It need not be the one that this host runs: Debian's `linux-image-cloud-amd64` has no 9p file system,
//! `linux-image-amd64` has.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes of a module: a hundred times the largest of these.
const MODULE_BYTES_MAX: u64 = 32 << 20;
/// How Debian 13 and others compress modules; the kernel reads the first three itself.
const ENDINGS: [&str; 4] = ["ko", "ko.xz", "ko.zst", "ko.gz"];

/// The modules, in the order of loading, and whether a machine can be without: some kernels have it built in,
/// and older ones split it otherwise.
const MODULES: [(&str, Need); 12] = [
    ("kernel/drivers/virtio/virtio", Need::WhereSplit),
    ("kernel/drivers/virtio/virtio_ring", Need::WhereSplit),
    ("kernel/drivers/virtio/virtio_pci_modern_dev", Need::WhereSplit),
    ("kernel/drivers/virtio/virtio_pci_legacy_dev", Need::WhereSplit),
    ("kernel/drivers/virtio/virtio_pci", Need::WhereSplit),
    ("kernel/drivers/char/virtio_console", Need::WhereSplit),
    ("kernel/fs/netfs/netfs", Need::WhereSplit),
    ("kernel/fs/fscache/fscache", Need::WhereSplit),
    ("kernel/net/9p/9pnet", Need::Always),
    ("kernel/net/9p/9pnet_virtio", Need::Always),
    ("kernel/fs/9p/9p", Need::Always),
    ("kernel/fs/overlayfs/overlay", Need::Always),
];

/// Whether a module has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// As a file, or built in.
    Always,
    /// Only of kernels that have it as a file.
    WhereSplit,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its version, as `uname -r` prints it.
    pub release: String,
    /// Its image.
    pub image: PathBuf,
    /// The modules' files, in the order of loading.
    pub modules: Vec<PathBuf>,
}

/// Why there is no kernel to boot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoKernel {
    /// There is none at all.
    #[error("there is no kernel in /boot (Debian package linux-image-amd64)")]
    None,
    /// The newest lacks something, and so do the others.
    #[error(
        "the kernel {release} has no module {module}, which shows it the host's files (Debian package linux-image-amd64; linux-image-cloud-amd64 has none)"
    )]
    Lacks {
        /// The newest kernel.
        release: String,
        /// What it lacks.
        module: &'static str,
    },
}

/// The newest kernel with all modules: of the first of these directories that has one. Each is laid out as a root
/// directory.
pub fn find(roots: &[PathBuf]) -> Result<Kernel, NoKernel> {
    let mut why = NoKernel::None;
    for root in roots {
        for (release, image) in images(&root.join("boot")) {
            match modules(root, &release) {
                Ok(modules) => return Ok(Kernel { release, image, modules }),
                Err(module) if why == NoKernel::None => why = NoKernel::Lacks { release, module },
                Err(_) => {}
            }
        }
    }
    Err(why)
}

/// The kernels of a directory, the newest first.
fn images(boot: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(boot) else { return Vec::new() };
    let mut found: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let release = name.strip_prefix("vmlinuz-")?.to_owned();
            entry.path().metadata().ok()?.is_file().then(|| (release, entry.path()))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| newer_first(one, other));
    found
}

fn newer_first(one: &str, other: &str) -> Ordering {
    parts(other).cmp(&parts(one))
}

/// A version as its numbers and what is between them.
fn parts(version: &str) -> Vec<(u64, &str)> {
    let digits =
        |part: &str| part.len() - part.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    version
        .split(['.', '-', '+', '~'])
        .map(|part| {
            let (number, rest) = part.split_at_checked(digits(part)).unwrap_or(("", part));
            (number.parse().unwrap_or_default(), rest)
        })
        .collect()
}

/// The files of a kernel's modules, or the first that it lacks.
fn modules(root: &Path, release: &str) -> Result<Vec<PathBuf>, &'static str> {
    let directory = ["usr/lib/modules", "lib/modules"].map(|path| root.join(path).join(release));
    let Some(directory) = directory.into_iter().find(|path| path.is_dir()) else {
        return Err("(no modules)");
    };
    // What is built in is listed; a kernel that lists nothing has nothing built in that counts here.
    let built_in = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
    let mut files = Vec::new();
    for (name, need) in MODULES {
        let candidates = ENDINGS.iter().map(|ending| directory.join(format!("{name}.{ending}")));
        match candidates.into_iter().find(|path| path.is_file()) {
            Some(file) => files.push(file),
            None if need == Need::WhereSplit => {}
            None if built_in.lines().any(|line| line == format!("{name}.ko")) => {}
            None => return Err(name),
        }
    }
    Ok(files)
}

/// A module's content.
pub fn read_module(path: &Path) -> io::Result<Vec<u8>> {
    if path.metadata()?.len() > MODULE_BYTES_MAX {
        return Err(io::Error::other("it is too large for a module"));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, release: &str, modules: &[&str]) {
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::write(root.join("boot").join(format!("vmlinuz-{release}")), "").unwrap();
        for name in modules {
            let path = root.join("usr/lib/modules").join(release).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "kernel/fs/overlayfs/overlay.ko\n").unwrap();
        }
    }

    const WHOLE: [&str; 4] = [
        "kernel/net/9p/9pnet.ko.xz",
        "kernel/net/9p/9pnet_virtio.ko.xz",
        "kernel/fs/9p/9p.ko.xz",
        "modules.builtin",
    ];

    #[test]
    fn the_newest_kernel_with_all_modules_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let roots = [root.join("absent"), root.to_owned()];
        assert_eq!(find(&roots), Err(NoKernel::None));
        install(root, "6.12.117-cloud", &["modules.builtin"]);
        let lacks = NoKernel::Lacks { release: "6.12.117-cloud".to_owned(), module: "kernel/net/9p/9pnet" };
        assert_eq!(find(&roots), Err(lacks));
        install(root, "6.12.9-amd64", &WHOLE);
        assert_eq!(find(&roots).unwrap().release, "6.12.9-amd64");
        install(root, "6.12.30-amd64", &WHOLE);
        let kernel = find(&roots).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.modules.len()), ("6.12.30-amd64", 3));
        assert!(kernel.modules[0].ends_with("kernel/net/9p/9pnet.ko.xz"));
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let mut versions = ["6.1.0-48-amd64", "6.12.9+deb13-amd64", "6.12.117+deb13-amd64", "6.1.0-9-amd64"];
        versions.sort_by(|one, other| newer_first(one, other));
        assert_eq!(
            versions,
            ["6.12.117+deb13-amd64", "6.12.9+deb13-amd64", "6.1.0-48-amd64", "6.1.0-9-amd64"]
        );
    }
}
