//! What the guest's first process is told: the agent's user, and which part of the host is at which path. It
//! makes these paths, so that the plan, which names them, is the same inside and outside.

use aos_core::path::AbsolutePath;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the format.
pub const MANIFEST_VERSION: u32 = 1;
/// Its name in the initial file system.
pub const MANIFEST: &str = "manifest.json";
/// The plan's.
pub const PLAN: &str = "plan.json";
/// The launcher's.
pub const LAUNCHER: &str = "aos-launch";
/// The first process's: `aos-isolate`, started with the word `guest`.
pub const INIT: &str = "aos-isolate";
/// The word by which that program knows what it is.
pub const GUEST: &str = "guest";
/// The directory of the kernel's modules, whose names are numbers and sort in the order of loading.
pub const MODULES: &str = "modules";

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The agent's user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// What of the host is where; parents first.
    pub places: Vec<Place>,
}

/// One path of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The path, the same as on the host.
    pub path: AbsolutePath,
    /// What is there.
    pub what: What,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// A file or directory of a share, under its number.
    Shared {
        /// The share.
        share: Share,
        /// The number.
        number: usize,
        /// Whether it is a directory.
        is_directory: bool,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        to: String,
    },
}

/// A file system that the guest mounts over 9p.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// What is executed: `/usr` and the package. Nobody changes it during a run, so the guest keeps what it
    /// has read.
    Programs,
    /// What is only read. Others may change it at any time.
    Data,
    /// What the agent writes.
    Written,
}

impl Share {
    /// Every share.
    pub const ALL: [Self; 3] = [Self::Programs, Self::Data, Self::Written];

    /// Its name: 9p's mount tag and a directory outside and inside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Programs => "programs",
            Self::Data => "data",
            Self::Written => "written",
        }
    }

    /// Whether QEMU refuses every change.
    pub const fn is_read_only(self) -> bool {
        !matches!(self, Self::Written)
    }

    /// How the guest's kernel mounts it. Messages are as large as QEMU's rings allow without a warning.
    pub const fn options(self) -> &'static str {
        match self {
            Self::Programs => "trans=virtio,version=9p2000.L,msize=262144,cache=loose",
            Self::Data | Self::Written => "trans=virtio,version=9p2000.L,msize=262144,cache=none",
        }
    }
}

/// Bytes that are no manifest.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The JSON is wrong.
    #[error("the manifest is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Another format.
    #[error("the manifest has version {0}, expected {MANIFEST_VERSION}")]
    Version(u32),
}

impl Manifest {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.version == MANIFEST_VERSION {
            Ok(manifest)
        } else {
            Err(ManifestError::Version(manifest.version))
        }
    }

    /// Writes it.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_and_what_is_unknown_is_refused() {
        let what = What::Shared { share: Share::Written, number: 3, is_directory: true };
        let places = vec![Place { path: "/srv/a".parse().unwrap(), what }];
        let manifest = Manifest { version: MANIFEST_VERSION, uid: 5, gid: 6, places };
        let bytes = manifest.to_json().unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in
            [("\"version\":1", "\"version\":2"), ("/srv/a", "srv"), ("\"uid\"", "\"x\""), ("written", "all")]
        {
            assert!(
                text.contains(from) && Manifest::parse(text.replace(from, to).as_bytes()).is_err(),
                "{from}"
            );
        }
    }
}
