//! The files that `aos configure` reads and writes, below a root directory that tests replace.
//!
//! Every write is a new file beside the old one, synced and renamed: a reader sees the old text or the new
//! one, and a full disk leaves the old one. A target that is no regular file is refused.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::access::{PublicKey, RootAccess};
use super::network::{NETWORK_FILE, StaticNetwork};
use super::provider::{PROVIDERS_DIR, ProviderChange, ProviderName, ProviderState};

/// Its presence means that the first boot's questions are answered.
pub(crate) const STAMP: &str = "/etc/aos/configured";
/// Where systemd looks for encrypted credentials (systemd.exec(5), `LoadCredentialEncrypted=`).
const CREDSTORE: &str = "/etc/credstore.encrypted";
/// Root's SSH keys.
const AUTHORIZED_KEYS: &str = "/root/.ssh/authorized_keys";

/// The machine's files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    /// The files below `root`; `/` for this machine.
    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Whether root has a password that works, and the number of its keys.
    pub(crate) fn root_access(&self) -> Result<RootAccess> {
        let shadow = read_text(&self.path("/etc/shadow"))?.unwrap_or_default();
        let password = shadow
            .lines()
            .filter_map(|line| line.strip_prefix("root:"))
            .any(|rest| rest.split(':').next().is_some_and(is_usable_hash));
        let keys = self.root_keys()?.lines().filter(|line| PublicKey::parse(line.trim()).is_ok()).count();
        Ok(RootAccess { password, keys })
    }

    fn root_keys(&self) -> Result<String> {
        Ok(read_text(&self.path(AUTHORIZED_KEYS))?.unwrap_or_default())
    }

    /// Appends a key to root's keys; false when it is there already. Lines with options or comments that this
    /// program does not understand stay as they are.
    pub(crate) fn add_root_key(&self, key: &PublicKey) -> Result<bool> {
        let mut text = self.root_keys()?;
        let mut present = text.lines().filter_map(|line| PublicKey::parse(line.trim()).ok());
        if present.any(|other| other.same_key(key)) {
            return Ok(false);
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&key.line());
        text.push('\n');
        self.replace(AUTHORIZED_KEYS, text.as_bytes(), 0o600, 0o700)?;
        Ok(true)
    }

    /// Writes the static network configuration.
    pub(crate) fn write_network(&self, network: &StaticNetwork) -> Result<()> {
        self.replace(NETWORK_FILE, network.file().as_bytes(), 0o644, 0o755)
    }

    /// What is known of a provider.
    pub(crate) fn provider(&self, name: &ProviderName) -> Result<ProviderState> {
        let file = read_text(&self.path(&provider_file(name)))?;
        let has_key = self.path(&credential_file(name)).is_file();
        Ok(ProviderState { file, has_key })
    }

    /// Changes a provider's file; false when it needs no change.
    pub(crate) fn write_provider(&self, change: &ProviderChange) -> Result<bool> {
        let path = provider_file(&change.name);
        let current = read_text(&self.path(&path))?;
        let edited =
            change.edit(current.as_deref()).map_err(|problem| anyhow::anyhow!("{path}: {problem}"))?;
        match edited {
            Some(text) => self.replace(&path, text.as_bytes(), 0o644, 0o755).map(|()| true),
            None => Ok(false),
        }
    }

    /// Stores a provider's sealed key.
    pub(crate) fn write_sealed_key(&self, name: &ProviderName, sealed: &[u8]) -> Result<()> {
        self.replace(&credential_file(name), sealed, 0o600, 0o700)
    }

    /// Writes the stamp.
    pub(crate) fn write_stamp(&self) -> Result<()> {
        let text = format!("# `aos configure` {} ran to its end.\n", env!("CARGO_PKG_VERSION"));
        self.replace(STAMP, text.as_bytes(), 0o644, 0o755)
    }

    /// Replaces a file whole, with this mode; a missing folder is made with `folder_mode`.
    fn replace(&self, absolute: &str, bytes: &[u8], mode: u32, folder_mode: u32) -> Result<()> {
        let path = self.path(absolute);
        let folder = path.parent().with_context(|| format!("{absolute} has no folder"))?;
        write_beside(&path, folder, bytes, mode, folder_mode)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn provider_file(name: &ProviderName) -> String {
    format!("{PROVIDERS_DIR}/{}.toml", name.as_str())
}

fn credential_file(name: &ProviderName) -> String {
    format!("{CREDSTORE}/{}", name.credential())
}

/// A hash that somebody can log in with: not empty, not locked (shadow(5)).
fn is_usable_hash(field: &str) -> bool {
    !field.is_empty() && !field.starts_with(['!', '*'])
}

/// The text of a file; `None` when it is missing.
fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write_beside(path: &Path, folder: &Path, bytes: &[u8], mode: u32, folder_mode: u32) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => bail!("it is there and is not a regular file"),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    fs::DirBuilder::new().recursive(true).mode(folder_mode).create(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".aos-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    // The mode at creation passes the umask; this is the mode meant.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(File::open(folder)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::super::provider::BaseUrl;
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBA test@example";

    fn machine() -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        let files = Files::below(root.path());
        (root, files)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_locked_password_is_no_access() {
        let (root, files) = machine();
        for (field, usable) in [("*", false), ("!unprovisioned", false), ("", false), ("$y$j9T$a$b", true)] {
            fs::write(root.path().join("etc/shadow"), format!("root:{field}:1::::::\nx:$y$:1\n")).unwrap();
            assert_eq!(files.root_access().unwrap().password, usable, "{field}");
        }
    }

    #[test]
    fn keys_are_appended_once_and_nothing_else_changes() {
        let (root, files) = machine();
        let path = root.path().join("root/.ssh/authorized_keys");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "# mine\nrestrict,command=\"x\" ssh-ed25519 AAAA old").unwrap();
        let key = PublicKey::parse(KEY).unwrap();
        assert!(files.add_root_key(&key).unwrap());
        assert!(!files.add_root_key(&key).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# mine\nrestrict,command=\"x\" ssh-ed25519 AAAA old\n{KEY}\n"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(files.root_access().unwrap().keys, 1);
    }

    #[test]
    fn folders_are_made_private_where_secrets_lie() {
        let (root, files) = machine();
        files.add_root_key(&PublicKey::parse(KEY).unwrap()).unwrap();
        let name = ProviderName::parse("openai").unwrap();
        files.write_sealed_key(&name, b"sealed").unwrap();
        assert_eq!(mode(&root.path().join("root/.ssh")), 0o700);
        assert_eq!(mode(&root.path().join("etc/credstore.encrypted")), 0o700);
        assert_eq!(mode(&root.path().join("etc/credstore.encrypted/aos.provider.openai")), 0o600);
        assert!(files.provider(&name).unwrap().has_key);
    }

    #[test]
    fn a_provider_file_is_edited_in_place() {
        let (root, files) = machine();
        let name = ProviderName::parse("lab").unwrap();
        let url = BaseUrl::parse("https://lab.example/v1").unwrap();
        let change = ProviderChange { name, base_url: Some(url), key: None };
        assert!(files.write_provider(&change).unwrap());
        assert!(!files.write_provider(&change).unwrap());
        let path = root.path().join("etc/aos/providers.d/lab.toml");
        fs::write(&path, "oops =").unwrap();
        let error = files.write_provider(&change).unwrap_err().to_string();
        assert!(error.contains("/etc/aos/providers.d/lab.toml"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "oops =");
    }

    #[test]
    fn a_link_in_place_of_a_file_is_refused() {
        let (root, files) = machine();
        fs::create_dir_all(root.path().join("etc/aos")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/aos/configured")).unwrap();
        assert!(files.write_stamp().is_err());
        let left: Vec<_> = fs::read_dir(root.path().join("etc/aos")).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}
