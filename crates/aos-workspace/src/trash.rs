//! Deleting trees of any shape: what is in a directory's directories is moved up into it before it goes, so that
//! neither stack nor descriptors grow with depth.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use aos_core::workspace::NodeKind;
use rustix::fs::{AtFlags, renameat, unlinkat};
use rustix::io::Errno;

use crate::beneath;

/// Names in a place that is emptied: nobody else makes any there.
#[derive(Debug, Default)]
pub(crate) struct Fresh(u64);

impl Fresh {
    /// A name that was not given before.
    pub(crate) fn name(&mut self) -> CString {
        self.0 += 1;
        CString::new(format!("{:016x}", self.0)).unwrap_or_default()
    }

    /// A name that nothing has in the directory: an earlier run may have left some.
    pub(crate) fn free(&mut self, directory: impl AsFd) -> Result<CString, Errno> {
        loop {
            let name = self.name();
            if beneath::look(&directory, &name)?.is_none() {
                return Ok(name);
            }
        }
    }
}

/// Deletes all that is in a directory.
pub(crate) fn empty(directory: &OwnedFd) -> Result<(), Errno> {
    let mut fresh = Fresh::default();
    loop {
        let names = beneath::some_names(directory)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names.iter() {
            match beneath::look(directory, name)? {
                None => {}
                Some(stat) if beneath::kind(&stat) == NodeKind::Directory => {
                    hollow(directory, name, &mut fresh)?;
                }
                Some(_) => unlinkat(directory, name, AtFlags::empty())?,
            }
        }
    }
}

/// Deletes a directory after moving the directories in it up.
fn hollow(directory: &OwnedFd, name: &CStr, fresh: &mut Fresh) -> Result<(), Errno> {
    let inner = beneath::open_directory(directory, beneath::part(name))?;
    loop {
        let names = beneath::some_names(&inner)?;
        if names.is_empty() {
            return unlinkat(directory, name, AtFlags::REMOVEDIR);
        }
        for name in names.iter() {
            match beneath::look(&inner, name)? {
                Some(stat) if beneath::kind(&stat) == NodeKind::Directory => {
                    renameat(&inner, name, directory, fresh.free(directory)?)?;
                }
                Some(_) => unlinkat(&inner, name, AtFlags::empty())?,
                None => {}
            }
        }
    }
}
