//! A person's keys: a directory with `NAME.key` (mode 0600, encrypted PKCS#8 PEM) and `NAME.pub`
//! (mode 0644, SPKI PEM) for each key. A key of somebody else has only `NAME.pub`.
//!
//! The directory belongs to its user and nobody else may write to it. Files are written whole or
//! not at all and never replaced: a lost private key cannot be had back, so removing one is left
//! to `rm`. Of two programs that make the same name at the same time, one is refused.

use super::{KeyError, KeyId, PEM_MAX, Passphrase, PrivateKey, PublicKey};
use crate::file::{self, Demand, FileError};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use thiserror::Error;
use zeroize::Zeroizing;

/// Characters of a key's name: it is a file name with an ending of four.
const NAME_MAX: usize = 63;
/// Keys that are listed. A person has a handful; a directory with more is something else.
const KEYS_MAX: usize = 1000;

/// The name of a key: 1 to 63 characters of `[A-Za-z0-9._-]`, a letter or digit first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

/// Why a text is not the name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a key's name has 1 to {NAME_MAX} characters of a-z, A-Z, 0-9, `.`, `_` and `-`, a letter or digit first"
)]
pub struct KeyNameError;

impl KeyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, KeyNameError> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let good = (1..=NAME_MAX).contains(&text.len())
            && text.chars().all(inner)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if good { Ok(Self(text.to_owned())) } else { Err(KeyNameError) }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a key directory cannot do what was asked.
#[derive(Debug, Error)]
pub enum KeyDirectoryError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no good key.
    #[error("{} is not usable", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The key itself cannot be made or written.
    #[error(transparent)]
    New(KeyError),
    /// There is no key of that name.
    #[error("there is no key {name} in {}; `aos key list` shows all, `aos key generate {name}` makes it", directory.display())]
    Missing {
        /// The name.
        name: KeyName,
        /// The directory.
        directory: PathBuf,
    },
    /// There is only a public key of that name.
    #[error("of key {name} only the public half is in {}: it can verify, not sign", directory.display())]
    PublicOnly {
        /// The name.
        name: KeyName,
        /// The directory.
        directory: PathBuf,
    },
    /// The two files of a name are not one key.
    #[error("{name}.key and {name}.pub in {} are not a pair", directory.display())]
    NotAPair {
        /// The name.
        name: KeyName,
        /// The directory.
        directory: PathBuf,
    },
    /// The directory has more files than it can have keys.
    #[error("{} holds more than {KEYS_MAX} keys", .0.display())]
    TooMany(PathBuf),
}

/// Whether the private half of a key is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Private {
    /// It is: the key can sign.
    Present,
    /// It is not: the key can verify.
    Absent,
}

/// One key of a directory.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: KeyName,
    /// Whether it can sign.
    pub private: Private,
    /// The public key, or why it cannot be read.
    pub public: Result<PublicKey, KeyDirectoryError>,
}

/// A directory of keys. Nothing is touched before a method is called.
#[derive(Debug, Clone)]
pub struct KeyDirectory {
    path: PathBuf,
}

impl KeyDirectory {
    /// The directory at `path`; the first key that is written makes it, with mode 0700.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new key.
    pub fn generate(&self, name: &KeyName, passphrase: &Passphrase) -> Result<PublicKey, KeyDirectoryError> {
        let key = PrivateKey::generate().map_err(KeyDirectoryError::New)?;
        self.store(name, &key, passphrase)
    }

    /// Stores a private key, encrypted with `passphrase`.
    pub fn import(
        &self,
        name: &KeyName,
        key: &PrivateKey,
        passphrase: &Passphrase,
    ) -> Result<PublicKey, KeyDirectoryError> {
        self.store(name, key, passphrase)
    }

    /// Stores somebody's public key.
    pub fn import_public(&self, name: &KeyName, key: &PublicKey) -> Result<(), KeyDirectoryError> {
        self.prepare()?;
        self.create_public(name, key)
    }

    /// The public key of that name.
    pub fn public(&self, name: &KeyName) -> Result<PublicKey, KeyDirectoryError> {
        let path = self.file(name, "pub");
        let text = self.read(name, &path, Demand::Trusted)?;
        PublicKey::from_pem(&text).map_err(|source| KeyDirectoryError::Key { path, source })
    }

    /// The private key of that name, which must be a pair with the public one.
    pub fn private(&self, name: &KeyName, passphrase: &Passphrase) -> Result<PrivateKey, KeyDirectoryError> {
        let text = self.private_pem(name)?;
        let path = self.file(name, "key");
        let key = PrivateKey::from_pem(&text, Some(passphrase))
            .map_err(|source| KeyDirectoryError::Key { path, source })?;
        if self.public(name)?.id() != key.public().id() {
            return Err(KeyDirectoryError::NotAPair { name: name.clone(), directory: self.path.clone() });
        }
        Ok(key)
    }

    /// The encrypted text of the private key of that name, for export.
    pub fn private_pem(&self, name: &KeyName) -> Result<Zeroizing<String>, KeyDirectoryError> {
        let path = self.file(name, "key");
        self.read(name, &path, Demand::Secret).map_err(|error| match error {
            KeyDirectoryError::Missing { .. } if self.file(name, "pub").exists() => {
                KeyDirectoryError::PublicOnly { name: name.clone(), directory: self.path.clone() }
            }
            error => error,
        })
    }

    /// All keys by name. A directory that is not there has none.
    pub fn list(&self) -> Result<Vec<Entry>, KeyDirectoryError> {
        let mut names = BTreeMap::new();
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| FileError::io("read", &self.path, error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| FileError::io("read", &self.path, error))?;
            let file_name = entry.file_name();
            let Some((name, ending)) = file_name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            let private = match ending {
                "key" => Private::Present,
                "pub" => Private::Absent,
                _ => continue,
            };
            let Ok(name) = name.parse::<KeyName>() else { continue };
            let known = names.entry(name).or_insert(private);
            if private == Private::Present {
                *known = private;
            }
            if names.len() > KEYS_MAX {
                return Err(KeyDirectoryError::TooMany(self.path.clone()));
            }
        }
        Ok(names
            .into_iter()
            .map(|(name, private)| Entry { public: self.public(&name), name, private })
            .collect())
    }

    /// The public key with this id, if the directory has one that can be read.
    pub fn find(&self, id: &KeyId) -> Result<Option<(KeyName, PublicKey)>, KeyDirectoryError> {
        let found = self.list()?.into_iter().find_map(|entry| match entry.public {
            Ok(key) if key.id() == *id => Some((entry.name, key)),
            _ => None,
        });
        Ok(found)
    }

    fn file(&self, name: &KeyName, ending: &str) -> PathBuf {
        self.path.join(format!("{name}.{ending}"))
    }

    fn read(
        &self,
        name: &KeyName,
        path: &Path,
        demand: Demand,
    ) -> Result<Zeroizing<String>, KeyDirectoryError> {
        let bytes = match file::read(path, PEM_MAX, demand) {
            Err(error) if error.is_missing() => {
                let directory = self.path.clone();
                return Err(KeyDirectoryError::Missing { name: name.clone(), directory });
            }
            other => Zeroizing::new(other?),
        };
        let form = || KeyError::Form { expected: "key", found: "it is not text" };
        let text = str::from_utf8(&bytes)
            .map_err(|_| KeyDirectoryError::Key { path: path.to_owned(), source: form() })?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// Makes the directory if it is not there, and checks it.
    fn prepare(&self) -> Result<(), KeyDirectoryError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| FileError::io("create", &self.path, error))?;
        Ok(file::check_directory(&self.path, Demand::Trusted)?)
    }

    fn create_public(&self, name: &KeyName, key: &PublicKey) -> Result<(), KeyDirectoryError> {
        let pem = key.to_pem().map_err(KeyDirectoryError::New)?;
        Ok(file::create(&self.file(name, "pub"), pem.as_bytes(), 0o644)?)
    }

    fn store(
        &self,
        name: &KeyName,
        key: &PrivateKey,
        passphrase: &Passphrase,
    ) -> Result<PublicKey, KeyDirectoryError> {
        self.prepare()?;
        let (private, public) = (self.file(name, "key"), self.file(name, "pub"));
        if let Some(path) = [&private, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(FileError::Exists(path.clone()).into());
        }
        let pem = key.to_pem(passphrase).map_err(KeyDirectoryError::New)?;
        // The public half first: a private key that is there has its pair.
        self.create_public(name, key.public())?;
        if let Err(error) = file::create(&private, pem.as_bytes(), 0o600) {
            return match std::fs::remove_file(&public) {
                Ok(()) => Err(error.into()),
                Err(source) => Err(FileError::io("remove", &public, source).into()),
            };
        }
        Ok(key.public().clone())
    }
}
