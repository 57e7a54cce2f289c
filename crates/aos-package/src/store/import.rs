//! Importing an archive: verified in a spool, unpacked beside it, then adopted by the store.

use super::disk::failed;
use super::files::{make_directory, sync_all_below};
use super::unpack::{Layer, UnpackError, has_program, unpack};
use super::{State, Store, StoreError, StoredPackage};
use crate::archive::{self, Archive, ArchiveError};
use aos_core::config::RootKind;
use aos_core::id::Digest;
use std::error::Error as StdError;
use std::io::{self, Read};
use std::path::Path;
use thiserror::Error;

/// Why an archive is not imported. The store is as before.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The disk is full.
    #[error("no space left for the package: free some, or remove packages that nobody uses")]
    NoSpace(#[source] Box<ImportError>),
    /// The archive is refused.
    #[error("the archive is refused")]
    Archive(#[from] ArchiveError),
    /// The layers are refused.
    #[error("the package's files are refused")]
    Unpack(#[from] UnpackError),
    /// The package's root is not fit to be run.
    #[error("the package cannot run: {0}")]
    Unfit(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an import changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The package is new.
    Installed,
    /// It was there already, under this name.
    Unchanged,
    /// Its name meant another package, which is kept until nobody uses it.
    Replaced(Digest),
}

/// An imported package.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The package.
    pub package: StoredPackage,
    /// What changed.
    pub change: Change,
}

impl Store {
    /// Imports an archive: verifies every byte, unpacks it and gives it the tag `name:version`.
    /// After an error or a crash nothing of it stays.
    pub fn import(&self, input: impl Read) -> Result<Imported, ImportError> {
        self.import_archive(input)
            .map_err(|error| if is_no_space(&error) { ImportError::NoSpace(Box::new(error)) } else { error })
    }

    fn import_archive(&self, input: impl Read) -> Result<Imported, ImportError> {
        let tmp = &self.paths.tmp;
        // Removed when it goes out of scope, on every path out of here.
        let work = tempfile::Builder::new()
            .prefix("import-")
            .tempdir_in(tmp)
            .map_err(failed("make files in", tmp))?;
        let (spool, rootfs) = (work.path().join("blobs"), work.path().join("rootfs"));
        make_directory(&spool, 0o700).map_err(failed("make", &spool))?;
        make_directory(&rootfs, 0o755).map_err(failed("make", &rootfs))?;

        let archive = archive::read(input, &spool)?;
        if let Some(imported) = self.known(&mut self.state(), &archive)? {
            return Ok(imported);
        }
        unpack_archive(&archive, &rootfs)?;
        check_root(&archive, &rootfs)?;
        sync_all_below(tmp).map_err(failed("sync", tmp))?;

        let mut state = self.state();
        if let Some(imported) = self.known(&mut state, &archive)? {
            return Ok(imported);
        }
        let (package, replaced) =
            self.paths.change(&mut state, |paths, state| paths.adopt(state, &archive, &rootfs))?;
        Ok(Imported { package, change: replaced.map_or(Change::Installed, Change::Replaced) })
    }

    /// The package, when it is there already. Its name means it again if it had lost it.
    fn known(&self, state: &mut State, archive: &Archive) -> Result<Option<Imported>, StoreError> {
        let digest = archive.manifest.digest;
        let Some(held) = state.held.get(&digest) else { return Ok(None) };
        let was_tagged = held.package.tagged;
        let replaced = self.paths.change(state, |paths, state| paths.tag(state, digest))?;
        let change = match (was_tagged, replaced) {
            (true, _) => Change::Unchanged,
            (false, Some(other)) => Change::Replaced(other),
            (false, None) => Change::Installed,
        };
        Ok(state.held.get(&digest).map(|held| Imported { package: held.package.clone(), change }))
    }
}

fn unpack_archive(archive: &Archive, rootfs: &Path) -> Result<(), UnpackError> {
    let open = |digest: &Digest| {
        let path = archive.spool.join(digest.hex());
        move || std::fs::File::open(&path)
    };
    let openers: Vec<_> = archive.layers.iter().map(|(layer, _)| open(&layer.digest)).collect();
    let layers: Vec<_> = archive
        .layers
        .iter()
        .zip(&openers)
        .map(|((descriptor, diff_id), open)| Layer { descriptor, diff_id: *diff_id, open })
        .collect();
    unpack(&layers, rootfs)
}

/// Checks what the launcher relies on: on the host's root, the package's top has directories only,
/// so that mounting one never follows a link; and the program is there.
fn check_root(archive: &Archive, rootfs: &Path) -> Result<(), ImportError> {
    let agent = &archive.package.agent;
    let program = &agent.run.entrypoint.program;
    let read = |error: io::Error| ImportError::Store(failed("read", rootfs)(error));
    let mut at_top = false;
    for entry in std::fs::read_dir(rootfs).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        if agent.root == RootKind::Host && !entry.file_type().map_err(read)?.is_dir() {
            let message = format!(
                "`/{}` is not a directory; on the host's root all files are in directories",
                name.display()
            );
            return Err(ImportError::Unfit(message));
        }
        at_top |= program.segments().next().is_some_and(|top| name == *top);
    }
    // Beside the package's own files the host's `/usr` is seen, and what is granted for executing.
    let of_host = program.segments().next() == Some("usr") || !at_top;
    if agent.root == RootKind::Host && of_host {
        return Ok(());
    }
    match has_program(rootfs, program.as_str()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ImportError::Unfit(format!("its entrypoint `{program}` is not a program in it"))),
        Err(errno) => Err(read(errno.into())),
    }
}

/// True when the disk or a quota is full, anywhere in the chain of causes.
fn is_no_space(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
