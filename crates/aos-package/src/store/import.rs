//! Importing an archive: verified in a spool, unpacked beside it, then adopted by the store.

use super::unpack::{Layer, UnpackError, has_program, unpack};
use super::{State, Store, StoreError, StoredPackage};
use crate::archive::{self, Archive, ArchiveError};
use crate::repository::{
    Lease, Origin, RepositoryError, failed, is_no_space, make_directory, sync_all_below,
};
use aos_core::config::RootKind;
use aos_core::id::Digest;
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
    /// It must not be installed.
    #[error("the package is refused: {0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RepositoryError> for ImportError {
    fn from(error: RepositoryError) -> Self {
        Self::Store(error.into())
    }
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
        self.import_if(input, |_| Ok(()))
    }

    /// Imports an archive that `admit` admits, which is asked once every byte is verified and
    /// nothing is unpacked, and says why if it refuses.
    pub fn import_if(
        &self,
        input: impl Read,
        admit: impl FnOnce(&Archive) -> Result<(), String>,
    ) -> Result<Imported, ImportError> {
        let imported = self.import_archive(input, admit).map_err(|error| match error {
            // The lease is gone, and what it kept is garbage.
            ImportError::Store(error) => ImportError::Store(self.recover(&mut self.state(), error)),
            other => other,
        });
        imported
            .map_err(|error| if is_no_space(&error) { ImportError::NoSpace(Box::new(error)) } else { error })
    }

    fn import_archive(
        &self,
        input: impl Read,
        admit: impl FnOnce(&Archive) -> Result<(), String>,
    ) -> Result<Imported, ImportError> {
        // Its directory goes with it, on every path out of here.
        let lease = self.repository.lease()?;
        let (spool, rootfs) = (lease.directory().join("blobs"), lease.directory().join("rootfs"));
        make_directory(&spool, 0o700).map_err(failed("make", &spool))?;
        make_directory(&rootfs, 0o755).map_err(failed("make", &rootfs))?;

        let archive = archive::read(input, &spool)?;
        admit(&archive).map_err(ImportError::Refused)?;
        if let Some(imported) = self.known(&mut self.state(), &lease, &archive)? {
            return Ok(imported);
        }
        unpack_archive(&archive, &rootfs)?;
        check_root(&archive, &rootfs)?;
        sync_all_below(&spool).map_err(failed("sync", &spool))?;

        let mut state = self.state();
        if let Some(imported) = self.known(&mut state, &lease, &archive)? {
            return Ok(imported);
        }
        self.repository.adopt(&lease, &archive)?;
        let rootfs = self.roots.adopt(&archive.manifest.digest, &rootfs)?;
        let package = StoredPackage {
            digest: archive.manifest.digest,
            agent: archive.package.agent.clone(),
            architecture: archive.package.architecture.clone(),
            size: archive.package_blobs().values().sum(),
            rootfs,
            tagged: true,
        };
        self.attach(&lease, &archive)?;
        let replaced = self.list_package(&mut state, &archive, package.clone())?;
        Ok(Imported { package, change: replaced.map_or(Change::Installed, Change::Replaced) })
    }

    /// Lists what came with a package.
    fn attach(&self, lease: &Lease, archive: &Archive) -> Result<(), StoreError> {
        for (entry, _) in &archive.attachments {
            self.repository.attach(lease, entry)?;
        }
        Ok(())
    }

    /// Gives a complete package its tag, and returns the one that had it.
    fn list_package(
        &self,
        state: &mut State,
        archive: &Archive,
        package: StoredPackage,
    ) -> Result<Option<Digest>, StoreError> {
        let (digest, name) = (package.digest, package.reference().to_string());
        let replaced = self.repository.tag_as(&name, &archive.manifest, Origin::Imported)?;
        if let Some(old) = replaced.and_then(|old| state.held.get_mut(&old)) {
            old.tagged = false;
        }
        state.damaged.retain(|damaged| damaged.digest != digest);
        state.held.insert(digest, package);
        Ok(replaced)
    }

    /// The package, when it is there already. Its name means it again if it had lost it, and what
    /// is attached to it in this archive and not in the store comes to it.
    fn known(
        &self,
        state: &mut State,
        lease: &Lease,
        archive: &Archive,
    ) -> Result<Option<Imported>, StoreError> {
        let Some(held) = state.held.get(&archive.manifest.digest) else { return Ok(None) };
        let was_tagged = held.tagged;
        let package = StoredPackage { tagged: true, ..held.clone() };
        if !archive.attachments.is_empty() {
            sync_all_below(&archive.spool).map_err(failed("sync", &archive.spool))?;
            self.repository.adopt(lease, archive)?;
            self.attach(lease, archive)?;
        }
        let replaced = self.list_package(state, archive, package.clone())?;
        let change = match (was_tagged, replaced) {
            (true, _) => Change::Unchanged,
            (false, Some(other)) => Change::Replaced(other),
            (false, None) => Change::Installed,
        };
        Ok(Some(Imported { package, change }))
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
    let program = agent.run.as_ref().map(|run| &run.entrypoint.program);
    let read = |error: io::Error| ImportError::from(failed("read", rootfs)(error));
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
        at_top |= program.is_some_and(|program| program.segments().next().is_some_and(|top| name == *top));
    }
    // What is never started has no program to look for.
    let Some(program) = program else { return Ok(()) };
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
