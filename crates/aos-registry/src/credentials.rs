//! Credentials of registries, from the file that docker, skopeo, podman and others write
//! (`~/.docker/config.json`, `auth.json`; containers-auth.json(5)).
//!
//! Credential helpers are programs; this crate executes nothing. A registry whose credentials are
//! in a helper is an error that names the helper, as soon as the registry asks for credentials.
//! Secrets are wiped when dropped and have no `Debug`.

use crate::bounds::{FILE_MAX, SECRET_MAX};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// Base64 as docker writes it; some tools leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a file of credentials cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read the credentials in `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("the file of credentials `{}` has more than {FILE_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    /// It is not what docker writes.
    #[error("the file of credentials `{}` is not valid: {reason}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, and what was expected; without the text, which is secret.
        reason: String,
    },
    /// An entry is not what docker writes.
    #[error("the credentials of `{registry}` in `{}` are not valid: {reason}", .path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The registry.
        registry: String,
        /// What was expected; without the text, which is secret.
        reason: &'static str,
    },
}

/// A secret text: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How to log in to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, which a token service exchanges (`identitytoken`).
    Identity(Secret),
    /// A token for the registry itself (`registrytoken`).
    Token(Secret),
    /// Kept by the program `docker-credential-NAME`, which is not executed.
    Helper(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: Option<Secret>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    identitytoken: Option<Secret>,
    #[serde(default)]
    registrytoken: Option<Secret>,
}

/// Credentials by registry. Keys are `HOST[:PORT][/PATH]`; the longest that fits wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    entries: BTreeMap<String, Credential>,
    store: Option<String>,
}

impl DockerConfig {
    /// Reads a file; none that is absent.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let read = |source| CredentialsError::Read { path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(read(error)),
        };
        let mut text = Zeroizing::new(Vec::new());
        file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(read)?;
        if text.len() as u64 > FILE_MAX {
            return Err(CredentialsError::TooLarge(path.to_owned()));
        }
        Self::parse(&text, path)
    }

    /// Parses the contents of a file; `path` is for messages.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, CredentialsError> {
        let file: File = serde_json::from_slice(text).map_err(|error| CredentialsError::Json {
            path: path.to_owned(),
            reason: format!(
                "{:?} error at line {}, column {}",
                error.classify(),
                error.line(),
                error.column()
            ),
        })?;
        let store = Some(file.creds_store).filter(|name| !name.is_empty());
        let mut entries = BTreeMap::new();
        for (registry, entry) in file.auths {
            let bad = |reason| CredentialsError::Entry {
                path: path.to_owned(),
                registry: registry.clone(),
                reason,
            };
            match (credential(entry).map_err(bad)?, &store) {
                (Some(credential), _) => drop(entries.insert(key(&registry), credential)),
                // An empty entry says that the store has it.
                (None, Some(helper)) => {
                    drop(entries.insert(key(&registry), Credential::Helper(helper.clone())))
                }
                (None, None) => {}
            }
        }
        for (registry, helper) in file.cred_helpers {
            entries.insert(key(&registry), Credential::Helper(helper));
        }
        Ok(Self { entries, store })
    }

    /// Adds a credential, or replaces it. `registry` is `HOST[:PORT][/PATH]`.
    pub fn insert(&mut self, registry: &str, credential: Credential) {
        self.entries.insert(key(registry), credential);
    }

    /// Takes what the other has and this has not.
    pub fn or(mut self, other: Self) -> Self {
        for (registry, credential) in other.entries {
            self.entries.entry(registry).or_insert(credential);
        }
        self.store = self.store.or(other.store);
        self
    }

    /// The credential of a repository: of the longest prefix of its path, else of its registry.
    pub(crate) fn of(&self, registry: &str, repository: &str) -> Option<&Credential> {
        let mut name = format!("{registry}/{repository}");
        loop {
            if let Some(found) = self.entries.get(&name) {
                return Some(found);
            }
            name.truncate(name.rfind('/')?);
        }
    }

    /// The program that may have a credential which the file does not list.
    pub(crate) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }
}

/// `https://HOST/v1/` and `HOST` are the same registry: docker writes both.
fn key(text: &str) -> String {
    let bare = ["https://", "http://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
    let name = bare.unwrap_or(text).trim_end_matches('/');
    let name = ["/v1", "/v2"].into_iter().find_map(|version| name.strip_suffix(version)).unwrap_or(name);
    // Docker Hub has three names: the user's, that of docker's files, and that of its API.
    let name = if ["index.docker.io", "registry-1.docker.io"].contains(&name) { "docker.io" } else { name };
    name.to_ascii_lowercase()
}

fn credential(entry: Entry) -> Result<Option<Credential>, &'static str> {
    let given = |secret: Option<Secret>| match secret.filter(|secret| !secret.expose().is_empty()) {
        Some(secret) if secret.expose().len() > SECRET_MAX => {
            Err("a secret is longer than any registry takes")
        }
        secret => Ok(secret),
    };
    if let Some(token) = given(entry.identitytoken)? {
        return Ok(Some(Credential::Identity(token)));
    }
    if let Some(token) = given(entry.registrytoken)? {
        return Ok(Some(Credential::Token(token)));
    }
    if let Some(auth) = given(entry.auth)? {
        return basic(&auth).map(Some);
    }
    match (entry.username, given(entry.password)?) {
        (Some(user), Some(password)) if !user.is_empty() => Ok(Some(Credential::Basic { user, password })),
        _ => Ok(None),
    }
}

/// Decodes `auth`: base64 of `USER:PASSWORD`.
fn basic(auth: &Secret) -> Result<Credential, &'static str> {
    const EXPECTED: &str = "`auth` must be base64 of USER:PASSWORD";
    let bytes = Zeroizing::new(BASE64.decode(auth.expose()).map_err(|_| EXPECTED)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| EXPECTED)?;
    let (user, password) = text.split_once(':').ok_or(EXPECTED)?;
    // Docker pads the decoded text with NUL in old files.
    let password = password.trim_end_matches('\0');
    Ok(Credential::Basic { user: user.to_owned(), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DockerConfig, CredentialsError> {
        DockerConfig::parse(text.as_bytes(), Path::new("config.json"))
    }

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic { user: user.to_owned(), password: Secret::new(password) }
    }

    #[test]
    fn entries_of_every_kind() {
        // "dTpwOnc=" is base64 of "u:p:w".
        let config = parse(
            r#"{"auths": {"https://Reg.Example/v1/": {"auth": "dTpwOnc="}, "reg.example/team": {"auth": "dTpwOnc", "email": "x"},
                "plain.example:5000": {"username": "a", "password": "b"}, "id.example": {"auth": "", "identitytoken": "t"},
                "token.example": {"registrytoken": "r"}, "nothing.example": {}}, "HttpHeaders": {}}"#,
        )
        .unwrap();
        assert_eq!(config.of("reg.example", "web"), Some(&basic("u", "p:w")));
        assert_eq!(config.of("reg.example", "team/web"), Some(&basic("u", "p:w")));
        assert_eq!(config.of("plain.example:5000", "web"), Some(&basic("a", "b")));
        assert_eq!(config.of("plain.example", "web"), None);
        assert_eq!(config.of("id.example", "x"), Some(&Credential::Identity(Secret::new("t"))));
        assert_eq!(config.of("token.example", "x"), Some(&Credential::Token(Secret::new("r"))));
        assert_eq!(config.of("nothing.example", "x"), None);
        assert!(!format!("{config:?}").contains("p:w"));
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut config = DockerConfig::default();
        config.insert("reg.example", basic("all", ""));
        config.insert("reg.example/team", basic("team", ""));
        assert_eq!(config.of("reg.example", "team/web"), Some(&basic("team", "")));
        assert_eq!(config.of("reg.example", "teams/web"), Some(&basic("all", "")));
        assert_eq!(config.of("reg.example.evil", "team/web"), None);
    }

    #[test]
    fn docker_hub_has_its_old_name() {
        let config = parse(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}"#).unwrap();
        assert_eq!(config.of("docker.io", "library/debian"), Some(&basic("u", "p")));
    }

    #[test]
    fn helpers_are_named() {
        let config = parse(
            r#"{"auths": {"a.example": {}, "b.example": {"auth": "dTpw"}}, "credsStore": "desktop", "credHelpers": {"c.example": "gcloud"}}"#,
        )
        .unwrap();
        assert_eq!(config.of("a.example", "x"), Some(&Credential::Helper("desktop".to_owned())));
        assert_eq!(config.of("b.example", "x"), Some(&basic("u", "p")));
        assert_eq!(config.of("c.example", "x"), Some(&Credential::Helper("gcloud".to_owned())));
        assert_eq!((config.of("d.example", "x"), config.store()), (None, Some("desktop")));
    }

    #[test]
    fn errors_do_not_repeat_secrets() {
        for text in [
            r#"{"auths": {"reg.example": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"reg.example": {"auth": "c2VjcmV0!!"}}}"#,
            r#"{"auths": {"reg.example": "c2VjcmV0"}}"#,
            r#"{"auths": c2VjcmV0"#,
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.contains("config.json") && !error.contains("c2Vj") && !error.contains("secret"),
                "{error}"
            );
        }
        assert_eq!(
            DockerConfig::load(Path::new("/nonexistent/config.json")).unwrap(),
            DockerConfig::default()
        );
    }
}
