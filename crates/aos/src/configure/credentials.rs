//! Answers that come as credentials: from systemd, or from a stick.
//!
//! A credential is a file whose name says what it is. Those that systemd passed to the unit lie in
//! `$CREDENTIALS_DIRECTORY`; a stick has them in its folder `credstore/`. Only the names below are looked at,
//! only regular files are read, and each at most [`MAX_BYTES`] long. systemd itself applies
//! `passwd.hashed-password.root`, `ssh.authorized_keys.root` and `network.network.*` that reach it in its own
//! ways (SMBIOS, the boot loader); the first two are read here from a stick only, which systemd does not read.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;

use super::access::{AccessChange, Password, PublicKey};
use super::changes::Changes;
use super::hostname::Hostname;
use super::provider::{BaseUrl, ProviderChange, ProviderName, check_key};
use super::secret::Secret;
use super::timezone::TimeZone;

/// The longest credential taken.
const MAX_BYTES: u64 = 64 * 1024;

/// Where credentials were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// systemd's directory for this unit.
    Unit(PathBuf),
    /// The folder of a stick.
    Stick(PathBuf),
}

/// Whether the credentials say that the wizard runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Wizard {
    /// They do not say: it runs when nobody could log in.
    #[default]
    WhenNeeded,
    /// `aos.wizard` is `yes`.
    Always,
    /// `aos.wizard` is `no`.
    Never,
}

/// What the credentials say.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The valid ones.
    pub(crate) changes: Changes,
    /// Whether to ask.
    pub(crate) wizard: Wizard,
    /// What is wrong with the others, one line each, without their contents.
    pub(crate) problems: Vec<String>,
}

/// Reads all credentials; the first origin that has one wins.
pub(crate) fn read(origins: &[Origin], zones: &[String]) -> Answers {
    let mut answers = Answers::default();
    let mut reader = Reader { origins, problems: Vec::new() };
    answers.changes.hostname = reader.parsed("aos.hostname", Hostname::parse);
    answers.changes.time_zone = reader.parsed("aos.timezone", |text| TimeZone::parse(text, zones));
    answers.changes.provider = provider(&mut reader);
    answers.changes.access = access(&mut reader);
    let wizard = reader.parsed("aos.wizard", |text| match text {
        "yes" => Ok(Wizard::Always),
        "no" => Ok(Wizard::Never),
        _ => Err("it is `yes` or `no`".to_owned()),
    });
    answers.wizard = wizard.unwrap_or_default();
    answers.problems = reader.problems;
    answers
}

fn provider(reader: &mut Reader<'_>) -> Option<ProviderChange> {
    let name = reader.parsed("aos.provider", ProviderName::parse);
    let base_url = reader.parsed("aos.provider-base-url", BaseUrl::parse);
    let key = reader.text("aos.provider-key").and_then(|secret| match check_key(&secret) {
        Ok(()) => Some(secret),
        Err(problem) => {
            reader.problems.push(format!("credential aos.provider-key: {problem}"));
            None
        }
    });
    let Some(name) = name else {
        if key.is_some() || base_url.is_some() {
            reader.problems.push("credential aos.provider is missing: it names the provider".to_owned());
        }
        return None;
    };
    let change = ProviderChange { name, base_url, key };
    match change.edit(None) {
        Ok(_) => Some(change),
        Err(problem) => {
            reader.problems.push(format!("credential aos.provider: {problem}"));
            None
        }
    }
}

/// What systemd does not read from a stick itself.
fn access(reader: &mut Reader<'_>) -> AccessChange {
    let sticks: Vec<Origin> =
        reader.origins.iter().filter(|origin| matches!(origin, Origin::Stick(_))).cloned().collect();
    let mut stick = Reader { origins: &sticks, problems: Vec::new() };
    let password =
        stick.parsed("passwd.hashed-password.root", |text| Password::hashed(Secret::new(text.to_owned())));
    let keys = stick.parsed("ssh.authorized_keys.root", PublicKey::parse_file).unwrap_or_default();
    reader.problems.append(&mut stick.problems);
    AccessChange { password, keys }
}

struct Reader<'a> {
    origins: &'a [Origin],
    problems: Vec<String>,
}

impl Reader<'_> {
    /// The text of a credential, when there is one.
    fn text(&mut self, name: &str) -> Option<Secret> {
        for origin in self.origins {
            let (Origin::Unit(folder) | Origin::Stick(folder)) = origin;
            match read_file(&folder.join(name)) {
                Ok(Some(text)) => return Some(text),
                Ok(None) => {}
                Err(error) => self.problems.push(format!("credential {name}: {error:#}")),
            }
        }
        None
    }

    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        match parse(text.reveal().trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.push(format!("credential {name}: {problem}"));
                None
            }
        }
    }
}

/// Reads a regular file without following a link; `None` when there is none.
fn read_file(path: &Path) -> Result<Option<Secret>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).context("open flags do not fit")?;
    let file: File = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot open it"),
    };
    ensure!(file.metadata().context("cannot look at it")?.is_file(), "it is not a regular file");
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(MAX_BYTES + 1).read_to_string(&mut text).context("cannot read it as text")?;
    ensure!(text.len() as u64 <= MAX_BYTES, "it is longer than {MAX_BYTES} bytes");
    Ok(Some(Secret::new(text.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Store(tempfile::TempDir);

    impl Store {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn unit(&self) -> Origin {
            Origin::Unit(self.0.path().to_owned())
        }

        fn stick(&self) -> Origin {
            Origin::Stick(self.0.path().to_owned())
        }
    }

    fn zones() -> Vec<String> {
        vec!["Europe/Paris".to_owned()]
    }

    #[test]
    fn everything_by_credentials() {
        let store = Store::with(&[
            ("aos.hostname", "lab\n"),
            ("aos.timezone", "Europe/Paris"),
            ("aos.provider", "openrouter"),
            ("aos.provider-key", "sk-or-1\n"),
            ("aos.wizard", "no"),
        ]);
        let answers = read(&[store.unit()], &zones());
        assert_eq!(answers.problems, Vec::<String>::new());
        assert_eq!(answers.wizard, Wizard::Never);
        let expected =
            ["host name: lab", "time zone: Europe/Paris", "model provider: openrouter and its key"];
        assert_eq!(answers.changes.describe(), expected);
    }

    #[test]
    fn a_bad_one_is_named_without_its_contents() {
        let store = Store::with(&[("aos.hostname", "-bad-"), ("aos.provider-key", "two secret words")]);
        let answers = read(&[store.unit()], &zones());
        assert!(answers.changes.is_empty());
        assert_eq!(answers.problems.len(), 2, "{:?}", answers.problems);
        assert!(answers.problems.iter().all(|line| !line.contains("secret words")));
    }

    #[test]
    fn the_unit_wins_over_a_stick() {
        let unit = Store::with(&[("aos.hostname", "first")]);
        let stick = Store::with(&[("aos.hostname", "second"), ("passwd.hashed-password.root", "$y$j9T$a$b")]);
        let answers = read(&[unit.unit(), stick.stick()], &zones());
        assert_eq!(answers.changes.hostname.unwrap().as_str(), "first");
        assert!(matches!(answers.changes.access.password, Some(Password::Hashed(_))));
        assert_eq!(read(&[stick.unit()], &zones()).changes.access, AccessChange::default());
    }

    #[test]
    fn links_and_long_files_are_not_followed() {
        let store = Store::with(&[("aos.timezone", &"x".repeat(70_000))]);
        std::os::unix::fs::symlink("/etc/hostname", store.0.path().join("aos.hostname")).unwrap();
        let answers = read(&[store.unit()], &zones());
        assert!(answers.changes.is_empty());
        assert_eq!(answers.problems.len(), 2, "{:?}", answers.problems);
    }
}
