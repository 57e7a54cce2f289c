//! Where an agent is learnt from: a temporary directory with the unpacked package, and its workspace.
//!
//! Layout, below `TMPDIR` or `/var/tmp`: `aos-learn-RANDOM/{root,runs}`. Of root's, the directories
//! can be passed by the agent's user, who is nobody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aos_build::Built;
use aos_build::run::remove_tree;
use aos_learn::Workspace;
use aos_package::unpack::{Modes, Options};
use aos_sandbox::launch::options::User;

use crate::contents;
use crate::environment;
use crate::store::UserStore;

/// The place; it is removed by [`Place::clear`], or as far as possible when it is dropped.
pub(super) struct Place {
    directory: tempfile::TempDir,
    rootfs: PathBuf,
    workspace: Workspace,
    account: Option<User>,
}

impl Place {
    /// Unpacks a package.
    pub(super) fn make(store: &UserStore, built: &Built, workspace: Option<&Path>) -> Result<Self> {
        let above = environment::temporary_directory();
        let failed = || format!("cannot make a place in {}", above.display());
        let above_real = above.canonicalize().with_context(failed)?;
        let directory =
            tempfile::Builder::new().prefix("aos-learn-").tempdir_in(above_real).with_context(failed)?;
        let (rootfs, runs) = (directory.path().join("root"), directory.path().join("runs"));
        let account = account(workspace)?;
        let open = if account.is_some() { 0o711 } else { 0o700 };
        for (path, mode) in [(directory.path(), open), (&rootfs, 0o755), (&runs, open)] {
            if path != directory.path() {
                fs::create_dir(path).with_context(failed)?;
            }
            fs::set_permissions(path, Permissions::from_mode(mode)).with_context(failed)?;
        }
        let (manifest, config) = store.package(&built.manifest)?;
        let options = Options { modes: Modes::Plain };
        contents::unpack(store.repository(), &manifest.layers, &config, &rootfs, options)?;
        let workspace = match workspace {
            None => Workspace::Fresh(runs),
            Some(path) => Workspace::Kept(existing(path)?),
        };
        Ok(Self { directory, rootfs, workspace, account })
    }

    /// The unpacked package.
    pub(super) fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// The agent's own data.
    pub(super) fn workspace(&self) -> Workspace {
        self.workspace.clone()
    }

    /// The user that the agent runs as, when that is not the caller.
    pub(super) const fn account(&self) -> Option<User> {
        self.account
    }

    /// Removes all of it, whatever the agent left.
    pub(super) fn clear(self) -> Result<()> {
        let path = self.directory.keep();
        remove_tree(&path).with_context(|| format!("cannot remove {}", path.display()))
    }
}

fn existing(path: &Path) -> Result<PathBuf> {
    let failed = || format!("cannot use {} as the workspace", path.display());
    let path = path.canonicalize().with_context(failed)?;
    if !path.is_dir() {
        bail!("{} is not a folder", path.display());
    }
    Ok(path)
}

/// Of root's agents, the owner of the workspace that was named, or a user that nobody is: an agent
/// never runs as root.
fn account(workspace: Option<&Path>) -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner =
        workspace.map(|path| path.metadata().with_context(|| format!("cannot look at {}", path.display())));
    let owner = owner.transpose()?.filter(|found| found.uid() != 0 && found.gid() != 0);
    Ok(Some(match owner {
        Some(found) => User { uid: found.uid(), gid: found.gid() },
        None => {
            let nobody = aos_build::run::Account::of_process();
            User { uid: nobody.uid, gid: nobody.gid }
        }
    }))
}
