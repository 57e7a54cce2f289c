//! Answers as flags of `aos configure`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::access::{AccessChange, Password, PublicKey};
use super::changes::Changes;
use super::hostname::Hostname;
use super::provider::{BaseUrl, ProviderChange, ProviderName, check_key};
use super::secret::Secret;
use super::system::System;
use super::timezone::TimeZone;
use super::wizard::Section;
use crate::environment;
use crate::failure::hinted;

/// The flags of `aos configure`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigureArgs {
    /// Set the host name
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,

    /// Set the time zone, such as Europe/Paris
    #[arg(long, value_name = "ZONE")]
    pub(crate) timezone: Option<String>,

    /// Set root's password to the first line of a file, or of standard input for `-`
    #[arg(long, value_name = "PATH")]
    pub(crate) root_password_from_file: Option<PathBuf>,

    /// Let the SSH public keys of a file (`-`: standard input) log in as root
    #[arg(long, value_name = "PATH")]
    pub(crate) ssh_key_file: Option<PathBuf>,

    /// Set up a model provider: anthropic, openai, deepseek, openrouter, ollama, or any name with --base-url
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,

    /// Take the provider's key from an environment variable
    #[arg(long, value_name = "VAR", requires = "provider", conflicts_with = "key_from_file")]
    pub(crate) key_from_env: Option<String>,

    /// Take the provider's key from a file, or from standard input for `-`
    #[arg(long, value_name = "PATH", requires = "provider")]
    pub(crate) key_from_file: Option<PathBuf>,

    /// The provider's address, such as https://llm.example.org/v1
    #[arg(long, value_name = "URL", requires = "provider")]
    pub(crate) base_url: Option<String>,

    /// Ask about this part only; may be given more than once
    #[arg(long, value_name = "SECTION", conflicts_with_all = ["first_boot", "non_interactive"])]
    pub(crate) section: Vec<Section>,

    /// Run as at the first boot: apply the credentials, and ask on a console if they do not suffice
    #[arg(long, conflicts_with_all = ["hostname", "timezone", "root_password_from_file", "ssh_key_file",
        "provider", "non_interactive"])]
    pub(crate) first_boot: bool,

    /// Never ask; fail when something is missing
    #[arg(long)]
    pub(crate) non_interactive: bool,
}

impl ConfigureArgs {
    /// True when a setting was given, so that no wizard runs.
    pub(crate) fn has_answers(&self) -> bool {
        self.hostname.is_some()
            || self.timezone.is_some()
            || self.root_password_from_file.is_some()
            || self.ssh_key_file.is_some()
            || self.provider.is_some()
    }

    /// The flags as valid changes. `ask_key` asks a person for a key that no flag gives.
    pub(crate) fn changes(
        &self,
        system: &dyn System,
        ask_key: impl Fn(&str) -> Result<Secret>,
    ) -> Result<Changes> {
        self.refuse_shared_input()?;
        let hostname = self.hostname.as_deref().map(Hostname::parse).transpose();
        let time_zone = match &self.timezone {
            Some(zone) => Some(TimeZone::parse(zone, &system.time_zones()?).map_err(flag("--timezone"))?),
            None => None,
        };
        Ok(Changes {
            hostname: hostname.map_err(flag("--hostname"))?,
            time_zone,
            access: self.access()?,
            network: None,
            provider: self.provider(system, ask_key)?,
        })
    }

    fn refuse_shared_input(&self) -> Result<()> {
        let files = [&self.root_password_from_file, &self.ssh_key_file, &self.key_from_file];
        let from_stdin =
            files.iter().filter(|file| file.as_deref().is_some_and(|path| path.as_os_str() == "-"));
        if from_stdin.count() > 1 {
            bail!("standard input can be read once: only one flag can have `-`");
        }
        Ok(())
    }

    fn access(&self) -> Result<AccessChange> {
        let password = match &self.root_password_from_file {
            Some(path) => {
                let secret = Secret::from_path(path).context("--root-password-from-file")?;
                let first = secret.reveal().lines().next().unwrap_or_default().to_owned();
                Some(Password::plain(Secret::new(first)).map_err(flag("--root-password-from-file"))?)
            }
            None => None,
        };
        let keys = match &self.ssh_key_file {
            Some(path) => {
                let text = Secret::from_path(path).context("--ssh-key-file")?;
                PublicKey::parse_file(text.reveal()).map_err(flag("--ssh-key-file"))?
            }
            None => Vec::new(),
        };
        Ok(AccessChange { password, keys })
    }

    fn provider(
        &self,
        system: &dyn System,
        ask_key: impl Fn(&str) -> Result<Secret>,
    ) -> Result<Option<ProviderChange>> {
        let Some(name) = &self.provider else { return Ok(None) };
        let name = ProviderName::parse(name).map_err(flag("--provider"))?;
        let base_url =
            self.base_url.as_deref().map(BaseUrl::parse).transpose().map_err(flag("--base-url"))?;
        let mut change = ProviderChange { name, base_url, key: self.key()? };
        let state = system.provider(&change.name)?;
        let label = change.name.as_str().to_owned();
        if let Err(problem) = change.edit(state.file.as_deref()) {
            return Err(hinted(format!("--provider {label}: {problem}"), "add --base-url https://..."));
        }
        if change.lacks_key(&state) {
            if self.non_interactive {
                let hint = "add --key-from-env VAR or --key-from-file PATH";
                return Err(hinted(format!("provider {label} needs a key"), hint));
            }
            change.key = Some(ask_key(&format!("API key of {label}"))?);
        }
        Ok(Some(change))
    }

    fn key(&self) -> Result<Option<Secret>> {
        let (secret, name) = match (&self.key_from_env, &self.key_from_file) {
            (Some(variable), _) => {
                let text = environment::secret_named_by_operator(variable)
                    .with_context(|| format!("--key-from-env: the variable {variable} is not set"))?;
                (Secret::new(text), "--key-from-env")
            }
            (None, Some(path)) => (Secret::from_path(path).context("--key-from-file")?, "--key-from-file"),
            (None, None) => return Ok(None),
        };
        check_key(&secret).map_err(flag(name))?;
        Ok(Some(secret))
    }
}

/// Names the flag in front of what is wrong with it.
fn flag(name: &'static str) -> impl Fn(String) -> anyhow::Error {
    move |problem| anyhow::anyhow!("{name}: {problem}")
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeSystem;
    use super::super::provider::ProviderState;
    use super::*;

    fn no_person(_: &str) -> Result<Secret> {
        bail!("nobody is there")
    }

    fn changes(args: &ConfigureArgs) -> Result<Changes> {
        args.changes(&FakeSystem::default(), no_person)
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, Option<PathBuf>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = Some(file.path().to_owned());
        (file, path)
    }

    #[test]
    fn flags_become_changes() {
        let (_key_file, key_from_file) = file("sk-1\n");
        let (_password_file, root_password_from_file) = file("correct horse\n");
        let args = ConfigureArgs {
            hostname: Some("lab".into()),
            timezone: Some("europe/paris".into()),
            provider: Some("anthropic".into()),
            key_from_file,
            root_password_from_file,
            ..ConfigureArgs::default()
        };
        let expected = [
            "host name: lab",
            "time zone: Europe/Paris",
            "root's password",
            "model provider: anthropic and its key",
        ];
        assert_eq!(changes(&args).unwrap().describe(), expected);
    }

    #[test]
    fn a_bad_flag_is_named() {
        let with = |edit: fn(&mut ConfigureArgs)| {
            let mut args = ConfigureArgs { non_interactive: true, ..ConfigureArgs::default() };
            edit(&mut args);
            format!("{:#}", changes(&args).unwrap_err())
        };
        assert!(with(|a| a.hostname = Some("a_b".into())).starts_with("--hostname: "));
        assert!(with(|a| a.timezone = Some("Mars".into())).starts_with("--timezone: "));
        assert!(with(|a| a.provider = Some("../x".into())).starts_with("--provider: "));
        assert!(with(|a| a.provider = Some("lab".into())).contains("needs a base URL"));
        assert!(with(|a| a.provider = Some("openai".into())).contains("needs a key"));
    }

    #[test]
    fn a_stored_key_is_not_asked_for_again() {
        let system =
            FakeSystem { provider: ProviderState { file: None, has_key: true }, ..FakeSystem::default() };
        let args = ConfigureArgs { provider: Some("openai".into()), ..ConfigureArgs::default() };
        assert!(args.changes(&system, no_person).is_ok());
        let error = args.changes(&FakeSystem::default(), no_person).unwrap_err();
        assert!(error.to_string().contains("nobody is there"));
    }

    #[test]
    fn standard_input_is_given_once() {
        let dash = Some(PathBuf::from("-"));
        let args = ConfigureArgs {
            root_password_from_file: dash.clone(),
            ssh_key_file: dash,
            ..ConfigureArgs::default()
        };
        assert!(changes(&args).unwrap_err().to_string().contains("only one flag"));
    }
}
