//! The union as overlayfs would show it: which layer has what at a path.
//!
//! Rules (Documentation/filesystems/overlayfs.rst): the topmost entry wins; a whiteout ends the search with nothing;
//! directories merge, down to an opaque one or to something that is no directory.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use aos_core::workspace::NodeKind;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::beneath::{self, Names};

/// The layers of a workspace, the topmost first.
#[derive(Debug)]
pub(crate) struct Stack {
    layers: Vec<OwnedFd>,
    /// How many are the transaction's: the changes and the snapshots.
    own: usize,
    /// Whether a commit that was cut short goes on.
    resumes: bool,
}

/// What the union has under a name.
#[derive(Debug)]
pub(crate) enum Node {
    /// Nothing.
    Absent,
    /// Anything but a directory.
    Leaf {
        /// The layer that has it.
        layer: usize,
        stat: Box<Stat>,
    },
    /// A directory.
    Directory {
        /// The layers that are merged.
        layers: Vec<usize>,
        /// Of the topmost.
        stat: Box<Stat>,
    },
}

impl Node {
    /// What is there.
    pub(crate) fn stat(&self) -> Option<&Stat> {
        match self {
            Self::Absent => None,
            Self::Leaf { stat, .. } | Self::Directory { stat, .. } => Some(stat),
        }
    }

    /// Its type.
    pub(crate) fn kind(&self) -> Option<NodeKind> {
        self.stat().map(beneath::kind)
    }
}

/// A directory of the union, with the directories that are merged in it held open.
#[derive(Debug)]
pub(crate) struct Merged {
    parts: Vec<(usize, OwnedFd)>,
}

impl Stack {
    /// The first `own` layers are the transaction's.
    pub(crate) fn new(layers: Vec<OwnedFd>, own: usize) -> Self {
        Self { layers, own, resumes: false }
    }

    /// The same, for a commit that was cut short and goes on.
    pub(crate) fn resumed(self) -> Self {
        Self { resumes: true, ..self }
    }

    /// Whether what is below may be of this very commit.
    pub(crate) fn resumes(&self) -> bool {
        self.resumes
    }

    /// Whether a layer is the transaction's.
    pub(crate) fn is_own(&self, layer: usize) -> bool {
        layer < self.own
    }

    /// All layers.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.layers.len()).collect()
    }

    /// Those below the transaction.
    pub(crate) fn below(&self) -> Vec<usize> {
        (self.own..self.layers.len()).collect()
    }

    /// Opens the same directory in some layers. One that has vanished is left out: an agent may run.
    pub(crate) fn open(&self, path: &Path, layers: &[usize]) -> Result<Merged, Errno> {
        let mut parts = Vec::new();
        for layer in layers {
            let Some(root) = self.layers.get(*layer) else { continue };
            match beneath::open_directory(root, path) {
                Ok(directory) => parts.push((*layer, directory)),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Merged { parts })
    }
}

impl Merged {
    /// What the union has under a name.
    pub(crate) fn resolve(&self, name: &CStr) -> Result<Node, Errno> {
        let mut merged: Option<(Vec<usize>, Box<Stat>)> = None;
        for (layer, directory) in &self.parts {
            let Some(stat) = beneath::look(directory, name)? else { continue };
            if beneath::kind(&stat) != NodeKind::Directory {
                if merged.is_none() && !beneath::is_whiteout(&stat) {
                    return Ok(Node::Leaf { layer: *layer, stat: Box::new(stat) });
                }
                break;
            }
            match &mut merged {
                None => merged = Some((vec![*layer], Box::new(stat))),
                Some((layers, _)) => layers.push(*layer),
            }
            if Self::hides(directory, name)? {
                break;
            }
        }
        Ok(merged.map_or(Node::Absent, |(layers, stat)| Node::Directory { layers, stat }))
    }

    fn hides(directory: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
        match beneath::open_directory(directory, beneath::part(name)) {
            Ok(inner) => beneath::is_opaque(inner),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The directory of one layer.
    pub(crate) fn part(&self, layer: usize) -> Option<&OwnedFd> {
        self.parts.iter().find(|(part, _)| *part == layer).map(|(_, directory)| directory)
    }

    /// Whether a layer takes part.
    pub(crate) fn has(&self, layer: usize) -> bool {
        self.part(layer).is_some()
    }

    /// The layers that take part.
    pub(crate) fn layers(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|(layer, _)| *layer)
    }

    /// Adds the names that some layers have here.
    pub(crate) fn collect(&self, from: impl Fn(usize) -> bool, into: &mut Names) -> Result<(), Errno> {
        for (_, directory) in self.parts.iter().filter(|(layer, _)| from(*layer)) {
            for name in beneath::names(directory)?.iter() {
                into.add(name)?;
            }
        }
        Ok(())
    }
}
