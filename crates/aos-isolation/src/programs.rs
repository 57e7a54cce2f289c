//! Where the programs of the backends are: fixed directories, never `PATH`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::backend::Backend;

/// Where Debian installs them; what an administrator installed by hand comes first.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/usr/libexec/aos", "/usr/libexec"];

/// The directories that are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs(Vec<PathBuf>);

impl Default for Programs {
    fn default() -> Self {
        Self::in_directories(DIRECTORIES.iter().map(PathBuf::from).collect())
    }
}

impl Programs {
    /// Programs in these directories, the first one wins.
    pub fn in_directories(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// These directories before Debian's: where programs come from a build or an unpacked package.
    pub fn first_in(directories: Vec<PathBuf>) -> Self {
        // A program is started in another directory. One without a current directory keeps what it was given.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self(directories.into_iter().map(absolute).chain(Self::default().0).collect())
    }

    /// The directories.
    pub fn directories(&self) -> &[PathBuf] {
        &self.0
    }

    /// The program that a backend stands on.
    pub fn find(&self, backend: Backend) -> Option<PathBuf> {
        self.named(backend.program())
    }

    /// `aos-launch`, which confines inside each backend that shares the host's kernel, and in a virtual
    /// machine.
    pub fn launcher(&self) -> Option<PathBuf> {
        self.named("aos-launch")
    }

    /// `aos-isolate`, which drives every backend but `native`.
    pub fn isolate(&self) -> Option<PathBuf> {
        self.named("aos-isolate")
    }

    /// Directories with a kernel for virtual machines, each laid out as a root directory: `kernel` beside
    /// programs, and the host's root.
    pub fn kernels(&self) -> Vec<PathBuf> {
        let beside = self.0.iter().map(|directory| directory.join("kernel"));
        beside.chain([PathBuf::from("/")]).collect()
    }

    /// A program by its name.
    pub fn named(&self, name: &str) -> Option<PathBuf> {
        self.0.iter().map(|directory| directory.join(name)).find(|path| is_program(path))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
